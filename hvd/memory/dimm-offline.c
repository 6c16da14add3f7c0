/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The part of a removal that takes devices' blocks offline in the guest: what goes into one request, and what
 * the answer says of each device. */

#include <string.h>

#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/memory/assist.h"
#include "hvd/memory/dimm-remove.h"
#include "hvd/memory/forecast.h"
#include "hvd/memory/ranges.h"
#include "hvd/memory/removal.h"

/* Kept from the job's time for what follows the guest's answer: this, or a quarter if that is less. */
#define GUEST_RESERVE_USEC (500 * USEC_PER_MSEC)
/* With less than this left nothing is begun. */
#define GUEST_MIN_USEC (100 * USEC_PER_MSEC)
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
                        dimm_remove_unplug(w, t);
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
        struct target *first = dimm_remove_first(w, TARGET_OFFLINING), *failed = NULL;
        size_t n = count_offlining(w);
        bool any = false;

        for (size_t i = 0; i < w->n_targets; i++) {
                struct target *t = &w->targets[i];

                if (t->state == TARGET_OFFLINING && take_answer(w, t, reply, n == 1)) {
                        any = true;
                        if (t->state == TARGET_STAYED || t->state == TARGET_PUT_BACK)
                                failed = t;
                }
        }
        /* Nothing gone, and nothing that failed: that is no answer to go on from. */
        if (!any && take_answer(w, first, reply, true))
                failed = first;
        assist_add_note(w->job, n == 1 ? first->id : failed ? failed->id : NULL, reply);
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
                dimm_remove_fail_all(w, TARGET_OFFLINING, error);
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

struct target *dimm_offline_next(struct dimm_remove *w)
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

bool dimm_offline(struct dimm_remove *w, struct target *t)
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
        dimm_remove_fail_all(w, TARGET_OFFLINING, &error);
        w->guest_lost = true;
        return false;
}
