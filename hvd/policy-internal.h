/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <systemd/sd-event.h>

#include "hvd/manager.h"
#include "hvd/policy-runner.h"

/* Shared by policy-runner.c, policy-input.c, policy-act.c and policy-tell.c. */

/* What one call of policy_decide() was given, and gave. */
struct policy_round {
        struct policy_input input;           /* over the arrays below */
        struct policy_partition *partitions; /* owned, as the next ones */
        struct policy_history *before, *after;
        struct policy_decision *decisions;
        struct partition **subjects; /* valid only while the round is made */
        size_t allocated;
        uint64_t time_usec; /* CLOCK_REALTIME; 0: there was none yet */
};

struct policy_host {
        char *proc;
        uint64_t stalled_usec, asked_usec; /* PSI's total, and when it was read */
        uint64_t some_permille;
};

struct policy_runner {
        struct manager *manager;
        struct policy_host host;
        enum policy_mode set_mode; /* over the bus; POLICY_MODE_INVALID: none was */
        sd_event_source *timer;
        uint64_t due_usec; /* when the timer fires; 0: it is off */
        struct policy_round round;
        unsigned n_stored; /* since the store was last trimmed */
        bool store_failed; /* and it was said */
};

/* policy-input.c: fills the round's input and subjects from what is known now; the partitions whose QEMU does
 * not run are left out. -ENOMEM. */
int policy_gather(struct policy_runner *r, uint64_t now_usec);
/* What the guest of a partition is to send. */
void policy_wanted_sampling(const struct policy_runner *r, const struct partition *p, struct sampling *ret);
/* How long a partition is not asked to grow after its last growth failed. */
uint64_t policy_growth_pause(const struct partition_policy *s);

/* policy-act.c: does what was decided of the i-th, or says in its outcome why not. */
void policy_act(struct policy_runner *r, size_t i);
/* A job of ours has ended. */
void policy_take_result(struct policy_runner *r, struct partition *p, const struct job *j);

/* policy-tell.c: logs, announces and stores what is new in the round, with the samples that it rests on. */
void policy_tell(struct policy_runner *r);
/* What came of the last decision is known now. */
void policy_tell_outcome(struct policy_runner *r, struct partition *p);
