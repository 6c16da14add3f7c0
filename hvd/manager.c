/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns the partitions, the jobs (manager-jobs.c) and the pool. What `define` said is in the store; partitions
 * of files are as the files say. */

#include "hvd/manager-internal.h"

#include <assert.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/domains.h"
#include "hvd/history.h"
#include "hvd/metering.h"
#include "hvd/pool.h"
#include "hvd/record.h"

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

static void drop_partition(struct manager *m, struct partition *p)
{
        manager_end_jobs_of(p);
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
        p->unheard_bytes = 0;
        if (partition_wanted_bytes(p) == 0) {
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
        manager_forget_jobs(m);
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
        struct manager *m = calloc(1, sizeof(*m));
        if (!m)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");

        m->event = sd_event_ref(event);
        m->config = config;
        m->store = store;
        roster_init(&m->partitions);
        TAILQ_INIT(&m->jobs);

        int r = pool_new(&m->pool);
        if (r >= 0)
                r = metering_new(m, &m->metering);
        if (r < 0)
                error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        else {
                history_load(m);
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
