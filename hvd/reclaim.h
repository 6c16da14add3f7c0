/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

#include "common/error.h"

struct job;
struct reservation;

/* Takes memory back for a reservation that the pool is short of: from partitions that have more than their
 * profile desires, and than the policy holds them to want where it runs, in proportion to what each has above
 * it, in rounds, until enough is free (pool_changed() notices), nobody has more to give, or the time is up.
 * Then the reservation is given up, with the figures; what has left stays in the pool. A partition that does
 * not give what it was asked for is not asked again, and one that has no desired memory set, or a job under
 * way, is not asked at all. */
struct reclaim;

/* POOL_EXHAUSTED, with the figures, if all of them together have not enough to give. */
int reclaim_new(struct reservation *r, uint64_t wait_usec, struct reclaim **ret, struct error *ret_error);
/* Its jobs, if any still run, go on. NULL is fine; returns NULL. */
struct reclaim *reclaim_free(struct reclaim *c);
/* May give the reservation up, and so free it. */
void reclaim_job_ended(struct reclaim *c, const struct job *j);
