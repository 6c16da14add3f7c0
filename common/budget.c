/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A token bucket. Invariant: left <= burst. It counts in millionths, so that nothing is lost or won by
 * looking often. */

#include "common/budget.h"

#include "common/cleanup.h"
#include "common/size.h"

#define UNIT 1000000ULL

void budget_init(struct budget *b, uint64_t burst, uint64_t per_sec, uint64_t now_usec)
{
        *b = (struct budget) {
                .left = (int64_t)(burst * UNIT),
                .burst = burst,
                .per_sec = per_sec,
                .at_usec = now_usec,
        };
}

uint64_t budget_take(struct budget *b, uint64_t amount, uint64_t now_usec)
{
        uint64_t passed = now_usec - b->at_usec, room = (uint64_t)((int64_t)(b->burst * UNIT) - b->left);

        b->at_usec = now_usec;
        b->left += (int64_t)(passed > room / b->per_sec ? room : passed * b->per_sec);
        b->left -= (int64_t)(amount * UNIT);
        if (b->left >= (int64_t)UNIT)
                return 0;
        return ((uint64_t)((int64_t)UNIT - b->left) + b->per_sec - 1) / b->per_sec;
}
