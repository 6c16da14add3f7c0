/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One monitor connection that keeps itself alive.
 *
 * DOWN -> GREETING -> NEGOTIATING -> UP, and from any of them back to DOWN by client_close(), the only place
 * that ends a connection: it resets everything first, then completes the pending calls, then says on_down, so
 * that whatever a callback does finds a consistent client. One timer serves the state: back-off while DOWN,
 * the limit for the handshake until UP.
 *
 * Invariants: fd >= 0 exactly while state != DOWN; a call is in the list exactly until its callback begins;
 * ids are never used twice, over all connections. Callbacks run only from the event loop, never from inside
 * qmp_call(): a write error there shuts the socket down, and the reader meets its end at the next wake-up.
 *
 * QEMU may be made to talk without end by its guest (ACPI_DEVICE_OST is not throttled): after one read, or
 * QMP_EVENTS_BURST messages, the rest waits for the next iteration, behind a deferred source if epoll does
 * not know of it; the sources have a lower priority than timers, and take turns with the bus. Of too many
 * such events the rest is dropped, rather than left unread: QEMU would keep it all, and replies behind it. */

#include "hvd/qmp/internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "common/fault.h"
#include "common/log.h"
#include "common/size.h"
#include "hvd/qmp/message.h"

#define READ_SIZE      (32U * 1024U)
#define RETRY_MIN_USEC (USEC_PER_SEC / 10)
#define RETRY_MAX_USEC (5 * USEC_PER_SEC)
/* The same as the agent's: sources of equal priority take turns, so neither starves the other. */
#define IO_PRIORITY (SD_EVENT_PRIORITY_NORMAL + 10)

static void timer_arm(struct qmp_client *c, uint64_t usec)
{
        /* Cannot fail for a source that exists and a span of seconds. */
        sd_event_source_set_time_relative(c->timer, usec);
        sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
}

static void retry_arm(struct qmp_client *c)
{
        timer_arm(c, c->retry_usec);
        c->retry_usec = MIN(c->retry_usec * 2, c->limits.retry_max_usec);
}

/* The connection's end */

static void say_down(struct qmp_client *c, const struct error *error)
{
        if (c->down_reason.code == error->code && strcmp(c->down_reason.message, error->message) == 0)
                return;
        c->down_reason = *error;
        if (c->handlers.on_down) {
                c->in_callback++;
                c->handlers.on_down(c, error, c->userdata);
                c->in_callback--;
        }
}

static void connection_reset(struct qmp_client *c)
{
        c->io = sd_event_source_disable_unref(c->io);
        sd_event_source_set_enabled(c->more, SD_EVENT_OFF);
        c->fd = close_fd(c->fd);
        line_reader_reset(&c->reader);
        write_queue_clear(&c->queue);
        c->write_error = 0;
        c->state = QMP_DOWN;
}

static void client_close(struct qmp_client *c, const struct error *error)
{
        /* Only a connection that served until its peer went away starts the back-off anew: a QEMU that says
         * garbage after each greeting must not be asked ten times a second. */
        if (c->state == QMP_UP && error->code == ERROR_HYPERVISOR_ABSENT)
                c->retry_usec = c->limits.retry_min_usec;
        log_debug("qmp: %s: %s", c->address.sun_path, error->message);

        connection_reset(c);
        retry_arm(c);
        /* A callback may free other calls, but cannot make new ones while the client is down. */
        while (c->calls)
                qmp_call_complete(c->calls, NULL, error);
        say_down(c, error);
}

static void client_misbehaved(struct qmp_client *c, const struct error *error)
{
        c->counters.n_garbage++;
        client_close(c, error);
}

static void client_lost(struct qmp_client *c, int r)
{
        struct error error;

        if (r == 0)
                error_set(&error, ERROR_HYPERVISOR_ABSENT, "QEMU closed its monitor %s", c->address.sun_path);
        else
                error_set_errno(&error, ERROR_HYPERVISOR_ABSENT, r,
                        "The connection to QEMU's monitor %s broke", c->address.sun_path);
        client_close(c, &error);
}

int qmp_call(struct qmp_client *c, const char *command, struct json_object *arguments, uint64_t timeout_usec,
        qmp_reply_t on_reply, void *userdata, struct qmp_call **ret_call)
{
        _cleanup_json_ struct json_object *owned = arguments;

        if (c->state != QMP_UP || c->write_error < 0)
                return -ENOTCONN;
        return qmp_call_start(c, command, owned, timeout_usec, on_reply, userdata, ret_call);
}

/* Reading */

static void on_capabilities(struct json_object *result, const struct error *error, void *userdata)
{
        struct qmp_client *c = userdata;

        if (c->state != QMP_NEGOTIATING) /* the connection is being closed */
                return;
        if (error) {
                struct error e;
                error_set(&e, ERROR_HYPERVISOR_MISBEHAVED, "QEMU refused to negotiate capabilities: %s",
                        error->message);
                client_misbehaved(c, &e);
                return;
        }

        c->state = QMP_UP;
        c->down_reason = (struct error) { 0 };
        c->counters.n_connects++;
        sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
        if (c->handlers.on_up)
                c->handlers.on_up(c, c->userdata);
}

static void handle_greeting(struct qmp_client *c, const struct qmp_message *m)
{
        _cleanup_json_ struct json_object *arguments = NULL;
        int r = qmp_message_answer_greeting(m, &arguments);

        c->state = QMP_NEGOTIATING;
        if (r >= 0)
                r = qmp_call_start(c, "qmp_capabilities", arguments, USEC_INFINITY, on_capabilities, c, NULL);
        if (r < 0)
                client_lost(c, r);
}

static void handle_reply(struct qmp_client *c, const struct qmp_message *m)
{
        struct error error;

        if (!m->has_id) {
                error_set(&error, ERROR_HYPERVISOR_MISBEHAVED,
                        "QEMU's monitor sent a reply without an id%s%s",
                        m->type == QMP_MESSAGE_ERROR ? ": " : "",
                        m->type == QMP_MESSAGE_ERROR ? m->description : "");
                client_misbehaved(c, &error);
                return;
        }
        struct qmp_call *call = qmp_call_find(c, m->id);
        _unused_ char command[sizeof(call->command)];
        if (!call) {
                /* Timed out or freed; or meant for a connection before this one, which QEMU can let through.
                 */
                c->counters.n_late_replies++;
                return;
        }
        memcpy(command, call->command, sizeof(command));
        fault_point("qmp-answer", command);
        if (m->type == QMP_MESSAGE_RETURN)
                qmp_call_complete(call, m->object, NULL);
        else {
                error_set(&error, ERROR_HYPERVISOR_REFUSED, "%s", m->description);
                qmp_call_complete(call, NULL, &error);
        }
        fault_point("qmp-taken", command);
}

static void handle_event(struct qmp_client *c, const struct qmp_message *m)
{
        if (c->state != QMP_UP)
                return;
        c->counters.n_events++;
        fault_point("qmp-event", m->name);
        if (c->handlers.on_event) {
                c->in_callback++;
                c->handlers.on_event(c, m->name, m->object, c->userdata);
                c->in_callback--;
        }
        fault_point("qmp-event-taken", m->name);
}

static void handle_line(struct qmp_client *c, const char *line, size_t length)
{
        _cleanup_(qmp_message_done) struct qmp_message m = { 0 };
        struct error error;

        if (qmp_message_parse(line, length, &m, &error) < 0) {
                client_misbehaved(c, &error);
                return;
        }
        if ((m.type == QMP_MESSAGE_GREETING) != (c->state == QMP_GREETING)) {
                error_set(&error, ERROR_HYPERVISOR_MISBEHAVED, "QEMU's monitor %s",
                        c->state == QMP_GREETING ? "does not begin with a greeting" : "greeted twice");
                client_misbehaved(c, &error);
                return;
        }
        switch (m.type) {
        case QMP_MESSAGE_GREETING:
                handle_greeting(c, &m);
                break;
        case QMP_MESSAGE_EVENT:
                handle_event(c, &m);
                break;
        default:
                handle_reply(c, &m);
        }
}

/* Of these the guest decides how many there are. A reply may have such a text. */
static bool is_surplus(struct qmp_client *c, const char *line)
{
        if (!strstr(line, "\"ACPI_DEVICE_OST\"") || strstr(line, "\"return\""))
                return false;
        /* What is dropped costs nothing. */
        bool surplus = budget_take(&c->events, 0, now_monotonic_usec()) > 0;
        (void)budget_take(&c->events, surplus ? 0 : 1, c->events.at_usec);
        c->counters.n_dropped += surplus;
        return surplus;
}

static void client_process(struct qmp_client *c)
{
        bool has_read = false;

        for (unsigned i = 0; i < QMP_EVENTS_BURST;) {
                struct error error;
                char *line;
                size_t length;

                int r = line_reader_next(&c->reader, &line, &length);
                if (r > 0) {
                        if (is_surplus(c, line))
                                continue;
                        handle_line(c, line, length);
                        if (c->state == QMP_DOWN)
                                return;
                        i++;
                        continue;
                }
                if (r < 0) {
                        c->counters.n_oversized++;
                        error_set(&error, ERROR_HYPERVISOR_MISBEHAVED,
                                "QEMU's monitor sent a line of more than %u bytes", QMP_LINE_MAX);
                        client_misbehaved(c, &error);
                        return;
                }

                ssize_t n = has_read ? -EAGAIN : line_reader_read(&c->reader, c->fd, READ_SIZE);
                if (n == -EAGAIN) {
                        line_reader_release(&c->reader);
                        sd_event_source_set_enabled(c->more, SD_EVENT_OFF);
                        return;
                }
                if (n <= 0) {
                        client_lost(c, n < 0 ? (int)n : c->write_error);
                        return;
                }
                has_read = true;
                throttle_note(&c->throttle, (uint64_t)n);
        }
        /* Whole lines may be left in the buffer, of which epoll knows nothing. */
        sd_event_source_set_enabled(c->more, SD_EVENT_ON);
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        struct qmp_client *c = userdata;

        if (revents & EPOLLOUT)
                qmp_queue_flush(c);
        if (revents & ~(uint32_t)EPOLLOUT)
                client_process(c);
        return 0;
}

static int on_more(sd_event_source *source, void *userdata)
{
        client_process(userdata);
        return 0;
}

/* The connection's beginning */

static int connection_open(struct qmp_client *c)
{
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

        if (fd < 0)
                return -errno;
        /* On a unix socket this never waits: it succeeds, or EAGAIN says that the backlog is full. */
        if (connect(fd, (struct sockaddr *)&c->address, sizeof(c->address)) < 0)
                return -errno;
        int r = sd_event_add_io(c->event, &c->io, fd, EPOLLIN, on_io, c);
        if (r < 0)
                return r;
        sd_event_source_set_priority(c->io, IO_PRIORITY);
        c->fd = steal_fd(&fd);
        c->state = QMP_GREETING;
        timer_arm(c, c->limits.hello_usec);
        return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct qmp_client *c = userdata;
        struct error error;

        if (c->state != QMP_DOWN) {
                /* QEMU serves one client of a monitor; the others are accepted and wait without a word. */
                error_set(&error, ERROR_HYPERVISOR_SILENT,
                        "QEMU's monitor %s accepts and says nothing; does another program hold it?",
                        c->address.sun_path);
                client_close(c, &error);
                return 0;
        }
        int r = connection_open(c);
        if (r < 0) {
                error_set_errno(&error, ERROR_HYPERVISOR_ABSENT, r, "QEMU's monitor %s does not answer",
                        c->address.sun_path);
                retry_arm(c);
                say_down(c, &error);
        }
        return 0;
}

/* The client */

static void qmp_client_freep(struct qmp_client **c)
{
        qmp_client_free(*c);
}

int qmp_client_new(sd_event *event, const char *socket, const struct qmp_handlers *handlers, void *userdata,
        struct qmp_client **ret)
{
        _cleanup_(qmp_client_freep) struct qmp_client *c = NULL;
        size_t length = strlen(socket);
        uint32_t random = 0;

        if (length == 0)
                return -EINVAL;
        if (length >= sizeof(c->address.sun_path))
                return -ENAMETOOLONG;
        /* A QEMU that outlives us may still answer a predecessor's commands: start where it will not have
         * been. */
        if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
                return -EIO;

        c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        *c = (struct qmp_client) {
                .event = sd_event_ref(event),
                .address.sun_family = AF_UNIX,
                .handlers = *handlers,
                .userdata = userdata,
                .limits = { QMP_HELLO_USEC, RETRY_MIN_USEC, RETRY_MAX_USEC },
                .fd = -1,
                .last_id = (uint64_t)random << 16,
                .retry_usec = RETRY_MIN_USEC,
        };
        c->calls_end = &c->calls;
        memcpy(c->address.sun_path, socket, length + 1);
        line_reader_init(&c->reader, QMP_LINE_MAX, false);
        budget_init(&c->events, QMP_EVENTS_SPARE, QMP_EVENTS_PER_SEC, now_monotonic_usec());

        int r = sd_event_add_time_relative(event, &c->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY, on_timer, c);
        if (r < 0)
                return r;
        r = sd_event_add_defer(event, &c->more, on_more, c);
        if (r < 0)
                return r;
        sd_event_source_set_enabled(c->more, SD_EVENT_OFF);
        sd_event_source_set_priority(c->more, IO_PRIORITY);
        r = throttle_init(&c->throttle, event, QMP_BYTES_PER_SEC, QMP_BYTES_PER_SEC, qmp_set_events, c);
        if (r < 0)
                return r;
        *ret = steal_pointer(c);
        return 0;
}

struct qmp_client *qmp_client_free(struct qmp_client *c)
{
        if (!c)
                return NULL;
        assert(c->in_callback == 0);

        while (c->calls)
                qmp_call_free(c->calls);
        sd_event_source_disable_unref(c->io);
        sd_event_source_disable_unref(c->more);
        sd_event_source_disable_unref(c->timer);
        throttle_done(&c->throttle);
        sd_event_unref(c->event);
        close_fd(c->fd);
        line_reader_done(&c->reader);
        write_queue_clear(&c->queue);
        free(c);
        return NULL;
}

bool qmp_client_is_up(struct qmp_client *c)
{
        return c->state == QMP_UP;
}

pid_t qmp_client_peer(struct qmp_client *c)
{
        struct ucred peer;
        socklen_t size = sizeof(peer);

        if (c->state != QMP_UP || getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
                return 0;
        return peer.pid;
}

struct qmp_counters qmp_client_counters(struct qmp_client *c)
{
        return c->counters;
}

void qmp_client_set_limits(struct qmp_client *c, const struct qmp_limits *limits)
{
        c->limits = *limits;
        c->retry_usec = limits->retry_min_usec;
}

size_t qmp_client_queued(struct qmp_client *c)
{
        return write_queue_waiting(&c->queue);
}
