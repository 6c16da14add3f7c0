/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * lab-exec runs a command in a lab guest by way of lab-agent and ends with its exit code.
 *
 * What is written to a port that the guest has not opened is kept and delivered when it does, so a
 * request goes out only after the agent has answered a ping: nobody wants yesterday's command to run in
 * a guest that has just booted. The pings go on while the command runs. An agent that answers with
 * another nonce, or that runs something else, has been restarted, and the command with it.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "client.h"
#include "frame.h"

enum { PING_MSEC = 1000 };

struct session {
        int fd;
        int64_t deadline_msec, ping_msec;
        uint8_t id[FRAME_ID_SIZE], nonce[FRAME_ID_SIZE];
        bool running;
        const uint8_t *args;
        size_t n_args;
        struct frame_parser parser;
        uint8_t out[2 * FRAME_WIRE_MAX];
        size_t n_out;
};

static struct session session;

static void session_queue(struct session *s, enum frame_type type, const void *data, size_t n)
{
        if (s->n_out > sizeof(s->out) - FRAME_WIRE_MAX)
                return; /* pings to a guest that does not listen */
        s->n_out += frame_encode(s->out + s->n_out, type, s->id, data, n);
}

static int session_flush(struct session *s)
{
        while (s->n_out > 0) {
                ssize_t n = write(s->fd, s->out, s->n_out);

                if (n < 0)
                        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
                s->n_out -= (size_t)n;
                memmove(s->out, s->out + n, s->n_out);
        }
        return 0;
}

static void write_all(int fd, const uint8_t *data, size_t n)
{
        while (n > 0) {
                ssize_t r = write(fd, data, n);

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0)
                        return; /* nobody reads it; the exit code still counts */
                data += r;
                n -= (size_t)r;
        }
}

/* Returns an exit code, or -1 to go on. */
static int session_on_pong(struct session *s, const uint8_t *data, size_t n)
{
        if (n != 2 * FRAME_ID_SIZE)
                return -1;
        if (!s->running) {
                memcpy(s->nonce, data, FRAME_ID_SIZE);
                s->running = true;
                session_queue(s, FRAME_RUN, s->args, s->n_args);
                return -1;
        }
        if (memcmp(s->nonce, data, FRAME_ID_SIZE) != 0) {
                fprintf(stderr, "lab-exec: the guest was restarted while the command ran\n");
                return EXIT_BROKEN;
        }
        return -1;
}

static int session_on_frame(struct session *s)
{
        const struct frame_parser *p = &s->parser;
        const uint8_t *data = p->body + FRAME_HEAD_SIZE;
        size_t n = p->n_body - FRAME_HEAD_SIZE;

        if (!frame_has_id(p, s->id))
                return -1;
        switch (p->body[0]) {
        case FRAME_PING:
                return session_on_pong(s, data, n);
        case FRAME_STDOUT:
                write_all(STDOUT_FILENO, data, n);
                return -1;
        case FRAME_STDERR:
                write_all(STDERR_FILENO, data, n);
                return -1;
        case FRAME_EXIT:
                return n == 1 ? data[0] : -1;
        default:
                return -1;
        }
}

/* Returns an exit code, or -1 to go on. */
static int session_read(struct session *s)
{
        static uint8_t buffer[65536];
        ssize_t n = read(s->fd, buffer, sizeof(buffer));

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return -1;
        if (n <= 0) {
                fprintf(stderr, "lab-exec: the guest has ended\n");
                return EXIT_BROKEN;
        }
        for (ssize_t i = 0; i < n; i++)
                if (frame_parser_push(&s->parser, buffer[i])) {
                        int code = session_on_frame(s);
                        if (code >= 0)
                                return code;
                }
        return -1;
}

static int session_run(struct session *s)
{
        for (;;) {
                int64_t now = client_now_msec();

                if (s->deadline_msec > 0 && now >= s->deadline_msec) {
                        fprintf(stderr, "lab-exec: %s within the time allowed\n",
                                s->running ? "the command did not end" : "the guest did not answer");
                        session_queue(s, FRAME_KILL, NULL, 0);
                        session_flush(s);
                        return EXIT_TIMEOUT;
                }
                if (now >= s->ping_msec) {
                        session_queue(s, FRAME_PING, NULL, 0);
                        s->ping_msec = now + PING_MSEC;
                }
                if (session_flush(s) < 0) {
                        fprintf(stderr, "lab-exec: the guest has ended\n");
                        return EXIT_BROKEN;
                }

                struct pollfd pfd = { .fd = s->fd, .events = POLLIN | (s->n_out > 0 ? POLLOUT : 0) };
                int wait = client_left_msec(s->ping_msec), left = client_left_msec(s->deadline_msec);
                if (poll(&pfd, 1, left >= 0 && left < wait ? left : wait) > 0 && pfd.revents & ~POLLOUT) {
                        int code = session_read(s);
                        if (code >= 0)
                                return code;
                }
        }
}

/* Joins the words as the agent wants them. Exits if they are too long for one frame. */
static void session_set_args(struct session *s, char **argv)
{
        static uint8_t args[FRAME_DATA_MAX];

        for (; *argv; argv++) {
                size_t n = strlen(*argv) + 1;

                if (n > sizeof(args) - s->n_args) {
                        fprintf(stderr, "lab-exec: a command of more than %zu bytes\n", sizeof(args));
                        exit(EXIT_BROKEN);
                }
                memcpy(args + s->n_args, *argv, n);
                s->n_args += n;
        }
        s->args = args;
}

int main(int argc, char **argv)
{
        struct session *s = &session;
        int r;

        if (argc < 5) {
                fprintf(stderr, "usage: lab-exec SOCKET LOCKFILE SECONDS COMMAND [ARGUMENT...]\n");
                return EXIT_BROKEN;
        }
        signal(SIGPIPE, SIG_IGN);
        s->deadline_msec = client_parse_deadline(argv[3]);
        session_set_args(s, argv + 4);
        if (getrandom(s->id, sizeof(s->id), 0) < 0)
                return EXIT_BROKEN;

        r = client_lock(argv[2], s->deadline_msec);
        if (r < 0) {
                fprintf(stderr, "lab-exec: waiting for other commands in this guest: %s\n", strerror(-r));
                return r == -ETIME ? EXIT_TIMEOUT : EXIT_BROKEN;
        }
        s->fd = client_connect(argv[1]);
        if (s->fd < 0) {
                fprintf(stderr, "lab-exec: the guest is not running: %s\n", strerror(-s->fd));
                return EXIT_BROKEN;
        }
        return session_run(s);
}
