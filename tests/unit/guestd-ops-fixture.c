/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "guestd-ops-fixture.h"

#include "common/log.h"

struct script *script;
struct bell bell;

int fake_write(int memory_fd, uint32_t block, const char *word)
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

/* In place of the monitor. */

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

void uevent(struct monitor *m, uint32_t number, enum block_state state)
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

const struct ops_link env_link = { on_reply, on_failure, on_progress, on_event };

int setup(void **state)
{
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
        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &config, &env_link, e, &e->ops), 0);
        ops_set_session(e->ops, true);
        *state = e;
        return 0;
}

int teardown(void **state)
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

void request(struct env *e, uint64_t id, enum op op, unsigned first, unsigned n, uint64_t deadline_msec,
        uint64_t attempt_msec)
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

void request_targets(
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

void cancel(struct env *e, uint64_t id, uint64_t target_id)
{
        struct message m = {
                .type = MESSAGE_REQUEST, .id = id, .request = { .op = OP_CANCEL, .target_id = target_id }
        };

        ops_request(e->ops, &m);
}

void prepare(struct env *e, uint64_t id, enum zone zone, uint64_t bytes)
{
        struct message m = { .type = MESSAGE_REQUEST,
                .id = id,
                .request = { .op = OP_PREPARE, .zone = zone, .bytes = bytes } };

        ops_request(e->ops, &m);
}

void assert_block(struct env *e, unsigned number, enum block_state state, enum zone zone)
{
        assert_int_equal(sysfs_read_state(e->tree.memory_fd, number), state);
        if (state == BLOCK_ONLINE)
                assert_int_equal(sysfs_read_zone(e->tree.memory_fd, number), zone);
        assert_int_equal(blocks_state(&e->blocks, number), state);
}

void assert_untouched(struct env *e)
{
        for (unsigned i = 0; i < N_BLOCKS; i++)
                assert_block(e, FIRST + i, BLOCK_ONLINE, i < 2 ? ZONE_KERNEL : ZONE_MOVABLE);
}

void assert_auto_online(struct env *e, const char *value)
{
        char text[AUTO_ONLINE_MAX];

        assert_int_equal(blocks_get_auto_online(&e->blocks, text), 0);
        assert_string_equal(text, value);
}

void assert_hurry(struct env *e, bool hurry)
{
        char text[8];

        assert_true(sysfs_read(e->tree.sys_fd, "kernel/rcu_expedited", text, sizeof(text)) > 0);
        assert_string_equal(text, hurry ? "1" : "0");
}

void assert_failure(struct env *e, size_t i, unsigned first, unsigned n, enum error_code code)
{
        assert_true(i < e->reply.n_failures);
        assert_int_equal(e->failures[i].start, first * BLOCK);
        assert_int_equal(e->failures[i].length, n * BLOCK);
        assert_int_equal(e->failures[i].error.code, code);
}

void appear(struct env *e, unsigned number, const char *state, const char *zones)
{
        tree_block(&e->tree, number, state, zones, 0);
        ops_on_block(e->ops, number, BLOCK_OFFLINE);
}

void with_monitor(struct env *e, struct monitor *m, uint64_t debounce_usec)
{
        struct ops_config config = { .sys_fd = e->tree.sys_fd,
                .proc_fd = e->tree.proc_fd,
                .settle_usec = 20 * USEC_PER_MSEC,
                .debounce_usec = debounce_usec };

        ops_free(e->ops);
        *m = (struct monitor) { .env = e };
        assert_int_equal(ops_new(&e->loop, &e->blocks, m, &config, &env_link, e, &e->ops), 0);
        ops_set_session(e->ops, true);
}
