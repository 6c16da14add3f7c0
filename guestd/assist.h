/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guestd/pools.h"

/* What can be done for blocks that do not go: the child's half. Each step is made of small ones, so that the
 * process can be killed at any time and what it has done until then is in the report. */
struct worker_config;

/* Carried out in this order; what is 0 or empty is left out. */
struct assist_order {
        unsigned pause_msec; /* pages that are busy now may not be so then */
        struct {
                unsigned node;
                uint64_t page_bytes, n_pages;
        } pools[POOLS_MAX]; /* the size that each is to have; one grows only as the margin allows */
        size_t n_pools;
        /* Inactive page cache is reclaimed until MemFree is this. */
        uint64_t free_bytes;
        bool no_swappiness; /* vm.swappiness is 0: the kernel takes page cache and nothing else */
        bool compact;
        unsigned node; /* whose memory is compacted; and reclaimed, where the kernel has no memory cgroups */
};

/* Shared with guestd. */
struct assist_report {
        _Atomic uint64_t reclaimed_bytes;
        _Atomic uint32_t n_compactions;
        _Atomic bool
                wants_no_swappiness; /* there is swap, and the kernel does not take a swappiness of ours */
        _Atomic bool cannot_reclaim; /* it has no interface for it */
};

#define ASSIST_RECLAIM_STEP (UINT64_C(16) << 20)
/* Less than this in inactive page cache is not worth it, and the kernel would look for other pages. */
#define ASSIST_RECLAIM_MIN (UINT64_C(32) << 20)
#define ASSIST_POOL_STEP   (UINT64_C(64) << 20)

void assist_carry_out(
        const struct worker_config *config, const struct assist_order *order, struct assist_report *report);
