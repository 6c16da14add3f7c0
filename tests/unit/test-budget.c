/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "common/budget.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "common/size.h"

static int64_t left(const struct budget *b)
{
        return b->left / 1000000;
}

static void test_burst_and_wait(void **state)
{
        struct budget b;

        budget_init(&b, 100, 10, 5000);
        assert_int_equal(budget_take(&b, 60, 5000), 0);
        assert_int_equal(budget_take(&b, 39, 5000), 0);
        /* The last one: a tenth of a second until there is one again. */
        assert_int_equal(budget_take(&b, 1, 5000), USEC_PER_SEC / 10);
        /* A debt of 20 and one more. */
        uint64_t wait = budget_take(&b, 20, 5000);
        assert_int_equal(wait, 21 * USEC_PER_SEC / 10);
        assert_int_equal(budget_take(&b, 0, 5000 + wait), 0);
        assert_int_equal(left(&b), 1);
}

static void test_no_more_than_the_burst(void **state)
{
        struct budget b;

        budget_init(&b, 100, 10, 0);
        assert_int_equal(budget_take(&b, 99, 0), 0);
        assert_int_equal(budget_take(&b, 0, 3600 * USEC_PER_SEC), 0);
        assert_int_equal(left(&b), 100);
        /* What was earned beyond it is not owed later. */
        assert_int_equal(budget_take(&b, 99, 3600 * USEC_PER_SEC), 0);
        assert_int_equal(budget_take(&b, 0, 3600 * USEC_PER_SEC + 1), 0);
        assert_int_equal(left(&b), 1);
        /* Nor after years. */
        budget_init(&b, 1U << 30, 1U << 30, 0);
        assert_true(budget_take(&b, 1U << 31, 0) > 0);
        assert_int_equal(budget_take(&b, 1, INT64_MAX), 0);
        assert_int_equal(left(&b), (1U << 30) - 1);
}

/* However often one looks, what is earned is the same. */
static void test_looking_costs_nothing(void **state)
{
        static const uint64_t rates[] = { 1, 3, 7, 1000, 131072, 999983, 3000000 };

        for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
                struct budget b;
                uint64_t now = 0;

                budget_init(&b, 10 * rates[i] + 1, rates[i], 0);
                (void)budget_take(&b, 10 * rates[i] + 1, 0);
                assert_int_equal(left(&b), 0);
                for (unsigned k = 0; now < 4 * USEC_PER_SEC; k++) {
                        now += k % 7 ? 13 : 1;
                        (void)budget_take(&b, 0, now);
                }
                assert_int_equal(b.left, now * rates[i]);
        }
}

/* A peer that takes all that it may gets per_sec and the burst, whatever it takes at once. */
static void test_long_run(void **state)
{
        static const uint64_t sizes[] = { 1, 100, 4096, 300000 };

        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                struct budget b;
                uint64_t now = 0, taken = 0;

                budget_init(&b, 100000, 50000, 0);
                while (now < 100 * USEC_PER_SEC) {
                        taken += sizes[i];
                        now += budget_take(&b, sizes[i], now);
                }
                assert_in_range(taken, 100 * 50000, 100 * 50000 + 100000 + 2 * sizes[i] + 50000);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_burst_and_wait),
                cmocka_unit_test(test_no_more_than_the_burst),
                cmocka_unit_test(test_looking_costs_nothing),
                cmocka_unit_test(test_long_run),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
