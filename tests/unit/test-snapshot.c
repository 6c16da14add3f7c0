/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "common/size.h"
#include "hvd/platform/snapshot.h"

/* Each row is one answer; a row that must fail must also leave the snapshot as it was. */

static struct json_object *parse(const char *text)
{
        struct json_object *o = NULL;

        if (json_parse(text, strlen(text), &o) < 0)
                fail_msg("not JSON: %s", text);
        return o;
}

static int take(int (*taker)(struct platform_snapshot *, struct json_object *), struct platform_snapshot *s,
        const char *text)
{
        _cleanup_json_ struct json_object *o = parse(text);
        return taker(s, o);
}

static void test_status(void **state)
{
        static const struct {
                const char *answer;
                int r;
                enum run_state state;
        } rows[] = {
                { "{\"status\":\"running\",\"singlestep\":false,\"running\":true}", 0, RUN_RUNNING },
                { "{\"status\":\"paused\",\"singlestep\":false,\"running\":false}", 0, RUN_PAUSED },
                { "{\"status\":\"suspended\",\"running\":true}", 0, RUN_PAUSED },
                { "{\"status\":\"io-error\",\"running\":false}", 0, RUN_PAUSED },
                { "{\"status\":\"watchdog\",\"running\":false}", 0, RUN_PAUSED },
                { "{\"status\":\"inmigrate\",\"running\":false}", 0, RUN_MIGRATING },
                { "{\"status\":\"postmigrate\",\"running\":false}", 0, RUN_MIGRATING },
                { "{\"status\":\"finish-migrate\",\"running\":false}", 0, RUN_MIGRATING },
                { "{\"status\":\"prelaunch\",\"running\":false}", 0, RUN_STOPPED },
                { "{\"status\":\"shutdown\",\"running\":false}", 0, RUN_STOPPED },
                { "{\"status\":\"guest-panicked\",\"running\":false}", 0, RUN_STOPPED },
                { "{\"status\":\"of a newer QEMU\",\"running\":true}", 0, RUN_STOPPED },
                { "{\"status\":true}", -EBADMSG, RUN_ABSENT },
                { "{\"status\":null}", -EBADMSG, RUN_ABSENT },
                { "{\"running\":true}", -EBADMSG, RUN_ABSENT },
                { "{}", -EBADMSG, RUN_ABSENT },
                { "[]", -EBADMSG, RUN_ABSENT },
                { "\"running\"", -EBADMSG, RUN_ABSENT },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct platform_snapshot s = { 0 };
                if (take(snapshot_take_status, &s, rows[i].answer) != rows[i].r || s.state != rows[i].state)
                        fail_msg("%s -> %s", rows[i].answer, run_state_to_string(s.state));
        }
}

static void test_migration(void **state)
{
        static const struct {
                const char *answer;
                int r;
                enum run_state state;
        } rows[] = {
                { "{}", 0, RUN_RUNNING },
                { "{\"status\":\"none\"}", 0, RUN_RUNNING },
                { "{\"status\":\"completed\",\"total-time\":812,\"downtime\":3}", 0, RUN_RUNNING },
                { "{\"status\":\"failed\",\"error-desc\":\"x\"}", 0, RUN_RUNNING },
                { "{\"status\":\"cancelled\"}", 0, RUN_RUNNING },
                { "{\"blocked-reasons\":[\"x\"]}", 0, RUN_RUNNING },
                { "{\"status\":\"setup\"}", 0, RUN_MIGRATING },
                { "{\"status\":\"active\",\"ram\":{\"total\":1,\"remaining\":1}}", 0, RUN_MIGRATING },
                { "{\"status\":\"pre-switchover\"}", 0, RUN_MIGRATING },
                { "{\"status\":\"postcopy-active\"}", 0, RUN_MIGRATING },
                { "{\"status\":\"cancelling\"}", 0, RUN_MIGRATING },
                /* What is not known is taken for the case in which nothing must be touched. */
                { "{\"status\":\"of a newer QEMU\"}", 0, RUN_MIGRATING },
                { "{\"status\":7}", -EBADMSG, RUN_RUNNING },
                { "[]", -EBADMSG, RUN_RUNNING },
                { "\"active\"", -EBADMSG, RUN_RUNNING },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct platform_snapshot s = { .state = RUN_RUNNING };
                if (take(snapshot_take_migration, &s, rows[i].answer) != rows[i].r ||
                        s.state != rows[i].state)
                        fail_msg("%s -> %s", rows[i].answer, run_state_to_string(s.state));
        }

        /* In whichever order the two are answered. */
        struct platform_snapshot s = { 0 };
        assert_int_equal(take(snapshot_take_migration, &s, "{\"status\":\"active\"}"), 0);
        assert_int_equal(take(snapshot_take_status, &s, "{\"status\":\"running\"}"), 0);
        assert_int_equal(s.state, RUN_MIGRATING);
}

static void test_summary(void **state)
{
        static const struct {
                const char *answer;
                int r;
                uint64_t base_bytes, plugged_bytes;
        } rows[] = {
                { "{\"base-memory\":1073741824,\"plugged-memory\":2147483648}", 0, GIB, 2 * GIB },
                { "{\"base-memory\":1073741824,\"plugged-memory\":0}", 0, GIB, 0 },
                { "{\"base-memory\":1073741824}", 0, GIB, 0 },
                { "{\"base-memory\":1073741824,\"plugged-memory\":null}", 0, GIB, 0 },
                { "{\"plugged-memory\":0}", -EBADMSG, 1, 1 },
                { "{\"base-memory\":\"1073741824\"}", -EBADMSG, 1, 1 },
                { "{\"base-memory\":-1}", -EBADMSG, 1, 1 },
                { "{\"base-memory\":1073741824,\"plugged-memory\":-1}", -EBADMSG, 1, 1 },
                { "{\"base-memory\":1073741824,\"plugged-memory\":1.5}", -EBADMSG, 1, 1 },
                { "{\"base-memory\":18446744073709551615}", -EBADMSG, 1, 1 },
                { "{\"base-memory\":99999999999999999999999}", -EBADMSG, 1, 1 },
                { "{}", -EBADMSG, 1, 1 },
                { "[1073741824,0]", -EBADMSG, 1, 1 },
                { "7", -EBADMSG, 1, 1 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct platform_snapshot s = { .base_bytes = 1, .plugged_bytes = 1 };
                if (take(snapshot_take_summary, &s, rows[i].answer) != rows[i].r ||
                        s.base_bytes != rows[i].base_bytes || s.plugged_bytes != rows[i].plugged_bytes)
                        fail_msg("%s -> %s, %s", rows[i].answer, SIZE(s.base_bytes), SIZE(s.plugged_bytes));
        }
}

static void test_machine_memory(void **state)
{
        static const struct {
                const char *answer;
                int r;
                uint64_t max_bytes;
                unsigned slots;
        } rows[] = {
                { "{\"size\":1073741824,\"slots\":16,\"max-size\":17179869184}", 0, 16 * GIB, 16 },
                { "{\"size\":1073741824,\"max-size\":1073741824}", 0, GIB, 0 },
                { "{\"size\":1073741824}", 0, 0, 0 },
                { "{\"size\":1,\"slots\":256,\"max-size\":17179869184}", 0, 16 * GIB, 256 },
                { "{\"size\":1,\"slots\":1000000,\"max-size\":17179869184}", -EBADMSG, 1, 1 },
                { "{\"size\":1,\"slots\":-1,\"max-size\":17179869184}", -EBADMSG, 1, 1 },
                { "{\"size\":1,\"slots\":\"16\",\"max-size\":17179869184}", -EBADMSG, 1, 1 },
                { "{\"size\":1,\"slots\":16,\"max-size\":\"16G\"}", -EBADMSG, 1, 1 },
                { "{\"size\":1,\"slots\":16,\"max-size\":-17179869184}", -EBADMSG, 1, 1 },
                { "[]", -EBADMSG, 1, 1 },
                { "\"1024\"", -EBADMSG, 1, 1 },
                { "1024", -EBADMSG, 1, 1 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct platform_snapshot s = { .max_bytes = 1, .slots = 1 };
                if (take(snapshot_take_machine_memory, &s, rows[i].answer) != rows[i].r ||
                        s.max_bytes != rows[i].max_bytes || s.slots != rows[i].slots)
                        fail_msg("%s -> %s, %u slots", rows[i].answer, SIZE(s.max_bytes), s.slots);
        }
}

/* QEMU 7.2's own words. */
#define DIMM                                                                                                 \
        "{\"type\":\"dimm\",\"data\":{\"memdev\":\"/objects/m0\",\"hotplugged\":true,\"addr\":4294967296,"   \
        "\"hotpluggable\":true,\"size\":1073741824,\"slot\":0,\"node\":0,\"id\":\"d0\"}}"
#define VIRTIO_MEM                                                                                           \
        "{\"type\":\"virtio-mem\",\"data\":{\"block-size\":2097152,\"memaddr\":12884901888,"                 \
        "\"requested-size\":536870912,\"size\":268435456,\"max-size\":4294967296,\"node\":1,\"id\":\"vm0\"," \
        "\"memdev\":\"/objects/vmem0\"}}"
#define NVDIMM                                                                                               \
        "{\"type\":\"nvdimm\",\"data\":{\"memdev\":\"/objects/nv0\",\"hotplugged\":true,\"addr\":"           \
        "8589934592,\"hotpluggable\":true,\"size\":1073741824,\"slot\":1,\"node\":0,\"id\":\"nv0\"}}"

static void test_devices(void **state)
{
        struct platform_snapshot s = { 0 };

        assert_int_equal(take(snapshot_take_devices, &s, "[" VIRTIO_MEM "," NVDIMM "," DIMM "]"), 0);
        assert_int_equal(s.n_devices, 2);

        const struct platform_device *d = &s.devices[0]; /* by address */
        assert_string_equal(d->id, "d0");
        assert_string_equal(d->memdev, "m0");
        assert_true(d->is_dimm);
        assert_true(d->hotpluggable);
        assert_int_equal(d->address, 4 * GIB);
        assert_int_equal(d->size_bytes, GIB);
        assert_int_equal(d->region_bytes, GIB);
        assert_int_equal(d->slot, 0);
        assert_int_equal(d->node, 0);

        d = &s.devices[1];
        assert_string_equal(d->id, "vm0");
        assert_string_equal(d->memdev, "vmem0");
        assert_false(d->is_dimm);
        assert_false(d->hotpluggable);
        assert_int_equal(d->address, 12 * GIB);
        assert_int_equal(d->size_bytes, 256 * MIB);
        assert_int_equal(d->requested_bytes, 512 * MIB);
        assert_int_equal(d->unit_bytes, 2 * MIB);
        assert_int_equal(d->region_bytes, 4 * GIB);
        assert_int_equal(d->node, 1);

        /* Another answer replaces it; one that is not understood does not. */
        assert_int_equal(take(snapshot_take_devices, &s, "[" DIMM "]"), 0);
        assert_int_equal(s.n_devices, 1);
        assert_int_equal(take(snapshot_take_devices, &s, "{}"), -EBADMSG);
        assert_int_equal(s.n_devices, 1);
        assert_int_equal(take(snapshot_take_devices, &s, "[]"), 0);
        assert_int_equal(s.n_devices, 0);
        platform_snapshot_done(&s);
}

#define LETTERS_63 "ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"

static void test_odd_devices(void **state)
{
        static const struct {
                const char *answer;
                int r;
                const char *id, *memdev; /* of the one device; NULL: there is none */
                bool hotpluggable;
        } rows[] = {
                { "[{\"type\":\"dimm\",\"data\":{\"addr\":0,\"size\":1,\"id\":\"d\",\"hotpluggable\":true}}]",
                        0, "d", "", true },
                /* Which cannot be named cannot be told to leave. */
                { "[{\"type\":\"dimm\",\"data\":{\"addr\":0,\"size\":1,\"hotpluggable\":true}}]", 0, "", "",
                        false },
                { "[{\"type\":\"dimm\",\"data\":{\"addr\":0,\"size\":1,\"id\":\"" LETTERS_63 "\","
                  "\"hotpluggable\":true}}]",
                        0, LETTERS_63, "", true },
                { "[{\"type\":\"dimm\",\"data\":{\"addr\":0,\"size\":1,\"id\":\"" LETTERS_63 "d\","
                  "\"hotpluggable\":true}}]",
                        0, "", "", false },
                { "[{\"type\":\"dimm\",\"data\":{\"addr\":0,\"size\":1,\"id\":\"d\",\"memdev\":"
                  "\"/objects/" LETTERS_63 "d\",\"hotpluggable\":true}}]",
                        0, "d", "", true },
                { "[{\"type\":\"dimm\",\"data\":{\"addr\":0,\"size\":1,\"id\":\"d\",\"memdev\":7,"
                  "\"hotpluggable\":\"yes\",\"slot\":-1,\"node\":\"0\"}}]",
                        0, "d", "", false },
                { "[{\"type\":\"sgx-epc\",\"data\":{\"memaddr\":0,\"size\":1}}]", 0, NULL, NULL, false },
                { "[{\"type\":\"virtio-pmem\",\"data\":{}}]", 0, NULL, NULL, false },
                { "[]", 0, NULL, NULL, false },
                { "[{\"type\":\"dimm\",\"data\":{\"addr\":-1,\"size\":1,\"id\":\"d\"}}]", -EBADMSG, NULL,
                        NULL, false },
                { "[{\"type\":\"dimm\",\"data\":{\"addr\":0,\"size\":-1,\"id\":\"d\"}}]", -EBADMSG, NULL,
                        NULL, false },
                { "[{\"type\":\"dimm\",\"data\":{\"size\":1,\"id\":\"d\"}}]", -EBADMSG, NULL, NULL, false },
                { "[{\"type\":\"dimm\",\"data\":{\"addr\":0,\"id\":\"d\"}}]", -EBADMSG, NULL, NULL, false },
                { "[{\"type\":\"dimm\",\"data\":{\"addr\":18446744073709551615,\"size\":1,\"id\":\"d\"}}]",
                        -EBADMSG, NULL, NULL, false },
                { "[{\"type\":\"dimm\",\"data\":{\"memaddr\":0,\"size\":1,\"id\":\"d\"}}]", -EBADMSG, NULL,
                        NULL, false },
                { "[{\"type\":\"virtio-mem\",\"data\":{\"memaddr\":0,\"size\":1,\"id\":\"v\"}}]", -EBADMSG,
                        NULL, NULL, false },
                { "[{\"type\":\"dimm\"}]", -EBADMSG, NULL, NULL, false },
                { "[{\"type\":\"dimm\",\"data\":[]}]", -EBADMSG, NULL, NULL, false },
                { "[{\"data\":{}}]", -EBADMSG, NULL, NULL, false },
                { "[{\"type\":7,\"data\":{}}]", -EBADMSG, NULL, NULL, false },
                { "[null]", -EBADMSG, NULL, NULL, false },
                { "[7]", -EBADMSG, NULL, NULL, false },
                { "[[]]", -EBADMSG, NULL, NULL, false },
                { "{\"type\":\"dimm\"}", -EBADMSG, NULL, NULL, false },
                { "\"dimm\"", -EBADMSG, NULL, NULL, false },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct platform_snapshot s = { 0 };

                if (take(snapshot_take_devices, &s, rows[i].answer) != rows[i].r)
                        fail_msg("row %zu: %s", i, rows[i].answer);
                assert_int_equal(s.n_devices, rows[i].id ? 1 : 0);
                if (rows[i].id) {
                        assert_string_equal(s.devices[0].id, rows[i].id);
                        assert_string_equal(s.devices[0].memdev, rows[i].memdev);
                        assert_int_equal(s.devices[0].hotpluggable, rows[i].hotpluggable);
                }
                platform_snapshot_done(&s);
        }
}

/* As many devices as asked for, the highest address first. */
static struct json_object *many_devices(unsigned n)
{
        struct json_object *array = json_object_new_array();

        for (unsigned i = 0; i < n; i++) {
                struct json_object *item = json_object_new_object(), *data = json_object_new_object();
                char id[16];

                snprintf(id, sizeof(id), "d%u", i);
                json_add_string(data, "id", id);
                json_add_u64(data, "addr", 4 * GIB + (n - i) * 128 * MIB);
                json_add_u64(data, "size", 128 * MIB);
                json_add_string(item, "type", "dimm");
                json_add(item, "data", data);
                json_array_add(array, item);
        }
        return array;
}

static void test_many_devices(void **state)
{
        _cleanup_json_ struct json_object *most = many_devices(PLATFORM_DEVICES_MAX);
        _cleanup_json_ struct json_object *too_many = many_devices(2000);
        struct platform_snapshot s = { 0 };

        assert_int_equal(snapshot_take_devices(&s, most), 0);
        assert_int_equal(s.n_devices, PLATFORM_DEVICES_MAX);
        assert_string_equal(s.devices[0].id, "d1023");
        for (size_t i = 1; i < s.n_devices; i++)
                assert_true(s.devices[i - 1].address < s.devices[i].address);
        assert_int_equal(snapshot_take_devices(&s, too_many), -EBADMSG);
        assert_int_equal(s.n_devices, PLATFORM_DEVICES_MAX);
        platform_snapshot_done(&s);
}

static void test_objects(void **state)
{
        struct platform_snapshot s = { 0 };

        assert_int_equal(
                take(snapshot_take_objects, &s,
                        "[{\"name\":\"type\",\"type\":\"string\"},"
                        "{\"name\":\"pc.ram\",\"type\":\"child<memory-backend-ram>\"},"
                        "{\"name\":\"opendlpar-mem-0\",\"type\":\"child<memory-backend-ram>\"},"
                        "{\"name\":\"mine-opendlpar-mem-1\",\"type\":\"child<memory-backend-ram>\"},"
                        "{\"name\":\"opendlpar-mem-" LETTERS_63 "\",\"type\":\"child<memory-backend-ram>\"},"
                        "{\"name\":\"opendlpar-mem-7\",\"type\":\"child<memory-backend-ram>\"}]"),
                0);
        assert_int_equal(s.n_backends, 2);
        assert_string_equal(s.backends[0], "opendlpar-mem-0");
        assert_string_equal(s.backends[1], "opendlpar-mem-7");

        static const char *const bad[] = { "{}", "[{}]", "[{\"name\":7}]", "[null]", "[\"opendlpar-mem-0\"]",
                "\"x\"" };
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                assert_int_equal(take(snapshot_take_objects, &s, bad[i]), -EBADMSG);
                assert_int_equal(s.n_backends, 2);
        }
        assert_int_equal(take(snapshot_take_objects, &s, "[]"), 0);
        assert_int_equal(s.n_backends, 0);
        platform_snapshot_done(&s);
}

static void test_uuid_and_target(void **state)
{
        struct platform_snapshot s = { 0 };

        assert_int_equal(
                take(snapshot_take_uuid, &s, "{\"UUID\":\"00000000-0000-0000-0000-000000000000\"}"), 0);
        assert_string_equal(s.uuid, "00000000-0000-0000-0000-000000000000");
        assert_int_equal(take(snapshot_take_uuid, &s, "{\"UUID\":\"" LETTERS_63 "\"}"), -EBADMSG);
        assert_int_equal(take(snapshot_take_uuid, &s, "{\"UUID\":1}"), -EBADMSG);
        assert_int_equal(take(snapshot_take_uuid, &s, "{}"), -EBADMSG);
        assert_string_equal(s.uuid, "00000000-0000-0000-0000-000000000000");

        assert_int_equal(take(snapshot_take_target, &s, "{\"arch\":\"x86_64\"}"), 0);
        assert_string_equal(s.arch, "x86_64");
        assert_int_equal(take(snapshot_take_target, &s, "{\"arch\":\"" LETTERS_63 "\"}"), -EBADMSG);
        assert_int_equal(take(snapshot_take_target, &s, "{\"arch\":[]}"), -EBADMSG);
        assert_int_equal(take(snapshot_take_target, &s, "[]"), -EBADMSG);
        assert_string_equal(s.arch, "x86_64");
}

static void test_numa(void **state)
{
        static const struct {
                const char *answer;
                unsigned n_nodes;
                uint64_t base_mib[3];
        } rows[] = {
                { "\"2 nodes\\r\\nnode 0 cpus: 0 1\\r\\nnode 0 size: 1536 MB\\r\\nnode 0 plugged: 1024 "
                  "MB\\r\\n"
                  "node 1 cpus:\\r\\nnode 1 size: 256 MB\\r\\nnode 1 plugged: 0 MB\\r\\n\"",
                        2, { 512, 256 } },
                { "\"1 nodes\\nnode 0 size: 1024 MB\"", 1, { 1024 } },
                { "\"0 nodes\\r\\n\"", 1, { 2048 } },
                /* What is said of nodes that there are not is passed over. */
                { "\"1 nodes\\nnode 2 size: 1024 MB\\nnode 4294967295 plugged: 1 MB\"", 1, { 0 } },
                { "\"128 nodes\"", 128, { 0 } },
                { "\"129 nodes\"", 0, { 0 } },
                { "\"-1 nodes\"", 0, { 0 } },
                { "\"NUMA is off\"", 0, { 0 } },
                { "\"\"", 0, { 0 } },
                { "7", 0, { 0 } },
                { "{}", 0, { 0 } },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct platform_snapshot s = { .base_bytes = 2 * GIB };

                assert_int_equal(take(snapshot_take_numa, &s, rows[i].answer), 0);
                if (s.n_nodes != rows[i].n_nodes)
                        fail_msg("row %zu: %u nodes", i, s.n_nodes);
                for (size_t n = 0; n < 3; n++)
                        assert_int_equal(s.node_base_bytes[n], rows[i].base_mib[n] * MIB);
        }
}

static void test_balloon(void **state)
{
        static const struct {
                const char *answer;
                int r;
                uint64_t balloon_bytes;
        } rows[] = {
                /* RAM 1 GiB and a DIMM of 1 GiB count, the virtio-mem device beside them does not. */
                { "{\"actual\":2147483648}", 0, 0 },
                { "{\"actual\":1610612736}", 0, 512 * MIB },
                { "{\"actual\":0}", 0, 2 * GIB },
                { "{\"actual\":4294967296}", 0, 0 }, /* a DIMM came in between */
                { "{\"actual\":-1}", -EBADMSG, 7 },
                { "{\"actual\":18446744073709551615}", -EBADMSG, 7 },
                { "{\"actual\":\"1\"}", -EBADMSG, 7 },
                { "{}", -EBADMSG, 7 },
                { "[]", -EBADMSG, 7 },
        };
        struct platform_snapshot s = { .base_bytes = GIB };

        assert_int_equal(take(snapshot_take_devices, &s, "[" DIMM "," VIRTIO_MEM "]"), 0);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                s.balloon_bytes = 7;
                if (take(snapshot_take_balloon, &s, rows[i].answer) != rows[i].r ||
                        s.balloon_bytes != rows[i].balloon_bytes)
                        fail_msg("%s -> %s", rows[i].answer, SIZE(s.balloon_bytes));
        }
        platform_snapshot_done(&s);
}

static void test_balloon_stats(void **state)
{
        struct platform_snapshot s = { 0 };

        /* QEMU's words when the driver said nothing of one figure, and of none. */
        assert_int_equal(
                take(snapshot_take_balloon_stats, &s,
                        "{\"stats\":{\"stat-available-memory\":834027520,\"stat-free-memory\":902193152,"
                        "\"stat-total-memory\":18446744073709551615},\"last-update\":1795831321}"),
                0);
        assert_int_equal(s.balloon.stats.available_bytes, 834027520);
        assert_int_equal(s.balloon.stats.free_bytes, 902193152);
        assert_true(s.balloon.stats.total_bytes == UINT64_MAX);
        assert_int_equal(s.balloon.stats.updated_sec, 1795831321);
        assert_int_equal(take(snapshot_take_balloon_stats, &s, "{\"stats\":{},\"last-update\":0}"), 0);
        assert_true(s.balloon.stats.available_bytes == UINT64_MAX);
        assert_int_equal(s.balloon.stats.updated_sec, 0);
        assert_int_equal(take(snapshot_take_balloon_stats, &s, "{\"last-update\":0}"), -EBADMSG);
        assert_int_equal(
                take(snapshot_take_balloon_stats, &s, "{\"stats\":{},\"last-update\":-1}"), -EBADMSG);
        assert_int_equal(take(snapshot_take_balloon_stats, &s, "[]"), -EBADMSG);
}

static void test_find_balloon(void **state)
{
        static const struct {
                const char *list, *name;
        } rows[] = {
                { "[{\"name\":\"type\",\"type\":\"string\"},"
                  "{\"name\":\"b\",\"type\":\"child<virtio-balloon-pci>\"}]",
                        "b" },
                { "[{\"name\":\"device[3]\",\"type\":\"child<virtio-balloon-ccw>\"}]", "device[3]" },
                { "[{\"name\":\"virtio-balloon\",\"type\":\"child<virtio-mem-pci>\"}]", NULL },
                { "[]", NULL },
                { "{}", NULL },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                _cleanup_json_ struct json_object *o = parse(rows[i].list);
                const char *name = snapshot_find_balloon(o);

                if (!name != !rows[i].name || (name && strcmp(name, rows[i].name) != 0))
                        fail_msg("%s -> %s", rows[i].list, name);
        }
}

#define CHARDEV(filename, open)                                                                              \
        "{\"frontend-open\":" #open ",\"filename\":\"" filename "\",\"label\":\"chr\"}"

static void test_chardev(void **state)
{
        static const struct {
                const char *answer;
                int r;
        } rows[] = {
                { "[" CHARDEV("unix:/run/g.sock,server=on", true) "]", 1 },
                { "[" CHARDEV("disconnected:unix:/run/g.sock,server=on", true) "]", 1 },
                { "[" CHARDEV("disconnected:unix:/run/g.sock,server=on", false) "]", 0 },
                { "[" CHARDEV("unix:/run/g.sock", false) "]", 0 },
                { "[" CHARDEV("vc", true) "," CHARDEV("unix:/run/g.sock,server=on", false) "]", 0 },
                /* Paths of which ours is a part, before and behind. */
                { "[" CHARDEV("unix:/run/g.sock2,server=on", true) "]", -ENOENT },
                { "[" CHARDEV("unix:/var/run/g.sock,server=on", true) "]", -ENOENT },
                { "[" CHARDEV("unix:/run/g.sock/x,server=on", true) "]", -ENOENT },
                { "[" CHARDEV("unix:/run/g.sock.qmp,server=on", true) "," CHARDEV(
                          "unix:/run/g.sock,server=on", false) "]",
                        0 },
                { "[]", -ENOENT },
                { "[{\"filename\":7,\"frontend-open\":true}]", -ENOENT },
                { "[{\"label\":\"x\"},null,7]", -ENOENT },
                { "[{\"filename\":\"/run/g.sock\",\"frontend-open\":true}]", -ENOENT },
                { "[{\"filename\":\"unix:/run/g.sock,server=on\"}]", -EBADMSG },
                { "[{\"filename\":\"unix:/run/g.sock,server=on\",\"frontend-open\":1}]", -EBADMSG },
                { "{}", -EBADMSG },
                { "7", -EBADMSG },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                _cleanup_json_ struct json_object *o = parse(rows[i].answer);
                int r = chardev_is_open(o, "/run/g.sock");
                if (r != rows[i].r)
                        fail_msg("%s -> %d", rows[i].answer, r);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_status),
                cmocka_unit_test(test_migration),
                cmocka_unit_test(test_summary),
                cmocka_unit_test(test_machine_memory),
                cmocka_unit_test(test_devices),
                cmocka_unit_test(test_odd_devices),
                cmocka_unit_test(test_many_devices),
                cmocka_unit_test(test_objects),
                cmocka_unit_test(test_uuid_and_target),
                cmocka_unit_test(test_numa),
                cmocka_unit_test(test_balloon),
                cmocka_unit_test(test_balloon_stats),
                cmocka_unit_test(test_find_balloon),
                cmocka_unit_test(test_chardev),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
