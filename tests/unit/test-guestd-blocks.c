/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The inventory of blocks and the accounts of memory, on a tree of files. */

#include "test-guestd-tree.h"

#include "guestd/blocks.h"
#include "guestd/memory.h"
#include "guestd/zones.h"

#define BLOCK (128 * MIB)

static int setup(void **state)
{
        struct tree *t = calloc(1, sizeof(*t));

        tree_init(t);
        tree_block(t, 0, "online\n", "none\n", 0);
        for (unsigned i = 1; i < 8; i++)
                tree_block(t, i, "online\n", i < 3 ? "DMA32\n" : "Normal\n", 0);
        tree_block(t, 32, "online\n", "Movable\n", 0);
        tree_block(t, 33, "online\n", "Movable\n", 1);
        tree_block(t, 34, "offline\n", "Normal Movable\n", 1);
        tree_block(t, 35, "going-offline\n", "Movable\n", 1);
        tree_mkdir(t->memory_fd, "power");
        tree_mkdir(t->memory_fd, "memoryx");
        *state = t;
        return 0;
}

static int teardown(void **state)
{
        tree_done(*state);
        free(*state);
        return 0;
}

static void assert_range(const struct block_range *r, uint64_t first, uint64_t n, enum block_state state,
        enum zone zone, unsigned node)
{
        assert_int_equal(r->start, first * BLOCK);
        assert_int_equal(r->length, n * BLOCK);
        assert_int_equal(r->state, state);
        assert_int_equal(r->zone, zone);
        assert_int_equal(r->node, node);
}

static void test_inventory(void **state)
{
        struct tree *t = *state;
        struct block_range *ranges;
        struct blocks b;
        uint64_t online, offline, next;
        size_t n;

        assert_int_equal(blocks_open(&b, t->sys_fd), 0);
        assert_int_equal(b.block_bytes, BLOCK);
        assert_int_equal(b.n, 12);
        blocks_count(&b, &online, &offline);
        assert_int_equal(online, 10);
        assert_int_equal(offline, 2);

        assert_int_equal(blocks_ranges(&b, 0, PROTO_RANGES_MAX, &ranges, &n, &next), 0);
        assert_int_equal(n, 6);
        assert_int_equal(next, 0);
        assert_range(&ranges[0], 0, 1, BLOCK_ONLINE, ZONE_NONE, 0);
        assert_range(&ranges[1], 1, 7, BLOCK_ONLINE, ZONE_KERNEL, 0);
        assert_range(&ranges[2], 32, 1, BLOCK_ONLINE, ZONE_MOVABLE, 0);
        assert_range(&ranges[3], 33, 1, BLOCK_ONLINE, ZONE_MOVABLE, 1);
        assert_range(&ranges[4], 34, 1, BLOCK_OFFLINE, ZONE_UNKNOWN, 1);
        assert_range(&ranges[5], 35, 1, BLOCK_CHANGING, ZONE_MOVABLE, 1);
        free(ranges);
        /* That one changes back, of which no event tells. */
        tree_block(t, 35, "online\n", "Movable\n", 1);
        assert_int_equal(blocks_ranges(&b, 35 * BLOCK, 1, &ranges, &n, &next), 0);
        assert_range(&ranges[0], 35, 1, BLOCK_ONLINE, ZONE_MOVABLE, 1);
        free(ranges);
        blocks_close(&b);
}

static void test_paging(void **state)
{
        struct tree *t = *state;
        struct block_range *ranges;
        struct blocks b;
        uint64_t next = 0;
        size_t n, pages = 0, total = 0;

        assert_int_equal(blocks_open(&b, t->sys_fd), 0);
        do {
                assert_int_equal(blocks_ranges(&b, next, 2, &ranges, &n, &next), 0);
                total += n;
                pages++;
                free(ranges);
        } while (next > 0);
        assert_int_equal(pages, 3);
        assert_int_equal(total, 6);

        /* From the middle of a block: from the next one. */
        assert_int_equal(blocks_ranges(&b, 32 * BLOCK + 1, 1, &ranges, &n, &next), 0);
        assert_int_equal(n, 1);
        assert_int_equal(ranges[0].start, 33 * BLOCK);
        assert_int_equal(next, 34 * BLOCK);
        free(ranges);
        assert_int_equal(blocks_ranges(&b, PROTO_ADDRESS_MAX - 1, 8, &ranges, &n, &next), 0);
        assert_int_equal(n, 0);
        free(ranges);
        blocks_close(&b);
}

static void test_targets(void **state)
{
        struct tree *t = *state;
        struct mem_range targets[] = { { 7 * BLOCK, 2 * BLOCK }, { 34 * BLOCK, BLOCK } };
        struct block_range *ranges;
        struct error error;
        struct blocks b;
        size_t n;

        assert_int_equal(blocks_open(&b, t->sys_fd), 0);
        assert_int_equal(blocks_check_targets(&b, targets, 2, &error), 0);
        assert_int_equal(blocks_ranges_of(&b, targets, 2, 8, &ranges, &n), 0);
        assert_int_equal(n, 3);
        assert_range(&ranges[0], 7, 1, BLOCK_ONLINE, ZONE_KERNEL, 0);
        assert_range(&ranges[1], 8, 1, BLOCK_ABSENT, ZONE_UNKNOWN, 0);
        assert_range(&ranges[2], 34, 1, BLOCK_OFFLINE, ZONE_UNKNOWN, 1);
        free(ranges);
        assert_int_equal(targets_bytes(targets, 2), 3 * BLOCK);
        assert_true(targets_contain(targets, 2, 8 * BLOCK));
        assert_false(targets_contain(targets, 2, 9 * BLOCK));
        assert_true(targets_contain(targets, 2, 34 * BLOCK));
        assert_false(targets_contain(targets, 2, 35 * BLOCK));

        targets[1].length = BLOCK / 2;
        assert_true(blocks_check_targets(&b, targets, 2, &error) < 0);
        assert_int_equal(error.code, ERROR_INVALID_ARGUMENT);
        targets[1].length = (BLOCKS_TARGET_MAX + 1ULL) * BLOCK;
        assert_true(blocks_check_targets(&b, targets, 2, &error) < 0);
        assert_int_equal(error.code, ERROR_LIMIT);
        assert_true(blocks_check_targets(&b, targets, 0, &error) < 0);
        blocks_close(&b);
}

/* Where there never is another node, none is looked up: what stands in the way is not seen. */
static void test_one_node(void **state)
{
        struct tree *t = *state;
        struct blocks b;

        tree_block(t, 20, "online\n", "Movable\n", 2);
        tree_write(t->sys_fd, "devices/system/node/possible", "0\n");
        assert_int_equal(blocks_open(&b, t->sys_fd), 0);
        assert_int_equal(blocks_node(&b, 20), 0);
        blocks_close(&b);
        tree_write(t->sys_fd, "devices/system/node/possible", "0-2\n");
        assert_int_equal(blocks_open(&b, t->sys_fd), 0);
        assert_int_equal(blocks_node(&b, 20), 2);
        blocks_close(&b);
}

/* A block's "add" comes before its node: what is not known yet is not remembered. */
static void test_late_node(void **state)
{
        struct tree *t = *state;
        struct blocks b;

        tree_block(t, 20, "offline\n", "Normal Movable\n", -1);
        tree_write(t->sys_fd, "devices/system/node/possible", "0-2\n");
        assert_int_equal(blocks_open(&b, t->sys_fd), 0);
        assert_int_equal(blocks_node(&b, 20), 0);
        tree_write(t->memory_fd, "memory20/node2", "");
        assert_int_equal(blocks_node(&b, 20), 2);
        blocks_close(&b);
}

static void test_changes(void **state)
{
        struct tree *t = *state;
        struct blocks b;

        assert_int_equal(blocks_open(&b, t->sys_fd), 0);
        /* A block comes by its event, is online by the next, and its zone is read then. */
        assert_int_equal(blocks_note(&b, 20, BLOCK_OFFLINE), BLOCK_ABSENT);
        assert_int_equal(blocks_zone(&b, 20), ZONE_UNKNOWN);
        tree_block(t, 20, "online\n", "Movable\n", 2);
        assert_int_equal(blocks_note(&b, 20, BLOCK_ONLINE), BLOCK_OFFLINE);
        assert_int_equal(blocks_zone(&b, 20), ZONE_MOVABLE);
        assert_int_equal(blocks_node(&b, 20), 2);
        /* The zone is forgotten with the state. */
        tree_block(t, 20, "online\n", "Normal\n", 2);
        assert_int_equal(blocks_zone(&b, 20), ZONE_MOVABLE);
        blocks_note(&b, 20, BLOCK_OFFLINE);
        blocks_note(&b, 20, BLOCK_ONLINE);
        assert_int_equal(blocks_zone(&b, 20), ZONE_KERNEL);

        tree_remove_block(t, 20);
        assert_int_equal(blocks_state(&b, 20), BLOCK_ONLINE);
        assert_int_equal(blocks_refresh(&b, 20), BLOCK_ABSENT);
        assert_null(blocks_find(&b, 20));
        assert_int_equal(blocks_note(&b, 20, BLOCK_ABSENT), BLOCK_ABSENT);
        assert_int_equal(blocks_node(&b, 20), 0);
        assert_int_equal(b.n, 12);

        /* Lost events: a scan finds all of it. */
        tree_block(t, 50, "offline\n", "Movable\n", 0);
        tree_remove_block(t, 33);
        assert_int_equal(blocks_scan(&b), 0);
        assert_int_equal(b.n, 12);
        assert_int_equal(blocks_state(&b, 50), BLOCK_OFFLINE);
        assert_int_equal(blocks_state(&b, 33), BLOCK_ABSENT);
        blocks_close(&b);
}

static void test_bad_trees(void **state)
{
        struct tree *t = *state;
        static const char *const sizes[] = { "", "0", "x", "8000001", "1000", "80000000000000000" };
        struct blocks b;

        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                tree_write(t->memory_fd, "block_size_bytes", sizes[i]);
                assert_int_equal(blocks_open(&b, t->sys_fd), -EINVAL);
        }
        assert_int_equal(blocks_open(&b, t->proc_fd), -ENOENT);
}

static void test_names(void **state)
{
        static const struct {
                const char *name;
                int r;
                uint32_t number;
        } cases[] = {
                { "memory0", 0, 0 },
                { "memory4000000000", 0, 4000000000 },
                { "memory4294967295", -EINVAL, 0 },
                { "memory99999999999999999999999", -EINVAL, 0 },
                { "memory", -EINVAL, 0 },
                { "memory1x", -EINVAL, 0 },
                { "memory-1", -EINVAL, 0 },
                { "mem1", -EINVAL, 0 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                uint32_t number = 0;
                assert_int_equal(block_number_from_name(cases[i].name, &number), cases[i].r);
                assert_int_equal(number, cases[i].number);
        }
}

static void test_auto_online(void **state)
{
        struct tree *t = *state;
        char value[AUTO_ONLINE_MAX];
        struct blocks b;

        assert_int_equal(blocks_open(&b, t->sys_fd), 0);
        assert_int_equal(blocks_get_auto_online(&b, value), 0);
        assert_string_equal(value, "offline");
        unlinkat(t->memory_fd, "auto_online_blocks", 0);
        assert_int_equal(blocks_get_auto_online(&b, value), -ENOENT);
        blocks_close(&b);
}

/* Where one zone alone lies, its blocks are known without asking for each; elsewhere the kernel is asked:
 * here it says "none" of every block, so that the one is told from the other. */
static void test_learn_zones(void **state)
{
        struct tree *t = *state;
        struct guest_memory m;
        char text[512];
        struct blocks b;

        unsigned long long pages = (128 * MIB) / (uint64_t)sysconf(_SC_PAGESIZE);
        snprintf(text, sizeof(text),
                "Node 0, zone      DMA\n  pages free     0\n        spanned  0\n        present  0\n"
                "Node 0, zone   Normal\n        spanned  %llu\n        present  9\n  start_pfn:           "
                "%llu\n"
                "Node 1, zone  Movable\n        spanned  %llu\n        present  9\n  start_pfn:           "
                "%llu\n",
                10 * pages, 40 * pages, 12 * pages, 48 * pages);
        tree_write(t->proc_fd, "zoneinfo", text);
        for (unsigned i = 40; i < 62; i++)
                tree_block(t, i, i == 45 ? "offline\n" : "online\n", "none\n", 0);
        assert_int_equal(blocks_open(&b, t->sys_fd), 0);
        zones_learn(t->proc_fd, &b);
        for (unsigned i = 40; i < 62; i++)
                assert_int_equal(blocks_zone(&b, i), i == 45             ? ZONE_UNKNOWN
                                                     : i < 48            ? ZONE_KERNEL
                                                     : i < 50 || i >= 60 ? ZONE_NONE
                                                                         : ZONE_MOVABLE);
        /* A few are not worth it; without zoneinfo each is asked for. */
        for (unsigned i = 0; i < 40; i++)
                (void)blocks_zone(&b, i);
        for (unsigned i = 40; i < 44; i++) {
                blocks_note(&b, i, BLOCK_OFFLINE);
                blocks_note(&b, i, BLOCK_ONLINE);
        }
        zones_learn(t->proc_fd, &b);
        assert_int_equal(blocks_zone(&b, 40), ZONE_NONE);
        /* Unless zoneinfo is read in any case. */
        assert_int_equal(memory_read(t->proc_fd, &b, &m), 0);
        assert_int_equal(blocks_zone(&b, 41), ZONE_KERNEL);
        blocks_scan(&b);
        unlinkat(t->proc_fd, "zoneinfo", 0);
        zones_learn(t->proc_fd, &b);
        assert_int_equal(blocks_zone(&b, 55), ZONE_NONE);
        blocks_close(&b);
}

static void test_memory(void **state)
{
        struct tree *t = *state;
        struct guest_memory m;

        tree_zoneinfo(t, 3 * GIB, 2 * GIB);
        assert_int_equal(memory_read(t->proc_fd, NULL, &m), 0);
        assert_int_equal(m.total_bytes, 8 * GIB);
        assert_int_equal(m.available_bytes, 6 * GIB);
        assert_int_equal(m.swap_total_bytes, 2 * MIB);
        assert_int_equal(m.swap_free_bytes, 1 * MIB);
        assert_int_equal(m.kernel_bytes, 3 * GIB);
        assert_int_equal(m.movable_bytes, 2 * GIB);
        assert_false(m.has_pressure);

        tree_mkdir(t->proc_fd, "pressure");
        tree_write(t->proc_fd, "pressure/memory",
                "some avg10=1.23 avg60=0.00 avg300=0.00 total=1\nfull avg10=100.00 avg60=0.00 avg300=0.00 "
                "total=0\n");
        unlinkat(t->proc_fd, "zoneinfo", 0);
        assert_int_equal(memory_read(t->proc_fd, NULL, &m), 0);
        assert_true(m.has_pressure);
        assert_int_equal(m.some_avg10_centi, 123);
        assert_int_equal(m.full_avg10_centi, 10000);
        assert_int_equal(m.kernel_bytes, 0);

        tree_write(t->proc_fd, "meminfo", "MemTotal: 1 kB\n");
        assert_int_equal(memory_read(t->proc_fd, NULL, &m), -EBADMSG);
}

static void test_margin(void **state)
{
        assert_int_equal(memory_margin(0, 512 * MIB), 32 * MIB);
        assert_int_equal(memory_margin(0, 3200 * MIB), 32 * MIB);
        assert_int_equal(memory_margin(0, 5000 * MIB), 50 * MIB);
        assert_int_equal(memory_margin(0, 0), 32 * MIB);
        assert_int_equal(memory_margin(MIB, 5000 * MIB), MIB);
}

static void test_boot_id(void **state)
{
        struct tree *t = *state;
        char id[64];

        assert_int_equal(memory_read_boot_id(t->proc_fd, id, sizeof(id)), -ENOENT);
        tree_mkdir(t->proc_fd, "sys/kernel/random");
        tree_write(t->proc_fd, "sys/kernel/random/boot_id", "5c769364-36c1-4bc9-8927-7346d2f4f025\n");
        assert_int_equal(memory_read_boot_id(t->proc_fd, id, sizeof(id)), 0);
        assert_string_equal(id, "5c769364-36c1-4bc9-8927-7346d2f4f025");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_inventory, setup, teardown),
                cmocka_unit_test_setup_teardown(test_paging, setup, teardown),
                cmocka_unit_test_setup_teardown(test_targets, setup, teardown),
                cmocka_unit_test_setup_teardown(test_one_node, setup, teardown),
                cmocka_unit_test_setup_teardown(test_late_node, setup, teardown),
                cmocka_unit_test_setup_teardown(test_changes, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bad_trees, setup, teardown),
                cmocka_unit_test(test_names),
                cmocka_unit_test_setup_teardown(test_auto_online, setup, teardown),
                cmocka_unit_test_setup_teardown(test_learn_zones, setup, teardown),
                cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
                cmocka_unit_test(test_margin),
                cmocka_unit_test_setup_teardown(test_boot_id, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
