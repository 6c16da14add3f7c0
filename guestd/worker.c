/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The parent's half of a walk: owns the child for its time, and the watch over its deadlines.
 *
 * The child says by a byte that it is through, and its death is seen as the end of file of a socket whose
 * other end only the child holds (pidfds are younger than some guests' kernels). The timer looks at the
 * shared page: it fires when an attempt that began now would be too long, when the walk must stop, or when
 * progress is due, and so never while a walk is quick.
 *
 * Invariant: on_done comes exactly once, unless the worker is freed before; the child then does nothing any
 * more, and worker_free() keeps or reaps it. */

#include "guestd/worker.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "guestd/children.h"

struct worker {
        struct loop *loop;
        struct children *children;
        struct child *child;
        enum { AT_WORK, THROUGH, GONE } was_heard; /* of the child */
        struct loop_io io;                         /* its socket */
        struct loop_timer timer;
        struct worker_shared *shared; /* with the child */

        const struct work_item *items;
        size_t n_items;
        uint64_t block_bytes;
        struct worker_limits limits;
        struct worker_handlers handlers;
        void *userdata;

        enum error_code killed;
        size_t killed_item, reported;
        uint64_t killed_attempt_usec, progress_usec;
};

const struct work_item *worker_items(struct worker *w, size_t *ret_n)
{
        *ret_n = w->n_items;
        return w->items;
}

size_t worker_n_done(struct worker *w)
{
        return MIN((size_t)w->shared->n_done, w->n_items);
}

size_t worker_n_failures(struct worker *w)
{
        return MIN((size_t)w->shared->n_failures, (size_t)WORKER_FAILURES_MAX);
}

const struct worker_failure *worker_failure(struct worker *w, size_t i)
{
        return &w->shared->failures[i];
}

enum error_code worker_killed(struct worker *w, size_t *ret_item, uint64_t *ret_attempt_usec)
{
        *ret_item = w->killed_item;
        *ret_attempt_usec = w->killed_attempt_usec;
        return w->killed;
}

uint64_t worker_attempt_usec(struct worker *w)
{
        uint64_t began = w->shared->attempt_usec, now = now_monotonic_usec();

        return began > 0 && now > began ? now - began : 0;
}

const struct assist_report *worker_assist_report(struct worker *w)
{
        return &w->shared->assist;
}

const struct page_counts *worker_counts(struct worker *w)
{
        return w->child->shared->counts;
}

void worker_explain(struct worker *w, size_t i, struct error *ret_error)
{
        const struct worker_failure *f = worker_failure(w, i);
        uint32_t block = w->items[f->item].block;

        if (f->code == ERROR_NO_HEADROOM && f->margin_bytes > 0)
                error_set(ret_error, f->code,
                        "%" PRIu64 " MiB are available in the guest, but from block memory%u on %" PRIu64
                        " MiB are to go and %" PRIu64 " MiB must remain",
                        f->available_bytes / MIB, block, (w->n_items - f->item) * w->block_bytes / MIB,
                        f->margin_bytes / MIB);
        else if (f->code == ERROR_BLOCK_BUSY)
                error_set_errno(ret_error, f->code, f->errnum,
                        "Block memory%u holds pages that cannot be moved now", block);
        else if (f->code == ERROR_BLOCK_UNREMOVABLE)
                error_set_errno(
                        ret_error, f->code, f->errnum, "The kernel does not let block memory%u go", block);
        else
                error_set_errno(ret_error, f->code, f->errnum, "Block memory%u", block);
        ret_error->code = f->code;
}

void worker_kill(struct worker *w, enum error_code why)
{
        if (w->killed != ERROR_NONE)
                return;

        w->killed = why;
        w->killed_item = worker_n_done(w);
        w->killed_attempt_usec = worker_attempt_usec(w);
        kill(w->child->pid, SIGKILL);
        loop_timer_disarm(w->loop, &w->timer);
}

static uint64_t stop_at(struct worker *w)
{
        if (w->limits.stop_at_usec == 0)
                return USEC_INFINITY;
        uint64_t less = worker_n_done(w) * w->limits.stop_per_item_usec;
        return w->limits.stop_at_usec - MIN(less, w->limits.stop_items_max_usec);
}

/* Looks at the page and arms the timer for the next moment that matters. */
static void watch(struct worker *w)
{
        uint64_t now = now_monotonic_usec(), began = w->shared->attempt_usec, limit = w->limits.attempt_usec;
        uint64_t stop = stop_at(w), next = stop;

        if (limit > 0)
                next = MIN(next, (began > 0 ? began : now) + limit);
        if (now >= next) {
                worker_kill(w, now >= stop ? ERROR_DEADLINE : ERROR_BLOCK_BUSY);
                return;
        }
        if (w->handlers.on_progress) {
                size_t n = worker_n_done(w);
                if (now >= w->progress_usec && n > w->reported) {
                        w->reported = n;
                        w->progress_usec = now + WORKER_PROGRESS_USEC;
                        w->handlers.on_progress(w, n, w->userdata);
                }
                uint64_t look = MAX(w->progress_usec, now + WORKER_PROGRESS_USEC);
                next = MIN(next, look);
        }
        if (next != USEC_INFINITY)
                loop_timer_arm(w->loop, &w->timer, next);
}

static void on_timer(struct loop_timer *timer)
{
        watch(timer->userdata);
}

static void on_child(struct loop_io *io, uint32_t events)
{
        struct worker *w = io->userdata;
        char byte;

        w->was_heard = recv(w->io.fd, &byte, 1, MSG_DONTWAIT) == 1 ? THROUGH : GONE;
        loop_remove(w->loop, &w->io);
        loop_timer_disarm(w->loop, &w->timer);
        w->handlers.on_done(w, w->userdata);
}

struct worker *worker_free(struct worker *w)
{
        if (!w)
                return NULL;
        if (w->loop) {
                loop_remove(w->loop, &w->io);
                loop_timer_disarm(w->loop, &w->timer);
        }
        /* One that was killed may have been through just before. */
        if (w->was_heard == THROUGH && w->killed == ERROR_NONE)
                children_give_back(w->children, w->child);
        else
                children_end(w->children, w->child, w->was_heard == GONE);
        free(w);
        return NULL;
}

static void worker_freep(struct worker **w)
{
        worker_free(*w);
}

int worker_start(struct loop *loop, struct children *children, enum work work, const struct work_item *items,
        size_t n_items, const struct worker_limits *limits, const struct worker_handlers *handlers,
        void *userdata, struct worker **ret)
{
        _cleanup_(worker_freep) struct worker *w = calloc(1, sizeof(*w));

        if (!w)
                return -ENOMEM;
        *w = (struct worker) {
                .children = children,
                .io = { .fd = -1, .on_ready = on_child, .userdata = w },
                .timer = { .on_expired = on_timer, .userdata = w },
                .items = items,
                .n_items = n_items,
                .block_bytes = children_config(children)->block_bytes,
                .limits = *limits,
                .handlers = *handlers,
                .userdata = userdata,
        };
        int r = children_start(children, work, items, n_items, limits, &w->child);
        if (r < 0)
                return r;
        w->shared = &w->child->shared->worker;
        w->io.fd = w->child->fd;

        r = loop_add(loop, &w->io, EPOLLIN);
        if (r < 0)
                return r;
        w->loop = loop;
        w->progress_usec = now_monotonic_usec() + WORKER_PROGRESS_USEC;
        watch(w);
        *ret = steal_pointer(w);
        return 0;
}
