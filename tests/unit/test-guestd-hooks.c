/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* HOOK in guestd: from the folder's change to the host's knowing of it, from the request to its one answer,
 * and what becomes of it when the host goes away. The program that runs hooks is the real one. */

#include "test-guestd-tree.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"
#include "guestd/hooks.h"
#include "guestd/ops-internal.h"

#define WAIT_USEC  (10 * USEC_PER_SEC)
#define GRACE_USEC (100 * USEC_PER_MSEC)

struct env {
        struct tree tree;
        char dir[40], folder[80], state[64], trace[64];
        struct loop loop;
        struct blocks blocks;
        struct hooks *hooks;
        struct ops *ops;
        unsigned n_changes, n_replies, n_failures;
        bool any;
        uint64_t reply_id, failure_id;
        struct message_reply reply;
        struct hook_result results[PROTO_HOOKS_MAX];
        struct error failure;
};

static void on_changed(bool any, void *userdata)
{
        struct env *e = userdata;

        e->n_changes++;
        e->any = any;
}

static int on_reply(uint64_t id, const struct message_reply *reply, void *userdata)
{
        struct env *e = userdata;
        struct message m = {
                .type = MESSAGE_REPLY, .session = "0011223344556677", .id = id, .reply = *reply
        };
        _cleanup_free_ char *line = NULL;
        size_t length;

        assert_int_equal(message_encode(&m, &line, &length), 0);
        e->n_replies++;
        e->reply_id = id;
        e->reply = *reply;
        if (reply->n_hooks > 0)
                memcpy(e->results, reply->hooks, reply->n_hooks * sizeof(*reply->hooks));
        return 0;
}

static void on_failure(uint64_t id, const struct error *error, void *userdata)
{
        struct env *e = userdata;

        e->n_failures++;
        e->failure_id = id;
        e->failure = *error;
}

static void on_progress(uint64_t id, uint64_t done_bytes, uint64_t total_bytes, void *userdata)
{
        fail();
}

static void on_event(enum event_type event, void *userdata)
{
}

static void make_ops(struct env *e, const char *program)
{
        static const struct ops_link link = { on_reply, on_failure, on_progress, on_event };
        struct hooks_config hooks = { .client = {
                                              .folder = e->folder, .state = e->state, .program = program } };

        assert_int_equal(hooks_new(&e->loop, &hooks, on_changed, e, &e->hooks), 0);
        struct ops_config config = { .sys_fd = e->tree.sys_fd,
                .proc_fd = e->tree.proc_fd,
                .grace_usec = GRACE_USEC,
                .hooks = e->hooks };
        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &config, &link, e, &e->ops), 0);
}

static void free_ops(struct env *e)
{
        e->ops = ops_free(e->ops);
        e->hooks = hooks_free(e->hooks);
}

static int setup(void **state)
{
        struct env *e = calloc(1, sizeof(*e));

        log_set_max_level(-1);
        tree_init(&e->tree);
        tree_block(&e->tree, 32, "online\n", "Normal\n", 0);
        strcpy(e->dir, "/tmp/test-hooks-XXXXXX");
        assert_non_null(mkdtemp(e->dir));
        snprintf(e->folder, sizeof(e->folder), "%s/etc/opendlpar/hooks.d", e->dir);
        snprintf(e->state, sizeof(e->state), "%s/state", e->dir);
        snprintf(e->trace, sizeof(e->trace), "%s/trace", e->dir);
        assert_int_equal(loop_init(&e->loop), 0);
        assert_int_equal(blocks_open(&e->blocks, e->tree.sys_fd), 0);
        make_ops(e, HOOKS_BUILT);
        ops_set_session(e->ops, true);
        *state = e;
        return 0;
}

static int teardown(void **state)
{
        struct env *e = *state;
        char command[80];

        free_ops(e);
        assert_null(e->loop.timers);
        blocks_close(&e->blocks);
        loop_done(&e->loop);
        tree_done(&e->tree);
        snprintf(command, sizeof(command), "rm -rf -- %s", e->dir);
        assert_int_equal(system(command), 0);
        free(e);
        return 0;
}

static void shell(struct env *e, const char *format)
{
        char command[512];

        snprintf(command, sizeof(command), "cd %s && %s", e->dir, format);
        assert_int_equal(system(command), 0);
}

static void put(struct env *e, const char *name, const char *text)
{
        char path[160], body[512];

        shell(e, "mkdir -p etc/opendlpar/hooks.d");
        snprintf(path, sizeof(path), "%s/%s", e->folder, name);
        snprintf(body, sizeof(body), "#!/bin/sh\nTRACE=%s\n%s\n", e->trace, text);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, body, strlen(body)), strlen(body));
        close(fd);
        RUN_UNTIL(e, hooks_any(e->hooks));
}

static char *read_trace(struct env *e)
{
        static char text[1024];
        int fd = open(e->trace, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

        text[n < 0 ? 0 : n] = '\0';
        close_fd(fd);
        return text;
}

static void ask(struct env *e, uint64_t id, enum hook_phase phase, uint64_t deadline_msec)
{
        struct message m = { .type = MESSAGE_REQUEST,
                .id = id,
                .request = { .op = OP_HOOK,
                        .bytes = GIB,
                        .deadline_msec = deadline_msec,
                        .hook = { .phase = phase, .operation = HOOK_REMOVE, .job = 3 } } };

        ops_request(e->ops, &m);
}

static void cancel(struct env *e, uint64_t id, uint64_t target)
{
        struct message m = {
                .type = MESSAGE_REQUEST, .id = id, .request = { .op = OP_CANCEL, .target_id = target }
        };

        ops_request(e->ops, &m);
}

/* A guest without hooks answers at once, and starts nothing. */
static void test_none(void **state)
{
        struct env *e = *state;

        assert_false(hooks_any(e->hooks));
        ask(e, 1, HOOK_CHECK, 1000);
        assert_int_equal(e->n_replies, 1);
        assert_true(e->reply.complete);
        assert_int_equal(e->reply.n_hooks, 0);
        assert_int_equal(e->n_changes, 0);
}

/* Wherever on the way to the folder something appears. */
static void test_watch(void **state)
{
        struct env *e = *state;

        shell(e, "mkdir etc");
        loop_run_once(&e->loop, 50);
        shell(e, "mkdir etc/opendlpar");
        loop_run_once(&e->loop, 50);
        shell(e, "mkdir etc/opendlpar/hooks.d");
        loop_run_once(&e->loop, 50);
        assert_int_equal(e->n_changes, 0);
        shell(e, "touch etc/opendlpar/hooks.d/.hidden && touch etc/opendlpar/hooks.d/10-a");
        RUN_UNTIL(e, e->n_changes == 1 && e->any && hooks_any(e->hooks));
        shell(e, "touch etc/opendlpar/hooks.d/20-b && rm etc/opendlpar/hooks.d/10-a");
        for (unsigned i = 0; i < 10; i++)
                loop_run_once(&e->loop, 10);
        assert_int_equal(e->n_changes, 1);
        shell(e, "rm etc/opendlpar/hooks.d/20-b");
        RUN_UNTIL(e, e->n_changes == 2 && !e->any);
        /* It goes away with all above it, and comes back in one piece. */
        shell(e, "touch etc/opendlpar/hooks.d/10-a");
        RUN_UNTIL(e, e->n_changes == 3 && e->any);
        shell(e, "mv etc away");
        shell(e, "rm -r away");
        RUN_UNTIL(e, e->n_changes == 4 && !e->any);
        shell(e, "mkdir -p new/opendlpar/hooks.d && touch new/opendlpar/hooks.d/10-a && mv new etc");
        RUN_UNTIL(e, e->n_changes == 5 && e->any);
}

static void test_veto(void **state)
{
        struct env *e = *state;

        put(e, "10-no", "echo not now; exit 1");
        ask(e, 7, HOOK_CHECK, 10000);
        assert_int_equal(e->n_replies, 0); /* not from inside */
        ask(e, 8, HOOK_CHECK, 10000);
        assert_int_equal(e->n_failures, 1);
        assert_int_equal(e->failure.code, ERROR_BUSY);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_int_equal(e->reply_id, 7);
        assert_false(e->reply.complete);
        assert_int_equal(e->reply.n_hooks, 1);
        assert_string_equal(e->results[0].name, "10-no");
        assert_int_equal(e->results[0].error.code, ERROR_HOOK_REFUSED);
        assert_string_equal(e->results[0].error.message, "not now");
        /* Other requests are answered meanwhile. */
        put(e, "10-no", "sleep 1000");
        ask(e, 9, HOOK_CHECK, 10000);
        struct message m = { .type = MESSAGE_REQUEST, .id = 10, .request = { .op = OP_GET_BLOCKS } };
        ops_request(e->ops, &m);
        assert_int_equal(e->reply_id, 10);
        cancel(e, 11, 9);
        assert_int_equal(e->reply_id, 11);
        RUN_UNTIL(e, e->n_replies == 4);
        assert_int_equal(e->reply_id, 9);
        assert_false(e->reply.complete);
        cancel(e, 12, 9);
}

static void test_deadline(void **state)
{
        struct env *e = *state;

        put(e, "10-hang", "sleep 1000");
        uint64_t begin = now_monotonic_usec();
        ask(e, 1, HOOK_CHECK, 200);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(now_monotonic_usec() - begin < 3 * USEC_PER_SEC);
        assert_false(e->reply.complete);
}

static void test_no_program(void **state)
{
        struct env *e = *state;

        put(e, "10-a", "exit 0");
        ops_set_session(e->ops, false);
        free_ops(e);
        make_ops(e, "/no/such/program");
        ops_set_session(e->ops, true);
        ask(e, 1, HOOK_CHECK, 1000);
        assert_int_equal(e->n_failures, 1);
        assert_int_equal(e->failure.code, ERROR_INTERNAL);
        free_ops(e);
        make_ops(e, "/bin/true"); /* it ends without a word */
        ops_set_session(e->ops, true);
        ask(e, 2, HOOK_CHECK, 1000);
        RUN_UNTIL(e, e->n_failures == 2);
        assert_int_equal(e->failure_id, 2);
        assert_int_equal(e->failure.code, ERROR_INTERNAL);
}

/* After PRE the host goes away for good. */
static void test_host_goes(void **state)
{
        struct env *e = *state;

        put(e, "10-a", "echo $OPENDLPAR_PHASE >>$TRACE");
        ask(e, 1, HOOK_PRE, 10000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(hooks_are_pending(e->hooks));
        ops_set_session(e->ops, false);
        assert_true(hook_owes(e->ops));
        assert_false(ops_owes(e->ops)); /* a guestd that ends leaves it to the next one, and at once */
        RUN_UNTIL(e, !hook_owes(e->ops));
        assert_string_equal(read_trace(e), "pre\nundo\n");
        assert_int_equal(e->n_replies, 1);
}

/* It comes back: what it says counts. */
static void test_host_returns(void **state)
{
        struct env *e = *state;

        put(e, "10-a", "echo $OPENDLPAR_PHASE >>$TRACE");
        ask(e, 1, HOOK_PRE, 10000);
        RUN_UNTIL(e, e->n_replies == 1);
        ops_set_session(e->ops, false);
        ops_set_session(e->ops, true);
        uint64_t until = now_monotonic_usec() + 3 * GRACE_USEC;
        while (now_monotonic_usec() < until)
                loop_run_once(&e->loop, 10);
        assert_string_equal(read_trace(e), "pre\n");
        ask(e, 2, HOOK_POST, 10000);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_string_equal(read_trace(e), "pre\npost\n");
        assert_false(hooks_are_pending(e->hooks));
}

/* In the midst of PRE: the hook is killed, and undone. */
static void test_host_goes_in_pre(void **state)
{
        struct env *e = *state;

        put(e, "10-a", "echo $OPENDLPAR_PHASE >>$TRACE; [ $OPENDLPAR_PHASE != pre ] || sleep 1000");
        ask(e, 1, HOOK_PRE, 600000);
        RUN_UNTIL(e, read_trace(e)[0]);
        ops_set_session(e->ops, false);
        assert_true(ops_owes(e->ops)); /* until the hook is dead */
        RUN_UNTIL(e, !hook_owes(e->ops));
        assert_string_equal(read_trace(e), "pre\nundo\n");
        assert_int_equal(e->n_replies, 0);
}

/* It comes back before the hook has ended, and knows nothing of it. */
static void test_settle_early(void **state)
{
        struct env *e = *state;

        put(e, "10-a", "echo $OPENDLPAR_PHASE >>$TRACE; [ $OPENDLPAR_PHASE != pre ] || sleep 1000");
        ask(e, 1, HOOK_PRE, 600000);
        RUN_UNTIL(e, read_trace(e)[0]);
        ops_set_session(e->ops, false);
        ops_set_session(e->ops, true);
        ask(e, 1, HOOK_SETTLE, 10000);
        assert_int_equal(e->n_replies, 1);
        RUN_UNTIL(e, !hook_owes(e->ops));
        assert_string_equal(read_trace(e), "pre\nundo\n");
        assert_int_equal(e->n_replies, 1);
        assert_int_equal(e->n_failures, 0);
}

/* The next job begins before that is settled: it has to wait, and is not settled in its place. */
static void test_settle_before_next(void **state)
{
        struct env *e = *state;

        put(e, "10-a",
                "echo $OPENDLPAR_PHASE >>$TRACE; [ $OPENDLPAR_PHASE != pre -o -e $TRACE.go ] || sleep 1000");
        ask(e, 1, HOOK_PRE, 600000);
        RUN_UNTIL(e, read_trace(e)[0]);
        ops_set_session(e->ops, false);
        ops_set_session(e->ops, true);
        ask(e, 1, HOOK_SETTLE, 10000);
        assert_int_equal(e->n_replies, 1);
        shell(e, "touch trace.go");
        uint64_t id = 2;
        for (unsigned i = 0; i < 500 && e->n_replies == 1; i++) {
                ask(e, id++, HOOK_PRE, 10000);
                loop_run_once(&e->loop, 20);
        }
        assert_int_equal(e->failure.code, ERROR_BUSY);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_true(e->reply.complete);
        assert_false(e->ops->hook_timer.armed);
        assert_string_equal(read_trace(e), "pre\nundo\npre\n");
        assert_true(hooks_are_pending(e->hooks));
}

/* What an operation puts back is not yet what the memory is. */
static void test_settle_at_rest(void **state)
{
        struct env *e = *state;

        put(e, "10-a", "echo $OPENDLPAR_PHASE >>$TRACE");
        ask(e, 1, HOOK_PRE, 10000);
        RUN_UNTIL(e, e->n_replies == 1);
        struct work_item item = { .block = 32 };
        pledge_add(e->ops, &item, 1);
        ask(e, 2, HOOK_SETTLE, 10000);
        assert_int_equal(e->n_replies, 2);
        uint64_t until = now_monotonic_usec() + 1500 * USEC_PER_MSEC;
        while (now_monotonic_usec() < until)
                loop_run_once(&e->loop, 20);
        assert_string_equal(read_trace(e), "pre\n");
        pledge_drop(e->ops, 32);
        RUN_UNTIL(e, !hook_owes(e->ops));
        assert_string_equal(read_trace(e), "pre\nundo\n");
}

/* guestd itself was restarted: the one before left something to be settled, also when no hook is left. */
static void test_restart(void **state)
{
        struct env *e = *state;

        put(e, "10-a", "echo $OPENDLPAR_PHASE >>$TRACE");
        ask(e, 1, HOOK_PRE, 10000);
        RUN_UNTIL(e, e->n_replies == 1);
        free_ops(e);
        make_ops(e, HOOKS_BUILT);
        assert_true(hooks_are_pending(e->hooks));
        RUN_UNTIL(e, !hook_owes(e->ops));
        assert_string_equal(read_trace(e), "pre\nundo\n");

        ops_set_session(e->ops, true);
        ask(e, 2, HOOK_PRE, 10000);
        RUN_UNTIL(e, e->n_replies == 2);
        shell(e, "rm -r etc");
        RUN_UNTIL(e, e->n_changes > 0 && !access(e->state, F_OK));
        assert_true(hooks_any(e->hooks));
        ask(e, 3, HOOK_SETTLE, 10000);
        RUN_UNTIL(e, e->n_replies == 3 && !hooks_any(e->hooks));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_none),
                TEST(test_watch),
                TEST(test_veto),
                TEST(test_deadline),
                TEST(test_no_program),
                TEST(test_host_goes),
                TEST(test_host_returns),
                TEST(test_host_goes_in_pre),
                TEST(test_settle_early),
                TEST(test_settle_before_next),
                TEST(test_settle_at_rest),
                TEST(test_restart),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
