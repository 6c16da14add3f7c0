/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The policy that ships, over the simulated host: this file only hands over what hvd would. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/sim/sim.h"

struct ours {
        struct policy_partition *partitions;
        struct policy_history *history;
        struct policy_decision *decisions;
        uint64_t *asked; /* what each had when it was asked to give; 0: it was not */
};

static void ours_end(struct sim *s)
{
        struct ours *o = s->state;

        free(o->partitions);
        free(o->history);
        free(o->decisions);
        free(o->asked);
        free(o);
        s->state = NULL;
}

static int ours_begin(struct sim *s)
{
        struct ours *o = s->state = calloc(1, sizeof(*o));

        if (!o)
                return -ENOMEM;
        o->partitions = calloc(s->n_partitions, sizeof(*o->partitions));
        o->history = calloc(s->n_partitions, sizeof(*o->history));
        o->decisions = calloc(s->n_partitions, sizeof(*o->decisions));
        o->asked = calloc(s->n_partitions, sizeof(*o->asked));
        if (o->partitions && o->history && o->decisions && o->asked)
                return 0;
        ours_end(s);
        return -ENOMEM;
}

static void describe(const struct sim *s, const struct sim_partition *p, struct policy_partition *ret)
{
        *ret = (struct policy_partition) {
                .mode = p->phase == SIM_OFF || p->phase == SIM_WAITING ? POLICY_MODE_OFF : POLICY_MODE_AUTO,
                .state = p->phase == SIM_RUNNING ? POLICY_RUNNING : POLICY_BOOTING,
                .min_bytes = p->trace->min_bytes,
                .desired_bytes = p->trace->desired_bytes,
                .max_bytes = p->trace->max_bytes,
                .weight = p->trace->weight,
                .current_bytes = p->current_bytes,
                .granule_bytes = s->mechanism.granule_bytes,
                .is_busy = p->is_changing,
                .claimed_bytes = p->claimed_bytes,
                .leaving_bytes = p->is_changing && p->target_bytes < p->current_bytes
                                         ? p->current_bytes - p->target_bytes
                                         : 0,
                .changed_usec = p->changed_usec,
                .has_resident = true,
                .resident_bytes = p->resident_bytes,
                .sample = p->sample,
        };
        strcpy(ret->name, p->trace->name);
}

static void take_results(const struct sim *s, struct ours *o)
{
        for (size_t i = 0; i < s->n_partitions; i++) {
                const struct sim_partition *p = &s->partitions[i];

                if (o->asked[i] == 0 || p->is_changing)
                        continue;
                if (p->current_bytes < o->asked[i])
                        policy_history_gave(&o->history[i]);
                else if (p->was_refused)
                        policy_history_refused(&o->history[i], s->now_usec);
                o->asked[i] = 0;
        }
}

static void explain(
        const struct sim *s, const struct policy_input *in, size_t i, const struct policy_decision *d)
{
        _cleanup_free_ char *text = s->explains ? policy_explain(in, i, d) : NULL;

        if (text)
                fprintf(s->explains, "%.1f s: %s\n", (double)s->now_usec / USEC_PER_SEC, text);
}

static void ours_tick(struct sim *s, bool event)
{
        struct ours *o = s->state;
        struct policy_input in = {
                .config = *s->config,
                .now_usec = s->now_usec,
                .pool = { s->trace->pool_bytes, s->trace->reserve_bytes, s->waiting_bytes, 0 },
                .n_partitions = s->n_partitions,
                .partitions = o->partitions,
                .history = o->history,
        };

        if (!event)
                return;
        take_results(s, o);
        for (size_t i = 0; i < s->n_partitions; i++)
                describe(s, &s->partitions[i], &o->partitions[i]);
        policy_decide(&in, o->decisions, o->history);
        for (size_t i = 0; i < s->n_partitions; i++) {
                if (o->decisions[i].action == POLICY_KEEP)
                        continue;
                explain(s, &in, i, &o->decisions[i]);
                o->asked[i] = o->decisions[i].action == POLICY_SHRINK ? s->partitions[i].current_bytes : 0;
                sim_change(s, &s->partitions[i], o->decisions[i].target_bytes);
        }
}

const struct sim_policy sim_policy_ours = {
        .name = "opendlpar",
        .what = "the policy that hvd runs",
        .begin = ours_begin,
        .tick = ours_tick,
        .end = ours_end,
};
