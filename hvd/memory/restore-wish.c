/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* After a reboot the drivers of virtio-mem and of the balloon go to what QEMU has been asked for, before
 * guestd is there: virtio-mem plugs, and by Debian's rule its blocks stay offline, and at 1 GiB of those it
 * stops; the balloon takes what it took before, out of the memory at boot alone. So:
 *
 * - at the reset a balloon that took more than the memory at boot can spare is told to take less, and what it
 * had is owed (partition.balloon_owed_bytes);
 * - when the guest speaks, its blocks are brought online, round by round: each makes the driver go on, with
 *   auto_online_blocks set (PREPARE) so that what follows comes online by itself;
 * - last, with all memory there, the balloon takes what is owed.
 *
 * The kernel part, where the ratio of zones needs one, goes first and without PREPARE: the driver would put
 * all the rest there. */

#include <inttypes.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/memory/headroom.h"
#include "hvd/memory/ranges.h"
#include "hvd/memory/restore-work.h"
#include "hvd/memory/restore.h"
#include "hvd/record.h"

/* Of the memory at boot, for a balloon while the rest is not there yet. */
#define BOOT_PART 4U
/* A driver that does not move for so long is stuck. */
#define STALL_USEC (3 * USEC_PER_SEC)
#define AGAIN_USEC (20 * USEC_PER_MSEC)
/* For the balloon's driver to be heard of after the reset. */
#define HEAR_USEC (5 * USEC_PER_SEC)

static void look(struct restore *w);
static void restore_balloon(struct restore *w);

static void fail(struct restore *w, const char *device, const struct error *error)
{
        job_add_reason(w->job, device, UINT64_MAX, error);
}

/* --- what is due --- */

bool restore_wish_is_due(const struct partition *p, uint64_t *ret_bytes)
{
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;
        uint64_t bytes = 0;

        if (!p->has_snapshot || !p->has_blocks || partition_plan_snapshot(p, NULL, &s, &devices) < 0)
                return false;
        for (size_t i = 0; i < s.n_devices; i++) {
                const struct platform_device *d = &p->snapshot.devices[i];

                if (!d->is_dimm)
                        bytes += MIN(devices[i].offline_bytes, d->size_bytes) + d->requested_bytes -
                                 MIN(d->size_bytes, d->requested_bytes);
        }
        *ret_bytes = bytes;
        return bytes > 0 || p->balloon_owed_bytes > 0;
}

void restore_on_reset(struct partition *p)
{
        const struct platform_snapshot *s = &p->snapshot;
        uint64_t bearable = s->base_bytes / BOOT_PART / MIB * MIB, total = platform_balloon_total(s);

        if (!p->has_snapshot || !s->balloon.present || s->balloon_bytes == 0)
                return;
        p->balloon_unheard = true;
        /* With nothing plugged the guest boots as it has been running. */
        if (s->balloon_bytes <= bearable || s->plugged_bytes == 0)
                return;
        /* Until its memory is back: nobody's wish for the definition, whatever the last job was. */
        bool persistent = p->platform->persistent;
        p->platform->persistent = false;
        int r = platform_set_balloon(p->platform, total - bearable, NULL, NULL, NULL);
        p->platform->persistent = persistent;
        if (r < 0)
                return;
        if (p->balloon_owed_bytes == 0)
                record_owed(manager_store(p->manager), p, s->balloon_bytes);
        log_info("Partition '%s': until its memory is back the balloon takes %s, not %s", p->definition.name,
                SIZE(bearable), SIZE(p->balloon_owed_bytes));
}

/* --- the balloon --- */

static void finish(struct restore *w)
{
        struct message_request request = { .op = OP_RELEASE };
        struct agent *agent = w->job->partition->agent;

        if (w->is_prepared && agent_state(agent) == AGENT_READY)
                agent_call(agent, &request, USEC_PER_SEC, NULL, NULL, NULL, NULL, NULL);
        job_finish(w->job);
}

static void on_inflated(enum resize_end end, uint64_t size_bytes, const struct error *error, void *userdata)
{
        struct restore *w = userdata;
        struct partition *p = w->job->partition;
        uint64_t taken = platform_balloon_total(&p->snapshot) - size_bytes;
        struct error why;

        w->resize = NULL;
        if (end == RESIZE_FAILED)
                fail(w, NULL, error);
        else if (taken < p->balloon_owed_bytes) {
                error_set(&why, ERROR_NO_HEADROOM,
                        "The balloon had %s before the reset and took %s: the guest has no more to give now",
                        SIZE(p->balloon_owed_bytes), SIZE(taken));
                fail(w, NULL, &why);
        }
        /* After another reset it is owed anew. */
        if (end != RESIZE_FAILED || error->code != ERROR_GUEST_RESET)
                record_owed(manager_store(p->manager), p, 0);
        finish(w);
}

static void inflate(struct restore *w)
{
        struct partition *p = w->job->partition;
        const struct platform_balloon *b = &p->snapshot.balloon;
        uint64_t owed_actual = platform_balloon_total(&p->snapshot);
        uint64_t room = headroom_bytes(p) / MIB * MIB;
        struct error error;

        owed_actual -= MIN(p->balloon_owed_bytes, owed_actual);
        struct resize_wish wish = {
                .from_bytes = b->actual_bytes,
                .to_bytes = b->actual_bytes > owed_actual + room ? b->actual_bytes - room : owed_actual,
                .keep_available_bytes = headroom_margin_bytes(p) / 2,
        };
        job_add_plan(w->job, "inflate the balloon to %s again", SIZE(p->balloon_owed_bytes));
        if (resize_start(w->job, &wish, on_inflated, w, &w->resize, &error) < 0) {
                fail(w, NULL, &error);
                finish(w);
        }
}

static void on_balloon_looked(struct partition *p, const struct error *error, void *userdata)
{
        struct restore *w = userdata;

        w->refresh = NULL;
        if (error) {
                fail(w, NULL, error);
                finish(w);
        } else if (!p->snapshot.balloon.present) {
                record_owed(manager_store(p->manager), p, 0); /* it was taken away meanwhile */
                finish(w);
        } else
                inflate(w);
}

static int on_balloon_again(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct restore *w = userdata;

        w->again = sd_event_source_disable_unref(w->again);
        restore_balloon(w);
        return 0;
}

/* What QEMU says of the balloon is of the boot before until its driver is heard. */
static void restore_balloon(struct restore *w)
{
        struct partition *p = w->job->partition;
        struct error error;

        if (p->balloon_owed_bytes == 0 || w->job->stop != JOB_STOP_NO || p->snapshot.state != RUN_RUNNING) {
                finish(w);
                return;
        }
        if (!w->until_usec)
                w->until_usec = now_monotonic_usec() + HEAR_USEC;
        if (p->balloon_unheard && now_monotonic_usec() < w->until_usec &&
                sd_event_add_time_relative(manager_event(w->job->manager), &w->again, CLOCK_MONOTONIC,
                        AGAIN_USEC, 1, on_balloon_again, w) >= 0)
                return;
        if (partition_refresh(
                    p, REFRESH_HYPERVISOR | REFRESH_MEMORY, on_balloon_looked, w, &w->refresh, &error) < 0)
                on_balloon_looked(p, &error, w);
}

/* --- virtio-mem --- */

struct account {
        uint64_t to_come_bytes, usable_bytes, offline_bytes;
        struct mem_range offline[PROTO_RANGES_MAX];
        size_t n_offline;
};

/* What of a range, as the guest tells of it, lies in virtio-mem devices. Address 0: one that has nothing. */
static void take_offline(struct account *a, const struct partition *p, const struct block_range *b)
{
        for (size_t i = 0; i < p->snapshot.n_devices && a->n_offline < PROTO_RANGES_MAX; i++) {
                const struct platform_device *d = &p->snapshot.devices[i];
                uint64_t start = MAX(b->start, d->address);
                uint64_t end = MIN(b->start + b->length, d->address + d->region_bytes);

                if (d->is_dimm || d->address == 0 || start >= end)
                        continue;
                a->offline[a->n_offline++] = (struct mem_range) { start, end - start };
                a->offline_bytes += end - start;
        }
}

static int take_account(const struct partition *p, struct account *ret)
{
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;
        int r = partition_plan_snapshot(p, NULL, &s, &devices);

        if (r < 0)
                return r;
        *ret = (struct account) { 0 };
        for (size_t i = 0; i < s.n_devices; i++) {
                const struct platform_device *d = &p->snapshot.devices[i];

                if (d->is_dimm)
                        continue;
                ret->to_come_bytes += d->requested_bytes - MIN(d->size_bytes, d->requested_bytes);
                ret->usable_bytes += d->size_bytes - MIN(devices[i].offline_bytes, d->size_bytes);
        }
        for (size_t i = 0; i < p->n_blocks; i++)
                if (p->blocks[i].state == BLOCK_OFFLINE)
                        take_offline(ret, p, &p->blocks[i]);
        return 0;
}

static void virtio_mem_done(struct restore *w)
{
        job_add_done(w->job, w->usable_bytes - MIN(w->first_usable_bytes, w->usable_bytes));
        w->until_usec = 0;
        restore_balloon(w);
}

static int on_again(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct restore *w = userdata;

        w->again = sd_event_source_disable_unref(w->again);
        look(w);
        return 0;
}

static void look_again(struct restore *w)
{
        if (sd_event_add_time_relative(manager_event(w->job->manager), &w->again, CLOCK_MONOTONIC, AGAIN_USEC,
                    1, on_again, w) < 0)
                virtio_mem_done(w);
}

static void on_online(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct restore *w = userdata;

        w->call = NULL;
        if (error) {
                fail(w, NULL, error);
                virtio_mem_done(w);
                return;
        }
        if (!reply->complete)
                ranges_add_reasons(w->job, reply);
        look(w);
}

/* The first of the offline blocks, as many as are wanted. */
static void online(struct restore *w, struct account *a, enum zone zone, uint64_t bytes)
{
        size_t n = 0;
        struct error error;

        for (uint64_t sum = 0; n < a->n_offline && sum < bytes; sum += a->offline[n++].length)
                a->offline[n].length = MIN(a->offline[n].length, bytes - sum);
        job_set_state(w->job, JOB_ONLINING);
        struct message_request request = {
                .op = OP_ONLINE, .targets = a->offline, .n_targets = n, .zone = zone
        };
        if (guest_call_start(w->job, &request, w->job->deadline_usec, on_online, NULL, w, &w->call, &error) <
                0)
                on_online(NULL, &error, w);
}

static void on_prepared(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct restore *w = userdata;

        w->call = NULL;
        /* Without it the blocks come offline, and are brought online round by round. */
        if (error)
                log_debug("Job %" PRIu32 ": %s", w->job->id, error->message);
        w->is_prepared = true;
        look(w);
}

static void prepare(struct restore *w, uint64_t bytes)
{
        struct message_request request = { .op = OP_PREPARE, .zone = ZONE_MOVABLE, .bytes = bytes };
        struct error error;

        if (guest_call_start(
                    w->job, &request, w->job->deadline_usec, on_prepared, NULL, w, &w->call, &error) < 0)
                on_prepared(NULL, &error, w);
}

static void add_stall_reason(struct restore *w, const struct account *a)
{
        struct error error;

        error_set(&error, ERROR_BLOCK_FAILED,
                "virtio-mem was asked for %s more than the guest has plugged, and %s of it are offline; the "
                "guest's driver does not go on",
                SIZE(a->to_come_bytes), SIZE(a->offline_bytes));
        fail(w, NULL, &error);
}

static void on_looked(struct partition *p, const struct error *error, void *userdata)
{
        struct restore *w = userdata;
        uint64_t block_bytes = partition_block_bytes(p), kernel;
        struct account a;

        w->refresh = NULL;
        if (error || take_account(p, &a) < 0) {
                if (error)
                        fail(w, NULL, error);
                virtio_mem_done(w);
                return;
        }
        if (a.usable_bytes != w->usable_bytes)
                w->moved_usec = now_monotonic_usec();
        w->usable_bytes = a.usable_bytes;
        if ((a.offline_bytes == 0 && a.to_come_bytes == 0) || w->job->stop != JOB_STOP_NO) {
                virtio_mem_done(w);
                return;
        }
        if (now_monotonic_usec() > w->moved_usec + STALL_USEC) {
                add_stall_reason(w, &a);
                virtio_mem_done(w);
                return;
        }
        kernel = plan_kernel_part(p->memory.kernel_bytes, p->memory.movable_bytes,
                a.offline_bytes + a.to_come_bytes, block_bytes);
        if (kernel > 0 && a.offline_bytes > 0)
                online(w, &a, ZONE_KERNEL, kernel);
        else if (kernel == 0 && a.to_come_bytes > 0 && !w->is_prepared)
                prepare(w, a.offline_bytes + a.to_come_bytes);
        else if (a.offline_bytes > 0)
                online(w, &a, ZONE_MOVABLE, UINT64_MAX);
        else
                look_again(w);
}

static void look(struct restore *w)
{
        struct error error;

        if (partition_refresh(w->job->partition, REFRESH_DEVICES | REFRESH_MEMORY | REFRESH_BLOCKS, on_looked,
                    w, &w->refresh, &error) < 0)
                on_looked(w->job->partition, &error, w);
}

/* --- for restore.c --- */

void restore_wishes(struct restore *w)
{
        const struct partition *p = w->job->partition;
        struct account a;
        uint64_t bytes;

        if (w->job->stop != JOB_STOP_NO || agent_state(p->agent) != AGENT_READY ||
                !restore_wish_is_due(p, &bytes) || take_account(p, &a) < 0) {
                finish(w);
                return;
        }
        w->first_usable_bytes = w->usable_bytes = a.usable_bytes;
        w->moved_usec = now_monotonic_usec();
        if (bytes > 0) {
                w->job->request.bytes += bytes;
                job_add_plan(w->job, "bring %s of virtio-mem online", SIZE(bytes));
                look(w);
        } else
                restore_balloon(w);
}

bool restore_wishes_stop(struct restore *w)
{
        if (w->resize)
                resize_stop(w->resize);
        else if (w->again) {
                w->again = sd_event_source_disable_unref(w->again);
                finish(w);
        } else
                return false;
        return true;
}

void restore_wishes_free(struct restore *w)
{
        resize_free(w->resize);
        sd_event_source_disable_unref(w->again);
}
