/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What guestd does for blocks that do not go, with a kernel of files that reclaims, compacts and resizes
 * pools as the script says, or hangs. The children are real, and so are their kills. */

#include "test-guestd-tree.h"

#include <inttypes.h>
#include <linux/kernel-page-flags.h>
#include <time.h>

#include "common/log.h"
#include "guestd/ops-internal.h"

#define BLOCK     (128 * MIB)
#define FIRST     32U
#define N_BLOCKS  4U
#define SET       (N_BLOCKS * BLOCK)
#define MARGIN    (50 * MIB) /* 1 % of 5000 MiB */
#define HANG      10000
#define WAIT_USEC (10 * USEC_PER_SEC)
#define BIT(n)    (UINT64_C(1) << (n))
#define HUGE      "devices/system/node/node0/hugepages/hugepages-2048kB"
#define GIGANTIC  "devices/system/node/node0/hugepages/hugepages-1048576kB"

/* In shared memory: what the kernel has, does, and has seen. */
static struct kernel {
        int proc_fd, sys_fd;
        _Atomic uint64_t free_bytes, available_bytes, inactive_bytes, swap_bytes;
        _Atomic uint64_t hugetlb_bytes;
        int reclaim_errnum, compact_errnum, offline_errnum, offline_times;
        uint32_t offline_block;
        bool knows_swappiness, pools_are_stiff;
        _Atomic unsigned n_settings, n_reclaims, n_swapping_reclaims, n_compactions, n_offlines;
} * kernel;

struct env {
        struct tree tree;
        struct loop loop;
        struct blocks blocks;
        struct ops_config config;
        struct ops *ops;
        char state_path[80];
        struct message_reply reply;
        struct assistance assistance;
        struct error first; /* of the reply's failures */
        struct error failure;
        unsigned n_replies, n_failures;
};

static void hang(void)
{
        for (;;)
                pause();
}

static void write_meminfo(void)
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

static uint64_t pool_count(const char *file)
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

static void start_guestd(struct env *e)
{
        static const struct ops_link link = { on_reply, on_failure, on_progress, on_event };

        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &e->config, &link, e, &e->ops), 0);
        ops_set_session(e->ops, true);
}

static void make_pool(struct env *e, uint64_t n_pages, uint64_t n_free)
{
        tree_mkdir(e->tree.sys_fd, "devices/system/node/node0");
        tree_mkdir(e->tree.sys_fd, "devices/system/node/node0/hugepages");
        tree_mkdir(e->tree.sys_fd, HUGE);
        tree_mkdir(e->tree.sys_fd, "kernel/mm");
        tree_mkdir(e->tree.sys_fd, "kernel/mm/hugepages");
        tree_mkdir(e->tree.sys_fd, "kernel/mm/hugepages/hugepages-2048kB");
        tree_write(e->tree.sys_fd, HUGE "/surplus_hugepages", "0\n");
        tree_write(e->tree.sys_fd, "kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "0\n");
        set_pool(n_pages, n_free);
}

static int setup(void **state)
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
        tree_mkdir(e->tree.proc_fd, "sys");
        tree_mkdir(e->tree.proc_fd, "sys/vm");
        tree_write(e->tree.proc_fd, "sys/vm/swappiness", "60\n");
        tree_mkdir(e->tree.sys_fd, "fs");
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

static int teardown(void **state)
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

#define RUN_UNTIL(e, condition)                                                                              \
        do {                                                                                                 \
                uint64_t _until = now_monotonic_usec() + WAIT_USEC;                                          \
                while (!(condition)) {                                                                       \
                        assert_true(now_monotonic_usec() < _until);                                          \
                        assert_int_equal(loop_run_once(&(e)->loop, 10), 0);                                  \
                }                                                                                            \
        } while (0)

static void offline(struct env *e, uint64_t id, uint64_t deadline_msec)
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

static void reclaim(struct env *e, uint64_t id, uint64_t bytes, uint64_t deadline_msec)
{
        struct message m = { .type = MESSAGE_REQUEST,
                .id = id,
                .request = { .op = OP_RECLAIM, .bytes = bytes, .deadline_msec = deadline_msec } };

        ops_request(e->ops, &m);
}

static void cancel(struct env *e, uint64_t id, uint64_t target_id)
{
        struct message m = {
                .type = MESSAGE_REQUEST, .id = id, .request = { .op = OP_CANCEL, .target_id = target_id }
        };

        ops_request(e->ops, &m);
}

/* Little is free, and the rest of what is available is page cache. */
static void fill_with_cache(void)
{
        kernel->free_bytes = 200 * MIB;
        kernel->inactive_bytes = 3000 * MIB;
        write_meminfo();
}

static void assert_all(struct env *e, enum block_state state)
{
        for (unsigned i = 0; i < N_BLOCKS; i++)
                assert_int_equal(sysfs_read_state(e->tree.memory_fd, FIRST + i), state);
}

static void assert_swappiness(struct env *e, const char *value)
{
        char text[16];

        assert_true(sysfs_read(e->tree.proc_fd, "sys/vm/swappiness", text, sizeof(text)) > 0);
        assert_string_equal(text, value);
}

/* --- page cache --- */

static void test_idle(void **state)
{
        struct env *e = *state;

        kernel->inactive_bytes = 500 * MIB;
        write_meminfo();
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        assert_null(e->reply.assistance);
        assert_int_equal(kernel->n_settings, 0);
}

static void test_reclaim_before_a_set(void **state)
{
        struct env *e = *state;

        fill_with_cache();
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        assert_all(e, BLOCK_OFFLINE);
        assert_in_range(e->assistance.reclaimed_bytes, SET + MARGIN - 200 * MIB, SET + MARGIN);
        assert_int_equal(e->assistance.retries, 0);
}

/* The set goes all the same: the kernel moves its pages, and reclaims others for that. */
static void test_set_without_reclaim(void **state)
{
        static const int errnums[] = { EAGAIN, EIO, ENOENT };
        struct env *e = *state;

        for (unsigned i = 0; i < ARRAY_SIZE(errnums); i++) {
                fill_with_cache();
                kernel->available_bytes = 4000 * MIB;
                kernel->free_bytes = 200 * MIB + SET;
                write_meminfo();
                kernel->free_bytes = 200 * MIB;
                write_meminfo();
                kernel->reclaim_errnum = errnums[i];
                for (unsigned k = 0; k < N_BLOCKS; k++) {
                        tree_block(&e->tree, FIRST + k, "online\n", "Movable\n", 0);
                        blocks_refresh(&e->blocks, FIRST + k);
                }
                offline(e, i + 1, 5000);
                RUN_UNTIL(e, e->n_replies == i + 1);
                assert_true(e->reply.complete);
                assert_int_equal(e->assistance.reclaimed_bytes, 0);
        }
        assert_int_equal(unlinkat(e->tree.sys_fd, "fs/cgroup/memory.reclaim", 0), 0);
        reclaim(e, 9, SET, 1000);
        RUN_UNTIL(e, e->n_replies == ARRAY_SIZE(errnums) + 1);
        assert_null(e->reply.assistance);
}

static void test_reclaim(void **state)
{
        struct env *e = *state;

        fill_with_cache();
        reclaim(e, 1, 1000 * MIB, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_in_range(e->assistance.reclaimed_bytes, 800 * MIB + MARGIN, 1000 * MIB);
        assert_true(kernel->free_bytes >= 1000 * MIB + MARGIN);
        assert_int_equal(e->reply.n_failures, 0);

        /* Not for what cannot go: 600 MiB are available. */
        kernel->free_bytes = 500 * MIB;
        kernel->available_bytes = 600 * MIB;
        write_meminfo();
        reclaim(e, 3, 2000 * MIB, 5000);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_in_range(e->assistance.reclaimed_bytes, 100 * MIB, 100 * MIB);
        kernel->available_bytes = 4000 * MIB;
        kernel->free_bytes = 1200 * MIB;
        write_meminfo();

        /* And no more than there is need for. */
        unsigned n = kernel->n_reclaims;
        reclaim(e, 4, 1000 * MIB, 5000);
        RUN_UNTIL(e, e->n_replies == 3);
        assert_null(e->reply.assistance);
        assert_int_equal(kernel->n_reclaims, n);
}

static void test_swap_is_spared(void **state)
{
        struct env *e = *state;

        fill_with_cache();
        kernel->swap_bytes = GIB;
        write_meminfo();
        reclaim(e, 1, 500 * MIB, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->assistance.reclaimed_bytes >= 300 * MIB);
        assert_swappiness(e, "60");

        /* A kernel that takes no swappiness with the request has the guest's own set to 0 meanwhile. */
        kernel->knows_swappiness = false;
        reclaim(e, 2, 1000 * MIB, 5000);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_true(e->assistance.reclaimed_bytes >= 300 * MIB);
        assert_int_equal(kernel->n_swapping_reclaims, 0);
        assert_swappiness(e, "60");
        assert_int_equal(access(e->state_path, F_OK), -1);
}

static void test_reclaim_hangs(void **state)
{
        struct env *e = *state;
        uint64_t began = now_monotonic_usec();

        fill_with_cache();
        kernel->reclaim_errnum = HANG;
        reclaim(e, 1, SET, 60000);
        cancel(e, 2, 1);
        RUN_UNTIL(e, e->n_replies == 2);
        reclaim(e, 3, SET, 100);
        RUN_UNTIL(e, e->n_replies == 3);
        /* In a set it is not waited for either. */
        offline(e, 4, 60000);
        cancel(e, 5, 4);
        RUN_UNTIL(e, e->n_replies == 5);
        assert_all(e, BLOCK_ONLINE);
        offline(e, 6, 400);
        RUN_UNTIL(e, e->n_replies == 6);
        assert_true(now_monotonic_usec() - began < 2 * USEC_PER_SEC);
        assert_false(ops_busy(e->ops));

        /* The session's end ends it as well. */
        reclaim(e, 7, SET, 60000);
        ops_set_session(e->ops, false);
        RUN_UNTIL(e, !ops_busy(e->ops));
        assert_int_equal(e->n_replies, 6);
}

/* Killed while swappiness was 0. */
static void test_swappiness_comes_back(void **state)
{
        struct env *e = *state;

        ops_free(e->ops);
        tree_write(e->tree.proc_fd, "sys/vm/swappiness", "0\n");
        tree_write(
                AT_FDCWD, e->state_path, "swappiness 60\nswappiness 201\nswappiness x\nhugepages 0:2048\n");
        start_guestd(e);
        assert_swappiness(e, "60");
}

/* --- a busy block --- */

static void test_busy_for_a_while(void **state)
{
        struct env *e = *state;

        kernel->offline_block = FIRST + 1;
        kernel->offline_errnum = EBUSY;
        kernel->offline_times = 4; /* an attempt is three tries */
        offline(e, 1, 10000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        assert_int_equal(e->assistance.retries, 1);
        assert_int_equal(e->assistance.compactions, 0); /* no huge pages */
}

static void test_busy_for_good(void **state)
{
        struct env *e = *state;

        make_pool(e, 100, 0);
        kernel->offline_block = FIRST + 1;
        kernel->offline_errnum = EBUSY;
        kernel->offline_times = 100;
        offline(e, 1, 10000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_int_equal(e->first.code, ERROR_BLOCK_BUSY);
        assert_int_equal(kernel->offline_times, 94);
        assert_int_equal(e->assistance.retries, 1);
        assert_int_equal(e->assistance.compactions, 1);
        assert_int_equal(kernel->n_compactions, 1);
        assert_all(e, BLOCK_ONLINE);
}

static void test_compaction_hangs(void **state)
{
        struct env *e = *state;
        uint64_t began = now_monotonic_usec();

        make_pool(e, 100, 0);
        kernel->compact_errnum = HANG;
        kernel->offline_block = FIRST + 1;
        kernel->offline_errnum = EBUSY;
        kernel->offline_times = 100;
        offline(e, 1, 60000);
        RUN_UNTIL(e, kernel->n_settings > 0);
        cancel(e, 2, 1);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_int_equal(e->first.code, ERROR_CANCELLED);
        assert_all(e, BLOCK_ONLINE);
        assert_true(now_monotonic_usec() - began < 2 * USEC_PER_SEC);
}

/* --- pools of huge pages --- */

static void test_pool_gives_headroom(void **state)
{
        struct env *e = *state;

        make_pool(e, 1000, 600);
        kernel->free_bytes = kernel->available_bytes = 400 * MIB;
        write_meminfo();
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(e->reply.complete);
        assert_int_equal(e->assistance.n_pools, 1);
        assert_int_equal(e->assistance.pools[0].page_bytes, 2 * MIB);
        assert_int_equal(e->assistance.pools[0].taken, (SET + MARGIN - 400 * MIB + 64 * MIB) / (2 * MIB));
        assert_int_equal(e->assistance.pools[0].restored, 0);
        assert_int_equal(access(e->state_path, F_OK), 0);

        /* Once the device has left what fits comes back: 50 pages here. */
        for (unsigned i = 0; i < N_BLOCKS; i++) {
                tree_remove_block(&e->tree, FIRST + i);
                ops_on_block(e->ops, FIRST + i, BLOCK_ABSENT);
        }
        kernel->free_bytes = kernel->available_bytes = MARGIN + 100 * MIB;
        write_meminfo();
        uint64_t before = pool_count("nr_hugepages");
        RUN_UNTIL(e, access(e->state_path, F_OK) < 0);
        assert_int_equal(pool_count("nr_hugepages"), before + 50);
        assert_true(kernel->available_bytes >= MARGIN);
}

static void test_pool_is_restored(void **state)
{
        struct env *e = *state;

        make_pool(e, 1000, 600);
        kernel->free_bytes = kernel->available_bytes = 400 * MIB;
        write_meminfo();
        kernel->offline_block = FIRST + 1;
        kernel->offline_errnum = EPERM;
        kernel->offline_times = 100;
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_false(e->reply.complete);
        assert_all(e, BLOCK_ONLINE);
        assert_true(e->assistance.pools[0].taken > 0);
        assert_int_equal(e->assistance.pools[0].restored, e->assistance.pools[0].taken);
        assert_int_equal(pool_count("nr_hugepages"), 1000);
        RUN_UNTIL(e, access(e->state_path, F_OK) < 0);
}

/* What is promised or in use is not touched, nor is anything if it does not suffice. */
static void test_pool_is_left_alone(void **state)
{
        static const struct {
                uint64_t n_free;
                const char *reserved, *surplus;
        } table[] = { { 80, "0\n", "0\n" }, { 600, "550\n", "0\n" }, { 600, "0\n", "5\n" } };
        struct env *e = *state;

        for (unsigned i = 0; i < ARRAY_SIZE(table); i++) {
                make_pool(e, 1000, table[i].n_free);
                tree_write(e->tree.sys_fd, "kernel/mm/hugepages/hugepages-2048kB/resv_hugepages",
                        table[i].reserved);
                tree_write(e->tree.sys_fd, HUGE "/surplus_hugepages", table[i].surplus);
                kernel->free_bytes = kernel->available_bytes = 400 * MIB;
                write_meminfo();
                offline(e, i + 1, 5000);
                RUN_UNTIL(e, e->n_replies == i + 1);
                assert_int_equal(e->first.code, ERROR_NO_HEADROOM);
                assert_null(e->reply.assistance);
                assert_int_equal(pool_count("nr_hugepages"), 1000);
        }
        assert_int_equal(kernel->n_settings, 0);
}

/* The guestd before us was killed: the pool grows back. */
static void test_pool_is_remembered(void **state)
{
        struct env *e = *state;

        make_pool(e, 1000, 600);
        kernel->free_bytes = kernel->available_bytes = 400 * MIB;
        write_meminfo();
        e->config.repay_usec = 60 * USEC_PER_SEC;
        ops_free(e->ops);
        start_guestd(e);
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(pool_count("nr_hugepages") < 1000);
        assert_true(ops_owes(e->ops));
        ops_free(e->ops);

        kernel->free_bytes = kernel->available_bytes = 2000 * MIB;
        write_meminfo();
        e->config.repay_usec = 20 * USEC_PER_MSEC;
        start_guestd(e);
        RUN_UNTIL(e, access(e->state_path, F_OK) < 0);
        assert_int_equal(pool_count("nr_hugepages"), 1000);
        assert_false(ops_owes(e->ops));
}

/* The kernel takes it, and the pool stays as it is. */
static void test_pool_is_stiff(void **state)
{
        struct env *e = *state;

        make_pool(e, 1000, 600);
        kernel->pools_are_stiff = true;
        kernel->free_bytes = kernel->available_bytes = 400 * MIB;
        write_meminfo();
        offline(e, 1, 5000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_int_equal(e->first.code, ERROR_NO_HEADROOM);
        assert_int_equal(e->assistance.n_pools, 0);
        assert_int_equal(kernel->n_settings, 1);
}

static void test_pools_plan(void **state)
{
        static const struct pool pools[] = {
                { .node = 0, .page_bytes = 2 * MIB, .n_pages = 10, .n_free = 4, .n_free_reserved = 3 },
                { .node = 1, .page_bytes = 2 * MIB, .n_pages = 10, .n_free = 9, .n_free_reserved = 3 },
                { .node = 0, .page_bytes = GIB, .n_pages = 2, .n_free = 2 },
        };
        uint64_t wanted[3];

        assert_true(pools_plan(pools, 3, 6 * MIB + 1, wanted));
        assert_int_equal(wanted[0], 6);
        assert_int_equal(wanted[1], 10);
        assert_true(pools_plan(pools, 3, 20 * MIB, wanted));
        assert_int_equal(wanted[0], 6);
        assert_int_equal(wanted[1], 4);
        assert_int_equal(wanted[2], 2);
        assert_false(pools_plan(pools, 3, 20 * MIB + 1, wanted));
        assert_false(pools_plan(NULL, 0, 1, wanted));
}

/* --- a block that does not become emptier --- */

static void write_flags(struct env *e, uint64_t address, uint64_t n_pages, uint64_t flags)
{
        int fd = openat(e->tree.proc_fd, "kpageflags", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        uint64_t page = address / (uint64_t)sysconf(_SC_PAGESIZE);

        assert_true(fd >= 0);
        for (uint64_t i = 0; i < n_pages; i++)
                assert_int_equal(pwrite(fd, &flags, sizeof(flags), (off_t)((page + i) * sizeof(flags))),
                        sizeof(flags));
        close(fd);
}

static void hang_at(unsigned block, int times)
{
        kernel->offline_block = block;
        kernel->offline_errnum = HANG;
        kernel->offline_times = times;
}

static void test_pinned(void **state)
{
        struct env *e = *state;
        uint64_t began = now_monotonic_usec();

        write_flags(e, (FIRST + 2) * BLOCK + BLOCK / 2, 8, BIT(KPF_LRU) | BIT(KPF_ANON) | BIT(KPF_UPTODATE));
        hang_at(FIRST + 2, 1);
        offline(e, 1, 60000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(now_monotonic_usec() - began < 2 * USEC_PER_SEC);
        assert_int_equal(e->first.code, ERROR_BLOCK_BUSY);
        assert_int_equal(e->assistance.retries, 0); /* in vain */
        assert_all(e, BLOCK_ONLINE);
}

/* Off their list, as while the kernel tries. */
static void test_few_that_do_not_move(void **state)
{
        struct env *e = *state;
        uint64_t began = now_monotonic_usec();

        write_flags(e, (FIRST + 2) * BLOCK, 8, BIT(KPF_ANON) | BIT(KPF_UPTODATE));
        hang_at(FIRST + 2, 1);
        offline(e, 1, 60000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_true(now_monotonic_usec() - began < 2 * USEC_PER_SEC);
        assert_int_equal(e->first.code, ERROR_BLOCK_BUSY);
        assert_int_equal(e->assistance.retries, 0);
}

static void test_does_not_become_emptier(void **state)
{
        struct env *e = *state;
        uint64_t began = now_monotonic_usec();

        write_flags(e, (FIRST + 2) * BLOCK, 1000, BIT(KPF_LRU) | BIT(KPF_UPTODATE));
        hang_at(FIRST + 2, 1);
        offline(e, 1, 60000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_in_range(now_monotonic_usec() - began, USEC_PER_SEC, 5 * USEC_PER_SEC);
        assert_true(e->reply.complete);
        assert_int_equal(e->assistance.retries, 1);
}

/* At least 1 us for each page, which is what the kernel takes for it on slow machines. */
static void test_time_for_a_look(void **state)
{
        assert_int_equal(stall_look_usec(BLOCK / 4096), 200 * USEC_PER_MSEC);
        assert_in_range(stall_look_usec(GIB / 4096), GIB / 4096, USEC_PER_SEC);
        assert_in_range(stall_look_usec(2 * GIB / 4096), 2 * GIB / 4096, 2 * USEC_PER_SEC);
}

static void test_gigantic(void **state)
{
        struct env *e = *state;

        tree_mkdir(e->tree.sys_fd, "devices/system/node/node0");
        tree_mkdir(e->tree.sys_fd, "devices/system/node/node0/hugepages");
        tree_mkdir(e->tree.sys_fd, GIGANTIC);
        tree_mkdir(e->tree.sys_fd, "kernel/mm");
        tree_mkdir(e->tree.sys_fd, "kernel/mm/hugepages");
        tree_mkdir(e->tree.sys_fd, "kernel/mm/hugepages/hugepages-1048576kB");
        tree_write(e->tree.sys_fd, GIGANTIC "/nr_hugepages", "3\n");
        tree_write(e->tree.sys_fd, GIGANTIC "/free_hugepages", "1\n");
        tree_write(e->tree.sys_fd, GIGANTIC "/surplus_hugepages", "0\n");
        tree_write(e->tree.sys_fd, "kernel/mm/hugepages/hugepages-1048576kB/resv_hugepages", "0\n");
        write_flags(e, (FIRST + 2) * BLOCK, BLOCK / (uint64_t)sysconf(_SC_PAGESIZE),
                BIT(KPF_HUGE) | BIT(KPF_COMPOUND_TAIL) | BIT(KPF_MMAP));
        hang_at(FIRST + 2, 1);
        offline(e, 1, 60000);
        RUN_UNTIL(e, e->n_replies == 1);
        assert_int_equal(e->first.code, ERROR_BLOCK_UNREMOVABLE);
        assert_non_null(strstr(e->first.message, "gigantic page (1 GiB of hugetlb)"));
        assert_non_null(strstr(e->first.message, "of 3 there are 2 in use"));
        assert_int_equal(e->assistance.retries, 0);
        assert_all(e, BLOCK_ONLINE);

        /* Or the kernel refuses it at once, as the page reaches beyond the block. */
        kernel->offline_errnum = EBUSY;
        kernel->offline_times = 100;
        offline(e, 2, 60000);
        RUN_UNTIL(e, e->n_replies == 2);
        assert_int_equal(e->first.code, ERROR_BLOCK_UNREMOVABLE);
        assert_non_null(strstr(e->first.message, "gigantic page (1 GiB of hugetlb)"));
        assert_null(e->reply.assistance);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_idle),
                TEST(test_reclaim_before_a_set),
                TEST(test_set_without_reclaim),
                TEST(test_reclaim),
                TEST(test_swap_is_spared),
                TEST(test_reclaim_hangs),
                TEST(test_swappiness_comes_back),
                TEST(test_busy_for_a_while),
                TEST(test_busy_for_good),
                TEST(test_compaction_hangs),
                TEST(test_pool_gives_headroom),
                TEST(test_pool_is_restored),
                TEST(test_pool_is_left_alone),
                TEST(test_pool_is_remembered),
                TEST(test_pool_is_stiff),
                cmocka_unit_test(test_pools_plan),
                TEST(test_pinned),
                TEST(test_few_that_do_not_move),
                TEST(test_does_not_become_emptier),
                TEST(test_time_for_a_look),
                TEST(test_gigantic),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
