/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <sys/queue.h>

#include "hvd/partition.h"

#define ROSTER_MAX 1024U

/* Partitions, which stay their owner's, in the order of names. Finding one takes a time that grows with the
 * logarithm of their number: the bus does it several times for each call and each signal. */
struct roster {
        TAILQ_HEAD(, partition) list;
        struct partition *by_name[ROSTER_MAX]; /* the same */
        size_t n;
};

void roster_init(struct roster *r);
/* NULL: there is none. */
struct partition *roster_find(const struct roster *r, const char *name);
/* NULL begins; NULL ends. */
struct partition *roster_next(const struct roster *r, const struct partition *after);
/* There must be room, and none of that name. */
void roster_insert(struct roster *r, struct partition *p);
/* It must be there. */
void roster_remove(struct roster *r, struct partition *p);
