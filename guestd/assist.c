/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Runs in a child of guestd and owns nothing but the descriptors that it opens.
 *
 * Reclaim: memory.reclaim of the root cgroup (Linux 5.19), or reclaim of the node (6.17) in a kernel without
 * memory cgroups. Both drop the page cache's oldest pages, as the kernel would soon by itself, and take the
 * number of bytes, from 6.9 on with swappiness=0. An older kernel follows vm.swappiness, which guestd then
 * sets for the time. Where nobody has mounted cgroup2, as in an initramfs, a mount of its own is made that no
 * path leads to. */

#include "guestd/assist.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "guestd/blocks.h"
#include "guestd/memory.h"
#include "guestd/worker.h"

/* So many steps for which the kernel did not find enough are the end. */
#define FRUITLESS_MAX 3U

static int write_setting(const struct worker_config *config, int dir_fd, const char *path, const char *value)
{
        return config->write_setting ? config->write_setting(dir_fd, path, value)
                                     : sysfs_write(dir_fd, path, value);
}

/* --- pools of huge pages --- */

/* Pages of a pool that may be taken from what is available. */
static uint64_t may_grow(const struct worker_config *config, uint64_t page_bytes)
{
        struct memory_now m;

        if (memory_read_now(config->proc_fd, &m) < 0)
                return 0;
        uint64_t margin = memory_margin(config->margin_bytes, m.total_bytes);
        return m.available_bytes > margin ? (m.available_bytes - margin) / page_bytes : 0;
}

/* In steps, as the kernel looks for no signal while it resizes. */
static void resize_pool(
        const struct worker_config *config, unsigned node, uint64_t page_bytes, uint64_t wanted)
{
        char path[POOL_PATH_MAX], text[24];
        uint64_t now, step = MAX(ASSIST_POOL_STEP / page_bytes, UINT64_C(1));

        pool_path(node, page_bytes, "nr_hugepages", path);
        while (pool_read_size(config->sys_fd, node, page_bytes, &now) >= 0 && now != wanted) {
                uint64_t next, then;

                if (now > wanted)
                        next = now - MIN(step, now - wanted);
                else {
                        next = now + MIN(step, wanted - now);
                        next = MIN(next, now + may_grow(config, page_bytes));
                }
                if (next == now)
                        return;
                snprintf(text, sizeof(text), "%" PRIu64, next);
                if (write_setting(config, config->sys_fd, path, text) < 0 ||
                        pool_read_size(config->sys_fd, node, page_bytes, &then) < 0 ||
                        (now > wanted ? then >= now : then <= now))
                        return;
        }
}

/* --- page cache --- */

/* -1: there is none. */
static int mount_cgroup(void)
{
        _cleanup_close_ int fs = fsopen("cgroup2", FSOPEN_CLOEXEC);

        if (fs < 0 || fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                return -1;
        return fsmount(fs, FSMOUNT_CLOEXEC, 0);
}

struct reclaim {
        const struct worker_config *config;
        int dir_fd; /* of path; may be the config's */
        char path[64];
        enum { SWAPPINESS_IN_REQUEST, SWAPPINESS_NOT_TAKEN } swappiness;
};

/* False if the kernel has no interface for it. */
static bool find_reclaim(struct reclaim *r, unsigned node, int *ret_mount)
{
        const struct worker_config *config = r->config;

        r->dir_fd = config->sys_fd;
        snprintf(r->path, sizeof(r->path), "fs/cgroup/memory.reclaim");
        if (faccessat(r->dir_fd, r->path, W_OK, 0) >= 0)
                return true;
        snprintf(r->path, sizeof(r->path), "devices/system/node/node%u/reclaim", node);
        if (faccessat(r->dir_fd, r->path, W_OK, 0) >= 0)
                return true;
        if (!config->may_mount || (*ret_mount = mount_cgroup()) < 0)
                return false;
        r->dir_fd = *ret_mount;
        snprintf(r->path, sizeof(r->path), "memory.reclaim");
        return faccessat(r->dir_fd, r->path, W_OK, 0) >= 0;
}

/* 0, or -errno: -EAGAIN if less could be had, -EINVAL if swap would be used. */
static int reclaim_step(struct reclaim *r, uint64_t bytes, bool swap_is_spared)
{
        char text[64];

        if (r->swappiness == SWAPPINESS_IN_REQUEST) {
                snprintf(text, sizeof(text), "%" PRIu64 " swappiness=0", bytes);
                int e = write_setting(r->config, r->dir_fd, r->path, text);
                if (e != -EINVAL)
                        return e;
                r->swappiness = SWAPPINESS_NOT_TAKEN;
        }
        if (!swap_is_spared)
                return -EINVAL;
        snprintf(text, sizeof(text), "%" PRIu64, bytes);
        return write_setting(r->config, r->dir_fd, r->path, text);
}

static void reclaim(
        const struct worker_config *config, const struct assist_order *order, struct assist_report *report)
{
        _cleanup_close_ int mount_fd = -1;
        struct reclaim r = { .config = config };
        struct memory_now first, now;
        unsigned n_fruitless = 0;

        if (memory_read_now(config->proc_fd, &first) < 0 || first.free_bytes >= order->free_bytes ||
                first.inactive_file_bytes < ASSIST_RECLAIM_MIN)
                return;
        if (!find_reclaim(&r, order->node, &mount_fd)) {
                report->cannot_reclaim = true;
                return;
        }
        /* What was freed shows in MemFree only when it has left the lists of its CPU. */
        uint64_t most = (order->free_bytes - first.free_bytes) * 5 / 4 + ASSIST_RECLAIM_MIN;
        now = first;
        while (now.free_bytes < order->free_bytes && now.inactive_file_bytes >= ASSIST_RECLAIM_MIN &&
                report->reclaimed_bytes < most && n_fruitless < FRUITLESS_MAX) {
                uint64_t step = MIN(order->free_bytes - now.free_bytes, ASSIST_RECLAIM_STEP);

                int e = reclaim_step(&r, step, order->no_swappiness || first.swap_free_bytes == 0);
                if (e == -EINVAL) {
                        report->wants_no_swappiness = !order->no_swappiness;
                        return;
                }
                if (e == -EAGAIN)
                        n_fruitless++;
                else if (e >= 0)
                        report->reclaimed_bytes += step;
                if ((e < 0 && e != -EAGAIN) || memory_read_now(config->proc_fd, &now) < 0)
                        return;
        }
}

/* --- all of it --- */

static void compact(
        const struct worker_config *config, const struct assist_order *order, struct assist_report *report)
{
        char path[64];

        snprintf(path, sizeof(path), "devices/system/node/node%u/compact", order->node);
        int r = write_setting(config, config->sys_fd, path, "1");
        if (r == -ENOENT)
                r = write_setting(config, config->proc_fd, "sys/vm/compact_memory", "1");
        if (r >= 0)
                report->n_compactions++;
}

void assist_carry_out(
        const struct worker_config *config, const struct assist_order *order, struct assist_report *report)
{
        if (order->pause_msec > 0) {
                struct timespec pause = { .tv_sec = order->pause_msec / 1000,
                        .tv_nsec = order->pause_msec % 1000 * 1000000L };
                nanosleep(&pause, NULL);
        }
        for (size_t i = 0; i < MIN(order->n_pools, (size_t)POOLS_MAX); i++)
                resize_pool(
                        config, order->pools[i].node, order->pools[i].page_bytes, order->pools[i].n_pages);
        if (order->free_bytes > 0)
                reclaim(config, order, report);
        if (order->compact)
                compact(config, order, report);
}
