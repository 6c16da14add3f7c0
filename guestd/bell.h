/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "guestd/loop.h"
#include "proto/message.h"

/* Rings when one of a few memory blocks comes online, or goes: the kernel keeps all other uevents from it, so
 * that one who waits for many blocks is woken for the last ones only. */
struct bell;

#define BELL_BLOCKS_MAX 8U

/* state: ONLINE or ABSENT, what each of the n blocks (1 to BELL_BLOCKS_MAX) is to become. on_ring is told
 * which one did, and may free the bell. It may come before the monitor has the same event, but not before the
 * monitor has those that the kernel sent earlier. 0 or -errno. */
int bell_new(struct loop *loop, enum block_state state, const uint32_t *blocks, size_t n,
        void (*on_ring)(uint32_t block, void *userdata), void *userdata, struct bell **ret);
struct bell *bell_free(struct bell *b);

/* The socket's filter alone, for tests. 0 or -errno. */
int bell_filter(int fd, enum block_state state, const uint32_t *blocks, size_t n);
