/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>

/* A few threads for calls that may block, with one queue. Everything here is for the event loop's thread, but
 * run(), which is the worker's, and worker_post(). */
struct worker;

#define WORKER_THREADS_MAX 4U
#define WORKER_TASKS_MAX   512U /* waiting for the worker */
#define WORKER_NEWS_MAX    1024U

/* Embedded in what a call needs. A task belongs to the worker from push or post on, until done() was called
 * or, if the worker goes first, until free(). */
struct worker_task {
        STAILQ_ENTRY(worker_task) entry;
        void (*run)(struct worker_task *t);  /* on the worker; may block */
        void (*done)(struct worker_task *t); /* on the loop */
        void (*free)(struct worker_task *t); /* on the loop */
};

/* With one thread calls are carried out in the order in which they were pushed. */
int worker_new(sd_event *event, unsigned n_threads, struct worker **ret);
/* Waits for at most a second for a call under way. False: one hangs, and is left to the end of the process;
 * what its task needs must stay. */
bool worker_free(struct worker *w);

/* Queues a call. -EBUSY beyond WORKER_TASKS_MAX: the task is still the caller's. */
int worker_push(struct worker *w, struct worker_task *t);
/* From any thread: done() and free() are called on the loop, without run(). -EBUSY beyond WORKER_NEWS_MAX:
 * then worker_missed() is true once. */
int worker_post(struct worker *w, struct worker_task *t);
bool worker_missed(struct worker *w);
