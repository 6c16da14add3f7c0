/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The QMP client: greetings, calls, and their ends. */

#include "qmp-fixture.h"

static void test_paths(void **state)
{
        struct fixture *fx = *state;
        struct qmp_handlers handlers = { 0 };
        struct qmp_client *c = NULL;
        char path[200];

        memset(path, 'x', sizeof(path));
        path[sizeof(path) - 1] = '\0';
        assert_int_equal(qmp_client_new(fx->event, path, &handlers, NULL, &c), -ENAMETOOLONG);
        assert_int_equal(qmp_client_new(fx->event, "", &handlers, NULL, &c), -EINVAL);
        assert_null(c);
        assert_null(qmp_client_free(NULL));
        assert_null(qmp_call_free(NULL));
}

static void test_absent_then_there(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_client(fx);
        assert_int_equal(
                qmp_call(fx->client, "stop", json_object_new_object(), LIMIT_USEC, on_reply, &r, NULL),
                -ENOTCONN);
        RUN_UNTIL(fx, fx->n_down == 1);
        assert_int_equal(fx->down.code, ERROR_HYPERVISOR_ABSENT);
        assert_non_null(strstr(fx->down.message, fx->socket));
        /* Further failures of the same kind are not said again. */
        FAKE_RUN_UNTIL(fx->event, false, 60 * USEC_PER_MSEC);
        assert_int_equal(fx->n_down, 1);

        start_fake(fx, "negotiate");
        RUN_UNTIL(fx, fx->n_up == 1);
        RUN_SCRIPT(fx);
        assert_int_equal(r.n, 0);
        assert_int_equal(qmp_client_counters(fx->client).n_connects, 1);
}

static void test_refused_then_full(void **state)
{
        struct fixture *fx = *state;
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        strcpy(address.sun_path, fx->socket);
        assert_int_equal(bind(server, (struct sockaddr *)&address, sizeof(address)), 0);
        start_client(fx);
        RUN_UNTIL(fx, fx->n_down == 1); /* bound, not listening */
        assert_int_equal(fx->down.code, ERROR_HYPERVISOR_ABSENT);
        assert_non_null(strstr(fx->down.message, "refused"));

        assert_int_equal(listen(server, 0), 0);
        assert_int_equal(connect(other, (struct sockaddr *)&address, sizeof(address)), 0);
        RUN_UNTIL(fx, fx->n_down == 2); /* the backlog is full */
        assert_int_equal(fx->down.code, ERROR_HYPERVISOR_ABSENT);
        close(server);
        close(other);
}

static void test_never_served(void **state)
{
        static const struct qmp_limits limits = { 20 * USEC_PER_MSEC, 1000, 1000 };
        struct fixture *fx = *state;

        start(fx, "wait 100000");
        qmp_client_set_limits(fx->client, &limits);
        RUN_UNTIL(fx, fx->n_down == 1);
        assert_int_equal(fx->down.code, ERROR_HYPERVISOR_SILENT);
}

static void test_split_greeting(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start(fx, "accept\n"
                  "slowly greet\n"
                  "expect qmp_capabilities {\"enable\":[\"oob\"]}\n"
                  "slowly reply\n"
                  "expect query-status\n"
                  "slowly reply {\"status\":\"running\"}\n");
        RUN_UNTIL(fx, fx->n_up == 1);
        call(fx, "query-status", &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_string_equal(r.text, "{\"status\":\"running\"}");
}

static void test_bad_beginnings(void **state)
{
        static const char *const scripts[] = {
                "accept\nraw SSH-2.0-OpenSSH_9.2\\r\\n\nexpect-close",
                "accept\nraw {\"QMP\": 3}\\n\nexpect-close",
                "accept\nraw {\"QMP\": {\"version\": {}}}\\n\nexpect-close",
                "accept\nevent STOP\nexpect-close",
                "accept\nraw {\"return\": {}}\\n\nexpect-close",
                "accept\nraw {\"a\":1,\"a\":2}\\n\nexpect-close",
                "accept\nraw [1]\\n\nexpect-close",
                "accept\ngreet\nexpect qmp_capabilities\nerror CommandNotFound no\nexpect-close",
                "accept\ngreet\nexpect qmp_capabilities\ngreet\nexpect-close",
        };
        struct fixture *fx = *state;

        for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
                fx->n_down = 0;
                start(fx, scripts[i]);
                RUN_UNTIL(fx, fx->n_down == 1);
                assert_int_equal(fx->down.code, ERROR_HYPERVISOR_MISBEHAVED);
                RUN_SCRIPT(fx);
                /* It tries again, and a QEMU that has come to its senses is taken. */
                fake_append(fx->fake, "negotiate");
                RUN_UNTIL(fx, qmp_client_is_up(fx->client));
                assert_int_equal(qmp_client_counters(fx->client).n_garbage, 1);
                fx->client = qmp_client_free(fx->client);
                fx->fake = fake_free(fx->fake);
        }
}

static void test_out_of_order(void **state)
{
        struct fixture *fx = *state;
        struct record a = { 0 }, b = { 0 }, c = { 0 };

        start_up(fx, "expect one @a\nexpect two @b\nexpect three @c\n"
                     "reply @c 3\nerror @a DeviceNotFound Device 'x' not found\nreply @b [2]\n");
        call(fx, "one", &a);
        call(fx, "two", &b);
        call(fx, "three", &c);
        RUN_UNTIL(fx, b.n == 1);
        assert_int_equal(a.n + b.n + c.n, 3);
        assert_int_equal(a.code, ERROR_HYPERVISOR_REFUSED);
        assert_string_equal(a.text, "Device 'x' not found");
        assert_string_equal(b.text, "[2]");
        assert_string_equal(c.text, "3");
}

static void test_arguments(void **state)
{
        struct fixture *fx = *state;
        struct record r = { .fx = fx };
        struct json_object *arguments = json_object_new_object();

        start_up(fx, "expect device_del {\"id\":\"dimm0\"}\nreply null\n");
        json_add_string(arguments, "id", "dimm0");
        assert_int_equal(qmp_call(fx->client, "device_del", arguments, UINT64_MAX, on_reply, &r, NULL), 0);
        RUN_UNTIL(fx, r.n == 1);
        assert_string_equal(r.text, "{}");
}

static void test_unknown_id(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_up(fx, "expect stop\nraw {\"return\":{},\"id\":7}\\n\nreply {}\n");
        call(fx, "stop", &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(qmp_client_counters(fx->client).n_late_replies, 1);
        assert_true(qmp_client_is_up(fx->client));
}

static void test_reply_without_id(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_up(fx,
                "expect stop\nraw {\"error\":{\"class\":\"GenericError\",\"desc\":\"JSON parse error\"}}\\n\n"
                "expect-close\n");
        call(fx, "stop", &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_HYPERVISOR_MISBEHAVED);
        RUN_SCRIPT(fx);
}

static void test_late_after_free(void **state)
{
        struct fixture *fx = *state;
        struct record a = { 0 }, b = { 0 };

        start_up(fx, "expect one @a\nexpect two @b\nreply @a\nreply @b\n");
        struct qmp_call *handle = call(fx, "one", &a);
        call(fx, "two", &b);
        assert_null(qmp_call_free(handle));
        RUN_UNTIL(fx, b.n == 1);
        assert_int_equal(a.n, 0);
        assert_int_equal(qmp_client_counters(fx->client).n_late_replies, 1);
}

static void test_timeout(void **state)
{
        struct fixture *fx = *state;
        struct record r = { .fx = fx };

        start_up(fx, "expect slow\nwait 40\nreply {}\n");
        assert_int_equal(qmp_call(fx->client, "slow", NULL, 5 * USEC_PER_MSEC, on_reply, &r, NULL), 0);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_HYPERVISOR_SILENT);
        assert_non_null(strstr(r.text, "'slow'"));
        RUN_UNTIL(fx, qmp_client_counters(fx->client).n_late_replies == 1);
        assert_int_equal(r.n, 1);
        assert_true(qmp_client_is_up(fx->client));
}

static void free_other_and_call(struct record *r)
{
        r->then = NULL;
        r->other = qmp_call_free(r->other);
        if (qmp_client_is_up(r->fx->client))
                call(r->fx, "three", r);
        else
                assert_int_equal(qmp_call(r->fx->client, "three", NULL, 1, on_reply, r, NULL), -ENOTCONN);
}

static void test_callbacks_act(void **state)
{
        struct fixture *fx = *state;
        struct record a = { .then = free_other_and_call }, b = { 0 }, c = { 0 };

        start_up(fx, "expect one @a\nexpect two @b\nreply @a\nreply @b\nexpect three\nreply 3\n");
        call(fx, "one", &a);
        a.other = call(fx, "two", &b);
        RUN_UNTIL(fx, a.n == 2);
        assert_int_equal(b.n, 0);
        assert_string_equal(a.text, "3");

        /* The same while the connection dies: the first of three frees the second. */
        a = (struct record) { .then = free_other_and_call };
        fake_append(fx->fake, "expect one\nexpect two\nexpect four\nclose\n");
        call(fx, "one", &a);
        a.other = call(fx, "two", &b);
        call(fx, "four", &c);
        RUN_UNTIL(fx, fx->n_down == 1);
        assert_int_equal(a.n, 1);
        assert_int_equal(b.n, 0);
        assert_int_equal(c.n, 1);
}

static void call_at_once(struct fixture *fx)
{
        static struct record r;

        r = (struct record) { 0 };
        call(fx, "query-status", &r);
}

static void test_call_in_on_up_and_on_event(void **state)
{
        struct fixture *fx = *state;

        fx->on_up = call_at_once;
        fx->on_event = call_at_once;
        start(fx, "negotiate\nexpect query-status\nreply\nevent STOP\nexpect query-status\nreply\n");
        RUN_SCRIPT(fx);
}

static void test_limits(void **state)
{
        struct fixture *fx = *state;
        struct record r = { .fx = fx };

        start_up(fx, "repeat 2 nothing\n");
        for (unsigned i = 0; i < QMP_CALLS_MAX; i++)
                assert_int_equal(qmp_call(fx->client, "stop", NULL, LIMIT_USEC, on_reply, &r, NULL), 0);
        assert_int_equal(qmp_call(fx->client, "stop", NULL, LIMIT_USEC, on_reply, &r, NULL), -EBUSY);
        assert_int_equal(r.n, 0);
        fx->client = qmp_client_free(fx->client);
        assert_int_equal(r.n, 0); /* pending calls end without their callbacks */
}

static void test_backpressure(void **state)
{
        struct fixture *fx = *state;
        struct record r = { .fx = fx };
        char big[60001];

        memset(big, 'x', sizeof(big) - 1);
        big[sizeof(big) - 1] = '\0';
        /* QEMU does not read at first: what the socket does not take waits in the queue, and no more than
         * that. */
        start_up(fx, "expect first\n");
        call(fx, "first", &r);
        RUN_UNTIL(fx, fake_finished(fx->fake));
        unsigned n = 0;
        int e;
        for (;; n++) {
                struct json_object *arguments = json_object_new_object();
                json_add_string(arguments, "x", big);
                e = qmp_call(fx->client, "big", arguments, LIMIT_USEC, on_reply, &r, NULL);
                if (e < 0)
                        break;
        }
        assert_int_equal(e, -EBUSY);
        assert_in_range(qmp_client_queued(fx->client), 1, 1024 * 1024);
        fake_append(fx->fake, "on big reply {}\nwait 1\n");
        RUN_UNTIL(fx, r.n == n);
        assert_int_equal(qmp_client_queued(fx->client), 0);
}

static void test_peer_gone_at_write(void **state)
{
        struct fixture *fx = *state;
        struct record r = { .fx = fx };

        start_up(fx, "");
        RUN_SCRIPT(fx);
        fx->fake = fake_free(fx->fake);
        /* The end of file was not seen yet: the call is taken, and completes from the loop. */
        assert_int_equal(qmp_call(fx->client, "stop", NULL, LIMIT_USEC, on_reply, &r, NULL), 0);
        assert_int_equal(r.n, 0);
        assert_int_equal(qmp_call(fx->client, "stop", NULL, LIMIT_USEC, on_reply, &r, NULL), -ENOTCONN);
        RUN_UNTIL(fx, fx->n_down >= 1);
        assert_int_equal(r.n, 1);
        assert_int_equal(r.code, ERROR_HYPERVISOR_ABSENT);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_paths),
                TEST(test_absent_then_there),
                TEST(test_refused_then_full),
                TEST(test_never_served),
                TEST(test_split_greeting),
                TEST(test_bad_beginnings),
                TEST(test_out_of_order),
                TEST(test_arguments),
                TEST(test_unknown_id),
                TEST(test_reply_without_id),
                TEST(test_late_after_free),
                TEST(test_timeout),
                TEST(test_callbacks_act),
                TEST(test_call_in_on_up_and_on_event),
                TEST(test_limits),
                TEST(test_backpressure),
                TEST(test_peer_gone_at_write),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
