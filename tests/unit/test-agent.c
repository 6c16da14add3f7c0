/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "hvd/agent/agent.h"
#include "hvd/agent/limits.h"
#include "tests/fakes/fake-guest.h"

#define LIMIT_USEC (20 * USEC_PER_SEC)

struct fixture {
        sd_event *event;
        char dir[32], socket[64];
        struct fake *fake;
        struct agent *agent;
        unsigned n_states[AGENT_STATE_MAX], n_events, n_samples;
        struct guest_sample sample;
        enum agent_state last_state;
        void (*on_ready)(struct fixture *fx);
};

/* What a call came to. */
struct record {
        struct fixture *fx;
        unsigned n, n_progress;
        enum error_code code;
        char text[ERROR_MESSAGE_MAX];
        enum op op;
        uint64_t total_bytes, done_bytes, available_bytes;
        void (*then)(struct record *r);
        struct agent_call *other;
};

#define RUN_UNTIL(fx, condition)                                                                             \
        do {                                                                                                 \
                if (!FAKE_RUN_UNTIL((fx)->event, condition, LIMIT_USEC))                                     \
                        fail_msg("never: %s; state: %s; fake: %s", #condition,                               \
                                agent_state_to_string(agent_state((fx)->agent)),                             \
                                (fx)->fake ? fake_complaint((fx)->fake) ?: "finished" : "none");             \
        } while (0)

#define RUN_SCRIPT(fx)                                                                                       \
        do {                                                                                                 \
                RUN_UNTIL(fx, fake_finished((fx)->fake) || fake_failed((fx)->fake));                         \
                if (fake_failed((fx)->fake))                                                                 \
                        fail_msg("%s", fake_complaint((fx)->fake));                                          \
        } while (0)

static void on_state(struct agent *a, enum agent_state state, void *userdata)
{
        struct fixture *fx = userdata;

        assert_int_equal(agent_state(a), state);
        fx->n_states[state]++;
        fx->last_state = state;
        if (state == AGENT_READY) {
                assert_non_null(agent_hello(a));
                if (fx->on_ready)
                        fx->on_ready(fx);
        }
}

static void on_event(struct agent *a, enum event_type event, void *userdata)
{
        struct fixture *fx = userdata;

        assert_int_equal(event, EVENT_BLOCKS_CHANGED);
        fx->n_events++;
}

static void on_sample(struct agent *a, const struct guest_sample *sample, void *userdata)
{
        struct fixture *fx = userdata;

        fx->sample = *sample;
        fx->n_samples++;
}

static void on_reply(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct record *r = userdata;

        assert_true(!reply != !error);
        r->n++;
        r->code = error ? error->code : ERROR_NONE;
        snprintf(r->text, sizeof(r->text), "%s", error ? error->message : "");
        if (reply) {
                r->op = reply->op;
                r->available_bytes = reply->memory.available_bytes;
        }
        if (r->then)
                r->then(r);
}

static void on_progress(uint64_t done_bytes, uint64_t total_bytes, void *userdata)
{
        struct record *r = userdata;

        r->n_progress++;
        r->done_bytes = done_bytes;
        r->total_bytes = total_bytes;
}

static int setup(void **state)
{
        struct fixture *fx = calloc(1, sizeof(*fx));

        strcpy(fx->dir, "/tmp/test-agent-XXXXXX");
        assert_non_null(mkdtemp(fx->dir));
        snprintf(fx->socket, sizeof(fx->socket), "%s/channel", fx->dir);
        assert_int_equal(sd_event_new(&fx->event), 0);
        *state = fx;
        return 0;
}

static int teardown(void **state)
{
        struct fixture *fx = *state;

        agent_free(fx->agent);
        fake_free(fx->fake);
        sd_event_unref(fx->event);
        rmdir(fx->dir);
        free(fx);
        return 0;
}

static void start_agent(struct fixture *fx, uint64_t hello_usec)
{
        static const struct agent_handlers handlers = { on_state, on_event, on_sample };
        struct agent_limits limits = {
                .hello_usec = hello_usec,
                .absent_min_usec = 2 * USEC_PER_MSEC,
                .absent_max_usec = 10 * USEC_PER_MSEC,
                .silent_min_usec = 20 * USEC_PER_MSEC,
                .silent_max_usec = 40 * USEC_PER_MSEC,
                .shun_usec = 30 * USEC_PER_MSEC,
        };

        assert_int_equal(agent_new(fx->event, fx->socket, &handlers, fx, &fx->agent), 0);
        agent_set_limits(fx->agent, &limits);
}

static void start_fake(struct fixture *fx, const char *script)
{
        assert_int_equal(fake_guest_new(fx->event, fx->socket, script, &fx->fake), 0);
}

static void start(struct fixture *fx, const char *script)
{
        start_fake(fx, script);
        start_agent(fx, LIMIT_USEC);
}

static void start_ready(struct fixture *fx, const char *script)
{
        start(fx, "begin");
        fake_append(fx->fake, script);
        RUN_UNTIL(fx, agent_state(fx->agent) == AGENT_READY);
}

static struct agent_call *call(struct fixture *fx, enum op op, struct record *r)
{
        static struct mem_range target = { 4 * GIB, 128 * MIB };
        struct message_request request = { .op = op };
        struct agent_call *handle = NULL;

        if (op == OP_OFFLINE) {
                request.targets = &target;
                request.n_targets = 1;
                request.deadline_msec = 5000;
                request.attempt_msec = 1000;
        }
        r->fx = fx;
        assert_int_equal(
                agent_call(fx->agent, &request, LIMIT_USEC, on_reply, on_progress, r, &handle, NULL), 0);
        return handle;
}

static int try_call(struct fixture *fx, struct record *r)
{
        struct message_request request = { .op = OP_GET_STATE };
        return agent_call(fx->agent, &request, LIMIT_USEC, on_reply, NULL, r, NULL, NULL);
}

static void assert_explained(struct fixture *fx, enum error_code code, const char *part)
{
        struct error error;

        agent_explain(fx->agent, &error);
        assert_int_equal(error.code, code);
        if (!strstr(error.message, part))
                fail_msg("'%s' is not in '%s'", part, error.message);
}

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

static void test_flood(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };
        unsigned most = 0;

        start_ready(fx, "expect get-state\nrepeat 8000 event blocks-changed\nreply\n");
        call(fx, OP_GET_STATE, &r);
        for (uint64_t end = now_monotonic_usec() + LIMIT_USEC; r.n == 0 && now_monotonic_usec() < end;) {
                unsigned before = fx->n_events;

                assert_true(sd_event_run(fx->event, LIMIT_USEC) >= 0);
                most = MAX(most, fx->n_events - before);
        }
        assert_int_equal(r.n, 1);
        assert_int_equal(fx->n_events, 8000);
        /* One wake-up is one read; an event is more than 64 bytes. */
        assert_in_range(most, 2, AGENT_READ_MAX / 64);
}

#define SAMPLE(cause)                                                                                        \
        "{\"type\":\"event\",\"event\":\"sample\",\"sample\":{\"cause\":\"" cause                            \
        "\",\"total_bytes\":1073741824,\"available_bytes\":52428800,\"free_bytes\":41943040,"                \
        "\"movable_bytes\":0,\"movable_free_bytes\":0,\"movable_cache_bytes\":0,\"margin_bytes\":1,"         \
        "\"refault_file_bytes\":2,\"refault_anon_bytes\":3,\"swap_in_bytes\":4,\"swap_out_bytes\":5}}"

static void test_samples(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_ready(
                fx, "expect get-state\nsend " SAMPLE("headroom") "\nsend " SAMPLE("pressure") "\nreply\n");
        call(fx, OP_GET_STATE, &r);
        RUN_UNTIL(fx, r.n == 1);
        RUN_SCRIPT(fx);
        assert_int_equal(fx->n_events, 0);
        assert_int_equal(fx->n_samples, 2);
        assert_int_equal(fx->sample.cause, SAMPLE_PRESSURE);
        assert_int_equal(fx->sample.available_bytes, 52428800);
        assert_false(fx->sample.has_pressure);
        assert_int_equal(agent_counters(fx->agent).n_samples_dropped, 0);
}

/* What comes too often is dropped and counted, whatever it holds, and other words are heard between. */
static void test_many_samples(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };
        uint64_t before = now_monotonic_usec();

        start_ready(fx, "expect get-state\nrepeat 100 send " SAMPLE("change"));
        fake_append(fx->fake,
                "repeat 500 send {\"type\":\"event\",\"event\":\"sample\"}\nevent blocks-changed\nreply\n");
        call(fx, OP_GET_STATE, &r);
        RUN_UNTIL(fx, r.n == 1);
        unsigned most =
                AGENT_SAMPLES_MAX + 1 + (unsigned)((now_monotonic_usec() - before) / AGENT_SAMPLE_USEC);
        assert_in_range(fx->n_samples, AGENT_SAMPLES_MAX, most);
        assert_int_equal(fx->n_events, 1);
        /* A sample without content is garbage to who reads it. */
        assert_in_range(agent_counters(fx->agent).n_garbage, 0, most);
        assert_int_equal(agent_counters(fx->agent).n_samples_dropped + fx->n_samples +
                                 agent_counters(fx->agent).n_garbage,
                600);
        assert_int_equal(agent_state(fx->agent), AGENT_READY);
}

static void test_sample_flood(void **state)
{
        struct fixture *fx = *state;

        start_ready(fx, "expect get-state\nrepeat 20000 send " SAMPLE("pressure") "\nexpect-close\n");
        struct record r = { 0 };
        call(fx, OP_GET_STATE, &r);
        RUN_UNTIL(fx, agent_state(fx->agent) == AGENT_MISBEHAVING);
        assert_explained(fx, ERROR_AGENT_MISBEHAVED, "samples without end");
        assert_int_equal(r.n, 1);
        assert_int_equal(r.code, ERROR_AGENT_MISBEHAVED);
        assert_true(agent_counters(fx->agent).n_samples_dropped > AGENT_SAMPLES_FLOOD);
        assert_true(agent_counters(fx->agent).n_samples_dropped < 20000);
}

/* What is beyond the budget waits, and nothing of it is lost; a new connection has no more of it. */
static void test_flood_is_throttled(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };
        struct agent_limits limits = {
                .hello_usec = 30 * USEC_PER_SEC,
                .absent_min_usec = 1000,
                .absent_max_usec = 1000,
                .bytes_burst = 100000,
                .bytes_per_sec = 10000,
        };

        /* An event is 70 bytes, and a wake-up at least one of 256: 107000 bytes count before the last one. */
        start_ready(fx, "expect get-state\nrepeat 1500 event blocks-changed\nclose\nbegin\nexpect "
                        "get-state\nreply\n");
        agent_set_limits(fx->agent, &limits);
        uint64_t begin = now_monotonic_usec();
        call(fx, OP_GET_STATE, &r);
        RUN_UNTIL(fx, fx->n_events > 0 && agent_is_paused(fx->agent));
        RUN_UNTIL(fx, fx->n_states[AGENT_READY] == 2);
        assert_int_equal(fx->n_events, 1500);
        assert_true(now_monotonic_usec() - begin > 7000 * USEC_PER_SEC / 10000);
        r = (struct record) { 0 };
        call(fx, OP_GET_STATE, &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_NONE);
        RUN_SCRIPT(fx);
}

static void test_hello_flood(void **state)
{
        struct fixture *fx = *state;

        start(fx, "accept\nrepeat 11 hello\non welcome nothing\nexpect-close\n");
        RUN_UNTIL(fx, agent_state(fx->agent) == AGENT_MISBEHAVING);
        assert_int_equal(fx->n_states[AGENT_READY], 10);
        assert_explained(fx, ERROR_AGENT_MISBEHAVED, "hello");
        RUN_SCRIPT(fx);
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
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
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
                TEST(test_flood),
                TEST(test_samples),
                TEST(test_many_samples),
                TEST(test_sample_flood),
                TEST(test_flood_is_throttled),
                TEST(test_hello_flood),
                TEST(test_callbacks_act),
                TEST(test_limits),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
