/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Reads sysfs, and decides how much of the pools can be had. No state. */

#include "guestd/pools.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "guestd/blocks.h"

#define NODES_DIR    "devices/system/node"
#define DIV_UP(a, b) (((a) + (b)-1) / (b))

const char *pool_path(unsigned node, uint64_t page_bytes, const char *file, char buffer[static POOL_PATH_MAX])
{
        snprintf(buffer, POOL_PATH_MAX, NODES_DIR "/node%u/hugepages/hugepages-%" PRIu64 "kB/%s", node,
                page_bytes / 1024, file);
        return buffer;
}

static int read_count(int sys_fd, const char *path, uint64_t *ret)
{
        char text[32], *end;

        int r = sysfs_read(sys_fd, path, text, sizeof(text));
        if (r < 0)
                return r;
        uint64_t v = strtoull(text, &end, 10);
        if (end == text || *end || v > UINT32_MAX)
                return -EBADMSG;
        *ret = v;
        return 0;
}

int pool_read_size(int sys_fd, unsigned node, uint64_t page_bytes, uint64_t *ret)
{
        char path[POOL_PATH_MAX];

        return read_count(sys_fd, pool_path(node, page_bytes, "nr_hugepages", path), ret);
}

static int read_pool(int sys_fd, struct pool *p)
{
        char path[POOL_PATH_MAX];

        int r = pool_read_size(sys_fd, p->node, p->page_bytes, &p->n_pages);
        if (r < 0 || p->n_pages == 0)
                return r < 0 ? r : -ENOENT;
        if ((r = read_count(sys_fd, pool_path(p->node, p->page_bytes, "free_hugepages", path), &p->n_free)) <
                        0 ||
                (r = read_count(sys_fd, pool_path(p->node, p->page_bytes, "surplus_hugepages", path),
                         &p->n_surplus)) < 0)
                return r;
        /* Reservations are not kept by node. */
        snprintf(path, sizeof(path), "kernel/mm/hugepages/hugepages-%" PRIu64 "kB/resv_hugepages",
                p->page_bytes / 1024);
        return read_count(sys_fd, path, &p->n_free_reserved);
}

static size_t read_node(int sys_fd, unsigned node, struct pool *v, size_t max)
{
        char path[POOL_PATH_MAX];
        size_t n = 0;

        snprintf(path, sizeof(path), NODES_DIR "/node%u/hugepages", node);
        int fd = openat(sys_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        if (!dir) {
                close_fd(fd);
                return 0;
        }
        for (struct dirent *e; n < max && (e = readdir(dir));) {
                uint64_t kib;

                if (sscanf(e->d_name, "hugepages-%" SCNu64 "kB", &kib) != 1 || kib == 0 || kib > UINT32_MAX)
                        continue;
                v[n] = (struct pool) { .node = node, .page_bytes = kib * 1024 };
                if (read_pool(sys_fd, &v[n]) >= 0)
                        n++;
        }
        closedir(dir);
        return n;
}

static int compare(const void *a, const void *b)
{
        const struct pool *x = a, *y = b;

        if (x->page_bytes != y->page_bytes)
                return x->page_bytes < y->page_bytes ? -1 : 1;
        return x->node < y->node ? -1 : x->node > y->node;
}

/* Sizes of which a node has pages in surplus are left alone: there the files' numbers count those too, and a
 * write of one node's may make pages rather than free them (Linux 6.1: set_max_huge_pages()). */
static size_t drop_with_surplus(struct pool *v, size_t n)
{
        size_t n_kept = 0;

        for (size_t i = 0, end; i < n; i = end) {
                uint64_t surplus = 0;

                for (end = i; end < n && v[end].page_bytes == v[i].page_bytes; end++)
                        surplus += v[end].n_surplus;
                for (size_t k = i; k < end && surplus == 0; k++)
                        v[n_kept++] = v[k];
        }
        return n_kept;
}

size_t pools_read(int sys_fd, struct pool *v, size_t max)
{
        int fd = openat(sys_fd, NODES_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        size_t n = 0;

        if (!dir) {
                close_fd(fd);
                return 0;
        }
        for (struct dirent *e; n < max && (e = readdir(dir));) {
                unsigned node;
                char rest;

                if (sscanf(e->d_name, "node%u%c", &node, &rest) == 1)
                        n += read_node(sys_fd, node, v + n, max - n);
        }
        closedir(dir);
        qsort(v, n, sizeof(*v), compare);
        return drop_with_surplus(v, n);
}

bool pools_plan(const struct pool *v, size_t n, uint64_t need_bytes, uint64_t *wanted)
{
        for (size_t i = 0; i < n; i++)
                wanted[i] = v[i].n_pages;
        for (size_t i = 0, end; i < n && need_bytes > 0; i = end) {
                uint64_t free = 0;

                for (end = i; end < n && v[end].page_bytes == v[i].page_bytes; end++)
                        free += v[end].n_free;
                uint64_t spare = free - MIN(free, v[i].n_free_reserved);
                for (size_t k = i; k < end && need_bytes > 0; k++) {
                        /* Where pages are in surplus the file's number does not mean what it says. */
                        if (v[k].n_surplus > 0 || v[k].page_bytes >= POOL_GIGANTIC_BYTES)
                                continue;
                        uint64_t take = MIN(v[k].n_free, spare);
                        take = MIN(take, DIV_UP(need_bytes, v[k].page_bytes));
                        wanted[k] = v[k].n_pages - MIN(take, v[k].n_pages);
                        spare -= take;
                        need_bytes -= MIN(need_bytes, take * v[k].page_bytes);
                }
        }
        return need_bytes == 0;
}
