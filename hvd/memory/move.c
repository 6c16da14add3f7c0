/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Memory moved from one partition (the job's) to another (its peer).
 *
 *     REMOVE (a leg on the one) -> ADD (a leg on the other) -> COUNT -> [RETURN (a leg on the one)] -> end
 *
 * The second leg is of exactly what the first one freed, or, where the receiver's mechanisms cannot be given
 * so odd a size, of the nearest below. What did not arrive goes back, or stays in the pool, as it was asked
 * for; before that QEMU is asked what the receiver has now, as a device that its guest did not confirm is
 * plugged all the same. Free before allocating: at no moment do the two have more than they had. What went
 * where is said in notes, to the byte. */

#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/memory/auto.h"
#include "hvd/memory/mechanism.h"
#include "hvd/request.h"

#define RETURN_USEC (60 * USEC_PER_SEC)

struct move {
        struct job *job;
        enum { REMOVE, ADD, COUNT, RETURN } step;
        struct partition_refresh *refresh;
        uint64_t peer_had_bytes;
        uint64_t arrived_bytes, returned_bytes; /* what the one and the other have, by QEMU's account */
};

static void fail(struct move *w, const struct error *error)
{
        job_add_reason(w->job, NULL, UINT64_MAX, error);
}

static bool start_leg(struct move *w, struct partition *p, enum job_kind kind, uint64_t bytes,
        uint64_t to_bytes, uint64_t mop_up_usec)
{
        struct job *j = w->job;
        struct job_request request = j->request;
        struct error error;

        request.kind = kind;
        request.bytes = bytes;
        /* What did not all arrive has come back in part already. */
        request.all_or_nothing &= mop_up_usec == 0;
        if (job_start_leg(j, p, request_mechanism(p, &request), &request, to_bytes, mop_up_usec, &error) >= 0)
                return true;
        fail(w, &error);
        return false;
}

/* True: the job is over. */
static bool settle_account(struct move *w)
{
        struct job *j = w->job;
        uint64_t in_pool = j->freed_bytes - MIN(j->freed_bytes, w->arrived_bytes + w->returned_bytes);

        if (j->request.dry_run || j->freed_bytes == 0)
                return true;
        job_add_note(j,
                "of the %s that left %s, %s is with %s, %s is back with %s and %s is free in the pool",
                SIZE(j->freed_bytes), j->partition_name, SIZE(w->arrived_bytes), j->peer_name,
                SIZE(w->returned_bytes), j->partition_name, SIZE(in_pool));
        /* For the account that is kept: what the giver is without. */
        j->freed_bytes -= MIN(j->freed_bytes, w->returned_bytes);
        j->transit_bytes = 0;
        return true;
}

static bool give_back(struct move *w)
{
        struct job *j = w->job;
        uint64_t rest = j->freed_bytes - MIN(j->freed_bytes, w->arrived_bytes);

        /* What arrived and is not confirmed as well. */
        j->transit_bytes = j->freed_bytes - MIN(j->freed_bytes, j->done_bytes);
        w->step = RETURN;
        if (rest == 0 || j->request.return_to_pool)
                return settle_account(w);
        if (start_leg(w, j->partition, JOB_ADD_MEMORY, rest, 0, RETURN_USEC))
                return false;
        return settle_account(w);
}

static void on_counted(struct partition *p, const struct error *error, void *userdata)
{
        struct move *w = userdata;
        uint64_t has = partition_current_bytes(p), more = has - MIN(has, w->peer_had_bytes);

        w->refresh = NULL;
        if (!p->platform_up)
                w->arrived_bytes = 0;
        else if (!error)
                w->arrived_bytes = MIN(more, w->job->freed_bytes);
        if (give_back(w))
                job_finish(w->job);
}

/* What the receiver has now: nothing if its QEMU is gone. */
static bool count(struct move *w, uint64_t confirmed_bytes)
{
        struct job *j = w->job;

        w->step = COUNT;
        w->arrived_bytes = j->peer->platform_up ? confirmed_bytes : 0;
        j->done_bytes = w->arrived_bytes;
        if (w->arrived_bytes >= j->freed_bytes)
                return give_back(w);
        if (j->peer->platform_up &&
                partition_refresh(j->peer, REFRESH_HYPERVISOR, on_counted, w, &w->refresh, NULL) >= 0)
                return false;
        return give_back(w);
}

static bool add(struct move *w)
{
        struct job *j = w->job;
        struct job_request request = j->request;
        uint64_t below, above;
        struct error error;

        request.kind = JOB_ADD_MEMORY;
        auto_nearest(j->peer, &request, j->freed_bytes, &below, &above);
        w->step = ADD;
        w->peer_had_bytes = partition_current_bytes(j->peer);
        /* An odd size that it cannot be given at all: then the mechanism says why. */
        if (start_leg(w, j->peer, JOB_ADD_MEMORY, below ?: j->freed_bytes, j->request.bytes, 0))
                return false;
        error_set(&error, ERROR_INTERNAL, "Nothing is added to %s", j->peer_name);
        fail(w, &error);
        return count(w, 0);
}

static bool on_dry_leg(struct move *w)
{
        struct job *j = w->job;

        if (w->step == REMOVE && j->n_reasons == 0) {
                w->step = ADD;
                return !start_leg(w, j->peer, JOB_ADD_MEMORY, j->request.bytes, 0, 0);
        }
        return true;
}

static bool move_on_leg_ended(struct job *j, const struct job *leg)
{
        struct move *w = j->work;

        if (j->request.dry_run)
                return on_dry_leg(w);
        switch (w->step) {
        case REMOVE:
                j->freed_bytes = j->transit_bytes = leg->done_bytes;
                if (j->freed_bytes == 0)
                        return true;
                /* One that was stopped gives nothing further. */
                return j->stop == JOB_STOP_NO ? add(w) : give_back(w);
        case ADD:
                j->movable_bytes = leg->movable_bytes;
                j->kernel_bytes = leg->kernel_bytes;
                j->transit_bytes -= MIN(j->transit_bytes, leg->done_bytes);
                return count(w, leg->done_bytes);
        default:
                w->returned_bytes = leg->done_bytes;
                return settle_account(w);
        }
}

static int move_check(const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        return 0; /* of each of the two: request_check() */
}

static int check_both(struct job *j, struct error *ret_error)
{
        struct job_request add = j->request;

        add.kind = JOB_ADD_MEMORY;
        int r = partition_check_usable(j->partition, ret_error);
        if (r >= 0)
                r = request_check_profile(j->partition, JOB_REMOVE_MEMORY, j->request.bytes, ret_error);
        if (r >= 0)
                r = partition_check_usable(j->peer, ret_error);
        if (r >= 0)
                r = request_check_profile(j->peer, JOB_ADD_MEMORY, j->request.bytes, ret_error);
        /* Nothing is to leave that the other could not take. */
        return r < 0 ? r : request_mechanism(j->peer, &add)->check(j->peer, &add, ret_error);
}

static void move_start(struct job *j)
{
        struct error error;
        struct move *w = calloc(1, sizeof(*w));

        if (w) {
                w->job = j;
                j->work = w;
                if (check_both(j, &error) >= 0) {
                        if (start_leg(w, j->partition, JOB_REMOVE_MEMORY, j->request.bytes,
                                    j->request.bytes / 2, 0))
                                return;
                        job_finish(j);
                        return;
                }
        } else
                error_set(&error, ERROR_INTERNAL, "Out of memory");
        job_add_reason(j, NULL, UINT64_MAX, &error);
        job_finish(j);
}

static void move_stop(struct job *j)
{
        /* Counting takes a moment, and what is freed must come to rest. */
        job_stop_leg(j);
}

static void move_free(struct job *j)
{
        struct move *w = j->work;

        partition_refresh_free(w->refresh);
        free(w);
}

const struct mechanism mechanism_move = {
        .method = "auto",
        .kind = JOB_MOVE_MEMORY,
        .check = move_check,
        .start = move_start,
        .stop = move_stop,
        .free_work = move_free,
        .on_leg_ended = move_on_leg_ended,
};
