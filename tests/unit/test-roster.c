/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hvd/roster.h"

static void assert_in_order(const struct roster *r, size_t n)
{
        const struct partition *before = NULL;
        struct partition *p = NULL;
        size_t seen = 0;

        while ((p = roster_next(r, p))) {
                assert_true(!before || strcmp(before->definition.name, p->definition.name) < 0);
                assert_ptr_equal(roster_find(r, p->definition.name), p);
                before = p;
                seen++;
        }
        assert_int_equal(seen, n);
        assert_int_equal(r->n, n);
}

/* As many as there may be, that come and go in any order. */
static void test_all_that_fit(void **state)
{
        struct partition *all = calloc(ROSTER_MAX, sizeof(*all));
        struct roster *r = calloc(1, sizeof(*r));

        assert_true(all && r);
        roster_init(r);
        assert_in_order(r, 0);
        assert_null(roster_find(r, "p1"));
        for (size_t i = 0; i < ROSTER_MAX; i++) {
                /* 389 shares no factor with how many there are: each once. */
                snprintf(
                        all[i].definition.name, sizeof(all[i].definition.name), "p%zu", i * 389 % ROSTER_MAX);
                assert_null(roster_find(r, all[i].definition.name));
                roster_insert(r, &all[i]);
                assert_ptr_equal(roster_find(r, all[i].definition.name), &all[i]);
        }
        assert_in_order(r, ROSTER_MAX);
        assert_null(roster_find(r, ""));
        assert_null(roster_find(r, "p"));
        assert_null(roster_find(r, "p1024"));
        assert_null(roster_find(r, "q"));
        for (size_t i = 0; i < ROSTER_MAX; i += 2)
                roster_remove(r, &all[i]);
        assert_in_order(r, ROSTER_MAX / 2);
        for (size_t i = 0; i < ROSTER_MAX; i++)
                assert_ptr_equal(roster_find(r, all[i].definition.name), i % 2 ? &all[i] : NULL);
        roster_insert(r, &all[0]);
        assert_in_order(r, ROSTER_MAX / 2 + 1);
        roster_remove(r, &all[0]);
        for (size_t i = 1; i < ROSTER_MAX; i += 2)
                roster_remove(r, &all[i]);
        assert_in_order(r, 0);
        free(r);
        free(all);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_all_that_fit),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
