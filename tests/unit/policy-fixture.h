/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdio.h>

#include <cmocka.h>

#include "common/size.h"
#include "hvd/policy/policy.h"

/* A small host for the policy's tests. Needs cmocka's own headers before it. */

#define GUESTS  4U
#define NOW     (UINT64_C(100000) * USEC_PER_SEC)
#define GRANULE (128 * MIB)

struct host {
        struct policy_input in;
        struct policy_partition partitions[GUESTS];
        struct policy_history history[GUESTS];
        struct policy_decision decisions[GUESTS];
};

/* `n` guests of 4 GiB, of which each uses 1 GiB, in a pool of which nothing is free but its reserve. */
static inline void host_init(struct host *h, size_t n)
{
        *h = (struct host) { 0 };
        policy_config_init(&h->in.config);
        h->in.config.cushion_permille = 0;
        h->in.now_usec = NOW;
        h->in.partitions = h->partitions;
        h->in.history = h->history;
        h->in.n_partitions = n;
        h->in.pool = (struct policy_pool) { .total_bytes = n * 4 * GIB + GIB, .reserve_bytes = GIB };
        for (size_t i = 0; i < n; i++) {
                struct policy_partition *p = &h->partitions[i];

                *p = (struct policy_partition) {
                        .mode = POLICY_MODE_AUTO,
                        .state = POLICY_RUNNING,
                        .min_bytes = GIB,
                        .desired_bytes = 4 * GIB,
                        .max_bytes = 12 * GIB,
                        .weight = 128,
                        .current_bytes = 4 * GIB,
                        .claimed_bytes = 4 * GIB,
                        .granule_bytes = GRANULE,
                        .sample = { .taken_usec = NOW - USEC_PER_SEC / 2, .available_bytes = 3 * GIB },
                };
                snprintf(p->name, sizeof(p->name), "g%zu", i);
                h->history[i] = (struct policy_history) {
                        .used_bytes = GIB,
                        .used_usec = NOW - USEC_PER_SEC,
                        .held_bytes = { GIB, GIB },
                        .held_usec = NOW - 30 * USEC_PER_SEC,
                        .grown_usec = NOW - 3600 * USEC_PER_SEC,
                };
        }
}

static inline void host_decide(struct host *h)
{
        policy_decide(&h->in, h->decisions, h->history);
}

static inline void set_size(struct host *h, size_t i, uint64_t current, uint64_t available)
{
        h->partitions[i].current_bytes = h->partitions[i].claimed_bytes = current;
        h->partitions[i].sample.available_bytes = available;
        h->history[i].used_bytes = current - available;
}

/* Guest i uses all that it has and stalls. */
static inline void distress(struct host *h, size_t i)
{
        set_size(h, i, h->partitions[i].current_bytes, 0);
        h->partitions[i].sample.some_permille = 400;
}

static inline void assert_decision(const struct host *h, size_t i, enum policy_action action,
        enum policy_rule cause, enum policy_rule bound)
{
        const struct policy_decision *d = &h->decisions[i];

        if (d->action != action || d->cause != cause || d->bound != bound)
                fail_msg("g%zu: %s %s %s, not %s %s %s (target %s, want %s)", i,
                        policy_action_to_string(d->action), policy_rule_to_string(d->cause),
                        policy_rule_to_string(d->bound), policy_action_to_string(action),
                        policy_rule_to_string(cause), policy_rule_to_string(bound), SIZE(d->target_bytes),
                        SIZE(d->want_bytes));
}
