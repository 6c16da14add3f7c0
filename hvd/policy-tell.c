/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the policy decided, for people and for later: the log, the bus, the store, and explanations. A
 * decision that says the same as the one before is told once. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "common/size.h"
#include "hvd/policy-internal.h"
#include "hvd/policy/json.h"

/* Between two tellings of a partition that keeps what it has, for another reason than before. */
#define KEEP_USEC (10 * USEC_PER_SEC)
/* Between two stored samples of a partition. */
#define SAMPLE_USEC USEC_PER_SEC
/* What was written since may be above the store's bounds. */
#define TRIM_EVERY 16U

/* --- what is new --- */

static bool is_news(const struct policy_round *round, size_t i)
{
        const struct partition_policy *s = &round->subjects[i]->policy;
        const struct policy_decision *d = &round->decisions[i];
        bool same = s->told_usec > 0 && d->action == s->told.action && d->cause == s->told.cause &&
                    d->bound == s->told.bound;

        /* That a change is under way was told when it began. */
        if (round->partitions[i].mode == POLICY_MODE_OFF || d->bound == POLICY_RULE_BUSY)
                return false;
        /* After each change the last sample is of before, for a moment. */
        if (d->action == POLICY_KEEP)
                return !same && (s->told_usec == 0 ||
                                        (s->told.action != POLICY_KEEP && d->bound != POLICY_RULE_STALE) ||
                                        round->input.now_usec - s->told_usec >= KEEP_USEC);
        if (round->partitions[i].mode == POLICY_MODE_AUTO)
                return !same || d->target_bytes != s->told.target_bytes || s->job != 0;
        return !same || d->target_bytes != s->told.target_bytes;
}

static void announce(struct policy_runner *r, size_t i, const char *text)
{
        const struct policy_round *round = &r->round;
        const struct policy_decision *d = &round->decisions[i];
        struct policy_news news = {
                .partition = round->subjects[i],
                .mode = round->partitions[i].mode,
                .current_bytes = round->partitions[i].current_bytes,
                .decision = d,
                .text = text,
        };

        if (d->action != POLICY_KEEP)
                log_info("Policy%s: %s (%s)", news.mode == POLICY_MODE_AUTO ? "" : ", observing", text,
                        round->subjects[i]->policy.outcome);
        manager_policy_decided(r->manager, &news);
}

/* --- the store --- */

static int store_decision(
        struct policy_runner *r, size_t i, uint64_t round_id, const char *text, struct error *ret_error)
{
        bool acts = r->round.decisions[i].action != POLICY_KEEP;
        struct partition *p = r->round.subjects[i];
        _cleanup_json_ struct json_object *o = NULL;
        uint64_t id;

        if (policy_decision_to_json(p->definition.name, &r->round.decisions[i], &o) < 0)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        struct store_decision d = {
                .round = round_id,
                .partition = p->definition.name,
                .decision = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN),
                .text = text,
                .outcome = acts ? p->policy.outcome : "",
        };
        if (!d.decision)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        int k = store_decision_put(manager_store(r->manager), &d, &id, ret_error);
        /* While its job runs others may be told, such as that the guest has paused. */
        if (k >= 0 && acts)
                p->policy.decision = id;
        return k;
}

static int store_round(struct policy_runner *r, uint64_t *ret_id, struct error *ret_error)
{
        _cleanup_json_ struct json_object *o = NULL;
        const char *text = NULL;

        if (policy_input_to_json(&r->round.input, &o) >= 0)
                text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
        if (!text)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        return store_round_put(manager_store(r->manager), r->round.time_usec, text, ret_id, ret_error);
}

static bool has_new_sample(const struct policy_round *round, size_t i)
{
        const struct policy_partition *p = &round->partitions[i];

        return p->mode != POLICY_MODE_OFF && p->state == POLICY_RUNNING && !p->is_busy &&
               p->sample.taken_usec >= MAX(p->changed_usec, UINT64_C(1)) &&
               p->sample.taken_usec >= round->subjects[i]->policy.stored_usec + SAMPLE_USEC;
}

static int store_sample(struct policy_runner *r, size_t i, struct error *ret_error)
{
        const struct policy_round *round = &r->round;
        const struct policy_partition *p = &round->partitions[i];
        uint64_t age = round->input.now_usec - MIN(p->sample.taken_usec, round->input.now_usec);
        struct store_sample s = {
                .time_usec = round->time_usec - MIN(age, round->time_usec),
                .partition = p->name,
                .current_bytes = p->current_bytes,
                .used_bytes = p->current_bytes - MIN(p->sample.available_bytes, p->current_bytes),
                .some_permille = p->sample.some_permille,
                .min_bytes = p->min_bytes,
                .desired_bytes = p->desired_bytes,
                .max_bytes = p->max_bytes,
                .weight = p->weight,
                .pool_bytes = round->input.pool.total_bytes,
        };

        round->subjects[i]->policy.stored_usec = p->sample.taken_usec;
        return store_sample_put(manager_store(r->manager), &s, ret_error);
}

static int store_all(struct policy_runner *r, char *const *texts, struct error *ret_error)
{
        const struct policy_round *round = &r->round;
        uint64_t id = 0;
        int k = 0;

        for (size_t i = 0; k >= 0 && i < round->input.n_partitions; i++) {
                if (has_new_sample(round, i))
                        k = store_sample(r, i, ret_error);
                if (k < 0 || !texts[i])
                        continue;
                if (id == 0)
                        k = store_round(r, &id, ret_error);
                if (k >= 0)
                        k = store_decision(r, i, id, texts[i], ret_error);
        }
        if (k >= 0 && ++r->n_stored >= TRIM_EVERY) {
                r->n_stored = 0;
                k = store_policy_trim(manager_store(r->manager), ret_error);
        }
        return k;
}

/* Said once: a full disk must not fill the log as well. */
static void say_failure(struct policy_runner *r, int k, const struct error *error)
{
        if (k < 0 && !r->store_failed)
                log_warning("What the policy decides cannot be stored: %s", error->message);
        r->store_failed = k < 0;
}

static bool is_worth_storing(const struct policy_round *round, char *const *texts)
{
        for (size_t i = 0; i < round->input.n_partitions; i++)
                if (texts[i] || has_new_sample(round, i))
                        return true;
        return false;
}

static void store(struct policy_runner *r, char *const *texts)
{
        struct store *s = manager_store(r->manager);
        struct error error, end;

        if (!is_worth_storing(&r->round, texts))
                return;
        int k = store_begin(s, &error);
        if (k >= 0) {
                k = store_all(r, texts, &error);
                int e = store_commit(s, k < 0 ? &end : &error);
                k = k < 0 ? k : e;
        }
        say_failure(r, k, &error);
}

void policy_tell(struct policy_runner *r)
{
        const struct policy_round *round = &r->round;
        size_t n = round->input.n_partitions;
        char **texts = calloc(n + 1, sizeof(*texts));

        for (size_t i = 0; texts && i < n; i++) {
                struct partition_policy *s = &round->subjects[i]->policy;

                if (!is_news(round, i))
                        continue;
                texts[i] = policy_explain(&round->input, i, &round->decisions[i]);
                if (!texts[i])
                        continue;
                s->told = round->decisions[i];
                s->told_usec = round->input.now_usec;
                announce(r, i, texts[i]);
        }
        if (texts)
                store(r, texts);
        for (size_t i = 0; texts && i < n; i++)
                free(texts[i]);
        free(texts);
}

void policy_tell_outcome(struct policy_runner *r, struct partition *p)
{
        struct error error;

        log_info("Policy: partition '%s': %s", p->definition.name, p->policy.outcome);
        if (p->policy.decision == 0)
                return;
        int k = store_decision_end(manager_store(r->manager), p->policy.decision, p->policy.outcome, &error);
        say_failure(r, k, &error);
}

/* --- explanations --- */

static const char *why_none(const struct policy_runner *r, const struct partition *p)
{
        if (policy_runner_partition_mode(r, p) == POLICY_MODE_OFF)
                return policy_runner_mode(r) == POLICY_MODE_OFF
                               ? "The policy is off: nothing is decided. 'hmc-cli policy observe' has it "
                                 "decide"
                               : "The policy is off for this partition: nothing is decided of it";
        if (!p->has_snapshot)
                return "Its QEMU does not run, or is out of reach: nothing is decided of it";
        return "Nothing was decided of it yet";
}

static int add_decision(const struct policy_round *round, size_t i, struct json_object *o)
{
        struct json_object *decision, *input;
        struct policy_input own = round->input;

        own.partitions = &round->partitions[i];
        own.history = &round->before[i];
        own.n_partitions = 1;
        int k = policy_decision_to_json(round->partitions[i].name, &round->decisions[i], &decision);
        if (k >= 0)
                k = json_add(o, "decision", decision);
        if (k >= 0)
                k = policy_input_to_json(&own, &input);
        return k < 0 ? k : json_add(o, "input", input);
}

int policy_runner_explain(const struct policy_runner *r, const struct partition *p, char **ret)
{
        _cleanup_json_ struct json_object *o = json_object_new_object();
        enum policy_mode mode = policy_runner_partition_mode(r, p);
        const struct policy_round *round = r ? &r->round : NULL;
        _cleanup_free_ char *text = NULL;
        const char *json;
        size_t i = 0, n = round && mode != POLICY_MODE_OFF && p->has_snapshot ? round->input.n_partitions : 0;

        while (i < n && strcmp(round->partitions[i].name, p->definition.name) != 0)
                i++;
        if (i < n)
                text = policy_explain(&round->input, i, &round->decisions[i]);
        if (!o || (i < n && !text) || json_add_string(o, "partition", p->definition.name) < 0 ||
                json_add_string(o, "mode", policy_mode_to_string(mode)) < 0 ||
                json_add_string(o, "text", text ?: why_none(r, p)) < 0)
                return -ENOMEM;
        if (i < n && (json_add_u64(o, "time_usec", round->time_usec) < 0 ||
                             json_add_string(o, "outcome", p->policy.outcome) < 0 ||
                             add_decision(round, i, o) < 0))
                return -ENOMEM;
        json = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
        *ret = json ? strdup(json) : NULL;
        return *ret ? 0 : -ENOMEM;
}
