/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the policy stores of its rounds, decisions and samples. */

#include "store-fixture.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/size.h"

static void put_decision(struct store *s, uint64_t round, const char *partition, uint64_t *ret_id)
{
        struct store_decision d = {
                .round = round, .partition = partition, .decision = "{}", .text = "It keeps.", .outcome = ""
        };

        assert_int_equal(store_decision_put(s, &d, ret_id, NULL), 0);
}

static int on_decision(const struct store_decision *d, void *userdata)
{
        struct store_decision *ret = userdata;
        uint64_t n = ret->id + 1;

        *ret = *d;
        ret->id = n; /* how many were seen */
        ret->outcome = strcmp(d->outcome, "done") == 0 ? "done" : "";
        return 0;
}

static int on_sample(const struct store_sample *sample, void *userdata)
{
        struct store_sample *ret = userdata;
        uint64_t n = ret->pool_bytes + 1;

        assert_true(sample->time_usec >= ret->time_usec);
        *ret = *sample;
        ret->pool_bytes = n; /* likewise */
        return 0;
}

/* What the policy leaves behind: it comes back as it was, and is bounded. */
static void test_policy(void **state)
{
        struct store *s = open_store();
        struct store_decision seen = { 0 };
        struct store_sample sample = { .partition = "web1",
                .current_bytes = GIB,
                .used_bytes = 5,
                .weight = 9 },
                            last = { 0 };
        uint64_t round, first = 0, id = 0;
        char mode[STORE_MODE_MAX], *input;

        assert_int_equal(store_mode_get(s, "", mode, NULL), 0);
        assert_string_equal(mode, "");
        assert_int_equal(store_mode_put(s, "", "auto", NULL), 0);
        assert_int_equal(store_mode_put(s, "web1", "off", NULL), 0);
        store_free(s);
        s = open_store();
        assert_int_equal(store_mode_get(s, "", mode, NULL), 0);
        assert_string_equal(mode, "auto");
        assert_int_equal(store_partition_delete(s, "web1", NULL), 0);
        assert_int_equal(store_mode_get(s, "web1", mode, NULL), 0);
        assert_string_equal(mode, "");
        assert_int_equal(store_mode_put(s, "", NULL, NULL), 0);
        assert_int_equal(store_mode_get(s, "", mode, NULL), 0);
        assert_string_equal(mode, "");

        assert_int_equal(store_begin(s, NULL), 0);
        for (uint64_t i = 0; i < STORE_ROUNDS_MAX + 5; i++) {
                assert_int_equal(store_round_put(s, 1000 + i, "{\"now\":1}", &round, NULL), 0);
                first = first ?: round;
                put_decision(s, round, i % 2 ? "web1" : "web2", &id);
        }
        assert_int_equal(store_decision_end(s, id, "done", NULL), 0);
        for (uint64_t i = 0; i < 10; i++) {
                sample.time_usec = 100 - i;
                assert_int_equal(store_sample_put(s, &sample, NULL), 0);
        }
        assert_int_equal(store_policy_trim(s, NULL), 0);
        assert_int_equal(store_commit(s, NULL), 0);
        assert_int_equal(store_decision_foreach(s, "", UINT16_MAX, on_decision, &seen, NULL), 0);
        assert_int_equal(seen.id, STORE_ROUNDS_MAX);
        assert_int_equal(store_round_get(s, first, &input, NULL), -ENOENT);
        assert_int_equal(store_round_get(s, round, &input, NULL), 0);
        assert_string_equal(input, "{\"now\":1}");
        free(input);
        seen = (struct store_decision) { 0 };
        assert_int_equal(store_decision_foreach(s, "web2", 1, on_decision, &seen, NULL), 0);
        assert_int_equal(seen.id, 1);
        assert_int_equal(seen.time_usec, 1000 + STORE_ROUNDS_MAX + 4);
        assert_string_equal(seen.outcome, "done");
        assert_int_equal(store_sample_foreach(s, 95, 98, on_sample, &last, NULL), 0);
        assert_int_equal(last.pool_bytes, 4);
        assert_int_equal(last.time_usec, 98);
        assert_int_equal(last.current_bytes, GIB);
        assert_int_equal(last.weight, 9);

        /* Not so many, but large: the newest that fit. */
        char *large = malloc(MIB + 1);
        assert_non_null(large);
        memset(large, 'x', MIB);
        large[MIB] = '\0';
        for (uint64_t i = 0; i < STORE_ROUNDS_BYTES / MIB + 3; i++) {
                assert_int_equal(store_round_put(s, 5000, large, &round, NULL), 0);
                first = i == 0 ? round : first;
        }
        free(large);
        assert_int_equal(store_policy_trim(s, NULL), 0);
        assert_int_equal(store_round_get(s, first, &input, NULL), -ENOENT);
        assert_int_equal(store_round_get(s, first + 3, &input, NULL), 0);
        free(input);
        seen = (struct store_decision) { 0 };
        assert_int_equal(store_decision_foreach(s, "", UINT16_MAX, on_decision, &seen, NULL), 0);
        assert_int_equal(seen.id, 0);
        store_free(s);
}

/* By another program while hvd has it open: what is there is read, and nothing changes. */
static void test_readonly(void **state)
{
        struct store *s, *other = NULL;
        struct store_decision seen = { 0 };
        struct error error = { 0 };
        uint64_t round, id = 0;

        assert_int_equal(store_open_readonly(path, &other, &error), -ENOENT);
        assert_non_null(strstr(error.message, path));
        assert_int_equal(access(path, F_OK), -1);

        s = open_store();
        assert_int_equal(store_round_put(s, 7, "{}", &round, NULL), 0);
        put_decision(s, round, "web1", &id);
        if (store_open_readonly(path, &other, &error) < 0)
                fail_msg("%s", error.message);
        assert_int_equal(store_decision_get(other, id, on_decision, &seen, &error), 0);
        assert_int_equal(seen.id, 1);
        assert_int_equal(seen.round, round);
        assert_int_equal(seen.time_usec, 7);
        assert_int_equal(store_decision_get(other, id + 1, on_decision, &seen, &error), -ENOENT);
        assert_non_null(strstr(error.message, "There is no decision 2"));
        assert_int_equal(store_kept_put(other, "web1", 1, &error), -EACCES);
        put_decision(s, round, "web2", &id);
        assert_int_equal(store_decision_get(other, id, on_decision, &seen, &error), 0);
        store_free(other);
        store_free(s);

        run_sql("PRAGMA user_version = 2");
        assert_int_equal(store_open_readonly(path, &other, &error), -EPROTONOSUPPORT);
        assert_non_null(strstr(error.message, "older hvd (schema 2"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_policy),
                TEST(test_readonly),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
