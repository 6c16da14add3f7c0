/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Reads QEMU's answers. QEMU is trusted more than a guest, but a newer one may say things that this version
 * does not know: unknown device types are passed over, missing figures are errors. */

#include "hvd/platform/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/message.h"

static void copy_id(char dst[static PLATFORM_ID_MAX], const char *src)
{
        snprintf(dst, PLATFORM_ID_MAX, "%s", src);
}

int snapshot_take_status(struct platform_snapshot *s, struct json_object *o)
{
        static const struct {
                const char *status;
                enum run_state state;
        } table[] = {
                { "running", RUN_RUNNING },
                { "paused", RUN_PAUSED },
                { "suspended", RUN_PAUSED },
                { "debug", RUN_PAUSED },
                { "io-error", RUN_PAUSED },
                { "watchdog", RUN_PAUSED },
                { "save-vm", RUN_PAUSED },
                { "restore-vm", RUN_PAUSED },
                { "colo", RUN_PAUSED },
                { "inmigrate", RUN_MIGRATING },
                { "postmigrate", RUN_MIGRATING },
                { "finish-migrate", RUN_MIGRATING },
        };
        const char *status;

        if (json_get_string(o, "status", &status) < 0)
                return -EBADMSG;
        /* A migration that is running was perhaps already noted: it outranks "running". */
        if (s->state == RUN_MIGRATING)
                return 0;
        s->state = RUN_STOPPED;
        for (size_t i = 0; i < ARRAY_SIZE(table); i++)
                if (strcmp(table[i].status, status) == 0)
                        s->state = table[i].state;
        return 0;
}

int snapshot_take_migration(struct platform_snapshot *s, struct json_object *o)
{
        static const char *const idle[] = { "none", "completed", "failed", "cancelled" };
        const char *status;

        if (!json_object_is_type(o, json_type_object))
                return -EBADMSG;
        int r = json_get_string(o, "status", &status);
        if (r < 0)
                return r == -ENOENT ? 0 : -EBADMSG; /* absent: never migrated */
        for (size_t i = 0; i < ARRAY_SIZE(idle); i++)
                if (strcmp(idle[i], status) == 0)
                        return 0;
        s->state = RUN_MIGRATING;
        return 0;
}

int snapshot_take_summary(struct platform_snapshot *s, struct json_object *o)
{
        uint64_t base, plugged = 0;

        if (json_get_u64(o, "base-memory", PROTO_ADDRESS_MAX, &base) < 0)
                return -EBADMSG;
        if (json_get_u64(o, "plugged-memory", PROTO_ADDRESS_MAX, &plugged) == -EINVAL)
                return -EBADMSG;
        s->base_bytes = base;
        s->plugged_bytes = plugged;
        return 0;
}

int snapshot_take_machine_memory(struct platform_snapshot *s, struct json_object *o)
{
        uint64_t max = 0, slots = 0;

        if (!json_object_is_type(o, json_type_object))
                return -EBADMSG;
        /* slots is omitted when there are none (QEMU 7.2). */
        if (json_get_u64(o, "max-size", PROTO_ADDRESS_MAX, &max) == -EINVAL ||
                json_get_u64(o, "slots", PLATFORM_DEVICES_MAX, &slots) == -EINVAL)
                return -EBADMSG;
        s->max_bytes = max;
        s->slots = (unsigned)slots;
        return 0;
}

static int take_device(struct platform_device *d, const char *type, struct json_object *data)
{
        const char *id, *memdev = "";
        uint64_t slot = 0, node = 0;
        bool is_dimm = strcmp(type, "dimm") == 0;

        /* A device without an id cannot be named by device_del, and one with a longer id than ours not by
         * us: it counts, and never leaves. */
        if (json_get_string(data, "id", &id) < 0 || strlen(id) >= PLATFORM_ID_MAX)
                id = "";
        json_get_string(data, "memdev", &memdev);
        if (strncmp(memdev, "/objects/", 9) == 0)
                memdev += 9;

        if (json_get_u64(data, is_dimm ? "addr" : "memaddr", PROTO_ADDRESS_MAX, &d->address) < 0 ||
                json_get_u64(data, "size", PROTO_ADDRESS_MAX, &d->size_bytes) < 0)
                return -EBADMSG;
        d->region_bytes = d->requested_bytes = d->size_bytes;
        if (!is_dimm &&
                (json_get_u64(data, "max-size", PROTO_ADDRESS_MAX, &d->region_bytes) < 0 ||
                        json_get_u64(data, "requested-size", PROTO_ADDRESS_MAX, &d->requested_bytes) < 0 ||
                        json_get_u64(data, "block-size", PROTO_ADDRESS_MAX, &d->unit_bytes) < 0 ||
                        d->unit_bytes == 0))
                return -EBADMSG;
        json_get_u64(data, "slot", PLATFORM_DEVICES_MAX, &slot);
        json_get_u64(data, "node", 1024, &node);
        d->slot = (unsigned)slot;
        d->node = (unsigned)node;
        d->is_dimm = is_dimm;
        if (is_dimm)
                json_get_bool(data, "hotpluggable", &d->hotpluggable);
        if (!*id)
                d->hotpluggable = false;
        copy_id(d->id, id);
        if (strlen(memdev) < PLATFORM_ID_MAX)
                copy_id(d->memdev, memdev);
        return 0;
}

static int compare_devices(const void *a, const void *b)
{
        const struct platform_device *x = a, *y = b;

        return x->address < y->address ? -1 : x->address > y->address;
}

int snapshot_take_devices(struct platform_snapshot *s, struct json_object *o)
{
        if (!json_object_is_type(o, json_type_array))
                return -EBADMSG;
        size_t n = json_object_array_length(o);
        if (n > PLATFORM_DEVICES_MAX)
                return -EBADMSG;

        _cleanup_free_ struct platform_device *devices = calloc(n + 1, sizeof(*devices));
        size_t n_devices = 0;
        if (!devices)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                struct json_object *item = json_object_array_get_idx(o, i), *data;
                const char *type;

                if (json_get_string(item, "type", &type) < 0 || json_get_object(item, "data", &data) < 0)
                        return -EBADMSG;
                if (strcmp(type, "dimm") != 0 && strcmp(type, "virtio-mem") != 0)
                        continue;
                int r = take_device(&devices[n_devices], type, data);
                if (r < 0)
                        return r;
                n_devices++;
        }
        qsort(devices, n_devices, sizeof(*devices), compare_devices);

        free(s->devices);
        s->devices = steal_pointer(devices);
        s->n_devices = n_devices;
        return 0;
}

int snapshot_take_objects(struct platform_snapshot *s, struct json_object *o)
{
        if (!json_object_is_type(o, json_type_array))
                return -EBADMSG;
        size_t n = json_object_array_length(o);

        _cleanup_free_ char(*backends)[PLATFORM_ID_MAX] = calloc(n + 1, PLATFORM_ID_MAX);
        size_t n_backends = 0;
        if (!backends)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                const char *name;

                if (json_get_string(json_object_array_get_idx(o, i), "name", &name) < 0)
                        return -EBADMSG;
                if (strncmp(name, PLATFORM_BACKEND_PREFIX, strlen(PLATFORM_BACKEND_PREFIX)) == 0 &&
                        strlen(name) < PLATFORM_ID_MAX)
                        copy_id(backends[n_backends++], name);
        }

        free(s->backends);
        s->backends = steal_pointer(backends);
        s->n_backends = n_backends;
        return 0;
}

int snapshot_take_uuid(struct platform_snapshot *s, struct json_object *o)
{
        const char *uuid;

        if (json_get_string(o, "UUID", &uuid) < 0 || strlen(uuid) >= sizeof(s->uuid))
                return -EBADMSG;
        snprintf(s->uuid, sizeof(s->uuid), "%s", uuid);
        return 0;
}

int snapshot_take_target(struct platform_snapshot *s, struct json_object *o)
{
        const char *arch;

        if (json_get_string(o, "arch", &arch) < 0 || strlen(arch) >= sizeof(s->arch))
                return -EBADMSG;
        snprintf(s->arch, sizeof(s->arch), "%s", arch);
        return 0;
}

/* "2 nodes", and for each "node 0 size: 512 MB" and "node 0 plugged: 0 MB", of which the size has a part. */
int snapshot_take_numa(struct platform_snapshot *s, struct json_object *o)
{
        const char *text = json_object_is_type(o, json_type_string) ? json_object_get_string(o) : "";
        unsigned n_nodes = 0, node;
        uint64_t mib;

        if (sscanf(text, "%u nodes", &n_nodes) != 1 || n_nodes > PLATFORM_NODES_MAX)
                return 0;
        for (const char *line = text; line; line = strchr(line, '\n')) {
                line += *line == '\n';
                if (sscanf(line, "node %u size: %" SCNu64 " MB", &node, &mib) == 2 && node < n_nodes)
                        s->node_base_bytes[node] += mib << 20;
                else if (sscanf(line, "node %u plugged: %" SCNu64 " MB", &node, &mib) == 2 && node < n_nodes)
                        s->node_base_bytes[node] -= mib << 20;
        }
        s->n_nodes = n_nodes;
        if (n_nodes == 0) { /* without -numa there is node 0 */
                s->n_nodes = 1;
                s->node_base_bytes[0] = s->base_bytes;
        }
        return 0;
}

int snapshot_take_balloon(struct platform_snapshot *s, struct json_object *o)
{
        uint64_t actual, total = platform_balloon_total(s);

        if (json_get_u64(o, "actual", PROTO_ADDRESS_MAX, &actual) < 0)
                return -EBADMSG;
        s->balloon.present = true;
        s->balloon.actual_bytes = actual;
        s->balloon_bytes = actual < total ? total - actual : 0;
        return 0;
}

int snapshot_take_balloon_stats(struct platform_snapshot *s, struct json_object *o)
{
        struct platform_balloon_stats stats = { UINT64_MAX, UINT64_MAX, UINT64_MAX, 0 };
        struct json_object *values;

        if (json_get_object(o, "stats", &values) < 0 ||
                json_get_u64(o, "last-update", INT64_MAX, &stats.updated_sec) < 0)
                return -EBADMSG;
        /* What its driver does not know stands there as 2^64 - 1, or, in another QEMU, not at all. */
        json_get_u64(values, "stat-total-memory", UINT64_MAX, &stats.total_bytes);
        json_get_u64(values, "stat-free-memory", UINT64_MAX, &stats.free_bytes);
        json_get_u64(values, "stat-available-memory", UINT64_MAX, &stats.available_bytes);
        s->balloon.stats = stats;
        return 0;
}

const char *snapshot_find_balloon(struct json_object *o)
{
        static const char type[] = "child<virtio-balloon";

        for (size_t i = 0; json_object_is_type(o, json_type_array) && i < json_object_array_length(o); i++) {
                struct json_object *item = json_object_array_get_idx(o, i);
                const char *name, *kind;

                if (json_get_string(item, "type", &kind) >= 0 && json_get_string(item, "name", &name) >= 0 &&
                        strncmp(kind, type, strlen(type)) == 0)
                        return name;
        }
        return NULL;
}

int chardev_is_open(struct json_object *o, const char *socket)
{
        if (!json_object_is_type(o, json_type_array))
                return -EBADMSG;
        for (size_t i = 0; i < json_object_array_length(o); i++) {
                struct json_object *item = json_object_array_get_idx(o, i);
                const char *filename, *at;
                bool open;

                /* "unix:/run/g.sock,server=on", or "disconnected:unix:..." */
                if (json_get_string(item, "filename", &filename) < 0 || !(at = strstr(filename, socket)))
                        continue;
                char after = at[strlen(socket)];
                if (at == filename || at[-1] != ':' || (after != ',' && after != '\0'))
                        continue;
                if (json_get_bool(item, "frontend-open", &open) < 0)
                        return -EBADMSG;
                return open;
        }
        return -ENOENT;
}
