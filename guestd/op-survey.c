/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* SURVEY: a child counts the pages of the targets' blocks, within a limit of time. It changes nothing, so it
 * runs beside any other request, one at a time. Its state is its own: ops.survey, which is empty when there
 * is none. */

#include "guestd/ops-internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/size.h"

/* The child looks at the clock between two reads of some microseconds; one that takes this much longer
 * hangs. */
#define SURVEY_HANG_USEC (2 * USEC_PER_SEC)

void survey_reset(struct ops *ops)
{
        struct op_survey *s = &ops->survey;

        worker_free(s->worker);
        free(s->items);
        *s = (struct op_survey) { 0 };
}

static void answer_failure(struct ops *ops, const struct error *error)
{
        uint64_t id = ops->survey.id;

        survey_reset(ops);
        ops->link.failure(id, error, ops->userdata);
}

static void answer(struct ops *ops, const struct page_counts *counts)
{
        struct op_survey *s = &ops->survey;
        uint64_t block_bytes = ops->blocks->block_bytes, id = s->id;
        struct message_reply reply = {
                .op = OP_SURVEY,
                .page_bytes = (uint64_t)sysconf(_SC_PAGESIZE),
                .n_surveys = s->n_items,
                .has_next = s->next > 0,
                .next = s->next,
        };
        struct error error;
        int r = 0;

        reply.surveys = calloc(MAX(s->n_items, (size_t)1), sizeof(*reply.surveys));
        if (!reply.surveys)
                r = -ENOMEM;
        for (size_t i = 0; r >= 0 && i < s->n_items; i++) {
                struct block_survey *b = &reply.surveys[i];

                b->start = s->items[i].block * block_bytes;
                b->length = block_bytes;
                b->sampled = counts[i].sampled;
                for (enum page_kind k = 0; k < PAGE_KIND_MAX; k++)
                        b->pages[k] = counts[i].pages[k];
                b->cost_bytes = page_counts_cost(&counts[i], block_bytes, reply.page_bytes);
        }
        if (r >= 0)
                r = ops->link.reply(id, &reply, ops->userdata);
        free(reply.surveys);
        survey_reset(ops);
        if (r < 0) {
                error_set_errno(&error, ERROR_INTERNAL, r, "The answer to survey cannot be written");
                ops->link.failure(id, &error, ops->userdata);
        }
}

static void on_done(struct worker *w, void *userdata)
{
        struct ops *ops = userdata;
        size_t item;
        uint64_t attempt_usec;
        struct error error;
        enum error_code why = worker_killed(w, &item, &attempt_usec);

        if (worker_n_done(w) == ops->survey.n_items) {
                answer(ops, worker_counts(w));
                return;
        }
        if (worker_n_failures(w) > 0)
                error_set_errno(&error, ERROR_INTERNAL, worker_failure(w, 0)->errnum,
                        "The kernel does not show what its pages are (/proc/kpageflags)");
        else if (why == ERROR_CANCELLED)
                error_set(&error, why, "The survey was cancelled");
        else
                error_set(&error, why == ERROR_DEADLINE ? why : ERROR_INTERNAL,
                        why == ERROR_DEADLINE ? "The kernel does not return from showing its pages"
                                              : "The process that surveyed the pages was killed");
        answer_failure(ops, &error);
}

/* What is online and fits into one answer. */
static void collect(struct ops *ops, const struct message_request *q)
{
        struct op_survey *s = &ops->survey;

        TARGETS_FOREACH (ops->blocks, q->targets, q->n_targets, number) {
                if (blocks_state(ops->blocks, number) != BLOCK_ONLINE)
                        continue;
                if (s->n_items == PROTO_SURVEYS_MAX) {
                        s->next = number * ops->blocks->block_bytes;
                        return;
                }
                s->items[s->n_items++] = (struct work_item) { number, blocks_zone(ops->blocks, number) };
        }
}

void survey_begin(struct ops *ops, const struct message *m)
{
        static const struct worker_handlers handlers = { .on_done = on_done };
        const struct message_request *q = &m->request;
        uint64_t now = now_monotonic_usec();
        uint64_t until = now + MIN(q->deadline_msec * USEC_PER_MSEC, OPS_SURVEY_MAX_USEC);
        struct worker_limits limits = { .stop_at_usec = until + SURVEY_HANG_USEC,
                .survey_until_usec = until };
        struct op_survey *s = &ops->survey;
        struct error error;

        int r = s->id > 0 ? error_set(&error, ERROR_BUSY, "The guest is at work: survey")
                          : blocks_check_targets(ops->blocks, q->targets, q->n_targets, &error);
        if (r < 0) {
                ops->link.failure(m->id, &error, ops->userdata);
                return;
        }
        s->id = m->id;
        s->items = calloc(PROTO_SURVEYS_MAX, sizeof(*s->items));
        if (!s->items)
                r = -ENOMEM;
        else if (faccessat(ops->config.proc_fd, "kpageflags", R_OK, 0) < 0) {
                error_set_errno(&error, ERROR_INTERNAL, errno,
                        "The guest's kernel has no /proc/kpageflags to say what its pages are");
                answer_failure(ops, &error);
                return;
        }
        if (r >= 0)
                collect(ops, q);
        if (r >= 0 && s->n_items == 0) {
                answer(ops, NULL);
                return;
        }
        if (r >= 0)
                r = worker_start(ops->loop, ops->children, WORK_SURVEY, s->items, s->n_items, &limits,
                        &handlers, ops, &s->worker);
        if (r < 0) {
                error_set_errno(
                        &error, ERROR_INTERNAL, r, "The guest cannot start a process to survey its pages");
                answer_failure(ops, &error);
        }
}

void survey_stop(struct ops *ops, enum error_code why)
{
        worker_kill(ops->survey.worker, why);
}
