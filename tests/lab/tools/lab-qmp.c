/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * lab-qmp sends one command to a QEMU monitor and prints the reply: exit 0 for "return", 1 for "error".
 * Events that pass by are skipped. It is for tests and people; hvd has its own client and never uses this.
 */

#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"

#define LINE_MAX_BYTES ((size_t)64 * 1024 * 1024)

struct monitor {
        int fd;
        int64_t deadline_msec;
        char *buffer;
        size_t n_buffer, n_allocated, n_used; /* n_used: the line that was handed out last */
};

static void die(int code, const char *text)
{
        fprintf(stderr, "lab-qmp: %s\n", text);
        exit(code);
}

static void monitor_wait(struct monitor *m, short events)
{
        struct pollfd pfd = { .fd = m->fd, .events = events };
        int r = poll(&pfd, 1, client_left_msec(m->deadline_msec));

        if (r == 0)
                die(EXIT_TIMEOUT, "QEMU did not answer within the time allowed");
        if (r < 0 && errno != EINTR)
                die(EXIT_BROKEN, strerror(errno));
}

static void monitor_fill(struct monitor *m)
{
        if (m->n_allocated - m->n_buffer < 4096) {
                if (m->n_allocated >= LINE_MAX_BYTES)
                        die(EXIT_BROKEN, "a reply without end");
                m->n_allocated = m->n_allocated * 2 + 8192;
                m->buffer = realloc(m->buffer, m->n_allocated);
                if (!m->buffer)
                        die(EXIT_BROKEN, strerror(ENOMEM));
        }
        monitor_wait(m, POLLIN);
        ssize_t n = read(m->fd, m->buffer + m->n_buffer, m->n_allocated - m->n_buffer);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                die(EXIT_BROKEN, "QEMU closed the monitor");
        if (n > 0)
                m->n_buffer += (size_t)n;
}

/* Returns the next line, NUL-ended, without its end; it is valid until the next call. */
static char *monitor_read_line(struct monitor *m)
{
        char *end;

        if (m->n_used > 0) {
                m->n_buffer -= m->n_used;
                memmove(m->buffer, m->buffer + m->n_used, m->n_buffer);
                m->n_used = 0;
        }
        while (m->n_buffer == 0 || !(end = memchr(m->buffer, '\n', m->n_buffer)))
                monitor_fill(m);
        m->n_used = (size_t)(end - m->buffer) + 1;
        if (end > m->buffer && end[-1] == '\r')
                end--;
        *end = '\0';
        return m->buffer;
}

static void monitor_write(struct monitor *m, const char *text)
{
        size_t n = strlen(text);

        while (n > 0) {
                monitor_wait(m, POLLOUT);
                ssize_t r = write(m->fd, text, n);
                if (r < 0 && errno != EAGAIN && errno != EINTR)
                        die(EXIT_BROKEN, "QEMU closed the monitor");
                if (r > 0) {
                        text += r;
                        n -= (size_t)r;
                }
        }
}

/* Sends one command and returns its reply, which the caller puts away. */
static json_object *monitor_call(struct monitor *m, const char *command, const char **ret_line)
{
        monitor_write(m, command);
        monitor_write(m, "\n");
        for (;;) {
                char *line = monitor_read_line(m);
                json_object *reply = json_tokener_parse(line);

                if (!reply)
                        die(EXIT_BROKEN, "a reply that is not JSON");
                if (json_object_object_get_ex(reply, "return", NULL) ||
                        json_object_object_get_ex(reply, "error", NULL)) {
                        *ret_line = line;
                        return reply;
                }
                json_object_put(reply);
        }
}

int main(int argc, char **argv)
{
        struct monitor m = {};
        const char *line;

        if (argc != 5) {
                fprintf(stderr, "usage: lab-qmp SOCKET LOCKFILE SECONDS JSON\n");
                return 2;
        }
        signal(SIGPIPE, SIG_IGN);
        m.deadline_msec = client_parse_deadline(argv[3]);

        /* One line, whatever the caller's quoting made of it: a bare newline would not hurt, but half a
         * command would leave QEMU waiting for the rest of it. */
        json_object *command = json_tokener_parse(argv[4]);
        if (!json_object_is_type(command, json_type_object))
                die(2, "the command is not a JSON object, as in '{\"execute\":\"query-status\"}'");

        int r = client_lock(argv[2], m.deadline_msec);
        if (r < 0)
                die(r == -ETIME ? EXIT_TIMEOUT : EXIT_BROKEN, strerror(-r));
        m.fd = client_connect(argv[1]);
        if (m.fd < 0)
                die(EXIT_BROKEN, "the guest is not running");

        if (!strstr(monitor_read_line(&m), "\"QMP\""))
                die(EXIT_BROKEN, "this is not a QEMU monitor");
        json_object_put(monitor_call(&m, "{\"execute\":\"qmp_capabilities\"}", &line));

        json_object *reply =
                monitor_call(&m, json_object_to_json_string_ext(command, JSON_C_TO_STRING_PLAIN), &line);
        puts(line);
        bool failed = json_object_object_get_ex(reply, "error", NULL);
        json_object_put(reply);
        json_object_put(command);
        free(m.buffer);
        return failed ? 1 : 0;
}
