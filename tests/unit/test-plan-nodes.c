/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The planner's ties: what it chooses among what is alike, so that the guest's nodes stay in balance, and
 * what it leaves for the sake of the guest's zones. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "hvd/plan.h"

#define NODES   4U
#define DEVICES 10U

struct guest {
        struct plan_snapshot s;
        uint64_t base_bytes[NODES];
        struct plan_device devices[PLAN_DEVICES_MAX];
};

static void guest_init(struct guest *g, unsigned n_nodes, const uint64_t *base_bytes)
{
        *g = (struct guest) { 0 };
        g->s = (struct plan_snapshot) {
                .granule_bytes = 128 * MIB,
                .max_bytes = 256 * GIB,
                .slots = 64,
                .n_nodes = n_nodes,
                .node_base_bytes = g->base_bytes,
                .devices = g->devices,
        };
        for (unsigned i = 0; i < n_nodes; i++) {
                g->base_bytes[i] = base_bytes[i];
                g->s.base_bytes += base_bytes[i];
        }
        g->s.kernel_bytes = g->s.base_bytes;
}

static struct plan_device *guest_plug(struct guest *g, uint64_t size_bytes, unsigned node, enum zone zone)
{
        struct plan_device *d = &g->devices[g->s.n_devices];

        *d = (struct plan_device) {
                .address = 4 * GIB + g->s.n_devices * 8 * GIB,
                .size_bytes = size_bytes,
                .node = node,
                .is_dimm = true,
                .removable = true,
                .movable_bytes = zone == ZONE_MOVABLE ? size_bytes : 0,
                .kernel_bytes = zone == ZONE_KERNEL ? size_bytes : 0,
        };
        snprintf(d->id, sizeof(d->id), "dimm%zu", g->s.n_devices++);
        g->s.kernel_bytes += d->kernel_bytes;
        g->s.movable_bytes += d->movable_bytes;
        return d;
}

static struct plan_remove remove_bytes(const struct guest *g, uint64_t bytes)
{
        struct plan_remove plan = { 0 };
        struct error error = { 0 };

        if (plan_removal(&g->s, bytes, NULL, &plan, &error) < 0)
                fail_msg("%s", error.message);
        return plan;
}

/* The nodes of the devices in the order in which they leave: "1 0 1". */
static const char *nodes_of(const struct guest *g, const struct plan_remove *plan)
{
        static char text[256];
        size_t used = 0;

        text[0] = '\0';
        for (size_t i = 0; i < plan->n_devices; i++)
                used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%u", i ? " " : "",
                        g->devices[plan->devices[i]].node);
        return text;
}

static const uint64_t even[NODES] = { GIB, GIB, GIB, GIB };

static void test_removal_order(void **state)
{
        struct guest g;

        guest_init(&g, 2, even);
        for (unsigned i = 0; i < 4; i++)
                guest_plug(&g, GIB, i < 3 ? 0 : 1, ZONE_MOVABLE);
        /* The highest address lies in node 1, which has less. */
        struct plan_remove plan = remove_bytes(&g, GIB);
        assert_string_equal(nodes_of(&g, &plan), "0");
        assert_int_equal(plan.devices[0], 2);
        plan = remove_bytes(&g, 3 * GIB);
        assert_string_equal(nodes_of(&g, &plan), "0 0 1");
        /* Cost comes before balance, and so does the class. */
        g.devices[0].migrate_bytes = g.devices[1].migrate_bytes = g.devices[2].migrate_bytes =
                2 * PLAN_COST_STEP;
        plan = remove_bytes(&g, GIB);
        assert_string_equal(nodes_of(&g, &plan), "1");
        g.devices[3].has_obstacle = true;
        plan = remove_bytes(&g, 2 * GIB);
        assert_string_equal(nodes_of(&g, &plan), "0 0");
}

/* In proportion to what each had at boot, and where that was nothing it goes first. */
static void test_removal_proportion(void **state)
{
        static const uint64_t uneven[] = { GIB, 3 * GIB, 0 };
        struct guest g;

        guest_init(&g, 3, uneven);
        for (unsigned i = 0; i < 6; i++)
                guest_plug(&g, GIB, i < 2 ? 0 : 1, ZONE_MOVABLE);
        struct plan_remove plan = remove_bytes(&g, 3 * GIB);
        assert_string_equal(nodes_of(&g, &plan), "0 1 1");
        guest_plug(&g, GIB, 2, ZONE_MOVABLE);
        plan = remove_bytes(&g, 2 * GIB);
        assert_string_equal(nodes_of(&g, &plan), "2 0");
        /* What is not known counts alike for all. */
        g.s.n_nodes = 0;
        plan = remove_bytes(&g, GIB);
        assert_string_equal(nodes_of(&g, &plan), "1");
        /* A node that none can have is no way out of the tables. */
        g.devices[6].node = UINT32_MAX;
        plan = remove_bytes(&g, 7 * GIB);
        assert_int_equal(plan.n_devices, 7);
}

static double fullest(const struct guest *g, uint32_t gone)
{
        double most = 0;

        for (unsigned n = 0; n < g->s.n_nodes; n++) {
                uint64_t bytes = 0;

                for (size_t i = 0; i < g->s.n_devices; i++)
                        if (g->devices[i].node == n && !(gone & UINT32_C(1) << i))
                                bytes += g->devices[i].size_bytes;
                most = MAX(most, (double)bytes / (double)g->base_bytes[n]);
        }
        return most;
}

/* Of alike devices no other choice leaves the fullest node less full: against every choice that there is. */
static void test_removal_is_balanced(void **state)
{
        for (unsigned round = 0; round < 300; round++) {
                uint64_t base_bytes[NODES];
                unsigned n_nodes = 1 + (unsigned)rand() % NODES;
                size_t n = 1 + (size_t)rand() % DEVICES, k = 1 + (size_t)rand() % n;
                double best = 1e9;
                uint32_t mask = 0;
                struct guest g;

                for (unsigned i = 0; i < n_nodes; i++)
                        base_bytes[i] = (1 + (uint64_t)rand() % 4) * GIB;
                guest_init(&g, n_nodes, base_bytes);
                for (size_t i = 0; i < n; i++)
                        guest_plug(&g, GIB, (unsigned)rand() % n_nodes, ZONE_MOVABLE);
                struct plan_remove plan = remove_bytes(&g, k * GIB);
                assert_int_equal(plan.n_devices, k);
                for (size_t i = 0; i < k; i++)
                        mask |= UINT32_C(1) << plan.devices[i];
                assert_int_equal(__builtin_popcount(mask), k);
                for (uint32_t set = 0; set < UINT32_C(1) << n; set++)
                        if ((size_t)__builtin_popcount(set) == k)
                                best = MIN(best, fullest(&g, set));
                if (fullest(&g, mask) > best * 1.0001)
                        fail_msg("round %u: %f instead of %f", round, fullest(&g, mask), best);
        }
}

static struct plan_add add_bytes(const struct guest *g, uint64_t bytes, int node)
{
        struct plan_add add = { 0 };
        struct error error = { 0 };

        if (plan_addition(&g->s, bytes, ZONE_POLICY_AUTO, &add, &error) < 0)
                fail_msg("%s", error.message);
        plan_choose_nodes(&g->s, node, &add);
        return add;
}

static void test_addition_nodes(void **state)
{
        static const uint64_t memoryless[] = { GIB, 0 };
        struct guest g;

        /* One node, or none known: the hypervisor's choice, as ever. */
        guest_init(&g, 1, even);
        struct plan_add add = add_bytes(&g, GIB, -1);
        assert_int_equal(add.pieces[0].node, -1);
        g.s.n_nodes = 0;
        add = add_bytes(&g, GIB, -1);
        assert_int_equal(add.pieces[0].node, -1);
        add = add_bytes(&g, GIB, 0);
        assert_int_equal(add.pieces[0].node, 0);

        guest_init(&g, 2, even);
        guest_plug(&g, GIB, 0, ZONE_MOVABLE);
        add = add_bytes(&g, 128 * MIB, -1);
        assert_int_equal(add.n_pieces, 1);
        assert_int_equal(add.pieces[0].node, 1);
        add = add_bytes(&g, 128 * MIB, 0);
        assert_int_equal(add.pieces[0].node, 0);

        guest_init(&g, 2, memoryless);
        add = add_bytes(&g, 3 * GIB, -1);
        for (size_t i = 0; i < add.n_pieces; i++)
                assert_int_equal(add.pieces[i].node, 0);
}

/* No node's last piece would have been better off in another one. */
static void test_addition_is_balanced(void **state)
{
        for (unsigned round = 0; round < 300; round++) {
                uint64_t base_bytes[NODES], plugged[NODES] = { 0 }, last[NODES] = { 0 };
                unsigned n_nodes = 2 + (unsigned)rand() % (NODES - 1);
                struct guest g;

                for (unsigned i = 0; i < n_nodes; i++)
                        base_bytes[i] = (1 + (uint64_t)rand() % 4) * GIB;
                guest_init(&g, n_nodes, base_bytes);
                struct plan_add add = add_bytes(&g, (1 + (uint64_t)rand() % 64) * 256 * MIB, -1);
                for (size_t i = 0; i < add.n_pieces; i++) {
                        assert_in_range(add.pieces[i].node, 0, n_nodes - 1);
                        plugged[add.pieces[i].node] += add.pieces[i].size_bytes;
                        last[add.pieces[i].node] = add.pieces[i].size_bytes;
                }
                for (unsigned a = 0; a < n_nodes; a++)
                        for (unsigned b = 0; last[a] > 0 && b < n_nodes; b++) {
                                double is = (double)plugged[a] / (double)base_bytes[a];
                                double other = (double)(plugged[b] + last[a]) / (double)base_bytes[b];

                                if (a != b && is > other * 1.0001)
                                        fail_msg("round %u: %f in node %u, not %f in node %u", round, is, a,
                                                other, b);
                        }
        }
}

/* Kernel memory that zone Movable needs beside it stays. */
static void test_zone_ratio(void **state)
{
        struct error error = { 0 };
        struct plan_remove plan;
        struct guest g;

        guest_init(&g, 1, even);
        guest_plug(&g, GIB, 0, ZONE_KERNEL);
        guest_plug(&g, 2 * GIB, 0, ZONE_KERNEL);
        for (unsigned i = 0; i < 6; i++)
                guest_plug(&g, GIB, 0, ZONE_MOVABLE)->removable = false;
        /* 6 GiB Movable beside 4: 2 are enough. */
        plan = remove_bytes(&g, 3 * GIB);
        assert_int_equal(plan.total_bytes, 2 * GIB);
        assert_int_equal(plan.kept_bytes, GIB);
        assert_int_equal(plan.devices[0], 1);
        plan = remove_bytes(&g, GIB);
        assert_int_equal(plan.total_bytes, GIB);
        assert_int_equal(plan.kept_bytes, 0);
        g.devices[0].removable = false;
        g.s.kernel_bytes = 2 * GIB;
        assert_true(plan_removal(&g.s, 2 * GIB, NULL, &plan, &error) < 0);
        assert_int_equal(error.code, ERROR_ZONE_RATIO);
        /* Who names a device has it. */
        assert_int_equal(plan_removal(&g.s, 2 * GIB, "dimm1", &plan, NULL), 0);

        /* Movable memory that goes along makes room for it, and what was unfit before may become better. */
        guest_init(&g, 1, even);
        guest_plug(&g, GIB, 0, ZONE_KERNEL);
        for (unsigned i = 0; i < 8; i++)
                guest_plug(&g, GIB, 0, ZONE_MOVABLE);
        plan = remove_bytes(&g, 9 * GIB);
        assert_int_equal(plan.total_bytes, 9 * GIB);
        plan = remove_bytes(&g, 8 * GIB);
        assert_int_equal(plan.n_devices, 8);
        assert_int_equal(g.devices[plan.devices[7]].kernel_bytes, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_removal_order),
                cmocka_unit_test(test_removal_proportion),
                cmocka_unit_test(test_removal_is_balanced),
                cmocka_unit_test(test_addition_nodes),
                cmocka_unit_test(test_addition_is_balanced),
                cmocka_unit_test(test_zone_ratio),
        };

        srand(20261122);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
