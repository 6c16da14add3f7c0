/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/error.h"
#include "hvd/policy/policy.h"

/* A trace: what some guests on one host wanted of memory over a time. The format stands in hvd-sim(1). */

#define TRACE_LINE_MAX   1024U
#define TRACE_POINTS_MAX 4000000U
#define TRACE_USEC_MAX   (UINT64_C(31) * 86400 * 1000000)

/* How a guest reports, and gives. */
enum trace_manner {
        TRACE_HONEST,
        TRACE_DISTRESS, /* always says that it has nothing available and stalls */
        TRACE_RANDOM,   /* says anything */
        TRACE_SILENT,   /* says nothing */
        TRACE_FLOOD,    /* distress, in each step of the clock */
        TRACE_REFUSES,  /* honest, but gives nothing */
        TRACE_MANNER_MAX,
        TRACE_MANNER_INVALID = -1,
};
enum trace_manner trace_manner_from_string(const char *s);

struct trace_point {
        uint64_t usec, bytes;
};

struct trace_partition {
        char name[POLICY_NAME_MAX];
        uint64_t min_bytes, desired_bytes, max_bytes;
        unsigned weight;
        uint64_t start_usec; /* it boots then; 0: it runs from the beginning */
        enum trace_manner manner;
        struct trace_point *points; /* by time; between two the demand is a straight line */
        size_t n_points;
};

struct trace {
        uint64_t pool_bytes, reserve_bytes, length_usec;
        struct trace_partition *partitions;
        size_t n_partitions;
};

/* Reads a whole trace. Anything wrong refuses it: -EINVAL with ERROR_INVALID_ARGUMENT "NAME:LINE: what is
 * wrong; what would be right". The caller ends *ret with trace_done(). */
int trace_read(FILE *file, const char *name, struct trace *ret, struct error *ret_error);
void trace_done(struct trace *t);

/* The demand of a partition; *cursor is the caller's, 0 at first, and times may not go back. */
uint64_t trace_demand(const struct trace_partition *p, uint64_t usec, size_t *cursor);
