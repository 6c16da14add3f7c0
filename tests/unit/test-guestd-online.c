/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Blocks that come online or leave, by the kernel or by a worker, with a monitor and a bell. */

#include "guestd-ops-fixture.h"

static void test_online_by_kernel(void **state)
{
        struct env *e = *state;

        prepare(e, 1, ZONE_MOVABLE, 2 * BLOCK);
        request(e, 2, OP_ONLINE, 50, 2, 5000, 0);
        assert_true(ops_busy(e->ops));
        appear(e, 50, "online\n", "Movable\n");
        appear(e, 51, "online\n", "Movable\n");
        ops_on_block(e->ops, 50, BLOCK_ONLINE);
        assert_int_equal(e->n_replies, 1);
        /* The answer comes with the last event, and nothing was written. */
        ops_on_block(e->ops, 51, BLOCK_ONLINE);
        assert_int_equal(e->reply_id, 2);
        assert_true(e->reply.complete);
        assert_int_equal(e->reply.n_ranges, 1);
        assert_int_equal(e->ranges[0].zone, ZONE_MOVABLE);
        assert_int_equal(script->n_writes, 0);
        run_loop_for(&e->loop, 20 * USEC_PER_MSEC);
        assert_int_equal(e->n_events, 0);
}

static void test_online_by_worker(void **state)
{
        struct env *e = *state;

        request(e, 1, OP_ONLINE, 50, 3, 5000, 0);
        appear(e, 50, "offline\n", "Normal Movable\n");
        appear(e, 51, "offline\n", "Normal Movable\n");
        RUN_UNTIL(e, script->n_writes == 2);
        appear(e, 52, "offline\n", "Normal Movable\n");
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        for (unsigned i = 50; i < 53; i++)
                assert_block(e, i, BLOCK_ONLINE, ZONE_MOVABLE);
        assert_string_equal(script->writes[0].word, "online_movable");
}

static void test_online_raced(void **state)
{
        struct env *e = *state;

        /* Somebody was faster: EINVAL, and it is online. */
        tree_block(&e->tree, 50, "online\n", "Movable\n", 0);
        script->block[50].online_errnum = EINVAL;
        script->block[50].online_times = 100;
        ops_on_block(e->ops, 50, BLOCK_OFFLINE);
        request(e, 1, OP_ONLINE, 50, 1, 5000, 0);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
}

static void test_online_failures(void **state)
{
        struct env *e = *state;

        /* In another zone. */
        request(e, 1, OP_ONLINE, FIRST, N_BLOCKS, 1000, 0);
        assert_int_equal(e->reply_id, 1);
        assert_false(e->reply.complete);
        assert_failure(e, 0, FIRST, 2, ERROR_ZONE_MISMATCH);
        /* Never there. */
        request(e, 2, OP_ONLINE, 50, 2, 30, 0);
        RUN_UNTIL(e, e->reply_id == 2);
        assert_failure(e, 0, 50, 2, ERROR_BLOCK_MISSING);
        /* The kernel will not. */
        appear(e, 50, "offline\n", "Normal Movable\n");
        appear(e, 51, "offline\n", "Normal Movable\n");
        script->block[51].online_errnum = ENOMEM;
        script->block[51].online_times = 100;
        request(e, 3, OP_ONLINE, 50, 2, 5000, 0);
        RUN_UNTIL(e, e->reply_id == 3);
        assert_false(e->reply.complete);
        assert_int_equal(e->reply.n_failures, 1);
        assert_failure(e, 0, 51, 1, ERROR_NO_HEADROOM);
        assert_int_equal(e->reply.n_ranges, 2);
        /* It hangs. */
        script->block[51].online_errnum = HANG;
        request(e, 4, OP_ONLINE, 50, 2, 100, 0);
        RUN_UNTIL(e, e->reply_id == 4);
        assert_failure(e, 0, 51, 1, ERROR_DEADLINE);
        /* It is cancelled. */
        request(e, 5, OP_ONLINE, 50, 3, 60000, 0);
        run_loop_for(&e->loop, 20 * USEC_PER_MSEC);
        cancel(e, 6, 5);
        RUN_UNTIL(e, e->reply_id == 5);
        assert_failure(e, 0, 51, 2, ERROR_CANCELLED);
        assert_false(ops_busy(e->ops));
        /* Its session ends. */
        request(e, 7, OP_ONLINE, 50, 3, 60000, 0);
        ops_set_session(e->ops, false);
        assert_false(ops_busy(e->ops));
}

static void test_await_removed(void **state)
{
        struct env *e = *state;

        request(e, 1, OP_AWAIT_REMOVED, 60, 2, 1000, 0);
        assert_int_equal(e->reply_id, 1);
        assert_true(e->reply.complete);
        request(e, 2, OP_AWAIT_REMOVED, FIRST, 2, 5000, 0);
        ops_on_block(e->ops, FIRST, BLOCK_OFFLINE);
        ops_on_block(e->ops, FIRST + 1, BLOCK_OFFLINE);
        tree_remove_block(&e->tree, FIRST);
        tree_remove_block(&e->tree, FIRST + 1);
        ops_on_block(e->ops, FIRST, BLOCK_ABSENT);
        assert_int_equal(e->n_replies, 1);
        ops_on_block(e->ops, FIRST + 1, BLOCK_ABSENT);
        assert_int_equal(e->reply_id, 2);
        assert_true(e->reply.complete);
        assert_int_equal(e->ranges[0].state, BLOCK_ABSENT);

        request(e, 3, OP_AWAIT_REMOVED, FIRST + 2, 2, 20, 0);
        RUN_UNTIL(e, e->reply_id == 3);
        assert_failure(e, 0, FIRST + 2, 2, ERROR_DEADLINE);
        /* The events are lost. */
        request(e, 4, OP_AWAIT_REMOVED, FIRST + 2, 1, 5000, 0);
        tree_remove_block(&e->tree, FIRST + 2);
        ops_on_overflow(e->ops);
        assert_int_equal(e->reply_id, 4);
        assert_true(e->reply.complete);
        /* Even without a word of their loss, the deadline looks. */
        request(e, 5, OP_AWAIT_REMOVED, FIRST + 3, 1, 20, 0);
        tree_remove_block(&e->tree, FIRST + 3);
        RUN_UNTIL(e, e->reply_id == 5);
        assert_true(e->reply.complete);
}

static void first_block_appears(struct monitor *m)
{
        m->on_resume = NULL;
        tree_block(&m->env->tree, 50, "offline\n", "Normal Movable\n", 0);
        uevent(m, 50, BLOCK_OFFLINE);
}

/* A block that comes between the first look and the events that waited (pseries brings them one by one): the
 * request is not over before it has counted what it waits for. */
static void test_appears_while_listening(void **state)
{
        struct env *e = *state;
        struct monitor m;

        with_monitor(e, &m, USEC_PER_MSEC);
        prepare(e, 1, ZONE_MOVABLE, 2 * BLOCK);
        m.on_resume = first_block_appears;
        request(e, 2, OP_ONLINE, 50, 2, 5000, 0);
        assert_null(m.on_resume);
        assert_true(ops_busy(e->ops));
        assert_int_equal(e->reply_id, 1);
        for (unsigned b = 50; b < 52; b++) {
                tree_block(&e->tree, b, "online\n", "Movable\n", 0);
                uevent(&m, b, BLOCK_ONLINE);
        }
        RUN_UNTIL(e, e->reply_id == 2);
        assert_true(e->reply.complete);
        e->ops = ops_free(e->ops);
}

/* What it waits for is said by the bell, before the monitor has it. */
static void test_bell(void **state)
{
        static const struct mem_range devices[] = { { 50 * BLOCK, 2 * BLOCK }, { 52 * BLOCK, 2 * BLOCK } };
        struct env *e = *state;
        struct monitor m;

        with_monitor(e, &m, USEC_PER_MSEC);
        prepare(e, 1, ZONE_MOVABLE, 4 * BLOCK);
        request_targets(e, 2, OP_ONLINE, devices, 2);
        assert_true(m.paused);
        assert_int_equal(bell.state, BLOCK_ONLINE);
        assert_int_equal(bell.n, 1);
        assert_int_equal(bell.blocks[0], 53);
        for (unsigned b = 50; b < 54; b++) {
                tree_block(&e->tree, b, "online\n", "Movable\n", 0);
                uevent(&m, b, BLOCK_OFFLINE);
                if (b == 53)
                        bell.on_ring(b, bell.userdata);
                if (b < 53)
                        assert_int_equal(bell.n, 1);
                uevent(&m, b, BLOCK_ONLINE);
                /* Another request meanwhile takes in what waits, and it counts. */
                if (b == 51) {
                        request(e, 9, OP_GET_BLOCKS, 0, 0, 0, 0);
                        assert_int_equal(e->reply_id, 9);
                        assert_int_equal(m.n_held, 0);
                }
        }
        assert_int_equal(e->reply_id, 2);
        assert_true(e->reply.complete);
        assert_int_equal(bell.n, 0);
        assert_false(m.paused);

        request_targets(e, 3, OP_AWAIT_REMOVED, devices, 2);
        assert_int_equal(bell.state, BLOCK_ABSENT);
        assert_int_equal(bell.n, 2);
        assert_int_equal(bell.blocks[0], 53);
        assert_int_equal(bell.blocks[1], 51);
        assert_true(m.paused);
        ops_set_session(e->ops, false);
        assert_int_equal(bell.n, 0);
        assert_false(m.paused);
        e->ops = ops_free(e->ops);
}

/* One that never rings, or that the kernel refuses. */
static void test_bell_silent(void **state)
{
        struct env *e = *state;
        struct monitor m;
        char text[32];

        for (unsigned broken = 0; broken < 2; broken++) {
                with_monitor(e, &m, USEC_PER_MSEC);
                bell.broken = broken;
                request(e, 1, OP_ONLINE, 50, 2, 5000, 0);
                assert_int_equal(m.paused, !broken);
                for (unsigned b = 50; b < 52; b++) {
                        tree_block(&e->tree, b, "online\n", "Movable\n", 0);
                        uevent(&m, b, BLOCK_OFFLINE);
                        uevent(&m, b, BLOCK_ONLINE);
                }
                RUN_UNTIL(e, e->reply_id == 1);
                assert_true(e->reply.complete);
                assert_false(m.paused);
                /* A block that the kernel does not bring up is not waited for in quiet. */
                request(e, 2, OP_ONLINE, 52, 1, 5000, 0);
                tree_block(&e->tree, 52, "offline\n", "Movable\n", 0);
                uevent(&m, 52, BLOCK_OFFLINE);
                RUN_UNTIL(e, !ops_busy(e->ops));
                tree_read(e->tree.memory_fd, "memory52/state", text, sizeof(text));
                assert_int_equal(strncmp(text, "online_movable", 14), 0);
                assert_int_equal(bell.n, 0);
                assert_false(m.paused);
                bell.broken = false;
                for (unsigned b = 50; b < 53; b++) {
                        tree_remove_block(&e->tree, b);
                        blocks_note(&e->blocks, b, BLOCK_ABSENT);
                }
                e->ops = ops_free(e->ops);
                e->reply_id = 0;
        }
}

static void test_quiet(void **state)
{
        enum { ONLINE, RELEASE, GET_BLOCKS, GET_STATE, OFFLINE, SESSION_END, FREE, N_ENDS };
        struct env *e = *state;
        struct monitor m;

        for (unsigned end = 0; end < N_ENDS; end++) {
                with_monitor(e, &m, USEC_PER_MSEC);
                e->n_replies = e->n_events = 0;
                prepare(e, 1, ZONE_MOVABLE, 2 * BLOCK);
                assert_true(m.paused);
                for (unsigned b = 50; b < 52; b++) {
                        tree_block(&e->tree, b, "online\n", "Movable\n", 0);
                        uevent(&m, b, BLOCK_OFFLINE);
                        uevent(&m, b, BLOCK_ONLINE);
                }
                /* One that has left again meanwhile. */
                uevent(&m, 53, BLOCK_OFFLINE);
                uevent(&m, 53, BLOCK_ABSENT);
                cancel(e, 2, 99);
                run_loop_for(&e->loop, 5 * USEC_PER_MSEC);
                assert_true(m.paused);
                assert_int_equal(m.n_held, 6);
                assert_int_equal(e->n_events, 0);
                assert_int_equal(blocks_state(&e->blocks, 50), BLOCK_ABSENT);

                if (end == ONLINE) {
                        request(e, 3, OP_ONLINE, 50, 2, 5000, 0);
                        assert_int_equal(e->reply_id, 3);
                        assert_true(e->reply.complete);
                        assert_int_equal(e->reply.n_ranges, 1);
                        assert_int_equal(e->ranges[0].zone, ZONE_MOVABLE);
                        request(e, 4, OP_ONLINE, 50, 3, 5000, 0);
                        assert_true(m.paused);
                        tree_block(&e->tree, 52, "online\n", "Movable\n", 0);
                        uevent(&m, 52, BLOCK_OFFLINE);
                        uevent(&m, 52, BLOCK_ONLINE);
                        RUN_UNTIL(e, e->reply_id == 4);
                        assert_int_equal(e->reply_id, 4);
                        assert_true(e->reply.complete);
                        tree_remove_block(&e->tree, 52);
                        uevent(&m, 52, BLOCK_ABSENT);
                } else if (end == SESSION_END)
                        ops_set_session(e->ops, false);
                else if (end == FREE)
                        e->ops = ops_free(e->ops);
                else {
                        request(e, 3,
                                end == RELEASE      ? OP_RELEASE
                                : end == GET_BLOCKS ? OP_GET_BLOCKS
                                : end == GET_STATE  ? OP_GET_STATE
                                                    : OP_OFFLINE,
                                50, 1, 5000, 1000);
                        RUN_UNTIL(e, e->reply_id == 3);
                }
                if (end == OFFLINE) {
                        /* Again, for the time of the device's removal. */
                        assert_true(m.paused);
                        request(e, 4, OP_GET_STATE, 0, 0, 0, 0);
                }
                if (end != FREE) {
                        assert_false(m.paused);
                        assert_int_equal(m.n_held, 0);
                }
                if (end == GET_BLOCKS) {
                        assert_int_equal(e->reply.n_ranges, 4);
                        assert_int_equal(e->ranges[3].start, 50 * BLOCK);
                        assert_int_equal(e->ranges[3].length, 2 * BLOCK);
                        assert_int_equal(e->ranges[3].state, BLOCK_ONLINE);
                }
                assert_block(e, 50, end == OFFLINE ? BLOCK_OFFLINE : BLOCK_ONLINE, ZONE_MOVABLE);
                assert_block(e, 51, BLOCK_ONLINE, ZONE_MOVABLE);
                assert_int_equal(blocks_state(&e->blocks, 53), BLOCK_ABSENT);

                for (unsigned b = 50; b < 52; b++) {
                        tree_remove_block(&e->tree, b);
                        blocks_note(&e->blocks, b, BLOCK_ABSENT);
                }
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_online_by_kernel),
                TEST(test_online_by_worker),
                TEST(test_online_raced),
                TEST(test_online_failures),
                TEST(test_await_removed),
                TEST(test_appears_while_listening),
                TEST(test_bell),
                TEST(test_bell_silent),
                TEST(test_quiet),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
