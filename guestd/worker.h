/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guestd/assist.h"
#include "guestd/loop.h"
#include "guestd/pages.h"
#include "proto/message.h"

/* A walk over memory blocks that writes their states, in a child process of its own: an offline may run for
 * ever inside write(), and only a signal ends it. SIGKILL has no race with the write's beginning, and
 * offline_pages() gives up on it and leaves the block online. One child for a walk, not for a
 * block. */
struct worker;
struct children;

enum work {
        WORK_OFFLINE, /* in the order given; headroom is checked before each block; stops at the first failure
                       */
        WORK_ONLINE,  /* each into its item's zone; goes on after a failure */
        WORK_SURVEY,  /* counts the pages of at most PROTO_SURVEYS_MAX blocks; writes nothing */
        WORK_ASSIST,  /* carries out limits.order; the items are not looked at */
};

struct work_item {
        uint32_t block;
        uint32_t zone;  /* enum zone: where it goes when online, where it was when offline */
        uint32_t n_set; /* OFFLINE: blocks of its set from this one on, for all of which there must be room */
};

/* How a block's state is written: replaced by tests. 0 or the kernel's -errno. Runs in the child. */
typedef int (*block_write_t)(int memory_fd, uint32_t block, const char *state);
int block_write_state(int memory_fd, uint32_t block, const char *state);

/* How any other file of the kernel is written: sysfs_write(), replaced by tests. Runs in the child. */
typedef int (*setting_write_t)(int dir_fd, const char *path, const char *value);

struct worker_config {
        int memory_fd, proc_fd, sys_fd;
        uint64_t block_bytes;
        uint64_t margin_bytes; /* 0: memory_margin()'s default */
        bool may_mount;        /* sys_fd is the kernel's own: what is not mounted there may be elsewhere */
        block_write_t write;   /* NULL: block_write_state() */
        setting_write_t write_setting; /* NULL: sysfs_write() */
};

struct worker_limits {
        uint64_t attempt_usec;        /* for one block; 0: none */
        uint64_t stop_at_usec;        /* the walk is killed then, less... */
        uint64_t stop_per_item_usec;  /* ...this for each item that is done, ... */
        uint64_t stop_items_max_usec; /* ...which sums up to at most this; stop_at_usec 0: no limit */
        uint64_t survey_until_usec;   /* SURVEY: when the child takes what it has for enough */
        bool migrates;                /* OFFLINE: even if page cache could be reclaimed instead */
        struct assist_order order;    /* ASSIST */
};

struct worker_failure {
        uint32_t item; /* index */
        enum error_code code;
        int errnum;
        uint64_t available_bytes, margin_bytes; /* NO_HEADROOM by our own check; else 0 */
        bool is_gigantic;                       /* BLOCK_BUSY: the block lies in a gigantic page */
        bool by_free; /* and that only because pages would be moved into too little free memory */
};
#define WORKER_FAILURES_MAX  64U
#define WORKER_PROGRESS_USEC 100000ULL /* between two calls of on_progress */

struct worker_handlers {
        /* The child is through, or gone. Free the worker here. After a kill this may take as long as the
         * kernel does not look at signals. */
        void (*on_done)(struct worker *w, void *userdata);
        /* More items are done than before; optional. */
        void (*on_progress)(struct worker *w, size_t n_done, void *userdata);
};

/* items are borrowed until the worker is freed. */
int worker_start(struct loop *loop, struct children *children, enum work work, const struct work_item *items,
        size_t n_items, const struct worker_limits *limits, const struct worker_handlers *handlers,
        void *userdata, struct worker **ret);
/* Kills the child if it still walks; it is reaped now or later. NULL is fine. */
struct worker *worker_free(struct worker *w);

/* Ends the walk: why (CANCELLED, INTERRUPTED) is what worker_killed() says later. Not the first kill: no
 * effect. */
void worker_kill(struct worker *w, enum error_code why);

/* What worker_start() was given. */
const struct work_item *worker_items(struct worker *w, size_t *ret_n);
/* Items done, in order: items[0..n) are as asked or among the failures. */
size_t worker_n_done(struct worker *w);
/* ERROR_NONE: it ended by itself. DEADLINE: stop_at. BLOCK_BUSY: an attempt's limit. Else what worker_kill()
 * was given. *ret_item: the item whose attempt was under way; *ret_attempt_usec how long, 0 if between two
 * attempts. */
enum error_code worker_killed(struct worker *w, size_t *ret_item, uint64_t *ret_attempt_usec);
size_t worker_n_failures(struct worker *w);
const struct worker_failure *worker_failure(struct worker *w, size_t i);
/* How long the attempt under way has taken; 0: none is. */
uint64_t worker_attempt_usec(struct worker *w);
/* ASSIST: what was done until now. */
const struct assist_report *worker_assist_report(struct worker *w);
/* SURVEY, when all items are done: one for each. */
const struct page_counts *worker_counts(struct worker *w);
/* The failure in words. */
void worker_explain(struct worker *w, size_t i, struct error *ret_error);

/* What parent and child share: a mapping, so that a walk that goes well wakes nobody until its end. */
struct worker_shared {
        _Atomic uint64_t attempt_usec; /* when the attempt under way began; 0: none is */
        _Atomic uint32_t n_done, n_failures;
        struct worker_failure failures[WORKER_FAILURES_MAX];
        struct assist_report assist;
};

/* The child's half of a survey: 0 or 1, and n_done or a failure in shared. */
int worker_survey(struct worker_shared *shared, const struct worker_config *config,
        const struct work_item *items, size_t n_items, uint64_t until_usec, struct page_counts *counts);
/* The child's half: walks and returns the exit status. Allocates nothing. */
int worker_walk(struct worker_shared *shared, const struct worker_config *config, enum work work,
        const struct work_item *items, size_t n_items, bool migrates);
