/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Where virtio-mem devices lie of which the hypervisor does not say it, by the guest's blocks. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "hvd/partition.h"

#define UNKNOWN PLATFORM_ADDRESS_UNKNOWN
#define N_MAX   4

struct device {
        uint64_t address, region_bytes, size_bytes;
        unsigned node;
        bool is_dimm;
        uint64_t placed; /* what is expected; 0: it stays unknown */
};

struct run {
        uint64_t start, length;
        unsigned node;
};

static const struct {
        const char *name;
        uint64_t base_bytes;
        struct device devices[N_MAX];
        struct run runs[N_MAX];
} cases[] = {
        { "nothing plugged", GIB, { { UNKNOWN, 4 * GIB, 0, 0, false, 0 } }, { { 0, GIB, 0 } } },
        { "alone", GIB, { { UNKNOWN, 4 * GIB, GIB, 0, false, 4 * GIB } },
                { { 0, GIB, 0 }, { 4 * GIB, GIB, 0 } } },
        { "base in two parts, and joined to it", 4 * GIB, { { UNKNOWN, 4 * GIB, GIB, 0, false, 6 * GIB } },
                { { 0, 2 * GIB, 0 }, { 4 * GIB, 3 * GIB, 0 } } },
        { "behind a DIMM", GIB,
                { { 4 * GIB, GIB, GIB, 0, true, 4 * GIB }, { UNKNOWN, 2 * GIB, GIB, 0, false, 5 * GIB } },
                { { 0, GIB, 0 }, { 4 * GIB, 2 * GIB, 0 } } },
        { "before a DIMM, and what lay lowest has left", GIB,
                { { UNKNOWN, 2 * GIB, GIB, 0, false, 4 * GIB }, { 6 * GIB, GIB, GIB, 0, true, 6 * GIB } },
                { { 0, GIB, 0 }, { 5 * GIB, 2 * GIB, 0 } } },
        { "one for each node", 2 * GIB,
                { { UNKNOWN, 2 * GIB, GIB, 1, false, 6 * GIB },
                        { UNKNOWN + 2 * GIB, 2 * GIB, GIB, 0, false, 4 * GIB } },
                { { 0, GIB, 0 }, { GIB, GIB, 1 }, { 4 * GIB, GIB, 0 }, { 6 * GIB, GIB, 1 } } },
        { "two in one node, the first of them empty", GIB,
                { { UNKNOWN, 2 * GIB, 0, 0, false, 0 },
                        { UNKNOWN + 2 * GIB, 2 * GIB, GIB, 0, false, 6 * GIB } },
                { { 0, GIB, 0 }, { 6 * GIB, GIB, 0 } } },
        { "two that touch", GIB,
                { { UNKNOWN, 2 * GIB, 2 * GIB, 0, false, 4 * GIB },
                        { UNKNOWN + 2 * GIB, 2 * GIB, GIB, 0, false, 6 * GIB } },
                { { 0, GIB, 0 }, { 4 * GIB, 3 * GIB, 0 } } },
        { "no memory beyond the base yet", GIB, { { UNKNOWN, 2 * GIB, GIB, 0, false, 0 } },
                { { 0, GIB, 0 } } },
        { "a device without any extent", GIB, { { UNKNOWN, 0, GIB, 0, false, 0 } },
                { { 0, GIB, 0 }, { 4 * GIB, GIB, 0 } } },
};

static void fill(struct partition *p, const struct device *devices, const struct run *runs)
{
        p->snapshot.devices = calloc(N_MAX, sizeof(*p->snapshot.devices));
        p->blocks = calloc(N_MAX, sizeof(*p->blocks));
        assert_true(p->snapshot.devices && p->blocks);
        for (; p->snapshot.n_devices < N_MAX && devices[p->snapshot.n_devices].address > 0;
                p->snapshot.n_devices++) {
                const struct device *from = &devices[p->snapshot.n_devices];
                struct platform_device *d = &p->snapshot.devices[p->snapshot.n_devices];

                d->address = from->address;
                d->region_bytes = from->region_bytes;
                d->size_bytes = from->size_bytes;
                d->node = from->node;
                d->is_dimm = from->is_dimm;
                d->slot = (unsigned)p->snapshot.n_devices; /* to know it by */
        }
        for (; p->n_blocks < N_MAX && runs[p->n_blocks].length > 0; p->n_blocks++)
                p->blocks[p->n_blocks] = (struct block_range) {
                        .start = runs[p->n_blocks].start,
                        .length = runs[p->n_blocks].length,
                        .node = runs[p->n_blocks].node,
                        .state = BLOCK_ONLINE,
                        .zone = ZONE_MOVABLE,
                };
}

static void check(const struct partition *p, const struct device *expected)
{
        for (size_t i = 0; i < p->snapshot.n_devices; i++) {
                const struct platform_device *d = &p->snapshot.devices[i];
                uint64_t placed = expected[d->slot].placed;

                if (placed > 0)
                        assert_int_equal(d->address, placed);
                else
                        assert_true(d->address >= UNKNOWN);
                assert_int_equal(d->is_placed, placed > 0 && !d->is_dimm);
                if (i > 0)
                        assert_true(d->address >= d[-1].address + d[-1].region_bytes);
        }
}

static void test_place(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct partition p = { .snapshot.base_bytes = cases[i].base_bytes };

                print_message("%s\n", cases[i].name);
                fill(&p, cases[i].devices, cases[i].runs);
                partition_place_devices(&p);
                check(&p, cases[i].devices);
                partition_place_devices(&p); /* the same again: nothing is stuck where it was */
                check(&p, cases[i].devices);
                platform_snapshot_done(&p.snapshot);
                free(p.blocks);
        }
}

/* No block is in it before it was placed, not even those at boot. */
static void test_device_at(void **state)
{
        static const struct device devices[N_MAX] = { { UNKNOWN, 4 * GIB, GIB, 0, false, 0 } };
        static const struct run runs[N_MAX] = { { 0, GIB, 0 }, { 4 * GIB, GIB, 0 } };
        struct partition p = { .snapshot.base_bytes = GIB };

        fill(&p, devices, runs);
        strcpy(p.snapshot.devices[0].id, "vm0");
        assert_string_equal(partition_device_at(&p, 0), "");
        assert_string_equal(partition_device_at(&p, 4 * GIB), "");
        partition_place_devices(&p);
        assert_string_equal(partition_device_at(&p, 0), "");
        assert_string_equal(partition_device_at(&p, 4 * GIB), "vm0");
        platform_snapshot_done(&p.snapshot);
        free(p.blocks);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_place),
                cmocka_unit_test(test_device_at),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
