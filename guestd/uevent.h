/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

#include "proto/message.h"

/* The kernel's uevents as they come from its socket: "ACTION@DEVPATH", and then more that is not needed. */

#define UEVENT_MAX 512 /* bytes of one that are looked at */

/* What it says of a memory block: "add" is OFFLINE, as an "online" follows if the kernel brings it up.
 * -EINVAL for any other event. */
int uevent_read_block(const char *text, uint32_t *ret_number, enum block_state *ret_state);
