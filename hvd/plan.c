/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The planner: how an addition is cut into DIMMs and which DIMMs a removal takes. Owns nothing and keeps
 * nothing; it exists apart from the jobs that carry plans out so that its rules can be tested over any
 * sequence.
 *
 * The slot rule in figures. In granules, let rest be the free capacity, slots the free slots and
 * slack = slots * cap - rest, which is never negative (see room_measure). A request r takes at least ceil(r /
 * cap) pieces, and keeps max reachable iff what it wastes of them, ceil(r / cap) * cap - r, is at most slack.
 * So multiples of cap always fit, the whole rest always fits, and the nearest sizes that fit are found
 * without a search. */

#include "hvd/plan.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"

/* Bounds a subset sum's tables: 16 bytes a unit, and a bit for each device and unit (8 MiB). */
#define SUM_UNITS_MAX (1U << 18)

#define DIV_UP(a, b) (((a) + (b)-1) / (b))

static const char *const zone_policy_names[ZONE_POLICY_MAX] = {
        [ZONE_POLICY_AUTO] = "auto",
        [ZONE_POLICY_MOVABLE] = "movable",
        [ZONE_POLICY_KERNEL] = "kernel",
};

enum zone_policy zone_policy_from_string(const char *s)
{
        for (int i = 0; s && i < ZONE_POLICY_MAX; i++)
                if (strcmp(zone_policy_names[i], s) == 0)
                        return i;
        return ZONE_POLICY_INVALID;
}

const char *zone_policy_to_string(enum zone_policy p)
{
        return p >= 0 && p < ZONE_POLICY_MAX ? zone_policy_names[p] : NULL;
}

/* Room for another addition; in granules, except where the name says otherwise. */
struct room {
        uint64_t granule_bytes, plugged_bytes;
        uint64_t rest, slots, cap;
        uint64_t limit; /* the most that the zone policy allows */
};

static int check_size(const struct plan_snapshot *s, uint64_t size_bytes, struct error *ret_error)
{
        if (s->granule_bytes == 0)
                return error_set(ret_error, ERROR_AGENT_ABSENT,
                        "The guest's memory block size is not known yet; start guestd in the guest");
        if (size_bytes == 0)
                return error_set(ret_error, ERROR_INVALID_SIZE,
                        "Size is zero; write a multiple of the guest's memory block size, %s",
                        SIZE_EXACT(s->granule_bytes));
        return 0;
}

static int room_measure(
        const struct plan_snapshot *s, enum zone_policy policy, struct room *ret, struct error *ret_error)
{
        struct room room = { .granule_bytes = s->granule_bytes, .limit = UINT64_MAX };

        if (s->max_bytes <= s->base_bytes || s->slots == 0)
                return error_set(ret_error, ERROR_NO_HOTPLUG,
                        "The partition was started without hotplug memory (%s at boot, maxmem %s, %u slots); "
                        "restart it with maxmem above its memory and with slots, as in -m "
                        "1G,slots=16,maxmem=16G",
                        SIZE_EXACT(s->base_bytes), SIZE_EXACT(MAX(s->max_bytes, s->base_bytes)), s->slots);

        uint64_t capacity_bytes = s->max_bytes - s->base_bytes;
        size_t n_dimms = 0;
        for (size_t i = 0; i < s->n_devices; i++) {
                room.plugged_bytes += s->devices[i].size_bytes;
                n_dimms += s->devices[i].is_dimm;
        }
        if (room.plugged_bytes < capacity_bytes)
                room.rest = (capacity_bytes - room.plugged_bytes) / s->granule_bytes;
        if (n_dimms < s->slots)
                room.slots = s->slots - n_dimms;
        room.cap = MAX(2 * (capacity_bytes / s->granule_bytes) / s->slots, UINT64_C(1));
        if (room.slots > 0)
                room.cap = MAX(room.cap, DIV_UP(room.rest, room.slots));
        if (policy == ZONE_POLICY_MOVABLE)
                room.limit = zone_ratio_budget(s->kernel_bytes, s->movable_bytes) / s->granule_bytes;

        *ret = room;
        return 0;
}

/* The slot rule (1), for 0 < r <= rest. */
static bool room_fits(const struct room *room, uint64_t r)
{
        uint64_t n = DIV_UP(r, room->cap);

        return n <= room->slots && room->rest - r <= (room->slots - n) * room->cap;
}

/* The largest size of at most r that fits; 0: none. Needs a free slot. */
static uint64_t room_fit_below(const struct room *room, uint64_t r)
{
        r = MIN(r, room->rest);
        r = MIN(r, room->limit);
        return r == 0 || room_fits(room, r) ? r : r / room->cap * room->cap;
}

/* The smallest size of at least r that fits; 0: none. Needs a free slot. */
static uint64_t room_fit_above(const struct room *room, uint64_t r)
{
        r = MAX(r, UINT64_C(1));
        if (r > room->rest)
                return 0;
        if (!room_fits(room, r)) {
                uint64_t slack = room->slots * room->cap - room->rest;
                r = MIN(DIV_UP(r, room->cap) * room->cap - slack, room->rest);
        }
        return r > room->limit ? 0 : r;
}

#define OFFER_MAX 96
/* "ask for 1G", "ask for 1G or 2G", or what to do if no size will do. Bytes; 0 and UINT64_MAX: there is none.
 */
static const char *offer(uint64_t below, uint64_t above, const char *otherwise, char buffer[static OFFER_MAX])
{
        bool has_below = below > 0, has_above = above > 0 && above != UINT64_MAX;

        if (has_below && has_above && below != above)
                snprintf(buffer, OFFER_MAX, "ask for %s or %s", SIZE_EXACT(below), SIZE_EXACT(above));
        else if (has_below || has_above)
                snprintf(buffer, OFFER_MAX, "ask for %s", SIZE_EXACT(has_below ? below : above));
        else
                snprintf(buffer, OFFER_MAX, "%s", otherwise);
        return buffer;
}

static const char *room_offer(
        const struct room *room, uint64_t floor, uint64_t ceil, char buffer[static OFFER_MAX])
{
        return offer(room_fit_below(room, floor) * room->granule_bytes,
                room_fit_above(room, ceil) * room->granule_bytes, "use zone auto, or remove memory first",
                buffer);
}
#define ROOM_OFFER(room, floor, ceil) room_offer((room), (floor), (ceil), (char[OFFER_MAX]) { 0 })

static int check_addition(
        const struct plan_snapshot *s, const struct room *room, uint64_t size_bytes, struct error *ret_error)
{
        uint64_t g = room->granule_bytes, r = size_bytes / g;

        if (room->rest == 0)
                return error_set(ret_error, ERROR_BEYOND_MAX,
                        "The partition has all that its maxmem of %s allows (%s at boot, %s plugged); remove "
                        "memory "
                        "first",
                        SIZE_EXACT(s->max_bytes), SIZE_EXACT(s->base_bytes), SIZE_EXACT(room->plugged_bytes));
        if (room->slots == 0)
                return error_set(ret_error, ERROR_NO_SLOTS,
                        "All %u memory slots are taken, though %s of maxmem is free; remove a DIMM first",
                        s->slots, SIZE_EXACT(room->rest * g));
        if (size_bytes > room->rest * g)
                return error_set(ret_error, ERROR_BEYOND_MAX,
                        "%s is more than the %s left below maxmem %s (%s at boot, %s plugged); %s",
                        SIZE_EXACT(size_bytes), SIZE_EXACT(room->rest * g), SIZE_EXACT(s->max_bytes),
                        SIZE_EXACT(s->base_bytes), SIZE_EXACT(room->plugged_bytes),
                        ROOM_OFFER(room, room->rest, room->rest));
        if (size_bytes % g != 0)
                return error_set(ret_error, ERROR_UNALIGNED_SIZE,
                        "%s is not a multiple of the guest's memory block size, %s; %s",
                        SIZE_EXACT(size_bytes), SIZE_EXACT(g), ROOM_OFFER(room, r, r + 1));
        if (!room_fits(room, r)) {
                uint64_t n = DIV_UP(r, room->cap);
                return error_set(ret_error, ERROR_SLOT_RULE,
                        "Adding %s takes %" PRIu64 " of %" PRIu64
                        " free slots, and DIMMs of at most %s in the other "
                        "%" PRIu64 " could not hold the %s that would be left below maxmem %s; %s",
                        SIZE_EXACT(size_bytes), n, room->slots, SIZE_EXACT(room->cap * g),
                        room->slots - MIN(n, room->slots), SIZE_EXACT((room->rest - r) * g),
                        SIZE_EXACT(s->max_bytes), ROOM_OFFER(room, r, r));
        }
        if (r > room->limit)
                return error_set(ret_error, ERROR_ZONE_RATIO,
                        "Zone Movable may grow by at most %s (it has %s beside %s of kernel memory, and 3:1 "
                        "is the "
                        "limit), not by %s; %s",
                        SIZE_EXACT(room->limit * g), SIZE_EXACT(s->movable_bytes),
                        SIZE_EXACT(s->kernel_bytes), SIZE_EXACT(size_bytes), ROOM_OFFER(room, r, UINT64_MAX));
        return 0;
}

/* The fewest granules of r that must be kernel memory so that the others may be Movable. */
static uint64_t least_kernel(const struct plan_snapshot *s, uint64_t r)
{
        uint64_t g = s->granule_bytes, low = 0, high = r;

        while (low < high) {
                uint64_t k = low + (high - low) / 2;
                if (zone_ratio_budget(s->kernel_bytes + k * g, s->movable_bytes) / g >= r - k)
                        high = k;
                else
                        low = k + 1;
        }
        return low;
}

/* Appends `granules` as n pieces that differ by at most one granule. */
static void add_pieces(
        struct plan_add *add, uint64_t granule_bytes, uint64_t granules, uint64_t n, enum zone zone)
{
        for (uint64_t i = 0; i < n; i++) {
                assert(add->n_pieces < PLAN_DEVICES_MAX);
                add->pieces[add->n_pieces++] = (struct plan_piece) {
                        .size_bytes = (granules / n + (i < granules % n)) * granule_bytes,
                        .zone = zone,
                };
        }
}

int plan_addition(const struct plan_snapshot *s, uint64_t size_bytes, enum zone_policy policy,
        struct plan_add *ret, struct error *ret_error)
{
        struct room room = { 0 };
        int e = check_size(s, size_bytes, ret_error);
        if (e < 0)
                return e;
        e = room_measure(s, policy, &room, ret_error);
        if (e < 0)
                return e;
        e = check_addition(s, &room, size_bytes, ret_error);
        if (e < 0)
                return e;

        uint64_t g = room.granule_bytes, r = size_bytes / g;
        /* No more slots than (1) leaves, than granules, or than a plan holds. */
        uint64_t n_min = DIV_UP(r, room.cap), n_max = room.slots - DIV_UP(room.rest - r, room.cap);
        n_max = MIN(n_max, r);
        n_max = MIN(n_max, (uint64_t)PLAN_DEVICES_MAX);
        if (n_min > n_max)
                return error_set(ret_error, ERROR_NO_SLOTS,
                        "%s takes more than %u DIMMs; ask for less at a time", SIZE_EXACT(size_bytes),
                        PLAN_DEVICES_MAX);

        uint64_t kernel = policy == ZONE_POLICY_KERNEL    ? r
                          : policy == ZONE_POLICY_MOVABLE ? 0
                                                          : least_kernel(s, r);
        /* Two zones take at most one piece more than one zone, which takes n_min. */
        while (DIV_UP(kernel, room.cap) + DIV_UP(r - kernel, room.cap) > n_max)
                kernel++;

        uint64_t kernel_min = DIV_UP(kernel, room.cap), movable_min = DIV_UP(r - kernel, room.cap);
        uint64_t n = MIN(room.slots * r / room.rest, n_max);
        n = MAX(n, kernel_min + movable_min);
        uint64_t n_kernel = MAX(n * kernel / r, kernel_min);
        n_kernel = MIN(n_kernel, n - movable_min);
        uint64_t n_movable = MIN(n - n_kernel, r - kernel);
        n_kernel = MIN(n - n_movable, kernel);

        struct plan_add add = { 0 };
        add_pieces(&add, g, kernel, n_kernel, ZONE_KERNEL);
        add_pieces(&add, g, r - kernel, n_movable, ZONE_MOVABLE);
        *ret = add;
        return 0;
}

/* Worst last: both the order to take DIMMs in and, from the end, the weight of their bytes. */
enum device_class { CLASS_OFFLINE, CLASS_MOVABLE, CLASS_KERNEL, CLASS_STUCK };

struct candidate {
        size_t index;
        uint64_t address, size_bytes;
        enum device_class class;
        uint64_t cost; /* in steps */
        bool taken;
};

struct candidates {
        struct candidate list[PLAN_DEVICES_MAX]; /* lowest address first */
        size_t n;
        uint64_t total_bytes, smallest_bytes;
};

static enum device_class classify(const struct plan_device *d)
{
        return d->stuck_bytes > 0 || d->has_obstacle ? CLASS_STUCK
               : d->kernel_bytes > 0                 ? CLASS_KERNEL
               : d->movable_bytes > 0                ? CLASS_MOVABLE
                                                     : CLASS_OFFLINE;
}

static void collect_candidates(const struct plan_snapshot *s, struct candidates *ret)
{
        struct candidates c = { .smallest_bytes = UINT64_MAX };

        for (size_t i = 0; i < s->n_devices && c.n < PLAN_DEVICES_MAX; i++) {
                const struct plan_device *d = &s->devices[i];
                size_t at = c.n;

                if (!d->is_dimm || !d->removable || d->size_bytes == 0 ||
                        d->size_bytes % s->granule_bytes != 0)
                        continue;
                for (; at > 0 && c.list[at - 1].address > d->address; at--)
                        c.list[at] = c.list[at - 1];
                c.list[at] = (struct candidate) {
                        .index = i,
                        .address = d->address,
                        .size_bytes = d->size_bytes,
                        .class = classify(d),
                        .cost = d->migrate_bytes / PLAN_COST_STEP,
                };
                c.n++;
                c.total_bytes += d->size_bytes;
                c.smallest_bytes = MIN(c.smallest_bytes, d->size_bytes);
        }
        *ret = c;
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
        while (b != 0) {
                uint64_t t = a % b;
                a = b;
                b = t;
        }
        return a;
}

/* What is to be least of a set. Both parts add up, and the first one weighs more; in each lie two figures
 * that cannot overflow into one another: units are at most SUM_UNITS_MAX, and the Movable ones are not more.
 */
struct cost {
        uint64_t units; /* stuck, and below kernel units */
        uint64_t moved; /* steps of migration, and below Movable units */
};
#define UNIT_BITS 20
#define NO_SET    ((struct cost) { UINT64_MAX, UINT64_MAX })
#define STEPS_MAX (UINT64_C(1) << 35) /* of one device: 256 PiB, and 2^8 of them fit */
_Static_assert(SUM_UNITS_MAX < 1U << UNIT_BITS, "units of a set overflow");
_Static_assert(PLAN_DEVICES_MAX <= 256, "steps of a set overflow");

static struct cost cost_of(const struct candidate *d, size_t units)
{
        return (struct cost) {
                .units = d->class == CLASS_STUCK    ? (uint64_t)units << UNIT_BITS
                         : d->class == CLASS_KERNEL ? units
                                                    : 0,
                .moved = MIN(d->cost, STEPS_MAX) << UNIT_BITS | (d->class == CLASS_MOVABLE ? units : 0),
        };
}

static struct cost cost_sum(struct cost a, struct cost b)
{
        return (struct cost) { a.units + b.units, a.moved + b.moved };
}

static bool cost_is_more(struct cost a, struct cost b)
{
        return a.units != b.units ? a.units > b.units : a.moved > b.moved;
}

/* Marks as taken the best set of at most target_bytes, as plan.h promises, and returns its total. A knapsack
 * over sums: cost[u] is the least cost of u units among the devices seen so far, and a bit for each device
 * and sum says whether the device was part of it. Equal costs take the device, and devices come lowest
 * address first, so walking back from the last one prefers high addresses. */
static int take_best(struct candidates *c, uint64_t target_bytes, uint64_t *ret_total)
{
        _cleanup_free_ struct cost *cost = NULL;
        _cleanup_free_ uint64_t *taken = NULL;
        uint64_t unit = 0, total = 0;

        target_bytes = MIN(target_bytes, c->total_bytes);
        for (size_t i = 0; i < c->n; i++)
                unit = greatest_common_divisor(unit, c->list[i].size_bytes);
        if (unit == 0 || target_bytes < unit)
                unit = MAX(target_bytes, UINT64_C(1));
        /* Coarser units keep memory bounded; sizes are rounded up, so the target is never exceeded. */
        while (target_bytes / unit > SUM_UNITS_MAX)
                unit *= 2;

        size_t n_units = target_bytes / unit, row = n_units + 1, best = 0;
        cost = malloc(row * sizeof(*cost));
        taken = calloc(c->n * row / 64 + 1, sizeof(*taken));
        if (!cost || !taken)
                return -ENOMEM;
        cost[0] = (struct cost) { 0 };
        for (size_t u = 1; u <= n_units; u++)
                cost[u] = NO_SET;

        for (size_t i = 0; i < c->n; i++) {
                size_t w = DIV_UP(c->list[i].size_bytes, unit);
                struct cost own = cost_of(&c->list[i], w);

                for (size_t u = n_units; u >= w && u <= n_units; u--) {
                        if (cost[u - w].units == UINT64_MAX)
                                continue;
                        struct cost with = cost_sum(cost[u - w], own);
                        if (cost_is_more(with, cost[u]))
                                continue;
                        cost[u] = with;
                        taken[(i * row + u) / 64] |= UINT64_C(1) << ((i * row + u) % 64);
                        best = MAX(best, u);
                }
        }
        for (size_t i = c->n, u = best; i-- > 0;) {
                struct candidate *d = &c->list[i];

                d->taken = taken[(i * row + u) / 64] >> ((i * row + u) % 64) & 1;
                if (d->taken) {
                        u -= DIV_UP(d->size_bytes, unit);
                        total += d->size_bytes;
                }
        }
        *ret_total = total;
        return 0;
}

void plan_nearest_removals(
        const struct plan_snapshot *s, uint64_t size_bytes, uint64_t *ret_below, uint64_t *ret_above)
{
        uint64_t total;

        *ret_below = 0;
        *ret_above = UINT64_MAX;
        if (s->granule_bytes == 0)
                return;

        struct candidates c;
        collect_candidates(s, &c);
        if (take_best(&c, size_bytes, &total) == 0)
                *ret_below = total;
        /* What stays behind when the most leaves is the least that must leave. */
        if (size_bytes <= c.total_bytes && take_best(&c, c.total_bytes - size_bytes, &total) == 0 &&
                total < c.total_bytes)
                *ret_above = c.total_bytes - total;
}

static const char *removal_offer(
        const struct plan_snapshot *s, uint64_t size_bytes, char buffer[static OFFER_MAX])
{
        uint64_t below, above;

        plan_nearest_removals(s, size_bytes, &below, &above);
        return offer(below, above, "no DIMM can leave now", buffer);
}
#define REMOVAL_OFFER(s, size_bytes) removal_offer((s), (size_bytes), (char[OFFER_MAX]) { 0 })

static int unknown_device(const struct plan_snapshot *s, const char *device_id, struct error *ret_error)
{
        char known[256] = "";
        size_t used = 0, n = 0;

        for (size_t i = 0; i < s->n_devices; i++) {
                if (!s->devices[i].is_dimm)
                        continue;
                if (n < 8 && used < sizeof(known) - 80)
                        used += snprintf(known + used, sizeof(known) - used, "%s%.*s", n ? ", " : "",
                                (int)sizeof(s->devices[i].id), s->devices[i].id);
                n++;
        }
        if (n == 0)
                return error_set(ret_error, ERROR_UNKNOWN_DEVICE,
                        "There is no device '%.64s': no DIMM is plugged", device_id);
        return error_set(ret_error, ERROR_UNKNOWN_DEVICE,
                "There is no DIMM '%.64s'; of %zu plugged there are: %s", device_id, n, known);
}

static int remove_device(const struct plan_snapshot *s, uint64_t size_bytes, const char *device_id,
        struct plan_remove *ret, struct error *ret_error)
{
        for (size_t i = 0; i < s->n_devices; i++) {
                const struct plan_device *d = &s->devices[i];

                if (strncmp(d->id, device_id, sizeof(d->id)) != 0)
                        continue;
                if (!d->is_dimm)
                        return error_set(ret_error, ERROR_UNKNOWN_DEVICE,
                                "%.64s is not a DIMM: it shrinks, it does not leave whole; name a DIMM, or "
                                "none",
                                device_id);
                if (d->unplug_pending)
                        return error_set(ret_error, ERROR_UNPLUG_PENDING,
                                "%.64s cannot be removed now: its unplug is pending in QEMU, the guest does "
                                "not see to it, and only a reset of the guest ends that (the device leaves "
                                "then); name another DIMM, or none",
                                device_id);
                if (!d->removable)
                        return error_set(ret_error, ERROR_UNPLUG_PENDING,
                                "%.64s cannot be removed now: it was not hot-plugged, or its removal is "
                                "under way; "
                                "name another DIMM, or none",
                                device_id);
                if (d->size_bytes != size_bytes)
                        return error_set(ret_error, ERROR_NO_EXACT_FIT,
                                "%.64s has %s and leaves whole or not at all, not by %s; ask for %s",
                                device_id, SIZE_EXACT(d->size_bytes), SIZE_EXACT(size_bytes),
                                SIZE_EXACT(d->size_bytes));
                *ret = (struct plan_remove) { .devices = { i }, .n_devices = 1, .total_bytes = size_bytes };
                return 0;
        }
        return unknown_device(s, device_id, ret_error);
}

/* Of those that are marked, the one that is to go first; its mark is taken off. NULL: there is none left. */
static const struct candidate *take_next(struct candidates *c)
{
        struct candidate *best = NULL;

        for (size_t i = c->n; i-- > 0;) {
                struct candidate *d = &c->list[i];

                if (d->taken && (!best || d->class < best->class ||
                                        (d->class == best->class && d->cost < best->cost)))
                        best = d;
        }
        if (best)
                best->taken = false;
        return best;
}

int plan_removal(const struct plan_snapshot *s, uint64_t size_bytes, const char *device_id,
        struct plan_remove *ret, struct error *ret_error)
{
        int e = check_size(s, size_bytes, ret_error);
        if (e < 0)
                return e;
        if (device_id)
                return remove_device(s, size_bytes, device_id, ret, ret_error);

        uint64_t plugged_bytes = 0;
        size_t n_pending = 0;
        for (size_t i = 0; i < s->n_devices; i++) {
                if (s->devices[i].is_dimm)
                        plugged_bytes += s->devices[i].size_bytes;
                n_pending += s->devices[i].unplug_pending;
        }
        if (plugged_bytes == 0)
                return error_set(ret_error, ERROR_NOT_PLUGGED,
                        "No DIMM is plugged, and the %s at boot cannot leave; add memory first",
                        SIZE_EXACT(s->base_bytes));

        struct candidates c;
        collect_candidates(s, &c);
        if (c.n == 0)
                return error_set(ret_error, ERROR_NOT_PLUGGED,
                        "None of the %s plugged in DIMMs can leave now: they were not hot-plugged, or their "
                        "removal is under way%s",
                        SIZE_EXACT(plugged_bytes),
                        n_pending > 0 ? " (one that is pending in QEMU ends only with a reset of the guest)"
                                      : "");
        if (size_bytes > plugged_bytes)
                return error_set(ret_error, ERROR_NOT_PLUGGED,
                        "%s is more than the %s plugged in DIMMs, and the %s at boot cannot leave; %s",
                        SIZE_EXACT(size_bytes), SIZE_EXACT(plugged_bytes), SIZE_EXACT(s->base_bytes),
                        REMOVAL_OFFER(s, plugged_bytes));
        if (size_bytes % s->granule_bytes != 0)
                return error_set(ret_error, ERROR_UNALIGNED_SIZE,
                        "%s is not a multiple of the guest's memory block size, %s; %s",
                        SIZE_EXACT(size_bytes), SIZE_EXACT(s->granule_bytes), REMOVAL_OFFER(s, size_bytes));
        if (c.smallest_bytes > size_bytes)
                return error_set(ret_error, ERROR_NO_EXACT_FIT,
                        "Every DIMM that can leave is larger than %s, and a DIMM leaves whole or not at all; "
                        "%s",
                        SIZE_EXACT(size_bytes), REMOVAL_OFFER(s, size_bytes));

        struct plan_remove remove = { 0 };
        if (take_best(&c, size_bytes, &remove.total_bytes) < 0)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory while choosing DIMMs; try again");
        for (const struct candidate *next; (next = take_next(&c));)
                remove.devices[remove.n_devices++] = next->index;
        *ret = remove;
        return 0;
}
