/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* hmc-cli's command line: what is taken, and the sentence for what is not. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/size.h"
#include "hmc-cli/args.h"
#include "hmc-cli/memory.h"
#include "hmc-cli/partition.h"
#include "hmc-cli/profile.h"

#define WORDS_MAX 16

/* Cuts a line at its blanks; a word "''" is empty. */
static int split(char *line, char **argv)
{
        int argc = 0;

        for (char *save, *p = strtok_r(line, " ", &save); p; p = strtok_r(NULL, " ", &save)) {
                assert_true(argc < WORDS_MAX);
                argv[argc++] = strcmp(p, "''") == 0 ? p + 2 : p;
        }
        argv[argc] = NULL;
        return argc;
}

static int parse_memory(const struct cli_verb *verb, struct cli *cli, char *line, struct memory_request *q,
        struct error *error)
{
        char *argv[WORDS_MAX + 1];
        int argc = split(line, argv);

        return memory_parse(cli, verb, argc, argv, q, error);
}

static void test_memory_refused(void **state)
{
        static const struct {
                const struct cli_verb *verb;
                const char *line, *sentence;
        } rows[] = {
                { &verb_add_memory, "add-memory",
                        "PARTITION is missing; write hmc-cli add-memory PARTITION SIZE" },
                { &verb_add_memory, "add-memory web1", "SIZE is missing" },
                { &verb_add_memory, "add-memory web1 --node 1", "SIZE is missing" },
                { &verb_remove_memory, "remove-memory web1",
                        "SIZE is missing; write hmc-cli remove-memory PARTITION SIZE; only --node N" },
                { &verb_remove_memory, "remove-memory", "PARTITION is missing" },
                { &verb_move_memory, "move-memory a b",
                        "SIZE is missing; write hmc-cli move-memory FROM TO SIZE" },
                { &verb_remove_memory, "remove-memory web1 --node 1 --device d", "SIZE is missing" },
                { &verb_remove_memory, "remove-memory web1 --node 1 --drc 0x1", "SIZE is missing" },
                { &verb_remove_memory, "remove-memory web1 0M --node 1", "Size '0M' is zero" },
                { &verb_add_memory, "add-memory web1 2G 3G", "'3G' is one too many" },
                { &verb_add_memory, "add-memory '' 2G", "PARTITION is empty" },
                { &verb_add_memory, "add-memory w\xff 2G", "is not plain text" },
                { &verb_add_memory, "add-memory web1 2", "Size '2' has no unit" },
                { &verb_add_memory, "add-memory web1 0M", "Size '0M' is zero" },
                { &verb_add_memory, "add-memory web1 -512M", "Size '-512M' is negative; write for example" },
                { &verb_add_memory, "add-memory web1 --no-wait -2G", "Size '-2G' is negative" },
                { &verb_add_memory, "add-memory web1 -- -2G", "Size '-2G' is negative" },
                { &verb_add_memory, "add-memory web1 99999999T", "is too large" },
                { &verb_add_memory, "add-memory web1 1.5G", "has a fraction" },
                { &verb_add_memory, "add-memory web1 2G --wait",
                        "Option '--wait' needs a value: --wait TIME" },
                { &verb_add_memory, "add-memory web1 2G --wait 0", "Time '0' is not valid" },
                { &verb_add_memory, "add-memory web1 2G --wait soon", "Time 'soon' is not valid" },
                { &verb_add_memory, "add-memory web1 2G --wait 5s --no-wait",
                        "--wait and --no-wait exclude" },
                { &verb_remove_memory, "remove-memory web1 2G --within 5m --wait 5m",
                        "--within is a limit for the whole job, and excludes --wait" },
                { &verb_remove_memory, "remove-memory web1 2G --within soon", "Time 'soon' is not valid" },
                { &verb_add_memory, "add-memory web1 2G --within 5m", "has no option '--within'" },
                { &verb_add_memory, "add-memory web1 2G --no-wait=yes", "'--no-wait' takes no value" },
                { &verb_add_memory, "add-memory web1 2G --zone up", "write --zone auto, movable or kernel" },
                { &verb_add_memory, "add-memory web1 2G --node -1", "--node '-1' is not a number" },
                { &verb_add_memory, "add-memory web1 2G --node 1x", "--node '1x' is not a number" },
                { &verb_add_memory, "add-memory web1 2G --node 4294967296", "is not a number" },
                { &verb_add_memory, "add-memory web1 2G --method ''", "--method is empty" },
                { &verb_add_memory, "add-memory web1 2G --device d", "add-memory has no option '--device'" },
                { &verb_add_memory, "add-memory web1 2G -x", "add-memory has no option '-x'" },
                { &verb_add_memory, "add-memory web1 2G --no", "add-memory has no option '--no'" },
                { &verb_add_memory, "add-memory web1 2G --dry", "'--dry-run' must be written in full" },
                { &verb_add_memory, "add-memory web1 2G --zon=auto", "'--zone' must be written in full" },
                { &verb_add_memory, "add-memory web1 2G --wai 3s", "'--wait' must be written in full" },
                { &verb_remove_memory, "remove-memory web1 2G --zone auto", "has no option '--zone'" },
                { &verb_remove_memory, "remove-memory web1 2G --drc 1", "'1' is not an index; write 0x" },
                { &verb_remove_memory, "remove-memory web1 2G --drc 80000005",
                        "--drc '80000005' has no 0x and so is not an index; write 0x80000005" },
                { &verb_remove_memory, "remove-memory web1 2G --drc 8000000g",
                        "is not an index; write 0x and" },
                { &verb_remove_memory, "remove-memory web1 2G --drc ''", "is not an index" },
                { &verb_remove_memory, "remove-memory web1 2G --drc -1", "is not an index" },
                { &verb_add_memory, "add-memory web1 2G --drc 0x80000005", "has no option '--drc'" },
                { &verb_remove_memory, "remove-memory web1 2G --drc 0x", "is not an index" },
                { &verb_remove_memory, "remove-memory web1 2G --drc 0X1", "is not an index" },
                { &verb_remove_memory, "remove-memory web1 2G --drc 0x1g", "is not an index" },
                { &verb_remove_memory, "remove-memory web1 2G --drc 0x100000000", "is not an index" },
                { &verb_remove_memory, "remove-memory web1 2G --drc 0x1 --device d",
                        "--device and --drc exclude" },
                { &verb_add_memory, "add-memory web1 2G -o xml", "write -o text or -o json" },
                { &verb_add_memory, "add-memory web1 2G --bus x:y --host a", "--bus and --host exclude" },
                { &verb_add_memory, "add-memory web1 2 --wait never -o json", "Time 'never'" },
                { &verb_set_memory, "set-memory web1", "SIZE is missing" },
                { &verb_set_memory, "set-memory web1 0G", "Size '0G' is zero" },
                { &verb_set_memory, "set-memory web1 2G --device d", "has no option '--device'" },
                { &verb_set_memory, "set-memory web1 2G --within 5m", "has no option '--within'" },
                { &verb_move_memory, "move-memory a 2G", "SIZE is missing" },
                { &verb_move_memory, "move-memory a b 2", "Size '2' has no unit" },
                { &verb_move_memory, "move-memory a a 2G", "from 'a' to itself" },
                { &verb_move_memory, "move-memory a b 2G --return home", "write --return from or pool" },
                { &verb_move_memory, "move-memory a b 2G --node 1", "has no option '--node'" },
                { &verb_add_memory, "add-memory web1 2G --return pool", "has no option '--return'" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct memory_request q = { .size_bytes = 7 };
                struct error error = {};
                struct cli cli = {};
                char line[256];

                strcpy(line, rows[i].line);
                int r = parse_memory(rows[i].verb, &cli, line, &q, &error);
                if (r >= 0 || !strstr(error.message, rows[i].sentence))
                        fail_msg("'%s': %d, '%s', expected '%s'", rows[i].line, r, error.message,
                                rows[i].sentence);
                assert_int_equal(q.size_bytes, 7);
                assert_int_equal(cli.arg_json, strstr(rows[i].line, "json") != NULL);
        }
}

static void test_memory_taken(void **state)
{
        struct memory_request q;
        struct error error;
        struct cli cli = {};
        char line[] = "add-memory --zone kernel web1 --node 1 2G --wait=20s --dry-run --method lmb "
                      "--all-or-nothing -o json";

        assert_int_equal(parse_memory(&verb_add_memory, &cli, line, &q, &error), ARGS_OK);
        assert_string_equal(q.partition, "web1");
        assert_int_equal(q.size_bytes, 2 * GIB);
        assert_string_equal(q.zone, "kernel");
        assert_string_equal(q.method, "lmb");
        assert_true(q.has_node && q.node == 1 && q.dry_run && q.all_or_nothing && !q.no_wait && !q.has_drc);
        assert_int_equal(q.wait_usec, 20 * USEC_PER_SEC);
        assert_null(q.device);
        assert_true(cli.arg_json);

        char within[] = "remove-memory web1 2G --within 10m --no-wait";
        cli = (struct cli) {};
        assert_int_equal(parse_memory(&verb_remove_memory, &cli, within, &q, &error), ARGS_OK);
        assert_true(q.no_wait && q.wait_usec == 0 && q.within_usec == 600 * USEC_PER_SEC);

        char node[] = "remove-memory web1 --node 1";
        cli = (struct cli) {};
        assert_int_equal(parse_memory(&verb_remove_memory, &cli, node, &q, &error), ARGS_OK);
        assert_true(q.has_node && q.node == 1 && q.size_bytes == 0);

        char other[] = "remove-memory web1 1536MiB --drc 0x8000000A --no-wait --bus unix:path=/x";
        cli = (struct cli) {};
        assert_int_equal(parse_memory(&verb_remove_memory, &cli, other, &q, &error), ARGS_OK);
        assert_true(q.has_drc && q.drc == 0x8000000A && q.no_wait && q.wait_usec == 0 && !q.has_node);
        assert_int_equal(q.size_bytes, 1536 * MIB);
        assert_string_equal(cli.arg_bus, "unix:path=/x");
        assert_false(cli.arg_json);

        char help[] = "remove-memory web1 --help --wait x";
        assert_int_equal(parse_memory(&verb_remove_memory, &cli, help, &q, &error), ARGS_HELP);
}

static void test_globals(void **state)
{
        static const struct {
                const char *line;
                int result, index;
                const char *sentence;
        } rows[] = {
                { "hmc-cli", ARGS_OK, 1, NULL },
                { "hmc-cli list", ARGS_OK, 1, NULL },
                { "hmc-cli --bus session -o json list --wrong", ARGS_OK, 5, NULL },
                { "hmc-cli -ojson --host root@a jobs", ARGS_OK, 4, NULL },
                { "hmc-cli --version", ARGS_VERSION, 2, NULL },
                { "hmc-cli --help", ARGS_HELP, 2, NULL },
                { "hmc-cli -h list", ARGS_HELP, 2, NULL },
                { "hmc-cli --bus lab list", -EINVAL, -1, "write system, session, or a D-Bus address" },
                { "hmc-cli --host -oProxyCommand=x list", -EINVAL, -1, "is not a host" },
                { "hmc-cli --host '' list", -EINVAL, -1, "is not a host" },
                { "hmc-cli --bus", -EINVAL, -1, "Option '--bus' needs a value: --bus BUS" },
                { "hmc-cli -o", -EINVAL, -1, "Option '--output' needs a value" },
                { "hmc-cli --wait 3s list", -EINVAL, -1,
                        "hmc-cli has no option '--wait'; see 'hmc-cli --help'" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                char line[128], *argv[WORDS_MAX + 1];
                struct error error = {};
                struct cli cli = {};
                int at = 0;

                strcpy(line, rows[i].line);
                int argc = split(line, argv), r = args_parse_globals(&cli, argc, argv, &at, &error);
                if (r != rows[i].result || (rows[i].index >= 0 && at != rows[i].index) ||
                        (rows[i].sentence && !strstr(error.message, rows[i].sentence)))
                        fail_msg("'%s': %d at %d, '%s'", rows[i].line, r, at, error.message);
        }
}

static void test_define(void **state)
{
        static const struct {
                const char *line, *sentence;
        } rows[] = {
                { "define web1", "--qmp is missing; write hmc-cli define PARTITION --qmp SOCKET" },
                { "define web1 --qmp /q", "--channel is missing" },
                { "define web1 --qmp '' --channel /c", "--qmp is empty" },
                { "define web1 --qmp /q --channel /c --max 3", "Size '3' has no unit" },
                { "define web1 --qmp /q --channel /c --weight 1.5", "--weight '1.5' is not a number" },
                { "define --qmp /q --channel /c", "PARTITION is missing; write hmc-cli define PARTITION" },
                { "define web1 --qmp q --channel /c --host root@a",
                        "with --host a socket's path must be absolute" },
        };
        char line[256], *argv[WORDS_MAX + 1];

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                _cleanup_(define_request_done) struct define_request q = {};
                struct error error = {};
                struct cli cli = {};

                strcpy(line, rows[i].line);
                int argc = split(line, argv), r = define_parse(&cli, &verb_define, argc, argv, &q, &error);
                if (r >= 0 || !strstr(error.message, rows[i].sentence))
                        fail_msg("'%s': %d, '%s'", rows[i].line, r, error.message);
        }

        _cleanup_(define_request_done) struct define_request q = {};
        _cleanup_free_ char *folder = getcwd(NULL, 0);
        struct error error;
        struct cli cli = {};

        strcpy(line, "define web1 --qmp /a --qmp /run/q --channel sub/c --min 1G --max 16G --weight 7");
        int argc = split(line, argv);
        assert_int_equal(define_parse(&cli, &verb_define, argc, argv, &q, &error), ARGS_OK);
        assert_string_equal(q.name, "web1");
        assert_string_equal(q.qmp, "/run/q");
        assert_memory_equal(q.channel, folder, strlen(folder));
        assert_string_equal(q.channel + strlen(q.channel) - 6, "/sub/c");
        assert_true(q.min_bytes == GIB && q.desired_bytes == 0 && q.max_bytes == 16 * GIB);
        assert_true(q.has_weight && q.weight == 7);
}

static void test_moves(void **state)
{
        struct memory_request q = { 0 };
        struct error error;
        struct cli cli = {};
        char set[] = "set-memory web1 5G --method balloon --dry-run";
        char move[] = "move-memory a b 1G --return pool --wait 5s --all-or-nothing";

        assert_int_equal(parse_memory(&verb_set_memory, &cli, set, &q, &error), ARGS_OK);
        assert_string_equal(q.partition, "web1");
        assert_null(q.peer);
        assert_int_equal(q.size_bytes, 5 * GIB);
        assert_true(q.dry_run);
        assert_int_equal(parse_memory(&verb_move_memory, &cli, move, &q, &error), ARGS_OK);
        assert_string_equal(q.partition, "a");
        assert_string_equal(q.peer, "b");
        assert_int_equal(q.size_bytes, GIB);
        assert_string_equal(q.back, "pool");
        assert_true(q.all_or_nothing);
}

static int parse_profile(char *line, struct profile_request *q, struct error *error)
{
        char *argv[WORDS_MAX + 1];
        struct cli cli = {};
        int argc = split(line, argv);

        return profile_parse(&cli, &verb_profile, argc, argv, q, error);
}

static void test_profile(void **state)
{
        char change[] = "profile web1 --min none --desired 2G --weight 7", look[] = "profile web1";
        char size[] = "profile web1 --min 2", weight[] = "profile web1 --weight -1", none[] = "profile";
        struct profile_request q;
        struct error error;

        assert_int_equal(parse_profile(change, &q, &error), ARGS_OK);
        assert_string_equal(q.partition, "web1");
        assert_true(q.min.is_given && q.min.bytes == 0);
        assert_true(q.desired.is_given && q.desired.bytes == 2 * GIB);
        assert_false(q.max.is_given);
        assert_true(q.has_weight && q.weight == 7);
        assert_int_equal(parse_profile(look, &q, &error), ARGS_OK);
        assert_false(q.min.is_given || q.desired.is_given || q.max.is_given || q.has_weight);
        assert_true(parse_profile(size, &q, &error) < 0);
        assert_non_null(strstr(error.message, "has no unit"));
        assert_true(parse_profile(weight, &q, &error) < 0);
        assert_non_null(strstr(error.message, "--weight"));
        assert_true(parse_profile(none, &q, &error) < 0);
        assert_non_null(strstr(error.message, "PARTITION is missing"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_memory_refused),
                cmocka_unit_test(test_moves),
                cmocka_unit_test(test_profile),
                cmocka_unit_test(test_memory_taken),
                cmocka_unit_test(test_globals),
                cmocka_unit_test(test_define),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
