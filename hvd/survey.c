/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A survey of a guest's pages. The guest answers for 256 blocks at a time; a survey is asked for until all
 * targets are seen. It is the guest's word and no more: it decides which devices are tried first and what an
 * operator is told, and nothing of what counts as done.
 *
 * Invariant: an ask has one call under way, from survey_start() until done. */

#include "hvd/survey.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"

/* For each GiB of the targets: an idle guest under emulation lets go of 1 GiB in some 100 ms, a KVM guest in
 * a fifth of that, in which it sees as many pages. */
#define QUICK_USEC_PER_GIB (2 * USEC_PER_MSEC)
#define QUICK_MIN_USEC     (2 * USEC_PER_MSEC)
/* What guestd looks for at most. */
#define THOROUGH_USEC (2 * USEC_PER_SEC)
/* What a guest may take longer than it was given: it may be short of processors. */
#define SILENT_USEC (3 * USEC_PER_SEC)

struct survey_ask {
        struct partition *partition;
        struct agent_call *call;
        struct mem_range *targets; /* from targets[first] on they are still to be asked for */
        size_t n_targets, first;
        enum survey_care care;
        uint64_t began_usec;
        struct survey survey;
        survey_answer_t done;
        void *userdata;
};

void survey_done(struct survey *s)
{
        free(s->blocks);
        *s = (struct survey) { 0 };
}

struct survey_ask *survey_ask_free(struct survey_ask *a)
{
        if (!a)
                return NULL;
        agent_call_free(a->call);
        survey_done(&a->survey);
        free(a->targets);
        free(a);
        return NULL;
}

static void complete(struct survey_ask *a, const struct error *error)
{
        survey_answer_t done = a->done;
        void *userdata = a->userdata;
        struct survey s = a->survey;

        if (!error) {
                uint64_t seen = 0, all = 0;

                for (size_t i = 0; i < s.n_blocks; i++) {
                        seen += s.blocks[i].sampled;
                        all += s.blocks[i].length / s.page_bytes;
                }
                log_debug("Partition '%s': %zu blocks surveyed in %.1f ms, %.1f %% of their pages",
                        a->partition->definition.name, s.n_blocks,
                        (double)(now_monotonic_usec() - a->began_usec) / 1000,
                        all ? 100.0 * (double)seen / (double)all : 0.0);
        }
        a->survey = (struct survey) { 0 };
        survey_ask_free(a);
        done(error ? NULL : &s, error, userdata);
        survey_done(&s);
}

static uint64_t budget(const struct survey_ask *a)
{
        uint64_t bytes = 0, most = PROTO_SURVEYS_MAX * partition_block_bytes(a->partition);

        if (a->care == SURVEY_THOROUGH)
                return THOROUGH_USEC;
        for (size_t i = a->first; i < a->n_targets && bytes < most; i++)
                bytes += a->targets[i].length;
        uint64_t usec = MIN(bytes, most) / MIB * QUICK_USEC_PER_GIB / 1024;
        usec = MAX(usec, QUICK_MIN_USEC);
        return MIN(usec, THOROUGH_USEC);
}

static void on_reply(const struct message_reply *reply, const struct error *error, void *userdata);

static int ask(struct survey_ask *a)
{
        uint64_t usec = budget(a);
        struct message_request request = {
                .op = OP_SURVEY,
                .targets = a->targets + a->first,
                .n_targets = MIN(a->n_targets - a->first, (size_t)PROTO_RANGES_MAX),
                .deadline_msec = usec / USEC_PER_MSEC,
        };

        return agent_call(
                a->partition->agent, &request, usec + SILENT_USEC, on_reply, NULL, a, &a->call, NULL);
}

/* A guest's word: blocks must be those that were asked for, and go upwards. */
static int take(struct survey_ask *a, const struct message_reply *reply, struct error *ret_error)
{
        struct survey *s = &a->survey;
        const struct mem_range *t = a->targets + a->first, *end = a->targets + a->n_targets;

        if (s->n_blocks > 0 && s->page_bytes != reply->page_bytes)
                return error_set(ret_error, ERROR_AGENT_MISBEHAVED, "guestd changes the size of its pages");
        for (size_t i = 0; i < reply->n_surveys; i++) {
                const struct block_survey *b = &reply->surveys[i];

                while (t < end && t->start + t->length <= b->start)
                        t++;
                if (t == end || b->start < t->start || b->length > t->start + t->length - b->start)
                        return error_set(ret_error, ERROR_AGENT_MISBEHAVED,
                                "guestd surveyed a block that was not asked for");
        }
        struct block_survey *grown =
                reallocarray(s->blocks, s->n_blocks + reply->n_surveys + 1, sizeof(*grown));
        if (!grown)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        s->blocks = grown;
        if (reply->n_surveys > 0)
                memcpy(grown + s->n_blocks, reply->surveys, reply->n_surveys * sizeof(*grown));
        s->n_blocks += reply->n_surveys;
        s->page_bytes = reply->page_bytes;
        return 0;
}

/* Leaves out what lies before the address. */
static void advance(struct survey_ask *a, uint64_t address)
{
        while (a->first < a->n_targets && a->targets[a->first].start + a->targets[a->first].length <= address)
                a->first++;
        struct mem_range *t = a->targets + a->first;
        if (a->first < a->n_targets && t->start < address) {
                t->length -= address - t->start;
                t->start = address;
        }
}

static void on_reply(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct survey_ask *a = userdata;
        struct error bad;

        a->call = NULL;
        if (error || take(a, reply, &bad) < 0) {
                complete(a, error ?: &bad);
                return;
        }
        if (reply->has_next)
                advance(a, reply->next);
        else if (a->n_targets - a->first > PROTO_RANGES_MAX)
                a->first += PROTO_RANGES_MAX;
        else
                a->first = a->n_targets;
        if (a->first == a->n_targets) {
                complete(a, NULL);
                return;
        }
        int r = ask(a);
        if (r < 0) {
                error_set_errno(&bad, ERROR_AGENT_ABSENT, r, "The guest could not be asked for its pages");
                complete(a, &bad);
        }
}

bool survey_is_possible(const struct partition *p)
{
        return partition_guest_can(p, PROTO_CAPABILITY_SURVEY);
}

static void ask_freep(struct survey_ask **a)
{
        survey_ask_free(*a);
}

int survey_start(struct partition *p, const struct mem_range *targets, size_t n_targets,
        enum survey_care care, survey_answer_t done, void *userdata, struct survey_ask **ret,
        struct error *ret_error)
{
        _cleanup_(ask_freep) struct survey_ask *a = NULL;
        struct error error;

        if (agent_state(p->agent) != AGENT_READY) {
                agent_explain(p->agent, &error);
                return error_set(ret_error, error.code, "%s", error.message);
        }
        if (!survey_is_possible(p))
                return error_set(ret_error, ERROR_AGENT_TOO_OLD,
                        "%s in the guest has no survey of pages; update it", agent_hello(p->agent)->agent);
        a = calloc(1, sizeof(*a));
        if (!a || !(a->targets = calloc(n_targets, sizeof(*targets))))
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        memcpy(a->targets, targets, n_targets * sizeof(*targets));
        a->partition = p;
        a->n_targets = n_targets;
        a->care = care;
        a->began_usec = now_monotonic_usec();
        a->done = done;
        a->userdata = userdata;
        int r = ask(a);
        if (r < 0)
                return error_set_errno(
                        ret_error, ERROR_AGENT_ABSENT, r, "The guest could not be asked for its pages");
        *ret = steal_pointer(a);
        return 0;
}

/* --- figures and words --- */

const struct block_survey *survey_find(const struct survey *s, uint64_t address)
{
        size_t low = 0, high = s->n_blocks;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (s->blocks[middle].start < address)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low < s->n_blocks ? &s->blocks[low] : NULL;
}

uint64_t survey_estimate(const struct survey *s, const struct block_survey *b, enum page_kind kind)
{
        return b->sampled ? b->pages[kind] * (b->length / s->page_bytes) / b->sampled : 0;
}

enum page_kind survey_obstacle(const struct block_survey *b)
{
        static const enum page_kind obstacles[] = { PAGE_PINNED, PAGE_SLAB, PAGE_TABLE, PAGE_UNMOVABLE };
        enum page_kind worst = PAGE_KIND_INVALID;

        for (size_t i = 0; i < ARRAY_SIZE(obstacles); i++)
                if (b->pages[obstacles[i]] > 0 &&
                        (worst == PAGE_KIND_INVALID || b->pages[obstacles[i]] > b->pages[worst]))
                        worst = obstacles[i];
        return worst;
}

/* Iterates over the blocks that lie in a stretch. */
static const struct block_survey *next_in(
        const struct survey *s, const struct block_survey *after, uint64_t start, uint64_t length)
{
        const struct block_survey *b = survey_find(s, after ? after->start + 1 : start);

        return b && b->start - start < length ? b : NULL;
}

void survey_apply(const struct survey *s, struct plan_device *devices, size_t n_devices)
{
        for (size_t i = 0; i < n_devices; i++) {
                struct plan_device *d = &devices[i];
                const struct block_survey *b = NULL;

                d->migrate_bytes = 0;
                d->has_obstacle = false;
                while ((b = next_in(s, b, d->address, d->size_bytes))) {
                        d->is_surveyed = true;
                        d->migrate_bytes += b->cost_bytes;
                        d->has_obstacle |= survey_obstacle(b) != PAGE_KIND_INVALID;
                }
        }
}

/* "3 slab, 120 unmovable" */
static void list_pages(const struct survey *s, const struct block_survey *b, char *buffer, size_t size)
{
        size_t used = 0;

        buffer[0] = '\0';
        for (enum page_kind k = PAGE_SLAB; k < PAGE_KIND_MAX; k++)
                if (b->pages[k] > 0 && used < size)
                        used += (size_t)snprintf(buffer + used, size - used, "%s%" PRIu64 " %s",
                                used ? ", " : "", survey_estimate(s, b, k), page_kind_to_string(k));
}

bool survey_explain(
        const struct survey *s, uint64_t start, uint64_t length, uint64_t *ret_block, struct error *ret_error)
{
        const struct block_survey *b = NULL, *worst = NULL;
        unsigned n_stuck = 0, n = 0;
        uint64_t most = 0;
        char pages[160], others[48] = "";

        while ((b = next_in(s, b, start, length))) {
                uint64_t here = 0;

                for (enum page_kind k = PAGE_SLAB; k < PAGE_KIND_MAX; k++)
                        here += survey_estimate(s, b, k);
                n++;
                n_stuck += here > 0;
                if (here > most) {
                        most = here;
                        worst = b;
                }
        }
        if (!worst)
                return false;
        bool sampled = worst->sampled < worst->length / s->page_bytes;
        enum page_kind kind = survey_obstacle(worst);
        list_pages(s, worst, pages, sizeof(pages));
        if (n_stuck > 1)
                snprintf(others, sizeof(others), "; such pages are in %u of its %u blocks", n_stuck, n);
        error_set(ret_error, kind == PAGE_PINNED ? ERROR_BLOCK_BUSY : ERROR_BLOCK_UNREMOVABLE,
                "Block memory%" PRIu64 " holds pages that do not move%s: %s%s", worst->start / worst->length,
                sampled ? ", estimated" : "", pages, others);
        *ret_block = worst->start;
        return true;
}
