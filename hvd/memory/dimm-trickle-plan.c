/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which devices a removal within a time is about, and which of them are to leave by what is known at the
 * moment. */

#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/memory/dimm-trickle.h"
#include "hvd/memory/mechanism.h"
#include "hvd/memory/removal.h"

int trickle_check_survey(const struct partition *p, struct error *ret_error)
{
        const struct message_hello *hello = agent_hello(p->agent);

        if (!hello || survey_is_possible(p))
                return 0;
        return error_set(ret_error, ERROR_AGENT_TOO_OLD,
                "%s in the guest cannot say what its pages are, which a removal within a time needs; "
                "update guestd, or remove without --within",
                hello->agent);
}

static bool may_leave(const struct dimm_trickle *w, const struct plan_device *d, size_t index,
        const struct plan_snapshot *s, const struct plan_remove *chosen)
{
        const struct job_request *request = &w->job->request;
        const struct device *before = w->n_devices > 0 ? &w->devices[w->n_devices - 1] : NULL;

        if (removal_names_device(request))
                return index == chosen->devices[0];
        return d->is_dimm && d->removable && (request->node < 0 || d->node == (unsigned)request->node) &&
               d->size_bytes > 0 && d->size_bytes % s->granule_bytes == 0 &&
               d->address % PROTO_BLOCK_MIN == 0 &&
               (!before || d->address >= before->address + before->size_bytes);
}

int trickle_plan_first(struct dimm_trickle *w, struct error *ret_error)
{
        struct job *j = w->job;
        const struct platform_snapshot *from = &j->partition->snapshot;
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;
        struct plan_remove chosen;

        int r = mechanism_check_job(j, ret_error);
        if (r >= 0)
                r = trickle_check_survey(j->partition, ret_error);
        if (r >= 0)
                r = removal_resolve(j->partition, &j->request, ret_error);
        if (r >= 0)
                r = removal_plan(j->partition, &j->request, NULL, NULL, j->request.bytes, &s, &devices,
                        &chosen, ret_error);
        if (r < 0)
                return r;
        for (size_t i = 0; i < s.n_devices && w->n_devices < PLAN_DEVICES_MAX; i++) {
                const struct plan_device *d = &devices[i];

                if (!may_leave(w, d, i, &s, &chosen))
                        continue;
                struct device *mine = &w->devices[w->n_devices++];
                *mine = (struct device) {
                        .job = j,
                        .address = d->address,
                        .size_bytes = d->size_bytes,
                        .was_kernel = d->kernel_bytes > 0,
                };
                memcpy(mine->id, from->devices[i].id, sizeof(mine->id));
                memcpy(mine->backend, from->devices[i].memdev, sizeof(mine->backend));
        }
        job_add_plan(j,
                "look at the pages of %zu devices again and again, take blocks offline as they become "
                "cheap, and unplug each device that is wholly offline",
                w->n_devices);
        if (chosen.total_bytes < j->request.bytes)
                removal_add_shortfall(j, chosen.total_bytes, chosen.kept_bytes);
        return chosen.total_bytes < j->request.bytes && j->request.all_or_nothing ? 1 : 0;
}

void trickle_plan(struct dimm_trickle *w)
{
        struct job *j = w->job;
        _cleanup_free_ struct block_survey *blocks = calloc(w->survey.n_blocks + 1, sizeof(*blocks));
        _cleanup_free_ struct plan_device *devices = NULL;
        char *excluded[PLAN_DEVICES_MAX + 1];
        uint64_t settled = trickle_sum_of(w, DEVICE_GONE) + trickle_sum_of(w, DEVICE_UNPLUGGING);
        struct survey weighed = w->survey;
        struct plan_snapshot s;
        struct plan_remove chosen = { 0 };
        size_t n_excluded = 0;

        if (!blocks)
                return; /* as in the round before */
        weighed.blocks = blocks;
        if (w->survey.n_blocks > 0)
                memcpy(blocks, w->survey.blocks, w->survey.n_blocks * sizeof(*blocks));
        w->n_planned = 0;
        for (size_t i = 0; i < w->n_devices; i++) {
                struct device *d = &w->devices[i];

                d->planned = false;
                if (now_monotonic_usec() >= d->rests_until_usec)
                        d->failure = (struct error) { 0 };
                if (d->state != DEVICE_WATCHED)
                        excluded[n_excluded++] = d->id;
                else if (now_monotonic_usec() < d->rests_until_usec)
                        trickle_avoid(&weighed, d->address, d->size_bytes);
                else if (d->offline_bytes > 0)
                        trickle_prefer(&weighed, d->address, d->size_bytes);
        }
        excluded[n_excluded] = NULL;
        if (settled >= j->request.bytes ||
                removal_plan(j->partition, &j->request, excluded, &weighed, j->request.bytes - settled, &s,
                        &devices, &chosen, NULL) < 0)
                return;
        for (size_t k = 0; k < chosen.n_devices; k++)
                for (size_t i = 0; i < w->n_devices; i++)
                        if (strcmp(w->devices[i].id, s.devices[chosen.devices[k]].id) == 0) {
                                w->devices[i].planned = true;
                                w->n_planned++;
                        }
}
