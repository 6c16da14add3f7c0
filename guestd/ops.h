/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "guestd/blocks.h"
#include "guestd/children.h"
#include "guestd/hooks.h"
#include "guestd/loop.h"
#include "guestd/monitor.h"
#include "guestd/sampler.h"
#include "guestd/worker.h"
#include "proto/message.h"

/* The host's requests: carries them out, one that changes something at a time, and answers each exactly once.
 */
struct ops;

/* How answers leave. reply: 0, or -errno of the encoder (-EMSGSIZE: too long, nothing was sent). */
struct ops_link {
        int (*reply)(uint64_t id, const struct message_reply *reply, void *userdata);
        void (*failure)(uint64_t id, const struct error *error, void *userdata);
        void (*progress)(uint64_t id, uint64_t done_bytes, uint64_t total_bytes, void *userdata);
        void (*event)(enum event_type event, void *userdata);
};

struct ops_config {
        int sys_fd, proc_fd;
        uint64_t margin_bytes;  /* 0: the default of memory_margin() */
        uint64_t grace_usec;    /* 0: OPS_GRACE_USEC */
        uint64_t settle_usec;   /* 0: OPS_SETTLE_USEC */
        uint64_t debounce_usec; /* 0: OPS_DEBOUNCE_USEC */
        uint64_t repay_usec;    /* 0: OPS_REPAY_USEC */
        bool may_mount;         /* see worker_config */
        block_write_t write;    /* NULL: the real one */
        setting_write_t write_setting;
        /* See settings_init(). */
        const char *state_path;
        struct hooks *hooks;     /* borrowed, and outlives the ops; NULL: none */
        struct sampler *sampler; /* likewise */
};

#define OPS_GRACE_USEC                                                                                       \
        10000000ULL /* the host is gone: blocks that we took offline for it stay so for this long */
#define OPS_SETTLE_USEC                                                                                      \
        100000ULL /* a new block is still offline: left to the kernel's auto_online for this long */
#define OPS_DEBOUNCE_USEC 200000ULL /* from a change of blocks to the event about it */
#define OPS_REPAY_USEC                                                                                       \
        1500000ULL /* huge pages grow back when nothing was asked for this long: a removal is many requests  \
                    */
#define OPS_RESERVE_USEC                                                                                     \
        1500000ULL /* of a deadline, kept for putting blocks back; at most a quarter of it                   \
                    */
#define OPS_SURVEY_MAX_USEC     2000000ULL /* for one SURVEY, whatever the host asks */
#define OPS_PUT_BACK_TRIES      3U
#define OPS_PUT_BACK_USEC       10000000ULL /* for one try */
#define OPS_PUT_BACK_PAUSE_USEC 200000ULL

/* blocks and monitor are borrowed and must outlive the ops; monitor may be NULL. */
int ops_new(struct loop *loop, struct blocks *blocks, struct monitor *monitor,
        const struct ops_config *config, const struct ops_link *link, void *userdata, struct ops **ret);
/* Ends at once: a worker is killed, nothing is put back. NULL is fine. */
struct ops *ops_free(struct ops *ops);

/* A session began or ended. At its end what PREPARE changed is restored, an operation under way is undone
 * without an answer, and blocks that wait for their device_del are put back after the grace. */
void ops_set_session(struct ops *ops, bool up);
/* m is a REQUEST of this session, borrowed. */
void ops_request(struct ops *ops, const struct message *m);

/* The monitor's word. */
void ops_on_block(struct ops *ops, uint32_t number, enum block_state state);
void ops_on_overflow(struct ops *ops);

/* Whether an operation is still being carried out, or undone. */
bool ops_busy(struct ops *ops);
/* Whether blocks are still to go back online, now or when the grace is over, or what PREPARE changed is to be
 * restored, or hooks are being run. What they are still to be told is in a file, for the next guestd. */
bool ops_owes(struct ops *ops);
/* For tests. */
struct children *ops_children(struct ops *ops);
