/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the host asks of a guest beside its runs: its state, and to be prepared. */

#include "guestd-ops-fixture.h"

#include <signal.h>
#include <sys/wait.h>

static void test_state_and_blocks(void **state)
{
        struct env *e = *state;

        request(e, 1, OP_GET_STATE, 0, 0, 0, 0);
        assert_int_equal(e->n_replies, 1);
        assert_true(e->reply.has_memory);
        assert_int_equal(e->reply.memory.total_bytes, 8 * GIB);
        assert_int_equal(e->reply.memory.online_blocks, 9);
        request(e, 2, OP_GET_BLOCKS, 0, 0, 0, 0);
        assert_int_equal(e->reply_id, 2);
        assert_int_equal(e->reply.n_ranges, 3);
        assert_false(e->reply.has_next);
}

static void test_prepare(void **state)
{
        struct env *e = *state;

        prepare(e, 1, ZONE_MOVABLE, 24 * GIB);
        assert_int_equal(e->reply_id, 1);
        assert_auto_online(e, "online_movable");
        assert_hurry(e, true);
        prepare(e, 2, ZONE_MOVABLE, 25 * GIB);
        assert_int_equal(e->failure_id, 2);
        assert_int_equal(e->failure.code, ERROR_ZONE_RATIO);
        assert_non_null(strstr(e->failure.message, "25600 MiB"));
        assert_auto_online(e, "online_movable");
        prepare(e, 3, ZONE_KERNEL, 25 * GIB);
        assert_int_equal(e->reply_id, 3);
        assert_auto_online(e, "online_kernel");
        /* What zones hold is looked at anew when a block has changed. */
        tree_zoneinfo(&e->tree, 8 * GIB, 24 * GIB);
        ops_on_block(e->ops, 50, BLOCK_OFFLINE);
        prepare(e, 3, ZONE_MOVABLE, GIB);
        assert_int_equal(e->failure_id, 3);
        assert_int_equal(e->failure.code, ERROR_ZONE_RATIO);
        tree_zoneinfo(&e->tree, 8 * GIB, 0);
        ops_on_block(e->ops, 50, BLOCK_ABSENT);
        /* What was there before the first of them comes back, once. */
        request(e, 4, OP_RELEASE, 0, 0, 0, 0);
        assert_int_equal(e->reply_id, 4);
        assert_auto_online(e, "offline");
        assert_hurry(e, false);
        tree_write(e->tree.memory_fd, "auto_online_blocks", "online\n");
        request(e, 5, OP_RELEASE, 0, 0, 0, 0);
        assert_auto_online(e, "online");

        prepare(e, 6, ZONE_MOVABLE, GIB);
        assert_auto_online(e, "online_movable");
        /* Not at once: the kernel may be bringing up what was plugged. */
        ops_set_session(e->ops, false);
        assert_auto_online(e, "online_movable");
        run_loop_for(&e->loop, 40 * USEC_PER_MSEC);
        assert_auto_online(e, "online");
        assert_hurry(e, false);
}

/* A host that comes back in time takes it over. */
static void test_prepare_taken_over(void **state)
{
        struct env *e = *state;

        prepare(e, 1, ZONE_MOVABLE, GIB);
        ops_set_session(e->ops, false);
        ops_set_session(e->ops, true);
        prepare(e, 1, ZONE_KERNEL, GIB);
        run_loop_for(&e->loop, 40 * USEC_PER_MSEC);
        assert_auto_online(e, "online_kernel");
        request(e, 2, OP_RELEASE, 0, 0, 0, 0);
        assert_auto_online(e, "offline");
}

/* A guestd that ends waits for that, unless the host said RELEASE. */
static void test_prepare_is_owed(void **state)
{
        struct env *e = *state;

        prepare(e, 1, ZONE_MOVABLE, GIB);
        ops_set_session(e->ops, false);
        assert_true(ops_owes(e->ops));
        assert_auto_online(e, "online_movable");
        RUN_UNTIL(e, !ops_owes(e->ops));
        assert_auto_online(e, "offline");

        ops_set_session(e->ops, true);
        prepare(e, 1, ZONE_MOVABLE, GIB);
        request(e, 2, OP_RELEASE, 0, 0, 0, 0);
        assert_false(ops_owes(e->ops));
}

/* Whatever is under way, and whatever is still to leave. */
static void test_released(void **state)
{
        struct env *e = *state;

        prepare(e, 1, ZONE_MOVABLE, GIB);
        request(e, 2, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        request(e, 3, OP_RELEASE, 0, 0, 0, 0);
        assert_int_equal(e->reply_id, 3);
        assert_auto_online(e, "offline");
        assert_hurry(e, true);
        RUN_UNTIL(e, e->reply_id == 2);
        assert_true(e->reply.complete);
        assert_hurry(e, true);
        e->ops = ops_free(e->ops);
        assert_hurry(e, false);
}

/* What is not ours is left alone, and a kernel without it works as well. */
static void test_hurry(void **state)
{
        struct env *e = *state;

        tree_write(e->tree.sys_fd, "kernel/rcu_expedited", "1\n");
        prepare(e, 1, ZONE_MOVABLE, GIB);
        request(e, 2, OP_RELEASE, 0, 0, 0, 0);
        assert_hurry(e, true);
        unlinkat(e->tree.sys_fd, "kernel/rcu_expedited", 0);
        prepare(e, 3, ZONE_MOVABLE, GIB);
        assert_int_equal(e->reply_id, 3);
        request(e, 4, OP_RELEASE, 0, 0, 0, 0);
        assert_int_equal(faccessat(e->tree.sys_fd, "kernel/rcu_expedited", F_OK, 0), -1);
}

/* One that cannot be had leaves nothing behind. */
static void test_no_auto_online(void **state)
{
        struct env *e = *state;

        unlinkat(e->tree.memory_fd, "auto_online_blocks", 0);
        prepare(e, 1, ZONE_MOVABLE, GIB);
        assert_int_equal(e->failure_id, 1);
        assert_hurry(e, false);
}

/* Who has time does not have the whole guest's grace periods expedited. */
static void test_gentle(void **state)
{
        struct env *e = *state;
        struct mem_range target = { FIRST * BLOCK, BLOCK };
        struct message m = { .type = MESSAGE_REQUEST,
                .id = 1,
                .request = { .op = OP_OFFLINE,
                        .targets = &target,
                        .n_targets = 1,
                        .deadline_msec = 5000,
                        .attempt_msec = 1000,
                        .gentle = true } };

        ops_request(e->ops, &m);
        RUN_UNTIL(e, e->reply_id == 1);
        assert_true(e->reply.complete);
        assert_hurry(e, false);
        /* A block more, and the first one is still offline. */
        request(e, 2, OP_OFFLINE, FIRST + 1, 1, 5000, 1000);
        RUN_UNTIL(e, e->reply_id == 2);
        assert_hurry(e, true);
        request(e, 3, OP_GET_BLOCKS, 0, 0, 0, 0);
        assert_int_equal(blocks_state(&e->blocks, FIRST), BLOCK_OFFLINE);
}

static void test_prepare_survives_kill(void **state)
{
        struct env *e = *state;
        char path[128], text[64];
        struct ops_config config = { .sys_fd = e->tree.sys_fd,
                .proc_fd = e->tree.proc_fd,
                .state_path = path,
                .grace_usec = 20 * USEC_PER_MSEC };
        struct ops *next, *after;

        snprintf(path, sizeof(path), "%s/settings", e->tree.path);
        ops_free(e->ops);
        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &config, &env_link, e, &e->ops), 0);
        prepare(e, 1, ZONE_MOVABLE, GIB);
        assert_auto_online(e, "online_movable");
        assert_hurry(e, true);
        tree_read(AT_FDCWD, path, text, sizeof(text));
        assert_string_equal(text, "auto_online_blocks offline\nrcu_expedited 0\n");
        /* The next one finds what this one, killed now, would leave. */
        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &config, &env_link, e, &next), 0);
        assert_auto_online(e, "online_movable");
        run_loop_for(&e->loop, 40 * USEC_PER_MSEC);
        assert_auto_online(e, "offline");
        assert_hurry(e, false);
        assert_int_equal(access(path, F_OK), -1);
        /* What is no setting is not written anywhere. */
        tree_write(AT_FDCWD, path, "nonsense\nauto_online_blocks evil\nrcu_expedited\nrcu_expedited 7\n");
        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &config, &env_link, e, &after), 0);
        assert_auto_online(e, "offline");
        assert_hurry(e, false);
        assert_int_equal(access(path, F_OK), -1);
        ops_free(after);
        /* What cannot be remembered is not changed. */
        snprintf(path, sizeof(path), "%s/no/such/folder", e->tree.path);
        ops_free(e->ops);
        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &config, &env_link, e, &e->ops), 0);
        prepare(e, 2, ZONE_MOVABLE, GIB);
        assert_int_equal(e->failure_id, 2);
        assert_auto_online(e, "offline");
        assert_hurry(e, false);
        ops_free(next);
}

static void test_events(void **state)
{
        struct env *e = *state;

        for (unsigned i = 0; i < 3; i++)
                appear(e, 50 + i, "offline\n", "Movable\n");
        RUN_UNTIL(e, e->n_events == 1);
        run_loop_for(&e->loop, 20 * USEC_PER_MSEC);
        assert_int_equal(e->n_events, 1);
        /* No news: none. */
        ops_on_block(e->ops, 50, BLOCK_OFFLINE);
        run_loop_for(&e->loop, 20 * USEC_PER_MSEC);
        assert_int_equal(e->n_events, 1);
        ops_set_session(e->ops, false);
        ops_on_block(e->ops, 51, BLOCK_ONLINE);
        run_loop_for(&e->loop, 20 * USEC_PER_MSEC);
        assert_int_equal(e->n_events, 1);
}

static void test_real_write(void **state)
{
        struct env *e = *state;
        char text[32];

        assert_int_equal(block_write_state(e->tree.memory_fd, FIRST, "offline"), 0);
        tree_read(e->tree.memory_fd, "memory32/state", text, sizeof(text));
        assert_int_equal(strncmp(text, "offline", 7), 0);
        assert_int_equal(block_write_state(e->tree.memory_fd, 77, "offline"), -ENOENT);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_state_and_blocks),
                TEST(test_prepare),
                TEST(test_prepare_taken_over),
                TEST(test_prepare_is_owed),
                TEST(test_released),
                TEST(test_hurry),
                TEST(test_no_auto_online),
                TEST(test_gentle),
                TEST(test_prepare_survives_kill),
                TEST(test_events),
                TEST(test_real_write),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
