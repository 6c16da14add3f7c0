/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The command line: getopt_long behind tables. getopt's own messages are off, because each error here is one
 * sentence that says what would be right, and in JSON too. After the first error parsing goes on, so that an
 * "-o json" further right still decides the error's form. */

#include "hmc-cli/args.h"

#include <getopt.h>
#include <string.h>

#include "common/size.h"
#include "common/text.h"
#include "hmc-cli/output.h"

#define OPTIONS_MAX 24

enum {
        OPTION_FIRST = 0xFF,
        OPTION_BUS,
        OPTION_HOST,
        OPTION_OUTPUT,
        OPTION_HELP,
        OPTION_VERSION,
        OPTION_GLOBAL_MAX,
};

static const struct cli_option global_options[] = {
        { "bus", OPTION_BUS, "BUS", "system, session, or a D-Bus address (system)" },
        { "host", OPTION_HOST, "USER@HOST", "Talk to hvd on another host, through ssh" },
        { "output", OPTION_OUTPUT, "FORMAT", "-o: text or json (text)" },
        { "help", OPTION_HELP, NULL, "-h: This help; also behind a command" },
        { "version", OPTION_VERSION, NULL, "The version" },
        {},
};

static int parse_global(struct cli *cli, int id, const char *value, struct error *ret_error)
{
        switch (id) {
        case OPTION_BUS:
                if (strcmp(value, "system") != 0 && strcmp(value, "session") != 0 && !strchr(value, ':'))
                        return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                                "--bus '%.80s' is not a bus; write system, session, or a D-Bus address such "
                                "as "
                                "unix:path=/run/bus",
                                value);
                cli->arg_bus = value;
                return 0;
        case OPTION_HOST:
                /* ssh would take a leading dash for an option. */
                if (value[0] == '-' || value[0] == '\0' || strpbrk(value, " \t\n"))
                        return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                                "--host '%.80s' is not a host; write for example root@host.example", value);
                cli->arg_host = value;
                return 0;
        case OPTION_OUTPUT:
                if (strcmp(value, "text") != 0 && strcmp(value, "json") != 0)
                        return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                                "Output '%.40s' is unknown; write -o text or -o json", value);
                cli->arg_json = value[0] == 'j';
                return 0;
        default:
                return -EINVAL;
        }
}

static void append_options(struct option *all, size_t *n, const struct cli_option *options)
{
        for (; options && options->name && *n < OPTIONS_MAX; options++)
                all[(*n)++] = (struct option) {
                        .name = options->name,
                        .has_arg = options->argument ? required_argument : no_argument,
                        .val = options->id,
                };
}

static const struct cli_option *find_option(const struct cli_option *options, int id)
{
        for (; options && options->name; options++)
                if (options->id == id)
                        return options;
        return NULL;
}

static const struct cli_option *find_any(const struct cli_verb *verb, int id)
{
        if (id == 'o')
                id = OPTION_OUTPUT;
        return find_option(global_options, id) ?: find_option(verb ? verb->options : NULL, id);
}

/* Says what getopt stumbled over, which it tells by optopt and optind alone. */
static int option_error(const struct cli_verb *verb, int c, int argc, char **argv, struct error *ret_error)
{
        const struct cli_option *option = find_any(verb, optopt);
        const char *word = argv[optind - 1];
        const char *name = verb ? verb->name : "hmc-cli";
        const char *command = verb ? " " : "", *command_name = verb ? verb->name : "";

        if (c == ':' && option)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT, "Option '--%s' needs a value: --%s %s",
                        option->name, option->name, option->argument);
        if (option)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Option '--%s' takes no value; write it alone", option->name);
        if (optopt >= '0' && optopt <= '9') {
                /* A negative size looks like a cluster of short options, and getopt stands inside of it. */
                uint64_t bytes;
                if (word[0] != '-' || word[1] != optopt)
                        word = optind < argc ? argv[optind] : word;
                return size_parse(word, &bytes, ret_error);
        }
        if (optopt > 0 && optopt < 0x80)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "%s has no option '-%c'; see 'hmc-cli%s%s --help'", name, optopt, command,
                        command_name);
        return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                "%s has no option '%.60s'; see 'hmc-cli%s%s --help'", name, word, command, command_name);
}

/* getopt_long takes "--no-w" for --no-wait, until an option is added that makes it another one's. Scripts
 * must not come to rely on that. */
static bool is_abbreviated(const char *name, char **argv)
{
        const char *word = argv[optind - 1];

        if (optarg == word)
                word = argv[optind - 2]; /* "--wait 20s" */
        size_t length = strlen(name);
        return strncmp(word, "--", 2) == 0 && (strncmp(word + 2, name, length) != 0 ||
                                                      (word[2 + length] != '\0' && word[2 + length] != '='));
}

static int parse(struct cli *cli, const struct cli_verb *verb, int argc, char **argv, void *request,
        struct error *ret_error)
{
        struct option all[OPTIONS_MAX + 1] = {};
        size_t n = 0;
        int c, i = 0, first = 0;
        bool help = false, version = false;

        append_options(all, &n, global_options);
        append_options(all, &n, verb ? verb->options : NULL);
        opterr = 0;
        optind = 0; /* also resets what glibc remembers of an earlier scan */

        /* "+": the first word that is no option is the command. */
        while ((c = getopt_long(argc, argv, verb ? ":o:h" : "+:o:h", all, &i)) != -1) {
                struct error error = {};
                int r = 0;

                if (c == '?' || c == ':')
                        r = option_error(verb, c, argc, argv, &error);
                else if (c > OPTION_FIRST && is_abbreviated(all[i].name, argv))
                        r = error_set(&error, ERROR_INVALID_ARGUMENT, "Option '--%s' must be written in full",
                                all[i].name);
                else if (c == 'h' || c == OPTION_HELP)
                        help = true;
                else if (c == OPTION_VERSION)
                        version = true;
                else if (c < OPTION_GLOBAL_MAX)
                        r = parse_global(cli, c == 'o' ? OPTION_OUTPUT : c, optarg, &error);
                else
                        r = verb->option(request, c, optarg, &error);
                if (r < 0 && first == 0) {
                        first = r;
                        *ret_error = error;
                }
        }
        if (help)
                return ARGS_HELP;
        if (first < 0)
                return first;
        if (cli->arg_bus && cli->arg_host)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "--bus and --host exclude each other; --host talks to the other host's system bus");
        return version ? ARGS_VERSION : ARGS_OK;
}

int args_parse_globals(struct cli *cli, int argc, char **argv, int *ret_index, struct error *ret_error)
{
        int r = parse(cli, NULL, argc, argv, NULL, ret_error);

        *ret_index = optind;
        return r;
}

static int fail_missing(const struct cli_verb *verb, const char *what, struct error *ret_error)
{
        char words[128] = "";

        for (size_t i = 0, n = 0; verb->positionals[i] && n < sizeof(words); i++)
                n += (size_t)snprintf(words + n, sizeof(words) - n, " %s", verb->positionals[i]);
        return error_set(ret_error, ERROR_INVALID_ARGUMENT, "%s is missing; write hmc-cli %s%s", what,
                verb->name, words);
}

int args_parse(struct cli *cli, const struct cli_verb *verb, int argc, char **argv, void *request,
        const char *ret_positionals[CLI_POSITIONALS_MAX], struct error *ret_error)
{
        int most = 0, given, r;

        r = parse(cli, verb, argc, argv, request, ret_error);
        if (r == ARGS_VERSION)
                return ARGS_HELP;
        if (r != ARGS_OK)
                return r;

        while (verb->positionals[most])
                most++;
        given = argc - optind;
        if (given > most)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Argument '%.60s' is one too many; see 'hmc-cli %s --help'", argv[optind + most],
                        verb->name);
        if (given < most - verb->n_optional)
                return fail_missing(verb, verb->positionals[given], ret_error);
        for (int i = 0; i < most; i++) {
                ret_positionals[i] = NULL;
                if (i >= given)
                        continue;
                r = args_parse_string(verb->positionals[i], argv[optind + i], &ret_positionals[i], ret_error);
                if (r < 0)
                        return r;
        }
        return ARGS_OK;
}

int args_finish(const struct cli *cli, const struct cli_verb *verb, int result, const struct error *error)
{
        if (result == ARGS_HELP) {
                args_print_help(verb, stdout);
                return CLI_DONE;
        }
        return output_fail(cli, CLI_USAGE, error_code_name(error->code), "%s", error->message);
}

static void print_options(const struct cli_option *options, FILE *f)
{
        for (; options && options->name; options++)
                fprintf(f, "  --%s%s%-*s %s\n", options->name, options->argument ? " " : "",
                        MAX(1, 19 - (int)strlen(options->name) - (options->argument ? 1 : 0)),
                        options->argument ?: "", options->help);
}

void args_print_global_options(FILE *f)
{
        print_options(global_options, f);
}

int args_print_positionals(const struct cli_verb *verb, FILE *f)
{
        int n = 0, width = 0;

        while (verb->positionals[n])
                n++;
        for (int i = 0; i < n; i++)
                width += fprintf(f, i < n - verb->n_optional ? " %s" : " [%s]", verb->positionals[i]);
        return width;
}

void args_print_help(const struct cli_verb *verb, FILE *f)
{
        fprintf(f, "hmc-cli %s", verb->name);
        args_print_positionals(verb, f);
        fprintf(f, "%s\n\n%s.\n", verb->options ? " [OPTION...]" : "", verb->help);
        if (verb->options) {
                fputs("\nOptions:\n", f);
                print_options(verb->options, f);
        }
        fputs("\nGlobal options:\n", f);
        args_print_global_options(f);
}

static int parse_number(const char *digits, unsigned base, uint32_t *ret)
{
        uint32_t v = 0;

        if (*digits == '\0')
                return -EINVAL;
        for (const char *p = digits; *p; p++) {
                unsigned d;

                if (*p >= '0' && *p <= '9')
                        d = (unsigned)(*p - '0');
                else if ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'f')
                        d = (unsigned)((*p | 0x20) - 'a') + 10;
                else
                        return -EINVAL;
                if (d >= base || __builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, d, &v))
                        return -EINVAL;
        }
        *ret = v;
        return 0;
}

int args_parse_u32(const char *what, const char *s, uint32_t *ret, struct error *ret_error)
{
        if (parse_number(s, 10, ret) < 0)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "%s '%.40s' is not a number; write a whole decimal number from 0 to 4294967295", what,
                        s);
        return 0;
}

int args_parse_hex32(const char *what, const char *s, uint32_t *ret, struct error *ret_error)
{
        uint32_t bare;

        /* Never taken for what it may have been meant as: 80000005 and 5 are as good as counts. */
        if (strlen(s) == 8 && parse_number(s, 16, &bare) >= 0)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "%s '%.40s' has no 0x and so is not an index; write 0x%.8s", what, s, s);
        if (s[0] != '0' || s[1] != 'x' || parse_number(s + 2, 16, ret) < 0)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "%s '%.40s' is not an index; write 0x and at most 8 hexadecimal digits, for example "
                        "0x80000001",
                        what, s);
        return 0;
}

int args_parse_string(const char *what, const char *s, const char **ret, struct error *ret_error)
{
        if (*s == '\0')
                return error_set(ret_error, ERROR_INVALID_ARGUMENT, "%s is empty", what);
        if (!text_is_printable(s))
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "%s '%.60s' is not plain text (UTF-8 without control characters)", what, s);
        *ret = s;
        return 0;
}
