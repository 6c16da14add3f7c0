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

/* A reply's failures become the job's reasons, each under the device that its address lies in. */
void ranges_add_reasons(struct job *j, const struct message_reply *reply);
