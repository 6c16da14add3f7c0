/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is kept of partitions and jobs beside their records: the ways that jobs took, what guests are to have,
 * who has reserved memory, and how much was given for how long. */

#include "hvd/store/internal.h"

/* --- what guests are to have --- */

static int put_bytes(struct store *s, sqlite3_stmt *put, sqlite3_stmt *forget, const char *partition,
        uint64_t bytes, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = bytes ? put : forget;

        bind_text(st, 1, partition);
        if (bytes)
                bind_u64(st, 2, bytes);
        return store_finish(s, st, "keep what a partition has", ret_error);
}

static int get_bytes(struct store *s, sqlite3_stmt *get, const char *partition, uint64_t *ret_bytes,
        struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = get;

        bind_text(st, 1, partition);
        int code = sqlite3_step(st);
        if (code != SQLITE_ROW && code != SQLITE_DONE)
                return store_error(s, code, "say what a partition had", ret_error);
        *ret_bytes = code == SQLITE_ROW ? column_u64(st, 0) : 0;
        return 0;
}

int store_kept_put(struct store *s, const char *partition, uint64_t bytes, struct error *ret_error)
{
        return put_bytes(s, s->statements[KEPT_PUT], s->statements[KEPT_DELETE], partition, bytes, ret_error);
}

int store_kept_get(struct store *s, const char *partition, uint64_t *ret_bytes, struct error *ret_error)
{
        return get_bytes(s, s->statements[KEPT_GET], partition, ret_bytes, ret_error);
}

int store_owed_put(struct store *s, const char *partition, uint64_t bytes, struct error *ret_error)
{
        return put_bytes(s, s->statements[OWED_PUT], s->statements[OWED_DELETE], partition, bytes, ret_error);
}

int store_owed_get(struct store *s, const char *partition, uint64_t *ret_bytes, struct error *ret_error)
{
        return get_bytes(s, s->statements[OWED_GET], partition, ret_bytes, ret_error);
}

/* --- jobs --- */

int store_transition_put(
        struct store *s, uint32_t job, const struct store_transition *t, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[TRANSITION_PUT];

        bind_u64(st, 1, job);
        bind_u64(st, 2, t->n);
        bind_u64(st, 3, t->time_usec);
        bind_text(st, 4, t->state);
        return store_finish(s, st, "keep the way of a job", ret_error);
}

int store_transition_foreach(
        struct store *s, uint32_t job, store_transition_t callback, void *userdata, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[TRANSITION_LIST];
        int code, r;

        bind_u64(st, 1, job);
        while ((code = sqlite3_step(st)) == SQLITE_ROW) {
                struct store_transition t = {
                        .n = (unsigned)column_u64(st, 0),
                        .time_usec = column_u64(st, 1),
                        .state = column_text(st, 2),
                };

                r = callback(&t, userdata);
                if (r != 0)
                        return r;
        }
        return code == SQLITE_DONE ? 0 : store_error(s, code, "list the way of a job", ret_error);
}

/* --- reservations --- */

int store_reservation_put(struct store *s, const struct store_reservation *v, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[RESERVATION_PUT];

        bind_u64(st, 1, v->id);
        bind_text(st, 2, v->owner);
        bind_u64(st, 3, v->bytes);
        bind_text(st, 4, v->boot);
        bind_u64(st, 5, v->ends_usec);
        return store_finish(s, st, "keep a reservation", ret_error);
}

int store_reservation_last_id(struct store *s, uint32_t *ret_id, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[RESERVATION_LAST_ID];

        int code = sqlite3_step(st);
        if (code != SQLITE_ROW)
                return store_error(s, code, "number a reservation", ret_error);
        *ret_id = (uint32_t)column_u64(st, 0);
        return 0;
}

int store_reservation_delete(struct store *s, uint32_t id, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[RESERVATION_DELETE];

        bind_u64(st, 1, id);
        return store_finish(s, st, "forget a reservation", ret_error);
}

static int trim_reservations(struct store *s, const char *boot, uint64_t now_usec, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[RESERVATIONS_TRIM];

        bind_text(st, 1, boot);
        bind_u64(st, 2, now_usec);
        return store_finish(s, st, "forget old reservations", ret_error);
}

int store_reservation_foreach(struct store *s, const char *boot, uint64_t now_usec,
        store_reservation_t callback, void *userdata, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[RESERVATION_LIST];
        int code, r = trim_reservations(s, boot, now_usec, ret_error);

        if (r < 0)
                return r;
        while ((code = sqlite3_step(st)) == SQLITE_ROW) {
                struct store_reservation v = {
                        .id = (uint32_t)column_u64(st, 0),
                        .owner = column_text(st, 1),
                        .bytes = column_u64(st, 2),
                        .boot = boot,
                        .ends_usec = column_u64(st, 3),
                };

                r = callback(&v, userdata);
                if (r != 0)
                        return r;
        }
        return code == SQLITE_DONE ? 0 : store_error(s, code, "list reservations", ret_error);
}

/* --- metering --- */

int store_usage_add(
        struct store *s, const char *partition, uint32_t day, uint64_t mib_seconds, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[USAGE_ADD];

        bind_u64(st, 1, day);
        bind_text(st, 2, partition);
        bind_u64(st, 3, mib_seconds);
        return store_finish(s, st, "keep what a partition used", ret_error);
}

int store_usage_foreach(struct store *s, const char *partition, uint32_t from_day, store_usage_t callback,
        void *userdata, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[USAGE_LIST];
        int code, r;

        bind_text(st, 1, partition);
        bind_u64(st, 2, from_day);
        while ((code = sqlite3_step(st)) == SQLITE_ROW) {
                r = callback((uint32_t)column_u64(st, 0), column_u64(st, 1), userdata);
                if (r != 0)
                        return r;
        }
        return code == SQLITE_DONE ? 0 : store_error(s, code, "say what a partition used", ret_error);
}

int store_usage_trim(struct store *s, uint32_t from_day, struct error *ret_error)
{
        _cleanup_reset_ sqlite3_stmt *st = s->statements[USAGE_TRIM];

        bind_u64(st, 1, from_day);
        return store_finish(s, st, "forget what partitions used", ret_error);
}
