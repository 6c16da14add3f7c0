/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "test-guestd-tree.h"

#include <inttypes.h>
#include <linux/kernel-page-flags.h>
#include <time.h>

#include "common/log.h"
#include "guestd/ops-internal.h"

/* The ops with a kernel of files, whose memory, pools and hangs are the script's. */

#define BLOCK     (128 * MIB)
#define FIRST     32U
#define N_BLOCKS  4U
#define SET       (N_BLOCKS * BLOCK)
#define MARGIN    (50 * MIB) /* 1 % of 5000 MiB */
#define HANG      10000
#define WAIT_USEC (10 * USEC_PER_SEC)
#define BIT(n)    (UINT64_C(1) << (n))
#define HUGE      "devices/system/node/node0/hugepages/hugepages-2048kB"
#define GIGANTIC  "devices/system/node/node0/hugepages/hugepages-1048576kB"

/* In shared memory: what the kernel has, does, and has seen. */
struct kernel {
        int proc_fd, sys_fd;
        _Atomic uint64_t free_bytes, available_bytes, inactive_bytes, swap_bytes;
        _Atomic uint64_t hugetlb_bytes;
        int reclaim_errnum, compact_errnum, offline_errnum, offline_times;
        uint32_t offline_block;
        bool knows_swappiness, pools_are_stiff, pools_hang;
        _Atomic unsigned n_settings, n_reclaims, n_swapping_reclaims, n_compactions, n_offlines;
};
extern struct kernel *kernel;

struct env {
        struct tree tree;
        struct loop loop;
        struct blocks blocks;
        struct ops_config config;
        struct ops *ops;
        char state_path[80];
        struct message_reply reply;
        struct assistance assistance;
        struct error first; /* of the reply's failures */
        struct error failure;
        unsigned n_replies, n_failures;
};

void write_meminfo(void);
uint64_t pool_count(const char *file);
void start_guestd(struct env *e);
void make_pool(struct env *e, uint64_t n_pages, uint64_t n_free);
int setup(void **state);
int teardown(void **state);

void offline(struct env *e, uint64_t id, uint64_t deadline_msec);
void reclaim(struct env *e, uint64_t id, uint64_t bytes, uint64_t deadline_msec);
void cancel(struct env *e, uint64_t id, uint64_t target_id);

/* Little is free, and the rest of what is available is page cache. */
void fill_with_cache(void);
void assert_all(struct env *e, enum block_state state);
void assert_swappiness(struct env *e, const char *value);

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
