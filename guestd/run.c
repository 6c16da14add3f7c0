/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The request under way, as far as it is the same for every op: its failures, its progress, its worker and
 * its one answer. Invariant: id is 0 from the moment that the answer was given, or that nobody waits for one;
 * run_answer() is the only place that answers. */

#include "guestd/ops-internal.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"

static void run_listen(struct ops *ops)
{
        if (!ops->quiet)
                monitor_resume(ops->monitor);
}

static struct block_failure *find_failure(struct op_run *run, uint64_t address)
{
        for (size_t i = 0; i < run->n_failures; i++)
                if (address - run->failures[i].start < run->failures[i].length)
                        return &run->failures[i];
        return NULL;
}

bool run_has_failure(struct ops *ops, uint32_t block)
{
        return find_failure(&ops->run, block * ops->blocks->block_bytes);
}

void run_fail(struct ops *ops, uint32_t block, const struct error *error)
{
        struct op_run *run = &ops->run;
        uint64_t length = ops->blocks->block_bytes, start = block * length;

        run->failed = true;
        if (!run->failures)
                run->failures = calloc(PROTO_FAILURES_MAX, sizeof(*run->failures));
        if (!run->failures)
                return;
        for (size_t i = 0; i < run->n_failures; i++) {
                struct block_failure *f = &run->failures[i];

                if (f->error.code != error->code)
                        continue;
                if (f->start + f->length == start || start + length == f->start) {
                        f->start = MIN(f->start, start);
                        f->length += length;
                        return;
                }
        }
        if (run->n_failures < PROTO_FAILURES_MAX)
                run->failures[run->n_failures++] = (struct block_failure) { start, length, *error };
}

void run_progress(struct ops *ops, uint64_t done_bytes, uint64_t total_bytes)
{
        struct op_run *run = &ops->run;
        uint64_t now = now_monotonic_usec();

        if (run->id == 0 || done_bytes == run->progress_bytes ||
                now < run->progress_usec + WORKER_PROGRESS_USEC)
                return;
        run->progress_bytes = done_bytes;
        run->progress_usec = now;
        ops->link.progress(run->id, done_bytes, total_bytes, ops->userdata);
}

void run_answer(struct ops *ops)
{
        struct op_run *run = &ops->run;
        struct message_reply reply = {
                .op = run->op,
                .complete = !run->failed,
                .failures = run->failures,
                .n_failures = run->n_failures,
                .assistance = run->assistance,
        };
        struct error error;
        uint64_t id = run->id;

        if (id == 0)
                return;
        run->id = 0;
        int r = blocks_ranges_of(
                ops->blocks, run->targets, run->n_targets, PROTO_RANGES_MAX, &reply.ranges, &reply.n_ranges);
        if (r >= 0)
                r = ops->link.reply(id, &reply, ops->userdata);
        free(reply.ranges);
        if (r < 0) {
                error_set_errno(&error, ERROR_INTERNAL, r, "The answer to %s cannot be written",
                        op_to_string(run->op));
                ops->link.failure(id, &error, ops->userdata);
        }
        /* Behind the answer, which the host waits for: a log may be slow, as on a serial console. */
        log_info("%s of %s: %s after %" PRIu64 " ms%s%s", op_to_string(run->op),
                SIZE(targets_bytes(run->targets, run->n_targets)), run->failed ? "not done" : "done",
                (now_monotonic_usec() - run->began_usec) / USEC_PER_MSEC, run->n_failures > 0 ? ": " : "",
                run->n_failures > 0 ? run->failures[0].error.message : "");
}

struct assistance *run_assistance(struct ops *ops)
{
        if (!ops->run.assistance)
                ops->run.assistance = calloc(1, sizeof(*ops->run.assistance));
        return ops->run.assistance;
}

void run_drop_work(struct ops *ops)
{
        ops->run.worker = worker_free(ops->run.worker);
        run_listen(ops);
}

void run_reset(struct ops *ops)
{
        struct op_run *run = &ops->run;

        run->phase = PHASE_IDLE;
        stall_reset(ops);
        settings_restore(&ops->settings, SETTING_SWAPPINESS);
        if (run->worker)
                run_drop_work(ops);
        if (run->op == OP_OFFLINE)
                debt_end(ops);
        loop_timer_disarm(ops->loop, &run->timer);
        free(run->targets);
        free(run->items);
        free(run->back_items);
        free(run->failures);
        free(run->assistance);
        *run = (struct op_run) { .timer = run->timer };
        if (ops->bell) {
                ops->bell = bell_free(ops->bell);
                ops_listen(ops);
        }
        ops_rest(ops);
        debt_settle(ops);
        /* One that was killed is replaced before it is missed. */
        if (ops->session)
                children_keep_spare(ops->children);
}

void run_finish(struct ops *ops)
{
        run_answer(ops);
        run_reset(ops);
}

int run_work(struct ops *ops, enum work work, const struct work_item *items, size_t n_items,
        const struct worker_limits *limits, const struct worker_handlers *handlers)
{
        monitor_pause(ops->monitor);
        int r = worker_start(
                ops->loop, ops->children, work, items, n_items, limits, handlers, ops, &ops->run.worker);
        if (r < 0)
                run_listen(ops);
        return r;
}

/* The walk ended early. NONE: not by us. */
static void note_kill(struct ops *ops, enum error_code why, uint32_t block, uint64_t attempt_usec)
{
        struct op_run *run = &ops->run;
        const char *words = why == ERROR_DEADLINE      ? "the time was over"
                            : why == ERROR_BLOCK_BUSY  ? "it could not be emptied in time"
                            : why == ERROR_CANCELLED   ? "the request was cancelled"
                            : why == ERROR_INTERRUPTED ? "the session ended"
                                                       : "the process that took it on was killed";
        char attempt[64] = "";
        struct error error;

        if (attempt_usec > 0)
                snprintf(attempt, sizeof(attempt), ", %" PRIu64 " ms into its attempt",
                        attempt_usec / USEC_PER_MSEC);
        error_set(&error, why == ERROR_NONE ? ERROR_BLOCK_FAILED : why, "Block memory%u: %s%s", block, words,
                attempt);
        if (why == ERROR_BLOCK_BUSY && run->stall.is_gigantic && run->stall.item.block == block)
                stall_explain_gigantic(ops, block, &error);
        run_fail(ops, block, &error);
}

bool run_work_done(struct ops *ops)
{
        struct op_run *run = &ops->run;
        struct worker *w = run->worker;
        size_t n_items, n_failures = worker_n_failures(w), item;
        const struct work_item *items = worker_items(w, &n_items);
        bool done = worker_n_done(w) == n_items && n_failures == 0;
        uint64_t attempt_usec;
        struct error error;

        for (size_t i = 0; i < n_failures; i++) {
                const struct worker_failure *f = worker_failure(w, i);

                worker_explain(w, i, &error);
                if (f->is_gigantic)
                        stall_explain_gigantic(ops, items[f->item].block, &error);
                run_fail(ops, items[f->item].block, &error);
        }
        enum error_code why = worker_killed(w, &item, &attempt_usec);
        if (!done && n_failures == 0) {
                item = MIN(worker_n_done(w), n_items - 1);
                note_kill(ops, why, items[item].block, attempt_usec);
        }
        run_drop_work(ops);
        return done;
}
