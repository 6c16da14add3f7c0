/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Memory that the guest keeps and does not use: an addition takes out of the balloon what is in it, a removal
 * fills it. Nothing is plugged or unplugged, so there are no blocks, zones or nodes to choose.
 *
 * The figure that QEMU has for it (actual) is what the guest's driver reports, page by page as it goes, so
 * QEMU's word that the target is reached is the guest's as well. Its MemTotal follows too, but only where the
 * balloon was not given deflate-on-oom: with it, Linux leaves the total as it is (virtio_balloon, 6.1). */

#include "common/size.h"
#include "hvd/memory/headroom.h"
#include "hvd/memory/mechanism.h"
#include "hvd/memory/mover.h"

/* A page has 4 KiB to the balloon, and up to 64 KiB to the guest's kernel. */
#define UNIT_BYTES    MIB
#define CONFIRM_PARTS 16U

static uint64_t round_down(uint64_t bytes)
{
        return bytes / UNIT_BYTES * UNIT_BYTES;
}

/* Which options make no sense here. */
static int check_options(const struct job_request *request, struct error *ret_error)
{
        if (request->node >= 0 || request->whole_node || request->device[0] || request->has_drc)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "The balloon takes pages wherever the guest has them: leave out the node, the device "
                        "and the DRC index, or choose another method");
        if (request->kind == JOB_ADD_MEMORY && request->zone != ZONE_POLICY_AUTO)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "What leaves the balloon goes back to where it was: leave out the zone, or choose "
                        "another method");
        return 0;
}

static int check_present(const struct partition *p, struct error *ret_error)
{
        if (p->snapshot.balloon.present)
                return 0;
        return error_set(ret_error, ERROR_NO_HOTPLUG,
                "Partition '%s' has no balloon; start its QEMU with -device virtio-balloon-pci",
                p->definition.name);
}

static int check(const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        uint64_t taken = p->snapshot.balloon_bytes, actual = p->snapshot.balloon.actual_bytes;
        bool adds = request->kind == JOB_ADD_MEMORY;
        int r = check_options(request, ret_error);

        if (r >= 0)
                r = check_present(p, ret_error);
        if (r < 0)
                return r;
        if (adds && request->bytes > taken)
                return error_set(ret_error, ERROR_BEYOND_MAX,
                        "The balloon of '%s' holds %s; at most %s can be added by it", p->definition.name,
                        SIZE(taken), SIZE_EXACT(round_down(taken)));
        if (!adds && request->bytes >= actual)
                return error_set(ret_error, ERROR_NOT_PLUGGED,
                        "The balloon reckons with the %s of base memory and DIMMs that are not in it; less "
                        "than "
                        "that can be taken",
                        SIZE(actual));
        r = mover_check_unit(request->bytes, UNIT_BYTES, adds ? taken : actual, "The balloon", ret_error);
        if (r < 0)
                return r;
        return adds ? mover_check_max(p, request, ret_error) : mover_check_min(p, request, ret_error);
}

static int balloon_plan(struct mover *m, struct error *ret_error)
{
        const struct partition *p = m->job->partition;
        uint64_t bytes = m->job->request.bytes, actual = p->snapshot.balloon.actual_bytes;
        uint64_t taken = p->snapshot.balloon_bytes;
        int r = check(p, &m->job->request, ret_error);

        if (r < 0)
                return r;
        m->parts[m->n_parts++] = (struct mover_part) {
                .unit_bytes = UNIT_BYTES,
                .origin_bytes = actual,
                .size_bytes = actual,
                .target_bytes = m->adds ? actual + bytes : actual - bytes,
        };
        job_add_plan(m->job, "%s the balloon, which holds %s, to %s", m->adds ? "deflate" : "inflate",
                SIZE(taken), SIZE(m->adds ? taken - bytes : taken + bytes));
        return 0;
}

static int balloon_confirm(struct mover *m, struct error *ret_error)
{
        const struct partition *p = m->job->partition;
        const struct platform_balloon *b = &p->snapshot.balloon;
        uint64_t moved = mover_all_moved_bytes(m), now = p->memory.total_bytes;
        uint64_t more = m->adds ? now : m->total_bytes, less = m->adds ? m->total_bytes : now;

        if (!b->present || b->actual_bytes != m->parts[0].size_bytes) {
                error_set(ret_error, ERROR_ACCOUNTS_DIFFER,
                        "The balloon had left the guest %s, and QEMU now says %s",
                        SIZE(m->parts[0].size_bytes), SIZE(b->actual_bytes));
                return 0;
        }
        if (b->deflate_on_oom || more >= less + moved - moved / CONFIRM_PARTS)
                return 1;
        error_set(ret_error, ERROR_ACCOUNTS_DIFFER,
                "%s %s by QEMU's account, and the guest's MemTotal went from %s to %s", SIZE(moved),
                m->adds ? "came" : "left", SIZE(m->total_bytes / MIB * MIB), SIZE(now / MIB * MIB));
        return 0;
}

static void balloon_explain(
        const struct mover *m, const struct mover_part *part, enum resize_end end, struct error *ret_error)
{
        uint64_t moved = mover_moved_bytes(m, part), wanted = m->job->request.bytes;
        uint64_t taken = platform_balloon_total(&m->job->partition->snapshot) - part->size_bytes;

        if (end == RESIZE_NO_HEADROOM)
                error_set(ret_error, ERROR_NO_HEADROOM,
                        "The guest ran short of memory on the way: the balloon took %s of %s and holds %s",
                        SIZE(moved), SIZE(wanted), SIZE(taken));
        else if (end == RESIZE_STOPPED)
                error_set(ret_error, m->job->stop == JOB_STOP_CANCEL ? ERROR_CANCELLED : ERROR_DEADLINE,
                        "The balloon %s %s of %s in time, and holds %s now", m->adds ? "gave" : "took",
                        SIZE(moved), SIZE(wanted), SIZE(taken));
        else
                error_set(ret_error, ERROR_BLOCK_FAILED,
                        "The balloon %s %s of %s and no more (is virtio_balloon loaded in the guest? see its "
                        "log)",
                        m->adds ? "gave" : "took", SIZE(moved), SIZE(wanted));
}

/* --- the mechanisms --- */

static const struct mover_ops ops = {
        .plan = balloon_plan,
        .confirm = balloon_confirm,
        .explain = balloon_explain,
};

static int balloon_check(
        const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        return p->has_snapshot ? check(p, request, ret_error) : check_options(request, ret_error);
}

static uint64_t balloon_room(
        const struct partition *p, const struct job_request *request, uint64_t *ret_unit_bytes)
{
        const struct platform_balloon *b = &p->snapshot.balloon;
        uint64_t most = p->snapshot.balloon_bytes;

        if (!p->has_snapshot || !b->present || check_options(request, NULL) < 0 || request->within)
                return 0;
        if (request->kind == JOB_REMOVE_MEMORY)
                most = b->actual_bytes > UNIT_BYTES ? b->actual_bytes - UNIT_BYTES : 0;
        *ret_unit_bytes = UNIT_BYTES;
        return round_down(mover_room_bytes(p, request, most));
}

static void balloon_start(struct job *j)
{
        mover_start(j, &ops);
}

#define BALLOON(kind_)                                                                                       \
        {                                                                                                    \
                .method = "balloon", .pseries_method = NULL, .kind = (kind_), .check = balloon_check,        \
                .room = balloon_room, .start = balloon_start, .stop = mover_stop, .free_work = mover_free,   \
                .on_change = mover_on_change,                                                                \
        }

const struct mechanism mechanism_balloon_add = BALLOON(JOB_ADD_MEMORY);
const struct mechanism mechanism_balloon_remove = BALLOON(JOB_REMOVE_MEMORY);
