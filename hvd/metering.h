/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "hvd/store/store.h"

struct manager;
struct partition;

/* How much memory each partition has for how long, kept by the days of UTC. What was kept is at most a minute
 * old: so much may be missing after a crash of hvd, or be counted to the day before. */
struct metering;

/* A partition's, since it was last kept. */
struct partition_meter {
        uint64_t bytes, since_usec; /* what it has had since then (CLOCK_MONOTONIC) */
        uint64_t mib_usec;          /* and what was counted before that */
        uint64_t kept_usec;         /* how much of that was written when it was last kept */
};

int metering_new(struct manager *m, struct metering **ret);
/* Keeps what was counted. NULL is fine; returns NULL. */
struct metering *metering_free(struct metering *metering);

/* What a partition has may have changed: what it had until now is counted. */
void metering_note(struct partition *p);
/* Keeps what was counted, as the partition goes, or is asked for. */
void metering_keep(struct partition *p);
/* The last `days` days, the newest first; as store_usage_foreach(). */
int metering_foreach(
        struct partition *p, uint32_t days, store_usage_t callback, void *userdata, struct error *ret_error);
