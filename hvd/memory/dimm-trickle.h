/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/memory/guest.h"
#include "hvd/memory/trickle.h"

/* Shared by dimm-trickle.c, which has the rounds, and dimm-trickle-end.c, which has the words and the end. */

#define TRICKLE_TRIED_MAX 512U

enum phase {
        PHASE_FIRST, /* before the first plan */
        PHASE_ASKING,
        PHASE_SAMPLING,
        PHASE_RETURNING,
        PHASE_TAKING,
        PHASE_EXAMINING, /* a block that did not go */
        PHASE_PAUSING,
        PHASE_LEAVING, /* the end: unplugs are waited for */
        PHASE_VERIFYING,
};

enum device_state {
        DEVICE_WATCHED,
        DEVICE_UNPLUGGING,
        DEVICE_GONE, /* QEMU says so */
        DEVICE_OUT,  /* it did not go; not tried again */
};

struct device {
        struct job *job;
        enum device_state state;
        char id[PLATFORM_ID_MAX], backend[PLATFORM_ID_MAX];
        uint64_t address, size_bytes, offline_bytes;
        bool was_kernel, planned;
        bool begun; /* blocks of it were taken; what somebody else took offline is left alone */
        bool returning;
        unsigned n_failures;
        uint64_t rests_until_usec; /* others first: it holds pages that do not move */
        uint64_t failed_block;
        struct error failure; /* of its last block that was tried */
        struct platform_op *op;
};

struct dimm_trickle {
        struct job *job;
        enum phase phase;
        struct device devices[PLAN_DEVICES_MAX];
        size_t n_devices;
        struct partition_refresh *refresh;
        struct survey_ask *ask;
        struct guest_call *call;
        sd_event_source *timer;
        struct survey survey;              /* of this round */
        uint64_t tried[TRICKLE_TRIED_MAX]; /* blocks, in this round */
        size_t n_tried, n_to_return;
        struct device *taking;
        uint64_t taking_block;
        uint64_t pause_usec;
        unsigned n_silences;
        size_t n_planned;
        bool had_some;      /* in this round */
        bool short_of_room; /* what is held goes back, or nothing more is taken in this round */
        bool gave_up;       /* no further device is tried */
        bool ending, guest_lost, guest_confirmed, host_confirmed;
};

uint64_t trickle_sum_of(const struct dimm_trickle *w, enum device_state state);
/* Offline in the guest, of devices that are to leave. */
uint64_t trickle_held_bytes(const struct dimm_trickle *w);
/* What a block may cost now. */
uint64_t trickle_bound_now(const struct dimm_trickle *w, uint64_t block_bytes);

/* AGENT_TOO_OLD if the guest cannot say what its pages are. */
int trickle_check_survey(const struct partition *p, struct error *ret_error);
/* Fills devices[] with those that may leave. 1: it is known that not all can, and the job wants all or
 * nothing. */
int trickle_plan_first(struct dimm_trickle *w, struct error *ret_error);
/* Marks the devices that are to leave by this round's survey. */
void trickle_plan(struct dimm_trickle *w);

/* The job says what it has, and what it waits for. */
void trickle_tell_waiting(struct dimm_trickle *w);
/* Nothing is under way any more, and nothing held: both ends confirm what has left, and the job ends. */
void trickle_verify(struct dimm_trickle *w);
