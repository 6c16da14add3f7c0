/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "hvd/throttle.h"

#include "common/cleanup.h"
#include "common/size.h"

#define TIMER_ACCURACY (5 * USEC_PER_MSEC)

static void set_paused(struct throttle *t, bool paused)
{
        if (t->is_paused == paused)
                return;
        t->is_paused = paused;
        t->on_change(t->userdata);
}

static int on_resume(sd_event_source *source, uint64_t usec, void *userdata)
{
        set_paused(userdata, false);
        return 0;
}

int throttle_init(struct throttle *t, sd_event *event, uint64_t burst, uint64_t per_sec,
        void (*on_change)(void *userdata), void *userdata)
{
        *t = (struct throttle) { .on_change = on_change, .userdata = userdata };
        budget_init(&t->budget, burst, per_sec, now_monotonic_usec());
        int r = sd_event_add_time_relative(
                event, &t->resume, CLOCK_MONOTONIC, 0, TIMER_ACCURACY, on_resume, t);
        if (r < 0)
                return r;
        return sd_event_source_set_enabled(t->resume, SD_EVENT_OFF);
}

void throttle_done(struct throttle *t)
{
        t->resume = sd_event_source_disable_unref(t->resume);
}

void throttle_note(struct throttle *t, uint64_t amount)
{
        uint64_t usec = budget_take(&t->budget, amount, now_monotonic_usec());

        if (usec == 0)
                return;
        /* Cannot fail for a source that exists and a span of seconds. */
        sd_event_source_set_time_relative(t->resume, usec);
        sd_event_source_set_enabled(t->resume, SD_EVENT_ONESHOT);
        set_paused(t, true);
}
