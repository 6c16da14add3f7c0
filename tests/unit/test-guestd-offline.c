/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Blocks that go offline, and back where a set does not go wholly. */

#include "guestd-ops-fixture.h"

static void test_offline(void **state)
{
        struct env *e = *state;

        request(e, 7, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        assert_true(ops_busy(e->ops));
        request(e, 8, OP_OFFLINE, FIRST, 1, 5000, 1000);
        assert_int_equal(e->failure_id, 8);
        assert_int_equal(e->failure.code, ERROR_BUSY);
        request(e, 9, OP_GET_STATE, 0, 0, 0, 0);
        assert_int_equal(e->reply_id, 9);

        RUN_UNTIL(e, e->n_replies == 2);
        assert_int_equal(e->reply_id, 7);
        assert_true(e->reply.complete);
        assert_hurry(e, true); /* the device's removal is to follow */
        assert_int_equal(e->reply.n_ranges, 1);
        assert_int_equal(e->ranges[0].state, BLOCK_OFFLINE);
        assert_int_equal(e->ranges[0].length, N_BLOCKS * BLOCK);
        assert_int_equal(script->n_writes, N_BLOCKS);
        for (unsigned i = 0; i < N_BLOCKS; i++)
                assert_int_equal(script->writes[i].block, FIRST + N_BLOCKS - 1 - i);

        /* Again: nothing is to be done. */
        request(e, 10, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        assert_int_equal(e->reply_id, 10);
        assert_true(e->reply.complete);
        assert_int_equal(script->n_writes, N_BLOCKS);

        for (unsigned i = 0; i < N_BLOCKS; i++) {
                assert_hurry(e, true);
                ops_on_block(e->ops, FIRST + i, BLOCK_ABSENT);
        }
        assert_hurry(e, false);
}

static void test_offline_bad_targets(void **state)
{
        struct env *e = *state;
        struct mem_range target = { FIRST * BLOCK, BLOCK / 2 };
        struct message m = { .type = MESSAGE_REQUEST,
                .id = 3,
                .request = { .op = OP_OFFLINE, .targets = &target, .n_targets = 1, .deadline_msec = 100 } };

        ops_request(e->ops, &m);
        assert_int_equal(e->failure_id, 3);
        assert_int_equal(e->failure.code, ERROR_INVALID_ARGUMENT);

        /* A block that cannot go, and some that do not exist: said before anything is touched. */
        request(e, 4, OP_OFFLINE, 0, FIRST + 1, 5000, 1000);
        assert_int_equal(e->reply_id, 4);
        assert_false(e->reply.complete);
        assert_int_equal(e->reply.n_failures, 2);
        assert_failure(e, 0, 0, 1, ERROR_BLOCK_UNREMOVABLE);
        assert_failure(e, 1, 1, FIRST - 1, ERROR_BLOCK_MISSING);
        assert_int_equal(script->n_writes, 0);
        assert_false(ops_busy(e->ops));
}

/* What the host hears of as offline it takes away: the inventory alone is no proof of it. */
static void test_offline_misled(void **state)
{
        struct env *e = *state;

        ops_on_block(e->ops, FIRST, BLOCK_OFFLINE);
        request(e, 1, OP_OFFLINE, FIRST, 1, 5000, 1000);
        assert_int_equal(e->n_replies, 0);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        assert_int_equal(script->n_writes, 1);
        assert_string_equal(script->writes[0].word, "offline");
        assert_block(e, FIRST, BLOCK_OFFLINE, ZONE_UNKNOWN);
}

static void test_offline_failures(void **state)
{
        static const struct {
                int errnum, times;
                enum error_code code; /* NONE: it works in the end */
        } cases[] = {
                { EBUSY, 1, ERROR_NONE },
                { EBUSY, 100, ERROR_BLOCK_BUSY },
                { ENOMEM, 1, ERROR_NO_HEADROOM },
                { EPERM, 1, ERROR_BLOCK_UNREMOVABLE },
                { EINVAL, 1, ERROR_BLOCK_FAILED },
                { EIO, 1, ERROR_BLOCK_FAILED },
                { ENODEV, 1, ERROR_BLOCK_MISSING },
        };
        struct env *e = *state;

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                memset(script, 0, sizeof(*script));
                script->block[FIRST + 3].offline_errnum = cases[i].errnum;
                script->block[FIRST + 3].offline_times = cases[i].times;
                request(e, i + 1, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
                RUN_UNTIL(e, e->n_replies == i + 1);
                if (cases[i].code == ERROR_NONE) {
                        assert_true(e->reply.complete);
                        request(e, 100, OP_ONLINE, FIRST + 2, N_BLOCKS - 2, 1000, 0);
                        RUN_UNTIL(e, e->reply_id == 100);
                        for (unsigned b = FIRST; b < FIRST + 2; b++) {
                                tree_block(&e->tree, b, "online\n", "Normal\n", 0);
                                ops_on_block(e->ops, b, BLOCK_ONLINE);
                        }
                        e->n_replies = (unsigned)i + 1;
                        continue;
                }
                assert_false(e->reply.complete);
                assert_int_equal(e->reply.n_failures, 1);
                assert_failure(e, 0, FIRST + 3, 1, cases[i].code);
                assert_untouched(e);
                /* It stopped there, and only what had gone was put back. */
                for (unsigned w = 0; w < script->n_writes; w++)
                        assert_true(script->writes[w].block >= FIRST + 3);
        }
        assert_int_equal(e->reply.n_ranges, 2);
        assert_int_equal(e->ranges[1].zone, ZONE_MOVABLE);
}

/* Three sets in one request: the highest two blocks, two below them, and the rest. */
static void request_sets(struct env *e, uint64_t id, uint64_t deadline_msec)
{
        struct mem_range targets[] = {
                { FIRST * BLOCK, 4 * BLOCK },
                { (FIRST + 4) * BLOCK, 2 * BLOCK },
                { (FIRST + 6) * BLOCK, 2 * BLOCK },
        };
        struct message m = { .type = MESSAGE_REQUEST,
                .id = id,
                .request = { .op = OP_OFFLINE,
                        .targets = targets,
                        .n_targets = ARRAY_SIZE(targets),
                        .deadline_msec = deadline_msec,
                        .attempt_msec = 60000,
                        .each = true } };

        ops_request(e->ops, &m);
}

static void assert_sets_offline(struct env *e, unsigned from)
{
        for (unsigned i = 0; i < N_BLOCKS; i++)
                assert_block(e, FIRST + i, i < from ? BLOCK_ONLINE : BLOCK_OFFLINE,
                        i < 2 ? ZONE_KERNEL : ZONE_MOVABLE);
}

static void test_sets(void **state)
{
        struct env *e = *state;

        request_sets(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        assert_sets_offline(e, 0);
        /* Nobody removes them: all come back. */
        ops_set_session(e->ops, false);
        RUN_UNTIL(e, blocks_state(&e->blocks, FIRST) == BLOCK_ONLINE && !ops_busy(e->ops));
        assert_untouched(e);
}

/* One that does not go ends it: what went before stays, and is the host's to remove. */
static void test_sets_failure(void **state)
{
        struct env *e = *state;

        script->block[FIRST + 4].offline_errnum = EIO;
        script->block[FIRST + 4].offline_times = 1;
        request_sets(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_false(e->reply.complete);
        assert_int_equal(e->reply.n_failures, 1);
        assert_failure(e, 0, FIRST + 4, 1, ERROR_BLOCK_FAILED);
        assert_sets_offline(e, 6);
        for (unsigned i = 0; i < script->n_writes; i++)
                assert_true(script->writes[i].block >= FIRST + 4);
        assert_hurry(e, true);
        ops_set_session(e->ops, false);
        RUN_UNTIL(e, blocks_state(&e->blocks, FIRST + 7) == BLOCK_ONLINE && !ops_busy(e->ops));
        assert_untouched(e);
}

/* Each needs room for itself, not for those that follow. */
static void test_sets_headroom(void **state)
{
        struct env *e = *state;

        tree_meminfo(&e->tree, 5000 * MIB, (2 * 128 + 101) * MIB);
        request_sets(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_failure(e, 0, FIRST + 3, 1, ERROR_NO_HEADROOM);
        assert_non_null(strstr(e->failures[0].error.message, "512 MiB are to go"));
        assert_sets_offline(e, 4);
}

static void test_sets_stopped(void **state)
{
        struct env *e = *state;

        script->block[FIRST + 4].offline_errnum = HANG;
        script->block[FIRST + 4].offline_times = 2;
        request_sets(e, 1, 60000);
        RUN_UNTIL(e, script->n_writes == 4);
        cancel(e, 2, 1);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_failure(e, 0, FIRST + 4, 1, ERROR_CANCELLED);
        assert_sets_offline(e, 6);

        /* The deadline is as good; the set that is offline already needs nothing. */
        script->block[FIRST + 4].offline_times = 1;
        request_sets(e, 3, 1200);
        RUN_UNTIL(e, e->n_replies == 3);
        assert_failure(e, 0, FIRST + 4, 1, ERROR_DEADLINE);
        assert_sets_offline(e, 6);

        /* Without a host that hears of it nothing is kept. */
        script->block[FIRST + 4].offline_times = 1;
        request_sets(e, 4, 60000);
        RUN_UNTIL(e, script->block[FIRST + 4].offline_times == 0);
        ops_set_session(e->ops, false);
        RUN_UNTIL(e, blocks_state(&e->blocks, FIRST + 7) == BLOCK_ONLINE && !ops_busy(e->ops));
        assert_untouched(e);
        assert_int_equal(e->n_replies, 3);
}

static void test_former_zones(void **state)
{
        struct env *e = *state;

        script->block[FIRST].offline_errnum = EIO;
        script->block[FIRST].offline_times = 1;
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_false(e->reply.complete);
        assert_untouched(e);
}

static void test_headroom(void **state)
{
        struct env *e = *state;

        /* Room for all blocks but the last one is not enough to begin: 1 % of 5000 MiB must remain. */
        uint64_t needed = N_BLOCKS * 128 + 50;
        char words[32];

        tree_meminfo(&e->tree, 5000 * MIB, needed * MIB);
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_failure(e, 0, FIRST + N_BLOCKS - 1, 1, ERROR_NO_HEADROOM);
        snprintf(words, sizeof(words), "%u MiB are available", (unsigned)needed);
        assert_non_null(strstr(e->failures[0].error.message, words));
        snprintf(words, sizeof(words), "%u MiB are to go", N_BLOCKS * 128U);
        assert_non_null(strstr(e->failures[0].error.message, words));
        assert_non_null(strstr(e->failures[0].error.message, "50 MiB must remain"));
        assert_int_equal(script->n_writes, 0);
        assert_untouched(e);

        tree_meminfo(&e->tree, 5000 * MIB, (needed + 1) * MIB);
        request(e, 2, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_true(e->reply.complete);
}

static void test_attempt_limit(void **state)
{
        struct env *e = *state;
        uint64_t began = now_monotonic_usec();

        script->block[FIRST + 4].offline_errnum = HANG;
        script->block[FIRST + 4].offline_times = 2; /* it is tried once more */
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 60000, 50);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(now_monotonic_usec() - began >= 200 * USEC_PER_MSEC);
        assert_int_equal(e->assistance.retries, 1);
        assert_false(e->reply.complete);
        assert_failure(e, 0, FIRST + 4, 1, ERROR_BLOCK_BUSY);
        assert_non_null(strstr(e->failures[0].error.message, "into its attempt"));
        assert_untouched(e);
        assert_hurry(e, false);
}

static void test_deadline(void **state)
{
        struct env *e = *state;
        uint64_t began = now_monotonic_usec();

        script->block[FIRST + 4].offline_errnum = HANG;
        script->block[FIRST + 4].offline_times = 1;
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 1200, 60000);
        RUN_UNTIL(e, e->n_replies == 1);
        /* A quarter is kept for putting back. */
        assert_true(now_monotonic_usec() - began >= 600 * USEC_PER_MSEC);
        assert_failure(e, 0, FIRST + 4, 1, ERROR_DEADLINE);
        assert_untouched(e);
        /* Three blocks went before it: that much was told, if 100 ms had passed. */
        assert_true(e->n_progress <= 3);
}

static void test_cancel(void **state)
{
        struct env *e = *state;

        cancel(e, 1, 99);
        assert_int_equal(e->reply_id, 1);
        script->block[FIRST].offline_errnum = HANG;
        script->block[FIRST].offline_times = 1;
        request(e, 2, OP_OFFLINE, FIRST, N_BLOCKS, 60000, 60000);
        RUN_UNTIL(e, script->n_writes == N_BLOCKS);
        cancel(e, 3, 2);
        assert_int_equal(e->reply_id, 3);
        assert_int_equal(e->reply.op, OP_CANCEL);
        cancel(e, 4, 2);
        RUN_UNTIL(e, e->reply_id == 2);
        assert_false(e->reply.complete);
        assert_failure(e, 0, FIRST, 1, ERROR_CANCELLED);
        assert_untouched(e);
        assert_int_equal(e->n_replies, 4);
}

static void test_session_loss(void **state)
{
        struct env *e = *state;

        script->block[FIRST].offline_errnum = HANG;
        script->block[FIRST].offline_times = 1;
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 60000, 60000);
        RUN_UNTIL(e, script->n_writes == N_BLOCKS);
        ops_set_session(e->ops, false);
        ops_set_session(e->ops, true);
        request(e, 1, OP_OFFLINE, FIRST, 1, 1000, 1000);
        assert_int_equal(e->failure.code, ERROR_BUSY);
        RUN_UNTIL(e, !ops_busy(e->ops));
        assert_untouched(e);
        assert_int_equal(e->n_replies, 0);
}

static void test_put_back_retries(void **state)
{
        struct env *e = *state;

        script->block[FIRST + 3].offline_errnum = EIO;
        script->block[FIRST + 3].offline_times = 1;
        script->block[FIRST + 5].online_errnum = ENOMEM;
        script->block[FIRST + 5].online_times = 2;
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_int_equal(e->reply.n_failures, 1);
        assert_untouched(e);

        /* And when it never works: said. */
        script->block[FIRST + 3].offline_times = 1;
        script->block[FIRST + 5].online_times = 100;
        request(e, 2, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_int_equal(e->reply.n_failures, 3);
        assert_failure(e, 1, FIRST + 5, 1, ERROR_NO_HEADROOM);
        assert_failure(e, 2, FIRST + 5, 1, ERROR_BLOCK_FAILED);
        assert_non_null(strstr(e->failures[2].error.message, "is left offline"));
        assert_int_equal(e->reply.n_ranges, 4);
}

static void test_put_back_hangs(void **state)
{
        struct env *e = *state;
        uint64_t began = now_monotonic_usec();

        script->block[FIRST + 3].offline_errnum = EIO;
        script->block[FIRST + 3].offline_times = 1;
        script->block[FIRST + 5].online_errnum = HANG;
        script->block[FIRST + 5].online_times = 1;
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 200, 100);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(now_monotonic_usec() - began < USEC_PER_SEC);
        assert_false(e->reply.complete);
        assert_true(ops_busy(e->ops));
        request(e, 2, OP_OFFLINE, FIRST, N_BLOCKS, 200, 100);
        assert_int_equal(e->failure.code, ERROR_BUSY);
}

static void test_grace(void **state)
{
        struct env *e = *state;

        request(e, 1, OP_OFFLINE, FIRST, 4, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        /* A new session takes them over, by a request. */
        ops_set_session(e->ops, false);
        ops_set_session(e->ops, true);
        request(e, 2, OP_AWAIT_REMOVED, FIRST, 4, 30, 0);
        run_loop_for(&e->loop, 60 * USEC_PER_MSEC);
        assert_int_equal(e->n_replies, 2);
        assert_block(e, FIRST, BLOCK_OFFLINE, ZONE_UNKNOWN);
        /* One is removed, one is put online by somebody else. */
        tree_remove_block(&e->tree, FIRST + 3);
        ops_on_block(e->ops, FIRST + 3, BLOCK_ABSENT);
        tree_block(&e->tree, FIRST + 2, "online\n", "Normal\n", 0);
        ops_on_block(e->ops, FIRST + 2, BLOCK_ONLINE);
        ops_set_session(e->ops, false);
        assert_block(e, FIRST, BLOCK_OFFLINE, ZONE_UNKNOWN);
        script->n_writes = 0;
        RUN_UNTIL(e, !ops_busy(e->ops) && script->n_writes == 2);
        assert_block(e, FIRST, BLOCK_ONLINE, ZONE_KERNEL);
        assert_block(e, FIRST + 1, BLOCK_ONLINE, ZONE_KERNEL);
        assert_int_equal(e->n_replies, 2);
        script->n_writes = 0;
        run_loop_for(&e->loop, 60 * USEC_PER_MSEC);
        assert_int_equal(script->n_writes, 0);
}

/* The first n blocks are offline for a session that is lost, and a new one begins. */
static void pledge_and_reconnect(struct env *e, unsigned n)
{
        request(e, 1, OP_OFFLINE, FIRST, n, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 1);
        ops_set_session(e->ops, false);
        ops_set_session(e->ops, true);
}

/* The host is back and does not ask for them. */
static void test_grace_unclaimed(void **state)
{
        struct env *e = *state;

        pledge_and_reconnect(e, 4);
        assert_true(ops_owes(e->ops));
        RUN_UNTIL(e, !ops_owes(e->ops));
        assert_untouched(e);
}

/* The grace is for what the lost session left, not for what the new one asks for. */
static void test_grace_of_one_session(void **state)
{
        struct env *e = *state;

        pledge_and_reconnect(e, 1);
        request(e, 1, OP_OFFLINE, FIRST + 1, 1, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 2);
        RUN_UNTIL(e, blocks_state(&e->blocks, FIRST) == BLOCK_ONLINE && !ops_busy(e->ops));
        assert_block(e, FIRST + 1, BLOCK_OFFLINE, ZONE_UNKNOWN);
        run_loop_for(&e->loop, 40 * USEC_PER_MSEC);
        assert_block(e, FIRST + 1, BLOCK_OFFLINE, ZONE_UNKNOWN);
        ops_set_session(e->ops, false);
        RUN_UNTIL(e, !ops_owes(e->ops));
        assert_untouched(e);
}

/* A request claims the blocks that it is about, and no other. */
static void test_grace_claimed_in_part(void **state)
{
        struct env *e = *state;

        pledge_and_reconnect(e, 2);
        request(e, 1, OP_OFFLINE, FIRST + 1, 1, 5000, 1000);
        assert_int_equal(e->n_replies, 2);
        RUN_UNTIL(e, blocks_state(&e->blocks, FIRST) == BLOCK_ONLINE && !ops_busy(e->ops));
        assert_block(e, FIRST + 1, BLOCK_OFFLINE, ZONE_UNKNOWN);
        ops_set_session(e->ops, false);
        RUN_UNTIL(e, !ops_owes(e->ops));
        assert_untouched(e);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_offline),
                TEST(test_offline_bad_targets),
                TEST(test_offline_misled),
                TEST(test_offline_failures),
                TEST(test_sets),
                TEST(test_sets_failure),
                TEST(test_sets_headroom),
                TEST(test_sets_stopped),
                TEST(test_former_zones),
                TEST(test_headroom),
                TEST(test_attempt_limit),
                TEST(test_deadline),
                TEST(test_cancel),
                TEST(test_session_loss),
                TEST(test_put_back_retries),
                TEST(test_put_back_hangs),
                TEST(test_grace),
                TEST(test_grace_unclaimed),
                TEST(test_grace_of_one_session),
                TEST(test_grace_claimed_in_part),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
