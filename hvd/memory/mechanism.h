/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/error.h"
#include "hvd/job.h"

/* How memory is moved: one table for each kind of job that a mechanism carries out. All run on the event
 * loop; each ends by job_finish(), exactly once. */
struct mechanism {
        const char *method;         /* as in --method */
        const char *pseries_method; /* the name that it has there instead, or NULL */
        enum job_kind kind;
        /* Refuses what cannot work by what is known now; may be called at any time and changes nothing. */
        int (*check)(const struct partition *p, const struct job_request *request, struct error *ret_error);
        /* The most that it could move for this request (whose size does not matter) by what is known now, in
         * whole units of *ret_unit_bytes; 0: nothing. NULL: it takes no part where the method is auto. */
        uint64_t (*room)(
                const struct partition *p, const struct job_request *request, uint64_t *ret_unit_bytes);
        void (*start)(struct job *j);
        /* job->stop was set: end soon, in a known state. May be called twice (cancel, then the deadline). */
        void (*stop)(struct job *j);
        void (*free_work)(struct job *j);
        /* QEMU said that a memory device of the partition, or its balloon, has another size now (the snapshot
         * has it): look. At most a few times a second. NULL: it does not care. */
        void (*on_change)(struct job *j);
};

extern const struct mechanism mechanism_dimm_add;
extern const struct mechanism mechanism_dimm_remove;
extern const struct mechanism mechanism_dimm_trickle; /* a removal within a time */
extern const struct mechanism mechanism_virtio_mem_add;
extern const struct mechanism mechanism_virtio_mem_remove;
extern const struct mechanism mechanism_balloon_add;    /* it gives back what it has */
extern const struct mechanism mechanism_balloon_remove; /* it takes */
extern const struct mechanism mechanism_restore;

/* The mechanism for what was asked (NULL is auto), and its own name for that in *ret_method (NULL: auto).
 * UNKNOWN_METHOD names those that there are. */
int mechanism_find(enum job_kind kind, const char *method, const struct mechanism **ret,
        const char **ret_method, struct error *ret_error);
/* UNKNOWN_METHOD if the method is one of another machine's, as far as the guest's is known. */
int mechanism_check_method(
        const struct partition *p, const struct mechanism *m, const char *method, struct error *ret_error);
/* 0, or why an addition or a removal cannot go on, now that QEMU and the guest have spoken: the partition
 * cannot be worked with, or the method is not its guest's. */
int mechanism_check_job(const struct job *j, struct error *ret_error);
