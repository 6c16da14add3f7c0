/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A block that holds a page that never moves keeps the kernel at it for as long as it may (Linux 6.1:
 * offline_pages() goes round until a signal comes). What is left in the block tells sooner: while an attempt
 * takes long, a second child looks at its pages twice a second. When nothing is left that moves, or less does
 * not become of it, the attempt is ended, as its limit would do much later.
 *
 * A block has 32768 pages or, on large guests, half a million: a look has time for all of them, as of a part
 * nothing can be said, and the guest has as much time to itself afterwards.
 *
 * None of this happens to a block that goes within LOOK_USEC. */

#include "guestd/ops-internal.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/size.h"

#define LOOK_USEC     (400 * USEC_PER_MSEC) /* into an attempt, and between two looks at it */
#define LOOK_MAX_USEC (200 * USEC_PER_MSEC) /* for a look, or if that is more, */
#define PAGE_USEC     2U                    /* ...this for each page */
/* So many looks in a row that find as many pages as before. */
#define SAME_MAX 3U
/* So few that the kernel was through with them several times since the last look: they do not move. While it
 * tries, a pinned page is off its list, and looks like one that was just freed. */
#define FEW_PAGES 256U

void stall_reset(struct ops *ops)
{
        struct op_stall *s = &ops->run.stall;

        worker_free(s->worker);
        loop_timer_disarm(ops->loop, &s->timer);
        *s = (struct op_stall) { .timer = s->timer };
}

static void again(struct ops *ops, uint64_t took_usec)
{
        loop_timer_arm(ops->loop, &ops->run.stall.timer, now_monotonic_usec() + MAX(LOOK_USEC, took_usec));
}

static uint64_t block_pages(const struct ops *ops)
{
        return ops->blocks->block_bytes / (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t stall_look_usec(uint64_t n_pages)
{
        return MAX(LOOK_MAX_USEC, n_pages * PAGE_USEC);
}

/* The block under attempt; NULL if none is. */
static const struct work_item *current_item(struct ops *ops)
{
        struct op_run *run = &ops->run;
        size_t i;

        if (run->phase != PHASE_WORKING || !run->worker)
                return NULL;
        i = run->n_offline + worker_n_done(run->worker);
        return i < run->n_items ? &run->items[i] : NULL;
}

/* True if the attempt is hopeless. */
static bool judge(struct op_stall *s, const struct page_counts *counts, uint64_t n_pages)
{
        uint64_t left = 0, stuck = 0;

        s->is_gigantic = counts->is_gigantic;
        /* There was no time to look at all of it: nothing is to be compared with that. */
        if (counts->sampled < n_pages) {
                s->left = s->n_same = 0;
                return s->is_gigantic;
        }

        for (enum page_kind k = PAGE_MOVABLE; k < PAGE_KIND_MAX; k++) {
                left += counts->pages[k];
                if (k >= PAGE_SLAB)
                        stuck += counts->pages[k];
        }
        s->n_same = s->left > 0 && left >= s->left ? s->n_same + 1 : 0;
        s->left = left;
        s->is_pinned = left > 0 && (left == stuck || (s->n_same > 0 && left <= FEW_PAGES));
        s->has_huge_pages = counts->pages[PAGE_HUGE] > 0;
        return s->is_pinned || s->is_gigantic || s->n_same >= SAME_MAX;
}

static void on_looked(struct worker *w, void *userdata)
{
        struct ops *ops = userdata;
        struct op_stall *s = &ops->run.stall;
        const struct work_item *item = current_item(ops);
        bool seen = worker_n_done(w) == 1, hopeless = false;

        if (item && seen && item->block == s->item.block)
                hopeless = judge(s, worker_counts(w), block_pages(ops));
        s->worker = worker_free(s->worker);
        if (hopeless)
                worker_kill(ops->run.worker, ERROR_BLOCK_BUSY);
        else if (seen)
                again(ops, now_monotonic_usec() - s->look_usec);
}

static void on_timer(struct loop_timer *timer)
{
        static const struct worker_handlers handlers = { .on_done = on_looked };
        struct ops *ops = timer->userdata;
        struct op_stall *s = &ops->run.stall;
        const struct work_item *item = current_item(ops);
        uint64_t until = now_monotonic_usec() + stall_look_usec(block_pages(ops));
        struct worker_limits limits = { .survey_until_usec = until, .stop_at_usec = until + LOOK_USEC };

        if (!item)
                return;
        if (worker_attempt_usec(ops->run.worker) < LOOK_USEC) {
                again(ops, 0);
                return;
        }
        s->look_usec = now_monotonic_usec();
        if (item->block != s->item.block)
                s->left = s->n_same = 0;
        s->item = *item;
        (void)worker_start(
                ops->loop, ops->children, WORK_SURVEY, &s->item, 1, &limits, &handlers, ops, &s->worker);
}

void stall_watch(struct ops *ops)
{
        stall_reset(ops);
        ops->run.stall.timer = (struct loop_timer) { .on_expired = on_timer, .userdata = ops };
        again(ops, 0);
}

void stall_explain_gigantic(struct ops *ops, uint32_t block, struct error *error)
{
        struct pool pools[POOLS_MAX];
        uint64_t n_pages = 0, n_free = 0, page_bytes = 0;

        size_t n = pools_read(ops->config.sys_fd, pools, POOLS_MAX);
        for (size_t i = 0; i < n; i++)
                if (pools[i].page_bytes >= POOL_GIGANTIC_BYTES) {
                        page_bytes = pools[i].page_bytes;
                        n_pages += pools[i].n_pages;
                        n_free += pools[i].n_free;
                }
        error_set(error, ERROR_BLOCK_UNREMOVABLE,
                "Block memory%u lies in a gigantic page (%s of hugetlb), which moves only to a free one: of "
                "%llu "
                "there are %llu in use",
                block, SIZE(page_bytes), (unsigned long long)n_pages,
                (unsigned long long)(n_pages - MIN(n_free, n_pages)));
}
