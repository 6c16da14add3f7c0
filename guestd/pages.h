/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/message.h"

/* What the pages of memory blocks are, by /proc/kpageflags. */

/* Of one block; shared between a child that counts and its parent. */
struct page_counts {
        uint32_t sampled;
        uint32_t pages[PAGE_KIND_MAX];
        bool is_gigantic; /* it lies in a gigantic page of hugetlb */
};

struct work_item;

/* The kind of a page with these flags (KPF_*) in a block of this zone; INVALID: there is no page. */
enum page_kind page_classify(uint64_t flags, enum zone zone);

/* Looks at pages of each block, spread evenly, until all are seen or the time is up; at a few of each block
 * in any case. counts[i] is for items[i]. Allocates nothing. 0 or -errno of opening or reading the flags. */
int pages_survey(int proc_fd, uint64_t block_bytes, const struct work_item *items, size_t n_items,
        uint64_t until_usec, struct page_counts *counts);

/* Whether the block lies in a gigantic page of hugetlb; false if the kernel does not tell. */
bool pages_block_is_gigantic(int proc_fd, uint64_t block_bytes, uint32_t block);

/* The bytes of a block that are to be moved before it can leave, as far as its sample tells. */
uint64_t page_counts_cost(const struct page_counts *counts, uint64_t block_bytes, uint64_t page_bytes);
