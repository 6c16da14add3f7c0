/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/error.h"
#include "hvd/agent/agent.h"
#include "hvd/config.h"
#include "hvd/metering.h"
#include "hvd/plan.h"
#include "hvd/platform/platform.h"
#include "hvd/policy-runner.h"
#include "hvd/sampling.h"
#include "proto/message.h"

struct manager;
struct job;
struct job_link;

/* One guest and what is known of it. The fields are for reading; partition.c and partition-refresh.c write
 * them. */
struct partition {
        struct manager *manager;
        TAILQ_ENTRY(partition) entry;
        struct partition_definition definition;
        bool from_file; /* of partitions.d, not of `define` */
        struct platform *platform;
        struct agent *agent;

        bool platform_up;
        struct error platform_error; /* why it is not up */
        bool has_snapshot;
        struct platform_snapshot snapshot; /* QEMU's account, when it was last asked */

        bool has_memory;
        struct guest_memory memory; /* the guest's account, likewise */
        struct block_range *blocks;
        size_t n_blocks;
        bool has_blocks;
        struct partition_samples samples;
        struct partition_policy policy;
        struct partition_meter meter;

        TAILQ_HEAD(, job_link) jobs; /* that wait or are under way, as one or as peer; by id. The manager's */
        struct job *active;          /* NULL: idle */
        bool is_leaving;             /* it is being undefined: nothing begins any more */
        uint64_t settled_bytes;      /* current, when the active job began */
        uint64_t kept_bytes; /* current without DIMMs, as the last job left it; 0: none did. The manager's */
        /* Held when its hypervisor fell silent; 0: that is heard, or gone. What runs on has its memory. */
        uint64_t unheard_bytes;
        struct agent_waiter *waiter; /* the active job's, if its request to the guest waits for a session */
        unsigned n_departures;       /* of devices that left unasked */
        unsigned n_resets;           /* of the guest: what had left by then it cannot have any more */
        unsigned session_resets;     /* n_resets when the last session with guestd began */
        /* What the balloon took before the guest was reset, and is to take again when its memory is back; 0:
         * as it is. And its driver was not heard of since, so that QEMU's figure is of the boot before. */
        uint64_t balloon_owed_bytes;
        bool balloon_unheard;
        int64_t grown_sec;                  /* CLOCK_REALTIME: when it last grew, or may have */
        struct partition_refresh *settling; /* the refresh that follows a change */
        bool settle_again, settle_restore, settle_failed;
        uint64_t hooks_owed_usec; /* since when the guest's hooks may wait to be settled; 0: they do not */
        sd_event_source *settle_timer; /* what a guest can cause at will is answered at a limited rate */
};

/* Told once, and forgotten before: a session with the guest began, or QEMU is gone or the guest was reset,
 * and this boot's will not come back. */
struct agent_waiter {
        void (*on_ready)(struct agent_waiter *w);
        void (*on_gone)(struct agent_waiter *w, const struct error *error);
};

int partition_new(struct manager *m, sd_event *event, const struct partition_definition *d,
        struct partition **ret, struct error *ret_error);
struct partition *partition_free(struct partition *p);

/* The guest channel's socket, which is another one at each start of a domain; NULL: the guest does not run.
 */
void partition_set_channel(struct partition *p, const char *socket);

uint64_t partition_current_bytes(const struct partition *p);
/* What it has but for blocks of DIMMs that the guest does not use, as far as it has told of blocks. */
uint64_t partition_usable_bytes(const struct partition *p);
/* What is plugged, wished for or in the balloon: 0 in a QEMU that has just been started. */
uint64_t partition_wanted_bytes(const struct partition *p);
/* The part of it that is in DIMMs. */
uint64_t partition_dimm_bytes(const struct partition *p);
/* The profile's max within QEMU's; 0 if neither is known. */
uint64_t partition_max_bytes(const struct partition *p);
/* The guest's block size; 0 before guestd spoke. */
uint64_t partition_block_bytes(const struct partition *p);
/* By QEMU's last word: its memory comes in LMBs. */
bool partition_is_pseries(const struct partition *p);
/* Its guestd says so among its capabilities. */
bool partition_guest_can(const struct partition *p, const char *capability);
/* 0, or the error that an operator should see when the partition cannot be worked with now. */
int partition_check_usable(const struct partition *p, struct error *ret_error);

/* The planner's view of the partition: fills *ret, whose devices are allocated for the caller (free()). Marks
 * as not removable the devices that `excluded` (NULL-terminated ids, may be NULL) names. */
int partition_plan_snapshot(const struct partition *p, char *const *excluded, struct plan_snapshot *ret,
        struct plan_device **ret_devices);

/* For partition-refresh.c, after new devices or blocks: finds the devices whose address the hypervisor does
 * not say (libvirt before 9.4, of virtio-mem) by the guest's blocks, as what is neither memory at boot, which
 * lies below all devices, nor in another device. One that has nothing plugged stays where nothing is. */
void partition_place_devices(struct partition *p);
/* For partition.c and partition-refresh.c: what the balloon leaves is what is said; how much it has taken of
 * base and DIMMs follows. */
void partition_take_balloon(struct partition *p, uint64_t actual_bytes);
/* Likewise: notes the time if the partition has more than current_bytes, which it had before. Statistics from
 * before tell nothing of what the guest has now. */
void partition_note_growth(struct partition *p, uint64_t current_bytes);
/* Asks both ends again after a change, coalesced, and tells the manager; with `restore` the manager is then
 * asked to bring plugged blocks that are offline online again. */
void partition_settle(struct partition *p, bool restore);
/* The same without restore, some milliseconds later: after a job that ended with a look at both ends. */
void partition_settle_after_job(struct partition *p);
/* The same, a moment later: for what a guest can cause at will. */
void partition_settle_soon(struct partition *p, bool restore);
/* Both ends have been asked since the last change that is known of. */
bool partition_is_settled(const struct partition *p);
/* The id of the memory device that an address lies in, or "". */
const char *partition_device_at(const struct partition *p, uint64_t address);

enum refresh_what {
        REFRESH_HYPERVISOR = 1 << 0,
        REFRESH_MEMORY = 1 << 1,
        REFRESH_BLOCKS = 1 << 2,
        REFRESH_DEVICES = 1 << 3, /* of the hypervisor's account only these: in the middle of a job */
        REFRESH_ALL = REFRESH_HYPERVISOR | REFRESH_MEMORY | REFRESH_BLOCKS,
};
struct partition_refresh;
/* Asks both ends, side by side, and takes their answers into the partition before done is called, exactly
 * once and never from inside this call. Freeing the handle before drops the callback. */
typedef void (*partition_refreshed_t)(struct partition *p, const struct error *error, void *userdata);
int partition_refresh(struct partition *p, unsigned what, partition_refreshed_t done, void *userdata,
        struct partition_refresh **ret, struct error *ret_error);
struct partition_refresh *partition_refresh_free(struct partition_refresh *r);
