/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The simulated host. Its guests are simple, and the same for every policy: what a guest wants and has is in
 * use, what it wants and does not have is short, and it stalls the more, the more that is. What it has beyond
 * its wants is available. The host knows what it ever touched. */

#include "hvd/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/policy/internal.h"

#define OSCILLATION_USEC  (60 * USEC_PER_SEC)
#define OSCILLATION_BYTES (64 * MIB) /* what is less is no change that anybody notices */
#define GUEST_MARGIN      (64 * MIB) /* beside what is in use, before guestd gives a granule */
#define FAIRNESS_USEC     USEC_PER_SEC

void sim_mechanism_init(struct sim_mechanism *ret)
{
        *ret = (struct sim_mechanism) {
                .granule_bytes = 128 * MIB,
                .grow_usec = 100 * USEC_PER_MSEC,
                .grow_bytes_per_sec = 8 * GIB,
                .shrink_usec = 150 * USEC_PER_MSEC,
                .shrink_bytes_per_sec = 2 * GIB,
                .is_gated = true,
        };
}

uint32_t sim_random(struct sim *s)
{
        /* splitmix64, of Steele, Lea and Flood (2014) */
        uint64_t x = s->random += UINT64_C(0x9e3779b97f4a7c15);

        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        return (uint32_t)((x ^ (x >> 31)) >> 32);
}

bool sim_is_running(const struct sim_partition *p)
{
        return p->phase == SIM_RUNNING;
}

uint64_t sim_available_bytes(const struct sim_partition *p)
{
        return p->current_bytes - MIN(p->demand_bytes, p->current_bytes);
}

int64_t sim_margin_bytes(const struct sim *s)
{
        int64_t bytes = (int64_t)(s->trace->pool_bytes - s->trace->reserve_bytes - s->waiting_bytes);

        for (size_t i = 0; i < s->n_partitions; i++)
                bytes -= (int64_t)s->partitions[i].claimed_bytes;
        return bytes;
}

uint64_t sim_free_bytes(const struct sim *s)
{
        int64_t bytes = sim_margin_bytes(s);

        return bytes > 0 ? (uint64_t)bytes : 0;
}

/* --- changes --- */

static uint64_t distance(uint64_t a, uint64_t b)
{
        return a > b ? a - b : b - a;
}

/* What moved. Back and forth without a reason: a change against the last one, soon after it, while the guest
 * wants what it wanted when that was begun. */
static void note_change(struct sim *s, struct sim_partition *p, uint64_t from, uint64_t demand)
{
        int direction = p->current_bytes > from ? 1 : -1;

        if (distance(from, p->current_bytes) < OSCILLATION_BYTES)
                return;
        s->result.n_changes++;
        if (p->last_direction == -direction && s->now_usec - p->last_moved_usec < OSCILLATION_USEC &&
                distance(demand, p->last_demand_bytes) < OSCILLATION_BYTES)
                s->result.n_oscillations++;
        p->last_direction = direction;
        p->last_moved_usec = s->now_usec;
        p->last_demand_bytes = demand;
}

void sim_change(struct sim *s, struct sim_partition *p, uint64_t target)
{
        uint64_t granule = s->mechanism.granule_bytes;

        if (p->is_changing) {
                p->claimed_bytes = p->current_bytes;
                note_change(s, p, p->from_bytes, p->begun_demand_bytes);
        }
        p->is_changing = false;
        if (target > p->current_bytes) {
                target = MIN(target, p->current_bytes + sim_free_bytes(s));
                target = p->current_bytes + (target - p->current_bytes) / granule * granule;
        } else
                target = p->current_bytes - (p->current_bytes - target) / granule * granule;
        if (target == p->current_bytes)
                return;
        p->is_changing = true;
        p->was_refused = false;
        p->from_bytes = p->current_bytes;
        p->target_bytes = target;
        p->claimed_bytes = MAX(target, p->current_bytes);
        p->begun_usec = s->now_usec;
        p->begun_demand_bytes = p->demand_bytes;
}

void sim_set(struct sim *s, struct sim_partition *p, uint64_t bytes)
{
        uint64_t from = p->current_bytes;

        if (bytes == from)
                return;
        s->result.moved_gib += (double)distance(bytes, from) / GIB;
        p->current_bytes = p->claimed_bytes = bytes;
        note_change(s, p, from, p->demand_bytes);
}

/* What a guest gives now, of a change that asks for `bytes`. */
static uint64_t gated(const struct sim *s, const struct sim_partition *p, uint64_t bytes)
{
        uint64_t granule = s->mechanism.granule_bytes, most;

        if (p->trace->manner == TRACE_REFUSES)
                return 0;
        if (!s->mechanism.is_gated)
                return bytes;
        most = sim_available_bytes(p) > GUEST_MARGIN ? sim_available_bytes(p) - GUEST_MARGIN : 0;
        return MIN(bytes, most / granule * granule);
}

/* True if the change ended in this step. */
static bool move(struct sim *s, struct sim_partition *p)
{
        const struct sim_mechanism *m = &s->mechanism;
        bool grows = p->target_bytes > p->from_bytes;
        uint64_t usec = s->now_usec - p->begun_usec, wait = grows ? m->grow_usec : m->shrink_usec;
        uint64_t rate = grows ? m->grow_bytes_per_sec : m->shrink_bytes_per_sec;
        uint64_t whole = distance(p->from_bytes, p->target_bytes), moved, now;

        if (usec < wait)
                return false;
        moved = (uint64_t)((unsigned __int128)(usec - wait) * rate / USEC_PER_SEC);
        moved = MIN(moved / m->granule_bytes * m->granule_bytes, whole);
        if (grows)
                now = MAX(p->current_bytes, p->from_bytes + moved);
        else {
                uint64_t due = MIN(moved, whole) - (p->from_bytes - p->current_bytes);
                uint64_t given = gated(s, p, due);

                now = p->current_bytes - given;
                p->was_refused = given < due;
        }
        s->result.moved_gib += (double)distance(now, p->current_bytes) / GIB;
        p->current_bytes = now;
        if (!grows)
                p->claimed_bytes = now;
        if (now != p->target_bytes && !p->was_refused)
                return false;
        if (p->was_refused)
                s->result.n_refusals++;
        p->is_changing = false;
        p->claimed_bytes = now;
        p->changed_usec = s->now_usec;
        note_change(s, p, p->from_bytes, p->begun_demand_bytes);
        return true;
}

/* --- guests --- */

static void live(struct sim *s, struct sim_partition *p)
{
        switch (p->phase) {
        case SIM_OFF:
                if (s->now_usec < p->trace->start_usec)
                        return;
                p->phase = SIM_WAITING;
                s->waiting_bytes += p->trace->min_bytes;
                __attribute__((fallthrough));
        case SIM_WAITING:
                if (sim_margin_bytes(s) < 0)
                        break;
                s->waiting_bytes -= p->trace->min_bytes;
                p->current_bytes = p->claimed_bytes = p->trace->min_bytes;
                p->phase = SIM_BOOTING;
                p->phase_usec = s->now_usec;
                break;
        case SIM_BOOTING:
                if (s->now_usec - p->phase_usec >= SIM_BOOT_USEC) {
                        p->phase = SIM_RUNNING;
                        p->changed_usec = s->now_usec;
                }
                break;
        case SIM_RUNNING:
                break;
        }
        p->demand_bytes = trace_demand(p->trace, s->now_usec, &p->cursor);
        p->resident_bytes = policy_clamp(p->demand_bytes, p->resident_bytes, p->current_bytes);
        p->resident_bytes = MIN(p->resident_bytes, p->current_bytes);
}

/* A guest that lacks a quarter of what it wants does nothing but wait; one that is at its last 50th begins to
 * reclaim. */
static uint64_t stall_permille(const struct sim_partition *p)
{
        uint64_t available = sim_available_bytes(p), last = p->current_bytes / 50;

        if (p->demand_bytes > p->current_bytes) {
                uint64_t lacks = p->demand_bytes - p->current_bytes;

                return 100 + MIN(lacks * 4000 / p->demand_bytes, UINT64_C(900));
        }
        return available < last ? 60 - available * 60 / last : 0;
}

static void say_honestly(struct sim_partition *p, uint64_t some)
{
        uint64_t lacks = p->demand_bytes - MIN(p->demand_bytes, p->current_bytes);

        p->sample.available_bytes = sim_available_bytes(p);
        p->sample.some_permille = some;
        p->sample.full_permille = some / 2;
        p->sample.refault_bytes_per_sec = MIN(lacks / 4, 128 * MIB);
}

static void say(struct sim *s, struct sim_partition *p, uint64_t some)
{
        switch (p->trace->manner) {
        case TRACE_SILENT:
                return;
        case TRACE_RANDOM:
                p->sample.available_bytes = (uint64_t)sim_random(s) << (sim_random(s) % 20);
                p->sample.some_permille = sim_random(s) % 1200;
                p->sample.full_permille = sim_random(s) % 1200;
                p->sample.refault_bytes_per_sec = (uint64_t)sim_random(s) << (sim_random(s) % 20);
                break;
        case TRACE_DISTRESS:
        case TRACE_FLOOD:
                p->sample = (struct policy_sample) { .some_permille = 1000,
                        .full_permille = 1000,
                        .refault_bytes_per_sec = UINT64_MAX,
                        .swap_in_bytes_per_sec = UINT64_MAX };
                break;
        default:
                say_honestly(p, some);
        }
        policy_sample_bound(&p->sample);
        p->sample.taken_usec = p->pushed_usec = s->now_usec;
        p->stalled_usec = 0;
}

/* True if something came from it in this step: at its rate, or at once by its pressure trigger, which fires
 * at most once in a window. */
static bool report(struct sim *s, struct sim_partition *p, bool changed)
{
        uint64_t some = stall_permille(p), usec;

        if (s->now_usec - p->window_usec >= SIM_PSI_USEC) {
                p->window_usec = s->now_usec;
                p->stall_in_window_usec = 0;
        }
        p->stall_in_window_usec += SIM_TICK_USEC * some / 1000;
        p->stalled_usec += SIM_TICK_USEC * some / 1000;
        usec = s->now_usec - p->pushed_usec;
        if (!changed && usec < SIM_SAMPLE_USEC && p->trace->manner != TRACE_FLOOD &&
                (usec < SIM_PSI_USEC || p->stall_in_window_usec < SIM_PSI_STALL))
                return false;
        say(s, p,
                usec > 0 ? MAX(p->stalled_usec * 1000 / usec,
                                   p->stall_in_window_usec >= SIM_PSI_STALL ? some : 0)
                         : some);
        return true;
}

/* --- accounts --- */

static void account_fairness(struct sim *s)
{
        struct sim_fill *f = &s->fill;
        size_t n = s->n_partitions;

        for (size_t i = 0; i < n; i++) {
                const struct sim_partition *p = &s->partitions[i];

                f->weight[i] = p->trace->weight;
                f->floor[i] = 0;
                f->want[i] = p->phase == SIM_OFF ? 0 : MIN(p->demand_bytes, p->trace->max_bytes);
        }
        policy_fill(
                n, f->weight, f->floor, f->want, s->trace->pool_bytes - s->trace->reserve_bytes, f->share);
        for (size_t i = 0; i < n; i++) {
                struct sim_partition *p = &s->partitions[i];

                p->entitled_gib_sec += (double)f->share[i] / GIB;
                p->served_gib_sec +=
                        (double)policy_clamp(p->demand_bytes, 0, MIN(p->current_bytes, f->share[i])) / GIB;
        }
}

/* What nobody can save: each has its min, and nobody more than its max, whatever is moved and when. */
static double unavoidable(const struct sim *s)
{
        uint64_t room = s->trace->pool_bytes - s->trace->reserve_bytes, above = 0, lost = 0;

        for (size_t i = 0; i < s->n_partitions; i++) {
                const struct sim_partition *p = &s->partitions[i];
                uint64_t most = MIN(p->demand_bytes, p->trace->max_bytes);

                if (p->phase == SIM_OFF)
                        continue;
                room -= MIN(room, p->trace->min_bytes);
                lost += p->demand_bytes - most;
                above += most - MIN(most, p->trace->min_bytes);
        }
        return (double)(lost + (above - MIN(above, room))) / GIB;
}

static void account(struct sim *s)
{
        double sec = (double)SIM_TICK_USEC / USEC_PER_SEC;

        for (size_t i = 0; i < s->n_partitions; i++) {
                struct sim_partition *p = &s->partitions[i];
                double lacks;

                if (p->phase == SIM_OFF)
                        continue;
                s->result.partition_usec += SIM_TICK_USEC;
                lacks = (double)(p->demand_bytes - MIN(p->demand_bytes, p->current_bytes)) / GIB * sec;
                s->result.short_gib_sec += lacks;
                if (s->result.partition_short)
                        s->result.partition_short[i] += lacks;
        }
        s->result.bound_gib_sec += unavoidable(s) * sec;
        if (s->now_usec % FAIRNESS_USEC == 0)
                account_fairness(s);
}

/* Jain's index over what each got of what its weight entitled it to: 1 if all got the same part. */
static double jain(const struct sim *s)
{
        double sum = 0, squares = 0;
        size_t n = 0;

        for (size_t i = 0; i < s->n_partitions; i++) {
                const struct sim_partition *p = &s->partitions[i];
                double x = p->entitled_gib_sec > 0 ? p->served_gib_sec / p->entitled_gib_sec : 0;

                if (p->entitled_gib_sec <= 0)
                        continue;
                sum += x;
                squares += x * x;
                n++;
        }
        return squares > 0 ? sum * sum / ((double)n * squares) : 1;
}

static void run(struct sim *s, const struct sim_policy *policy)
{
        for (; s->now_usec <= s->trace->length_usec; s->now_usec += SIM_TICK_USEC) {
                bool event = false;

                for (size_t i = 0; i < s->n_partitions; i++) {
                        struct sim_partition *p = &s->partitions[i];
                        bool changed = p->is_changing && move(s, p);

                        live(s, p);
                        event = (p->phase == SIM_RUNNING && report(s, p, changed)) || changed || event;
                }
                policy->tick(s, event);
                account(s);
        }
}

int sim_run(const struct trace *t, const struct sim_policy *policy, const struct sim_mechanism *m,
        const struct policy_config *config, uint64_t seed, FILE *explains, struct sim_result *ret)
{
        _cleanup_free_ struct sim_partition *partitions = calloc(t->n_partitions, sizeof(*partitions));
        struct sim s = {
                .explains = explains,
                .trace = t,
                .mechanism = *m,
                .now_usec = SIM_TICK_USEC,
                .partitions = partitions,
                .n_partitions = t->n_partitions,
                .random = seed,
                .config = config,
                .result = { .partition_short = ret->partition_short },
        };

        if (!partitions)
                return -ENOMEM;
        if (policy->uses_balloon) {
                s.mechanism.granule_bytes = MIB;
                s.mechanism.is_gated = false;
        }
        for (size_t i = 0; i < t->n_partitions; i++) {
                partitions[i].trace = &t->partitions[i];
                if (t->partitions[i].start_usec > 0)
                        continue;
                partitions[i].phase = SIM_RUNNING;
                partitions[i].current_bytes = partitions[i].claimed_bytes = t->partitions[i].desired_bytes;
        }
        int r = policy->begin ? policy->begin(&s) : 0;
        if (r < 0)
                return r;
        run(&s, policy);
        if (policy->end)
                policy->end(&s);
        s.result.fairness = jain(&s);
        strncpy(s.result.policy, policy->name, sizeof(s.result.policy) - 1);
        *ret = s.result;
        return 0;
}
