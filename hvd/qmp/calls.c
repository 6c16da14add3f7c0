/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Commands on their way, and what is written. A call is in the client's list exactly until its callback
 * begins, or its owner frees it: then its reply is nobody's. */

#include "hvd/qmp/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common/fault.h"
#include "common/size.h"
#include "hvd/qmp/message.h"

#define QUEUE_MAX (1024U * 1024U)

struct qmp_call *qmp_call_free(struct qmp_call *call)
{
        if (!call)
                return NULL;

        *call->link = call->next;
        if (call->next)
                call->next->link = call->link;
        else
                call->client->calls_end = call->link;
        call->client->n_calls--;
        sd_event_source_disable_unref(call->timer);
        free(call);
        return NULL;
}

void qmp_call_complete(struct qmp_call *call, struct json_object *result, const struct error *error)
{
        struct qmp_client *c = call->client;
        qmp_reply_t on_reply = call->on_reply;
        void *userdata = call->userdata;

        qmp_call_free(call);
        if (on_reply) {
                c->in_callback++;
                on_reply(result, error, userdata);
                c->in_callback--;
        }
}

struct qmp_call *qmp_call_find(struct qmp_client *c, uint64_t id)
{
        for (struct qmp_call *call = c->calls; call; call = call->next)
                if (call->id == id)
                        return call;
        return NULL;
}

static int on_call_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct qmp_call *call = userdata;
        struct error error;

        error_set(&error, ERROR_HYPERVISOR_SILENT, "QEMU did not answer '%s' in time", call->command);
        qmp_call_complete(call, NULL, &error);
        return 0;
}

/* Writing */

void qmp_set_events(void *userdata)
{
        struct qmp_client *c = userdata;

        if (c->fd < 0)
                return;
        sd_event_source_set_io_events(c->io, (c->throttle.is_paused ? 0U : EPOLLIN) |
                                                     (write_queue_waiting(&c->queue) > 0 ? EPOLLOUT : 0U));
}

void qmp_queue_flush(struct qmp_client *c)
{
        if (c->write_error == 0)
                c->write_error = write_queue_flush(&c->queue, c->fd, 0);
        if (c->write_error < 0) {
                /* The reader shall see the end, after what QEMU still had to say. */
                write_queue_clear(&c->queue);
                shutdown(c->fd, SHUT_RDWR);
        }
        qmp_set_events(c);
}

int qmp_call_start(struct qmp_client *c, const char *command, struct json_object *arguments,
        uint64_t timeout_usec, qmp_reply_t on_reply, void *userdata, struct qmp_call **ret_call)
{
        _cleanup_free_ char *line = NULL;
        size_t length;

        if (c->n_calls >= QMP_CALLS_MAX)
                return -EBUSY;
        int r = qmp_message_format(command, arguments, c->last_id + 1, &line, &length);
        if (r < 0)
                return r;

        struct qmp_call *call = calloc(1, sizeof(*call));
        if (!call)
                return -ENOMEM;
        *call = (struct qmp_call) {
                .client = c,
                .link = c->calls_end,
                .id = c->last_id + 1,
                .on_reply = on_reply,
                .userdata = userdata,
        };
        snprintf(call->command, sizeof(call->command), "%s", command);
        *c->calls_end = call;
        c->calls_end = &call->next;
        c->n_calls++;

        if (timeout_usec != USEC_INFINITY)
                r = sd_event_add_time_relative(c->event, &call->timer, CLOCK_MONOTONIC, timeout_usec,
                        TIMER_ACCURACY, on_call_timeout, call);
        if (r >= 0)
                r = write_queue_push(&c->queue, line, length, QUEUE_MAX);
        if (r < 0) {
                qmp_call_free(call);
                return r;
        }
        c->last_id++;
        fault_point("qmp-send", command);
        qmp_queue_flush(c);
        fault_point("qmp-sent", command);
        if (ret_call)
                *ret_call = call;
        return 0;
}
