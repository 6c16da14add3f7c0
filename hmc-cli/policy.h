/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <systemd/sd-bus.h>

#include "common/json.h"
#include "hmc-cli/cli.h"

/* off, observe or auto, or for a partition host; `what` names it in the sentence ("--policy"). *ret is
 * static.
 */
int policy_parse_mode(
        const char *what, const char *value, bool of_partition, const char **ret, struct error *ret_error);
/* Sets PolicyMode of the manager's or a partition's object. 0 or -errno with *e. */
int policy_set_mode(
        const struct cli *cli, const char *path, const char *interface, const char *mode, sd_bus_error *e);

/* "14:03:07.250", the local time of a CLOCK_REALTIME. */
#define POLICY_TIME_MAX 32
const char *policy_time(uint64_t usec, char buffer[static POLICY_TIME_MAX]);
/* What Explain() or ExplainDecision() gave, in sentences and then figure by figure. */
void policy_print_explanation(FILE *f, struct json_object *explanation);
/* What ListDecisions() gave, as objects whose `decision` is one: a row each. 0 or -errno. */
int policy_print_decisions(FILE *f, struct json_object *decisions);
