/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include <systemd/sd-bus.h>

#include "common/error.h"

/* What scripts rely on. */
enum cli_exit {
        CLI_DONE = 0,
        CLI_FAILED = 1, /* the job failed, or hvd refused */
        CLI_USAGE = 2,  /* nothing was sent */
        CLI_UNREACHABLE = 3,
        CLI_PARTIAL = 64,
        CLI_INTERRUPTED = 130,
};

/* The global options, and the connection once bus_open() has made it. Strings are borrowed from argv. */
struct cli {
        const char *arg_bus;  /* NULL is "system" */
        const char *arg_host; /* NULL is this host */
        bool arg_json;
        sd_bus *bus;
};

/* An option of a command: one table drives parsing, help and the messages about misuse. */
struct cli_option {
        const char *name;
        int id;               /* above 255 */
        const char *argument; /* what help calls its value; NULL if it takes none */
        const char *help;
};

#define CLI_POSITIONALS_MAX 3

struct cli_verb {
        const char *name;
        const char *positionals[CLI_POSITIONALS_MAX + 1]; /* ended by NULL */
        int n_optional;                                   /* the last so many need not be there */
        const char *help;
        const struct cli_option *options; /* ended by a NULL name; NULL if there are none */

        /* Called for each option of the verb. 0, or -errno with *ret_error set. */
        int (*option)(void *request, int id, const char *value, struct error *ret_error);
        /* Does the whole command, argv[0] being its name; returns an exit code, all that is to be said having
         * been said. */
        int (*run)(struct cli *cli, const struct cli_verb *verb, int argc, char **argv);
};

/* The verbs, by their files. */
extern const struct cli_verb verb_define, verb_undefine, verb_list, verb_show;
extern const struct cli_verb verb_jobs, verb_cancel;
extern const struct cli_verb verb_add_memory, verb_remove_memory, verb_set_memory, verb_move_memory;
extern const struct cli_verb verb_profile;
extern const struct cli_verb verb_memory_map;
extern const struct cli_verb verb_pool;
extern const struct cli_verb verb_enroll;
extern const struct cli_verb verb_policy, verb_explain, verb_watch;
