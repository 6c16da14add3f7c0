/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is moved by a wish: virtio-mem devices and the balloon.
 *
 * QEMU's own answer to query-balloon is one figure. What the balloon is like, and its statistics, are QOM
 * properties of its device, which may have any id or none: it is looked for once for each connection, in the
 * query that first hears of a balloon, and asked by its path from then on. A balloon that is not found counts
 * all the same, without these. */

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "hvd/platform/qmp-internal.h"
#include "hvd/platform/snapshot.h"

#define NAMED_DEVICES     "/machine/peripheral"
#define ANONYMOUS_DEVICES "/machine/peripheral-anon"

/* --- asking --- */

static void on_stats(struct json_object *result, const struct error *error, void *userdata)
{
        struct platform_op *op = userdata;

        op->calls[QUERY_STATS] = NULL;
        if (!result || snapshot_take_balloon_stats(&op->snapshot, result) < 0)
                log_debug("The balloon's statistics are not to be had: %s",
                        error ? error->message : "QEMU's answer is not understood");
        qmp_query_part_done(op);
}

static void on_deflate(struct json_object *result, const struct error *error, void *userdata)
{
        struct platform_op *op = userdata;

        op->calls[QUERY_DEFLATE] = NULL;
        op->platform->balloon.deflate_on_oom =
                json_object_is_type(result, json_type_boolean) && json_object_get_boolean(result);
        qmp_query_part_done(op);
}

static void on_reporting(struct json_object *result, const struct error *error, void *userdata)
{
        struct platform_op *op = userdata;

        op->calls[QUERY_REPORTING] = NULL;
        op->platform->balloon.free_page_reporting =
                json_object_is_type(result, json_type_boolean) && json_object_get_boolean(result);
        qmp_query_part_done(op);
}

/* Whoever else wants them at another pace shall have that. */
static void on_interval(struct json_object *result, const struct error *error, void *userdata)
{
        struct platform_op *op = userdata;
        struct qmp_platform *p = op->platform;

        op->calls[QUERY_INTERVAL] = NULL;
        if (json_object_is_type(result, json_type_int) && json_object_get_int64(result) == 0) {
                struct json_object *o = qom_arguments(p->balloon.path, "guest-stats-polling-interval");

                if (o && json_add_u64(o, "value", PLATFORM_STATS_SEC) >= 0)
                        qmp_call(p->qmp, "qom-set", o, COMMAND_USEC, NULL, NULL, NULL);
                else
                        json_object_put(o);
        }
        qmp_query_part_done(op);
}

static void ask_stats(struct platform_op *op)
{
        qmp_query_call(op, QUERY_STATS, "qom-get", qom_arguments(op->platform->balloon.path, "guest-stats"),
                on_stats);
}

static void on_found(struct json_object *result, const struct error *error, void *userdata);

static void look_in(struct platform_op *op, const char *folder)
{
        qmp_query_call(op, QUERY_FIND, "qom-list", object_with_string("path", folder), on_found);
}

static void on_found(struct json_object *result, const struct error *error, void *userdata)
{
        struct platform_op *op = userdata;
        struct qmp_platform *p = op->platform;
        const char *folder = op->anonymous ? ANONYMOUS_DEVICES : NAMED_DEVICES;
        const char *name = snapshot_find_balloon(result);

        op->calls[QUERY_FIND] = NULL;
        if (name && strlen(folder) + strlen(name) + 1 < sizeof(p->balloon.path)) {
                snprintf(p->balloon.path, sizeof(p->balloon.path), "%s/%.160s", folder, name);
                qmp_query_call(op, QUERY_DEFLATE, "qom-get", qom_arguments(p->balloon.path, "deflate-on-oom"),
                        on_deflate);
                qmp_query_call(op, QUERY_REPORTING, "qom-get",
                        qom_arguments(p->balloon.path, "free-page-reporting"), on_reporting);
                qmp_query_call(op, QUERY_INTERVAL, "qom-get",
                        qom_arguments(p->balloon.path, "guest-stats-polling-interval"), on_interval);
                ask_stats(op);
        } else if (!op->anonymous) {
                op->anonymous = true;
                look_in(op, ANONYMOUS_DEVICES);
        }
        qmp_query_part_done(op); /* last, when what was asked is pending */
}

void qmp_balloon_look(struct platform_op *op)
{
        if (op->devices_only)
                return;
        if (op->platform->balloon.path[0])
                ask_stats(op);
        else
                look_in(op, NAMED_DEVICES);
}

void qmp_balloon_complete(struct qmp_platform *p, struct platform_snapshot *s)
{
        if (!s->balloon.present)
                return;
        s->balloon.deflate_on_oom = p->balloon.deflate_on_oom;
        s->balloon.free_page_reporting = p->balloon.free_page_reporting;
        if (s->balloon.actual_bytes == p->balloon.target_bytes)
                p->balloon.target_bytes = 0;
}

/* --- moving --- */

static void on_moved(struct json_object *result, const struct error *error, void *userdata)
{
        struct platform_op *op = userdata;

        op->calls[0] = NULL;
        if (error)
                op_take_error(op, error);
        op_complete(op);
}

static int move(struct qmp_platform *p, const char *command, struct json_object *arguments,
        platform_done_t done, void *userdata, struct platform_op **ret)
{
        struct platform_op *op = arguments ? op_new(p, OP_KIND_RESIZE, userdata) : NULL;

        if (!op) {
                json_object_put(arguments);
                return -ENOMEM;
        }
        op->done = done;
        int r = op_call(op, 0, command, arguments, on_moved);
        if (r < 0) {
                op_destroy(op);
                return r;
        }
        if (ret)
                *ret = op;
        return 0;
}

int qmp_platform_resize(struct platform *base, const char *id, uint64_t requested_bytes, platform_done_t done,
        void *userdata, struct platform_op **ret)
{
        struct qmp_platform *p = (struct qmp_platform *)base;
        char path[sizeof(NAMED_DEVICES) + PLATFORM_ID_MAX + 1];

        snprintf(path, sizeof(path), NAMED_DEVICES "/%s", id);
        struct json_object *o = qom_arguments(path, "requested-size");
        if (o && json_add_u64(o, "value", requested_bytes) < 0) {
                json_object_put(o);
                o = NULL;
        }
        return move(p, "qom-set", o, done, userdata, ret);
}

int qmp_platform_set_balloon(struct platform *base, uint64_t actual_bytes, platform_done_t done,
        void *userdata, struct platform_op **ret)
{
        struct qmp_platform *p = (struct qmp_platform *)base;
        struct json_object *o = json_object_new_object();

        if (o && json_add_u64(o, "value", actual_bytes) < 0) {
                json_object_put(o);
                o = NULL;
        }
        int r = move(p, "balloon", o, done, userdata, ret);
        if (r >= 0)
                p->balloon.target_bytes = actual_bytes;
        return r;
}
