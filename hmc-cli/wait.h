/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include "hmc-cli/cli.h"

struct wait_options {
        const char *partition; /* its name, for errors */
        bool no_wait;          /* end as soon as hvd has taken the job */
        bool dry_run;          /* print the plan, not the result */
};

/* Sends a call that hvd answers with a job's path, follows that job to its end and prints the result. Takes
 * cli->bus, connected; the caller keeps the message. Exit code. */
int wait_for_job(struct cli *cli, sd_bus_message *call, const struct wait_options *options);
