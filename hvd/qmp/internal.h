/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/un.h>

#include "common/lines.h"
#include "common/queue.h"
#include "hvd/qmp/limits.h"
#include "hvd/qmp/qmp.h"
#include "hvd/throttle.h"

/* What qmp.c, which owns the connection, and calls.c share. */

#define TIMER_ACCURACY (5 * USEC_PER_MSEC)

enum qmp_state {
        QMP_DOWN,
        QMP_GREETING,
        QMP_NEGOTIATING,
        QMP_UP,
};

struct qmp_call {
        struct qmp_client *client;
        struct qmp_call *next, **link; /* link: what points at this call */
        uint64_t id;
        sd_event_source *timer;
        qmp_reply_t on_reply;
        void *userdata;
        char command[64];
};

struct qmp_client {
        sd_event *event;
        struct sockaddr_un address;
        struct qmp_handlers handlers;
        void *userdata;
        struct qmp_limits limits;

        enum qmp_state state;
        int fd;
        sd_event_source *io, *more, *timer;
        struct throttle throttle;
        struct budget events;
        struct line_reader reader;
        struct write_queue queue;
        int write_error; /* -errno; the socket is shut down */

        struct qmp_call *calls, **calls_end; /* oldest first */
        unsigned n_calls;
        uint64_t last_id;
        uint64_t retry_usec;
        struct error down_reason; /* what on_down said last; cleared by on_up */
        unsigned in_callback;
        struct qmp_counters counters;
};

/* Sends in whatever state has a connection; qmp_call() is the guarded form. Borrows arguments. */
int qmp_call_start(struct qmp_client *c, const char *command, struct json_object *arguments,
        uint64_t timeout_usec, qmp_reply_t on_reply, void *userdata, struct qmp_call **ret_call);
/* Ends it with what came; frees it before its callback runs. */
void qmp_call_complete(struct qmp_call *call, struct json_object *result, const struct error *error);
struct qmp_call *qmp_call_find(struct qmp_client *c, uint64_t id);
/* A write error shuts the socket down, and the reader meets its end at the next wake-up. */
void qmp_queue_flush(struct qmp_client *c);
/* What epoll shall tell of, after the throttle or the queue has changed. A throttle's callback. */
void qmp_set_events(void *client);
