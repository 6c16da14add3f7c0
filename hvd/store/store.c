/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The one place that speaks SQL. Owns the connection and its prepared statements, which are all made at open,
 * so that a schema that does not fit is found at start and never in the middle of a job.
 *
 * Invariants: user_version is the number of migrations applied, each in the same transaction as the version
 * that says so; application_id tells our files from other databases; no statement is left stepping between
 * calls. A job is over iff ended_usec is not 0: the store knows no names of states. */

#include "hvd/store/internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define APPLICATION_ID 0x4f444c50 /* "ODLP" */
#define BUSY_MSEC      250 /* an operator's sqlite3 may hold the file; the event loop waits this long */
#define SQL_MAX        4096

#define DECISION_COLUMNS                                                                                     \
        "SELECT d.id, d.round, r.time_usec, d.partition, d.decision, d.text, d.outcome"                      \
        " FROM decisions d JOIN rounds r ON r.id = d.round"

/* Each entry takes the schema from version i to i + 1; they are never edited, only added to. "%s" becomes
 * STRICT where this SQLite has it (3.37). */
static const char *const migrations[] = {
        "CREATE TABLE partitions ("
        " name TEXT NOT NULL PRIMARY KEY,"
        " qmp_path TEXT NOT NULL,"
        " channel_path TEXT NOT NULL,"
        " min_bytes INTEGER NOT NULL,"
        " desired_bytes INTEGER NOT NULL,"
        " max_bytes INTEGER NOT NULL,"
        " weight INTEGER NOT NULL) %1$s;"
        "CREATE TABLE jobs ("
        " id INTEGER NOT NULL PRIMARY KEY,"
        " partition TEXT NOT NULL,"
        " kind TEXT NOT NULL,"
        " state TEXT NOT NULL,"
        " requested_bytes INTEGER NOT NULL,"
        " done_bytes INTEGER NOT NULL,"
        " created_usec INTEGER NOT NULL,"
        " ended_usec INTEGER NOT NULL,"
        " deadline_usec INTEGER NOT NULL,"
        " reasons TEXT NOT NULL) %1$s;"
        "CREATE TABLE counters (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) %1$s;"
        "INSERT INTO counters VALUES ('job', 0);",

        "CREATE TABLE kept (partition TEXT NOT NULL PRIMARY KEY, bytes INTEGER NOT NULL) %1$s;",

        "CREATE TABLE modes (name TEXT NOT NULL PRIMARY KEY, mode TEXT NOT NULL) %1$s;"
        "CREATE TABLE rounds ("
        " id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,"
        " time_usec INTEGER NOT NULL,"
        " bytes INTEGER NOT NULL,"
        " input TEXT NOT NULL) %1$s;"
        "CREATE TABLE decisions ("
        " id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,"
        " round INTEGER NOT NULL,"
        " partition TEXT NOT NULL,"
        " decision TEXT NOT NULL,"
        " text TEXT NOT NULL,"
        " outcome TEXT NOT NULL) %1$s;"
        "CREATE INDEX decisions_of ON decisions (partition, id);"
        "CREATE TABLE samples ("
        " id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,"
        " time_usec INTEGER NOT NULL,"
        " partition TEXT NOT NULL,"
        " current_bytes INTEGER NOT NULL,"
        " used_bytes INTEGER NOT NULL,"
        " some_permille INTEGER NOT NULL,"
        " min_bytes INTEGER NOT NULL,"
        " desired_bytes INTEGER NOT NULL,"
        " max_bytes INTEGER NOT NULL,"
        " weight INTEGER NOT NULL,"
        " pool_bytes INTEGER NOT NULL) %1$s;",

        "CREATE TABLE transitions ("
        " job INTEGER NOT NULL,"
        " n INTEGER NOT NULL,"
        " time_usec INTEGER NOT NULL,"
        " state TEXT NOT NULL,"
        " PRIMARY KEY (job, n)) %1$s;"
        "CREATE TRIGGER job_forgotten AFTER DELETE ON jobs BEGIN"
        " DELETE FROM transitions WHERE job = old.id; END;"
        "CREATE TABLE owed (partition TEXT NOT NULL PRIMARY KEY, bytes INTEGER NOT NULL) %1$s;"
        "CREATE TABLE reservations ("
        " id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,"
        " owner TEXT NOT NULL,"
        " bytes INTEGER NOT NULL,"
        " boot TEXT NOT NULL,"
        " ends_usec INTEGER NOT NULL) %1$s;"
        "CREATE TABLE usage ("
        " day INTEGER NOT NULL,"
        " partition TEXT NOT NULL,"
        " mib_seconds INTEGER NOT NULL,"
        " PRIMARY KEY (partition, day)) %1$s;",

        "ALTER TABLE jobs ADD COLUMN peer TEXT NOT NULL DEFAULT '';"
        "ALTER TABLE jobs ADD COLUMN target_bytes INTEGER NOT NULL DEFAULT 0;"
        "ALTER TABLE jobs ADD COLUMN before_bytes INTEGER NOT NULL DEFAULT 0;"
        "ALTER TABLE jobs ADD COLUMN peer_before_bytes INTEGER NOT NULL DEFAULT 0;"
        "ALTER TABLE jobs ADD COLUMN boot TEXT NOT NULL DEFAULT '';"
        "ALTER TABLE jobs ADD COLUMN peer_boot TEXT NOT NULL DEFAULT '';",
};

static const char *const statements[STATEMENT_MAX] = {
        [PARTITION_PUT] =
                "INSERT OR REPLACE INTO partitions (name, qmp_path, channel_path, min_bytes, desired_bytes,"
                " max_bytes, weight) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        [PARTITION_DELETE] = "DELETE FROM partitions WHERE name = ?1",
        [PARTITION_LIST] = "SELECT name, qmp_path, channel_path, min_bytes, desired_bytes, max_bytes, weight"
                           " FROM partitions ORDER BY name",
        [KEPT_PUT] = "INSERT OR REPLACE INTO kept (partition, bytes) VALUES (?1, ?2)",
        [KEPT_DELETE] = "DELETE FROM kept WHERE partition = ?1",
        [KEPT_GET] = "SELECT bytes FROM kept WHERE partition = ?1",
        [JOB_NEXT_ID] =
                "UPDATE counters SET value = max(value, ?1, ifnull((SELECT max(id) FROM jobs), 0)) + 1"
                " WHERE name = 'job' RETURNING value",
        [JOB_LAST_ID] = "SELECT max(value, ifnull((SELECT max(id) FROM jobs), 0)) FROM counters"
                        " WHERE name = 'job'",
        [JOB_PUT] = "INSERT OR REPLACE INTO jobs (id, partition, kind, state, requested_bytes, done_bytes,"
                    " created_usec, ended_usec, deadline_usec, reasons, peer, target_bytes, before_bytes,"
                    " peer_before_bytes, boot, peer_boot)"
                    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        [JOB_LIST] =
                "SELECT id, partition, kind, state, requested_bytes, done_bytes, created_usec, ended_usec,"
                " deadline_usec, reasons, peer, target_bytes, before_bytes, peer_before_bytes, boot, "
                "peer_boot"
                " FROM jobs WHERE ended_usec = 0 OR id IN"
                " (SELECT id FROM jobs WHERE ended_usec != 0 ORDER BY ended_usec DESC, id DESC LIMIT ?1)"
                " ORDER BY id DESC",
        [JOBS_TRIM] = "DELETE FROM jobs WHERE ended_usec != 0 AND id NOT IN"
                      " (SELECT id FROM jobs WHERE ended_usec != 0 ORDER BY id DESC LIMIT ?1)",
        [MODE_PUT] = "INSERT OR REPLACE INTO modes (name, mode) VALUES (?1, ?2)",
        [MODE_DELETE] = "DELETE FROM modes WHERE name = ?1",
        [MODE_GET] = "SELECT mode FROM modes WHERE name = ?1",
        [ROUND_PUT] = "INSERT INTO rounds (time_usec, bytes, input) VALUES (?1, ?2, ?3)",
        [ROUND_GET] = "SELECT input FROM rounds WHERE id = ?1",
        [DECISION_PUT] = "INSERT INTO decisions (round, partition, decision, text, outcome)"
                         " VALUES (?1, ?2, ?3, ?4, ?5)",
        [DECISION_END] = "UPDATE decisions SET outcome = ?2 WHERE id = ?1",
        [DECISION_GET] = DECISION_COLUMNS " WHERE d.id = ?1",
        [DECISION_LIST] = DECISION_COLUMNS " WHERE ?1 = '' OR d.partition = ?1 ORDER BY d.id DESC LIMIT ?2",
        [ROUNDS_TRIM] = "DELETE FROM rounds WHERE id <= max(ifnull((SELECT max(id) FROM rounds), 0) - ?1,"
                        " ifnull((SELECT max(id) FROM (SELECT id, sum(bytes) OVER (ORDER BY id DESC) AS sum"
                        " FROM rounds) WHERE sum > ?2), 0))",
        [DECISIONS_TRIM] = "DELETE FROM decisions WHERE id <= (SELECT max(id) FROM decisions) - ?1"
                           " OR round < ifnull((SELECT min(id) FROM rounds), 0)",
        [SAMPLE_PUT] = "INSERT INTO samples (time_usec, partition, current_bytes, used_bytes, some_permille,"
                       " min_bytes, desired_bytes, max_bytes, weight, pool_bytes)"
                       " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        [SAMPLE_LIST] = "SELECT time_usec, partition, current_bytes, used_bytes, some_permille, min_bytes,"
                        " desired_bytes, max_bytes, weight, pool_bytes FROM samples"
                        " WHERE time_usec >= ?1 AND time_usec <= ?2 ORDER BY time_usec, id",
        [SAMPLES_TRIM] = "DELETE FROM samples WHERE id <= (SELECT max(id) FROM samples) - ?1",
        [TRANSITION_PUT] =
                "INSERT OR REPLACE INTO transitions (job, n, time_usec, state) VALUES (?1, ?2, ?3, ?4)",
        [TRANSITION_LIST] = "SELECT n, time_usec, state FROM transitions WHERE job = ?1 ORDER BY n",
        [OWED_PUT] = "INSERT OR REPLACE INTO owed (partition, bytes) VALUES (?1, ?2)",
        [OWED_DELETE] = "DELETE FROM owed WHERE partition = ?1",
        [OWED_GET] = "SELECT bytes FROM owed WHERE partition = ?1",
        [RESERVATION_PUT] = "INSERT OR REPLACE INTO reservations (id, owner, bytes, boot, ends_usec)"
                            " VALUES (?1, ?2, ?3, ?4, ?5)",
        [RESERVATION_LAST_ID] =
                "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'reservations'), 0)",
        [RESERVATION_DELETE] = "DELETE FROM reservations WHERE id = ?1",
        [RESERVATION_LIST] = "SELECT id, owner, bytes, ends_usec FROM reservations ORDER BY id",
        [RESERVATIONS_TRIM] = "DELETE FROM reservations WHERE boot != ?1 OR ends_usec <= ?2",
        [USAGE_ADD] = "INSERT INTO usage (day, partition, mib_seconds) VALUES (?1, ?2, ?3)"
                      " ON CONFLICT (partition, day) DO UPDATE SET mib_seconds = mib_seconds + ?3",
        [USAGE_LIST] = "SELECT day, mib_seconds FROM usage WHERE partition = ?1 AND day >= ?2"
                       " ORDER BY day DESC",
        [USAGE_TRIM] = "DELETE FROM usage WHERE day < ?1",
};

int store_error(struct store *s, int code, const char *doing, struct error *ret_error)
{
        const char *why = s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(code);

        error_set(ret_error, ERROR_INTERNAL, "The store cannot %s: %s", doing, why);
        switch (code & 0xff) {
        case SQLITE_NOMEM:
                return -ENOMEM;
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
                return -EBUSY;
        case SQLITE_FULL:
                return -ENOSPC;
        case SQLITE_READONLY:
        case SQLITE_PERM:
        case SQLITE_AUTH:
                return -EACCES;
        case SQLITE_CANTOPEN:
                return -ENOENT;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
                return -EBADMSG;
        default:
                return -EIO;
        }
}

int store_finish(struct store *s, sqlite3_stmt *st, const char *doing, struct error *ret_error)
{
        int code = sqlite3_step(st);

        return code == SQLITE_DONE ? 0 : store_error(s, code, doing, ret_error);
}

static int execute(struct store *s, const char *sql, const char *doing, struct error *ret_error)
{
        int code = sqlite3_exec(s->db, sql, NULL, NULL, NULL);

        return code == SQLITE_OK ? 0 : store_error(s, code, doing, ret_error);
}

static int on_first_column(void *userdata, int n, char **values, char **names)
{
        char *ret = userdata;

        if (ret[0] == '\0' && n > 0 && values[0])
                snprintf(ret, 64, "%s", values[0]);
        return 0;
}

/* The first column of the first row, as text. */
static int query(struct store *s, const char *sql, char ret[static 64], struct error *ret_error)
{
        ret[0] = '\0';
        int code = sqlite3_exec(s->db, sql, on_first_column, ret, NULL);
        return code == SQLITE_OK ? 0 : store_error(s, code, "be read", ret_error);
}

static int check_identity(struct store *s, const char *path, int *ret_version, struct error *ret_error)
{
        char application[64], version[64], tables[64], check[64];
        int e = query(s, "PRAGMA application_id", application, ret_error);

        if (e >= 0)
                e = query(s, "PRAGMA user_version", version, ret_error);
        if (e >= 0)
                e = query(s, "SELECT count(*) FROM sqlite_master", tables, ret_error);
        if (e < 0)
                return e;
        if (strcmp(tables, "0") != 0 && atoi(application) != APPLICATION_ID) {
                error_set(ret_error, ERROR_INTERNAL, "%s is a database of another program; name another file",
                        path);
                return -EPROTONOSUPPORT;
        }
        *ret_version = strcmp(tables, "0") != 0 ? atoi(version) : 0;
        if (*ret_version < 0 || (size_t)*ret_version > ARRAY_SIZE(migrations)) {
                error_set(ret_error, ERROR_INTERNAL,
                        "%s was written by a newer hvd (schema %d; this one knows up to %zu); install that, "
                        "or move "
                        "the file away",
                        path, *ret_version, ARRAY_SIZE(migrations));
                return -EPROTONOSUPPORT;
        }
        e = query(s, "PRAGMA quick_check(1)", check, ret_error);
        if (e < 0)
                return e;
        if (strcmp(check, "ok") != 0) {
                error_set(ret_error, ERROR_INTERNAL, "%s is damaged (%s)", path, check);
                return -EBADMSG;
        }
        return 0;
}

static int migrate(struct store *s, int version, struct error *ret_error)
{
        static const char doing[] = "bring its schema up to date";
        const char *strict = sqlite3_libversion_number() >= 3037000 ? "STRICT" : "";
        char sql[SQL_MAX];

        for (size_t i = (size_t)version; i < ARRAY_SIZE(migrations); i++) {
                int e = execute(s, "BEGIN IMMEDIATE", doing, ret_error);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
                int length = snprintf(sql, sizeof(sql), migrations[i], strict);
#pragma GCC diagnostic pop
                assert(length > 0 && (size_t)length < sizeof(sql));
                if (e >= 0)
                        e = execute(s, sql, doing, ret_error);
                snprintf(sql, sizeof(sql), "PRAGMA user_version = %zu; PRAGMA application_id = %d; COMMIT",
                        i + 1, APPLICATION_ID);
                if (e >= 0)
                        e = execute(s, sql, doing, ret_error);
                if (e < 0) {
                        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
                        return e;
                }
        }
        return 0;
}

static int prepare(struct store *s, struct error *ret_error)
{
        for (int i = 0; i < STATEMENT_MAX; i++) {
                int code = sqlite3_prepare_v3(
                        s->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT, &s->statements[i], NULL);
                if (code != SQLITE_OK)
                        return store_error(s, code, "be used", ret_error);
        }
        return 0;
}

struct store *store_free(struct store *s)
{
        if (!s)
                return NULL;
        for (int i = 0; i < STATEMENT_MAX; i++)
                sqlite3_finalize(s->statements[i]);
        sqlite3_close(s->db);
        free(s);
        return NULL;
}

static void store_freep(struct store **s)
{
        store_free(*s);
}

static int bring_up_to_date(struct store *s, int version, struct error *ret_error)
{
        int e = execute(s, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL", "be opened", ret_error);

        return e < 0 ? e : migrate(s, version, ret_error);
}

static int check_version(int version, struct error *ret_error)
{
        if ((size_t)version == ARRAY_SIZE(migrations))
                return 0;
        error_set(ret_error, ERROR_INTERNAL,
                "The store is of an older hvd (schema %d; this is %zu): hvd itself brings it up to date",
                version, ARRAY_SIZE(migrations));
        return -EPROTONOSUPPORT;
}

static int open_store(const char *path, bool readonly, struct store **ret, struct error *ret_error)
{
        _cleanup_(store_freep) struct store *s = NULL;
        int version = 0, flags = readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
        struct error reason;

        s = calloc(1, sizeof(*s));
        if (!s)
                return error_set_errno(ret_error, ERROR_INTERNAL, ENOMEM, "The store cannot be opened");
        int code = sqlite3_open_v2(path, &s->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
        int e = code == SQLITE_OK ? 0 : store_error(s, code, "be opened", &reason);
        if (e >= 0) {
                sqlite3_extended_result_codes(s->db, 1);
                sqlite3_busy_timeout(s->db, BUSY_MSEC);
                e = check_identity(s, path, &version, &reason);
        }
        if (e >= 0)
                e = readonly ? check_version(version, &reason) : bring_up_to_date(s, version, &reason);
        if (e >= 0)
                e = prepare(s, &reason);
        if (e >= 0) {
                *ret = steal_pointer(s);
                return 0;
        }
        if (strstr(reason.message, path))
                error_set(ret_error, reason.code, "%s", reason.message);
        else
                error_set(ret_error, reason.code, "%s (%s)%s", reason.message, path,
                        e == -EBADMSG ? "; restore it, or move it away to begin anew" : "");
        return e;
}

int store_open(const char *path, struct store **ret, struct error *ret_error)
{
        return open_store(path, false, ret, ret_error);
}

int store_open_readonly(const char *path, struct store **ret, struct error *ret_error)
{
        return open_store(path, true, ret, ret_error);
}

int store_partition_put(struct store *s, const struct partition_definition *d, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[PARTITION_PUT];

        bind_text(st, 1, d->name);
        bind_text(st, 2, d->qmp_path);
        bind_text(st, 3, d->channel_path);
        bind_u64(st, 4, d->profile.min_bytes);
        bind_u64(st, 5, d->profile.desired_bytes);
        bind_u64(st, 6, d->profile.max_bytes);
        bind_u64(st, 7, d->profile.weight);
        return store_finish(s, st, "keep a partition", ret_error);
}

int store_partition_delete(struct store *s, const char *name, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[PARTITION_DELETE];

        int e = store_kept_put(s, name, 0, ret_error);
        if (e >= 0)
                e = store_owed_put(s, name, 0, ret_error);
        if (e >= 0)
                e = store_mode_put(s, name, NULL, ret_error);
        if (e < 0)
                return e;
        bind_text(st, 1, name);
        e = store_finish(s, st, "forget a partition", ret_error);
        return e < 0 ? e : sqlite3_changes(s->db) > 0;
}

static bool copy_column(sqlite3_stmt *st, int column, size_t size, char *ret)
{
        const char *text = column_text(st, column);
        size_t length = strlen(text);

        if (length >= size)
                return false;
        memcpy(ret, text, length + 1);
        return true;
}

int store_partition_foreach(
        struct store *s, store_partition_t callback, void *userdata, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[PARTITION_LIST];
        int code, r;

        while ((code = sqlite3_step(st)) == SQLITE_ROW) {
                struct partition_definition d = {
                        .profile =
                                {
                                        .min_bytes = column_u64(st, 3),
                                        .desired_bytes = column_u64(st, 4),
                                        .max_bytes = column_u64(st, 5),
                                        .weight = (unsigned)column_u64(st, 6),
                                },
                };

                if (!copy_column(st, 0, sizeof(d.name), d.name) ||
                        !copy_column(st, 1, sizeof(d.qmp_path), d.qmp_path) ||
                        !copy_column(st, 2, sizeof(d.channel_path), d.channel_path)) {
                        error_set(ret_error, ERROR_INTERNAL,
                                "The store's definition of partition '%.64s' is damaged; define it again",
                                column_text(st, 0));
                        return -EBADMSG;
                }
                r = callback(&d, userdata);
                if (r != 0)
                        return r;
        }
        return code == SQLITE_DONE ? 0 : store_error(s, code, "list partitions", ret_error);
}

static int write_next_id(struct store *s, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[JOB_NEXT_ID];

        bind_u64(st, 1, s->last_id);
        int code = sqlite3_step(st);
        if (code != SQLITE_ROW)
                return store_error(s, code, "number a job", ret_error);
        uint64_t id = column_u64(st, 0);
        /* The row is there before the change is: only the next step commits it. */
        code = sqlite3_step(st);
        if (code != SQLITE_DONE)
                return store_error(s, code, "number a job", ret_error);
        s->last_id = id;
        return 0;
}

/* Where nothing can be written there is still what can be read, and what was given out since. */
static int guess_next_id(struct store *s, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[JOB_LAST_ID];

        int code = sqlite3_step(st);
        if (code != SQLITE_ROW)
                return store_error(s, code, "number a job", ret_error);
        s->last_id = MAX(s->last_id, column_u64(st, 0)) + 1;
        return 1;
}

int store_job_next_id(struct store *s, uint32_t *ret_id, struct error *ret_error)
{
        struct error ignored;

        int r = write_next_id(s, ret_error);
        if (r < 0) {
                r = guess_next_id(s, &ignored);
                if (r < 0)
                        return r;
        }
        if (s->last_id == 0 || s->last_id > UINT32_MAX) {
                error_set(ret_error, ERROR_INTERNAL,
                        "The store has no job numbers left; move it away to begin anew");
                return -EOVERFLOW;
        }
        *ret_id = (uint32_t)s->last_id;
        return r;
}

int store_job_put(struct store *s, const struct store_job *j, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[JOB_PUT];

        bind_u64(st, 1, j->id);
        bind_text(st, 2, j->partition);
        bind_text(st, 3, j->kind);
        bind_text(st, 4, j->state);
        bind_u64(st, 5, j->requested_bytes);
        bind_u64(st, 6, j->done_bytes);
        bind_u64(st, 7, j->created_usec);
        bind_u64(st, 8, j->ended_usec);
        bind_u64(st, 9, j->deadline_usec);
        bind_text(st, 10, j->reasons ?: "[]");
        bind_text(st, 11, j->peer ?: "");
        bind_u64(st, 12, j->target_bytes);
        bind_u64(st, 13, j->before_bytes);
        bind_u64(st, 14, j->peer_before_bytes);
        bind_text(st, 15, j->boot ?: "");
        bind_text(st, 16, j->peer_boot ?: "");
        return store_finish(s, st, "keep a job", ret_error);
}

int store_job_foreach(
        struct store *s, unsigned max, store_job_t callback, void *userdata, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[JOB_LIST];
        int code, r;

        bind_u64(st, 1, max);
        while ((code = sqlite3_step(st)) == SQLITE_ROW) {
                struct store_job j = {
                        .id = (uint32_t)column_u64(st, 0),
                        .partition = column_text(st, 1),
                        .kind = column_text(st, 2),
                        .state = column_text(st, 3),
                        .requested_bytes = column_u64(st, 4),
                        .done_bytes = column_u64(st, 5),
                        .created_usec = column_u64(st, 6),
                        .ended_usec = column_u64(st, 7),
                        .deadline_usec = column_u64(st, 8),
                        .reasons = column_text(st, 9),
                        .peer = column_text(st, 10),
                        .target_bytes = column_u64(st, 11),
                        .before_bytes = column_u64(st, 12),
                        .peer_before_bytes = column_u64(st, 13),
                        .boot = column_text(st, 14),
                        .peer_boot = column_text(st, 15),
                };

                r = callback(&j, userdata);
                if (r != 0)
                        return r;
        }
        return code == SQLITE_DONE ? 0 : store_error(s, code, "list jobs", ret_error);
}

int store_jobs_trim(struct store *s, unsigned keep, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[JOBS_TRIM];

        bind_u64(st, 1, keep);
        return store_finish(s, st, "forget old jobs", ret_error);
}
