/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/manager.h"
#include "hvd/roster.h"

/* What manager.c and manager-jobs.c share. */

struct manager {
        sd_event *event;
        struct config *config;
        struct store *store;
        struct roster partitions;
        TAILQ_HEAD(job_list, job) jobs; /* by id */
        unsigned n_ended;
        unsigned n_interrupted; /* that are not over */
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

/* The partition goes: its jobs end at once, with what they have done so far. */
void manager_end_jobs_of(struct partition *p);
void manager_forget_jobs(struct manager *m);
/* An interrupted job is over. */
void manager_interrupted_ended(struct manager *m, struct job *j, bool has_begun);
