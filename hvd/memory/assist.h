/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"
#include "hvd/memory/guest.h"
#include "hvd/plan.h"
#include "hvd/survey.h"

/* What the guest does of its own to help a removal, and how that is told. */

/* Whether the guest is to make room before devices are taken: their pages, migrate_bytes by a survey, would
 * have to be moved, or it had too little free memory when it last told. */
bool assist_is_wanted(const struct job *j, uint64_t migrate_bytes);
/* Asks it to. The reply's assistance is set if anything came of it. */
int assist_start(struct job *j, guest_reply_t on_reply, void *userdata, struct guest_call **ret);

/* Adds to the job's notes what the guest did for this device (NULL: for all of them). */
void assist_add_note(struct job *j, const char *device, const struct message_reply *reply);
