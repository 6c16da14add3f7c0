/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What outlives a call of opendlpar-hooks, who asks for it, and the program as a service. */

#include "hooks-fixture.h"

static void test_undo(void **state)
{
        struct env *e = *state;

        put(e, "10-a", 0755, "echo a-$OPENDLPAR_PHASE >>$TRACE");
        put(e, "20-b", 0755, "echo b-$OPENDLPAR_PHASE >>$TRACE; [ $OPENDLPAR_PHASE != pre ]");
        put(e, "30-c", 0755, "echo c-$OPENDLPAR_PHASE >>$TRACE");
        run(e, HOOK_PRE);
        assert_answer(e, false, 1);
        assert_int_equal(access(e->state, F_OK), 0);
        run(e, HOOK_UNDO);
        assert_answer(e, true, 0);
        assert_string_equal(read_trace(e), "a-pre\nb-pre\nb-undo\na-undo\n");
        assert_int_not_equal(access(e->state, F_OK), 0);
        /* It was undone. */
        run(e, HOOK_UNDO);
        assert_string_equal(read_trace(e), "a-pre\nb-pre\nb-undo\na-undo\n");

        put(e, "20-b", 0755, "exit 0");
        run(e, HOOK_PRE);
        remove_file(e, "10-a");
        assert_int_equal(unlink(e->trace), 0);
        run(e, HOOK_UNDO);
        assert_answer(e, true, 1);
        assert_result(e, 0, "10-a", ERROR_HOOK_SKIPPED, "not there");
        assert_string_equal(read_trace(e), "c-undo\n");

        run(e, HOOK_PRE);
        assert_int_equal(unlink(e->trace), 0);
        run(e, HOOK_POST);
        assert_int_not_equal(access(e->state, F_OK), 0);
        assert_string_equal(read_trace(e), "c-post\n");
        run(e, HOOK_POST); /* sent again */
        assert_answer(e, true, 0);
        assert_string_equal(read_trace(e), "c-post\n");
}

/* What could not be undone is not begun. */
static void test_no_state(void **state)
{
        struct env *e = *state;

        strcpy(e->state, "/no/such/folder/state");
        put(e, "10-a", 0755, "echo ran >>$TRACE");
        run(e, HOOK_PRE);
        assert_answer(e, false, 1);
        assert_result(e, 0, "", ERROR_HOOK_FAILED, "could not be undone");
        assert_string_equal(read_trace(e), "");
        run(e, HOOK_CHECK);
        assert_answer(e, true, 0);
}

/* The host is gone: by what the memory is, in comparison. */
static void test_settle(void **state)
{
        struct env *e = *state;
        char text[200];

        put(e, "10-a", 0755,
                "echo $OPENDLPAR_PHASE $OPENDLPAR_OPERATION $OPENDLPAR_BYTES $OPENDLPAR_OUTCOME "
                "$OPENDLPAR_JOB $OPENDLPAR_REASON >>$TRACE");
        run(e, HOOK_SETTLE);
        assert_answer(e, true, 0);
        assert_string_equal(read_trace(e), "");
        run(e, HOOK_PRE);
        assert_int_equal(unlink(e->trace), 0);
        run(e, HOOK_SETTLE);
        assert_string_equal(read_trace(e), "undo remove 2147483648 none 12 the host went away\n");
        assert_int_not_equal(access(e->state, F_OK), 0);

        /* A guest that had 1 PiB more then has lost it. */
        snprintf(text, sizeof(text), "remove %llu 9 2 1125899906842624\n10-a\n", (unsigned long long)GIB);
        put_at(e->state, 0600, text);
        assert_int_equal(unlink(e->trace), 0);
        run(e, HOOK_SETTLE);
        assert_string_equal(read_trace(e), "post remove 1073741824 none 9 the host went away\n");
        assert_int_not_equal(access(e->state, F_OK), 0);
        /* A file that is torn. */
        put_at(e->state, 0600, "remo");
        run(e, HOOK_SETTLE);
        assert_answer(e, true, 0);
}

/* Nobody has ended what another job began: that is settled before the next begins. */
static void test_settle_first(void **state)
{
        struct env *e = *state;
        struct hooks_request q = request(HOOK_PRE);

        put(e, "10-a", 0755, "echo $OPENDLPAR_PHASE $OPENDLPAR_JOB >>$TRACE; [ $OPENDLPAR_PHASE = pre ]");
        run(e, HOOK_PRE);
        run(e, HOOK_PRE); /* the same, sent again */
        q.call.job = 13;
        send_request(e, q);
        receive(e);
        assert_answer(e, true, 0);
        assert_string_equal(read_trace(e), "pre 12\npre 12\nundo 12\npre 13\n");
        assert_int_equal(access(e->state, F_OK), 0);
}

static void test_cancel(void **state)
{
        struct env *e = *state;
        struct hooks_request cancel = { .kind = HOOKS_CANCEL };

        put(e, "10-hang", 0755,
                "[ $OPENDLPAR_PHASE = undo ] && echo undone >>$TRACE && exit 0; echo begun >$TRACE; sleep "
                "1000");
        put(e, "20-never", 0755, "echo never >>$TRACE");
        send_request(e, request(HOOK_PRE));
        for (unsigned i = 0; i < 2000 && read_trace(e)[0] == '\0'; i++)
                poll(NULL, 0, 2);
        cancel.id = e->last_id - 1; /* another one's */
        assert_int_equal(hooks_client_send(&e->client, &cancel), 0);
        cancel.id = e->last_id;
        assert_int_equal(hooks_client_send(&e->client, &cancel), 0);
        assert_true(receive(e) < 2 * USEC_PER_SEC);
        assert_false(e->answer.complete);
        assert_int_equal(e->answer.stopped, ERROR_CANCELLED);
        assert_result(e, 0, "10-hang", ERROR_HOOK_FAILED, "is to end");
        run(e, HOOK_UNDO);
        assert_string_equal(read_trace(e), "begun\nundone\n");
        /* One that comes too late is nobody's. */
        assert_int_equal(hooks_client_send(&e->client, &cancel), 0);
        put(e, "10-hang", 0755, "exit 0");
        run(e, HOOK_CHECK);
        assert_answer(e, true, 0);
}

/* Who asked ends: so do the hook and the program. */
static void test_asker_goes(void **state)
{
        struct env *e = *state;

        put(e, "hang", 0755, "echo $$ >$TRACE; sleep 1000");
        send_request(e, request(HOOK_PRE));
        for (unsigned i = 0; i < 2000 && read_trace(e)[0] == '\0'; i++)
                poll(NULL, 0, 2);
        assert_true(is_alive(read_trace(e)));
        pid_t pid = e->client.pid;
        hooks_client_close(&e->client);
        for (unsigned i = 0; i < 1000 && is_alive(read_trace(e)); i++)
                poll(NULL, 0, 2);
        assert_false(is_alive(read_trace(e)));
        assert_true(kill(pid, 0) < 0);
        assert_int_equal(access(e->state, F_OK), 0); /* it is to be undone yet */
}

static void test_many(void **state)
{
        struct env *e = *state;
        char name[32];

        for (unsigned i = 0; i < 20; i++) {
                snprintf(name, sizeof(name), "%02u-bad", i);
                put(e, name, 0644, "");
        }
        put(e, "90-no", 0755, "echo no; exit 1");
        run(e, HOOK_CHECK);
        assert_answer(e, false, HOOKS_RESULTS_MAX);
        assert_result(e, HOOKS_RESULTS_MAX - 1, "90-no", ERROR_HOOK_REFUSED, "no");
        for (unsigned i = 20; i <= HOOKS_FILES_MAX; i++) {
                snprintf(name, sizeof(name), "%02u-bad", i);
                put(e, name, 0644, "");
        }
        run(e, HOOK_CHECK);
        assert_answer(e, false, 1); /* one that was not read could have refused */
        assert_result(e, 0, "", ERROR_HOOK_FAILED, "not run");
}

/* As a service: started by what is written to a FIFO, answers by another. */
static void test_fifo(void **state)
{
        struct env *e = *state;
        char fifo[80], answer[80];
        struct hooks_client_config config = { .folder = e->folder, .fifo = fifo, .answer = answer };

        put(e, "10-no", 0755, "echo no; exit 1");
        snprintf(fifo, sizeof(fifo), "%s/fifo", e->dir);
        snprintf(answer, sizeof(answer), "%s/answer", e->dir);
        hooks_client_init(&e->client, &config);
        assert_int_equal(hooks_client_open(&e->client), -ENOENT);
        assert_int_equal(mkfifo(fifo, 0600), 0);
        assert_int_equal(hooks_client_open(&e->client), -ENXIO); /* nobody listens */
        int in = open(fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        assert_true(in >= 0);
        send_request(e, request(HOOK_CHECK));

        pid_t pid = fork();
        if (pid == 0) {
                dup2(in, STDIN_FILENO);
                execl(HOOKS_BUILT, HOOKS_BUILT, "--folder", e->folder, "--answer", answer, NULL);
                _exit(127);
        }
        receive(e);
        assert_result(e, 0, "10-no", ERROR_HOOK_REFUSED, "no");
        /* As guestd does it: the one FIFO is opened anew for each request. */
        hooks_client_close(&e->client);
        send_request(e, request(HOOK_CHECK));
        receive(e);
        /* A guestd that comes after this one, while the program waits for more. */
        hooks_client_done(&e->client);
        send_request(e, request(HOOK_CHECK));
        receive(e);
        assert_result(e, 0, "10-no", ERROR_HOOK_REFUSED, "no");
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid); /* by itself, as nothing more is asked */
        assert_int_equal(status, 0);
        close(in);
}

/* The host's: told of the partition, not of memory; nothing is answered. */
static void test_host(void **state)
{
        struct env *e = *state;
        struct hooks_request q = request(HOOK_END);
        struct hooks_client_config config = { .program = HOOKS_BUILT, .host = true };

        put(e, "10-note", 0755,
                "echo $OPENDLPAR_PHASE $OPENDLPAR_OPERATION $OPENDLPAR_PARTITION "
                "$OPENDLPAR_OUTCOME $OPENDLPAR_DONE_BYTES ${OPENDLPAR_MEMORY_BYTES-none} >>$TRACE; exit 1");
        hooks_client_init(&e->client, &config);
        strcpy(q.partition, "web1");
        strcpy(q.folder, e->folder);
        q.call.outcome = HOOK_OUTCOME_DONE;
        q.call.done_bytes = MIB;
        assert_int_equal(hooks_client_open(&e->client), 0);
        assert_int_equal(hooks_client_send(&e->client, &q), 0);
        assert_int_equal(hooks_client_send(&e->client, &q), 0);
        for (unsigned i = 0; i < 5000 && strlen(read_trace(e)) < 66; i++)
                poll(NULL, 0, 2);
        assert_string_equal(read_trace(e), "end remove web1 done 1048576 none\n"
                                           "end remove web1 done 1048576 none\n");
}

/* The same as a service. */
static void test_host_fifo(void **state)
{
        struct env *e = *state;
        char fifo[80];
        struct hooks_request q = request(HOOK_BEGIN);
        struct hooks_client_config config = { .fifo = fifo, .host = true };
        int status;

        put(e, "10-note", 0755, "echo $OPENDLPAR_PHASE $OPENDLPAR_PARTITION >>$TRACE");
        snprintf(fifo, sizeof(fifo), "%s/fifo", e->dir);
        assert_int_equal(mkfifo(fifo, 0600), 0);
        int in = open(fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        assert_true(in >= 0);
        hooks_client_init(&e->client, &config);
        strcpy(q.partition, "web1");
        strcpy(q.folder, e->folder);
        assert_int_equal(hooks_client_open(&e->client), 0);
        unsigned n = 0;
        int r;
        while ((r = hooks_client_send(&e->client, &q)) >= 0) /* until no more fit */
                assert_true(++n < 1000);
        assert_int_equal(r, -EAGAIN);
        pid_t pid = fork();
        if (pid == 0) {
                dup2(in, STDIN_FILENO);
                execl(HOOKS_BUILT, HOOKS_BUILT, "--host", "--service", NULL);
                _exit(127);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(strlen(read_trace(e)), n * strlen("begin web1\n"));
        close(in);
}

static void test_garbage(void **state)
{
        struct env *e = *state;

        assert_int_equal(hooks_client_open(&e->client), 0);
        assert_int_equal(write(e->client.request_fd, "garbage", 7), 7);
        struct pollfd p = { .fd = e->client.answer_fd, .events = POLLIN };
        assert_int_equal(poll(&p, 1, WAIT_MSEC), 1);
        assert_int_equal(hooks_client_receive(&e->client, &e->answer), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_undo),
                TEST(test_no_state),
                TEST(test_settle),
                TEST(test_settle_first),
                TEST(test_cancel),
                TEST(test_asker_goes),
                TEST(test_many),
                TEST(test_fifo),
                TEST(test_host),
                TEST(test_host_fifo),
                TEST(test_garbage),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
