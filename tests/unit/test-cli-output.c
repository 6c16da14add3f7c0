/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What hmc-cli writes, from properties as hvd sends them. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <json-c/linkhash.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "common/size.h"
#include "hmc-cli/bus.h"
#include "hmc-cli/output.h"
#include "hmc-cli/partition.h"
#include "hmc-cli/policy.h"
#include "hmc-cli/report.h"

static struct json_object *parse(const char *text)
{
        struct json_object *o = NULL;

        if (json_parse(text, strlen(text), &o) < 0)
                fail_msg("not JSON: %s", text);
        return o;
}

static void test_figures(void **state)
{
        static const struct {
                uint64_t usec;
                const char *text;
        } spans[] = {
                { 0, "0.00 s" },
                { 240000, "0.24 s" },
                { 9994999, "9.99 s" },
                { 9996000, "10.0 s" },
                { 20000000, "20.0 s" },
                { 59940000, "59.9 s" },
                { 59960000, "1 min 0 s" },
                { 125000000, "2 min 5 s" },
                { 3599600000, "1 h 0 min" },
                { 4200000000, "1 h 10 min" },
        };
        static const struct {
                uint64_t bytes;
                const char *text;
        } sizes[] = {
                { 0, "0" },
                { 512, "512 B" },
                { 512 * MIB, "512 MiB" },
                { 1536 * MIB, "1.5 GiB" },
                { 1152 * MIB, "1152 MiB" },
                { 831795 * KIB, "812 MiB" },
                { 1023 * MIB + 900 * KIB, "1.00 GiB" },
                { UINT64_C(33333333333), "31.04 GiB" },
                { 3 * TIB + 1, "3.00 TiB" },
        };
        char key[32];

        for (size_t i = 0; i < ARRAY_SIZE(spans); i++)
                assert_string_equal(TEXT_SPAN(spans[i].usec), spans[i].text);
        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
                assert_string_equal(TEXT_SIZE(sizes[i].bytes), sizes[i].text);

        text_snake_case("PoolTotal", key, sizeof(key));
        assert_string_equal(key, "pool_total");
        text_snake_case("Id", key, sizeof(key));
        assert_string_equal(key, "id");
        text_snake_case("ABC", key, 4);
        assert_string_equal(key, "a_b");
}

#define ADD2    "\"partition\":\"web1\",\"kind\":\"add-memory\",\"requested_bytes\":2147483648,"
#define REMOVE2 "\"partition\":\"web1\",\"kind\":\"remove-memory\",\"requested_bytes\":2147483648,"
#define SET5    "\"partition\":\"web1\",\"kind\":\"set-memory\",\"target_bytes\":5368709120,"
#define MOVE2   "\"partition\":\"a\",\"peer\":\"b\",\"kind\":\"move-memory\",\"requested_bytes\":2147483648,"
#define NOW3    "{\"current_bytes\":3221225472,\"max_bytes\":17179869184}"
#define HEADROOM                                                                                             \
        "{\"device\":\"opendlpar-dimm-3\",\"block\":\"0x140000000\",\"code\":\"no-headroom\",\"message\":"   \
        "\"It "                                                                                              \
        "is\\u001b[31m full\"}"
#define LATE "{\"device\":\"\",\"block\":\"\",\"code\":\"deadline\",\"message\":\"20 s passed\"}"

static void test_report(void **state)
{
        static const struct {
                const char *job, *partition, *text;
                int exit_code;
        } rows[] = {
                { "{" ADD2 "\"state\":\"DONE\",\"done_bytes\":2147483648,\"movable_bytes\":2147483648,"
                  "\"elapsed_usec\":240000}",
                        NOW3, "web1: added 2 GiB in 0.24 s, all in zone Movable; now 3 GiB of 16 GiB\n",
                        CLI_DONE },
                { "{" ADD2 "\"state\":\"DONE\",\"done_bytes\":2147483648,\"kernel_bytes\":2147483648,"
                  "\"elapsed_usec\":240000,\"reasons\":[" LATE "]}",
                        NULL, "web1: added 2 GiB in 0.24 s, all in kernel zones\n", CLI_DONE },
                { "{" ADD2 "\"state\":\"PARTIAL\",\"done_bytes\":1610612736,\"movable_bytes\":1073741824,"
                  "\"kernel_bytes\":536870912,\"elapsed_usec\":240000,\"reasons\":[" LATE "]}",
                        NOW3,
                        "web1: added 1.5 GiB of 2 GiB in 0.24 s, 1 GiB in Movable, 512 MiB in kernel zones; "
                        "now 3 GiB "
                        "of 16 GiB\n  deadline: 20 s passed\n",
                        CLI_PARTIAL },
                { "{" REMOVE2 "\"state\":\"DONE\",\"done_bytes\":2147483648,\"elapsed_usec\":240000,"
                  "\"movable_bytes\":5}",
                        NOW3, "web1: removed 2 GiB in 0.24 s; now 3 GiB of 16 GiB\n", CLI_DONE },
                { "{" REMOVE2 "\"state\":\"DONE\",\"done_bytes\":2147483648,\"elapsed_usec\":240000,"
                  "\"reasons\":[],\"notes\":[\"A busy block was tried again\",\"\\u001b[31mTwo\"]}",
                        NOW3,
                        "web1: removed 2 GiB in 0.24 s; now 3 GiB of 16 GiB\n"
                        "  note: A busy block was tried again\n  note:  [31mTwo\n",
                        CLI_DONE },
                { "{" REMOVE2 "\"state\":\"CANCELLED\",\"elapsed_usec\":3100000,\"notes\":[\"Not begun\"]}",
                        NOW3, "web1: nothing removed of 2 GiB in 3.10 s: cancelled\n  note: Not begun\n",
                        CLI_FAILED },
                { "{" REMOVE2 "\"state\":\"PARTIAL\",\"done_bytes\":1610612736,\"elapsed_usec\":20000000,"
                  "\"reasons\":[" HEADROOM "," LATE "]}",
                        NOW3,
                        "web1: removed 1.5 GiB of 2 GiB in 20.0 s; now 3 GiB of 16 GiB\n"
                        "  opendlpar-dimm-3, block 0x140000000: no-headroom: It is [31m full\n"
                        "  deadline: 20 s passed\n",
                        CLI_PARTIAL },
                { "{" REMOVE2 "\"state\":\"FAILED\",\"done_bytes\":0,\"elapsed_usec\":20000000,"
                  "\"reasons\":[" LATE "," HEADROOM "]}",
                        NOW3,
                        "web1: nothing removed of 2 GiB in 20.0 s: deadline: 20 s passed\n"
                        "  opendlpar-dimm-3, block 0x140000000: no-headroom: It is [31m full\n",
                        CLI_FAILED },
                { "{" SET5 "\"state\":\"DONE\",\"direction\":\"add\",\"requested_bytes\":2147483648,"
                  "\"done_bytes\":2147483648,\"movable_bytes\":2147483648,\"elapsed_usec\":240000}",
                        NOW3,
                        "web1: set to 5 GiB, added 2 GiB in 0.24 s, all in zone Movable; now 3 GiB of 16 "
                        "GiB\n",
                        CLI_DONE },
                { "{" SET5 "\"state\":\"PARTIAL\",\"direction\":\"remove\",\"requested_bytes\":2147483648,"
                  "\"done_bytes\":1073741824,\"elapsed_usec\":240000,\"reasons\":[" LATE "]}",
                        NOW3,
                        "web1: removed 1 GiB of 2 GiB in 0.24 s; now 3 GiB of 16 GiB\n"
                        "  deadline: 20 s passed\n",
                        CLI_PARTIAL },
                { "{" SET5 "\"state\":\"DONE\",\"elapsed_usec\":10000,\"notes\":[\"it has it already\"]}",
                        NOW3,
                        "web1: set to 5 GiB in 0.01 s; now 3 GiB of 16 GiB\n  note: it has it already\n",
                        CLI_DONE },
                { "{" SET5 "\"state\":\"FAILED\",\"elapsed_usec\":10000,\"reasons\":[" LATE "]}", NOW3,
                        "web1: nothing changed in 0.01 s: deadline: 20 s passed\n", CLI_FAILED },
                { "{" MOVE2 "\"state\":\"DONE\",\"done_bytes\":2147483648,\"movable_bytes\":2147483648,"
                  "\"elapsed_usec\":240000,\"notes\":[\"All of it\"]}",
                        NOW3,
                        "a: moved 2 GiB to b in 0.24 s, all in zone Movable; a now 3 GiB of 16 GiB\n"
                        "  note: All of it\n",
                        CLI_DONE },
                { "{" MOVE2 "\"state\":\"FAILED\",\"elapsed_usec\":240000,\"reasons\":[" LATE "]}", NOW3,
                        "a: nothing moved of 2 GiB in 0.24 s: deadline: 20 s passed\n", CLI_FAILED },
                { "{" ADD2 "\"state\":\"CANCELLED\",\"elapsed_usec\":3100000}", NOW3,
                        "web1: nothing added of 2 GiB in 3.10 s: cancelled\n", CLI_FAILED },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                _cleanup_json_ struct json_object *job = parse(rows[i].job);
                _cleanup_json_ struct json_object *partition =
                        rows[i].partition ? parse(rows[i].partition) : NULL;
                _cleanup_free_ char *text = NULL;
                size_t length;
                FILE *f = open_memstream(&text, &length);

                if (rows[i].partition) {
                        json_object_object_foreach(partition, key, value)
                                json_object_object_add(job, key, json_object_get(value));
                }
                report_job(f, job);
                fclose(f);
                assert_string_equal(text, rows[i].text);
                assert_true(report_job_is_final(job));
                assert_int_equal(report_job_exit(job), rows[i].exit_code);
        }
}

static void test_long_list(void **state)
{
        _cleanup_json_ struct json_object *job =
                parse("{" REMOVE2 "\"state\":\"PARTIAL\",\"done_bytes\":1073741824,\"reasons\":[]}");
        struct json_object *reasons = field_array(job, "reasons");
        _cleanup_free_ char *text = NULL;
        size_t length, lines = 0;
        FILE *f = open_memstream(&text, &length);

        for (int i = 0; i < 25; i++)
                json_array_add(reasons, parse(LATE));
        report_job(f, job);
        fclose(f);
        for (const char *p = text; *p; p++)
                lines += *p == '\n';
        assert_int_equal(lines, 12);
        assert_non_null(strstr(text, "\n  ... and 15 more\n"));
}

/* Of what is done only hooks are told of. */
static void test_notes(void **state)
{
        _cleanup_json_ struct json_object *job =
                parse("{" REMOVE2 "\"state\":\"DONE\",\"done_bytes\":2147483648,\"reasons\":[" LATE
                      ",{\"device\":\"\",\"block\":\"\",\"code\":\"hook-skipped\",\"message\":\"Hook 10-x: "
                      "no\"}]}");
        _cleanup_free_ char *text = NULL;
        size_t length;
        FILE *f = open_memstream(&text, &length);

        report_job(f, job);
        fclose(f);
        char *second = strchr(text, '\n');
        assert_non_null(second);
        assert_string_equal(second + 1, "  hook-skipped: Hook 10-x: no\n");
        assert_int_equal(report_job_exit(job), CLI_DONE);
}

static void test_progress(void **state)
{
        static const struct {
                const char *job, *text;
        } rows[] = {
                { "{" REMOVE2 "\"state\":\"OFFLINING\",\"progress\":0.375,\"deadline\":112000000}",
                        "web1: offlining 768 MiB of 2 GiB [###.......] 12 s left" },
                { "{" REMOVE2 "\"state\":\"OFFLINING\",\"progress\":0.375,\"waiting\":\"d0: \\u001b busy\"}",
                        "web1: offlining 768 MiB of 2 GiB [###.......]; d0:   busy" },
                { "{" REMOVE2 "\"state\":\"QUEUED\",\"progress\":0.0,\"deadline\":225000000}",
                        "web1: queued [..........] 2 min 5 s left" },
                { "{" ADD2 "\"state\":\"ONLINING\",\"progress\":1.5,\"deadline\":5}",
                        "web1: onlining 2 GiB of 2 GiB [##########] 0 s left" },
                { "{" ADD2 "\"state\":\"\\u001bX\",\"progress\":-1.0}", "web1: -x 0 of 2 GiB [..........]" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                _cleanup_json_ struct json_object *job = parse(rows[i].job);
                _cleanup_free_ char *text = NULL;
                size_t length;
                FILE *f = open_memstream(&text, &length);

                report_progress(f, job, 100000000);
                fclose(f);
                assert_string_equal(text, rows[i].text);
                assert_false(report_job_is_final(job));
        }
}

static void test_plan(void **state)
{
        _cleanup_json_ struct json_object *job =
                parse("{" ADD2 "\"state\":\"DONE\",\"plan\":[\"Plug one\",\"Wait\"]}");
        _cleanup_json_ struct json_object *failed =
                parse("{" ADD2 "\"state\":\"FAILED\",\"reasons\":[" LATE "]}");
        _cleanup_free_ char *text = NULL;
        size_t length;
        FILE *f = open_memstream(&text, &length);

        report_plan(f, job);
        report_plan(f, failed);
        fclose(f);
        assert_string_equal(
                text, "Plug one\nWait\nweb1: nothing added of 2 GiB in 0.00 s: deadline: 20 s passed\n");
}

static void test_sheet(void **state)
{
        static const char *const expected[] = {
                "web1\n  uuid          -\n",
                "  base          1 GiB\n  plugged       1 GiB\n  balloon       0\n  current       2 GiB\n",
                "  profile       min 1 GiB, desired 0, max 16 GiB, weight 100\n",
                "  total         not known until guestd answers\n",
                "  slots         2 of 16 used\n",
                "0x100000000    0    0 Movable\n",
                "0x140000000    1    0 256 MiB Normal, 256 MiB offline\n",
        };
        _cleanup_json_ struct json_object *p = parse(
                "{\"name\":\"web1\",\"base_bytes\":1073741824,\"plugged_bytes\":1073741824,"
                "\"current_bytes\":2147483648,\"requested_bytes\":2147483648,\"pending_bytes\":0,"
                "\"min_bytes\":1073741824,\"max_bytes\":17179869184,\"weight\":100,\"slots_total\":16,"
                "\"slots_used\":2,\"devices\":[{\"id\":\"d1\",\"size_bytes\":536870912,\"address\":"
                "4294967296,"
                "\"slot\":0,\"node\":0,\"movable_bytes\":536870912},{\"id\":\"d2\",\"size_bytes\":536870912,"
                "\"address\":5368709120,\"slot\":1,\"kernel_bytes\":268435456,\"offline_bytes\":268435456}]"
                "}");
        _cleanup_json_ struct json_object *list = parse("[{\"name\":\"a\",\"state\":\"absent\"}]");
        _cleanup_free_ char *text = NULL, *table = NULL;
        size_t length;
        FILE *f = open_memstream(&text, &length);

        assert_int_equal(partition_print_sheet(f, p), 0);
        fclose(f);
        for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
                if (!strstr(text, expected[i]))
                        fail_msg("'%s' is missing in\n%s", expected[i], text);

        json_object_object_add(p, "requested_bytes", json_object_new_uint64(GIB));
        json_object_object_add(p, "pending_bytes", json_object_new_int64(-(int64_t)GIB));
        free(steal_pointer(text));
        f = open_memstream(&text, &length);
        assert_int_equal(partition_print_sheet(f, p), 0);
        fclose(f);
        assert_non_null(strstr(text, "  requested     1 GiB, -1 GiB pending\n"));

        f = open_memstream(&table, &length);
        json_array_add(list, json_object_get(p));
        assert_int_equal(partition_print_list(f, list), 0);
        fclose(f);
        assert_non_null(strstr(table, "NAME STATE  AGENT CURRENT    MAX PLUGGED AVAILABLE PRESSURE\n"));
        assert_non_null(strstr(table, "web1 -      -       2 GiB 16 GiB   1 GiB         -        -\n"));
}

static void test_sheet_of_mechanisms(void **state)
{
        static const char *const expected[] = {
                "  DIMMs         512 MiB in 1\n",
                "  virtio-mem    1 GiB of 2 GiB requested, in 1, units of 2 MiB\n",
                "  balloon       256 MiB taken, 1.25 GiB left of base and DIMMs, deflates before OOM\n",
                "  balloon stats never updated\n",
                "v0   1 GiB 0x200000000    -    0 Movable\n",
        };
        _cleanup_json_ struct json_object *p =
                parse("{\"name\":\"m1\",\"devices\":["
                      "{\"id\":\"d0\",\"kind\":\"dimm\",\"size_bytes\":536870912,\"address\":4294967296,"
                      "\"movable_bytes\":536870912},{\"id\":\"v0\",\"kind\":\"virtio-mem\",\"size_bytes\":"
                      "1073741824,\"address\":8589934592,\"movable_bytes\":1073741824,\"requested_bytes\":"
                      "2147483648,\"unit_bytes\":2097152}],\"balloon\":[{\"taken_bytes\":268435456,"
                      "\"actual_bytes\":1342177280,\"deflate_on_oom\":true,\"free_page_reporting\":false,"
                      "\"stats_updated_sec\":0,\"stats_available_bytes\":18446744073709551615}]}");
        _cleanup_free_ char *text = NULL;
        size_t length;
        FILE *f = open_memstream(&text, &length);

        assert_int_equal(partition_print_sheet(f, p), 0);
        fclose(f);
        for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
                if (!strstr(text, expected[i]))
                        fail_msg("'%s' is missing in\n%s", expected[i], text);
}

/* A pseries guest, with a device whose unplug hangs. */
static void test_sheet_of_pseries(void **state)
{
        _cleanup_json_ struct json_object *p =
                parse("{\"name\":\"p1\",\"devices\":["
                      "{\"id\":\"d0\",\"size_bytes\":268435456,\"address\":1073741824,\"slot\":0,\"node\":0,"
                      "\"movable_bytes\":268435456,\"state\":\"plugged\",\"drc_first\":2147483652,"
                      "\"drc_last\":2147483652},"
                      "{\"id\":\"d1\",\"size_bytes\":536870912,\"address\":1342177280,\"slot\":1,\"node\":0,"
                      "\"movable_bytes\":536870912,\"state\":\"unplug-pending\",\"drc_first\":2147483653,"
                      "\"drc_last\":2147483654}]}");
        _cleanup_free_ char *text = NULL;
        size_t length;
        FILE *f = open_memstream(&text, &length);

        assert_int_equal(partition_print_sheet(f, p), 0);
        fclose(f);
        if (!strstr(text, "ID    SIZE    ADDRESS DRC                   SLOT NODE ZONE    STATE\n"
                          "d0 256 MiB 0x40000000 0x80000004               0    0 Movable -\n"
                          "d1 512 MiB 0x50000000 0x80000005-0x80000006    1    0 Movable unplug pending\n") ||
                !strstr(text, "when the guest is reset.\nDo not migrate"))
                fail_msg("%s", text);
}

/* A message that nobody sends: libsystemd makes one only on a bus that has been started. */
static sd_bus_message *new_message(sd_bus **ret_bus, int fds[2])
{
        sd_bus_message *m = NULL;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
        assert_true(sd_bus_new(ret_bus) >= 0);
        assert_true(sd_bus_set_fd(*ret_bus, fds[0], fds[0]) >= 0);
        assert_true(sd_bus_start(*ret_bus) >= 0);
        assert_true(sd_bus_message_new_signal(*ret_bus, &m, "/x", "a.b", "C") >= 0);
        return m;
}

static void test_properties(void **state)
{
        _cleanup_json_ struct json_object *o = NULL;
        sd_bus *bus = NULL;
        int fds[2];
        sd_bus_message *m = new_message(&bus, fds);

        assert_true(sd_bus_message_append(m, "a{sv}", 8, "PoolTotal", "t", UINT64_MAX, "PendingBytes", "x",
                            (int64_t)-5, "Weight", "u", UINT32_MAX, "Pressure", "d", 0.1, "Progress", "d",
                            1.0, "Flag", "b", 1, "Plan", "as", 2, "a", "\xc3\xa9\"", "Nothing", "d",
                            __builtin_nan("")) >= 0);
        assert_true(sd_bus_message_append(m, "a{sv}", 3, "Reasons", "a(ssss)", 1, "d", "", "c", "m",
                            "Devices", "a(ssttuuttttsuu)", 1, "i", "dimm", UINT64_C(1), UINT64_C(2), 3, 4,
                            UINT64_C(5), UINT64_C(6), UINT64_C(7), UINT64_C(8), "plugged", 0x80000004,
                            0x80000005, "Weight", "u", 1) >= 0);
        assert_true(sd_bus_message_seal(m, 1, 0) >= 0);
        assert_true(sd_bus_message_rewind(m, true) >= 0);

        assert_int_equal(bus_read_properties(m, &o), 0);
        assert_int_equal(bus_read_properties(m, &o), 0);
        assert_string_equal(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN),
                "{\"pool_total\":18446744073709551615,\"pending_bytes\":-5,\"weight\":1,\"pressure\":0.1,"
                "\"progress\":1.0,\"flag\":true,\"plan\":[\"a\",\"\xc3\xa9\\\"\"],\"nothing\":null,"
                "\"reasons\":[{\"device\":\"d\",\"block\":\"\",\"code\":\"c\",\"message\":\"m\"}],"
                "\"devices\":[{\"id\":\"i\",\"kind\":\"dimm\",\"address\":1,\"size_bytes\":2,\"slot\":3,"
                "\"node\":4,"
                "\"movable_bytes\":5,\"kernel_bytes\":6,\"offline_bytes\":7,\"stuck_bytes\":8,"
                "\"state\":\"plugged\",\"drc_first\":2147483652,\"drc_last\":2147483653}]}");

        sd_bus_message_unref(m);
        sd_bus_close_unref(bus);
        close(fds[1]);
}

static void test_errors(void **state)
{
        static const struct {
                const char *name;
                bool unreachable;
                const char *code;
        } rows[] = {
                { "org.opendlpar.hvd1.Error.BeyondMax", false, "beyond-max" },
                { "org.freedesktop.DBus.Error.AccessDenied", false, "denied" },
                { "org.freedesktop.DBus.Error.InvalidArgs", false, "internal" },
                { "org.freedesktop.DBus.Error.ServiceUnknown", true, "internal" },
                { "org.freedesktop.DBus.Error.Spawn.ExecFailed", true, "internal" },
                { "org.freedesktop.DBus.Error.NoReply", true, "internal" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                sd_bus_error error = SD_BUS_ERROR_MAKE_CONST(rows[i].name, "why");

                assert_int_equal(bus_error_is_unreachable(&error, -EIO), rows[i].unreachable);
                assert_string_equal(bus_error_code(&error), rows[i].code);
        }
        assert_true(bus_error_is_unreachable(NULL, -ECONNRESET));
        assert_false(bus_error_is_unreachable(NULL, -ENOMEM));
}

#define DECISION                                                                                             \
        "\"decision\":{\"partition\":\"web1\",\"action\":\"grow\",\"cause\":\"pressure\","                   \
        "\"bound\":\"free-first\",\"target_bytes\":1207959552,\"used_bytes\":1040187392,"                    \
        "\"pressed_bytes\":134217728,\"headroom_bytes\":268435456,\"want_bytes\":1442840576,"                \
        "\"share_bytes\":1342177280,\"weight_bytes\":1073741824}"
#define EXPLAINED                                                                                            \
        "{\"partition\":\"web1\",\"mode\":\"auto\",\"text\":\"web1 grows.\",\"time_usec\":250000,"           \
        "\"outcome\":\"job 7\\u001b[1m\"," DECISION

static char *explained(const char *text)
{
        _cleanup_json_ struct json_object *o = parse(text);
        char *said = NULL;
        size_t size;
        FILE *f = open_memstream(&said, &size);

        assert_non_null(f);
        if (json_object_is_type(o, json_type_array))
                assert_int_equal(policy_print_decisions(f, o), 0);
        else
                policy_print_explanation(f, o);
        fclose(f);
        return said;
}

/* What was decided, on which figures, and what bound it: of one, and of many in a row. */
static void test_decisions(void **state)
{
        static const char *const lines[] = {
                "web1 grows.\n",
                "  cause         pressure\n",
                "  bound by      free-first\n",
                "  came of it    job 7 [1m\n",
                "  used          992 MiB\n",
                "  wants         1.34 GiB\n",
                "  has           1 GiB\n",
                "  available     32 MiB\n",
                "  stalled       25.7 % of the time\n",
                "  touched       1000 MiB\n",
                "  pool          4 GiB\n",
        };
        char *said =
                explained(EXPLAINED ",\"input\":{\"pool\":{\"total_bytes\":4294967296},\"partitions\":[{"
                                    "\"current_bytes\":1073741824,"
                                    "\"resident_bytes\":1048576000,"
                                    "\"sample\":{\"available_bytes\":33554432,\"some_permille\":257}}]}}");

        for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
                if (!strstr(said, lines[i]))
                        fail_msg("'%s' is not in '%s'", lines[i], said);
        free(said);

        /* Of an hvd that said less. */
        said = explained("{\"partition\":\"web1\",\"mode\":\"off\",\"text\":\"It is off.\"}");
        assert_string_equal(said, "It is off.\n");
        free(said);
        said = explained(EXPLAINED "}");
        assert_null(strstr(said, "touched"));
        free(said);

        said = explained(
                "[{\"id\":41,\"time_usec\":1,\"partition\":\"web1\",\"text\":\"\",\"outcome\":\"\"," DECISION
                "},{\"id\":42,\"time_usec\":2,\"partition\":\"web2\",\"text\":\"\",\"outcome\":\"job 7: "
                "DONE\"," DECISION "}]");
        assert_non_null(strstr(said, "41 "));
        assert_non_null(strstr(
                said, "web1      grow   1152 MiB 992 MiB  256 MiB 1.34 GiB 1.25 GiB pressure free-first -"));
        assert_non_null(strstr(said, "web2      grow   1152 MiB 992 MiB  256 MiB 1.34 GiB 1.25 GiB pressure "
                                     "free-first job 7: DONE"));
        free(said);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_figures),
                cmocka_unit_test(test_report),
                cmocka_unit_test(test_long_list),
                cmocka_unit_test(test_notes),
                cmocka_unit_test(test_progress),
                cmocka_unit_test(test_plan),
                cmocka_unit_test(test_sheet),
                cmocka_unit_test(test_sheet_of_mechanisms),
                cmocka_unit_test(test_sheet_of_pseries),
                cmocka_unit_test(test_properties),
                cmocka_unit_test(test_errors),
                cmocka_unit_test(test_decisions),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
