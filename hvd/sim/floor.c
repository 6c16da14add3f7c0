/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* How much anyone must move, whoever knows all before and moves in no time: a bound from below, by Lagrange's
 * relaxation. What is short costs `shortage` a GiB-second above what is allowed, and the pool, where its
 * guests together want much of it, `rent` a GiB-second; both prices may be any, each gives a true bound, and
 * the best of some is taken. With prices instead of a pool no guest minds another, nor one GiB of a guest the
 * next: each slice of it is either there or not at each moment, and the cheapest such course is found by
 * going through them once.
 *
 * A slice counts as wanted where all of it is, and what a policy does is looked at only each STEP_USEC, with
 * the first look at any tick of the clock: from one of these on it leaves no more short than it does on
 * average, so the least bound of them all holds. */

#include "hvd/sim/floor.h"

#include <errno.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/sim/sim.h"

#define STEP_USEC  (10 * USEC_PER_SEC)
#define STEP_TICKS (STEP_USEC / SIM_TICK_USEC)

struct prices {
        double shortage, rent; /* GiB moved, for a GiB-second */
        double from_gib;       /* what guests want above their min, from which on there is a rent */
};

struct course {
        const struct trace *trace;
        size_t n_steps;
        double *demand_gib; /* of a partition, of each step; one after the other */
        double *total_gib;  /* of all, above min and up to max */
        double room_gib;    /* of the pool, beside every min that is held from the beginning */
};

static void watch(struct course *c, uint64_t offset_usec)
{
        for (size_t k = 0; k < c->n_steps; k++)
                c->total_gib[k] = 0;
        for (size_t i = 0; i < c->trace->n_partitions; i++) {
                const struct trace_partition *p = &c->trace->partitions[i];
                size_t cursor = 0;

                for (size_t k = 0; k < c->n_steps; k++) {
                        uint64_t usec = offset_usec + k * STEP_USEC;
                        uint64_t bytes = usec < p->start_usec ? 0 : trace_demand(p, usec, &cursor);
                        uint64_t above = MIN(bytes, p->max_bytes);

                        c->demand_gib[i * c->n_steps + k] = (double)bytes / GIB;
                        c->total_gib[k] += (double)(above - MIN(above, p->min_bytes)) / GIB;
                }
        }
}

/* The least cost of a slice whose top is at top_gib, for a GiB of it. */
static double slice_cost(const struct course *c, const struct prices *x, size_t i, double on, double off,
        size_t first, double top_gib)
{
        const double *demand = c->demand_gib + i * c->n_steps;
        double sec = (double)STEP_USEC / USEC_PER_SEC;

        for (size_t k = first; k < c->n_steps; k++) {
                double comes = MIN(on, off + 1), leaves = MIN(off, on + 1);

                on = comes + (c->total_gib[k] >= x->from_gib ? x->rent * sec : 0);
                off = leaves + (demand[k] >= top_gib ? x->shortage * sec : 0);
        }
        return MIN(on, off);
}

static double bound(
        const struct course *c, const struct prices *x, uint64_t slice_bytes, double short_gib_sec)
{
        double cost = 0, rented_sec = 0;

        for (size_t k = 0; k < c->n_steps; k++)
                if (c->total_gib[k] >= x->from_gib)
                        rented_sec += (double)STEP_USEC / USEC_PER_SEC;
        for (size_t i = 0; i < c->trace->n_partitions; i++) {
                const struct trace_partition *p = &c->trace->partitions[i];
                uint64_t has = p->start_usec > 0 ? p->min_bytes : p->desired_bytes;
                size_t first = (p->start_usec + STEP_USEC - 1) / STEP_USEC;

                for (uint64_t h = p->min_bytes; h + slice_bytes <= p->max_bytes; h += slice_bytes) {
                        double on = h < has ? 0 : 1, off = h + slice_bytes > has ? 0 : 1;

                        cost += slice_cost(c, x, i, on, off, first, (double)(h + slice_bytes) / GIB) *
                                (double)slice_bytes / GIB;
                }
        }
        return cost - x->shortage * short_gib_sec - x->rent * rented_sec * c->room_gib;
}

/* In large slices, and at one offset: good enough to compare prices by. */
static struct prices find_prices(const struct course *c, double short_gib_sec)
{
        struct prices best = { 0 };
        double most = 0;

        for (double from = 0; from <= 1.01; from += 0.2)
                for (double shortage_sec = 10; shortage_sec < 3000; shortage_sec *= 1.8)
                        for (double rent_sec = 10; rent_sec < 30000; rent_sec *= 2.2) {
                                struct prices x = { 1 / shortage_sec, 1 / rent_sec, from * c->room_gib };
                                double moved = bound(c, &x, 256 * MIB, short_gib_sec);

                                if (moved > most) {
                                        most = moved;
                                        best = x;
                                }
                        }
        return best;
}

int sim_least_moved(const struct trace *t, double short_gib_sec, double *ret_gib)
{
        size_t n_steps = t->length_usec / STEP_USEC;
        _cleanup_free_ double *demand = calloc(n_steps * t->n_partitions + 1, sizeof(double));
        _cleanup_free_ double *total = calloc(n_steps + 1, sizeof(double));
        struct course c = {
                .trace = t,
                .n_steps = n_steps,
                .demand_gib = demand,
                .total_gib = total,
                .room_gib = (double)(t->pool_bytes - t->reserve_bytes) / GIB,
        };
        double least;

        if (!demand || !total)
                return -ENOMEM;
        for (size_t i = 0; i < t->n_partitions; i++)
                if (t->partitions[i].start_usec == 0)
                        c.room_gib -= (double)t->partitions[i].min_bytes / GIB;
        watch(&c, SIM_TICK_USEC);
        struct prices x = find_prices(&c, short_gib_sec);
        least = bound(&c, &x, 64 * MIB, short_gib_sec);
        for (uint64_t k = 2; k <= STEP_TICKS; k++) {
                watch(&c, k * SIM_TICK_USEC);
                double moved = bound(&c, &x, 64 * MIB, short_gib_sec);
                least = MIN(least, moved);
        }
        *ret_gib = MAX(least, 0.0);
        return 0;
}
