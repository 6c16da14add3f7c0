/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Pools of huge pages that give, and blocks that do not become emptier. */

#include "guestd-assist-fixture.h"

/* --- pools of huge pages --- */

static void test_pool_gives_headroom(void **state)
{
        struct env *e = *state;

        make_pool(e, 1000, 600);
        kernel->free_bytes = kernel->available_bytes = 400 * MIB;
        write_meminfo();
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        assert_int_equal(e->assistance.n_pools, 1);
        assert_int_equal(e->assistance.pools[0].page_bytes, 2 * MIB);
        assert_int_equal(e->assistance.pools[0].taken, (SET + MARGIN - 400 * MIB + 64 * MIB) / (2 * MIB));
        assert_int_equal(e->assistance.pools[0].restored, 0);
        assert_int_equal(access(e->state_path, F_OK), 0);

        /* Once the device has left what fits comes back: 50 pages here. */
        for (unsigned i = 0; i < N_BLOCKS; i++) {
                tree_remove_block(&e->tree, FIRST + i);
                ops_on_block(e->ops, FIRST + i, BLOCK_ABSENT);
        }
        kernel->free_bytes = kernel->available_bytes = MARGIN + 100 * MIB;
        write_meminfo();
        uint64_t before = pool_count("nr_hugepages");
        RUN_UNTIL(e, access(e->state_path, F_OK) < 0);
        assert_int_equal(pool_count("nr_hugepages"), before + 50);
        assert_true(kernel->available_bytes >= MARGIN);
}

static void test_pool_is_restored(void **state)
{
        struct env *e = *state;

        make_pool(e, 1000, 600);
        kernel->free_bytes = kernel->available_bytes = 400 * MIB;
        write_meminfo();
        kernel->offline_block = FIRST + 1;
        kernel->offline_errnum = EPERM;
        kernel->offline_times = 100;
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_false(e->reply.complete);
        assert_all(e, BLOCK_ONLINE);
        assert_true(e->assistance.pools[0].taken > 0);
        assert_int_equal(e->assistance.pools[0].restored, e->assistance.pools[0].taken);
        assert_int_equal(pool_count("nr_hugepages"), 1000);
        RUN_UNTIL(e, access(e->state_path, F_OK) < 0);
}

/* What is promised or in use is not touched, nor is anything if it does not suffice. */
static void test_pool_is_left_alone(void **state)
{
        static const struct {
                uint64_t n_free;
                const char *reserved, *surplus;
        } table[] = { { 80, "0\n", "0\n" }, { 600, "550\n", "0\n" }, { 600, "0\n", "5\n" } };
        struct env *e = *state;

        for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
                make_pool(e, 1000, table[i].n_free);
                tree_write(e->tree.sys_fd, "kernel/mm/hugepages/hugepages-2048kB/resv_hugepages",
                        table[i].reserved);
                tree_write(e->tree.sys_fd, HUGE "/surplus_hugepages", table[i].surplus);
                kernel->free_bytes = kernel->available_bytes = 400 * MIB;
                write_meminfo();
                offline(e, i + 1, 5000);
                RUN_UNTIL(e, e->n_replies == i + 1);
                assert_int_equal(e->first.code, ERROR_NO_HEADROOM);
                assert_null(e->reply.assistance);
                assert_int_equal(pool_count("nr_hugepages"), 1000);
        }
        assert_int_equal(kernel->n_settings, 0);
}

/* The guestd before us was killed: the pool grows back. */
static void test_pool_is_remembered(void **state)
{
        struct env *e = *state;

        make_pool(e, 1000, 600);
        kernel->free_bytes = kernel->available_bytes = 400 * MIB;
        write_meminfo();
        e->config.repay_usec = 60 * USEC_PER_SEC;
        ops_free(e->ops);
        start_guestd(e);
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(pool_count("nr_hugepages") < 1000);
        assert_true(ops_owes(e->ops));
        ops_free(e->ops);

        kernel->free_bytes = kernel->available_bytes = 2000 * MIB;
        write_meminfo();
        e->config.repay_usec = 20 * USEC_PER_MSEC;
        start_guestd(e);
        RUN_UNTIL(e, access(e->state_path, F_OK) < 0);
        assert_int_equal(pool_count("nr_hugepages"), 1000);
        assert_false(ops_owes(e->ops));
}

/* The devices leave, and there is room for all of the pool. */
static void let_pool_grow(struct env *e)
{
        for (unsigned i = 0; i < N_BLOCKS; i++) {
                tree_remove_block(&e->tree, FIRST + i);
                ops_on_block(e->ops, FIRST + i, BLOCK_ABSENT);
        }
        kernel->free_bytes = kernel->available_bytes = 4000 * MIB;
        write_meminfo();
}

/* A pool that was set behind us is its administrator's: it does not grow back. */
static void test_pool_is_set(void **state)
{
        struct env *e = *state;

        make_pool(e, 1000, 600);
        kernel->free_bytes = kernel->available_bytes = 400 * MIB;
        write_meminfo();
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(ops_owes(e->ops));
        make_pool(e, 10, 0);
        let_pool_grow(e);
        RUN_UNTIL(e, access(e->state_path, F_OK) < 0);
        assert_int_equal(pool_count("nr_hugepages"), 10);
        assert_false(ops_owes(e->ops));
}

/* What it has grown when a request comes in between is ours, and it grows on behind that. */
static void test_pool_growth_is_interrupted(void **state)
{
        struct env *e = *state;

        make_pool(e, 1000, 600);
        kernel->free_bytes = kernel->available_bytes = 400 * MIB;
        write_meminfo();
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        unsigned n_settings = kernel->n_settings;
        kernel->pools_hang = true;
        let_pool_grow(e);
        RUN_UNTIL(e, kernel->n_settings > n_settings);
        make_pool(e, pool_count("nr_hugepages") + 16, 600);
        kernel->pools_hang = false;
        reclaim(e, 2, MIB, 5000);
        RUN_UNTIL(e, access(e->state_path, F_OK) < 0);
        assert_int_equal(pool_count("nr_hugepages"), 1000);
}

/* The kernel takes it, and the pool stays as it is. */
static void test_pool_is_stiff(void **state)
{
        struct env *e = *state;

        make_pool(e, 1000, 600);
        kernel->pools_are_stiff = true;
        kernel->free_bytes = kernel->available_bytes = 400 * MIB;
        write_meminfo();
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_int_equal(e->first.code, ERROR_NO_HEADROOM);
        assert_int_equal(e->assistance.n_pools, 0);
        assert_int_equal(kernel->n_settings, 1);
}

static void test_pools_plan(void **state)
{
        static const struct pool pools[] = {
                { .node = 0, .page_bytes = 2 * MIB, .n_pages = 10, .n_free = 4, .n_free_reserved = 3 },
                { .node = 1, .page_bytes = 2 * MIB, .n_pages = 10, .n_free = 9, .n_free_reserved = 3 },
                { .node = 0, .page_bytes = GIB, .n_pages = 2, .n_free = 2 },
        };
        uint64_t wanted[3];

        assert_true(pools_plan(pools, 3, 6 * MIB + 1, wanted));
        assert_int_equal(wanted[0], 6);
        assert_int_equal(wanted[1], 10);
        assert_true(pools_plan(pools, 3, 20 * MIB, wanted));
        assert_int_equal(wanted[0], 6);
        assert_int_equal(wanted[1], 4);
        assert_int_equal(wanted[2], 2);
        assert_false(pools_plan(pools, 3, 20 * MIB + 1, wanted));
        assert_false(pools_plan(NULL, 0, 1, wanted));
}

/* --- a block that does not become emptier --- */

static void write_flags(struct env *e, uint64_t address, uint64_t n_pages, uint64_t flags)
{
        int fd = openat(e->tree.proc_fd, "kpageflags", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        uint64_t page = address / (uint64_t)sysconf(_SC_PAGESIZE);

        assert_true(fd >= 0);
        for (uint64_t i = 0; i < n_pages; i++)
                assert_int_equal(pwrite(fd, &flags, sizeof(flags), (off_t)((page + i) * sizeof(flags))),
                        sizeof(flags));
        close(fd);
}

/* An offline whose third block hangs once, with such pages from `address` on. Returns what it took, in us. */
static uint64_t offline_that_hangs(struct env *e, uint64_t address, uint64_t n_pages, uint64_t flags)
{
        uint64_t began = now_monotonic_usec();

        write_flags(e, address, n_pages, flags);
        kernel->offline_block = FIRST + 2;
        kernel->offline_errnum = HANG;
        kernel->offline_times = 1;
        offline(e, 1, 60000);
        RUN_UNTIL(e, e->n_replies == 1);
        return now_monotonic_usec() - began;
}

static void test_pinned(void **state)
{
        struct env *e = *state;
        uint64_t took = offline_that_hangs(
                e, (FIRST + 2) * BLOCK + BLOCK / 2, 8, BIT(KPF_LRU) | BIT(KPF_ANON) | BIT(KPF_UPTODATE));

        assert_true(took < 2 * USEC_PER_SEC);
        assert_int_equal(e->first.code, ERROR_BLOCK_BUSY);
        assert_int_equal(e->assistance.retries, 0); /* in vain */
        assert_all(e, BLOCK_ONLINE);
}

/* Off their list, as while the kernel tries. */
static void test_few_that_do_not_move(void **state)
{
        struct env *e = *state;
        uint64_t took = offline_that_hangs(e, (FIRST + 2) * BLOCK, 8, BIT(KPF_ANON) | BIT(KPF_UPTODATE));

        assert_true(took < 2 * USEC_PER_SEC);
        assert_int_equal(e->first.code, ERROR_BLOCK_BUSY);
        assert_int_equal(e->assistance.retries, 0);
}

static void test_does_not_become_emptier(void **state)
{
        struct env *e = *state;
        uint64_t took = offline_that_hangs(e, (FIRST + 2) * BLOCK, 1000, BIT(KPF_LRU) | BIT(KPF_UPTODATE));

        assert_in_range(took, USEC_PER_SEC, 5 * USEC_PER_SEC);
        assert_true(e->reply.complete);
        assert_int_equal(e->assistance.retries, 1);
}

/* At least 1 us for each page, which is what the kernel takes for it on slow machines. */
static void test_time_for_a_look(void **state)
{
        assert_int_equal(stall_look_usec(BLOCK / 4096), 200 * USEC_PER_MSEC);
        assert_in_range(stall_look_usec(GIB / 4096), GIB / 4096, USEC_PER_SEC);
        assert_in_range(stall_look_usec(2 * GIB / 4096), 2 * GIB / 4096, 2 * USEC_PER_SEC);
}

static void test_gigantic(void **state)
{
        struct env *e = *state;

        tree_mkdir(e->tree.sys_fd, GIGANTIC);
        tree_mkdir(e->tree.sys_fd, "kernel/mm/hugepages/hugepages-1048576kB");
        tree_write(e->tree.sys_fd, GIGANTIC "/nr_hugepages", "3\n");
        tree_write(e->tree.sys_fd, GIGANTIC "/free_hugepages", "1\n");
        tree_write(e->tree.sys_fd, GIGANTIC "/surplus_hugepages", "0\n");
        tree_write(e->tree.sys_fd, "kernel/mm/hugepages/hugepages-1048576kB/resv_hugepages", "0\n");
        (void)offline_that_hangs(e, (FIRST + 2) * BLOCK, BLOCK / (uint64_t)sysconf(_SC_PAGESIZE),
                BIT(KPF_HUGE) | BIT(KPF_COMPOUND_TAIL) | BIT(KPF_MMAP));
        assert_int_equal(e->first.code, ERROR_BLOCK_UNREMOVABLE);
        assert_non_null(strstr(e->first.message, "gigantic page (1 GiB of hugetlb)"));
        assert_non_null(strstr(e->first.message, "of 3 there are 2 in use"));
        assert_int_equal(e->assistance.retries, 0);
        assert_all(e, BLOCK_ONLINE);

        /* Or the kernel refuses it at once, as the page reaches beyond the block. */
        kernel->offline_errnum = EBUSY;
        kernel->offline_times = 100;
        offline(e, 2, 60000);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_int_equal(e->first.code, ERROR_BLOCK_UNREMOVABLE);
        assert_non_null(strstr(e->first.message, "gigantic page (1 GiB of hugetlb)"));
        assert_null(e->reply.assistance);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_pool_gives_headroom),
                TEST(test_pool_is_restored),
                TEST(test_pool_is_left_alone),
                TEST(test_pool_is_remembered),
                TEST(test_pool_is_set),
                TEST(test_pool_growth_is_interrupted),
                TEST(test_pool_is_stiff),
                TEST(test_pools_plan),
                TEST(test_pinned),
                TEST(test_few_that_do_not_move),
                TEST(test_does_not_become_emptier),
                TEST(test_time_for_a_look),
                TEST(test_gigantic),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
