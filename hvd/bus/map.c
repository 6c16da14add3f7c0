/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The answer to MemoryMap(): the guest's blocks with what their pages are, and what would become of each if
 * memory were removed now. Pure but for the message that it fills. */

#include "hvd/bus/map.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"

#define MAP_TYPE "(ttssusussttttttttt)"

struct map {
        const struct partition *p;
        const struct survey *survey;
        struct plan_snapshot s;
        struct plan_device *devices; /* as in p->snapshot */
        bool leaves[PLAN_DEVICES_MAX];
};

/* What would leave: the cheapest set of this size, or the device that would be first. */
static void plan(struct map *map, uint64_t bytes)
{
        const struct plan_snapshot *s = &map->s;
        struct plan_remove remove;

        for (size_t i = 0; i < s->n_devices; i++)
                if (map->devices[i].has_obstacle)
                        map->devices[i].removable = false;
        if (bytes == 0) {
                bytes = UINT64_MAX;
                for (size_t i = 0; i < s->n_devices; i++)
                        if (map->devices[i].removable && map->devices[i].size_bytes > 0)
                                bytes = MIN(bytes, map->devices[i].size_bytes);
        }
        if (bytes == UINT64_MAX || plan_removal(s, bytes, NULL, &remove, NULL) < 0)
                return;
        for (size_t i = 0; i < remove.n_devices; i++)
                if (remove.devices[i] < PLAN_DEVICES_MAX)
                        map->leaves[remove.devices[i]] = true;
}

/* The device at the address, or -1; *ret_until: where that answer ends. */
static ssize_t device_at(const struct map *map, uint64_t address, uint64_t end, uint64_t *ret_until)
{
        ssize_t found = -1;

        *ret_until = end;
        for (size_t k = 0; k < map->s.n_devices; k++) {
                const struct plan_device *d = &map->devices[k];
                uint64_t d_end = d->address + d->size_bytes;

                if (address >= d->address && address < d_end) {
                        found = (ssize_t)k;
                        *ret_until = MIN(*ret_until, d_end);
                } else if (d->address > address)
                        *ret_until = MIN(*ret_until, d->address);
        }
        return found;
}

/* "base", "leaves", "may-leave", "stuck" (itself), "held" (its device stays); and why, for the last two. */
static const char *fate(const struct map *map, ssize_t device, const struct block_range *range,
        const struct block_survey *b, char *why, size_t size)
{
        struct error error;
        uint64_t block;

        why[0] = '\0';
        if (device < 0)
                return "base";
        const struct plan_device *d = &map->devices[device];
        const struct platform_device *from = &map->p->snapshot.devices[device];

        if (range->state == BLOCK_ONLINE && range->zone == ZONE_NONE) {
                snprintf(why, size, "the kernel names no zone for it");
                return "stuck";
        }
        if (b && survey_explain(map->survey, b->start, b->length, &block, &error)) {
                snprintf(why, size, "%s", error.message);
                return "stuck";
        }
        if (d->unplug_pending)
                snprintf(why, size, "its unplug is pending in QEMU");
        else if (!d->is_dimm)
                snprintf(why, size, "%s is not a DIMM", d->id);
        else if (!from->hotpluggable)
                snprintf(why, size, "%s was not hot-plugged", d->id);
        else if (d->stuck_bytes > 0 || d->has_obstacle)
                snprintf(why, size, "other blocks of %s do not move", d->id);
        else
                return map->leaves[device] ? "leaves" : "may-leave";
        return "held";
}

static int append(sd_bus_message *reply, const struct map *map, const struct block_range *range, uint64_t at,
        uint64_t length, ssize_t device, const struct block_survey *b)
{
        static const struct block_survey none;
        char why[ERROR_MESSAGE_MAX];
        const char *word = fate(map, device, range, b, why, sizeof(why));
        const struct block_survey *s = b ?: &none;

        return sd_bus_message_append(reply, MAP_TYPE, at, length, block_state_to_string(range->state),
                zone_to_string(range->zone), range->node, device < 0 ? "" : map->devices[device].id,
                device >= 0 && map->s.is_pseries ? plan_drc_index(at) : 0, word, why, s->sampled,
                s->pages[PAGE_FREE], s->pages[PAGE_MOVABLE], s->pages[PAGE_HUGE], s->pages[PAGE_SLAB],
                s->pages[PAGE_TABLE], s->pages[PAGE_UNMOVABLE], s->pages[PAGE_PINNED], s->cost_bytes);
}

/* A run, cut at the edges of devices, and into blocks where they were surveyed. */
static int append_run(sd_bus_message *reply, const struct map *map, const struct block_range *range)
{
        uint64_t end = range->start + range->length, until;
        int r = 0;

        for (uint64_t at = range->start; r >= 0 && at < end; at = until) {
                ssize_t device = device_at(map, at, end, &until);
                const struct block_survey *b = survey_find(map->survey, at);

                if (b && b->start == at && b->length <= until - at)
                        until = at + b->length;
                else {
                        if (b && b->start > at)
                                until = MIN(until, b->start);
                        b = NULL;
                }
                r = append(reply, map, range, at, until - at, device, b);
        }
        return r;
}

int bus_append_map(sd_bus_message *reply, const struct partition *p, const struct survey *survey,
        const char *note, uint64_t bytes)
{
        struct map map = { .p = p, .survey = survey };
        int r = partition_plan_snapshot(p, NULL, &map.s, &map.devices);

        if (r < 0)
                return r;
        survey_apply(survey, map.devices, map.s.n_devices);
        plan(&map, bytes);
        r = sd_bus_message_append(reply, "tts", partition_block_bytes(p), survey->page_bytes, note);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', MAP_TYPE);
        for (size_t i = 0; r >= 0 && i < p->n_blocks; i++)
                r = append_run(reply, &map, &p->blocks[i]);
        free(map.devices);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

int bus_map_targets(const struct partition *p, struct mem_range **ret, size_t *ret_n)
{
        const struct platform_snapshot *s = &p->snapshot;
        struct mem_range *targets = calloc(s->n_devices + 1, sizeof(*targets));
        size_t n = 0;

        if (!targets)
                return -ENOMEM;
        for (size_t i = 0; i < s->n_devices; i++) {
                const struct platform_device *d = &s->devices[i];

                if (d->region_bytes == 0 || d->address >= PLATFORM_ADDRESS_UNKNOWN ||
                        d->address % PROTO_BLOCK_MIN || d->region_bytes % PROTO_BLOCK_MIN ||
                        (n > 0 && d->address < targets[n - 1].start + targets[n - 1].length))
                        continue;
                targets[n++] = (struct mem_range) { d->address, d->region_bytes };
        }
        *ret = targets;
        *ret_n = n;
        return 0;
}
