/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct job;
struct partition;

/* The guest's own hooks, called around an addition or a removal: CHECK and PRE before anything is changed,
 * and at the job's end POST if something moved, else UNDO. What they say goes into the job's reasons, and
 * nothing that is said at the end changes the job's result. Of a guest that has none nothing is asked. */
struct job_hooks;

/* For a mechanism that has its plan. False: there is none to ask, go on. True: they are asked, and either
 * go_on() follows, or the job ends: they refuse, or it was stopped. Never from inside this call. A dry run
 * asks CHECK alone. */
bool hooks_before(struct job *j, void (*go_on)(struct job *j));

/* For job.c. The job is about to end: true if hooks are to be told first; job_finish() is then called again.
 */
bool hooks_after(struct job *j);
/* It waits for them at its end. */
bool hooks_is_ending(const struct job *j);
/* The job is to stop: true if it is hooks that it waits for. */
bool hooks_stop(struct job *j);
/* NULL is fine; returns NULL. */
struct job_hooks *job_hooks_free(struct job_hooks *h);

/* A session with the guest began: what an hvd before this one began, and nobody goes on with, is to be
 * settled.
 */
void hooks_on_session(struct partition *p);
/* Both ends were asked, and a restore was begun if one is due: settles it if the partition is as it is to
 * stay. Returns 0, or after how many microseconds this is to be called again, whatever happens until then. */
uint64_t hooks_on_settled(struct partition *p);
