/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

struct job;
struct manager;
struct partition;

/* The jobs of an hvd before this one, as the store has them. Those that ended are listed like any other. One
 * that was under way is interrupted: nobody works on it, and it ends once both ends have told what became of
 * it, with what really moved; or after HISTORY_WAIT_USEC, with what is known by then. */

#define HISTORY_WAIT_USEC (60 * USEC_PER_SEC)

/* At start, before there are partitions. That the store cannot be read is logged. */
void history_load(struct manager *m);
/* A partition was asked and nothing is under way with it, or (NULL) a job is about to begin with its own, so
 * that what is not told apart now never will be: ends those interrupted jobs of theirs that can end. */
void history_settle(struct manager *m, struct partition *p, const struct job *next);
