/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The planner's part when hvd meets a QEMU again, or a guest that was rebooted: what is half done. */

#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/plan.h"

#define DIV_UP(a, b) (((a) + (b)-1) / (b))

size_t plan_orphan_backends(const struct plan_reconcile *r, size_t *ret)
{
        size_t n = 0;

        for (size_t i = 0; i < r->n_backends; i++) {
                bool used = false;

                if (strncmp(r->backends[i], PLAN_BACKEND_PREFIX, strlen(PLAN_BACKEND_PREFIX)) != 0)
                        continue;
                for (size_t j = 0; j < r->n_devices && !used; j++)
                        used = r->devices[j].backend && strcmp(r->devices[j].backend, r->backends[i]) == 0;
                if (!used)
                        ret[n++] = i;
        }
        return n;
}

/* The part of a run of blocks that lies in a device, in whole granules; false: none. */
static bool block_in_device(const struct plan_reconcile *r, const struct block_range *b,
        const struct plan_attached *d, struct mem_range *ret)
{
        uint64_t g = r->granule_bytes;
        uint64_t start = MAX(b->start, DIV_UP(d->address, g) * g);
        uint64_t end = MIN(b->start + b->length, (d->address + d->size_bytes) / g * g);

        if (start >= end)
                return false;
        *ret = (struct mem_range) { .start = start, .length = end - start };
        return true;
}

static int compare_ranges(const void *a, const void *b)
{
        const struct mem_range *x = a, *y = b;

        return (x->start > y->start) - (x->start < y->start);
}

int plan_offline_ranges(const struct plan_reconcile *r, struct mem_range **ret, size_t *ret_n)
{
        _cleanup_free_ struct mem_range *ranges = NULL;
        struct mem_range range;
        size_t n = 0, joined = 0;

        /* Devices and blocks are disjoint each, so they meet at most n_devices + n_blocks times. */
        ranges = calloc(r->n_devices + r->n_blocks + 1, sizeof(*ranges));
        if (!ranges)
                return -ENOMEM;
        for (size_t i = 0; i < r->n_blocks && r->granule_bytes > 0; i++)
                for (size_t j = 0; r->blocks[i].state == BLOCK_OFFLINE && j < r->n_devices; j++)
                        if (block_in_device(r, &r->blocks[i], &r->devices[j], &range) &&
                                n < r->n_devices + r->n_blocks)
                                ranges[n++] = range;

        qsort(ranges, n, sizeof(*ranges), compare_ranges);
        for (size_t i = 0; i < n; i++) {
                struct mem_range *last = joined > 0 ? &ranges[joined - 1] : NULL;

                if (last && last->start + last->length >= ranges[i].start)
                        last->length = MAX(last->start + last->length, ranges[i].start + ranges[i].length) -
                                       last->start;
                else
                        ranges[joined++] = ranges[i];
        }
        *ret = joined > 0 ? steal_pointer(ranges) : NULL;
        *ret_n = joined;
        return 0;
}
