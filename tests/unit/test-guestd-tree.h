/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "guestd/loop.h"

/* What a test's env has a loop for. Each test says by WAIT_USEC how long at most. */
#define RUN_UNTIL(e, condition)                                                                              \
        do {                                                                                                 \
                uint64_t _until = now_monotonic_usec() + WAIT_USEC;                                          \
                while (!(condition)) {                                                                       \
                        if (now_monotonic_usec() >= _until)                                                  \
                                fail_msg("never: %s", #condition);                                           \
                        assert_int_equal(loop_run_once(&(e)->loop, 1), 0);                                   \
                }                                                                                            \
        } while (0)

static inline void run_loop_for(struct loop *loop, uint64_t usec)
{
        uint64_t until = now_monotonic_usec() + usec;

        while (now_monotonic_usec() < until)
                assert_int_equal(loop_run_once(loop, 1), 0);
}

/* A guest's /sys and /proc as far as guestd looks at them, in a folder of its own. */
struct tree {
        char path[64];
        int sys_fd, proc_fd, memory_fd;
};

static inline void tree_write(int dir_fd, const char *path, const char *text)
{
        int fd = openat(dir_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        close(fd);
}

static inline void tree_read(int dir_fd, const char *path, char *text, size_t size)
{
        int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
        ssize_t n;

        assert_true(fd >= 0);
        n = read(fd, text, size - 1);
        assert_true(n >= 0);
        text[n] = '\0';
        close(fd);
}

/* And the folders above it. */
static inline void tree_mkdir(int dir_fd, const char *path)
{
        char part[128];

        for (size_t i = 1; i <= strlen(path); i++)
                if (path[i] == '/' || path[i] == '\0') {
                        snprintf(part, sizeof(part), "%.*s", (int)i, path);
                        assert_true(mkdirat(dir_fd, part, 0755) == 0 || errno == EEXIST);
                }
}

static inline void tree_block(struct tree *t, unsigned number, const char *state, const char *zones, int node)
{
        char path[64];

        snprintf(path, sizeof(path), "memory%u", number);
        tree_mkdir(t->memory_fd, path);
        snprintf(path, sizeof(path), "memory%u/state", number);
        tree_write(t->memory_fd, path, state);
        snprintf(path, sizeof(path), "memory%u/valid_zones", number);
        tree_write(t->memory_fd, path, zones);
        snprintf(path, sizeof(path), "memory%u/node%d", number, node);
        if (node >= 0)
                tree_write(t->memory_fd, path, "");
}

static inline void tree_remove_block(struct tree *t, unsigned number)
{
        char path[64];

        for (int node = 0; node < 4; node++) {
                snprintf(path, sizeof(path), "memory%u/node%d", number, node);
                unlinkat(t->memory_fd, path, 0);
        }
        snprintf(path, sizeof(path), "memory%u/state", number);
        unlinkat(t->memory_fd, path, 0);
        snprintf(path, sizeof(path), "memory%u/valid_zones", number);
        unlinkat(t->memory_fd, path, 0);
        snprintf(path, sizeof(path), "memory%u", number);
        unlinkat(t->memory_fd, path, AT_REMOVEDIR);
}

static inline void tree_meminfo(struct tree *t, uint64_t total_bytes, uint64_t available_bytes)
{
        char text[512];

        snprintf(text, sizeof(text),
                "MemTotal:       %8llu kB\nMemFree:        %8llu kB\nMemAvailable:   %8llu kB\n"
                "SwapCached:            0 kB\nSwapTotal:          2048 kB\nSwapFree:           1024 kB\n",
                total_bytes / 1024ULL, available_bytes / 1024ULL, available_bytes / 1024ULL);
        tree_write(t->proc_fd, "meminfo", text);
}

/* Pages of 4 KiB: kernel zones and Movable. */
static inline void tree_zoneinfo(struct tree *t, uint64_t kernel_bytes, uint64_t movable_bytes)
{
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        char text[1024];

        snprintf(text, sizeof(text),
                "Node 0, zone      DMA\n  per-node stats\n      nr_inactive_anon 2736\n  pages free     "
                "3840\n"
                "        spanned  4095\n        present  0\n        managed  3840\n"
                "Node 0, zone   Normal\n  pages free     1\n        spanned  1\n        present  %llu\n"
                "        managed  5\n  pagesets\n    cpu: 0\n              count: 10\n"
                "Node 0, zone  Movable\n  pages free     1\n        present  %llu\n"
                "Node 0, zone   Device\n  pages free     1\n        present  77\n",
                (unsigned long long)(kernel_bytes / page), (unsigned long long)(movable_bytes / page));
        tree_write(t->proc_fd, "zoneinfo", text);
}

static inline void tree_init(struct tree *t)
{
        const char *tmp = getenv("TMPDIR");
        int fd;

        snprintf(t->path, sizeof(t->path), "%.40s/guestd-XXXXXX", tmp && strlen(tmp) <= 40 ? tmp : "/tmp");
        assert_non_null(mkdtemp(t->path));
        fd = open(t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(fd >= 0);
        tree_mkdir(fd, "sys/devices/system/memory");
        tree_mkdir(fd, "sys/devices/system/node");
        tree_mkdir(fd, "sys/kernel");
        tree_mkdir(fd, "proc");
        t->sys_fd = openat(fd, "sys", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        t->proc_fd = openat(fd, "proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        t->memory_fd = openat(fd, "sys/devices/system/memory", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(fd);
        tree_write(t->memory_fd, "block_size_bytes", "8000000\n");
        tree_write(t->memory_fd, "auto_online_blocks", "offline\n");
        tree_write(t->sys_fd, "devices/system/node/possible", "0-3\n");
        tree_write(t->sys_fd, "kernel/rcu_expedited", "0\n");
        tree_meminfo(t, 8 * GIB, 6 * GIB);
        tree_zoneinfo(t, 8 * GIB, 0);
}

static inline void tree_done(struct tree *t)
{
        char command[128];

        close(t->sys_fd);
        close(t->proc_fd);
        close(t->memory_fd);
        snprintf(command, sizeof(command), "rm -rf -- '%s'", t->path);
        assert_int_equal(system(command), 0);
}
