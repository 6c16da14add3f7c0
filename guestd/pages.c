/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Counts pages by kind. It owns nothing and runs in a child, as reading the flags of a large guest takes
 * seconds.
 *
 * /proc/kpageflags has a word for each page frame. The kernel walks all that is read at 0.1 to 1 us a page,
 * so there is a limit of time, and what is seen within it has to be a fair sample of every block: blocks are
 * cut into runs of a few pages, and the rounds over all blocks visit the runs in the order of their reversed
 * bits, which halves the gaps with each doubling. The end of time cuts that at any point.
 *
 * /proc/kpagecount is not read: it holds how often a page is mapped, not how often it is held, and of that
 * only "not at all" tells something, which KPF_MMAP says as well. */

#include "guestd/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kernel-page-flags.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "guestd/pools.h"
#include "guestd/worker.h"

/* Of one run, and of one read. */
#define RUN_PAGES 64U

/* Not in the header for programs: fs/proc/page.c shows it all the same. */
#define KPF_RESERVED_BIT 32

#define BIT(n) (UINT64_C(1) << (n))

enum page_kind page_classify(uint64_t flags, enum zone zone)
{
        if (flags & BIT(KPF_NOPAGE))
                return PAGE_KIND_INVALID;
        /* A poisoned page is no obstacle: the kernel leaves it where it is. */
        if (flags & (BIT(KPF_BUDDY) | BIT(KPF_HWPOISON)))
                return PAGE_FREE;
        if (flags & BIT(KPF_SLAB))
                return PAGE_SLAB;
        if (flags & BIT(KPF_PGTABLE))
                return PAGE_TABLE;
        if (flags & BIT(KPF_HUGE))
                return PAGE_HUGE;
        if (flags & BIT(KPF_RESERVED_BIT))
                return PAGE_UNMOVABLE;
        /* No process has it in its page tables, it is not on its way to or from swap, and yet it is not free:
         * somebody holds it, as a pipe or a device does. One that was just freed is on no LRU list. */
        if ((flags & BIT(KPF_ANON)) && (flags & (BIT(KPF_LRU) | BIT(KPF_COMPOUND_TAIL))) &&
                !(flags & (BIT(KPF_MMAP) | BIT(KPF_SWAPCACHE))))
                return PAGE_PINNED;
        /* Balloon pages (KPF_OFFLINE) move as well. A page on its way to an LRU list shows by what a program
         * or a file has done to it. */
        if (flags & (BIT(KPF_LRU) | BIT(KPF_ANON) | BIT(KPF_THP) | BIT(KPF_KSM) | BIT(KPF_SWAPBACKED) |
                            BIT(KPF_UPTODATE) | BIT(KPF_OFFLINE)))
                return PAGE_MOVABLE;
        /* What remains says nothing of itself: the kernel's own, or free on the list of a CPU. The kernel
         * allocates nothing for itself in zone Movable. */
        return zone == ZONE_MOVABLE ? PAGE_FREE : PAGE_UNMOVABLE;
}

/* The order of visits: 0, 1/2, 1/4, 3/4, ... of n, a power of two. */
static uint64_t reverse_bits(uint64_t k, uint64_t n)
{
        uint64_t reversed = 0;

        for (; n > 1; n /= 2, k /= 2)
                reversed = reversed * 2 + k % 2;
        return reversed;
}

/* Blocks that lie side by side are not all looked at in the same places. */
static uint64_t shift(uint32_t block)
{
        return block * UINT64_C(0x9E3779B1);
}

static int count_run(
        int fd, uint64_t first_page, uint64_t n_pages, enum zone zone, struct page_counts *counts)
{
        uint64_t flags[RUN_PAGES];
        ssize_t n = pread(fd, flags, n_pages * sizeof(flags[0]), (off_t)(first_page * sizeof(flags[0])));

        if (n < 0)
                return errno == EINTR ? 0 : -errno;
        counts->sampled += (uint32_t)n_pages;
        for (size_t i = 0; i < (size_t)n / sizeof(flags[0]); i++) {
                enum page_kind kind = page_classify(flags[i], zone);
                if (kind != PAGE_KIND_INVALID)
                        counts->pages[kind]++;
        }
        return 0;
}

/* In the middle of a block begins each smaller huge page that lies there, but no gigantic one. */
static bool is_gigantic(int fd, uint32_t block, uint64_t block_pages, uint64_t page_bytes)
{
        uint64_t middle = MIN(block_pages / 2, POOL_GIGANTIC_BYTES / 2 / page_bytes), flags;
        off_t at = (off_t)((block * block_pages + middle) * sizeof(flags));

        return pread(fd, &flags, sizeof(flags), at) == sizeof(flags) && flags & BIT(KPF_HUGE) &&
               flags & BIT(KPF_COMPOUND_TAIL);
}

bool pages_block_is_gigantic(int proc_fd, uint64_t block_bytes, uint32_t block)
{
        uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
        _cleanup_close_ int fd = openat(proc_fd, "kpageflags", O_RDONLY | O_CLOEXEC);

        return fd >= 0 && is_gigantic(fd, block, block_bytes / page_bytes, page_bytes);
}

int pages_survey(int proc_fd, uint64_t block_bytes, const struct work_item *items, size_t n_items,
        uint64_t until_usec, struct page_counts *counts)
{
        uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE), block_pages = block_bytes / page_bytes;
        uint64_t run_pages = MIN(block_pages, (uint64_t)RUN_PAGES), n_runs = block_pages / run_pages;
        _cleanup_close_ int fd = openat(proc_fd, "kpageflags", O_RDONLY | O_CLOEXEC);

        if (fd < 0)
                return -errno;
        memset(counts, 0, n_items * sizeof(*counts));
        for (uint64_t k = 0; k < n_runs; k++)
                for (size_t i = 0; i < n_items; i++) {
                        uint64_t run = (reverse_bits(k, n_runs) + shift(items[i].block)) % n_runs;

                        if (k > 0 && now_monotonic_usec() >= until_usec)
                                goto end;
                        int r = count_run(fd, items[i].block * block_pages + run * run_pages, run_pages,
                                (enum zone)items[i].zone, &counts[i]);
                        if (r < 0)
                                return r;
                }
end:
        for (size_t i = 0; i < n_items; i++)
                counts[i].is_gigantic = counts[i].pages[PAGE_HUGE] > 0 &&
                                        is_gigantic(fd, items[i].block, block_pages, page_bytes);
        return 0;
}

uint64_t page_counts_cost(const struct page_counts *counts, uint64_t block_bytes, uint64_t page_bytes)
{
        uint64_t moved =
                (uint64_t)counts->pages[PAGE_MOVABLE] + counts->pages[PAGE_HUGE] + counts->pages[PAGE_PINNED];
        uint64_t block_pages = block_bytes / page_bytes;

        return counts->sampled ? moved * block_pages / counts->sampled * page_bytes : 0;
}
