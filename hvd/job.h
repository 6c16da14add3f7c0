/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "hvd/partition.h"
#include "hvd/plan.h"
#include "hvd/record.h"

struct job_hooks;
struct mechanism;

enum job_kind {
        JOB_ADD_MEMORY,
        JOB_REMOVE_MEMORY,
        JOB_SET_MEMORY,     /* to a total: an addition or a removal, whichever it takes */
        JOB_MOVE_MEMORY,    /* of two partitions: a removal, and then an addition of what it freed */
        JOB_RESTORE_MEMORY, /* of hvd's own accord: plugged blocks that are offline come online again */
        JOB_KIND_MAX,
};
const char *job_kind_to_string(enum job_kind k);

enum job_state {
        JOB_QUEUED,
        JOB_SURVEYING,   /* both ends are asked, the plan is made */
        JOB_PLUGGING,    /* add: the guest is prepared, devices are plugged */
        JOB_ONLINING,    /* add: the guest brings their blocks online */
        JOB_OFFLINING,   /* remove: the guest takes blocks offline */
        JOB_UNPLUGGING,  /* remove: a device whose blocks are all offline is unplugged */
        JOB_WITHDRAWING, /* add: what did not come online is taken out again */
        JOB_VERIFYING,   /* both ends are compared */
        JOB_DONE,
        JOB_PARTIAL,
        JOB_FAILED,
        JOB_CANCELLED,
        JOB_STATE_MAX,
};
const char *job_state_to_string(enum job_state s); /* "QUEUED" ... */
static inline bool job_state_is_end(enum job_state s)
{
        return s >= JOB_DONE;
}

struct job_request {
        enum job_kind kind;
        uint64_t bytes;
        uint64_t target_bytes;        /* set: the total; bytes is the way to it, and 0 until the job knows */
        const char *method;           /* one of a mechanism's own names; NULL: auto */
        enum zone_policy zone;        /* add */
        int node;                     /* -1: any */
        bool whole_node;              /* remove: all that is plugged in it; bytes is 0 until the job knows */
        char device[PLATFORM_ID_MAX]; /* remove: only this one; empty: any */
        bool has_drc;                 /* remove: only the device that the LMB of this index lies in */
        uint32_t drc;
        uint64_t wait_usec; /* limit for the whole job, queueing included */
        bool within;        /* remove: within wait_usec, as blocks become cheap, and not by force */
        bool dry_run, all_or_nothing;
        bool persistent;     /* the guest's definition is changed as well, see struct platform */
        bool return_to_pool; /* move: what the receiver did not take stays free, and does not go back */
};

struct job_reason {
        char device[PLATFORM_ID_MAX]; /* empty: of the job as a whole */
        char block[24];               /* the block's address, "0x140000000", or empty */
        struct error error;
};

/* A state that it came to. */
struct job_transition {
        enum job_state state;
        uint64_t
                time_usec; /* CLOCK_REALTIME, as of its creation: a clock that is set in between counts not */
};

#define JOB_TRANSITIONS_MAX 64U
#define JOB_REASONS_MAX     512U
#define JOB_NOTES_MAX       64U
#define JOB_PLAN_MAX        (PLAN_DEVICES_MAX + 8U)

enum job_stop {
        JOB_STOP_NO,
        JOB_STOP_CANCEL,
        JOB_STOP_DEADLINE,
};

/* A place in a partition's list of the jobs that it is part of. */
struct job_link {
        TAILQ_ENTRY(job_link) entry;
        struct job *job;
};

/* One request, as an explicit state machine. job.c changes state, one place only; the mechanism that carries
 * it out calls the functions below.
 *
 * A job that takes several mechanisms, or two partitions, is carried out in legs, one after the other. A leg
 * is a job too, as far as its mechanism can tell, but nobody else sees it: it has its parent's id and
 * deadline, is in no list and not on the bus, and what it does and says becomes its parent's. Its end goes to
 * the parent's mechanism. A leg may have legs. */
struct job {
        struct manager *manager;
        struct partition *partition;     /* NULL once it ended and the partition was removed */
        TAILQ_ENTRY(job) entry;          /* the manager's list, by id */
        struct job_link link, peer_link; /* the partition's list and the peer's, until it ended */
        uint32_t id;
        char partition_name[64];
        struct partition *peer; /* move: who gets it; likewise */
        char peer_name[64];     /* empty: the job is of one partition */
        struct job *parent;     /* this is a leg of that one; NULL: a job in its own right */
        struct job *leg;        /* the one under way, owned; NULL: none */
        bool is_interrupted; /* of an hvd before this one, and not over: nobody works on it, see history.h */
        bool mops_up;        /* a leg that ends in its own time, whatever becomes of its parent */
        uint64_t leg_from_bytes, leg_to_bytes; /* of the parent's progress */
        struct job_request request;
        enum job_state state;
        enum job_stop stop;
        /* Of a job in its own right: the first states that it was in, and in the last place the newest. */
        struct job_transition transitions[JOB_TRANSITIONS_MAX];
        size_t n_transitions, n_transitions_stored;
        bool has_transitions_due; /* that were not tried to be stored */

        uint64_t done_bytes;     /* confirmed by both ends */
        uint64_t progress_bytes; /* with what is under way */
        uint64_t movable_bytes, kernel_bytes;
        enum job_kind direction; /* set: JOB_ADD_MEMORY or JOB_REMOVE_MEMORY, once it knows; else kind */
        bool is_measured;        /* set: bytes is known; it may be 0 */
        /* move: what the one has less of; and what of that is meant for the other, who has it not yet */
        uint64_t freed_bytes, transit_bytes;
        /* What the partition and the peer had when the job began with them; 0: it has not begun. */
        uint64_t before_bytes, peer_before_bytes;
        char boot[RECORD_BOOT_MAX], peer_boot[RECORD_BOOT_MAX]; /* and of which boot that was */
        uint64_t still_bytes, still_usec; /* interrupted: what its partitions have had since then */
        uint64_t current_bytes,
                max_bytes; /* the partition's, when the job ended; 0 before, and if QEMU was gone */
        struct job_reason *reasons;
        size_t n_reasons;
        char *plan[JOB_PLAN_MAX];
        size_t n_plan;
        char *notes[JOB_NOTES_MAX]; /* what else an operator may want to know; nothing that went wrong */
        size_t n_notes;
        char waiting[320]; /* what it has and what it waits for, or empty */

        uint64_t created_realtime_usec;
        uint64_t created_usec, ended_usec; /* CLOCK_MONOTONIC */
        uint64_t deadline_usec;            /* CLOCK_MONOTONIC */
        bool announced;                    /* the host's hooks were told of its begin */
        bool looked;                       /* what it did last was to ask both ends */
        sd_event_source *deadline_timer;
        sd_event_source *finish_source;

        const struct mechanism *mechanism;
        void *work;              /* the mechanism's, while the job is active */
        struct job_hooks *hooks; /* likewise; NULL: the guest has none, or was not asked yet */
};

int job_new(struct manager *m, struct partition *p, uint32_t id, const struct job_request *request,
        struct job **ret);
struct job *job_free(struct job *j);

/* Whether the partition is one of those that it changes. */
bool job_concerns(const struct job *j, const struct partition *p);
/* Who works on the partition now: the active job, or the leg of it that has this partition; NULL: nobody. */
struct job *job_at_work(const struct partition *p);

/* The partition is ours now: the mechanism begins. */
void job_start(struct job *j);
/* An operator's wish, or the deadline: the mechanism stops at the next safe point and the job ends by itself.
 */
void job_stop(struct job *j, enum job_stop why);

/* For mechanisms. */
void job_set_state(struct job *j, enum job_state state);
void job_set_progress(struct job *j, uint64_t progress_bytes);
void job_add_done(struct job *j, uint64_t bytes);
/* Block: its address, or UINT64_MAX for none; device may be NULL. */
void job_add_reason(struct job *j, const char *device, uint64_t block, const struct error *error);
/* Takes back what was said of a device, as it is tried again. */
void job_drop_reasons(struct job *j, const char *device);
void job_add_plan(struct job *j, const char *format, ...) _printf_(2, 3);
void job_clear_plan(struct job *j);
void job_add_note(struct job *j, const char *format, ...) _printf_(2, 3);
void job_set_waiting(struct job *j, const char *format, ...) _printf_(2, 3);
/* Ends the job, once the guest's hooks know: the end state follows from what was done, asked and stopped.
 * Frees the mechanism's work from the event loop, never from inside this call. */
void job_finish(struct job *j);
/* Begins a leg of the parent, which has none under way, on partition p (the request is copied): the
 * mechanism's on_leg_ended() follows, never from inside this call. It spans the parent's progress from what
 * it is up to `to_bytes`. With mop_up_usec (else 0) it has this limit of its own and is not stopped with its
 * parent. */
int job_start_leg(struct job *parent, struct partition *p, const struct mechanism *mechanism,
        const struct job_request *request, uint64_t to_bytes, uint64_t mop_up_usec, struct error *ret_error);
/* For a parent's mechanism: its leg, if there is one that may, is to stop as well. */
bool job_stop_leg(struct job *parent);
/* Ends the job here and now, as it is, without its mechanism: its partition is about to go. */
void job_abort(struct job *j, const struct error *why);
/* Time left until the deadline. */
uint64_t job_left_usec(const struct job *j);

/* A time of CLOCK_MONOTONIC in the life of the job, by the clock of the day as it was when the job was made.
 */
uint64_t job_realtime_usec(const struct job *j, uint64_t monotonic_usec);

double job_progress(const struct job *j);
uint64_t job_elapsed_usec(const struct job *j);
