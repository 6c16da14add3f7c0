/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The child that is kept for the next walk. */

#include "guestd-ops-fixture.h"

#include <signal.h>
#include <sys/wait.h>

#include "guestd/children.h"

/* Zombies count as children. */
static bool has_children(void)
{
        siginfo_t info;

        return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

static bool is_gone(pid_t pid)
{
        return kill(pid, 0) < 0 && errno == ESRCH;
}

static void walk(struct env *e, uint64_t id, enum op op, unsigned first, unsigned n)
{
        request(e, id, op, first, n, 5000, 1000);
        RUN_UNTIL(e, e->reply_id == id);
}

static void test_spare(void **state)
{
        struct env *e = *state;
        struct monitor m;

        assert_false(has_children());
        assert_int_equal(children_spare(ops_children(e->ops)), 0); /* not with a write of ours */
        with_monitor(e, &m, USEC_PER_MSEC);
        pid_t pid = children_spare(ops_children(e->ops));
        assert_true(pid > 0);
        /* One walk after the other. */
        for (unsigned i = 0; i < 4; i++) {
                walk(e, 10 + i, OP_OFFLINE, FIRST + 4, 3);
                assert_true(e->reply.complete);
                assert_int_equal(children_spare(ops_children(e->ops)), pid);
                for (unsigned b = FIRST + 4; b < FIRST + 7; b++) {
                        assert_block(e, b, BLOCK_OFFLINE, ZONE_UNKNOWN);
                        tree_block(&e->tree, b, "online\n", "Movable\n", 0);
                        uevent(&m, b, BLOCK_ONLINE);
                }
        }
        e->ops = ops_free(e->ops);
        assert_true(is_gone(pid));
        assert_false(has_children());
}

static void test_spare_killed(void **state)
{
        struct env *e = *state;
        struct monitor m;

        with_monitor(e, &m, USEC_PER_MSEC);
        pid_t pid = children_spare(ops_children(e->ops));
        /* Noticed, and reaped, while it waits. */
        kill(pid, SIGKILL);
        RUN_UNTIL(e, children_spare(ops_children(e->ops)) == 0);
        assert_true(is_gone(pid));
        assert_false(has_children());
        /* The next walk has a child of its own, and keeps it. */
        walk(e, 1, OP_OFFLINE, FIRST + 4, 2);
        assert_true(e->reply.complete);
        pid = children_spare(ops_children(e->ops));
        assert_true(pid > 0);
        /* Dead, and nobody has noticed yet. */
        siginfo_t info;
        kill(pid, SIGKILL);
        assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        walk(e, 2, OP_OFFLINE, FIRST + 6, 2);
        assert_true(e->reply.complete);
        assert_true(is_gone(pid));
        assert_true(children_spare(ops_children(e->ops)) > 0);
        e->ops = ops_free(e->ops);
        assert_false(has_children());
}

/* Its walk is killed: another waits for the next one. */
static void test_spare_replaced(void **state)
{
        struct env *e = *state;
        struct monitor m;

        with_monitor(e, &m, USEC_PER_MSEC);
        pid_t pid = children_spare(ops_children(e->ops));
        kill(pid, SIGSTOP);
        request(e, 1, OP_OFFLINE, FIRST + 4, 2, 5000, 1000);
        assert_int_equal(children_spare(ops_children(e->ops)), 0);
        cancel(e, 2, 1);
        RUN_UNTIL(e, e->reply_id == 1);
        assert_false(e->reply.complete);
        assert_failure(e, 0, FIRST + 5, 1, ERROR_CANCELLED);
        assert_true(is_gone(pid));
        pid_t next = children_spare(ops_children(e->ops));
        assert_true(next > 0 && next != pid);
        e->ops = ops_free(e->ops);
        assert_false(has_children());
}

/* Freed while its child walks: the child is reaped later, by its pid. */
static void test_abandoned(void **state)
{
        struct env *e = *state;
        struct children *c;
        struct child *child;
        struct worker_config config = { .memory_fd = e->tree.memory_fd,
                .proc_fd = e->tree.proc_fd,
                .block_bytes = BLOCK,
                .write = fake_write };
        struct work_item item = { FIRST + 4, ZONE_MOVABLE };
        struct worker_limits limits = { 0 };

        assert_int_equal(children_new(&e->loop, &config, &c), 0);
        children_keep_spare(c);
        assert_int_equal(children_spare(c), 0);
        script->block[FIRST + 4].offline_errnum = HANG;
        script->block[FIRST + 4].offline_times = 1;
        assert_int_equal(children_start(c, WORK_OFFLINE, &item, 1, &limits, &child), 0);
        pid_t pid = child->pid;
        RUN_UNTIL(e, script->n_writes == 1);
        assert_null(children_end(c, child, false));
        siginfo_t info;
        assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        assert_false(is_gone(pid));
        children_keep_spare(c);
        assert_true(is_gone(pid));
        children_free(c);
        assert_false(has_children());
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_spare),
                TEST(test_spare_killed),
                TEST(test_spare_replaced),
                TEST(test_abandoned),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
