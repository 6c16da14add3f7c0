/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What others do, written anew from what is published of their rules, for comparison. Where a rule says
 * nothing they get the better of two readings: memory that is free for page cache counts as theirs to give,
 * their balloons move as fast as DIMMs do here, and the simulated host never swaps for what they promise
 * beyond the pool, it refuses. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/policy/internal.h"
#include "hvd/sim/sim.h"

static bool is_due(const struct sim *s, uint64_t usec)
{
        return s->now_usec % usec == 0;
}

static double between(double value, double low, double high)
{
        return value < low ? low : value > high ? high : value;
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
        return value < low ? low : value > high ? high : value;
}

/* --- oVirt MOM: doc/balloon.rules and the intervals of its default configuration, github.com/oVirt/mom ---
 *
 * The host is under pressure below 20 % of free memory; then each guest gives up to 5 % in a round, as far as
 * its free memory is more than a part that shrinks with the host's; below 5 % of free memory that part is
 * negative, so that guests swap. Else each grows by 5 %, or to where 20 % of its largest size are free.
 * Changes below 0.25 % are none. Figures are averages of 10 samples, one in 5 s; a round comes each 10 s. */

#define MOM_SAMPLES 10U

struct mom_guest {
        double size[MOM_SAMPLES], unused[MOM_SAMPLES];
        size_t n;
};

struct mom {
        double host_free[MOM_SAMPLES];
        size_t n_host;
        struct mom_guest *guests;
};

static void mom_end(struct sim *s)
{
        struct mom *m = s->state;

        free(m->guests);
        free(m);
        s->state = NULL;
}

static int mom_begin(struct sim *s)
{
        struct mom *m = s->state = calloc(1, sizeof(*m));

        if (!m)
                return -ENOMEM;
        m->guests = calloc(s->n_partitions, sizeof(*m->guests));
        if (m->guests)
                return 0;
        mom_end(s);
        return -ENOMEM;
}

static double average(const double *values, size_t n)
{
        double sum = 0;

        n = MIN(n, (size_t)MOM_SAMPLES);
        for (size_t i = 0; i < n; i++)
                sum += values[i];
        return n > 0 ? sum / (double)n : 0;
}

static void mom_sample(struct sim *s, struct mom *m)
{
        m->host_free[m->n_host++ % MOM_SAMPLES] = (double)sim_margin_bytes(s);
        for (size_t i = 0; i < s->n_partitions; i++) {
                const struct sim_partition *p = &s->partitions[i];
                struct mom_guest *g = &m->guests[i];

                if (!sim_is_running(p))
                        continue;
                g->size[g->n % MOM_SAMPLES] = (double)p->current_bytes;
                g->unused[g->n++ % MOM_SAMPLES] = (double)sim_available_bytes(p);
        }
}

static void mom_set(struct sim *s, struct sim_partition *p, double size)
{
        double change = size - (double)p->current_bytes;

        size = between(size, (double)p->trace->min_bytes, (double)p->trace->max_bytes);
        if ((change < 0 ? -change : change) > 0.0025 * (double)p->current_bytes)
                sim_change(s, p, (uint64_t)size);
}

static void mom_tick(struct sim *s, bool event)
{
        struct mom *m = s->state;
        double host_free;

        if (is_due(s, 5 * USEC_PER_SEC))
                mom_sample(s, m);
        if (!is_due(s, 10 * USEC_PER_SEC))
                return;
        host_free =
                average(m->host_free, m->n_host) / (double)(s->trace->pool_bytes - s->trace->reserve_bytes);
        for (size_t i = 0; i < s->n_partitions; i++) {
                struct sim_partition *p = &s->partitions[i];
                const struct mom_guest *g = &m->guests[i];
                double size = (double)p->current_bytes;
                double used = average(g->size, g->n) - average(g->unused, g->n);

                if (!sim_is_running(p) || g->n == 0)
                        continue;
                if (host_free < 0.20) {
                        double part = host_free <= 0.05 ? host_free - 0.05 : 0.20 * host_free / 0.20;
                        double target = MAX(size * 0.95, used + part * size);

                        if (target <= size)
                                mom_set(s, p, target);
                } else if (p->current_bytes < p->trace->max_bytes)
                        mom_set(s, p, MAX(size * 1.05, used + 0.20 * (double)p->trace->max_bytes));
        }
}

const struct sim_policy sim_policy_mom = {
        .name = "mom",
        .what = "oVirt MOM's balloon rules",
        .uses_balloon = true,
        .begin = mom_begin,
        .tick = mom_tick,
        .end = mom_end,
};

/* --- Proxmox VE: pvestatd's auto ballooning, PVE::AutoBalloon in pve-manager and the administrator's guide
 * ---
 *
 * Each 10 s the host is to come to its target of use; what is missing or too much is given or taken by shares
 * above each guest's min, 100 MiB a guest at most: given first to guests with less than a quarter of their
 * min available, taken first from the others. The target is 80 % of the host's memory by default, or what
 * ballooning-target says; here it is the whole pool, as the pool is what a host has set aside for guests. */

#define PROXMOX_STEP (100 * (int64_t)MIB)

enum proxmox_class { PROXMOX_PRESSED, PROXMOX_EASY, PROXMOX_ALL };

static bool proxmox_has(const struct sim_partition *p, enum proxmox_class class)
{
        bool easy =
                sim_available_bytes(p) > p->trace->min_bytes / 4 && p->current_bytes >= p->trace->min_bytes;

        return sim_is_running(p) && (class == PROXMOX_ALL || (class == PROXMOX_EASY) == easy);
}

/* Changes the guests of a class by `bytes` in all, into size[]; what is left. */
static int64_t proxmox_change(struct sim *s, int64_t *size, enum proxmox_class class, int64_t bytes)
{
        int64_t rest = bytes;
        bool progress = true;

        while (rest != 0 && progress) {
                int64_t above = 0, changes = 0;
                uint64_t shares = 0;

                progress = false;
                for (size_t i = 0; i < s->n_partitions; i++)
                        if (proxmox_has(&s->partitions[i], class)) {
                                above += size[i] - (int64_t)s->partitions[i].trace->min_bytes;
                                shares += s->partitions[i].trace->weight;
                        }
                for (size_t i = 0; i < s->n_partitions; i++) {
                        const struct sim_partition *p = &s->partitions[i];
                        int64_t now = (int64_t)p->current_bytes, wish, next;

                        if (!proxmox_has(p, class))
                                continue;
                        wish = (int64_t)p->trace->min_bytes +
                               (int64_t)((double)(above + rest) / (double)shares * p->trace->weight);
                        wish = clamp(wish, (int64_t)p->trace->min_bytes, (int64_t)p->trace->max_bytes);
                        if (bytes > 0 && wish > now)
                                next = MIN(now + PROXMOX_STEP, wish);
                        else if (wish < now)
                                next = MAX(now - PROXMOX_STEP, wish);
                        else
                                continue;
                        changes += next - size[i];
                        progress = progress || next != size[i];
                        size[i] = next;
                }
                rest -= changes;
        }
        return rest;
}

static void proxmox_tick(struct sim *s, bool event)
{
        int64_t size[POLICY_PARTITIONS_MAX], goal, rest;
        bool grows;

        if (!is_due(s, 10 * USEC_PER_SEC))
                return;
        goal = sim_margin_bytes(s);
        grows = goal > 0;
        if (goal < 10 * (int64_t)MIB && goal > -10 * (int64_t)MIB)
                return;
        for (size_t i = 0; i < s->n_partitions; i++)
                size[i] = (int64_t)s->partitions[i].current_bytes;
        rest = proxmox_change(s, size, grows ? PROXMOX_PRESSED : PROXMOX_EASY, goal);
        if (grows ? rest >= goal : rest <= goal)
                proxmox_change(s, size, PROXMOX_ALL, rest);
        for (int pass = 0; pass < 2; pass++)
                for (size_t i = 0; i < s->n_partitions; i++) {
                        struct sim_partition *p = &s->partitions[i];

                        if (sim_is_running(p) && (size[i] < (int64_t)p->current_bytes) == (pass == 0) &&
                                size[i] != (int64_t)p->current_bytes)
                                sim_change(s, p, (uint64_t)size[i]);
                }
}

const struct sim_policy sim_policy_proxmox = {
        .name = "proxmox",
        .what = "Proxmox VE's auto ballooning",
        .uses_balloon = true,
        .tick = proxmox_tick,
};

/* --- XAPI squeezed: its architecture and design pages, github.com/xapi-project/squeezed ---
 *
 * All guests have the same part of the range between dynamic-min and dynamic-max, so that the host's memory
 * is in use; what is to be freed is freed before anything is given. A balance is looked for each 10 s, and
 * then at once until it is found. */

struct squeezed {
        bool is_balancing;
};

static void squeezed_end(struct sim *s)
{
        free(s->state);
        s->state = NULL;
}

static int squeezed_begin(struct sim *s)
{
        s->state = calloc(1, sizeof(struct squeezed));
        return s->state ? 0 : -ENOMEM;
}

static void squeezed_tick(struct sim *s, bool event)
{
        struct squeezed *q = s->state;
        int64_t surplus = sim_margin_bytes(s);
        uint64_t ranges = 0;
        bool frees = false;

        if (!is_due(s, q->is_balancing ? USEC_PER_SEC : 10 * USEC_PER_SEC))
                return;
        for (size_t i = 0; i < s->n_partitions; i++) {
                const struct sim_partition *p = &s->partitions[i];

                if (!sim_is_running(p))
                        continue;
                surplus += (int64_t)p->claimed_bytes - (int64_t)p->trace->min_bytes;
                ranges += p->trace->max_bytes - p->trace->min_bytes;
        }
        q->is_balancing = false;
        for (int pass = 0; pass < 2 && !frees; pass++)
                for (size_t i = 0; i < s->n_partitions; i++) {
                        struct sim_partition *p = &s->partitions[i];
                        double part = ranges > 0 ? MAX((double)surplus, 0.0) / (double)ranges : 0;
                        uint64_t target = p->trace->min_bytes +
                                          (uint64_t)(MIN(part, 1.0) *
                                                     (double)(p->trace->max_bytes - p->trace->min_bytes));

                        if (!sim_is_running(p) || (target < p->current_bytes) != (pass == 0))
                                continue;
                        if (target + MIB >= p->current_bytes && target <= p->current_bytes + MIB)
                                continue;
                        frees = pass == 0;
                        q->is_balancing = true;
                        if (!p->is_changing)
                                sim_change(s, p, target);
                }
}

const struct sim_policy sim_policy_squeezed = {
        .name = "squeezed",
        .what = "XAPI squeezed's equal ratio",
        .uses_balloon = true,
        .begin = squeezed_begin,
        .tick = squeezed_tick,
        .end = squeezed_end,
};

/* --- yardsticks --- */

static int static_begin(struct sim *s)
{
        struct sim_fill *f = &s->fill;
        uint64_t *share = s->state = calloc(s->n_partitions, sizeof(*share));

        if (!share)
                return -ENOMEM;
        for (size_t i = 0; i < s->n_partitions; i++) {
                f->weight[i] = s->partitions[i].trace->weight;
                f->floor[i] = s->partitions[i].trace->min_bytes;
                f->want[i] = s->partitions[i].trace->max_bytes;
        }
        policy_fill(s->n_partitions, f->weight, f->floor, f->want,
                s->trace->pool_bytes - s->trace->reserve_bytes, share);
        return 0;
}

/* Who starts later gets its part then: it was held free for it. */
static void static_tick(struct sim *s, bool event)
{
        const uint64_t *share = s->state;

        for (size_t i = 0; i < s->n_partitions; i++) {
                struct sim_partition *p = &s->partitions[i];

                if (!sim_is_running(p) || p->current_bytes == share[i])
                        continue;
                if (s->now_usec == SIM_TICK_USEC)
                        sim_set(s, p, share[i]);
                else if (!p->is_changing)
                        sim_change(s, p, share[i]);
        }
}

static void static_end(struct sim *s)
{
        free(s->state);
        s->state = NULL;
}

const struct sim_policy sim_policy_static = {
        .name = "static",
        .what = "the pool split by weight, once",
        .uses_balloon = true,
        .begin = static_begin,
        .tick = static_tick,
        .end = static_end,
};

/* Knows at each moment what all want, and moves it in no time: the least that can be short, and of the ways
 * to that, one that moves only what has to be moved at that moment. */
static void optimum_tick(struct sim *s, bool event)
{
        struct sim_fill *f = &s->fill;
        uint64_t total = s->trace->pool_bytes - s->trace->reserve_bytes - s->waiting_bytes, missing = 0,
                 free_bytes;
        size_t n = s->n_partitions;

        for (size_t i = 0; i < n; i++) {
                const struct sim_partition *p = &s->partitions[i];
                bool has = p->phase == SIM_BOOTING || p->phase == SIM_RUNNING;

                f->weight[i] = p->trace->weight;
                f->floor[i] = has ? p->trace->min_bytes : 0;
                f->want[i] = has ? policy_clamp(p->demand_bytes, f->floor[i], p->trace->max_bytes) : 0;
        }
        policy_fill(n, f->weight, f->floor, f->want, total, f->share);
        for (size_t i = 0; i < n; i++)
                missing += f->share[i] - MIN(f->share[i], s->partitions[i].current_bytes);
        free_bytes = sim_free_bytes(s);
        missing -= MIN(missing, free_bytes);
        if (sim_margin_bytes(s) < 0)
                missing += (uint64_t)-sim_margin_bytes(s);
        while (missing > 0) {
                struct sim_partition *donor = NULL;
                uint64_t most = 0;

                for (size_t i = 0; i < n; i++)
                        if (s->partitions[i].current_bytes > f->share[i] + most) {
                                donor = &s->partitions[i];
                                most = donor->current_bytes - f->share[i];
                        }
                if (!donor)
                        break;
                sim_set(s, donor, donor->current_bytes - MIN(most, missing));
                missing -= MIN(most, missing);
        }
        for (size_t i = 0; i < n; i++)
                if (f->share[i] > s->partitions[i].current_bytes)
                        sim_set(s, &s->partitions[i], f->share[i]);
}

const struct sim_policy sim_policy_optimum = {
        .name = "optimum",
        .what = "clairvoyant, and moves in no time",
        .tick = optimum_tick,
};
