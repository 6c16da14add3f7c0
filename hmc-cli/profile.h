/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

#include "hmc-cli/cli.h"

struct profile_size {
        bool is_given;
        uint64_t bytes; /* 0: none */
};

/* What profile was asked for. */
struct profile_request {
        const char *partition; /* borrowed from argv */
        struct profile_size min, desired, max;
        bool has_weight;
        uint32_t weight;
        const char *policy; /* NULL: not given */
};

/* An args_result, or -errno with *ret_error set. */
int profile_parse(struct cli *cli, const struct cli_verb *verb, int argc, char **argv,
        struct profile_request *ret, struct error *ret_error);
