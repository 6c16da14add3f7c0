/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ONLINE and AWAIT_REMOVED: requests that wait for the kernel. The answer leaves with the uevent of the last
 * block, so blocks are counted rather than looked at again: n_pending is the number of target blocks that are
 * not as wanted, and each change of a target moves it by one. Being woken for each would cost a guest of one
 * CPU a quarter of the time that the addition takes, so it waits in quiet: uevents gather in the monitor, and
 * are looked at when a bell rings for the last block of a target, and now and then.
 *
 * ONLINE: a new block is usually brought up by the kernel itself (PREPARE set auto_online_blocks), a moment
 * after it was added. One that stays offline for the settle time after the last change gets a worker:
 *
 *     WAITING --settle--> WORKING --done--> WAITING (or answered: all online, failed too often, deadline) */

#include "guestd/ops-internal.h"

#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "guestd/zones.h"

#define WORK_TRIES 3U
/* With nobody else who would bring the blocks up: long enough to take in the events of one addition. */
#define GATHER_USEC 5000ULL
/* Between two looks, when no bell rings: also for progress, and for a device that QEMU plugs out of order. */
#define LOOK_USEC 100000ULL

static bool as_wanted(const struct op_run *run, enum block_state state)
{
        return state == (run->op == OP_ONLINE ? BLOCK_ONLINE : BLOCK_ABSENT);
}

static void arm(struct ops *ops)
{
        struct op_run *run = &ops->run;
        uint64_t at = run->deadline_usec;

        if (run->settle_at_usec > 0)
                at = MIN(at, run->settle_at_usec);
        else if (ops->bell)
                at = MIN(at, now_monotonic_usec() + LOOK_USEC);
        loop_timer_arm(ops->loop, &run->timer, at);
}

/* Some blocks are offline: since before the request if at_once. The settle time begins. */
static void settle(struct ops *ops, bool at_once)
{
        struct op_run *run = &ops->run;
        char value[AUTO_ONLINE_MAX];
        bool kernel_onlines =
                blocks_get_auto_online(ops->blocks, value) >= 0 && strcmp(value, "offline") != 0;

        run->settle_usec = kernel_onlines ? ops->config.settle_usec : GATHER_USEC;
        run->settle_at_usec = now_monotonic_usec() + (at_once && !kernel_onlines ? 0 : run->settle_usec);
        arm(ops);
}

static void fail_online(struct ops *ops, uint32_t number, enum block_state state, enum error_code why)
{
        struct op_run *run = &ops->run;
        struct error error;

        if (state == BLOCK_ONLINE) {
                enum zone zone = blocks_zone(ops->blocks, number);

                /* A block that spans zones ("none") cannot leave again any more than one of the kernel's. */
                if (zone == run->zone || (zone == ZONE_NONE && run->zone == ZONE_KERNEL))
                        return;
                error_set(&error, ERROR_ZONE_MISMATCH, "Block memory%u is online in zone %s, not %s", number,
                        zone_to_string(zone), zone_to_string(run->zone));
        } else if (run_has_failure(ops, number))
                return;
        else if (why == ERROR_CANCELLED)
                error_set(&error, why, "Block memory%u is %s; the request was cancelled", number,
                        block_state_to_string(state));
        else if (state == BLOCK_ABSENT)
                error_set(
                        &error, ERROR_BLOCK_MISSING, "Block memory%u has not appeared in the guest", number);
        else
                error_set(&error, why == ERROR_NONE ? ERROR_BLOCK_FAILED : why,
                        "Block memory%u is still offline", number);
        run_fail(ops, number, &error);
}

static void finish(struct ops *ops, enum error_code why)
{
        struct op_run *run = &ops->run;
        struct error error;

        /* What a worker noted for a block that came up after all is no failure. */
        if (run->n_pending == 0) {
                run->n_failures = 0;
                run->failed = false;
        }

        if (run->op == OP_ONLINE)
                zones_learn(ops->config.proc_fd, ops->blocks);
        TARGETS_FOREACH (ops->blocks, run->targets, run->n_targets, number) {
                enum block_state state = blocks_state(ops->blocks, number);

                if (run->op == OP_ONLINE)
                        fail_online(ops, number, state, why);
                else if (!as_wanted(run, state)) {
                        error_set(&error, why, "Block memory%u is still there, %s", number,
                                block_state_to_string(state));
                        run_fail(ops, number, &error);
                }
        }
        run_finish(ops);
}

void wait_recount(struct ops *ops)
{
        struct op_run *run = &ops->run;
        bool any_offline = false;

        if (run->phase != PHASE_WAITING)
                return;
        run->n_pending = run->n_blocks = 0;
        TARGETS_FOREACH (ops->blocks, run->targets, run->n_targets, number) {
                enum block_state state = blocks_state(ops->blocks, number);

                run->n_blocks++;
                run->n_pending += !as_wanted(run, state);
                any_offline |= state == BLOCK_OFFLINE || state == BLOCK_CHANGING;
        }
        if (run->n_pending == 0)
                finish(ops, ERROR_NONE);
        else if (run->op == OP_ONLINE && any_offline)
                settle(ops, true);
        else
                arm(ops);
}

/* The last blocks of targets of which some block is not as wanted. Devices come in the order of their
 * addresses, so one is enough then; they leave in any order. */
static size_t list_last_blocks(struct ops *ops, uint32_t last[static BELL_BLOCKS_MAX])
{
        const struct op_run *run = &ops->run;
        size_t n = 0, max = run->op == OP_ONLINE ? 1 : BELL_BLOCKS_MAX;

        for (size_t i = run->n_targets; i-- > 0 && n < max;) {
                bool pending = false;

                TARGETS_FOREACH (ops->blocks, &run->targets[i], 1, number)
                        pending |= !as_wanted(run, blocks_state(ops->blocks, number));
                if (pending)
                        last[n++] = (uint32_t)((run->targets[i].start + run->targets[i].length) /
                                               ops->blocks->block_bytes) -
                                    1;
        }
        return n;
}

/* What the kernel said before it is in the monitor; its own event may not be yet. */
static void on_ring(uint32_t block, void *userdata)
{
        struct ops *ops = userdata;

        monitor_drain(ops->monitor);
        /* It may have changed again, as by an administrator. */
        if (ops->bell)
                ops_on_block(ops, block,
                        ops->run.op == OP_ONLINE ? sysfs_read_state(ops->blocks->memory_fd, block)
                                                 : BLOCK_ABSENT);
}

void wait_begin(struct ops *ops)
{
        struct op_run *run = &ops->run;
        uint32_t last[BELL_BLOCKS_MAX];

        run->phase = PHASE_WAITING;
        ops_listen(ops);
        wait_recount(ops);
        if (run->phase != PHASE_WAITING || !ops->monitor)
                return;
        if (bell_new(ops->loop, run->op == OP_ONLINE ? BLOCK_ONLINE : BLOCK_ABSENT, last,
                    list_last_blocks(ops, last), on_ring, ops, &ops->bell) < 0)
                return;
        ops_be_quiet(ops);
        arm(ops);
        monitor_drain(ops->monitor); /* what came before there was a bell */
}

void wait_on_block(struct ops *ops, uint32_t number, enum block_state before, enum block_state after)
{
        struct op_run *run = &ops->run;

        if (!targets_contain(run->targets, run->n_targets, number * ops->blocks->block_bytes))
                return;
        run->n_pending += !as_wanted(run, after);
        run->n_pending -= !as_wanted(run, before);
        if (run->n_pending == 0) {
                finish(ops, ERROR_NONE);
                return;
        }
        uint64_t block_bytes = ops->blocks->block_bytes;
        run_progress(ops, (run->n_blocks - run->n_pending) * block_bytes, run->n_blocks * block_bytes);
        if (run->op != OP_ONLINE)
                return;
        if (run->settle_at_usec == 0 && after == BLOCK_OFFLINE)
                settle(ops, false);
        else if (run->settle_at_usec > 0) {
                /* Something still moves: the kernel is at it. */
                run->settle_at_usec = now_monotonic_usec() + run->settle_usec;
                arm(ops);
        }
}

void wait_stop(struct ops *ops, enum error_code why)
{
        struct op_run *run = &ops->run;

        if (run->phase == PHASE_WORKING) {
                run->stopped = why;
                worker_kill(run->worker, why);
                return;
        }
        /* Events may have been lost: a verdict is worth a look. */
        run->n_pending = 0;
        TARGETS_FOREACH (ops->blocks, run->targets, run->n_targets, number) {
                run->n_pending += !as_wanted(run, blocks_refresh(ops->blocks, number));
        }
        finish(ops, why);
}

static void on_worker_done(struct worker *w, void *userdata)
{
        struct ops *ops = userdata;
        struct op_run *run = &ops->run;

        bool done = run_work_done(ops);
        for (size_t i = 0; i < run->n_items; i++)
                if (blocks_refresh(ops->blocks, run->items[i].block) != BLOCK_ONLINE)
                        done = false;
        free(steal_pointer(run->items));
        run->n_items = 0;

        run->phase = PHASE_WAITING;
        run->settle_at_usec = 0;
        if (run->stopped != ERROR_NONE) {
                wait_stop(ops, run->stopped);
                return;
        }
        if (!done && ++run->tries >= WORK_TRIES) {
                wait_stop(ops, ERROR_NONE);
                return;
        }
        if (!done) {
                /* Only the last try's reasons count. */
                run->n_failures = 0;
                run->failed = false;
        }
        wait_recount(ops);
        if (!done && run->phase == PHASE_WAITING && run->settle_at_usec > 0) {
                run->settle_at_usec = now_monotonic_usec() + ops->config.settle_usec;
                arm(ops);
        }
}

static void bring_up(struct ops *ops)
{
        static const struct worker_handlers handlers = { .on_done = on_worker_done };
        struct op_run *run = &ops->run;
        struct worker_limits limits = { .stop_at_usec = run->deadline_usec };

        /* Now guestd is the cause of the events. */
        if (ops->bell) {
                ops->bell = bell_free(ops->bell);
                ops->quiet = false;
                monitor_resume(ops->monitor);
                if (run->phase != PHASE_WAITING)
                        return;
        }
        run->settle_at_usec = 0;
        run->items = calloc(run->n_blocks, sizeof(*run->items));
        if (!run->items) {
                wait_stop(ops, ERROR_INTERNAL);
                return;
        }
        run->n_items = 0;
        TARGETS_FOREACH (ops->blocks, run->targets, run->n_targets, number) {
                enum block_state state = blocks_state(ops->blocks, number);
                if (state == BLOCK_OFFLINE || state == BLOCK_CHANGING)
                        run->items[run->n_items++] = (struct work_item) { number, run->zone };
        }
        if (run->n_items > 0) {
                run->phase = PHASE_WORKING;
                if (run_work(ops, WORK_ONLINE, run->items, run->n_items, &limits, &handlers) >= 0) {
                        loop_timer_arm(ops->loop, &run->timer, run->deadline_usec);
                        return;
                }
                run->phase = PHASE_WAITING;
        }
        free(steal_pointer(run->items));
        if (run->n_items > 0 && ++run->tries >= WORK_TRIES)
                wait_stop(ops, ERROR_INTERNAL);
        else if (run->n_items > 0)
                settle(ops, false);
        else
                arm(ops);
}

void wait_on_timer(struct ops *ops)
{
        struct op_run *run = &ops->run;

        if (ops->bell) {
                monitor_drain(ops->monitor);
                if (run->phase != PHASE_WAITING)
                        return;
        }
        if (now_monotonic_usec() >= run->deadline_usec) {
                /* At work and still not back: the worker kills its child then, and sits where no signal ends
                 * it. The answer cannot wait. */
                if (run->phase == PHASE_WORKING)
                        run->phase = PHASE_WAITING;
                wait_stop(ops, ERROR_DEADLINE);
        } else if (run->phase == PHASE_WAITING && run->settle_at_usec > 0 &&
                   now_monotonic_usec() >= run->settle_at_usec)
                bring_up(ops);
        else if (run->phase == PHASE_WAITING)
                arm(ops);
}
