/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <cmocka.h>

#include "hvd/qmp/limits.h"
#include "hvd/qmp/message.h"
#include "hvd/qmp/qmp.h"
#include "tests/fakes/fake-qmp.h"

/* A QMP client, and a QEMU that is played by a script. */

#define LIMIT_USEC (20 * USEC_PER_SEC)

struct fixture {
        sd_event *event;
        char dir[32], socket[64];
        struct fake *fake;
        struct qmp_client *client;
        unsigned n_up, n_down, n_events;
        struct error down;
        char event_name[64], event_data[256];
        void (*on_up)(struct fixture *fx);
        void (*on_event)(struct fixture *fx);
};

/* What a call came to. */
struct record {
        struct fixture *fx;
        unsigned n;
        enum error_code code;
        char text[ERROR_MESSAGE_MAX];
        void (*then)(struct record *r);
        struct qmp_call *other;
};

#define RUN_UNTIL(fx, condition)                                                                             \
        do {                                                                                                 \
                if (!FAKE_RUN_UNTIL((fx)->event, condition, LIMIT_USEC))                                     \
                        fail_msg("never: %s; fake: %s", #condition,                                          \
                                (fx)->fake ? fake_complaint((fx)->fake) ?: "finished" : "none");             \
        } while (0)
#define RUN_SCRIPT(fx) FAKE_RUN_SCRIPT(fx)

void on_up(struct qmp_client *c, void *userdata);
void on_event(struct qmp_client *c, const char *name, struct json_object *data, void *userdata);
void on_reply(struct json_object *result, const struct error *error, void *userdata);
int setup(void **state);
int teardown(void **state);
void start_client(struct fixture *fx);
void start_fake(struct fixture *fx, const char *script);
void start(struct fixture *fx, const char *script);
void start_up(struct fixture *fx, const char *script);
struct qmp_call *call(struct fixture *fx, const char *command, struct record *r);

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
