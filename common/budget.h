/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* How much of something a peer may cause: `burst` at once, and `per_sec` in the long run. What is taken may
 * exceed what is left, as it is known only afterwards; then nothing is due until the debt is worked off.
 * Pure: the caller tells the time, of a clock that does not go back. */
struct budget {
        int64_t left;            /* in millionths */
        uint64_t burst, per_sec; /* 1 to 2^32 each */
        uint64_t at_usec;
};

/* Full. */
void budget_init(struct budget *b, uint64_t burst, uint64_t per_sec, uint64_t now_usec);
/* Takes, and says how long to wait until something is left again: 0, or microseconds. */
uint64_t budget_take(struct budget *b, uint64_t amount, uint64_t now_usec);
