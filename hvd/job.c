/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A job: one request on its way to an end.
 *
 * QUEUED -> SURVEYING -> (PLUGGING -> ONLINING [-> WITHDRAWING] | OFFLINING <-> UNPLUGGING) -> VERIFYING ->
 * one of the ends. State changes in job_set_state() alone, which checks the step, logs it and tells the
 * manager. The deadline runs from the moment of creation, queueing included; when it passes, or an operator
 * cancels, the mechanism is asked to stop and ends the job itself, in a state that is known.
 *
 * A parent is in the state that its leg is in; between two legs the way begins anew. */

#include "hvd/job.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/fault.h"
#include "common/log.h"
#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/memory/hooks.h"
#include "hvd/memory/mechanism.h"

const char *job_kind_to_string(enum job_kind k)
{
        static const char *const names[JOB_KIND_MAX] = {
                [JOB_ADD_MEMORY] = "add-memory",
                [JOB_REMOVE_MEMORY] = "remove-memory",
                [JOB_SET_MEMORY] = "set-memory",
                [JOB_MOVE_MEMORY] = "move-memory",
                [JOB_RESTORE_MEMORY] = "restore-memory",
        };
        return names[k];
}

const char *job_state_to_string(enum job_state s)
{
        static const char *const names[JOB_STATE_MAX] = {
                [JOB_QUEUED] = "QUEUED",
                [JOB_SURVEYING] = "SURVEYING",
                [JOB_PLUGGING] = "PLUGGING",
                [JOB_ONLINING] = "ONLINING",
                [JOB_OFFLINING] = "OFFLINING",
                [JOB_UNPLUGGING] = "UNPLUGGING",
                [JOB_WITHDRAWING] = "WITHDRAWING",
                [JOB_VERIFYING] = "VERIFYING",
                [JOB_DONE] = "DONE",
                [JOB_PARTIAL] = "PARTIAL",
                [JOB_FAILED] = "FAILED",
                [JOB_CANCELLED] = "CANCELLED",
        };
        return names[s];
}

/* Which states may follow which: a row of bits each. Every state that is not an end may end. */
static bool may_follow(enum job_state from, enum job_state to)
{
#define TO(s) (1U << JOB_##s)
        static const unsigned table[JOB_STATE_MAX] = {
                [JOB_QUEUED] = TO(SURVEYING),
                [JOB_SURVEYING] = TO(PLUGGING) | TO(ONLINING) | TO(OFFLINING),
                [JOB_PLUGGING] = TO(ONLINING) | TO(WITHDRAWING) | TO(VERIFYING),
                [JOB_ONLINING] = TO(PLUGGING) | TO(WITHDRAWING) | TO(VERIFYING),
                [JOB_OFFLINING] = TO(UNPLUGGING) | TO(VERIFYING),
                [JOB_UNPLUGGING] = TO(OFFLINING) | TO(VERIFYING),
                [JOB_WITHDRAWING] = TO(VERIFYING),
        };
#undef TO
        if (job_state_is_end(from))
                return false;
        return job_state_is_end(to) || table[from] & (1U << to);
}

uint64_t job_realtime_usec(const struct job *j, uint64_t monotonic_usec)
{
        return j->created_realtime_usec + (monotonic_usec - j->created_usec);
}

/* The way of a leg is its parent's. */
static void note_transition(struct job *j)
{
        if (j->parent)
                return;
        if (j->n_transitions == JOB_TRANSITIONS_MAX)
                j->n_transitions--;
        j->n_transitions_stored = MIN(j->n_transitions_stored, j->n_transitions);
        j->transitions[j->n_transitions++] = (struct job_transition) {
                .state = j->state,
                .time_usec = job_realtime_usec(j, now_monotonic_usec()),
        };
        j->has_transitions_due = true;
}

/* What becomes of a leg becomes of its parent. */
static void changed(struct job *j)
{
        for (; j->parent; j = j->parent) {
                struct job *parent = j->parent;
                uint64_t span = j->leg_to_bytes - j->leg_from_bytes;
                double part = j->request.bytes ? (double)j->progress_bytes / (double)j->request.bytes : 0.0;

                if (!job_state_is_end(j->state) && j->state != JOB_QUEUED && parent->state != j->state) {
                        parent->state = j->state;
                        note_transition(parent);
                }
                parent->progress_bytes = j->leg_from_bytes + (uint64_t)((double)span * MIN(part, 1.0));
                memcpy(parent->waiting, j->waiting, sizeof(parent->waiting));
        }
        manager_job_changed(j->manager, j);
}

void job_set_state(struct job *j, enum job_state state)
{
        if (j->state == state)
                return;
        if (!may_follow(j->state, state)) {
                log_error("Job %" PRIu32 ": step from %s to %s is not one that a job takes", j->id,
                        job_state_to_string(j->state), job_state_to_string(state));
                assert(false);
        }
        log_debug("Job %" PRIu32 " of '%s': %s -> %s", j->id, j->partition_name,
                job_state_to_string(j->state), job_state_to_string(state));
        fault_point("job", job_state_to_string(state));
        j->state = state;
        note_transition(j);
        if (!job_state_is_end(state))
                changed(j);
        fault_point("job-in", job_state_to_string(state));
}

void job_set_progress(struct job *j, uint64_t progress_bytes)
{
        progress_bytes = MIN(progress_bytes, j->request.bytes);
        if (j->progress_bytes == progress_bytes)
                return;
        j->progress_bytes = progress_bytes;
        changed(j);
}

void job_add_done(struct job *j, uint64_t bytes)
{
        j->done_bytes += bytes;
        if (j->progress_bytes < j->done_bytes)
                j->progress_bytes = j->done_bytes;
}

void job_add_reason(struct job *j, const char *device, uint64_t block, const struct error *error)
{
        if (j->n_reasons == JOB_REASONS_MAX)
                return;
        struct job_reason *grown = reallocarray(j->reasons, j->n_reasons + 1, sizeof(*grown));
        if (!grown)
                return;
        j->reasons = grown;

        struct job_reason *r = &grown[j->n_reasons++];
        *r = (struct job_reason) { .error = *error };
        snprintf(r->device, sizeof(r->device), "%s", device ?: "");
        if (block != UINT64_MAX)
                snprintf(r->block, sizeof(r->block), "0x%" PRIx64, block);
}

void job_drop_reasons(struct job *j, const char *device)
{
        size_t n = 0;

        for (size_t i = 0; i < j->n_reasons; i++)
                if (strcmp(j->reasons[i].device, device) != 0)
                        j->reasons[n++] = j->reasons[i];
        j->n_reasons = n;
}

static void add_sentence(char **list, size_t *n, size_t max, const char *format, va_list ap)
{
        if (*n == max)
                return;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        if (vasprintf(&list[*n], format, ap) >= 0)
                ++*n;
#pragma GCC diagnostic pop
}

void job_add_plan(struct job *j, const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        add_sentence(j->plan, &j->n_plan, JOB_PLAN_MAX, format, ap);
        va_end(ap);
}

void job_clear_plan(struct job *j)
{
        while (j->n_plan > 0)
                free(j->plan[--j->n_plan]);
}

void job_add_note(struct job *j, const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        add_sentence(j->notes, &j->n_notes, JOB_NOTES_MAX, format, ap);
        va_end(ap);
}

void job_set_waiting(struct job *j, const char *format, ...)
{
        char text[sizeof(j->waiting)];
        va_list ap;

        va_start(ap, format);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        vsnprintf(text, sizeof(text), format, ap);
#pragma GCC diagnostic pop
        va_end(ap);
        if (strcmp(text, j->waiting) == 0)
                return;
        memcpy(j->waiting, text, sizeof(text));
        changed(j);
}

uint64_t job_left_usec(const struct job *j)
{
        uint64_t now = now_monotonic_usec();

        return j->deadline_usec > now ? j->deadline_usec - now : 0;
}

double job_progress(const struct job *j)
{
        if (job_state_is_end(j->state) && j->state == JOB_DONE)
                return 1.0;
        return j->request.bytes ? (double)j->progress_bytes / (double)j->request.bytes : 0.0;
}

uint64_t job_elapsed_usec(const struct job *j)
{
        return (j->ended_usec ?: now_monotonic_usec()) - j->created_usec;
}

/* A node's size is not known before the job has looked, nor the way to a total. */
static bool is_measured(const struct job *j)
{
        return j->request.kind == JOB_SET_MEMORY ? j->is_measured
                                                 : !(j->request.whole_node && j->request.bytes == 0);
}

static bool is_all_done(const struct job *j)
{
        return j->done_bytes >= j->request.bytes && is_measured(j);
}

static enum job_state end_state(const struct job *j)
{
        /* 0: a restore with nothing but backends */
        bool moves = !j->request.dry_run && (j->request.bytes > 0 || !is_measured(j));

        if (moves ? is_all_done(j) : j->n_reasons == 0)
                return JOB_DONE;
        if (j->done_bytes > 0)
                return JOB_PARTIAL;
        return j->stop == JOB_STOP_CANCEL ? JOB_CANCELLED : JOB_FAILED;
}

static void add_stop_reason(struct job *j)
{
        struct error error;

        /* A leg's is its parent's to say. */
        if (is_all_done(j) || (j->parent && !j->mops_up))
                return;
        if (j->stop == JOB_STOP_CANCEL)
                error_set(&error, ERROR_CANCELLED, "The job was cancelled");
        else if (j->stop == JOB_STOP_DEADLINE)
                error_set(&error, ERROR_DEADLINE, "The time limit of %.1f s passed%s",
                        (double)j->request.wait_usec / (double)USEC_PER_SEC,
                        j->state == JOB_QUEUED ? " while the job was queued behind another one" : "");
        else
                return;
        job_add_reason(j, NULL, UINT64_MAX, &error);
}

/* --- legs --- */

bool job_concerns(const struct job *j, const struct partition *p)
{
        return p && (j->partition == p || j->peer == p);
}

struct job *job_at_work(const struct partition *p)
{
        struct job *j = p->active;

        while (j && j->leg)
                j = j->leg;
        return j && j->partition == p ? j : NULL;
}

/* Of two partitions' devices and blocks it must be said whose they are. */
static void add_error_of(struct job *parent, const struct job *leg, const struct job_reason *r)
{
        struct error error = r->error;

        if (parent->peer_name[0])
                error_set(&error, r->error.code, "%s: %.400s", leg->partition_name, r->error.message);
        size_t n = parent->n_reasons;
        job_add_reason(parent, r->device, UINT64_MAX, &error);
        if (parent->n_reasons > n)
                memcpy(parent->reasons[n].block, r->block, sizeof(r->block));
}

static void take_report(struct job *parent, struct job *leg)
{
        const char *name = parent->peer_name[0] ? leg->partition_name : "";
        const char *colon = *name ? ": " : "";

        for (size_t i = 0; i < leg->n_reasons; i++)
                add_error_of(parent, leg, &leg->reasons[i]);
        for (size_t i = 0; i < leg->n_plan; i++)
                job_add_plan(parent, "%s%s%s", name, colon, leg->plan[i]);
        for (size_t i = 0; i < leg->n_notes; i++)
                job_add_note(parent, "%s%s%s", name, colon, leg->notes[i]);
        parent->waiting[0] = '\0';
        /* A mechanism may find by itself that there is no time left. */
        if (parent->stop == JOB_STOP_NO && !leg->mops_up)
                parent->stop = leg->stop;
}

static void end(struct job *j);

/* The leg is over: its parent's mechanism goes on, or the parent is over too, in the same turn. */
static void leg_ended(struct job *leg)
{
        struct job *parent = leg->parent;

        take_report(parent, leg);
        parent->leg = NULL;
        bool over = parent->mechanism->on_leg_ended(parent, leg);
        job_free(leg);
        if (over)
                end(parent);
}

static void end(struct job *j)
{
        /* One that is left is of a job that is aborted. */
        if (j->leg) {
                take_report(j, j->leg);
                if (j->request.kind != JOB_MOVE_MEMORY && !j->leg->mops_up)
                        j->done_bytes += j->leg->done_bytes;
                j->leg = job_free(j->leg);
        }
        j->finish_source = sd_event_source_disable_unref(j->finish_source);
        j->hooks = job_hooks_free(j->hooks);
        if (j->work && j->mechanism) {
                j->mechanism->free_work(j);
                j->work = NULL;
        }
        add_stop_reason(j);
        j->ended_usec = now_monotonic_usec();
        j->deadline_timer = sd_event_source_disable_unref(j->deadline_timer);
        if (j->partition->has_snapshot) {
                j->current_bytes = partition_current_bytes(j->partition);
                j->max_bytes = partition_max_bytes(j->partition);
        }
        job_set_state(j, end_state(j));
        if (j->parent) {
                leg_ended(j);
                return;
        }
        log_info("Job %" PRIu32 ": %s of %s for '%s' ends %s, %s in %.3f s%s%s", j->id,
                job_kind_to_string(j->request.kind), SIZE(j->request.bytes), j->partition_name,
                job_state_to_string(j->state), SIZE(j->done_bytes),
                (double)job_elapsed_usec(j) / (double)USEC_PER_SEC, j->n_reasons ? ": " : "",
                j->n_reasons ? j->reasons[0].error.message : "");
        manager_job_ended(j->manager, j);
        fault_point("job", "over");
}

static int on_finish(sd_event_source *s, void *userdata)
{
        end(userdata);
        return 0;
}

void job_finish(struct job *j)
{
        if (j->finish_source || job_state_is_end(j->state) || hooks_after(j))
                return;
        int r = sd_event_add_defer(manager_event(j->manager), &j->finish_source, on_finish, j);
        if (r < 0) {
                log_error("Job %" PRIu32 " cannot end: %s", j->id, strerrordesc_np(-r));
                abort(); /* out of memory in the one place that must not fail: restart and derive all again */
        }
        sd_event_source_set_priority(j->finish_source, SD_EVENT_PRIORITY_IMPORTANT);
}

void job_abort(struct job *j, const struct error *why)
{
        if (job_state_is_end(j->state))
                return;
        job_add_reason(j, NULL, UINT64_MAX, why);
        end(j);
}

void job_stop(struct job *j, enum job_stop why)
{
        if (job_state_is_end(j->state) || j->finish_source || j->is_interrupted)
                return;
        /* All that it still waits for are hooks that hear how it went. */
        if (hooks_is_ending(j)) {
                hooks_stop(j);
                return;
        }
        if (j->stop == JOB_STOP_NO)
                j->stop = why;
        log_debug("Job %" PRIu32 " is to stop: %s", j->id, why == JOB_STOP_CANCEL ? "cancelled" : "deadline");
        if (j->state == JOB_QUEUED)
                job_finish(j);
        else if (!hooks_stop(j))
                j->mechanism->stop(j);
}

static int on_deadline(sd_event_source *s, uint64_t usec, void *userdata)
{
        job_stop(userdata, JOB_STOP_DEADLINE);
        return 0;
}

void job_start(struct job *j)
{
        j->partition->platform->persistent = j->request.persistent;
        job_set_state(j, JOB_SURVEYING);
        j->mechanism->start(j);
}

bool job_stop_leg(struct job *parent)
{
        if (!parent->leg)
                return false;
        if (!parent->leg->mops_up)
                job_stop(parent->leg, parent->stop);
        return true;
}

struct job *job_free(struct job *j)
{
        if (!j)
                return NULL;
        job_free(j->leg);
        job_hooks_free(j->hooks);
        if (j->work && j->mechanism)
                j->mechanism->free_work(j);
        sd_event_source_disable_unref(j->deadline_timer);
        sd_event_source_disable_unref(j->finish_source);
        job_clear_plan(j);
        for (size_t i = 0; i < j->n_notes; i++)
                free(j->notes[i]);
        free(j->reasons);
        free(j);
        return NULL;
}

int job_new(struct manager *m, struct partition *p, uint32_t id, const struct job_request *request,
        struct job **ret)
{
        struct timespec now;
        struct job *j = calloc(1, sizeof(*j));
        if (!j)
                return -ENOMEM;

        clock_gettime(CLOCK_REALTIME, &now);
        j->manager = m;
        j->partition = p;
        j->id = id;
        j->request = *request;
        j->direction = request->kind;
        snprintf(j->partition_name, sizeof(j->partition_name), "%s", p->definition.name);
        j->created_realtime_usec = (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / 1000;
        j->created_usec = now_monotonic_usec();
        j->deadline_usec = j->created_usec + request->wait_usec;
        note_transition(j);
        int r = sd_event_add_time(
                manager_event(m), &j->deadline_timer, CLOCK_MONOTONIC, j->deadline_usec, 1, on_deadline, j);
        if (r < 0) {
                job_free(j);
                return r;
        }
        *ret = j;
        return 0;
}

int job_start_leg(struct job *parent, struct partition *p, const struct mechanism *mechanism,
        const struct job_request *request, uint64_t to_bytes, uint64_t mop_up_usec, struct error *ret_error)
{
        struct job_request complete = *request;
        struct job *leg;

        assert(!parent->leg);
        complete.wait_usec = mop_up_usec ?: job_left_usec(parent);
        int r = job_new(parent->manager, p, parent->id, &complete, &leg);
        if (r < 0)
                return error_set_errno(ret_error, ERROR_INTERNAL, r, "The job cannot go on");
        leg->parent = parent;
        leg->mechanism = mechanism;
        leg->leg_from_bytes = parent->progress_bytes;
        leg->leg_to_bytes = MAX(to_bytes, parent->progress_bytes);
        leg->mops_up = mop_up_usec > 0;
        if (!leg->mops_up) {
                leg->deadline_usec = parent->deadline_usec;
                leg->deadline_timer = sd_event_source_disable_unref(leg->deadline_timer);
        }
        parent->leg = leg;
        job_start(leg);
        return 0;
}
