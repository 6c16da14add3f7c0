/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* How a request is shared by several mechanisms, against an exhaustive search over small ones. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/plan.h"

static void test_examples(void **state)
{
        static const struct {
                struct plan_source sources[3];
                uint64_t bytes, shares[3];
        } rows[] = {
                /* The first one does it. */
                { { { 4 * GIB, 2 * MIB }, { 8 * GIB, 128 * MIB }, { GIB, MIB } }, 3 * GIB, { 3 * GIB } },
                { { { 0, 2 * MIB }, { 8 * GIB, 128 * MIB }, { GIB, MIB } }, 3 * GIB, { 0, 3 * GIB } },
                /* It has not enough, and the next has. */
                { { { 4 * GIB, 2 * MIB }, { 8 * GIB, 128 * MIB } }, 5 * GIB, { 4 * GIB, GIB } },
                /* The next has larger pieces: the first leaves it what it needs to be whole. */
                { { { 4 * GIB, 2 * MIB }, { 8 * GIB, 128 * MIB } }, 4 * GIB + 64 * MIB,
                        { 4 * GIB - 64 * MIB, 128 * MIB } },
                /* Or the last one takes what is too small for the one before it. */
                { { { 0, 2 * MIB }, { 8 * GIB, 128 * MIB }, { GIB, MIB } }, 3 * GIB + 65 * MIB,
                        { 0, 3 * GIB, 65 * MIB } },
                { { { 4 * GIB, 2 * MIB }, { 8 * GIB, 128 * MIB }, { GIB, MIB } }, 4 * GIB + 65 * MIB,
                        { 4 * GIB, 0, 65 * MIB } },
                /* All three. */
                { { { GIB, 2 * MIB }, { GIB, 128 * MIB }, { GIB, MIB } }, 2 * GIB + 5 * MIB,
                        { GIB, GIB, 5 * MIB } },
                /* Nobody has anything as small as the rest. */
                { { { GIB, 2 * MIB }, { GIB, 128 * MIB } }, 5 * MIB, { 4 * MIB } },
                /* More than there is. */
                { { { GIB, 2 * MIB }, { GIB, 128 * MIB } }, 5 * GIB, { GIB, GIB } },
                { { { 0 } }, GIB, { 0 } },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                uint64_t shares[PLAN_SOURCES_MAX], sum = 0;
                uint64_t total = plan_split(rows[i].sources, 3, rows[i].bytes, shares);

                for (size_t k = 0; k < 3; k++) {
                        if (shares[k] != rows[i].shares[k])
                                fail_msg("row %zu, source %zu: %s, not %s", i, k, SIZE_EXACT(shares[k]),
                                        SIZE_EXACT(rows[i].shares[k]));
                        sum += shares[k];
                }
                assert_int_equal(total, sum);
        }
}

/* --- against a search --- */

/* Sizes that a source can carry, as bits: the multiples of a unit up to its room, or sums of some pieces. */
struct sizes {
        uint64_t bits;
};

static void nearest_of(const void *userdata, uint64_t bytes, uint64_t *ret_below, uint64_t *ret_above)
{
        const struct sizes *s = userdata;

        *ret_below = 0;
        *ret_above = UINT64_MAX;
        for (uint64_t i = 0; i < 64; i++) {
                if (!(s->bits & (UINT64_C(1) << i)))
                        continue;
                if (i <= bytes)
                        *ret_below = i;
                else if (*ret_above == UINT64_MAX)
                        *ret_above = i;
        }
        if (*ret_below == bytes)
                *ret_above = bytes;
}

static struct sizes multiples(uint64_t unit, uint64_t room)
{
        struct sizes s = { 1 };

        for (uint64_t i = unit; i <= room && i < 64; i += unit)
                s.bits |= UINT64_C(1) << i;
        return s;
}

static struct sizes sums(const unsigned *pieces, size_t n)
{
        struct sizes s = { 1 };

        for (size_t i = 0; i < n; i++)
                s.bits |= s.bits << pieces[i];
        return s;
}

static uint64_t highest(uint64_t bits)
{
        return bits ? 63 - (uint64_t)__builtin_clzll(bits) : 0;
}

/* A first source of a small unit, DIMMs, and a balloon of the smallest unit: the total is the best there is,
 * and the first one's part the most with which it is. */
static void test_is_best(void **state)
{
        srandom(5);
        for (unsigned round = 0; round < 20000; round++) {
                unsigned pieces[4];
                size_t n_pieces = (size_t)random() % 5;
                for (size_t i = 0; i < n_pieces; i++)
                        pieces[i] = 4U << ((unsigned)random() % 2);
                struct sizes sizes[3] = {
                        multiples(2, (uint64_t)random() % 20),
                        round % 2 ? sums(pieces, n_pieces) : multiples(8, (uint64_t)random() % 30),
                        multiples(1, (uint64_t)random() % 3 ? 0 : (uint64_t)random() % 6),
                };
                struct plan_source sources[3];
                for (size_t i = 0; i < 3; i++)
                        sources[i] =
                                (struct plan_source) { highest(sizes[i].bits), 1, nearest_of, &sizes[i] };

                uint64_t bytes = (uint64_t)random() % 60, best = 0, first = 0;
                for (uint64_t a = 0; a <= bytes; a++)
                        for (uint64_t b = 0; a + b <= bytes && sizes[0].bits & (UINT64_C(1) << a); b++)
                                for (uint64_t c = 0; a + b + c <= bytes && sizes[1].bits & (UINT64_C(1) << b);
                                        c++)
                                        if (sizes[2].bits & (UINT64_C(1) << c) && a + b + c >= best) {
                                                best = a + b + c;
                                                first = a;
                                        }

                uint64_t shares[PLAN_SOURCES_MAX];
                uint64_t total = plan_split(sources, 3, bytes, shares), sum = 0;
                for (size_t i = 0; i < 3; i++) {
                        assert_true(sizes[i].bits & (UINT64_C(1) << shares[i]));
                        sum += shares[i];
                }
                assert_int_equal(sum, total);
                assert_true(total <= bytes);
                /* Exact where that is possible; else close enough to be offered. */
                if (best == bytes && (total != best || shares[0] != first))
                        fail_msg("round %u: %" PRIu64 " of %" PRIu64 " (best %" PRIu64 "), first %" PRIu64
                                 " of %" PRIu64,
                                round, total, bytes, best, shares[0], first);

                uint64_t above = plan_split_above(sources, 3, bytes);
                assert_true(above >= bytes);
                if (total == bytes)
                        assert_int_equal(above, bytes);
                if (above != UINT64_MAX)
                        assert_int_equal(plan_split(sources, 3, above, shares), above);
        }
}

/* What a size that was refused is offered instead is accepted. */
static void test_additions(void **state)
{
        struct plan_device devices[1] = { { .size_bytes = GIB, .is_dimm = true } };
        struct plan_snapshot s = {
                .granule_bytes = 128 * MIB,
                .base_bytes = GIB,
                .max_bytes = 9 * GIB,
                .slots = 4,
                .kernel_bytes = GIB,
                .devices = devices,
                .n_devices = 1,
        };
        struct plan_add add;
        struct error error;
        uint64_t below, above, room = plan_addition_room(&s, ZONE_POLICY_AUTO);

        assert_int_equal(room, 7 * GIB);
        assert_int_equal(plan_addition(&s, room, ZONE_POLICY_AUTO, &add, &error), 0);
        assert_true(plan_addition_room(&s, ZONE_POLICY_MOVABLE) < 4 * GIB);
        for (uint64_t bytes = 64 * MIB; bytes < 8 * GIB; bytes += 64 * MIB) {
                plan_nearest_additions(&s, bytes, ZONE_POLICY_AUTO, &below, &above);
                assert_true(below <= bytes && above >= bytes);
                if (below > 0)
                        assert_int_equal(plan_addition(&s, below, ZONE_POLICY_AUTO, &add, &error), 0);
                if (above != UINT64_MAX)
                        assert_int_equal(plan_addition(&s, above, ZONE_POLICY_AUTO, &add, &error), 0);
                if (plan_addition(&s, bytes, ZONE_POLICY_AUTO, &add, &error) == 0)
                        assert_true(below == bytes && above == bytes);
        }
        s.slots = 1;
        assert_int_equal(plan_addition_room(&s, ZONE_POLICY_AUTO), 0);
        plan_nearest_additions(&s, GIB, ZONE_POLICY_AUTO, &below, &above);
        assert_int_equal(below, 0);
        assert_int_equal(above, UINT64_MAX);
}

static void test_shares(void **state)
{
        assert_int_equal(plan_share(GIB, GIB, 2 * GIB), 512 * MIB);
        assert_int_equal(plan_share(3, 1, 3), 1);
        assert_int_equal(plan_share(1, 1, 3), 1); /* rounded up */
        assert_int_equal(plan_share(UINT64_MAX, UINT64_MAX / 2, UINT64_MAX / 2), UINT64_MAX / 2);
        assert_int_equal(plan_share(5, 0, 0), 0);
        srandom(7);
        for (unsigned round = 0; round < 10000; round++) {
                uint64_t has[5], all = 0, sum = 0;
                for (size_t i = 0; i < 5; i++)
                        all += has[i] = (uint64_t)random() % 3 ? (uint64_t)random() % (8 * GIB) : 0;
                uint64_t bytes = all ? (uint64_t)random() % all : 0;
                for (size_t i = 0; i < 5; i++) {
                        uint64_t share = plan_share(bytes, has[i], all);
                        assert_true(share <= has[i]);
                        sum += share;
                }
                assert_true(sum >= bytes && sum < bytes + 5);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_examples),
                cmocka_unit_test(test_is_best),
                cmocka_unit_test(test_additions),
                cmocka_unit_test(test_shares),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
