/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Removing DIMMs (or LMBs) within a time, and not by force.
 *
 * In rounds, 1 to 10 s apart: both accounts of the guest are asked, the pages of all devices that may leave
 * are sampled, and the plan is made anew, so that another device takes the place of one whose pages do not
 * move. Of the devices that are planned, blocks that have become cheap (trickle.h) are taken offline one by
 * one and held, so that they do not fill again; a device that is wholly offline is unplugged at once. What is
 * held of a device that is no longer planned goes back online, and so does all of it when the guest runs
 * short of memory, at the deadline, or when the job is cancelled. The guest keeps its own margin for each
 * block, and puts back what is held if hvd goes away.
 *
 *     ASKING -> SAMPLING -> [RETURNING ->] TAKING -> PAUSING -> ASKING ...    -> RETURNING -> LEAVING ->
 * VERIFYING
 *
 * At most one request is under way in the guest. Unplugs run beside. */

#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/memory/dimm-trickle.h"
#include "hvd/memory/hooks.h"
#include "hvd/memory/mechanism.h"
#include "hvd/memory/ranges.h"

/* A block that is cheap goes in milliseconds. */
#define ATTEMPT_MSEC 1000U
#define TAKE_USEC    (2 * USEC_PER_SEC)
#define RETURN_USEC  (5 * USEC_PER_SEC)
#define UNPLUG_USEC  (15 * USEC_PER_SEC)
#define REST_USEC    (30 * USEC_PER_SEC)
#define FAILURES_MAX 3U /* of a device's blocks, in a row: then it rests */
#define SILENCES_MAX 5U /* rounds in a row without an answer */

static void next_round(struct dimm_trickle *w);
static void end(struct dimm_trickle *w);

static void set_progress(struct dimm_trickle *w)
{
        job_set_progress(w->job, trickle_sum_of(w, DEVICE_GONE) + trickle_sum_of(w, DEVICE_UNPLUGGING) +
                                         trickle_held_bytes(w));
}

static void await_unplugs(struct dimm_trickle *w)
{
        w->phase = PHASE_LEAVING;
        if (trickle_sum_of(w, DEVICE_UNPLUGGING) > 0)
                job_set_state(w->job, JOB_UNPLUGGING);
        else
                trickle_verify(w);
}

/* --- putting back --- */

static bool is_to_return(const struct dimm_trickle *w, const struct device *d)
{
        return (d->state == DEVICE_WATCHED || d->state == DEVICE_OUT) && d->begun && d->offline_bytes > 0 &&
               (w->ending || w->short_of_room || !d->planned || d->state == DEVICE_OUT);
}

static void take_next(struct dimm_trickle *w);
static void pause_round(struct dimm_trickle *w);

static void give_back(struct dimm_trickle *w);

static void on_given_back(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct dimm_trickle *w = userdata;

        w->call = NULL;
        for (size_t i = 0; i < w->n_devices; i++) {
                struct device *d = &w->devices[i];

                if (!d->returning)
                        continue;
                d->returning = false;
                struct range_account a = { 0 };
                if (reply)
                        a = ranges_account(reply->ranges, reply->n_ranges, d->address, d->size_bytes);
                d->offline_bytes = 0;
                if (error)
                        job_add_reason(w->job, d->id, UINT64_MAX, error);
                else if (w->ending && range_account_online(&a) < d->size_bytes)
                        ranges_add_missing_reason(w->job, reply, d->id,
                                (struct mem_range) { d->address, d->size_bytes }, range_account_online(&a),
                                "online");
        }
        /* Else it is tried again in the next round. */
        if (reply && w->ending)
                ranges_add_reasons(w->job, reply);
        w->guest_lost |= error != NULL;
        set_progress(w);
        give_back(w);
}

/* One request for each zone, until nothing is left to be put back. */
static void give_back(struct dimm_trickle *w)
{
        struct mem_range ranges[PLAN_DEVICES_MAX];
        struct message_request request = { .op = OP_ONLINE, .targets = ranges };
        struct error error;

        w->phase = PHASE_RETURNING;
        w->taking = NULL;
        w->ending |= w->gave_up || w->job->stop != JOB_STOP_NO;
        for (size_t i = 0; i < w->n_devices; i++) {
                struct device *d = &w->devices[i];

                if (!is_to_return(w, d) || (w->taking && d->was_kernel != w->taking->was_kernel))
                        continue;
                w->taking = w->taking ?: d;
                d->returning = true;
                ranges[request.n_targets++] = (struct mem_range) { d->address, d->size_bytes };
        }
        if (w->taking && !w->guest_lost) {
                request.zone = w->taking->was_kernel ? ZONE_KERNEL : ZONE_MOVABLE;
                if (guest_call_start(w->job, &request, now_monotonic_usec() + RETURN_USEC, on_given_back,
                            NULL, w, &w->call, &error) >= 0)
                        return;
                /* What the next session finds offline is restored. */
                job_add_reason(w->job, w->taking->id, UINT64_MAX, &error);
                w->guest_lost = true;
        }
        w->ending |= w->guest_lost;
        if (w->ending)
                await_unplugs(w);
        else if (w->short_of_room)
                pause_round(w);
        else
                take_next(w);
}

static void end(struct dimm_trickle *w)
{
        w->ending = true;
        w->timer = sd_event_source_disable_unref(w->timer);
        give_back(w);
}

/* --- unplugging --- */

static bool is_all_gone(const struct dimm_trickle *w)
{
        return trickle_sum_of(w, DEVICE_GONE) >= w->job->request.bytes;
}

static void on_unplugged(const struct error *error, void *userdata)
{
        struct device *d = userdata;
        struct dimm_trickle *w = d->job->work;

        d->op = NULL;
        d->state = error ? DEVICE_OUT : DEVICE_GONE;
        if (error) {
                job_add_reason(w->job, d->id, UINT64_MAX, error);
                /* The blocks of one that left without its backend are gone. */
                if (error->code == ERROR_ACCOUNTS_DIFFER)
                        d->offline_bytes = 0;
        }
        /* One that is pending may leave yet: another in its place would be one too many. */
        w->gave_up |= error && error->code != ERROR_UNPLUG_REFUSED && error->code != ERROR_HYPERVISOR_REFUSED;
        set_progress(w);
        if (w->phase == PHASE_LEAVING)
                end(w);
        else if (w->phase == PHASE_PAUSING && (w->gave_up || is_all_gone(w)))
                end(w);
        else if (w->phase == PHASE_PAUSING)
                next_round(w);
}

static void unplug(struct dimm_trickle *w, struct device *d)
{
        struct error error;

        d->state = DEVICE_UNPLUGGING;
        int r = platform_detach(
                w->job->partition->platform, d->id, d->backend, UNPLUG_USEC, on_unplugged, d, &d->op);
        if (r >= 0)
                return;
        error_set_errno(&error, ERROR_HYPERVISOR_ABSENT, r, "QEMU cannot be told to unplug %s", d->id);
        job_add_reason(w->job, d->id, UINT64_MAX, &error);
        d->state = DEVICE_OUT;
}

/* With all-or-nothing none leaves before all can. */
static void unplug_what_is_whole(struct dimm_trickle *w)
{
        uint64_t whole = trickle_sum_of(w, DEVICE_GONE) + trickle_sum_of(w, DEVICE_UNPLUGGING);

        for (size_t i = 0; i < w->n_devices; i++)
                if (w->devices[i].state == DEVICE_WATCHED && w->devices[i].planned &&
                        w->devices[i].offline_bytes == w->devices[i].size_bytes)
                        whole += w->devices[i].size_bytes;
        if (w->job->request.all_or_nothing && whole < w->job->request.bytes)
                return;
        for (size_t i = 0; i < w->n_devices; i++)
                if (w->devices[i].state == DEVICE_WATCHED && w->devices[i].planned &&
                        w->devices[i].offline_bytes == w->devices[i].size_bytes)
                        unplug(w, &w->devices[i]);
}

/* --- a round: taking --- */

static int on_pause_over(sd_event_source *source, uint64_t usec, void *userdata)
{
        next_round(userdata);
        return 0;
}

static void pause_round(struct dimm_trickle *w)
{
        bool leaving = trickle_sum_of(w, DEVICE_UNPLUGGING) > 0;

        trickle_tell_waiting(w);
        if (is_all_gone(w) || w->gave_up || (w->n_planned == 0 && !leaving)) {
                end(w);
                return;
        }
        w->phase = PHASE_PAUSING;
        if (w->n_planned == 0) { /* what is left to do is to be unplugged, and its end goes on */
                job_set_state(w->job, JOB_UNPLUGGING);
                return;
        }
        w->pause_usec = trickle_pause(w->pause_usec, w->had_some);
        if (sd_event_add_time_relative(manager_event(w->job->manager), &w->timer, CLOCK_MONOTONIC,
                    w->pause_usec, 0, on_pause_over, w) < 0)
                end(w);
}

/* A guestd that restarts is back soon, and the next round looks at what there is. */
static void bear_silence(struct dimm_trickle *w, const struct error *error)
{
        bool again = w->job->stop == JOB_STOP_NO && w->job->partition->platform_up;

        if (again && ++w->n_silences < SILENCES_MAX) {
                pause_round(w);
                return;
        }
        job_add_reason(w->job, NULL, UINT64_MAX, error);
        end(w);
}

static void rest(struct device *d)
{
        d->n_failures = 0;
        d->rests_until_usec = now_monotonic_usec() + REST_USEC;
}

/* All pages of a block that did not go were looked at. */
static void on_examined(struct survey *s, const struct error *error, void *userdata)
{
        struct dimm_trickle *w = userdata;
        struct device *d = w->taking;
        uint64_t block;

        w->ask = NULL;
        if (s && survey_explain(
                         s, d->failed_block, partition_block_bytes(w->job->partition), &block, &d->failure))
                rest(d);
        take_next(w);
}

/* It is looked at why; a device that often fails is let be for a while, and the next best takes its place. */
static void note_failure(struct dimm_trickle *w, struct device *d, const struct error *error)
{
        struct mem_range range = { w->taking_block, partition_block_bytes(w->job->partition) };

        if (error->code == ERROR_CANCELLED) {
                take_next(w);
                return;
        }
        d->failure = *error;
        d->failed_block = w->taking_block;
        if (error->code == ERROR_NO_HEADROOM)
                w->short_of_room = true;
        else if (++d->n_failures == FAILURES_MAX)
                rest(d);
        w->phase = PHASE_EXAMINING;
        if (error->code != ERROR_BLOCK_BUSY || w->job->stop != JOB_STOP_NO ||
                survey_start(w->job->partition, &range, 1, SURVEY_THOROUGH, on_examined, w, &w->ask, NULL) <
                        0)
                take_next(w);
}

static void on_taken(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct dimm_trickle *w = userdata;
        struct device *d = w->taking;
        struct range_account a = { 0 };
        struct error failure;

        w->call = NULL;
        if (error && error->code != ERROR_BUSY && error->code != ERROR_INVALID_ARGUMENT) {
                bear_silence(w, error);
                return;
        }
        if (reply)
                a = ranges_account(reply->ranges, reply->n_ranges, w->taking_block,
                        partition_block_bytes(w->job->partition));
        if (a.offline_bytes == 0) {
                error_set(&failure, ERROR_BLOCK_FAILED, "guestd does not say why the block is not offline");
                note_failure(w, d, error ?: reply->n_failures > 0 ? &reply->failures[0].error : &failure);
                return;
        }
        d->begun = true;
        d->offline_bytes += MIN(a.offline_bytes, d->size_bytes - d->offline_bytes);
        d->failure = (struct error) { 0 };
        d->n_failures = 0;
        w->had_some = true;
        set_progress(w);
        unplug_what_is_whole(w);
        take_next(w);
}

/* The cheapest block of all that are cheap enough. */
static const struct block_survey *choose(struct dimm_trickle *w, struct device **ret)
{
        const struct block_survey *best = NULL;

        for (size_t i = 0; i < w->n_devices; i++) {
                struct device *d = &w->devices[i];

                if (d->state != DEVICE_WATCHED || !d->planned || now_monotonic_usec() < d->rests_until_usec ||
                        trickle_look(&w->survey, d->address, d->size_bytes).has_obstacle)
                        continue;
                const struct block_survey *b = trickle_cheapest(&w->survey, d->address, d->size_bytes,
                        trickle_bound_now(w, partition_block_bytes(w->job->partition)), w->tried, w->n_tried);
                if (b && (!best || b->cost_bytes < best->cost_bytes)) {
                        best = b;
                        *ret = d;
                }
        }
        return best;
}

static void take_next(struct dimm_trickle *w)
{
        const struct block_survey *b;
        struct device *d = NULL;
        struct error error;

        w->phase = PHASE_TAKING;
        if (w->job->stop != JOB_STOP_NO || w->gave_up) {
                end(w);
                return;
        }
        /* What the guest needs itself is not fought for; it looks again in a while. */
        if (w->short_of_room || w->n_tried == TRICKLE_TRIED_MAX || !(b = choose(w, &d))) {
                w->short_of_room = false;
                pause_round(w);
                return;
        }
        struct mem_range range = { b->start, b->length };
        struct message_request request = {
                .op = OP_OFFLINE,
                .targets = &range,
                .n_targets = 1,
                .attempt_msec = ATTEMPT_MSEC,
                .gentle = partition_guest_can(w->job->partition, PROTO_CAPABILITY_GENTLE),
        };
        w->tried[w->n_tried++] = b->start;
        w->taking = d;
        w->taking_block = b->start;
        if (guest_call_start(w->job, &request, now_monotonic_usec() + TAKE_USEC, on_taken, NULL, w, &w->call,
                    &error) < 0)
                on_taken(NULL, &error, w);
}

/* --- a round: choosing --- */

static void on_surveyed(struct survey *s, const struct error *error, void *userdata)
{
        struct dimm_trickle *w = userdata;

        w->ask = NULL;
        if (!s) {
                bear_silence(w, error);
                return;
        }
        w->n_silences = 0;
        survey_done(&w->survey);
        w->survey = *s;
        *s = (struct survey) { 0 };
        trickle_plan(w);
        unplug_what_is_whole(w);
        w->n_tried = 0;
        give_back(w);
}

static void sample(struct dimm_trickle *w)
{
        struct mem_range targets[PLAN_DEVICES_MAX];
        struct error error;
        size_t n = 0;

        w->phase = PHASE_SAMPLING;
        for (size_t i = 0; i < w->n_devices; i++)
                if (w->devices[i].state == DEVICE_WATCHED)
                        targets[n++] = (struct mem_range) { w->devices[i].address, w->devices[i].size_bytes };
        if (n == 0) {
                w->n_planned = 0;
                pause_round(w);
        } else if (survey_start(
                           w->job->partition, targets, n, SURVEY_QUICK, on_surveyed, w, &w->ask, &error) < 0)
                on_surveyed(NULL, &error, w);
}

static void on_asked(struct partition *p, const struct error *error, void *userdata)
{
        struct dimm_trickle *w = userdata;

        w->refresh = NULL;
        if (error) {
                bear_silence(w, error);
                return;
        }
        for (size_t i = 0; i < w->n_devices; i++) {
                struct device *d = &w->devices[i];

                if (d->state != DEVICE_WATCHED && d->state != DEVICE_OUT)
                        continue;
                struct range_account a = ranges_account(p->blocks, p->n_blocks, d->address, d->size_bytes);
                d->offline_bytes = a.offline_bytes;
                if (range_account_online(&a) > 0) /* a reset may have moved it to another zone */
                        d->was_kernel = a.movable_bytes == 0;
        }
        w->had_some = false;
        w->short_of_room = trickle_held_bytes(w) > 0 && trickle_is_tight(&p->memory);
        if (w->short_of_room)
                give_back(w);
        else
                sample(w);
}

static void next_round(struct dimm_trickle *w)
{
        struct error error;

        w->timer = sd_event_source_disable_unref(w->timer);
        w->phase = PHASE_ASKING;
        job_set_state(w->job, JOB_OFFLINING);
        if (partition_refresh(
                    w->job->partition, REFRESH_MEMORY | REFRESH_BLOCKS, on_asked, w, &w->refresh, &error) < 0)
                on_asked(w->job->partition, &error, w);
}

/* --- the mechanism --- */

static void go_on(struct job *j)
{
        next_round(j->work);
}

static void on_first(struct partition *p, const struct error *error, void *userdata)
{
        struct dimm_trickle *w = userdata;
        struct error local;
        int r = 0;

        w->refresh = NULL;
        if (error || (r = trickle_plan_first(w, &local)) < 0)
                job_add_reason(w->job, NULL, UINT64_MAX, error ?: &local);
        if (error || r != 0) {
                job_finish(w->job);
                return;
        }
        if (!hooks_before(w->job, go_on))
                next_round(w);
}

static int dimm_trickle_check(
        const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        int r = trickle_check_survey(p, ret_error);

        return r < 0 ? r : mechanism_dimm_remove.check(p, request, ret_error);
}

static void dimm_trickle_start(struct job *j)
{
        struct error error;
        struct dimm_trickle *w = calloc(1, sizeof(*w));

        if (w) {
                w->job = j;
                w->n_planned = 1; /* not known yet */
                j->work = w;
                if (partition_refresh(j->partition, REFRESH_HYPERVISOR | REFRESH_BLOCKS, on_first, w,
                            &w->refresh, &error) >= 0)
                        return;
        } else
                error_set(&error, ERROR_INTERNAL, "Out of memory");
        job_add_reason(j, NULL, UINT64_MAX, &error);
        job_finish(j);
}

static void dimm_trickle_stop(struct job *j)
{
        struct dimm_trickle *w = j->work;

        switch (w->phase) {
        case PHASE_FIRST:
                w->refresh = partition_refresh_free(w->refresh);
                job_finish(j);
                return;
        case PHASE_ASKING:
        case PHASE_SAMPLING:
        case PHASE_PAUSING:
                w->refresh = partition_refresh_free(w->refresh);
                w->ask = survey_ask_free(w->ask);
                end(w);
                return;
        case PHASE_TAKING:
                guest_call_stop(w->call);
                return;
        case PHASE_EXAMINING:
                w->ask = survey_ask_free(w->ask);
                take_next(w);
                return;
        default: /* it is about to end, or to see that it is to */
                return;
        }
}

static void dimm_trickle_free(struct job *j)
{
        struct dimm_trickle *w = j->work;

        for (size_t i = 0; i < w->n_devices; i++)
                platform_op_free(w->devices[i].op);
        partition_refresh_free(w->refresh);
        survey_ask_free(w->ask);
        survey_done(&w->survey);
        guest_call_free(w->call);
        sd_event_source_disable_unref(w->timer);
        free(w);
}

const struct mechanism mechanism_dimm_trickle = {
        .method = "dimm",
        .pseries_method = "lmb",
        .kind = JOB_REMOVE_MEMORY,
        .check = dimm_trickle_check,
        .start = dimm_trickle_start,
        .stop = dimm_trickle_stop,
        .free_work = dimm_trickle_free,
};
