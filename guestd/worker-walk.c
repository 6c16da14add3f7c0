/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The walk over the blocks: all that runs in the child. It owns nothing but two open files and writes its
 * findings into the shared page; it may be killed at any instruction, and then the parent believes sysfs. */

#include "guestd/worker.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "guestd/blocks.h"
#include "guestd/memory.h"

int block_write_state(int memory_fd, uint32_t block, const char *state)
{
        char path[40];

        snprintf(path, sizeof(path), "memory%u/state", block);
        return sysfs_write(memory_fd, path, state);
}

static void note_failure(struct worker_shared *shared, const struct worker_failure *f)
{
        uint32_t n = shared->n_failures;

        if (n >= WORKER_FAILURES_MAX)
                return;
        shared->failures[n] = *f;
        shared->n_failures = n + 1;
}

/* A look that costs nothing, for the many times that there is room in plenty: a quarter of memory is more
 * than the kernel keeps back from MemAvailable. Only where /proc is the kernel's own. */
static bool is_plenty_free(const struct worker_config *config, size_t n_blocks)
{
        struct sysinfo s;
        struct statfs fs;

        if (fstatfs(config->proc_fd, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC || sysinfo(&s) < 0)
                return false;
        uint64_t total = (uint64_t)s.totalram * s.mem_unit, free_bytes = (uint64_t)s.freeram * s.mem_unit;
        return free_bytes >
               n_blocks * config->block_bytes + memory_margin(config->margin_bytes, total) + total / 4;
}

/* A set goes wholly or not at all: there must be room for all that is still to go, or the blocks that went
 * before would only have to come back.
 *
 * Whatever lies in the blocks, MemAvailable falls by their size, and so does MemFree, unless pages are
 * reclaimed: while it is above that and the margin, they can simply be moved. */
static bool has_headroom(const struct worker_config *config, int meminfo_fd, size_t n_blocks, bool migrates,
        struct worker_failure *f)
{
        struct memory_now m;

        int r = memory_read_headroom(meminfo_fd, &m);
        if (r < 0) {
                f->code = ERROR_INTERNAL;
                f->errnum = -r;
                return false;
        }
        uint64_t margin = memory_margin(config->margin_bytes, m.total_bytes);
        uint64_t need = n_blocks * config->block_bytes + margin;
        f->by_free = m.available_bytes > need;
        if (f->by_free && (migrates || m.free_bytes > need))
                return true;
        f->code = ERROR_NO_HEADROOM;
        f->available_bytes = m.available_bytes;
        f->margin_bytes = margin;
        return false;
}

static enum error_code code_of(const struct worker_config *config, enum work work, uint32_t block, int errnum)
{
        switch (errnum) {
        case EBUSY:
        case EAGAIN:
                return ERROR_BLOCK_BUSY;
        case EINTR:
                return ERROR_DEADLINE;
        case ENOMEM:
                return ERROR_NO_HEADROOM;
        case ENOENT:
        case ENODEV:
                return ERROR_BLOCK_MISSING;
        case EPERM:
        case EINVAL:
                if (work == WORK_OFFLINE &&
                        (errnum == EPERM || sysfs_read_zone(config->memory_fd, block) == ZONE_NONE))
                        return ERROR_BLOCK_UNREMOVABLE;
                return ERROR_BLOCK_FAILED;
        default:
                return ERROR_BLOCK_FAILED;
        }
}

/* One block. A block that is already as asked counts as done: the kernel says EINVAL then, or EEXIST. */
static int set_state(const struct worker_config *config, enum work work, const struct work_item *item)
{
        /* In zone Movable EBUSY usually passes: a page is just being allocated, migrated or written. */
        static const unsigned pauses_msec[] = { 20, 100 };
        block_write_t write_state = config->write ? config->write : block_write_state;
        enum block_state wanted = work == WORK_OFFLINE ? BLOCK_OFFLINE : BLOCK_ONLINE;
        const char *word = work == WORK_OFFLINE         ? "offline"
                           : item->zone == ZONE_MOVABLE ? "online_movable"
                           : item->zone == ZONE_KERNEL  ? "online_kernel"
                                                        : "online";

        for (size_t i = 0;; i++) {
                int r = write_state(config->memory_fd, item->block, word);
                if (r == 0 || sysfs_read_state(config->memory_fd, item->block) == wanted)
                        return 0;
                if ((r != -EBUSY && r != -EAGAIN) || i == ARRAY_SIZE(pauses_msec))
                        return r;
                struct timespec pause = { .tv_nsec = pauses_msec[i] * 1000000L };
                nanosleep(&pause, NULL);
        }
}

int worker_survey(struct worker_shared *shared, const struct worker_config *config,
        const struct work_item *items, size_t n_items, uint64_t until_usec, struct page_counts *counts)
{
        int r = pages_survey(config->proc_fd, config->block_bytes, items, n_items, until_usec, counts);

        if (r < 0) {
                note_failure(shared, &(struct worker_failure) { .code = ERROR_INTERNAL, .errnum = -r });
                return 1;
        }
        shared->n_done = (uint32_t)n_items;
        return 0;
}

int worker_walk(struct worker_shared *shared, const struct worker_config *config, enum work work,
        const struct work_item *items, size_t n_items, bool migrates)
{
        _cleanup_close_ int meminfo_fd = openat(config->proc_fd, "meminfo", O_RDONLY | O_CLOEXEC);

        for (uint32_t i = 0; i < n_items; i++) {
                struct worker_failure f = { .item = i };

                if (work == WORK_OFFLINE && !is_plenty_free(config, items[i].n_set) &&
                        !has_headroom(config, meminfo_fd, items[i].n_set, migrates, &f)) {
                        note_failure(shared, &f);
                        return 1;
                }
                shared->attempt_usec = now_monotonic_usec();
                int r = set_state(config, work, &items[i]);
                shared->attempt_usec = 0;
                if (r < 0) {
                        f.errnum = -r;
                        f.code = code_of(config, work, items[i].block, -r);
                        f.is_gigantic =
                                f.code == ERROR_BLOCK_BUSY &&
                                pages_block_is_gigantic(config->proc_fd, config->block_bytes, items[i].block);
                        note_failure(shared, &f);
                        if (work == WORK_OFFLINE)
                                return 1;
                }
                shared->n_done = i + 1;
        }
        return 0;
}
