/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One round of decisions. In this order: shares of what there is; growths, as far as memory is free; what
 * others have to give so that the rest can grow in a later round; and then, of what is left in peace, small
 * steps back towards desired and towards a pool with a cushion. Whoever is changed in one step is not looked
 * at by the later ones. */

#include "hvd/policy/internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

struct round {
        const struct policy_input *in;
        size_t n;
        struct policy_view *views;
        int64_t free_bytes;  /* that growths may take; below 0: more is promised than there is */
        uint64_t need_bytes; /* that others shall give */
        uint64_t give_bytes; /* that they will */
        bool is_short;       /* not all can have what they want */
        bool host_presses;
};

/* The arrays of one call: on the heap they could fail, on the stack they are 140 KiB. */
struct scratch {
        struct policy_view views[POLICY_PARTITIONS_MAX];
        unsigned weight[POLICY_PARTITIONS_MAX];
        uint64_t floor[POLICY_PARTITIONS_MAX], want[POLICY_PARTITIONS_MAX], share[POLICY_PARTITIONS_MAX];
        size_t index[POLICY_PARTITIONS_MAX];
};

static bool is_undecided(const struct policy_view *v)
{
        return v->may_change && v->decision->action == POLICY_KEEP;
}

static void decide(struct policy_view *v, enum policy_action action, uint64_t bytes, enum policy_rule cause)
{
        v->decision->action = action;
        v->decision->cause = cause;
        v->decision->target_bytes = v->partition->current_bytes + (action == POLICY_GROW ? bytes : -bytes);
}

/* --- shares --- */

static uint64_t never_below(const struct policy_view *v)
{
        uint64_t stays = v->partition->current_bytes;

        if (v->may_yield || v->partition->is_busy)
                return v->lowest_bytes;
        if (v->may_shrink)
                stays = MIN(stays, v->taxed_bytes);
        return MAX(v->lowest_bytes, stays);
}

static void compute_shares(struct round *r, struct scratch *s)
{
        uint64_t total =
                policy_less(r->in->pool.total_bytes, r->in->pool.reserve_bytes + r->in->pool.reserved_bytes);
        size_t n = 0;

        for (size_t i = 0; i < r->n; i++) {
                struct policy_view *v = &r->views[i];

                v->decision->share_bytes = v->decision->want_bytes;
                if (!v->takes_part) {
                        total = policy_less(total, v->partition->claimed_bytes);
                        continue;
                }
                s->index[n] = i;
                s->weight[n] = v->partition->weight;
                s->floor[n] = never_below(v);
                s->want[n] = MAX(v->decision->want_bytes, s->floor[n]);
                n++;
        }
        r->is_short = policy_fill(n, s->weight, s->floor, s->want, total, s->share);
        if (!r->is_short)
                return;

        /* Idle memory is taxed: first all get what they want less that, and then of what is left up to all.
         */
        for (size_t i = 0; i < n; i++)
                s->want[i] = MAX(s->floor[i], r->views[s->index[i]].taxed_bytes);
        policy_fill(n, s->weight, s->floor, s->want, total, s->share);
        for (size_t i = 0; i < n; i++) {
                s->floor[i] = s->share[i];
                s->want[i] = MAX(r->views[s->index[i]].decision->want_bytes, s->floor[i]);
        }
        policy_fill(n, s->weight, s->floor, s->want, total, s->share);
        for (size_t i = 0; i < n; i++) {
                struct policy_decision *d = r->views[s->index[i]].decision;

                d->share_bytes = MIN(s->share[i], d->want_bytes);
        }
}

/* --- growth --- */

/* Half of the headroom is the hysteresis: it may be used before more is asked for. */
static enum policy_rule growth_cause(const struct policy_view *v)
{
        const struct policy_partition *p = v->partition;
        const struct policy_decision *d = v->decision;

        if (p->claimed_bytes < p->min_bytes)
                return POLICY_RULE_BELOW_MIN;
        if (v->is_in_distress && d->want_bytes > p->claimed_bytes)
                return POLICY_RULE_PRESSURE;
        if (d->used_bytes + d->pressed_bytes + d->headroom_bytes / 2 > p->claimed_bytes)
                return POLICY_RULE_DEMAND;
        return POLICY_RULE_NONE;
}

/* What it was shrunk by is not given back a moment later for the same demand. */
static bool has_same_demand(const struct round *r, const struct policy_view *v)
{
        const struct policy_history *h = v->history;

        if (h->shrunk_usec == 0 || policy_less(r->in->now_usec, h->shrunk_usec) >= r->in->config.quiet_usec)
                return false;
        if (v->is_in_distress && h->shrunk_in_use_bytes == 0)
                return false;
        return v->decision->used_bytes < h->shrunk_used_bytes + v->partition->granule_bytes / 2;
}

static enum policy_rule max_rule(const struct policy_view *v)
{
        return v->partition->has_failed ? POLICY_RULE_FAILED : POLICY_RULE_MAX;
}

/* Where its growth shall end, and what bounds that; its claim if it shall not grow. */
static uint64_t growth_goal(const struct round *r, struct policy_view *v, enum policy_rule *ret_cause)
{
        const struct policy_partition *p = v->partition;
        const struct policy_history *h = v->history;
        struct policy_decision *d = v->decision;
        uint64_t goal = d->share_bytes;

        /* Who says nothing has no demand that could be seen: its min is all that it is sure of here. */
        *ret_cause = v->is_fresh || p->claimed_bytes < p->min_bytes ? growth_cause(v) : POLICY_RULE_NONE;
        if (*ret_cause == POLICY_RULE_NONE) {
                d->bound = v->has_sample && !v->is_fresh ? POLICY_RULE_STALE : POLICY_RULE_ENOUGH;
                return p->claimed_bytes;
        }
        if (*ret_cause == POLICY_RULE_BELOW_MIN)
                goal = MAX(goal, p->min_bytes);
        else if (has_same_demand(r, v)) {
                d->bound = POLICY_RULE_HYSTERESIS;
                return p->claimed_bytes;
        } else if (h->n_refusals > 0 && goal > MAX(d->weight_bytes, p->claimed_bytes)) {
                d->bound = POLICY_RULE_DEBT;
                goal = MAX(d->weight_bytes, p->claimed_bytes);
        }
        if (goal < d->want_bytes && d->bound == POLICY_RULE_NONE)
                d->bound = POLICY_RULE_SHARE;
        else if (d->used_bytes + d->pressed_bytes + d->headroom_bytes > d->want_bytes &&
                 d->bound == POLICY_RULE_NONE)
                d->bound = max_rule(v);
        return goal;
}

/* Whole granules from what it has: up to the goal and a little more, if max and the pool allow. */
static uint64_t growth_granules(const struct policy_view *v, uint64_t goal)
{
        const struct policy_partition *p = v->partition;
        uint64_t bytes = policy_less(goal, p->claimed_bytes);
        uint64_t room = policy_less(v->highest_bytes, p->claimed_bytes);

        bytes = (bytes + p->granule_bytes - 1) / p->granule_bytes * p->granule_bytes;
        if (bytes > room)
                bytes = room / p->granule_bytes * p->granule_bytes;
        return bytes;
}

/* What is free is shared like the pool: up to one level per weight. `mode`: those that will do what is
 * decided come first, so that those that only observe take nothing from them. */
static void grant(struct round *r, struct scratch *s, enum policy_mode mode)
{
        enum policy_rule causes[POLICY_PARTITIONS_MAX];
        uint64_t claims = 0, free_bytes = r->free_bytes > 0 ? r->free_bytes : 0;
        size_t n = 0;

        for (size_t i = 0; i < r->n; i++) {
                struct policy_view *v = &r->views[i];
                uint64_t goal, bytes;

                if (v->partition->mode != mode || !is_undecided(v))
                        continue;
                goal = growth_goal(r, v, &causes[n]);
                bytes = growth_granules(v, goal);
                if (causes[n] == POLICY_RULE_NONE || bytes == 0) {
                        v->decision->cause = causes[n];
                        if (v->decision->bound == POLICY_RULE_NONE)
                                v->decision->bound = max_rule(v);
                        continue;
                }
                s->index[n] = i;
                s->weight[n] = v->partition->weight;
                s->floor[n] = v->partition->claimed_bytes;
                s->want[n] = v->partition->claimed_bytes + bytes;
                claims += v->partition->claimed_bytes;
                n++;
        }
        policy_fill(n, s->weight, s->floor, s->want, claims + free_bytes, s->share);
        for (size_t i = 0; i < n; i++) {
                struct policy_view *v = &r->views[s->index[i]];
                uint64_t granule = v->partition->granule_bytes, asked = s->want[i] - s->floor[i];
                uint64_t bytes = (s->share[i] - s->floor[i]) / granule * granule;

                bytes = MIN(bytes, free_bytes / granule * granule);
                free_bytes -= bytes;
                r->free_bytes -= (int64_t)bytes;
                r->need_bytes += asked - bytes;
                s->share[i] = bytes;
        }
        /* What whole granules left over. */
        for (size_t i = 0; i < n; i++) {
                struct policy_view *v = &r->views[s->index[i]];
                uint64_t granule = v->partition->granule_bytes, asked = s->want[i] - s->floor[i];

                if (s->share[i] < asked && free_bytes >= granule) {
                        s->share[i] += granule;
                        free_bytes -= granule;
                        r->free_bytes -= (int64_t)granule;
                        r->need_bytes -= MIN(r->need_bytes, granule);
                }
                if (s->share[i] < asked)
                        v->decision->bound = POLICY_RULE_FREE_FIRST;
                if (s->share[i] > 0)
                        decide(v, POLICY_GROW, s->share[i], causes[i]);
                else
                        v->decision->cause = causes[i];
        }
}

/* --- shrinking --- */

static enum policy_rule shrink_obstacle(const struct policy_view *v)
{
        if (!v->is_fresh)
                return POLICY_RULE_STALE;
        if (!v->may_shrink)
                return POLICY_RULE_REFUSED;
        return v->may_yield || v->decision->share_bytes >= v->taxed_bytes ? POLICY_RULE_NONE
                                                                          : POLICY_RULE_IN_USE;
}

/* Whole granules above `keep`, of those that may leave. */
static uint64_t spare_granules(const struct policy_view *v, uint64_t keep)
{
        const struct policy_partition *p = v->partition;
        uint64_t bytes = policy_less(p->current_bytes, MAX(keep, v->lowest_bytes));

        if (p->sample.has_removable)
                bytes = MIN(bytes, p->sample.removable_bytes);
        return bytes / p->granule_bytes * p->granule_bytes;
}

/* Why it spares no more than that. */
static enum policy_rule spare_bound(const struct policy_view *v, uint64_t keep)
{
        const struct policy_partition *p = v->partition;
        uint64_t bytes = policy_less(p->current_bytes, MAX(keep, v->lowest_bytes));

        if (p->sample.has_removable && p->sample.removable_bytes < bytes)
                return p->has_no_size ? POLICY_RULE_NO_SIZE : POLICY_RULE_CHEAP;
        return v->lowest_bytes >= keep ? POLICY_RULE_MIN : POLICY_RULE_SHARE;
}

struct donor {
        size_t index;
        uint64_t spare_bytes;
        uint64_t per_weight;
};

static int compare_donors(const void *a, const void *b)
{
        const struct donor *x = a, *y = b;

        if (x->per_weight != y->per_weight)
                return x->per_weight < y->per_weight ? 1 : -1;
        return x->index < y->index ? -1 : x->index > y->index;
}

enum keep {
        KEEP_HELD,  /* what it wanted in its last quiet times */
        KEEP_USED,  /* what it may have, and all that it has in use */
        KEEP_SHARE, /* what it may have */
        KEEP_TAXED, /* what it wants, less the tax */
};

static uint64_t kept_bytes(const struct policy_view *v, enum keep keep)
{
        switch (keep) {
        case KEEP_HELD:
                return v->held_bytes;
        case KEEP_USED:
                return MAX(v->taxed_bytes, v->decision->share_bytes);
        case KEEP_SHARE:
                return v->decision->share_bytes;
        default:
                return MIN(v->taxed_bytes, v->decision->share_bytes);
        }
}

/* Takes what is needed of those that have the most to spare for their weight. */
static void take(struct round *r, enum policy_mode mode, enum keep keep, enum policy_rule cause)
{
        struct donor donors[POLICY_PARTITIONS_MAX];
        size_t n = 0;

        for (size_t i = 0; i < r->n; i++) {
                const struct policy_view *v = &r->views[i];
                uint64_t spare;

                if (v->partition->mode != mode || !is_undecided(v) || !v->may_shrink)
                        continue;
                if (kept_bytes(v, keep) < v->taxed_bytes && !v->may_yield)
                        continue;
                spare = spare_granules(v, kept_bytes(v, keep));
                if (spare > 0)
                        donors[n++] = (struct donor) { i, spare, spare / v->partition->weight };
        }
        qsort(donors, n, sizeof(donors[0]), compare_donors);
        for (size_t i = 0; i < n && r->give_bytes < r->need_bytes; i++) {
                struct policy_view *v = &r->views[donors[i].index];
                uint64_t granule = v->partition->granule_bytes;
                uint64_t bytes = (r->need_bytes - r->give_bytes + granule - 1) / granule * granule;

                bytes = MIN(bytes, donors[i].spare_bytes);
                decide(v, POLICY_SHRINK, bytes, cause);
                v->decision->bound = bytes < donors[i].spare_bytes ? POLICY_RULE_NONE
                                                                   : spare_bound(v, kept_bytes(v, keep));
                r->give_bytes += bytes;
        }
}

static void take_for_need(struct round *r, enum policy_mode mode)
{
        enum policy_rule cause = r->host_presses ? POLICY_RULE_HOST_PRESSURE
                                 : r->is_short   ? POLICY_RULE_ABOVE_SHARE
                                                 : POLICY_RULE_OTHERS_NEED;

        take(r, mode, KEEP_HELD, cause == POLICY_RULE_ABOVE_SHARE ? POLICY_RULE_OTHERS_NEED : cause);
        take(r, mode, KEEP_USED, cause);
        take(r, mode, KEEP_SHARE, cause);
        if (r->host_presses)
                take(r, mode, KEEP_TAXED, cause);
}

/* --- in peace --- */

static bool is_quiet(const struct round *r, const struct policy_view *v)
{
        const struct policy_config *c = &r->in->config;
        const struct policy_history *h = v->history;

        return policy_less(r->in->now_usec, h->grown_usec) >= c->quiet_usec &&
               (h->asked_usec == 0 || policy_less(r->in->now_usec, h->asked_usec) >= c->step_usec);
}

/* A quarter of what it has too much, so that a large burst's memory and a small one's leave in the same time;
 * not the last granule of it, which is the hysteresis. */
static void step_back(
        struct round *r, struct policy_view *v, uint64_t keep, uint64_t most, enum policy_rule cause)
{
        uint64_t granule = v->partition->granule_bytes;
        uint64_t spare = policy_less(spare_granules(v, keep), granule);
        uint64_t bytes = policy_clamp(spare / 4 / granule * granule, MIN(granule, spare), spare);

        bytes = MIN(bytes, (most + granule - 1) / granule * granule);
        if (bytes == 0)
                return;
        if (!is_quiet(r, v)) {
                v->decision->bound = POLICY_RULE_QUIET;
                return;
        }
        decide(v, POLICY_SHRINK, bytes, cause);
        v->decision->bound = bytes < spare ? POLICY_RULE_STEP : POLICY_RULE_NONE;
        r->give_bytes += bytes;
}

static void flow_back(struct round *r)
{
        uint64_t cushion = policy_scale(r->in->pool.total_bytes, r->in->config.cushion_permille, 1000);
        int64_t rest;

        for (size_t i = 0; i < r->n; i++) {
                struct policy_view *v = &r->views[i];

                if (!is_undecided(v) || !v->may_shrink || v->is_in_distress)
                        continue;
                if (v->partition->desired_bytes > 0)
                        step_back(r, v, MAX(v->held_bytes, v->partition->desired_bytes), POLICY_BYTES_MAX,
                                POLICY_RULE_IDLE);
                rest = (int64_t)cushion - r->free_bytes - (int64_t)policy_less(r->give_bytes, r->need_bytes);
                if (is_undecided(v) && rest > 0)
                        step_back(r, v, v->held_bytes, rest, POLICY_RULE_CUSHION);
        }
}

/* To desired, or without a sample to the equal ratio but to no more than its weight's part: of what the pool
 * has beyond its cushion, a step at a time. */
static void grow_in_plenty(struct round *r)
{
        const struct policy_config *c = &r->in->config;
        uint64_t cushion = policy_scale(r->in->pool.total_bytes, c->cushion_permille, 1000);

        for (size_t i = 0; i < r->n; i++) {
                struct policy_view *v = &r->views[i];
                const struct policy_partition *p = v->partition;
                uint64_t goal = p->desired_bytes, bytes;
                enum policy_rule cause = POLICY_RULE_DESIRED;

                if (!is_undecided(v) || r->need_bytes > 0 || (v->has_sample && !v->is_fresh))
                        continue;
                if (!v->has_sample) {
                        goal = MIN(policy_equal_ratio(r->in, i), v->decision->weight_bytes);
                        cause = POLICY_RULE_EQUAL_RATIO;
                }
                if (v->history->n_refusals > 0 || goal < p->claimed_bytes + p->granule_bytes)
                        continue;
                if (policy_less(r->in->now_usec, MAX(v->history->asked_usec, v->history->grown_usec)) <
                        c->quiet_usec)
                        continue;
                bytes = (goal - p->claimed_bytes) / p->granule_bytes * p->granule_bytes;
                if (r->free_bytes < (int64_t)(cushion + p->granule_bytes))
                        continue;
                bytes = MIN(bytes,
                        (uint64_t)(r->free_bytes - (int64_t)cushion) / p->granule_bytes * p->granule_bytes);
                bytes = MIN(bytes, policy_less(v->highest_bytes, p->claimed_bytes) / p->granule_bytes *
                                           p->granule_bytes);
                if (bytes == 0)
                        continue;
                decide(v, POLICY_GROW, bytes, cause);
                v->decision->bound = POLICY_RULE_NONE;
                r->free_bytes -= (int64_t)bytes;
        }
}

/* --- the round --- */

static void say_why_not(struct round *r)
{
        for (size_t i = 0; i < r->n; i++) {
                const struct policy_view *v = &r->views[i];
                const struct policy_partition *p = v->partition;
                struct policy_decision *d = v->decision;

                if (p->mode == POLICY_MODE_OFF)
                        d->bound = POLICY_RULE_MODE;
                else if (p->state != POLICY_RUNNING)
                        d->bound = POLICY_RULE_STATE;
                else if (p->is_busy)
                        d->bound = POLICY_RULE_BUSY;
                else if (d->action == POLICY_KEEP && d->bound == POLICY_RULE_FREE_FIRST && r->give_bytes == 0)
                        d->bound = POLICY_RULE_POOL;
                else if (d->action == POLICY_KEEP && d->bound == POLICY_RULE_ENOUGH &&
                         d->share_bytes + p->granule_bytes <= p->current_bytes &&
                         shrink_obstacle(v) != POLICY_RULE_NONE)
                        d->bound = shrink_obstacle(v);
        }
}

static void remember(struct round *r)
{
        for (size_t i = 0; i < r->n; i++) {
                const struct policy_view *v = &r->views[i];

                if (v->decision->action == POLICY_GROW)
                        v->history->grown_usec = r->in->now_usec;
                if (v->decision->action == POLICY_SHRINK) {
                        v->history->asked_usec = r->in->now_usec;
                        v->history->asked_used_bytes = v->decision->used_bytes;
                        v->history->asked_in_use_bytes =
                                policy_less(v->taxed_bytes, v->decision->target_bytes);
                        v->history->asked_taxed_bytes = v->taxed_bytes;
                        v->history->asked_least_bytes = v->may_yield ? 0 : v->taxed_bytes;
                }
        }
}

void policy_decide(
        const struct policy_input *in, struct policy_decision *ret, struct policy_history *ret_history)
{
        struct scratch s;
        struct round r = {
                .in = in,
                .n = MIN(in->n_partitions, (size_t)POLICY_PARTITIONS_MAX),
                .views = s.views,
                .host_presses = in->pool.host_some_permille >= in->config.host_pressure_permille,
        };
        uint64_t taken = in->pool.reserve_bytes + in->pool.reserved_bytes;

        memset(ret, 0, r.n * sizeof(ret[0])); /* its gaps too, so that decisions can be compared */
        for (size_t i = 0; i < r.n; i++) {
                ret_history[i] = in->history[i];
                ret[i].target_bytes = in->partitions[i].current_bytes;
                s.views[i] = (struct policy_view) {
                        .partition = &in->partitions[i],
                        .history = &ret_history[i],
                        .decision = &ret[i],
                };
                taken += in->partitions[i].claimed_bytes;
                r.give_bytes += in->partitions[i].leaving_bytes;
        }
        policy_view_all(in, s.views);
        compute_shares(&r, &s);

        r.free_bytes = (int64_t)in->pool.total_bytes - (int64_t)taken;
        if (r.free_bytes < 0)
                r.need_bytes = (uint64_t)-r.free_bytes;
        if (r.host_presses) {
                r.need_bytes += policy_scale(in->pool.total_bytes, in->config.host_relief_permille, 1000);
                r.free_bytes = MIN(r.free_bytes, (int64_t)0);
        }
        grant(&r, &s, POLICY_MODE_AUTO);
        take_for_need(&r, POLICY_MODE_AUTO);
        grant(&r, &s, POLICY_MODE_OBSERVE);
        take_for_need(&r, POLICY_MODE_OBSERVE);
        flow_back(&r);
        grow_in_plenty(&r);
        say_why_not(&r);
        remember(&r);
}
