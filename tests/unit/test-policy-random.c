/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What holds whatever guests say and hosts are like: random hosts over many rounds, each round checked, and
 * decided a second time from its record. Two of three guests are honest and give as guestd does; what their
 * demand is, and when it changed, is known to the checks and not to the policy. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/size.h"
#include "hvd/policy/json.h"
#include "hvd/policy/policy.h"

#define GUESTS 9U
#define HOSTS  150U
#define ROUNDS 120U

static uint64_t seed;

static uint64_t draw(uint64_t n)
{
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        return n == 0 ? 0 : seed % n;
}

#define GUEST_MARGIN (64 * MIB)

/* Of a guest, to judge what is done to it. */
struct ledger {
        uint64_t needs_usec;                    /* its demand changed last */
        uint64_t asked_usec, asked_sample_usec; /* it was asked to give, by a sample of then */
        uint64_t gave_usec, gave_sample_usec;   /* the same, of when it gave */
};

struct world {
        struct policy_input in;
        struct policy_partition partitions[GUESTS];
        struct policy_history history[GUESTS];
        uint64_t target[GUESTS]; /* of the change under way; 0: none */
        uint64_t needs[GUESTS];
        struct ledger ledger[GUESTS];
};

static bool is_honest(size_t i)
{
        return i % 3 != 2;
}

static void world_init(struct world *w)
{
        static const uint64_t granules[] = { 2 * MIB, 128 * MIB, 256 * MIB };
        uint64_t sum = 0, granule = granules[draw(3)];

        *w = (struct world) { 0 };
        policy_config_init(&w->in.config);
        w->in.config.cushion_permille = draw(300);
        w->in.config.idle_tax_permille = draw(1001);
        w->in.config.quiet_usec = (1 + draw(60)) * USEC_PER_SEC;
        w->in.now_usec = 1000 * USEC_PER_SEC;
        w->in.n_partitions = 1 + draw(GUESTS);
        w->in.partitions = w->partitions;
        w->in.history = w->history;
        for (size_t i = 0; i < w->in.n_partitions; i++) {
                struct policy_partition *p = &w->partitions[i];

                *p = (struct policy_partition) {
                        .mode = draw(8) == 0 ? draw(POLICY_MODE_MAX) : POLICY_MODE_AUTO,
                        .min_bytes = draw(3) == 0 ? 0 : GIB + draw(GIB),
                        .weight = 1 + (unsigned)draw(255),
                        .granule_bytes = granule,
                        .has_failed = draw(2),
                        .has_no_size = draw(2),
                        .has_resident = draw(2),
                };
                p->desired_bytes = p->min_bytes + draw(4 * GIB);
                p->max_bytes = draw(4) == 0 ? 0 : p->desired_bytes + draw(16 * GIB);
                p->current_bytes = p->claimed_bytes = p->desired_bytes + GIB;
                if (p->max_bytes > 0)
                        p->current_bytes = p->claimed_bytes = MIN(p->current_bytes, p->max_bytes);
                p->floor_bytes = draw(2) ? draw(p->current_bytes) : 0;
                snprintf(p->name, sizeof(p->name), "g%zu", i);
                sum += p->current_bytes;
                w->needs[i] = draw(8 * GIB);
        }
        w->in.pool.reserve_bytes = draw(2 * GIB);
        w->in.pool.total_bytes = sum + w->in.pool.reserve_bytes + draw(sum + GIB);
}

/* The end of a change: who grows has it; who gives may refuse, and an honest one keeps what it needs. */
static void end_change(struct world *w, size_t i)
{
        struct policy_partition *p = &w->partitions[i];
        uint64_t now = w->target[i], keeps = w->needs[i] + GUEST_MARGIN;

        if (now < p->current_bytes) {
                if (is_honest(i) && now < keeps)
                        now += (keeps - now + p->granule_bytes - 1) / p->granule_bytes * p->granule_bytes;
                if (now >= p->current_bytes || draw(8) == 0) {
                        now = p->current_bytes;
                        policy_history_refused(&w->history[i], w->in.now_usec);
                } else {
                        policy_history_gave(&w->history[i]);
                        w->ledger[i].gave_usec = w->ledger[i].asked_usec;
                        w->ledger[i].gave_sample_usec = w->ledger[i].asked_sample_usec;
                }
        }
        p->current_bytes = p->claimed_bytes = now;
        p->changed_usec = w->in.now_usec;
        p->leaving_bytes = 0;
        p->is_busy = false;
}

/* A moment later: changes end, guests want other things, and say something, be it true or not. */
static void world_step(struct world *w)
{
        w->in.now_usec += draw(3 * USEC_PER_SEC);
        w->in.pool.reserved_bytes = draw(30) == 0 ? draw(4 * GIB) : 0;
        w->in.pool.host_some_permille = draw(30) == 0 ? draw(1001) : 0;
        for (size_t i = 0; i < w->in.n_partitions; i++) {
                struct policy_partition *p = &w->partitions[i];

                p->state = draw(20) == 0 ? draw(POLICY_STATE_MAX) : POLICY_RUNNING;
                if (p->is_busy && draw(2))
                        end_change(w, i);
                if (draw(12) == 0) {
                        w->needs[i] = draw(20 * GIB);
                        w->ledger[i].needs_usec = w->in.now_usec;
                }
                uint64_t used = is_honest(i) ? MIN(w->needs[i], p->current_bytes) : 0;
                p->resident_bytes = used + draw(p->current_bytes - used + 1);
                if (draw(6) == 0)
                        continue;
                p->sample = (struct policy_sample) {
                        .taken_usec = w->in.now_usec - draw(USEC_PER_SEC),
                        .available_bytes =
                                w->needs[i] < p->current_bytes ? p->current_bytes - w->needs[i] : 0,
                        .some_permille = w->needs[i] > p->current_bytes ? draw(1001) : 0,
                        .has_removable = draw(2),
                        .removable_bytes = draw(4 * GIB),
                };
                if (!is_honest(i)) { /* says anything */
                        p->sample.available_bytes = draw(POLICY_BYTES_MAX + 1);
                        p->sample.some_permille = draw(1001);
                        p->sample.full_permille = draw(1001);
                        p->sample.refault_bytes_per_sec = draw(POLICY_BYTES_MAX + 1);
                        p->sample.swap_in_bytes_per_sec = draw(POLICY_BYTES_MAX + 1);
                }
        }
}

static void check_one(const struct world *w, const struct policy_history *before,
        const struct policy_history *after, const struct policy_decision *d, size_t i)
{
        const struct policy_partition *p = &w->partitions[i];
        uint64_t moved = d->target_bytes > p->current_bytes ? d->target_bytes - p->current_bytes
                                                            : p->current_bytes - d->target_bytes;

        assert_int_equal(d->action == POLICY_KEEP, moved == 0);
        assert_int_equal(moved % p->granule_bytes, 0);
        /* A refusal is forgiven only to who by its next word needed what it was asked for. */
        if (after->n_refusals < before->n_refusals) {
                assert_true(p->sample.taken_usec >= before->refused_usec &&
                            before->used_usec < before->refused_usec);
                assert_true(d->used_bytes + d->pressed_bytes + d->headroom_bytes + p->granule_bytes >
                            p->current_bytes);
        }
        if (d->action == POLICY_KEEP) {
                assert_true(d->bound != POLICY_RULE_NONE);
                return;
        }
        assert_true(d->cause != POLICY_RULE_NONE);
        assert_true(p->mode != POLICY_MODE_OFF && p->state == POLICY_RUNNING && !p->is_busy);
        if (d->action == POLICY_GROW) {
                assert_true(d->target_bytes > p->current_bytes);
                assert_true(d->target_bytes <=
                            (p->max_bytes > 0 ? p->max_bytes : MAX(p->current_bytes, p->desired_bytes)));
                if (after->n_refusals > 0)
                        assert_true(d->target_bytes < MAX(d->weight_bytes, p->min_bytes) + p->granule_bytes);
                if (before->shrunk_usec > 0 &&
                        w->in.now_usec - before->shrunk_usec < w->in.config.quiet_usec &&
                        p->claimed_bytes >= p->min_bytes)
                        assert_true(d->used_bytes >= before->shrunk_used_bytes + p->granule_bytes / 2 ||
                                    (d->cause == POLICY_RULE_PRESSURE && before->shrunk_in_use_bytes == 0));
                return;
        }
        assert_true(d->target_bytes >= p->min_bytes && d->target_bytes >= p->floor_bytes);
        assert_true(p->sample.taken_usec >= p->changed_usec);
        assert_true(w->in.now_usec - p->sample.taken_usec <= w->in.config.fresh_usec);
        if (p->sample.has_removable)
                assert_true(moved <= p->sample.removable_bytes);
        if (after->n_refusals > 0)
                assert_true(w->in.now_usec - before->refused_usec >= w->in.config.refusal_usec);
}

/* Nobody whose demand is what it was is shrunk and grown again within the window. */
static void check_oscillation(const struct world *w, const struct policy_decision *d, size_t i)
{
        const struct policy_partition *p = &w->partitions[i];
        const struct ledger *l = &w->ledger[i];

        if (!is_honest(i) || p->mode != POLICY_MODE_AUTO || d->action != POLICY_GROW ||
                p->claimed_bytes < p->min_bytes || l->gave_usec == 0 ||
                w->in.now_usec - l->gave_usec >= w->in.config.quiet_usec)
                return;
        assert_true(l->needs_usec > l->gave_sample_usec);
}

/* Had one refused once more it would get no more now. */
static void check_refusal(const struct world *w, const struct policy_decision *decisions)
{
        struct policy_input in = w->in;
        struct policy_history history[GUESTS], after[GUESTS];
        struct policy_decision others[GUESTS];
        size_t i = draw(in.n_partitions);

        memcpy(history, w->history, sizeof(history));
        history[i].n_refusals++;
        history[i].refused_usec = in.now_usec - draw(2 * in.config.refusal_usec);
        in.history = history;
        policy_decide(&in, others, after);
        if (others[i].action == POLICY_GROW)
                assert_true(decisions[i].action == POLICY_GROW &&
                            others[i].target_bytes <= decisions[i].target_bytes);
}

static void check_round(
        const struct world *w, const struct policy_history *after, const struct policy_decision *decisions)
{
        uint64_t taken = w->in.pool.reserve_bytes + w->in.pool.reserved_bytes, grown = 0;

        for (size_t i = 0; i < w->in.n_partitions; i++) {
                check_one(w, &w->history[i], &after[i], &decisions[i], i);
                check_oscillation(w, &decisions[i], i);
                taken += w->partitions[i].claimed_bytes;
                if (decisions[i].action == POLICY_GROW)
                        grown += decisions[i].target_bytes - w->partitions[i].current_bytes;
        }
        assert_true(taken - w->in.pool.reserved_bytes <= w->in.pool.total_bytes);
        if (grown > 0)
                assert_true(taken + grown <= w->in.pool.total_bytes);
}

/* Written down, read back and decided again. */
static void check_replay(const struct world *w, const struct policy_decision *decisions)
{
        _cleanup_json_ struct json_object *o = NULL, *again = NULL;
        struct policy_decision replayed[GUESTS];
        struct policy_record record;
        struct error error = { 0 };

        assert_int_equal(policy_input_to_json(&w->in, &o), 0);
        const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
        assert_int_equal(json_parse(text, strlen(text), &again), 0);
        if (policy_input_from_json(again, &record, &error) < 0)
                fail_msg("%s", error.message);
        policy_decide(&record.input, replayed, record.history);
        assert_memory_equal(replayed, decisions, w->in.n_partitions * sizeof(replayed[0]));
        policy_record_done(&record);
}

static void take_decisions(struct world *w, const struct policy_decision *decisions)
{
        for (size_t i = 0; i < w->in.n_partitions; i++) {
                struct policy_partition *p = &w->partitions[i];

                if (decisions[i].action == POLICY_KEEP || p->mode != POLICY_MODE_AUTO)
                        continue;
                w->target[i] = decisions[i].target_bytes;
                if (decisions[i].action == POLICY_SHRINK) {
                        w->ledger[i].asked_usec = w->in.now_usec;
                        w->ledger[i].asked_sample_usec = p->sample.taken_usec;
                }
                p->is_busy = true;
                p->claimed_bytes = MAX(w->target[i], p->current_bytes);
                p->leaving_bytes = p->claimed_bytes - w->target[i];
        }
}

static void test_random(void **state)
{
        unsigned n[POLICY_ACTION_MAX] = { 0 };

        for (unsigned i = 0; i < HOSTS; i++) {
                struct world w;

                seed = 88172645463325252 + i;
                world_init(&w);
                for (unsigned k = 0; k < ROUNDS; k++) {
                        struct policy_decision decisions[GUESTS];
                        struct policy_history after[GUESTS];

                        world_step(&w);
                        memset(decisions, 0, sizeof(decisions));
                        policy_decide(&w.in, decisions, after);
                        check_round(&w, after, decisions);
                        if (k % 8 == 0)
                                check_replay(&w, decisions);
                        check_refusal(&w, decisions);
                        memcpy(w.history, after, sizeof(after));
                        take_decisions(&w, decisions);
                        for (size_t p = 0; p < w.in.n_partitions; p++)
                                n[decisions[p].action]++;
                }
        }
        /* The checks are worth what they saw. */
        assert_true(n[POLICY_GROW] > 1000 && n[POLICY_SHRINK] > 1000 && n[POLICY_KEEP] > 1000);
}

/* Nobody who wants less than the level loses by what others claim. */
static void test_random_fill(void **state)
{
        for (unsigned i = 0; i < 3000; i++) {
                unsigned weight[GUESTS];
                uint64_t floor[GUESTS], want[GUESTS], share[GUESTS], more[GUESTS];
                uint64_t sum = 0, floors = 0, total = draw(64 * GIB);
                size_t n = 2 + draw(GUESTS - 1);

                seed = 0x9e3779b97f4a7c15 + i;
                for (size_t k = 0; k < n; k++) {
                        weight[k] = 1 + (unsigned)draw(255);
                        floor[k] = draw(GIB);
                        want[k] = floor[k] + draw(16 * GIB);
                        floors += floor[k];
                }
                bool is_short = policy_fill(n, weight, floor, want, total, share);
                for (size_t k = 0; k < n; k++) {
                        assert_true(share[k] >= floor[k] && share[k] <= want[k]);
                        sum += share[k];
                }
                assert_true(sum <= MAX(total, floors));
                if (is_short && total > floors)
                        assert_true(sum + 256 * n > total);

                /* The first cries wolf: who had all that it wants within the wolf's level keeps it. */
                uint64_t level = share[0] / weight[0] + 1;
                if (!is_short || share[0] == floor[0] || share[0] == want[0])
                        continue;
                want[0] = POLICY_BYTES_MAX;
                policy_fill(n, weight, floor, want, total, more);
                for (size_t k = 1; k < n; k++)
                        if (want[k] < (level - 1) * weight[k])
                                assert_int_equal(more[k], want[k]);
                assert_int_equal(more[0], share[0]);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_random),
                cmocka_unit_test(test_random_fill),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
