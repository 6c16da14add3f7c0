/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns the partitions, the jobs and the pool.
 *
 * A partition has at most one active job; others wait in the order of their ids, their deadlines running. One
 * of two partitions waits until it is the first in both and takes both at once, so that none waits for the
 * other in a ring.
 * Jobs that ended stay in memory until MANAGER_JOBS_ENDED_KEPT newer ones have ended; the store keeps more.
 * What `define` said is in the store; partitions of files are as the files say. */

#include "hvd/manager.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/domains.h"
#include "hvd/memory/restore.h"
#include "hvd/metering.h"
#include "hvd/notify.h"
#include "hvd/pool.h"
#include "hvd/record.h"
#include "hvd/request.h"

#define RESTORE_WAIT_USEC (60 * USEC_PER_SEC)

struct manager {
        sd_event *event;
        struct config *config;
        struct store *store;
        struct roster partitions;
        TAILQ_HEAD(job_list, job) jobs; /* by id */
        unsigned n_ended;
        const struct manager_observer *observer;
        void *observer_userdata;
        struct pool *pool;
        struct metering *metering;
        struct notify *notify;
        struct domains *domains;
        struct policy_runner *policy;
        manager_sampled_t sampled;
        void *sampled_userdata;
};

#define NOTIFY(m, what, ...)                                                                                 \
        do {                                                                                                 \
                if ((m)->observer)                                                                           \
                        (m)->observer->what(__VA_ARGS__ __VA_OPT__(, )(m)->observer_userdata);               \
        } while (0)

/* --- partitions --- */

struct partition *manager_find_partition(struct manager *m, const char *name)
{
        return roster_find(&m->partitions, name);
}

struct partition *manager_next_partition(struct manager *m, struct partition *after)
{
        return roster_next(&m->partitions, after);
}

/* A socket serves one client: two partitions on one would take turns and both see a stranger's guest. */
static int check_sockets(struct manager *m, const struct partition_definition *d, struct error *ret_error)
{
        struct partition *p = NULL;

        while ((p = manager_next_partition(m, p)))
                if ((d->qmp_path[0] && strcmp(p->definition.qmp_path, d->qmp_path) == 0) ||
                        (d->channel_path[0] && strcmp(p->definition.channel_path, d->channel_path) == 0))
                        return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                                "Partition '%s' already uses one of these sockets; each guest needs its own",
                                p->definition.name);
        return 0;
}

static int add_partition(struct manager *m, const struct partition_definition *d, bool from_file,
        struct partition **ret, struct error *ret_error)
{
        struct partition *p;
        int r = partition_definition_check(d, ret_error);
        if (r < 0)
                return r;
        if (manager_find_partition(m, d->name))
                return error_set(ret_error, ERROR_PARTITION_EXISTS,
                        "Partition '%s' is already defined; undefine it first to define it anew", d->name);
        if (m->partitions.n >= MANAGER_PARTITIONS_MAX)
                return error_set(ret_error, ERROR_LIMIT,
                        "There are %u partitions already, which is the limit", MANAGER_PARTITIONS_MAX);
        r = check_sockets(m, d, ret_error);
        if (r < 0)
                return r;
        r = partition_new(m, m->event, d, &p, ret_error);
        if (r < 0)
                return r;
        p->from_file = from_file;
        r = store_kept_get(m->store, d->name, &p->kept_bytes, ret_error);
        if (r >= 0)
                r = store_owed_get(m->store, d->name, &p->balloon_owed_bytes, ret_error);
        if (r < 0) {
                partition_free(p);
                return r;
        }
        p->balloon_unheard = p->balloon_owed_bytes > 0; /* since the reset, as far as is known */

        roster_insert(&m->partitions, p);
        policy_runner_partition_added(m->policy, p);
        NOTIFY(m, partition_added, p);
        if (ret)
                *ret = p;
        return 0;
}

static void end_jobs_of(struct partition *p);

static void drop_partition(struct manager *m, struct partition *p)
{
        end_jobs_of(p);
        metering_keep(p);
        NOTIFY(m, partition_removed, p);
        roster_remove(&m->partitions, p);
        partition_free(p);
        policy_runner_partition_removed(m->policy);
        manager_pool_changed(m);
}

int manager_define(struct manager *m, const struct partition_definition *d, struct partition **ret,
        struct error *ret_error)
{
        struct partition *p;
        int r = add_partition(m, d, false, &p, ret_error);
        if (r < 0)
                return r;
        r = store_partition_put(m->store, d, ret_error);
        if (r < 0) {
                drop_partition(m, p);
                return r;
        }
        *ret = p;
        return 0;
}

int manager_adopt(struct manager *m, const struct partition_definition *d, struct partition **ret,
        struct error *ret_error)
{
        return add_partition(m, d, false, ret, ret_error);
}

void manager_release(struct manager *m, struct partition *p)
{
        drop_partition(m, p);
}

int manager_undefine(struct manager *m, const char *name, struct error *ret_error)
{
        struct partition *p = manager_find_partition(m, name);

        if (!p)
                return error_set(ret_error, ERROR_UNKNOWN_PARTITION, "There is no partition '%s'", name);
        if (p->from_file)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Partition '%s' is defined by a file in partitions.d; remove the file and reload hvd",
                        name);
        if (p->definition.domain[0])
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Partition '%s' is a domain of libvirt's, and hvd finds it by its channel; take the "
                        "channel " DOMAIN_CHANNEL " out of its definition",
                        name);
        int r = store_partition_delete(m->store, name, ret_error);
        if (r < 0)
                return r;
        drop_partition(m, p);
        return 0;
}

void manager_partition_changed(struct manager *m, struct partition *p)
{
        metering_note(p);
        NOTIFY(m, partition_changed, p);
        policy_runner_partition_changed(m->policy, p);
        manager_pool_changed(m);
}

/* A QEMU that has nothing but what it was started with has just been started: what was asked for of the one
 * before went with it. */
void manager_partition_up(struct manager *m, struct partition *p)
{
        const struct platform_snapshot *s = &p->snapshot;
        uint64_t wanted_bytes = s->plugged_bytes + s->balloon_bytes;

        for (size_t i = 0; i < s->n_devices; i++)
                wanted_bytes += s->devices[i].requested_bytes;
        if (wanted_bytes == 0) {
                record_kept(m->store, p, 0);
                record_owed(m->store, p, 0);
        }
        pool_partition_up(m, p);
}

int manager_set_profile(struct manager *m, struct partition *p, const struct partition_profile *profile,
        struct error *ret_error)
{
        struct partition_definition d = p->definition;

        assert(!d.domain[0]);
        if (p->from_file)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Partition '%s' is defined by a file in partitions.d; change the profile there and "
                        "reload hvd",
                        d.name);
        d.profile = *profile;
        int r = partition_definition_check(&d, ret_error);
        if (r >= 0)
                r = store_partition_put(m->store, &d, ret_error);
        if (r < 0)
                return r;
        p->definition.profile = *profile;
        manager_partition_changed(m, p);
        return 0;
}

/* --- jobs --- */

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

static bool is_queued(const struct job *j)
{
        return j->state == JOB_QUEUED && j->stop == JOB_STOP_NO;
}

static bool is_first_of(const struct partition *p, const struct job *j)
{
        const struct job_link *link;

        if (p->active || p->is_leaving)
                return false;
        TAILQ_FOREACH (link, &p->jobs, entry) {
                if (link->job == j)
                        return true;
                if (is_queued(link->job))
                        return false;
        }
        return true;
}

/* Whether nothing that came earlier is to be done with any of its partitions. */
static bool is_first(const struct job *j)
{
        return is_first_of(j->partition, j) && (!j->peer || is_first_of(j->peer, j));
}

static void take(struct partition *p, struct job *j)
{
        p->active = j;
        p->settled_bytes = partition_current_bytes(p);
}

static void start_next_job(struct manager *m, struct partition *p)
{
        struct job_link *link;

        if (!p || p->active || p->is_leaving)
                return;
        TAILQ_FOREACH (link, &p->jobs, entry)
                if (is_queued(link->job))
                        break;
        struct job *j = link ? link->job : NULL;
        if (!j || !is_first(j))
                return;
        take(j->partition, j);
        if (j->peer)
                take(j->peer, j);
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
         * repeated before something changes; one that went well may have been early. */
        if (j->request.kind == JOB_RESTORE_MEMORY)
                partition_settle_soon(p, j->state == JOB_DONE && j->done_bytes > 0);
        else
                partition_settle(p, (j->state != JOB_DONE || j->n_reasons > 0) && !j->request.dry_run);
}

void manager_job_ended(struct manager *m, struct job *j)
{
        struct partition *p = j->partition, *peer = j->peer;
        struct error error;

        m->n_ended++;
        if (j->request.kind == JOB_RESTORE_MEMORY)
                forget_restore_before(m, j);
        record_job(m->store, j);
        NOTIFY(m, job_ended, j);
        if (store_jobs_trim(m->store, m->config->jobs_kept, &error) < 0)
                log_warning("Old jobs could not be dropped from the store: %s", error.message);
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

/* The partition goes: its jobs end at once, as they are. */
static void end_jobs_of(struct partition *p)
{
        struct error error;

        error_set(&error, ERROR_CANCELLED, "The partition was undefined");
        p->active = NULL;
        p->is_leaving = true;
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
        record_job(m->store, j);
        NOTIFY(m, job_added, j);
        start_next_job(m, p);
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

/* --- the pool --- */

struct pool *manager_get_pool(struct manager *m)
{
        return m->pool;
}

void manager_pool_changed(struct manager *m)
{
        if (m->pool)
                pool_changed(m);
        NOTIFY(m, pool_changed);
}

/* --- configuration --- */

static bool same_sockets(const struct partition_definition *a, const struct partition_definition *b)
{
        return strcmp(a->qmp_path, b->qmp_path) == 0 && strcmp(a->channel_path, b->channel_path) == 0;
}

static const struct partition_definition *find_definition(const struct config *c, const char *name)
{
        for (size_t i = 0; i < c->n_partitions; i++)
                if (strcmp(c->partitions[i].name, name) == 0)
                        return &c->partitions[i];
        return NULL;
}

static void take_partitions(struct manager *m)
{
        struct partition *p, *next;
        struct error error;

        for (p = roster_next(&m->partitions, NULL); p; p = next) {
                const struct partition_definition *d = find_definition(m->config, p->definition.name);

                next = roster_next(&m->partitions, p);
                if (!p->from_file)
                        continue;
                if (!d || !same_sockets(d, &p->definition))
                        drop_partition(m, p);
                else {
                        p->definition.profile = d->profile;
                        manager_partition_changed(m, p);
                }
        }
        for (size_t i = 0; i < m->config->n_partitions; i++) {
                const struct partition_definition *d = &m->config->partitions[i];

                p = manager_find_partition(m, d->name);
                if (p && p->from_file)
                        continue;
                if (add_partition(m, d, true, NULL, &error) < 0)
                        log_error("partitions.d: %s", error.message);
        }
}

void manager_reconfigure(struct manager *m, struct config *config)
{
        config_free(m->config);
        m->config = config;
        take_partitions(m);
        if (m->domains)
                domains_configure(m->domains);
        policy_runner_reconfigured(m->policy);
        manager_pool_changed(m);
}

void manager_set_domains(struct manager *m, struct domains *domains)
{
        m->domains = domains;
}

struct domains *manager_domains(struct manager *m)
{
        return m->domains;
}

void manager_set_policy(struct manager *m, struct policy_runner *policy)
{
        m->policy = policy;
}

struct policy_runner *manager_policy(struct manager *m)
{
        return m->policy;
}

void manager_policy_decided(struct manager *m, const struct policy_news *news)
{
        NOTIFY(m, policy_decided, news);
}

struct store *manager_store(struct manager *m)
{
        return m->store;
}

sd_event *manager_event(struct manager *m)
{
        return m->event;
}

const struct config *manager_config(struct manager *m)
{
        return m->config;
}

/* --- life --- */

void manager_set_observer(struct manager *m, const struct manager_observer *observer, void *userdata)
{
        m->observer = observer;
        m->observer_userdata = userdata;
}

void manager_set_sampled(struct manager *m, manager_sampled_t sampled, void *userdata)
{
        m->sampled = sampled;
        m->sampled_userdata = userdata;
}

void manager_partition_sampled(struct manager *m, struct partition *p, enum sample_cause cause)
{
        manager_partition_changed(m, p);
        if (m->sampled)
                m->sampled(p, cause, m->sampled_userdata);
}

void manager_set_notify(struct manager *m, struct notify *notify)
{
        m->notify = notify;
}

static int on_stored_partition(const struct partition_definition *d, void *userdata)
{
        struct manager *m = userdata;
        struct error error;

        if (add_partition(m, d, false, NULL, &error) < 0)
                log_error(
                        "Partition '%s', which was defined before, is left out: %s", d->name, error.message);
        return 0;
}

struct manager *manager_free(struct manager *m)
{
        struct partition *p;

        if (!m)
                return NULL;
        m->observer = NULL;
        m->metering = metering_free(m->metering);
        m->pool = pool_free(m->pool);
        while (!TAILQ_EMPTY(&m->jobs))
                forget_job(m, TAILQ_FIRST(&m->jobs));
        while ((p = roster_next(&m->partitions, NULL))) {
                roster_remove(&m->partitions, p);
                partition_free(p);
        }
        config_free(m->config);
        store_free(m->store);
        sd_event_unref(m->event);
        free(m);
        return NULL;
}

int manager_new(sd_event *event, struct config *config, struct store *store, struct manager **ret,
        struct error *ret_error)
{
        struct timespec now;
        struct manager *m = calloc(1, sizeof(*m));
        if (!m)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");

        m->event = sd_event_ref(event);
        m->config = config;
        m->store = store;
        roster_init(&m->partitions);
        TAILQ_INIT(&m->jobs);

        clock_gettime(CLOCK_REALTIME, &now);
        uint64_t now_usec = (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / 1000;
        int r = pool_new(&m->pool);
        if (r >= 0)
                r = metering_new(m, &m->metering);
        if (r < 0)
                error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        else {
                record_interruption(store, now_usec);
                pool_restore(m);
        }
        if (r >= 0)
                take_partitions(m);
        if (r >= 0)
                r = store_partition_foreach(store, on_stored_partition, m, ret_error);
        if (r < 0) {
                manager_free(m);
                return r;
        }
        *ret = m;
        return 0;
}
