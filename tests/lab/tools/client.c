/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int64_t client_now_msec(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int client_left_msec(int64_t deadline_msec)
{
        if (deadline_msec == 0)
                return -1;
        int64_t left = deadline_msec - client_now_msec();
        return left <= 0 ? 0 : left > 1000000 ? 1000000 : (int)left;
}

int64_t client_parse_deadline(const char *text)
{
        char *end;
        double seconds = strtod(text, &end);

        if (end == text || *end != '\0' || !(seconds >= 0 && seconds < 1e6)) {
                fprintf(stderr, "%s: not a number of seconds\n", text);
                exit(EXIT_BROKEN);
        }
        return seconds == 0 ? 0 : client_now_msec() + (int64_t)(seconds * 1000);
}

static void on_alarm(int signo)
{
}

int client_lock(const char *path, int64_t deadline_msec)
{
        struct sigaction action = { .sa_handler = on_alarm }; /* no SA_RESTART: it shall interrupt flock() */
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

        if (fd < 0)
                return -errno;
        sigaction(SIGALRM, &action, NULL);
        while (flock(fd, LOCK_EX | (deadline_msec ? LOCK_NB : 0)) < 0) {
                if (errno != EINTR && errno != EWOULDBLOCK)
                        return -errno;
                int left = client_left_msec(deadline_msec);
                if (left == 0)
                        return -ETIME;
                /* A repeating timer: an alarm that fires just before flock() sleeps is not the last one. */
                struct itimerval timer = {
                        .it_value = { .tv_sec = left / 1000, .tv_usec = left % 1000 * 1000 },
                        .it_interval = { .tv_usec = 100000 },
                };
                setitimer(ITIMER_REAL, &timer, NULL);
                int r = flock(fd, LOCK_EX) < 0 ? errno : 0;
                setitimer(ITIMER_REAL, &(struct itimerval) {}, NULL);
                if (r == 0)
                        break;
                if (r != EINTR)
                        return -r;
        }
        return 0;
}

int client_connect(const char *path)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        if (strlen(path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        strcpy(address.sun_path, path);

        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
                fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
                int r = -errno;
                close(fd);
                return r;
        }
        return fd;
}
