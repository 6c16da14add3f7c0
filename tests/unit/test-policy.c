/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The policy's rules, one by one. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/size.h"
#include "hvd/policy/json.h"
#include "hvd/policy/policy.h"
#include "tests/unit/policy-fixture.h"

static void test_peace(void **state)
{
        struct host h;

        host_init(&h, 3);
        host_decide(&h);
        for (size_t i = 0; i < 3; i++) {
                assert_decision(&h, i, POLICY_KEEP, POLICY_RULE_NONE, POLICY_RULE_ENOUGH);
                assert_int_equal(h.decisions[i].target_bytes, 4 * GIB);
                assert_int_equal(h.decisions[i].used_bytes, GIB);
                assert_int_equal(h.decisions[i].headroom_bytes, 256 * MIB);
        }
}

static void test_grows_at_once(void **state)
{
        struct host h;

        host_init(&h, 2);
        h.in.pool.total_bytes += 8 * GIB;
        distress(&h, 0);
        host_decide(&h);
        assert_decision(&h, 0, POLICY_GROW, POLICY_RULE_PRESSURE, POLICY_RULE_NONE);
        /* two fifths stalled: a fifth more, and headroom */
        assert_int_equal(h.decisions[0].pressed_bytes, 4 * GIB / 5);
        assert_true(h.decisions[0].target_bytes >= h.decisions[0].want_bytes);
        assert_true(h.decisions[0].target_bytes < h.decisions[0].want_bytes + GRANULE);
        assert_decision(&h, 1, POLICY_KEEP, POLICY_RULE_NONE, POLICY_RULE_ENOUGH);
}

static void test_grows_in_proportion(void **state)
{
        uint64_t before = 0;

        for (uint64_t some = 100; some <= 1000; some += 300) {
                struct host h;

                host_init(&h, 1);
                h.in.pool.total_bytes += 8 * GIB;
                distress(&h, 0);
                h.partitions[0].sample.some_permille = some;
                host_decide(&h);
                assert_true(h.decisions[0].target_bytes > before);
                before = h.decisions[0].target_bytes;
        }
}

/* MemAvailable counts the page cache. A guest that stalls for file pages that it has to read again needs it
 * all, and more; one that only stalls, or only reads much, does not. */
static void test_cache_in_use(void **state)
{
        struct host h;

        for (int i = 0; i < 4; i++) {
                bool stalls = i & 1, rereads = i & 2;

                host_init(&h, 1);
                h.in.pool.total_bytes += 8 * GIB;
                h.partitions[0].desired_bytes = GIB;
                h.partitions[0].sample.some_permille = stalls ? 200 : 0;
                h.partitions[0].sample.refault_bytes_per_sec = rereads ? 256 * MIB : MIB;
                host_decide(&h);
                if (stalls && rereads) {
                        assert_decision(&h, 0, POLICY_GROW, POLICY_RULE_PRESSURE, POLICY_RULE_NONE);
                        assert_int_equal(h.decisions[0].used_bytes, 4 * GIB);
                        assert_int_equal(h.decisions[0].cache_bytes, 3 * GIB);
                        _cleanup_free_ char *text = policy_explain(&h.in, 0, &h.decisions[0]);
                        assert_non_null(strstr(text, "3 GiB of it file pages that it drops"));
                } else {
                        assert_int_equal(h.decisions[0].action, POLICY_SHRINK);
                        assert_int_equal(h.decisions[0].cache_bytes, 0);
                }
        }

        /* Nor does one that has not touched what it has. */
        h.partitions[0].has_resident = true;
        h.partitions[0].resident_bytes = 2 * GIB;
        host_decide(&h);
        assert_int_equal(h.decisions[0].cache_bytes, 0);
}

static void test_rise_is_prolonged(void **state)
{
        struct host h;

        host_init(&h, 1);
        h.in.pool.total_bytes += 8 * GIB;
        h.partitions[0].sample.available_bytes = 512 * MIB;
        h.history[0].used_bytes = 3 * GIB;
        h.history[0].used_usec = h.partitions[0].sample.taken_usec - USEC_PER_SEC;
        host_decide(&h);
        assert_decision(&h, 0, POLICY_GROW, POLICY_RULE_DEMAND, POLICY_RULE_NONE);
        assert_int_equal(h.history[0].rise_bytes_per_sec, 512 * MIB);
        assert_int_equal(h.decisions[0].pressed_bytes, 3 * 512 * MIB);
}

static void test_frees_first(void **state)
{
        struct host h;

        host_init(&h, 3);
        distress(&h, 0);
        host_decide(&h);
        assert_decision(&h, 0, POLICY_KEEP, POLICY_RULE_PRESSURE, POLICY_RULE_FREE_FIRST);
        /* Who has most to spare; alike, the first. No more than is needed. */
        assert_decision(&h, 1, POLICY_SHRINK, POLICY_RULE_OTHERS_NEED, POLICY_RULE_NONE);
        assert_decision(&h, 2, POLICY_KEEP, POLICY_RULE_NONE, POLICY_RULE_ENOUGH);
        assert_true(4 * GIB - h.decisions[1].target_bytes >= h.decisions[0].want_bytes - 4 * GIB);
        assert_true(4 * GIB - h.decisions[1].target_bytes < h.decisions[0].want_bytes - 4 * GIB + GRANULE);
}

static void test_what_leaves_is_counted(void **state)
{
        struct host h;

        host_init(&h, 3);
        distress(&h, 0);
        h.partitions[1].is_busy = true;
        h.partitions[1].leaving_bytes = 2 * GIB;
        host_decide(&h);
        assert_decision(&h, 0, POLICY_KEEP, POLICY_RULE_PRESSURE, POLICY_RULE_FREE_FIRST);
        assert_decision(&h, 1, POLICY_KEEP, POLICY_RULE_NONE, POLICY_RULE_BUSY);
        assert_decision(&h, 2, POLICY_KEEP, POLICY_RULE_NONE, POLICY_RULE_ENOUGH);
}

static void test_left_alone(void **state)
{
        static const struct {
                enum policy_mode mode;
                enum policy_state state;
                bool busy;
                enum policy_rule bound;
        } cases[] = {
                { POLICY_MODE_OFF, POLICY_RUNNING, false, POLICY_RULE_MODE },
                { POLICY_MODE_AUTO, POLICY_BOOTING, false, POLICY_RULE_STATE },
                { POLICY_MODE_AUTO, POLICY_MIGRATING, false, POLICY_RULE_STATE },
                { POLICY_MODE_AUTO, POLICY_PAUSED, false, POLICY_RULE_STATE },
                { POLICY_MODE_AUTO, POLICY_RUNNING, true, POLICY_RULE_BUSY },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct host h;

                host_init(&h, 2);
                distress(&h, 0);
                distress(&h, 1);
                h.in.pool.total_bytes += 8 * GIB;
                h.partitions[1].mode = cases[i].mode;
                h.partitions[1].state = cases[i].state;
                h.partitions[1].is_busy = cases[i].busy;
                host_decide(&h);
                assert_int_equal(h.decisions[1].action, POLICY_KEEP);
                assert_int_equal(h.decisions[1].bound, cases[i].bound);
                assert_int_equal(h.decisions[0].action, POLICY_GROW);
        }
}

static void test_nothing_leaves_unseen(void **state)
{
        struct host h;

        host_init(&h, 2);
        distress(&h, 0);
        h.partitions[1].sample.taken_usec = NOW - 16 * USEC_PER_SEC;
        host_decide(&h);
        assert_int_equal(h.decisions[1].action, POLICY_KEEP);
        assert_decision(&h, 0, POLICY_KEEP, POLICY_RULE_PRESSURE, POLICY_RULE_SHARE);

        /* A sample of before the last change says nothing of now. */
        host_init(&h, 2);
        distress(&h, 0);
        h.partitions[1].changed_usec = NOW - USEC_PER_SEC / 4;
        host_decide(&h);
        assert_int_equal(h.decisions[1].action, POLICY_KEEP);
}

static void test_flows_back_slowly(void **state)
{
        struct host h;

        host_init(&h, 1);
        h.in.pool.total_bytes += 16 * GIB;
        set_size(&h, 0, 8 * GIB, 7 * GIB);
        host_decide(&h);
        assert_decision(&h, 0, POLICY_SHRINK, POLICY_RULE_IDLE, POLICY_RULE_STEP);
        assert_true(h.decisions[0].target_bytes >= 7 * GIB - GRANULE);

        host_decide(&h); /* and no second step a moment later */
        assert_decision(&h, 0, POLICY_KEEP, POLICY_RULE_NONE, POLICY_RULE_QUIET);

        h.history[0].asked_usec = NOW - 11 * USEC_PER_SEC;
        h.history[0].grown_usec = NOW - 30 * USEC_PER_SEC;
        host_decide(&h);
        assert_decision(&h, 0, POLICY_KEEP, POLICY_RULE_NONE, POLICY_RULE_QUIET);

        h.history[0].grown_usec = NOW - 3600 * USEC_PER_SEC;
        h.history[0].held_bytes[1] = 7 * GIB; /* it wanted that not long ago */
        host_decide(&h);
        assert_true(h.decisions[0].action == POLICY_KEEP || h.decisions[0].target_bytes >= 7 * GIB);
}

static void test_cheap_and_floor(void **state)
{
        struct host h;

        host_init(&h, 2);
        distress(&h, 0);
        h.partitions[1].sample.has_removable = true;
        h.partitions[1].sample.removable_bytes = 2 * GRANULE + 1;
        host_decide(&h);
        assert_decision(&h, 1, POLICY_SHRINK, POLICY_RULE_OTHERS_NEED, POLICY_RULE_CHEAP);
        assert_int_equal(h.decisions[1].target_bytes, 4 * GIB - 2 * GRANULE);
        h.partitions[1].has_no_size = true;
        host_decide(&h);
        assert_int_equal(h.decisions[1].bound, POLICY_RULE_NO_SIZE);

        host_init(&h, 2);
        distress(&h, 0);
        h.partitions[1].floor_bytes = 4 * GIB - GRANULE;
        host_decide(&h);
        assert_decision(&h, 1, POLICY_SHRINK, POLICY_RULE_OTHERS_NEED, POLICY_RULE_MIN);
        assert_int_equal(h.decisions[1].target_bytes, 4 * GIB - GRANULE);
}

static void test_host_pressure(void **state)
{
        struct host h;

        host_init(&h, 2);
        h.in.pool.total_bytes += 8 * GIB;
        h.in.pool.host_some_permille = 200;
        distress(&h, 0);
        host_decide(&h);
        assert_int_equal(h.decisions[0].action, POLICY_KEEP);
        assert_decision(&h, 1, POLICY_SHRINK, POLICY_RULE_HOST_PRESSURE, POLICY_RULE_NONE);
}

static void test_shares_by_weight(void **state)
{
        struct host h;

        host_init(&h, 3);
        h.partitions[0].weight = 200;
        h.partitions[1].weight = 100;
        h.partitions[2].weight = 100;
        set_size(&h, 2, 2 * GIB, GIB);
        set_size(&h, 1, 6 * GIB, 6 * GIB);
        distress(&h, 0);
        distress(&h, 1);
        for (size_t i = 0; i < 2; i++)
                h.partitions[i].sample.some_permille = h.partitions[i].sample.full_permille = 1000;
        set_size(&h, 0, 4 * GIB, 0);
        h.partitions[0].sample.refault_bytes_per_sec = h.partitions[1].sample.refault_bytes_per_sec = GIB;
        host_decide(&h);
        /* The third keeps all that it wants; the others have two to one of the rest, as far as they want it.
         */
        assert_int_equal(h.decisions[2].share_bytes, h.decisions[2].want_bytes);
        assert_true(h.decisions[1].share_bytes < h.decisions[1].want_bytes);
        assert_true(h.decisions[0].share_bytes > 6 * GIB);
        assert_int_equal(h.decisions[1].action, POLICY_SHRINK);
        assert_int_equal(h.decisions[1].cause, POLICY_RULE_ABOVE_SHARE);
}

static void test_observers_take_nothing(void **state)
{
        struct host h;

        host_init(&h, 3);
        h.in.pool.total_bytes += GIB;
        distress(&h, 0);
        distress(&h, 1);
        h.partitions[0].mode = POLICY_MODE_OBSERVE;
        host_decide(&h);
        assert_decision(&h, 1, POLICY_GROW, POLICY_RULE_PRESSURE, POLICY_RULE_FREE_FIRST);
        assert_decision(&h, 0, POLICY_KEEP, POLICY_RULE_PRESSURE, POLICY_RULE_FREE_FIRST);
}

static void test_without_samples(void **state)
{
        struct host h;

        host_init(&h, 2);
        h.in.pool.total_bytes += 8 * GIB;
        for (size_t i = 0; i < 2; i++) {
                h.partitions[i].sample = (struct policy_sample) { 0 };
                h.history[i] = (struct policy_history) { 0 };
        }
        host_decide(&h);
        /* min and 14 of the 22 GiB of both ranges: 8 GiB, which is also its weight's part */
        assert_decision(&h, 0, POLICY_GROW, POLICY_RULE_EQUAL_RATIO, POLICY_RULE_NONE);
        assert_int_equal(h.decisions[0].target_bytes, 8 * GIB);

        set_size(&h, 0, 10 * GIB, 10 * GIB);
        h.history[0] = (struct policy_history) { 0 };
        host_decide(&h);
        assert_int_equal(h.decisions[0].action, POLICY_KEEP);
}

static void test_host_knows_better(void **state)
{
        struct host h;

        /* What it never touched it does not use, and does not lack. */
        host_init(&h, 1);
        h.in.pool.total_bytes += 8 * GIB;
        distress(&h, 0);
        h.partitions[0].has_resident = true;
        h.partitions[0].resident_bytes = GIB;
        host_decide(&h);
        assert_int_equal(h.decisions[0].action, POLICY_KEEP);
        assert_int_equal(h.decisions[0].used_bytes, GIB);

        /* Distress beside available memory is not for memory. */
        host_init(&h, 1);
        h.in.pool.total_bytes += 8 * GIB;
        h.partitions[0].sample.some_permille = 900;
        host_decide(&h);
        assert_int_equal(h.decisions[0].action, POLICY_KEEP);
}

static void test_fill(void **state)
{
        static const unsigned weight[] = { 1, 2, 1 };
        static const uint64_t floor[] = { 10, 10, 50 }, want[] = { 100, 100, 60 };
        uint64_t share[3];

        assert_false(policy_fill(3, weight, floor, want, 260, share));
        assert_int_equal(share[1], 100);
        assert_true(policy_fill(3, weight, floor, want, 140, share));
        assert_int_equal(share[0], 30);
        assert_int_equal(share[1], 60);
        assert_int_equal(share[2], 50);
        assert_true(policy_fill(3, weight, floor, want, 20, share)); /* promises are kept */
        assert_int_equal(share[0], 10);
        assert_int_equal(share[2], 50);
}

static void test_explain(void **state)
{
        struct host h;

        host_init(&h, 3);
        distress(&h, 0);
        host_decide(&h);
        _cleanup_free_ char *text = policy_explain(&h.in, 1, &h.decisions[1]);
        assert_non_null(text);
        assert_non_null(strstr(text, "g1 gives"));
        assert_non_null(strstr(text, "others need what lies idle here"));
        assert_non_null(strstr(text, "It uses 1 GiB"));
        assert_non_null(strstr(text, "500 ms old"));

        _cleanup_json_ struct json_object *o = NULL;
        const char *cause;
        assert_int_equal(policy_decision_to_json("g1", &h.decisions[1], &o), 0);
        assert_int_equal(json_get_string(o, "cause", &cause), 0);
        assert_string_equal(cause, "others-need");
}

static void test_every_word(void **state)
{
        for (int i = 0; i < POLICY_RULE_MAX_VALUE; i++)
                assert_non_null(policy_rule_to_string(i));
        for (int i = 0; i < POLICY_MODE_MAX; i++)
                assert_int_equal(policy_mode_from_string(policy_mode_to_string(i)), i);
        for (int i = 0; i < POLICY_STATE_MAX; i++)
                assert_int_equal(policy_state_from_string(policy_state_to_string(i)), i);
        assert_null(policy_mode_to_string(POLICY_MODE_INVALID));
        assert_int_equal(policy_mode_from_string("on"), POLICY_MODE_INVALID);
        assert_int_equal(policy_mode_from_string(NULL), POLICY_MODE_INVALID);
}

static void test_config(void **state)
{
        struct policy_config c;

        policy_config_init(&c);
        assert_null(policy_config_check(&c));
        for (const struct policy_config_key *key = policy_config_keys(); key->name; key++) {
                uint64_t *field = (uint64_t *)((char *)&c + key->offset);

                *field = key->max + 1;
                assert_ptr_equal(policy_config_check(&c), key);
                *field = key->usual;
        }
}

static void test_bad_records(void **state)
{
        static const struct {
                const char *from, *to, *names;
        } cases[] = {
                { "\"auto\"", "\"on\"", "mode" },
                { "\"weight\":128", "\"weight\":0", "weight" },
                { "\"granule_bytes\":134217728", "\"granule_bytes\":0", "granule_bytes" },
                { "\"now_usec\"", "\"now\"", "now_usec" },
                { "\"available_bytes\":3221225472", "\"available_bytes\":-1", "available_bytes" },
                { "\"quiet_usec\":300000000", "\"quiet_usec\":1", "quiet" },
                { "\"history\":{", "\"histories\":{", "history" },
        };
        struct host h;
        struct json_object *o;

        host_init(&h, 1);
        assert_int_equal(policy_input_to_json(&h.in, &o), 0);
        const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                _cleanup_json_ struct json_object *bad = NULL;
                _cleanup_free_ char *changed = NULL;
                struct policy_record record;
                struct error error = { 0 };
                const char *at = strstr(text, cases[i].from);

                assert_non_null(at);
                assert_true(asprintf(&changed, "%.*s%s%s", (int)(at - text), text, cases[i].to,
                                    at + strlen(cases[i].from)) > 0);
                assert_int_equal(json_parse(changed, strlen(changed), &bad), 0);
                assert_int_equal(policy_input_from_json(bad, &record, &error), -EINVAL);
                assert_non_null(strstr(error.message, cases[i].names));
        }
        json_object_put(o);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_peace),
                cmocka_unit_test(test_grows_at_once),
                cmocka_unit_test(test_grows_in_proportion),
                cmocka_unit_test(test_cache_in_use),
                cmocka_unit_test(test_rise_is_prolonged),
                cmocka_unit_test(test_frees_first),
                cmocka_unit_test(test_what_leaves_is_counted),
                cmocka_unit_test(test_left_alone),
                cmocka_unit_test(test_nothing_leaves_unseen),
                cmocka_unit_test(test_flows_back_slowly),
                cmocka_unit_test(test_cheap_and_floor),
                cmocka_unit_test(test_host_pressure),
                cmocka_unit_test(test_shares_by_weight),
                cmocka_unit_test(test_observers_take_nothing),
                cmocka_unit_test(test_without_samples),
                cmocka_unit_test(test_host_knows_better),
                cmocka_unit_test(test_fill),
                cmocka_unit_test(test_explain),
                cmocka_unit_test(test_every_word),
                cmocka_unit_test(test_config),
                cmocka_unit_test(test_bad_records),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
