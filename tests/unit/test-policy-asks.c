/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The policy's rules for what guests are asked to give, and for what becomes of who gave, and who did not. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "common/size.h"
#include "hvd/policy/policy.h"
#include "tests/unit/policy-fixture.h"

static void test_refusal(void **state)
{
        struct host h;

        host_init(&h, 2);
        distress(&h, 0);
        policy_history_refused(&h.history[1], NOW - 10 * USEC_PER_SEC);
        host_decide(&h);
        assert_int_equal(h.decisions[1].action, POLICY_KEEP);

        h.history[1].refused_usec = NOW - 31 * USEC_PER_SEC;
        host_decide(&h);
        assert_int_equal(h.decisions[1].action, POLICY_SHRINK);

        /* The second pause is twice as long. */
        host_init(&h, 2);
        distress(&h, 0);
        policy_history_refused(&h.history[1], NOW - 100 * USEC_PER_SEC);
        policy_history_refused(&h.history[1], NOW - 31 * USEC_PER_SEC);
        host_decide(&h);
        assert_int_equal(h.decisions[1].action, POLICY_KEEP);
        policy_history_gave(&h.history[1]);
        host_decide(&h);
        assert_int_equal(h.decisions[1].action, POLICY_SHRINK);
}

static void test_refusal_does_not_pay(void **state)
{
        struct host h;

        host_init(&h, 2);
        h.in.pool.total_bytes += 8 * GIB;
        set_size(&h, 0, 8 * GIB, 7 * GIB);
        distress(&h, 0);
        host_decide(&h);
        assert_decision(&h, 0, POLICY_GROW, POLICY_RULE_PRESSURE, POLICY_RULE_NONE);

        host_init(&h, 2);
        h.in.pool.total_bytes += 8 * GIB;
        set_size(&h, 0, 8 * GIB, 7 * GIB);
        distress(&h, 0);
        policy_history_refused(&h.history[0], NOW - 3600 * USEC_PER_SEC);
        host_decide(&h);
        assert_decision(&h, 0, POLICY_KEEP, POLICY_RULE_PRESSURE, POLICY_RULE_DEBT);
}

static void test_hysteresis(void **state)
{
        struct host h;

        host_init(&h, 1);
        h.in.pool.total_bytes += 8 * GIB;
        set_size(&h, 0, 2 * GIB, 64 * MIB);
        h.history[0].asked_usec = h.history[0].shrunk_usec = NOW - 5 * USEC_PER_SEC;
        h.history[0].shrunk_used_bytes = 2 * GIB - 64 * MIB;
        host_decide(&h);
        assert_decision(&h, 0, POLICY_KEEP, POLICY_RULE_DEMAND, POLICY_RULE_HYSTERESIS);
        h.history[0].shrunk_used_bytes = 2 * GIB - 64 * MIB - GRANULE / 2;
        host_decide(&h);
        assert_int_equal(h.decisions[0].action, POLICY_GROW);

        /* Who stalls has another demand, unless it was to give what it used. */
        for (uint64_t in_use = 0; in_use <= GIB; in_use += GIB) {
                host_init(&h, 1);
                h.in.pool.total_bytes += 8 * GIB;
                distress(&h, 0);
                h.history[0].shrunk_usec = NOW - 5 * USEC_PER_SEC;
                h.history[0].shrunk_used_bytes = 4 * GIB;
                h.history[0].shrunk_in_use_bytes = in_use;
                host_decide(&h);
                assert_decision(&h, 0, in_use == 0 ? POLICY_GROW : POLICY_KEEP, POLICY_RULE_PRESSURE,
                        in_use == 0 ? POLICY_RULE_NONE : POLICY_RULE_HYSTERESIS);
        }
}

/* A moment later, with a sample of that time. */
static void pass(struct host *h, uint64_t usec)
{
        h->in.now_usec += usec;
        for (size_t i = 0; i < h->in.n_partitions; i++)
                h->partitions[i].sample.taken_usec = h->in.now_usec;
}

/* What has it in use need not give it: that is no refusal, and makes no debt. */
static void test_denial(void **state)
{
        struct host h;

        host_init(&h, 2);
        set_size(&h, 0, 2 * GIB, 0);
        set_size(&h, 1, 6 * GIB, 0);
        distress(&h, 0);
        distress(&h, 1);
        host_decide(&h);
        assert_int_equal(h.decisions[1].action, POLICY_SHRINK);
        assert_int_equal(h.decisions[1].cause, POLICY_RULE_ABOVE_SHARE);
        assert_true(h.history[1].asked_in_use_bytes > 0);
        policy_history_refused(&h.history[1], NOW);
        assert_int_equal(h.history[1].n_denials, 1);
        assert_int_equal(h.history[1].n_refusals, 0);

        pass(&h, 29 * USEC_PER_SEC);
        host_decide(&h);
        assert_int_equal(h.decisions[1].action, POLICY_KEEP);
        /* What lies idle in it may be asked for all the same. */
        set_size(&h, 1, 6 * GIB, 4 * GIB);
        h.partitions[1].sample.some_permille = 0;
        host_decide(&h);
        assert_int_equal(h.decisions[1].action, POLICY_SHRINK);
        assert_int_equal(h.history[1].asked_in_use_bytes, 0);

        set_size(&h, 1, 6 * GIB, 0);
        pass(&h, 2 * USEC_PER_SEC);
        host_decide(&h);
        assert_int_equal(h.decisions[1].action, POLICY_SHRINK);
        policy_history_gave(&h.history[1]);
        assert_int_equal(h.history[1].n_denials, 0);
        assert_int_equal(h.history[1].shrunk_usec, h.in.now_usec);
        assert_true(h.history[1].shrunk_in_use_bytes > 0);
}

/* Between the sample that a request rests on and the answer a burst may come; what the guest does later is no
 * excuse. */
static void test_refusal_is_judged(void **state)
{
        struct host h;

        for (int burst_at = 1; burst_at <= 3; burst_at++) {
                host_init(&h, 2);
                distress(&h, 0);
                host_decide(&h);
                assert_decision(&h, 1, POLICY_SHRINK, POLICY_RULE_OTHERS_NEED, POLICY_RULE_NONE);
                assert_int_equal(h.history[1].asked_in_use_bytes, 0);
                policy_history_refused(&h.history[1], NOW + USEC_PER_SEC);
                for (int round = 1; round < 3; round++) {
                        pass(&h, 2 * USEC_PER_SEC);
                        if (round >= burst_at)
                                h.partitions[1].sample.available_bytes = 0;
                        host_decide(&h);
                }
                assert_int_equal(h.history[1].n_refusals, burst_at == 1 ? 0 : 1);
                assert_int_equal(h.history[1].n_denials, burst_at == 1 ? 1 : 0);
        }
}

/* When memory is short nobody keeps all of its headroom; who asks for no more than its part keeps the least
 * one of all. */
static void test_idle_tax(void **state)
{
        struct host h;

        host_init(&h, 2);
        h.in.pool.total_bytes -= 512 * MIB;
        set_size(&h, 0, 3584 * MIB, 512 * MIB);
        distress(&h, 1);
        h.partitions[1].sample.full_permille = h.partitions[1].sample.some_permille = 1000;
        host_decide(&h);
        assert_int_equal(h.decisions[0].headroom_bytes, 3 * GIB * 150 / 1000);
        assert_int_equal(h.decisions[0].share_bytes, 3 * GIB + 256 * MIB);
        assert_decision(&h, 0, POLICY_SHRINK, POLICY_RULE_ABOVE_SHARE, POLICY_RULE_SHARE);
        assert_int_equal(h.history[0].asked_in_use_bytes, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_refusal),
                cmocka_unit_test(test_refusal_does_not_pay),
                cmocka_unit_test(test_hysteresis),
                cmocka_unit_test(test_denial),
                cmocka_unit_test(test_refusal_is_judged),
                cmocka_unit_test(test_idle_tax),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
