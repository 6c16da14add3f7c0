/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What follows from what a partition's two ends last said: sums, and the planner's view. Nothing is asked. */

#include "hvd/partition.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t partition_current_bytes(const struct partition *p)
{
        const struct platform_snapshot *s = &p->snapshot;

        return s->base_bytes + s->plugged_bytes - MIN(s->balloon_bytes, s->base_bytes + s->plugged_bytes);
}

uint64_t partition_wanted_bytes(const struct partition *p)
{
        const struct platform_snapshot *s = &p->snapshot;
        uint64_t bytes = s->plugged_bytes + s->balloon_bytes;

        for (size_t i = 0; i < s->n_devices; i++)
                bytes += s->devices[i].requested_bytes;
        return bytes;
}

void partition_note_growth(struct partition *p, uint64_t current_bytes)
{
        if (partition_current_bytes(p) > current_bytes)
                p->grown_sec = time(NULL);
}

void partition_take_balloon(struct partition *p, uint64_t actual_bytes)
{
        uint64_t total = platform_balloon_total(&p->snapshot);

        p->snapshot.balloon.actual_bytes = actual_bytes;
        p->snapshot.balloon_bytes = actual_bytes < total ? total - actual_bytes : 0;
}

uint64_t partition_dimm_bytes(const struct partition *p)
{
        uint64_t bytes = 0;

        for (size_t i = 0; i < p->snapshot.n_devices; i++)
                if (p->snapshot.devices[i].is_dimm)
                        bytes += p->snapshot.devices[i].size_bytes;
        return bytes;
}

uint64_t partition_max_bytes(const struct partition *p)
{
        uint64_t profile = p->definition.profile.max_bytes, qemu = 0;

        if (p->has_snapshot)
                qemu = MAX(p->snapshot.max_bytes, p->snapshot.base_bytes);
        return profile && (!qemu || profile < qemu) ? profile : qemu;
}

uint64_t partition_block_bytes(const struct partition *p)
{
        const struct message_hello *hello = agent_hello(p->agent);

        return hello ? hello->block_bytes : 0;
}

bool partition_guest_can(const struct partition *p, const char *capability)
{
        const struct message_hello *hello = agent_hello(p->agent);

        for (char **c = hello ? hello->capabilities : NULL; c && *c; c++)
                if (strcmp(*c, capability) == 0)
                        return true;
        return false;
}

bool partition_is_pseries(const struct partition *p)
{
        return p->has_snapshot && platform_arch_is_pseries(p->snapshot.arch);
}

int partition_check_usable(const struct partition *p, struct error *ret_error)
{
        if (!p->platform_up)
                return error_set(ret_error, p->platform_error.code ?: ERROR_HYPERVISOR_ABSENT, "%s",
                        p->platform_error.message);
        if (p->has_snapshot && run_state_is_transfer(p->snapshot.state))
                return error_set(ret_error, ERROR_NOT_RUNNING,
                        "Partition '%s' is being %s; its memory can change again when that has ended",
                        p->definition.name, p->snapshot.state == RUN_MIGRATING ? "migrated" : "saved");
        if (p->has_snapshot && p->snapshot.state != RUN_RUNNING)
                return error_set(ret_error, ERROR_NOT_RUNNING,
                        "Partition '%s' is %s; its memory can change only while it runs", p->definition.name,
                        run_state_to_string(p->snapshot.state));
        if (agent_state(p->agent) != AGENT_READY) {
                struct error error;
                agent_explain(p->agent, &error);
                return error_set(
                        ret_error, error.code, "Partition '%s': %.450s", p->definition.name, error.message);
        }
        return 0;
}

const char *partition_device_at(const struct partition *p, uint64_t address)
{
        for (size_t i = 0; i < p->snapshot.n_devices; i++) {
                const struct platform_device *d = &p->snapshot.devices[i];
                if (address >= d->address && address - d->address < d->region_bytes)
                        return d->id;
        }
        return "";
}

/* The first run that does not end before the address: take_blocks() saw to their order. A guest may list a
 * quarter of a million, and there may be hundreds of devices. */
static size_t first_block_behind(const struct partition *p, uint64_t address)
{
        size_t low = 0, high = p->n_blocks;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (p->blocks[middle].start + p->blocks[middle].length <= address)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

/* Adds up what the guest's blocks within a device are. */
static void sum_blocks(const struct partition *p, struct plan_device *d)
{
        uint64_t device_end = d->address + d->size_bytes;

        for (size_t i = first_block_behind(p, d->address); i < p->n_blocks; i++) {
                const struct block_range *b = &p->blocks[i];
                if (b->start >= device_end)
                        break;
                uint64_t start = MAX(b->start, d->address), end = MIN(b->start + b->length, device_end);

                if (start >= end)
                        continue;
                if (b->state == BLOCK_OFFLINE)
                        d->offline_bytes += end - start;
                else if (b->zone == ZONE_MOVABLE)
                        d->movable_bytes += end - start;
                else if (b->zone == ZONE_NONE)
                        d->stuck_bytes += end - start;
                else
                        d->kernel_bytes += end - start;
        }
}

/* --- devices whose address is not known --- */

static int compare_addresses(const void *a, const void *b)
{
        const struct platform_device *x = a, *y = b;

        return x->address < y->address ? -1 : x->address > y->address;
}

/* The first device that ends behind the address, of those whose address is the hypervisor's word; or NULL. */
static const struct platform_device *next_known(const struct platform_snapshot *s, uint64_t address)
{
        for (size_t i = 0; i < s->n_devices; i++) {
                const struct platform_device *d = &s->devices[i];

                if (d->address < PLATFORM_ADDRESS_UNKNOWN && !d->is_placed &&
                        d->address + d->region_bytes > address)
                        return d;
        }
        return NULL;
}

/* Memory at this address is of no device whose address is known: it is of one that was placed already, or of
 * the next, of its node if that has one. `end`: where the next known device begins. Returns up to where that
 * is an answer. */
static uint64_t place_at(struct platform_snapshot *s, uint64_t address, unsigned node, uint64_t end)
{
        struct platform_device *found = NULL;

        for (size_t i = 0; i < s->n_devices; i++) {
                struct platform_device *d = &s->devices[i];

                if (d->is_placed && address >= d->address && address - d->address < d->region_bytes)
                        return d->address + d->region_bytes;
                if (d->address < PLATFORM_ADDRESS_UNKNOWN || d->size_bytes == 0 || d->region_bytes == 0)
                        continue;
                if (!found || (found->node != node && d->node == node))
                        found = d;
        }
        if (!found)
                return end;
        /* What lies lowest in it may have left before the rest. */
        uint64_t last = end > found->region_bytes ? end - found->region_bytes : 0;
        found->address = MIN(address, last);
        found->is_placed = true;
        return found->address + found->region_bytes;
}

void partition_place_devices(struct partition *p)
{
        struct platform_snapshot *s = &p->snapshot;
        uint64_t base_bytes = s->base_bytes, unknown = PLATFORM_ADDRESS_UNKNOWN;
        bool any = false;

        for (size_t i = 0; i < s->n_devices; i++) {
                struct platform_device *d = &s->devices[i];

                if (!d->is_placed && d->address < PLATFORM_ADDRESS_UNKNOWN)
                        continue;
                d->is_placed = false;
                d->address = unknown;
                unknown += d->region_bytes;
                any = true;
        }
        for (size_t i = 0; any && i < p->n_blocks; i++) {
                const struct block_range *b = &p->blocks[i];
                uint64_t of_base = MIN(base_bytes, b->length), end = b->start + b->length;

                base_bytes -= of_base;
                for (uint64_t at = b->start + of_base; at < end;) {
                        const struct platform_device *known = next_known(s, at);

                        if (known && known->address <= at)
                                at = known->address + known->region_bytes;
                        else
                                at = place_at(
                                        s, at, b->node, known ? known->address : PLATFORM_ADDRESS_UNKNOWN);
                }
        }
        if (any)
                qsort(s->devices, s->n_devices, sizeof(*s->devices), compare_addresses);
}

/* --- the planner's view --- */

static bool is_excluded(const char *id, char *const *excluded)
{
        for (; excluded && *excluded; excluded++)
                if (strcmp(*excluded, id) == 0)
                        return true;
        return false;
}

int partition_plan_snapshot(const struct partition *p, char *const *excluded, struct plan_snapshot *ret,
        struct plan_device **ret_devices)
{
        const struct platform_snapshot *s = &p->snapshot;
        struct plan_device *devices = calloc(s->n_devices + 1, sizeof(*devices));
        if (!devices)
                return -ENOMEM;

        for (size_t i = 0; i < s->n_devices; i++) {
                struct plan_device *d = &devices[i];
                const struct platform_device *from = &s->devices[i];

                snprintf(d->id, sizeof(d->id), "%s", from->id);
                d->address = from->address;
                d->size_bytes = from->region_bytes;
                d->slot = from->slot;
                d->node = from->node;
                d->is_dimm = from->is_dimm;
                d->unplug_pending = from->unplug_pending;
                d->removable = from->is_dimm && from->hotpluggable && !from->unplug_pending &&
                               !is_excluded(from->id, excluded);
                sum_blocks(p, d);
        }
        /* QEMU's pseries takes whole LMBs only, however small the guest's blocks may be. */
        uint64_t granule = partition_block_bytes(p);
        if (granule > 0 && partition_is_pseries(p))
                granule = MAX(granule, PLAN_LMB_BYTES);
        *ret = (struct plan_snapshot) {
                .granule_bytes = granule,
                .is_pseries = partition_is_pseries(p),
                .base_bytes = s->base_bytes,
                .max_bytes = s->max_bytes,
                .slots = s->slots,
                .kernel_bytes = p->memory.kernel_bytes,
                .movable_bytes = p->memory.movable_bytes,
                .n_nodes = s->n_nodes,
                .node_base_bytes = s->node_base_bytes,
                .devices = devices,
                .n_devices = s->n_devices,
        };
        *ret_devices = devices;
        return 0;
}

uint64_t partition_usable_bytes(const struct partition *p)
{
        uint64_t bytes = partition_current_bytes(p);

        for (size_t i = 0; p->has_blocks && i < p->snapshot.n_devices; i++) {
                const struct platform_device *from = &p->snapshot.devices[i];
                struct plan_device d = { .address = from->address, .size_bytes = from->region_bytes };

                if (!from->is_dimm)
                        continue;
                sum_blocks(p, &d);
                uint64_t used_bytes = d.movable_bytes + d.kernel_bytes + d.stuck_bytes;
                uint64_t unused_bytes = d.size_bytes - MIN(d.size_bytes, used_bytes);
                bytes -= MIN(bytes, unused_bytes);
        }
        return bytes;
}
