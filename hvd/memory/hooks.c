/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A job's dealings with its guest's hooks.
 *
 *     BEFORE (CHECK, PRE) -> AT_WORK (the mechanism's) -> AFTER (POST or UNDO) -> TOLD
 *
 * After PRE was sent, whatever it came to, the guest hears POST or UNDO exactly once; if it is out of reach
 * it sees to that by itself. At most one request is under way: while it is, the mechanism has none. */

#include "hvd/memory/hooks.h"

#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "common/text.h"
#include "hvd/job.h"
#include "hvd/manager.h"
#include "hvd/memory/guest.h"

/* For all hooks together, at the end. */
#define AFTER_USEC (60 * USEC_PER_SEC)
/* The same for a job that was stopped: it goes on without it, and the guest with its hooks. */
#define HURRIED_USEC USEC_PER_SEC
#define SETTLE_USEC  (60 * USEC_PER_SEC)
/* For blocks that the guest has not shown yet: they may be of what is to be settled, or never come. */
#define AWAIT_USEC (10 * USEC_PER_SEC)

struct job_hooks {
        struct job *job;
        enum { BEFORE, AT_WORK, AFTER, TOLD } step;
        enum hook_phase phase;
        bool pre_sent;
        void (*go_on)(struct job *j);
        struct guest_call *call;
        sd_event_source *hurry;
};

struct job_hooks *job_hooks_free(struct job_hooks *h)
{
        if (!h)
                return NULL;
        /* Of a job that was taken away. */
        if (h->pre_sent && h->step != TOLD && !h->job->partition->is_leaving)
                h->job->partition->hooks_owed_usec = now_monotonic_usec();
        guest_call_free(h->call);
        sd_event_source_disable_unref(h->hurry);
        free(h);
        return NULL;
}

static bool are_there(const struct partition *p)
{
        return agent_state(p->agent) == AGENT_READY && agent_hello(p->agent)->hooks &&
               partition_guest_can(p, PROTO_CAPABILITY_HOOKS);
}

/* --- what they say --- */

static bool is_said(const struct job *j, const char *message)
{
        for (size_t i = 0; i < j->n_reasons; i++)
                if (strcmp(j->reasons[i].error.message, message) == 0)
                        return true;
        return false;
}

/* What does not stop a dry run is no reason of it: it belongs to the plan. */
static void say(struct job *j, const struct error *error)
{
        if (is_said(j, error->message))
                return;
        if (j->request.dry_run && error->code == ERROR_HOOK_SKIPPED)
                job_add_plan(j, "%s", error->message);
        else
                job_add_reason(j, NULL, UINT64_MAX, error);
}

static void say_results(struct job_hooks *h, const struct message_reply *reply)
{
        const char *phase = hook_phase_to_string(h->phase);
        struct error error;

        for (size_t i = 0; i < reply->n_hooks; i++) {
                const struct hook_result *r = &reply->hooks[i];
                const char *which = r->name[0] ? "Hook " : "Hooks";

                /* One that is not run is so in every phase. */
                if (r->error.code == ERROR_HOOK_SKIPPED)
                        error_set(&error, r->error.code, "%s%s: %s", which, r->name, r->error.message);
                else
                        error_set(&error, r->error.code, "%s%s, %s: %s", which, r->name, phase,
                                r->error.message);
                say(h->job, &error);
        }
        if (reply->complete || reply->n_hooks > 0 || h->job->stop != JOB_STOP_NO)
                return;
        error_set(
                &error, ERROR_HOOK_FAILED, "The guest's hooks failed in phase %s, and do not say why", phase);
        say(h->job, &error);
}

static void say_failure(struct job_hooks *h, const struct error *error)
{
        struct error local;

        if (error->code == ERROR_CANCELLED || error->code == ERROR_DEADLINE)
                return;
        error_set(&local, error->code, "Hooks, %s: %.400s", hook_phase_to_string(h->phase), error->message);
        say(h->job, &local);
}

/* --- asking --- */

static enum hook_outcome outcome_of(const struct job *j)
{
        if (j->done_bytes >= j->request.bytes)
                return HOOK_OUTCOME_DONE;
        if (j->done_bytes > 0)
                return HOOK_OUTCOME_PARTIAL;
        if (j->stop == JOB_STOP_NO)
                return HOOK_OUTCOME_FAILED;
        return j->stop == JOB_STOP_CANCEL ? HOOK_OUTCOME_CANCELLED : HOOK_OUTCOME_DEADLINE;
}

static void fill(const struct job_hooks *h, struct message_request *q)
{
        const struct job *j = h->job;
        bool after = h->step == AFTER;

        *q = (struct message_request) {
                .op = OP_HOOK,
                .bytes = j->request.bytes,
                .hook = {
                        .phase = h->phase,
                        .operation = j->request.kind == JOB_ADD_MEMORY ? HOOK_ADD : HOOK_REMOVE,
                        .outcome = after ? outcome_of(j) : HOOK_OUTCOME_NONE,
                        .has_node = j->request.node >= 0,
                        .node = j->request.node >= 0 ? (unsigned)j->request.node : 0,
                        .job = j->id,
                        .done_bytes = after ? MIN(j->done_bytes, PROTO_ADDRESS_MAX - 1) : 0,
                },
        };
        const char *why = "operator";
        if (after && q->hook.outcome == HOOK_OUTCOME_DONE)
                why = "";
        else if (after)
                why = j->n_reasons > 0 ? j->reasons[0].error.message
                                       : hook_outcome_to_string(q->hook.outcome);
        text_clean(q->hook.reason, sizeof(q->hook.reason), why);
}

static void on_reply(const struct message_reply *reply, const struct error *error, void *userdata);

static int ask(struct job_hooks *h, enum hook_phase phase, uint64_t deadline_usec, struct error *ret_error)
{
        struct message_request request;

        h->phase = phase;
        fill(h, &request);
        int r = guest_call_start(h->job, &request, deadline_usec, on_reply, NULL, h, &h->call, ret_error);
        if (r >= 0 && phase == HOOK_PRE)
                h->pre_sent = true;
        return r;
}

static void told(struct job_hooks *h)
{
        h->step = TOLD;
        job_finish(h->job);
}

static void on_before(struct job_hooks *h, bool yes)
{
        struct job *j = h->job;
        struct error error;

        if (yes && h->phase == HOOK_CHECK && !j->request.dry_run) {
                if (ask(h, HOOK_PRE, j->deadline_usec, &error) >= 0)
                        return;
                say_failure(h, &error);
                yes = false;
        }
        h->step = AT_WORK;
        if (yes)
                h->go_on(j);
        else
                job_finish(j);
}

static void on_reply(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct job_hooks *h = userdata;

        h->call = NULL;
        if (error)
                say_failure(h, error);
        else
                say_results(h, reply);
        if (h->step == AFTER)
                told(h);
        else
                on_before(h, reply && reply->complete && h->job->stop == JOB_STOP_NO);
}

bool hooks_before(struct job *j, void (*go_on)(struct job *j))
{
        struct error error;

        if (!are_there(j->partition))
                return false;
        struct job_hooks *h = calloc(1, sizeof(*h));
        if (!h) {
                error_set(&error, ERROR_INTERNAL, "Out of memory");
                say(j, &error);
                job_finish(j);
                return true;
        }
        *h = (struct job_hooks) { .job = j, .step = BEFORE, .go_on = go_on };
        j->hooks = h;
        if (ask(h, HOOK_CHECK, j->deadline_usec, &error) < 0) {
                say_failure(h, &error);
                h->step = AT_WORK;
                job_finish(j);
        }
        return true;
}

/* --- the end --- */

static int on_hurry(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct job_hooks *h = userdata;
        struct error error;

        h->call = guest_call_free(h->call);
        error_set(&error, ERROR_HOOK_FAILED,
                "The guest's hooks are still at work (%s); the job does not wait for them",
                hook_phase_to_string(h->phase));
        say(h->job, &error);
        told(h);
        return 0;
}

static void hurry(struct job_hooks *h)
{
        if (!h->hurry && sd_event_add_time_relative(manager_event(h->job->manager), &h->hurry,
                                 CLOCK_MONOTONIC, HURRIED_USEC, 0, on_hurry, h) < 0)
                log_debug("Job %u waits for its guest's hooks", h->job->id);
}

bool hooks_after(struct job *j)
{
        struct job_hooks *h = j->hooks;
        struct error error;

        if (!h || h->step == TOLD || !h->pre_sent)
                return false;
        if (h->step == AFTER)
                return true;
        h->step = AFTER;
        /* One that is out of reach settles by itself. */
        if (!are_there(j->partition) || ask(h, j->done_bytes > 0 ? HOOK_POST : HOOK_UNDO,
                                                now_monotonic_usec() + AFTER_USEC, &error) < 0) {
                h->step = TOLD;
                return false;
        }
        if (j->stop != JOB_STOP_NO)
                hurry(h);
        return true;
}

bool hooks_is_ending(const struct job *j)
{
        return j->hooks && j->hooks->step == AFTER;
}

bool hooks_stop(struct job *j)
{
        struct job_hooks *h = j->hooks;

        if (!h || !h->call)
                return false;
        if (h->step == AFTER)
                hurry(h);
        else
                guest_call_stop(h->call);
        return true;
}

void hooks_on_session(struct partition *p)
{
        /* The job goes on, and its end tells them. */
        const struct job *j = job_at_work(p);
        bool goes_on = j && j->hooks && j->hooks->pre_sent;

        p->hooks_owed_usec = goes_on ? 0 : now_monotonic_usec();
}

/* The guest decides between POST and UNDO by its memory, so a restore comes first: it may complete what is to
 * be settled. */
uint64_t hooks_on_settled(struct partition *p)
{
        struct message_request request = {
                .op = OP_HOOK,
                .bytes = 1,
                .deadline_msec = SETTLE_USEC / USEC_PER_MSEC,
                .hook = { .phase = HOOK_SETTLE },
        };
        uint64_t until = p->hooks_owed_usec + AWAIT_USEC, now = now_monotonic_usec();

        if (p->hooks_owed_usec == 0 || p->active || agent_state(p->agent) != AGENT_READY)
                return 0;
        if (p->settle_restore && now < until && are_there(p))
                return until - now;
        p->hooks_owed_usec = 0;
        if (!are_there(p))
                return 0;
        int r = agent_call(p->agent, &request, SETTLE_USEC, NULL, NULL, NULL, NULL, NULL);
        if (r < 0)
                log_debug("Partition '%s': its hooks are not told: %s", p->definition.name,
                        strerrordesc_np(-r));
        return 0;
}
