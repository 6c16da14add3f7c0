/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"
#include "hvd/survey.h"

/* What a removal that may take its time makes of a survey: which blocks are cheap enough by now, and what it
 * waits for. Pure. */

/* What a block may cost at most, after so much of the time: a 32nd of it in the first quarter, then a 16th,
 * an 8th, and a quarter of it in the last one. */
uint64_t trickle_bound(uint64_t block_bytes, uint64_t elapsed_usec, uint64_t total_usec);

/* How long until the next look: 1 s after something was had, then twice as long each time, up to 10 s. */
uint64_t trickle_pause(uint64_t before_usec, bool had_some);

/* A guest with less left than guestd leaves it gets back what is held. */
bool trickle_is_tight(const struct guest_memory *memory);

/* Of the device's online blocks, by the survey. */
struct trickle_view {
        bool has_obstacle;    /* one of them holds pages that do not move: none is worth taking */
        uint64_t block, cost; /* the dearest, when there is one (block_bytes > 0), */
        uint64_t block_bytes; /* and its size */
};
struct trickle_view trickle_look(const struct survey *s, uint64_t address, uint64_t bytes);

/* The cheapest block of the device that costs at most the bound and is not among those that are done with
 * (addresses); NULL if there is none. */
const struct block_survey *trickle_cheapest(const struct survey *s, uint64_t address, uint64_t bytes,
        uint64_t bound, const uint64_t *done, size_t n_done);

/* The device counts as one that holds pages that do not move. */
void trickle_avoid(struct survey *s, uint64_t address, uint64_t bytes);
/* What a device has begun with shall be gone on with, unless another is much cheaper: its cost counts half.
 */
void trickle_prefer(struct survey *s, uint64_t address, uint64_t bytes);
