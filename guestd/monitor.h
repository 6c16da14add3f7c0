/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

#include "guestd/loop.h"
#include "proto/message.h"

/* The kernel's own uevents (not udevd's: an initramfs has none) about memory blocks and virtio ports. */
struct monitor;

struct monitor_handlers {
        /* A block came (OFFLINE), went (ABSENT) or changed. */
        void (*on_block)(uint32_t number, enum block_state state, void *userdata);
        /* A virtio port came, went or got its name. */
        void (*on_port)(void *userdata);
        /* Events were lost, and those that were not are handled: take the inventory anew. */
        void (*on_overflow)(void *userdata);
};

int monitor_new(
        struct loop *loop, const struct monitor_handlers *handlers, void *userdata, struct monitor **ret);
struct monitor *monitor_free(struct monitor *m);

/* While paused, events wait in the socket's buffer and wake nobody. Resuming handles what waits before it
 * returns; in a handler, once that has returned. NULL is fine, as tests have no monitor. */
void monitor_pause(struct monitor *m);
void monitor_resume(struct monitor *m);
/* Handles what waits, now; in a handler likewise. */
void monitor_drain(struct monitor *m);
