/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The store in a folder of the test's own: what survives, and what is refused. */

#include "store-fixture.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/size.h"

struct seen_partitions {
        struct partition_definition list[8];
        size_t n, stop_at;
};

static int on_partition(const struct partition_definition *d, void *userdata)
{
        struct seen_partitions *seen = userdata;

        assert_true(seen->n < ARRAY_SIZE(seen->list));
        seen->list[seen->n++] = *d;
        return seen->n == seen->stop_at ? 42 : 0;
}

static void test_partitions(void **state)
{
        struct partition_definition web = {
                .name = "web1",
                .qmp_path = "/run/web1.qmp",
                .channel_path = "/run/web1.guestd",
                .profile = { .min_bytes = GIB,
                        .desired_bytes = 2 * GIB,
                        .max_bytes = INT64_MAX - 1,
                        .weight = 7 },
        };
        struct partition_definition db = {
                .name = "db", .qmp_path = "/q", .channel_path = "/c", .profile.weight = 1
        };
        struct seen_partitions seen = { 0 };
        struct store *s = open_store();

        assert_int_equal(store_partition_put(s, &web, NULL), 0);
        assert_int_equal(store_partition_put(s, &db, NULL), 0);
        web.profile.weight = 9;
        assert_int_equal(store_partition_put(s, &web, NULL), 0);
        store_free(s);

        s = open_store();
        assert_int_equal(store_partition_foreach(s, on_partition, &seen, NULL), 0);
        assert_int_equal(seen.n, 2);
        assert_memory_equal(&seen.list[0], &db, sizeof(db));
        assert_memory_equal(&seen.list[1], &web, sizeof(web));

        seen = (struct seen_partitions) { .stop_at = 1 };
        assert_int_equal(store_partition_foreach(s, on_partition, &seen, NULL), 42);
        assert_int_equal(seen.n, 1);

        assert_int_equal(store_partition_delete(s, "db", NULL), 1);
        assert_int_equal(store_partition_delete(s, "db", NULL), 0);
        seen = (struct seen_partitions) { 0 };
        assert_int_equal(store_partition_foreach(s, on_partition, &seen, NULL), 0);
        assert_int_equal(seen.n, 1);
        store_free(s);
}

struct seen_jobs {
        struct store_job list[8];
        char states[8][16], reasons[8][512];
        size_t n;
};

static int on_job(const struct store_job *j, void *userdata)
{
        struct seen_jobs *seen = userdata;

        assert_true(seen->n < ARRAY_SIZE(seen->list));
        seen->list[seen->n] = *j;
        snprintf(seen->states[seen->n], sizeof(seen->states[0]), "%s", j->state);
        snprintf(seen->reasons[seen->n], sizeof(seen->reasons[0]), "%s", j->reasons);
        seen->n++;
        return 0;
}

static uint32_t put_job(struct store *s, const char *job_state, uint64_t ended_usec, const char *reasons)
{
        struct store_job j = {
                .partition = "web1",
                .kind = "remove",
                .state = job_state,
                .requested_bytes = 2 * GIB,
                .done_bytes = GIB,
                .created_usec = 1000,
                .ended_usec = ended_usec,
                .deadline_usec = USEC_INFINITY,
                .reasons = reasons,
                .peer = "web2",
                .target_bytes = 3,
                .before_bytes = 4,
                .peer_before_bytes = 5,
        };

        assert_int_equal(store_job_next_id(s, &j.id, NULL), 0);
        assert_int_equal(store_job_put(s, &j, NULL), 0);
        return j.id;
}

static void test_jobs(void **state)
{
        struct seen_jobs seen = { 0 };
        struct store *s = open_store();

        for (uint32_t i = 1; i <= 5; i++)
                assert_int_equal(put_job(s, i == 2 ? "queued" : "done", i == 2 ? 0 : i, NULL), i);
        /* one that is not over is always there */
        assert_int_equal(store_job_foreach(s, 3, on_job, &seen, NULL), 0);
        assert_int_equal(seen.n, 4);
        assert_int_equal(seen.list[3].id, 2);
        for (uint32_t i = 0; i < 3; i++) {
                assert_int_equal(seen.list[i].id, 5 - i);
                assert_int_equal(seen.list[i].ended_usec, 5 - i);
                assert_int_equal(seen.list[i].requested_bytes, 2 * GIB);
                assert_int_equal(seen.list[i].done_bytes, GIB);
                assert_int_equal(seen.list[i].created_usec, 1000);
                assert_int_equal(seen.list[i].target_bytes, 3);
                assert_int_equal(seen.list[i].before_bytes, 4);
                assert_int_equal(seen.list[i].peer_before_bytes, 5);
                assert_true(seen.list[i].deadline_usec == USEC_INFINITY);
                assert_string_equal(seen.states[i], "done");
                assert_string_equal(seen.reasons[i], "[]");
        }

        /* a job that is not over is never forgotten */
        assert_int_equal(store_jobs_trim(s, 2, NULL), 0);
        seen = (struct seen_jobs) { 0 };
        assert_int_equal(store_job_foreach(s, 100, on_job, &seen, NULL), 0);
        assert_int_equal(seen.n, 3);
        assert_int_equal(seen.list[1].id, 4);
        assert_int_equal(seen.list[2].id, 2);

        /* nor is an id used again */
        assert_int_equal(store_jobs_trim(s, 0, NULL), 0);
        store_free(s);
        s = open_store();
        assert_int_equal(put_job(s, "done", 1, NULL), 6);

        struct store_job j = { .id = 6, .partition = "p", .kind = "k", .state = "partial", .ended_usec = 9 };
        assert_int_equal(store_job_put(s, &j, NULL), 0);
        seen = (struct seen_jobs) { 0 };
        assert_int_equal(store_job_foreach(s, 1, on_job, &seen, NULL), 0);
        assert_int_equal(seen.list[0].id, 6);
        assert_string_equal(seen.states[0], "partial");
        store_free(s);

        struct error error = { 0 };
        uint32_t id = 77;
        run_sql("UPDATE counters SET value = 4294967295");
        s = open_store();
        assert_int_equal(store_job_next_id(s, &id, &error), -EOVERFLOW);
        assert_int_equal(id, 77);
        store_free(s);
}

static void check_refused(int expected, const char *says)
{
        struct error error = { 0 };
        struct store *s = NULL;

        int e = store_open(path, &s, &error);
        if (e != expected || !strstr(error.message, says))
                fail_msg("%d: %s", e, error.message);
        assert_null(s);
}

static void overwrite(long offset, const char *text, size_t times)
{
        FILE *f = fopen(path, offset < 0 ? "we" : "r+e");

        assert_non_null(f);
        assert_int_equal(fseek(f, MAX(offset, 0L), SEEK_SET), 0);
        while (times-- > 0)
                assert_int_equal(fwrite(text, strlen(text), 1, f), 1);
        assert_int_equal(fclose(f), 0);
}

static uint64_t kept(struct store *s, const char *partition)
{
        uint64_t bytes = 1;

        assert_int_equal(store_kept_get(s, partition, &bytes, NULL), 0);
        return bytes;
}

/* What a partition had outlives hvd, and not the partition. */
static void test_kept(void **state)
{
        struct store *s = open_store();

        assert_int_equal(kept(s, "web1"), 0);
        assert_int_equal(store_kept_put(s, "web1", 5 * GIB, NULL), 0);
        assert_int_equal(store_kept_put(s, "web1", 3 * GIB, NULL), 0);
        assert_int_equal(store_kept_put(s, "web2", MIB, NULL), 0);
        store_free(s);

        s = open_store();
        assert_int_equal(kept(s, "web1"), 3 * GIB);
        assert_int_equal(store_kept_put(s, "web1", 0, NULL), 0);
        assert_int_equal(kept(s, "web1"), 0);
        assert_int_equal(store_partition_delete(s, "web2", NULL), 0);
        assert_int_equal(kept(s, "web2"), 0);
        store_free(s);
}

static uint64_t owed(struct store *s, const char *name)
{
        uint64_t bytes = 1;

        assert_int_equal(store_owed_get(s, name, &bytes, NULL), 0);
        return bytes;
}

static void test_owed(void **state)
{
        struct store *s = open_store();

        assert_int_equal(owed(s, "web1"), 0);
        assert_int_equal(store_owed_put(s, "web1", GIB, NULL), 0);
        assert_int_equal(store_owed_put(s, "web2", MIB, NULL), 0);
        assert_int_equal(store_kept_put(s, "web1", 5 * GIB, NULL), 0);
        store_free(s);

        s = open_store();
        assert_int_equal(owed(s, "web1"), GIB);
        assert_int_equal(kept(s, "web1"), 5 * GIB);
        assert_int_equal(store_owed_put(s, "web1", 0, NULL), 0);
        assert_int_equal(owed(s, "web1"), 0);
        assert_int_equal(store_partition_delete(s, "web2", NULL), 0);
        assert_int_equal(owed(s, "web2"), 0);
        store_free(s);
}

static int on_transition(const struct store_transition *t, void *userdata)
{
        char *text = userdata;
        size_t used = strlen(text);

        assert_true(used + 64 < 1024);
        snprintf(text + used, 64, " %u:%s@%llu", t->n, t->state, (unsigned long long)t->time_usec);
        return 0;
}

static void assert_way(struct store *s, uint32_t job, const char *expected)
{
        char text[1024] = "";

        assert_int_equal(store_transition_foreach(s, job, on_transition, text, NULL), 0);
        assert_string_equal(text, expected);
}

static void put_transition(struct store *s, uint32_t job, unsigned n, const char *name, uint64_t time_usec)
{
        struct store_transition t = { .n = n, .state = name, .time_usec = time_usec };

        assert_int_equal(store_transition_put(s, job, &t, NULL), 0);
}

/* The way of a job comes back in its order, and goes with the job. */
static void test_transitions(void **state)
{
        struct store *s = open_store();

        uint32_t first = put_job(s, "QUEUED", 1, "[]"), second = put_job(s, "QUEUED", 2, "[]");
        put_transition(s, first, 1, "SURVEYING", 20);
        put_transition(s, first, 0, "QUEUED", 10);
        put_transition(s, second, STORE_TRANSITIONS_MAX - 1, "OFFLINING", 30);
        put_transition(s, second, STORE_TRANSITIONS_MAX - 1, "UNPLUGGING", 40);
        store_free(s);

        s = open_store();
        assert_way(s, first, " 0:QUEUED@10 1:SURVEYING@20");
        assert_way(s, second, " 63:UNPLUGGING@40");

        assert_int_equal(store_jobs_trim(s, 1, NULL), 0);
        assert_way(s, first, "");
        assert_way(s, second, " 63:UNPLUGGING@40");
        store_free(s);
}

static int on_reservation(const struct store_reservation *v, void *userdata)
{
        char *text = userdata;
        size_t used = strlen(text);

        snprintf(text + used, 64, " %u:%s:%lluM until %llu", v->id, v->owner,
                (unsigned long long)(v->bytes / MIB), (unsigned long long)v->ends_usec);
        return 0;
}

static void assert_reservations(struct store *s, const char *boot, uint64_t now_usec, const char *expected)
{
        char text[512] = "";

        assert_int_equal(store_reservation_foreach(s, boot, now_usec, on_reservation, text, NULL), 0);
        assert_string_equal(text, expected);
}

static void test_reservations(void **state)
{
        struct store_reservation v = {
                .id = 7, .owner = "vm7", .bytes = GIB, .boot = "b1", .ends_usec = 100
        };
        struct store *s = open_store();
        uint32_t last_id = 7;

        assert_int_equal(store_reservation_last_id(s, &last_id, NULL), 0);
        assert_int_equal(last_id, 0);
        assert_int_equal(store_reservation_put(s, &v, NULL), 0);
        v = (struct store_reservation) {
                .id = 3, .owner = "vm3", .bytes = MIB, .boot = "b1", .ends_usec = 50
        };
        assert_int_equal(store_reservation_put(s, &v, NULL), 0);
        v.id = 9;
        assert_int_equal(store_reservation_put(s, &v, NULL), 0);
        assert_int_equal(store_reservation_delete(s, 9, NULL), 0);
        store_free(s);

        s = open_store();
        assert_reservations(s, "b1", 10, " 3:vm3:1M until 50 7:vm7:1024M until 100");
        assert_reservations(s, "b1", 50, " 7:vm7:1024M until 100");
        assert_reservations(s, "b1", 10, " 7:vm7:1024M until 100");
        assert_reservations(s, "b2", 10, "");
        assert_reservations(s, "b1", 10, "");
        store_free(s);

        s = open_store();
        assert_int_equal(store_reservation_last_id(s, &last_id, NULL), 0);
        assert_int_equal(last_id, 9);
        store_free(s);
}

static int on_usage(uint32_t day, uint64_t mib_seconds, void *userdata)
{
        char *text = userdata;
        size_t used = strlen(text);

        snprintf(text + used, 64, " %u:%llu", day, (unsigned long long)mib_seconds);
        return 0;
}

static void assert_usage(struct store *s, const char *partition, uint32_t from_day, const char *expected)
{
        char text[512] = "";

        assert_int_equal(store_usage_foreach(s, partition, from_day, on_usage, text, NULL), 0);
        assert_string_equal(text, expected);
}

static void test_usage(void **state)
{
        struct store *s = open_store();

        assert_int_equal(store_usage_add(s, "web1", 20000, 100, NULL), 0);
        assert_int_equal(store_usage_add(s, "web1", 20001, 5, NULL), 0);
        assert_int_equal(store_usage_add(s, "web1", 20001, UINT64_C(1) << 50, NULL), 0);
        assert_int_equal(store_usage_add(s, "web2", 20001, 1, NULL), 0);
        assert_int_equal(store_partition_delete(s, "web1", NULL), 0);
        store_free(s);

        s = open_store();
        assert_usage(s, "web1", 0, " 20001:1125899906842629 20000:100");
        assert_usage(s, "web1", 20001, " 20001:1125899906842629");
        assert_usage(s, "web3", 0, "");
        assert_int_equal(store_usage_trim(s, 20001, NULL), 0);
        assert_usage(s, "web1", 0, " 20001:1125899906842629");
        assert_usage(s, "web2", 0, " 20001:1");
        store_free(s);
}

/* What the schemas have beyond those before them. */
#define DROP_5                                                                                               \
        "ALTER TABLE jobs DROP COLUMN peer; ALTER TABLE jobs DROP COLUMN target_bytes; "                     \
        "ALTER TABLE jobs DROP COLUMN before_bytes; ALTER TABLE jobs DROP COLUMN peer_before_bytes; "        \
        "ALTER TABLE jobs DROP COLUMN boot; ALTER TABLE jobs DROP COLUMN peer_boot; "

#define DROP_4                                                                                               \
        "DROP TRIGGER job_forgotten; DROP TABLE transitions; DROP TABLE owed; DROP TABLE reservations; "     \
        "DROP TABLE usage; "

/* A store of an older schema is brought up to date, with what it has. */
static void test_older(void **state)
{
        struct store *s = open_store();

        put_job(s, "done", 1, "[]");
        store_free(s);
        run_sql(DROP_5 DROP_4 "PRAGMA user_version = 3");
        s = open_store();
        put_transition(s, 1, 0, "done", 1);
        store_free(s);
        run_sql(DROP_5 DROP_4 "DROP TABLE kept; DROP TABLE modes; DROP TABLE rounds; DROP TABLE decisions;"
                              " DROP TABLE samples; PRAGMA user_version = 1");
        s = open_store();
        assert_way(s, 1, "");
        assert_int_equal(owed(s, "web1"), 0);
        assert_int_equal(kept(s, "web1"), 0);
        assert_int_equal(put_job(s, "done", 1, "[]"), 2);
        store_free(s);
}

static void test_refused(void **state)
{
        struct store *s;

        overwrite(-1, "this is no database at all; ", 100);
        check_refused(-EBADMSG, "move it away");
        assert_int_equal(unlink(path), 0);

        s = open_store();
        for (int i = 0; i < 100; i++)
                put_job(s, "done", 1, "[{\"code\":\"block-busy\"}]");
        store_free(s);
        overwrite(4096, "rubbish", 2000);
        check_refused(-EBADMSG, "damaged");
        assert_int_equal(unlink(path), 0);

        store_free(open_store());
        run_sql("PRAGMA user_version = 999");
        check_refused(-EPROTONOSUPPORT, "newer hvd (schema 999");
        run_sql("PRAGMA user_version = -1");
        check_refused(-EPROTONOSUPPORT, "newer hvd");
        run_sql("PRAGMA user_version = 5; DROP TABLE jobs");
        check_refused(-EIO, "no such table");
        assert_int_equal(unlink(path), 0);

        run_sql("CREATE TABLE cats (name)");
        check_refused(-EPROTONOSUPPORT, "another program");
        assert_int_equal(unlink(path), 0);

        strcat(path, "/deeper");
        check_refused(-ENOENT, "unable to open");
        *strrchr(path, '/') = '\0';
}

/* A change that finds the file held ends soon, with a reason, and works later. A job is numbered all the
 * same, and no number is given out twice. */
static void test_busy(void **state)
{
        struct store *s = open_store();
        struct error error = { 0 };
        uint32_t id;
        sqlite3 *db;

        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
        for (uint32_t i = 1; i <= 2; i++) {
                assert_int_equal(store_job_next_id(s, &id, &error), 1);
                assert_int_equal(id, i);
                assert_non_null(strstr(error.message, "locked"));
        }
        assert_int_equal(store_kept_put(s, "web1", 1, &error), -EBUSY);
        assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
        assert_int_equal(store_job_next_id(s, &id, &error), 0);
        assert_int_equal(id, 3);
        sqlite3_close(db);
        store_free(s);
}

static void test_in_memory(void **state)
{
        struct store *s = NULL;

        assert_int_equal(store_open(":memory:", &s, NULL), 0);
        assert_int_equal(put_job(s, "done", 1, NULL), 1);
        assert_null(store_free(s));
        assert_null(store_free(NULL));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_partitions),
                TEST(test_jobs),
                TEST(test_kept),
                TEST(test_owed),
                TEST(test_transitions),
                TEST(test_reservations),
                TEST(test_usage),
                TEST(test_older),
                TEST(test_refused),
                TEST(test_busy),
                cmocka_unit_test(test_in_memory),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
