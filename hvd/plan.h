/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "proto/message.h"

/* Planning is pure: a snapshot and a request in, pieces or devices out. No file descriptors, no clock. */

#define PLAN_DEVICES_MAX 256U /* x86: 256 slots; pseries 32 */

/* One memory device, as both ends know it. */
struct plan_device {
        char id[64];
        uint64_t address, size_bytes;
        unsigned slot, node;
        bool is_dimm;      /* takes a slot; else (virtio-mem) only space */
        bool removable;    /* hot-plugged, no unplug pending, not excluded by the caller */
        /* from the guest's block inventory, bytes of the device's range: */
        uint64_t movable_bytes, kernel_bytes, offline_bytes, stuck_bytes; /* stuck: zone "none" */
};

struct plan_snapshot {
        uint64_t granule_bytes;  /* the guest's block size; every DIMM is a multiple */
        uint64_t base_bytes;     /* memory at boot */
        uint64_t max_bytes;      /* maxmem; == base_bytes or 0: no hotplug memory */
        unsigned slots;          /* as started */
        uint64_t kernel_bytes, movable_bytes; /* the guest's zones */
        const struct plan_device *devices;
        size_t n_devices;
};

enum zone_policy { ZONE_POLICY_AUTO, ZONE_POLICY_MOVABLE, ZONE_POLICY_KERNEL, ZONE_POLICY_MAX, ZONE_POLICY_INVALID = -1 };
enum zone_policy zone_policy_from_string(const char *s); /* "auto" "movable" "kernel" */
const char *zone_policy_to_string(enum zone_policy p);

struct plan_piece {
        uint64_t size_bytes;
        enum zone zone; /* KERNEL pieces come first, so that the ratio holds at every step */
};

struct plan_add {
        struct plan_piece pieces[PLAN_DEVICES_MAX];
        size_t n_pieces;
};

/* Cuts an addition of size_bytes into DIMMs by the slot rule:
 *  share = (max - base) / slots, as the guest was started; cap = 2 * share, rounded down to granules, at least one;
 *  (1) afterwards, the rest of the capacity must be reachable with the slots left, in pieces of at most cap
 *      (pieces of this request too);
 *  (2) within that, pieces as small as an even use of the slots left allows.
 * Space already taken by devices that are not DIMMs (virtio-mem) counts as used. Zones: AUTO makes pieces Movable
 * as far as zone_ratio_* allows and the rest KERNEL (a kernel piece enlarges the budget); MOVABLE refuses with
 * ZONE_RATIO beyond it, naming the most that is allowed; KERNEL makes all kernel.
 * Errors, each naming the figures and what would be right: UNALIGNED_SIZE (the nearest valid sizes below and
 * above), NO_HOTPLUG, BEYOND_MAX (with what is left), NO_SLOTS, SLOT_RULE (the nearest size, below or above, that does
 * not break the rule), ZONE_RATIO. */
int plan_addition(const struct plan_snapshot *s, uint64_t size_bytes, enum zone_policy policy,
        struct plan_add *ret, struct error *ret_error);

struct plan_remove {
        size_t devices[PLAN_DEVICES_MAX]; /* indices into the snapshot, in the order to take them */
        size_t n_devices;
        uint64_t total_bytes;             /* at most the size asked */
};

/* Picks whole DIMMs for a removal of size_bytes: the largest total that is at most size_bytes, by exact subset
 * sums; among equal totals the cheapest set: no stuck or kernel-zone blocks before such with, offline and Movable first, then the
 * highest address first. device_id (may be NULL) restricts it to that one device. Errors: UNALIGNED_SIZE,
 * NOT_PLUGGED (more than is plugged: the figures), UNKNOWN_DEVICE (the known ids), BASE nothing removable:
 * NOT_PLUGGED, NO_EXACT_FIT when every removable device is larger than size_bytes, or device_id's size differs from
 * it (the sizes that would do: below and above). */
int plan_removal(const struct plan_snapshot *s, uint64_t size_bytes, const char *device_id,
        struct plan_remove *ret, struct error *ret_error);

/* One of the nearest totals that removable devices add up to, for messages: *ret_below is 0 if there is none,
 * *ret_above UINT64_MAX. */
void plan_nearest_removals(const struct plan_snapshot *s, uint64_t size_bytes, uint64_t *ret_below,
        uint64_t *ret_above);
