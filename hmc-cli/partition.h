/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "common/json.h"
#include "hmc-cli/cli.h"

/* What define was asked for. `name` is borrowed from argv, the paths are owned and absolute; 0: not given. */
struct define_request {
        const char *name;
        char *qmp, *channel;
        uint64_t min_bytes, desired_bytes, max_bytes;
        bool has_weight, remote;
        uint32_t weight;
};

void define_request_done(struct define_request *q);
/* An args_result, or -errno with *ret_error set. define_request_done() is due in every case. */
int define_parse(struct cli *cli, const struct cli_verb *verb, int argc, char **argv,
        struct define_request *ret, struct error *ret_error);

/* The table of list and the sheet of show, from what bus_read_properties() gives. 0 or -errno. */
int partition_print_list(FILE *f, struct json_object *partitions);
int partition_print_sheet(FILE *f, struct json_object *partition);
