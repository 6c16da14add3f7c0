/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/error.h"
#include "hvd/job.h"

/* The host's memory for partitions: who has it, who has asked for it, and who has reserved some. What takes
 * memory back for those is reclaim.c. */
struct pool;

#define RESERVATION_OWNER_MAX 63U
#define RESERVATIONS_MAX      256U

struct reservation {
        TAILQ_ENTRY(reservation) entry;
        uint32_t id; /* from 1, not used again while this hvd lives, nor later if it was stored */
        char owner[RESERVATION_OWNER_MAX + 1];
        uint64_t bytes;
        bool is_held; /* false: room is being made for it */
        /* the rest is pool.c's */
        struct manager *manager;
        struct reclaim *reclaim;
        uint64_t keep_usec;
        sd_event_source *expiry;
        bool is_stored;
        void (*done)(uint32_t id, const struct error *error, void *userdata);
        void *userdata;
};

struct pool_account {
        uint64_t total_bytes, reserved_bytes; /* the latter is kept from partitions, and not in the total */
        uint64_t current_bytes;               /* what partitions have */
        uint64_t requested_bytes;             /* what they will have when their jobs succeed */
        uint64_t reservations_bytes;
        uint64_t free_bytes;  /* of the total, what nobody has, asked for or reserved */
        uint64_t short_bytes; /* what all of it is beyond the total */
};

int pool_new(struct pool **ret);
struct pool *pool_free(struct pool *p);
/* For tests: the host's /proc is there. Borrowed. */
void pool_set_proc(struct pool *p, const char *proc);
struct pool_account pool_account(struct manager *m);

/* What current becomes when the jobs that are queued and running succeed. */
uint64_t pool_requested_bytes(const struct partition *p);
/* The most that it has on the way there, for which there must be room: at least current. */
uint64_t pool_held_bytes(const struct partition *p);
/* POOL_EXHAUSTED, with the figures, if so much more is not free or, without a pool_total, not available on
 * the host. */
int pool_check(struct manager *m, uint64_t more_bytes, struct error *ret_error);

/* Keeps memory for an owner, which is any name; that of a partition lets its start absorb the reservation.
 * Where the pool is short of it, memory is taken back from partitions that have more than their profile
 * desires, for at most wait_usec. done is called exactly once, perhaps from inside this call, unless the
 * reservation is released before: without an error it is held. With one it is gone already. keep_usec: it
 * ends by itself after that (0: never). LIMIT, INVALID_ARGUMENT (the owner), INVALID_SIZE. */
typedef void (*reserved_t)(uint32_t id, const struct error *error, void *userdata);
int pool_reserve(struct manager *m, const char *owner, uint64_t bytes, uint64_t wait_usec, uint64_t keep_usec,
        reserved_t done, void *userdata, uint32_t *ret_id, struct error *ret_error);
/* At start: takes up those with keep_usec that an hvd before this one had granted, until their time. */
void pool_restore(struct manager *m);
/* INVALID_ARGUMENT: there is no such reservation. */
int pool_release(struct manager *m, uint32_t id, struct error *ret_error);
/* Iterates, the oldest first: NULL begins; NULL ends. */
const struct reservation *pool_next_reservation(struct manager *m, const struct reservation *after);

/* A partition's QEMU has come up: what was reserved in its name is its own now. */
void pool_partition_up(struct manager *m, const struct partition *p);
/* What partitions have has changed: one that waits may be held now. */
void pool_changed(struct manager *m);
void pool_job_ended(struct manager *m, const struct job *j);

/* For reclaim.c: nothing more can be taken back, or time is up. */
void pool_give_up(struct reservation *r, const struct error *why);
/* How much is missing before it can be held. */
uint64_t pool_missing_bytes(const struct reservation *r);
