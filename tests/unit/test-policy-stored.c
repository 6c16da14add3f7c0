/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the store has of the policy: decisions come out the same again, and what was recorded is a trace. */

#include "common/json.h"
#include "hvd/policy-internal.h"
#include "hvd/policy/json.h"
#include "hvd/recording.h"
#include "hvd/sim/replay.h"
#include "hvd/sim/trace.h"
#include "policy-replay.h"

static uint64_t next_random(uint64_t *state, uint64_t below)
{
        *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (*state >> 33) % below;
}

/* A host of four whose guests say one thing and another. */
static void make_up(struct policy_partition *p, size_t i, uint64_t now, uint64_t *random)
{
        uint64_t current = (8 + next_random(random, 24)) * 128 * MIB;

        *p = (struct policy_partition) {
                .mode = next_random(random, 8) ? POLICY_MODE_AUTO : POLICY_MODE_OBSERVE,
                .state = POLICY_RUNNING,
                .min_bytes = 512 * MIB,
                .desired_bytes = 2 * GIB,
                .max_bytes = 8 * GIB,
                .weight = 1 + (unsigned)next_random(random, 255),
                .current_bytes = current,
                .claimed_bytes = current,
                .granule_bytes = 128 * MIB,
                .sample = {
                        .taken_usec = now - next_random(random, 2 * USEC_PER_SEC),
                        .available_bytes = next_random(random, current),
                        .some_permille = next_random(random, 1000),
                        .refault_bytes_per_sec = next_random(random, GIB),
                        .has_removable = next_random(random, 2),
                        .removable_bytes = next_random(random, current),
                },
        };
        snprintf(p->name, sizeof(p->name), "web%zu", i);
}

static void put_foreign(struct store *s, uint64_t round, const char *partition)
{
        struct store_decision d = { .round = round,
                .partition = partition,
                .decision = "{\"partition\":\"web0\",\"action\":\"dance\"}",
                .text = "",
                .outcome = "" };
        struct error error;
        uint64_t id;

        assert_int_equal(store_decision_put(s, &d, &id, &error), 0);
}

/* As hvd-sim --replay does it: all come out as they were, and what does not is told. */
static void check_replay(struct store *s)
{
        struct replay_result result = { 0 };
        struct error error = { 0 };
        char *said = NULL;
        uint64_t round;
        size_t size;
        FILE *f = open_memstream(&said, &size);

        assert_non_null(f);
        assert_int_equal(replay_store(s, UINT16_MAX, f, &result, &error), 0);
        fflush(f);
        assert_string_equal(said, "");
        assert_int_equal(result.n, 160);
        assert_int_equal(result.n_same, 160);
        assert_int_equal(replay_store(s, 9, f, &result, &error), 0);
        assert_int_equal(result.n, 9);

        put_foreign(s, 40, "web0");
        put_foreign(s, 40, "web9");
        assert_int_equal(store_round_put(s, 1, "{\"now_usec\":1}", &round, &error), 0);
        put_foreign(s, round, "web0");
        assert_int_equal(store_round_put(s, 1, "{'", &round, &error), 0);
        put_foreign(s, round, "web0");
        assert_int_equal(replay_store(s, UINT16_MAX, f, &result, &error), 0);
        fclose(f);
        assert_int_equal(result.n, 164);
        assert_int_equal(result.n_same, 160);
        assert_non_null(strstr(
                said, "decision 161 of web0: was {\"partition\":\"web0\",\"action\":\"dance\"} and is"));
        assert_non_null(strstr(said, "decision 162 of web9: its input has no such partition"));
        assert_non_null(strstr(said, "decision 163 of web0: The record's input has no valid partitions"));
        assert_non_null(strstr(said, "decision 164 of web0: The record is no JSON"));
        free(said);
}

/* The last 100 decisions, from what is stored of them. */
static void test_replay(void **state)
{
        struct policy_partition partitions[4];
        struct policy_history history[4] = { 0 }, after[4];
        struct policy_decision decisions[4];
        struct fixture *fx = *state;
        uint64_t random = 7, round_id, decision_id, now = 1000 * USEC_PER_SEC;
        struct error error;

        start_with_samples(fx, "", "");
        struct store *store = manager_store(fx->manager);
        for (unsigned n = 0; n < 40; n++, now += 3 * USEC_PER_SEC) {
                _cleanup_json_ struct json_object *o = NULL;
                struct policy_input in = { .now_usec = now,
                        .pool = { .total_bytes = 12 * GIB },
                        .n_partitions = 4,
                        .partitions = partitions,
                        .history = history };

                policy_config_init(&in.config);
                for (size_t i = 0; i < 4; i++)
                        make_up(&partitions[i], i, now, &random);
                policy_decide(&in, decisions, after);
                assert_int_equal(policy_input_to_json(&in, &o), 0);
                const char *input = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
                assert_int_equal(store_round_put(store, now, input, &round_id, &error), 0);
                for (size_t i = 0; i < 4; i++) {
                        _cleanup_json_ struct json_object *d = NULL;

                        assert_int_equal(policy_decision_to_json(partitions[i].name, &decisions[i], &d), 0);
                        struct store_decision kept = { .round = round_id,
                                .partition = partitions[i].name,
                                .decision = json_object_to_json_string_ext(d, JSON_C_TO_STRING_PLAIN),
                                .text = "",
                                .outcome = "" };
                        assert_int_equal(store_decision_put(store, &kept, &decision_id, &error), 0);
                }
                memcpy(history, after, sizeof(history));
        }
        struct seen_decisions seen = replay_decisions(fx);
        assert_int_equal(seen.n, 100);
        assert_in_range(seen.n_grow, 10, 90);
        check_replay(store);
        finish(fx);
}

/* What is recorded is a trace that the simulator reads. */
static void test_recording(void **state)
{
        struct store_sample sample = { .current_bytes = 2 * GIB,
                .min_bytes = GIB,
                .max_bytes = 4 * GIB,
                .weight = 7,
                .pool_bytes = 3 * GIB };
        struct fixture *fx = *state;
        struct error error = { 0 };
        struct trace t;
        uint64_t now = 5000 * USEC_PER_SEC;

        start_with_samples(fx, "", "");
        struct store *store = manager_store(fx->manager);
        FILE *f = tmpfile();
        assert_non_null(f);
        assert_int_equal(recording_write(store, now, 100 * USEC_PER_SEC, f, &error), -EINVAL);
        assert_non_null(strstr(error.message, "no samples"));
        for (unsigned i = 0; i <= 20; i++) {
                sample.partition = i % 2 ? "web1" : "web2";
                sample.time_usec = now - (20 - i) * USEC_PER_SEC;
                sample.used_bytes = i * 64 * MIB + 5;
                assert_int_equal(store_sample_put(store, &sample, &error), 0);
        }
        if (recording_write(store, now, 10 * USEC_PER_SEC, f, &error) < 0)
                fail_msg("%s", error.message);
        rewind(f);
        if (trace_read(f, "recorded", &t, &error) < 0)
                fail_msg("%s", error.message);
        fclose(f);
        assert_int_equal(t.n_partitions, 2);
        assert_int_equal(t.length_usec, 10 * USEC_PER_SEC);
        /* Both had 2 GiB at the beginning, whatever the pool is said to have. */
        assert_int_equal(t.pool_bytes, 4 * GIB);
        assert_string_equal(t.partitions[0].name, "web2");
        assert_int_equal(t.partitions[0].n_points, 6);
        assert_int_equal(t.partitions[0].points[0].bytes, 640 * MIB + KIB);
        assert_int_equal(t.partitions[1].min_bytes, GIB);
        assert_int_equal(t.partitions[1].max_bytes, 4 * GIB);
        assert_int_equal(t.partitions[1].weight, 7);
        trace_done(&t);
        finish(fx);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        static const struct CMUnitTest tests[] = {
                TEST(test_replay),
                TEST(test_recording),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
