/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* HOOK: the guest's hooks are called. They run elsewhere, beside any other request, one request at a time. A
 * guest without hooks answers at once.
 *
 * Who was told that memory is about to move (PRE) must hear what became of it. If the host goes away in
 * between, and nobody goes on where it was within the grace, SETTLE tells them what the guest itself sees. */

#include "guestd/ops-internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"

#define SETTLE_USEC (60 * USEC_PER_SEC)
#define RETRY_USEC  USEC_PER_SEC

static void answer(struct ops *ops, uint64_t id, const struct hooks_answer *a)
{
        struct hook_result results[HOOKS_RESULTS_MAX];
        struct message_reply reply = { .op = OP_HOOK, .complete = true, .hooks = results };
        struct error error;

        if (a) {
                reply.complete = a->complete && a->stopped == ERROR_NONE;
                reply.n_hooks = a->n_results;
        }
        for (size_t i = 0; i < reply.n_hooks; i++) {
                memcpy(results[i].name, a->results[i].name, sizeof(results[i].name));
                error_set(&results[i].error, a->results[i].code, "%s", a->results[i].message);
        }
        int r = ops->link.reply(id, &reply, ops->userdata);
        if (r < 0) {
                error_set_errno(&error, ERROR_INTERNAL, r, "The answer to hook cannot be written");
                ops->link.failure(id, &error, ops->userdata);
        }
}

static void on_done(const struct hooks_answer *a, void *userdata)
{
        struct ops *ops = userdata;
        uint64_t id = ops->hook.id;
        struct error error;

        ops->hook = (struct op_hook) { 0 };
        if (id == 0)
                return;
        if (a) {
                answer(ops, id, a);
                return;
        }
        error_set(&error, ERROR_INTERNAL,
                "The guest's program that runs hooks does not answer; its log says more");
        ops->link.failure(id, &error, ops->userdata);
}

/* What is still ending, or still moves memory back, is what is to be settled. */
static bool settles_later(struct ops *ops)
{
        return (ops->hook.under_way && ops->hook.id == 0) || ops_busy(ops) || ops->n_pledges > 0;
}

static int run(struct ops *ops, struct hooks_request *q, uint64_t id)
{
        int r = hooks_run(ops->config.hooks, q, on_done, ops);

        if (r >= 0)
                ops->hook = (struct op_hook) { .under_way = true, .id = id, .phase = q->call.phase };
        return r;
}

void hook_begin(struct ops *ops, const struct message *m)
{
        const struct message_request *q = &m->request;
        struct hooks_request request = {
                .call = q->hook, .bytes = q->bytes, .total_usec = q->deadline_msec * USEC_PER_MSEC
        };
        enum hook_phase phase = q->hook.phase;
        bool begins = phase == HOOK_CHECK || phase == HOOK_PRE;
        struct error error;

        if (!ops->config.hooks || !hooks_any(ops->config.hooks)) {
                answer(ops, m->id, NULL);
                return;
        }
        if (phase == HOOK_SETTLE && hook_owes(ops) && settles_later(ops)) {
                loop_timer_arm(ops->loop, &ops->hook_timer, now_monotonic_usec() + RETRY_USEC);
                answer(ops, m->id, NULL);
                return;
        }
        /* What is to be settled comes first: SETTLE would take what this begins for it. */
        bool waits = begins && ops->hook_timer.armed && hooks_are_pending(ops->config.hooks);
        int r = waits ? -EBUSY : run(ops, &request, m->id);
        if (r >= 0) {
                if (begins)
                        loop_timer_disarm(ops->loop, &ops->hook_timer);
                return;
        }
        if (r == -EBUSY)
                error_set(&error, ERROR_BUSY, "The guest is at work: hook");
        else
                error_set_errno(&error, ERROR_INTERNAL, r, "The guest's hooks cannot be run");
        ops->link.failure(m->id, &error, ops->userdata);
}

void hook_stop(struct ops *ops)
{
        hooks_cancel(ops->config.hooks);
}

bool hook_owes(const struct ops *ops)
{
        return ops->hook.under_way || (ops->config.hooks && hooks_are_pending(ops->config.hooks));
}

void hook_await_session(struct ops *ops)
{
        if (hook_owes(ops))
                loop_timer_arm(ops->loop, &ops->hook_timer, now_monotonic_usec() + ops->config.grace_usec);
}

void hook_on_session(struct ops *ops, bool up)
{
        if (up) {
                /* The host says which it is: it goes on, or it says SETTLE. */
                loop_timer_disarm(ops->loop, &ops->hook_timer);
                return;
        }
        ops->hook.id = 0;
        if (ops->hook.under_way && (ops->hook.phase == HOOK_CHECK || ops->hook.phase == HOOK_PRE))
                hook_stop(ops);
        hook_await_session(ops);
}

void hook_on_timer(struct loop_timer *timer)
{
        struct ops *ops = timer->userdata;
        struct hooks_request q = { .call = { .phase = HOOK_SETTLE }, .total_usec = SETTLE_USEC };

        if (!hook_owes(ops))
                return;
        if (ops->hook.under_way || settles_later(ops)) {
                loop_timer_arm(ops->loop, timer, now_monotonic_usec() + RETRY_USEC);
                return;
        }
        log_notice("The host went away: hooks are told what became of what it began");
        int r = run(ops, &q, 0);
        if (r < 0)
                log_warning("Hooks cannot be run: %s", strerror(-r));
}
