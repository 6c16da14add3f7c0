/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/memory/guest.h"
#include "hvd/memory/resize.h"

/* The course of a job that moves memory by wishes (resize.h): virtio-mem's and the balloon's differ in their
 * plans and in what confirms them, and share what lies between. Sizes are the guest's gain: more of them is
 * more for the guest. */

#define MOVER_PARTS_MAX 64U

struct mover;

struct mover_part {
        char id[PLATFORM_ID_MAX]; /* the virtio-mem device; empty: the balloon */
        uint64_t unit_bytes;
        uint64_t origin_bytes, target_bytes;
        uint64_t size_bytes;   /* as far as it is known to have come */
        uint64_t kernel_bytes; /* of its blocks in kernel zones, at first */
        bool given_up;
};

struct mover_ops {
        /* Makes the plan from the partition's accounts, which are current: fills parts, and says it by
         * job_add_plan(). */
        int (*plan)(struct mover *m, struct error *ret_error);
        /* Both ends were asked again: 1 they agree on what moved; 0 not yet, and the guest may still be at
         * it; or an error that says what differs. */
        int (*confirm)(struct mover *m, struct error *ret_error);
        /* What a part that did not come all the way has to say for it. */
        void (*explain)(const struct mover *m, const struct mover_part *part, enum resize_end end,
                struct error *ret_error);
        bool prepares; /* an addition brings new blocks: the guest is told their zone */
};

struct mover {
        struct job *job;
        const struct mover_ops *ops;
        bool adds;
        struct mover_part parts[MOVER_PARTS_MAX];
        size_t n_parts;
        uint64_t kernel_left; /* of an addition, what goes to a kernel zone, and goes first */
        uint64_t total_bytes; /* the guest's MemTotal at first */

        struct mover_part *current;
        bool undoing, verifying, is_prepared, is_short;
        enum zone zone;
        uint64_t step_kernel_bytes; /* of the step under way */
        uint64_t step_began_usec;
        uint64_t block_usec; /* what a block of the guest took in the last step */
        uint64_t verify_until_usec;
        unsigned n_resets;
        struct partition_refresh *refresh;
        struct guest_call *call;
        struct resize *resize;
        sd_event_source *again;
};

/* For a mechanism's table. */
void mover_start(struct job *j, const struct mover_ops *ops);
void mover_stop(struct job *j);
void mover_on_change(struct job *j);
void mover_free(struct job *j);

/* For ops. What has moved of a part, in the direction of the job. */
uint64_t mover_moved_bytes(const struct mover *m, const struct mover_part *part);
uint64_t mover_all_moved_bytes(const struct mover *m);
/* 0, or NOT_PLUGGED if the profile keeps more than would be left. */
int mover_check_min(const struct partition *p, const struct job_request *request, struct error *ret_error);
/* 0, or BEYOND_MAX if the profile allows less than there would be. */
int mover_check_max(const struct partition *p, const struct job_request *request, struct error *ret_error);
/* The most that the profile lets move, and for a removal the guest's headroom as far as it is known. */
uint64_t mover_room_bytes(const struct partition *p, const struct job_request *request, uint64_t most_bytes);
/* 0, or UNALIGNED_SIZE with the nearest that would do; most_bytes bounds what is offered. */
int mover_check_unit(
        uint64_t bytes, uint64_t unit_bytes, uint64_t most_bytes, const char *what, struct error *ret_error);
