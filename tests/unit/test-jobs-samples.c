/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

/* When a guest is told to send samples, and what becomes of those that it sends. */

#define TOLD                                                                                                 \
        "expect sample {'interval_msec':1000,'interval_max_msec':8000,'stall_msec':50,'window_msec':500,"    \
        "'headroom_bytes':268435456}\nreply\n"
#define SAID(cause, available)                                                                               \
        "send {'type':'event','event':'sample','sample':{'cause':'" cause                                    \
        "','total_bytes':1G,'available_bytes':" available ",'free_bytes':128M,'movable_bytes':0,"            \
        "'movable_free_bytes':0,'movable_cache_bytes':0,'margin_bytes':1,'refault_file_bytes':0,"            \
        "'refault_anon_bytes':0,'swap_in_bytes':0,'swap_out_bytes':0}}\n"

static const struct sampling wanted = { 1000, 8000, 50, 500, 256 * MIB };

struct sampled {
        unsigned n;
        struct partition *p;
        enum sample_cause cause;
};

static void on_sampled(struct partition *p, enum sample_cause cause, void *userdata)
{
        struct sampled *s = userdata;

        s->n++;
        s->p = p;
        s->cause = cause;
}

static void test_told_and_taken(void **state)
{
        struct fixture *fx = *state;
        struct sampled seen = { 0 };

        start_with_samples(fx, "", "on get-state reply {" MEMORY("1G", "0", "512M") "}\n");
        manager_set_sampled(fx->manager, on_sampled, &seen);
        assert_int_equal(partition_sample(fx->p)->taken_usec, 0);

        uint64_t before = now_monotonic_usec();
        script(fx->guest, TOLD);
        partition_set_sampling(fx->p, &wanted);
        RUN_UNTIL(fx, seen.n == 1);
        assert_ptr_equal(seen.p, fx->p);
        assert_int_equal(seen.cause, SAMPLE_ASKED);
        assert_true(fx->p->samples.is_watched);
        assert_int_equal(partition_sample(fx->p)->available_bytes, 800 * MIB);
        assert_in_range(partition_sample(fx->p)->taken_usec, before, now_monotonic_usec());
        assert_int_equal(fx->p->memory.available_bytes, 800 * MIB);

        /* The same again costs nothing: a request would fail the guest. */
        partition_set_sampling(fx->p, &wanted);
        script(fx->guest, SAID("pressure", "64M"));
        RUN_UNTIL(fx, seen.n == 2);
        assert_int_equal(seen.cause, SAMPLE_PRESSURE);
        assert_int_equal(partition_sample(fx->p)->available_bytes, 64 * MIB);
        /* A guest may say what it will: it has no more than the host gave it. */
        script(fx->guest, SAID("change", "4G"));
        RUN_UNTIL(fx, seen.n == 3);
        assert_int_equal(partition_sample(fx->p)->available_bytes, GIB);

        /* One more, at once. */
        script(fx->guest, TOLD);
        assert_int_equal(partition_ask_sample(fx->p), 0);
        assert_int_equal(partition_ask_sample(fx->p), 0); /* behind the first */
        script(fx->guest, TOLD);
        RUN_UNTIL(fx, seen.n == 5);

        script(fx->guest, "expect sample {'interval_msec':0}\nreply\n");
        partition_set_sampling(fx->p, &(struct sampling) { 0 });
        RUN_UNTIL(fx, seen.n == 6);
        manager_set_sampled(fx->manager, NULL, NULL);
        finish(fx);
}

/* What is wanted outlives a session, and the sample does, too: its time says how old it is. */
static void test_sessions(void **state)
{
        struct fixture *fx = *state;
        struct sampled seen = { 0 };

        start_with_samples(fx, "", "");
        manager_set_sampled(fx->manager, on_sampled, &seen);
        script(fx->guest, TOLD);
        partition_set_sampling(fx->p, &wanted);
        RUN_UNTIL(fx, seen.n == 1);
        uint64_t taken_usec = partition_sample(fx->p)->taken_usec;
        script(fx->guest, HELLO_OF_SAMPLES TOLD);
        RUN_UNTIL(fx, seen.n == 2);
        assert_true(partition_sample(fx->p)->taken_usec > taken_usec);

        /* A guest that knows no samples is not told. */
        script(fx->guest, "hello\nexpect welcome\n");
        RUN_UNTIL(fx, fake_finished(fx->guest) && agent_state(fx->p->agent) == AGENT_READY);
        assert_int_equal(partition_ask_sample(fx->p), -EOPNOTSUPP);
        partition_set_sampling(fx->p, &wanted);
        assert_int_equal(seen.n, 2);
        manager_set_sampled(fx->manager, NULL, NULL);
        finish(fx);
}

/* A guest that fails to answer is told again when the host next says what it wants; what is wanted while it
 * has not answered is told behind that. */
static void test_failures(void **state)
{
        struct fixture *fx = *state;
        struct sampled seen = { 0 };

        start_with_samples(fx, "", "");
        manager_set_sampled(fx->manager, on_sampled, &seen);
        script(fx->guest, "expect sample\nfailure internal No meminfo\n");
        partition_set_sampling(fx->p, &wanted);
        RUN_UNTIL(fx, fake_finished(fx->guest) && !fx->p->samples.call);
        assert_int_equal(seen.n, 0);
        script(fx->guest, TOLD);
        partition_set_sampling(fx->p, &wanted);
        partition_set_sampling(fx->p, &(struct sampling) { .interval_msec = 0, .window_msec = 1000 });
        script(fx->guest, "expect sample {'interval_msec':0}\nreply\n");
        RUN_UNTIL(fx, seen.n == 2);
        manager_set_sampled(fx->manager, NULL, NULL);
        finish(fx);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_told_and_taken),
                TEST(test_sessions),
                TEST(test_failures),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
