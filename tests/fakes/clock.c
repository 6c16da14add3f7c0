/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* For LD_PRELOAD: a CLOCK_REALTIME that is set while the program runs, by the file that OPENDLPAR_CLOCK
 * names, which has so many seconds more or less. CLOCK_MONOTONIC is the machine's, as it is when a real clock
 * is set: to set that would be felt by all that runs on the machine. (libfaketime moves timers of
 * CLOCK_MONOTONIC along: 0.9.10.) */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Leaves errno alone, as a clock does that can be read. */
static time_t offset(void)
{
        const char *path = getenv("OPENDLPAR_CLOCK");
        char text[32] = "";
        int saved = errno;
        int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

        if (fd >= 0 && read(fd, text, sizeof(text) - 1) < 0)
                text[0] = '\0';
        if (fd >= 0)
                close(fd);
        errno = saved;
        return strtol(text, NULL, 10);
}

int clock_gettime(clockid_t clock, struct timespec *ret)
{
        int r = (int)syscall(SYS_clock_gettime, clock, ret);

        if (r == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
                ret->tv_sec += offset();
        return r;
}

int gettimeofday(struct timeval *restrict ret, void *restrict zone)
{
        struct timespec now;
        int r = clock_gettime(CLOCK_REALTIME, &now);

        (void)zone;
        *ret = (struct timeval) { now.tv_sec, now.tv_nsec / 1000 };
        return r;
}

time_t time(time_t *ret)
{
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        if (ret)
                *ret = now.tv_sec;
        return now.tv_sec;
}
