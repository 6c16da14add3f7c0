/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The machine's two sockets, and the faults, which happen to what goes through them. */

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/fakes/machine-internal.h"

const char *machine_fault_to_string(enum machine_fault f)
{
        static const char *const names[MACHINE_FAULT_MAX] = {
                [MACHINE_ERROR] = "error",
                [MACHINE_LOST] = "lost",
                [MACHINE_SILENT] = "silent",
                [MACHINE_LATE] = "late",
                [MACHINE_CLOSE] = "close",
                [MACHINE_RESET] = "reset",
        };
        return names[f];
}

void machine_complain(struct machine *m, const char *format, ...)
{
        va_list ap;

        if (m->complaint[0])
                return;
        va_start(ap, format);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        vsnprintf(m->complaint, sizeof(m->complaint), format, ap);
#pragma GCC diagnostic pop
        va_end(ap);
}

static void end_write(struct machine_end *e, const char *data, size_t length)
{
        if (e->fd >= 0 && length > 0 &&
                send(e->fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT) < (ssize_t)length && errno == EAGAIN)
                machine_complain(e->machine, "hvd does not read %s", e->path);
}

static void end_close(struct machine_end *e)
{
        if (e->fd < 0)
                return;
        e->io = sd_event_source_disable_unref(e->io);
        e->timer = sd_event_source_disable_unref(e->timer);
        e->fd = close_fd(e->fd);
        e->held.length = 0;
        line_reader_reset(&e->reader);
        sd_event_source_set_enabled(e->listen_io, SD_EVENT_ON);
        if (e == &e->machine->channel)
                guest_session_end(e->machine);
}

void machine_send(struct machine_end *e, const char *data, size_t length)
{
        if (e->silent)
                return;
        if (e->timer)
                fake_output_bytes(&e->held, data, length);
        else
                end_write(e, data, length);
}

static void end_process(struct machine_end *e)
{
        char *line;
        size_t length;

        while (e->fd >= 0 && !e->timer && line_reader_next(&e->reader, &line, &length) > 0) {
                e->on_line(e->machine, line, length);
                e->silent = false;
                if (e->closes)
                        end_close(e);
                e->closes = false;
        }
}

/* What was held goes out, and what came meanwhile is seen to. */
static int on_held(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct machine_end *e = userdata;

        e->timer = sd_event_source_disable_unref(e->timer);
        end_write(e, e->held.data, e->held.length);
        e->held.length = 0;
        sd_event_source_set_enabled(e->io, SD_EVENT_ON);
        end_process(e);
        return 0;
}

bool machine_meets_fault(struct machine *m, struct machine_end *e, const char *name)
{
        struct machine_plan *p = m->plan;

        if (!p->armed || ++p->n != p->at)
                return false;
        snprintf(p->where, sizeof(p->where), "%s %s", e == &m->qmp ? "qmp" : "guest", name);
        switch (p->fault) {
        case MACHINE_LATE:
                if (sd_event_add_time_relative(
                            m->event, &e->timer, CLOCK_MONOTONIC, p->late_usec, 1, on_held, e) < 0)
                        abort();
                sd_event_source_set_enabled(e->io, SD_EVENT_OFF);
                break;
        case MACHINE_SILENT:
        case MACHINE_LOST:
                e->silent = true;
                break;
        case MACHINE_CLOSE:
                e->silent = e->closes = true;
                break;
        case MACHINE_RESET:
                m->resets = true;
                break;
        default:
                break;
        }
        return p->fault == MACHINE_ERROR || p->fault == MACHINE_LOST;
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        struct machine_end *e = userdata;

        for (;;) {
                ssize_t n = line_reader_read(&e->reader, fd, 65536);
                if (n == -EAGAIN)
                        break;
                if (n <= 0) {
                        end_close(e);
                        return 0;
                }
        }
        end_process(e);
        return 0;
}

static int on_connection(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        static const char greeting[] =
                "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "
                "\"package\": \"a machine\"}, \"capabilities\": [\"oob\"]}}\r\n";
        struct machine_end *e = userdata;

        e->fd = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (e->fd < 0)
                return 0;
        sd_event_source_set_enabled(e->listen_io, SD_EVENT_OFF);
        if (sd_event_add_io(e->machine->event, &e->io, e->fd, EPOLLIN, on_io, e) < 0)
                abort();
        if (e == &e->machine->qmp)
                end_write(e, greeting, strlen(greeting));
        else
                guest_hello(e->machine);
        return 0;
}

void machine_end_init(struct machine *m, struct machine_end *e, const char *path, size_t line_max,
        bool resync, void (*on_line)(struct machine *m, const char *line, size_t length))
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        e->machine = m;
        e->fd = -1;
        e->on_line = on_line;
        snprintf(e->path, sizeof(e->path), "%s", path);
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        line_reader_init(&e->reader, line_max, resync);
        e->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        unlink(path);
        if (e->listen_fd < 0 || bind(e->listen_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
                listen(e->listen_fd, 16) < 0 ||
                sd_event_add_io(m->event, &e->listen_io, e->listen_fd, EPOLLIN, on_connection, e) < 0)
                abort();
}

void machine_end_done(struct machine_end *e)
{
        end_close(e);
        sd_event_source_disable_unref(e->listen_io);
        close_fd(e->listen_fd);
        unlink(e->path);
        line_reader_done(&e->reader);
        free(e->held.data);
}
