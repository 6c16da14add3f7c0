/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The agent channel: greetings, requests, and their ends. */

#include "agent-fixture.h"

static void test_paths(void **state)
{
        struct fixture *fx = *state;
        struct agent_handlers handlers = { 0 };
        struct agent *a = NULL;
        char path[200];

        memset(path, 'x', sizeof(path));
        path[sizeof(path) - 1] = '\0';
        assert_int_equal(agent_new(fx->event, path, &handlers, NULL, &a), -ENAMETOOLONG);
        assert_int_equal(agent_new(fx->event, "", &handlers, NULL, &a), -EINVAL);
        assert_null(agent_free(NULL));
        assert_null(agent_call_free(NULL));
        assert_string_equal(agent_state_to_string(AGENT_TOO_OLD), "too-old");
}

static void test_absent_then_silent_then_there(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_agent(fx, LIMIT_USEC);
        FAKE_RUN_UNTIL(fx->event, false, 20 * USEC_PER_MSEC);
        assert_int_equal(agent_state(fx->agent), AGENT_ABSENT);
        assert_explained(fx, ERROR_AGENT_ABSENT, "does not answer: No such file");
        assert_int_equal(try_call(fx, &r), -ENOTCONN);
        assert_null(agent_hello(fx->agent));

        /* Not a byte before the hello. */
        start_fake(fx, "accept\nquiet 30\n");
        RUN_UNTIL(fx, agent_state(fx->agent) == AGENT_WAITING);
        assert_int_equal(try_call(fx, &r), -ENOTCONN);
        assert_explained(fx, ERROR_AGENT_SILENT, "has not spoken");
        RUN_SCRIPT(fx);
        fake_append(fx->fake, "hello\nexpect welcome {\"nonce\":\"00112233445566ff\",\"version\":1}\n");
        RUN_SCRIPT(fx);
        assert_int_equal(agent_state(fx->agent), AGENT_READY);
        assert_int_equal(fx->n_states[AGENT_READY], 1);
        assert_string_equal(agent_hello(fx->agent)->agent, "guestd fake");
        assert_int_equal(agent_hello(fx->agent)->block_bytes, 128 * MIB);
        assert_int_equal(agent_counters(fx->agent).n_hellos, 1);
        assert_explained(fx, ERROR_NONE, "");
        assert_int_equal(r.n, 0);
}

static void test_request(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_ready(fx, "expect get-state\n"
                        "slowly reply\n"
                        "event blocks-changed\n"
                        "expect offline {\"targets\":[[4294967296,134217728]],\"deadline_msec\":5000}\n"
                        "progress 67108864 134217728\n"
                        "reply\n");
        call(fx, OP_GET_STATE, &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_NONE);
        assert_int_equal(r.available_bytes, 800 * MIB);
        call(fx, OP_OFFLINE, &r);
        RUN_UNTIL(fx, r.n == 2);
        assert_int_equal(r.op, OP_OFFLINE);
        assert_int_equal(r.n_progress, 1);
        assert_int_equal(r.done_bytes, 64 * MIB);
        assert_int_equal(r.total_bytes, 128 * MIB);
        assert_int_equal(fx->n_events, 1);
        RUN_SCRIPT(fx);
}

static void test_failure(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_ready(fx, "expect offline\nfailure no-headroom Only 12 MiB are available\n");
        call(fx, OP_OFFLINE, &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_NO_HEADROOM);
        assert_string_equal(r.text, "Only 12 MiB are available");
}

static void test_too_old(void **state)
{
        struct fixture *fx = *state;

        start(fx, "accept\nhello {\"version\":7,\"version_min\":5}\nexpect refuse "
                  "{\"code\":\"agent-too-old\"}\n");
        RUN_UNTIL(fx, agent_state(fx->agent) == AGENT_TOO_OLD);
        assert_explained(fx, ERROR_AGENT_TOO_OLD, "5 to 7");
        RUN_SCRIPT(fx);
        assert_null(agent_hello(fx->agent));
        /* Again is not announced again; and a guest that was updated is welcome. */
        fake_append(fx->fake,
                "hello {\"version\":7,\"version_min\":5}\nexpect refuse\nhello {\"version\":2}\n"
                "expect welcome {\"version\":1}\n");
        RUN_SCRIPT(fx);
        assert_int_equal(fx->n_states[AGENT_TOO_OLD], 1);
        assert_int_equal(agent_state(fx->agent), AGENT_READY);
}

static void test_garbage(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        /* As much as is borne... */
        start_ready(fx, "expect get-state\nrepeat 64 raw {\"type\":3}\\n\nreply\n");
        call(fx, OP_GET_STATE, &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_NONE);
        assert_int_equal(agent_counters(fx->agent).n_garbage, 64);

        /* ... and one more. */
        fake_append(fx->fake, "expect get-state\nraw nonsense\\n\nexpect-close\n");
        call(fx, OP_GET_STATE, &r);
        RUN_UNTIL(fx, r.n == 2);
        assert_int_equal(r.code, ERROR_AGENT_MISBEHAVED);
        assert_int_equal(agent_state(fx->agent), AGENT_MISBEHAVING);
        assert_explained(fx, ERROR_AGENT_MISBEHAVED, "not strict JSON");
        assert_int_equal(try_call(fx, &r), -ENOTCONN);
        RUN_SCRIPT(fx);

        /* After a while it has another chance. */
        fake_append(fx->fake, "begin");
        RUN_UNTIL(fx, agent_state(fx->agent) == AGENT_READY);
        assert_int_equal(fx->n_states[AGENT_MISBEHAVING], 1);
        assert_int_equal(fx->n_states[AGENT_WAITING], 2);
}

static void test_host_messages_are_garbage(void **state)
{
        static const char *const lines[] = {
                "send {\"type\":\"welcome\",\"version\":1,\"nonce\":\"00112233445566ff\"}",
                "send {\"type\":\"refuse\",\"code\":\"x\",\"message\":\"\",\"nonce\":\"00112233445566ff\"}",
                "send {\"type\":\"request\",\"id\":1,\"op\":\"get-state\"}",
                "raw {\\n",
                "raw {\"type\":\"hello\"}\\n",
                "raw {\"type\":\"event\",\"type\":\"event\"}\\n",
                "raw \\x00\\n",
        };
        struct fixture *fx = *state;

        start_ready(fx, "");
        for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
                fake_append(fx->fake, lines[i]);
                RUN_UNTIL(fx, agent_counters(fx->agent).n_garbage == i + 1);
        }
        assert_int_equal(agent_state(fx->agent), AGENT_READY);
        RUN_SCRIPT(fx);
}

static void test_oversized(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_ready(fx, "expect get-state\nrepeat 200 repeat 1000 raw x\nraw \\n\nreply\n");
        call(fx, OP_GET_STATE, &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_NONE);
        assert_int_equal(agent_counters(fx->agent).n_oversized, 1);
        assert_int_equal(agent_counters(fx->agent).n_garbage, 1);
}

static void test_stale_and_out_of_order(void **state)
{
        struct fixture *fx = *state;
        struct record a = { 0 }, b = { 0 };

        start_ready(fx,
                "expect get-state @a\n"
                "expect offline @b\n"
                "reply @a {\"session\":\"0000000000000000\"}\n" /* stale */
                "send {\"type\":\"event\",\"event\":\"blocks-changed\",\"session\":\"0000000000000000\"}\n"
                "reply @a {\"id\":77}\n"         /* never asked */
                "reply @a {\"op\":\"cancel\"}\n" /* another op */
                "reply @b\nprogress @a 1 2\nreply @a\n"
                "reply @a\n"); /* a second time: late */
        call(fx, OP_GET_STATE, &a);
        call(fx, OP_OFFLINE, &b);
        RUN_UNTIL(fx, b.n == 1);
        RUN_UNTIL(fx, agent_counters(fx->agent).n_late_replies == 1);
        assert_int_equal(a.n, 1);
        assert_int_equal(a.op, OP_GET_STATE);
        assert_int_equal(a.n_progress, 1);
        assert_int_equal(b.op, OP_OFFLINE);
        assert_int_equal(fx->n_events, 0);
        assert_int_equal(agent_counters(fx->agent).n_stale, 2);
        assert_int_equal(agent_counters(fx->agent).n_garbage, 2);
        RUN_SCRIPT(fx);
}

static void test_stale_before_hello(void **state)
{
        struct fixture *fx = *state;

        start(fx, "accept\nraw 11,\"id\":4}\\n\nsend {\"session\":\"0000000000000000\",\"type\":\"event\","
                  "\"event\":\"blocks-changed\"}\nraw {\"ty\nhello\nexpect welcome\n");
        RUN_SCRIPT(fx);
        assert_int_equal(agent_state(fx->agent), AGENT_READY);
        assert_int_equal(agent_counters(fx->agent).n_stale, 1);
        assert_int_equal(agent_counters(fx->agent).n_garbage, 1);
        assert_int_equal(fx->n_events, 0);
}

static void test_timeout_and_free(void **state)
{
        struct fixture *fx = *state;
        struct message_request request = { .op = OP_GET_STATE };
        struct record a = { .fx = fx }, b = { 0 }, c = { 0 };
        uint64_t id = 0;

        start_ready(fx, "expect get-state @a\nexpect get-state @b\nexpect get-state @c\n"
                        "wait 30\nreply @a\nreply @b\nreply @c\n");
        assert_int_equal(
                agent_call(fx->agent, &request, 5 * USEC_PER_MSEC, on_reply, NULL, &a, NULL, &id), 0);
        assert_int_equal(id, 1);
        struct agent_call *handle = call(fx, OP_GET_STATE, &b);
        call(fx, OP_GET_STATE, &c);
        assert_null(agent_call_free(handle));
        RUN_UNTIL(fx, c.n == 1);
        assert_int_equal(a.n, 1);
        assert_int_equal(a.code, ERROR_AGENT_SILENT);
        assert_int_equal(b.n, 0);
        assert_int_equal(agent_counters(fx->agent).n_late_replies, 2);
}

static void test_silence(void **state)
{
        struct fixture *fx = *state;

        /* Each time the connection is closed, and made again after a pause; the state stays. */
        start_fake(fx, "accept\nexpect-close\naccept\nexpect-close\naccept\nexpect-close\nbegin\n");
        start_agent(fx, 10 * USEC_PER_MSEC);
        RUN_SCRIPT(fx);
        RUN_UNTIL(fx, agent_state(fx->agent) == AGENT_READY);
        assert_int_equal(fx->n_states[AGENT_WAITING], 1);
        assert_int_equal(fx->n_states[AGENT_ABSENT], 0);
        /* READY needs no hello any more. */
        FAKE_RUN_UNTIL(fx->event, false, 40 * USEC_PER_MSEC);
        assert_int_equal(agent_state(fx->agent), AGENT_READY);
}

static void test_second_connection_is_not_served(void **state)
{
        struct fixture *fx = *state;

        /* QEMU leaves a second connection in the backlog: connect() succeeds and nothing more happens. */
        start_fake(fx, "wait 100000");
        start_agent(fx, 10 * USEC_PER_MSEC);
        RUN_UNTIL(fx, agent_state(fx->agent) == AGENT_WAITING);
        FAKE_RUN_UNTIL(fx->event, fx->last_state == AGENT_ABSENT, 100 * USEC_PER_MSEC);
        assert_int_equal(fx->n_states[AGENT_READY], 0);
        assert_int_equal(fake_n_received(fx->fake), 0);
}

static void test_agent_restart_in_mid_call(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_ready(fx, "expect offline @a\nhello {\"nonce\":\"ffffffffffffffff\"}\n"
                        "expect welcome {\"nonce\":\"ffffffffffffffff\"}\n"
                        "reply @a\nexpect get-state\nreply\n");
        call(fx, OP_OFFLINE, &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_AGENT_RESTARTED);
        RUN_UNTIL(fx, fx->n_states[AGENT_READY] == 2); /* READY -> READY is announced */
        call(fx, OP_GET_STATE, &r);
        RUN_UNTIL(fx, r.n == 2);
        assert_int_equal(r.code, ERROR_NONE);
        /* The new session's late reply to the old session's request was no answer. */
        assert_int_equal(agent_counters(fx->agent).n_late_replies, 1);
}

static void test_guest_reset_in_mid_call(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_ready(fx, "expect offline\nhalf reply\n"
                        "hello {\"boot_id\":\"22222222-2222-2222-2222-222222222222\"}\nexpect welcome\n");
        call(fx, OP_OFFLINE, &r);
        RUN_SCRIPT(fx);
        assert_int_equal(r.n, 1);
        assert_int_equal(r.code, ERROR_GUEST_RESET);
        assert_int_equal(agent_state(fx->agent), AGENT_READY);
        assert_int_equal(agent_counters(fx->agent).n_garbage, 0);
        assert_string_equal(agent_hello(fx->agent)->boot_id, "22222222-2222-2222-2222-222222222222");
}

static void test_too_old_in_mid_session(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_ready(fx, "expect offline\nhello {\"version\":9,\"version_min\":9}\nexpect refuse\n");
        call(fx, OP_OFFLINE, &r);
        RUN_SCRIPT(fx);
        assert_int_equal(r.code, ERROR_AGENT_RESTARTED);
        assert_int_equal(agent_state(fx->agent), AGENT_TOO_OLD);
        assert_int_equal(try_call(fx, &r), -ENOTCONN);
}

static void test_port_closed(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_ready(fx, "expect offline @a\n");
        call(fx, OP_OFFLINE, &r);
        RUN_SCRIPT(fx);
        agent_set_port_open(fx->agent, true); /* nothing new in a session */
        assert_int_equal(agent_state(fx->agent), AGENT_READY);
        agent_set_port_open(fx->agent, false);
        assert_int_equal(r.n, 1);
        assert_int_equal(r.code, ERROR_AGENT_RESTARTED);
        assert_int_equal(agent_state(fx->agent), AGENT_WAITING);
        assert_int_equal(try_call(fx, &r), -ENOTCONN);

        /* Not a byte until the next hello, over the same connection. */
        fake_append(fx->fake, "reply @a\nquiet 20\nhello\nexpect welcome\n");
        agent_set_port_open(fx->agent, true);
        RUN_SCRIPT(fx);
        assert_int_equal(agent_state(fx->agent), AGENT_READY);
        assert_int_equal(agent_counters(fx->agent).n_stale, 1);
        assert_int_equal(fx->n_states[AGENT_WAITING], 2);
        assert_int_equal(r.n, 1);
}

static void test_port_opened_in_a_pause(void **state)
{
        static const struct agent_limits limits = { 10 * USEC_PER_MSEC, 1000, 1000, 10 * USEC_PER_MSEC,
                3600 * USEC_PER_SEC, USEC_PER_SEC };
        struct fixture *fx = *state;

        start_fake(fx, "accept\nexpect-close\naccept\nexpect-close\n");
        start_agent(fx, 10 * USEC_PER_MSEC);
        agent_set_limits(fx->agent, &limits);
        RUN_SCRIPT(fx);
        /* Each pause is twice the one before: soon one is beyond the test's patience, and ends all the same.
         */
        do
                fake_append(fx->fake, "accept\nexpect-close\n");
        while (FAKE_RUN_UNTIL(fx->event, fake_finished(fx->fake), 100 * USEC_PER_MSEC));
        fake_append(fx->fake, "begin");
        agent_set_port_open(fx->agent, true);
        RUN_UNTIL(fx, agent_state(fx->agent) == AGENT_READY);
}

static void test_socket_closed_in_mid_call(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_ready(fx, "expect offline\nhalf reply\nclose\nbegin\n");
        call(fx, OP_OFFLINE, &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_AGENT_ABSENT);
        RUN_UNTIL(fx, agent_state(fx->agent) == AGENT_READY);
        assert_int_equal(fx->n_states[AGENT_ABSENT], 1);
        assert_int_equal(agent_counters(fx->agent).n_garbage, 0); /* the half line went with its connection */
        RUN_SCRIPT(fx);
}

static void test_peer_gone_at_write(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_ready(fx, "");
        RUN_SCRIPT(fx);
        fx->fake = fake_free(fx->fake);
        call(fx, OP_GET_STATE, &r); /* completes from the loop, not from inside */
        assert_int_equal(r.n, 0);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_AGENT_ABSENT);
        assert_int_equal(agent_state(fx->agent), AGENT_ABSENT);
}

static void call_at_once(struct fixture *fx)
{
        static struct record r;

        r = (struct record) { 0 };
        call(fx, OP_GET_STATE, &r);
}

static void free_other(struct record *r)
{
        r->other = agent_call_free(r->other);
        if (agent_state(r->fx->agent) != AGENT_READY)
                assert_int_equal(try_call(r->fx, r), -ENOTCONN);
}

static void test_callbacks_act(void **state)
{
        struct fixture *fx = *state;
        struct record a = { .then = free_other }, b = { 0 }, c = { 0 };

        fx->on_ready = call_at_once;
        start(fx, "begin\nexpect get-state\nreply\nexpect get-state @a\nexpect get-state @b\nreply @a\nreply "
                  "@b\n");
        RUN_UNTIL(fx, agent_state(fx->agent) == AGENT_READY);
        call(fx, OP_GET_STATE, &a);
        a.other = call(fx, OP_GET_STATE, &b);
        RUN_UNTIL(fx, agent_counters(fx->agent).n_late_replies == 1);
        assert_int_equal(a.n, 1);
        assert_int_equal(b.n, 0);

        fake_append(fx->fake,
                "repeat 2 nothing\nexpect get-state\nexpect get-state\nexpect get-state\nhello\n"
                "expect welcome\nexpect get-state\n");
        call(fx, OP_GET_STATE, &a);
        a.other = call(fx, OP_GET_STATE, &b);
        call(fx, OP_GET_STATE, &c);
        RUN_SCRIPT(fx);
        assert_int_equal(a.n, 2);
        assert_int_equal(b.n, 0);
        assert_int_equal(c.n, 1);
        assert_int_equal(c.code, ERROR_AGENT_RESTARTED);
}

static void test_limits(void **state)
{
        struct fixture *fx = *state;
        struct message_request bad = { .op = OP_OFFLINE };
        struct record r = { .fx = fx };

        start_ready(fx, "");
        assert_int_equal(agent_call(fx->agent, &bad, LIMIT_USEC, on_reply, NULL, &r, NULL, NULL), -EINVAL);
        for (unsigned i = 0; i < AGENT_CALLS_MAX; i++)
                assert_int_equal(try_call(fx, &r), 0);
        assert_int_equal(try_call(fx, &r), -EBUSY);
        fx->agent = agent_free(fx->agent);
        assert_int_equal(r.n, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_paths),
                TEST(test_absent_then_silent_then_there),
                TEST(test_request),
                TEST(test_failure),
                TEST(test_too_old),
                TEST(test_garbage),
                TEST(test_host_messages_are_garbage),
                TEST(test_oversized),
                TEST(test_stale_and_out_of_order),
                TEST(test_stale_before_hello),
                TEST(test_timeout_and_free),
                TEST(test_silence),
                TEST(test_second_connection_is_not_served),
                TEST(test_agent_restart_in_mid_call),
                TEST(test_guest_reset_in_mid_call),
                TEST(test_too_old_in_mid_session),
                TEST(test_port_closed),
                TEST(test_port_opened_in_a_pause),
                TEST(test_socket_closed_in_mid_call),
                TEST(test_peer_gone_at_write),
                TEST(test_callbacks_act),
                TEST(test_limits),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
