/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What guestd does for a set that does not go: each kind of help once a request, in a child that a cancel, a
 * deadline or the end of the session kills, and told in the answer.
 *
 *     too little free memory to move pages to   inactive page cache is reclaimed
 *     too little available                      free huge pages are given up, if that suffices
 *     a block is busy                           a pause, one compaction if it holds huge pages, one more try
 *
 * Nothing is done before a walk has failed, or has found before a block that moving its pages would need
 * memory that is not free: an idle guest pays nothing. RECLAIM is the first of these as a request, so that
 * the host can choose devices by what is left. */

#include "guestd/ops-internal.h"

#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"
#include "guestd/memory.h"

/* Of what is left of the deadline at most a quarter, and this. */
#define ASSIST_MAX_USEC (5 * USEC_PER_SEC)
#define RETRY_MSEC      100U
/* For giving back huge pages before the answer; what is left then is given back after it. */
#define RESTORE_USEC      (1 * USEC_PER_SEC)
#define RESTORE_SOON_USEC (200 * USEC_PER_MSEC) /* somebody waits for the end */

/* Pages that were given up stay on a CPU's list at first, where MemAvailable does not count them. */
#define POOL_SLACK_BYTES (64 * MIB)

static const struct work_item no_item;

/* --- what may help --- */

static void order_reclaim(struct ops *ops, uint64_t free_bytes, unsigned node)
{
        struct assist_order *o = &ops->run.order;

        o->free_bytes = free_bytes;
        o->node = node;
}

static bool order_pools(struct ops *ops, const struct worker_failure *f, uint64_t set_bytes)
{
        struct assist_order *o = &ops->run.order;
        uint64_t need = set_bytes + f->margin_bytes - f->available_bytes, wanted[POOLS_MAX];
        struct pool pools[POOLS_MAX];

        if (ops->settings.n_pools == 0)
                return false;
        size_t n = pools_read(ops->config.sys_fd, pools, POOLS_MAX);
        if (!pools_plan(pools, n, need + POOL_SLACK_BYTES, wanted) && !pools_plan(pools, n, need, wanted))
                return false;
        for (size_t i = 0; i < n; i++)
                if (wanted[i] < pools[i].n_pages) {
                        o->pools[o->n_pools].node = pools[i].node;
                        o->pools[o->n_pools].page_bytes = pools[i].page_bytes;
                        o->pools[o->n_pools++].n_pages = wanted[i];
                }
        return o->n_pools > 0;
}

/* Which help, if any; the order for it is in run->order. 0: none. */
static unsigned choose(struct ops *ops, size_t item)
{
        struct op_run *run = &ops->run;
        struct worker *w = run->worker;
        const struct worker_failure *f = worker_n_failures(w) > 0 ? worker_failure(w, 0) : NULL;
        unsigned node = blocks_node(ops->blocks, run->items[item].block);
        uint64_t set_bytes = run->items[item].n_set * ops->blocks->block_bytes, attempt_usec;
        size_t killed_item;
        bool busy = f ? f->code == ERROR_BLOCK_BUSY
                      : worker_killed(w, &killed_item, &attempt_usec) == ERROR_BLOCK_BUSY;

        run->order = (struct assist_order) { .node = node };
        if (f && f->code == ERROR_NO_HEADROOM && f->margin_bytes > 0) {
                if (f->by_free) {
                        order_reclaim(ops, set_bytes + f->margin_bytes, node);
                        return ASSIST_RECLAIM;
                }
                return order_pools(ops, f, set_bytes) ? ASSIST_POOLS : 0;
        }
        if (!busy || (f && f->is_gigantic) || run->stall.is_pinned || run->stall.is_gigantic)
                return 0;
        run->order.pause_msec = RETRY_MSEC;
        run->order.compact = run->stall.has_huge_pages || ops->settings.n_pools > 0;
        return ASSIST_RETRY;
}

/* --- a child at it --- */

static void swap_as_before(struct ops *ops)
{
        settings_restore(&ops->settings, SETTING_SWAPPINESS);
}

static bool any_done(const struct assistance *a)
{
        return a->reclaimed_bytes > 0 || a->compactions > 0 || a->retries > 0 || a->n_pools > 0;
}

/* Takes in what the child has done. True if it is to go on, now that vm.swappiness is ours. */
static bool take_report(struct ops *ops)
{
        struct op_run *run = &ops->run;
        const struct assist_report *report = worker_assist_report(run->worker);
        struct assistance *a = run_assistance(ops);

        if (a) {
                a->reclaimed_bytes += report->reclaimed_bytes;
                a->compactions += report->n_compactions;
        }
        if (report->cannot_reclaim)
                log_debug("This kernel has no interface that reclaims page cache");
        bool again = report->wants_no_swappiness && run->stopped == ERROR_NONE && !run->order.no_swappiness &&
                     settings_replace(&ops->settings, SETTING_SWAPPINESS, "0") >= 0;
        run->order.no_swappiness = again;
        run_drop_work(ops);
        return again;
}

static int start(struct ops *ops, uint64_t stop_at_usec, void (*on_done)(struct worker *w, void *userdata))
{
        struct worker_handlers handlers = { .on_done = on_done };
        struct worker_limits limits = { .stop_at_usec = stop_at_usec, .order = ops->run.order };

        return run_work(ops, WORK_ASSIST, &no_item, 1, &limits, &handlers);
}

static uint64_t budget(const struct op_run *run)
{
        uint64_t now = now_monotonic_usec();
        uint64_t quarter = run->deadline_usec > now ? (run->deadline_usec - now) / 4 : 0;

        return now + MIN(quarter, ASSIST_MAX_USEC);
}

/* --- OFFLINE --- */

static void give_up(struct ops *ops, enum error_code why, const char *words)
{
        uint32_t block = ops->run.items[ops->run.n_offline].block;
        struct error error;

        error_set(&error, why, "Block memory%u: %s", block, words);
        run_fail(ops, block, &error);
        offline_undo(ops, ops->run.n_offline);
}

static void on_assisted(struct worker *w, void *userdata)
{
        struct ops *ops = userdata;
        struct op_run *run = &ops->run;

        if (take_report(ops) && start(ops, budget(run), on_assisted) >= 0)
                return;
        swap_as_before(ops);
        if (run->stopped != ERROR_NONE)
                give_up(ops, run->stopped, "the request ended before it was tried again");
        else if (offline_walk(ops) < 0)
                give_up(ops, ERROR_NO_HEADROOM, "the guest cannot start a process to take it offline");
}

bool assist_begin(struct ops *ops)
{
        struct op_run *run = &ops->run;
        size_t item = run->n_offline + worker_n_done(run->worker);

        if (run->op != OP_OFFLINE || run->id == 0 || run->stopped != ERROR_NONE || item >= run->n_items)
                return false;
        unsigned kind = choose(ops, item);
        if (kind == 0 || run->assisted & kind)
                return false;
        run->assisted |= kind;
        run->n_offline = item;
        run->phase = PHASE_ASSISTING;
        run_drop_work(ops);
        stall_reset(ops);
        struct assistance *a = run_assistance(ops);
        if (a && kind == ASSIST_RETRY)
                a->retries++;
        log_debug("Block memory%u: %s", run->items[item].block,
                kind == ASSIST_RECLAIM ? "page cache is reclaimed before pages are moved"
                : kind == ASSIST_POOLS ? "free huge pages are given up"
                                       : "it is tried once more");
        if (start(ops, budget(run), on_assisted) < 0)
                give_up(ops, ERROR_NO_HEADROOM, "the guest cannot start a process to help with it");
        return true;
}

static void on_restored(struct worker *w, void *userdata)
{
        struct ops *ops = userdata;

        run_drop_work(ops);
        debt_account(ops);
        run_finish(ops);
}

bool assist_restore(struct ops *ops)
{
        struct op_run *run = &ops->run;

        if (run->id == 0 || run->phase == PHASE_RESTORING || ops->settings.n_pools == 0)
                return false;
        debt_account(ops);
        if (!debt_order_of_run(ops))
                return false;
        run->phase = PHASE_RESTORING;
        return start(ops,
                       now_monotonic_usec() + (run->stopped == ERROR_NONE ? RESTORE_USEC : RESTORE_SOON_USEC),
                       on_restored) >= 0;
}

/* --- RECLAIM --- */

static void on_reclaimed(struct worker *w, void *userdata)
{
        struct ops *ops = userdata;
        struct op_run *run = &ops->run;
        struct message_reply reply = { .op = OP_RECLAIM };

        if (take_report(ops) && start(ops, run->deadline_usec, on_reclaimed) >= 0)
                return;
        swap_as_before(ops);
        if (run->assistance && any_done(run->assistance))
                reply.assistance = run->assistance;
        if (run->id > 0)
                (void)ops->link.reply(run->id, &reply, ops->userdata);
        run_reset(ops);
}

void reclaim_begin(struct ops *ops, const struct message *m)
{
        struct op_run *run = &ops->run;
        uint64_t now = now_monotonic_usec();
        struct memory_now memory;
        struct error error;

        run->op = OP_RECLAIM;
        run->id = m->id;
        run->began_usec = run->progress_usec = now;
        run->deadline_usec = now + m->request.deadline_msec * USEC_PER_MSEC;
        run->phase = PHASE_WORKING;
        int r = memory_read_now(ops->config.proc_fd, &memory);
        if (r >= 0) {
                uint64_t margin = memory_margin(ops->config.margin_bytes, memory.total_bytes);
                /* Not for what cannot go anyhow. */
                run->order = (struct assist_order) {
                        .free_bytes = MIN(m->request.bytes + margin, memory.available_bytes),
                };
                r = start(ops, run->deadline_usec, on_reclaimed);
        }
        if (r < 0) {
                error_set_errno(&error, ERROR_INTERNAL, r, "The guest cannot reclaim its page cache");
                ops->link.failure(run->id, &error, ops->userdata);
                run_reset(ops);
        }
}

void reclaim_stop(struct ops *ops, enum error_code why)
{
        if (why == ERROR_INTERRUPTED)
                ops->run.id = 0;
        ops->run.stopped = why;
        worker_kill(ops->run.worker, why);
}
