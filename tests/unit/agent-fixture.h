/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "hvd/agent/agent.h"
#include "hvd/agent/limits.h"
#include "tests/fakes/fake-guest.h"

/* An agent channel, and a guest that is played by a script. */

#define LIMIT_USEC (20 * USEC_PER_SEC)

struct fixture {
        sd_event *event;
        char dir[32], socket[64];
        struct fake *fake;
        struct agent *agent;
        unsigned n_states[AGENT_STATE_MAX], n_events, n_samples;
        struct guest_sample sample;
        enum agent_state last_state;
        void (*on_ready)(struct fixture *fx);
};

/* What a call came to. */
struct record {
        struct fixture *fx;
        unsigned n, n_progress;
        enum error_code code;
        char text[ERROR_MESSAGE_MAX];
        enum op op;
        uint64_t total_bytes, done_bytes, available_bytes;
        void (*then)(struct record *r);
        struct agent_call *other;
};

#define RUN_UNTIL(fx, condition)                                                                             \
        do {                                                                                                 \
                if (!FAKE_RUN_UNTIL((fx)->event, condition, LIMIT_USEC))                                     \
                        fail_msg("never: %s; state: %s; fake: %s", #condition,                               \
                                agent_state_to_string(agent_state((fx)->agent)),                             \
                                (fx)->fake ? fake_complaint((fx)->fake) ?: "finished" : "none");             \
        } while (0)
#define RUN_SCRIPT(fx) FAKE_RUN_SCRIPT(fx)

void on_reply(const struct message_reply *reply, const struct error *error, void *userdata);
int setup(void **state);
int teardown(void **state);
void start_agent(struct fixture *fx, uint64_t hello_usec);
void start_fake(struct fixture *fx, const char *script);
void start(struct fixture *fx, const char *script);
void start_ready(struct fixture *fx, const char *script);
struct agent_call *call(struct fixture *fx, enum op op, struct record *r);
int try_call(struct fixture *fx, struct record *r);
void assert_explained(struct fixture *fx, enum error_code code, const char *part);

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
