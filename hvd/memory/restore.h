/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/partition.h"

/* Whether, by what is known of the partition, something is half done that a restore job makes whole;
 * *ret_bytes is what of its plugged memory is offline. */
bool restore_is_due(const struct partition *p, uint64_t *ret_bytes);
