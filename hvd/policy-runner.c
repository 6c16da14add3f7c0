/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* When the policy is asked, and by which mode. One timer, armed for the next round: a period after the last
 * one, or sooner when a guest pushes or a job ends, but never less than ROUND_MIN_USEC after the last, so
 * that a guest that floods its channel sets no rate. The timer is off while no partition takes part. */

#include "hvd/policy-runner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/policy-internal.h"

#define ROUND_MIN_USEC (100 * USEC_PER_MSEC)
/* What a guest says of a change without distress; more of them may come meanwhile. */
#define ROUND_CHANGE_USEC (500 * USEC_PER_MSEC)

_Static_assert(MANAGER_PARTITIONS_MAX <= POLICY_PARTITIONS_MAX, "the policy leaves nobody out");

/* --- modes --- */

enum policy_mode policy_runner_mode(const struct policy_runner *r)
{
        if (!r)
                return POLICY_MODE_OFF;
        return r->set_mode != POLICY_MODE_INVALID ? r->set_mode : manager_config(r->manager)->policy_mode;
}

enum policy_mode policy_runner_partition_mode(const struct policy_runner *r, const struct partition *p)
{
        enum policy_mode host = policy_runner_mode(r);

        return host != POLICY_MODE_OFF && p->policy.has_mode ? p->policy.mode : host;
}

uint64_t policy_runner_wanted_bytes(const struct policy_runner *r, const struct partition *p)
{
        const struct policy_round *round = r ? &r->round : NULL;
        uint64_t now = now_monotonic_usec();

        if (policy_runner_partition_mode(r, p) == POLICY_MODE_OFF || p->policy.history.used_usec == 0 ||
                now - p->policy.history.used_usec > round->input.config.fresh_usec)
                return 0;
        size_t i = p->policy.place;
        return i < round->input.n_partitions && strcmp(round->partitions[i].name, p->definition.name) == 0
                       ? round->decisions[i].want_bytes
                       : 0;
}

/* --- rounds --- */

static void schedule(struct policy_runner *r, uint64_t usec)
{
        if (r->due_usec != 0 && r->due_usec <= usec)
                return;
        r->due_usec = usec;
        sd_event_source_set_time(r->timer, usec);
        sd_event_source_set_enabled(r->timer, SD_EVENT_ONESHOT);
}

static void schedule_after(struct policy_runner *r, uint64_t least_usec)
{
        uint64_t now = now_monotonic_usec();

        schedule(r, MAX(now, r->round.input.now_usec + least_usec));
}

static void rest(struct policy_runner *r)
{
        r->due_usec = 0;
        sd_event_source_set_enabled(r->timer, SD_EVENT_OFF);
}

/* Guests forget nothing of what they were told while the session lasts: the same again costs nothing. */
static void set_sampling(struct policy_runner *r)
{
        struct partition *p = NULL;

        while ((p = manager_next_partition(r->manager, p))) {
                struct sampling wanted;

                policy_wanted_sampling(r, p, &wanted);
                partition_set_sampling(p, &wanted);
        }
}

/* What was decided but not done while it only observed must not count against it. */
static void begin_anew_where_mode_changed(struct policy_runner *r)
{
        struct partition *p = NULL;

        while ((p = manager_next_partition(r->manager, p))) {
                enum policy_mode mode = policy_runner_partition_mode(r, p);

                if (p->policy.applied == mode)
                        continue;
                p->policy.applied = mode;
                p->policy.history = (struct policy_history) { 0 };
                p->policy.told_usec = 0;
        }
}

static bool anyone_takes_part(const struct policy_round *round)
{
        for (size_t i = 0; i < round->input.n_partitions; i++)
                if (round->partitions[i].mode != POLICY_MODE_OFF)
                        return true;
        return false;
}

static void run_round(struct policy_runner *r)
{
        struct policy_round *round = &r->round;
        uint64_t now = now_monotonic_usec();

        begin_anew_where_mode_changed(r);
        set_sampling(r);
        if (policy_gather(r, now) < 0) {
                log_warning("The policy has no memory left to decide with");
                schedule(r, now + manager_config(r->manager)->policy_period_usec);
                return;
        }
        policy_decide(&round->input, round->decisions, round->after);
        for (size_t i = 0; i < round->input.n_partitions; i++)
                round->subjects[i]->policy.history = round->after[i];
        for (size_t i = 0; i < round->input.n_partitions; i++)
                policy_act(r, i);
        policy_tell(r);
        if (anyone_takes_part(round))
                schedule(r, now + manager_config(r->manager)->policy_period_usec);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct policy_runner *r = userdata;

        rest(r);
        if (policy_runner_mode(r) != POLICY_MODE_OFF)
                run_round(r);
        return 0;
}

static void on_sampled(struct partition *p, enum sample_cause cause, void *userdata)
{
        struct policy_runner *r = userdata;

        if (policy_runner_partition_mode(r, p) == POLICY_MODE_OFF)
                return;
        switch (cause) {
        case SAMPLE_PERIODIC:
                break;
        case SAMPLE_CHANGE:
                schedule_after(r, ROUND_CHANGE_USEC);
                break;
        default:
                schedule_after(r, ROUND_MIN_USEC);
        }
}

/* --- what sets the modes --- */

static void mode_changed(struct policy_runner *r)
{
        struct partition *p = NULL;

        while ((p = manager_next_partition(r->manager, p)))
                manager_partition_changed(r->manager, p);
        set_sampling(r);
        if (policy_runner_mode(r) == POLICY_MODE_OFF)
                rest(r);
        else
                schedule_after(r, 0);
}

int policy_runner_set_mode(struct policy_runner *r, enum policy_mode mode, struct error *ret_error)
{
        int k = store_mode_put(manager_store(r->manager), "", policy_mode_to_string(mode), ret_error);

        if (k < 0)
                return k;
        r->set_mode = mode;
        log_notice("The policy's mode is %s now", policy_mode_to_string(mode));
        mode_changed(r);
        return 0;
}

int policy_runner_set_partition_mode(
        struct policy_runner *r, struct partition *p, enum policy_mode mode, struct error *ret_error)
{
        const char *name = mode == POLICY_MODE_INVALID ? NULL : policy_mode_to_string(mode);
        int k = store_mode_put(manager_store(r->manager), p->definition.name, name, ret_error);

        if (k < 0)
                return k;
        p->policy.has_mode = mode != POLICY_MODE_INVALID;
        p->policy.mode = mode;
        log_notice(
                "The policy's mode for partition '%s' is %s now", p->definition.name, name ?: "the host's");
        mode_changed(r);
        return 0;
}

/* A mode that the store has, or INVALID; one of a newer hvd is none. */
static enum policy_mode kept_mode(struct policy_runner *r, const char *name)
{
        char mode[STORE_MODE_MAX];
        struct error error;

        if (store_mode_get(manager_store(r->manager), name, mode, &error) < 0) {
                log_warning("%s", error.message);
                return POLICY_MODE_INVALID;
        }
        return mode[0] ? policy_mode_from_string(mode) : POLICY_MODE_INVALID;
}

/* --- the manager's news --- */

void policy_runner_partition_added(struct policy_runner *r, struct partition *p)
{
        if (!r)
                return;
        enum policy_mode mode = kept_mode(r, p->definition.name);
        p->policy.has_mode = mode != POLICY_MODE_INVALID;
        p->policy.mode = mode;
        policy_runner_partition_changed(r, p);
}

void policy_runner_partition_changed(struct policy_runner *r, struct partition *p)
{
        /* It may take part now; while one does there is a next round anyway. */
        if (r && r->due_usec == 0 && p->has_snapshot && policy_runner_mode(r) != POLICY_MODE_OFF)
                schedule_after(r, ROUND_CHANGE_USEC);
}

void policy_runner_partition_removed(struct policy_runner *r)
{
        if (r && policy_runner_mode(r) != POLICY_MODE_OFF)
                schedule_after(r, ROUND_MIN_USEC);
}

static void rest_after(struct policy_runner *r, struct partition *p, uint64_t now)
{
        if (!p)
                return;
        p->policy.seen_bytes = partition_current_bytes(p);
        p->policy.changed_usec = now;
        if (policy_runner_partition_mode(r, p) != POLICY_MODE_OFF)
                (void)partition_ask_sample(p); /* without one nothing is decided of it until one comes */
}

void policy_runner_job_ended(
        struct policy_runner *r, const struct job *j, struct partition *p, struct partition *peer)
{
        uint64_t now = now_monotonic_usec();

        if (!r)
                return;
        if (p && p->policy.job == j->id)
                policy_take_result(r, p, j);
        rest_after(r, p, now);
        rest_after(r, peer, now);
        /* What it freed may be what another one waits for. */
        if (policy_runner_mode(r) != POLICY_MODE_OFF)
                schedule_after(r, ROUND_MIN_USEC);
}

void policy_runner_reconfigured(struct policy_runner *r)
{
        if (r)
                mode_changed(r);
}

/* --- life --- */

struct policy_runner *policy_runner_free(struct policy_runner *r)
{
        if (!r)
                return NULL;
        manager_set_sampled(r->manager, NULL, NULL);
        manager_set_policy(r->manager, NULL);
        sd_event_source_disable_unref(r->timer);
        free(r->host.proc);
        free(r->round.partitions);
        free(r->round.before);
        free(r->round.after);
        free(r->round.decisions);
        free(r->round.subjects);
        free(r);
        return NULL;
}

int policy_runner_new(
        struct manager *m, const char *proc, struct policy_runner **ret, struct error *ret_error)
{
        struct policy_runner *r = calloc(1, sizeof(*r));
        struct partition *p = NULL;

        if (!r)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        r->manager = m;
        r->host.proc = strdup(proc);
        int k = sd_event_add_time(manager_event(m), &r->timer, CLOCK_MONOTONIC, 0, 1, on_timer, r);
        if (!r->host.proc || k < 0) {
                policy_runner_free(r);
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        }
        rest(r);
        r->set_mode = kept_mode(r, "");
        manager_set_policy(m, r);
        manager_set_sampled(m, on_sampled, r);
        while ((p = manager_next_partition(m, p)))
                policy_runner_partition_added(r, p);
        *ret = r;
        return 0;
}
