/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Threads for libvirt's calls: they are synchronous, and a domain's own lock alone may take 30 s.
 *
 * Two lists under one lock: what waits for a thread, and what waits for the loop (finished calls, and news
 * from other threads). An eventfd wakes the loop. With one thread calls keep their order: whoever asks for a
 * list behind an attachment gets one with the device in it. */

#include "hvd/platform/libvirt-worker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/log.h"

STAILQ_HEAD(task_list, worker_task);

struct worker {
        pthread_t threads[WORKER_THREADS_MAX];
        unsigned n_threads;
        pthread_mutex_t lock;
        pthread_cond_t wake;
        struct task_list waiting, finished; /* under the lock, as is all to stopping */
        unsigned n_waiting, n_news;
        bool missed, stopping;
        int fd;
        sd_event_source *io;
};

static void ring(struct worker *w)
{
        eventfd_write(w->fd, 1);
}

static void *work(void *userdata)
{
        struct worker *w = userdata;

        pthread_mutex_lock(&w->lock);
        while (!w->stopping) {
                struct worker_task *t = STAILQ_FIRST(&w->waiting);

                if (!t) {
                        pthread_cond_wait(&w->wake, &w->lock);
                        continue;
                }
                STAILQ_REMOVE_HEAD(&w->waiting, entry);
                w->n_waiting--;
                pthread_mutex_unlock(&w->lock);
                t->run(t);
                pthread_mutex_lock(&w->lock);
                STAILQ_INSERT_TAIL(&w->finished, t, entry);
                ring(w);
        }
        pthread_mutex_unlock(&w->lock);
        return NULL;
}

static int on_ring(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        struct worker *w = userdata;
        struct task_list finished = STAILQ_HEAD_INITIALIZER(finished);
        struct worker_task *t;
        eventfd_t count;

        eventfd_read(fd, &count);
        pthread_mutex_lock(&w->lock);
        STAILQ_CONCAT(&finished, &w->finished);
        w->n_news = 0;
        pthread_mutex_unlock(&w->lock);
        while ((t = STAILQ_FIRST(&finished))) {
                STAILQ_REMOVE_HEAD(&finished, entry);
                t->done(t);
                t->free(t);
        }
        return 0;
}

int worker_push(struct worker *w, struct worker_task *t)
{
        int r = 0;

        pthread_mutex_lock(&w->lock);
        if (w->n_waiting >= WORKER_TASKS_MAX)
                r = -EBUSY;
        else {
                STAILQ_INSERT_TAIL(&w->waiting, t, entry);
                w->n_waiting++;
                pthread_cond_signal(&w->wake);
        }
        pthread_mutex_unlock(&w->lock);
        return r;
}

int worker_post(struct worker *w, struct worker_task *t)
{
        int r = 0;

        pthread_mutex_lock(&w->lock);
        if (w->n_news >= WORKER_NEWS_MAX) {
                w->missed = true;
                r = -EBUSY;
        } else {
                STAILQ_INSERT_TAIL(&w->finished, t, entry);
                w->n_news++;
        }
        pthread_mutex_unlock(&w->lock);
        ring(w);
        return r;
}

bool worker_missed(struct worker *w)
{
        pthread_mutex_lock(&w->lock);
        bool missed = w->missed;
        w->missed = false;
        pthread_mutex_unlock(&w->lock);
        return missed;
}

static void drop(struct task_list *list)
{
        struct worker_task *t;

        while ((t = STAILQ_FIRST(list))) {
                STAILQ_REMOVE_HEAD(list, entry);
                t->free(t);
        }
}

bool worker_free(struct worker *w)
{
        struct timespec limit;

        if (!w)
                return true;
        pthread_mutex_lock(&w->lock);
        w->stopping = true;
        pthread_cond_broadcast(&w->wake);
        pthread_mutex_unlock(&w->lock);
        clock_gettime(CLOCK_MONOTONIC, &limit);
        limit.tv_sec += 1;
        sd_event_source_disable_unref(w->io);
        w->io = NULL;
        for (unsigned i = 0; i < w->n_threads; i++)
                if (pthread_clockjoin_np(w->threads[i], NULL, CLOCK_MONOTONIC, &limit) != 0) {
                        log_debug("A call to libvirt does not end; leaving it to the end of this process");
                        return false;
                }
        drop(&w->waiting);
        drop(&w->finished);
        close_fd(w->fd);
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->lock);
        free(w);
        return true;
}

int worker_new(sd_event *event, unsigned n_threads, struct worker **ret)
{
        struct worker *w = calloc(1, sizeof(*w));
        sigset_t all, before;

        if (!w)
                return -ENOMEM;
        STAILQ_INIT(&w->waiting);
        STAILQ_INIT(&w->finished);
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->wake, NULL);
        w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        int r = w->fd < 0 ? -errno : sd_event_add_io(event, &w->io, w->fd, EPOLLIN, on_ring, w);
        /* Signals are the loop's. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        while (r >= 0 && w->n_threads < MIN(n_threads, WORKER_THREADS_MAX)) {
                r = -pthread_create(&w->threads[w->n_threads], NULL, work, w);
                w->n_threads += r >= 0;
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r < 0) {
                worker_free(w);
                return r;
        }
        *ret = w;
        return 0;
}
