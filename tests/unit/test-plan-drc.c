/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* DRC indices: which device an index names, and what is said of one that names none. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/size.h"
#include "hvd/plan.h"

/* 1 GiB at boot; two LMBs, a gap, and two devices of two LMBs each, listed in another order. */
static const struct plan_device devices[] = {
        { .id = "dimm2", .address = 2 * GIB, .size_bytes = 512 * MIB, .is_dimm = true, .removable = true },
        { .id = "dimm0", .address = GIB, .size_bytes = 256 * MIB, .is_dimm = true, .removable = true },
        { .id = "dimm3", .address = 2560 * MIB, .size_bytes = 512 * MIB, .is_dimm = true, .removable = true },
        { .id = "dimm1", .address = 1280 * MIB, .size_bytes = 256 * MIB, .is_dimm = true, .removable = true },
};

static struct plan_snapshot snapshot(size_t n_devices)
{
        return (struct plan_snapshot) {
                .granule_bytes = PLAN_LMB_BYTES,
                .base_bytes = GIB,
                .max_bytes = 9 * GIB,
                .slots = 32,
                .is_pseries = true,
                .devices = devices,
                .n_devices = n_devices,
        };
}

static void test_text(void **state)
{
        assert_int_equal(plan_drc_index(0), 0x80000000);
        assert_int_equal(plan_drc_index(GIB), 0x80000004);
        assert_int_equal(plan_drc_index(GIB + 255 * MIB), 0x80000004);
        assert_string_equal(PLAN_DRC_TEXT(GIB, 256 * MIB), "LMB 0x80000004");
        assert_string_equal(PLAN_DRC_TEXT(GIB, GIB), "LMBs 0x80000004 to 0x80000007");
        assert_string_equal(PLAN_DRC_TEXT(4 * GIB, 256 * MIB), "LMB 0x80000010");
}

static void test_found(void **state)
{
        static const struct {
                uint32_t drc;
                uint64_t size;
                const char *id;
        } rows[] = {
                { 0x80000004, 256 * MIB, "dimm0" },
                { 0x80000005, 256 * MIB, "dimm1" },
                { 0x80000008, 512 * MIB, "dimm2" },
                { 0x80000009, 512 * MIB, "dimm2" },
                { 0x8000000b, 512 * MIB, "dimm3" },
        };
        struct plan_snapshot s = snapshot(ARRAY_SIZE(devices));

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct plan_remove remove;
                struct error error;
                size_t index;

                assert_int_equal(plan_find_drc(&s, rows[i].drc, rows[i].size, &index, &error), 0);
                assert_string_equal(devices[index].id, rows[i].id);
                assert_int_equal(plan_removal(&s, rows[i].size, devices[index].id, &remove, &error), 0);
                assert_int_equal(remove.n_devices, 1);
                assert_int_equal(remove.devices[0], index);
        }
}

static void test_refused(void **state)
{
        static const struct {
                uint32_t drc;
                uint64_t size;
                enum error_code code;
                const char *says;
        } rows[] = {
                /* no index at all: neither a count nor an address */
                { 0, 256 * MIB, ERROR_UNKNOWN_DEVICE, "There is no LMB 0x00000000; plugged are LMBs" },
                { 1, 256 * MIB, ERROR_UNKNOWN_DEVICE, "There is no LMB 0x00000001;" },
                { 0x7fffffff, 256 * MIB, ERROR_UNKNOWN_DEVICE, "" },
                /* base memory */
                { 0x80000000, 256 * MIB, ERROR_NOT_PLUGGED, "base memory: the 1G at boot cannot leave" },
                { 0x80000003, 256 * MIB, ERROR_NOT_PLUGGED, "base memory" },
                /* between devices, and behind them */
                { 0x80000006, 256 * MIB, ERROR_UNKNOWN_DEVICE,
                        "plugged are LMBs 0x80000004 to 0x80000005, LMBs 0x80000008 to 0x8000000b" },
                { 0x8000000c, 256 * MIB, ERROR_UNKNOWN_DEVICE, "" },
                { 0xffffffff, 256 * MIB, ERROR_UNKNOWN_DEVICE, "" },
                /* more LMBs than asked, fewer, and a size of no LMBs */
                { 0x80000009, 256 * MIB, ERROR_NO_EXACT_FIT,
                        "LMB 0x80000009 lies in dimm2, which has 512M (LMBs 0x80000008 to 0x80000009) and "
                        "leaves whole or not at all, not by 256M; to remove all of it, name the device dimm2 "
                        "and ask for 512M" },
                { 0x80000008, GIB, ERROR_NO_EXACT_FIT, "dimm2" },
                { 0x80000004, 512 * MIB, ERROR_NO_EXACT_FIT, "LMB 0x80000004 (dimm0) has 256M" },
                { 0x80000004, 100 * MIB, ERROR_NO_EXACT_FIT, "not by 100M; ask for 256M" },
        };
        struct plan_snapshot s = snapshot(ARRAY_SIZE(devices));

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct error error = { 0 };
                size_t index = 77;

                assert_true(plan_find_drc(&s, rows[i].drc, rows[i].size, &index, &error) < 0);
                if (error.code != rows[i].code || !strstr(error.message, rows[i].says))
                        fail_msg("row %zu: %s: %s", i, error_code_name(error.code), error.message);
                assert_int_equal(index, 77);
        }
}

static void test_nothing_to_name(void **state)
{
        struct plan_snapshot s = snapshot(0);
        struct error error;
        size_t index;

        assert_true(plan_find_drc(&s, 0x80000004, 256 * MIB, &index, &error) < 0);
        assert_int_equal(error.code, ERROR_UNKNOWN_DEVICE);
        assert_non_null(strstr(error.message, "no DIMM is plugged"));

        s = snapshot(ARRAY_SIZE(devices));
        s.is_pseries = false;
        assert_true(plan_find_drc(&s, 0x80000004, 256 * MIB, &index, &error) < 0);
        assert_int_equal(error.code, ERROR_INVALID_ARGUMENT);
        assert_non_null(strstr(error.message, "no pseries guest"));
}

/* Many runs: the sentence stays within bounds, and says that there are more. */
static void test_many_runs(void **state)
{
        struct plan_device many[32];
        struct plan_snapshot s = snapshot(0);
        struct error error;
        size_t index;

        for (size_t i = 0; i < ARRAY_SIZE(many); i++)
                many[i] = (struct plan_device) {
                        .address = GIB + 1024 * MIB * i, .size_bytes = 512 * MIB, .is_dimm = true
                };
        s.devices = many;
        s.n_devices = ARRAY_SIZE(many);
        assert_true(plan_find_drc(&s, 0x80000006, 256 * MIB, &index, &error) < 0);
        assert_non_null(strstr(error.message, "to 0x80000011 and others"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_text),
                cmocka_unit_test(test_found),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_nothing_to_name),
                cmocka_unit_test(test_many_runs),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
