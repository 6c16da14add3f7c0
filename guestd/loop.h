/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

/* An event loop on epoll: file descriptors and one-shot timers, both embedded in their owners. Nothing is
 * allocated and nothing wakes up by itself. */
#define LOOP_BATCH 8

struct loop_io {
        int fd;
        void (*on_ready)(struct loop_io *io, uint32_t events);
        void *userdata;
};

struct loop_timer {
        void (*on_expired)(struct loop_timer *timer);
        void *userdata;
        uint64_t at_usec; /* CLOCK_MONOTONIC */
        bool armed;
        struct loop_timer *next;
};

struct loop {
        int epoll_fd;
        struct loop_timer *timers; /* armed ones, soonest first */
        struct epoll_event ready[LOOP_BATCH];
        int n_ready;
        bool quit;
};

int loop_init(struct loop *loop);
void loop_done(struct loop *loop);

/* Watches io->fd; io must stay where it is until loop_remove(). The fd remains the caller's. */
int loop_add(struct loop *loop, struct loop_io *io, uint32_t events);
/* Allowed at any time, also from callbacks: no callback comes afterwards. Not watched is fine. */
void loop_remove(struct loop *loop, struct loop_io *io);

/* Arms or moves a timer; it fires once. */
void loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t at_usec);
void loop_timer_disarm(struct loop *loop, struct loop_timer *timer);

/* Waits for one batch and dispatches it, and then the timers that are due; returns after at most
 * max_wait_msec
 * (-1: no limit) even if nothing came. 0 or -errno. */
int loop_run_once(struct loop *loop, int max_wait_msec);
/* Until loop_quit(). */
int loop_run(struct loop *loop);
void loop_quit(struct loop *loop);
