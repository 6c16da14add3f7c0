/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A DIMM that comes, in one step or two, and what is undone where it does not. */

#include "platform-fixture.h"

static void test_attach(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };

        start_up(c, "",
                "expect object-add {'qom-type':'memory-backend-ram','id':'opendlpar-mem-1','size':1G}\n"
                "reply\n"
                "expect device_add "
                "{'driver':'pc-dimm','id':'opendlpar-dimm-1','memdev':'opendlpar-mem-1','node':1}\n");
        attach(c, 1, &r);
        RUN_SCRIPT(c);
        assert_int_equal(r.n, 0);
        script(c->fx->qmp, "reply\n");
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_NONE, "");
        RUN_SCRIPT(c);
}

/* Both commands are on their way already when the first one fails; its error is the one that tells. */
static void test_attach_object_refused(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };

        start_up(c, "",
                "expect object-add\nerror GenericError Cannot allocate memory\n"
                "expect device_add\nerror GenericError Property memdev: not found\nquiet 30\n");
        attach(c, -1, &r);
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_HYPERVISOR_REFUSED, "Cannot allocate memory");
        RUN_SCRIPT(c);
}

static void test_attach_device_refused(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };

        start_up(c, "",
                PLUG(1) "error GenericError no slots left\n"
                        "expect object-del {'id':'opendlpar-mem-1'}\n");
        attach(c, -1, &r);
        RUN_SCRIPT(c);
        assert_int_equal(r.n, 0); /* not before the backend is gone */
        script(c->fx->qmp, "reply\n");
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_HYPERVISOR_REFUSED, "no slots left");
        assert_null(strstr(r.text, "backend"));
        RUN_SCRIPT(c);
}

static void test_attach_rollback_refused(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };

        start_up(c, "",
                PLUG(1) "error GenericError no slots left\n"
                        "expect object-del\nerror GenericError object is in use\n");
        attach(c, -1, &r);
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_HYPERVISOR_REFUSED, "no slots left; and its backend opendlpar-mem-1");
        assert_non_null(strstr(r.text, "object is in use"));
        RUN_SCRIPT(c);
}

static void test_attach_connection_lost(void **state)
{
        static const char *const scripts[] = {
                "expect object-add\nexpect device_add\nclose\n",
                "expect object-add\nreply\nexpect device_add\nclose\n",
                PLUG(1) "error GenericError no\nexpect object-del\nclose\n",
        };
        struct context *c = *state;

        start_up(c, "", "");
        for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
                struct record r = { 0 };

                script(c->fx->qmp, scripts[i]);
                attach(c, -1, &r);
                RUN(c, r.n == 1);
                assert_int_equal(r.code, i == 2 ? ERROR_HYPERVISOR_REFUSED : ERROR_HYPERVISOR_ABSENT);
                assert_int_equal(!!strstr(r.text, "could not be deleted"), i == 2);
                RUN_SCRIPT(c);
                script(c->fx->qmp, "negotiate\n");
                RUN(c, c->n_up == i + 2);
        }
        assert_int_equal(c->n_down, ARRAY_SIZE(scripts));
}

/* The owner went away: what is under way is still made whole. */
static void test_attach_freed(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };

        start_up(c, "",
                PLUG(1) "error GenericError no slots left\n"
                        "expect object-del {'id':'opendlpar-mem-1'}\nreply\n");
        assert_null(platform_op_free(attach(c, -1, &r)));
        RUN_SCRIPT(c);
        drain(c);
        assert_int_equal(r.n, 0);
}

/* --- an attach in two steps --- */

static struct platform_op *stage(struct context *c, struct record *r)
{
        struct platform_op *op = NULL;

        assert_int_equal(platform_stage_dimm(c->platform, "opendlpar-dimm-1", "opendlpar-mem-1", GIB, -1,
                                 on_done, r, &op),
                0);
        return op;
}

static void test_staged(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };

        start_up(c, "", MAKE(1) "quiet 20\n");
        struct platform_op *op = stage(c, &r);
        RUN_SCRIPT(c);
        assert_int_equal(r.n, 0);
        script(c->fx->qmp, INSERT(1) "reply\nquiet 20\n");
        assert_int_equal(platform_attach_staged(op), 0);
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_NONE, "");
        RUN_SCRIPT(c);
}

static void test_staged_refused(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };

        start_up(c, "", "expect object-add\nerror GenericError Cannot allocate memory\n");
        struct platform_op *op = stage(c, &r);
        RUN_SCRIPT(c);
        assert_int_equal(r.n, 0);
        script(c->fx->qmp, "expect device_add\nerror GenericError Property memdev: not found\nquiet 20\n");
        assert_int_equal(platform_attach_staged(op), 0);
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_HYPERVISOR_REFUSED, "Cannot allocate memory");
        RUN_SCRIPT(c);
}

/* Not needed after all: what was made is taken back, also when QEMU has not answered yet. */
static void test_staged_freed(void **state)
{
        static const struct {
                const char *before, *after;
        } rows[] = {
                { MAKE(1), UNMAKE(1) },
                { "expect object-add @add\n", UNMAKE(1) "reply @add\n" },
                { "expect object-add\nerror GenericError no\n", "quiet 20\n" },
        };
        struct context *c = *state;
        struct record r = { 0 };

        start_up(c, "", "");
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                script(c->fx->qmp, rows[i].before);
                struct platform_op *op = stage(c, &r);
                RUN_SCRIPT(c);
                drain(c);
                script(c->fx->qmp, rows[i].after);
                assert_null(platform_op_free(op));
                RUN_SCRIPT(c);
                drain(c);
        }
        assert_int_equal(r.n, 0);
}

/* Whatever answers then is not known to have the backend: nothing is sent to it. */
static void test_staged_connection_lost(void **state)
{
        static const char *const scripts[] = {
                MAKE(1) "close\nnegotiate\n",
                "expect object-add\nclose\nnegotiate\n",
        };
        struct context *c = *state;
        struct record r = { 0 };

        start_up(c, "", "");
        for (unsigned i = 0; i < 2 * ARRAY_SIZE(scripts); i++) {
                script(c->fx->qmp, scripts[i / 2]);
                struct platform_op *op = stage(c, &r);
                RUN(c, c->n_up == i + 2);
                script(c->fx->qmp, "quiet 20\n");
                if (i % 2 == 0)
                        assert_int_equal(platform_attach_staged(op), -ENOTCONN);
                else
                        assert_null(platform_op_free(op));
                RUN_SCRIPT(c);
        }
        assert_int_equal(r.n, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_attach),
                TEST(test_attach_object_refused),
                TEST(test_attach_device_refused),
                TEST(test_attach_rollback_refused),
                TEST(test_attach_connection_lost),
                TEST(test_attach_freed),
                TEST(test_staged),
                TEST(test_staged_refused),
                TEST(test_staged_freed),
                TEST(test_staged_connection_lost),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
