/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hooks/hooks.h"

/* Carries out one request: runs the hooks of a folder, one by one. */

struct runner_config {
        const char *folder;
        const char *state; /* file of those whose PRE was run, until POST or UNDO; NULL: none is kept */
        int request_fd;    /* where a CANCEL may come from; its end of file ends the hooks */
        int answer_fd;     /* its reader's end ends the hooks too; -1: none */
        int child_fd;      /* a signalfd of SIGCHLD */
        bool tells_memory; /* in the guest: hooks are told of its memory */
};

/* false: whoever asked is gone. */
bool runner_run(
        const struct runner_config *config, const struct hooks_request *request, struct hooks_answer *ret);
/* Reads one request: 1, 0 for the end of file or a message that is none, -EAGAIN. */
int runner_receive(int fd, struct hooks_request *ret);
