/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/agent/agent.h"
#include "hvd/sample.h"

/* The samples of one partition's guest: when it is to send them, and what its last one said. */

struct partition;

/* Part of a partition; the fields are for reading. */
struct partition_samples {
        struct sampling wanted; /* in each session; all 0: nothing */
        struct sampling told;   /* in this session; all 0: nothing was */
        bool asked_again;       /* while the call was under way */
        struct agent_call *call;
        struct sample_track track;
        struct policy_sample last; /* taken_usec: CLOCK_MONOTONIC, when hvd received it; 0: none came, ever */
        enum sample_cause cause;   /* of the last one */
        bool is_watched;           /* the guest says that it will push when tasks stall */
};

/* The last sample, bounded by what the host knows. It may be of a boot before: its time tells. */
const struct policy_sample *partition_sample(const struct partition *p);

/* When its guest shall send samples from now on, in this session and all to come; interval_msec 0: never. It
 * is told at once, and the sample in its answer is taken as any other (manager_partition_sampled()). The same
 * again costs nothing, unless the guest failed to answer the last time: then it is told again. A guest
 * without the capability is not told, and sends none. */
void partition_set_sampling(struct partition *p, const struct sampling *s);
/* Asks for a sample now, whatever the interval is. -ENOTCONN: no session; -EOPNOTSUPP: its agent knows no
 * samples; other -errno of agent_call(). When the guest answers manager_partition_sampled() is called, with
 * SAMPLE_ASKED, from the event loop. */
int partition_ask_sample(struct partition *p);

/* For partition.c. */
void sampling_on_session(struct partition *p); /* one began, or ended */
void sampling_take(struct partition *p, const struct guest_sample *s);
