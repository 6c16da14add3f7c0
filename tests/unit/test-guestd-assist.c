/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What guestd does for blocks that do not go, with a kernel of files that reclaims, compacts and resizes
 * pools as the script says, or hangs. The children are real, and so are their kills. */

#include "guestd-assist-fixture.h"

/* --- page cache --- */

static void test_idle(void **state)
{
        struct env *e = *state;

        kernel->inactive_bytes = 500 * MIB;
        write_meminfo();
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        assert_null(e->reply.assistance);
        assert_int_equal(kernel->n_settings, 0);
}

static void test_reclaim_before_a_set(void **state)
{
        struct env *e = *state;

        fill_with_cache();
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        assert_all(e, BLOCK_OFFLINE);
        assert_in_range(e->assistance.reclaimed_bytes, SET + MARGIN - 200 * MIB, SET + MARGIN);
        assert_int_equal(e->assistance.retries, 0);
}

/* The set goes all the same: the kernel moves its pages, and reclaims others for that. */
static void test_set_without_reclaim(void **state)
{
        static const int errnums[] = { EAGAIN, EIO, ENOENT };
        struct env *e = *state;

        for (unsigned i = 0; i < ARRAY_SIZE(errnums); i++) {
                fill_with_cache();
                kernel->available_bytes = 4000 * MIB;
                kernel->free_bytes = 200 * MIB + SET;
                write_meminfo();
                kernel->free_bytes = 200 * MIB;
                write_meminfo();
                kernel->reclaim_errnum = errnums[i];
                for (unsigned k = 0; k < N_BLOCKS; k++) {
                        tree_block(&e->tree, FIRST + k, "online\n", "Movable\n", 0);
                        blocks_refresh(&e->blocks, FIRST + k);
                }
                offline(e, i + 1, 5000);
                RUN_UNTIL(e, e->n_replies == i + 1);
                assert_true(e->reply.complete);
                assert_int_equal(e->assistance.reclaimed_bytes, 0);
        }
        assert_int_equal(unlinkat(e->tree.sys_fd, "fs/cgroup/memory.reclaim", 0), 0);
        reclaim(e, 9, SET, 1000);
        RUN_UNTIL(e, e->n_replies == ARRAY_SIZE(errnums) + 1);
        assert_null(e->reply.assistance);
}

static void test_reclaim(void **state)
{
        struct env *e = *state;

        fill_with_cache();
        reclaim(e, 1, 1000 * MIB, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_in_range(e->assistance.reclaimed_bytes, 800 * MIB + MARGIN, 1000 * MIB);
        assert_true(kernel->free_bytes >= 1000 * MIB + MARGIN);
        assert_int_equal(e->reply.n_failures, 0);

        /* Not for what cannot go: 600 MiB are available. */
        kernel->free_bytes = 500 * MIB;
        kernel->available_bytes = 600 * MIB;
        write_meminfo();
        reclaim(e, 3, 2000 * MIB, 5000);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_in_range(e->assistance.reclaimed_bytes, 100 * MIB, 100 * MIB);
        kernel->available_bytes = 4000 * MIB;
        kernel->free_bytes = 1200 * MIB;
        write_meminfo();

        /* And no more than there is need for. */
        unsigned n = kernel->n_reclaims;
        reclaim(e, 4, 1000 * MIB, 5000);
        RUN_UNTIL(e, e->n_replies == 3);
        assert_null(e->reply.assistance);
        assert_int_equal(kernel->n_reclaims, n);
}

static void test_swap_is_spared(void **state)
{
        struct env *e = *state;

        fill_with_cache();
        kernel->swap_bytes = GIB;
        write_meminfo();
        reclaim(e, 1, 500 * MIB, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->assistance.reclaimed_bytes >= 300 * MIB);
        assert_swappiness(e, "60");

        /* A kernel that takes no swappiness with the request has the guest's own set to 0 meanwhile. */
        kernel->knows_swappiness = false;
        reclaim(e, 2, 1000 * MIB, 5000);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_true(e->assistance.reclaimed_bytes >= 300 * MIB);
        assert_int_equal(kernel->n_swapping_reclaims, 0);
        assert_swappiness(e, "60");
        assert_int_equal(access(e->state_path, F_OK), -1);
}

static void test_reclaim_hangs(void **state)
{
        struct env *e = *state;
        uint64_t began = now_monotonic_usec();

        fill_with_cache();
        kernel->reclaim_errnum = HANG;
        reclaim(e, 1, SET, 60000);
        cancel(e, 2, 1);
        RUN_UNTIL(e, e->n_replies == 2);
        reclaim(e, 3, SET, 100);
        RUN_UNTIL(e, e->n_replies == 3);
        /* In a set it is not waited for either. */
        offline(e, 4, 60000);
        cancel(e, 5, 4);
        RUN_UNTIL(e, e->n_replies == 5);
        assert_all(e, BLOCK_ONLINE);
        offline(e, 6, 400);
        RUN_UNTIL(e, e->n_replies == 6);
        assert_true(now_monotonic_usec() - began < 2 * USEC_PER_SEC);
        assert_false(ops_busy(e->ops));

        /* The session's end ends it as well. */
        reclaim(e, 7, SET, 60000);
        ops_set_session(e->ops, false);
        RUN_UNTIL(e, !ops_busy(e->ops));
        assert_int_equal(e->n_replies, 6);
}

/* Killed while swappiness was 0. */
static void test_swappiness_comes_back(void **state)
{
        struct env *e = *state;

        ops_free(e->ops);
        tree_write(e->tree.proc_fd, "sys/vm/swappiness", "0\n");
        tree_write(
                AT_FDCWD, e->state_path, "swappiness 60\nswappiness 201\nswappiness x\nhugepages 0:2048\n");
        start_guestd(e);
        assert_swappiness(e, "60");
}

/* --- a busy block --- */

static void test_busy_for_a_while(void **state)
{
        struct env *e = *state;

        kernel->offline_block = FIRST + 1;
        kernel->offline_errnum = EBUSY;
        kernel->offline_times = 4; /* an attempt is three tries */
        offline(e, 1, 10000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        assert_int_equal(e->assistance.retries, 1);
        assert_int_equal(e->assistance.compactions, 0); /* no huge pages */
}

static void test_busy_for_good(void **state)
{
        struct env *e = *state;

        make_pool(e, 100, 0);
        kernel->offline_block = FIRST + 1;
        kernel->offline_errnum = EBUSY;
        kernel->offline_times = 100;
        offline(e, 1, 10000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_int_equal(e->first.code, ERROR_BLOCK_BUSY);
        assert_int_equal(kernel->offline_times, 94);
        assert_int_equal(e->assistance.retries, 1);
        assert_int_equal(e->assistance.compactions, 1);
        assert_int_equal(kernel->n_compactions, 1);
        assert_all(e, BLOCK_ONLINE);
}

static void test_compaction_hangs(void **state)
{
        struct env *e = *state;
        uint64_t began = now_monotonic_usec();

        make_pool(e, 100, 0);
        kernel->compact_errnum = HANG;
        kernel->offline_block = FIRST + 1;
        kernel->offline_errnum = EBUSY;
        kernel->offline_times = 100;
        offline(e, 1, 60000);
        RUN_UNTIL(e, kernel->n_settings > 0);
        cancel(e, 2, 1);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_int_equal(e->first.code, ERROR_CANCELLED);
        assert_all(e, BLOCK_ONLINE);
        assert_true(now_monotonic_usec() - began < 2 * USEC_PER_SEC);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_idle),
                TEST(test_reclaim_before_a_set),
                TEST(test_set_without_reclaim),
                TEST(test_reclaim),
                TEST(test_swap_is_spared),
                TEST(test_reclaim_hangs),
                TEST(test_swappiness_comes_back),
                TEST(test_busy_for_a_while),
                TEST(test_busy_for_good),
                TEST(test_compaction_hangs),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
