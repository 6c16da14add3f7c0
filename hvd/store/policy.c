/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the policy decided and on what, and what guests said of their memory; all of it bounded, oldest first.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hvd/store/internal.h"

/* --- modes --- */

int store_mode_put(struct store *s, const char *name, const char *mode, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[mode ? MODE_PUT : MODE_DELETE];

        bind_text(st, 1, name);
        if (mode)
                bind_text(st, 2, mode);
        return store_finish(s, st, "keep a mode of the policy", ret_error);
}

int store_mode_get(
        struct store *s, const char *name, char ret[static STORE_MODE_MAX], struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[MODE_GET];

        bind_text(st, 1, name);
        int code = sqlite3_step(st);
        if (code != SQLITE_ROW && code != SQLITE_DONE)
                return store_error(s, code, "say a mode of the policy", ret_error);
        ret[0] = '\0';
        if (code == SQLITE_ROW && strlen(column_text(st, 0)) < STORE_MODE_MAX)
                strcpy(ret, column_text(st, 0));
        return 0;
}

/* --- transactions --- */

static int run(struct store *s, const char *sql, struct error *ret_error)
{
        int code = sqlite3_exec(s->db, sql, NULL, NULL, NULL);

        return code == SQLITE_OK ? 0 : store_error(s, code, "be written", ret_error);
}

int store_begin(struct store *s, struct error *ret_error)
{
        return run(s, "BEGIN IMMEDIATE", ret_error);
}

int store_commit(struct store *s, struct error *ret_error)
{
        int r = run(s, "COMMIT", ret_error);

        if (r < 0)
                sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
        return r;
}

/* --- decisions --- */

int store_round_put(
        struct store *s, uint64_t time_usec, const char *input, uint64_t *ret_id, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[ROUND_PUT];

        bind_u64(st, 1, time_usec);
        bind_u64(st, 2, strlen(input));
        bind_text(st, 3, input);
        int r = store_finish(s, st, "keep what the policy saw", ret_error);
        if (r >= 0)
                *ret_id = (uint64_t)sqlite3_last_insert_rowid(s->db);
        return r;
}

int store_round_get(struct store *s, uint64_t id, char **ret, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[ROUND_GET];

        bind_u64(st, 1, id);
        int code = sqlite3_step(st);
        if (code == SQLITE_DONE) {
                error_set(ret_error, ERROR_INVALID_ARGUMENT, "The store has no such round of decisions");
                return -ENOENT;
        }
        if (code != SQLITE_ROW)
                return store_error(s, code, "say what the policy saw", ret_error);
        char *input = strdup(column_text(st, 0));
        if (!input)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        *ret = input;
        return 0;
}

int store_decision_put(
        struct store *s, const struct store_decision *d, uint64_t *ret_id, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[DECISION_PUT];

        bind_u64(st, 1, d->round);
        bind_text(st, 2, d->partition);
        bind_text(st, 3, d->decision);
        bind_text(st, 4, d->text);
        bind_text(st, 5, d->outcome);
        int r = store_finish(s, st, "keep a decision", ret_error);
        if (r >= 0)
                *ret_id = (uint64_t)sqlite3_last_insert_rowid(s->db);
        return r;
}

int store_decision_end(struct store *s, uint64_t id, const char *outcome, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[DECISION_END];

        bind_u64(st, 1, id);
        bind_text(st, 2, outcome);
        return store_finish(s, st, "keep what came of a decision", ret_error);
}

static struct store_decision read_decision(sqlite3_stmt *st)
{
        return (struct store_decision) {
                .id = column_u64(st, 0),
                .round = column_u64(st, 1),
                .time_usec = column_u64(st, 2),
                .partition = column_text(st, 3),
                .decision = column_text(st, 4),
                .text = column_text(st, 5),
                .outcome = column_text(st, 6),
        };
}

int store_decision_get(
        struct store *s, uint64_t id, store_decision_t callback, void *userdata, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[DECISION_GET];

        bind_u64(st, 1, id);
        int code = sqlite3_step(st);
        if (code == SQLITE_DONE) {
                error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "There is no decision %" PRIu64
                        ", or no longer; 'hmc-cli explain --last 100' shows the latest",
                        id);
                return -ENOENT;
        }
        if (code != SQLITE_ROW)
                return store_error(s, code, "say a decision", ret_error);
        struct store_decision d = read_decision(st);
        return callback(&d, userdata);
}

int store_decision_foreach(struct store *s, const char *partition, unsigned max, store_decision_t callback,
        void *userdata, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[DECISION_LIST];
        int code, r;

        bind_text(st, 1, partition);
        bind_u64(st, 2, max);
        while ((code = sqlite3_step(st)) == SQLITE_ROW) {
                struct store_decision d = read_decision(st);

                r = callback(&d, userdata);
                if (r != 0)
                        return r;
        }
        return code == SQLITE_DONE ? 0 : store_error(s, code, "list decisions", ret_error);
}

/* --- samples --- */

int store_sample_put(struct store *s, const struct store_sample *sample, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[SAMPLE_PUT];

        bind_u64(st, 1, sample->time_usec);
        bind_text(st, 2, sample->partition);
        bind_u64(st, 3, sample->current_bytes);
        bind_u64(st, 4, sample->used_bytes);
        bind_u64(st, 5, sample->some_permille);
        bind_u64(st, 6, sample->min_bytes);
        bind_u64(st, 7, sample->desired_bytes);
        bind_u64(st, 8, sample->max_bytes);
        bind_u64(st, 9, sample->weight);
        bind_u64(st, 10, sample->pool_bytes);
        return store_finish(s, st, "keep a sample", ret_error);
}

int store_sample_foreach(struct store *s, uint64_t from_usec, uint64_t to_usec, store_sample_t callback,
        void *userdata, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[SAMPLE_LIST];
        int code, r;

        bind_u64(st, 1, from_usec);
        bind_u64(st, 2, to_usec);
        while ((code = sqlite3_step(st)) == SQLITE_ROW) {
                struct store_sample sample = {
                        .time_usec = column_u64(st, 0),
                        .partition = column_text(st, 1),
                        .current_bytes = column_u64(st, 2),
                        .used_bytes = column_u64(st, 3),
                        .some_permille = column_u64(st, 4),
                        .min_bytes = column_u64(st, 5),
                        .desired_bytes = column_u64(st, 6),
                        .max_bytes = column_u64(st, 7),
                        .weight = column_u64(st, 8),
                        .pool_bytes = column_u64(st, 9),
                };

                r = callback(&sample, userdata);
                if (r != 0)
                        return r;
        }
        return code == SQLITE_DONE ? 0 : store_error(s, code, "list samples", ret_error);
}

int store_policy_trim(struct store *s, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *rounds = s->statements[ROUNDS_TRIM];
        _cleanup_reset_ sqlite3_stmt *decisions = s->statements[DECISIONS_TRIM];
        _cleanup_reset_ sqlite3_stmt *samples = s->statements[SAMPLES_TRIM];

        bind_u64(rounds, 1, STORE_ROUNDS_MAX);
        bind_u64(rounds, 2, STORE_ROUNDS_BYTES);
        bind_u64(decisions, 1, STORE_DECISIONS_MAX);
        bind_u64(samples, 1, STORE_SAMPLES_MAX);
        int r = store_finish(s, rounds, "forget old decisions", ret_error);
        if (r >= 0)
                r = store_finish(s, decisions, "forget old decisions", ret_error);
        if (r >= 0)
                r = store_finish(s, samples, "forget old samples", ret_error);
        return r;
}
