/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A partition set to a total: one leg, which is the addition or the removal that leads there. */

#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/memory/auto.h"
#include "hvd/memory/mechanism.h"
#include "hvd/request.h"

struct set {
        struct job *job;
        struct partition_refresh *refresh;
};

/* What leads from the current total to the one wanted: *ret, of 0 bytes if that is there already. */
static int find_way(const struct partition *p, const struct job_request *request, struct job_request *ret,
        struct error *ret_error)
{
        uint64_t current = partition_current_bytes(p), target = request->target_bytes;
        int r = request_check_total(p, target, ret_error);

        if (r < 0)
                return r;
        *ret = *request;
        ret->kind = target < current ? JOB_REMOVE_MEMORY : JOB_ADD_MEMORY;
        ret->bytes = target < current ? current - target : target - current;
        return 0;
}

/* A mechanism speaks of what it is asked to add or to remove; the operator asked for a total. */
static void explain(
        const struct partition *p, const struct job_request *way, uint64_t target, struct error *error)
{
        uint64_t current = partition_current_bytes(p), below, above;
        bool adds = way->kind == JOB_ADD_MEMORY;
        struct error first = *error;

        if (error->code != ERROR_UNALIGNED_SIZE && error->code != ERROR_NO_EXACT_FIT &&
                error->code != ERROR_SLOT_RULE)
                return;
        auto_nearest(p, way, way->bytes, &below, &above);
        if (above == UINT64_MAX || (!adds && above > current))
                above = below;
        if (below == 0 && above == 0)
                return;
        uint64_t one = adds ? current + below : current - above;
        uint64_t other = adds ? current + above : current - below;
        error_set(error, first.code,
                "Partition '%s' has %s and cannot be set to exactly %s; the nearest totals are %s and %s "
                "(%.250s)",
                p->definition.name, SIZE_EXACT(current), SIZE_EXACT(target), SIZE_EXACT(one),
                SIZE_EXACT(other), first.message);
}

static int check_way(
        const struct partition *p, const struct job_request *way, uint64_t target, struct error *ret_error)
{
        struct error error;

        if (way->bytes == 0)
                return 0;
        int r = request_mechanism(p, way)->check(p, way, &error);
        if (r >= 0)
                return 0;
        explain(p, way, target, &error);
        return error_set(ret_error, error.code, "%s", error.message);
}

static void begin(struct set *w)
{
        struct job *j = w->job;
        struct job_request way;
        struct error error;

        int r = mechanism_check_job(j, &error);
        if (r >= 0)
                r = find_way(j->partition, &j->request, &way, &error);
        if (r >= 0)
                r = check_way(j->partition, &way, j->request.target_bytes, &error);
        if (r < 0) {
                job_add_reason(j, NULL, UINT64_MAX, &error);
                job_finish(j);
                return;
        }
        j->request.bytes = way.bytes;
        j->direction = way.kind;
        j->is_measured = true;
        if (way.bytes == 0) {
                job_add_note(j, "it has %s already: nothing to do", SIZE(j->request.target_bytes));
                job_finish(j);
                return;
        }
        if (job_start_leg(
                    j, j->partition, request_mechanism(j->partition, &way), &way, way.bytes, 0, &error) < 0) {
                job_add_reason(j, NULL, UINT64_MAX, &error);
                job_finish(j);
        }
}

static void on_looked(struct partition *p, const struct error *error, void *userdata)
{
        struct set *w = userdata;

        w->refresh = NULL;
        if (!error) {
                begin(w);
                return;
        }
        job_add_reason(w->job, NULL, UINT64_MAX, error);
        job_finish(w->job);
}

static int set_check(const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        struct job_request way;

        if (!p->has_snapshot || !p->has_memory)
                return 0;
        int r = find_way(p, request, &way, ret_error);
        return r < 0 ? r : check_way(p, &way, request->target_bytes, ret_error);
}

static void set_start(struct job *j)
{
        struct error error;
        struct set *w = calloc(1, sizeof(*w));

        if (w) {
                w->job = j;
                j->work = w;
                if (partition_is_settled(j->partition)) {
                        begin(w);
                        return;
                }
                if (partition_refresh(j->partition, REFRESH_ALL, on_looked, w, &w->refresh, &error) >= 0)
                        return;
        } else
                error_set(&error, ERROR_INTERNAL, "Out of memory");
        job_add_reason(j, NULL, UINT64_MAX, &error);
        job_finish(j);
}

static bool set_on_leg_ended(struct job *j, const struct job *leg)
{
        job_add_done(j, leg->done_bytes);
        j->movable_bytes = leg->movable_bytes;
        j->kernel_bytes = leg->kernel_bytes;
        j->looked = leg->looked;
        return true;
}

static void set_stop(struct job *j)
{
        struct set *w = j->work;

        if (job_stop_leg(j) || !w->refresh)
                return;
        w->refresh = partition_refresh_free(w->refresh);
        job_finish(j);
}

static void set_free(struct job *j)
{
        struct set *w = j->work;

        partition_refresh_free(w->refresh);
        free(w);
}

const struct mechanism mechanism_set = {
        .method = "auto",
        .kind = JOB_SET_MEMORY,
        .check = set_check,
        .start = set_start,
        .stop = set_stop,
        .free_work = set_free,
        .on_leg_ended = set_on_leg_ended,
};
