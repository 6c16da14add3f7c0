/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"

struct mechanism;

/* A request, judged by what is known before it becomes a job. */

/* Completes the request (its method's own name, its time limit, whether it is of a whole node) and refuses
 * what cannot work: by the profile, the pool, and, unless a job that is active or waits will have changed it
 * until then, by what the mechanisms say. peer: of a move. */
int request_check(
        struct partition *p, struct partition *peer, struct job_request *request, struct error *ret_error);

/* Who carries it out, by what the partition has now. */
const struct mechanism *request_mechanism(const struct partition *p, const struct job_request *request);

/* The total must lie between the profile's min and the partition's max: NOT_PLUGGED and BEYOND_MAX name the
 * limit. */
int request_check_total(const struct partition *p, uint64_t bytes, struct error *ret_error);
/* So must what an addition or a removal leaves. */
int request_check_profile(
        const struct partition *p, enum job_kind kind, uint64_t bytes, struct error *ret_error);
