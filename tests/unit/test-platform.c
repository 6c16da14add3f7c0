/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

#include "hvd/platform/platform.h"

/* One platform and one scripted QEMU; the fixture's manager and guest stay unused. */
struct context {
        struct fixture *fx;
        struct platform *platform;
        unsigned n_up, n_down, n_reset, n_port, n_deleted, n_sized, n_balloon, n_changed;
        bool port_open;
        char deleted[PLATFORM_ID_MAX], sized[PLATFORM_ID_MAX + 24];
        uint64_t balloon_bytes;
};

/* What an operation came to. */
struct record {
        unsigned n;
        enum error_code code;
        char text[ERROR_MESSAGE_MAX];
        struct platform_snapshot snapshot;
};

#define RUN(c, condition) RUN_UNTIL((c)->fx, condition)
#define RUN_SCRIPT(c)     RUN(c, fake_finished((c)->fx->qmp))

static void on_up(struct platform *p, void *userdata)
{
        struct context *c = userdata;
        c->n_up++;
}

static void on_down(struct platform *p, const struct error *error, void *userdata)
{
        struct context *c = userdata;
        assert_true(error->message[0]);
        c->n_down++;
}

static void on_reset(struct platform *p, void *userdata)
{
        struct context *c = userdata;
        c->n_reset++;
}

static void on_port(struct platform *p, bool open, void *userdata)
{
        struct context *c = userdata;
        c->n_port++;
        c->port_open = open;
}

static void on_device_deleted(struct platform *p, const char *id, void *userdata)
{
        struct context *c = userdata;
        c->n_deleted++;
        snprintf(c->deleted, sizeof(c->deleted), "%s", id);
}

static void on_device_size(struct platform *p, const char *id, uint64_t size_bytes, void *userdata)
{
        struct context *c = userdata;
        c->n_sized++;
        snprintf(c->sized, sizeof(c->sized), "%s %llu", id, (unsigned long long)size_bytes);
}

static void on_balloon(struct platform *p, uint64_t actual_bytes, void *userdata)
{
        struct context *c = userdata;
        c->n_balloon++;
        c->balloon_bytes = actual_bytes;
}

static void on_changed(struct platform *p, void *userdata)
{
        struct context *c = userdata;
        c->n_changed++;
}

static void on_done(const struct error *error, void *userdata)
{
        struct record *r = userdata;

        r->n++;
        r->code = error ? error->code : ERROR_NONE;
        snprintf(r->text, sizeof(r->text), "%s", error ? error->message : "");
}

static void on_snapshot(struct platform_snapshot *s, const struct error *error, void *userdata)
{
        struct record *r = userdata;

        assert_true(!s != !error);
        on_done(error, r);
        platform_snapshot_done(&r->snapshot);
        if (s) {
                r->snapshot = *s;
                *s = (struct platform_snapshot) { 0 };
        }
}

static int setup(void **state)
{
        static const struct platform_handlers handlers = {
                .on_up = on_up,
                .on_down = on_down,
                .on_reset = on_reset,
                .on_port = on_port,
                .on_device_deleted = on_device_deleted,
                .on_device_size = on_device_size,
                .on_balloon = on_balloon,
                .on_changed = on_changed,
        };
        struct context *c = calloc(1, sizeof(*c));
        void *fx;

        fixture_setup(&fx);
        c->fx = fx;
        assert_int_equal(platform_qmp_new(c->fx->event, c->fx->qmp_path, c->fx->channel_path, &handlers, c,
                                 &c->platform),
                0);
        *state = c;
        return 0;
}

static int teardown(void **state)
{
        struct context *c = *state;
        void *fx = c->fx;

        platform_free(c->platform);
        free(c);
        return fixture_teardown(&fx);
}

/* One DIMM is plugged, of an x86 guest, unless `orders` says otherwise. */
static void start_up(struct context *c, const char *orders, const char *rest)
{
        assert_int_equal(fake_qmp_new(c->fx->event, c->fx->qmp_path, "", &c->fx->qmp), 0);
        script(c->fx->qmp,
                "on query-chardev reply []\n"
                "on query-status reply {'status':'running','running':true}\n"
                "on query-migrate reply {}\n"
                "on qom-get reply {'size':1G,'slots':16,'max-size':16G}\n" DEVICES("<0 4G 1G>",
                        "1G") "on qom-list reply [{'name':'opendlpar-mem-0','type':'child<x>'}]\n"
                              "on query-uuid reply {'UUID':'00000000-0000-0000-0000-000000000000'}\n"
                              "on query-target reply {'arch':'x86_64'}\n"
                              "on human-monitor-command {'command-line':'info numa'} reply 0\n"
                              "on query-balloon reply {'actual':1536M}\n");
        script(c->fx->qmp, orders);
        script(c->fx->qmp, "negotiate\n");
        script(c->fx->qmp, rest);
        RUN(c, c->n_up == 1);
}

static void query(struct context *c, struct record *r)
{
        unsigned n = r->n;

        assert_int_equal(platform_query(c->platform, false, on_snapshot, r, NULL), 0);
        RUN(c, r->n == n + 1);
}

/* Whatever QEMU had said before has been taken. */
static void drain(struct context *c)
{
        struct record r = { 0 };

        query(c, &r);
        platform_snapshot_done(&r.snapshot);
}

static struct platform_op *attach(struct context *c, int node, struct record *r)
{
        struct platform_op *op = NULL;

        assert_int_equal(platform_attach_dimm(c->platform, "opendlpar-dimm-1", "opendlpar-mem-1", GIB, node,
                                 on_done, r, &op),
                0);
        assert_int_equal(r->n, 0);
        return op;
}

static struct platform_op *detach(
        struct context *c, const char *backend, uint64_t timeout_usec, struct record *r)
{
        struct platform_op *op = NULL;

        assert_int_equal(
                platform_detach(c->platform, "opendlpar-dimm-0", backend, timeout_usec, on_done, r, &op), 0);
        assert_int_equal(r->n, 0);
        return op;
}

static void assert_record(const struct record *r, enum error_code code, const char *part)
{
        assert_int_equal(r->n, 1);
        if (r->code != code || !strstr(r->text, part))
                fail_msg("%s: '%s'", error_code_name(r->code), r->text);
}

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

/* Silence: said again after a second, in vain; the guest lets go long after nobody waits any more. */
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
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_not_up),
                TEST(test_query),
                TEST(test_query_fails_as_a_whole),
                TEST(test_query_constants),
                TEST(test_query_lost_and_freed),
                TEST(test_balloon),
                TEST(test_move),
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
                TEST(test_stranger_deleted),
                TEST(test_delete_backend),
                TEST(test_port),
                TEST(test_other_events),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
