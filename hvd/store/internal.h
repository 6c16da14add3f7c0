/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sqlite3.h>

#include "common/cleanup.h"
#include "hvd/store/store.h"

/* Shared by the files of store/. */

enum statement {
        PARTITION_PUT,
        PARTITION_DELETE,
        PARTITION_LIST,
        KEPT_PUT,
        KEPT_DELETE,
        KEPT_GET,
        JOB_NEXT_ID,
        JOB_LAST_ID,
        JOB_PUT,
        JOB_LIST,
        JOBS_TRIM,
        MODE_PUT,
        MODE_DELETE,
        MODE_GET,
        ROUND_PUT,
        ROUND_GET,
        DECISION_PUT,
        DECISION_END,
        DECISION_GET,
        DECISION_LIST,
        ROUNDS_TRIM,
        DECISIONS_TRIM,
        SAMPLE_PUT,
        SAMPLE_LIST,
        SAMPLES_TRIM,
        TRANSITION_PUT,
        TRANSITION_LIST,
        OWED_PUT,
        OWED_DELETE,
        OWED_GET,
        RESERVATION_PUT,
        RESERVATION_LAST_ID,
        RESERVATION_DELETE,
        RESERVATION_LIST,
        RESERVATIONS_TRIM,
        USAGE_ADD,
        USAGE_LIST,
        USAGE_TRIM,
        STATEMENT_MAX,
};

struct store {
        sqlite3 *db;
        sqlite3_stmt *statements[STATEMENT_MAX];
        uint64_t last_id; /* of a job, that was given out or is known */
};

/* Says what could not be done, and turns SQLite's code into -errno. */
int store_error(struct store *s, int code, const char *doing, struct error *ret_error);
/* Steps a statement that returns no rows. */
int store_finish(struct store *s, sqlite3_stmt *st, const char *doing, struct error *ret_error);

/* A statement in use: reset when it leaves its scope, whichever way. */
static inline void resetp(sqlite3_stmt **st)
{
        sqlite3_reset(*st);
        sqlite3_clear_bindings(*st);
}
#define _cleanup_reset_ _cleanup_(resetp)

/* SQLite's integers are signed: what lies above is USEC_INFINITY, and comes back as such. */
static inline void bind_u64(sqlite3_stmt *st, int column, uint64_t v)
{
        sqlite3_bind_int64(st, column, v > INT64_MAX ? INT64_MAX : (sqlite3_int64)v);
}

static inline uint64_t column_u64(sqlite3_stmt *st, int column)
{
        sqlite3_int64 v = sqlite3_column_int64(st, column);

        return v == INT64_MAX ? UINT64_MAX : v < 0 ? 0 : (uint64_t)v;
}

static inline void bind_text(sqlite3_stmt *st, int column, const char *v)
{
        sqlite3_bind_text(st, column, v, -1, SQLITE_STATIC);
}

static inline const char *column_text(sqlite3_stmt *st, int column)
{
        return (const char *)sqlite3_column_text(st, column) ?: "";
}
