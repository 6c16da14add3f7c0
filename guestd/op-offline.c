/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* OFFLINE: the whole set or nothing. Where every block was before is in items[], highest address first. Where
 * each target is a set of its own they go one after the other, and one that does not go ends the run: those
 * before it stay offline (n_kept), and only its own blocks are put back.
 *
 *     WORKING --all offline--> answered, pledged
 *      ^ |--ASSISTING: something helps (op-assist.c)
 *      `-+--'
 *        |--failed, deadline, cancelled, session lost--> PUTTING_BACK --all online--> answered
 *                                                          |  ^--pause-- PAUSING (a few times)
 *                                                          `--tried often enough--> answered: "is left
 * offline"
 *
 * A part of the deadline is kept for putting back. If that does not suffice, or the kernel holds the worker
 * where no signal ends it, the answer is given at the deadline and the run goes on without an audience: the
 * host's next request is told "busy" until the blocks are as they were. */

#include "guestd/ops-internal.h"

#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"

/* An estimate of bringing one block back, which an emulated guest still meets. */
#define PUT_BACK_BLOCK_USEC 10000ULL

static void put_back(struct ops *ops);

/* Also huge pages that it gave up are as before. */
static void finish(struct ops *ops)
{
        if (!assist_restore(ops))
                run_finish(ops);
}

static void fail_left_offline(struct ops *ops, const char *words)
{
        struct op_run *run = &ops->run;
        struct error error;

        for (size_t i = run->n_kept; i < run->n_items; i++) {
                uint32_t number = run->items[i].block;
                enum block_state state = blocks_refresh(ops->blocks, number);

                if (state == BLOCK_ONLINE || state == BLOCK_ABSENT)
                        continue;
                log_warning("Block memory%u %s", number, words);
                error_set(&error, ERROR_BLOCK_FAILED, "Block memory%u %s", number, words);
                run_fail(ops, number, &error);
        }
}

static void pause_run(struct ops *ops)
{
        ops->run.phase = PHASE_PAUSING;
        loop_timer_arm(ops->loop, &ops->run.timer, now_monotonic_usec() + OPS_PUT_BACK_PAUSE_USEC);
}

static void on_put_back_done(struct worker *w, void *userdata)
{
        struct ops *ops = userdata;
        struct op_run *run = &ops->run;

        /* The reasons of a try are noted only if it was the last: put_back() looks. */
        size_t n_failures = run->n_failures;
        bool failed = run->failed;
        bool done = run_work_done(ops);

        if (!done && run->tries < OPS_PUT_BACK_TRIES) {
                run->n_failures = n_failures;
                run->failed = failed;
                pause_run(ops);
                return;
        }
        put_back(ops);
}

/* One try for all blocks that are not online. */
static void put_back(struct ops *ops)
{
        static const struct worker_handlers handlers = { .on_done = on_put_back_done };
        struct op_run *run = &ops->run;
        struct worker_limits limits = { .stop_at_usec = now_monotonic_usec() + OPS_PUT_BACK_USEC };

        run->phase = PHASE_PUTTING_BACK;
        free(steal_pointer(run->back_items));
        run->n_back_items = 0;
        run->back_items = calloc(MAX(run->n_items, (size_t)1), sizeof(*run->back_items));
        for (size_t i = run->n_kept; run->back_items && i < run->n_items; i++) {
                enum block_state state = blocks_refresh(ops->blocks, run->items[i].block);
                if (state != BLOCK_ONLINE && state != BLOCK_ABSENT)
                        run->back_items[run->n_back_items++] = run->items[i];
        }
        if (run->back_items && run->n_back_items == 0) {
                finish(ops);
                return;
        }
        if (run->tries++ < OPS_PUT_BACK_TRIES) {
                if (run->back_items && run_work(ops, WORK_ONLINE, run->back_items, run->n_back_items, &limits,
                                               &handlers) >= 0)
                        loop_timer_arm(ops->loop, &run->timer, run->deadline_usec);
                else
                        pause_run(ops);
                return;
        }
        fail_left_offline(ops, "is left offline: it did not go back online");
        /* Not for good: it is tried again some time after the session, or now if there is none. */
        pledge_add(ops, run->back_items, run->n_back_items);
        if (!ops->session)
                pledge_on_session(ops, false);
        finish(ops);
}

/* The set of this item does not go. Those before it are the host's now, unless nobody waits for the answer.
 */
static void keep_sets_before(struct ops *ops, size_t item)
{
        struct op_run *run = &ops->run;
        size_t n = MIN(item, run->n_items - 1);

        if (!run->each || run->id == 0)
                return;
        /* n_set counts down within a set. */
        while (n > 0 && run->items[n - 1].n_set == run->items[n].n_set + 1)
                n--;
        run->n_kept = n;
        for (size_t i = 0; i < n; i++)
                if (blocks_state(ops->blocks, run->items[i].block) != BLOCK_OFFLINE)
                        (void)blocks_refresh(ops->blocks, run->items[i].block);
        pledge_add(ops, run->items, n);
}

void offline_undo(struct ops *ops, size_t item)
{
        keep_sets_before(ops, item);
        put_back(ops);
}

void put_back_begin(struct ops *ops, struct work_item *items, size_t n_items)
{
        ops->run.op = OP_OFFLINE;
        ops->run.items = items;
        ops->run.n_items = n_items;
        ops->run.deadline_usec = USEC_INFINITY;
        put_back(ops);
}

static void on_worker_done(struct worker *w, void *userdata)
{
        struct ops *ops = userdata;
        struct op_run *run = &ops->run;
        size_t item = run->n_offline + worker_n_done(w);
        struct error error;

        if ((worker_n_failures(w) > 0 || item < run->n_items) && assist_begin(ops))
                return;
        bool done = run_work_done(ops) && run->stopped != ERROR_INTERRUPTED;
        stall_reset(ops);
        /* The kernel told of each, and would have told of one that went online again. */
        for (size_t i = 0; i < run->n_items && done; i++)
                if (blocks_state(ops->blocks, run->items[i].block) != BLOCK_OFFLINE &&
                        blocks_refresh(ops->blocks, run->items[i].block) != BLOCK_OFFLINE) {
                        error_set(&error, ERROR_BLOCK_FAILED, "Block memory%u did not stay offline",
                                run->items[i].block);
                        run_fail(ops, run->items[i].block, &error);
                        item = i;
                        done = false;
                }
        if (done && run->id > 0) {
                pledge_add(ops, run->items, run->n_items);
                debt_account(ops);
                ops_be_quiet(ops); /* while the device is removed */
                run_finish(ops);
                return;
        }
        offline_undo(ops, item);
}

static void on_progress(struct worker *w, size_t n_done, void *userdata)
{
        struct ops *ops = userdata;
        uint64_t block_bytes = ops->blocks->block_bytes;

        run_progress(ops, (ops->run.n_offline + n_done) * block_bytes, ops->run.n_items * block_bytes);
}

/* Counts down the items of each set. Both items and targets are in the order of addresses. */
static void number_sets(struct ops *ops)
{
        struct op_run *run = &ops->run;
        size_t target = 0, n = 0;

        for (size_t i = run->n_items; i-- > 0;) {
                uint64_t address = run->items[i].block * ops->blocks->block_bytes;

                while (run->each && address - run->targets[target].start >= run->targets[target].length) {
                        target++;
                        n = 0;
                }
                run->items[i].n_set = (uint32_t)++n;
        }
}

/* Looks at every block before any is touched. 0: items[] is filled; -EINVAL: failures are noted. */
static int survey(struct ops *ops)
{
        struct op_run *run = &ops->run;
        struct error error;

        TARGETS_FOREACH (ops->blocks, run->targets, run->n_targets, number) {
                /* As the kernel has told; a block that it tells of too late fails in the walk, or is done.
                 * What is offline already is in no walk, so it is looked at before the host takes it. */
                enum block_state state = blocks_state(ops->blocks, number);
                if (state == BLOCK_OFFLINE)
                        state = blocks_refresh(ops->blocks, number);
                enum zone zone = blocks_zone(ops->blocks, number);

                if (state == BLOCK_ABSENT) {
                        error_set(&error, ERROR_BLOCK_MISSING, "Block memory%u does not exist", number);
                        run_fail(ops, number, &error);
                } else if (state != BLOCK_OFFLINE && zone == ZONE_NONE) {
                        error_set(&error, ERROR_BLOCK_UNREMOVABLE,
                                "Block memory%u cannot go offline: the kernel names no zone for it", number);
                        run_fail(ops, number, &error);
                } else if (state != BLOCK_OFFLINE)
                        run->items[run->n_items++] = (struct work_item) { number, zone };
        }
        /* Highest first: what was added last holds the least, and what stays behind is in one piece. */
        for (size_t i = 0; i < run->n_items / 2; i++) {
                struct work_item t = run->items[i];
                run->items[i] = run->items[run->n_items - 1 - i];
                run->items[run->n_items - 1 - i] = t;
        }
        number_sets(ops);
        return run->failed ? -EINVAL : 0;
}

int offline_walk(struct ops *ops)
{
        static const struct worker_handlers handlers = { .on_done = on_worker_done,
                .on_progress = on_progress };
        struct op_run *run = &ops->run;
        uint64_t span = run->deadline_usec - run->began_usec, quarter = span / 4;
        uint64_t went = run->n_offline * PUT_BACK_BLOCK_USEC;
        struct worker_limits limits = {
                .attempt_usec = run->attempt_usec,
                .stop_at_usec = run->deadline_usec - MIN(OPS_RESERVE_USEC, quarter) - MIN(went, quarter),
                .stop_per_item_usec = PUT_BACK_BLOCK_USEC,
                .stop_items_max_usec = quarter - MIN(went, quarter),
                .migrates = run->assisted & ASSIST_RECLAIM,
        };

        run->phase = PHASE_WORKING;
        int r = run_work(ops, WORK_OFFLINE, run->items + run->n_offline, run->n_items - run->n_offline,
                &limits, &handlers);
        if (r >= 0)
                stall_watch(ops);
        return r;
}

void offline_begin(struct ops *ops)
{
        struct op_run *run = &ops->run;
        struct error error;

        run->phase = PHASE_WORKING;
        debt_note(ops);
        run->items = calloc(
                targets_bytes(run->targets, run->n_targets) / ops->blocks->block_bytes, sizeof(*run->items));
        int r = run->items ? 0 : -ENOMEM;
        if (r >= 0 && (survey(ops) < 0 || run->n_items == 0)) {
                run_finish(ops);
                return;
        }
        if (r >= 0)
                r = offline_walk(ops);
        if (r < 0) {
                error_set_errno(&error, r == -ENOMEM || r == -EAGAIN ? ERROR_NO_HEADROOM : ERROR_INTERNAL, r,
                        "The guest cannot start a process to take blocks offline");
                ops->link.failure(run->id, &error, ops->userdata);
                run_reset(ops);
                return;
        }
        loop_timer_arm(ops->loop, &run->timer, run->deadline_usec);
}

void offline_stop(struct ops *ops, enum error_code why)
{
        struct op_run *run = &ops->run;

        if (why == ERROR_INTERRUPTED)
                run->id = 0;
        if (run->phase != PHASE_WORKING && run->phase != PHASE_ASSISTING && run->phase != PHASE_RESTORING)
                return;
        if (run->stopped == ERROR_NONE || why == ERROR_INTERRUPTED)
                run->stopped = why;
        worker_kill(run->worker, why);
}

static void fail_stuck(struct ops *ops)
{
        struct op_run *run = &ops->run;
        size_t n_done = run->phase == PHASE_WORKING ? worker_n_done(run->worker) : 0;
        size_t i = MIN(run->n_offline + n_done, run->n_items - 1);
        struct error error;

        error_set(&error, ERROR_BLOCK_FAILED,
                "Block memory%u: the kernel does not return from taking it offline", run->items[i].block);
        run_fail(ops, run->items[i].block, &error);
        keep_sets_before(ops, i);
}

void offline_on_timer(struct ops *ops)
{
        struct op_run *run = &ops->run;

        if (run->phase == PHASE_PAUSING)
                put_back(ops);
        else if (run->id > 0) {
                if (run->phase == PHASE_WORKING || run->phase == PHASE_ASSISTING)
                        fail_stuck(ops);
                fail_left_offline(ops, "is not back online yet");
                run_answer(ops);
        }
}
