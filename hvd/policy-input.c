/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the policy is to know: partitions, the pool and the host itself, as they are now. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/host.h"
#include "hvd/memory/auto.h"
#include "hvd/policy-internal.h"
#include "hvd/pool.h"

/* The window of the guests' pressure triggers, and the stalled time in it that fires them. */
#define STALL_MSEC  50U
#define WINDOW_MSEC 500U
/* How much more seldom a guest may report while nothing changes. */
#define BACK_OFF 8U
/* A guest that can send samples has sent one by then, or never will. */
#define FIRST_SAMPLE_USEC (10 * USEC_PER_SEC)
#define GRANULE_BYTES     (128 * MIB)
#define CHEAP_PART        4U
#define PSI_MIN_USEC      USEC_PER_SEC

/* --- guests --- */

void policy_wanted_sampling(const struct policy_runner *r, const struct partition *p, struct sampling *ret)
{
        const struct config *c = manager_config(r->manager);
        uint64_t headroom, slowest;

        *ret = (struct sampling) { 0 };
        if (policy_runner_partition_mode(r, p) == POLICY_MODE_OFF)
                return;
        /* In steps, so that it is told anew only when its memory changed a lot. */
        headroom = partition_current_bytes(p) / 1000 * c->policy.headroom_permille / (256 * MIB) * 256 * MIB;
        slowest = MIN(c->policy_sample_usec * BACK_OFF, c->policy.fresh_usec / 2);
        ret->interval_msec = c->policy_sample_usec / USEC_PER_MSEC;
        ret->interval_max_msec = MAX(slowest, c->policy_sample_usec) / USEC_PER_MSEC;
        ret->stall_msec = STALL_MSEC;
        ret->window_msec = WINDOW_MSEC;
        ret->headroom_bytes = MAX(headroom, c->policy.headroom_min_bytes);
}

uint64_t policy_growth_pause(const struct partition_policy *s)
{
        return s->n_failures == 0 ? 0 : USEC_PER_SEC << MIN(s->n_failures - 1, 6U);
}

static bool is_busy(const struct partition *p)
{
        const struct job_link *link;

        if (p->active || p->is_leaving)
                return true;
        TAILQ_FOREACH (link, &p->jobs, entry)
                if (!job_state_is_end(link->job->state))
                        return true;
        return false;
}

static enum policy_state state_of(const struct partition *p, uint64_t now)
{
        const struct partition_policy *s = &p->policy;

        switch (p->snapshot.state) {
        case RUN_RUNNING:
                break;
        case RUN_MIGRATING:
        case RUN_SAVING:
                return POLICY_MIGRATING;
        default:
                return POLICY_PAUSED;
        }
        if (s->ready_usec == 0)
                return POLICY_BOOTING;
        if (partition_guest_can(p, PROTO_CAPABILITY_SAMPLES) && p->samples.last.taken_usec < s->ready_usec &&
                now - s->ready_usec < FIRST_SAMPLE_USEC)
                return POLICY_BOOTING;
        return POLICY_RUNNING;
}

/* The balloon's driver is the guest's word as well, but another one than guestd's: if it is the later one of
 * the two, the one counts by which it needs less. An earlier one is of before the burst that was pushed. */
static void cross_check(const struct partition *p, struct policy_sample *sample, uint64_t now)
{
        const struct platform_balloon *b = &p->snapshot.balloon;
        uint64_t age_sec = (now - MIN(sample->taken_usec, now)) / USEC_PER_SEC;

        if (!b->present || b->stats.available_bytes == UINT64_MAX ||
                b->stats.updated_sec + age_sec <= (uint64_t)time(NULL))
                return;
        uint64_t available = MIN(b->stats.available_bytes, partition_current_bytes(p));
        sample->available_bytes = MAX(sample->available_bytes, available);
}

/* A block of which little has to be moved is as cheap as one that is free: the sums say nothing of how what
 * is used lies, and a device with one page in use would else never leave. */
static void round_removable(const struct policy_partition *view, struct policy_sample *sample)
{
        uint64_t over = sample->removable_bytes % view->granule_bytes;

        if (over >= view->granule_bytes - view->granule_bytes / CHEAP_PART)
                sample->removable_bytes += view->granule_bytes - over;
}

/* Looked at with each sample, and not in each round: what a guest uses is held against what it has touched.
 */
static void look_at_process(const struct policy_runner *r, struct partition *p)
{
        const struct platform_snapshot *q = &p->snapshot;
        struct partition_policy *s = &p->policy;
        uint64_t taken_usec = partition_sample(p)->taken_usec;

        if (s->resident_usec == taken_usec)
                return;
        s->resident_usec = taken_usec;
        s->has_resident = resident_read(r->host.proc, &s->process, platform_pid(p->platform),
                q->base_bytes + q->plugged_bytes, &s->resident_bytes);
}

/* Since when it is as it is. A change that no job of this hvd made (a balloon that follows, an eject) is seen
 * when it has been; what was sampled before does not count. */
static void follow(struct partition *p, uint64_t now)
{
        struct partition_policy *s = &p->policy;
        uint64_t current = partition_current_bytes(p);

        if (agent_state(p->agent) != AGENT_READY)
                s->ready_usec = 0;
        else if (s->ready_usec == 0)
                s->ready_usec = s->changed_usec = now;
        if (current == s->seen_bytes)
                return;
        s->seen_bytes = current;
        s->changed_usec = now;
        s->unfit_until_usec = 0;
        s->n_failures = 0;
        if (!p->active)
                (void)partition_ask_sample(p);
}

static void describe(
        const struct policy_runner *r, struct partition *p, uint64_t now, struct policy_partition *ret)
{
        const struct partition_profile *profile = &p->definition.profile;
        const struct partition_policy *s = &p->policy;
        uint64_t current = partition_current_bytes(p), requested = pool_requested_bytes(p);
        uint64_t max = partition_max_bytes(p) ?: current;
        bool has_failed = s->n_failures > 0 && now - s->failed_usec < policy_growth_pause(s);

        if (has_failed)
                max = MIN(max, current);
        *ret = (struct policy_partition) {
                .mode = policy_runner_partition_mode(r, p),
                .state = state_of(p, now),
                .min_bytes = MIN(profile->min_bytes, max),
                .desired_bytes = MIN(profile->desired_bytes, max),
                .max_bytes = max,
                .weight = profile->weight,
                .current_bytes = current,
                .floor_bytes = p->snapshot.balloon.present ? 0 : p->snapshot.base_bytes,
                .granule_bytes = partition_block_bytes(p) ?: GRANULE_BYTES,
                .is_busy = is_busy(p),
                .has_failed = has_failed,
                .has_no_size = now < s->unfit_until_usec,
                .claimed_bytes = pool_held_bytes(p),
                .leaving_bytes = current - MIN(requested, current),
                .changed_usec = s->changed_usec,
                .has_resident = s->has_resident,
                .resident_bytes = s->has_resident ? MIN(s->resident_bytes, POLICY_BYTES_MAX) : 0,
                .sample = *partition_sample(p),
        };
        snprintf(ret->name, sizeof(ret->name), "%s", p->definition.name);
        cross_check(p, &ret->sample, now);
        round_removable(ret, &ret->sample);
        if (ret->has_no_size) {
                ret->sample.has_removable = true;
                ret->sample.removable_bytes = 0;
        }
}

/* --- the host --- */

/* Stalls are counted over a second at least: a round that follows another at once would see none. */
static void ask_host(struct policy_host *h, uint64_t now)
{
        uint64_t age = now - h->asked_usec, stalled;

        if (h->asked_usec > 0 && age < PSI_MIN_USEC)
                return;
        /* The first line of the file is that of `some`. */
        stalled = host_figure(h->proc, "pressure/memory", "total=");
        h->some_permille = h->asked_usec == 0 || stalled < h->stalled_usec
                                   ? 0
                                   : MIN((stalled - h->stalled_usec) * 1000 / age, UINT64_C(1000));
        h->stalled_usec = stalled;
        h->asked_usec = now;
}

/* What the host has not got cannot be given, whatever pool_total says: it would swap. That much of the total
 * is held back as a reserve, and if even the host's own reserve is not there any more, it is in distress. */
static void describe_pool(struct policy_runner *r, uint64_t now, struct policy_pool *ret)
{
        const struct config *c = manager_config(r->manager);
        struct pool_account a = pool_account(r->manager);
        uint64_t available = host_figure(r->host.proc, "meminfo", "MemAvailable:") * KIB;
        uint64_t own = c->pool_total_bytes ? 0 : c->pool_reserve_bytes;

        ask_host(&r->host, now);
        *ret = (struct policy_pool) {
                .total_bytes = MIN(a.total_bytes, POLICY_BYTES_MAX),
                .reserved_bytes = MIN(a.reservations_bytes, POLICY_BYTES_MAX),
                .host_some_permille = r->host.some_permille,
        };
        if (available == 0)
                return;
        uint64_t givable = available - MIN(available, own);
        if (a.free_bytes > givable)
                ret->reserve_bytes = MIN(a.free_bytes - givable, ret->total_bytes);
        if (own > 0 && available < own / 2)
                ret->host_some_permille = MAX(ret->host_some_permille, c->policy.host_pressure_permille);
}

/* --- both --- */

static int make_room(struct policy_round *round, size_t n)
{
        if (n <= round->allocated)
                return 0;
        struct policy_partition *partitions = reallocarray(round->partitions, n, sizeof(*partitions));
        if (partitions)
                round->partitions = partitions;
        struct policy_history *before = reallocarray(round->before, n, sizeof(*before));
        if (before)
                round->before = before;
        struct policy_history *after = reallocarray(round->after, n, sizeof(*after));
        if (after)
                round->after = after;
        struct policy_decision *decisions = reallocarray(round->decisions, n, sizeof(*decisions));
        if (decisions)
                round->decisions = decisions;
        struct partition **subjects = reallocarray(round->subjects, n, sizeof(*subjects));
        if (subjects)
                round->subjects = subjects;
        if (!partitions || !before || !after || !decisions || !subjects)
                return -ENOMEM;
        round->allocated = n;
        return 0;
}

int policy_gather(struct policy_runner *r, uint64_t now_usec)
{
        struct policy_round *round = &r->round;
        struct partition *p = NULL;
        struct timespec now;
        size_t n = 0, i = 0;

        while ((p = manager_next_partition(r->manager, p)))
                n++;
        if (make_room(round, n) < 0)
                return -ENOMEM;
        while ((p = manager_next_partition(r->manager, p))) {
                if (!p->has_snapshot) {
                        p->policy = (struct partition_policy) { .has_mode = p->policy.has_mode,
                                .mode = p->policy.mode,
                                .applied = p->policy.applied };
                        continue;
                }
                follow(p, now_usec);
                look_at_process(r, p);
                describe(r, p, now_usec, &round->partitions[i]);
                round->before[i] = p->policy.history;
                round->subjects[i] = p;
                p->policy.place = i;
                i++;
        }
        round->input = (struct policy_input) {
                .config = manager_config(r->manager)->policy,
                .now_usec = now_usec,
                .n_partitions = i,
                .partitions = round->partitions,
                .history = round->before,
        };
        describe_pool(r, now_usec, &round->input.pool);
        clock_gettime(CLOCK_REALTIME, &now);
        round->time_usec = (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / 1000;
        return 0;
}
