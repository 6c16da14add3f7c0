/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The connection to libvirt, on libvirt's own test driver: a real library without a daemon, with one domain
 * that has no devices to plug. What that driver cannot do is tests/lab/libvirt's, but for a domain's own job,
 * a migration above all: that it has one is said in the driver's place. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <libvirt/libvirt.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/size.h"
#include "hvd/platform/libvirt.h"

#define LIMIT_USEC (20 * USEC_PER_SEC)

struct context {
        sd_event *event;
        struct libvirt_connection *connection;
        bool is_up, seen, has_channel, is_active, wants_platform;
        struct partition_profile profile;
        char uuid[40];
        unsigned n_ups, n_downs;
        bool answered;
        struct error error;
        char text[512];
        struct platform *platform;
        unsigned n_snapshots;
        struct platform_snapshot snapshot;
};

/* What the domain does, an enum virDomainJobOperation; 0: nothing. Read on the worker. */
static atomic_int operation;

int virDomainGetJobStats(
        virDomainPtr domain, int *type, virTypedParameterPtr *params, int *n_params, unsigned flags)
{
        int now = atomic_load(&operation), n_max = 0;

        if (!now)
                return -1;
        *type = VIR_DOMAIN_JOB_UNBOUNDED;
        *params = NULL;
        *n_params = 0;
        return virTypedParamsAddInt(params, n_params, &n_max, VIR_DOMAIN_JOB_OPERATION, now);
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

static const struct platform_handlers handlers = {
        .on_up = on_up, .on_down = on_down, .on_port = on_port, .on_changed = on_changed
};

static void on_domain(const struct libvirt_domain *d, void *userdata)
{
        struct context *c = userdata;

        assert_string_equal(d->account->name, "test");
        snprintf(c->uuid, sizeof(c->uuid), "%s", d->uuid);
        c->seen = true;
        c->is_active = d->is_active;
        c->has_channel = d->account->has_channel;
        c->profile = d->account->profile;
        if (c->wants_platform && !c->platform)
                assert_int_equal(platform_libvirt_new(c->connection, c->uuid, &handlers, c, &c->platform), 0);
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

/* As a partition is made: in the middle of the look, which then brings it up. */
static void begin_up(struct context *c, const char *uri)
{
        begin(c, uri);
        c->wants_platform = true;
        RUN_UNTIL(c, c->n_ups > 0);
}

static struct error op_error;
static unsigned n_ops_done;

static void on_op_done(const struct error *error, void *userdata)
{
        op_error = error ? *error : (struct error) { 0 };
        n_ops_done++;
}

static void write_profile(struct context *c, const struct partition_profile *profile)
{
        struct libvirt_call *call;
        struct error error;

        c->answered = false;
        assert_int_equal(libvirt_set_profile(c->connection, c->uuid, profile, on_text, c, &call, &error), 0);
        RUN_UNTIL(c, c->answered);
}

/* libvirt would wait for the end of a migration, and all of its other calls behind that. */
static void test_migration(void **state)
{
        static const struct {
                int operation;
                enum run_state state;
                const char *what;
        } cases[] = {
                { VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT, RUN_MIGRATING, "being migrated" },
                { VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN, RUN_MIGRATING, "being migrated" },
                { VIR_DOMAIN_JOB_OPERATION_SAVE, RUN_PAUSED, "being saved" },
                { VIR_DOMAIN_JOB_OPERATION_DUMP, RUN_PAUSED, "being saved" },
        };
        const struct partition_profile profile = { .weight = 7 };
        struct context c;

        begin_up(&c, "test:///default");
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                atomic_store(&operation, cases[i].operation);
                c.n_snapshots = n_ops_done = 0;
                assert_int_equal(platform_query(c.platform, false, on_snapshot, &c, NULL), 0);
                assert_int_equal(platform_stage_dimm(c.platform, "d", "b", GIB, 0, on_op_done, NULL, NULL),
                        -EOPNOTSUPP);
                assert_int_equal(
                        platform_attach_dimm(c.platform, "d", "b", GIB, 0, on_op_done, NULL, NULL), 0);
                RUN_UNTIL(&c, c.n_snapshots == 1 && n_ops_done == 1);
                assert_int_equal(c.snapshot.state, cases[i].state);
                assert_int_equal(op_error.code, ERROR_NOT_RUNNING);
                assert_non_null(strstr(op_error.message, cases[i].what));
                assert_int_equal(
                        platform_detach(c.platform, "d", "b", USEC_PER_SEC, on_op_done, NULL, NULL), 0);
                RUN_UNTIL(&c, n_ops_done == 2);
                assert_int_equal(op_error.code, ERROR_NOT_RUNNING);
                write_profile(&c, &profile);
                assert_int_equal(c.error.code, ERROR_NOT_RUNNING);
                assert_non_null(strstr(c.error.message, "profile"));
        }
        atomic_store(&operation, 0);
        c.n_snapshots = 0;
        assert_int_equal(platform_query(c.platform, false, on_snapshot, &c, NULL), 0);
        RUN_UNTIL(&c, c.n_snapshots == 1);
        assert_int_equal(c.snapshot.state, RUN_RUNNING);
        assert_int_equal(c.n_downs, 0);
        platform_snapshot_done(&c.snapshot);
        end(&c);
}

static void test_profile(void **state)
{
        const struct partition_profile profile = { .min_bytes = GIB, .weight = 9 };
        struct libvirt_call *call;
        struct error error;
        struct context c;

        begin_up(&c, "test:///default");
        write_profile(&c, &profile);
        assert_int_equal(c.error.code, ERROR_NONE);
        RUN_UNTIL(&c, c.profile.weight == 9);
        assert_int_equal(c.profile.min_bytes, GIB);

        /* What is not answered when hvd lets go of libvirt fails, and only that. */
        c.answered = false;
        assert_int_equal(libvirt_set_profile(c.connection, c.uuid, &profile, on_text, &c, &call, &error), 0);
        end(&c);
        assert_true(c.answered);
        assert_int_equal(c.error.code, ERROR_HYPERVISOR_ABSENT);
}

/* QEMU's own word of the balloon, in place of the XML's, with its statistics. */
static void test_balloon(void **state)
{
        static const char node[] =
                "<node><domain type='test'><name>test</name><memory unit='GiB'>4</memory><vcpu>1</vcpu>"
                "<os><type>hvm</type></os><devices><memballoon model='virtio'/></devices></domain></node>";
        char path[] = "/tmp/test-libvirt-XXXXXX", uri[64];
        struct context c;
        int fd = mkstemp(path);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, node, strlen(node)), strlen(node));
        close(fd);
        snprintf(uri, sizeof(uri), "test://%s", path);
        begin_up(&c, uri);
        unlink(path);

        assert_int_equal(platform_query(c.platform, false, on_snapshot, &c, NULL), 0);
        RUN_UNTIL(&c, c.n_snapshots == 1);
        assert_true(c.snapshot.balloon.present);
        assert_int_equal(c.snapshot.balloon.actual_bytes, 4 * GIB);
        assert_true(c.snapshot.balloon.stats.updated_sec > 0);
        assert_true(c.snapshot.balloon.stats.total_bytes != UINT64_MAX);
        assert_true(c.snapshot.balloon.stats.free_bytes != UINT64_MAX);
        assert_true(c.snapshot.balloon.stats.available_bytes != UINT64_MAX);

        /* While it is on its way those who ask for devices alone hear of it, too. */
        n_ops_done = 0;
        assert_int_equal(platform_set_balloon(c.platform, 3 * GIB, on_op_done, NULL, NULL), 0);
        assert_int_equal(platform_query(c.platform, true, on_snapshot, &c, NULL), 0);
        RUN_UNTIL(&c, c.n_snapshots == 2 && n_ops_done == 1);
        assert_int_equal(op_error.code, ERROR_NONE);
        assert_int_equal(c.snapshot.balloon.actual_bytes, 3 * GIB);
        assert_int_equal(c.snapshot.balloon_bytes, GIB);
        assert_int_equal(platform_query(c.platform, true, on_snapshot, &c, NULL), 0);
        RUN_UNTIL(&c, c.n_snapshots == 3);
        assert_int_equal(c.snapshot.balloon_bytes, GIB);
        platform_snapshot_done(&c.snapshot);
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
                cmocka_unit_test(test_migration),
                cmocka_unit_test(test_profile),
                cmocka_unit_test(test_balloon),
                cmocka_unit_test(test_out_of_reach),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
