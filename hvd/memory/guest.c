/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One request to a job's guest. It is in one of three states: sent, and awaiting its reply (call is set); the
 * session broke, and it waits for the same boot (or any, see is_for_any_boot()) to speak again (waiter is on
 * the partition's list, patience is armed); or the guest is busy, and it is sent again soon (again is armed).
 * Once asked to stop, patience limits the wait for the reply. */

#include "hvd/memory/guest.h"

#include <assert.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/manager.h"

/* How much longer than the guest's own deadline we wait for its word. */
#define REPLY_GRACE_USEC (1500 * USEC_PER_MSEC)
/* How long a guestd that was killed may take to come back: its service manager restarts it within a second.
 */
#define PATIENCE_USEC (10 * USEC_PER_SEC)
#define RETRIES_MAX   3U
#define BUSY_USEC     (50 * USEC_PER_MSEC)
/* How long the guest may take to stop: it ends an attempt at once, and puts back what it had taken offline.
 */
#define STOP_USEC (5 * USEC_PER_SEC)
/* What does not leave is brought back, and looked at for the reason: the deadline is that of all of it, and
 * so the guest stops trying so much before, or an eighth of its time. */
#define BRING_BACK_USEC (500 * USEC_PER_MSEC)

struct guest_call {
        struct agent_waiter waiter; /* first */
        struct job *job;
        struct message_request request; /* targets owned */
        uint64_t deadline_usec;
        guest_reply_t on_reply;
        guest_progress_t on_progress;
        void *userdata;

        struct agent_call *call;
        uint64_t request_id;
        char boot_id[64];
        unsigned n_retries;
        bool waiting, stopped;
        struct error broken; /* why the session ended */
        sd_event_source *patience, *again;
};

static int send_cancel(const struct guest_call *c)
{
        struct message_request cancel = { .op = OP_CANCEL, .target_id = c->request_id };

        return agent_call(c->job->partition->agent, &cancel, STOP_USEC, NULL, NULL, NULL, NULL, NULL);
}

/* Whether what it begins nobody would end where its job is taken away: blocks stay offline for as long as the
 * session lasts. */
static bool is_beginning(const struct guest_call *c)
{
        return c->request.op == OP_OFFLINE ||
               (c->request.op == OP_HOOK &&
                       (c->request.hook.phase == HOOK_CHECK || c->request.hook.phase == HOOK_PRE));
}

struct guest_call *guest_call_free(struct guest_call *c)
{
        if (!c)
                return NULL;
        bool goes_on = c->call && !c->stopped;
        agent_call_free(c->call);
        if (goes_on && is_beginning(c) && !c->job->partition->is_leaving)
                (void)send_cancel(c);
        if (c->waiting)
                c->job->partition->waiter = NULL;
        sd_event_source_disable_unref(c->patience);
        sd_event_source_disable_unref(c->again);
        free(c->request.targets);
        free(c);
        return NULL;
}

static void complete(struct guest_call *c, const struct message_reply *reply, const struct error *error)
{
        guest_reply_t on_reply = c->on_reply;
        void *userdata = c->userdata;
        struct error copy;

        if (error)
                copy = *error;
        guest_call_free(c);
        on_reply(reply, error ? &copy : NULL, userdata);
}

static int on_patience(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct guest_call *c = userdata;

        complete(c, NULL, &c->broken);
        return 0;
}

static int await_session(struct guest_call *c)
{
        uint64_t until = MIN(now_monotonic_usec() + PATIENCE_USEC, c->deadline_usec);
        int r = sd_event_add_time(
                manager_event(c->job->manager), &c->patience, CLOCK_MONOTONIC, until, 0, on_patience, c);
        if (r < 0)
                return r;
        assert(!c->job->partition->waiter);
        c->job->partition->waiter = &c->waiter;
        c->waiting = true;
        return 0;
}

static void on_agent_reply(const struct message_reply *reply, const struct error *error, void *userdata);

static void on_agent_progress(uint64_t done_bytes, uint64_t total_bytes, void *userdata)
{
        struct guest_call *c = userdata;

        if (c->on_progress)
                c->on_progress(done_bytes, c->userdata);
}

static int send_request(struct guest_call *c)
{
        uint64_t now = now_monotonic_usec();
        uint64_t left = c->deadline_usec > now ? c->deadline_usec - now : 0;
        bool timed = c->request.op == OP_ONLINE || c->request.op == OP_OFFLINE ||
                     c->request.op == OP_AWAIT_REMOVED || c->request.op == OP_RECLAIM ||
                     c->request.op == OP_HOOK;

        uint64_t trying = left;

        if (c->request.op == OP_OFFLINE && !c->request.gentle)
                trying -= MIN(left / 8, BRING_BACK_USEC);
        if (timed)
                c->request.deadline_msec = MAX(trying / USEC_PER_MSEC, 1ULL);
        return agent_call(c->job->partition->agent, &c->request, left + REPLY_GRACE_USEC, on_agent_reply,
                on_agent_progress, c, &c->call, &c->request_id);
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct guest_call *c = userdata;

        c->again = sd_event_source_disable_unref(c->again);
        if (c->stopped || send_request(c) < 0)
                complete(c, NULL, &c->broken);
        return 0;
}

/* Whether another boot's word is as good: that it has no such blocks. All else was begun in the boot before.
 */
static bool is_for_any_boot(const struct guest_call *c)
{
        return c->request.op == OP_AWAIT_REMOVED;
}

/* A reply that is not the last word: the request is, or will be, sent again. */
static bool is_retried(struct guest_call *c, const struct error *error)
{
        if (c->stopped)
                return false;
        bool again = error->code == ERROR_AGENT_RESTARTED ||
                     (error->code == ERROR_GUEST_RESET && is_for_any_boot(c));
        if (again && c->job->partition->platform_up && c->n_retries++ < RETRIES_MAX) {
                c->broken = *error;
                return await_session(c) >= 0;
        }
        /* guestd answers by the deadline, but may still be putting blocks back from the request before. */
        if (error->code == ERROR_BUSY && now_monotonic_usec() + BUSY_USEC < c->deadline_usec) {
                c->broken = *error;
                return sd_event_add_time_relative(manager_event(c->job->manager), &c->again, CLOCK_MONOTONIC,
                               BUSY_USEC, 0, on_again, c) >= 0;
        }
        return false;
}

static void on_agent_reply(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct guest_call *c = userdata;

        c->call = NULL;
        if (!error || !is_retried(c, error))
                complete(c, reply, error);
}

static void on_session(struct agent_waiter *w)
{
        struct guest_call *c = (struct guest_call *)w;
        struct agent *agent = c->job->partition->agent;

        c->waiting = false;
        c->patience = sd_event_source_disable_unref(c->patience);
        if (!is_for_any_boot(c) && strcmp(agent_hello(agent)->boot_id, c->boot_id) != 0) {
                error_set(&c->broken, ERROR_GUEST_RESET,
                        "The guest was restarted while it worked on the request");
                complete(c, NULL, &c->broken);
                return;
        }
        log_debug("Partition '%s': %s is sent again to the new session", c->job->partition_name,
                op_to_string(c->request.op));
        if (send_request(c) < 0)
                complete(c, NULL, &c->broken);
}

static void on_gone(struct agent_waiter *w, const struct error *error)
{
        struct guest_call *c = (struct guest_call *)w;

        c->waiting = false;
        complete(c, NULL, error);
}

int guest_call_start(struct job *j, const struct message_request *request, uint64_t deadline_usec,
        guest_reply_t on_reply, guest_progress_t on_progress, void *userdata, struct guest_call **ret,
        struct error *ret_error)
{
        const struct partition *p = j->partition;
        struct agent *agent = p->agent;
        bool ready = agent_state(agent) == AGENT_READY;

        /* A session that was lost since the job began may come back, as one does that is lost in the middle;
         * after a reset of the guest none does. */
        bool lost = agent_state(agent) == AGENT_WAITING && agent_hello(agent) && p->platform_up &&
                    p->n_resets == p->session_resets;
        if (!ready && !lost) {
                struct error error;
                agent_explain(agent, &error);
                return error_set(ret_error, error.code, "%s", error.message);
        }
        struct guest_call *c = calloc(1, sizeof(*c));
        if (!c)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        *c = (struct guest_call) {
                .waiter = { .on_ready = on_session, .on_gone = on_gone },
                .job = j,
                .request = *request,
                .deadline_usec = deadline_usec,
                .on_reply = on_reply,
                .on_progress = on_progress,
                .userdata = userdata,
        };
        memcpy(c->boot_id, agent_hello(agent)->boot_id, sizeof(c->boot_id));
        c->request.targets = NULL;
        if (request->n_targets > 0) {
                c->request.targets = calloc(request->n_targets, sizeof(*c->request.targets));
                if (!c->request.targets) {
                        guest_call_free(c);
                        return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
                }
                memcpy(c->request.targets, request->targets,
                        request->n_targets * sizeof(*c->request.targets));
        }

        if (!ready)
                agent_explain(agent, &c->broken);
        int r = ready ? send_request(c) : await_session(c);
        if (r < 0) {
                guest_call_free(c);
                return error_set_errno(ret_error, ERROR_AGENT_ABSENT, r, "%s could not be sent to the guest",
                        op_to_string(request->op));
        }
        *ret = c;
        return 0;
}

void guest_call_stop(struct guest_call *c)
{
        if (c->stopped)
                return;
        c->stopped = true;
        if (!c->call) {
                /* Not from inside this call: let the waiting end now. */
                sd_event_source_set_time(c->waiting ? c->patience : c->again, 0);
                return;
        }

        int r = send_cancel(c);
        if (r >= 0)
                r = sd_event_add_time_relative(manager_event(c->job->manager), &c->patience, CLOCK_MONOTONIC,
                        STOP_USEC, 0, on_patience, c);
        if (r < 0)
                log_debug("Partition '%s': '%s' is waited for: %s", c->job->partition_name,
                        op_to_string(c->request.op), strerrordesc_np(-r));
        error_set(&c->broken, ERROR_AGENT_SILENT, "The guest was asked to stop '%s' and did not answer",
                op_to_string(c->request.op));
}
