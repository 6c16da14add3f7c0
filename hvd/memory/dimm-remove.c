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
#include "hvd/memory/assist.h"
#include "hvd/memory/dimm-remove.h"
#include "hvd/memory/dimm-room.h"
#include "hvd/memory/forecast.h"
#include "hvd/memory/mechanism.h"
#include "hvd/memory/nodes.h"
#include "hvd/memory/ranges.h"
#include "hvd/memory/removal.h"

/* Kept from the job's time for what follows the guest's answer: this, or a quarter if that is less. */
#define GUEST_RESERVE_USEC (500 * USEC_PER_MSEC)
/* With less than this left nothing is begun. */
#define GUEST_MIN_USEC (100 * USEC_PER_MSEC)
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

                bool listed = platform_snapshot_find(&p->snapshot, t->id) != NULL;
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

static void unplug(struct dimm_remove *w, struct target *t)
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

/* No answer came on the devices in this state. */
static void fail_all(struct dimm_remove *w, enum target_state state, const struct error *error)
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
        fail_all(w, TARGET_PUTTING_BACK, &error);
        w->guest_lost = true;
        return false;
}

/* --- taking offline --- */

static void on_offline_progress(uint64_t done_bytes, void *userdata)
{
        struct dimm_remove *w = userdata;

        job_set_progress(w->job, dimm_remove_sum(w, TARGET_OFFLINE, TARGET_GONE) + done_bytes);
}

static void on_examined(struct survey *s, const struct error *error, void *userdata)
{
        struct dimm_remove *w = userdata;

        w->ask = NULL;
        if (s) {
                forecast_add_findings(w->job, s);
                dimm_again_judge(w, s);
        }
        dimm_remove_try_others(w);
        dimm_remove_pump(w);
}

/* All that kept it is what may be otherwise soon. */
static bool is_only_busy(const struct message_reply *reply)
{
        for (size_t i = 0; i < reply->n_failures; i++) {
                enum error_code code = reply->failures[i].error.code;

                if (code != ERROR_BLOCK_BUSY && code != ERROR_NO_HEADROOM)
                        return false;
        }
        return reply->n_failures > 0;
}

/* A failure of the reply lies in it. What is missing has left, and is no obstacle. */
static bool has_failure(const struct message_reply *reply, const struct target *t)
{
        for (size_t i = 0; i < reply->n_failures; i++)
                if (reply->failures[i].error.code != ERROR_BLOCK_MISSING &&
                        reply->failures[i].start < t->address + t->size_bytes &&
                        reply->failures[i].start + reply->failures[i].length > t->address)
                        return true;
        return false;
}

/* The guest's word on a device that was to go offline. False: it did not get to it, for another one. */
static bool take_answer(
        struct dimm_remove *w, struct target *t, const struct message_reply *reply, bool alone)
{
        struct range_account a = ranges_account(reply->ranges, reply->n_ranges, t->address, t->size_bytes);
        bool settled = alone ? ranges_is_settled(reply) : !has_failure(reply, t);

        if (settled && a.offline_bytes + a.absent_bytes == t->size_bytes) {
                if (w->job->request.all_or_nothing)
                        t->state = TARGET_OFFLINE;
                else
                        unplug(w, t);
                return true;
        }
        if (!alone && settled && range_account_online(&a) == t->size_bytes) {
                t->state = TARGET_PLANNED;
                t->was_tried = false;
                return false;
        }
        /* What a guestd before this one took offline is not this one's to put back. */
        t->state = a.offline_bytes > 0 ? TARGET_PUT_BACK : TARGET_STAYED;
        t->is_busy = is_only_busy(reply);
        w->failed_usec = now_monotonic_usec();
        ranges_add_missing_reason(w->job, reply, t->id, (struct mem_range) { t->address, t->size_bytes },
                a.offline_bytes, "offline");
        return true;
}

static size_t count_offlining(const struct dimm_remove *w)
{
        size_t n = 0;

        for (size_t i = 0; i < w->n_targets; i++)
                n += w->targets[i].state == TARGET_OFFLINING;
        return n;
}

/* Returns a device that does not go, or NULL. */
static struct target *take_answers(struct dimm_remove *w, const struct message_reply *reply)
{
        struct target *t = dimm_remove_first(w, TARGET_OFFLINING), *failed = NULL;
        size_t n = count_offlining(w);
        const char *alone = n == 1 ? t->id : NULL;
        bool any = false;

        for (size_t i = 0; i < w->n_targets; i++) {
                t = &w->targets[i];
                if (t->state == TARGET_OFFLINING && take_answer(w, t, reply, n == 1)) {
                        any = true;
                        if (t->state == TARGET_STAYED || t->state == TARGET_PUT_BACK)
                                failed = t;
                }
        }
        /* Nothing gone, and nothing that failed: that is no answer to go on from. */
        if (!any && (t = dimm_remove_first(w, TARGET_PLANNED)) && take_answer(w, t, reply, true))
                failed = t;
        assist_add_note(w->job, alone ?: failed ? failed->id : NULL, reply);
        if (failed)
                ranges_add_reasons(w->job, reply);
        return failed;
}

static void on_offline(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct dimm_remove *w = userdata;
        bool failed = true;

        w->call = NULL;
        if (error) {
                /* Busy or malformed is about this request; all else is about the guest. */
                w->guest_lost = error->code != ERROR_BUSY && error->code != ERROR_INVALID_ARGUMENT;
                /* These two say that the guest could not begin. */
                bool began =
                        w->guest_lost && error->code != ERROR_INTERNAL && error->code != ERROR_NO_HEADROOM;
                for (size_t i = 0; i < w->n_targets; i++)
                        w->targets[i].is_unknown |= began && w->targets[i].state == TARGET_OFFLINING;
                fail_all(w, TARGET_OFFLINING, error);
        } else
                failed = take_answers(w, reply) != NULL;
        job_set_progress(w->job, dimm_remove_sum(w, TARGET_OFFLINE, TARGET_GONE));
        if (failed) {
                if (w->job->stop == JOB_STOP_NO &&
                        forecast_examine(w->job, reply, on_examined, w, &w->ask) >= 0)
                        return;
                dimm_remove_try_others(w);
        }
        dimm_remove_pump(w);
}

/* Kernel memory goes last, when it is known what of zone Movable has left: the plan counted on all of it. */
static struct target *next_planned(struct dimm_remove *w)
{
        for (size_t i = 0; i < w->n_targets; i++)
                if (w->targets[i].state == TARGET_PLANNED && w->targets[i].kernel_bytes == 0)
                        return &w->targets[i];
        return dimm_remove_first(w, TARGET_PLANNED);
}

/* The planner's rule for the zones, by what has really left. */
static bool keeps_ratio(const struct dimm_remove *w, const struct target *t)
{
        uint64_t kernel = w->kernel_bytes - MIN(w->kernel_bytes, t->kernel_bytes);
        uint64_t movable = w->movable_bytes - MIN(w->movable_bytes, t->movable_bytes);

        if (t->kernel_bytes == 0 || removal_names_device(&w->job->request))
                return true;
        for (size_t i = 0; i < w->n_targets; i++) {
                const struct target *o = &w->targets[i];

                if (o->state < TARGET_OFFLINE || o->state > TARGET_GONE)
                        continue;
                kernel -= MIN(kernel, o->kernel_bytes);
                movable -= MIN(movable, o->movable_bytes);
        }
        return plan_ratio_holds(w->kernel_bytes, w->movable_bytes, kernel, movable);
}

/* The device, and those planned behind it that the guest can take in one go, a set each: it takes them by
 * address, from the highest down, so they must be planned so. Kernel memory is looked at one by one. Returns
 * how many; ranges[] is by address. */
static size_t gather(struct dimm_remove *w, struct target *first, struct mem_range ranges[])
{
        bool many = partition_guest_can(w->job->partition, PROTO_CAPABILITY_SETS) && first->kernel_bytes == 0;
        uint64_t below = first->address;
        size_t n = 0;

        for (struct target *t = first; t < w->targets + w->n_targets && n < PLAN_DEVICES_MAX; t++) {
                if (t->state != TARGET_PLANNED || (t != first && t->kernel_bytes > 0))
                        continue;
                if (t->address > below)
                        break;
                t->state = TARGET_OFFLINING;
                t->was_tried = true;
                ranges[n++] = (struct mem_range) { t->address, t->size_bytes };
                below = t->address;
                if (!many)
                        break;
        }
        ranges_sort(ranges, n);
        return n;
}

static bool take_offline(struct dimm_remove *w, struct target *t)
{
        struct mem_range ranges[PLAN_DEVICES_MAX];
        uint64_t left = job_left_usec(w->job);
        struct error error;

        if (left < GUEST_MIN_USEC) {
                w->job->stop = JOB_STOP_DEADLINE;
                t->state = TARGET_STAYED;
                return false;
        }
        if (!keeps_ratio(w, t)) {
                error_set(&error, ERROR_ZONE_RATIO,
                        "it is kernel memory, and too little of zone Movable has left to do without it: that "
                        "would be "
                        "more than three times what the kernel has; name the device to take it all the same");
                job_add_reason(w->job, t->id, UINT64_MAX, &error);
                t->state = TARGET_STAYED;
                return false;
        }
        struct message_request request = {
                .op = OP_OFFLINE,
                .targets = ranges,
                .n_targets = gather(w, t, ranges),
                .attempt_msec = manager_config(w->job->manager)->block_attempt_usec / USEC_PER_MSEC,
        };
        request.each = request.n_targets > 1;
        job_set_state(w->job, JOB_OFFLINING);
        w->awaited = w->answered = w->guest_confirmed = false;
        if (guest_call_start(w->job, &request,
                    now_monotonic_usec() + left - MIN(GUEST_RESERVE_USEC, left / 4), on_offline,
                    on_offline_progress, w, &w->call, &error) >= 0)
                return true;
        fail_all(w, TARGET_OFFLINING, &error);
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
                                unplug(w, &w->targets[i]);
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
        while (!w->guest_lost && w->job->stop == JOB_STOP_NO && !w->gave_up && (t = next_planned(w)))
                if (take_offline(w, t))
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
        return removal_plan(p, &resolved, NULL, NULL, resolved.bytes, &s, &devices, &plan, ret_error);
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
                if (partition_refresh(j->partition, REFRESH_HYPERVISOR | REFRESH_BLOCKS,
                            dimm_remove_on_refreshed, w, &w->refresh, &error) >= 0)
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
