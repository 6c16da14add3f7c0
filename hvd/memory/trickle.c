/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The rules of a removal that may take its time, apart from the job that follows them. */

#include "hvd/memory/trickle.h"

#include "common/size.h"

#define PAUSE_MIN_USEC USEC_PER_SEC
#define PAUSE_MAX_USEC (10 * USEC_PER_SEC)

uint64_t trickle_bound(uint64_t block_bytes, uint64_t elapsed_usec, uint64_t total_usec)
{
        uint64_t quarter = total_usec / 4, n = quarter ? elapsed_usec / quarter : 3;

        return block_bytes >> (5 - MIN(n, UINT64_C(3)));
}

uint64_t trickle_pause(uint64_t before_usec, bool had_some)
{
        if (had_some || before_usec < PAUSE_MIN_USEC)
                return PAUSE_MIN_USEC;
        return MIN(before_usec * 2, PAUSE_MAX_USEC);
}

bool trickle_is_tight(const struct guest_memory *memory)
{
        return memory->available_bytes < margin_of(memory->total_bytes);
}

static const struct block_survey *next_in(
        const struct survey *s, const struct block_survey *after, uint64_t address, uint64_t bytes)
{
        const struct block_survey *b = survey_find(s, after ? after->start + 1 : address);

        return b && b->start - address < bytes ? b : NULL;
}

struct trickle_view trickle_look(const struct survey *s, uint64_t address, uint64_t bytes)
{
        struct trickle_view view = { 0 };
        const struct block_survey *b = NULL;

        while ((b = next_in(s, b, address, bytes))) {
                view.has_obstacle |= survey_obstacle(b) != PAGE_KIND_INVALID;
                if (view.block_bytes == 0 || b->cost_bytes > view.cost) {
                        view.block = b->start;
                        view.cost = b->cost_bytes;
                        view.block_bytes = b->length;
                }
        }
        return view;
}

static bool is_among(uint64_t address, const uint64_t *list, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (list[i] == address)
                        return true;
        return false;
}

const struct block_survey *trickle_cheapest(const struct survey *s, uint64_t address, uint64_t bytes,
        uint64_t bound, const uint64_t *done, size_t n_done)
{
        const struct block_survey *b = NULL, *best = NULL;

        while ((b = next_in(s, b, address, bytes)))
                if (b->cost_bytes <= bound && (!best || b->cost_bytes < best->cost_bytes) &&
                        !is_among(b->start, done, n_done))
                        best = b;
        return best;
}

void trickle_avoid(struct survey *s, uint64_t address, uint64_t bytes)
{
        const struct block_survey *b = next_in(s, NULL, address, bytes);

        if (b)
                s->blocks[b - s->blocks].pages[PAGE_PINNED]++;
}

void trickle_prefer(struct survey *s, uint64_t address, uint64_t bytes)
{
        const struct block_survey *b = NULL;

        while ((b = next_in(s, b, address, bytes)))
                s->blocks[b - s->blocks].cost_bytes /= 2;
}
