/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <sys/stat.h>

#include "common/json.h"
#include "hvd/policy-internal.h"
#include "hvd/policy-past.h"
#include "policy-replay.h"

/* The policy over a partition between a scripted QEMU and a scripted guest: what is asked of the guest, what
 * is decided on its samples, what becomes of that in each mode, and what is told and kept. */

#define SAMPLED(available)                                                                                   \
        "'sample':{'cause':'asked','total_bytes':1G,'available_bytes':" available                            \
        ",'free_bytes':128M,'movable_bytes':0,'movable_free_bytes':0,'movable_cache_bytes':0,"               \
        "'margin_bytes':1,'refault_file_bytes':0,'refault_anon_bytes':0,'swap_in_bytes':0,"                  \
        "'swap_out_bytes':0}"
#define TOLD "on sample {'interval_msec':1000} reply {" SAMPLED("800M") "}\n"
#define STOP "expect sample {'interval_msec':0}\nreply {" SAMPLED("800M") "}\n"
#define SAYS(cause, available)                                                                               \
        "send {'type':'event','event':'sample','sample':{'cause':'" cause                                    \
        "','total_bytes':1G,'available_bytes':" available ",'free_bytes':16M,'movable_bytes':0,"             \
        "'movable_free_bytes':0,'movable_cache_bytes':0,'margin_bytes':1,'refault_file_bytes':0,"            \
        "'refault_anon_bytes':0,'swap_in_bytes':0,'swap_out_bytes':0}}\n"
#define SAYS_ANYTHING(available) SAYS("pressure", available)

/* --- a host of its own --- */

static void write_proc(struct fixture *fx, const char *name, const char *text)
{
        char path[96];

        snprintf(path, sizeof(path), "%s/proc/%s", fx->dir, name);
        FILE *f = fopen(path, "we");
        assert_non_null(f);
        fputs(text, f);
        fclose(f);
}

static struct policy_runner *begin(struct fixture *fx)
{
        struct policy_runner *r = NULL;
        struct error error = { 0 };
        char path[64];

        snprintf(path, sizeof(path), "%s/proc", fx->dir);
        mkdir(path, 0700);
        snprintf(path, sizeof(path), "%s/proc/pressure", fx->dir);
        mkdir(path, 0700);
        write_proc(fx, "meminfo", "MemTotal: 1073741824 kB\nMemAvailable: 1073741824 kB\n");
        write_proc(fx, "pressure/memory",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 total=0\n");
        snprintf(path, sizeof(path), "%s/proc", fx->dir);
        assert_int_equal(policy_runner_new(fx->manager, path, &r, &error), 0);
        return r;
}

static void end(struct fixture *fx, struct policy_runner *r)
{
        static const char *const names[] = { "pressure/memory", "pressure", "meminfo", "" };
        char path[96];

        policy_runner_free(r);
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                snprintf(path, sizeof(path), "%s/proc/%s", fx->dir, names[i]);
                remove(path);
        }
}

static void set_mode(struct policy_runner *r, enum policy_mode mode)
{
        struct error error;

        assert_int_equal(policy_runner_set_mode(r, mode, &error), 0);
}

static uint64_t decided(const struct policy_runner *r)
{
        return r->round.input.now_usec;
}

/* --- what is stored --- */

static struct json_object *explain(struct policy_runner *r, struct partition *p)
{
        _cleanup_free_ char *text = NULL;
        struct json_object *o = NULL;

        assert_int_equal(policy_runner_explain(r, p, &text), 0);
        assert_int_equal(json_parse(text, strlen(text), &o), 0);
        return o;
}

static const char *string_of(struct json_object *o, const char *key)
{
        const char *s;

        return json_get_string(o, key, &s) < 0 ? "(none)" : s;
}

/* What the store has of it says what was said when it was made. */
static void check_past(struct fixture *fx, uint64_t id)
{
        _cleanup_json_ struct json_object *o = NULL;
        struct json_object *decision, *input, *array;
        _cleanup_free_ char *text = NULL;
        struct error error = { 0 };
        uint64_t seen_id;

        if (policy_explain_past(manager_store(fx->manager), id, &text, &error) < 0)
                fail_msg("%s", error.message);
        assert_int_equal(json_parse(text, strlen(text), &o), 0);
        assert_int_equal(json_get_u64(o, "id", UINT64_MAX, &seen_id), 0);
        assert_int_equal(seen_id, id);
        assert_string_equal(string_of(o, "partition"), "web1");
        assert_string_equal(string_of(o, "mode"), "observe");
        assert_string_equal(string_of(o, "outcome"), "only observed");
        assert_non_null(strstr(string_of(o, "text"), "it stalls for memory"));
        assert_int_equal(json_get_object(o, "decision", &decision), 0);
        assert_string_equal(string_of(decision, "cause"), "pressure");
        assert_int_equal(json_get_object(o, "input", &input), 0);
        assert_int_equal(json_get_array(input, "partitions", &array), 0);
        assert_int_equal(json_object_array_length(array), 1);
        assert_string_equal(string_of(json_object_array_get_idx(array, 0), "name"), "web1");

        free(steal_pointer(text));
        assert_int_equal(policy_explain_past(manager_store(fx->manager), id + 1, &text, &error), -ENOENT);
        assert_int_equal(error.code, ERROR_INVALID_ARGUMENT);
}

/* --- tests --- */

/* By default it decides, tells and stores, and does nothing. */
static void test_observe(void **state)
{
        struct fixture *fx = *state;
        struct json_object *decision;

        start_with_samples(fx, "", TOLD "on get-state reply {" MEMORY("1G", "0", "800M") "}\n");
        struct policy_runner *r = begin(fx);
        assert_int_equal(policy_runner_mode(r), POLICY_MODE_OBSERVE);
        RUN_UNTIL(fx, fx->p->policy.history.used_usec > 0);
        assert_int_equal(r->round.decisions[0].action, POLICY_KEEP);

        script(fx->guest, SAYS("pressure", "32M"));
        RUN_UNTIL(fx, r->round.decisions[0].action == POLICY_GROW);
        assert_int_equal(r->round.decisions[0].cause, POLICY_RULE_PRESSURE);
        assert_int_equal(policy_runner_wanted_bytes(r, fx->p), r->round.decisions[0].want_bytes);
        assert_true(policy_runner_wanted_bytes(r, fx->p) > GIB);
        assert_int_equal(policy_runner_wanted_bytes(NULL, fx->p), 0);
        assert_int_equal(fx->n_added, 0);
        assert_int_equal(fx->n_decided_grow, 1);
        assert_string_equal(fx->p->policy.outcome, "only observed");

        _cleanup_json_ struct json_object *o = explain(r, fx->p);
        assert_string_equal(string_of(o, "partition"), "web1");
        assert_string_equal(string_of(o, "mode"), "observe");
        assert_int_equal(json_get_object(o, "decision", &decision), 0);
        assert_non_null(strstr(string_of(o, "text"), "web1 grows by "));
        assert_non_null(strstr(string_of(o, "text"), "it stalls for memory"));

        struct seen_decisions seen = replay_decisions(fx);
        assert_true(seen.n >= 1);
        assert_int_equal(seen.n_grow, 1);
        assert_string_equal(seen.outcome, "only observed");
        assert_non_null(strstr(seen.decision, "\"cause\":\"pressure\""));
        check_past(fx, seen.id);
        finish(fx);
        end(fx, r);
}

/* What the same distress brings in the mode auto: a job; and when QEMU has no memory, not another one at
 * once. */
static void test_auto(void **state)
{
        struct fixture *fx = *state;

        start_with_samples(fx,
                "on object-add reply\non device_add error GenericError no such memory\non object-del reply\n",
                TOLD "on prepare reply\non get-state reply {" MEMORY("1G", "0", "800M") "}\n");
        struct policy_runner *r = begin(fx);
        set_mode(r, POLICY_MODE_AUTO);
        RUN_UNTIL(fx, fx->p->policy.history.used_usec > 0);
        assert_int_equal(fx->n_added, 0);

        script(fx->guest, SAYS("pressure", "32M"));
        RUN_UNTIL(fx, fx->n_added == 1);
        struct job *j = manager_next_job(fx->manager, NULL);
        assert_int_equal(j->request.kind, JOB_ADD_MEMORY);
        /* It uses 992 MiB, 512 for its rise and 256 of headroom come to 736 more, in whole granules. */
        assert_int_equal(j->request.bytes, 768 * MIB);
        RUN_UNTIL(fx, fx->n_ended == 1);
        assert_int_equal(j->state, JOB_FAILED);
        assert_int_equal(fx->p->policy.n_failures, 1);
        assert_int_equal(fx->p->policy.job, 0);
        assert_non_null(strstr(fx->p->policy.outcome, "FAILED"));
        struct seen_decisions seen = replay_decisions(fx);
        assert_int_equal(seen.n_grow, 1);
        assert_non_null(strstr(seen.outcome, "no such memory"));

        /* It was asked for a sample when the job ended. */
        RUN_UNTIL(fx, !fx->p->samples.call && partition_sample(fx->p)->available_bytes == 800 * MIB);
        script(fx->guest, SAYS("pressure", "16M"));
        RUN_UNTIL(fx, r->round.partitions[0].sample.available_bytes == 16 * MIB);
        assert_int_equal(fx->n_added, 1);
        assert_int_equal(r->round.decisions[0].bound, POLICY_RULE_FAILED);
        finish(fx);
        end(fx, r);
}

/* Off: no timer, and the guest is told to send nothing; a partition may be left alone by itself. */
static void test_off(void **state)
{
        struct fixture *fx = *state;
        struct error error;

        start_with_samples(fx, "", TOLD);
        struct policy_runner *r = begin(fx);
        RUN_UNTIL(fx, fx->p->policy.history.used_usec > 0);
        assert_int_not_equal(r->due_usec, 0);

        script(fx->guest, STOP);
        set_mode(r, POLICY_MODE_OFF);
        assert_int_equal(r->due_usec, 0);
        assert_int_equal(fx->p->samples.wanted.interval_msec, 0);
        assert_int_equal(policy_runner_partition_mode(r, fx->p), POLICY_MODE_OFF);
        assert_int_equal(policy_runner_set_partition_mode(r, fx->p, POLICY_MODE_AUTO, &error), 0);
        /* Off is for all. */
        assert_int_equal(policy_runner_partition_mode(r, fx->p), POLICY_MODE_OFF);
        RUN_UNTIL(fx, fake_finished(fx->guest) && !fx->p->samples.call);
        uint64_t before = decided(r);
        script(fx->guest, SAYS("pressure", "16M"));
        RUN_UNTIL(fx, fx->p->samples.cause == SAMPLE_PRESSURE);
        assert_int_equal(r->due_usec, 0);
        assert_int_equal(decided(r), before);
        _cleanup_json_ struct json_object *o = explain(r, fx->p);
        assert_non_null(strstr(string_of(o, "text"), "The policy is off"));

        set_mode(r, POLICY_MODE_OBSERVE);
        assert_int_equal(policy_runner_partition_mode(r, fx->p), POLICY_MODE_AUTO);
        assert_int_equal(policy_runner_set_partition_mode(r, fx->p, POLICY_MODE_INVALID, &error), 0);
        assert_int_equal(policy_runner_partition_mode(r, fx->p), POLICY_MODE_OBSERVE);
        RUN_UNTIL(fx, decided(r) > before);

        script(fx->guest, STOP);
        /* While it alone is off, nobody takes part, and nothing wakes hvd. */
        assert_int_equal(policy_runner_set_partition_mode(r, fx->p, POLICY_MODE_OFF, &error), 0);
        RUN_UNTIL(fx, r->due_usec == 0);
        assert_int_equal(policy_runner_mode(r), POLICY_MODE_OBSERVE);
        RUN_UNTIL(fx, !fx->p->samples.call);
        end(fx, r);

        /* What was set is kept. */
        r = begin(fx);
        assert_int_equal(policy_runner_partition_mode(r, fx->p), POLICY_MODE_OFF);
        assert_int_equal(policy_runner_mode(r), POLICY_MODE_OBSERVE);
        end(fx, r);
        finish(fx);
}

/* A guest that floods sets no rate, and one that claims more than it was given has no more. */
static void test_flood(void **state)
{
        struct fixture *fx = *state;
        uint64_t last = 0;
        unsigned n = 0;

        start_with_samples(fx, "", TOLD);
        struct policy_runner *r = begin(fx);
        RUN_UNTIL(fx, fx->p->policy.history.used_usec > 0);
        uint64_t from = now_monotonic_usec();
        for (unsigned i = 0; i < 40; i++) {
                script(fx->guest, i % 2 ? SAYS_ANYTHING("4G") : SAYS_ANYTHING("0"));
                RUN_UNTIL(fx, fake_finished(fx->guest));
                n += decided(r) != last;
                last = decided(r);
                assert_true(partition_sample(fx->p)->available_bytes <= GIB);
        }
        assert_true(n <= (now_monotonic_usec() - from) / (100 * USEC_PER_MSEC) + 2);
        assert_int_equal(fx->n_added, 0);
        finish(fx);
        end(fx, r);
}

/* What the host has not got is not given, whatever pool_total says; and its own stalls are counted. */
static void test_host(void **state)
{
        struct fixture *fx = *state;

        start_with_samples(fx, "", TOLD);
        struct policy_runner *r = begin(fx);
        RUN_UNTIL(fx, fx->p->policy.history.used_usec > 0);
        assert_int_equal(r->round.input.pool.total_bytes, 1024 * GIB);
        assert_int_equal(r->round.input.pool.reserve_bytes, 0);
        assert_int_equal(r->round.input.pool.host_some_permille, 0);

        write_proc(fx, "meminfo", "MemTotal: 1073741824 kB\nMemAvailable: 1048576 kB\n");
        write_proc(fx, "pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=600000\n");
        RUN_UNTIL(fx, r->round.input.pool.host_some_permille > 0);
        /* Of 1023 GiB that are free in the pool the host has one. */
        assert_int_equal(r->round.input.pool.reserve_bytes, 1022 * GIB);
        assert_in_range(r->round.input.pool.host_some_permille, 1, 600);
        finish(fx);
        end(fx, r);
}

static void write_process(struct fixture *fx, unsigned start)
{
        char name[32], text[256];

        snprintf(name, sizeof(name), "%d", getpid());
        snprintf(text, sizeof(text), "%s/proc/%s", fx->dir, name);
        mkdir(text, 0700);
        snprintf(name, sizeof(name), "%d/stat", getpid());
        snprintf(text, sizeof(text), "%d (x) y) S 1 1 1 0 -1 4 1 1 1 1 1 1 1 1 20 0 3 0 %u 99\n", getpid(),
                start);
        write_proc(fx, name, text);
        snprintf(name, sizeof(name), "%d/status", getpid());
        write_proc(fx, name,
                "Name:\tqemu-system-x86\nVmData:\t 2097152 kB\nVmRSS:\t  163840 kB\n"
                "VmSwap:\t   40960 kB\nHugetlbPages:\t 0 kB\n");
}

static void remove_process(struct fixture *fx)
{
        static const char *const names[] = { "/stat", "/status", "" };
        char path[96];

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                snprintf(path, sizeof(path), "%s/proc/%d%s", fx->dir, getpid(), names[i]);
                assert_int_equal(remove(path), 0);
        }
}

/* A guest whose QEMU never touched three quarters of its memory claims to use it all, and to stall: it keeps
 * nothing by that. Without such an account it would be believed, as one is whose QEMU is another one now. */
static void test_idle_liar(void **state)
{
        struct fixture *fx = *state;

        start_with_samples(fx, "", TOLD);
        struct policy_runner *r = begin(fx);
        write_process(fx, 1234);
        RUN_UNTIL(fx, fx->p->policy.history.used_usec > 0);
        script(fx->guest, SAYS("pressure", "16M"));
        RUN_UNTIL(fx, r->round.partitions[0].sample.available_bytes == 16 * MIB);
        assert_true(r->round.partitions[0].has_resident);
        assert_int_equal(r->round.partitions[0].resident_bytes, 200 * MIB);
        assert_int_equal(r->round.decisions[0].used_bytes, 200 * MIB);
        assert_int_not_equal(r->round.decisions[0].action, POLICY_GROW);
        assert_true(r->round.decisions[0].want_bytes <= 512 * MIB);

        write_process(fx, 1235);
        script(fx->guest, SAYS("pressure", "12M"));
        RUN_UNTIL(fx, r->round.partitions[0].sample.available_bytes == 12 * MIB);
        assert_false(r->round.partitions[0].has_resident);
        assert_int_equal(r->round.decisions[0].action, POLICY_GROW);
        finish(fx);
        remove_process(fx);
        end(fx, r);
}

/* A refusal is the guest's; what QEMU or an operator prevented is not. */
static void test_results(void **state)
{
        static const struct {
                enum policy_action action;
                uint64_t done_bytes;
                enum job_state state;
                enum job_stop stop;
                enum error_code code;
                uint64_t n_refusals;
                unsigned n_failures;
        } cases[] = {
                { POLICY_SHRINK, 128 * MIB, JOB_PARTIAL, JOB_STOP_NO, ERROR_BLOCK_BUSY, 0, 0 },
                { POLICY_SHRINK, 0, JOB_FAILED, JOB_STOP_NO, ERROR_BLOCK_BUSY, 2, 0 },
                { POLICY_SHRINK, 0, JOB_FAILED, JOB_STOP_DEADLINE, ERROR_DEADLINE, 2, 0 },
                { POLICY_SHRINK, 0, JOB_CANCELLED, JOB_STOP_CANCEL, ERROR_CANCELLED, 1, 0 },
                { POLICY_SHRINK, 0, JOB_FAILED, JOB_STOP_NO, ERROR_HYPERVISOR_ABSENT, 1, 0 },
                { POLICY_GROW, 0, JOB_FAILED, JOB_STOP_NO, ERROR_NO_SLOTS, 1, 1 },
                { POLICY_GROW, 128 * MIB, JOB_DONE, JOB_STOP_NO, ERROR_NONE, 1, 0 },
        };
        struct fixture *fx = *state;

        start_with_samples(fx, "", TOLD);
        struct policy_runner *r = begin(fx);
        RUN_UNTIL(fx, fx->p->policy.history.used_usec > 0);
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct job_reason reason = { .error = { .code = cases[i].code, .message = "why" } };
                struct job j = {
                        .id = 7,
                        .request.bytes = 128 * MIB,
                        .state = cases[i].state,
                        .stop = cases[i].stop,
                        .done_bytes = cases[i].done_bytes,
                        .reasons = &reason,
                        .n_reasons = cases[i].code != ERROR_NONE,
                };

                fx->p->policy.history.n_refusals = 1;
                fx->p->policy.n_failures = 0;
                fx->p->policy.job = 7;
                fx->p->policy.action = cases[i].action;
                policy_take_result(r, fx->p, &j);
                assert_int_equal(fx->p->policy.job, 0);
                assert_int_equal(fx->p->policy.history.n_refusals, cases[i].n_refusals);
                assert_int_equal(fx->p->policy.n_failures, cases[i].n_failures);
        }
        finish(fx);
        end(fx, r);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TEST(test_observe),
                TEST(test_auto),
                TEST(test_off),
                TEST(test_flood),
                TEST(test_host),
                TEST(test_idle_liar),
                TEST(test_results),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
