/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/policy/policy.h"

/* One partition in one round. What can be negative (a pool that has promised too much) is signed. */
struct policy_view {
        const struct policy_partition *partition;
        struct policy_history *history;
        struct policy_decision *decision;
        bool takes_part; /* its wants are known, and it may be changed sooner or later */
        bool may_change; /* now */
        bool may_shrink; /* now: a fresh sample, and no pause */
        bool may_yield;  /* now: even what it has in use */
        bool has_sample; /* one that counts, at some time */
        bool is_fresh;
        bool is_in_distress;
        uint64_t lowest_bytes;  /* it cannot or shall not have less */
        uint64_t highest_bytes; /* nor more */
        uint64_t taxed_bytes;   /* what it wants, less the tax: what it has beyond lies idle */
        uint64_t held_bytes;    /* the most that it wanted in the last one or two quiet times */
};

/* A view of each, with used, pressed, headroom and want of their decisions, and the histories brought up to
 * this sample. */
void policy_view_all(const struct policy_input *in, struct policy_view *views);

/* The same part of the range of each, of what is left when all have their min; for those without a sample. */
uint64_t policy_equal_ratio(const struct policy_input *in, size_t index);

static inline uint64_t policy_scale(uint64_t bytes, uint64_t part, uint64_t whole)
{
        return whole == 0 ? 0 : (uint64_t)((unsigned __int128)bytes * part / whole);
}

static inline uint64_t policy_clamp(uint64_t bytes, uint64_t low, uint64_t high)
{
        uint64_t least = bytes < high ? bytes : high;

        return least > low ? least : low;
}

static inline uint64_t policy_less(uint64_t a, uint64_t b)
{
        return a > b ? a - b : 0;
}
