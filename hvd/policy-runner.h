/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "hvd/policy/policy.h"
#include "hvd/resident.h"

/* Runs the policy (hvd/policy) over the partitions: it hands over what they say and have, and has done what
 * is decided, as jobs like any other. When the host's mode is off it has no timer and asks no guest for
 * anything.
 *
 * What applies to a partition is off if the host's mode is off, else its own mode if it was given one, else
 * the host's. The host's is hvd.conf's unless one was set over the bus; what was set is kept. */
struct policy_runner;
struct manager;
struct partition;
struct job;

/* Part of a partition; policy-runner.c and its kin alone use the fields. Zeroed for a new one. */
struct partition_policy {
        bool has_mode; /* of its own */
        enum policy_mode mode;
        enum policy_mode applied; /* in the last round */
        size_t place;             /* in the last round, if it took part */
        struct policy_history history;
        uint64_t seen_bytes, changed_usec; /* current when it was last looked at, and since when */
        struct resident_process process;   /* its QEMU */
        bool has_resident;                 /* when the sample of resident_usec was taken up */
        uint64_t resident_bytes, resident_usec;
        uint64_t ready_usec;       /* since when its guestd is ready; 0: it is not */
        uint64_t stored_usec;      /* the time of the last sample that was stored */
        uint32_t job;              /* ours that is under way; 0: none */
        enum policy_action action; /* of that job */
        uint64_t decision;         /* that the job is of, in the store; 0: none */
        struct policy_decision told;
        uint64_t told_usec;        /* 0: none was */
        uint64_t unfit_until_usec; /* nothing that could leave has a size that it could give until then */
        unsigned n_failures;       /* of growths, one after the other */
        uint64_t failed_usec;      /* the last of them */
        char outcome[ERROR_MESSAGE_MAX + 64]; /* of what was decided last */
};

/* What is told of a decision, once for each that is new. */
struct policy_news {
        struct partition *partition;
        enum policy_mode mode;
        uint64_t current_bytes;
        const struct policy_decision *decision;
        const char *text;
};

/* proc: the folder of the host's own meminfo and pressure/memory, copied. The manager's partitions are taken
 * up at once, and the manager tells of all that happens (manager_set_policy()). */
int policy_runner_new(
        struct manager *m, const char *proc, struct policy_runner **ret, struct error *ret_error);
/* Jobs under way go on. NULL is fine; returns NULL. */
struct policy_runner *policy_runner_free(struct policy_runner *r);

/* The host's mode. r may be NULL: off. */
enum policy_mode policy_runner_mode(const struct policy_runner *r);
/* Sets and keeps it. */
int policy_runner_set_mode(struct policy_runner *r, enum policy_mode mode, struct error *ret_error);
/* What applies to the partition; r may be NULL: off. */
enum policy_mode policy_runner_partition_mode(const struct policy_runner *r, const struct partition *p);
/* Its own mode, kept; POLICY_MODE_INVALID: none, so that the host's applies. */
int policy_runner_set_partition_mode(
        struct policy_runner *r, struct partition *p, enum policy_mode mode, struct error *ret_error);
/* What the partition wanted when it was last decided of it; 0: that is not known, or not known any more. r
 * may be NULL. */
uint64_t policy_runner_wanted_bytes(const struct policy_runner *r, const struct partition *p);
/* The last decision as JSON: {"partition", "mode", "time_usec" (CLOCK_REALTIME), "text", "outcome",
 * "decision", "input"}, the input's partitions being only this one; without the last two and with a text that
 * says why if there is none. The caller frees *ret. -ENOMEM. */
int policy_runner_explain(const struct policy_runner *r, const struct partition *p, char **ret);

/* For the manager; r may be NULL. */
void policy_runner_partition_added(struct policy_runner *r, struct partition *p);
void policy_runner_partition_changed(struct policy_runner *r, struct partition *p);
void policy_runner_partition_removed(struct policy_runner *r);
/* Its partitions are idle again; each may be NULL. */
void policy_runner_job_ended(
        struct policy_runner *r, const struct job *j, struct partition *p, struct partition *peer);
void policy_runner_reconfigured(struct policy_runner *r);
