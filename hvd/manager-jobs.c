/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns the jobs. A partition has at most one active job; others wait in the order of their ids, their
 * deadlines running. One of two partitions waits until it is the first in both and takes both at once, so
 * that none waits for the other in a ring.
 * Jobs that ended stay in memory until MANAGER_JOBS_ENDED_KEPT newer ones have ended; the store keeps more.
 */

#include "hvd/manager-internal.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/history.h"
#include "hvd/memory/restore.h"
#include "hvd/notify.h"
#include "hvd/pool.h"
#include "hvd/record.h"
#include "hvd/request.h"

#define RESTORE_WAIT_USEC (60 * USEC_PER_SEC)

struct job *manager_find_job(struct manager *m, uint32_t id)
{
        struct job *j;

        TAILQ_FOREACH (j, &m->jobs, entry)
                if (j->id == id)
                        return j;
        return NULL;
}

struct job *manager_next_job(struct manager *m, struct job *after)
{
        return after ? TAILQ_NEXT(after, entry) : TAILQ_FIRST(&m->jobs);
}

void manager_job_changed(struct manager *m, struct job *j)
{
        record_transitions(m->store, j);
        NOTIFY(m, job_changed, j);
}

/* It is of its partitions until it has ended. */
static void join_partitions(struct job *j)
{
        j->link.job = j->peer_link.job = j;
        TAILQ_INSERT_TAIL(&j->partition->jobs, &j->link, entry);
        if (j->peer)
                TAILQ_INSERT_TAIL(&j->peer->jobs, &j->peer_link, entry);
}

static void leave_partitions(struct job *j)
{
        if (j->partition)
                TAILQ_REMOVE(&j->partition->jobs, &j->link, entry);
        if (j->peer)
                TAILQ_REMOVE(&j->peer->jobs, &j->peer_link, entry);
}

static void forget_job(struct manager *m, struct job *j)
{
        if (j->ended_usec)
                m->n_ended--;
        NOTIFY(m, job_forgotten, j);
        leave_partitions(j);
        TAILQ_REMOVE(&m->jobs, j, entry);
        job_free(j);
}

/* By the time of their end, not by id: one that took long must not be gone in the moment in which it ends. */
static void trim_jobs(struct manager *m)
{
        while (m->n_ended > MANAGER_JOBS_ENDED_KEPT) {
                struct job *j, *oldest = NULL;

                TAILQ_FOREACH (j, &m->jobs, entry)
                        if (j->ended_usec && (!oldest || j->ended_usec < oldest->ended_usec))
                                oldest = j;
                forget_job(m, oldest);
        }
}

/* It waits for its turn. Who waits for the end of an interrupted job has none: what makes whole goes first.
 */
static bool is_queued(const struct job *j)
{
        return j->state == JOB_QUEUED && j->stop == JOB_STOP_NO &&
               (j->request.kind == JOB_RESTORE_MEMORY || j->request.dry_run || !history_holds(j->manager, j));
}

/* The one that is next in a partition that is free, or NULL. What makes whole does not wait behind one that
 * waits for another partition. */
static struct job *next_of(const struct partition *p)
{
        const struct job_link *link;
        struct job *next = NULL;

        if (p->active || p->is_leaving)
                return NULL;
        TAILQ_FOREACH (link, &p->jobs, entry) {
                if (!is_queued(link->job))
                        continue;
                if (link->job->request.kind == JOB_RESTORE_MEMORY)
                        return link->job;
                next = next ?: link->job;
        }
        return next;
}

/* Whether nothing that came earlier is to be done with any of its partitions. */
static bool is_first(const struct job *j)
{
        return next_of(j->partition) == j && (!j->peer || next_of(j->peer) == j);
}

static void take(struct partition *p, struct job *j)
{
        p->active = j;
        p->settled_bytes = partition_current_bytes(p);
}

static void start_next_job(struct manager *m, struct partition *p)
{
        struct job *j = p ? next_of(p) : NULL;

        if (!j || !is_first(j))
                return;
        take(j->partition, j);
        j->before_bytes = partition_current_bytes(j->partition);
        record_boot(j->partition, j->boot);
        if (j->peer) {
                take(j->peer, j);
                j->peer_before_bytes = partition_current_bytes(j->peer);
                record_boot(j->peer, j->peer_boot);
        }
        record_job(m->store, j);
        j->waiting[0] = '\0';
        j->mechanism = request_mechanism(j->partition, &j->request);
        j->announced = true;
        notify_job(m->notify, j, HOOK_BEGIN);
        job_start(j);
}

/* A guest can cause restore jobs at will: of each partition only the last one is kept, so that they do not
 * push out what operators asked for. */
static void forget_restore_before(struct manager *m, const struct job *j)
{
        struct job *old;

        TAILQ_FOREACH (old, &m->jobs, entry)
                if (old != j && old->ended_usec && old->request.kind == JOB_RESTORE_MEMORY &&
                        strcmp(old->partition_name, j->partition_name) == 0) {
                        forget_job(m, old);
                        return;
                }
}

/* The partition is at rest again. */
static void let_go(struct partition *p, const struct job *j)
{
        if (!p || p->active != j)
                return;
        p->active = NULL;
        /* A job that did not go as planned may have left something half done. A restore that failed is not
         * repeated before something changes; one that went well may have been early. A job that ended with a
         * look at both ends leaves nothing to be asked for at once. */
        if (j->request.kind == JOB_RESTORE_MEMORY)
                partition_settle_soon(p, j->state == JOB_DONE && j->done_bytes > 0);
        else if (j->looked && j->state == JOB_DONE && j->n_reasons == 0)
                partition_settle_after_job(p);
        else
                partition_settle(p, (j->state != JOB_DONE || j->n_reasons > 0) && !j->request.dry_run);
}

static void keep_ended(struct manager *m, struct job *j)
{
        struct error error;

        m->n_ended++;
        record_job(m->store, j);
        NOTIFY(m, job_ended, j);
        if (store_jobs_trim(m->store, m->config->jobs_kept, &error) < 0)
                log_warning("Old jobs could not be dropped from the store: %s", error.message);
}

void manager_job_ended(struct manager *m, struct job *j)
{
        struct partition *p = j->partition, *peer = j->peer;

        if (j->request.kind == JOB_RESTORE_MEMORY)
                forget_restore_before(m, j);
        keep_ended(m, j);
        if (j->announced)
                notify_job(m->notify, j, HOOK_END);

        record_kept_after(m->store, p, j);
        record_kept_after(m->store, peer, j);
        leave_partitions(j);
        j->partition = j->peer = NULL;
        let_go(p, j);
        let_go(peer, j);
        start_next_job(m, p);
        start_next_job(m, peer);
        pool_job_ended(m, j);
        policy_runner_job_ended(m->policy, j, p, peer);
        NOTIFY(m, pool_changed);
        trim_jobs(m);
}

void manager_interrupted_ended(struct manager *m, struct job *j, bool has_begun)
{
        struct partition *p = manager_find_partition(m, j->partition_name);
        struct partition *peer = j->peer_name[0] ? manager_find_partition(m, j->peer_name) : NULL;

        j->is_interrupted = false;
        m->n_interrupted--;
        keep_ended(m, j);
        if (has_begun)
                notify_job(m->notify, j, HOOK_END);
        trim_jobs(m);
        /* What they are asked to have may be another now, and who waited may begin. */
        if (p)
                manager_partition_changed(m, p);
        if (peer)
                manager_partition_changed(m, peer);
        start_next_job(m, p);
        start_next_job(m, peer);
}

void manager_end_jobs_of(struct partition *p)
{
        struct error error;

        error_set(&error, ERROR_CANCELLED, "The partition was undefined");
        p->active = NULL;
        p->is_leaving = true;
        history_drop(p->manager, p);
        while (!TAILQ_EMPTY(&p->jobs))
                job_abort(TAILQ_FIRST(&p->jobs)->job, &error);
}

static int submit(struct manager *m, struct partition *p, struct partition *peer,
        const struct job_request *request, struct job **ret, struct error *ret_error)
{
        uint32_t id;
        struct job *j;
        int r = store_job_next_id(m->store, &id, ret_error);
        if (r < 0)
                return r;
        if (r > 0)
                log_warning("%s. Jobs go on without being stored", ret_error->message);
        r = job_new(m, p, id, request, &j);
        if (r < 0)
                return error_set_errno(ret_error, ERROR_INTERNAL, r, "The job could not be made");
        j->peer = peer;
        if (peer)
                snprintf(j->peer_name, sizeof(j->peer_name), "%s", peer->definition.name);
        TAILQ_INSERT_TAIL(&m->jobs, j, entry);
        join_partitions(j);
        if (!is_queued(j))
                snprintf(j->waiting, sizeof(j->waiting),
                        "what hvd was at before it was restarted has to end first");
        NOTIFY(m, job_added, j);
        start_next_job(m, p);
        if (j->state == JOB_QUEUED)
                record_job(m->store, j);
        if (ret)
                *ret = j;
        return 0;
}

int manager_submit(struct manager *m, struct partition *p, struct partition *peer,
        const struct job_request *request, struct job **ret, struct error *ret_error)
{
        struct job_request complete = *request;
        const struct job_link *link;
        size_t n_queued = 0;

        int r = request_check(p, peer, &complete, ret_error);
        if (r < 0)
                return r;
        TAILQ_FOREACH (link, &p->jobs, entry)
                n_queued += link->job->state == JOB_QUEUED;
        if (peer)
                TAILQ_FOREACH (link, &peer->jobs, entry)
                        n_queued += link->job->state == JOB_QUEUED && !job_concerns(link->job, p);
        if (n_queued >= m->config->jobs_queued)
                return error_set(ret_error, ERROR_BUSY, "Partition '%s' has %zu jobs waiting already",
                        p->definition.name, n_queued);
        return submit(m, p, peer, &complete, ret, ret_error);
}

void manager_partition_ready(struct manager *m, struct partition *p)
{
        struct job_request request = {
                .kind = JOB_RESTORE_MEMORY, .node = -1, .wait_usec = RESTORE_WAIT_USEC
        };
        struct error error;

        /* A job under way has things half done by intention: asked again with what follows its end. */
        if (p->active) {
                p->settle_restore = true;
                return;
        }
        if (!restore_is_due(p, &request.bytes)) {
                /* The guest's next word about its blocks asks again. */
                p->settle_restore = restore_is_awaited(p);
                return;
        }
        if (submit(m, p, NULL, &request, NULL, &error) < 0)
                log_warning("Partition '%s' could not be restored: %s", p->definition.name, error.message);
}

void manager_partition_settled(struct manager *m, struct partition *p)
{
        history_settle(m, p);
}

void manager_forget_jobs(struct manager *m)
{
        while (!TAILQ_EMPTY(&m->jobs))
                forget_job(m, TAILQ_FIRST(&m->jobs));
}
