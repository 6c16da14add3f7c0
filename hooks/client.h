/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "hooks/hooks.h"

/* The other end of opendlpar-hooks: sends requests to it, starts it where no service manager does. Never
 * blocks for longer than starting a process takes. */

struct hooks_client_config {
        const char *folder;  /* NULL: the requests say it */
        const char *state;   /* NULL: none */
        const char *program; /* NULL: the installed one; unused with a FIFO */
        const char *fifo;    /* a service manager starts it when this is written to; NULL: we start it */
        const char *answer;  /* FIFO for the answers, made by us; needed with a FIFO in the guest */
        bool host;
};

struct hooks_client {
        struct hooks_client_config config; /* strings borrowed */
        int request_fd;                    /* -1: not open */
        int answer_fd; /* for reading; the same where we started it, and then its end is the program's */
        pid_t pid;     /* 0: not ours */
};

/* Whether there is anything in the folder that could be a hook; no folder: no. */
bool hooks_has_files(const char *folder);

void hooks_client_init(struct hooks_client *c, const struct hooks_client_config *config);
/* Opens or starts it, unless that was done. 0 or -errno. */
int hooks_client_open(struct hooks_client *c);
/* Sends a request, whose magic and size are filled in. 0 or -errno: -EAGAIN too many wait already, -EPIPE the
 * program is gone. */
int hooks_client_send(struct hooks_client *c, struct hooks_request *q);
/* Reads an answer, or the word that it is under way (begun): 1, 0 the program is gone, -EAGAIN, -EPROTO. */
int hooks_client_receive(struct hooks_client *c, struct hooks_answer *ret);
/* Ends what we started (its hooks end with it), and closes; a FIFO for answers stays, as a service may live
 * for a while. Not open is fine. */
void hooks_client_close(struct hooks_client *c);
/* The same for good. */
void hooks_client_done(struct hooks_client *c);
