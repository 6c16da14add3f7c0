/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* From a guest's words to the policy's sample: rates by the host's clock, bounds by the host's account. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/sample.h"

static const struct sample_host host = {
        .current_bytes = 2 * GIB,
        .has_dimms_only = true,
        .dimm_bytes = GIB,
        .sampling = { 1000, 8000, 100, 1000, 256 * MIB },
};

static struct guest_sample guest(void)
{
        return (struct guest_sample) {
                .cause = SAMPLE_PERIODIC,
                .total_bytes = 2 * GIB,
                .available_bytes = GIB,
                .free_bytes = GIB,
                .movable_bytes = GIB,
                .movable_free_bytes = 512 * MIB,
                .margin_bytes = 64 * MIB,
                .has_pressure = true,
                .some_avg10_centi = 1230,
                .full_avg10_centi = 450,
        };
}

static struct policy_sample take(struct sample_track *t, const struct guest_sample *s, uint64_t now_usec)
{
        struct policy_sample p;

        sample_take(t, s, &host, now_usec, &p);
        return p;
}

static void test_first(void **state)
{
        struct sample_track t = { 0 };
        struct guest_sample s = guest();
        struct policy_sample p;

        s.refault_file_bytes = s.swap_in_bytes = 5 * GIB; /* since the boot: no rate yet */
        p = take(&t, &s, 10 * USEC_PER_SEC);
        assert_int_equal(p.taken_usec, 10 * USEC_PER_SEC);
        assert_int_equal(p.available_bytes, GIB);
        assert_int_equal(p.some_permille, 123);
        assert_int_equal(p.full_permille, 45);
        assert_int_equal(p.refault_bytes_per_sec, 0);
        assert_int_equal(p.swap_in_bytes_per_sec, 0);
        assert_true(p.has_removable);
        assert_int_equal(p.removable_bytes, 512 * MIB);
}

static void test_rates(void **state)
{
        struct sample_track t = { 0 };
        struct guest_sample s = guest();
        struct policy_sample p;

        take(&t, &s, 10 * USEC_PER_SEC);
        s.some_total_usec += 500 * USEC_PER_MSEC;
        s.full_total_usec += 200 * USEC_PER_MSEC;
        s.refault_file_bytes += 20 * MIB;
        s.refault_anon_bytes += GIB; /* comes with swap_in, which counts */
        s.swap_in_bytes += 4 * MIB;
        p = take(&t, &s, 12 * USEC_PER_SEC);
        assert_int_equal(p.some_permille, 250);
        assert_int_equal(p.full_permille, 100);
        assert_int_equal(p.refault_bytes_per_sec, 10 * MIB);
        assert_int_equal(p.swap_in_bytes_per_sec, 2 * MIB);

        /* A moment later there is nothing to divide by: the figures stay. */
        s.some_total_usec += 50 * USEC_PER_MSEC;
        p = take(&t, &s, 12 * USEC_PER_SEC + 50 * USEC_PER_MSEC);
        assert_int_equal(p.some_permille, 250);
        /* Then they are counted from the same base, which moves on when it is old enough. */
        p = take(&t, &s, 12 * USEC_PER_SEC + 100 * USEC_PER_MSEC);
        assert_int_equal(p.some_permille, 500);
        p = take(&t, &s, 12 * USEC_PER_SEC + 500 * USEC_PER_MSEC);
        assert_int_equal(p.some_permille, 100);
        p = take(&t, &s, 13 * USEC_PER_SEC);
        assert_int_equal(p.some_permille, 0);
}

static void test_counters_go_on_from_0(void **state)
{
        struct sample_track t = { 0 };
        struct guest_sample s = guest();

        s.swap_in_bytes = PROTO_COUNTER_END - MIB;
        take(&t, &s, USEC_PER_SEC);
        s.swap_in_bytes = MIB;
        assert_int_equal(take(&t, &s, 2 * USEC_PER_SEC).swap_in_bytes_per_sec, 2 * MIB);
}

static void test_pressure_push(void **state)
{
        struct sample_track t = { 0 };
        struct guest_sample s = guest();

        take(&t, &s, USEC_PER_SEC);
        /* 100 ms in the last second, after seven without: by the totals 14 permille. */
        s.some_total_usec += 100 * USEC_PER_MSEC;
        s.cause = SAMPLE_PRESSURE;
        assert_int_equal(take(&t, &s, 8 * USEC_PER_SEC).some_permille, 100);
        /* It is said of that moment, and not of later ones. */
        s.cause = SAMPLE_PERIODIC;
        assert_int_equal(take(&t, &s, 9 * USEC_PER_SEC).some_permille, 0);
        /* More stalls are more. */
        s.some_total_usec += 700 * USEC_PER_MSEC;
        s.cause = SAMPLE_PRESSURE;
        assert_int_equal(take(&t, &s, 10 * USEC_PER_SEC).some_permille, 700);
}

static void test_removable(void **state)
{
        static const struct {
                uint64_t available, movable, movable_free, movable_cache, margin, dimms, removable;
        } table[] = {
                { GIB, GIB, 512 * MIB, 0, 0, GIB, 512 * MIB },
                { GIB, GIB, 512 * MIB, 256 * MIB, 0, GIB, 768 * MIB },
                { GIB, GIB, 3 * GIB, 0, 0, 8 * GIB, GIB - 32 * MIB },    /* the margin stays */
                { GIB, GIB, 3 * GIB, 0, 256 * MIB, 8 * GIB, 768 * MIB }, /* the guest's own, too */
                { GIB, 128 * MIB, 512 * MIB, 0, 0, GIB, 128 * MIB },     /* no more than Movable is */
                { GIB, GIB, 512 * MIB, 0, 0, 256 * MIB, 256 * MIB },     /* nor than is plugged */
                { 16 * MIB, GIB, 512 * MIB, 0, 0, GIB, 0 },
                { 0, 0, 0, 0, UINT64_MAX, 0, 0 },
        };
        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
                struct sample_track t = { 0 };
                struct sample_host h = host;
                struct guest_sample s = guest();
                struct policy_sample p;

                h.dimm_bytes = table[i].dimms;
                s.available_bytes = table[i].available;
                s.movable_bytes = table[i].movable;
                s.movable_free_bytes = table[i].movable_free;
                s.movable_cache_bytes = table[i].movable_cache;
                s.margin_bytes = table[i].margin;
                sample_take(&t, &s, &h, 1, &p);
                if (p.removable_bytes != table[i].removable)
                        fail_msg("row %zu: %llu MiB", i, (unsigned long long)(p.removable_bytes / MIB));
                /* A balloon takes any page. */
                h.has_dimms_only = false;
                sample_take(&t, &s, &h, 2, &p);
                assert_false(p.has_removable);
                assert_int_equal(p.removable_bytes, 0);
        }
}

/* Whatever a guest says, what comes of it can be stored, and is within what the host knows. */
static void test_random_words(void **state)
{
        struct sample_track t = { 0 };
        uint64_t now = 1;

        srandom(7);
        for (unsigned i = 0; i < 200000; i++) {
                uint64_t *words;
                struct guest_sample s = guest();
                struct policy_sample p, again;

                words = &s.total_bytes;
                for (size_t k = 0; k < 11; k++)
                        words[k] = ((uint64_t)random() << 31 | (uint64_t)random()) &
                                   ((k < 7 ? PROTO_ADDRESS_MAX : PROTO_COUNTER_END) - 1);
                s.cause = (enum sample_cause)(random() % SAMPLE_CAUSE_MAX);
                s.has_pressure = random() % 4 > 0;
                s.some_avg10_centi = (unsigned)(random() % 10001);
                s.some_total_usec = (uint64_t)random() << (random() % 22);
                s.full_total_usec = (uint64_t)random() << (random() % 22);
                now += (uint64_t)random() % (1U << (random() % 31));
                p = take(&t, &s, now);
                again = p;
                policy_sample_bound(&again);
                assert_memory_equal(&p, &again, sizeof(p));
                assert_int_equal(p.taken_usec, now);
                assert_in_range(p.available_bytes, 0, host.current_bytes);
                assert_in_range(p.removable_bytes, 0, host.dimm_bytes);
                assert_in_range(p.some_permille, 0, 1000);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_first),
                cmocka_unit_test(test_rates),
                cmocka_unit_test(test_counters_go_on_from_0),
                cmocka_unit_test(test_pressure_push),
                cmocka_unit_test(test_removable),
                cmocka_unit_test(test_random_words),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
