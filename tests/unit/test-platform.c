/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A platform by QMP: what it asks, what it is told, and what it resizes. */

#include "platform-fixture.h"

static void test_not_up(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };
        struct platform_op *op = NULL;

        assert_int_equal(platform_query(c->platform, false, on_snapshot, &r, &op), -ENOTCONN);
        assert_int_equal(platform_attach_dimm(c->platform, "d", "b", GIB, -1, on_done, &r, &op), -ENOTCONN);
        assert_int_equal(platform_stage_dimm(c->platform, "d", "b", GIB, -1, on_done, &r, &op), -ENOTCONN);
        assert_int_equal(platform_detach(c->platform, "d", "b", 1, on_done, &r, &op), -ENOTCONN);
        assert_int_equal(platform_delete_backend(c->platform, "b", on_done, &r, &op), -ENOTCONN);
        assert_null(op);
        RUN(c, c->n_down == 1);
        assert_int_equal(r.n, 0);
        assert_null(platform_free(NULL));
        assert_null(platform_op_free(NULL));
}

static void test_query(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };
        const struct platform_snapshot *s = &r.snapshot;

        start_up(c, "", "");
        query(c, &r);
        assert_record(&r, ERROR_NONE, "");
        assert_int_equal(s->state, RUN_RUNNING);
        assert_string_equal(s->uuid, "00000000-0000-0000-0000-000000000000");
        assert_string_equal(s->arch, "x86_64");
        assert_int_equal(s->base_bytes, GIB);
        assert_int_equal(s->plugged_bytes, GIB);
        assert_int_equal(s->max_bytes, 16 * GIB);
        assert_int_equal(s->balloon_bytes, 512 * MIB);
        assert_int_equal(s->slots, 16);
        assert_int_equal(s->n_devices, 1);
        assert_string_equal(s->devices[0].id, "opendlpar-dimm-0");
        assert_string_equal(s->devices[0].memdev, "opendlpar-mem-0");
        assert_int_equal(s->n_backends, 1);
        assert_string_equal(s->backends[0], "opendlpar-mem-0");

        /* No balloon device is no error. */
        script(c->fx->qmp, "on query-balloon error DeviceNotActive No balloon\n"
                           "on query-migrate reply {'status':'active'}\n");
        query(c, &r);
        assert_int_equal(r.code, ERROR_NONE);
        assert_int_equal(s->balloon_bytes, 0);
        assert_int_equal(s->state, RUN_MIGRATING);
        RUN_SCRIPT(c);
        platform_snapshot_done(&r.snapshot);
}

static void test_query_fails_as_a_whole(void **state)
{
        static const struct {
                const char *command, *good;
        } parts[] = {
                { "query-status", "{'status':'running'}" },
                { "query-migrate", "{}" },
                { "query-memory-size-summary", "{'base-memory':1G}" },
                { "qom-get", "{'size':1G}" },
                { "query-memory-devices", "[]" },
                { "qom-list", "[]" },
                { "query-uuid", "{'UUID':'x'}" },
                { "query-target", "{'arch':'x86_64'}" },
        };
        struct context *c = *state;
        struct record r = { 0 };
        char text[200];

        start_up(c, "", "");
        for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
                snprintf(text, sizeof(text), "on %s error GenericError Not today\n", parts[i].command);
                script(c->fx->qmp, text);
                r.n = 0;
                query(c, &r);
                assert_record(&r, ERROR_HYPERVISOR_REFUSED, "Not today");

                snprintf(text, sizeof(text), "on %s reply 7\n", parts[i].command);
                script(c->fx->qmp, text);
                r.n = 0;
                query(c, &r);
                assert_record(&r, ERROR_HYPERVISOR_MISBEHAVED, parts[i].command);

                snprintf(text, sizeof(text), "on %s reply %s\n", parts[i].command, parts[i].good);
                script(c->fx->qmp, text);
                r.n = 0;
                query(c, &r);
                assert_record(&r, ERROR_NONE, "");
                /* What cannot change is asked for once for each connection. */
                script(c->fx->qmp, "close\nnegotiate\n");
                RUN(c, c->n_up == i + 2);
        }
        script(c->fx->qmp, "on query-balloon reply {'actual':'much'}\n");
        r.n = 0;
        query(c, &r);
        assert_record(&r, ERROR_HYPERVISOR_MISBEHAVED, "query-balloon");
        RUN_SCRIPT(c);
        platform_snapshot_done(&r.snapshot);
}

/* Asked for once: the machine, and a balloon that is not there, until one shows. */
static void test_query_constants(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };
        const struct platform_snapshot *s = &r.snapshot;

        start_up(c, "on query-balloon error DeviceNotActive No balloon\n", "");
        query(c, &r);
        assert_int_equal(s->balloon_bytes, 0);
        script(c->fx->qmp,
                "on human-monitor-command error GenericError Again\n"
                "on qom-get error GenericError Again\non query-uuid error GenericError Again\n"
                "on query-target error GenericError Again\non query-balloon reply {'actual':1536M}\n");
        for (unsigned i = 0; i < 2; i++) {
                r.n = 0;
                query(c, &r);
                assert_record(&r, ERROR_NONE, "");
                assert_string_equal(s->uuid, "00000000-0000-0000-0000-000000000000");
                assert_string_equal(s->arch, "x86_64");
                assert_int_equal(s->max_bytes, 16 * GIB);
                assert_int_equal(s->slots, 16);
                assert_int_equal(s->plugged_bytes, GIB);
                assert_int_equal(s->balloon_bytes, i == 0 ? 0 : 512 * MIB);
                script(c->fx->qmp, "event BALLOON_CHANGE {'actual':1536M}\n");
                RUN(c, c->n_balloon == i + 1);
        }
        script(c->fx->qmp, "close\nnegotiate\n");
        RUN(c, c->n_up == 2);
        r.n = 0;
        query(c, &r);
        assert_record(&r, ERROR_HYPERVISOR_REFUSED, "Again");
        RUN_SCRIPT(c);
        platform_snapshot_done(&r.snapshot);
}

static void test_query_lost_and_freed(void **state)
{
        struct context *c = *state;
        struct record lost = { 0 }, freed = { 0 };
        struct platform_op *op;

        start_up(c, "on query-balloon error DeviceNotActive No balloon\n", "expect query-uuid\nclose\n");
        assert_int_equal(platform_query(c->platform, false, on_snapshot, &lost, NULL), 0);
        assert_int_equal(platform_query(c->platform, false, on_snapshot, &freed, &op), 0);
        assert_null(platform_op_free(op));
        RUN(c, lost.n == 1);
        assert_record(&lost, ERROR_HYPERVISOR_ABSENT, "closed");
        assert_int_equal(freed.n, 0);
        assert_int_equal(c->n_down, 1);
}

#define BALLOON_DEVICE(path)                                                                                 \
        "on qom-get {'path':'" path "','property':'deflate-on-oom'} reply true\n"                            \
        "on qom-get {'path':'" path "','property':'free-page-reporting'} reply false\n"                      \
        "on qom-get {'path':'" path "','property':'guest-stats'} reply {'last-update':1700000000,'stats':{"  \
        "'stat-available-memory':512M,'stat-free-memory':256M,'stat-total-memory':18446744073709551615}}\n"

/* It may have no id. What it is like is asked once; its statistics, which are switched on if nobody else has,
 * in each query of everything. */
static void test_balloon(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };
        const struct platform_balloon *b = &r.snapshot.balloon;

        start_up(c,
                "on qom-list {'path':'/machine/peripheral'} reply "
                "[{'name':'vm0','type':'child<virtio-mem-pci>'}]\n"
                "on qom-list {'path':'/machine/peripheral-anon'} reply "
                "[{'name':'device[0]','type':'child<virtio-balloon-pci>'}]\n" BALLOON_DEVICE(
                        "/machine/peripheral-anon/device[0]"),
                "expect qom-get {'property':'guest-stats-polling-interval'}\nreply 0\n"
                "expect qom-set {'path':'/machine/peripheral-anon/device[0]',"
                "'property':'guest-stats-polling-interval','value':5}\nreply\n");
        query(c, &r);
        assert_record(&r, ERROR_NONE, "");
        RUN_SCRIPT(c);
        assert_true(b->present && b->deflate_on_oom && !b->free_page_reporting);
        assert_int_equal(b->actual_bytes, 1536 * MIB);
        assert_int_equal(b->stats.updated_sec, 1700000000);
        assert_int_equal(b->stats.available_bytes, 512 * MIB);
        assert_true(b->stats.total_bytes == UINT64_MAX);

        script(c->fx->qmp, "on qom-list {'path':'/machine/peripheral'} error GenericError Again\n"
                           "on qom-get {'property':'deflate-on-oom'} error GenericError Again\n");
        r.n = 0;
        query(c, &r);
        assert_record(&r, ERROR_NONE, "");
        assert_true(b->deflate_on_oom);
        assert_int_equal(b->stats.available_bytes, 512 * MIB);
        platform_snapshot_done(&r.snapshot);
}

static void move(struct context *c, const char *device, uint64_t bytes, struct record *r)
{
        *r = (struct record) { 0 };
        if (device)
                assert_int_equal(platform_resize(c->platform, device, bytes, on_done, r, NULL), 0);
        else
                assert_int_equal(platform_set_balloon(c->platform, bytes, on_done, r, NULL), 0);
        RUN(c, r->n == 1);
}

static void test_move(void **state)
{
        struct context *c = *state;
        struct record r = { 0 };

        start_up(c, "on qom-list reply []\n", "");
        query(c, &r);
        platform_snapshot_done(&r.snapshot);
        script(c->fx->qmp,
                "expect qom-set {'path':'/machine/peripheral/vm0','property':'requested-size','value':1G}\n"
                "reply\n");
        move(c, "vm0", GIB, &r);
        assert_record(&r, ERROR_NONE, "");
        script(c->fx->qmp, "expect qom-set\nerror GenericError 'requested-size' has to be multiples\n");
        move(c, "vm0", 1, &r);
        assert_record(&r, ERROR_HYPERVISOR_REFUSED, "has to be multiples");

        /* On its way, the balloon is part of a query of devices alone; elsewhere it is not. */
        script(c->fx->qmp, "expect balloon {'value':512M}\nreply\n");
        move(c, NULL, 512 * MIB, &r);
        assert_record(&r, ERROR_NONE, "");
        for (unsigned i = 0; i < 3; i++) {
                static const char *const answers[] = { "1G", "512M", "1G" };
                char text[128];

                snprintf(text, sizeof(text), "on query-balloon reply {'actual':%s}\n", answers[i]);
                script(c->fx->qmp, text);
                r = (struct record) { 0 };
                assert_int_equal(platform_query(c->platform, true, on_snapshot, &r, NULL), 0);
                RUN(c, r.n == 1);
                assert_int_equal(r.snapshot.balloon.present, i < 2);
                assert_int_equal(r.snapshot.balloon.actual_bytes, i == 0 ? GIB : i == 1 ? 512 * MIB : 0);
                platform_snapshot_done(&r.snapshot);
        }
        RUN_SCRIPT(c);
}

static void test_stranger_deleted(void **state)
{
        struct context *c = *state;
        struct record q = { 0 };

        start_up(c, "", "event DEVICE_DELETED {'device':'opendlpar-dimm-0'}\n"); /* before any query */
        query(c, &q);
        script(c->fx->qmp, "event DEVICE_DELETED {'device':'net0','path':'/machine/peripheral/net0'}\n"
                           "event DEVICE_DELETED {'path':'/machine/peripheral/net0/virtio-backend'}\n"
                           "event DEVICE_DELETED {'path':'nonsense'}\n"
                           "event DEVICE_DELETED {}\nevent DEVICE_DELETED\nquiet 20\n");
        RUN_SCRIPT(c);
        assert_int_equal(c->n_deleted, 0);

        /* Its backend will not go: that is not for the owner. */
        script(c->fx->qmp, LEAVE(0) "error GenericError in use\n");
        RUN(c, c->n_deleted == 1);
        RUN_SCRIPT(c);
        platform_snapshot_done(&q.snapshot);
}

static void test_delete_backend(void **state)
{
        struct context *c = *state;
        struct record good = { 0 }, bad = { 0 };

        start_up(c, "",
                "expect object-del {'id':'m1'}\nreply\n"
                "expect object-del {'id':'m2'}\nerror GenericError object is in use\n");
        assert_int_equal(platform_delete_backend(c->platform, "m1", on_done, &good, NULL), 0);
        assert_int_equal(platform_delete_backend(c->platform, "m2", on_done, &bad, NULL), 0);
        RUN(c, good.n == 1 && bad.n == 1);
        assert_record(&good, ERROR_NONE, "");
        assert_record(&bad, ERROR_HYPERVISOR_REFUSED, "in use");
        RUN_SCRIPT(c);
}

static void test_port(void **state)
{
        struct context *c = *state;
        char text[300];

        start_up(c, "", "");
        RUN_SCRIPT(c);
        drain(c);
        assert_int_equal(c->n_port, 0); /* no chardev is ours */
        for (unsigned i = 0; i < 2; i++) {
                snprintf(text, sizeof(text),
                        "event VSERPORT_CHANGE {'open':true,'id':'port0'}\nexpect query-chardev\n"
                        "reply [{'frontend-open':%s,'filename':'unix:%s,server=on','label':'c0'}]\n",
                        i == 0 ? "true" : "false", c->fx->channel_path);
                script(c->fx->qmp, text);
                RUN(c, c->n_port == i + 1);
                assert_int_equal(c->port_open, i == 0);
        }
        /* What cannot be told is not said. */
        script(c->fx->qmp, "event VSERPORT_CHANGE\nexpect query-chardev\nerror GenericError no\n"
                           "event VSERPORT_CHANGE\nexpect query-chardev\nreply {}\n");
        RUN_SCRIPT(c);
        drain(c);
        assert_int_equal(c->n_port, 2);
}

static void test_other_events(void **state)
{
        struct context *c = *state;

        start_up(c, "", "event RESET {'guest':true,'reason':'guest-reset'}\n");
        RUN(c, c->n_reset == 1);
        script(c->fx->qmp, "event STOP\nevent RESUME\nevent BALLOON_CHANGE {'actual':1G}\n"
                           "event MEMORY_DEVICE_SIZE_CHANGE {'id':'vm0','size':2G,'qom-path':'/x'}\n"
                           /* of a device without an id, and what makes no sense */
                           "event MEMORY_DEVICE_SIZE_CHANGE {'size':2G,'qom-path':'/x'}\n"
                           "event BALLOON_CHANGE {}\nevent GUEST_PANICKED {}\n"
                           "event SHUTDOWN\nevent RTC_CHANGE {'offset':1}\n");
        RUN(c, c->n_changed == 5);
        RUN_SCRIPT(c);
        drain(c);
        assert_int_equal(c->n_changed, 5);
        assert_int_equal(c->n_balloon, 1);
        assert_int_equal(c->balloon_bytes, GIB);
        assert_int_equal(c->n_sized, 1);
        assert_string_equal(c->sized, "vm0 2147483648");
        assert_int_equal(c->n_reset, 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_not_up),
                TEST(test_query),
                TEST(test_query_fails_as_a_whole),
                TEST(test_query_constants),
                TEST(test_query_lost_and_freed),
                TEST(test_balloon),
                TEST(test_move),
                TEST(test_stranger_deleted),
                TEST(test_delete_backend),
                TEST(test_port),
                TEST(test_other_events),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
