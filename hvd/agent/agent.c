/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The host's end of a guest channel.
 *
 * ABSENT: no socket answers; retried with back-off. WAITING: the socket answers, a hello does not come; after
 * hello_usec the connection is closed for a pause and made again, because guestd takes the edge that it sees
 * then as its cue to say hello (a pause too short would be no edge to it), and because QEMU accepts a second
 * connection that it never serves. READY: the guest's last hello was welcomed. TOO_OLD: it was refused; the
 * connection stays, for an updated guestd's hello. MISBEHAVING: no connection, until shun_usec have passed.
 * One timer serves the state.
 *
 * Invariants: session is set exactly while READY, and calls exist only then; nothing is in the queue before a
 * hello of this connection; a call is in the list exactly until its callback begins. Callbacks run only from
 * the event loop or from agent_set_port_open(), never from inside agent_call().
 *
 * The guest is not trusted: one read of at most AGENT_READ_MAX for a wake-up, at a lower priority than
 * timers, and taking turns with the bus; AGENT_BYTES_PER_SEC in the long run; too much garbage, or too many
 * hellos, end the connection. */

#include "hvd/agent/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common/log.h"
#include "common/size.h"

#define ABSENT_MIN_USEC (USEC_PER_SEC / 10)
#define ABSENT_MAX_USEC (5 * USEC_PER_SEC)
#define SILENT_MIN_USEC (USEC_PER_SEC / 2)
#define SILENT_MAX_USEC (30 * USEC_PER_SEC)
#define TIMER_ACCURACY  (5 * USEC_PER_MSEC)
/* The same as the QMP client's: sources of equal priority take turns, so neither starves the other. */
#define IO_PRIORITY (SD_EVENT_PRIORITY_NORMAL + 10)

static const char *const state_names[AGENT_STATE_MAX] = {
        [AGENT_ABSENT] = "absent",
        [AGENT_WAITING] = "waiting",
        [AGENT_READY] = "ready",
        [AGENT_TOO_OLD] = "too-old",
        [AGENT_MISBEHAVING] = "misbehaving",
};

const char *agent_state_to_string(enum agent_state s)
{
        assert(s >= 0 && s < AGENT_STATE_MAX);
        return state_names[s];
}

static void timer_arm(struct agent *a, uint64_t usec)
{
        /* Cannot fail for a source that exists and a span of seconds. */
        sd_event_source_set_time_relative(a->timer, usec);
        sd_event_source_set_enabled(a->timer, SD_EVENT_ONESHOT);
}

void agent_announce(struct agent *a)
{
        log_debug("agent: %s: %s", a->address.sun_path, state_names[a->state]);
        if (a->handlers.on_state) {
                a->in_callback++;
                a->handlers.on_state(a, a->state, a->userdata);
                a->in_callback--;
        }
}

/* The connection's end */

static void connection_close(
        struct agent *a, enum agent_state state, uint64_t retry_usec, const struct error *error)
{
        enum agent_state old = a->state;

        log_debug("agent: %s: %s", a->address.sun_path, error->message);
        a->io = sd_event_source_disable_unref(a->io);
        a->fd = close_fd(a->fd);
        line_reader_reset(&a->reader);
        a->reason = *error;
        timer_arm(a, retry_usec);

        agent_session_end(a, state, error);
        if (old != state)
                agent_announce(a);
}

static uint64_t back_off(uint64_t *usec, uint64_t max)
{
        uint64_t now = *usec;
        *usec = MIN(now * 2, max);
        return now;
}

void agent_back_off_reset(struct agent *a)
{
        a->absent_usec = a->limits.absent_min_usec;
        a->silent_usec = a->limits.silent_min_usec;
}

void agent_lost(struct agent *a, int r)
{
        struct error error;

        if (r == 0)
                error_set(&error, ERROR_AGENT_ABSENT, "QEMU closed the guest channel's socket %s",
                        a->address.sun_path);
        else
                error_set_errno(&error, ERROR_AGENT_ABSENT, r, "The guest channel's socket %s broke",
                        a->address.sun_path);
        connection_close(a, AGENT_ABSENT, back_off(&a->absent_usec, a->limits.absent_max_usec), &error);
}

void agent_misbehaved(struct agent *a, const char *why)
{
        struct error error;

        memset(a->hello_times, 0, sizeof(a->hello_times));
        error_set(&error, ERROR_AGENT_MISBEHAVED, "The guest's agent on %s misbehaved: %s",
                a->address.sun_path, why);
        connection_close(a, AGENT_MISBEHAVING, a->limits.shun_usec, &error);
}

void agent_garbage(struct agent *a, const char *why)
{
        a->counters.n_garbage++;
        log_debug("agent: %s: garbage: %s", a->address.sun_path, why);
        if (++a->n_bad_lines > AGENT_GARBAGE_MAX)
                agent_misbehaved(a, why);
}

/* Reading: one bounded read for a wake-up, and so many bytes in the long run */

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        struct agent *a = userdata;

        if (revents & EPOLLOUT)
                agent_queue_flush(a);
        if (!(revents & ~(uint32_t)EPOLLOUT))
                return 0;

        ssize_t n = line_reader_read(&a->reader, fd, AGENT_READ_MAX);
        if (n == -EAGAIN)
                return 0;
        if (n <= 0) {
                agent_lost(a, (int)n);
                return 0;
        }
        throttle_note(&a->throttle, (uint64_t)n + AGENT_WAKE_UP_BYTES);
        /* Every line may end the connection. A new one is never made in here, so this buffer is still its. */
        while (a->fd >= 0) {
                char *line;
                size_t length;

                int r = line_reader_next(&a->reader, &line, &length);
                if (r == 0)
                        break;
                if (r > 0)
                        agent_handle_line(a, line, length);
                else {
                        a->counters.n_oversized++;
                        agent_garbage(a, "it sends a line beyond the limit");
                }
        }
        line_reader_release(&a->reader);
        return 0;
}

/* The connection's beginning */

static int connection_open(struct agent *a)
{
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

        if (fd < 0)
                return -errno;
        /* On a unix socket this never waits: it succeeds, or EAGAIN says that the backlog is full. */
        if (connect(fd, (struct sockaddr *)&a->address, sizeof(a->address)) < 0)
                return -errno;
        int r = sd_event_add_io(a->event, &a->io, fd, EPOLLIN, on_io, a);
        if (r < 0)
                return r;
        sd_event_source_set_priority(a->io, IO_PRIORITY);
        a->fd = steal_fd(&fd);
        a->n_bad_lines = 0;
        agent_set_events(a);
        timer_arm(a, a->limits.hello_usec);
        return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct agent *a = userdata;
        enum agent_state old = a->state;
        struct error error;

        if (a->fd >= 0) {
                a->absent_usec = a->limits.absent_min_usec;
                error_set(&error, ERROR_AGENT_SILENT, "guestd has not spoken on %s", a->address.sun_path);
                connection_close(
                        a, AGENT_WAITING, back_off(&a->silent_usec, a->limits.silent_max_usec), &error);
                return 0;
        }
        if (!a->address.sun_path[0])
                return 0;
        int r = connection_open(a);
        if (r < 0) {
                error_set_errno(&a->reason, ERROR_AGENT_ABSENT, r,
                        "The guest channel's socket %s does not answer", a->address.sun_path);
                timer_arm(a, back_off(&a->absent_usec, a->limits.absent_max_usec));
        }
        a->state = r < 0 ? AGENT_ABSENT : AGENT_WAITING;
        if (a->state != old)
                agent_announce(a);
        return 0;
}

void agent_set_port_open(struct agent *a, bool open)
{
        struct error error;

        if (open) {
                /* In a pause the connection is made soon; a connection has its full time for the hello. */
                if (a->state == AGENT_WAITING) {
                        agent_back_off_reset(a);
                        timer_arm(a, a->fd >= 0 ? a->limits.hello_usec : a->limits.silent_min_usec);
                }
                return;
        }
        if (a->state != AGENT_READY && a->state != AGENT_TOO_OLD)
                return;
        error_set(&error, ERROR_AGENT_RESTARTED,
                "The guest closed its channel: its agent ended or the guest restarts");
        timer_arm(a, a->limits.hello_usec);
        agent_session_end(a, AGENT_WAITING, &error);
        agent_announce(a);
}

/* The agent */

static void take_socket(struct agent *a, const char *socket)
{
        snprintf(a->address.sun_path, sizeof(a->address.sun_path), "%s", socket ?: "");
        if (socket)
                error_set(&a->reason, ERROR_AGENT_ABSENT, "The guest channel's socket %s was not tried yet",
                        socket);
        else
                error_set(&a->reason, ERROR_AGENT_ABSENT, "The guest does not run");
}

int agent_set_socket(struct agent *a, const char *socket)
{
        struct error error;

        if (strlen(socket ?: "") >= sizeof(a->address.sun_path))
                return -ENAMETOOLONG;
        if (strcmp(a->address.sun_path, socket ?: "") == 0)
                return 0;
        error_set(&error, ERROR_AGENT_ABSENT, "The guest ended, or was started anew");
        agent_back_off_reset(a);
        connection_close(a, AGENT_ABSENT, 0, &error);
        take_socket(a, socket);
        return 0;
}

static void agent_freep(struct agent **a)
{
        agent_free(*a);
}

int agent_new(sd_event *event, const char *socket, const struct agent_handlers *handlers, void *userdata,
        struct agent **ret)
{
        _cleanup_(agent_freep) struct agent *a = NULL;
        size_t length = socket ? strlen(socket) : 0;

        if (socket && length == 0)
                return -EINVAL;
        if (length >= sizeof(a->address.sun_path))
                return -ENAMETOOLONG;

        a = calloc(1, sizeof(*a));
        if (!a)
                return -ENOMEM;
        *a = (struct agent) {
                .event = sd_event_ref(event),
                .address.sun_family = AF_UNIX,
                .handlers = *handlers,
                .userdata = userdata,
                .limits = { AGENT_HELLO_USEC, ABSENT_MIN_USEC, ABSENT_MAX_USEC, SILENT_MIN_USEC,
                        SILENT_MAX_USEC, AGENT_SHUN_USEC },
                .hello.type = MESSAGE_TYPE_INVALID,
                .fd = -1,
        };
        a->calls_end = &a->calls;
        take_socket(a, socket);
        line_reader_init(&a->reader, PROTO_LINE_MAX, true);
        agent_back_off_reset(a);

        int r = sd_event_add_time_relative(event, &a->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY, on_timer, a);
        if (r < 0)
                return r;
        r = throttle_init(&a->throttle, event, AGENT_BYTES_BURST, AGENT_BYTES_PER_SEC, agent_set_events, a);
        if (r < 0)
                return r;
        *ret = steal_pointer(a);
        return 0;
}

struct agent *agent_free(struct agent *a)
{
        if (!a)
                return NULL;
        assert(a->in_callback == 0);

        while (a->calls)
                agent_call_free(a->calls);
        sd_event_source_disable_unref(a->io);
        sd_event_source_disable_unref(a->timer);
        throttle_done(&a->throttle);
        sd_event_unref(a->event);
        close_fd(a->fd);
        line_reader_done(&a->reader);
        message_done(&a->hello);
        write_queue_clear(&a->queue);
        free(a);
        return NULL;
}

enum agent_state agent_state(struct agent *a)
{
        return a->state;
}

const struct message_hello *agent_hello(struct agent *a)
{
        return a->hello.type == MESSAGE_HELLO ? &a->hello.hello : NULL;
}

void agent_explain(struct agent *a, struct error *ret_error)
{
        switch (a->state) {
        case AGENT_WAITING:
                error_set(ret_error, ERROR_AGENT_SILENT,
                        "guestd has not spoken on %s; is it installed and running in the guest?",
                        a->address.sun_path);
                break;
        case AGENT_READY:
                *ret_error = (struct error) { 0 };
                break;
        default: /* ABSENT, TOO_OLD, MISBEHAVING each left a sentence */
                *ret_error = a->reason;
        }
}

struct agent_counters agent_counters(struct agent *a)
{
        return a->counters;
}

void agent_set_limits(struct agent *a, const struct agent_limits *limits)
{
        a->limits = *limits;
        if (limits->bytes_per_sec > 0)
                budget_init(&a->throttle.budget, limits->bytes_burst, limits->bytes_per_sec,
                        now_monotonic_usec());
        agent_back_off_reset(a);
}

bool agent_is_paused(struct agent *a)
{
        return a->throttle.is_paused;
}

size_t agent_queued(struct agent *a)
{
        return write_queue_waiting(&a->queue);
}
