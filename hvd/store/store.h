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
};

/* Opens or creates; path may be ":memory:". Checks the file through, and brings an older schema up to date in
 * one transaction. -EBADMSG: the file is damaged, or no database of hvd's; -EPROTONOSUPPORT: written by a
 * newer hvd. The file is left as it is then. */
int store_open(const char *path, struct store **ret, struct error *ret_error);
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

/* Reserves the next job id. Ids are not used again, also not after a trim or a restart. */
int store_job_next_id(struct store *s, uint32_t *ret_id, struct error *ret_error);
/* Inserts or replaces by id. */
int store_job_put(struct store *s, const struct store_job *j, struct error *ret_error);
/* The newest max jobs, newest first; as store_partition_foreach(). Strings are borrowed for the call. */
typedef int (*store_job_t)(const struct store_job *j, void *userdata);
int store_job_foreach(
        struct store *s, unsigned max, store_job_t callback, void *userdata, struct error *ret_error);
/* At start: gives every job that is not over this state and time of end, and one more reason, "interrupted".
 */
int store_jobs_interrupt(
        struct store *s, const char *state, uint64_t now_usec, unsigned *ret_n, struct error *ret_error);
/* Forgets all but the newest `keep` of the jobs that are over. */
int store_jobs_trim(struct store *s, unsigned keep, struct error *ret_error);
