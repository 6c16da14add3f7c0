/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "test-guestd-tree.h"

#include "guestd/bell.h"
#include "guestd/ops.h"

/* The ops with a kernel of files: real workers, real kills; only the write of a block's state is ours. It
 * does what the kernel would do to the tree, or what the script for the block says, and logs the order. */

#define BLOCK     (128 * MIB)
#define FIRST     32U
#define N_BLOCKS  8U
#define HANG      10000 /* as errnum: the write never returns */
#define WAIT_USEC (10 * USEC_PER_SEC)

/* In shared memory: the worker is another process. */
struct script {
        struct {
                int offline_errnum, offline_times; /* for the next so many writes */
                int online_errnum, online_times;
        } block[64];
        _Atomic unsigned n_writes;
        struct {
                uint32_t block;
                char word[16];
        } writes[256];
};
extern struct script *script;
/* In place of the write to a block's state. */
int fake_write(int memory_fd, uint32_t block, const char *word);

struct env {
        struct tree tree;
        struct loop loop;
        struct blocks blocks;
        struct ops *ops;
        uint64_t reply_id, failure_id;
        struct message_reply reply;
        struct block_range ranges[64];
        struct block_failure failures[PROTO_FAILURES_MAX];
        struct error failure;
        struct assistance assistance; /* of the last reply */
        unsigned n_replies, n_failures, n_progress, n_events;
        uint64_t progress_done;
};

/* In place of the monitor: what a test reports while it is paused waits here. */
struct monitor {
        struct env *env;
        bool paused;
        struct {
                uint32_t number;
                enum block_state state;
        } held[16];
        size_t n_held;
        void (*on_resume)(struct monitor *m); /* what happens just before */
};

/* In place of the bell. */
extern struct bell {
        bool broken;
        enum block_state state;
        uint32_t blocks[BELL_BLOCKS_MAX];
        size_t n; /* 0: there is none */
        void (*on_ring)(uint32_t block, void *userdata);
        void *userdata;
} bell;

/* What the ops say goes to the env that is their userdata. */
extern const struct ops_link env_link;

int setup(void **state);
int teardown(void **state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* Targets in blocks, zone Movable. */
void request(struct env *e, uint64_t id, enum op op, unsigned first, unsigned n, uint64_t deadline_msec,
        uint64_t attempt_msec);
/* With 5 s of time. */
void request_targets(
        struct env *e, uint64_t id, enum op op, const struct mem_range *targets, size_t n_targets);
void cancel(struct env *e, uint64_t id, uint64_t target_id);
void prepare(struct env *e, uint64_t id, enum zone zone, uint64_t bytes);

/* A block that is offline at first, of which the monitor tells. */
void appear(struct env *e, unsigned number, const char *state, const char *zones);
/* The kernel's word to the monitor. */
void uevent(struct monitor *m, uint32_t number, enum block_state state);
/* The ops anew, with a monitor, and with the real write. */
void with_monitor(struct env *e, struct monitor *m, uint64_t debounce_usec);

void assert_block(struct env *e, unsigned number, enum block_state state, enum zone zone);
/* Everything is as setup() left it. */
void assert_untouched(struct env *e);
void assert_auto_online(struct env *e, const char *value);
/* Whether grace periods are expedited. */
void assert_hurry(struct env *e, bool hurry);
void assert_failure(struct env *e, size_t i, unsigned first, unsigned n, enum error_code code);
