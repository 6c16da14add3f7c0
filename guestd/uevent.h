/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "proto/message.h"

/* The kernel's uevents as they come from its socket: "ACTION@DEVPATH", and then more that is not needed. */

#define UEVENT_MAX 512 /* bytes of one that are looked at */

/* What it says of a memory block: "add" is OFFLINE, as an "online" follows if the kernel brings it up. text
 * has a NUL behind its length bytes. -EINVAL for any other event, and for a synthetic one. */
int uevent_read_block(const char *text, size_t length, uint32_t *ret_number, enum block_state *ret_state);
