/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"

/* What DIMMs could carry of an addition or a removal: struct mechanism's room() and nearest(). */

uint64_t dimm_add_room(
        const struct partition *p, const struct job_request *request, uint64_t *ret_unit_bytes);
void dimm_add_nearest(const struct partition *p, const struct job_request *request, uint64_t bytes,
        uint64_t *ret_below, uint64_t *ret_above);
uint64_t dimm_remove_room(
        const struct partition *p, const struct job_request *request, uint64_t *ret_unit_bytes);
void dimm_remove_nearest(const struct partition *p, const struct job_request *request, uint64_t bytes,
        uint64_t *ret_below, uint64_t *ret_above);

/* Whether this refusal is for what the guest had in which zone when it was last asked, and that may have
 * changed: then the job asks, and decides. */
bool dimm_zones_may_be_old(const struct partition *p, const struct error *error);
