/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/manager.h"
#include "hvd/memory/guest.h"
#include "hvd/memory/ranges.h"

/* What dimm-add.c and dimm-withdraw.c share: an addition's work. */

/* What was plugged must be brought online or be withdrawn even when time is up. */
#define MOP_UP_USEC (5 * USEC_PER_SEC)

enum piece_state {
        PIECE_PLANNED,
        PIECE_PLUGGING,
        PIECE_PLUGGED,
        PIECE_FAILED, /* refused by QEMU, or gone at once: nothing is left of it */
        PIECE_ONLINE,
        PIECE_COMING,   /* as DOUBTFUL, and the guest may still be taking it in */
        PIECE_DOUBTFUL, /* plugged, and not wholly online: to be withdrawn */
        PIECE_WITHDRAWN,
        PIECE_LEFT,
};

struct piece {
        struct job *job;
        enum piece_state state;
        char id[PLATFORM_ID_MAX], backend[PLATFORM_ID_MAX];
        uint64_t size_bytes, address;
        enum zone zone;
        int node; /* -1: QEMU's choice */
        uint64_t movable_bytes, kernel_bytes;
        struct platform_op *op;
};

struct dimm_add {
        struct job *job;
        struct piece pieces[PLAN_DEVICES_MAX];
        size_t n_pieces;
        size_t batch, batch_end; /* the pieces under way */
        size_t n_plugging;
        struct partition_refresh *refresh;
        struct guest_call *call;
        bool guest_lost; /* no further request to the guest */
        uint64_t withdraw_until_usec;
        bool listed;           /* QEMU has said where the batch's devices lie */
        unsigned n_departures; /* the partition's, when it began */
};

/* A reason of the job; device may be NULL. */
void dimm_add_fail(struct dimm_add *w, const char *device, const struct error *error);
/* The piece stays plugged, for this reason. */
void dimm_add_leave(struct dimm_add *w, struct piece *piece, const struct error *why);
/* By the guest's account of a piece that is plugged: blocks of it may come yet, or the guest has given them
 * up. */
bool dimm_add_is_coming(const struct dimm_add *w, const struct range_account *a);
/* Withdraws one after the other what is COMING or DOUBTFUL, and then verifies. */
void dimm_add_withdraw(struct dimm_add *w);
/* The last step: ends the job. */
void dimm_add_verify(struct dimm_add *w);
