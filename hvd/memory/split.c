/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* An addition or a removal that several mechanisms serve, a leg each, one after the other.
 *
 *     LOOK -> LEG -> LOOK -> LEG -> ... -> end      or, all or nothing and not all:  -> UNDO -> ... -> end
 *
 * Each leg is planned by what the ones before have left, and both ends are asked again before it. A mechanism
 * that fell short is not tried again, and its rest goes to the others: so a virtio-mem device that cannot
 * shrink as far as it was asked to leaves the rest to DIMMs and to the balloon. The one that is left has the
 * last word, in its reasons. A dry run goes through the shares as they were planned. */

#include <string.h>

#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/memory/auto.h"
#include "hvd/memory/headroom.h"
#include "hvd/memory/mechanism.h"

/* More than each mechanism once, and once more with what another has made possible. */
#define LEGS_MAX  8U
#define UNDO_USEC (60 * USEC_PER_SEC)

struct split_leg {
        const struct mechanism *mechanism;
        uint64_t done_bytes;
};

struct split {
        struct job *job;
        struct partition_refresh *refresh;
        struct split_leg legs[LEGS_MAX];
        size_t n_legs;
        unsigned excluded; /* mechanisms that fell short */
        struct auto_plan plan;
        size_t next_dry; /* a dry run's place in the plan */
        bool undoes;
        size_t undo; /* how many legs are still to be undone */
};

static void fail(struct split *w, const struct error *error)
{
        job_add_reason(w->job, NULL, UINT64_MAX, error);
}

static unsigned place_of(const struct mechanism *m)
{
        unsigned i = 0;

        while (mechanism_of_kind(m->kind, i) && mechanism_of_kind(m->kind, i) != m)
                i++;
        return i;
}

/* --- undoing --- */

static const struct mechanism *opposite(const struct mechanism *m)
{
        const struct mechanism *other = NULL;
        const char *method;

        mechanism_find(m->kind == JOB_ADD_MEMORY ? JOB_REMOVE_MEMORY : JOB_ADD_MEMORY, m->method, &other,
                &method, NULL);
        return other;
}

/* The last leg first. False: there is none left. */
static bool undo_next(struct split *w)
{
        struct job *j = w->job;
        struct error error;

        while (w->undo > 0) {
                struct split_leg *leg = &w->legs[--w->undo];
                const struct mechanism *m = opposite(leg->mechanism);
                struct job_request request = {
                        .kind = m->kind,
                        .bytes = leg->done_bytes,
                        .node = j->request.node,
                        .method = mechanism_name(j->partition, m),
                        .persistent = j->request.persistent,
                };

                if (leg->done_bytes == 0)
                        continue;
                job_add_note(j, "%s by %s is undone: not all of the request could be done",
                        SIZE(leg->done_bytes), mechanism_name(j->partition, leg->mechanism));
                if (job_start_leg(j, j->partition, m, &request, 0, UNDO_USEC, &error) >= 0)
                        return true;
                fail(w, &error);
        }
        return false;
}

/* No further leg. True: the job is over. */
static bool wrap_up(struct split *w)
{
        struct job *j = w->job;

        if (j->request.dry_run || !j->request.all_or_nothing || j->done_bytes >= j->request.bytes)
                return true;
        w->undoes = true;
        w->undo = w->n_legs;
        return !undo_next(w);
}

/* --- legs --- */

static bool start_leg(struct split *w, const struct mechanism *m, uint64_t bytes)
{
        struct job *j = w->job;
        struct job_request request = j->request;
        struct error error;

        request.bytes = bytes;
        request.method = mechanism_name(j->partition, m);
        w->legs[w->n_legs++] = (struct split_leg) { .mechanism = m };
        if (job_start_leg(j, j->partition, m, &request, j->done_bytes + bytes, 0, &error) >= 0)
                return true;
        fail(w, &error);
        return false;
}

/* True: one was started. */
static bool next_dry_leg(struct split *w)
{
        while (w->next_dry < w->plan.n) {
                size_t i = w->next_dry++;

                if (w->plan.shares[i] > 0)
                        return start_leg(w, w->plan.mechanisms[i], w->plan.shares[i]);
        }
        return false;
}

static bool next_leg(struct split *w)
{
        struct job *j = w->job;
        struct job_request rest = j->request;

        rest.bytes -= MIN(rest.bytes, j->done_bytes);
        if (rest.bytes == 0 || j->stop != JOB_STOP_NO || w->n_legs == LEGS_MAX)
                return false;
        if (w->n_legs > 0)
                auto_plan(j->partition, &rest, w->excluded, &w->plan);
        for (size_t i = 0; i < w->plan.n; i++)
                if (w->plan.shares[i] > 0)
                        return start_leg(w, w->plan.mechanisms[i], w->plan.shares[i]);
        return false;
}

static void on_looked_again(struct partition *p, const struct error *error, void *userdata)
{
        struct split *w = userdata;

        w->refresh = NULL;
        if (error)
                fail(w, error);
        if ((error || !next_leg(w)) && wrap_up(w))
                job_finish(w->job);
}

/* Both ends are asked before the next one is planned: what the last leg moved is not in their accounts. */
static bool look_again(struct split *w)
{
        struct error error;

        if (partition_refresh(w->job->partition, REFRESH_ALL, on_looked_again, w, &w->refresh, &error) >= 0)
                return false;
        fail(w, &error);
        return wrap_up(w);
}

static bool split_on_leg_ended(struct job *j, const struct job *leg)
{
        struct split *w = j->work;

        if (w->undoes) {
                j->done_bytes -= MIN(j->done_bytes, leg->done_bytes);
                if (j->done_bytes == 0)
                        j->movable_bytes = j->kernel_bytes = 0;
                return !undo_next(w);
        }
        if (j->request.dry_run)
                return !next_dry_leg(w);

        struct split_leg *last = &w->legs[w->n_legs - 1];
        last->done_bytes = leg->done_bytes;
        job_add_done(j, leg->done_bytes);
        j->movable_bytes += leg->movable_bytes;
        j->kernel_bytes += leg->kernel_bytes;
        if (leg->done_bytes < leg->request.bytes)
                w->excluded |= 1U << place_of(last->mechanism);
        if (j->done_bytes >= j->request.bytes || j->stop != JOB_STOP_NO)
                return wrap_up(w);
        return look_again(w);
}

/* --- the mechanism --- */

static void say_shares(struct split *w)
{
        struct job *j = w->job;

        for (size_t i = 0; i < w->plan.n; i++)
                if (w->plan.shares[i] > 0)
                        job_add_plan(j, "%s by %s", SIZE(w->plan.shares[i]),
                                mechanism_name(j->partition, w->plan.mechanisms[i]));
}

static void on_looked(struct partition *p, const struct error *error, void *userdata)
{
        struct split *w = userdata;
        struct job *j = w->job;
        struct error local;

        w->refresh = NULL;
        if (!error && mechanism_check_job(j, &local) >= 0 &&
                auto_check(p, &j->request, &w->plan, &local) >= 0) {
                say_shares(w);
                if (j->request.dry_run ? next_dry_leg(w) : next_leg(w))
                        return;
        } else
                fail(w, error ?: &local);
        job_finish(j);
}

static int split_check(const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        struct auto_plan plan;

        if (!p->has_snapshot || !p->has_memory || headroom_may_be_old(p, request))
                return 0;
        return auto_check(p, request, &plan, ret_error);
}

static void split_start(struct job *j)
{
        struct error error;
        struct split *w = calloc(1, sizeof(*w));

        if (w) {
                w->job = j;
                j->work = w;
                bool is_settled = partition_is_settled(j->partition);
                if (is_settled && j->request.kind == JOB_ADD_MEMORY) {
                        on_looked(j->partition, NULL, w);
                        return;
                }
                /* What a guest has available changes all the time. */
                if (partition_refresh(j->partition, is_settled ? REFRESH_MEMORY : REFRESH_ALL, on_looked, w,
                            &w->refresh, &error) >= 0)
                        return;
        } else
                error_set(&error, ERROR_INTERNAL, "Out of memory");
        job_add_reason(j, NULL, UINT64_MAX, &error);
        job_finish(j);
}

static void split_stop(struct job *j)
{
        struct split *w = j->work;

        if (job_stop_leg(j) || !w->refresh)
                return;
        w->refresh = partition_refresh_free(w->refresh);
        if (wrap_up(w))
                job_finish(j);
}

static void split_free(struct job *j)
{
        struct split *w = j->work;

        partition_refresh_free(w->refresh);
        free(w);
}

#define SPLIT(kind_)                                                                                         \
        {                                                                                                    \
                .method = "auto", .kind = (kind_), .check = split_check, .start = split_start,               \
                .stop = split_stop, .free_work = split_free, .on_leg_ended = split_on_leg_ended              \
        }
const struct mechanism mechanism_split_add = SPLIT(JOB_ADD_MEMORY);
const struct mechanism mechanism_split_remove = SPLIT(JOB_REMOVE_MEMORY);
