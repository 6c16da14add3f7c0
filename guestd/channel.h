/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guestd/loop.h"
#include "proto/message.h"

/* The guest's end of the channel to hvd: keeps the port open, says hello whenever a host is there, and
 * carries messages while a session is open. Never blocks; costs no wake-up while nothing happens, with a host
 * or without. */
struct channel;

#define CHANNEL_READ_MAX    (64U * 1024U)  /* bytes read for one wake-up */
#define CHANNEL_QUEUE_MAX   (256U * 1024U) /* bytes waiting to be written; nothing is read while any wait */
#define CHANNEL_GARBAGE_MAX 64U            /* bad lines in a session before it is ended */

struct channel_handlers {
        /* A session began (after its end was announced, if there was one before) or ended. */
        void (*on_session)(bool up, void *userdata);
        /* A request of this session; borrowed. */
        void (*on_request)(const struct message *m, void *userdata);
};

struct channel_times {
        uint64_t pause_usec;    /* after garbage */
        uint64_t refused_usec;  /* after a refusal */
        uint64_t port_usec;     /* between two looks for a port that is not there */
        uint64_t hello_usec[3]; /* from one hello to the next, while no answer comes */
};
extern const struct channel_times channel_default_times;

/* hello is copied but for its capabilities, which are borrowed; its nonce is replaced. path: see port_open();
 * borrowed. times: NULL for the default. No callback comes from inside. */
int channel_new(struct loop *loop, int sys_fd, const char *path, const struct message_hello *hello,
        const struct channel_times *times, const struct channel_handlers *handlers, void *userdata,
        struct channel **ret);
/* No callbacks. NULL is fine. */
struct channel *channel_free(struct channel *c);

/* Looks for the port if there is none: at the start, and when the monitor says that a port came. */
void channel_look(struct channel *c);
/* Uses this descriptor, which becomes the channel's, as a port. */
int channel_attach(struct channel *c, int fd);

/* Sends a message in the session (session and id are the caller's but for session, which is filled in).
 * Without a session it is dropped. droppable: not sent at all while something else waits. 0 (also when
 * dropped), or -errno of message_encode(). */
int channel_send(struct channel *c, struct message *m, bool droppable);
/* Sends the event, or once when the queue has drained. */
void channel_send_event(struct channel *c, enum event_type event);

/* Sends a sample. False: nothing was sent, as there is no session or something else waits to be written. */
bool channel_send_sample(struct channel *c, const struct guest_sample *s);

/* Whether there are hooks, as each hello and each event says; a change is told at once. */
void channel_set_hooks(struct channel *c, bool hooks);

bool channel_has_session(struct channel *c);

struct channel_counters {
        uint64_t n_hellos, n_sessions, n_garbage, n_stale, n_dropped;
};
const struct channel_counters *channel_counters(struct channel *c);
