/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A QEMU of one's own, reached by its QMP socket.
 *
 * Owns the QMP client and the operations under way. An operation is a short sequence of commands: a query
 * sends all of its commands at once and gathers the answers; an attach sends object-add and device_add
 * together and deletes the backend when the device was refused; for a detach see qmp-detach.c. */

#include "hvd/platform/platform.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "hvd/platform/qmp-internal.h"
#include "hvd/platform/snapshot.h"
#include "proto/message.h"

/* --- operations --- */

struct platform_op *op_destroy(struct platform_op *op)
{
        if (!op)
                return NULL;
        LIST_REMOVE(op, entry);
        for (size_t i = 0; i < ARRAY_SIZE(op->calls); i++)
                qmp_call_free(op->calls[i]);
        sd_event_source_disable_unref(op->reissue);
        sd_event_source_disable_unref(op->limit);
        json_object_put(op->balloon);
        platform_snapshot_done(&op->snapshot);
        free(op);
        return NULL;
}

struct platform_op *op_new(struct qmp_platform *p, enum op_kind kind, void *userdata)
{
        struct platform_op *op = calloc(1, sizeof(*op));

        if (!op)
                return NULL;
        op->ops = &qmp_platform_ops;
        op->kind = kind;
        op->platform = p;
        op->userdata = userdata;
        LIST_INSERT_HEAD(&p->ops, op, entry);
        return op;
}

void op_complete(struct platform_op *op)
{
        platform_done_t done = op->done;
        void *userdata = op->userdata;
        struct error error = op->error;

        op_destroy(op);
        if (done)
                done(error.code ? &error : NULL, userdata);
}

void op_take_error(struct platform_op *op, const struct error *error)
{
        if (op->error.code == ERROR_NONE)
                op->error = *error;
}

int op_call(struct platform_op *op, unsigned index, const char *command, struct json_object *arguments,
        qmp_reply_t on_reply)
{
        return qmp_call(op->platform->qmp, command, arguments, COMMAND_USEC, on_reply, op, &op->calls[index]);
}

void op_call_or_complete(struct platform_op *op, unsigned index, const char *command,
        struct json_object *arguments, qmp_reply_t on_reply)
{
        int r = op_call(op, index, command, arguments, on_reply);
        if (r < 0) {
                struct error error;
                error_set_errno(&error, ERROR_HYPERVISOR_ABSENT, r, "%s could not be sent to QEMU", command);
                op_take_error(op, &error);
                op_complete(op);
        }
}

struct json_object *object_with_string(const char *key, const char *value)
{
        struct json_object *o = json_object_new_object();

        if (o && json_add_string(o, key, value) < 0) {
                json_object_put(o);
                return NULL;
        }
        return o;
}

void qmp_translate_refusal(struct error *error)
{
        static const char nodes[] = "exceeds the number of numa nodes: ";
        const char *count = strstr(error->message, nodes);
        unsigned n;

        if (error->code != ERROR_HYPERVISOR_REFUSED)
                return;
        if (strstr(error->message, "not allowed while migrating"))
                error_set(error, ERROR_NOT_RUNNING,
                        "The guest is being migrated, and its memory cannot change now; ask again when that "
                        "has ended");
        else if (count && sscanf(count + strlen(nodes), "%u", &n) == 1 && n == 1)
                error_set(error, ERROR_UNKNOWN_NODE, "The guest has no such NUMA node: it has only node 0");
        else if (count && sscanf(count + strlen(nodes), "%u", &n) == 1 && n > 1)
                error_set(error, ERROR_UNKNOWN_NODE,
                        "The guest has no such NUMA node: it has %u, nodes 0 to %u", n, n - 1);
}

/* --- attach --- */

static void on_attach_rolled_back(struct json_object *result, const struct error *error, void *userdata)
{
        struct platform_op *op = userdata;

        op->calls[0] = NULL;
        if (error) {
                size_t used = strlen(op->error.message);
                snprintf(op->error.message + used, sizeof(op->error.message) - used,
                        "; and its backend %s could not be deleted: %.150s", op->backend, error->message);
        }
        op_complete(op);
}

static void attach_step(struct platform_op *op)
{
        if (--op->n_pending > 0)
                return;
        if (op->error.code && op->backend_created)
                op_call_or_complete(
                        op, 0, "object-del", object_with_string("id", op->backend), on_attach_rolled_back);
        else
                op_complete(op);
}

static void on_backend_added(struct json_object *result, const struct error *error, void *userdata)
{
        struct platform_op *op = userdata;

        op->calls[0] = NULL;
        if (error)
                op_take_error(op, error);
        else
                op->backend_created = true;
        attach_step(op);
}

static void on_device_added(struct json_object *result, const struct error *error, void *userdata)
{
        struct platform_op *op = userdata;

        op->calls[1] = NULL;
        /* When the backend failed, the device fails for want of it: the first error is the one that tells. */
        if (error) {
                struct error refusal = *error;
                qmp_translate_refusal(&refusal);
                op_take_error(op, &refusal);
        }
        attach_step(op);
}

static int attach_arguments(const char *id, const char *backend, uint64_t size_bytes, int node,
        struct json_object **ret_object, struct json_object **ret_device)
{
        _cleanup_json_ struct json_object *object = object_with_string("qom-type", "memory-backend-ram");
        _cleanup_json_ struct json_object *device = object_with_string("driver", "pc-dimm");

        if (!object || !device || json_add_string(object, "id", backend) < 0 ||
                json_add_u64(object, "size", size_bytes) < 0 || json_add_string(device, "id", id) < 0 ||
                json_add_string(device, "memdev", backend) < 0 ||
                (node >= 0 && json_add_u64(device, "node", (uint64_t)node) < 0))
                return -ENOMEM;
        *ret_object = steal_pointer(object);
        *ret_device = steal_pointer(device);
        return 0;
}

static int qmp_platform_attach_dimm(struct platform *base, const char *id, const char *backend,
        uint64_t size_bytes, int node, platform_done_t done, void *userdata, struct platform_op **ret)
{
        struct qmp_platform *p = (struct qmp_platform *)base;
        struct json_object *object, *device;

        int r = attach_arguments(id, backend, size_bytes, node, &object, &device);
        if (r < 0)
                return r;
        struct platform_op *op = op_new(p, OP_KIND_ATTACH, userdata);
        if (!op) {
                json_object_put(object);
                json_object_put(device);
                return -ENOMEM;
        }
        snprintf(op->device, sizeof(op->device), "%s", id);
        snprintf(op->backend, sizeof(op->backend), "%s", backend);

        /* Both at once: a round trip less, and QEMU takes them in order. */
        r = op_call(op, 0, "object-add", object, on_backend_added);
        if (r < 0) {
                json_object_put(device);
                op_destroy(op);
                return r;
        }
        op->done = done;
        op->n_pending = 1;
        r = op_call(op, 1, "device_add", device, on_device_added);
        if (r < 0)
                error_set_errno(
                        &op->error, ERROR_HYPERVISOR_ABSENT, r, "device_add could not be sent to QEMU");
        else
                op->n_pending++;
        if (ret)
                *ret = op;
        return 0;
}

/* --- events --- */

/* The device of an event: `device`, or the last part of `path`. */
static const char *event_device(struct json_object *data)
{
        const char *s;

        if (json_get_string(data, "device", &s) >= 0)
                return s;
        if (json_get_string(data, "path", &s) < 0)
                return NULL;
        const char *slash = strrchr(s, '/');
        return slash ? slash + 1 : s;
}

/* ACPI's _OST for a DIMM. Source 3 is an ejection: 132 says "in progress", 0 "success", all else is a
 * refusal. The guest triggers it at will (QEMU does not throttle it), so nothing but a detach that waits for
 * it is touched. */
static void acpi_ost(struct qmp_platform *p, struct json_object *data)
{
        struct json_object *info;
        const char *device;
        uint64_t source, status;

        if (json_get_object(data, "info", &info) < 0 || json_get_string(info, "device", &device) < 0 ||
                json_get_u64(info, "source", UINT32_MAX, &source) < 0 ||
                json_get_u64(info, "status", UINT32_MAX, &status) < 0)
                return;
        if ((source == 3 || source == 0x103) && status != 0 && status != 132)
                qmp_unplug_refused(
                        p, device, status == 130 ? "it is busy" : "its firmware interface reports a failure");
}

static void on_chardevs(struct json_object *result, const struct error *error, void *userdata)
{
        struct qmp_platform *p = userdata;

        p->chardev_call = NULL;
        if (error)
                return;
        int r = chardev_is_open(result, p->channel);
        if (r >= 0)
                p->base.handlers->on_port(&p->base, r > 0, p->base.userdata);
}

static void check_port(struct qmp_platform *p)
{
        p->chardev_call = qmp_call_free(p->chardev_call);
        qmp_call(p->qmp, "query-chardev", NULL, COMMAND_USEC, on_chardevs, p, &p->chardev_call);
}

static void balloon_changed(struct qmp_platform *p, struct json_object *data)
{
        uint64_t actual_bytes;

        p->has_no_balloon = false;
        if (json_get_u64(data, "actual", PROTO_ADDRESS_MAX, &actual_bytes) >= 0)
                p->base.handlers->on_balloon(&p->base, actual_bytes, p->base.userdata);
        else
                p->base.handlers->on_changed(&p->base, p->base.userdata);
}

/* Of a virtio-mem device without an id the event has only the path: that something changed is all it is good
 * for. */
static void device_size_changed(struct qmp_platform *p, struct json_object *data)
{
        const char *id;
        uint64_t size_bytes;

        if (json_get_string(data, "id", &id) >= 0 &&
                json_get_u64(data, "size", PROTO_ADDRESS_MAX, &size_bytes) >= 0)
                p->base.handlers->on_device_size(&p->base, id, size_bytes, p->base.userdata);
        else
                p->base.handlers->on_changed(&p->base, p->base.userdata);
}

static void on_qmp_event(struct qmp_client *c, const char *name, struct json_object *data, void *userdata)
{
        static const char *const changes[] = { "STOP", "RESUME", "SUSPEND", "WAKEUP", "GUEST_PANICKED",
                "MIGRATION" };
        struct qmp_platform *p = userdata;

        if (strcmp(name, "BALLOON_CHANGE") == 0)
                balloon_changed(p, data);
        else if (strcmp(name, "MEMORY_DEVICE_SIZE_CHANGE") == 0)
                device_size_changed(p, data);
        else if (strcmp(name, "DEVICE_DELETED") == 0)
                qmp_device_deleted(p, event_device(data));
        else if (strcmp(name, "ACPI_DEVICE_OST") == 0)
                acpi_ost(p, data);
        else if (strcmp(name, "DEVICE_UNPLUG_GUEST_ERROR") == 0 || strcmp(name, "MEM_UNPLUG_ERROR") == 0)
                qmp_unplug_refused(p, event_device(data), "its kernel could not release it");
        else if (strcmp(name, "VSERPORT_CHANGE") == 0)
                check_port(p);
        else if (strcmp(name, "RESET") == 0) {
                /* What was pending has left: QEMU said that before it said this. */
                qmp_forget_pending_unplugs(p);
                qmp_stop_asking(p);
                p->base.handlers->on_reset(&p->base, p->base.userdata);
        } else
                for (size_t i = 0; i < ARRAY_SIZE(changes); i++)
                        if (strcmp(name, changes[i]) == 0)
                                p->base.handlers->on_changed(&p->base, p->base.userdata);
}

static void on_qmp_up(struct qmp_client *c, void *userdata)
{
        struct qmp_platform *p = userdata;

        p->has_constants = p->has_no_balloon = false;
        p->balloon = (typeof(p->balloon)) { 0 };
        p->base.handlers->on_up(&p->base, p->base.userdata);
        check_port(p);
}

static void on_qmp_down(struct qmp_client *c, const struct error *error, void *userdata)
{
        struct qmp_platform *p = userdata;
        struct platform_op *op;

        /* What awaits a reply has failed by now. What awaits an event has not. */
        do
                LIST_FOREACH (op, &p->ops, entry)
                        if (op->kind == OP_KIND_DETACH) {
                                op->error = *error;
                                op_complete(op);
                                break;
                        }
        while (op);
        qmp_forget_pending_unplugs(p); /* what comes of them is not seen any more */
        p->base.handlers->on_down(&p->base, error, p->base.userdata);
}

/* --- the platform --- */

static struct platform *qmp_platform_free(struct platform *base)
{
        struct qmp_platform *p = (struct qmp_platform *)base;

        while (!LIST_EMPTY(&p->ops))
                op_destroy(LIST_FIRST(&p->ops));
        qmp_call_free(p->chardev_call);
        qmp_client_free(p->qmp);
        sd_event_unref(p->event);
        free(p->known);
        free(p->channel);
        free(p);
        return NULL;
}

/* The owner loses interest. A query can end; what changes QEMU runs on without a callback, so that a refused
 * device still takes its backend along. */
static struct platform_op *qmp_platform_op_free(struct platform_op *op)
{
        if (op->kind == OP_KIND_QUERY)
                return op_destroy(op);
        op->done = NULL;
        return NULL;
}

static pid_t qmp_platform_pid(struct platform *base)
{
        return qmp_client_peer(((struct qmp_platform *)base)->qmp);
}

const struct platform_ops qmp_platform_ops = {
        .name = "qmp",
        .free = qmp_platform_free,
        .query = qmp_platform_query,
        .attach_dimm = qmp_platform_attach_dimm,
        .detach = qmp_platform_detach,
        .delete_backend = qmp_platform_delete_backend,
        .resize = qmp_platform_resize,
        .set_balloon = qmp_platform_set_balloon,
        .op_free = qmp_platform_op_free,
        .pid = qmp_platform_pid,
};

int platform_qmp_new(sd_event *event, const char *socket, const char *channel,
        const struct platform_handlers *handlers, void *userdata, struct platform **ret)
{
        static const struct qmp_handlers qmp_handlers = {
                .on_up = on_qmp_up,
                .on_down = on_qmp_down,
                .on_event = on_qmp_event,
        };
        struct qmp_platform *p = calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;

        p->base = (struct platform) { .ops = &qmp_platform_ops, .handlers = handlers, .userdata = userdata };
        p->event = sd_event_ref(event);
        LIST_INIT(&p->ops);
        p->channel = strdup(channel);
        int r = p->channel ? qmp_client_new(event, socket, &qmp_handlers, p, &p->qmp) : -ENOMEM;
        if (r < 0) {
                qmp_platform_free(&p->base);
                return r;
        }
        *ret = &p->base;
        return 0;
}
