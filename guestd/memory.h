/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "proto/message.h"

/* The guest's memory by /proc, through a directory descriptor that tests replace. */

struct blocks;

/* Fills everything but the counts of blocks: meminfo, zoneinfo (which may be missing: then kernel and movable
 * are 0) and pressure/memory (which may be missing or off). Of `blocks`, unless that is NULL, the zones are
 * learned on the way (zones_account()). 0 or -errno. */
int memory_read(int proc_fd, struct blocks *blocks, struct guest_memory *ret);

/* Fills everything but the cause, the margin and is_watched: meminfo, and what there is of zoneinfo, vmstat
 * and pressure/memory. Within the protocol's limits, whatever they say. 0 or -errno. */
int memory_read_sample(int proc_fd, struct guest_sample *ret);

/* What matters from one moment to the next, in bytes. */
struct memory_now {
        uint64_t total_bytes, free_bytes, available_bytes;
        uint64_t inactive_file_bytes, swap_free_bytes;
        uint64_t hugetlb_bytes; /* in pools of huge pages, all sizes and nodes */
};
/* 0 or -errno. Neither allocates. */
int memory_read_now(int proc_fd, struct memory_now *ret);
/* Only the first three, from an open meminfo. */
int memory_read_headroom(int meminfo_fd, struct memory_now *ret);

/* What must stay available after a block has gone: `margin` if it is not 0, else margin_of(). */
uint64_t memory_margin(uint64_t margin_bytes, uint64_t total_bytes);

/* /proc/sys/kernel/random/boot_id. */
int memory_read_boot_id(int proc_fd, char *buffer, size_t size);
