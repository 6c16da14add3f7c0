/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"
#include "hvd/memory/guest.h"
#include "hvd/survey.h"

/* A removal's state: of dimm-remove.c, of its plan (dimm-remove-plan.c), of dimm-offline.c, and of what goes
 * on when a device did not leave (dimm-again.c). */

enum target_state {
        TARGET_PLANNED,
        TARGET_OFFLINING,
        TARGET_OFFLINE, /* all-or-nothing: waits for the others */
        TARGET_UNPLUGGING,
        TARGET_GONE,     /* QEMU says so */
        TARGET_PUT_BACK, /* offline, and to come online again */
        TARGET_PUTTING_BACK,
        TARGET_STAYED, /* in use as before, or reported as not */
};

struct target {
        struct job *job;
        enum target_state state;
        char id[PLATFORM_ID_MAX], backend[PLATFORM_ID_MAX];
        uint64_t address, size_bytes;
        uint64_t kernel_bytes, movable_bytes; /* of its blocks, by zone */
        bool asked;                           /* QEMU was, to unplug it */
        bool is_left_offline;                 /* it could not be put back, as the reasons say */
        bool is_absent;                       /* the guest said so when it was to put it back */
        bool is_unknown;                      /* the guest has not said what became of it */
        unsigned n_resets;                    /* the partition's, when QEMU was asked */
        bool was_tried;                       /* its blocks were to go offline */
        bool is_busy;                         /* and could not at that moment: they may go later */
        bool again;                           /* this is its second try, or that is over */
        struct platform_op *op;
};

struct dimm_remove {
        struct job *job;
        struct target targets[PLAN_DEVICES_MAX];
        size_t n_targets;
        struct partition_refresh *refresh;
        struct guest_call *call;
        struct survey_ask *ask;               /* of what is in the blocks that may leave, or did not */
        struct survey survey;                 /* empty: there was none */
        struct error no_survey;               /* and why */
        uint64_t migrate_bytes;               /* of the devices that were planned first, by the survey */
        uint64_t kernel_bytes, movable_bytes; /* what the guest's zones had when nothing had left */
        uint64_t kept_bytes;                  /* by the last plan, for the ratio of the zones */
        bool relieved;                        /* the guest was asked to make room */
        sd_event_source *again_timer;
        uint64_t failed_usec; /* when the last device did not go */
        bool gave_up;    /* no further device is tried: all-or-nothing, and one cannot go; or a migration */
        bool guest_lost; /* no further request to the guest */
        bool awaiting;   /* call is AWAIT_REMOVED, for all that is UNPLUGGING or GONE */
        bool awaited;    /* it was asked since a device was last taken offline */
        bool answered;   /* and the guest has answered */
        bool verifying, guest_confirmed, host_confirmed;
};

/* Goes on with whatever is due. */
void dimm_remove_pump(struct dimm_remove *w);
/* Bytes of the targets in these states; and the first one in a state, or NULL. */
uint64_t dimm_remove_sum(const struct dimm_remove *w, enum target_state from, enum target_state to);
struct target *dimm_remove_first(struct dimm_remove *w, enum target_state state);

/* The blocks of the device are offline: QEMU is told to unplug it. */
void dimm_remove_unplug(struct dimm_remove *w, struct target *t);
/* No answer came on the devices in this state: they stay, for this reason. */
void dimm_remove_fail_all(struct dimm_remove *w, enum target_state state, const struct error *error);

/* The planned device that is next: those with kernel memory last, when it is known what of zone Movable has
 * left, as the plan counted on all of it. NULL: none. */
struct target *dimm_offline_next(struct dimm_remove *w);
/* Asks the guest to take it offline, and those planned behind it that can go in the same request. False: that
 * is not to be, and it stays. */
bool dimm_offline(struct dimm_remove *w, struct target *t);

/* Both ends' accounts are current: plans, and begins. */
void dimm_remove_on_refreshed(struct partition *p, const struct error *error, void *userdata);
/* One cannot go: the next best are planned, unless that ends all. */
void dimm_remove_try_others(struct dimm_remove *w);

/* A device that was only busy may have a second chance, once, when nothing better is left and there is time.
 */
bool dimm_again_is_possible(const struct dimm_remove *w);
/* What is in the blocks of those that stayed, now that the guest has looked: the kernel's own pages do not
 * go. */
void dimm_again_judge(struct dimm_remove *w, const struct survey *s);
/* Takes the chance: devices are planned again, or will be after a pause. False: there is none. */
bool dimm_again(struct dimm_remove *w);
/* At the end: of a job that did not do all, which device left, which is back, and which was not begun. */
void dimm_again_add_notes(struct dimm_remove *w);
