/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The planner of additions: how one is cut into DIMMs. Owns nothing and keeps nothing; it exists apart from
 * the jobs that carry plans out so that its rules can be tested over any sequence.
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

#include "common/size.h"
#include "hvd/plan-internal.h"

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

int plan_check_size(const struct plan_snapshot *s, uint64_t size_bytes, struct error *ret_error)
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

const char *plan_offer(
        uint64_t below, uint64_t above, const char *otherwise, char buffer[static PLAN_OFFER_MAX])
{
        bool has_below = below > 0, has_above = above > 0 && above != UINT64_MAX;

        if (has_below && has_above && below != above)
                snprintf(buffer, PLAN_OFFER_MAX, "ask for %s or %s", SIZE_EXACT(below), SIZE_EXACT(above));
        else if (has_below || has_above)
                snprintf(buffer, PLAN_OFFER_MAX, "ask for %s", SIZE_EXACT(has_below ? below : above));
        else
                snprintf(buffer, PLAN_OFFER_MAX, "%s", otherwise);
        return buffer;
}

static const char *room_offer(
        const struct room *room, uint64_t floor, uint64_t ceil, char buffer[static PLAN_OFFER_MAX])
{
        return plan_offer(room_fit_below(room, floor) * room->granule_bytes,
                room_fit_above(room, ceil) * room->granule_bytes, "use zone auto, or remove memory first",
                buffer);
}
#define ROOM_OFFER(room, floor, ceil) room_offer((room), (floor), (ceil), (char[PLAN_OFFER_MAX]) { 0 })

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
                        .node = -1,
                        .zone = zone,
                };
        }
}

int plan_addition(const struct plan_snapshot *s, uint64_t size_bytes, enum zone_policy policy,
        struct plan_add *ret, struct error *ret_error)
{
        struct room room = { 0 };
        int e = plan_check_size(s, size_bytes, ret_error);
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

uint64_t plan_addition_room(const struct plan_snapshot *s, enum zone_policy policy)
{
        struct room room;

        if (s->granule_bytes == 0 || room_measure(s, policy, &room, NULL) < 0 || room.slots == 0)
                return 0;
        return room_fit_below(&room, room.rest) * room.granule_bytes;
}

void plan_nearest_additions(const struct plan_snapshot *s, uint64_t size_bytes, enum zone_policy policy,
        uint64_t *ret_below, uint64_t *ret_above)
{
        struct room room;

        *ret_below = 0;
        *ret_above = size_bytes == 0 ? 0 : UINT64_MAX;
        if (size_bytes == 0 || s->granule_bytes == 0 || room_measure(s, policy, &room, NULL) < 0 ||
                room.slots == 0)
                return;
        *ret_below = room_fit_below(&room, size_bytes / room.granule_bytes) * room.granule_bytes;
        uint64_t above = room_fit_above(&room, DIV_UP(size_bytes, room.granule_bytes));
        if (above > 0)
                *ret_above = above * room.granule_bytes;
}

uint64_t plan_kernel_part(uint64_t kernel_bytes, uint64_t movable_bytes, uint64_t bytes, uint64_t step_bytes)
{
        uint64_t low = 0, high = DIV_UP(bytes, step_bytes);

        /* By halves: the figures are a guest's, and there may be any number of steps. */
        while (low < high) {
                uint64_t middle = low + (high - low) / 2, kernel = MIN(middle * step_bytes, bytes);

                if (zone_ratio_budget(kernel_bytes + kernel, movable_bytes) < bytes - kernel)
                        low = middle + 1;
                else
                        high = middle;
        }
        return MIN(low * step_bytes, bytes);
}
