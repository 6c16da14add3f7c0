/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Two ways to the program. Without a service manager it is our child, on a socket that keeps messages whole.
 * With one it is a service of its own, started when its FIFO is written to: so it is not confined as we are,
 * and needs no right of ours to be started. */

#include "hooks/client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "common/cleanup.h"

/* A child that was killed is reaped by then, unless the kernel keeps it. */
#define REAP_TRIES 100U

extern char **environ;

bool hooks_has_files(const char *folder)
{
        DIR *dir = opendir(folder);
        struct dirent *entry;
        bool any = false;

        while (dir && !any && (entry = readdir(dir)))
                any = entry->d_name[0] != '.';
        if (dir)
                closedir(dir);
        return any;
}

void hooks_client_init(struct hooks_client *c, const struct hooks_client_config *config)
{
        *c = (struct hooks_client) { .config = *config, .request_fd = -1, .answer_fd = -1 };
}

static int open_fifo(struct hooks_client *c)
{
        const char *answer = c->config.answer;

        if (answer && c->answer_fd < 0) {
                unlink(answer);
                if (mkfifo(answer, 0600) < 0)
                        return -errno;
                /* Our own end for writing keeps it from reading as ended. */
                c->answer_fd = open(answer, O_RDWR | O_NONBLOCK | O_CLOEXEC);
                if (c->answer_fd < 0)
                        return -errno;
        }
        c->request_fd = open(c->config.fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
        return c->request_fd < 0 ? -errno : 0;
}

static int spawn_on(struct hooks_client *c, int fd)
{
        char *argv[8] = { (char *)(c->config.program ?: HOOKS_PROGRAM) };
        size_t n = 1;
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t set;

        if (c->config.folder) {
                argv[n++] = (char *)"--folder";
                argv[n++] = (char *)c->config.folder;
        }
        if (c->config.state) {
                argv[n++] = (char *)"--state";
                argv[n++] = (char *)c->config.state;
        }
        if (c->config.host)
                argv[n++] = (char *)"--host";
        posix_spawn_file_actions_init(&actions);
        posix_spawnattr_init(&attributes);
        int r = posix_spawn_file_actions_adddup2(&actions, fd, STDIN_FILENO);
        sigemptyset(&set);
        posix_spawnattr_setsigmask(&attributes, &set);
        sigfillset(&set);
        posix_spawnattr_setsigdefault(&attributes, &set);
        posix_spawnattr_setflags(
                &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
        if (r == 0)
                r = posix_spawn(&c->pid, argv[0], &actions, &attributes, argv, environ);
        posix_spawn_file_actions_destroy(&actions);
        posix_spawnattr_destroy(&attributes);
        if (r != 0)
                c->pid = 0;
        return -r;
}

static int start(struct hooks_client *c)
{
        int fds[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
                return -errno;
        /* The child waits in read(); we do not. */
        int r = fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0 ? -errno : spawn_on(c, fds[1]);
        close_fd(fds[1]);
        if (r < 0) {
                close_fd(fds[0]);
                return r;
        }
        c->request_fd = c->answer_fd = fds[0];
        return 0;
}

int hooks_client_open(struct hooks_client *c)
{
        if (c->request_fd >= 0)
                return 0;
        int r = c->config.fifo ? open_fifo(c) : start(c);
        if (r < 0)
                hooks_client_close(c);
        return r;
}

int hooks_client_send(struct hooks_client *c, struct hooks_request *q)
{
        q->magic = HOOKS_MAGIC;
        q->size = sizeof(*q);
        ssize_t n = c->config.fifo ? write(c->request_fd, q, sizeof(*q))
                                   : send(c->request_fd, q, sizeof(*q), MSG_NOSIGNAL);
        return n < 0 ? -errno : n == (ssize_t)sizeof(*q) ? 0 : -EIO;
}

int hooks_client_receive(struct hooks_client *c, struct hooks_answer *ret)
{
        ssize_t n = read(c->answer_fd, ret, sizeof(*ret));

        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? -EAGAIN : 0;
        if (n == 0)
                return 0;
        if (n != (ssize_t)sizeof(*ret) || ret->magic != HOOKS_MAGIC || ret->size != sizeof(*ret) ||
                ret->n_results > HOOKS_RESULTS_MAX)
                return -EPROTO;
        for (size_t i = 0; i < ret->n_results; i++) {
                ret->results[i].name[PROTO_HOOK_NAME_MAX] = '\0';
                ret->results[i].message[PROTO_REASON_MAX] = '\0';
        }
        return 1;
}

void hooks_client_close(struct hooks_client *c)
{
        if (!c->config.fifo)
                c->answer_fd = -1;
        c->request_fd = close_fd(c->request_fd);
        /* It sees the end of its socket, kills the hook that runs, and ends. The host's goes on to the end of
         * what it has been told. */
        for (unsigned i = 0; c->pid > 0 && i < REAP_TRIES; i++) {
                struct timespec pause = { .tv_nsec = 1000000L };

                if (i == REAP_TRIES / 2 && !c->config.host)
                        kill(c->pid, SIGKILL);
                if (waitpid(c->pid, NULL, WNOHANG) != 0)
                        c->pid = 0;
                else
                        nanosleep(&pause, NULL);
        }
        c->pid = 0;
}

void hooks_client_done(struct hooks_client *c)
{
        hooks_client_close(c);
        if (c->answer_fd >= 0)
                unlink(c->config.answer);
        c->answer_fd = close_fd(c->answer_fd);
}
