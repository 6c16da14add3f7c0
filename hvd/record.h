/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

struct job;
struct partition;
struct store;

/* What the store is told of jobs and of what they were for. It failing is logged, and stops nothing. */

void record_job(struct store *store, const struct job *j);
/* At start: whatever an hvd before this one was at is over. now_usec: CLOCK_REALTIME. */
void record_interruption(struct store *store, uint64_t now_usec);
/* What the partition has beside DIMMs when a job of it ends is what it was asked to have: by that it is
 * known, while a guest that was reset has its balloon and virtio-mem anew, what is still to come. DIMMs stay
 * with QEMU, and one that came or left without hvd changes what is wanted with it. 0: nothing was asked. */
void record_kept(struct store *store, struct partition *p, uint64_t bytes);
/* The same by what the partition has now. p may be NULL, or not be worked on by the job. */
void record_kept_after(struct store *store, struct partition *p, const struct job *j);
