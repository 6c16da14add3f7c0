/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Samples, and guests that say more than anybody wants to hear. */

#include "agent-fixture.h"

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

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_flood),
                TEST(test_samples),
                TEST(test_many_samples),
                TEST(test_sample_flood),
                TEST(test_flood_is_throttled),
                TEST(test_hello_flood),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
