/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What goes on in a removal when devices did not leave: the second chance of those that were only busy, and
 * the words for what became of each. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/memory/dimm-remove.h"

/* Beside the pause before it, for the try itself. */
#define TRY_USEC (1 * USEC_PER_SEC)

static uint64_t still_to_go(const struct dimm_remove *w)
{
        uint64_t bytes = w->job->request.bytes;

        return bytes - MIN(bytes, dimm_remove_sum(w, TARGET_PLANNED, TARGET_GONE));
}

static bool has_chance(const struct target *t, uint64_t left_bytes)
{
        return t->state == TARGET_STAYED && t->is_busy && !t->again && !t->asked &&
               t->size_bytes <= left_bytes;
}

/* What keeps pages busy is mostly over in a moment. */
static uint64_t pause_usec(const struct dimm_remove *w)
{
        return manager_config(w->job->manager)->retry_after_usec;
}

bool dimm_again_is_possible(const struct dimm_remove *w)
{
        uint64_t left_bytes = still_to_go(w);

        if (w->job->stop != JOB_STOP_NO || w->gave_up || w->guest_lost ||
                job_left_usec(w->job) < pause_usec(w) + TRY_USEC)
                return false;
        for (size_t i = 0; i < w->n_targets; i++)
                if (has_chance(&w->targets[i], left_bytes))
                        return true;
        return false;
}

void dimm_again_judge(struct dimm_remove *w, const struct survey *s)
{
        for (size_t i = 0; i < s->n_blocks; i++) {
                const struct block_survey *b = &s->blocks[i];

                if (b->pages[PAGE_SLAB] + b->pages[PAGE_TABLE] + b->pages[PAGE_UNMOVABLE] == 0)
                        continue;
                for (size_t k = 0; k < w->n_targets; k++)
                        if (b->start - w->targets[k].address < w->targets[k].size_bytes)
                                w->targets[k].is_busy = false;
        }
}

static int on_again(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct dimm_remove *w = userdata;

        w->again_timer = sd_event_source_disable_unref(w->again_timer);
        for (size_t i = 0; i < w->n_targets; i++) {
                struct target *t = &w->targets[i];

                if (w->job->stop != JOB_STOP_NO || !has_chance(t, still_to_go(w)))
                        continue;
                log_debug("Job %" PRIu32 ": %s is tried again", w->job->id, t->id);
                t->again = true;
                t->state = TARGET_PLANNED;
                job_drop_reasons(w->job, t->id);
        }
        dimm_remove_pump(w);
        return 0;
}

bool dimm_again(struct dimm_remove *w)
{
        if (w->again_timer)
                return true;
        if (!dimm_again_is_possible(w))
                return false;
        return sd_event_add_time(manager_event(w->job->manager), &w->again_timer, CLOCK_MONOTONIC,
                       w->failed_usec + pause_usec(w), 1, on_again, w) >= 0;
}

enum fate {
        FATE_LEFT,
        FATE_PUT_BACK,
        FATE_LEFT_OFFLINE,
        FATE_UNKNOWN,
        FATE_NOT_BEGUN,
        FATE_MAX,
};

static enum fate fate_of(const struct target *t)
{
        if (t->state == TARGET_GONE)
                return FATE_LEFT;
        if (t->is_left_offline)
                return FATE_LEFT_OFFLINE;
        if (t->is_unknown)
                return FATE_UNKNOWN;
        return t->was_tried ? FATE_PUT_BACK : FATE_NOT_BEGUN;
}

void dimm_again_add_notes(struct dimm_remove *w)
{
        static const char *const words[FATE_MAX] = {
                [FATE_LEFT] = "left",
                [FATE_PUT_BACK] = "tried, and in use as before",
                [FATE_LEFT_OFFLINE] = "offline in the guest",
                [FATE_UNKNOWN] = "tried, and the guest has not said whether it is in use again",
                [FATE_NOT_BEGUN] = "not begun",
        };

        if (w->job->stop == JOB_STOP_NO)
                return;
        for (enum fate f = 0; f < FATE_MAX; f++) {
                char text[384] = "";
                size_t used = 0, n = 0;
                uint64_t bytes = 0;

                for (size_t i = 0; i < w->n_targets; i++) {
                        const struct target *t = &w->targets[i];

                        if (fate_of(t) != f)
                                continue;
                        bytes += t->size_bytes;
                        if (used < sizeof(text) - PLATFORM_ID_MAX - 16)
                                used += (size_t)snprintf(
                                        text + used, sizeof(text) - used, "%s%s", n ? ", " : "", t->id);
                        n++;
                }
                if (n > 0)
                        job_add_note(w->job, "%s: %zu device%s of %s: %s", words[f], n, n > 1 ? "s" : "",
                                SIZE(bytes), text);
        }
}
