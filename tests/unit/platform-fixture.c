/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "platform-fixture.h"

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

void on_done(const struct error *error, void *userdata)
{
        struct record *r = userdata;

        r->n++;
        r->code = error ? error->code : ERROR_NONE;
        snprintf(r->text, sizeof(r->text), "%s", error ? error->message : "");
}

void on_snapshot(struct platform_snapshot *s, const struct error *error, void *userdata)
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

int setup(void **state)
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

int teardown(void **state)
{
        struct context *c = *state;
        void *fx = c->fx;

        platform_free(c->platform);
        free(c);
        return fixture_teardown(&fx);
}

void start_up(struct context *c, const char *orders, const char *rest)
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

void query(struct context *c, struct record *r)
{
        unsigned n = r->n;

        assert_int_equal(platform_query(c->platform, false, on_snapshot, r, NULL), 0);
        RUN(c, r->n == n + 1);
}

void drain(struct context *c)
{
        struct record r = { 0 };

        query(c, &r);
        platform_snapshot_done(&r.snapshot);
}

struct platform_op *attach(struct context *c, int node, struct record *r)
{
        struct platform_op *op = NULL;

        assert_int_equal(platform_attach_dimm(c->platform, "opendlpar-dimm-1", "opendlpar-mem-1", GIB, node,
                                 on_done, r, &op),
                0);
        assert_int_equal(r->n, 0);
        return op;
}

struct platform_op *detach(struct context *c, const char *backend, uint64_t timeout_usec, struct record *r)
{
        struct platform_op *op = NULL;

        assert_int_equal(
                platform_detach(c->platform, "opendlpar-dimm-0", backend, timeout_usec, on_done, r, &op), 0);
        assert_int_equal(r->n, 0);
        return op;
}

void assert_record(const struct record *r, enum error_code code, const char *part)
{
        assert_int_equal(r->n, 1);
        if (r->code != code || !strstr(r->text, part))
                fail_msg("%s: '%s'", error_code_name(r->code), r->text);
}
