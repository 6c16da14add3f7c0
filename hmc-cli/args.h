/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "hmc-cli/cli.h"

enum args_result {
        ARGS_OK = 0,
        ARGS_HELP = 1,    /* --help was given */
        ARGS_VERSION = 2, /* --version was given; only before the command */
};

/* Parses the global options up to the command, whose index in argv goes to *ret_index (argc if there is
 * none). An args_result, or -EINVAL with *ret_error set; cli is filled in as far as it goes, so that an error
 * can be written in the form that was asked for. */
int args_parse_globals(struct cli *cli, int argc, char **argv, int *ret_index, struct error *ret_error);

/* Parses a command: options (global ones too) before, between and behind the positionals, of which
 * ret_positionals receives the ones that the verb names (NULL for one that is optional and not there).
 * Results as above. */
int args_parse(struct cli *cli, const struct cli_verb *verb, int argc, char **argv, void *request,
        const char *ret_positionals[CLI_POSITIONALS_MAX], struct error *ret_error);

/* The end of a command that parsed to anything but ARGS_OK: prints help or the error. Returns an exit code.
 */
int args_finish(const struct cli *cli, const struct cli_verb *verb, int result, const struct error *error);

/* "add-memory PARTITION SIZE [OPTION...]" and a line for each option. */
void args_print_help(const struct cli_verb *verb, FILE *f);
/* " PARTITION [SIZE]"; returns its width. */
int args_print_positionals(const struct cli_verb *verb, FILE *f);
void args_print_global_options(FILE *f);

/* A whole decimal number of at most 32 bits; `what` names it in the sentence ("--node"). */
int args_parse_u32(const char *what, const char *s, uint32_t *ret, struct error *ret_error);
/* The same, as "0x" and hexadecimal digits. */
int args_parse_hex32(const char *what, const char *s, uint32_t *ret, struct error *ret_error);
/* A string that may travel on the bus: not empty, valid UTF-8. */
int args_parse_string(const char *what, const char *s, const char **ret, struct error *ret_error);
