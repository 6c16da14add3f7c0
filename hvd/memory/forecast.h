/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"
#include "hvd/survey.h"

/* What a survey of the guest's pages says of a removal: which devices are cheap, which would stay, and why.
 */

/* Whether it is worth its time before the removal begins: there is a choice between devices, or nothing but
 * an answer is asked for (dry-run). */
bool forecast_is_wanted(const struct job *j);
/* Surveys the devices that may leave: thoroughly for a dry run, else in a few milliseconds. */
int forecast_start(struct job *j, survey_answer_t done, void *userdata, struct survey_ask **ret,
        struct error *ret_error);

/* Adds the step to the job's plan: this device is to leave. */
void forecast_add_step(struct job *j, const struct plan_snapshot *s, const struct plan_device *d);
/* Dry run: false if the device would stay, which becomes one of the job's reasons. */
bool forecast_leaves(struct job *j, const struct survey *s, const char *id, uint64_t address, uint64_t bytes);
/* Dry run: adds to the plan which devices would stay if they were asked for, except those that are among the
 * job's reasons, and how the survey went. */
void forecast_add_rest(struct job *j, const struct survey *s, const struct error *failure);

/* Blocks could not go offline: surveys those that the reply says were busy. -ENOENT if there are none. */
int forecast_examine(struct job *j, const struct message_reply *reply, survey_answer_t done, void *userdata,
        struct survey_ask **ret);
/* What was found goes into the reasons about these blocks. */
void forecast_add_findings(struct job *j, const struct survey *s);
