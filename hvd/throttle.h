/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <systemd/sd-event.h>

#include "common/budget.h"

/* Says when a peer that talks too much is not to be read for a while. What it says then waits in the socket,
 * and at last in the peer. */
struct throttle {
        struct budget budget;
        sd_event_source *resume;
        bool is_paused; /* for reading */
        void (*on_change)(void *userdata);
        void *userdata;
};

/* on_change is called whenever is_paused has changed. throttle_done() also after a failure, and on zeros. */
int throttle_init(struct throttle *t, sd_event *event, uint64_t burst, uint64_t per_sec,
        void (*on_change)(void *userdata), void *userdata);
void throttle_done(struct throttle *t);
/* So much was read, in bytes. */
void throttle_note(struct throttle *t, uint64_t amount);
