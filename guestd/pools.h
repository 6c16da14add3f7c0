/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The guest's pools of huge pages (hugetlb): one for each node and size of page. Their free pages are in use
 * as far as MemAvailable is concerned, and the kernel takes them along when their block goes offline, as far
 * as nobody has reserved them: the pool is smaller then, and nobody makes it larger again. */
struct pool {
        unsigned node;
        uint64_t page_bytes;
        uint64_t n_pages;         /* nr_hugepages */
        uint64_t n_free;          /* free_hugepages */
        uint64_t n_surplus;       /* beyond what the administrator asked for */
        uint64_t n_free_reserved; /* of all nodes' free pages of this size, promised to a mapping */
};
#define POOLS_MAX 16U

/* A page of this size or more is gigantic: the kernel moves it only to a free one of its pool, and can hardly
 * make a new one, so that none is given up. */
#define POOL_GIGANTIC_BYTES (UINT64_C(1) << 28)

/* Those that have pages, and none in surplus on any node, at most max of them; none where the kernel has no
 * huge pages. */
size_t pools_read(int sys_fd, struct pool *v, size_t max);
/* "devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"; into buffer, which is returned. */
#define POOL_PATH_MAX 96U
const char *pool_path(
        unsigned node, uint64_t page_bytes, const char *file, char buffer[static POOL_PATH_MAX]);
/* nr_hugepages as it is now. 0 or -errno. */
int pool_read_size(int sys_fd, unsigned node, uint64_t page_bytes, uint64_t *ret);

/* How small each pool is to be so that at least need_bytes become free, in n_pages of wanted[] (one for each
 * of v[]): free pages that nobody has reserved, the smallest first, no gigantic ones. False if there are not
 * as many. */
bool pools_plan(const struct pool *v, size_t n, uint64_t need_bytes, uint64_t *wanted);
