/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "common/json.h"

/* A QMP client that keeps itself connected: connects, takes the greeting, negotiates capabilities, sends
 * commands with ids, delivers events, and reconnects with back-off (0.1 s doubling to 5 s) whenever QEMU goes
 * away. Never blocks. Everything that QEMU says is bounded. */
struct qmp_client;
struct qmp_call;

#define QMP_LINE_MAX     (4U * 1024U * 1024U) /* bytes of one message from QEMU */
#define QMP_CALLS_MAX    1024U                /* pending calls; more: -EBUSY */
#define QMP_EVENTS_BURST 32U                  /* messages handled for one wake-up, the rest at the next */
/* What a guest can make its QEMU say: ACPI_DEVICE_OST beyond this is dropped unread, as it is a hint only. */
#define QMP_EVENTS_PER_SEC 200U
#define QMP_EVENTS_SPARE   1024U
/* And all that a QEMU says; beyond this it is read later. A guest's kernel cannot cause as much. */
#define QMP_BYTES_PER_SEC (8U * 1024U * 1024U)
#define QMP_HELLO_USEC    (5 * 1000000ULL) /* for the greeting and capabilities */

struct qmp_handlers {
        /* Capabilities are negotiated; calls may be made, also from inside. */
        void (*on_up)(struct qmp_client *c, void *userdata);
        /* The connection is gone, or could not be made (said once until the next on_up, or when the reason
         * changes). Every pending call has already completed with an error. */
        void (*on_down)(struct qmp_client *c, const struct error *error, void *userdata);
        /* data is borrowed, and may be NULL. */
        void (*on_event)(struct qmp_client *c, const char *name, struct json_object *data, void *userdata);
};

/* Exactly once for each call that was not freed before: result is borrowed and set when error is NULL.
 * ERROR_HYPERVISOR_REFUSED: QEMU's own "desc" is the message; _ABSENT: the connection is or went away;
 * _SILENT: no reply within the limit; _MISBEHAVED: not QMP. The client must not be freed from inside. */
typedef void (*qmp_reply_t)(struct json_object *result, const struct error *error, void *userdata);

/* Starts connecting; returns at once. `socket` is a filesystem path. */
int qmp_client_new(sd_event *event, const char *socket, const struct qmp_handlers *handlers, void *userdata,
        struct qmp_client **ret);
/* Pending calls end without their callbacks. NULL is fine; returns NULL. */
struct qmp_client *qmp_client_free(struct qmp_client *c);
bool qmp_client_is_up(struct qmp_client *c);
/* The process that listens at the socket, or did when it was made; 0: not up, or not to be seen from here. */
pid_t qmp_client_peer(struct qmp_client *c);

/* Sends a command. Takes ownership of arguments (NULL: none) in every case. ret_call (may be NULL: then the
 * call runs on its own) receives a handle: freeing it drops the callback, the late reply is swallowed and
 * counted; the handle is dead once the callback has begun. -ENOTCONN when not up, -EBUSY beyond
 * QMP_CALLS_MAX; then no callback. */
int qmp_call(struct qmp_client *c, const char *command, struct json_object *arguments, uint64_t timeout_usec,
        qmp_reply_t on_reply, void *userdata, struct qmp_call **ret_call);
struct qmp_call *qmp_call_free(struct qmp_call *call);

struct qmp_counters {
        uint64_t n_events, n_late_replies, n_oversized, n_garbage, n_connects;
        uint64_t n_dropped; /* ACPI_DEVICE_OST beyond QMP_EVENTS_PER_SEC */
};
struct qmp_counters qmp_client_counters(struct qmp_client *c);
