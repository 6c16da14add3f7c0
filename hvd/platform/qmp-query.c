/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Asking a QEMU for its whole account: every command of a query is sent at once, the answers are gathered
 * into one snapshot, and the first error is the query's. */

#include <string.h>

#include "common/log.h"
#include "hvd/platform/qmp-internal.h"
#include "hvd/platform/snapshot.h"

/* The others follow from what is answered: see qmp-balloon.c. */
#define QUERY_PARTS_ALWAYS (QUERY_BALLOON + 1)

static int (*const query_takers[QUERY_PARTS_ALWAYS])(struct platform_snapshot *, struct json_object *) = {
        [QUERY_STATUS] = snapshot_take_status,
        [QUERY_MIGRATE] = snapshot_take_migration,
        [QUERY_SUMMARY] = snapshot_take_summary,
        [QUERY_MACHINE] = snapshot_take_machine_memory,
        [QUERY_DEVICES] = snapshot_take_devices,
        [QUERY_OBJECTS] = snapshot_take_objects,
        [QUERY_UUID] = snapshot_take_uuid,
        [QUERY_TARGET] = snapshot_take_target,
        [QUERY_NUMA] = snapshot_take_numa,
};
static const char *const query_commands[QUERY_PARTS_ALWAYS] = {
        [QUERY_STATUS] = "query-status",
        [QUERY_MIGRATE] = "query-migrate",
        [QUERY_SUMMARY] = "query-memory-size-summary",
        [QUERY_MACHINE] = "qom-get",
        [QUERY_DEVICES] = "query-memory-devices",
        [QUERY_OBJECTS] = "qom-list",
        [QUERY_UUID] = "query-uuid",
        [QUERY_TARGET] = "query-target",
        [QUERY_NUMA] = "human-monitor-command",
        [QUERY_BALLOON] = "query-balloon",
};

static bool is_unplug_pending(const struct qmp_platform *p, const char *device)
{
        for (size_t i = 0; i < p->n_known; i++)
                if (p->known[i].unplug_pending && strcmp(p->known[i].device, device) == 0)
                        return true;
        return false;
}

/* QEMU does not list which unplugs are pending: the snapshot has it from what was seen here. */
static void remember_devices(struct qmp_platform *p, struct platform_snapshot *s)
{
        typeof(p->known) known = calloc(s->n_devices + 1, sizeof(*known));

        for (size_t i = 0; i < s->n_devices; i++)
                s->devices[i].unplug_pending = is_unplug_pending(p, s->devices[i].id);
        free(p->known);
        p->known = known;
        p->n_known = known ? s->n_devices : 0;
        for (size_t i = 0; i < p->n_known; i++) {
                memcpy(known[i].device, s->devices[i].id, PLATFORM_ID_MAX);
                memcpy(known[i].backend, s->devices[i].memdev, PLATFORM_ID_MAX);
                known[i].unplug_pending = s->devices[i].unplug_pending;
        }
        p->is_x86 = strcmp(s->arch, "x86_64") == 0 || strcmp(s->arch, "i386") == 0;
        p->is_pseries = platform_arch_is_pseries(s->arch);
}

static bool part_is_constant(enum query_part part)
{
        return part == QUERY_MACHINE || part == QUERY_UUID || part == QUERY_TARGET || part == QUERY_NUMA;
}

static void keep_constants(struct qmp_platform *p, struct platform_snapshot *s)
{
        struct platform_snapshot *from = p->has_constants ? &p->constants : s,
                                 *to = p->has_constants ? s : &p->constants;

        memcpy(to->uuid, from->uuid, sizeof(to->uuid));
        memcpy(to->arch, from->arch, sizeof(to->arch));
        to->max_bytes = from->max_bytes;
        to->slots = from->slots;
        to->n_nodes = from->n_nodes;
        memcpy(to->node_base_bytes, from->node_base_bytes, sizeof(to->node_base_bytes));
        p->has_constants = true;
}

static void query_complete(struct platform_op *op)
{
        platform_query_t done = op->query_done;
        void *userdata = op->userdata;
        struct error error = op->error;
        struct platform_snapshot snapshot = op->snapshot;

        if (op->balloon && !error.code && snapshot_take_balloon(&snapshot, op->balloon) < 0)
                error_set(&error, ERROR_HYPERVISOR_MISBEHAVED,
                        "QEMU's answer to query-balloon is not understood");
        op->snapshot = (struct platform_snapshot) { 0 };
        if (!error.code) {
                qmp_balloon_complete(op->platform, &snapshot);
                keep_constants(op->platform, &snapshot);
                remember_devices(op->platform, &snapshot);
        }
        op_destroy(op);
        if (done)
                done(error.code ? NULL : &snapshot, error.code ? &error : NULL, userdata);
        platform_snapshot_done(&snapshot);
}

static void query_take(
        struct platform_op *op, enum query_part part, struct json_object *result, const struct error *error)
{
        op->calls[part] = NULL;
        if (part == QUERY_BALLOON) {
                /* Refused: no balloon device. */
                if (result) {
                        op->balloon = json_object_get(result);
                        qmp_balloon_look(op);
                } else if (error->code == ERROR_HYPERVISOR_REFUSED)
                        op->platform->has_no_balloon = true;
        } else if (part == QUERY_NUMA && error && error->code == ERROR_HYPERVISOR_REFUSED)
                log_debug("QEMU does not tell its NUMA nodes: %s", error->message);
        else if (error)
                op_take_error(op, error);
        else if (query_takers[part](&op->snapshot, result) < 0 && !op->error.code)
                error_set(&op->error, ERROR_HYPERVISOR_MISBEHAVED, "QEMU's answer to %s is not understood",
                        query_commands[part]);
        if (--op->n_pending == 0)
                query_complete(op);
}

void qmp_query_part_done(struct platform_op *op)
{
        if (--op->n_pending == 0)
                query_complete(op);
}

int qmp_query_call(struct platform_op *op, enum query_part part, const char *command,
        struct json_object *arguments, qmp_reply_t on_reply)
{
        int r = arguments ? op_call(op, part, command, arguments, on_reply) : -ENOMEM;

        if (r >= 0)
                op->n_pending++;
        return r;
}

/* QMP replies carry no note of which command they answer, so each part has its own callback. */
#define DEFINE_QUERY_REPLY(part)                                                                             \
        static void on_reply_##part(struct json_object *result, const struct error *error, void *userdata)   \
        {                                                                                                    \
                query_take(userdata, part, result, error);                                                   \
        }
DEFINE_QUERY_REPLY(QUERY_STATUS)
DEFINE_QUERY_REPLY(QUERY_MIGRATE)
DEFINE_QUERY_REPLY(QUERY_SUMMARY)
DEFINE_QUERY_REPLY(QUERY_MACHINE)
DEFINE_QUERY_REPLY(QUERY_DEVICES)
DEFINE_QUERY_REPLY(QUERY_OBJECTS)
DEFINE_QUERY_REPLY(QUERY_UUID)
DEFINE_QUERY_REPLY(QUERY_TARGET)
DEFINE_QUERY_REPLY(QUERY_NUMA)
DEFINE_QUERY_REPLY(QUERY_BALLOON)

static const qmp_reply_t query_replies[QUERY_PARTS_ALWAYS] = {
        on_reply_QUERY_STATUS,
        on_reply_QUERY_MIGRATE,
        on_reply_QUERY_SUMMARY,
        on_reply_QUERY_MACHINE,
        on_reply_QUERY_DEVICES,
        on_reply_QUERY_OBJECTS,
        on_reply_QUERY_UUID,
        on_reply_QUERY_TARGET,
        on_reply_QUERY_NUMA,
        on_reply_QUERY_BALLOON,
};

struct json_object *qom_arguments(const char *path, const char *property)
{
        struct json_object *o = object_with_string("path", path);

        if (o && json_add_string(o, "property", property) < 0) {
                json_object_put(o);
                return NULL;
        }
        return o;
}

/* Whether a query leaves a part out: what is known, and what is not worth the guest's time. */
static bool is_left_out(const struct qmp_platform *p, bool devices_only, enum query_part part)
{
        if (!p->has_constants)
                return part == QUERY_BALLOON && p->has_no_balloon;
        if (part == QUERY_BALLOON)
                return p->has_no_balloon || (devices_only && p->balloon.target_bytes == 0);
        return part_is_constant(part) || (devices_only && part != QUERY_DEVICES);
}

static int query_arguments(enum query_part part, struct json_object **ret)
{
        *ret = NULL;
        if (part == QUERY_OBJECTS)
                *ret = object_with_string("path", "/objects");
        else if (part == QUERY_NUMA)
                *ret = object_with_string("command-line", "info numa");
        else if (part == QUERY_MACHINE)
                *ret = qom_arguments("/machine", "memory");
        else
                return 0;
        return *ret ? 0 : -ENOMEM;
}

int qmp_platform_query(struct platform *base, bool devices_only, platform_query_t done, void *userdata,
        struct platform_op **ret)
{
        struct qmp_platform *p = (struct qmp_platform *)base;
        struct platform_op *op = op_new(p, OP_KIND_QUERY, userdata);
        if (!op)
                return -ENOMEM;

        op->query_done = done;
        op->devices_only = devices_only && p->has_constants;
        for (enum query_part part = 0; part < QUERY_PARTS_ALWAYS; part++) {
                struct json_object *arguments;

                if (is_left_out(p, devices_only, part))
                        continue;
                int r = query_arguments(part, &arguments);
                if (r >= 0)
                        r = op_call(op, part, query_commands[part], arguments, query_replies[part]);
                if (r < 0) {
                        op_destroy(op);
                        return r;
                }
                op->n_pending++;
        }
        if (ret)
                *ret = op;
        return 0;
}
