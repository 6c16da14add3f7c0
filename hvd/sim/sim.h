/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hvd/policy/policy.h"
#include "hvd/sim/trace.h"

/* The host of a trace in steps of the clock: guests that want what the trace says, a mechanism that moves
 * memory as fast as a real one, and a policy. Everything is whole numbers and one seed, so a run can be
 * repeated. */

#define SIM_TICK_USEC   UINT64_C(100000)
#define SIM_SAMPLE_USEC UINT64_C(1000000) /* guests report as often */
#define SIM_PSI_USEC    UINT64_C(500000)  /* the window of the guests' pressure triggers */
#define SIM_PSI_STALL   UINT64_C(50000)   /* and the stalled time in it that fires them */
#define SIM_BOOT_USEC   UINT64_C(20000000)

struct sim_mechanism {
        uint64_t granule_bytes;
        uint64_t grow_usec, grow_bytes_per_sec;     /* until the first byte comes; and then */
        uint64_t shrink_usec, shrink_bytes_per_sec; /* likewise */
        bool is_gated; /* a guest gives nothing that it needs, as guestd sees to; a balloon takes it */
};

enum sim_phase { SIM_OFF, SIM_WAITING, SIM_BOOTING, SIM_RUNNING };

struct sim_partition {
        const struct trace_partition *trace;
        size_t cursor;
        enum sim_phase phase;
        uint64_t phase_usec;
        uint64_t demand_bytes, current_bytes, claimed_bytes, resident_bytes;
        /* the change under way: */
        bool is_changing, was_refused;
        uint64_t from_bytes, target_bytes, begun_usec, changed_usec;
        uint64_t begun_demand_bytes;
        /* what it last said: */
        struct policy_sample sample;
        uint64_t stalled_usec, window_usec, stall_in_window_usec, pushed_usec;
        /* accounts: */
        double short_gib_sec, served_gib_sec, entitled_gib_sec;
        int last_direction;
        uint64_t last_moved_usec, last_demand_bytes;
};

struct sim_result {
        char policy[32];
        double short_gib_sec, moved_gib, fairness;
        double bound_gib_sec; /* what no policy can save, of the same trace */
        unsigned n_changes, n_oscillations, n_refusals;
        uint64_t partition_usec; /* simulated, over all partitions */
        double *partition_short; /* of each partition, GiB-seconds; NULL, or the caller's */
};

struct sim {
        FILE *explains; /* each change of our policy, in sentences; NULL: nowhere */
        const struct trace *trace;
        struct sim_mechanism mechanism;
        uint64_t now_usec;
        struct sim_partition *partitions;
        size_t n_partitions;
        uint64_t waiting_bytes; /* of guests that wait for memory to start */
        uint64_t random;
        struct sim_fill { /* of those who fill shares */
                unsigned weight[POLICY_PARTITIONS_MAX];
                uint64_t floor[POLICY_PARTITIONS_MAX], want[POLICY_PARTITIONS_MAX],
                        share[POLICY_PARTITIONS_MAX];
        } fill;
        struct sim_result result;
        const struct policy_config *config; /* of our policy */
        void *state;                        /* of the policy that runs */
};

/* What moves memory, and when. */
struct sim_policy {
        const char *name, *what;
        bool uses_balloon;           /* in granules of 1 MiB and without guestd's gate, at the same speed */
        int (*begin)(struct sim *s); /* 0 or -ENOMEM */
        /* In each step of the clock. `event`: a sample was pushed or a change ended in this step. */
        void (*tick)(struct sim *s, bool event);
        void (*end)(struct sim *s);
};
extern const struct sim_policy sim_policy_ours, sim_policy_mom, sim_policy_proxmox, sim_policy_squeezed,
        sim_policy_static, sim_policy_optimum;

void sim_mechanism_init(struct sim_mechanism *ret); /* DIMMs, as measured */

/* Runs a trace. `config`: of our policy; `explains`: where its changes are told in sentences, or NULL. 0 or
 * -ENOMEM. */
int sim_run(const struct trace *t, const struct sim_policy *policy, const struct sim_mechanism *m,
        const struct policy_config *config, uint64_t seed, FILE *explains, struct sim_result *ret);

/* For policies. */
uint64_t sim_free_bytes(const struct sim *s);  /* of the pool, less reserve and what waits */
int64_t sim_margin_bytes(const struct sim *s); /* the same, below 0 if more is wanted than there is */
bool sim_is_running(const struct sim_partition *p);
uint64_t sim_available_bytes(const struct sim_partition *p);
/* Begins a change towards a target, or turns the one under way; growth as far as memory is free. */
void sim_change(struct sim *s, struct sim_partition *p, uint64_t target_bytes);
/* At once, whatever the mechanism: for what no mechanism can do. */
void sim_set(struct sim *s, struct sim_partition *p, uint64_t bytes);
uint32_t sim_random(struct sim *s);
