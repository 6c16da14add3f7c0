/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "guestd/loop.h"
#include "guestd/worker.h"

/* The processes that carry out walks. One of them may wait ahead of time, and after a walk that went well for
 * the next: on an emulated guest a fork, its page faults and the exit take 5 ms, and what they copy lies in
 * the very memory that is to leave. */
struct children;

struct child {
        pid_t pid;
        int fd; /* a byte sets it to work on what is shared, and it sends one back; its end is end of file */
        size_t n_items_max;
        struct child_shared {
                struct worker_shared worker;                  /* first */
                struct worker_limits limits;                  /* as far as the child has to know them */
                struct page_counts counts[PROTO_SURVEYS_MAX]; /* of a survey */
                uint32_t work, n_items;
                struct work_item items[];
        } * shared;
};

/* The descriptors in config are borrowed and must outlive the children. */
int children_new(struct loop *loop, const struct worker_config *config, struct children **ret);
/* Kills and reaps the one that waits. One that was abandoned and sits in the kernel is left to init. NULL is
 * fine. */
struct children *children_free(struct children *c);
const struct worker_config *children_config(const struct children *c);

/* Forks one to wait, unless one does; never with a replaced block_write_t, as a test may change what that one
 * does. Without memory for it there is none, and each walk forks its own. */
void children_keep_spare(struct children *c);
/* Sets one to work: the one that waits, or a new one. 0 or -errno. */
int children_start(struct children *c, enum work work, const struct work_item *items, size_t n_items,
        const struct worker_limits *limits, struct child **ret);
/* It is through with its walk: kept for the next if none waits, else ended. Returns NULL. */
struct child *children_give_back(struct children *c, struct child *child);
/* Kills it and reaps it: at once if wait, as its end was seen; else some time later. NULL is fine. Returns
 * NULL. */
struct child *children_end(struct children *c, struct child *child, bool wait);

/* 0: none waits. For tests. */
pid_t children_spare(const struct children *c);
