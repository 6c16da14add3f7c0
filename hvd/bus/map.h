/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <systemd/sd-bus.h>

#include "hvd/partition.h"
#include "hvd/survey.h"

/* The out arguments of MemoryMap(): note says why the survey is empty, if it is. bytes: what is to be
 * removed; 0: the smallest device that could be. */
int bus_append_map(sd_bus_message *reply, const struct partition *p, const struct survey *survey,
        const char *note, uint64_t bytes);
/* What there is to survey for it: the memory devices. The caller frees *ret. 0 or -ENOMEM. */
int bus_map_targets(const struct partition *p, struct mem_range **ret, size_t *ret_n);
