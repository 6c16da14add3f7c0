/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "guestd/blocks.h"

/* One zone of one node, as /proc/zoneinfo has it. */
struct zone_info {
        enum zone zone;         /* UNKNOWN: of devices */
        uint64_t present_bytes; /* what is online in it */
        uint64_t free_bytes;
        uint64_t cache_bytes; /* page cache that was not used lately; 0 before Linux 4.8 */
        uint64_t start, end;  /* what it spans: addresses, holes included; both 0 if empty */
};

/* Tells of each zone in turn. 0 or -errno. */
int zones_read(int proc_fd, void (*on_zone)(const struct zone_info *z, void *userdata), void *userdata);

/* What is online in zones that are not Movable, and in those that are. */
struct zone_account {
        uint64_t kernel_bytes, movable_bytes;
};
/* Sums them up, and on the way learns the zones of the blocks of `b`, unless it is NULL, as zones_learn()
 * does, however few these are. 0 or -errno, and then what there was. */
int zones_account(int proc_fd, struct blocks *b, struct zone_account *ret);

/* Learns the zones of the blocks whose zone is not known yet, all at once: a block that is online, and lies
 * in what one zone spans and no other, is in that zone. What lies elsewhere, or where zones overlap, is left
 * to blocks_zone(), which asks the kernel for each block; so are a few. */
void zones_learn(int proc_fd, struct blocks *b);
