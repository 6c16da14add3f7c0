/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

#include "proto/message.h"

/* What guestd and hvd say to opendlpar-hooks, the program that runs hooks. Both come from one package and run
 * on one machine as one user: these are structs as they lie in memory, each written at once and no longer
 * than PIPE_BUF, so that a FIFO keeps them whole. */

#define HOOKS_MAGIC        0x4b4f4f48U
#define HOOKS_RESULTS_MAX  14U /* what fits; the last one says that there are more */
#define HOOKS_FILES_MAX    64U /* in one folder */
#define HOOKS_LIMIT_USEC   (10 * 1000000ULL)
#define HOOKS_GUEST_FOLDER "/etc/opendlpar/hooks.d"
#define HOOKS_HOST_FOLDER  "/etc/opendlpar/host-hooks.d"

enum hooks_kind {
        HOOKS_RUN,
        HOOKS_CANCEL, /* the request of this id, if it is the one under way */
};

struct hooks_request {
        uint32_t magic, size;
        uint64_t id;
        enum hooks_kind kind;
        struct hook_call call;
        uint64_t bytes;
        uint64_t limit_usec; /* of one hook */
        uint64_t total_usec; /* of all of them; 0: none */
        char partition[64];  /* on the host */
        char folder[256];    /* on the host: in place of the program's own */
};

struct hooks_result {
        char name[PROTO_HOOK_NAME_MAX + 1];
        enum error_code code;
        char message[PROTO_REASON_MAX + 1];
};

struct hooks_answer {
        uint32_t magic, size;
        uint64_t id;
        bool begun;              /* not the answer yet, only the word that somebody is at work on it */
        bool complete;           /* none refused or failed */
        enum error_code stopped; /* NONE, CANCELLED, DEADLINE: not all were run */
        uint32_t n_results;
        struct hooks_result results[HOOKS_RESULTS_MAX];
};

_Static_assert(sizeof(struct hooks_request) <= 4096 && sizeof(struct hooks_answer) <= 4096, "PIPE_BUF");
