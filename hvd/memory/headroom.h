/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"

/* What a guest can give without coming near its end, as far as the host can judge: for memory that leaves
 * without guestd's own check, block by block. */

/* By the partition's accounts, which must be fresh: what is available in the guest, less its margin. The
 * guest's word and the balloon's statistics are both heard, if these are of now, and the lower counts. */
uint64_t headroom_bytes(const struct partition *p);
/* A removal for which the guest had no room when it was last asked, whenever that was, though there is so
 * much: it has to be asked again before that is said. */
bool headroom_may_be_old(const struct partition *p, const struct job_request *request);
/* What must stay available whatever leaves: guestd's setting, or as it has it by itself, and
 * never less than what may be taken on a wish's way. */
uint64_t headroom_margin_bytes(const struct partition *p);
/* Why the balloon's statistics do not count, as a note of the job; nothing if they do, or if there is no
 * balloon. */
void headroom_add_note(struct job *j);
