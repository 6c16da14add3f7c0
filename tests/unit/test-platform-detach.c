/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A DIMM that leaves, or is refused, or of which nothing is heard. */

#include "platform-fixture.h"

static void test_detach(void **state)
{
        static const char *const events[] = {
                "event DEVICE_DELETED {'device':'opendlpar-dimm-0','path':'/machine/peripheral/"
                "opendlpar-dimm-0'}\n",
                "event DEVICE_DELETED {'path':'/machine/peripheral/opendlpar-dimm-0'}\n",
        };
        struct context *c = *state;

        start_up(c, "", "");
        for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
                struct record r = { 0 };

                script(c->fx->qmp, UNPLUG(0));
                script(c->fx->qmp, "event ACPI_DEVICE_OST {'info':{'device':'opendlpar-dimm-0','source':3,"
                                   "'status':132,'slot':'0','slot-type':'DIMM'}}\n");
                script(c->fx->qmp, events[i]);
                script(c->fx->qmp, "expect object-del {'id':'opendlpar-mem-0'}\n");
                detach(c, "opendlpar-mem-0", LIMIT_USEC, &r);
                RUN_SCRIPT(c);
                assert_int_equal(r.n, 0);
                script(c->fx->qmp, "reply\n");
                RUN(c, r.n == 1);
                assert_record(&r, ERROR_NONE, "");
        }
        assert_int_equal(c->n_deleted, 0);
        RUN_SCRIPT(c);
}

/* The event may come before the command's own reply; said twice, it deletes the backend once. */
static void test_detach_event_first(void **state)
{
        struct context *c = *state;
        struct record r = { 0 }, q = { 0 };

        start_up(c, "", "");
        query(c, &q);
        script(c->fx->qmp, "expect device_del @d\n" LEAVE(0) "event DEVICE_DELETED "
                                                             "{'device':'opendlpar-dimm-0'}\n"
                                                             "reply @d\nquiet 30\nreply\nquiet 30\n");
        detach(c, "opendlpar-mem-0", LIMIT_USEC, &r);
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_NONE, "");
        RUN_SCRIPT(c);
        assert_int_equal(r.n, 1);
        assert_int_equal(c->n_deleted, 0);
        platform_snapshot_done(&q.snapshot);
}

static void test_detach_backend(void **state)
{
        struct context *c = *state;
        struct record r = { 0 }, none = { 0 };

        start_up(c, "", UNPLUG(0) LEAVE(0) "error GenericError object is in use\n");
        detach(c, "opendlpar-mem-0", LIMIT_USEC, &r);
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_ACCOUNTS_DIFFER, "the device has left, but its backend opendlpar-mem-0");

        /* Without a backend there is none to delete. */
        script(c->fx->qmp, UNPLUG(0) "event DEVICE_DELETED {'device':'opendlpar-dimm-0'}\nquiet 30\n");
        detach(c, "", LIMIT_USEC, &none);
        RUN(c, none.n == 1);
        assert_record(&none, ERROR_NONE, "");
        RUN_SCRIPT(c);
}

static void test_detach_ost(void **state)
{
        static const struct {
                const char *info;
                bool refused;
        } rows[] = {
                { "'device':'opendlpar-dimm-0','source':3,'status':132", false },
                { "'device':'opendlpar-dimm-0','source':3,'status':0", false },
                { "'source':3,'status':130", false }, /* of no device */
                { "'device':'opendlpar-dimm-9','source':3,'status':130", false },
                { "'device':'opendlpar-dimm-0','source':1,'status':130", false }, /* an insertion */
                { "'device':7,'source':3,'status':130", false },
                { "'device':'opendlpar-dimm-0','source':-3,'status':130", false },
                { "'device':'opendlpar-dimm-0','source':3", false },
                { "'device':'opendlpar-dimm-0','source':3,'status':130", true },
                { "'device':'opendlpar-dimm-0','source':3,'status':1", true },
                { "'device':'opendlpar-dimm-0','source':259,'status':130", true },
        };
        struct context *c = *state;

        start_up(c, "", "");
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct record r = { 0 };
                char text[512];

                snprintf(text, sizeof(text),
                        UNPLUG(0) "event ACPI_DEVICE_OST {'info':{%s,'slot':'0','slot-type':'DIMM'}}\n%s",
                        rows[i].info, rows[i].refused ? "" : LEAVE(0) "reply\n");
                script(c->fx->qmp, text);
                detach(c, "opendlpar-mem-0", LIMIT_USEC, &r);
                RUN(c, r.n == 1);
                assert_record(&r, rows[i].refused ? ERROR_UNPLUG_REFUSED : ERROR_NONE,
                        rows[i].refused ? "opendlpar-dimm-0" : "");
                RUN_SCRIPT(c);
        }
        script(c->fx->qmp, "event ACPI_DEVICE_OST {}\nevent ACPI_DEVICE_OST\nevent ACPI_DEVICE_OST "
                           "{'info':[]}\n");
        RUN_SCRIPT(c);
        drain(c);
}

static void test_detach_guest_errors(void **state)
{
        static const char *const events[] = {
                "event DEVICE_UNPLUG_GUEST_ERROR {'device':'opendlpar-dimm-0','path':'/x'}\n",
                "event DEVICE_UNPLUG_GUEST_ERROR {'path':'/machine/peripheral/opendlpar-dimm-0'}\n",
                "event MEM_UNPLUG_ERROR {'device':'opendlpar-dimm-0','msg':'Memory hotunplug rejected'}\n",
        };
        struct context *c = *state;

        start_up(c, "", "");
        for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
                struct record r = { 0 };

                script(c->fx->qmp, UNPLUG(0));
                script(c->fx->qmp, events[i]);
                script(c->fx->qmp, events[i]);
                script(c->fx->qmp, "event MEM_UNPLUG_ERROR\nevent DEVICE_UNPLUG_GUEST_ERROR {}\n");
                detach(c, "opendlpar-mem-0", LIMIT_USEC, &r);
                RUN(c, r.n == 1);
                assert_record(&r, ERROR_UNPLUG_REFUSED, "kernel could not release");
                drain(c); /* behind the second event */
                assert_int_equal(r.n, 1);
                RUN_SCRIPT(c);
        }
}

static void test_detach_refused(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };

        start_up(c, "",
                "expect device_del\nerror GenericError Memory unplug already in progress\nquiet "
                "20\n");
        detach(c, "opendlpar-mem-0", LIMIT_USEC, &r);
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_HYPERVISOR_REFUSED, "already in progress");
        RUN_SCRIPT(c);
}

/* A guest that was reset is not asked again: its blocks may be online. */
static void test_detach_reset(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };

        start_up(c, "", "");
        script(c->fx->qmp, UNPLUG(0) "event RESET {'guest':true,'reason':'guest-reset'}\nquiet 1200\n");
        detach(c, "opendlpar-mem-0", 1100 * USEC_PER_MSEC, &r);
        RUN_SCRIPT(c);
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_UNPLUG_PENDING, "opendlpar-dimm-0");
}

/* Silence: said again after a second, in vain; the guest lets go long after nobody waits any more. */
static void test_detach_silence(void **state)
{
        struct context *c = *state;
        struct record r = { 0 }, q = { 0 };

        start_up(c, "", "");
        query(c, &q);
        script(c->fx->qmp, UNPLUG(0) "expect device_del {'id':'opendlpar-dimm-0'}\n"
                                     "error GenericError already in the process of unplug\n");
        uint64_t began = now_monotonic_usec();
        detach(c, "opendlpar-mem-0", 1100 * USEC_PER_MSEC, &r);
        RUN_SCRIPT(c);
        assert_true(now_monotonic_usec() - began >= USEC_PER_SEC);
        assert_int_equal(r.n, 0);
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_UNPLUG_PENDING, "opendlpar-dimm-0");

        script(c->fx->qmp, LEAVE(0) "reply\n");
        RUN(c, c->n_deleted == 1);
        assert_string_equal(c->deleted, "opendlpar-dimm-0");
        RUN_SCRIPT(c);
        /* Once. */
        script(c->fx->qmp, "event DEVICE_DELETED {'device':'opendlpar-dimm-0'}\nquiet 20\n");
        RUN_SCRIPT(c);
        assert_int_equal(c->n_deleted, 1);
        assert_int_equal(r.n, 1);
        platform_snapshot_done(&q.snapshot);
}

/* On pseries device_del is said once, and the device is marked until something is heard of it. */
static void start_up_pseries(struct context *c, struct record *q)
{
        start_up(c, "on query-target reply {'arch':'ppc64'}\n", "");
        query(c, q);
        assert_false(q->snapshot.devices[0].unplug_pending);
}

static bool is_pending(struct context *c, struct record *q)
{
        query(c, q);
        assert_int_equal(q->snapshot.n_devices, 1);
        return q->snapshot.devices[0].unplug_pending;
}

#define REFUSED_ON_PSERIES                                                                                   \
        "event MEM_UNPLUG_ERROR {'device':'opendlpar-dimm-0','msg':'Memory hotunplug rejected by the "       \
        "guest'}\n"                                                                                          \
        "event DEVICE_UNPLUG_GUEST_ERROR {'device':'opendlpar-dimm-0','path':'/machine/peripheral/x'}\n"     \
        "event DEVICE_UNPLUG_GUEST_ERROR {'device':'opendlpar-dimm-0','path':'/machine/peripheral/x'}\n"

static void test_detach_silence_on_pseries(void **state)
{
        static const struct {
                const char *news;
                unsigned n_changed, n_reset, n_down;
        } rows[] = {
                { REFUSED_ON_PSERIES, 1, 0, 0 },
                { "event RESET {'guest':true,'reason':'guest-reset'}\n", 0, 1, 0 },
                { "close\nnegotiate\n", 0, 0, 1 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct record r = { 0 }, q = { 0 };
                void *again;
                setup(&again);
                struct context *c = again;

                start_up_pseries(c, &q);
                script(c->fx->qmp, i == 0 ? UNPLUG(0) "quiet 1050\n" : UNPLUG(0));
                detach(c, "opendlpar-mem-0", i == 0 ? 1100 * USEC_PER_MSEC : 50 * USEC_PER_MSEC, &r);
                RUN(c, r.n == 1);
                assert_record(&r, ERROR_UNPLUG_PENDING, "at the latest when the guest is reset");
                RUN_SCRIPT(c);
                assert_true(is_pending(c, &q));
                assert_true(is_pending(c, &q));

                script(c->fx->qmp, rows[i].news);
                RUN_SCRIPT(c);
                RUN(c, c->n_down == rows[i].n_down && c->n_up == 1 + rows[i].n_down);
                assert_false(is_pending(c, &q));
                assert_int_equal(c->n_changed, rows[i].n_changed);
                assert_int_equal(c->n_reset, rows[i].n_reset);
                platform_snapshot_done(&q.snapshot);
                teardown(&again);
        }
}

/* What was pending leaves with the reset, which QEMU says first; one that comes by that name again is new. */
static void test_pending_leaves_with_reset(void **state)
{
        struct context *c = *state;
        struct record r = { 0 }, q = { 0 };

        start_up_pseries(c, &q);
        script(c->fx->qmp, UNPLUG(0));
        detach(c, "opendlpar-mem-0", 50 * USEC_PER_MSEC, &r);
        RUN(c, r.n == 1);
        script(c->fx->qmp, DEVICES("", "0") LEAVE(0) "reply\nevent RESET {'guest':true}\n");
        RUN_SCRIPT(c);
        RUN(c, c->n_reset == 1);
        assert_int_equal(c->n_deleted, 1);
        script(c->fx->qmp, DEVICES("<0 4G 1G>", "1G"));
        assert_false(is_pending(c, &q));
        platform_snapshot_done(&q.snapshot);
}

/* One refusal, three events: one word of it, and none for the next try. */
static void test_detach_refused_on_pseries(void **state)
{
        struct context *c = *state;
        struct record r = { 0 }, next = { 0 }, q = { 0 };

        start_up_pseries(c, &q);
        script(c->fx->qmp, UNPLUG(0) REFUSED_ON_PSERIES);
        detach(c, "opendlpar-mem-0", LIMIT_USEC, &r);
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_UNPLUG_REFUSED, "kernel could not release");
        assert_false(is_pending(c, &q));
        assert_int_equal(r.n, 1);
        assert_int_equal(c->n_changed, 0);

        script(c->fx->qmp, UNPLUG(0) LEAVE(0) "reply\n");
        detach(c, "opendlpar-mem-0", LIMIT_USEC, &next);
        RUN(c, next.n == 1);
        assert_record(&next, ERROR_NONE, "");
        platform_snapshot_done(&q.snapshot);
}

static void test_detach_wedged_on_pseries(void **state)
{
        struct context *c = *state;
        struct record r = { 0 }, q = { 0 };

        start_up_pseries(c, &q);
        script(c->fx->qmp,
                "expect device_del\n"
                "error GenericError Memory unplug already in progress for device opendlpar-dimm-0\n");
        detach(c, "opendlpar-mem-0", LIMIT_USEC, &r);
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_UNPLUG_PENDING, "a reset of the guest ends that");
        assert_true(is_pending(c, &q));
        platform_snapshot_done(&q.snapshot);
}

/* What QEMU refuses in a way that an operator can act on. */
static void test_refusals_with_a_code(void **state)
{
        static const struct {
                const char *words;
                enum error_code code;
                const char *part;
        } rows[] = {
                { "'DIMM property node has value 7' which exceeds the number of numa nodes: 1",
                        ERROR_UNKNOWN_NODE, "only node 0" },
                { "'DIMM property node has value 7' which exceeds the number of numa nodes: 4",
                        ERROR_UNKNOWN_NODE, "nodes 0 to 3" },
                { "'DIMM property node has value 7' which exceeds the number of numa nodes: many",
                        ERROR_HYPERVISOR_REFUSED, "many" },
                { "device_add not allowed while migrating", ERROR_NOT_RUNNING, "is being migrated" },
        };
        struct context *c = *state;
        struct record r = { 0 };
        char text[400];

        start_up(c, "on object-add reply\non object-del reply\n", "");
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                snprintf(text, sizeof(text), "on device_add error GenericError %s\n", rows[i].words);
                script(c->fx->qmp, text);
                r.n = 0;
                attach(c, 7, &r);
                RUN(c, r.n == 1);
                assert_record(&r, rows[i].code, rows[i].part);
        }
        script(c->fx->qmp, "on device_del error GenericError device_del not allowed while migrating\n");
        r.n = 0;
        detach(c, "opendlpar-mem-0", LIMIT_USEC, &r);
        RUN(c, r.n == 1);
        assert_record(&r, ERROR_NOT_RUNNING, "is being migrated");
}

static void test_detach_freed(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };

        start_up(c, "", UNPLUG(0) LEAVE(0) "reply\n");
        assert_null(platform_op_free(detach(c, "opendlpar-mem-0", LIMIT_USEC, &r)));
        RUN_SCRIPT(c);
        drain(c);
        assert_int_equal(r.n, 0);
}

static void test_detach_connection_lost(void **state)
{
        struct context *c = *state;
        struct record waiting = { 0 }, other = { 0 }, asked = { 0 };

        start_up(c, "", UNPLUG(0) "expect device_del {'id':'other'}\nreply\nexpect device_del\nclose\n");
        detach(c, "opendlpar-mem-0", LIMIT_USEC, &waiting);
        assert_int_equal(platform_detach(c->platform, "other", "", LIMIT_USEC, on_done, &other, NULL), 0);
        assert_int_equal(platform_detach(c->platform, "third", "", LIMIT_USEC, on_done, &asked, NULL), 0);
        RUN(c, c->n_down == 1);
        assert_record(&waiting, ERROR_HYPERVISOR_ABSENT, "closed");
        assert_record(&other, ERROR_HYPERVISOR_ABSENT, "closed");
        assert_record(&asked, ERROR_HYPERVISOR_ABSENT, "closed");
        RUN_SCRIPT(c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_detach),
                TEST(test_detach_event_first),
                TEST(test_detach_backend),
                TEST(test_detach_ost),
                TEST(test_detach_guest_errors),
                TEST(test_detach_refused),
                TEST(test_detach_reset),
                TEST(test_detach_silence),
                cmocka_unit_test(test_detach_silence_on_pseries),
                TEST(test_pending_leaves_with_reset),
                TEST(test_detach_refused_on_pseries),
                TEST(test_detach_wedged_on_pseries),
                TEST(test_refusals_with_a_code),
                TEST(test_detach_freed),
                TEST(test_detach_connection_lost),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
