/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"
#include "hvd/survey.h"

/* What a removal asks for, against what the partition has: judged at the request, and again in the job, since
 * others ran in between. Nothing here changes anything. */

/* Whether only one device will do. */
bool removal_names_device(const struct job_request *request);

/* NOT_PLUGGED if the profile's min forbids it. */
int removal_check_min(const struct partition *p, const struct job_request *request, struct error *ret_error);

/* Picks devices for `bytes` of the request, without those in `excluded` (ids, NULL-terminated, may be NULL),
 * by what the survey (may be NULL) says of their pages. *ret_snapshot is what was planned on, in the order of
 * the partition's own; its devices are the caller's to free, also on failure. Errors as plan_removal() and
 * plan_find_drc(), and NOT_PLUGGED for a node that no DIMM lies in. */
int removal_plan(const struct partition *p, const struct job_request *request, char *const *excluded,
        const struct survey *survey, uint64_t bytes, struct plan_snapshot *ret_snapshot,
        struct plan_device **ret_devices, struct plan_remove *ret, struct error *ret_error);

/* A reason for each device that cannot be had because QEMU has an unplug of it pending. */
void removal_add_pending_reasons(struct job *j);
