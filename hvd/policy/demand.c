/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a partition wants: what it uses, what it will by all signs use in a moment, and headroom beside that.
 * Of the file pages that a kernel counts as available, those of a guest that stalls as it reads them again
 * and again are in use.
 *
 * All of this rests on a guest's word. It is bounded from three sides: nobody uses more than the host gave
 * it, nor more than the host saw it touch; distress beside plenty of available memory is no distress for
 * memory; and whatever is added for distress is a part of what the guest has, so that it can grow only step
 * by step and in proportion. What wants earn is decided by weight (share.c). */

#include "hvd/policy/internal.h"

#include "common/cleanup.h"
#include "common/size.h"

static uint64_t usec_since(uint64_t now, uint64_t then)
{
        return policy_less(now, then);
}

/* A sample that came while memory was moving describes a guest that is no more. */
static bool sample_counts(const struct policy_input *in, const struct policy_partition *p)
{
        return p->sample.taken_usec > 0 && p->sample.taken_usec <= in->now_usec &&
               p->sample.taken_usec >= p->changed_usec && !p->is_busy;
}

static void take_sample(const struct policy_input *in, struct policy_view *v)
{
        const struct policy_partition *p = v->partition;
        struct policy_history *h = v->history;
        uint64_t used = p->current_bytes - MIN(p->sample.available_bytes, p->current_bytes);

        if (p->has_resident)
                used = MIN(used, p->resident_bytes);
        if (h->used_usec == 0)
                h->grown_usec = in->now_usec; /* what is new here gets its time, too */
        else if (p->sample.taken_usec > h->used_usec) {
                uint64_t usec = MAX(p->sample.taken_usec - h->used_usec, 100 * USEC_PER_MSEC);

                h->rise_bytes_per_sec = policy_scale(policy_less(used, h->used_bytes), USEC_PER_SEC, usec);
        }
        h->used_bytes = used;
        h->used_usec = p->sample.taken_usec;
}

static bool is_touched(const struct policy_partition *p, uint64_t headroom)
{
        return !p->has_resident || p->resident_bytes + headroom > p->current_bytes;
}

static uint64_t stalled_permille(const struct policy_partition *p)
{
        return policy_clamp(p->sample.some_permille, MIN(p->sample.full_permille, UINT64_C(1000)), 1000);
}

/* Within the horizon as much as its headroom: its cache does not hold what it works on. */
static bool is_rereading(const struct policy_input *in, const struct policy_view *v, uint64_t headroom)
{
        const struct policy_partition *p = v->partition;
        uint64_t refaults = MIN(p->sample.refault_bytes_per_sec, POLICY_BYTES_MAX);

        return v->is_fresh && stalled_permille(p) >= in->config.pressure_permille &&
               is_touched(p, headroom) &&
               policy_scale(refaults, in->config.horizon_usec, USEC_PER_SEC) >= headroom;
}

static bool has_distress(
        const struct policy_input *in, const struct policy_view *v, uint64_t some_permille, uint64_t headroom)
{
        const struct policy_partition *p = v->partition;

        if (v->decision->cache_bytes > 0)
                return true;
        return some_permille >= in->config.pressure_permille && p->sample.available_bytes < headroom &&
               is_touched(p, headroom);
}

static uint64_t pressed_bytes(const struct policy_input *in, struct policy_view *v, uint64_t headroom)
{
        const struct policy_partition *p = v->partition;
        uint64_t some = stalled_permille(p), bytes, reread, push;

        if (!v->is_fresh)
                return 0;
        bytes = MIN(policy_scale(v->history->rise_bytes_per_sec, in->config.horizon_usec, USEC_PER_SEC),
                p->current_bytes / 2);
        if (!has_distress(in, v, some, headroom))
                return bytes;
        v->is_in_distress = true;
        reread = policy_scale(MIN(p->sample.refault_bytes_per_sec, POLICY_BYTES_MAX) +
                                      MIN(p->sample.swap_in_bytes_per_sec, POLICY_BYTES_MAX),
                in->config.horizon_usec, USEC_PER_SEC);
        push = MAX(p->granule_bytes, policy_scale(p->current_bytes, some, 2000)) +
               MIN(reread, p->current_bytes / 4);
        return MAX(bytes, push);
}

static void hold_peak(const struct policy_input *in, struct policy_history *h, uint64_t want)
{
        uint64_t age = usec_since(in->now_usec, h->held_usec);

        if (h->held_usec == 0 || age >= 2 * in->config.quiet_usec) {
                h->held_bytes[1] = h->held_usec == 0 ? 0 : want;
                h->held_bytes[0] = want;
                h->held_usec = in->now_usec;
        } else if (age >= in->config.quiet_usec) {
                h->held_bytes[1] = h->held_bytes[0];
                h->held_bytes[0] = want;
                h->held_usec = in->now_usec;
        } else
                h->held_bytes[0] = MAX(h->held_bytes[0], want);
}

static uint64_t refusal_pause(const struct policy_config *c, uint64_t n_refusals)
{
        uint64_t usec = c->refusal_usec;

        for (uint64_t i = 1; i < n_refusals && usec < c->refusal_max_usec; i++)
                usec *= 2;
        return policy_clamp(usec, c->refusal_usec, c->refusal_max_usec);
}

static bool is_pause(const struct policy_input *in, uint64_t n_refusals, uint64_t refused_usec)
{
        return n_refusals > 0 &&
               usec_since(in->now_usec, refused_usec) < refusal_pause(&in->config, n_refusals);
}

static void view_rights(const struct policy_input *in, struct policy_view *v)
{
        const struct policy_partition *p = v->partition;
        const struct policy_history *h = v->history;

        v->is_fresh = sample_counts(in, p) &&
                      usec_since(in->now_usec, p->sample.taken_usec) <= in->config.fresh_usec;
        v->has_sample = h->used_usec > 0;
        v->takes_part = p->mode != POLICY_MODE_OFF && p->state == POLICY_RUNNING && v->has_sample &&
                        (v->is_fresh || p->is_busy ||
                                usec_since(in->now_usec, h->used_usec) <= in->config.fresh_usec);
        v->may_change = p->mode != POLICY_MODE_OFF && p->state == POLICY_RUNNING && !p->is_busy;
        v->may_shrink = v->may_change && v->is_fresh && !is_pause(in, h->n_refusals, h->refused_usec);
        v->may_yield = v->may_shrink && !is_pause(in, h->n_denials, h->denied_usec);
}

/* It needed by its own word what it was asked for, when it was asked: between a sample and the answer to what
 * was decided on it a burst may come. Only the first sample since then says so. */
static void judge_refusal(struct policy_view *v, uint64_t seen_usec)
{
        const struct policy_partition *p = v->partition;
        struct policy_history *h = v->history;

        if (h->n_refusals == 0 || seen_usec >= h->refused_usec || h->used_usec < h->refused_usec ||
                v->taxed_bytes + p->granule_bytes <= p->current_bytes)
                return;
        h->n_refusals--;
        h->n_denials++;
        h->denied_usec = h->refused_usec;
}

/* Who asks for no more than its weight's part keeps the least headroom of all whatever others claim. */
static uint64_t taxed_headroom(const struct policy_input *in, const struct policy_decision *d)
{
        uint64_t bytes = policy_scale(d->headroom_bytes, 1000 - in->config.idle_tax_permille, 1000);

        if (d->want_bytes > d->weight_bytes)
                return bytes;
        return MAX(bytes, in->config.headroom_min_bytes);
}

static uint64_t headroom_beside(const struct policy_input *in, uint64_t used)
{
        return MAX(policy_scale(used, in->config.headroom_permille, 1000), in->config.headroom_min_bytes);
}

static void view_use(const struct policy_input *in, struct policy_view *v)
{
        const struct policy_partition *p = v->partition;
        struct policy_decision *d = v->decision;
        uint64_t all = MIN(p->current_bytes, p->claimed_bytes);

        d->used_bytes = v->has_sample ? MIN(v->history->used_bytes, p->claimed_bytes) : p->current_bytes;
        if (is_rereading(in, v, headroom_beside(in, d->used_bytes))) {
                d->cache_bytes = policy_less(all, d->used_bytes);
                d->used_bytes += d->cache_bytes;
        }
        d->headroom_bytes = headroom_beside(in, d->used_bytes);
}

static void view_one(const struct policy_input *in, struct policy_view *v)
{
        const struct policy_partition *p = v->partition;
        struct policy_decision *d = v->decision;
        uint64_t low, seen_usec = v->history->used_usec;

        if (sample_counts(in, p) && p->state == POLICY_RUNNING && p->mode != POLICY_MODE_OFF)
                take_sample(in, v);
        view_rights(in, v);

        v->highest_bytes = p->max_bytes > 0 ? p->max_bytes : MAX(p->current_bytes, p->desired_bytes);
        low = MAX(p->min_bytes, p->floor_bytes);
        v->lowest_bytes = policy_clamp(low, p->min_bytes, p->current_bytes);

        view_use(in, v);
        d->pressed_bytes = pressed_bytes(in, v, d->headroom_bytes);
        d->want_bytes = policy_clamp(d->used_bytes + d->pressed_bytes + d->headroom_bytes, p->min_bytes,
                MAX(v->highest_bytes, p->min_bytes));
        v->taxed_bytes = policy_clamp(
                d->used_bytes + d->pressed_bytes + taxed_headroom(in, d), p->min_bytes, d->want_bytes);
        judge_refusal(v, seen_usec);
        if (v->is_fresh)
                hold_peak(in, v->history, d->want_bytes);
        v->held_bytes = MAX(v->history->held_bytes[0], v->history->held_bytes[1]);
        v->held_bytes = MAX(v->held_bytes, d->want_bytes);
}

void policy_view_all(const struct policy_input *in, struct policy_view *views)
{
        uint64_t usable = policy_less(in->pool.total_bytes, in->pool.reserve_bytes), weights = 0;

        for (size_t i = 0; i < in->n_partitions; i++)
                weights += in->partitions[i].weight;
        for (size_t i = 0; i < in->n_partitions; i++) {
                views[i].decision->weight_bytes =
                        policy_scale(usable, in->partitions[i].weight, MAX(weights, UINT64_C(1)));
                view_one(in, &views[i]);
        }
}

void policy_sample_bound(struct policy_sample *s)
{
        s->available_bytes = MIN(s->available_bytes, POLICY_BYTES_MAX);
        s->some_permille = MIN(s->some_permille, UINT64_C(1000));
        s->full_permille = MIN(s->full_permille, UINT64_C(1000));
        s->refault_bytes_per_sec = MIN(s->refault_bytes_per_sec, POLICY_BYTES_MAX);
        s->swap_in_bytes_per_sec = MIN(s->swap_in_bytes_per_sec, POLICY_BYTES_MAX);
        s->removable_bytes = MIN(s->removable_bytes, POLICY_BYTES_MAX);
}

void policy_history_gave(struct policy_history *h)
{
        h->n_refusals = 0;
        h->n_denials = 0;
        h->shrunk_usec = h->asked_usec;
        h->shrunk_used_bytes = h->asked_used_bytes;
        h->shrunk_in_use_bytes = h->asked_in_use_bytes;
}

void policy_history_refused(struct policy_history *h, uint64_t now_usec)
{
        if (h->asked_in_use_bytes > 0) {
                h->n_denials++;
                h->denied_usec = now_usec;
                return;
        }
        h->n_refusals++;
        h->refused_usec = now_usec;
}
