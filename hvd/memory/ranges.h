/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"
#include "proto/message.h"

/* What a guest's reply says about one stretch of addresses. */
struct range_account {
        uint64_t movable_bytes, kernel_bytes, stuck_bytes, offline_bytes, absent_bytes, changing_bytes;
};
struct range_account ranges_account(
        const struct block_range *ranges, size_t n_ranges, uint64_t start, uint64_t length);
static inline uint64_t range_account_online(const struct range_account *a)
{
        return a->movable_bytes + a->kernel_bytes + a->stuck_bytes;
}

/* By address, as the targets of a request must be. */
void ranges_sort(struct mem_range *ranges, size_t n_ranges);

/* Whether a guest's answer to OFFLINE is its last word on the set: a guest that ran out of time while it put
 * blocks back answers before they are. What is missing has left, and is no obstacle. */
bool ranges_is_settled(const struct message_reply *reply);

/* A reply's failures become the job's reasons, each under the device that its address lies in. */
void ranges_add_reasons(struct job *j, const struct message_reply *reply);
/* For a device of which only done_bytes are as wanted ("online", "offline"): a reason if the reply's failures
 * name none within it. */
void ranges_add_missing_reason(struct job *j, const struct message_reply *reply, const char *device,
        struct mem_range range, uint64_t done_bytes, const char *wanted);
