/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "guestd/loop.h"
#include "proto/message.h"

/* Sends the host samples of the guest's memory, as it asked for them: see PROTOCOL.md, "sample". Costs no
 * wake-up while none are asked for. */
struct sampler;

/* A trigger of the kernel's that a poll for EPOLLPRI tells of: its descriptor, or -errno (-ENOENT: a kernel
 * without PSI). */
typedef int (*sampler_watch_t)(int proc_fd, uint64_t stall_usec, uint64_t window_usec);

struct sampler_config {
        int proc_fd;
        uint64_t margin_bytes; /* 0: the default of memory_margin() */
        uint64_t push_usec;    /* 0: SAMPLER_PUSH_USEC */
        uint64_t look_usec;    /* 0: SAMPLER_LOOK_USEC */
        sampler_watch_t watch; /* NULL: the kernel's */
};

#define SAMPLER_PUSH_USEC 200000ULL /* between two samples that are sent at once */
#define SAMPLER_LOOK_USEC 100000ULL /* between two looks at memory that dwindles */

/* Sends a sample, whose cause is set, if the channel is free; else says false, and is asked again later. */
typedef bool (*sampler_send_t)(const struct guest_sample *s, void *userdata);

int sampler_new(struct loop *loop, const struct sampler_config *config, sampler_send_t send, void *userdata,
        struct sampler **ret);
struct sampler *sampler_free(struct sampler *s); /* NULL is fine */

/* What the host asks for from now on, and a sample for its answer. 0 or -errno: then nothing has changed. */
int sampler_begin(struct sampler *s, const struct sampling *sampling, struct guest_sample *ret);
/* The session ended: nothing is asked for any more. */
void sampler_end(struct sampler *s);
