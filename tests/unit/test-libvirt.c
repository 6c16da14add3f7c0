/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The connection to libvirt, on libvirt's own test driver: a real library without a daemon, with one domain
 * that has no devices to plug. What that driver cannot do is tests/lab/libvirt's. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "common/size.h"
#include "hvd/platform/libvirt.h"

#define LIMIT_USEC (20 * USEC_PER_SEC)

struct context {
        sd_event *event;
        struct libvirt_connection *connection;
        bool is_up, seen, has_channel, is_active;
        char uuid[40];
        unsigned n_ups, n_downs;
        bool answered;
        struct error error;
        char text[512];
        struct platform *platform;
        unsigned n_snapshots;
        struct platform_snapshot snapshot;
};

static void on_domain(const struct libvirt_domain *d, void *userdata)
{
        struct context *c = userdata;

        assert_string_equal(d->account->name, "test");
        snprintf(c->uuid, sizeof(c->uuid), "%s", d->uuid);
        c->seen = true;
        c->is_active = d->is_active;
        c->has_channel = d->account->has_channel;
}

static void on_gone(const char *uuid, void *userdata)
{
        fail_msg("Domain %s is gone", uuid);
}

static void on_connection(bool up, const struct error *error, void *userdata)
{
        struct context *c = userdata;

        c->is_up = up;
        if (!up)
                c->error = *error;
}

static const struct libvirt_observer observer = { on_domain, on_gone, on_connection };

static void begin(struct context *c, const char *uri)
{
        *c = (struct context) { 0 };
        assert_true(sd_event_new(&c->event) >= 0);
        assert_int_equal(libvirt_connection_new(c->event, uri, &observer, c, &c->connection), 0);
}

static void end(struct context *c)
{
        platform_free(c->platform);
        libvirt_connection_free(c->connection);
        sd_event_unref(c->event);
}

#define RUN_UNTIL(c, condition)                                                                              \
        for (uint64_t limit = now_monotonic_usec() + LIMIT_USEC; !(condition);) {                            \
                assert_true(now_monotonic_usec() < limit);                                                   \
                assert_true(sd_event_run((c)->event, 100 * USEC_PER_MSEC) >= 0);                             \
        }

static void on_text(const char *text, const struct error *error, void *userdata)
{
        struct context *c = userdata;

        c->answered = true;
        c->error = error ? *error : (struct error) { 0 };
        snprintf(c->text, sizeof(c->text), "%s", text ?: "");
}

static void enroll(struct context *c, const char *name)
{
        struct libvirt_call *call;
        struct error error;

        c->answered = false;
        assert_int_equal(libvirt_enroll(c->connection, name, 0, 0, on_text, c, &call, &error), 0);
        RUN_UNTIL(c, c->answered);
}

static void on_up(struct platform *p, void *userdata)
{
        ((struct context *)userdata)->n_ups++;
}

static void on_down(struct platform *p, const struct error *error, void *userdata)
{
        ((struct context *)userdata)->n_downs++;
}

static void on_port(struct platform *p, bool open, void *userdata)
{
}

static void on_changed(struct platform *p, void *userdata)
{
}

static void on_snapshot(struct platform_snapshot *s, const struct error *error, void *userdata)
{
        struct context *c = userdata;

        assert_null(error);
        c->n_snapshots++;
        platform_snapshot_done(&c->snapshot);
        c->snapshot = *s;
        *s = (struct platform_snapshot) { 0 };
}

static void test_domain(void **state)
{
        static const struct platform_handlers handlers = {
                .on_up = on_up, .on_down = on_down, .on_port = on_port, .on_changed = on_changed
        };
        struct platform_op *op;
        struct context c;

        begin(&c, "test:///default");
        RUN_UNTIL(&c, c.seen);
        assert_true(c.is_up && c.is_active);
        assert_false(c.has_channel);

        assert_int_equal(platform_libvirt_new(c.connection, c.uuid, &handlers, &c, &c.platform), 0);
        assert_string_equal(c.platform->ops->name, "libvirt");
        assert_int_equal(platform_query(c.platform, false, on_snapshot, &c, NULL), -ENOTCONN);

        /* The change is told by an event, and the look that follows brings the platform up. */
        enroll(&c, "test");
        assert_int_equal(c.error.code, ERROR_NONE);
        assert_non_null(strstr(c.text, "added the channel"));
        RUN_UNTIL(&c, c.n_ups > 0);
        assert_int_equal(platform_query(c.platform, false, on_snapshot, &c, NULL), 0);
        RUN_UNTIL(&c, c.n_snapshots > 0);
        assert_int_equal(c.snapshot.state, RUN_RUNNING);
        assert_int_equal(c.snapshot.base_bytes, 8 * GIB);
        assert_string_equal(c.snapshot.uuid, c.uuid);
        platform_snapshot_done(&c.snapshot);

        /* One whose owner has gone is not answered. */
        assert_int_equal(platform_query(c.platform, true, on_snapshot, &c, &op), 0);
        platform_op_free(op);
        enroll(&c, "nobody");
        assert_int_equal(c.error.code, ERROR_UNKNOWN_PARTITION);
        assert_int_equal(c.n_snapshots, 1);
        assert_int_equal(c.n_downs, 0);
        end(&c);
}

static void test_out_of_reach(void **state)
{
        struct libvirt_call *call;
        struct error error;
        struct context c;

        begin(&c, "qemu+unix:///system?socket=/nonexistent/libvirt-sock");
        RUN_UNTIL(&c, c.error.code != ERROR_NONE);
        assert_int_equal(c.error.code, ERROR_HYPERVISOR_ABSENT);
        assert_false(c.is_up);
        assert_true(libvirt_enroll(c.connection, "test", 0, 0, on_text, &c, &call, &error) < 0);
        assert_int_equal(error.code, ERROR_HYPERVISOR_ABSENT);
        end(&c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_domain),
                cmocka_unit_test(test_out_of_reach),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
