/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"
#include "proto/message.h"

/* A request to a job's guest that outlives a restart of guestd: when the session breaks, or broke since the
 * job began, and the same boot speaks again in time, the request is sent again (every operation can be
 * repeated). AWAIT_REMOVED is sent to another boot as well, unless QEMU says that the guest was reset. */
struct guest_call;

/* reply is borrowed and set when error is NULL. Exactly once, unless freed before; never from inside start.
 */
typedef void (*guest_reply_t)(const struct message_reply *reply, const struct error *error, void *userdata);
typedef void (*guest_progress_t)(uint64_t done_bytes, void *userdata);

/* Sends the request (copied), to be answered by deadline_usec (CLOCK_MONOTONIC); where the operation has a
 * deadline the guest is given what is left of it. */
int guest_call_start(struct job *j, const struct message_request *request, uint64_t deadline_usec,
        guest_reply_t on_reply, guest_progress_t on_progress, void *userdata, struct guest_call **ret,
        struct error *ret_error);
/* Asks the guest to stop; it answers the request by itself. Without a session the call ends soon, with the
 * reason why there is none. */
void guest_call_stop(struct guest_call *c);
struct guest_call *guest_call_free(struct guest_call *c);
