/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include "common/size.h"

struct job;
struct manager;
struct partition;

/* The jobs of an hvd before this one, as the store has them. Those that ended are listed like any other. One
 * that was under way is interrupted: nobody works on it, and it ends when its partitions are at rest, with
 * what they have then and had before; or after HISTORY_WAIT_USEC, with what was stored. Until then no other
 * job begins with its partitions, but for those that make whole what it left. */

#define HISTORY_WAIT_USEC (30 * USEC_PER_SEC)

/* At start, before there are partitions. That the store cannot be read is logged. */
void history_load(struct manager *m);
/* Whether a job has to wait for the end of an interrupted one. */
bool history_holds(struct manager *m, const struct job *next);
/* The partition was asked: ends what can end now. */
void history_settle(struct manager *m, struct partition *p);
/* The partition goes. */
void history_drop(struct manager *m, struct partition *p);
