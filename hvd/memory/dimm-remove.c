/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Removing memory that lies in DIMMs, on pseries known as LMBs.
 *
 * A DIMM leaves whole or not at all. For each one that the plan picked, the guest takes every block offline
 * (OFFLINE: all or none, killable, under a deadline; several devices at one request, where the guest can),
 * and only then QEMU is told to unplug it: an eject with blocks online can hang a busy guest's hotplug for
 * ever. While QEMU and the guest's firmware driver see to these the guest already works on what is next. A
 * device that cannot go is put back by the guest, and the plan is made again without it, and the guest is
 * asked what pages are left in the blocks that did not go. At the end the guest confirms that the blocks are
 * gone (it is asked as soon as it has nothing else to do), and QEMU that the devices are; only then anything
 * counts as done.
 *
 * With all-or-nothing every device is taken offline first, and none is unplugged unless all can be.
 *
 * At most one request is under way in the guest; dimm_remove_pump() starts whatever is due next. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/memory/dimm-remove.h"
#include "hvd/memory/dimm-room.h"
#include "hvd/memory/mechanism.h"
#include "hvd/memory/nodes.h"
#include "hvd/memory/ranges.h"
#include "hvd/memory/removal.h"

/* An unplug of a device that is wholly offline takes milliseconds; this is for a guest that is slow to look.
 */
#define UNPLUG_MIN_USEC (5 * USEC_PER_SEC)
#define UNPLUG_MAX_USEC (15 * USEC_PER_SEC)
#define PUT_BACK_USEC   (5 * USEC_PER_SEC)
#define VERIFY_USEC     (3 * USEC_PER_SEC)

uint64_t dimm_remove_sum(const struct dimm_remove *w, enum target_state from, enum target_state to)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < w->n_targets; i++)
                if (w->targets[i].state >= from && w->targets[i].state <= to)
                        sum += w->targets[i].size_bytes;
        return sum;
}

struct target *dimm_remove_first(struct dimm_remove *w, enum target_state state)
{
        for (size_t i = 0; i < w->n_targets; i++)
                if (w->targets[i].state == state)
                        return &w->targets[i];
        return NULL;
}

/* --- the end --- */

/* The guest was reset since QEMU was asked to unplug it: what QEMU does not list then a guest that boots does
 * not have, which is as good as its word. */
static bool is_confirmed_by_reset(const struct dimm_remove *w, const struct target *t)
{
        return t->asked && t->n_resets != w->job->partition->n_resets;
}

/* An unplug that was given up as pending, and that was completed after all: late, or by the reset. */
static bool may_have_left(const struct dimm_remove *w, const struct target *t)
{
        return t->state == TARGET_STAYED && t->asked && (t->is_absent || is_confirmed_by_reset(w, t));
}

/* The guest has let go of it, and QEMU has it still: as when the guest did so by itself on pseries, where
 * QEMU (7.2) then takes no notice. */
static void add_half_gone_reason(struct dimm_remove *w, const struct target *t)
{
        struct error error;

        error_set(&error, ERROR_ACCOUNTS_DIFFER,
                "the guest has no block of %s any more, but QEMU still has the device%s", t->id,
                partition_is_pseries(w->job->partition) ? "; a reset of the guest ends that" : "");
        job_add_reason(w->job, t->id, UINT64_MAX, &error);
}

static void conclude(struct dimm_remove *w)
{
        const struct partition *p = w->job->partition;

        for (size_t i = 0; i < w->n_targets; i++) {
                struct target *t = &w->targets[i];

                /* Without an answer the list is the one from before. */
                bool listed = w->host_confirmed && platform_snapshot_find(&p->snapshot, t->id);
                bool late = may_have_left(w, t);
                if (late && w->host_confirmed && listed && t->is_absent)
                        add_half_gone_reason(w, t);
                if (t->state != TARGET_GONE && (!late || !w->host_confirmed || listed))
                        continue;
                bool guest_confirmed = w->guest_confirmed || is_confirmed_by_reset(w, t) || t->is_absent;
                if (guest_confirmed && w->host_confirmed && !listed) {
                        job_add_done(w->job, t->size_bytes);
                        continue;
                }
                struct error error;
                error_set(&error, ERROR_ACCOUNTS_DIFFER, "QEMU said that %s left, but %s", t->id,
                        listed            ? "still lists it"
                        : guest_confirmed ? "does not confirm it now"
                                          : "the guest did not confirm that its blocks are gone");
                job_add_reason(w->job, t->id, UINT64_MAX, &error);
        }
        if (w->job->request.whole_node && w->host_confirmed)
                nodes_check_empty(w->job);
        dimm_again_add_notes(w);
        job_finish(w->job);
}

static void on_blocks_gone(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct dimm_remove *w = userdata;

        w->call = NULL;
        w->awaiting = false;
        w->answered = reply != NULL;
        w->guest_confirmed = reply && reply->complete;
        if (!w->verifying)
                dimm_remove_pump(w);
        else if (!w->refresh)
                conclude(w);
}

static void on_host_verified(struct partition *p, const struct error *error, void *userdata)
{
        struct dimm_remove *w = userdata;

        w->refresh = NULL;
        w->host_confirmed = !error;
        if (!w->call)
                conclude(w);
}

/* Sets w->call, unless there is no guest to ask or nothing to ask it. */
static void await_removed(struct dimm_remove *w)
{
        struct mem_range ranges[PLAN_DEVICES_MAX];
        size_t n = 0;
        struct error error;

        for (size_t i = 0; i < w->n_targets; i++)
                if (w->targets[i].state == TARGET_UNPLUGGING || w->targets[i].state == TARGET_GONE)
                        ranges[n++] = (struct mem_range) { w->targets[i].address, w->targets[i].size_bytes };
        if (n == 0)
                return;
        ranges_sort(ranges, n);

        struct message_request request = { .op = OP_AWAIT_REMOVED, .targets = ranges, .n_targets = n };
        /* Asked early, it has the time of the unplug as well. */
        uint64_t limit = MAX(job_left_usec(w->job), w->verifying ? VERIFY_USEC : UNPLUG_MIN_USEC);
        limit = MIN(limit, UNPLUG_MAX_USEC) + (w->verifying ? 0 : VERIFY_USEC);
        if (guest_call_start(w->job, &request, now_monotonic_usec() + limit, on_blocks_gone, NULL, w,
                    &w->call, &error) < 0)
                log_debug("Job %" PRIu32 ": %s", w->job->id, error.message);
        else
                w->awaiting = true;
        w->awaited = true;
}

static void verify(struct dimm_remove *w)
{
        bool any = false;
        struct error error;

        if (w->verifying)
                return;
        w->verifying = true;
        for (size_t i = 0; i < w->n_targets; i++)
                any |= w->targets[i].state == TARGET_GONE || may_have_left(w, &w->targets[i]);
        if (!any) {
                if (w->call)
                        guest_call_stop(w->call);
                w->call = guest_call_free(w->call);
                dimm_again_add_notes(w);
                job_finish(w->job);
                return;
        }
        job_set_state(w->job, JOB_VERIFYING);
        if (!w->call && !w->answered)
                await_removed(w);
        if (partition_refresh(w->job->partition, REFRESH_DEVICES, on_host_verified, w, &w->refresh, &error) <
                        0 &&
                !w->call)
                conclude(w);
}

/* --- unplugging --- */

static void on_unplugged(const struct error *error, void *userdata)
{
        struct target *t = userdata;
        struct dimm_remove *w = t->job->work;

        t->op = NULL;
        if (!error)
                t->state = TARGET_GONE;
        else {
                /* The blocks of one that left without its backend are gone, though its memory is not back. */
                t->state = error->code == ERROR_ACCOUNTS_DIFFER ? TARGET_STAYED : TARGET_PUT_BACK;
                job_add_reason(t->job, t->id, UINT64_MAX, error);
                /* One that is pending may leave yet: another in its place would be one too many. */
                if (error->code == ERROR_UNPLUG_REFUSED || error->code == ERROR_HYPERVISOR_REFUSED)
                        dimm_remove_try_others(w);
                else if (error->code == ERROR_NOT_RUNNING)
                        w->gave_up = true;
        }
        dimm_remove_pump(w);
}

void dimm_remove_unplug(struct dimm_remove *w, struct target *t)
{
        uint64_t limit = MAX(job_left_usec(w->job), UNPLUG_MIN_USEC);

        t->state = TARGET_UNPLUGGING;
        t->asked = true;
        t->n_resets = w->job->partition->n_resets;
        if (!w->call)
                job_set_state(w->job, JOB_UNPLUGGING);
        int r = platform_detach(w->job->partition->platform, t->id, t->backend, MIN(limit, UNPLUG_MAX_USEC),
                on_unplugged, t, &t->op);
        if (r < 0) {
                struct error error;
                error_set_errno(
                        &error, ERROR_HYPERVISOR_ABSENT, r, "QEMU cannot be told to unplug %s", t->id);
                job_add_reason(w->job, t->id, UINT64_MAX, &error);
                t->state = TARGET_PUT_BACK;
        }
}

/* --- putting back --- */

static void on_put_back(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct dimm_remove *w = userdata;
        struct target *t = dimm_remove_first(w, TARGET_PUTTING_BACK);

        w->call = NULL;
        t->state = TARGET_STAYED;
        if (error) {
                job_add_reason(w->job, t->id, UINT64_MAX, error);
                w->guest_lost = t->is_left_offline = true;
        } else if (!reply->complete) {
                struct range_account a =
                        ranges_account(reply->ranges, reply->n_ranges, t->address, t->size_bytes);
                /* It may have left meanwhile after all: QEMU's list tells. */
                t->is_absent = a.absent_bytes == t->size_bytes;
                if (!t->is_absent && range_account_online(&a) < t->size_bytes) {
                        t->is_left_offline = true;
                        ranges_add_reasons(w->job, reply);
                        ranges_add_missing_reason(w->job, reply, t->id,
                                (struct mem_range) { t->address, t->size_bytes }, range_account_online(&a),
                                "online");
                }
        }
        dimm_remove_pump(w);
}

/* The guest cannot be asked: what the next session finds offline is restored. */
static void leave_offline(struct dimm_remove *w, struct target *t)
{
        struct error error;

        if (!w->job->partition->platform_up)
                error_set(&error, ERROR_HYPERVISOR_ABSENT,
                        "%s was offline in the guest when QEMU went away; if it answers again, so will "
                        "guestd, "
                        "and it is put back",
                        SIZE(t->size_bytes));
        else
                error_set(&error, ERROR_AGENT_ABSENT,
                        "%s is offline in the guest and stays so until guestd answers again",
                        SIZE(t->size_bytes));
        job_add_reason(w->job, t->id, UINT64_MAX, &error);
        t->is_left_offline = true;
        t->state = TARGET_STAYED;
}

void dimm_remove_fail_all(struct dimm_remove *w, enum target_state state, const struct error *error)
{
        struct target *t;

        while ((t = dimm_remove_first(w, state))) {
                job_add_reason(w->job, t->id, UINT64_MAX, error);
                t->state = TARGET_STAYED;
        }
}

static bool put_back(struct dimm_remove *w, struct target *t)
{
        struct mem_range range = { t->address, t->size_bytes };
        struct message_request request = {
                .op = OP_ONLINE,
                .targets = &range,
                .n_targets = 1,
                .zone = t->kernel_bytes > 0 ? ZONE_KERNEL : ZONE_MOVABLE,
        };

        struct error error;

        t->state = TARGET_PUTTING_BACK;
        if (guest_call_start(w->job, &request, now_monotonic_usec() + PUT_BACK_USEC, on_put_back, NULL, w,
                    &w->call, &error) >= 0)
                return true;
        dimm_remove_fail_all(w, TARGET_PUTTING_BACK, &error);
        w->guest_lost = true;
        return false;
}

/* All that can go offline is: with all-or-nothing the devices are now unplugged, or put back. */
static void settle_offline(struct dimm_remove *w)
{
        bool whole = !w->gave_up && dimm_remove_sum(w, TARGET_OFFLINE, TARGET_GONE) >= w->job->request.bytes;

        for (size_t i = 0; i < w->n_targets; i++)
                if (w->targets[i].state == TARGET_OFFLINE) {
                        if (whole)
                                dimm_remove_unplug(w, &w->targets[i]);
                        else
                                w->targets[i].state = TARGET_PUT_BACK;
                }
}

void dimm_remove_pump(struct dimm_remove *w)
{
        struct target *t;

        if ((w->call && !w->awaiting) || w->ask || w->again_timer || w->verifying)
                return;
        if (w->awaiting && (dimm_remove_first(w, TARGET_PLANNED) || dimm_remove_first(w, TARGET_PUT_BACK))) {
                w->awaited = false;
                guest_call_stop(w->call); /* its answer leads back here */
                return;
        }
        while (!w->guest_lost && w->job->stop == JOB_STOP_NO && !w->gave_up && (t = dimm_offline_next(w)))
                if (dimm_offline(w, t))
                        return;
        if (!dimm_remove_first(w, TARGET_PUT_BACK) && dimm_again(w))
                return;
        settle_offline(w);
        while (!w->guest_lost && (t = dimm_remove_first(w, TARGET_PUT_BACK)))
                if (put_back(w, t))
                        return;
        while ((t = dimm_remove_first(w, TARGET_PUT_BACK)))
                leave_offline(w, t);
        if (!dimm_remove_first(w, TARGET_UNPLUGGING)) {
                verify(w);
                return;
        }
        job_set_state(w->job, JOB_UNPLUGGING);
        if (!w->awaited && !w->guest_lost)
                await_removed(w);
}

/* --- the mechanism --- */

static int dimm_remove_check(
        const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;
        struct plan_remove plan;

        if (!p->has_snapshot)
                return 0;
        struct job_request resolved = *request;
        int r = removal_resolve(p, &resolved, ret_error);
        if (r < 0)
                return r;
        r = removal_plan(p, &resolved, NULL, NULL, resolved.bytes, &s, &devices, &plan, ret_error);
        return r < 0 && dimm_zones_may_be_old(p, ret_error) ? 0 : r;
}

static void dimm_remove_start(struct job *j)
{
        struct error error;
        struct dimm_remove *w = calloc(1, sizeof(*w));

        if (w) {
                w->job = j;
                j->work = w;
                /* What is known is current when nothing has changed since: then it is as good as asking
                 * again, and both ends still have their say on each device. */
                if (partition_is_settled(j->partition)) {
                        dimm_remove_on_refreshed(j->partition, NULL, w);
                        return;
                }
                if (partition_refresh(
                            j->partition, REFRESH_ALL, dimm_remove_on_refreshed, w, &w->refresh, &error) >= 0)
                        return;
        } else
                error_set(&error, ERROR_INTERNAL, "Out of memory");
        job_add_reason(j, NULL, UINT64_MAX, &error);
        job_finish(j);
}

static void dimm_remove_stop(struct job *j)
{
        struct dimm_remove *w = j->work;

        if (j->state == JOB_SURVEYING) {
                w->refresh = partition_refresh_free(w->refresh);
                w->ask = survey_ask_free(w->ask);
                if (w->call)
                        guest_call_stop(w->call); /* nobody waits for what it says then */
                w->call = guest_call_free(w->call);
                job_finish(j);
        } else if (w->again_timer) {
                w->again_timer = sd_event_source_disable_unref(w->again_timer);
                dimm_remove_pump(w);
        } else if (w->call && dimm_remove_first(w, TARGET_OFFLINING))
                guest_call_stop(w->call);
        else if (w->ask) {
                w->ask = survey_ask_free(w->ask);
                dimm_remove_pump(w);
        }
}

static void dimm_remove_free(struct job *j)
{
        struct dimm_remove *w = j->work;

        for (size_t i = 0; i < w->n_targets; i++)
                platform_op_free(w->targets[i].op);
        partition_refresh_free(w->refresh);
        survey_ask_free(w->ask);
        sd_event_source_disable_unref(w->again_timer);
        survey_done(&w->survey);
        guest_call_free(w->call);
        free(w);
}

const struct mechanism mechanism_dimm_remove = {
        .method = "dimm",
        .pseries_method = "lmb",
        .kind = JOB_REMOVE_MEMORY,
        .check = dimm_remove_check,
        .room = dimm_remove_room,
        .nearest = dimm_remove_nearest,
        .start = dimm_remove_start,
        .stop = dimm_remove_stop,
        .free_work = dimm_remove_free,
};
