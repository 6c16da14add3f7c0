/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a removal sets out to do: the plan at its beginning, again when the guest has made room, and for more
 * when a device did not leave. */

#include <string.h>

#include "common/size.h"
#include "hvd/memory/assist.h"
#include "hvd/memory/dimm-remove.h"
#include "hvd/memory/forecast.h"
#include "hvd/memory/hooks.h"
#include "hvd/memory/mechanism.h"
#include "hvd/memory/removal.h"

/* Plans for what is still to go, without the devices that were tried. On success they are appended as
 * PLANNED. */
static int plan_more(struct dimm_remove *w, struct error *ret_error)
{
        struct job *j = w->job;
        _cleanup_free_ struct plan_device *devices = NULL;
        char *excluded[PLAN_DEVICES_MAX + 1];
        struct plan_snapshot s;
        struct plan_remove plan;

        for (size_t i = 0; i < w->n_targets; i++)
                excluded[i] = w->targets[i].id;
        excluded[w->n_targets] = NULL;

        uint64_t left =
                j->request.bytes - MIN(j->request.bytes, dimm_remove_sum(w, TARGET_PLANNED, TARGET_GONE));
        int r = removal_plan(
                j->partition, &j->request, excluded, &w->survey, left, &s, &devices, &plan, ret_error);
        if (r < 0)
                return r;

        if (w->n_targets == 0) {
                w->kernel_bytes = s.kernel_bytes;
                w->movable_bytes = s.movable_bytes;
        }
        w->kept_bytes = plan.kept_bytes;
        for (size_t i = 0; i < plan.n_devices && w->n_targets < PLAN_DEVICES_MAX; i++) {
                const struct plan_device *d = &s.devices[plan.devices[i]];
                const struct platform_device *from = &j->partition->snapshot.devices[plan.devices[i]];
                struct target *t = &w->targets[w->n_targets++];

                *t = (struct target) {
                        .job = j,
                        .address = d->address,
                        .size_bytes = d->size_bytes,
                        .kernel_bytes = d->kernel_bytes,
                        .movable_bytes = d->movable_bytes,
                };
                w->migrate_bytes += d->migrate_bytes;
                memcpy(t->id, from->id, sizeof(t->id));
                memcpy(t->backend, from->memdev, sizeof(t->backend));
                if (j->request.dry_run && !forecast_leaves(j, &w->survey, t->id, t->address, t->size_bytes))
                        t->state = TARGET_STAYED;
                else
                        forecast_add_step(j, &s, d);
        }
        return 0;
}

void dimm_remove_try_others(struct dimm_remove *w)
{
        struct error error;

        if (w->job->stop != JOB_STOP_NO || w->gave_up || w->guest_lost)
                return;
        if (removal_names_device(&w->job->request) || plan_more(w, &error) < 0) {
                w->gave_up = w->job->request.all_or_nothing && !dimm_again_is_possible(w);
                if (!removal_names_device(&w->job->request))
                        removal_add_ratio_reason(w->job, &error);
        }
}

/* A dry run goes on as the removal would: those that stay are replaced by others, until none is left. */
static int plan_first(struct dimm_remove *w, struct error *ret_error)
{
        size_t n_before = 0, n_stayed;
        int r = plan_more(w, ret_error);

        if (r < 0 || !w->job->request.dry_run)
                return r;
        do {
                n_stayed = 0;
                for (size_t i = n_before; i < w->n_targets; i++)
                        n_stayed += w->targets[i].state == TARGET_STAYED;
                n_before = w->n_targets;
        } while (n_stayed > 0 && !removal_names_device(&w->job->request) && plan_more(w, NULL) >= 0);
        forecast_add_rest(w->job, &w->survey, &w->no_survey);
        return 0;
}

static void on_surveyed(struct survey *s, const struct error *error, void *userdata);
static bool relieve(struct dimm_remove *w);

static void go_on(struct job *j)
{
        struct dimm_remove *w = j->work;

        if (j->request.dry_run)
                job_finish(j);
        else if (!relieve(w))
                dimm_remove_pump(w);
}

static void begin(struct dimm_remove *w)
{
        struct job *j = w->job;
        struct error error;

        if (plan_first(w, &error) < 0) {
                job_add_reason(j, NULL, UINT64_MAX, &error);
                job_finish(j);
                return;
        }
        uint64_t planned = dimm_remove_sum(w, TARGET_PLANNED, TARGET_PLANNED);
        /* Where a forecast says what stays there is a reason for each device. Planned again, it was said. */
        if (planned < j->request.bytes && !dimm_remove_first(w, TARGET_STAYED) && !w->relieved)
                removal_add_shortfall(j, planned, w->kept_bytes);
        if (planned < j->request.bytes && j->request.all_or_nothing)
                job_finish(j);
        else if (w->relieved || !hooks_before(j, go_on)) /* else planned again: the hooks know already */
                go_on(j);
}

/* The guest has made room, or could not: devices that are empty now go first. */
static void on_relieved(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct dimm_remove *w = userdata;
        struct job *j = w->job;

        w->call = NULL;
        if (error || !reply->assistance) {
                dimm_remove_pump(w);
                return;
        }
        assist_add_note(j, NULL, reply);
        if (forecast_is_wanted(j) && forecast_start(j, on_surveyed, w, &w->ask, &w->no_survey) >= 0) {
                w->n_targets = 0;
                job_clear_plan(j);
                survey_done(&w->survey);
                return;
        }
        dimm_remove_pump(w);
}

/* Before anything is taken: page cache that would have to be moved is better reclaimed. False: no need. */
static bool relieve(struct dimm_remove *w)
{
        if (w->relieved)
                return false;
        w->relieved = true;
        return assist_is_wanted(w->job, w->migrate_bytes) &&
               assist_start(w->job, on_relieved, w, &w->call) >= 0;
}

/* Without a survey the removal goes on as well. */
static void on_surveyed(struct survey *s, const struct error *error, void *userdata)
{
        struct dimm_remove *w = userdata;

        w->ask = NULL;
        if (s) {
                w->survey = *s;
                *s = (struct survey) { 0 };
        } else
                w->no_survey = *error;
        begin(w);
}

void dimm_remove_on_refreshed(struct partition *p, const struct error *error, void *userdata)
{
        struct dimm_remove *w = userdata;
        struct job *j = w->job;
        struct error local;

        w->refresh = NULL;
        if (error || mechanism_check_job(j, &local) < 0 || removal_resolve(p, &j->request, &local) < 0) {
                job_add_reason(j, NULL, UINT64_MAX, error ?: &local);
                job_finish(j);
        } else if (!forecast_is_wanted(j) || forecast_start(j, on_surveyed, w, &w->ask, &w->no_survey) < 0)
                begin(w);
}
