/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Devices that leave a QEMU, asked or by themselves, and their backends.
 *
 * A detach sends device_del, awaits DEVICE_DELETED and deletes the backend. One whose owner has gone
 * (op_free, or a time limit) leaves nothing behind either: DEVICE_DELETED for a device without an operation
 * deletes the backend that the last query saw under it.
 *
 * On pseries a guest may refuse an unplug in silence. QEMU (7.2) then keeps it pending: it takes no second
 * device_del for the device and says so nowhere but in its answer to one. Only the guest's late word or its
 * reset ends that, and the reset lets the device leave. So the device is marked when nothing was heard in
 * time or when QEMU answers so, and unmarked by any of these; the mark is this connection's and goes with it.
 */

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "hvd/platform/qmp-internal.h"

/* An x86 guest that is still busy with the insertion loses a device_del (QEMU 7.2, Linux 6.1): say it again.
 */
#define REISSUE_USEC (1 * USEC_PER_SEC)

static void on_backend_deleted(struct json_object *result, const struct error *error, void *userdata)
{
        struct platform_op *op = userdata;

        op->calls[0] = NULL;
        if (error)
                error_set(&op->error, ERROR_ACCOUNTS_DIFFER,
                        "the device has left, but its backend %s could not be deleted: %.300s", op->backend,
                        error->message);
        op_complete(op);
}

static void detach_finish(struct platform_op *op)
{
        if (op->deleted)
                return;
        op->deleted = true;
        for (size_t i = 0; i < ARRAY_SIZE(op->calls); i++)
                op->calls[i] = qmp_call_free(op->calls[i]);
        op->reissue = sd_event_source_disable_unref(op->reissue);
        op->limit = sd_event_source_disable_unref(op->limit);
        if (op->backend[0])
                op_call_or_complete(
                        op, 0, "object-del", object_with_string("id", op->backend), on_backend_deleted);
        else
                op_complete(op);
}

/* Marks a device, or takes the mark away; false: it was so. */
static bool note_unplug_pending(struct qmp_platform *p, const char *device, bool pending)
{
        for (size_t i = 0; i < p->n_known; i++)
                if (strcmp(p->known[i].device, device) == 0 && p->known[i].unplug_pending != pending) {
                        p->known[i].unplug_pending = pending;
                        return true;
                }
        return false;
}

static void on_unplug_requested(struct json_object *result, const struct error *error, void *userdata)
{
        struct platform_op *op = userdata;

        op->calls[0] = NULL;
        /* A repeated device_del that is refused changes nothing: the first one is under way. One without an
         * answer may be carried out yet: then the event, or the limit, tells. */
        op->requested |= !error || error->code == ERROR_HYPERVISOR_SILENT;
        if (op->requested)
                return;
        op->error = *error;
        qmp_translate_refusal(&op->error);
        if (op->platform->is_pseries && strstr(error->message, "unplug already in progress")) {
                error_set(&op->error, ERROR_UNPLUG_PENDING,
                        "an earlier unplug of %s is pending in QEMU, and the guest does not see to it; a "
                        "reset of the guest ends that (the device leaves then)",
                        op->device);
                note_unplug_pending(op->platform, op->device, true);
        }
        op_complete(op);
}

static int on_detach_limit(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct platform_op *op = userdata;

        error_set(&op->error, ERROR_UNPLUG_PENDING,
                "the guest did not let go of %s in time, although every block of it is offline; it may still "
                "leave%s",
                op->device, op->platform->is_pseries ? ", at the latest when the guest is reset" : "");
        if (op->platform->is_pseries)
                note_unplug_pending(op->platform, op->device, true);
        op_complete(op);
        return 0;
}

static int on_detach_reissue(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct platform_op *op = userdata;

        sd_event_source_set_time_relative(s, REISSUE_USEC);
        sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
        if (!op->platform->is_x86 || op->calls[0])
                return 0;
        log_debug("device_del %s again: nothing was heard of the first one", op->device);
        op_call(op, 0, "device_del", object_with_string("id", op->device), on_unplug_requested);
        return 0;
}

int qmp_platform_detach(struct platform *base, const char *id, const char *backend, uint64_t timeout_usec,
        platform_done_t done, void *userdata, struct platform_op **ret)
{
        struct qmp_platform *p = (struct qmp_platform *)base;
        struct platform_op *op = op_new(p, OP_KIND_DETACH, userdata);
        if (!op)
                return -ENOMEM;

        snprintf(op->device, sizeof(op->device), "%s", id);
        snprintf(op->backend, sizeof(op->backend), "%s", backend);
        int r = op_call(op, 0, "device_del", object_with_string("id", id), on_unplug_requested);
        if (r >= 0)
                r = sd_event_add_time_relative(
                        p->event, &op->limit, CLOCK_MONOTONIC, timeout_usec, 0, on_detach_limit, op);
        if (r >= 0)
                r = sd_event_add_time_relative(
                        p->event, &op->reissue, CLOCK_MONOTONIC, REISSUE_USEC, 0, on_detach_reissue, op);
        if (r < 0) {
                op_destroy(op);
                return r;
        }
        op->done = done;
        if (ret)
                *ret = op;
        return 0;
}

/* --- delete_backend --- */

static void on_lone_backend_deleted(struct json_object *result, const struct error *error, void *userdata)
{
        struct platform_op *op = userdata;

        op->calls[0] = NULL;
        if (error)
                op_take_error(op, error);
        op_complete(op);
}

int qmp_platform_delete_backend(struct platform *base, const char *backend, platform_done_t done,
        void *userdata, struct platform_op **ret)
{
        struct qmp_platform *p = (struct qmp_platform *)base;
        struct platform_op *op = op_new(p, OP_KIND_DELETE_BACKEND, userdata);
        if (!op)
                return -ENOMEM;

        snprintf(op->backend, sizeof(op->backend), "%s", backend);
        int r = op_call(op, 0, "object-del", object_with_string("id", backend), on_lone_backend_deleted);
        if (r < 0) {
                op_destroy(op);
                return r;
        }
        op->done = done;
        if (ret)
                *ret = op;
        return 0;
}

/* --- events --- */

static struct platform_op *find_detach(struct qmp_platform *p, const char *device)
{
        struct platform_op *op;

        LIST_FOREACH (op, &p->ops, entry)
                if (op->kind == OP_KIND_DETACH && !op->deleted && strcmp(op->device, device) == 0)
                        return op;
        return NULL;
}

static void on_stray_backend_deleted(const struct error *error, void *userdata)
{
        if (error)
                log_warning("The backend of a device that left by itself could not be deleted: %s",
                        error->message);
}

/* The backend that the last query saw under the device, once; false if none is known. */
static bool take_known_backend(struct qmp_platform *p, const char *device, char ret[static PLATFORM_ID_MAX])
{
        for (size_t i = 0; i < p->n_known; i++)
                if (p->known[i].backend[0] && strcmp(p->known[i].device, device) == 0) {
                        memcpy(ret, p->known[i].backend, PLATFORM_ID_MAX);
                        p->known[i].backend[0] = '\0';
                        return true;
                }
        return false;
}

void qmp_device_deleted(struct qmp_platform *p, const char *device)
{
        char backend[PLATFORM_ID_MAX];

        if (!device)
                return;

        bool known = take_known_backend(p, device, backend);
        note_unplug_pending(p, device, false);
        struct platform_op *op = find_detach(p, device);
        if (op)
                detach_finish(op);
        else if (known) {
                /* Another's backend is another's to delete. */
                if (strncmp(backend, PLATFORM_BACKEND_PREFIX, strlen(PLATFORM_BACKEND_PREFIX)) == 0)
                        qmp_platform_delete_backend(&p->base, backend, on_stray_backend_deleted, p, NULL);
                p->base.handlers->on_device_deleted(&p->base, device, p->base.userdata);
        }
}

void qmp_unplug_refused(struct qmp_platform *p, const char *device, const char *why)
{
        struct platform_op *op = device ? find_detach(p, device) : NULL;

        /* pseries says it in two events, one of them twice (QEMU 7.2), and any guest may say it unasked. */
        if (device && note_unplug_pending(p, device, false))
                p->base.handlers->on_changed(&p->base, p->base.userdata);
        if (!op)
                return;
        error_set(&op->error, ERROR_UNPLUG_REFUSED, "the guest refused to let go of %s: %s", device, why);
        op_complete(op);
}

void qmp_forget_pending_unplugs(struct qmp_platform *p)
{
        for (size_t i = 0; i < p->n_known; i++)
                p->known[i].unplug_pending = false;
}

void qmp_stop_asking(struct qmp_platform *p)
{
        struct platform_op *op;

        LIST_FOREACH (op, &p->ops, entry)
                op->reissue = sd_event_source_disable_unref(op->reissue);
}
