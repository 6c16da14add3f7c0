/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "guestd-assist-fixture.h"

struct kernel *kernel;

static void hang(void)
{
        for (;;)
                pause();
}

void write_meminfo(void)
{
        char text[1024];

        snprintf(text, sizeof(text),
                "MemTotal: %" PRIu64 " kB\nMemFree: %" PRIu64 " kB\nMemAvailable: %" PRIu64
                " kB\nInactive(file): %" PRIu64 " kB\nSwapFree: %" PRIu64 " kB\nHugetlb: %" PRIu64 " kB\n",
                5000 * MIB / 1024, kernel->free_bytes / 1024, kernel->available_bytes / 1024,
                kernel->inactive_bytes / 1024, kernel->swap_bytes / 1024, kernel->hugetlb_bytes / 1024);
        /* Whole or not at all: another process reads it. */
        tree_write(kernel->proc_fd, "meminfo.new", text);
        assert_int_equal(renameat(kernel->proc_fd, "meminfo.new", kernel->proc_fd, "meminfo"), 0);
}

static int fake_reclaim(const char *value)
{
        char swappiness[8];
        uint64_t bytes = strtoull(value, NULL, 10);

        if (kernel->reclaim_errnum == HANG)
                hang();
        if (strstr(value, "swappiness=0") && !kernel->knows_swappiness)
                return -EINVAL;
        kernel->n_reclaims++;
        tree_read(kernel->proc_fd, "sys/vm/swappiness", swappiness, sizeof(swappiness));
        if (!strstr(value, "swappiness=0") && kernel->swap_bytes > 0 && atoi(swappiness) != 0)
                kernel->n_swapping_reclaims++;
        if (kernel->reclaim_errnum)
                return -kernel->reclaim_errnum;
        bytes = MIN(bytes, kernel->inactive_bytes);
        kernel->inactive_bytes -= bytes;
        kernel->free_bytes += bytes;
        write_meminfo();
        return 0;
}

uint64_t pool_count(const char *file)
{
        char text[32], path[POOL_PATH_MAX];

        snprintf(path, sizeof(path), HUGE "/%s", file);
        tree_read(kernel->sys_fd, path, text, sizeof(text));
        return strtoull(text, NULL, 10);
}

static void set_pool(uint64_t n_pages, uint64_t n_free)
{
        char text[32];

        snprintf(text, sizeof(text), "%" PRIu64 "\n", n_pages);
        tree_write(kernel->sys_fd, HUGE "/nr_hugepages", text);
        snprintf(text, sizeof(text), "%" PRIu64 "\n", n_free);
        tree_write(kernel->sys_fd, HUGE "/free_hugepages", text);
        kernel->hugetlb_bytes = n_pages * 2 * MIB;
        write_meminfo();
}

static int fake_resize(uint64_t wanted)
{
        uint64_t n_pages = pool_count("nr_hugepages"), n_free = pool_count("free_hugepages");

        if (kernel->pools_are_stiff)
                return 0;
        if (kernel->pools_hang)
                hang();
        kernel->free_bytes += (n_pages - wanted) * 2 * MIB;
        kernel->available_bytes += (n_pages - wanted) * 2 * MIB;
        set_pool(wanted, n_free + wanted - n_pages);
        return 0;
}

static int fake_setting(int dir_fd, const char *path, const char *value)
{
        kernel->n_settings++;
        if (strcmp(path, "fs/cgroup/memory.reclaim") == 0)
                return fake_reclaim(value);
        if (strcmp(path, HUGE "/nr_hugepages") == 0)
                return fake_resize(strtoull(value, NULL, 10));
        assert_string_equal(path, "devices/system/node/node0/compact");
        if (kernel->compact_errnum == HANG)
                hang();
        kernel->n_compactions++;
        return -kernel->compact_errnum;
}

static int fake_write(int memory_fd, uint32_t block, const char *word)
{
        bool offline = strcmp(word, "offline") == 0;
        char path[64];

        if (offline && block == kernel->offline_block && kernel->offline_times > 0) {
                kernel->offline_times--;
                if (kernel->offline_errnum == HANG)
                        hang();
                return -kernel->offline_errnum;
        }
        kernel->n_offlines += offline;
        kernel->free_bytes -= offline ? BLOCK : -BLOCK;
        kernel->available_bytes -= offline ? BLOCK : -BLOCK;
        write_meminfo();
        snprintf(path, sizeof(path), "memory%u/state", block);
        tree_write(memory_fd, path, offline ? "offline\n" : "online\n");
        return 0;
}

static int on_reply(uint64_t id, const struct message_reply *reply, void *userdata)
{
        struct env *e = userdata;

        e->n_replies++;
        e->reply = *reply;
        e->assistance = reply->assistance ? *reply->assistance : (struct assistance) { 0 };
        e->first = reply->n_failures > 0 ? reply->failures[0].error : (struct error) { 0 };
        return 0;
}

static void on_failure(uint64_t id, const struct error *error, void *userdata)
{
        struct env *e = userdata;

        e->n_failures++;
        e->failure = *error;
}

static void on_progress(uint64_t id, uint64_t done_bytes, uint64_t total_bytes, void *userdata)
{
}

static void on_event(enum event_type event, void *userdata)
{
}

void monitor_pause(struct monitor *m)
{
}

void monitor_drain(struct monitor *m)
{
}

void monitor_resume(struct monitor *m)
{
}

void start_guestd(struct env *e)
{
        static const struct ops_link link = { on_reply, on_failure, on_progress, on_event };

        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &e->config, &link, e, &e->ops), 0);
        ops_set_session(e->ops, true);
}

void make_pool(struct env *e, uint64_t n_pages, uint64_t n_free)
{
        tree_mkdir(e->tree.sys_fd, HUGE);
        tree_mkdir(e->tree.sys_fd, "kernel/mm/hugepages/hugepages-2048kB");
        tree_write(e->tree.sys_fd, HUGE "/surplus_hugepages", "0\n");
        tree_write(e->tree.sys_fd, "kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "0\n");
        set_pool(n_pages, n_free);
}

int setup(void **state)
{
        struct env *e = calloc(1, sizeof(*e));

        log_set_max_level(-1);
        kernel = mmap(NULL, sizeof(*kernel), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        assert_true(kernel != MAP_FAILED);
        tree_init(&e->tree);
        kernel->proc_fd = e->tree.proc_fd;
        kernel->sys_fd = e->tree.sys_fd;
        kernel->free_bytes = kernel->available_bytes = 4000 * MIB;
        kernel->knows_swappiness = true;
        for (unsigned i = 0; i < N_BLOCKS; i++)
                tree_block(&e->tree, FIRST + i, "online\n", "Movable\n", 0);
        tree_mkdir(e->tree.proc_fd, "sys/vm");
        tree_write(e->tree.proc_fd, "sys/vm/swappiness", "60\n");
        tree_mkdir(e->tree.sys_fd, "fs/cgroup");
        tree_write(e->tree.sys_fd, "fs/cgroup/memory.reclaim", "");
        write_meminfo();
        snprintf(e->state_path, sizeof(e->state_path), "%s/settings", e->tree.path);
        e->config = (struct ops_config) {
                .sys_fd = e->tree.sys_fd,
                .proc_fd = e->tree.proc_fd,
                .repay_usec = 20 * USEC_PER_MSEC,
                .grace_usec = 20 * USEC_PER_MSEC,
                .write = fake_write,
                .write_setting = fake_setting,
                .state_path = e->state_path,
        };
        assert_int_equal(loop_init(&e->loop), 0);
        assert_int_equal(blocks_open(&e->blocks, e->tree.sys_fd), 0);
        start_guestd(e);
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
        munmap(kernel, sizeof(*kernel));
        free(e);
        return 0;
}

void offline(struct env *e, uint64_t id, uint64_t deadline_msec)
{
        struct mem_range target = { FIRST * BLOCK, SET };
        struct message m = {
                .type = MESSAGE_REQUEST,
                .id = id,
                .request = { .op = OP_OFFLINE,
                        .targets = &target,
                        .n_targets = 1,
                        .deadline_msec = deadline_msec,
                        .attempt_msec = 60000 },
        };

        ops_request(e->ops, &m);
}

void reclaim(struct env *e, uint64_t id, uint64_t bytes, uint64_t deadline_msec)
{
        struct message m = { .type = MESSAGE_REQUEST,
                .id = id,
                .request = { .op = OP_RECLAIM, .bytes = bytes, .deadline_msec = deadline_msec } };

        ops_request(e->ops, &m);
}

void cancel(struct env *e, uint64_t id, uint64_t target_id)
{
        struct message m = {
                .type = MESSAGE_REQUEST, .id = id, .request = { .op = OP_CANCEL, .target_id = target_id }
        };

        ops_request(e->ops, &m);
}

void fill_with_cache(void)
{
        kernel->free_bytes = 200 * MIB;
        kernel->inactive_bytes = 3000 * MIB;
        write_meminfo();
}

void assert_all(struct env *e, enum block_state state)
{
        for (unsigned i = 0; i < N_BLOCKS; i++)
                assert_int_equal(sysfs_read_state(e->tree.memory_fd, FIRST + i), state);
}

void assert_swappiness(struct env *e, const char *value)
{
        char text[16];

        assert_true(sysfs_read(e->tree.proc_fd, "sys/vm/swappiness", text, sizeof(text)) > 0);
        assert_string_equal(text, value);
}
