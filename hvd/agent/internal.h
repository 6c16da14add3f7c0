/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/un.h>

#include "common/lines.h"
#include "common/queue.h"
#include "hvd/agent/agent.h"
#include "hvd/agent/limits.h"
#include "hvd/throttle.h"

/* What agent.c (the connection and the states) and session.c (hellos, calls and answers) share. */

#define HELLOS_MAX 10U /* within HELLOS_USEC */

struct agent_call {
        struct agent *agent;
        struct agent_call *next, **link; /* link: what points at this call */
        uint64_t id;
        enum op op;
        sd_event_source *timer;
        agent_reply_t on_reply;
        agent_progress_t on_progress;
        void *userdata;
};

struct agent {
        sd_event *event;
        struct sockaddr_un address;
        struct agent_handlers handlers;
        void *userdata;
        struct agent_limits limits;

        enum agent_state state;
        struct error reason; /* of the last TOO_OLD, MISBEHAVING or ABSENT */
        int fd;
        sd_event_source *io, *timer;
        struct throttle throttle; /* the guest's: another connection may not say more */
        struct line_reader reader;
        struct write_queue queue;

        struct message hello; /* of the last session; type HELLO once there was one */
        char session[PROTO_TOKEN_LENGTH + 1];
        struct agent_call *calls, **calls_end; /* oldest first */
        unsigned n_calls;
        uint64_t last_id;

        uint64_t absent_usec, silent_usec; /* the next pauses */
        unsigned n_bad_lines;              /* of this connection */
        uint64_t hello_times[HELLOS_MAX];  /* a ring */
        unsigned next_hello_time;
        uint64_t samples_usec; /* when as many samples as ever may come at once again */
        uint64_t flood_usec;   /* since when n_flood were dropped */
        unsigned n_flood;
        unsigned in_callback;
        struct agent_counters counters;
};

/* agent.c */
void agent_announce(struct agent *a);
void agent_back_off_reset(struct agent *a);
/* Each ends the connection and every call, and announces the state. */
void agent_lost(struct agent *a, int r);
void agent_misbehaved(struct agent *a, const char *why);
/* Counts one bad line; the last straw is agent_misbehaved(). */
void agent_garbage(struct agent *a, const char *why);

/* session.c */
/* Ends the session, if there is one. The state is changed before the callbacks run, so that they cannot make
 * calls that nothing would complete. The caller announces it. */
void agent_session_end(struct agent *a, enum agent_state state, const struct error *error);
void agent_handle_line(struct agent *a, const char *line, size_t length);
/* What to wait for on the socket now. */
void agent_set_events(void *agent);
/* Writes what the socket takes; the rest at EPOLLOUT. */
void agent_queue_flush(struct agent *a);
