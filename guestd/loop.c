/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns the epoll descriptor and the list of armed timers.
 *
 * guestd does not use sd-event as the rest of the project does, for its size alone: guestd is locked in
 * memory, and libsystemd with what it pulls in takes 6.2 MiB there, against 2.7 MiB for libudev, json-c and
 * libc. The bar is 4 MiB in all.
 *
 * Invariants: timers are sorted by time; an entry of ready[] whose io was removed has no pointer any more;
 * timers are looked at after every batch, so that a peer who keeps a descriptor ready cannot hold up a
 * deadline. */

#include "guestd/loop.h"

#include <limits.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"

int loop_init(struct loop *loop)
{
        *loop = (struct loop) { .epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
        return loop->epoll_fd < 0 ? -errno : 0;
}

void loop_done(struct loop *loop)
{
        loop->epoll_fd = close_fd(loop->epoll_fd);
        loop->timers = NULL;
        loop->n_ready = 0;
}

int loop_add(struct loop *loop, struct loop_io *io, uint32_t events)
{
        struct epoll_event e = { .events = events, .data.ptr = io };

        return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, io->fd, &e) < 0 ? -errno : 0;
}

void loop_remove(struct loop *loop, struct loop_io *io)
{
        if (io->fd >= 0)
                epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, io->fd, NULL);
        for (int i = 0; i < loop->n_ready; i++)
                if (loop->ready[i].data.ptr == io)
                        loop->ready[i].data.ptr = NULL;
}

void loop_timer_disarm(struct loop *loop, struct loop_timer *timer)
{
        for (struct loop_timer **p = &loop->timers; *p; p = &(*p)->next)
                if (*p == timer) {
                        *p = timer->next;
                        break;
                }
        timer->next = NULL;
        timer->armed = false;
}

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t at_usec)
{
        struct loop_timer **p = &loop->timers;

        loop_timer_disarm(loop, timer);
        timer->at_usec = at_usec;
        timer->armed = true;
        while (*p && (*p)->at_usec <= at_usec)
                p = &(*p)->next;
        timer->next = *p;
        *p = timer;
}

static int wait_msec(struct loop *loop, int max_wait_msec)
{
        if (!loop->timers)
                return max_wait_msec;

        uint64_t now = now_monotonic_usec(), at = loop->timers->at_usec;
        uint64_t msec = at > now ? (at - now + USEC_PER_MSEC - 1) / USEC_PER_MSEC : 0;
        if (max_wait_msec >= 0)
                msec = MIN(msec, (uint64_t)max_wait_msec);
        return (int)MIN(msec, (uint64_t)INT_MAX);
}

static void run_timers(struct loop *loop)
{
        uint64_t now = now_monotonic_usec();

        /* `now` is taken once: a timer that arms itself anew for "at once" waits for the next batch. */
        while (loop->timers && loop->timers->at_usec < now && !loop->quit) {
                struct loop_timer *t = loop->timers;

                loop_timer_disarm(loop, t);
                t->on_expired(t);
        }
}

int loop_run_once(struct loop *loop, int max_wait_msec)
{
        int n = epoll_wait(loop->epoll_fd, loop->ready, LOOP_BATCH, wait_msec(loop, max_wait_msec));
        if (n < 0)
                return errno == EINTR ? 0 : -errno;

        loop->n_ready = n;
        for (int i = 0; i < n && !loop->quit; i++) {
                struct loop_io *io = loop->ready[i].data.ptr;

                loop->ready[i].data.ptr = NULL;
                if (io)
                        io->on_ready(io, loop->ready[i].events);
        }
        loop->n_ready = 0;
        run_timers(loop);
        return 0;
}

int loop_run(struct loop *loop)
{
        while (!loop->quit) {
                int r = loop_run_once(loop, -1);
                if (r < 0)
                        return r;
        }
        return 0;
}

void loop_quit(struct loop *loop)
{
        loop->quit = true;
}
