/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The planner: tables for what an operator sees. */

#include "plan-model.h"

static void test_addition_pieces(void **state)
{
        static const struct {
                uint64_t base, max;
                unsigned slots;
                uint64_t size;
                enum zone_policy policy;
                const char *pieces;
        } rows[] = {
                /* the lab's guest: a share of 960M, so 2G are two DIMMs */
                { GIB, 16 * GIB, 16, 2 * GIB, ZONE_POLICY_AUTO, "1Gm 1Gm" },
                { GIB, 16 * GIB, 16, 256 * MIB, ZONE_POLICY_AUTO, "256Mm" },
                { GIB, 16 * GIB, 16, 2176 * MIB, ZONE_POLICY_MOVABLE, "1152Mm 1Gm" },
                { GIB, 16 * GIB, 16, 2 * GIB, ZONE_POLICY_KERNEL, "1Gk 1Gk" },
                /* 3:1 (301 %): 4G need 256M of kernel memory, and no whole DIMM of the even size */
                { GIB, 16 * GIB, 16, 4 * GIB, ZONE_POLICY_AUTO, "256Mk 1280Mm 1280Mm 1280Mm" },
                { 512 * MIB, 64 * GIB, 4, 2 * GIB, ZONE_POLICY_AUTO, "128Mk 1920Mm" },
                /* all of it, with every slot */
                { GIB, 3 * GIB, 4, 2 * GIB, ZONE_POLICY_MOVABLE, "512Mm 512Mm 512Mm 512Mm" },
                { GIB, 2 * GIB, 1, GIB, ZONE_POLICY_MOVABLE, "1Gm" },
                /* one slot cannot serve two zones: the kernel part takes it all */
                { 256 * MIB, 2304 * MIB, 1, 2 * GIB, ZONE_POLICY_AUTO, "2Gk" },
                /* fewer blocks than slots */
                { GIB, 1280 * MIB, 16, 256 * MIB, ZONE_POLICY_MOVABLE, "128Mm 128Mm" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct plan_add add;
                struct error error = { 0 };
                struct model m;
                char text[512] = "";

                model_init(&m, 128 * MIB, rows[i].base, rows[i].max, rows[i].slots);
                int e = plan_addition(&m.s, rows[i].size, rows[i].policy, &add, &error);
                if (e < 0)
                        fail_msg("row %zu: %s", i, error.message);
                for (size_t j = 0; j < add.n_pieces; j++)
                        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s%c", j ? " " : "",
                                SIZE_EXACT(add.pieces[j].size_bytes),
                                add.pieces[j].zone == ZONE_KERNEL ? 'k' : 'm');
                if (strcmp(text, rows[i].pieces) != 0)
                        fail_msg("row %zu: %s instead of %s", i, text, rows[i].pieces);
        }
}

/* What `add-memory P 1G` and its like come to on pseries, by what the guest was started with. */
static void test_addition_pseries(void **state)
{
        static const struct {
                uint64_t base, max;
                unsigned slots;
                uint64_t size;
                const char *pieces;
        } rows[] = {
                /* at most one LMB for each slot: each LMB is a device */
                { GIB, 4 * GIB, 16, GIB, "256M 256M 256M 256M" },
                { GIB, 5 * GIB, 16, GIB, "256M 256M 256M 256M" },
                { GIB, 8 * GIB, 32, GIB, "256M 256M 256M 256M" },
                { GIB, 9 * GIB, 32, GIB, "256M 256M 256M 256M" },
                /* beyond it not all that comes in one request, though a single LMB always does */
                { GIB, 16 * GIB, 32, GIB, "512M 512M" },
                { GIB, 16 * GIB, 16, GIB, "1G" },
                { GIB, 16 * GIB, 32, 256 * MIB, "256M" },
                { GIB, 16 * GIB, 16, 256 * MIB, "256M" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct plan_add add;
                struct model m;
                char text[128] = "";

                model_init(&m, PLAN_LMB_BYTES, rows[i].base, rows[i].max, rows[i].slots);
                assert_int_equal(plan_addition(&m.s, rows[i].size, ZONE_POLICY_AUTO, &add, NULL), 0);
                for (size_t j = 0; j < add.n_pieces; j++)
                        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", j ? " " : "",
                                SIZE_EXACT(add.pieces[j].size_bytes));
                if (strcmp(text, rows[i].pieces) != 0)
                        fail_msg("row %zu: %s instead of %s", i, text, rows[i].pieces);
        }
}

static void test_addition_errors(void **state)
{
        static const struct {
                uint64_t granule, base, max;
                unsigned slots;
                uint64_t plugged[4];
                uint64_t size;
                enum zone_policy policy;
                enum error_code code;
                const char *says;
        } rows[] = {
                { 0, GIB, 16 * GIB, 16, { 0 }, GIB, ZONE_POLICY_AUTO, ERROR_AGENT_ABSENT, "start guestd" },
                { 128 * MIB, GIB, 16 * GIB, 16, { 0 }, 0, ZONE_POLICY_AUTO, ERROR_INVALID_SIZE, "128M" },
                { 128 * MIB, GIB, 0, 0, { 0 }, GIB, ZONE_POLICY_AUTO, ERROR_NO_HOTPLUG, "maxmem" },
                { 128 * MIB, GIB, GIB, 4, { 0 }, GIB, ZONE_POLICY_AUTO, ERROR_NO_HOTPLUG, "maxmem" },
                { 128 * MIB, GIB, 2 * GIB, 0, { 0 }, GIB, ZONE_POLICY_AUTO, ERROR_NO_HOTPLUG, "0 slots" },
                { 128 * MIB, GIB, 16 * GIB, 16, { 0 }, 300 * MIB, ZONE_POLICY_AUTO, ERROR_UNALIGNED_SIZE,
                        "ask for 256M or 384M" },
                { 128 * MIB, GIB, 16 * GIB, 16, { 0 }, 64 * MIB, ZONE_POLICY_AUTO, ERROR_UNALIGNED_SIZE,
                        "ask for 128M" },
                { 128 * MIB, GIB, 16 * GIB, 16, { GIB, GIB }, 14 * GIB, ZONE_POLICY_AUTO, ERROR_BEYOND_MAX,
                        "13G left below maxmem 16G (1G at boot, 2G plugged); ask for 13G" },
                { 128 * MIB, GIB, 2 * GIB, 2, { GIB }, GIB, ZONE_POLICY_AUTO, ERROR_BEYOND_MAX,
                        "remove memory first" },
                { 128 * MIB, GIB, 4 * GIB, 2, { GIB, GIB }, GIB, ZONE_POLICY_AUTO, ERROR_NO_SLOTS,
                        "All 2 memory slots" },
                /* one slot takes all or nothing; of two slots of at most 4G, one must not be wasted */
                { 128 * MIB, GIB, 4 * GIB, 1, { 0 }, GIB, ZONE_POLICY_AUTO, ERROR_SLOT_RULE, "ask for 3G" },
                { 128 * MIB, GIB, 9 * GIB, 4, { GIB, GIB }, 4224 * MIB, ZONE_POLICY_AUTO, ERROR_SLOT_RULE,
                        "ask for 4G or 6G" },
                { 128 * MIB, GIB, 16 * GIB, 16, { 0 }, 4 * GIB, ZONE_POLICY_MOVABLE, ERROR_ZONE_RATIO,
                        "beside 1G of kernel memory, and 3:1 is the limit), not by 4G; ask for 3G" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct plan_add add, untouched;
                struct error error = { 0 };
                struct model m;
                uint64_t offers[2];

                model_init(&m, rows[i].granule, rows[i].base, rows[i].max, rows[i].slots);
                for (size_t j = 0; rows[i].plugged[j]; j++)
                        model_plug(&m, rows[i].plugged[j], ZONE_KERNEL);
                memset(&add, 0xa5, sizeof(add));
                untouched = add;
                assert_true(plan_addition(&m.s, rows[i].size, rows[i].policy, &add, &error) < 0);
                if (error.code != rows[i].code || !strstr(error.message, rows[i].says))
                        fail_msg("row %zu: %s: %s", i, error_code_name(error.code), error.message);
                assert_memory_equal(&add, &untouched, sizeof(add));
                for (size_t j = offered(error.message, offers); j-- > 0;)
                        assert_true(accepts(&m, offers[j], rows[i].policy));
        }
}

/* Devices that hvd did not plan can make max unreachable in pieces of at most cap; cap rises then. */
static void test_addition_foreign_devices(void **state)
{
        struct plan_add add;
        struct model m;

        model_init(&m, 128 * MIB, GIB, 17 * GIB, 4);
        for (int i = 0; i < 3; i++)
                model_plug(&m, 128 * MIB, ZONE_KERNEL);
        assert_int_equal(plan_addition(&m.s, model_rest(&m), ZONE_POLICY_KERNEL, &add, NULL), 0);
        assert_int_equal(add.n_pieces, 1);
        assert_false(accepts(&m, GIB, ZONE_POLICY_KERNEL));

        /* virtio-mem takes space and no slot; a size that is no multiple of the block costs the rest of its
         * block */
        model_init(&m, 128 * MIB, GIB, 17 * GIB, 4);
        model_plug(&m, 8 * GIB, ZONE_MOVABLE)->is_dimm = false;
        model_plug(&m, 64 * MIB, ZONE_KERNEL);
        assert_int_equal(plan_addition(&m.s, 8 * GIB - 128 * MIB, ZONE_POLICY_KERNEL, &add, NULL), 0);
        assert_int_equal(add.n_pieces, 3);
        assert_false(accepts(&m, 8 * GIB, ZONE_POLICY_KERNEL));
}

/* What an operator meets who adds 256M again and again to a guest of 16G and 16 slots. */
static void test_addition_small_steps(void **state)
{
        struct error error = { 0 };
        struct plan_add add;
        struct model m;
        uint64_t offers[2];
        int n = 0;

        model_init(&m, 128 * MIB, GIB, 16 * GIB, 16);
        for (; plan_addition(&m.s, 256 * MIB, ZONE_POLICY_AUTO, &add, &error) == 0; n++) {
                assert_int_equal(add.n_pieces, 1);
                model_plug(&m, 256 * MIB, add.pieces[0].zone);
        }
        assert_int_equal(n, 9);
        assert_int_equal(error.code, ERROR_SLOT_RULE);
        assert_int_equal(offered(error.message, offers), 1);
        assert_int_equal(offers[0], 1536 * MIB);
        assert_true(accepts(&m, offers[0], ZONE_POLICY_AUTO));
}

static void test_removal_errors(void **state)
{
        static const struct {
                uint64_t size;
                const char *device_id;
                enum error_code code;
                const char *says;
        } rows[] = {
                { 0, NULL, ERROR_INVALID_SIZE, "128M" },
                { 5 * GIB, NULL, ERROR_NOT_PLUGGED,
                        "4G plugged in DIMMs, and the 1G at boot cannot leave; ask for 3G" },
                { 1100 * MIB, NULL, ERROR_UNALIGNED_SIZE, "ask for 1G or 2G" },
                { 512 * MIB, NULL, ERROR_NO_EXACT_FIT, "ask for 1G" },
                { GIB, "dimm9", ERROR_UNKNOWN_DEVICE, "of 3 plugged there are: dimm0, dimm1, dimm2" },
                { GIB, "vm0", ERROR_UNKNOWN_DEVICE, "not a DIMM" },
                { GIB, "dimm2", ERROR_UNPLUG_PENDING, "dimm2 cannot be removed now" },
                { GIB, "dimm1", ERROR_NO_EXACT_FIT, "ask for 2G" },
        };
        struct plan_remove remove;
        struct error error;
        struct model m;

        model_init(&m, 128 * MIB, GIB, 32 * GIB, 16);
        assert_int_equal(plan_removal(&m.s, GIB, NULL, &remove, &error), -ERANGE);
        assert_int_equal(error.code, ERROR_NOT_PLUGGED);
        assert_int_equal(plan_removal(&m.s, GIB, "dimm0", &remove, &error), -ENODEV);

        model_plug(&m, GIB, ZONE_MOVABLE);
        model_plug(&m, 2 * GIB, ZONE_MOVABLE);
        model_plug(&m, GIB, ZONE_MOVABLE)->removable = false;
        struct plan_device *vm = model_plug(&m, 4 * GIB, ZONE_MOVABLE);
        vm->is_dimm = false;
        snprintf(vm->id, sizeof(vm->id), "vm0");

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                assert_true(plan_removal(&m.s, rows[i].size, rows[i].device_id, &remove, &error) < 0);
                if (error.code != rows[i].code || !strstr(error.message, rows[i].says))
                        fail_msg("row %zu: %s: %s", i, error_code_name(error.code), error.message);
        }
        assert_int_equal(plan_removal(&m.s, 2 * GIB, "dimm1", &remove, &error), 0);
        assert_int_equal(remove.n_devices, 1);
        assert_int_equal(remove.devices[0], 1);
        assert_int_equal(plan_removal(&m.s, 4 * GIB, NULL, &remove, &error), 0);
        assert_int_equal(remove.total_bytes, 3 * GIB);

        m.devices[0].removable = m.devices[1].removable = false;
        assert_int_equal(plan_removal(&m.s, GIB, NULL, &remove, &error), -ERANGE);
        assert_non_null(strstr(error.message, "None of the 4G"));
        assert_null(strstr(error.message, "reset"));

        m.devices[0].unplug_pending = true;
        assert_int_equal(plan_removal(&m.s, GIB, NULL, &remove, &error), -ERANGE);
        assert_non_null(strstr(error.message, "only with a reset of the guest"));
        assert_true(plan_removal(&m.s, GIB, "dimm0", &remove, &error) < 0);
        assert_int_equal(error.code, ERROR_UNPLUG_PENDING);
        assert_non_null(strstr(error.message, "only a reset of the guest"));
}

static void test_reconcile(void **state)
{
        const uint64_t g = 128 * MIB;
        const struct plan_attached devices[] = {
                { "dimm1", PLAN_BACKEND_PREFIX "1", 5 * GIB, GIB },
                { "dimm0", PLAN_BACKEND_PREFIX "0", 4 * GIB, GIB },
                { "odd", "theirs", 8 * GIB + 64 * MIB, 256 * MIB },
        };
        const char *const backends[] = { "theirs", PLAN_BACKEND_PREFIX "0", PLAN_BACKEND_PREFIX "2", "pc.ram",
                PLAN_BACKEND_PREFIX "1", PLAN_BACKEND_PREFIX "10" };
        const struct block_range blocks[] = {
                { 0, 4 * GIB, BLOCK_ONLINE, ZONE_KERNEL },
                { 4 * GIB, g, BLOCK_ONLINE, ZONE_MOVABLE },
                { 4 * GIB + g, GIB, BLOCK_OFFLINE, ZONE_UNKNOWN }, /* over the border of two devices */
                { 5 * GIB + g, g, BLOCK_CHANGING, ZONE_UNKNOWN },
                { 5 * GIB + 2 * g, 2 * g, BLOCK_OFFLINE, ZONE_UNKNOWN },
                { 7 * GIB, GIB, BLOCK_OFFLINE, ZONE_UNKNOWN }, /* of no device */
                { 8 * GIB, 4 * g, BLOCK_OFFLINE, ZONE_UNKNOWN },
        };
        static const struct mem_range expected[] = {
                { 4 * GIB + 128 * MIB, GIB },
                { 5 * GIB + 256 * MIB, 256 * MIB },
                { 8 * GIB + 128 * MIB, 128 * MIB },
        };
        struct plan_reconcile r = {
                .granule_bytes = g,
                .devices = devices,
                .n_devices = ARRAY_SIZE(devices),
                .backends = backends,
                .n_backends = ARRAY_SIZE(backends),
                .blocks = blocks,
                .n_blocks = ARRAY_SIZE(blocks),
        };
        size_t orphans[ARRAY_SIZE(backends)], n;
        struct mem_range *ranges;

        assert_int_equal(plan_orphan_backends(&r, orphans), 2);
        assert_int_equal(orphans[0], 2);
        assert_int_equal(orphans[1], 5);

        assert_int_equal(plan_offline_ranges(&r, &ranges, &n), 0);
        assert_int_equal(n, ARRAY_SIZE(expected));
        assert_memory_equal(ranges, expected, sizeof(expected));
        free(ranges);

        r.n_blocks = 2;
        assert_int_equal(plan_offline_ranges(&r, &ranges, &n), 0);
        assert_int_equal(n, 0);
        assert_null(ranges);
}

/* The fewest steps that do, also where a hostile guest's figures make them more than can be gone through. */
static void test_kernel_part(void **state)
{
        static const struct {
                uint64_t kernel, movable, bytes, step;
        } rows[] = {
                { GIB, 0, 2 * GIB, 128 * MIB },
                { GIB, 0, 4 * GIB, 128 * MIB },
                { GIB, 3 * GIB, 4 * GIB, 128 * MIB },
                { GIB, 8 * GIB, 4 * GIB, 128 * MIB },
                { GIB, 8 * GIB, 100 * MIB, 128 * MIB },
                { 0, 1ULL << 52, 1ULL << 51, MIB },
                { 0, 0, 1ULL << 60, MIB },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                uint64_t kernel = rows[i].kernel, movable = rows[i].movable, bytes = rows[i].bytes;
                uint64_t part = plan_kernel_part(kernel, movable, bytes, rows[i].step);
                uint64_t less = part > 0 ? (part - 1) / rows[i].step * rows[i].step : 0;

                assert_true(part == bytes || (part < bytes && part % rows[i].step == 0));
                assert_true(zone_ratio_budget(kernel + part, movable) >= bytes - part);
                assert_true(part == 0 || zone_ratio_budget(kernel + less, movable) < bytes - less);
        }
}

static void test_zone_policy(void **state)
{
        for (enum zone_policy p = 0; p < ZONE_POLICY_MAX; p++)
                assert_int_equal(zone_policy_from_string(zone_policy_to_string(p)), p);
        assert_int_equal(zone_policy_from_string("Auto"), ZONE_POLICY_INVALID);
        assert_int_equal(zone_policy_from_string(NULL), ZONE_POLICY_INVALID);
        assert_null(zone_policy_to_string(ZONE_POLICY_INVALID));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_addition_pieces),
                cmocka_unit_test(test_addition_pseries),
                cmocka_unit_test(test_addition_errors),
                cmocka_unit_test(test_addition_foreign_devices),
                cmocka_unit_test(test_addition_small_steps),
                cmocka_unit_test(test_removal_errors),
                cmocka_unit_test(test_reconcile),
                cmocka_unit_test(test_kernel_part),
                cmocka_unit_test(test_zone_policy),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
