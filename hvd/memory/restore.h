/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/partition.h"

/* Whether, by what is known of the partition, something is half done that a restore job makes whole;
 * *ret_bytes is what of its plugged memory is offline. */
bool restore_is_due(const struct partition *p, uint64_t *ret_bytes);

/* Whether the guest does not list all blocks of the plugged DIMMs yet: a kernel takes its time over many, and
 * they come up offline when hvd was restarted in between. */
bool restore_is_awaited(const struct partition *p);
