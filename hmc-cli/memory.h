/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

#include "hmc-cli/cli.h"

/* What add-memory, remove-memory, set-memory and move-memory were asked for. Strings are borrowed from argv;
 * NULL and false: not given. */
struct memory_request {
        const char *partition, *peer; /* the latter of a move: who gets it */
        uint64_t size_bytes;          /* 0: all of the node */
        const char *method, *zone, *device, *back;
        bool has_drc, has_node, no_wait, dry_run, all_or_nothing, config;
        uint32_t drc, node;
        uint64_t wait_usec, within_usec; /* 0: not given */
};

/* An args_result, or -errno with *ret_error set. */
int memory_parse(struct cli *cli, const struct cli_verb *verb, int argc, char **argv,
        struct memory_request *ret, struct error *ret_error);
