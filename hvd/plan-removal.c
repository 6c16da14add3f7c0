/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The planner of removals: which DIMMs leave. A knapsack finds the best set by what adds up (bytes, cost);
 * what does not, the balance of the guest's nodes, decides between devices that are alike. */

#include "hvd/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/plan-internal.h"

/* Bounds a subset sum's tables: 16 bytes a unit, and a bit for each device and unit (8 MiB). */
#define SUM_UNITS_MAX (1U << 18)

/* Worst last: both the order to take DIMMs in and, from the end, the weight of their bytes. */
enum device_class { CLASS_OFFLINE, CLASS_MOVABLE, CLASS_KERNEL, CLASS_STUCK };

struct candidate {
        size_t index;
        uint64_t address, size_bytes;
        unsigned node;
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
                        .node = plan_nodes_index(d->node),
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

static bool is_alike(const struct candidate *a, const struct candidate *b)
{
        return a->size_bytes == b->size_bytes && a->class == b->class && a->cost == b->cost;
}

/* Takes `n` of those that are alike, each time from the fullest node. */
static void take_balanced(
        struct candidates *c, const struct candidate *like, size_t n, struct plan_nodes *nodes)
{
        for (size_t i = 0; i < c->n; i++)
                if (is_alike(&c->list[i], like))
                        c->list[i].taken = false;
        for (; n > 0; n--) {
                struct candidate *best = NULL;

                for (size_t i = c->n; i-- > 0;) {
                        struct candidate *d = &c->list[i];

                        if (!d->taken && is_alike(d, like) &&
                                (!best || plan_nodes_is_fuller(nodes, d->node, best->node)))
                                best = d;
                }
                best->taken = true;
                nodes->plugged_bytes[best->node] -= best->size_bytes;
        }
}

/* Exchanges what is taken for what is alike: as much leaves, at the same cost. */
static void balance(const struct plan_snapshot *s, struct candidates *c)
{
        struct candidate groups[PLAN_DEVICES_MAX];
        size_t n_groups = 0, n_taken[PLAN_DEVICES_MAX], n_of[PLAN_DEVICES_MAX];
        struct plan_nodes nodes;

        for (size_t i = c->n; i-- > 0;) {
                size_t g = 0;

                while (g < n_groups && !is_alike(&groups[g], &c->list[i]))
                        g++;
                if (g == n_groups) {
                        groups[n_groups++] = c->list[i];
                        n_taken[g] = n_of[g] = 0;
                }
                n_of[g]++;
                n_taken[g] += c->list[i].taken;
        }
        plan_nodes_measure(s, &nodes);
        /* First those without a choice: the others make up for them. */
        for (size_t g = 0; g < n_groups; g++)
                if (n_taken[g] == n_of[g])
                        take_balanced(c, &groups[g], n_taken[g], &nodes);
        for (size_t g = 0; g < n_groups; g++)
                if (n_taken[g] < n_of[g])
                        take_balanced(c, &groups[g], n_taken[g], &nodes);
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

uint64_t plan_removal_room(const struct plan_snapshot *s)
{
        struct candidates c;

        if (s->granule_bytes == 0)
                return 0;
        collect_candidates(s, &c);
        return c.total_bytes;
}

static const char *removal_offer(
        const struct plan_snapshot *s, uint64_t size_bytes, char buffer[static PLAN_OFFER_MAX])
{
        uint64_t below, above;

        plan_nearest_removals(s, size_bytes, &below, &above);
        return plan_offer(below, above, "no DIMM can leave now", buffer);
}
#define REMOVAL_OFFER(s, size_bytes) removal_offer((s), (size_bytes), (char[PLAN_OFFER_MAX]) { 0 })

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

/* Whether a is to go before b, which lies at a lower address or does not. */
static bool goes_before(const struct candidate *a, const struct candidate *b, const struct plan_nodes *nodes)
{
        return a->class != b->class ? a->class < b->class
               : a->cost != b->cost ? a->cost < b->cost
                                    : plan_nodes_is_fuller(nodes, a->node, b->node);
}

/* Lists those that are marked in the order to take them, and takes the marks off. */
static void put_in_order(const struct plan_snapshot *s, struct candidates *c, struct plan_remove *ret)
{
        struct plan_nodes nodes;

        plan_nodes_measure(s, &nodes);
        for (;;) {
                struct candidate *best = NULL;

                for (size_t i = c->n; i-- > 0;)
                        if (c->list[i].taken && (!best || goes_before(&c->list[i], best, &nodes)))
                                best = &c->list[i];
                if (!best)
                        return;
                best->taken = false;
                nodes.plugged_bytes[best->node] -= best->size_bytes;
                ret->devices[ret->n_devices++] = best->index;
        }
}

bool plan_ratio_holds(
        uint64_t kernel_bytes, uint64_t movable_bytes, uint64_t kernel_left, uint64_t movable_left)
{
        return zone_ratio_allows(kernel_left, 0, movable_left) ||
               (unsigned __int128)movable_left * kernel_bytes <=
                       (unsigned __int128)movable_bytes * kernel_left;
}

/* When these have left. */
static bool ratio_holds(const struct plan_snapshot *s, const struct plan_remove *remove)
{
        uint64_t kernel = s->kernel_bytes, movable = s->movable_bytes;

        for (size_t i = 0; i < remove->n_devices; i++) {
                const struct plan_device *d = &s->devices[remove->devices[i]];

                kernel -= MIN(kernel, d->kernel_bytes);
                movable -= MIN(movable, d->movable_bytes);
        }
        return plan_ratio_holds(s->kernel_bytes, s->movable_bytes, kernel, movable);
}

/* The last one that takes kernel memory along stays. False: there is none. */
static bool keep_one(const struct plan_snapshot *s, struct plan_remove *remove)
{
        for (size_t i = remove->n_devices; i-- > 0;) {
                const struct plan_device *d = &s->devices[remove->devices[i]];

                if (d->kernel_bytes == 0)
                        continue;
                memmove(&remove->devices[i], &remove->devices[i + 1],
                        (remove->n_devices - i - 1) * sizeof(remove->devices[0]));
                remove->n_devices--;
                remove->total_bytes -= d->size_bytes;
                remove->kept_bytes += d->size_bytes;
                return true;
        }
        return false;
}

int plan_removal(const struct plan_snapshot *s, uint64_t size_bytes, const char *device_id,
        struct plan_remove *ret, struct error *ret_error)
{
        int e = plan_check_size(s, size_bytes, ret_error);
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
        balance(s, &c);
        put_in_order(s, &c, &remove);
        while (!ratio_holds(s, &remove) && keep_one(s, &remove))
                ;
        if (remove.n_devices == 0)
                return error_set(ret_error, ERROR_ZONE_RATIO,
                        "What could leave is kernel memory, and without it zone Movable (%s) would be more "
                        "than three times what the kernel has (%s); remove Movable memory first, or name a "
                        "device",
                        SIZE(s->movable_bytes), SIZE(s->kernel_bytes));
        *ret = remove;
        return 0;
}
