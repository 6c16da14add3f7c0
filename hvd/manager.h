/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "hvd/config.h"
#include "hvd/job.h"
#include "hvd/partition.h"
#include "hvd/roster.h"
#include "hvd/store/store.h"

/* Owns the partitions, the jobs and the pool; the only place where they meet. */
struct manager;

/* How the bus learns of what happens. All are called synchronously; changed ones may come often. */
struct manager_observer {
        void (*partition_added)(struct partition *p, void *userdata);
        void (*partition_removed)(struct partition *p, void *userdata); /* about to be freed */
        void (*partition_changed)(struct partition *p, void *userdata);
        void (*job_added)(struct job *j, void *userdata);
        void (*job_changed)(struct job *j, void *userdata);
        void (*job_ended)(struct job *j, void *userdata);
        void (*job_forgotten)(struct job *j, void *userdata); /* about to be freed */
        void (*pool_changed)(void *userdata);
        void (*policy_decided)(const struct policy_news *news, void *userdata); /* borrowed for the call */
};

#define MANAGER_PARTITIONS_MAX  ROSTER_MAX
#define MANAGER_JOBS_ENDED_KEPT 128U /* readable on the bus after they ended */

/* Takes ownership of config and store. Partitions from both are defined at once. */
int manager_new(sd_event *event, struct config *config, struct store *store, struct manager **ret,
        struct error *ret_error);
struct manager *manager_free(struct manager *m);
/* At most one; NULL removes it. */
void manager_set_observer(struct manager *m, const struct manager_observer *observer, void *userdata);
/* Another configuration: partitions of files come, go and change with it; those of `define` stay. Takes
 * ownership. */
void manager_reconfigure(struct manager *m, struct config *config);

/* Who tells the host's hooks; borrowed, NULL: nobody. */
struct notify;
void manager_set_notify(struct manager *m, struct notify *notify);

/* Who finds libvirt's domains; borrowed, NULL: nobody. */
struct domains;
void manager_set_domains(struct manager *m, struct domains *domains);
struct domains *manager_domains(struct manager *m);
/* Who runs the policy; borrowed, NULL: nobody. */
void manager_set_policy(struct manager *m, struct policy_runner *policy);
struct policy_runner *manager_policy(struct manager *m);
/* A partition for a domain (definition.domain): it is not kept in the store, and goes by manager_release()
 * alone. The errors are those of manager_define(). */
int manager_adopt(struct manager *m, const struct partition_definition *d, struct partition **ret,
        struct error *ret_error);
void manager_release(struct manager *m, struct partition *p);

sd_event *manager_event(struct manager *m);
const struct config *manager_config(struct manager *m);
struct store *manager_store(struct manager *m);

/* Defines and keeps a partition. PARTITION_EXISTS, INVALID_ARGUMENT, LIMIT. */
int manager_define(struct manager *m, const struct partition_definition *d, struct partition **ret,
        struct error *ret_error);
int manager_undefine(struct manager *m, const char *name, struct error *ret_error);
struct partition *manager_find_partition(struct manager *m, const char *name);
/* Iterates in the order of names: NULL begins; NULL ends. */
struct partition *manager_next_partition(struct manager *m, struct partition *after);

/* Checks a request against what is known, and queues it. The job is the manager's. peer: who gets the memory
 * of a move, else NULL. */
int manager_submit(struct manager *m, struct partition *p, struct partition *peer,
        const struct job_request *request, struct job **ret, struct error *ret_error);
struct job *manager_find_job(struct manager *m, uint32_t id);
/* Iterates in the order of ids. */
struct job *manager_next_job(struct manager *m, struct job *after);

/* A profile that is kept, in the place of the one that the partition has. INVALID_ARGUMENT, also for a
 * partition of a file. Not for a domain's: domains_set_profile(). */
int manager_set_profile(struct manager *m, struct partition *p, const struct partition_profile *profile,
        struct error *ret_error);

/* Who wants the partitions' samples, at most one, NULL: nobody. It is told of each when it was taken, from
 * the event loop; what to ask for is said by partition_set_sampling(). */
typedef void (*manager_sampled_t)(struct partition *p, enum sample_cause cause, void *userdata);
void manager_set_sampled(struct manager *m, manager_sampled_t sampled, void *userdata);

struct pool;
struct pool *manager_get_pool(struct manager *m);

/* For partition.c, job.c and pool.c. */
void manager_pool_changed(struct manager *m);
/* Its QEMU has been asked for the first time since it came up. */
void manager_partition_up(struct manager *m, struct partition *p);
void manager_partition_changed(struct manager *m, struct partition *p);
void manager_partition_sampled(struct manager *m, struct partition *p, enum sample_cause cause);
void manager_policy_decided(struct manager *m, const struct policy_news *news);
void manager_job_changed(struct manager *m, struct job *j);
void manager_job_ended(struct manager *m, struct job *j);
void manager_partition_ready(struct manager *m, struct partition *p);
/* Both ends of it have been asked, and manager_partition_ready() was called if it was to be. */
void manager_partition_settled(struct manager *m, struct partition *p);
