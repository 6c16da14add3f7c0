/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * lab-agent runs in a lab guest and executes what lab-exec asks for, one command at a time.
 *
 * It outlives everything that tests do to a guest: hosts that come and go, callers that are killed in the
 * middle, commands that hang in the kernel, memory that runs out. A new request means that the former
 * caller has left (lab-exec holds a lock), so its command is ended and forgotten. What a finished command
 * left in the background lives on.
 *
 * The port is watched edge-triggered: with no host it is in hangup for as long as that lasts, and the
 * kernel wakes us once when a host connects.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "frame.h"

#define PORT_NAME "org.opendlpar.lab.0"
#define PORTS_DIR "/sys/class/virtio-ports"

enum { PIPE_SIZE = 64 * 1024, IDLE_MSEC = 2000 };

struct command {
        uint8_t id[FRAME_ID_SIZE];
        pid_t pid;     /* 0: none; kept after the exit, until all is told */
        int pipes[2];  /* stdout, stderr */
        size_t budget; /* after the exit: how much may still be read, as others may go on writing */
        bool exited;
        int code;
};

struct agent {
        int port, epoll, signals;
        uint8_t nonce[FRAME_ID_SIZE];
        struct frame_parser parser;
        struct command command;
        /* What waits to be written; while it is not empty no more output is read. */
        uint8_t out[FRAME_WIRE_MAX + 1024];
        size_t out_start, out_end;
};

static struct agent agent = { .port = -1, .command.pipes = { -1, -1 } };

static void die(const char *what)
{
        fprintf(stderr, "lab-agent: %s: %s\n", what, strerror(errno));
        exit(1);
}

static void oom_score_adjust(const char *value)
{
        int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

        if (fd < 0 || write(fd, value, strlen(value)) < 0)
                fprintf(stderr, "lab-agent: oom_score_adj: %s\n", strerror(errno));
        close(fd);
}

static int port_open(void)
{
        DIR *dir = opendir(PORTS_DIR);
        struct dirent *entry;
        int fd = -1;

        if (!dir)
                return -1;
        while (fd < 0 && (entry = readdir(dir))) {
                char path[512], name[64] = "";

                snprintf(path, sizeof(path), PORTS_DIR "/%s/name", entry->d_name);
                FILE *f = fopen(path, "re");
                if (!f)
                        continue;
                if (fgets(name, sizeof(name), f) && strcmp(name, PORT_NAME "\n") == 0) {
                        snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
                        fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
                }
                fclose(f);
        }
        closedir(dir);
        return fd;
}

static void agent_flush(struct agent *a)
{
        while (a->out_start < a->out_end) {
                ssize_t n = write(a->port, a->out + a->out_start, a->out_end - a->out_start);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return; /* full, or no host: the port's next edge calls again */
                a->out_start += (size_t)n;
        }
        a->out_start = a->out_end = 0;
}

static void agent_send(struct agent *a, enum frame_type type, const uint8_t *id, const void *data, size_t n)
{
        static uint8_t wire[FRAME_WIRE_MAX];
        size_t n_wire = frame_encode(wire, type, id, data, n);

        if (n_wire > sizeof(a->out) - a->out_end)
                return; /* only answers to pings of a host that does not read */
        memcpy(a->out + a->out_end, wire, n_wire);
        a->out_end += n_wire;
        agent_flush(a);
}

static void command_close_pipe(struct command *c, int i)
{
        if (c->pipes[i] >= 0)
                close(c->pipes[i]); /* this takes it out of the epoll set, too */
        c->pipes[i] = -1;
}

static void command_forget(struct command *c)
{
        command_close_pipe(c, 0);
        command_close_pipe(c, 1);
        memset(c->id, 0, sizeof(c->id));
        c->pid = 0;
}

static void command_abandon(struct command *c)
{
        if (c->pid > 0 && !c->exited)
                kill(-c->pid, SIGKILL);
        command_forget(c);
}

static void child_run(char **argv, int out, int err)
{
        sigset_t none;
        int null = open("/dev/null", O_RDONLY);

        setsid();
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_DFL);
        dup2(null, STDIN_FILENO);
        dup2(out, STDOUT_FILENO);
        dup2(err, STDERR_FILENO);
        if (null > STDERR_FILENO)
                close(null);

        oom_score_adjust("0");
        execvp(argv[0], argv);
        dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
        _exit(errno == ENOENT ? 127 : 126);
}

static void command_start(struct agent *a, const uint8_t *id, char *args, size_t n_args)
{
        struct command *c = &a->command;
        char *argv[4096];
        size_t argc = 0;
        int out[2] = { -1, -1 }, err[2] = { -1, -1 };

        command_abandon(c);
        memcpy(c->id, id, FRAME_ID_SIZE);
        c->exited = false;
        c->budget = (size_t)2 * PIPE_SIZE;

        for (size_t i = 0; i < n_args && argc < sizeof(argv) / sizeof(argv[0]) - 1; i += strlen(args + i) + 1)
                argv[argc++] = args + i;
        argv[argc] = NULL;

        if (argc > 0 && pipe2(out, O_CLOEXEC) >= 0 && pipe2(err, O_CLOEXEC) >= 0)
                c->pid = fork();
        else
                c->pid = -1;
        if (c->pid == 0)
                child_run(argv, out[1], err[1]);
        close(out[1]);
        close(err[1]);
        c->pipes[0] = out[0];
        c->pipes[1] = err[0];
        if (c->pid < 0) {
                static const char text[] = "lab-agent: cannot start a command\n";

                agent_send(a, FRAME_STDERR, id, text, sizeof(text) - 1);
                c->exited = true;
                c->code = 126;
                return;
        }
        for (int i = 0; i < 2; i++) {
                struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.fd = c->pipes[i] };

                fcntl(c->pipes[i], F_SETFL, O_NONBLOCK);
                epoll_ctl(a->epoll, EPOLL_CTL_ADD, c->pipes[i], &event);
        }
}

/* Passes on what a pipe holds, as far as the host takes it. Returns false if there may be more. */
static bool command_pump(struct agent *a, int i)
{
        static uint8_t buffer[FRAME_DATA_MAX / 2];
        struct command *c = &a->command;

        while (c->pipes[i] >= 0) {
                if (a->out_end > 0)
                        return false;
                ssize_t n = read(c->pipes[i], buffer, sizeof(buffer));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        return true;
                if (n <= 0) {
                        command_close_pipe(c, i);
                        return true;
                }
                agent_send(a, i == 0 ? FRAME_STDOUT : FRAME_STDERR, c->id, buffer, (size_t)n);
                if (c->exited) {
                        c->budget -= c->budget < (size_t)n ? c->budget : (size_t)n;
                        if (c->budget == 0)
                                command_close_pipe(c, i);
                }
        }
        return true;
}

static void agent_pump(struct agent *a)
{
        struct command *c = &a->command;

        agent_flush(a);
        if (c->pid == 0)
                return;
        bool empty = command_pump(a, 0);
        empty = command_pump(a, 1) && empty;
        if (c->exited && empty && a->out_end == 0) {
                agent_send(a, FRAME_EXIT, c->id, &(uint8_t) { (uint8_t)c->code }, 1);
                command_forget(c);
        }
}

static void agent_reap(struct agent *a)
{
        struct signalfd_siginfo info;
        int status;
        pid_t pid;

        while (read(a->signals, &info, sizeof(info)) > 0)
                ;
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
                if (pid != a->command.pid)
                        continue;
                a->command.exited = true;
                a->command.code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        }
}

static void agent_on_frame(struct agent *a)
{
        struct frame_parser *p = &a->parser;
        uint8_t id[FRAME_ID_SIZE], pong[2 * FRAME_ID_SIZE];

        memcpy(id, p->body + 1, FRAME_ID_SIZE);
        switch (p->body[0]) {
        case FRAME_PING:
                memcpy(pong, a->nonce, FRAME_ID_SIZE);
                memcpy(pong + FRAME_ID_SIZE, a->command.id, FRAME_ID_SIZE);
                agent_send(a, FRAME_PING, id, pong, sizeof(pong));
                break;
        case FRAME_RUN:
                if (p->n_body == FRAME_HEAD_SIZE || p->body[p->n_body - 1] != '\0')
                        break;
                a->out_start = a->out_end = 0; /* the rest of a frame for a caller who has left */
                command_start(a, id, (char *)p->body + FRAME_HEAD_SIZE, p->n_body - FRAME_HEAD_SIZE);
                break;
        case FRAME_KILL:
                if (frame_has_id(p, a->command.id))
                        command_abandon(&a->command);
                break;
        default:
                break;
        }
}

static void agent_read_port(struct agent *a)
{
        uint8_t buffer[4096];
        ssize_t n;

        while ((n = read(a->port, buffer, sizeof(buffer))) > 0 || (n < 0 && errno == EINTR))
                for (ssize_t i = 0; i < n; i++)
                        if (frame_parser_push(&a->parser, buffer[i]))
                                agent_on_frame(a);
}

static void agent_watch(struct agent *a, int fd, uint32_t events)
{
        struct epoll_event event = { .events = events | EPOLLET, .data.fd = fd };

        if (fd < 0 || epoll_ctl(a->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
                die("watching");
}

int main(void)
{
        struct agent *a = &agent;
        sigset_t mask;

        for (int tries = 0; (a->port = port_open()) < 0; tries++) {
                if (tries == 500)
                        die("no port " PORT_NAME);
                usleep(20000);
        }
        if (getrandom(a->nonce, sizeof(a->nonce), GRND_INSECURE) < 0) /* never waits, however early it is */
                die("getrandom");
        signal(SIGPIPE, SIG_IGN);
        sigemptyset(&mask);
        sigaddset(&mask, SIGCHLD);
        sigprocmask(SIG_BLOCK, &mask, NULL);
        a->signals = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
        a->epoll = epoll_create1(EPOLL_CLOEXEC);
        agent_watch(a, a->port, EPOLLIN | EPOLLOUT);
        agent_watch(a, a->signals, EPOLLIN);
        oom_score_adjust("-1000");
        mlockall(MCL_CURRENT |
                 MCL_FUTURE); /* tests starve the guest of memory; without it we are just slower */

        for (;;) {
                struct epoll_event event;

                if (epoll_wait(a->epoll, &event, 1, IDLE_MSEC) < 0 && errno != EINTR)
                        die("waiting");
                agent_reap(a);
                agent_read_port(a);
                agent_pump(a);
        }
}
