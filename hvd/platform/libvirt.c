/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A domain of libvirt's as a platform: up while the domain runs.
 *
 * An operation is one call of the worker's and, for a detach, the event after it: libvirt's return value says
 * only that the guest was asked. When the connection breaks in the middle of one it is not known whether it
 * was carried out. The operation is kept then, and when the domain was looked at anew, goes on from there: a
 * device that is there is attached, one that is not is attached again; the other way round for a detach.
 *
 * Only what libvirtd itself has lost cannot be had back: when it ends between QEMU's taking a DIMM and its
 * own writing that down, QEMU and the guest have the DIMM, and no libvirt will ever let go of it (9.0). A
 * monitor command could, and would taint the domain. It is reported, goes with the domain's next start, and
 * its name is not used again until then.
 *
 * `last` is the domain as it was last seen: what differs in the next look is what the partition is told. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "hvd/platform/libvirt-internal.h"

/* As with a QEMU of one's own: an x86 guest that is busy with the insertion loses a device_del. */
#define REISSUE_USEC (1 * USEC_PER_SEC)

static const struct platform_ops libvirt_platform_ops;

static int op_start(struct platform_op *op);

static bool is_x86(const struct libvirt_platform *p)
{
        return strcmp(p->last.arch, "x86_64") == 0 || strcmp(p->last.arch, "i686") == 0;
}

/* --- operations --- */

static struct platform_op *op_destroy(struct platform_op *op)
{
        LIST_REMOVE(op, entry);
        lv_call_orphan(op->call);
        sd_event_source_disable_unref(op->reissue);
        sd_event_source_disable_unref(op->limit);
        free(op);
        return NULL;
}

static struct platform_op *op_new(
        struct libvirt_platform *p, enum lv_kind kind, const char *id, platform_done_t done, void *userdata)
{
        struct platform_op *op = calloc(1, sizeof(*op));

        if (!op)
                return NULL;
        *op = (struct platform_op) {
                .ops = &libvirt_platform_ops,
                .kind = kind,
                .platform = p,
                .done = done,
                .userdata = userdata,
                .node = -1,
                .persistent = p->base.persistent,
        };
        if (id)
                snprintf(op->id, sizeof(op->id), "%s", id);
        LIST_INSERT_HEAD(&p->ops, op, entry);
        return op;
}

void lv_op_complete(struct platform_op *op)
{
        platform_done_t done = op->done;
        platform_query_t query_done = op->query_done;
        void *userdata = op->userdata;
        struct error error = op->error;

        op_destroy(op);
        if (query_done) /* with a snapshot it is on_query_looked() that ends it */
                query_done(NULL, &error, userdata);
        else if (done)
                done(error.code ? &error : NULL, userdata);
}

static int op_begin(struct platform_op *op, struct platform_op **ret)
{
        int r = op_start(op);

        if (r < 0) {
                op_destroy(op);
                return r;
        }
        if (ret)
                *ret = op;
        return 0;
}

/* --- what is seen --- */

struct platform_device *lv_find_last(struct libvirt_platform *p, const char *id)
{
        for (size_t i = 0; i < p->last.n_devices; i++)
                if (strcmp(p->last.devices[i].id, id) == 0)
                        return &p->last.devices[i];
        return NULL;
}

static int copy_snapshot(const struct platform_snapshot *from, struct platform_snapshot *ret)
{
        struct platform_device *devices = calloc(from->n_devices + 1, sizeof(*devices));

        if (!devices)
                return -ENOMEM;
        if (from->n_devices > 0)
                memcpy(devices, from->devices, from->n_devices * sizeof(*devices));
        *ret = *from;
        ret->devices = devices;
        ret->backends = NULL;
        ret->n_backends = 0;
        return 0;
}

/* The marks of pending unplugs are ours: libvirt does not list them. */
int lv_remember(struct libvirt_platform *p, const struct platform_snapshot *s)
{
        struct platform_snapshot next;
        int r = copy_snapshot(s, &next);

        if (r < 0)
                return r;
        for (size_t i = 0; i < next.n_devices; i++) {
                const struct platform_device *before = lv_find_last(p, next.devices[i].id);
                next.devices[i].unplug_pending = before && before->unplug_pending;
        }
        platform_snapshot_done(&p->last);
        p->last = next;
        return 0;
}

/* The alias of a device that is there, or of the next one of that name. */
static void find_alias(struct libvirt_platform *p, const char *id, char ret[static PLATFORM_ID_MAX + 3])
{
        const struct platform_device *d = lv_find_last(p, id);
        unsigned life = 0;

        for (unsigned i = 0; i < p->n_lost; i++)
                life += strcmp(p->lost[i], id) == 0;
        if (d && d->memdev[0])
                snprintf(ret, PLATFORM_ID_MAX + 3, "%s", d->memdev);
        else
                domain_id_to_alias(id, life, ret);
}

void lv_forget_device(struct libvirt_platform *p, const char *id)
{
        struct platform_device *d = lv_find_last(p, id);

        if (!d)
                return;
        size_t after = p->last.n_devices - (size_t)(d - p->last.devices) - 1;
        memmove(d, d + 1, after * sizeof(*d));
        p->last.n_devices--;
}

void lv_mark_pending(struct libvirt_platform *p, const char *id, bool pending)
{
        struct platform_device *d = lv_find_last(p, id);

        if (!d || d->unplug_pending == pending)
                return;
        d->unplug_pending = pending;
        if (!pending)
                p->base.handlers->on_changed(&p->base, p->base.userdata);
}

/* --- detach --- */

static void on_definition_changed(struct lv_call *call, void *userdata)
{
        struct platform_op *op = userdata;

        op->call = NULL;
        /* One that was plugged into the running domain alone is not in there. */
        if (call->error.code)
                log_debug("%s was not taken out of the domain's definition: %s", op->id, call->error.message);
        lv_op_complete(op);
}

void lv_detach_finish(struct platform_op *op)
{
        if (op->deleted)
                return;
        op->deleted = true;
        op->must_restart = false;
        lv_call_orphan(op->call);
        op->call = NULL;
        op->reissue = sd_event_source_disable_unref(op->reissue);
        op->limit = sd_event_source_disable_unref(op->limit);
        char alias[PLATFORM_ID_MAX + 3];
        find_alias(op->platform, op->id, alias);
        lv_forget_device(op->platform, op->id);
        struct lv_call *call = op->persistent ? lv_call_new(op->platform->domain->connection, LV_DETACH,
                                                        op->platform->domain->uuid, on_definition_changed, op)
                                              : NULL;
        if (call) {
                memcpy(call->alias, alias, sizeof(alias));
                call->live = false;
                call->persistent = true;
                if (lv_call_push(call) >= 0) {
                        op->call = call;
                        return;
                }
        }
        lv_op_complete(op);
}

static int on_detach_limit(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct platform_op *op = userdata;
        bool pseries = platform_arch_is_pseries(op->platform->last.arch);

        error_set(&op->error, ERROR_UNPLUG_PENDING,
                "the guest did not let go of %s in time, although every block of it is offline; it may still "
                "leave%s",
                op->id, pseries ? ", at the latest when the guest is reset" : "");
        if (pseries)
                lv_mark_pending(op->platform, op->id, true);
        lv_op_complete(op);
        return 0;
}

static int on_detach_reissue(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct platform_op *op = userdata;

        sd_event_source_set_time_relative(s, REISSUE_USEC);
        sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
        if (!op->call && op->requested && is_x86(op->platform) && op->platform->domain->connection->is_up)
                op_start(op);
        return 0;
}

struct platform_op *lv_find_detach(struct libvirt_platform *p, const char *id)
{
        struct platform_op *op;

        LIST_FOREACH (op, &p->ops, entry)
                if (op->kind == LV_DETACH && !op->deleted && strcmp(op->id, id) == 0)
                        return op;
        return NULL;
}

/* --- calls --- */

/* Where the balloon was not asked about, the XML may be a second behind: what it has taken stands. */
static void keep_balloon(struct libvirt_platform *p, struct lv_call *call)
{
        struct platform_snapshot *s = &call->look.account.snapshot;
        uint64_t total = platform_balloon_total(s);

        if (!call->wants_balloon && s->balloon.present && p->last.balloon.present) {
                s->balloon_bytes = MIN(p->last.balloon_bytes, total);
                s->balloon.actual_bytes = total - s->balloon_bytes;
                s->balloon.stats = p->last.balloon.stats;
        }
        if (s->balloon.actual_bytes == p->balloon_wish_bytes)
                p->balloon_wish_bytes = 0;
}

static void on_query_looked(struct lv_call *call, struct platform_op *op)
{
        struct libvirt_platform *p = op->platform;
        struct lv_domain *d = p->domain;
        platform_query_t done = op->query_done;
        void *userdata = op->userdata;
        struct platform_snapshot s;

        keep_balloon(p, call);
        if (call->error.code || call->look.is_absent || !call->look.is_active ||
                call->look.domain_id != p->domain_id) {
                if (!op->error.code)
                        error_set(&op->error, ERROR_HYPERVISOR_ABSENT, "The domain does not run");
                lv_op_complete(op);
        } else if (lv_remember(p, &call->look.account.snapshot) < 0 || copy_snapshot(&p->last, &s) < 0) {
                error_set(&op->error, ERROR_INTERNAL, "Out of memory");
                lv_op_complete(op);
        } else {
                op_destroy(op);
                if (done)
                        done(&s, NULL, userdata);
                platform_snapshot_done(&s);
        }
        if (!call->error.code)
                lv_domain_take(d, &call->look);
}

static void on_called(struct lv_call *call, void *userdata)
{
        struct platform_op *op = userdata;
        struct libvirt_platform *p = op->platform;

        op->call = NULL;
        if (call->is_lost) {
                op->must_restart = true;
                return;
        }
        if (call->error.code)
                op->error = call->error;
        if (op->kind == LV_LOOK) {
                on_query_looked(call, op);
                return;
        }
        if (op->kind == LV_ATTACH && op->error.code == ERROR_ACCOUNTS_DIFFER && p->n_lost < LOST_MAX)
                memcpy(p->lost[p->n_lost++], op->id, sizeof(op->id));
        if (op->kind == LV_DETACH) {
                /* One that is repeated and refused changes nothing: the first one is under way. */
                op->requested |= !call->error.code;
                if (op->requested) {
                        op->error = (struct error) { 0 };
                        return;
                }
                if (op->error.code == ERROR_UNPLUG_PENDING && platform_arch_is_pseries(p->last.arch))
                        lv_mark_pending(p, op->id, true);
        }
        lv_op_complete(op);
}

static int op_start(struct platform_op *op)
{
        struct libvirt_platform *p = op->platform;
        struct libvirt_connection *c = p->domain->connection;

        op->must_restart = !c->is_up;
        if (op->must_restart)
                return 0;
        struct lv_call *call = lv_call_new(c, op->kind, p->domain->uuid, on_called, op);
        if (!call)
                return -ENOMEM;
        find_alias(p, op->id, call->alias);
        call->bytes = op->bytes;
        call->wants_balloon = op->wants_balloon;
        call->persistent = op->persistent && op->kind != LV_DETACH; /* then when it has left */
        if (op->kind == LV_ATTACH && !(call->xml = domain_dimm_xml(call->alias, op->bytes, op->node))) {
                lv_call_discard(call);
                return -ENOMEM;
        }
        int r = lv_call_push(call);
        if (r >= 0)
                op->call = call;
        return r;
}

/* The connection is back: what was under way goes on from what there is now. */
static void op_restart(struct platform_op *op)
{
        const struct platform_device *d = op->id[0] ? lv_find_last(op->platform, op->id) : NULL;

        op->must_restart = false;
        if (op->kind == LV_DETACH && op->deleted) {
                lv_op_complete(op);
        } else if (op->kind == LV_ATTACH && d)
                lv_op_complete(op);
        else if (op->kind == LV_DETACH && !d)
                lv_detach_finish(op);
        else if (op_start(op) < 0) {
                error_set(&op->error, ERROR_HYPERVISOR_ABSENT, "libvirt could not be asked again");
                lv_op_complete(op);
        }
}

void lv_platform_resume(struct libvirt_platform *p)
{
        struct platform_op *op;

        /* A detach that waits for its event may have missed it. */
        LIST_FOREACH (op, &p->ops, entry)
                op->must_restart |= op->kind == LV_DETACH && !op->call;
        do {
                LIST_FOREACH (op, &p->ops, entry)
                        if (op->must_restart)
                                break;
                if (op)
                        op_restart(op);
        } while (op && p->domain->connection->is_up);
}

/* --- the operations' beginnings --- */

static int libvirt_query(struct platform *base, bool devices_only, platform_query_t done, void *userdata,
        struct platform_op **ret)
{
        struct libvirt_platform *p = (struct libvirt_platform *)base;

        if (!p->is_up)
                return -ENOTCONN;
        struct platform_op *op = op_new(p, LV_LOOK, NULL, NULL, userdata);
        if (!op)
                return -ENOMEM;
        op->query_done = done;
        op->wants_balloon = !devices_only || p->balloon_wish_bytes;
        return op_begin(op, ret);
}

/* libvirt wants a node where the guest has any, and none where it has none. */
static int libvirt_attach_dimm(struct platform *base, const char *id, const char *backend,
        uint64_t size_bytes, int node, platform_done_t done, void *userdata, struct platform_op **ret)
{
        struct libvirt_platform *p = (struct libvirt_platform *)base;

        if (!p->is_up)
                return -ENOTCONN;
        struct platform_op *op = op_new(p, LV_ATTACH, id, done, userdata);
        if (!op)
                return -ENOMEM;
        op->bytes = size_bytes;
        op->node = node < 0 && is_x86(p) ? 0 : node;
        return op_begin(op, ret);
}

static int libvirt_detach(struct platform *base, const char *id, const char *backend, uint64_t timeout_usec,
        platform_done_t done, void *userdata, struct platform_op **ret)
{
        struct libvirt_platform *p = (struct libvirt_platform *)base;
        sd_event *event = p->domain->connection->event;

        if (!p->is_up)
                return -ENOTCONN;
        struct platform_op *op = op_new(p, LV_DETACH, id, done, userdata);
        if (!op)
                return -ENOMEM;
        int r = sd_event_add_time_relative(
                event, &op->limit, CLOCK_MONOTONIC, timeout_usec, 0, on_detach_limit, op);
        if (r >= 0)
                r = sd_event_add_time_relative(
                        event, &op->reissue, CLOCK_MONOTONIC, REISSUE_USEC, 0, on_detach_reissue, op);
        if (r < 0) {
                op_destroy(op);
                return r;
        }
        return op_begin(op, ret);
}

/* libvirt makes and deletes backends with their devices: there are none of ours alone. */
static int libvirt_delete_backend(struct platform *base, const char *backend, platform_done_t done,
        void *userdata, struct platform_op **ret)
{
        return -EOPNOTSUPP;
}

static int libvirt_resize(struct platform *base, const char *id, uint64_t requested_bytes,
        platform_done_t done, void *userdata, struct platform_op **ret)
{
        struct libvirt_platform *p = (struct libvirt_platform *)base;

        if (!p->is_up)
                return -ENOTCONN;
        struct platform_op *op = op_new(p, LV_RESIZE, id, done, userdata);
        if (!op)
                return -ENOMEM;
        op->bytes = requested_bytes;
        return op_begin(op, ret);
}

static int libvirt_set_balloon(struct platform *base, uint64_t actual_bytes, platform_done_t done,
        void *userdata, struct platform_op **ret)
{
        struct libvirt_platform *p = (struct libvirt_platform *)base;

        if (!p->is_up)
                return -ENOTCONN;
        struct platform_op *op = op_new(p, LV_BALLOON, NULL, done, userdata);
        if (!op)
                return -ENOMEM;
        op->bytes = p->balloon_wish_bytes = actual_bytes;
        return op_begin(op, ret);
}

/* The owner loses interest. A query can end; what changes the domain runs out without a callback. */
static struct platform_op *libvirt_op_free(struct platform_op *op)
{
        if (op->kind == LV_LOOK)
                return op_destroy(op);
        op->done = NULL;
        return NULL;
}

/* --- the platform --- */

static struct platform *libvirt_platform_free(struct platform *base)
{
        struct libvirt_platform *p = (struct libvirt_platform *)base;

        while (!LIST_EMPTY(&p->ops))
                op_destroy(LIST_FIRST(&p->ops));
        p->domain->platform = NULL;
        platform_snapshot_done(&p->last);
        free(p);
        return NULL;
}

static const struct platform_ops libvirt_platform_ops = {
        .name = "libvirt",
        .can_persist = true,
        .free = libvirt_platform_free,
        .query = libvirt_query,
        .attach_dimm = libvirt_attach_dimm,
        .detach = libvirt_detach,
        .delete_backend = libvirt_delete_backend,
        .resize = libvirt_resize,
        .set_balloon = libvirt_set_balloon,
        .op_free = libvirt_op_free,
};

int platform_libvirt_new(struct libvirt_connection *c, const char *uuid,
        const struct platform_handlers *handlers, void *userdata, struct platform **ret)
{
        struct lv_domain *d = lv_domain_need(c, uuid);
        struct libvirt_platform *p = d && !d->platform ? calloc(1, sizeof(*p)) : NULL;

        if (!p)
                return d && d->platform ? -EEXIST : -ENOMEM;
        p->base = (struct platform) {
                .ops = &libvirt_platform_ops, .handlers = handlers, .userdata = userdata
        };
        LIST_INIT(&p->ops);
        p->domain = d;
        p->domain_id = -1;
        d->platform = p;
        *ret = &p->base;
        return 0;
}
