/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What lab-exec and lab-qmp share: a deadline, a lock, a connection. */

#include <stdint.h>

enum {
        EXIT_TIMEOUT = 124, /* as timeout(1) has it */
        EXIT_BROKEN = 125,  /* the tool or the guest failed, not the command */
};

/* Milliseconds on the monotonic clock. */
int64_t client_now_msec(void);

/* Milliseconds until deadline for poll(), -1 for a deadline of 0, which is never. */
int client_left_msec(int64_t deadline_msec);

/* Reads a number of seconds, with fraction; 0 means no deadline. Exits with EXIT_BROKEN on anything else. */
int64_t client_parse_deadline(const char *text);

/*
 * Waits until this process alone holds the lock file (made if absent) and keeps it until it ends.
 * Returns 0, -ETIME at the deadline, or -errno. Needs the process's SIGALRM.
 */
int client_lock(const char *path, int64_t deadline_msec);

/* Connects to a unix socket. Returns a non-blocking fd or -errno. */
int client_connect(const char *path);
