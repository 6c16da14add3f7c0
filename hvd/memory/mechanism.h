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
         * whole units of *ret_unit_bytes; 0: nothing, also where the request names what it does not do (a
         * node, a zone). NULL: it takes no part where the method is auto. */
        uint64_t (*room)(
                const struct partition *p, const struct job_request *request, uint64_t *ret_unit_bytes);
        /* Where the sizes that it could move are not simply the multiples of the unit: the largest of at most
         * `bytes` (0: none), and the smallest of at least `bytes` (UINT64_MAX: none). May be NULL. */
        void (*nearest)(const struct partition *p, const struct job_request *request, uint64_t bytes,
                uint64_t *ret_below, uint64_t *ret_above);
        void (*start)(struct job *j);
        /* job->stop was set: end soon, in a known state. May be called twice (cancel, then the deadline). */
        void (*stop)(struct job *j);
        void (*free_work)(struct job *j);
        /* For those that work by legs: a leg, which is freed next, has ended, and its report is the job's
         * already. True: the job ends now; false: another leg was started, or something else is waited for.
         */
        bool (*on_leg_ended)(struct job *j, const struct job *leg);
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
/* By legs: */
extern const struct mechanism mechanism_split_add, mechanism_split_remove; /* over several mechanisms */
extern const struct mechanism mechanism_set;                               /* to a total */
extern const struct mechanism mechanism_move;                              /* from one partition to another */

/* The mechanisms that move memory, the one that auto prefers first; NULL ends. For additions and removals,
 * and the one for a restore. */
const struct mechanism *mechanism_of_kind(enum job_kind kind, size_t index);
/* What it is called on the partition's machine. */
const char *mechanism_name(const struct partition *p, const struct mechanism *m);

/* The mechanism for an addition or a removal by a method's name, and its own name for that in *ret_method.
 * UNKNOWN_METHOD names those that there are. */
int mechanism_find(enum job_kind kind, const char *method, const struct mechanism **ret,
        const char **ret_method, struct error *ret_error);
/* UNKNOWN_METHOD if the method is one of another machine's, as far as the guest's is known. */
int mechanism_check_method(
        const struct partition *p, const struct mechanism *m, const char *method, struct error *ret_error);
/* 0, or why an addition or a removal cannot go on, now that QEMU and the guest have spoken: the partition
 * cannot be worked with, or the method is not its guest's. */
int mechanism_check_job(const struct job *j, struct error *ret_error);
