/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a removal within a time says while it waits and when it ends, and how its end is confirmed. A guest
 * that was reset meanwhile confirms nothing of the boot before: what left then is not counted, and the
 * accounts are made anew. */

#include <inttypes.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/memory/dimm-trickle.h"
#include "hvd/memory/ranges.h"

#define VERIFY_USEC (5 * USEC_PER_SEC)

uint64_t trickle_sum_of(const struct dimm_trickle *w, enum device_state state)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < w->n_devices; i++)
                if (w->devices[i].state == state)
                        sum += w->devices[i].size_bytes;
        return sum;
}

uint64_t trickle_held_bytes(const struct dimm_trickle *w)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < w->n_devices; i++)
                if (w->devices[i].state == DEVICE_WATCHED && w->devices[i].planned)
                        sum += w->devices[i].offline_bytes;
        return sum;
}

uint64_t trickle_bound_now(const struct dimm_trickle *w, uint64_t block_bytes)
{
        const struct job *j = w->job;

        return trickle_bound(block_bytes, now_monotonic_usec() - j->created_usec, j->request.wait_usec);
}

/* --- what it waits for --- */

/* The device that stands in the way, as the last round saw it. */
static const struct device *first_waited_for(const struct dimm_trickle *w)
{
        for (size_t i = 0; i < w->n_devices; i++)
                if (w->devices[i].planned && w->devices[i].state == DEVICE_WATCHED)
                        return &w->devices[i];
        return NULL;
}

/* Why a device is not offline yet; *ret_block is UINT64_MAX if that is no block's fault. */
static void explain(
        const struct dimm_trickle *w, const struct device *d, uint64_t *ret_block, struct error *ret_error)
{
        struct trickle_view view = trickle_look(&w->survey, d->address, d->size_bytes);

        *ret_block = UINT64_MAX;
        if (view.has_obstacle && survey_explain(&w->survey, d->address, d->size_bytes, ret_block, ret_error))
                return;
        if (d->failure.code) {
                *ret_block = d->failed_block;
                *ret_error = d->failure;
        } else if (view.block_bytes > 0) {
                *ret_block = view.block;
                error_set(ret_error, ERROR_BLOCK_BUSY,
                        "Block memory%" PRIu64 " has %s to be moved, and now it may have %s",
                        view.block / view.block_bytes, SIZE(view.cost),
                        SIZE(trickle_bound_now(w, view.block_bytes)));
        } else
                error_set(ret_error, ERROR_BLOCK_BUSY, "%s of %s are offline", SIZE(d->offline_bytes),
                        SIZE(d->size_bytes));
}

void trickle_tell_waiting(struct dimm_trickle *w)
{
        const struct device *d = first_waited_for(w);
        struct error error;
        uint64_t block;

        if (!d) {
                job_set_waiting(w->job, "%s", "");
                return;
        }
        explain(w, d, &block, &error);
        job_set_waiting(w->job, "%s of %s offline; %s: %.160s", SIZE(trickle_held_bytes(w)),
                SIZE(w->job->request.bytes - MIN(w->job->request.bytes, trickle_sum_of(w, DEVICE_GONE))),
                d->id, w->short_of_room ? "the guest has too little memory available" : error.message);
}

static void add_reasons(struct dimm_trickle *w)
{
        struct error error;
        uint64_t block;

        for (size_t i = 0; i < w->n_devices; i++) {
                const struct device *d = &w->devices[i];

                if (d->state != DEVICE_WATCHED || !d->planned)
                        continue;
                explain(w, d, &block, &error);
                job_add_reason(w->job, d->id, block, &error);
        }
}

/* --- the end --- */

static void conclude(struct dimm_trickle *w)
{
        const struct partition *p = w->job->partition;

        for (size_t i = 0; i < w->n_devices; i++) {
                const struct device *d = &w->devices[i];
                /* Without an answer the list is the one from before. */
                bool listed = w->host_confirmed && platform_snapshot_find(&p->snapshot, d->id);
                struct error error;

                if (d->state != DEVICE_GONE)
                        continue;
                if (w->guest_confirmed && w->host_confirmed && !listed) {
                        job_add_done(w->job, d->size_bytes);
                        continue;
                }
                error_set(&error, ERROR_ACCOUNTS_DIFFER, "QEMU said that %s left, but %s", d->id,
                        listed               ? "still lists it"
                        : w->guest_confirmed ? "does not confirm it now"
                                             : "the guest did not confirm that its blocks are gone");
                job_add_reason(w->job, d->id, UINT64_MAX, &error);
        }
        job_finish(w->job);
}

static void on_blocks_gone(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct dimm_trickle *w = userdata;

        w->call = NULL;
        w->guest_confirmed = reply && reply->complete;
        if (!w->refresh)
                conclude(w);
}

static void on_host_verified(struct partition *p, const struct error *error, void *userdata)
{
        struct dimm_trickle *w = userdata;

        w->refresh = NULL;
        w->host_confirmed = !error;
        if (!w->call)
                conclude(w);
}

void trickle_verify(struct dimm_trickle *w)
{
        struct mem_range ranges[PLAN_DEVICES_MAX];
        struct message_request request = { .op = OP_AWAIT_REMOVED, .targets = ranges };
        struct error error;

        w->phase = PHASE_VERIFYING;
        for (size_t i = 0; i < w->n_devices; i++)
                if (w->devices[i].state == DEVICE_GONE)
                        ranges[request.n_targets++] =
                                (struct mem_range) { w->devices[i].address, w->devices[i].size_bytes };
        if (trickle_sum_of(w, DEVICE_GONE) < w->job->request.bytes)
                add_reasons(w);
        job_set_waiting(w->job, "%s", "");
        if (request.n_targets == 0) {
                job_finish(w->job);
                return;
        }
        job_set_state(w->job, JOB_VERIFYING);
        if (guest_call_start(w->job, &request, now_monotonic_usec() + VERIFY_USEC, on_blocks_gone, NULL, w,
                    &w->call, &error) < 0)
                log_debug("Job %" PRIu32 ": %s", w->job->id, error.message);
        if (partition_refresh(w->job->partition, REFRESH_DEVICES, on_host_verified, w, &w->refresh, &error) <
                        0 &&
                !w->call)
                conclude(w);
}
