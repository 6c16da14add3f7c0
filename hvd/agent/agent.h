/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "proto/message.h"

/* The host's end of one guest's channel: a stream socket served by QEMU's chardev. Keeps itself connected,
 * waits for the guest's hello and writes nothing before it (what is written to a closed port is buffered by
 * QEMU and delivered to whatever opens it later), welcomes it, and matches replies to requests. */
struct agent;
struct agent_call;

#define AGENT_HELLO_USEC                                                                                     \
        (5 * 1000000ULL) /* connected and no hello: reconnect (a second connection to a QEMU                 \
                          * chardev is accepted and never served) */
#define AGENT_CALLS_MAX 32U
#define AGENT_READ_MAX  (64U * 1024U) /* bytes read for one wake-up: others wait meanwhile */
/* What a guest may say at once and in the long run, as decoding it is what it can make hvd do; beyond that
 * its channel is not read, which holds up nobody but itself. A survey of a guest of 1 TiB in blocks of 128
 * MiB is 0.8 MiB. */
#define AGENT_BYTES_BURST   (1024U * 1024U)
#define AGENT_BYTES_PER_SEC (128U * 1024U)
#define AGENT_WAKE_UP_BYTES 256U /* what reading costs beside the bytes */
#define AGENT_GARBAGE_MAX                                                                                    \
        64U /* bad lines in a session before it is ended and the guest is shunned                            \
             * for AGENT_SHUN_USEC */
#define AGENT_SHUN_USEC (10 * 1000000ULL)
#define AGENT_QUEUE_MAX (1024U * 1024U) /* bytes waiting to be written */
/* Samples that come unasked: so many at once, and one more with each of these times; the rest is dropped, and
 * unread as far as it looks like one. */
#define AGENT_SAMPLES_MAX 8U
#define AGENT_SAMPLE_USEC (250 * 1000ULL)
/* Who has more than so many dropped within a second is shunned: more than a host that was stopped finds in
 * the channel's buffers. */
#define AGENT_SAMPLES_FLOOD 2048U

enum agent_state {
        AGENT_ABSENT,      /* no connection to the channel's socket */
        AGENT_WAITING,     /* connected, the guest has not spoken */
        AGENT_READY,       /* a session is open */
        AGENT_TOO_OLD,     /* the guest speaks only versions that we do not */
        AGENT_MISBEHAVING, /* garbage; shunned for a while */
        AGENT_STATE_MAX,
};
const char *agent_state_to_string(
        enum agent_state s); /* "absent" "waiting" "ready" "too-old" "misbehaving" */

struct agent_handlers {
        /* state changed. On READY, agent_hello() is valid and calls may be made, also from inside. When READY
         * is left (or a new hello replaces the session: READY -> READY is announced too) every pending call
         * has already completed with AGENT_RESTARTED, GUEST_RESET (another boot id), AGENT_ABSENT or
         * _MISBEHAVED. */
        void (*on_state)(struct agent *a, enum agent_state state, void *userdata);
        void (*on_event)(struct agent *a, enum event_type event, void *userdata);
        /* A sample that came unasked; borrowed. EVENT_SAMPLE is told here alone. */
        void (*on_sample)(struct agent *a, const struct guest_sample *sample, void *userdata);
};

/* reply is set when error is NULL; borrowed. A FAILURE from the guest arrives as error. AGENT_SILENT: no
 * reply within the timeout (the id is forgotten; a late reply is dropped and counted). Exactly once. */
typedef void (*agent_reply_t)(const struct message_reply *reply, const struct error *error, void *userdata);
typedef void (*agent_progress_t)(uint64_t done_bytes, uint64_t total_bytes, void *userdata);

/* socket NULL: none yet, see agent_set_socket(). */
int agent_new(sd_event *event, const char *socket, const struct agent_handlers *handlers, void *userdata,
        struct agent **ret);
/* Another socket from now on, or none (NULL): a session with the one before ends. The guest channel of
 * libvirt has another path at each start. -ENAMETOOLONG leaves it as it was. */
int agent_set_socket(struct agent *a, const char *socket);
struct agent *agent_free(struct agent *a); /* pending calls end without callbacks; NULL is fine */

enum agent_state agent_state(struct agent *a);
/* The last hello; valid once READY was reached (block_bytes, boot_id, arch, agent). NULL before. */
const struct message_hello *agent_hello(struct agent *a);
/* A sentence about why there is no session, for errors to operators. */
void agent_explain(struct agent *a, struct error *ret_error);

/* QEMU's word (VSERPORT_CHANGE, query-chardev) about the guest's end: on false the session ends now, since
 * the socket shows no end of file when a guest reboots. On true nothing happens but the hello is awaited
 * anew. */
void agent_set_port_open(struct agent *a, bool open);

/* Sends a request (borrowed: encoded at once). timeout_usec counts from now. -ENOTCONN without a session,
 * -EBUSY beyond AGENT_CALLS_MAX. The handle: as with qmp_call(); freeing it sends nothing to the guest.
 * ret_id receives the request's id, for OP_CANCEL. */
int agent_call(struct agent *a, const struct message_request *request, uint64_t timeout_usec,
        agent_reply_t on_reply, agent_progress_t on_progress, void *userdata, struct agent_call **ret_call,
        uint64_t *ret_id);
struct agent_call *agent_call_free(struct agent_call *call);

struct agent_counters {
        uint64_t n_hellos, n_garbage, n_oversized, n_stale, n_late_replies, n_samples_dropped;
};
struct agent_counters agent_counters(struct agent *a);
