/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Pools of huge pages that are smaller than the guest's administrator made them: we gave up free pages of
 * theirs for headroom, or the kernel took those along that lay in a block (dissolve_free_huge_pages()). They
 * grow back as soon as nothing is under way, as far as the margin allows; what does not fit then is given up,
 * with a line in the log, since who removes memory has decided what it is for. A pool that is not as we left
 * it has been set by its administrator in the meantime, and stays so.
 *
 * Invariant: settings.pools[] are the sizes of before, and in the file of settings, from before the first
 * block of a run until they are that again or given up. */

#include "guestd/ops-internal.h"

#include <inttypes.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"
#include "guestd/memory.h"

#define REPAY_MAX_USEC (20 * USEC_PER_SEC)

/* What a pool lacks of what it was. */
static uint64_t lacks(struct ops *ops, const struct pool *p, uint64_t n_pages)
{
        uint64_t now;

        if (pool_read_size(ops->config.sys_fd, p->node, p->page_bytes, &now) < 0)
                return 0;
        return n_pages - MIN(now, n_pages);
}

static uint64_t size_now(struct ops *ops, const struct pool *p)
{
        uint64_t n_pages;

        return pool_read_size(ops->config.sys_fd, p->node, p->page_bytes, &n_pages) < 0 ? 0 : n_pages;
}

/* A worker that was interrupted has got somewhere between. */
static bool is_as_left(struct ops *ops, size_t i, uint64_t now)
{
        return now == ops->debt.left[i] ||
               (ops->debt.interrupted && now > ops->debt.left[i] && now <= ops->settings.pools[i].n_pages);
}

static void follow_administrator(struct ops *ops)
{
        for (size_t i = 0; i < ops->settings.n_pools; i++) {
                const struct pool *p = &ops->settings.pools[i];
                uint64_t now = size_now(ops, p);

                if (is_as_left(ops, i, now))
                        continue;
                log_info("Node %u's pool of huge pages of %s was set to %" PRIu64 ", and stays so", p->node,
                        SIZE(p->page_bytes), now);
                settings_set_pool(&ops->settings, i, now);
                ops->debt.left[i] = now;
        }
}

/* To sizes[], one for each remembered pool; NULL: to what they were at first. */
static bool order_growth(struct ops *ops, const uint64_t *sizes, struct assist_order *ret)
{
        const struct settings *s = &ops->settings;

        *ret = (struct assist_order) { 0 };
        for (size_t i = 0; i < s->n_pools; i++) {
                uint64_t n_pages = sizes ? sizes[i] : s->pools[i].n_pages;

                if (lacks(ops, &s->pools[i], n_pages) == 0)
                        continue;
                ret->pools[ret->n_pools].node = s->pools[i].node;
                ret->pools[ret->n_pools].page_bytes = s->pools[i].page_bytes;
                ret->pools[ret->n_pools++].n_pages = n_pages;
        }
        return ret->n_pools > 0;
}

bool debt_order_of_run(struct ops *ops)
{
        return order_growth(ops, ops->run.pool_sizes, &ops->run.order);
}

void debt_note(struct ops *ops)
{
        struct settings *s = &ops->settings;
        struct pool pools[POOLS_MAX];
        struct memory_now m;

        debt_interrupt(ops);
        follow_administrator(ops);
        if (memory_read_now(ops->config.proc_fd, &m) < 0 || (m.hugetlb_bytes == 0 && s->n_pools == 0))
                return;
        (void)settings_note_pools(s, pools, pools_read(ops->config.sys_fd, pools, POOLS_MAX));
        for (size_t i = 0; i < s->n_pools; i++)
                ops->run.pool_sizes[i] = size_now(ops, &s->pools[i]);
}

void debt_account(struct ops *ops)
{
        const struct settings *s = &ops->settings;

        for (size_t i = 0; i < s->n_pools; i++) {
                uint64_t lost = lacks(ops, &s->pools[i], ops->run.pool_sizes[i]);
                bool known = ops->run.pool_taken[i] > 0;

                if (lost == 0 && !known)
                        continue;
                struct assistance *a = run_assistance(ops);
                if (!a)
                        return;
                if (!known) {
                        ops->run.pool_taken[i] = lost;
                        ops->run.pool_member[i] = a->n_pools;
                        a->pools[a->n_pools++] = (struct assisted_pool) {
                                .node = s->pools[i].node,
                                .page_bytes = s->pools[i].page_bytes,
                                .taken = lost,
                        };
                } else
                        a->pools[ops->run.pool_member[i]].restored =
                                ops->run.pool_taken[i] - MIN(lost, ops->run.pool_taken[i]);
        }
}

static void give_up(struct ops *ops)
{
        const struct settings *s = &ops->settings;

        for (size_t i = 0; i < s->n_pools; i++) {
                const struct pool *p = &s->pools[i];
                uint64_t lost = lacks(ops, p, p->n_pages);

                if (lost > 0)
                        log_notice("Node %u has %" PRIu64 " of its %" PRIu64
                                   " huge pages of %s: for more there is no room",
                                p->node, p->n_pages - lost, p->n_pages, SIZE(p->page_bytes));
        }
        settings_forget_pools(&ops->settings);
}

static void on_repaid(struct worker *w, void *userdata)
{
        struct ops *ops = userdata;

        ops->debt.worker = worker_free(ops->debt.worker);
        give_up(ops);
}

static void on_timer(struct loop_timer *timer)
{
        static const struct worker_handlers handlers = { .on_done = on_repaid };
        static const struct work_item none = { 0 };
        struct ops *ops = timer->userdata;
        struct worker_limits limits = { .stop_at_usec = now_monotonic_usec() + REPAY_MAX_USEC };

        if (ops->debt.worker || ops->run.phase != PHASE_IDLE)
                return;
        follow_administrator(ops);
        /* A set that waits for its device_del may have to go back online. */
        if (ops->n_pledges > 0)
                debt_settle(ops);
        else if (!order_growth(ops, NULL, &limits.order))
                settings_forget_pools(&ops->settings);
        else if (worker_start(ops->loop, ops->children, WORK_ASSIST, &none, 1, &limits, &handlers, ops,
                         &ops->debt.worker) < 0)
                debt_settle(ops);
}

void debt_settle(struct ops *ops)
{
        if (ops->settings.n_pools > 0 && !ops->debt.worker)
                loop_timer_arm(ops->loop, &ops->debt.timer, now_monotonic_usec() + ops->config.repay_usec);
}

void debt_end(struct ops *ops)
{
        for (size_t i = 0; i < ops->settings.n_pools; i++)
                ops->debt.left[i] = size_now(ops, &ops->settings.pools[i]);
        ops->debt.interrupted = false;
}

void debt_interrupt(struct ops *ops)
{
        ops->debt.interrupted |= ops->debt.worker != NULL;
        ops->debt.worker = worker_free(ops->debt.worker);
        loop_timer_disarm(ops->loop, &ops->debt.timer);
}

void debt_init(struct ops *ops)
{
        ops->debt.timer = (struct loop_timer) { .on_expired = on_timer, .userdata = ops };
        debt_end(ops);
        debt_settle(ops); /* of a guestd before us */
}
