/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* An addition: the guest is prepared for the zone, and each part gets its wish, in steps whose page
 * structures the guest can bear. A removal: in steps that the guest has room for by its own account, which is
 * asked for before each and looked at on the way. Then both ends are asked, and only what they agree on is
 * done.
 *
 * With all-or-nothing a part that does not come all the way sends all of them back to where they were.
 *
 * One thing is under way at a time: refresh, call, resize or the timer again. */

#include "hvd/memory/mover.h"

#include <inttypes.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/memory/headroom.h"
#include "hvd/memory/hooks.h"
#include "hvd/memory/mechanism.h"

/* Page structures: 64 bytes for a page of 4 KiB, out of what the guest has before. */
#define MEMMAP_DIVISOR 64U
/* A removal that needs more than is free makes the guest reclaim or move: in parts of what it has. */
#define TIGHT_PARTS 4U
#define VERIFY_USEC (3 * USEC_PER_SEC)
#define AGAIN_USEC  (2 * USEC_PER_MSEC)
/* Of the time that a block took so far: QEMU's count was seen a look late. */
#define LAST_BLOCK_USEC(block_usec) MIN((block_usec) / 4 * 3, 10 * USEC_PER_MSEC)

static void next_step(struct mover *m);
static void verify(struct mover *m);

static void fail(struct mover *m, const char *device, const struct error *error)
{
        job_add_reason(m->job, device, UINT64_MAX, error);
}

uint64_t mover_moved_bytes(const struct mover *m, const struct mover_part *part)
{
        uint64_t more = m->adds ? part->size_bytes : part->origin_bytes;
        uint64_t less = m->adds ? part->origin_bytes : part->size_bytes;

        return more > less ? more - less : 0;
}

uint64_t mover_all_moved_bytes(const struct mover *m)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < m->n_parts; i++)
                sum += mover_moved_bytes(m, &m->parts[i]);
        return sum;
}

/* --- the end --- */

/* It changes nothing for this job: the guest also releases when the session ends. */
static void release(struct mover *m)
{
        struct message_request request = { .op = OP_RELEASE };
        struct partition *p = m->job->partition;

        if (m->is_prepared && agent_state(p->agent) == AGENT_READY)
                agent_call(p->agent, &request, USEC_PER_SEC, NULL, NULL, NULL, NULL, NULL);
}

static void count(struct mover *m)
{
        const struct partition *p = m->job->partition;
        _cleanup_free_ struct plan_device *devices = NULL;
        uint64_t done = mover_all_moved_bytes(m), kernel = 0;
        struct plan_snapshot s = { 0 };

        if (m->adds && m->ops->prepares && partition_plan_snapshot(p, NULL, &s, &devices) >= 0)
                for (size_t i = 0; i < m->n_parts; i++)
                        for (size_t k = 0; k < s.n_devices; k++)
                                if (strcmp(devices[k].id, m->parts[i].id) == 0) {
                                        uint64_t now = devices[k].kernel_bytes + devices[k].stuck_bytes;
                                        kernel += now - MIN(m->parts[i].kernel_bytes, now);
                                }
        job_add_done(m->job, done);
        if (m->adds && m->ops->prepares) {
                m->job->kernel_bytes += MIN(kernel, done); /* blocks are larger than units */
                m->job->movable_bytes += done - MIN(kernel, done);
        }
}

static int on_again(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct mover *m = userdata;

        m->again = sd_event_source_disable_unref(m->again);
        verify(m);
        return 0;
}

static void on_verified(struct partition *p, const struct error *error, void *userdata)
{
        struct mover *m = userdata;
        struct error differs;
        int r = 0;

        m->refresh = NULL;
        if (m->n_resets != p->n_resets) {
                error_set(&differs, ERROR_GUEST_RESET, "The guest was reset before it confirmed what moved");
                r = -ECONNRESET;
        } else if (error)
                differs = *error;
        else
                r = m->ops->confirm(m, &differs);

        m->job->looked = r > 0;
        if (r > 0)
                count(m);
        else if (r == 0 && p->platform_up && now_monotonic_usec() < m->verify_until_usec &&
                 sd_event_add_time_relative(manager_event(m->job->manager), &m->again, CLOCK_MONOTONIC,
                         AGAIN_USEC, 1, on_again, m) >= 0)
                return;
        else
                fail(m, NULL, &differs);
        release(m);
        job_finish(m->job);
}

static void verify(struct mover *m)
{
        unsigned what = REFRESH_DEVICES | REFRESH_MEMORY | (m->ops->prepares ? REFRESH_BLOCKS : 0);
        struct error error;

        if (!m->verifying) {
                m->verifying = true;
                m->verify_until_usec = now_monotonic_usec() + VERIFY_USEC;
                job_set_state(m->job, JOB_VERIFYING);
        }
        if (partition_refresh(m->job->partition, what, on_verified, m, &m->refresh, &error) < 0)
                on_verified(m->job->partition, &error, m);
}

/* Linux's driver brings a block online when QEMU has counted it: the last one takes as long again, and is
 * waited for like a guest that has not come so far. One that is asked before has to answer in the middle of
 * it, and once more. */
static void verify_soon(struct mover *m)
{
        if (!m->adds || !m->ops->prepares ||
                sd_event_add_time_relative(manager_event(m->job->manager), &m->again, CLOCK_MONOTONIC,
                        LAST_BLOCK_USEC(m->block_usec), 1, on_again, m) < 0)
                verify(m);
}

/* No further step, unless something has to go back. */
static void wrap_up(struct mover *m)
{
        if (m->is_short && m->job->request.all_or_nothing && !m->undoing) {
                m->undoing = true;
                for (size_t i = 0; i < m->n_parts; i++)
                        m->parts[i].given_up = false;
                next_step(m);
        } else if (mover_all_moved_bytes(m) > 0)
                verify_soon(m);
        else {
                release(m);
                job_finish(m->job);
        }
}

/* --- a step --- */

static void on_resized(enum resize_end end, uint64_t size_bytes, const struct error *error, void *userdata)
{
        struct mover *m = userdata;
        struct mover_part *part = m->current;
        uint64_t moved = MAX(size_bytes, part->size_bytes) - MIN(size_bytes, part->size_bytes);
        struct error why;

        m->resize = NULL;
        m->current = NULL;
        m->block_usec = (now_monotonic_usec() - m->step_began_usec) *
                        partition_block_bytes(m->job->partition) / MAX(moved, 1U);
        part->size_bytes = size_bytes;
        if (end == RESIZE_REACHED && !m->undoing)
                m->kernel_left -= MIN(m->kernel_left, m->step_kernel_bytes);
        if (end != RESIZE_REACHED) {
                m->is_short = part->given_up = true;
                if (end == RESIZE_FAILED)
                        why = *error;
                else
                        m->ops->explain(m, part, end, &why);
                fail(m, part->id[0] ? part->id : NULL, &why);
        }
        /* What concerns the guest or QEMU as a whole concerns the next part as well. */
        bool goes_on = end == RESIZE_REACHED || end == RESIZE_STALLED;
        if (m->undoing ||
                (goes_on && m->job->stop == JOB_STOP_NO && !(m->is_short && m->job->request.all_or_nothing)))
                next_step(m);
        else
                wrap_up(m);
}

static void resize_part(struct mover *m, struct mover_part *part, uint64_t to_bytes, uint64_t keep_bytes)
{
        struct resize_wish wish = {
                .device = part->id[0] ? part->id : NULL,
                .from_bytes = part->size_bytes,
                .to_bytes = to_bytes,
                .keep_available_bytes = keep_bytes,
        };
        struct error error;

        m->current = part;
        m->step_began_usec = now_monotonic_usec();
        if (resize_start(m->job, &wish, on_resized, m, &m->resize, &error) < 0) {
                struct mover_part *failed = part;

                m->current = NULL;
                m->is_short = failed->given_up = true;
                fail(m, failed->id[0] ? failed->id : NULL, &error);
                wrap_up(m);
        }
}

static struct mover_part *next_part(struct mover *m)
{
        for (size_t i = 0; i < m->n_parts; i++) {
                const struct mover_part *part = &m->parts[i];

                if (!part->given_up &&
                        part->size_bytes != (m->undoing ? part->origin_bytes : part->target_bytes))
                        return &m->parts[i];
        }
        return NULL;
}

static uint64_t round_down(uint64_t bytes, uint64_t unit_bytes)
{
        return bytes / unit_bytes * unit_bytes;
}

static void add_step(struct mover *m, struct mover_part *part)
{
        const struct partition *p = m->job->partition;
        uint64_t step = part->target_bytes - part->size_bytes;

        if (m->ops->prepares) {
                uint64_t bearable = p->memory.available_bytes / 2 * MEMMAP_DIVISOR;

                if (m->kernel_left > 0)
                        step = MIN(step, m->kernel_left);
                bearable = MAX(round_down(bearable, part->unit_bytes), part->unit_bytes);
                step = MIN(step, bearable);
                m->step_kernel_bytes = m->kernel_left > 0 ? step : 0;
        }
        job_set_state(m->job, JOB_ONLINING);
        resize_part(m, part, part->size_bytes + step, 0);
}

static void refuse_for_headroom(struct mover *m, struct mover_part *part)
{
        const struct partition *p = m->job->partition;
        struct error error;

        error_set(&error, ERROR_NO_HEADROOM,
                "The guest has %s available and keeps a margin of %s: %s more cannot leave; free memory in "
                "it, "
                "or ask for less",
                SIZE(p->memory.available_bytes / MIB * MIB), SIZE(headroom_margin_bytes(p) / MIB * MIB),
                SIZE(part->size_bytes - part->target_bytes));
        fail(m, part->id[0] ? part->id : NULL, &error);
        m->is_short = true;
        wrap_up(m);
}

static void remove_step(struct mover *m, struct mover_part *part)
{
        const struct partition *p = m->job->partition;
        uint64_t room = headroom_bytes(p), step = part->size_bytes - part->target_bytes;

        if (step > p->memory.free_bytes && room > p->memory.free_bytes)
                room = MAX(room / TIGHT_PARTS, p->memory.free_bytes / 2);
        step = round_down(MIN(step, room), part->unit_bytes);
        if (step == 0) {
                refuse_for_headroom(m, part);
                return;
        }
        job_set_state(m->job, JOB_OFFLINING);
        resize_part(m, part, part->size_bytes - step, headroom_margin_bytes(p) / 2);
}

static void take_step(struct mover *m)
{
        struct mover_part *part = next_part(m);

        if (m->job->stop != JOB_STOP_NO) {
                m->is_short = true;
                wrap_up(m);
        } else if (m->adds)
                add_step(m, part);
        else
                remove_step(m, part);
}

static void on_prepared(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct mover *m = userdata;

        m->call = NULL;
        if (error) {
                fail(m, NULL, error);
                m->is_short = true;
                wrap_up(m);
                return;
        }
        m->is_prepared = true;
        if (m->undoing)
                next_step(m);
        else
                take_step(m);
}

static void prepare(struct mover *m, enum zone zone)
{
        uint64_t left = 0;
        struct error error;

        for (size_t i = 0; i < m->n_parts; i++)
                if (!m->parts[i].given_up)
                        left += (m->undoing ? m->parts[i].origin_bytes : m->parts[i].target_bytes) -
                                m->parts[i].size_bytes;
        m->zone = zone;
        if (!m->undoing)
                job_set_state(m->job, JOB_PLUGGING);
        struct message_request request = {
                .op = OP_PREPARE, .zone = zone, .bytes = zone == ZONE_KERNEL ? m->kernel_left : left
        };
        if (guest_call_start(
                    m->job, &request, m->job->deadline_usec, on_prepared, NULL, m, &m->call, &error) < 0)
                on_prepared(NULL, &error, m);
}

static void prepare_or_take_step(struct mover *m)
{
        enum zone zone = m->kernel_left > 0 ? ZONE_KERNEL : ZONE_MOVABLE;

        if (m->adds && m->ops->prepares && (!m->is_prepared || zone != m->zone))
                prepare(m, zone);
        else
                take_step(m);
}

static void on_memory(struct partition *p, const struct error *error, void *userdata)
{
        struct mover *m = userdata;

        m->refresh = NULL;
        if (error) {
                fail(m, NULL, error);
                m->is_short = true;
                wrap_up(m);
        } else
                prepare_or_take_step(m);
}

static void next_step(struct mover *m)
{
        struct mover_part *part = next_part(m);
        struct error error;

        if (!part)
                wrap_up(m);
        else if (m->undoing && !m->adds && m->ops->prepares && !m->is_prepared)
                prepare(m, ZONE_MOVABLE); /* what left comes back as new blocks */
        else if (m->undoing)
                resize_part(m, part, part->origin_bytes, 0);
        else if (mover_all_moved_bytes(m) == 0 || (m->adds && !m->ops->prepares))
                prepare_or_take_step(m);
        /* The step before has changed what the guest has; and guestd looks at its zones when it is asked. */
        else if (partition_refresh(m->job->partition, REFRESH_MEMORY, on_memory, m, &m->refresh, &error) < 0)
                on_memory(m->job->partition, &error, m);
}

/* --- beginning --- */

static void go_on(struct job *j)
{
        if (j->request.dry_run)
                job_finish(j);
        else
                next_step(j->work);
}

static void on_surveyed(struct partition *p, const struct error *error, void *userdata)
{
        struct mover *m = userdata;
        struct error local;

        m->refresh = NULL;
        m->n_resets = p->n_resets;
        m->total_bytes = p->memory.total_bytes;
        if (!error && mechanism_check_job(m->job, &local) >= 0 && m->ops->plan(m, &local) >= 0) {
                if (!m->adds && headroom_bytes(p) < m->job->request.bytes)
                        job_add_plan(m->job, "take no more than the guest can give, which is %s now",
                                SIZE(headroom_bytes(p) / MIB * MIB));
                if (!m->adds)
                        headroom_add_note(m->job);
                if (!hooks_before(m->job, go_on))
                        go_on(m->job);
                return;
        }
        fail(m, NULL, error ?: &local);
        job_finish(m->job);
}

void mover_start(struct job *j, const struct mover_ops *ops)
{
        struct partition *p = j->partition;
        struct mover *m = calloc(1, sizeof(*m));
        struct error error;

        if (m) {
                *m = (struct mover) { .job = j, .ops = ops, .adds = j->request.kind == JOB_ADD_MEMORY };
                j->work = m;
                /* What an addition rests on is current when nothing has changed since. What a guest has
                 * available changes all the time. */
                if (m->adds && partition_is_settled(p)) {
                        on_surveyed(p, NULL, m);
                        return;
                }
                unsigned what = REFRESH_HYPERVISOR | REFRESH_MEMORY | (p->has_blocks ? 0 : REFRESH_BLOCKS);
                if (partition_refresh(p, what, on_surveyed, m, &m->refresh, &error) >= 0)
                        return;
        } else
                error_set(&error, ERROR_INTERNAL, "Out of memory");
        job_add_reason(j, NULL, UINT64_MAX, &error);
        job_finish(j);
}

void mover_stop(struct job *j)
{
        struct mover *m = j->work;

        if (j->state == JOB_SURVEYING) {
                m->refresh = partition_refresh_free(m->refresh);
                job_finish(j);
        } else if (m->call)
                guest_call_stop(m->call);
        else if (m->resize && !m->undoing)
                resize_stop(m->resize);
}

void mover_on_change(struct job *j)
{
        struct mover *m = j->work;

        if (m->resize)
                resize_look(m->resize);
}

void mover_free(struct job *j)
{
        struct mover *m = j->work;

        partition_refresh_free(m->refresh);
        guest_call_free(m->call);
        resize_free(m->resize);
        sd_event_source_disable_unref(m->again);
        free(m);
}

/* --- what requests are held against --- */

int mover_check_min(const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        uint64_t min = p->definition.profile.min_bytes, current = partition_current_bytes(p);

        if (!min || current >= min + request->bytes)
                return 0;
        return error_set(ret_error, ERROR_NOT_PLUGGED,
                "Partition '%s' has %s and its profile keeps %s; at most %s can be removed",
                p->definition.name, SIZE(current), SIZE(min), SIZE_EXACT(current - MIN(min, current)));
}

int mover_check_max(const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        uint64_t max = p->definition.profile.max_bytes, current = partition_current_bytes(p);

        if (!max || current + request->bytes <= max)
                return 0;
        return error_set(ret_error, ERROR_BEYOND_MAX,
                "Partition '%s' has %s and its profile allows %s; at most %s can be added",
                p->definition.name, SIZE(current), SIZE(max), SIZE_EXACT(max - MIN(max, current)));
}

uint64_t mover_room_bytes(const struct partition *p, const struct job_request *request, uint64_t most_bytes)
{
        const struct partition_profile *profile = &p->definition.profile;
        uint64_t current = partition_current_bytes(p), room = UINT64_MAX;

        if (request->kind == JOB_ADD_MEMORY && profile->max_bytes)
                room = profile->max_bytes > current ? profile->max_bytes - current : 0;
        else if (request->kind == JOB_REMOVE_MEMORY) {
                room = current > profile->min_bytes ? current - profile->min_bytes : 0;
                if (p->has_memory && headroom_bytes(p) < room)
                        room = headroom_bytes(p);
        }
        return MIN(room, most_bytes);
}

int mover_check_unit(
        uint64_t bytes, uint64_t unit_bytes, uint64_t most_bytes, const char *what, struct error *ret_error)
{
        uint64_t below = round_down(bytes, unit_bytes), above = below + unit_bytes;

        if (below == bytes)
                return 0;
        if (below == 0)
                return error_set(ret_error, ERROR_UNALIGNED_SIZE,
                        "%s moves in multiples of %s; the nearest size is %s", what, SIZE(unit_bytes),
                        SIZE_EXACT(above));
        if (above > most_bytes)
                return error_set(ret_error, ERROR_UNALIGNED_SIZE,
                        "%s moves in multiples of %s; the nearest size is %s", what, SIZE(unit_bytes),
                        SIZE_EXACT(below));
        return error_set(ret_error, ERROR_UNALIGNED_SIZE,
                "%s moves in multiples of %s; the nearest sizes are %s and %s", what, SIZE(unit_bytes),
                SIZE_EXACT(below), SIZE_EXACT(above));
}
