/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/partition.h"

/* Whether, by what is known of the partition, something is half done that a restore job makes whole;
 * *ret_bytes is what of its plugged memory is offline. */
bool restore_is_due(const struct partition *p, uint64_t *ret_bytes);

/* Of that, what virtio-mem was asked for and the guest does not use; or a balloon is to have what it had. */
bool restore_wish_is_due(const struct partition *p, uint64_t *ret_bytes);

/* QEMU said that the guest was reset: its balloon must not take from the memory at boot what it took of all.
 */
void restore_on_reset(struct partition *p);

/* Whether the guest does not list all blocks of the plugged DIMMs yet: a kernel takes its time over many, and
 * they come up offline when hvd was restarted in between. */
bool restore_is_awaited(const struct partition *p);
