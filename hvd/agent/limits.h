/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The agent's times, for tests that cannot wait seconds. Nothing but tests/ includes this. */
struct agent;

struct agent_limits {
        uint64_t hello_usec;                       /* AGENT_HELLO_USEC */
        uint64_t absent_min_usec, absent_max_usec; /* back-off while the socket does not answer */
        uint64_t silent_min_usec, silent_max_usec; /* pause after a connection without a hello */
        uint64_t shun_usec;                        /* AGENT_SHUN_USEC */
        uint64_t bytes_burst, bytes_per_sec;       /* AGENT_BYTES_*; 0: as they are */
};

/* Takes effect with the next timer. */
void agent_set_limits(struct agent *a, const struct agent_limits *limits);
/* Whether its guest has said too much. */
bool agent_is_paused(struct agent *a);
/* Bytes that wait to be written. */
size_t agent_queued(struct agent *a);
