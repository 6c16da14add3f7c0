/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A guest's counters into rates, and its words into their bounds. The base of the rates moves on once it is
 * half a second old: with pushes a moment apart the figures would else be of that moment alone. */

#include "hvd/sample.h"

#include "common/cleanup.h"
#include "common/size.h"

#define RATE_MIN_USEC (100 * USEC_PER_MSEC)
#define BASE_MIN_USEC (500 * USEC_PER_MSEC)

/* Counters go on from 0 at their end; one that went back is as wrong as a high one, and as harmless. */
static uint64_t advance(uint64_t now, uint64_t before)
{
        return (now - before) & (PROTO_COUNTER_END - 1);
}

static uint64_t rate(uint64_t now, uint64_t before, uint64_t per, uint64_t usec)
{
        return (uint64_t)((unsigned __int128)advance(now, before) * per / usec);
}

static void take_rates(struct sample_track *t, const struct guest_sample *s, uint64_t usec)
{
        const struct guest_sample *b = &t->base;
        struct policy_sample *r = &t->rates;

        r->refault_bytes_per_sec = rate(s->refault_file_bytes, b->refault_file_bytes, USEC_PER_SEC, usec);
        r->swap_in_bytes_per_sec = rate(s->swap_in_bytes, b->swap_in_bytes, USEC_PER_SEC, usec);
        r->some_permille = r->full_permille = 0;
        if (s->has_pressure && b->has_pressure) {
                r->some_permille = rate(s->some_total_usec, b->some_total_usec, 1000, usec);
                r->full_permille = rate(s->full_total_usec, b->full_total_usec, 1000, usec);
        }
}

/* What could leave without much being moved: what is free in Movable, or cache that was not used lately; and
 * never so much that too little stays available. */
static uint64_t removable_bytes(const struct guest_sample *s, const struct sample_host *h)
{
        uint64_t margin = MAX(s->margin_bytes, margin_of(h->current_bytes));
        uint64_t cheap = s->movable_free_bytes + s->movable_cache_bytes; /* each below 2^52 */
        uint64_t spare = s->available_bytes - MIN(margin, s->available_bytes);

        uint64_t most = MIN(s->movable_bytes, h->dimm_bytes);

        most = MIN(most, spare);
        return MIN(most, cheap);
}

void sample_take(struct sample_track *t, const struct guest_sample *s, const struct sample_host *h,
        uint64_t now_usec, struct policy_sample *ret)
{
        uint64_t age = t->has_base && now_usec > t->base_usec ? now_usec - t->base_usec : 0;

        if (age >= RATE_MIN_USEC)
                take_rates(t, s, age);
        else if (!t->has_base && s->has_pressure) {
                t->rates.some_permille = s->some_avg10_centi / 10;
                t->rates.full_permille = s->full_avg10_centi / 10;
        }
        if (!t->has_base || age >= BASE_MIN_USEC) {
                t->has_base = true;
                t->base = *s;
                t->base_usec = now_usec;
        }

        struct policy_sample p = t->rates;
        if (s->cause == SAMPLE_PRESSURE && h->sampling.window_msec > 0)
                p.some_permille =
                        MAX(p.some_permille, h->sampling.stall_msec * 1000 / h->sampling.window_msec);
        p.taken_usec = now_usec;
        p.available_bytes = MIN(s->available_bytes, h->current_bytes);
        p.has_removable = h->has_dimms_only;
        p.removable_bytes = h->has_dimms_only ? removable_bytes(s, h) : 0;
        policy_sample_bound(&p);
        *ret = p;
}
