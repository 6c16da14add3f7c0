/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "hvd/history.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "common/log.h"
#include "common/size.h"
#include "hvd/job.h"
#include "hvd/manager-internal.h"
#include "hvd/memory/restore.h"
#include "hvd/record.h"

static uint64_t less(uint64_t a, uint64_t b)
{
        return a > b ? a - b : 0;
}

/* --- rest --- */

#define LOOK_USEC (500 * USEC_PER_MSEC)
/* QEMU tells of a balloon on its way at most once a second. */
#define STILL_USEC (1500 * USEC_PER_MSEC)

static bool is_moving(const struct partition *p)
{
        for (size_t i = 0; i < p->snapshot.n_devices; i++) {
                const struct platform_device *d = &p->snapshot.devices[i];

                if (!d->is_dimm && d->requested_bytes != d->size_bytes)
                        return true;
        }
        return false;
}

static bool is_at_rest(const struct partition *p)
{
        uint64_t bytes;

        return p && partition_check_usable(p, NULL) == 0 && partition_is_settled(p) && !p->active &&
               !restore_is_due(p, &bytes) && !restore_is_awaited(p) && !is_moving(p);
}

/* The partitions of the job are there, and what was half done in them is whole. */
static bool is_over(struct manager *m, struct job *j)
{
        const struct partition *p = manager_find_partition(m, j->partition_name);
        const struct partition *peer = j->peer_name[0] ? manager_find_partition(m, j->peer_name) : NULL;
        uint64_t now = now_monotonic_usec(), bytes;

        if (!is_at_rest(p) || (j->peer_name[0] && !is_at_rest(peer))) {
                j->still_usec = 0;
                return false;
        }
        if (!p->snapshot.balloon.present && !(peer && peer->snapshot.balloon.present))
                return true;
        bytes = partition_current_bytes(p) + (peer ? partition_current_bytes(peer) : 0);
        if (j->still_usec == 0 || bytes != j->still_bytes) {
                j->still_bytes = bytes;
                j->still_usec = now;
        }
        return now - j->still_usec >= STILL_USEC;
}

/* --- the end of an interrupted job --- */

/* A QEMU that has nothing but what it was started with, with another boot of the guest in it, may be another
 * one: then what the one before had says nothing. */
static bool is_same_machine(const struct partition *p, const char *boot)
{
        char now[RECORD_BOOT_MAX];

        record_boot(p, now);
        if (strcmp(now, boot) == 0)
                return true;
        return strncmp(now, boot, RECORD_HOST_BOOT_LENGTH) == 0 && partition_wanted_bytes(p) > 0;
}

/* The memory that went the way of the job. What has left is what QEMU has no more; what has come is in use.
 */
static bool take_account(struct manager *m, struct job *j)
{
        struct partition *p = manager_find_partition(m, j->partition_name);
        struct partition *peer = j->peer_name[0] ? manager_find_partition(m, j->peer_name) : NULL;
        uint64_t before = j->before_bytes, moved;

        if (before == 0 || !is_same_machine(p, j->boot))
                return false;
        if (peer && (j->peer_before_bytes == 0 || !is_same_machine(peer, j->peer_boot)))
                return false;
        uint64_t left = less(before, partition_current_bytes(p));
        if (j->request.kind == JOB_SET_MEMORY) {
                uint64_t target = j->request.target_bytes;

                j->request.bytes = less(target, before) + less(before, target);
                j->is_measured = true;
        }
        if (peer) {
                j->freed_bytes = left;
                moved = less(partition_usable_bytes(peer), j->peer_before_bytes);
        } else
                moved = j->direction == JOB_REMOVE_MEMORY ? left : less(partition_usable_bytes(p), before);
        /* 0: all of a node, of which it was not known yet how much that is */
        j->done_bytes = j->request.bytes || j->is_measured ? MIN(moved, j->request.bytes) : moved;
        j->progress_bytes = j->done_bytes;
        j->current_bytes = partition_current_bytes(p);
        j->max_bytes = partition_max_bytes(p);
        record_kept_now(m->store, p);
        if (peer)
                record_kept_now(m->store, peer);
        return true;
}

#define AMOUNT(bytes) ((bytes) ? SIZE(bytes) : "nothing")

static void add_interruption(struct job *j, bool had_begun, bool is_known)
{
        struct error error;

        if (!had_begun)
                error_set(&error, ERROR_INTERRUPTED,
                        "hvd was restarted before the job began, and nothing was moved; ask again");
        else if (!is_known)
                error_set(&error, ERROR_INTERRUPTED,
                        "hvd was restarted while the job ran, and cannot tell what it had moved; that stays "
                        "moved, see 'hmc-cli show'");
        else if (j->peer_name[0])
                error_set(&error, ERROR_INTERRUPTED,
                        "hvd was restarted while the job ran; by all ends' account %s has left '%s', and "
                        "%s has come to '%s'",
                        AMOUNT(j->freed_bytes), j->partition_name, AMOUNT(j->done_bytes), j->peer_name);
        else
                error_set(&error, ERROR_INTERRUPTED,
                        "hvd was restarted while the job ran; by both ends' account %s has moved%s",
                        AMOUNT(j->done_bytes),
                        j->request.bytes || j->is_measured ? "" : ", of as much as the node had");
        job_add_reason(j, NULL, UINT64_MAX, &error);
}

static enum job_state end_state(const struct job *j, bool is_known)
{
        if (is_known && j->done_bytes >= j->request.bytes && (j->request.bytes > 0 || j->is_measured))
                return JOB_DONE;
        return j->done_bytes > 0 ? JOB_PARTIAL : JOB_FAILED;
}

static bool has_begun(const struct job *j)
{
        return j->before_bytes > 0 || j->state != JOB_QUEUED;
}

/* Over: by both ends' account, or else with what was stored. */
static void conclude(struct manager *m, struct job *j, bool over)
{
        bool had_begun = has_begun(j), is_known = over && take_account(m, j);

        add_interruption(j, had_begun, is_known);
        j->deadline_timer = sd_event_source_disable_unref(j->deadline_timer);
        j->waiting[0] = '\0';
        j->ended_usec = now_monotonic_usec();
        job_set_state(j, end_state(j, is_known));
        log_info("Job %" PRIu32 ": %s of %s for '%s' ends %s: %s", j->id, job_kind_to_string(j->request.kind),
                SIZE(j->request.bytes), j->partition_name, job_state_to_string(j->state),
                j->reasons[j->n_reasons - 1].error.message);
        manager_interrupted_ended(m, j, had_begun);
}

static bool is_of(const struct job *j, const char *name)
{
        return name[0] && (strcmp(j->partition_name, name) == 0 || strcmp(j->peer_name, name) == 0);
}

bool history_holds(struct manager *m, const struct job *next)
{
        struct job *j;

        if (m->n_interrupted == 0)
                return false;
        TAILQ_FOREACH (j, &m->jobs, entry)
                if (j->is_interrupted && (is_of(j, next->partition_name) || is_of(j, next->peer_name)))
                        return true;
        return false;
}

/* The next one that is interrupted and of that partition, and over (or all the same); NULL: none. */
static struct job *find_interrupted(struct manager *m, const struct partition *p, bool over)
{
        struct job *j;

        TAILQ_FOREACH (j, &m->jobs, entry)
                if (j->is_interrupted && is_of(j, p->definition.name) && (!over || is_over(m, j)))
                        return j;
        return NULL;
}

/* Each end may make others forgotten: found anew. */
void history_settle(struct manager *m, struct partition *p)
{
        struct job *j;

        while (m->n_interrupted > 0 && (j = find_interrupted(m, p, true)))
                conclude(m, j, true);
}

void history_drop(struct manager *m, struct partition *p)
{
        struct job *j;

        while (m->n_interrupted > 0 && (j = find_interrupted(m, p, false)))
                conclude(m, j, false);
}

static int on_look(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct job *j = userdata;
        bool over = is_over(j->manager, j);

        if (over || now_monotonic_usec() >= j->deadline_usec ||
                sd_event_source_set_time_relative(s, LOOK_USEC) < 0 ||
                sd_event_source_set_enabled(s, SD_EVENT_ONESHOT) < 0)
                conclude(j->manager, j, over);
        return 0;
}

/* --- what the store has --- */

static int find_name(const char *name, const char *(*to_string)(int), int n)
{
        for (int i = 0; i < n; i++)
                if (strcmp(name, to_string(i)) == 0)
                        return i;
        return -1;
}

static const char *kind_name(int i)
{
        return job_kind_to_string((enum job_kind)i);
}

static const char *state_name(int i)
{
        return job_state_to_string((enum job_state)i);
}

static void take_reasons(struct job *j, const char *text)
{
        _cleanup_json_ struct json_object *array = NULL;

        if (json_parse(text, strlen(text), &array) < 0 || !json_object_is_type(array, json_type_array))
                return;
        for (size_t i = 0; i < json_object_array_length(array); i++) {
                struct json_object *o = json_object_array_get_idx(array, i);
                const char *device = NULL, *block = "", *code = "", *message = "";
                struct error error;

                json_get_string(o, "device", &device);
                json_get_string(o, "block", &block);
                json_get_string(o, "code", &code);
                json_get_string(o, "message", &message);
                enum error_code c = error_code_from_name(code);
                error_set(&error, c < 0 ? ERROR_INTERNAL : c, "%s", message);
                job_add_reason(j, device, *block ? strtoull(block, NULL, 16) : UINT64_MAX, &error);
        }
}

static int on_transition(const struct store_transition *t, void *userdata)
{
        struct job *j = userdata;
        int state = find_name(t->state, state_name, JOB_STATE_MAX);

        if (state >= 0 && j->n_transitions < JOB_TRANSITIONS_MAX)
                j->transitions[j->n_transitions++] =
                        (struct job_transition) { .state = (enum job_state)state, .time_usec = t->time_usec };
        j->n_transitions_stored = j->n_transitions;
        return 0;
}

struct loading {
        struct manager *manager;
        uint64_t now_usec, monotonic_usec;
};

/* By the clock of this boot. What ended before that counts as long ago. */
static void take_times(const struct loading *l, struct job *j, const struct store_job *s)
{
        uint64_t until = s->ended_usec ?: l->now_usec, ago = less(l->now_usec, until);

        j->ended_usec = s->ended_usec ? MAX(less(l->monotonic_usec, ago), UINT64_C(1)) : 0;
        j->created_usec = (j->ended_usec ?: l->monotonic_usec) - less(until, s->created_usec);
        j->created_realtime_usec = s->created_usec;
        j->request.wait_usec = less(s->deadline_usec, s->created_usec);
}

static enum job_kind direction_of(const struct store_job *s, enum job_kind kind)
{
        if (kind != JOB_SET_MEMORY || s->before_bytes == 0)
                return kind;
        return s->target_bytes < s->before_bytes ? JOB_REMOVE_MEMORY : JOB_ADD_MEMORY;
}

static int on_job(const struct store_job *s, void *userdata)
{
        struct loading *l = userdata;
        struct manager *m = l->manager;
        int kind = find_name(s->kind, kind_name, JOB_KIND_MAX);
        int state = find_name(s->state, state_name, JOB_STATE_MAX);
        struct error ignored;

        if (kind < 0 || state < 0) {
                log_warning("Job %" PRIu32 " of the store is of a kind that this hvd does not know", s->id);
                return 0;
        }
        struct job *j = calloc(1, sizeof(*j));
        if (!j)
                return -ENOMEM;
        *j = (struct job) {
                .manager = m,
                .id = s->id,
                .state = (enum job_state)state,
                .is_interrupted = s->ended_usec == 0,
                .request = { .kind = (enum job_kind)kind,
                        .node = -1,
                        .bytes = s->requested_bytes,
                        .target_bytes = s->target_bytes },
                .direction = direction_of(s, (enum job_kind)kind),
                .done_bytes = s->done_bytes,
                .progress_bytes = s->done_bytes,
                .before_bytes = s->before_bytes,
                .peer_before_bytes = s->peer_before_bytes,
        };
        snprintf(j->partition_name, sizeof(j->partition_name), "%s", s->partition);
        snprintf(j->peer_name, sizeof(j->peer_name), "%s", s->peer);
        snprintf(j->boot, sizeof(j->boot), "%s", s->boot);
        snprintf(j->peer_boot, sizeof(j->peer_boot), "%s", s->peer_boot);
        take_times(l, j, s);
        take_reasons(j, s->reasons);
        (void)store_transition_foreach(m->store, j->id, on_transition, j, &ignored);
        /* What is written at once are the states on its way. */
        if (j->is_interrupted && j->n_transitions > 0)
                j->state = j->transitions[j->n_transitions - 1].state;
        if (j->is_interrupted && job_state_is_end(j->state))
                j->state = JOB_VERIFYING;
        TAILQ_INSERT_HEAD(&m->jobs, j, entry);
        *(j->is_interrupted ? &m->n_interrupted : &m->n_ended) += 1;
        return 0;
}

/* One that had not begun is told apart in the first look. */
static void wait_for_rest(struct job *j)
{
        bool begun = has_begun(j);

        j->deadline_usec = now_monotonic_usec() + (begun ? HISTORY_WAIT_USEC : 0);
        snprintf(j->waiting, sizeof(j->waiting),
                "hvd was restarted while the job ran, and waits for both ends' word of what has moved");
        if (sd_event_add_time_relative(manager_event(j->manager), &j->deadline_timer, CLOCK_MONOTONIC,
                    begun ? LOOK_USEC : 0, 1, on_look, j) < 0)
                log_error("Job %" PRIu32 " of before stays as it is: no timer", j->id);
}

void history_load(struct manager *m)
{
        struct timespec now;
        struct error error;
        struct job *j;

        clock_gettime(CLOCK_REALTIME, &now);
        struct loading l = {
                .manager = m,
                .now_usec = (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / 1000,
                .monotonic_usec = now_monotonic_usec(),
        };
        int r = store_job_foreach(m->store, MANAGER_JOBS_ENDED_KEPT, on_job, &l, &error);
        if (r == -ENOMEM)
                error_set(&error, ERROR_INTERNAL, "Out of memory");
        if (r < 0)
                log_error("%s. What became of jobs before this start is not known", error.message);
        if (m->n_interrupted > 0)
                log_notice("%u jobs were interrupted by the last end of hvd", m->n_interrupted);
        TAILQ_FOREACH (j, &m->jobs, entry)
                if (j->is_interrupted)
                        wait_for_rest(j);
}
