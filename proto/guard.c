/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The guards against a guest that runs out of memory, of the kernel's or of all. */

#include "common/cleanup.h"
#include "proto/message.h"

#define RATIO_PERCENT 301U

uint64_t zone_ratio_budget(uint64_t kernel_bytes, uint64_t movable_bytes)
{
        uint64_t limit;

        /* floor(kernel * 301 / 100), in parts so that only a limit beyond UINT64_MAX saturates. */
        if (__builtin_mul_overflow(kernel_bytes / 100, (uint64_t)RATIO_PERCENT, &limit) ||
                __builtin_add_overflow(limit, kernel_bytes % 100 * RATIO_PERCENT / 100, &limit))
                limit = UINT64_MAX;
        return limit > movable_bytes ? limit - movable_bytes : 0;
}

uint64_t margin_of(uint64_t total_bytes)
{
        return MAX(MARGIN_BYTES, total_bytes / 100 * MARGIN_PERCENT);
}

bool zone_ratio_allows(uint64_t kernel_bytes, uint64_t movable_bytes, uint64_t add_bytes)
{
        return add_bytes <= zone_ratio_budget(kernel_bytes, movable_bytes);
}
