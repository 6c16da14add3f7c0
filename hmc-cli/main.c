/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* hmc-cli, the operator's console: finds the command and runs it. */

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "hmc-cli/args.h"
#include "hmc-cli/bus.h"
#include "hmc-cli/output.h"

static const struct cli_verb *const verbs[] = {
        &verb_list,
        &verb_show,
        &verb_memory_map,
        &verb_define,
        &verb_undefine,
        &verb_enroll,
        &verb_add_memory,
        &verb_remove_memory,
        &verb_set_memory,
        &verb_move_memory,
        &verb_profile,
        &verb_jobs,
        &verb_cancel,
        &verb_pool,
        &verb_policy,
        &verb_explain,
        &verb_watch,
};

static const struct cli_verb *find_verb(const char *name)
{
        for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
                if (strcmp(verbs[i]->name, name) == 0)
                        return verbs[i];
        return NULL;
}

static void print_verbs(FILE *f)
{
        fputs("Commands:\n", f);
        for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
                const struct cli_verb *v = verbs[i];
                int width = fprintf(f, "  %s", v->name);

                width += args_print_positionals(v, f);
                fprintf(f, "%*s%s\n", MAX(1, 33 - width), "", v->help);
        }
        fputs("  help [COMMAND]                 Help on all, or on one command\n", f);
}

static int print_help(void)
{
        puts("hmc-cli [--bus BUS | --host USER@HOST] [-o text|json] COMMAND\n\n"
             "Moves memory in and out of running QEMU guests, through hvd.\n");
        print_verbs(stdout);
        puts("\nGlobal options:");
        args_print_global_options(stdout);
        puts("\nA size is a whole number and a unit: 512M, 2G, 1536MiB.\n"
             "Exit codes: 0 done, 1 failed or refused, 2 usage, 3 hvd out of reach, 64 done in part.");
        return CLI_DONE;
}

static int fail_command(const struct cli *cli, const char *name)
{
        int r = name ? output_fail(cli, CLI_USAGE, error_code_name(ERROR_INVALID_ARGUMENT),
                               "Unknown command '%s'", name)
                     : output_fail(cli, CLI_USAGE, error_code_name(ERROR_INVALID_ARGUMENT),
                               "A command is missing");

        print_verbs(stderr);
        return r;
}

static int run_help(const struct cli *cli, int argc, char **argv)
{
        const struct cli_verb *verb;

        if (argc < 2 || argv[1][0] == '-')
                return print_help();
        verb = find_verb(argv[1]);
        if (!verb)
                return fail_command(cli, argv[1]);
        args_print_help(verb, stdout);
        return CLI_DONE;
}

static int run(struct cli *cli, int argc, char **argv)
{
        const struct cli_verb *verb;
        struct error error;
        int r, i;

        r = args_parse_globals(cli, argc, argv, &i, &error);
        if (r == ARGS_HELP)
                return print_help();
        if (r == ARGS_VERSION) {
                puts("hmc-cli " PROJECT_VERSION);
                return CLI_DONE;
        }
        if (r < 0)
                return output_fail(cli, CLI_USAGE, error_code_name(error.code), "%s", error.message);
        if (i >= argc)
                return fail_command(cli, NULL);
        if (strcmp(argv[i], "help") == 0)
                return run_help(cli, argc - i, argv + i);
        verb = find_verb(argv[i]);
        if (!verb)
                return fail_command(cli, argv[i]);
        return verb->run(cli, verb, argc - i, argv + i);
}

int main(int argc, char **argv)
{
        struct cli cli = {};

        /* ssh may go away under --host; the write's error says so better than the signal. */
        signal(SIGPIPE, SIG_IGN);
        int r = run(&cli, argc, argv);
        bus_close(&cli);

        /* A result that nobody could read is no success. */
        if ((fflush(stdout) != 0 || ferror(stdout)) && r == CLI_DONE)
                r = errno == EPIPE ? CLI_FAILED
                                   : output_fail(&(struct cli) {}, CLI_FAILED, "internal", "Cannot write: %s",
                                             strerror(errno));
        return r;
}
