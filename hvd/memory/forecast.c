/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A removal's forecast, and its post-mortem. Owns nothing: the survey is its caller's, and the words go into
 * the job's plan and reasons. Nothing here decides what counts as done. */

#include "hvd/memory/forecast.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/memory/removal.h"

static bool may_leave(const struct job *j, const struct platform_device *d)
{
        return d->is_dimm && d->hotpluggable && !d->unplug_pending && d->region_bytes > 0 &&
               (j->request.node < 0 || d->node == (unsigned)j->request.node);
}

bool forecast_is_wanted(const struct job *j)
{
        const struct platform_snapshot *s = &j->partition->snapshot;
        uint64_t bytes = 0;

        if (j->request.dry_run)
                return true;
        if (!survey_is_possible(j->partition) || removal_names_device(&j->request))
                return false;
        for (size_t i = 0; i < s->n_devices; i++)
                if (may_leave(j, &s->devices[i]))
                        bytes += s->devices[i].region_bytes;
        return bytes > j->request.bytes;
}

int forecast_start(
        struct job *j, survey_answer_t done, void *userdata, struct survey_ask **ret, struct error *ret_error)
{
        const struct platform_snapshot *s = &j->partition->snapshot;
        _cleanup_free_ struct mem_range *targets = calloc(s->n_devices + 1, sizeof(*targets));
        size_t n = 0;

        if (!targets)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        for (size_t i = 0; i < s->n_devices; i++) {
                const struct platform_device *d = &s->devices[i];

                if (!may_leave(j, d) || d->address % PROTO_BLOCK_MIN || d->region_bytes % PROTO_BLOCK_MIN ||
                        (n > 0 && d->address < targets[n - 1].start + targets[n - 1].length))
                        continue;
                targets[n++] = (struct mem_range) { d->address, d->region_bytes };
        }
        if (n == 0)
                return error_set(ret_error, ERROR_NOT_PLUGGED, "There is no device that could leave");
        return survey_start(j->partition, targets, n, j->request.dry_run ? SURVEY_THOROUGH : SURVEY_QUICK,
                done, userdata, ret, ret_error);
}

void forecast_add_step(struct job *j, const struct plan_snapshot *s, const struct plan_device *d)
{
        char cost[64] = "";

        if (d->is_surveyed && d->migrate_bytes == 0)
                snprintf(cost, sizeof(cost), ", with nothing to move");
        else if (d->is_surveyed)
                snprintf(cost, sizeof(cost), ", after moving %s", SIZE(d->migrate_bytes));
        job_add_plan(j, "take %s offline, %s at 0x%" PRIx64 "%s%s in %s%s, and unplug it", d->id,
                SIZE(d->size_bytes), d->address, s->is_pseries ? ", " : "",
                s->is_pseries ? PLAN_DRC_TEXT(d->address, d->size_bytes) : "",
                d->stuck_bytes     ? "part stuck"
                : d->kernel_bytes  ? "a kernel zone"
                : d->movable_bytes ? "zone Movable"
                                   : "no zone (offline)",
                cost);
}

bool forecast_leaves(struct job *j, const struct survey *s, const char *id, uint64_t address, uint64_t bytes)
{
        struct error error;
        uint64_t block;

        if (!survey_explain(s, address, bytes, &block, &error))
                return true;
        job_add_reason(j, id, block, &error);
        return false;
}

static bool has_reason(const struct job *j, const char *id)
{
        for (size_t i = 0; i < j->n_reasons; i++)
                if (strcmp(j->reasons[i].device, id) == 0)
                        return true;
        return false;
}

void forecast_add_rest(struct job *j, const struct survey *s, const struct error *failure)
{
        const struct platform_snapshot *from = &j->partition->snapshot;

        if (failure->code)
                job_add_plan(j, "the guest's pages were not surveyed: %s", failure->message);
        for (size_t i = 0; i < from->n_devices; i++) {
                const struct platform_device *d = &from->devices[i];
                struct error error;
                uint64_t block;

                if (may_leave(j, d) && !has_reason(j, d->id) &&
                        survey_explain(s, d->address, d->region_bytes, &block, &error))
                        job_add_plan(j, "leave %s where it is: block 0x%" PRIx64 ": %s", d->id, block,
                                error.message);
        }
}

int forecast_examine(struct job *j, const struct message_reply *reply, survey_answer_t done, void *userdata,
        struct survey_ask **ret)
{
        struct mem_range targets[PROTO_FAILURES_MAX];
        size_t n = 0;

        for (size_t i = 0; reply && i < reply->n_failures; i++) {
                const struct block_failure *f = &reply->failures[i];

                if ((f->error.code != ERROR_BLOCK_BUSY && f->error.code != ERROR_DEADLINE) ||
                        (n > 0 && f->start < targets[n - 1].start + targets[n - 1].length))
                        continue;
                targets[n++] = (struct mem_range) { f->start, f->length };
        }
        if (n == 0 || !survey_is_possible(j->partition))
                return -ENOENT;
        return survey_start(j->partition, targets, n, SURVEY_THOROUGH, done, userdata, ret, NULL);
}

/* Of a block that was emptied as far as it went, what is left is what would not move; of one that the kernel
 * refused at once all is still there, and only what cannot move tells anything. */
static void describe(const struct survey *s, const struct block_survey *b, char *buffer, size_t size)
{
        bool any = survey_obstacle(b) != PAGE_KIND_INVALID;
        size_t used = 0;

        buffer[0] = '\0';
        for (enum page_kind k = any ? PAGE_SLAB : PAGE_MOVABLE; k < PAGE_KIND_MAX && used < size; k++)
                if (b->pages[k] > 0)
                        used += (size_t)snprintf(buffer + used, size - used, "%s%" PRIu64 " %s",
                                used ? ", " : "", survey_estimate(s, b, k), page_kind_to_string(k));
}

void forecast_add_findings(struct job *j, const struct survey *s)
{
        for (size_t i = 0; i < j->n_reasons; i++) {
                struct job_reason *r = &j->reasons[i];
                uint64_t address = r->block[0] ? strtoull(r->block, NULL, 16) : UINT64_MAX;
                const struct block_survey *b = survey_find(s, address);
                char pages[160];

                if (!b || b->start != address)
                        continue;
                describe(s, b, pages, sizeof(pages));
                size_t used = strlen(r->error.message);
                if (pages[0])
                        snprintf(r->error.message + used, sizeof(r->error.message) - used,
                                "; pages left in it: %s", pages);
        }
}
