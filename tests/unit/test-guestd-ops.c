/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The ops with a kernel of files: real workers, real kills; only the write of a block's state is ours. It
 * does what the kernel would do to the tree, or what the script for the block says, and logs the order. */

#include "test-guestd-tree.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "common/log.h"
#include "guestd/children.h"
#include "guestd/bell.h"
#include "guestd/ops.h"

#define BLOCK     (128 * MIB)
#define FIRST     32U
#define N_BLOCKS  8U
#define HANG      10000 /* as errnum: the write never returns */
#define WAIT_USEC (10 * USEC_PER_SEC)

/* In shared memory: the worker is another process. */
static struct script {
        struct {
                int offline_errnum, offline_times; /* for the next so many writes */
                int online_errnum, online_times;
        } block[64];
        _Atomic unsigned n_writes;
        struct {
                uint32_t block;
                char word[16];
        } writes[256];
} * script;

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

static int fake_write(int memory_fd, uint32_t block, const char *word)
{
        bool offline = strcmp(word, "offline") == 0;
        int *times = offline ? &script->block[block].offline_times : &script->block[block].online_times;
        int errnum = offline ? script->block[block].offline_errnum : script->block[block].online_errnum;
        char path[64];
        unsigned n = script->n_writes++;

        if (n < ARRAY_SIZE(script->writes)) {
                script->writes[n].block = block;
                snprintf(script->writes[n].word, sizeof(script->writes[n].word), "%.15s", word);
        }
        if (*times > 0) {
                --*times;
                if (errnum == HANG)
                        for (;;)
                                pause();
                return -errnum;
        }
        snprintf(path, sizeof(path), "memory%u/state", block);
        tree_write(memory_fd, path, offline ? "offline\n" : "online\n");
        snprintf(path, sizeof(path), "memory%u/valid_zones", block);
        tree_write(memory_fd, path,
                offline                              ? "Normal Movable\n"
                : strcmp(word, "online_kernel") == 0 ? "Normal\n"
                                                     : "Movable\n");
        return 0;
}

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

void monitor_pause(struct monitor *m)
{
        if (m)
                m->paused = true;
}

void monitor_drain(struct monitor *m)
{
        if (!m)
                return;
        for (size_t i = 0; i < m->n_held; i++)
                ops_on_block(m->env->ops, m->held[i].number, m->held[i].state);
        m->n_held = 0;
}

void monitor_resume(struct monitor *m)
{
        if (m && m->on_resume)
                m->on_resume(m);
        if (m)
                m->paused = false;
        monitor_drain(m);
}

static void uevent(struct monitor *m, uint32_t number, enum block_state state)
{
        if (!m->paused) {
                ops_on_block(m->env->ops, number, state);
                return;
        }
        assert_true(m->n_held < ARRAY_SIZE(m->held));
        m->held[m->n_held].number = number;
        m->held[m->n_held++].state = state;
}

/* In place of the bell. */
static struct bell {
        bool broken;
        enum block_state state;
        uint32_t blocks[BELL_BLOCKS_MAX];
        size_t n; /* 0: there is none */
        void (*on_ring)(uint32_t block, void *userdata);
        void *userdata;
} bell;

int bell_new(struct loop *loop, enum block_state state, const uint32_t *blocks, size_t n,
        void (*on_ring)(uint32_t block, void *userdata), void *userdata, struct bell **ret)
{
        assert_int_equal(bell.n, 0);
        assert_in_range(n, 1, BELL_BLOCKS_MAX);
        if (bell.broken)
                return -EPERM;
        bell = (struct bell) { .state = state, .n = n, .on_ring = on_ring, .userdata = userdata };
        memcpy(bell.blocks, blocks, n * sizeof(*blocks));
        *ret = &bell;
        return 0;
}

struct bell *bell_free(struct bell *b)
{
        if (b)
                *b = (struct bell) { 0 };
        return NULL;
}

static int on_reply(uint64_t id, const struct message_reply *reply, void *userdata)
{
        struct env *e = userdata;

        assert_true(reply->n_ranges <= ARRAY_SIZE(e->ranges));
        e->n_replies++;
        e->progress_done = 0;
        e->reply_id = id;
        e->reply = *reply;
        e->assistance = reply->assistance ? *reply->assistance : (struct assistance) { 0 };
        if (reply->n_ranges > 0)
                memcpy(e->ranges, reply->ranges, reply->n_ranges * sizeof(*reply->ranges));
        if (reply->n_failures > 0)
                memcpy(e->failures, reply->failures, reply->n_failures * sizeof(*reply->failures));
        return 0;
}

static void on_failure(uint64_t id, const struct error *error, void *userdata)
{
        struct env *e = userdata;

        e->n_failures++;
        e->failure_id = id;
        e->failure = *error;
}

static void on_progress(uint64_t id, uint64_t done_bytes, uint64_t total_bytes, void *userdata)
{
        struct env *e = userdata;

        assert_true(done_bytes > e->progress_done && done_bytes <= total_bytes);
        e->n_progress++;
        e->progress_done = done_bytes;
}

static void on_event(enum event_type event, void *userdata)
{
        struct env *e = userdata;

        e->n_events++;
}

static int setup(void **state)
{
        static const struct ops_link link = { on_reply, on_failure, on_progress, on_event };
        struct env *e = calloc(1, sizeof(*e));
        struct ops_config config = {
                .grace_usec = 20 * USEC_PER_MSEC,
                .settle_usec = 20 * USEC_PER_MSEC,
                .debounce_usec = 5 * USEC_PER_MSEC,
                .write = fake_write,
        };

        log_set_max_level(-1);
        script = mmap(NULL, sizeof(*script), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_true(script != MAP_FAILED);
        tree_init(&e->tree);
        tree_block(&e->tree, 0, "online\n", "none\n", 0);
        for (unsigned i = 0; i < N_BLOCKS; i++)
                tree_block(&e->tree, FIRST + i, "online\n", i < 2 ? "Normal\n" : "Movable\n", 0);
        config.sys_fd = e->tree.sys_fd;
        config.proc_fd = e->tree.proc_fd;
        assert_int_equal(loop_init(&e->loop), 0);
        assert_int_equal(blocks_open(&e->blocks, e->tree.sys_fd), 0);
        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &config, &link, e, &e->ops), 0);
        ops_set_session(e->ops, true);
        *state = e;
        return 0;
}

static int teardown(void **state)
{
        struct env *e = *state;

        ops_free(e->ops);
        assert_null(e->loop.timers);
        blocks_close(&e->blocks);
        loop_done(&e->loop);
        tree_done(&e->tree);
        free(e);
        munmap(script, sizeof(*script));
        return 0;
}

#define RUN_UNTIL(e, condition)                                                                              \
        do {                                                                                                 \
                uint64_t _until = now_monotonic_usec() + WAIT_USEC;                                          \
                while (!(condition)) {                                                                       \
                        assert_true(now_monotonic_usec() < _until);                                          \
                        assert_int_equal(loop_run_once(&(e)->loop, 1), 0);                                   \
                }                                                                                            \
        } while (0)

static void run_for(struct env *e, uint64_t msec)
{
        uint64_t until = now_monotonic_usec() + msec * USEC_PER_MSEC;

        while (now_monotonic_usec() < until)
                assert_int_equal(loop_run_once(&e->loop, 1), 0);
}

static void request(struct env *e, uint64_t id, enum op op, unsigned first, unsigned n,
        uint64_t deadline_msec, uint64_t attempt_msec)
{
        struct mem_range target = { first * BLOCK, n * BLOCK };
        struct message m = {
                .type = MESSAGE_REQUEST,
                .id = id,
                .request = { .op = op,
                        .targets = &target,
                        .n_targets = 1,
                        .zone = ZONE_MOVABLE,
                        .deadline_msec = deadline_msec,
                        .attempt_msec = attempt_msec },
        };

        ops_request(e->ops, &m);
}

static void request_targets(
        struct env *e, uint64_t id, enum op op, const struct mem_range *targets, size_t n_targets)
{
        struct message m = {
                .type = MESSAGE_REQUEST,
                .id = id,
                .request = { .op = op,
                        .targets = (struct mem_range *)targets,
                        .n_targets = n_targets,
                        .zone = ZONE_MOVABLE,
                        .deadline_msec = 5000 },
        };

        ops_request(e->ops, &m);
}

static void cancel(struct env *e, uint64_t id, uint64_t target_id)
{
        struct message m = {
                .type = MESSAGE_REQUEST, .id = id, .request = { .op = OP_CANCEL, .target_id = target_id }
        };

        ops_request(e->ops, &m);
}

static void prepare(struct env *e, uint64_t id, enum zone zone, uint64_t bytes)
{
        struct message m = { .type = MESSAGE_REQUEST,
                .id = id,
                .request = { .op = OP_PREPARE, .zone = zone, .bytes = bytes } };

        ops_request(e->ops, &m);
}

static void assert_block(struct env *e, unsigned number, enum block_state state, enum zone zone)
{
        assert_int_equal(sysfs_read_state(e->tree.memory_fd, number), state);
        if (state == BLOCK_ONLINE)
                assert_int_equal(sysfs_read_zone(e->tree.memory_fd, number), zone);
        assert_int_equal(blocks_state(&e->blocks, number), state);
}

/* Everything is as setup() left it. */
static void assert_untouched(struct env *e)
{
        for (unsigned i = 0; i < N_BLOCKS; i++)
                assert_block(e, FIRST + i, BLOCK_ONLINE, i < 2 ? ZONE_KERNEL : ZONE_MOVABLE);
}

static void assert_auto_online(struct env *e, const char *value)
{
        char text[AUTO_ONLINE_MAX];

        assert_int_equal(blocks_get_auto_online(&e->blocks, text), 0);
        assert_string_equal(text, value);
}

/* Whether grace periods are expedited. */
static void assert_hurry(struct env *e, bool hurry)
{
        char text[8];

        assert_true(sysfs_read(e->tree.sys_fd, "kernel/rcu_expedited", text, sizeof(text)) > 0);
        assert_string_equal(text, hurry ? "1" : "0");
}

static void assert_failure(struct env *e, size_t i, unsigned first, unsigned n, enum error_code code)
{
        assert_true(i < e->reply.n_failures);
        assert_int_equal(e->failures[i].start, first * BLOCK);
        assert_int_equal(e->failures[i].length, n * BLOCK);
        assert_int_equal(e->failures[i].error.code, code);
}

static void test_state_and_blocks(void **state)
{
        struct env *e = *state;

        request(e, 1, OP_GET_STATE, 0, 0, 0, 0);
        assert_int_equal(e->n_replies, 1);
        assert_true(e->reply.has_memory);
        assert_int_equal(e->reply.memory.total_bytes, 8 * GIB);
        assert_int_equal(e->reply.memory.online_blocks, 9);
        request(e, 2, OP_GET_BLOCKS, 0, 0, 0, 0);
        assert_int_equal(e->reply_id, 2);
        assert_int_equal(e->reply.n_ranges, 3);
        assert_false(e->reply.has_next);
}

static void test_prepare(void **state)
{
        struct env *e = *state;

        prepare(e, 1, ZONE_MOVABLE, 24 * GIB);
        assert_int_equal(e->reply_id, 1);
        assert_auto_online(e, "online_movable");
        assert_hurry(e, true);
        prepare(e, 2, ZONE_MOVABLE, 25 * GIB);
        assert_int_equal(e->failure_id, 2);
        assert_int_equal(e->failure.code, ERROR_ZONE_RATIO);
        assert_non_null(strstr(e->failure.message, "25600 MiB"));
        assert_auto_online(e, "online_movable");
        prepare(e, 3, ZONE_KERNEL, 25 * GIB);
        assert_int_equal(e->reply_id, 3);
        assert_auto_online(e, "online_kernel");
        /* What zones hold is looked at anew when a block has changed. */
        tree_zoneinfo(&e->tree, 8 * GIB, 24 * GIB);
        ops_on_block(e->ops, 50, BLOCK_OFFLINE);
        prepare(e, 3, ZONE_MOVABLE, GIB);
        assert_int_equal(e->failure_id, 3);
        assert_int_equal(e->failure.code, ERROR_ZONE_RATIO);
        tree_zoneinfo(&e->tree, 8 * GIB, 0);
        ops_on_block(e->ops, 50, BLOCK_ABSENT);
        /* What was there before the first of them comes back, once. */
        request(e, 4, OP_RELEASE, 0, 0, 0, 0);
        assert_int_equal(e->reply_id, 4);
        assert_auto_online(e, "offline");
        assert_hurry(e, false);
        tree_write(e->tree.memory_fd, "auto_online_blocks", "online\n");
        request(e, 5, OP_RELEASE, 0, 0, 0, 0);
        assert_auto_online(e, "online");

        prepare(e, 6, ZONE_MOVABLE, GIB);
        assert_auto_online(e, "online_movable");
        /* Not at once: the kernel may be bringing up what was plugged. */
        ops_set_session(e->ops, false);
        assert_auto_online(e, "online_movable");
        run_for(e, 40);
        assert_auto_online(e, "online");
        assert_hurry(e, false);
}

/* A host that comes back in time takes it over. */
static void test_prepare_taken_over(void **state)
{
        struct env *e = *state;

        prepare(e, 1, ZONE_MOVABLE, GIB);
        ops_set_session(e->ops, false);
        ops_set_session(e->ops, true);
        prepare(e, 1, ZONE_KERNEL, GIB);
        run_for(e, 40);
        assert_auto_online(e, "online_kernel");
        request(e, 2, OP_RELEASE, 0, 0, 0, 0);
        assert_auto_online(e, "offline");
}

/* Whatever is under way, and whatever is still to leave. */
static void test_released(void **state)
{
        struct env *e = *state;

        prepare(e, 1, ZONE_MOVABLE, GIB);
        request(e, 2, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        request(e, 3, OP_RELEASE, 0, 0, 0, 0);
        assert_int_equal(e->reply_id, 3);
        assert_auto_online(e, "offline");
        assert_hurry(e, true);
        RUN_UNTIL(e, e->reply_id == 2);
        assert_true(e->reply.complete);
        assert_hurry(e, true);
        e->ops = ops_free(e->ops);
        assert_hurry(e, false);
}

/* What is not ours is left alone, and a kernel without it works as well. */
static void test_hurry(void **state)
{
        struct env *e = *state;

        tree_write(e->tree.sys_fd, "kernel/rcu_expedited", "1\n");
        prepare(e, 1, ZONE_MOVABLE, GIB);
        request(e, 2, OP_RELEASE, 0, 0, 0, 0);
        assert_hurry(e, true);
        unlinkat(e->tree.sys_fd, "kernel/rcu_expedited", 0);
        prepare(e, 3, ZONE_MOVABLE, GIB);
        assert_int_equal(e->reply_id, 3);
        request(e, 4, OP_RELEASE, 0, 0, 0, 0);
        assert_int_equal(faccessat(e->tree.sys_fd, "kernel/rcu_expedited", F_OK, 0), -1);
}

/* Who has time does not have the whole guest's grace periods expedited. */
static void test_gentle(void **state)
{
        struct env *e = *state;
        struct mem_range target = { FIRST * BLOCK, BLOCK };
        struct message m = { .type = MESSAGE_REQUEST,
                .id = 1,
                .request = { .op = OP_OFFLINE,
                        .targets = &target,
                        .n_targets = 1,
                        .deadline_msec = 5000,
                        .attempt_msec = 1000,
                        .gentle = true } };

        ops_request(e->ops, &m);
        RUN_UNTIL(e, e->reply_id == 1);
        assert_true(e->reply.complete);
        assert_hurry(e, false);
        /* A block more, and the first one is still offline. */
        request(e, 2, OP_OFFLINE, FIRST + 1, 1, 5000, 1000);
        RUN_UNTIL(e, e->reply_id == 2);
        assert_hurry(e, true);
        request(e, 3, OP_GET_BLOCKS, 0, 0, 0, 0);
        assert_int_equal(blocks_state(&e->blocks, FIRST), BLOCK_OFFLINE);
}

static void test_prepare_survives_kill(void **state)
{
        static const struct ops_link link = { on_reply, on_failure, on_progress, on_event };
        struct env *e = *state;
        char path[128];
        struct ops_config config = { .sys_fd = e->tree.sys_fd,
                .proc_fd = e->tree.proc_fd,
                .state_path = path,
                .grace_usec = 20 * USEC_PER_MSEC };
        struct ops *next, *after;

        snprintf(path, sizeof(path), "%s/settings", e->tree.path);
        ops_free(e->ops);
        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &config, &link, e, &e->ops), 0);
        prepare(e, 1, ZONE_MOVABLE, GIB);
        assert_auto_online(e, "online_movable");
        assert_hurry(e, true);
        /* The next one finds what this one, killed now, would leave. */
        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &config, &link, e, &next), 0);
        assert_auto_online(e, "online_movable");
        run_for(e, 40);
        assert_auto_online(e, "offline");
        assert_hurry(e, false);
        assert_int_equal(access(path, F_OK), -1);
        /* What is no setting is not written anywhere. */
        tree_write(AT_FDCWD, path, "nonsense\nauto_online_blocks evil\nrcu_expedited\nrcu_expedited 7\n");
        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &config, &link, e, &after), 0);
        assert_auto_online(e, "offline");
        assert_hurry(e, false);
        assert_int_equal(access(path, F_OK), -1);
        ops_free(after);
        /* What cannot be remembered is not changed. */
        snprintf(path, sizeof(path), "%s/no/such/folder", e->tree.path);
        ops_free(e->ops);
        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &config, &link, e, &e->ops), 0);
        prepare(e, 2, ZONE_MOVABLE, GIB);
        assert_int_equal(e->failure_id, 2);
        assert_auto_online(e, "offline");
        assert_hurry(e, false);
        ops_free(next);
}

static void test_offline(void **state)
{
        struct env *e = *state;

        request(e, 7, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        assert_true(ops_busy(e->ops));
        request(e, 8, OP_OFFLINE, FIRST, 1, 5000, 1000);
        assert_int_equal(e->failure_id, 8);
        assert_int_equal(e->failure.code, ERROR_BUSY);
        request(e, 9, OP_GET_STATE, 0, 0, 0, 0);
        assert_int_equal(e->reply_id, 9);

        RUN_UNTIL(e, e->n_replies == 2);
        assert_int_equal(e->reply_id, 7);
        assert_true(e->reply.complete);
        assert_hurry(e, true); /* the device's removal is to follow */
        assert_int_equal(e->reply.n_ranges, 1);
        assert_int_equal(e->ranges[0].state, BLOCK_OFFLINE);
        assert_int_equal(e->ranges[0].length, N_BLOCKS * BLOCK);
        assert_int_equal(script->n_writes, N_BLOCKS);
        for (unsigned i = 0; i < N_BLOCKS; i++)
                assert_int_equal(script->writes[i].block, FIRST + N_BLOCKS - 1 - i);

        /* Again: nothing is to be done. */
        request(e, 10, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        assert_int_equal(e->reply_id, 10);
        assert_true(e->reply.complete);
        assert_int_equal(script->n_writes, N_BLOCKS);

        for (unsigned i = 0; i < N_BLOCKS; i++) {
                assert_hurry(e, true);
                ops_on_block(e->ops, FIRST + i, BLOCK_ABSENT);
        }
        assert_hurry(e, false);
}

static void test_offline_bad_targets(void **state)
{
        struct env *e = *state;
        struct mem_range target = { FIRST * BLOCK, BLOCK / 2 };
        struct message m = { .type = MESSAGE_REQUEST,
                .id = 3,
                .request = { .op = OP_OFFLINE, .targets = &target, .n_targets = 1, .deadline_msec = 100 } };

        ops_request(e->ops, &m);
        assert_int_equal(e->failure_id, 3);
        assert_int_equal(e->failure.code, ERROR_INVALID_ARGUMENT);

        /* A block that cannot go, and some that do not exist: said before anything is touched. */
        request(e, 4, OP_OFFLINE, 0, FIRST + 1, 5000, 1000);
        assert_int_equal(e->reply_id, 4);
        assert_false(e->reply.complete);
        assert_int_equal(e->reply.n_failures, 2);
        assert_failure(e, 0, 0, 1, ERROR_BLOCK_UNREMOVABLE);
        assert_failure(e, 1, 1, FIRST - 1, ERROR_BLOCK_MISSING);
        assert_int_equal(script->n_writes, 0);
        assert_false(ops_busy(e->ops));
}

static void test_offline_failures(void **state)
{
        static const struct {
                int errnum, times;
                enum error_code code; /* NONE: it works in the end */
        } cases[] = {
                { EBUSY, 1, ERROR_NONE },
                { EBUSY, 100, ERROR_BLOCK_BUSY },
                { ENOMEM, 1, ERROR_NO_HEADROOM },
                { EPERM, 1, ERROR_BLOCK_UNREMOVABLE },
                { EINVAL, 1, ERROR_BLOCK_FAILED },
                { EIO, 1, ERROR_BLOCK_FAILED },
                { ENODEV, 1, ERROR_BLOCK_MISSING },
        };
        struct env *e = *state;

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                memset(script, 0, sizeof(*script));
                script->block[FIRST + 3].offline_errnum = cases[i].errnum;
                script->block[FIRST + 3].offline_times = cases[i].times;
                request(e, i + 1, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
                RUN_UNTIL(e, e->n_replies == i + 1);
                if (cases[i].code == ERROR_NONE) {
                        assert_true(e->reply.complete);
                        request(e, 100, OP_ONLINE, FIRST + 2, N_BLOCKS - 2, 1000, 0);
                        RUN_UNTIL(e, e->reply_id == 100);
                        for (unsigned b = FIRST; b < FIRST + 2; b++) {
                                tree_block(&e->tree, b, "online\n", "Normal\n", 0);
                                ops_on_block(e->ops, b, BLOCK_ONLINE);
                        }
                        e->n_replies = (unsigned)i + 1;
                        continue;
                }
                assert_false(e->reply.complete);
                assert_int_equal(e->reply.n_failures, 1);
                assert_failure(e, 0, FIRST + 3, 1, cases[i].code);
                assert_untouched(e);
                /* It stopped there, and only what had gone was put back. */
                for (unsigned w = 0; w < script->n_writes; w++)
                        assert_true(script->writes[w].block >= FIRST + 3);
        }
        assert_int_equal(e->reply.n_ranges, 2);
        assert_int_equal(e->ranges[1].zone, ZONE_MOVABLE);
}

/* Three sets in one request: the highest two blocks, two below them, and the rest. */
static void request_sets(struct env *e, uint64_t id, uint64_t deadline_msec)
{
        struct mem_range targets[] = {
                { FIRST * BLOCK, 4 * BLOCK },
                { (FIRST + 4) * BLOCK, 2 * BLOCK },
                { (FIRST + 6) * BLOCK, 2 * BLOCK },
        };
        struct message m = { .type = MESSAGE_REQUEST,
                .id = id,
                .request = { .op = OP_OFFLINE,
                        .targets = targets,
                        .n_targets = ARRAY_SIZE(targets),
                        .deadline_msec = deadline_msec,
                        .attempt_msec = 60000,
                        .each = true } };

        ops_request(e->ops, &m);
}

static void assert_sets_offline(struct env *e, unsigned from)
{
        for (unsigned i = 0; i < N_BLOCKS; i++)
                assert_block(e, FIRST + i, i < from ? BLOCK_ONLINE : BLOCK_OFFLINE,
                        i < 2 ? ZONE_KERNEL : ZONE_MOVABLE);
}

static void test_sets(void **state)
{
        struct env *e = *state;

        request_sets(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        assert_sets_offline(e, 0);
        /* Nobody removes them: all come back. */
        ops_set_session(e->ops, false);
        RUN_UNTIL(e, blocks_state(&e->blocks, FIRST) == BLOCK_ONLINE && !ops_busy(e->ops));
        assert_untouched(e);
}

/* One that does not go ends it: what went before stays, and is the host's to remove. */
static void test_sets_failure(void **state)
{
        struct env *e = *state;

        script->block[FIRST + 4].offline_errnum = EIO;
        script->block[FIRST + 4].offline_times = 1;
        request_sets(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_false(e->reply.complete);
        assert_int_equal(e->reply.n_failures, 1);
        assert_failure(e, 0, FIRST + 4, 1, ERROR_BLOCK_FAILED);
        assert_sets_offline(e, 6);
        for (unsigned i = 0; i < script->n_writes; i++)
                assert_true(script->writes[i].block >= FIRST + 4);
        assert_hurry(e, true);
        ops_set_session(e->ops, false);
        RUN_UNTIL(e, blocks_state(&e->blocks, FIRST + 7) == BLOCK_ONLINE && !ops_busy(e->ops));
        assert_untouched(e);
}

/* Each needs room for itself, not for those that follow. */
static void test_sets_headroom(void **state)
{
        struct env *e = *state;

        tree_meminfo(&e->tree, 5000 * MIB, (2 * 128 + 101) * MIB);
        request_sets(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_failure(e, 0, FIRST + 3, 1, ERROR_NO_HEADROOM);
        assert_non_null(strstr(e->failures[0].error.message, "512 MiB are to go"));
        assert_sets_offline(e, 4);
}

static void test_sets_stopped(void **state)
{
        struct env *e = *state;

        script->block[FIRST + 4].offline_errnum = HANG;
        script->block[FIRST + 4].offline_times = 2;
        request_sets(e, 1, 60000);
        RUN_UNTIL(e, script->n_writes == 4);
        cancel(e, 2, 1);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_failure(e, 0, FIRST + 4, 1, ERROR_CANCELLED);
        assert_sets_offline(e, 6);

        /* The deadline is as good; the set that is offline already needs nothing. */
        script->block[FIRST + 4].offline_times = 1;
        request_sets(e, 3, 1200);
        RUN_UNTIL(e, e->n_replies == 3);
        assert_failure(e, 0, FIRST + 4, 1, ERROR_DEADLINE);
        assert_sets_offline(e, 6);

        /* Without a host that hears of it nothing is kept. */
        script->block[FIRST + 4].offline_times = 1;
        request_sets(e, 4, 60000);
        RUN_UNTIL(e, script->block[FIRST + 4].offline_times == 0);
        ops_set_session(e->ops, false);
        RUN_UNTIL(e, blocks_state(&e->blocks, FIRST + 7) == BLOCK_ONLINE && !ops_busy(e->ops));
        assert_untouched(e);
        assert_int_equal(e->n_replies, 3);
}

static void test_former_zones(void **state)
{
        struct env *e = *state;

        script->block[FIRST].offline_errnum = EIO;
        script->block[FIRST].offline_times = 1;
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_false(e->reply.complete);
        assert_untouched(e);
}

static void test_headroom(void **state)
{
        struct env *e = *state;

        /* Room for all blocks but the last one is not enough to begin: 1 % of 5000 MiB must remain. */
        uint64_t needed = N_BLOCKS * 128 + 50;
        char words[32];

        tree_meminfo(&e->tree, 5000 * MIB, needed * MIB);
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_failure(e, 0, FIRST + N_BLOCKS - 1, 1, ERROR_NO_HEADROOM);
        snprintf(words, sizeof(words), "%u MiB are available", (unsigned)needed);
        assert_non_null(strstr(e->failures[0].error.message, words));
        snprintf(words, sizeof(words), "%u MiB are to go", N_BLOCKS * 128U);
        assert_non_null(strstr(e->failures[0].error.message, words));
        assert_non_null(strstr(e->failures[0].error.message, "50 MiB must remain"));
        assert_int_equal(script->n_writes, 0);
        assert_untouched(e);

        tree_meminfo(&e->tree, 5000 * MIB, (needed + 1) * MIB);
        request(e, 2, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_true(e->reply.complete);
}

static void test_attempt_limit(void **state)
{
        struct env *e = *state;
        uint64_t began = now_monotonic_usec();

        script->block[FIRST + 4].offline_errnum = HANG;
        script->block[FIRST + 4].offline_times = 2; /* it is tried once more */
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 60000, 50);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(now_monotonic_usec() - began >= 200 * USEC_PER_MSEC);
        assert_int_equal(e->assistance.retries, 1);
        assert_false(e->reply.complete);
        assert_failure(e, 0, FIRST + 4, 1, ERROR_BLOCK_BUSY);
        assert_non_null(strstr(e->failures[0].error.message, "into its attempt"));
        assert_untouched(e);
        assert_hurry(e, false);
}

static void test_deadline(void **state)
{
        struct env *e = *state;
        uint64_t began = now_monotonic_usec();

        script->block[FIRST + 4].offline_errnum = HANG;
        script->block[FIRST + 4].offline_times = 1;
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 1200, 60000);
        RUN_UNTIL(e, e->n_replies == 1);
        /* A quarter is kept for putting back. */
        assert_true(now_monotonic_usec() - began >= 600 * USEC_PER_MSEC);
        assert_failure(e, 0, FIRST + 4, 1, ERROR_DEADLINE);
        assert_untouched(e);
        /* Three blocks went before it: that much was told, if 100 ms had passed. */
        assert_true(e->n_progress <= 3);
}

static void test_cancel(void **state)
{
        struct env *e = *state;

        cancel(e, 1, 99);
        assert_int_equal(e->reply_id, 1);
        script->block[FIRST].offline_errnum = HANG;
        script->block[FIRST].offline_times = 1;
        request(e, 2, OP_OFFLINE, FIRST, N_BLOCKS, 60000, 60000);
        RUN_UNTIL(e, script->n_writes == N_BLOCKS);
        cancel(e, 3, 2);
        assert_int_equal(e->reply_id, 3);
        assert_int_equal(e->reply.op, OP_CANCEL);
        cancel(e, 4, 2);
        RUN_UNTIL(e, e->reply_id == 2);
        assert_false(e->reply.complete);
        assert_failure(e, 0, FIRST, 1, ERROR_CANCELLED);
        assert_untouched(e);
        assert_int_equal(e->n_replies, 4);
}

static void test_session_loss(void **state)
{
        struct env *e = *state;

        script->block[FIRST].offline_errnum = HANG;
        script->block[FIRST].offline_times = 1;
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 60000, 60000);
        RUN_UNTIL(e, script->n_writes == N_BLOCKS);
        ops_set_session(e->ops, false);
        ops_set_session(e->ops, true);
        request(e, 1, OP_OFFLINE, FIRST, 1, 1000, 1000);
        assert_int_equal(e->failure.code, ERROR_BUSY);
        RUN_UNTIL(e, !ops_busy(e->ops));
        assert_untouched(e);
        assert_int_equal(e->n_replies, 0);
}

static void test_put_back_retries(void **state)
{
        struct env *e = *state;

        script->block[FIRST + 3].offline_errnum = EIO;
        script->block[FIRST + 3].offline_times = 1;
        script->block[FIRST + 5].online_errnum = ENOMEM;
        script->block[FIRST + 5].online_times = 2;
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_int_equal(e->reply.n_failures, 1);
        assert_untouched(e);

        /* And when it never works: said. */
        script->block[FIRST + 3].offline_times = 1;
        script->block[FIRST + 5].online_times = 100;
        request(e, 2, OP_OFFLINE, FIRST, N_BLOCKS, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_int_equal(e->reply.n_failures, 3);
        assert_failure(e, 1, FIRST + 5, 1, ERROR_NO_HEADROOM);
        assert_failure(e, 2, FIRST + 5, 1, ERROR_BLOCK_FAILED);
        assert_non_null(strstr(e->failures[2].error.message, "is left offline"));
        assert_int_equal(e->reply.n_ranges, 4);
}

static void test_put_back_hangs(void **state)
{
        struct env *e = *state;
        uint64_t began = now_monotonic_usec();

        script->block[FIRST + 3].offline_errnum = EIO;
        script->block[FIRST + 3].offline_times = 1;
        script->block[FIRST + 5].online_errnum = HANG;
        script->block[FIRST + 5].online_times = 1;
        request(e, 1, OP_OFFLINE, FIRST, N_BLOCKS, 200, 100);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(now_monotonic_usec() - began < USEC_PER_SEC);
        assert_false(e->reply.complete);
        assert_true(ops_busy(e->ops));
        request(e, 2, OP_OFFLINE, FIRST, N_BLOCKS, 200, 100);
        assert_int_equal(e->failure.code, ERROR_BUSY);
}

static void test_grace(void **state)
{
        struct env *e = *state;

        request(e, 1, OP_OFFLINE, FIRST, 4, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        /* A new session takes them over, by a request. */
        ops_set_session(e->ops, false);
        ops_set_session(e->ops, true);
        request(e, 2, OP_AWAIT_REMOVED, FIRST, 4, 30, 0);
        run_for(e, 60);
        assert_int_equal(e->n_replies, 2);
        assert_block(e, FIRST, BLOCK_OFFLINE, ZONE_UNKNOWN);
        /* One is removed, one is put online by somebody else. */
        tree_remove_block(&e->tree, FIRST + 3);
        ops_on_block(e->ops, FIRST + 3, BLOCK_ABSENT);
        tree_block(&e->tree, FIRST + 2, "online\n", "Normal\n", 0);
        ops_on_block(e->ops, FIRST + 2, BLOCK_ONLINE);
        ops_set_session(e->ops, false);
        assert_block(e, FIRST, BLOCK_OFFLINE, ZONE_UNKNOWN);
        script->n_writes = 0;
        RUN_UNTIL(e, !ops_busy(e->ops) && script->n_writes == 2);
        assert_block(e, FIRST, BLOCK_ONLINE, ZONE_KERNEL);
        assert_block(e, FIRST + 1, BLOCK_ONLINE, ZONE_KERNEL);
        assert_int_equal(e->n_replies, 2);
        script->n_writes = 0;
        run_for(e, 60);
        assert_int_equal(script->n_writes, 0);
}

/* The host is back and does not ask for them. */
static void test_grace_unclaimed(void **state)
{
        struct env *e = *state;

        request(e, 1, OP_OFFLINE, FIRST, 4, 5000, 1000);
        RUN_UNTIL(e, e->n_replies == 1);
        ops_set_session(e->ops, false);
        ops_set_session(e->ops, true);
        assert_true(ops_owes(e->ops));
        RUN_UNTIL(e, !ops_owes(e->ops));
        assert_untouched(e);
}

static void appear(struct env *e, unsigned number, const char *state, const char *zones)
{
        tree_block(&e->tree, number, state, zones, 0);
        ops_on_block(e->ops, number, BLOCK_OFFLINE);
}

static void test_online_by_kernel(void **state)
{
        struct env *e = *state;

        prepare(e, 1, ZONE_MOVABLE, 2 * BLOCK);
        request(e, 2, OP_ONLINE, 50, 2, 5000, 0);
        assert_true(ops_busy(e->ops));
        appear(e, 50, "online\n", "Movable\n");
        appear(e, 51, "online\n", "Movable\n");
        ops_on_block(e->ops, 50, BLOCK_ONLINE);
        assert_int_equal(e->n_replies, 1);
        /* The answer comes with the last event, and nothing was written. */
        ops_on_block(e->ops, 51, BLOCK_ONLINE);
        assert_int_equal(e->reply_id, 2);
        assert_true(e->reply.complete);
        assert_int_equal(e->reply.n_ranges, 1);
        assert_int_equal(e->ranges[0].zone, ZONE_MOVABLE);
        assert_int_equal(script->n_writes, 0);
        run_for(e, 20);
        assert_int_equal(e->n_events, 0);
}

static void test_online_by_worker(void **state)
{
        struct env *e = *state;

        request(e, 1, OP_ONLINE, 50, 3, 5000, 0);
        appear(e, 50, "offline\n", "Normal Movable\n");
        appear(e, 51, "offline\n", "Normal Movable\n");
        RUN_UNTIL(e, script->n_writes == 2);
        appear(e, 52, "offline\n", "Normal Movable\n");
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        for (unsigned i = 50; i < 53; i++)
                assert_block(e, i, BLOCK_ONLINE, ZONE_MOVABLE);
        assert_string_equal(script->writes[0].word, "online_movable");
}

static void test_online_raced(void **state)
{
        struct env *e = *state;

        /* Somebody was faster: EINVAL, and it is online. */
        tree_block(&e->tree, 50, "online\n", "Movable\n", 0);
        script->block[50].online_errnum = EINVAL;
        script->block[50].online_times = 100;
        ops_on_block(e->ops, 50, BLOCK_OFFLINE);
        request(e, 1, OP_ONLINE, 50, 1, 5000, 0);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
}

static void test_online_failures(void **state)
{
        struct env *e = *state;

        /* In another zone. */
        request(e, 1, OP_ONLINE, FIRST, N_BLOCKS, 1000, 0);
        assert_int_equal(e->reply_id, 1);
        assert_false(e->reply.complete);
        assert_failure(e, 0, FIRST, 2, ERROR_ZONE_MISMATCH);
        /* Never there. */
        request(e, 2, OP_ONLINE, 50, 2, 30, 0);
        RUN_UNTIL(e, e->reply_id == 2);
        assert_failure(e, 0, 50, 2, ERROR_BLOCK_MISSING);
        /* The kernel will not. */
        appear(e, 50, "offline\n", "Normal Movable\n");
        appear(e, 51, "offline\n", "Normal Movable\n");
        script->block[51].online_errnum = ENOMEM;
        script->block[51].online_times = 100;
        request(e, 3, OP_ONLINE, 50, 2, 5000, 0);
        RUN_UNTIL(e, e->reply_id == 3);
        assert_false(e->reply.complete);
        assert_int_equal(e->reply.n_failures, 1);
        assert_failure(e, 0, 51, 1, ERROR_NO_HEADROOM);
        assert_int_equal(e->reply.n_ranges, 2);
        /* It hangs. */
        script->block[51].online_errnum = HANG;
        request(e, 4, OP_ONLINE, 50, 2, 100, 0);
        RUN_UNTIL(e, e->reply_id == 4);
        assert_failure(e, 0, 51, 1, ERROR_DEADLINE);
        /* It is cancelled. */
        request(e, 5, OP_ONLINE, 50, 3, 60000, 0);
        run_for(e, 20);
        cancel(e, 6, 5);
        RUN_UNTIL(e, e->reply_id == 5);
        assert_failure(e, 0, 51, 2, ERROR_CANCELLED);
        assert_false(ops_busy(e->ops));
        /* Its session ends. */
        request(e, 7, OP_ONLINE, 50, 3, 60000, 0);
        ops_set_session(e->ops, false);
        assert_false(ops_busy(e->ops));
}

static void test_await_removed(void **state)
{
        struct env *e = *state;

        request(e, 1, OP_AWAIT_REMOVED, 60, 2, 1000, 0);
        assert_int_equal(e->reply_id, 1);
        assert_true(e->reply.complete);
        request(e, 2, OP_AWAIT_REMOVED, FIRST, 2, 5000, 0);
        ops_on_block(e->ops, FIRST, BLOCK_OFFLINE);
        ops_on_block(e->ops, FIRST + 1, BLOCK_OFFLINE);
        tree_remove_block(&e->tree, FIRST);
        tree_remove_block(&e->tree, FIRST + 1);
        ops_on_block(e->ops, FIRST, BLOCK_ABSENT);
        assert_int_equal(e->n_replies, 1);
        ops_on_block(e->ops, FIRST + 1, BLOCK_ABSENT);
        assert_int_equal(e->reply_id, 2);
        assert_true(e->reply.complete);
        assert_int_equal(e->ranges[0].state, BLOCK_ABSENT);

        request(e, 3, OP_AWAIT_REMOVED, FIRST + 2, 2, 20, 0);
        RUN_UNTIL(e, e->reply_id == 3);
        assert_failure(e, 0, FIRST + 2, 2, ERROR_DEADLINE);
        /* The events are lost. */
        request(e, 4, OP_AWAIT_REMOVED, FIRST + 2, 1, 5000, 0);
        tree_remove_block(&e->tree, FIRST + 2);
        ops_on_overflow(e->ops);
        assert_int_equal(e->reply_id, 4);
        assert_true(e->reply.complete);
        /* Even without a word of their loss, the deadline looks. */
        request(e, 5, OP_AWAIT_REMOVED, FIRST + 3, 1, 20, 0);
        tree_remove_block(&e->tree, FIRST + 3);
        RUN_UNTIL(e, e->reply_id == 5);
        assert_true(e->reply.complete);
}

static void test_events(void **state)
{
        struct env *e = *state;

        for (unsigned i = 0; i < 3; i++)
                appear(e, 50 + i, "offline\n", "Movable\n");
        RUN_UNTIL(e, e->n_events == 1);
        run_for(e, 20);
        assert_int_equal(e->n_events, 1);
        /* No news: none. */
        ops_on_block(e->ops, 50, BLOCK_OFFLINE);
        run_for(e, 20);
        assert_int_equal(e->n_events, 1);
        ops_set_session(e->ops, false);
        ops_on_block(e->ops, 51, BLOCK_ONLINE);
        run_for(e, 20);
        assert_int_equal(e->n_events, 1);
}

static void test_real_write(void **state)
{
        struct env *e = *state;
        char text[32];

        assert_int_equal(block_write_state(e->tree.memory_fd, FIRST, "offline"), 0);
        tree_read(e->tree.memory_fd, "memory32/state", text, sizeof(text));
        assert_int_equal(strncmp(text, "offline", 7), 0);
        assert_int_equal(block_write_state(e->tree.memory_fd, 77, "offline"), -ENOENT);
}

/* With a monitor, and with the real write. */
static void with_monitor(struct env *e, struct monitor *m, uint64_t debounce_usec)
{
        static const struct ops_link link = { on_reply, on_failure, on_progress, on_event };
        struct ops_config config = { .sys_fd = e->tree.sys_fd,
                .proc_fd = e->tree.proc_fd,
                .settle_usec = 20 * USEC_PER_MSEC,
                .debounce_usec = debounce_usec };

        ops_free(e->ops);
        *m = (struct monitor) { .env = e };
        assert_int_equal(ops_new(&e->loop, &e->blocks, m, &config, &link, e, &e->ops), 0);
        ops_set_session(e->ops, true);
}

static void first_block_appears(struct monitor *m)
{
        m->on_resume = NULL;
        tree_block(&m->env->tree, 50, "offline\n", "Normal Movable\n", 0);
        uevent(m, 50, BLOCK_OFFLINE);
}

/* A block that comes between the first look and the events that waited (pseries brings them one by one): the
 * request is not over before it has counted what it waits for. */
static void test_appears_while_listening(void **state)
{
        struct env *e = *state;
        struct monitor m;

        with_monitor(e, &m, USEC_PER_MSEC);
        prepare(e, 1, ZONE_MOVABLE, 2 * BLOCK);
        m.on_resume = first_block_appears;
        request(e, 2, OP_ONLINE, 50, 2, 5000, 0);
        assert_null(m.on_resume);
        assert_true(ops_busy(e->ops));
        assert_int_equal(e->reply_id, 1);
        for (unsigned b = 50; b < 52; b++) {
                tree_block(&e->tree, b, "online\n", "Movable\n", 0);
                uevent(&m, b, BLOCK_ONLINE);
        }
        RUN_UNTIL(e, e->reply_id == 2);
        assert_true(e->reply.complete);
        e->ops = ops_free(e->ops);
}

/* What it waits for is said by the bell, before the monitor has it. */
static void test_bell(void **state)
{
        static const struct mem_range devices[] = { { 50 * BLOCK, 2 * BLOCK }, { 52 * BLOCK, 2 * BLOCK } };
        struct env *e = *state;
        struct monitor m;

        with_monitor(e, &m, USEC_PER_MSEC);
        prepare(e, 1, ZONE_MOVABLE, 4 * BLOCK);
        request_targets(e, 2, OP_ONLINE, devices, 2);
        assert_true(m.paused);
        assert_int_equal(bell.state, BLOCK_ONLINE);
        assert_int_equal(bell.n, 1);
        assert_int_equal(bell.blocks[0], 53);
        for (unsigned b = 50; b < 54; b++) {
                tree_block(&e->tree, b, "online\n", "Movable\n", 0);
                uevent(&m, b, BLOCK_OFFLINE);
                if (b == 53)
                        bell.on_ring(b, bell.userdata);
                if (b < 53)
                        assert_int_equal(bell.n, 1);
                uevent(&m, b, BLOCK_ONLINE);
                /* Another request meanwhile takes in what waits, and it counts. */
                if (b == 51) {
                        request(e, 9, OP_GET_BLOCKS, 0, 0, 0, 0);
                        assert_int_equal(e->reply_id, 9);
                        assert_int_equal(m.n_held, 0);
                }
        }
        assert_int_equal(e->reply_id, 2);
        assert_true(e->reply.complete);
        assert_int_equal(bell.n, 0);
        assert_false(m.paused);

        request_targets(e, 3, OP_AWAIT_REMOVED, devices, 2);
        assert_int_equal(bell.state, BLOCK_ABSENT);
        assert_int_equal(bell.n, 2);
        assert_int_equal(bell.blocks[0], 53);
        assert_int_equal(bell.blocks[1], 51);
        assert_true(m.paused);
        ops_set_session(e->ops, false);
        assert_int_equal(bell.n, 0);
        assert_false(m.paused);
        e->ops = ops_free(e->ops);
}

/* One that never rings, or that the kernel refuses. */
static void test_bell_silent(void **state)
{
        struct env *e = *state;
        struct monitor m;
        char text[32];

        for (unsigned broken = 0; broken < 2; broken++) {
                with_monitor(e, &m, USEC_PER_MSEC);
                bell.broken = broken;
                request(e, 1, OP_ONLINE, 50, 2, 5000, 0);
                assert_int_equal(m.paused, !broken);
                for (unsigned b = 50; b < 52; b++) {
                        tree_block(&e->tree, b, "online\n", "Movable\n", 0);
                        uevent(&m, b, BLOCK_OFFLINE);
                        uevent(&m, b, BLOCK_ONLINE);
                }
                RUN_UNTIL(e, e->reply_id == 1);
                assert_true(e->reply.complete);
                assert_false(m.paused);
                /* A block that the kernel does not bring up is not waited for in quiet. */
                request(e, 2, OP_ONLINE, 52, 1, 5000, 0);
                tree_block(&e->tree, 52, "offline\n", "Movable\n", 0);
                uevent(&m, 52, BLOCK_OFFLINE);
                RUN_UNTIL(e, !ops_busy(e->ops));
                tree_read(e->tree.memory_fd, "memory52/state", text, sizeof(text));
                assert_int_equal(strncmp(text, "online_movable", 14), 0);
                assert_int_equal(bell.n, 0);
                assert_false(m.paused);
                bell.broken = false;
                for (unsigned b = 50; b < 53; b++) {
                        tree_remove_block(&e->tree, b);
                        blocks_note(&e->blocks, b, BLOCK_ABSENT);
                }
                e->ops = ops_free(e->ops);
                e->reply_id = 0;
        }
}

static void test_quiet(void **state)
{
        enum { ONLINE, RELEASE, GET_BLOCKS, GET_STATE, OFFLINE, SESSION_END, FREE, N_ENDS };
        struct env *e = *state;
        struct monitor m;

        for (unsigned end = 0; end < N_ENDS; end++) {
                with_monitor(e, &m, USEC_PER_MSEC);
                e->n_replies = e->n_events = 0;
                prepare(e, 1, ZONE_MOVABLE, 2 * BLOCK);
                assert_true(m.paused);
                for (unsigned b = 50; b < 52; b++) {
                        tree_block(&e->tree, b, "online\n", "Movable\n", 0);
                        uevent(&m, b, BLOCK_OFFLINE);
                        uevent(&m, b, BLOCK_ONLINE);
                }
                /* One that has left again meanwhile. */
                uevent(&m, 53, BLOCK_OFFLINE);
                uevent(&m, 53, BLOCK_ABSENT);
                cancel(e, 2, 99);
                run_for(e, 5);
                assert_true(m.paused);
                assert_int_equal(m.n_held, 6);
                assert_int_equal(e->n_events, 0);
                assert_int_equal(blocks_state(&e->blocks, 50), BLOCK_ABSENT);

                if (end == ONLINE) {
                        request(e, 3, OP_ONLINE, 50, 2, 5000, 0);
                        assert_int_equal(e->reply_id, 3);
                        assert_true(e->reply.complete);
                        assert_int_equal(e->reply.n_ranges, 1);
                        assert_int_equal(e->ranges[0].zone, ZONE_MOVABLE);
                        request(e, 4, OP_ONLINE, 50, 3, 5000, 0);
                        assert_true(m.paused);
                        tree_block(&e->tree, 52, "online\n", "Movable\n", 0);
                        uevent(&m, 52, BLOCK_OFFLINE);
                        uevent(&m, 52, BLOCK_ONLINE);
                        RUN_UNTIL(e, e->reply_id == 4);
                        assert_int_equal(e->reply_id, 4);
                        assert_true(e->reply.complete);
                        tree_remove_block(&e->tree, 52);
                        uevent(&m, 52, BLOCK_ABSENT);
                } else if (end == SESSION_END)
                        ops_set_session(e->ops, false);
                else if (end == FREE)
                        e->ops = ops_free(e->ops);
                else {
                        request(e, 3,
                                end == RELEASE      ? OP_RELEASE
                                : end == GET_BLOCKS ? OP_GET_BLOCKS
                                : end == GET_STATE  ? OP_GET_STATE
                                                    : OP_OFFLINE,
                                50, 1, 5000, 1000);
                        RUN_UNTIL(e, e->reply_id == 3);
                }
                if (end == OFFLINE) {
                        /* Again, for the time of the device's removal. */
                        assert_true(m.paused);
                        request(e, 4, OP_GET_STATE, 0, 0, 0, 0);
                }
                if (end != FREE) {
                        assert_false(m.paused);
                        assert_int_equal(m.n_held, 0);
                }
                if (end == GET_BLOCKS) {
                        assert_int_equal(e->reply.n_ranges, 4);
                        assert_int_equal(e->ranges[3].start, 50 * BLOCK);
                        assert_int_equal(e->ranges[3].length, 2 * BLOCK);
                        assert_int_equal(e->ranges[3].state, BLOCK_ONLINE);
                }
                assert_block(e, 50, end == OFFLINE ? BLOCK_OFFLINE : BLOCK_ONLINE, ZONE_MOVABLE);
                assert_block(e, 51, BLOCK_ONLINE, ZONE_MOVABLE);
                assert_int_equal(blocks_state(&e->blocks, 53), BLOCK_ABSENT);

                for (unsigned b = 50; b < 52; b++) {
                        tree_remove_block(&e->tree, b);
                        blocks_note(&e->blocks, b, BLOCK_ABSENT);
                }
        }
}

/* Zombies count as children. */
static bool has_children(void)
{
        siginfo_t info;

        return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

static bool is_gone(pid_t pid)
{
        return kill(pid, 0) < 0 && errno == ESRCH;
}

static void walk(struct env *e, uint64_t id, enum op op, unsigned first, unsigned n)
{
        request(e, id, op, first, n, 5000, 1000);
        RUN_UNTIL(e, e->reply_id == id);
}

static void test_spare(void **state)
{
        struct env *e = *state;
        struct monitor m;

        assert_false(has_children());
        assert_int_equal(children_spare(ops_children(e->ops)), 0); /* not with a write of ours */
        with_monitor(e, &m, USEC_PER_MSEC);
        pid_t pid = children_spare(ops_children(e->ops));
        assert_true(pid > 0);
        /* One walk after the other. */
        for (unsigned i = 0; i < 4; i++) {
                walk(e, 10 + i, OP_OFFLINE, FIRST + 4, 3);
                assert_true(e->reply.complete);
                assert_int_equal(children_spare(ops_children(e->ops)), pid);
                for (unsigned b = FIRST + 4; b < FIRST + 7; b++) {
                        assert_block(e, b, BLOCK_OFFLINE, ZONE_UNKNOWN);
                        tree_block(&e->tree, b, "online\n", "Movable\n", 0);
                        uevent(&m, b, BLOCK_ONLINE);
                }
        }
        e->ops = ops_free(e->ops);
        assert_true(is_gone(pid));
        assert_false(has_children());
}

static void test_spare_killed(void **state)
{
        struct env *e = *state;
        struct monitor m;

        with_monitor(e, &m, USEC_PER_MSEC);
        pid_t pid = children_spare(ops_children(e->ops));
        /* Noticed, and reaped, while it waits. */
        kill(pid, SIGKILL);
        RUN_UNTIL(e, children_spare(ops_children(e->ops)) == 0);
        assert_true(is_gone(pid));
        assert_false(has_children());
        /* The next walk has a child of its own, and keeps it. */
        walk(e, 1, OP_OFFLINE, FIRST + 4, 2);
        assert_true(e->reply.complete);
        pid = children_spare(ops_children(e->ops));
        assert_true(pid > 0);
        /* Dead, and nobody has noticed yet. */
        siginfo_t info;
        kill(pid, SIGKILL);
        assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        walk(e, 2, OP_OFFLINE, FIRST + 6, 2);
        assert_true(e->reply.complete);
        assert_true(is_gone(pid));
        assert_true(children_spare(ops_children(e->ops)) > 0);
        e->ops = ops_free(e->ops);
        assert_false(has_children());
}

/* Its walk is killed: another waits for the next one. */
static void test_spare_replaced(void **state)
{
        struct env *e = *state;
        struct monitor m;

        with_monitor(e, &m, USEC_PER_MSEC);
        pid_t pid = children_spare(ops_children(e->ops));
        kill(pid, SIGSTOP);
        request(e, 1, OP_OFFLINE, FIRST + 4, 2, 5000, 1000);
        assert_int_equal(children_spare(ops_children(e->ops)), 0);
        cancel(e, 2, 1);
        RUN_UNTIL(e, e->reply_id == 1);
        assert_false(e->reply.complete);
        assert_failure(e, 0, FIRST + 5, 1, ERROR_CANCELLED);
        assert_true(is_gone(pid));
        pid_t next = children_spare(ops_children(e->ops));
        assert_true(next > 0 && next != pid);
        e->ops = ops_free(e->ops);
        assert_false(has_children());
}

/* Freed while its child walks: the child is reaped later, by its pid. */
static void test_abandoned(void **state)
{
        struct env *e = *state;
        struct children *c;
        struct child *child;
        struct worker_config config = { .memory_fd = e->tree.memory_fd,
                .proc_fd = e->tree.proc_fd,
                .block_bytes = BLOCK,
                .write = fake_write };
        struct work_item item = { FIRST + 4, ZONE_MOVABLE };
        struct worker_limits limits = { 0 };

        assert_int_equal(children_new(&e->loop, &config, &c), 0);
        children_keep_spare(c);
        assert_int_equal(children_spare(c), 0);
        script->block[FIRST + 4].offline_errnum = HANG;
        script->block[FIRST + 4].offline_times = 1;
        assert_int_equal(children_start(c, WORK_OFFLINE, &item, 1, &limits, &child), 0);
        pid_t pid = child->pid;
        RUN_UNTIL(e, script->n_writes == 1);
        assert_null(children_end(c, child, false));
        siginfo_t info;
        assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        assert_false(is_gone(pid));
        children_keep_spare(c);
        assert_true(is_gone(pid));
        children_free(c);
        assert_false(has_children());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_state_and_blocks),
                TEST(test_prepare),
                TEST(test_hurry),
                TEST(test_gentle),
                TEST(test_prepare_taken_over),
                TEST(test_released),
                TEST(test_prepare_survives_kill),
                TEST(test_offline),
                TEST(test_offline_bad_targets),
                TEST(test_offline_failures),
                TEST(test_sets),
                TEST(test_sets_failure),
                TEST(test_sets_headroom),
                TEST(test_sets_stopped),
                TEST(test_former_zones),
                TEST(test_headroom),
                TEST(test_attempt_limit),
                TEST(test_deadline),
                TEST(test_cancel),
                TEST(test_session_loss),
                TEST(test_put_back_retries),
                TEST(test_put_back_hangs),
                TEST(test_grace),
                TEST(test_grace_unclaimed),
                TEST(test_online_by_kernel),
                TEST(test_online_by_worker),
                TEST(test_online_raced),
                TEST(test_online_failures),
                TEST(test_await_removed),
                TEST(test_events),
                TEST(test_real_write),
                TEST(test_appears_while_listening),
                TEST(test_bell),
                TEST(test_bell_silent),
                TEST(test_quiet),
                TEST(test_spare),
                TEST(test_spare_killed),
                TEST(test_spare_replaced),
                TEST(test_abandoned),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
