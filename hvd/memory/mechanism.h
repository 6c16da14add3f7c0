/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/error.h"
#include "hvd/job.h"

/* How memory is moved: one table for each kind of job that a mechanism carries out. All run on the event
 * loop; each ends by job_finish(), exactly once. */
struct mechanism {
        const char *method; /* as in --method */
        enum job_kind kind;
        /* Refuses what cannot work by what is known now; may be called at any time and changes nothing. */
        int (*check)(const struct partition *p, const struct job_request *request, struct error *ret_error);
        void (*start)(struct job *j);
        /* job->stop was set: end soon, in a known state. May be called twice (cancel, then the deadline). */
        void (*stop)(struct job *j);
        void (*free_work)(struct job *j);
};

extern const struct mechanism mechanism_dimm_add;
extern const struct mechanism mechanism_dimm_remove;
extern const struct mechanism mechanism_restore;

/* UNKNOWN_METHOD names those that there are. */
int mechanism_find(
        enum job_kind kind, const char *method, const struct mechanism **ret, struct error *ret_error);
