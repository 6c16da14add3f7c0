/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Memory in virtio-mem devices: it moves in units of 2 MiB, needs no slot, and leaves without the guest's
 * blocks having to go as a whole. The guest's driver chooses what leaves, takes blocks online by the kernel's
 * own rule (auto_online_blocks, which PREPARE sets), and stops adding when 1 GiB of them is offline
 * (Linux 6.1).
 *
 * A guest may have several devices, as one for each node: an addition goes to the one whose node has the
 * least plugged for its memory at boot, piece by piece, and a removal takes from the one that has the most.
 */

#include <stdio.h>
#include <string.h>

#include "common/size.h"
#include "hvd/memory/headroom.h"
#include "hvd/memory/mechanism.h"
#include "hvd/memory/mover.h"
#include "hvd/memory/nodes.h"

/* What is dealt out at once among several devices. */
#define PIECE_BYTES (128 * MIB)
/* MemTotal follows to the page; this is for what the kernel takes or gives at the same time. */
#define CONFIRM_PARTS 16U

/* A device without an id is not ours to resize. */
static bool is_candidate(const struct platform_device *d, const struct job_request *request)
{
        return !d->is_dimm && d->id[0] && (request->node < 0 || d->node == (unsigned)request->node) &&
               (!request->device[0] || strcmp(d->id, request->device) == 0);
}

static uint64_t movable_bytes_of(const struct platform_device *d, bool adds)
{
        return adds ? d->region_bytes - MIN(d->size_bytes, d->region_bytes) : d->size_bytes;
}

/* --- what there is --- */

struct account {
        size_t n_devices;
        uint64_t unit_bytes, size_bytes, region_bytes, most_bytes;
};

static struct account account(const struct partition *p, const struct job_request *request)
{
        struct account a = { 0 };

        for (size_t i = 0; i < p->snapshot.n_devices; i++) {
                const struct platform_device *d = &p->snapshot.devices[i];

                if (!is_candidate(d, request))
                        continue;
                a.n_devices++;
                a.unit_bytes = MAX(a.unit_bytes, d->unit_bytes); /* powers of two */
                a.size_bytes += d->size_bytes;
                a.region_bytes += d->region_bytes;
                a.most_bytes += movable_bytes_of(d, request->kind == JOB_ADD_MEMORY);
        }
        return a;
}

static int check_device(const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        char known[256] = "";
        size_t used = 0;

        for (size_t i = 0; i < p->snapshot.n_devices; i++) {
                const struct platform_device *d = &p->snapshot.devices[i];

                if (!d->is_dimm && d->id[0] && used < sizeof(known))
                        used += (size_t)snprintf(
                                known + used, sizeof(known) - used, "%s%s", used ? ", " : "", d->id);
        }
        if (!used)
                return error_set(ret_error, ERROR_NO_HOTPLUG,
                        "Partition '%s' has no virtio-mem device that has an id; start its QEMU with "
                        "-device virtio-mem-pci,id=...",
                        p->definition.name);
        const struct platform_device *d = platform_snapshot_find(&p->snapshot, request->device);
        if (request->device[0] && (!d || d->is_dimm))
                return error_set(ret_error, ERROR_UNKNOWN_DEVICE,
                        "'%s' is not a virtio-mem device of '%s'; there %s", request->device,
                        p->definition.name, known);
        if (request->has_drc)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "A DRC index names an LMB, and not memory of method virtio-mem");
        return 0;
}

/* Resolves a whole node to its size. */
static int check(const struct partition *p, struct job_request *request, struct error *ret_error)
{
        bool adds = request->kind == JOB_ADD_MEMORY;
        int r = nodes_check(p, request->node, ret_error);

        if (r >= 0)
                r = check_device(p, request, ret_error);
        if (r < 0)
                return r;
        struct account a = account(p, request);
        if (request->whole_node)
                request->bytes = a.size_bytes;
        if (a.n_devices == 0 && request->node >= 0)
                return error_set(ret_error, adds ? ERROR_NO_HOTPLUG : ERROR_NOT_PLUGGED,
                        "Partition '%s' has no virtio-mem device in node %d", p->definition.name,
                        request->node);
        if (request->bytes == 0)
                return error_set(ret_error, ERROR_NOT_PLUGGED, "Nothing is plugged by virtio-mem in node %d",
                        request->node);
        if (adds && request->bytes > a.most_bytes)
                return error_set(ret_error, ERROR_BEYOND_MAX,
                        "virtio-mem of '%s' has %s of %s plugged; at most %s can be added",
                        p->definition.name, SIZE(a.size_bytes), SIZE(a.region_bytes),
                        SIZE_EXACT(a.most_bytes));
        if (request->bytes > a.most_bytes)
                return error_set(ret_error, ERROR_NOT_PLUGGED,
                        "%s is more than the %s that '%s' has plugged by virtio-mem; ask for at most that",
                        SIZE_EXACT(request->bytes), SIZE_EXACT(a.size_bytes), p->definition.name);
        r = mover_check_unit(request->bytes, a.unit_bytes, a.most_bytes, "virtio-mem", ret_error);
        if (r < 0)
                return r;
        return adds ? mover_check_max(p, request, ret_error) : mover_check_min(p, request, ret_error);
}

/* --- the plan --- */

/* Plugged in a part's node by the plan so far, for its memory at boot; nodes without any come last. */
static double node_load(const struct mover *m, const struct platform_device *d)
{
        const struct platform_snapshot *s = &m->job->partition->snapshot;
        uint64_t base = d->node < s->n_nodes ? s->node_base_bytes[d->node] : 0, plugged = 0;

        for (size_t i = 0; i < s->n_devices; i++)
                if (s->devices[i].node == d->node)
                        plugged += s->devices[i].size_bytes;
        for (size_t i = 0; i < m->n_parts; i++) {
                const struct platform_device *of = platform_snapshot_find(s, m->parts[i].id);
                if (of && of->node == d->node)
                        plugged += m->parts[i].target_bytes - m->parts[i].origin_bytes;
        }
        return base ? (double)plugged / (double)base : 1e18;
}

static uint64_t part_left(const struct mover *m, const struct mover_part *part)
{
        const struct platform_device *d = platform_snapshot_find(&m->job->partition->snapshot, part->id);

        return m->adds ? d->region_bytes - part->target_bytes : part->target_bytes;
}

static struct mover_part *choose_part(struct mover *m)
{
        const struct platform_snapshot *s = &m->job->partition->snapshot;
        struct mover_part *best = NULL;
        double best_load = 0;

        for (size_t i = 0; i < m->n_parts; i++) {
                struct mover_part *part = &m->parts[i];

                if (part_left(m, part) == 0)
                        continue;
                double load = node_load(m, platform_snapshot_find(s, part->id));
                if (!best || (m->adds ? load < best_load : load > best_load)) {
                        best = part;
                        best_load = load;
                }
        }
        return best;
}

/* A device whose wish is not what it has is on its way by somebody else's hand. */
static void take_devices(struct mover *m)
{
        const struct partition *p = m->job->partition;
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;

        if (partition_plan_snapshot(p, NULL, &s, &devices) < 0)
                return;
        for (size_t i = 0; i < s.n_devices && m->n_parts < MOVER_PARTS_MAX; i++) {
                const struct platform_device *d = &p->snapshot.devices[i];

                if (!is_candidate(d, &m->job->request) || movable_bytes_of(d, m->adds) == 0)
                        continue;
                struct mover_part *part = &m->parts[m->n_parts++];
                snprintf(part->id, sizeof(part->id), "%s", d->id);
                part->unit_bytes = d->unit_bytes;
                part->origin_bytes = part->target_bytes = part->size_bytes = d->size_bytes;
                part->kernel_bytes = devices[i].kernel_bytes + devices[i].stuck_bytes;
        }
}

static void deal_out(struct mover *m, uint64_t bytes)
{
        struct mover_part *part;

        while (bytes > 0 && (part = choose_part(m))) {
                uint64_t piece = part_left(m, part);

                piece = MIN(piece, bytes);
                if (m->n_parts > 1)
                        piece = MIN(piece, PIECE_BYTES);

                part->target_bytes += m->adds ? piece : -piece;
                bytes -= piece;
        }
}

static int choose_zones(struct mover *m, struct error *ret_error)
{
        const struct partition *p = m->job->partition;
        const struct job_request *request = &m->job->request;
        uint64_t budget = zone_ratio_budget(p->memory.kernel_bytes, p->memory.movable_bytes);

        switch (request->zone) {
        case ZONE_POLICY_KERNEL:
                m->kernel_left = request->bytes;
                return 0;
        case ZONE_POLICY_MOVABLE:
                if (request->bytes > budget)
                        return error_set(ret_error, ERROR_ZONE_RATIO,
                                "%s in zone Movable would be more than three times what the kernel has; at "
                                "most %s can be, or leave the zone to us",
                                SIZE(request->bytes), SIZE_EXACT(budget / (2 * MIB) * (2 * MIB)));
                return 0;
        default:
                m->kernel_left = plan_kernel_part(p->memory.kernel_bytes, p->memory.movable_bytes,
                        request->bytes, MAX(partition_block_bytes(p), PIECE_BYTES));
                return 0;
        }
}

static int virtio_mem_plan(struct mover *m, struct error *ret_error)
{
        struct job_request *request = &m->job->request;
        int r = check(m->job->partition, request, ret_error);

        if (r >= 0 && m->adds)
                r = choose_zones(m, ret_error);
        if (r < 0)
                return r;
        take_devices(m);
        deal_out(m, request->bytes);
        for (size_t i = 0; i < m->n_parts; i++) {
                const struct mover_part *part = &m->parts[i];

                if (part->target_bytes != part->origin_bytes)
                        job_add_plan(m->job, "resize virtio-mem device %s from %s to %s", part->id,
                                SIZE(part->origin_bytes), SIZE(part->target_bytes));
        }
        if (m->kernel_left > 0)
                job_add_plan(m->job, "bring %s of it online in a kernel zone, and the rest in zone Movable",
                        SIZE(m->kernel_left));
        else if (m->adds)
                job_add_plan(m->job, "bring all of it online in zone Movable");
        return 0;
}

/* --- both ends --- */

static int confirm_device(const struct mover *m, const struct mover_part *part, struct error *ret_error)
{
        const struct partition *p = m->job->partition;
        const struct platform_device *d = platform_snapshot_find(&p->snapshot, part->id);
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;

        if (!d || d->size_bytes != part->size_bytes)
                return error_set(ret_error, ERROR_ACCOUNTS_DIFFER, "%s had %s plugged, and QEMU now says %s",
                        part->id, SIZE(part->size_bytes),
                        d ? SIZE(d->size_bytes) : "that there is no such device");
        if (partition_plan_snapshot(p, NULL, &s, &devices) < 0)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        for (size_t i = 0; m->adds && i < s.n_devices; i++) {
                const struct plan_device *g = &devices[i];
                uint64_t online = g->movable_bytes + g->kernel_bytes + g->stuck_bytes;

                if (strcmp(g->id, part->id) != 0 || (online >= d->size_bytes && g->offline_bytes == 0))
                        continue;
                error_set(ret_error, ERROR_ACCOUNTS_DIFFER,
                        "QEMU says that %s has %s plugged, and the guest has %s of it online and %s offline",
                        part->id, SIZE(d->size_bytes), SIZE(online), SIZE(g->offline_bytes));
                return 0;
        }
        return 1;
}

static int virtio_mem_confirm(struct mover *m, struct error *ret_error)
{
        uint64_t moved = mover_all_moved_bytes(m), now = m->job->partition->memory.total_bytes;
        uint64_t more = m->adds ? now : m->total_bytes, less = m->adds ? m->total_bytes : now;

        for (size_t i = 0; i < m->n_parts; i++) {
                if (mover_moved_bytes(m, &m->parts[i]) == 0)
                        continue;
                int r = confirm_device(m, &m->parts[i], ret_error);
                if (r <= 0)
                        return r;
        }
        if (more >= less + moved - moved / CONFIRM_PARTS)
                return 1;
        error_set(ret_error, ERROR_ACCOUNTS_DIFFER,
                "%s %s by QEMU's account, and the guest's MemTotal went from %s to %s", SIZE(moved),
                m->adds ? "came" : "left", SIZE(m->total_bytes / MIB * MIB), SIZE(now / MIB * MIB));
        return 0;
}

static void virtio_mem_explain(
        const struct mover *m, const struct mover_part *part, enum resize_end end, struct error *ret_error)
{
        uint64_t wanted =
                m->adds ? part->target_bytes - part->origin_bytes : part->origin_bytes - part->target_bytes;
        uint64_t moved = mover_moved_bytes(m, part), rest = wanted - MIN(moved, wanted);

        if (end == RESIZE_NO_HEADROOM)
                error_set(ret_error, ERROR_NO_HEADROOM,
                        "The guest ran short of memory on the way: %s of %s left, and %s stays plugged",
                        SIZE(moved), SIZE(wanted), SIZE(part->size_bytes));
        else if (end == RESIZE_STOPPED)
                error_set(ret_error, m->job->stop == JOB_STOP_CANCEL ? ERROR_CANCELLED : ERROR_DEADLINE,
                        "%s of %s %s in time, and %s is plugged now", SIZE(moved), SIZE(wanted),
                        m->adds ? "came" : "left", SIZE(part->size_bytes));
        else if (m->adds)
                error_set(ret_error, ERROR_BLOCK_FAILED,
                        "The guest's driver took %s of %s and no more (is virtio_mem loaded in it? see its "
                        "log)",
                        SIZE(moved), SIZE(wanted));
        else
                error_set(ret_error, ERROR_BLOCK_BUSY,
                        "The guest's driver could not free %s more of it (pages that do not move, or its "
                        "driver "
                        "is not loaded); %s stays plugged",
                        SIZE(rest), SIZE(part->size_bytes));
}

/* --- the mechanisms --- */

static const struct mover_ops ops = {
        .plan = virtio_mem_plan,
        .confirm = virtio_mem_confirm,
        .explain = virtio_mem_explain,
        .prepares = true,
};

static int virtio_mem_check(
        const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        struct job_request resolved = *request;

        return p->has_snapshot ? check(p, &resolved, ret_error) : 0;
}

static uint64_t virtio_mem_room(
        const struct partition *p, const struct job_request *request, uint64_t *ret_unit_bytes)
{
        struct account a = account(p, request);

        if (!p->has_snapshot || a.n_devices == 0 || request->has_drc || request->within)
                return 0;
        *ret_unit_bytes = a.unit_bytes;
        return mover_room_bytes(p, request, a.most_bytes) / a.unit_bytes * a.unit_bytes;
}

static void virtio_mem_start(struct job *j)
{
        mover_start(j, &ops);
}

#define VIRTIO_MEM(kind_)                                                                                    \
        {                                                                                                    \
                .method = "virtio-mem", .kind = (kind_), .check = virtio_mem_check, .room = virtio_mem_room, \
                .start = virtio_mem_start, .stop = mover_stop, .free_work = mover_free,                      \
                .on_change = mover_on_change,                                                                \
        }

const struct mechanism mechanism_virtio_mem_add = VIRTIO_MEM(JOB_ADD_MEMORY);
const struct mechanism mechanism_virtio_mem_remove = VIRTIO_MEM(JOB_REMOVE_MEMORY);
