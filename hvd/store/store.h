/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "hvd/config.h"

/* What hvd must still know after a restart: the partitions that were defined over the bus, and the jobs.
 * SQLite, in one file; the store says only what was intended, never what a guest has. Calls block for a write
 * to the page cache; WAL with synchronous=NORMAL keeps the database whole through a power cut, less perhaps
 * the last writes.
 *
 * Every call but store_free() returns 0 or -errno with a sentence (ERROR_INTERNAL unless it says otherwise).
 */
struct store;

struct store_job {
        uint32_t id; /* from 1 */
        const char *partition, *kind, *state;
        uint64_t requested_bytes, done_bytes;
        uint64_t created_usec, ended_usec; /* CLOCK_REALTIME; ended 0: the job is not over */
        uint64_t deadline_usec;            /* as the caller sees fit; USEC_INFINITY is kept */
        const char *reasons;               /* a JSON array */
        const char *peer;                  /* who gets what is moved; empty: the job is of one partition */
        uint64_t target_bytes;             /* of a job to a total */
        /* What the partition and the peer had when the job began with them; 0: it has not begun. */
        uint64_t before_bytes, peer_before_bytes;
        const char *boot, *peer_boot; /* and what was booted then */
};

/* Opens or creates; path may be ":memory:". Checks the file through, and brings an older schema up to date in
 * one transaction. -EBADMSG: the file is damaged, or no database at all; -EPROTONOSUPPORT: written by a newer
 * hvd, or by another program. The file is left as it is then. */
int store_open(const char *path, struct store **ret, struct error *ret_error);
/* One that is there, and hvd may have open, for reading alone: every other call that changes it fails.
 * -EPROTONOSUPPORT also when an older hvd wrote it. */
int store_open_readonly(const char *path, struct store **ret, struct error *ret_error);
struct store *store_free(struct store *s); /* NULL is fine; returns NULL */

/* Inserts or replaces by name. The caller has checked the definition. */
int store_partition_put(struct store *s, const struct partition_definition *d, struct error *ret_error);
/* 1 if it was there, 0 if not. */
int store_partition_delete(struct store *s, const char *name, struct error *ret_error);
/* By name. Stops when the callback returns non-zero, and returns that. The callback must not change the
 * store. */
typedef int (*store_partition_t)(const struct partition_definition *d, void *userdata);
int store_partition_foreach(
        struct store *s, store_partition_t callback, void *userdata, struct error *ret_error);

/* What a partition has beside DIMMs when a job has ended, kept by its name, whoever defined it; 0 forgets it,
 * and stands for one of which nothing is known. Deleting a partition forgets it too. */
int store_kept_put(struct store *s, const char *partition, uint64_t bytes, struct error *ret_error);
int store_kept_get(struct store *s, const char *partition, uint64_t *ret_bytes, struct error *ret_error);
/* Likewise what its balloon took before a reset of the guest, and is to take again. */
int store_owed_put(struct store *s, const char *partition, uint64_t bytes, struct error *ret_error);
int store_owed_get(struct store *s, const char *partition, uint64_t *ret_bytes, struct error *ret_error);

/* Reserves the next job id. Ids are not used again, also not after a trim or a restart. 1: it could not be
 * written (*ret_error says why, such as a full disk), and so only this process knows that it is taken. */
int store_job_next_id(struct store *s, uint32_t *ret_id, struct error *ret_error);
/* Inserts or replaces by id. */
int store_job_put(struct store *s, const struct store_job *j, struct error *ret_error);
/* Those that are not over and the newest max of the others, newest first; as store_partition_foreach().
 * Strings are borrowed for the call. */
typedef int (*store_job_t)(const struct store_job *j, void *userdata);
int store_job_foreach(
        struct store *s, unsigned max, store_job_t callback, void *userdata, struct error *ret_error);
/* The states that a job has been in, the first of them and, in the last place, the newest. They go with the
 * job. */
#define STORE_TRANSITIONS_MAX 64U
struct store_transition {
        unsigned n;         /* from 0; below STORE_TRANSITIONS_MAX */
        uint64_t time_usec; /* CLOCK_REALTIME */
        const char *state;
};
/* Inserts or replaces by n. */
int store_transition_put(
        struct store *s, uint32_t job, const struct store_transition *t, struct error *ret_error);
/* In their order; as store_job_foreach(). */
typedef int (*store_transition_t)(const struct store_transition *t, void *userdata);
int store_transition_foreach(
        struct store *s, uint32_t job, store_transition_t callback, void *userdata, struct error *ret_error);
/* Forgets all but the newest `keep` of the jobs that are over. */
int store_jobs_trim(struct store *s, unsigned keep, struct error *ret_error);

/* Memory that is kept for an owner beyond the connection of whoever asked for it. */
struct store_reservation {
        uint32_t id;
        const char *owner;
        uint64_t bytes;
        const char *boot; /* the host's boot, of which ends_usec is CLOCK_MONOTONIC */
        uint64_t ends_usec;
};
/* Inserts or replaces by id. */
int store_reservation_put(struct store *s, const struct store_reservation *v, struct error *ret_error);
int store_reservation_delete(struct store *s, uint32_t id, struct error *ret_error);
/* The greatest number that one ever had. */
int store_reservation_last_id(struct store *s, uint32_t *ret_id, struct error *ret_error);
/* By id; likewise. Those of another boot, and those whose time is over, are forgotten before. */
typedef int (*store_reservation_t)(const struct store_reservation *v, void *userdata);
int store_reservation_foreach(struct store *s, const char *boot, uint64_t now_usec,
        store_reservation_t callback, void *userdata, struct error *ret_error);

/* How much memory a partition had for how long, by the days of UTC since 1970. They outlive its definition.
 */
#define STORE_USAGE_DAYS 400U
int store_usage_add(
        struct store *s, const char *partition, uint32_t day, uint64_t mib_seconds, struct error *ret_error);
/* From that day on, newest first; likewise. */
typedef int (*store_usage_t)(uint32_t day, uint64_t mib_seconds, void *userdata);
int store_usage_foreach(struct store *s, const char *partition, uint32_t from_day, store_usage_t callback,
        void *userdata, struct error *ret_error);
/* Forgets all before that day. */
int store_usage_trim(struct store *s, uint32_t from_day, struct error *ret_error);

/* The policy's modes that were set over the bus: a partition's, or with the name "" the host's. NULL forgets
 * it; *ret is empty where none was set. Deleting a partition forgets its mode. */
#define STORE_MODE_MAX 16U
int store_mode_put(struct store *s, const char *name, const char *mode, struct error *ret_error);
int store_mode_get(
        struct store *s, const char *name, char ret[static STORE_MODE_MAX], struct error *ret_error);

/* What the policy decided, and on what. A round is the whole input of a call of policy_decide(), as JSON; a
 * decision is one of its results. store_policy_trim() keeps the newest so many of each, and of rounds no more
 * than so many bytes; a decision goes with its round. */
#define STORE_ROUNDS_MAX    1000U
#define STORE_ROUNDS_BYTES  (UINT64_C(32) << 20)
#define STORE_DECISIONS_MAX 20000U
#define STORE_SAMPLES_MAX   100000U /* about 12 MiB */

struct store_decision {
        uint64_t id, round;
        uint64_t time_usec; /* CLOCK_REALTIME */
        const char *partition, *decision, *text;
        const char *outcome; /* empty: nothing is known of one */
};

struct store_sample {
        uint64_t time_usec; /* CLOCK_REALTIME */
        const char *partition;
        uint64_t current_bytes, used_bytes, some_permille;
        uint64_t min_bytes, desired_bytes, max_bytes, weight; /* the profile, when it was taken */
        uint64_t pool_bytes;                                  /* likewise the pool's total */
};

/* Many writes at once, as one transaction. Each begin is followed by one commit, whatever happens between. */
int store_begin(struct store *s, struct error *ret_error);
int store_commit(struct store *s, struct error *ret_error);

int store_round_put(
        struct store *s, uint64_t time_usec, const char *input, uint64_t *ret_id, struct error *ret_error);
/* The caller frees *ret. -ENOENT: there is none, or no longer. */
int store_round_get(struct store *s, uint64_t id, char **ret, struct error *ret_error);
/* d->id and time_usec do not count. */
int store_decision_put(
        struct store *s, const struct store_decision *d, uint64_t *ret_id, struct error *ret_error);
/* What came of it. */
int store_decision_end(struct store *s, uint64_t id, const char *outcome, struct error *ret_error);
/* Of a partition, or with "" of all: the newest max, newest first; as store_partition_foreach(). Strings are
 * borrowed for the call. */
typedef int (*store_decision_t)(const struct store_decision *d, void *userdata);
int store_decision_foreach(struct store *s, const char *partition, unsigned max, store_decision_t callback,
        void *userdata, struct error *ret_error);
/* That one; what the callback returns. -ENOENT (INVALID_ARGUMENT): there is none, or no longer. */
int store_decision_get(
        struct store *s, uint64_t id, store_decision_t callback, void *userdata, struct error *ret_error);

int store_sample_put(struct store *s, const struct store_sample *sample, struct error *ret_error);
/* Those of a time, oldest first; likewise. */
typedef int (*store_sample_t)(const struct store_sample *sample, void *userdata);
int store_sample_foreach(struct store *s, uint64_t from_usec, uint64_t to_usec, store_sample_t callback,
        void *userdata, struct error *ret_error);

int store_policy_trim(struct store *s, struct error *ret_error);
