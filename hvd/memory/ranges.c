/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Reading a guest's replies about ranges of blocks. */

#include "hvd/memory/ranges.h"

#include <stdlib.h>

#include "common/size.h"

struct range_account ranges_account(
        const struct block_range *ranges, size_t n_ranges, uint64_t start, uint64_t length)
{
        struct range_account a = { 0 };

        for (size_t i = 0; i < n_ranges; i++) {
                const struct block_range *r = &ranges[i];
                uint64_t from = MAX(r->start, start), to = MIN(r->start + r->length, start + length);

                if (from >= to)
                        continue;
                switch (r->state) {
                case BLOCK_OFFLINE:
                        a.offline_bytes += to - from;
                        break;
                case BLOCK_ABSENT:
                        a.absent_bytes += to - from;
                        break;
                case BLOCK_ONLINE:
                        if (r->zone == ZONE_MOVABLE)
                                a.movable_bytes += to - from;
                        else if (r->zone == ZONE_NONE)
                                a.stuck_bytes += to - from;
                        else
                                a.kernel_bytes += to - from;
                        break;
                default:
                        a.changing_bytes += to - from;
                }
        }
        return a;
}

static int compare_ranges(const void *a, const void *b)
{
        const struct mem_range *x = a, *y = b;

        return x->start < y->start ? -1 : x->start > y->start;
}

void ranges_sort(struct mem_range *ranges, size_t n_ranges)
{
        qsort(ranges, n_ranges, sizeof(ranges[0]), compare_ranges);
}

bool ranges_is_settled(const struct message_reply *reply)
{
        for (size_t i = 0; i < reply->n_failures; i++)
                if (reply->failures[i].error.code != ERROR_BLOCK_MISSING)
                        return false;
        return reply->complete || reply->n_failures > 0;
}

void ranges_add_reasons(struct job *j, const struct message_reply *reply)
{
        for (size_t i = 0; i < reply->n_failures; i++) {
                const struct block_failure *f = &reply->failures[i];
                job_add_reason(j, partition_device_at(j->partition, f->start), f->start, &f->error);
        }
}

void ranges_add_missing_reason(struct job *j, const struct message_reply *reply, const char *device,
        struct mem_range range, uint64_t done_bytes, const char *wanted)
{
        struct error error;

        for (size_t i = 0; i < reply->n_failures; i++)
                if (reply->failures[i].start < range.start + range.length &&
                        reply->failures[i].start + reply->failures[i].length > range.start)
                        return;
        error_set(&error, ERROR_BLOCK_FAILED, "%s of %s are %s, and guestd does not say why not all",
                SIZE(done_bytes), SIZE(range.length), wanted);
        job_add_reason(j, device, UINT64_MAX, &error);
}
