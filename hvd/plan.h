/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "proto/message.h"

/* Planning is pure: a snapshot and a request in, pieces or devices out. No file descriptors, no clock.
 * Nothing here blocks; on failure outputs are untouched. */

#define PLAN_DEVICES_MAX    256U                  /* x86: 256 slots; pseries 32 */
#define PLAN_LMB_BYTES      (UINT64_C(256) << 20) /* of a pseries guest: QEMU has no other size */
#define PLAN_BACKEND_PREFIX "opendlpar-mem-"      /* ids of the backends that hvd makes */

/* One memory device, as both ends know it. */
struct plan_device {
        char id[64];
        uint64_t address, size_bytes;
        unsigned slot, node;
        bool is_dimm;        /* takes a slot; else (virtio-mem) only space */
        bool removable;      /* hot-plugged, no unplug pending, not excluded by the caller */
        bool unplug_pending; /* in QEMU, until the guest is reset */
        /* from the guest's block inventory, bytes of the device's range: */
        uint64_t movable_bytes, kernel_bytes, offline_bytes, stuck_bytes; /* stuck: zone "none" */
        /* from a survey of its pages, where there was one: */
        bool is_surveyed;
        bool has_obstacle;      /* it holds pages that do not move */
        uint64_t migrate_bytes; /* what has to be moved before it can leave */
};

struct plan_snapshot {
        uint64_t granule_bytes; /* the guest's block size; every DIMM is a multiple. 0: guestd never said */
        uint64_t base_bytes;    /* memory at boot */
        uint64_t max_bytes;     /* maxmem; == base_bytes or 0: no hotplug memory */
        unsigned slots;         /* as started */
        uint64_t kernel_bytes, movable_bytes; /* the guest's zones */
        bool is_pseries;                      /* memory has DRC indices */
        unsigned n_nodes;                     /* NUMA nodes, numbered from 0; 0: not known */
        const uint64_t *node_base_bytes;      /* the memory at boot of each */
        const struct plan_device *devices;
        size_t n_devices;
};

#define PLAN_NODES_MAX 128U

enum zone_policy {
        ZONE_POLICY_AUTO,
        ZONE_POLICY_MOVABLE,
        ZONE_POLICY_KERNEL,
        ZONE_POLICY_MAX,
        ZONE_POLICY_INVALID = -1,
};
enum zone_policy zone_policy_from_string(const char *s); /* "auto" "movable" "kernel"; NULL is invalid */
const char *zone_policy_to_string(enum zone_policy p);   /* NULL if invalid */

struct plan_piece {
        uint64_t size_bytes;
        int node;       /* -1: left to the hypervisor, which takes node 0 */
        enum zone zone; /* KERNEL pieces come first, so that the ratio holds at every step */
};

struct plan_add {
        struct plan_piece pieces[PLAN_DEVICES_MAX];
        size_t n_pieces;
};

/* Cuts an addition of size_bytes into DIMMs by the slot rule, all in whole granules:
 *  share = (max - base) / slots, as the guest was started; cap = 2 * share rounded down to granules, at least
 * one; (1) afterwards, the rest of the capacity must be reachable with the slots left, in pieces of at most
 * cap (pieces of this request too); (2) within that, as many pieces as an even use allows: slots * size /
 * rest, at least one. Pieces of one zone differ by at most one granule. Space already taken by devices that
 * are not DIMMs (virtio-mem) counts as used. Devices that hvd did not plan can put (1) out of reach before
 * anything is asked; then cap rises to the even share of what is left, so that max stays reachable. It
 * follows that the whole rest is accepted as one request in every state with a free slot.
 *
 * Zones: MOVABLE refuses with ZONE_RATIO beyond zone_ratio_budget(), naming the most that is allowed. KERNEL
 * makes all kernel. AUTO never refuses: it makes the kernel part as small, in granules, as
 * zone_ratio_budget() allows (a kernel piece enlarges the budget) and the rest Movable, as pieces of their
 * own. A zone's own piece may take one slot more than (2) would; where (1) has no slot for it, the kernel
 * part grows to the next size that saves the slot.
 *
 * Errors, each naming the figures and what would be right; every size that a message offers is accepted for
 * the same snapshot and policy: AGENT_ABSENT (granule 0), NO_HOTPLUG, INVALID_SIZE (0), BEYOND_MAX (with what
 * is left), NO_SLOTS, UNALIGNED_SIZE (the nearest valid sizes below and above), SLOT_RULE (the nearest sizes
 * that do not break the rule), ZONE_RATIO. */
int plan_addition(const struct plan_snapshot *s, uint64_t size_bytes, enum zone_policy policy,
        struct plan_add *ret, struct error *ret_error);

/* Gives the pieces of an addition their nodes: `node` if it is not -1; else, in a guest of several nodes,
 * each piece goes to the one that then has the least plugged in proportion to its memory at boot, of those
 * that are alike the lowest. A node without memory at boot gets none unasked. */
void plan_choose_nodes(const struct plan_snapshot *s, int node, struct plan_add *add);

/* What of an addition of bytes has to be for the kernel so that the rest may be Movable, in whole steps, each
 * of which enlarges the budget; at most all of it. For memory that need not come in pieces. */
uint64_t plan_kernel_part(uint64_t kernel_bytes, uint64_t movable_bytes, uint64_t bytes, uint64_t step_bytes);

#define PLAN_COST_STEP (UINT64_C(8) << 20)

struct plan_remove {
        size_t devices[PLAN_DEVICES_MAX]; /* indices into the snapshot, in the order to take them */
        size_t n_devices;
        uint64_t total_bytes; /* at most the size asked */
        uint64_t kept_bytes;  /* more could leave, but for the ratio of the guest's zones: see 4. */
};

/* Whether a guest's zones are fit for each other when kernel_left and movable_left are left of them, in
 * bytes, or no worse than they were. */
bool plan_ratio_holds(
        uint64_t kernel_bytes, uint64_t movable_bytes, uint64_t kernel_left, uint64_t movable_left);

/* Picks whole DIMMs for a removal of size_bytes. Candidates are removable DIMMs of whole granules. A DIMM's
 * class is its worst block's: stuck (also one with an obstacle), else kernel zone, else Movable, else wholly
 * offline. Its cost is its migrate_bytes, in whole steps of PLAN_COST_STEP so that idle devices are alike.
 * Guaranteed, in this order:
 *  1. the total is the largest subset sum that is at most size_bytes (exact up to 2^18 units of the sizes'
 * greatest common divisor, which is 32 TiB in 128 MiB; beyond it is close, and never above size_bytes);
 *  2. among such sets, the fewest bytes in stuck DIMMs; then the fewest in kernel-zone DIMMs; then the least
 * cost; then the fewest bytes in Movable ones (so the most in offline ones);
 *  3. among those, the set that holds the DIMM at the highest address that any of them holds, and so on
 * downwards; but of DIMMs that are alike in size, class and cost those leave that lie in the NUMA node with
 * the most plugged in proportion to its memory at boot, one after the other, and of these the highest
 * address. Order to take: offline, Movable, kernel, stuck; within a class the cheapest first, and of those
 * again by node and address;
 *  4. no kernel memory leaves that zone Movable needs beside it: where a set would leave the guest beyond
 * zone_ratio_allows(), and worse than it is, DIMMs with kernel memory stay, those first that would leave
 * last, until it does not. This takes precedence over 1 to 3, and does not hold for device_id.
 *
 * device_id (may be NULL) restricts it to that one device, whose size must be size_bytes. Errors:
 * AGENT_ABSENT (granule 0), INVALID_SIZE (0), UNALIGNED_SIZE (the nearest totals), NOT_PLUGGED (more than is
 * plugged, or nothing of it removable: the figures), UNKNOWN_DEVICE (the known ids; or no DIMM),
 * UNPLUG_PENDING (device_id is not removable), ZONE_RATIO (by 4. nothing is left to leave), NO_EXACT_FIT when
 * every removable device is larger than size_bytes, or device_id's size differs from it (the sizes that would
 * do), INTERNAL (out of memory). */
int plan_removal(const struct plan_snapshot *s, uint64_t size_bytes, const char *device_id,
        struct plan_remove *ret, struct error *ret_error);

/* An LMB is a pseries guest's unit of hotplug, and its DRC index what the guest and drmgr name it by. A
 * device has those from the one at its address to the one at its last byte. */
static inline uint32_t plan_drc_index(uint64_t address)
{
        return UINT32_C(0x80000000) | (uint32_t)(address / PLAN_LMB_BYTES);
}

#define PLAN_DRC_TEXT_MAX 48U
/* "LMB 0x80000004", or "LMBs 0x80000004 to 0x80000007"; into buffer, which is returned. */
const char *plan_drc_text(uint64_t address, uint64_t size_bytes, char buffer[static PLAN_DRC_TEXT_MAX]);
#define PLAN_DRC_TEXT(address, size_bytes)                                                                   \
        plan_drc_text((address), (size_bytes), (char[PLAN_DRC_TEXT_MAX]) { 0 })

/* The device that leaves when size_bytes at the LMB of this index are to: the one that it lies in, of exactly
 * that size. *ret is an index into the snapshot; plan_removal() with the device's id has the last word.
 * Errors, each saying what would be right: INVALID_ARGUMENT (not a pseries guest), NOT_PLUGGED (base memory),
 * UNKNOWN_DEVICE (no such LMB; those that there are), NO_EXACT_FIT (the device has another size: which
 * device, its LMBs, and how to ask for all of it). */
int plan_find_drc(const struct plan_snapshot *s, uint32_t drc, uint64_t size_bytes, size_t *ret,
        struct error *ret_error);

/* The nearest totals that removable devices add up to, for messages: the largest at most size_bytes
 * (*ret_below, 0 if there is none) and the smallest at least size_bytes (*ret_above, UINT64_MAX if there is
 * none). */
void plan_nearest_removals(
        const struct plan_snapshot *s, uint64_t size_bytes, uint64_t *ret_below, uint64_t *ret_above);

/* What one mechanism can carry of a request, for plan_split(). */
struct plan_source {
        uint64_t room_bytes; /* the most, in whole units; 0: nothing */
        uint64_t unit_bytes;
        /* Where its sizes are not simply the multiples of the unit: the largest one of at most `bytes` (0 if
         * there is none) and the smallest of at least `bytes` (UINT64_MAX if there is none). May be NULL. */
        void (*nearest)(const void *userdata, uint64_t bytes, uint64_t *ret_below, uint64_t *ret_above);
        const void *userdata;
};

#define PLAN_SOURCES_MAX 4U

/* Splits a request over mechanisms, the best first: *ret_shares is what each of them carries, which together
 * is what this returns, never above `bytes`. `bytes` wherever leaving some of an earlier one's part to a
 * later one makes it exact, else close; within that the earlier ones carry as much as they can. */
uint64_t plan_split(
        const struct plan_source *sources, size_t n, uint64_t bytes, uint64_t ret_shares[PLAN_SOURCES_MAX]);
/* The nearest total of at least `bytes` that they can carry, for messages; UINT64_MAX if none is found. */
uint64_t plan_split_above(const struct plan_source *sources, size_t n, uint64_t bytes);

/* One's part of `bytes` that are taken from several in proportion to what each has: rounded up, at most what
 * it has. */
uint64_t plan_share(uint64_t bytes, uint64_t has_bytes, uint64_t all_have_bytes);

/* An addition's sizes that the slot rule and the zones allow, as in plan_addition(): the most, 0 if nothing
 * can be added; and the nearest (0 and UINT64_MAX if there is none). */
uint64_t plan_addition_room(const struct plan_snapshot *s, enum zone_policy policy);
void plan_nearest_additions(const struct plan_snapshot *s, uint64_t size_bytes, enum zone_policy policy,
        uint64_t *ret_below, uint64_t *ret_above);
/* The most that removable devices add up to. */
uint64_t plan_removal_room(const struct plan_snapshot *s);

/* What hvd finds when it meets a QEMU again, or after the guest's reboot. */
struct plan_attached {
        const char *id, *backend; /* the device and its memdev's id */
        uint64_t address, size_bytes;
};

struct plan_reconcile {
        uint64_t granule_bytes;
        const struct plan_attached *devices; /* those that hvd answers for, in any order */
        size_t n_devices;
        const char *const *backends; /* ids from qom-list /objects; those without the prefix are not ours */
        size_t n_backends;
        const struct block_range *blocks; /* the guest's inventory, sorted and disjoint */
        size_t n_blocks;
};

/* Backends of ours that no device uses, to object-del: indices into r->backends, which ret must have room
 * for. Returns their number. Only meaningful while no job is between object-add and device_add, or device_del
 * and object-del. */
size_t plan_orphan_backends(const struct plan_reconcile *r, size_t *ret);

/* Whole blocks of the devices that the guest has offline, to be put online again: sorted, disjoint,
 * neighbours joined. The caller frees *ret (NULL if there are none). Blocks that the guest is changing or
 * does not list are left out. 0, or -ENOMEM. */
int plan_offline_ranges(const struct plan_reconcile *r, struct mem_range **ret, size_t *ret_n);
