/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"
#include "hvd/plan.h"

struct mechanism;

/* Method auto: which mechanisms a partition has for a request, and how they share it. In the order in which
 * they are preferred: virtio-mem, DIMMs (LMBs), the balloon. Nothing here changes anything. */

struct auto_plan {
        const struct mechanism *mechanisms[PLAN_SOURCES_MAX];
        uint64_t room_bytes[PLAN_SOURCES_MAX];
        uint64_t unit_bytes[PLAN_SOURCES_MAX];
        uint64_t shares[PLAN_SOURCES_MAX]; /* of request->bytes */
        size_t n;
        uint64_t total_bytes; /* the shares' sum; at most request->bytes */
        uint64_t all_bytes;   /* all that they could move */
};

/* For an addition or a removal. Leaves out the mechanisms whose bit (their place in mechanism_of_kind()) is
 * set in `excluded`. */
void auto_plan(const struct partition *p, const struct job_request *request, unsigned excluded,
        struct auto_plan *ret);
/* The same, and refuses what cannot be made whole: BEYOND_MAX or NOT_PLUGGED with what each could move,
 * UNALIGNED_SIZE with the nearest sizes, or what a mechanism says of its share. */
int auto_check(const struct partition *p, const struct job_request *request, struct auto_plan *ret,
        struct error *ret_error);

/* Who carries out an addition or a removal without a method: DIMMs alone where the partition has nothing else
 * or the request names what only they do; else the split over several. */
const struct mechanism *auto_choose(const struct partition *p, const struct job_request *request);
/* The nearest sizes that such a request can have: the largest of at most `bytes` (0: none) and the smallest
 * of at least `bytes` (UINT64_MAX: none). By the request's method, or any. */
void auto_nearest(const struct partition *p, const struct job_request *request, uint64_t bytes,
        uint64_t *ret_below, uint64_t *ret_above);
