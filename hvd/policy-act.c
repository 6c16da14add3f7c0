/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What was decided, as jobs, and what came of them. A decision names whole granules; the partition's
 * mechanisms may have only other sizes, so that the nearest one is asked for that breaks no promise. */

#include <inttypes.h>
#include <stdio.h>

#include "common/log.h"
#include "common/size.h"
#include "common/text.h"
#include "hvd/memory/auto.h"
#include "hvd/policy-internal.h"
#include "hvd/pool.h"

/* Memory that is late is of little use, and what does not leave soon is not cheap. */
#define GROW_WAIT_USEC   (60 * USEC_PER_SEC)
#define SHRINK_WAIT_USEC (30 * USEC_PER_SEC)
/* Until what has no fitting size is looked at again. */
#define UNFIT_USEC (30 * USEC_PER_SEC)

/* What does not fit is cut between characters: it goes on the bus. */
#define SAY(p, ...)                                                                                          \
        (snprintf((p)->policy.outcome, sizeof((p)->policy.outcome), __VA_ARGS__),                            \
                text_clean((p)->policy.outcome, sizeof((p)->policy.outcome), (p)->policy.outcome))

/* 1 if a job is under way; 0 if not, and the outcome says why. */
static bool submit(struct partition *p, struct job_request *request, enum policy_action action)
{
        struct error error;
        struct job *j;

        if (manager_submit(p->manager, p, NULL, request, &j, &error) < 0) {
                SAY(p, "%s", error.message);
                return false;
        }
        SAY(p, "job %" PRIu32 " for %s", j->id, SIZE(request->bytes));
        p->policy.job = j->id;
        p->policy.action = action;
        p->policy.decision = 0; /* until it is stored */
        return true;
}

/* A little more than was decided, where there is no such size, but never above max or what is free. */
static void grow(struct partition *p, const struct policy_partition *view, const struct policy_decision *d)
{
        struct job_request request = { .kind = JOB_ADD_MEMORY, .node = -1, .wait_usec = GROW_WAIT_USEC };
        uint64_t bytes = d->target_bytes - view->current_bytes, below, above;
        uint64_t room = view->max_bytes - MIN(view->claimed_bytes, view->max_bytes);

        auto_nearest(p, &request, bytes, &below, &above);
        request.bytes = below;
        if (below < bytes && above <= MIN(2 * bytes, room) && pool_check(p->manager, above, NULL) >= 0)
                request.bytes = above;
        if (request.bytes == 0)
                SAY(p, "nothing of about %s can be added to it", SIZE(bytes));
        if (request.bytes > 0 && submit(p, &request, POLICY_GROW))
                return;
        p->policy.n_failures++;
        p->policy.failed_usec = now_monotonic_usec();
}

/* What it keeps, whatever size its devices have: what was decided, or less where its promises allow that. */
static uint64_t kept_bytes(
        const struct policy_partition *view, const struct policy_history *h, const struct policy_decision *d)
{
        uint64_t keep = MAX(view->min_bytes, view->floor_bytes);
        uint64_t held = MAX(h->held_bytes[0], h->held_bytes[1]);
        bool is_need = d->cause == POLICY_RULE_ABOVE_SHARE || d->cause == POLICY_RULE_HOST_PRESSURE;

        if (is_need)
                held = MAX(d->share_bytes, h->asked_least_bytes);
        keep = MAX(keep, held);
        if (d->cause == POLICY_RULE_IDLE)
                keep = MAX(keep, view->desired_bytes);
        return MIN(keep, d->target_bytes);
}

static void shrink(struct partition *p, const struct policy_partition *view, const struct policy_history *h,
        const struct policy_decision *d)
{
        struct job_request request = { .kind = JOB_REMOVE_MEMORY, .node = -1, .wait_usec = SHRINK_WAIT_USEC };
        uint64_t bytes = view->current_bytes - d->target_bytes, below, above;
        uint64_t spare = view->current_bytes - MIN(kept_bytes(view, h, d), view->current_bytes);

        if (view->sample.has_removable)
                spare = MIN(spare, view->sample.removable_bytes);
        auto_nearest(p, &request, bytes, &below, &above);
        request.bytes = below < bytes && above <= spare ? above : below;
        uint64_t left = view->current_bytes - MIN(request.bytes, view->current_bytes);
        p->policy.history.asked_in_use_bytes = h->asked_taxed_bytes - MIN(left, h->asked_taxed_bytes);
        if (request.bytes == 0)
                SAY(p, "its devices have no size that it could spare: the smallest that can leave has %s",
                        above == UINT64_MAX ? "none" : SIZE(above));
        /* Not its refusal: the devices are what they are. */
        if (request.bytes == 0 || !submit(p, &request, POLICY_SHRINK))
                p->policy.unfit_until_usec = now_monotonic_usec() + UNFIT_USEC;
}

void policy_act(struct policy_runner *r, size_t i)
{
        const struct policy_round *round = &r->round;
        const struct policy_partition *view = &round->partitions[i];
        const struct policy_decision *d = &round->decisions[i];
        struct partition *p = round->subjects[i];

        if (d->action == POLICY_KEEP) {
                if (p->policy.job == 0)
                        p->policy.outcome[0] = '\0';
        } else if (view->mode != POLICY_MODE_AUTO)
                SAY(p, "only observed");
        else if (d->action == POLICY_GROW)
                grow(p, view, d);
        else
                shrink(p, view, &round->after[i], d);
}

/* A guest that was asked and gave nothing; not one whose QEMU failed, nor one that an operator spared. */
static bool is_refusal(const struct job *j)
{
        if (j->done_bytes > 0 || j->state == JOB_DONE || j->stop == JOB_STOP_CANCEL)
                return false;
        for (size_t i = 0; i < j->n_reasons; i++)
                switch (j->reasons[i].error.code) {
                case ERROR_HYPERVISOR_ABSENT:
                case ERROR_HYPERVISOR_REFUSED:
                case ERROR_HYPERVISOR_SILENT:
                case ERROR_HYPERVISOR_MISBEHAVED:
                case ERROR_NOT_RUNNING:
                case ERROR_CANCELLED:
                case ERROR_INTERNAL:
                        return false;
                default:
                        break;
                }
        return true;
}

void policy_take_result(struct policy_runner *r, struct partition *p, const struct job *j)
{
        struct partition_policy *s = &p->policy;
        uint64_t now = now_monotonic_usec();

        s->job = 0;
        if (s->action == POLICY_SHRINK && j->done_bytes > 0)
                policy_history_gave(&s->history);
        else if (s->action == POLICY_SHRINK && is_refusal(j))
                policy_history_refused(&s->history, now);
        else if (s->action == POLICY_GROW && j->done_bytes == 0 && j->state != JOB_DONE) {
                s->n_failures++;
                s->failed_usec = now;
        } else if (s->action == POLICY_GROW)
                s->n_failures = 0;
        SAY(p, "job %" PRIu32 ": %s, %s of %s in %" PRIu64 " ms%s%s", j->id, job_state_to_string(j->state),
                SIZE(j->done_bytes), SIZE(j->request.bytes), job_elapsed_usec(j) / USEC_PER_MSEC,
                j->n_reasons > 0 ? ": " : "", j->n_reasons > 0 ? j->reasons[0].error.message : "");
        policy_tell_outcome(r, p);
}
