/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"
#include "hvd/survey.h"

/* What a removal asks for, against what the partition has: judged at the request, and again in the job, since
 * others ran in between. Nothing here changes anything. */

/* Whether only one device will do. */
bool removal_names_device(const struct job_request *request);

/* Where a whole node is to be emptied, the request's size becomes what is plugged there. NOT_PLUGGED if that
 * is nothing, or if the profile's min forbids it; UNKNOWN_NODE. */
int removal_resolve(const struct partition *p, struct job_request *request, struct error *ret_error);

/* Picks devices for `bytes` of the request, without those in `excluded` (ids, NULL-terminated, may be NULL),
 * by what the survey (may be NULL) says of their pages. *ret_snapshot is what was planned on, in the order of
 * the partition's own; its devices are the caller's to free, also on failure. Errors as plan_removal() and
 * plan_find_drc(), UNKNOWN_NODE, and NOT_PLUGGED for a node in whose DIMMs there is not as
 * much. */
int removal_plan(const struct partition *p, const struct job_request *request, char *const *excluded,
        const struct survey *survey, uint64_t bytes, struct plan_snapshot *ret_snapshot,
        struct plan_device **ret_devices, struct plan_remove *ret, struct error *ret_error);

/* Nothing more can be planned: a reason, once, if that is for the ratio of the zones. */
void removal_add_ratio_reason(struct job *j, const struct error *error);
/* Why less was planned than asked: a reason for the job, and one for each device that no removal can take
 * now. */
void removal_add_shortfall(struct job *j, uint64_t planned_bytes, uint64_t kept_bytes);
