/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

#include "hvd/pool.h"

/* A partition set to a total, and its profile. */

#define OFFLINE(a) "[" a ",1G,'offline','unknown',0]"

static void set_profile(struct fixture *fx, uint64_t min, uint64_t desired, uint64_t max)
{
        struct partition_profile profile = { min, desired, max, PARTITION_WEIGHT_DEFAULT };
        struct error error;

        if (manager_set_profile(fx->manager, fx->p, &profile, &error) < 0)
                fail_msg("%s", error.message);
}

static void refused(
        struct fixture *fx, const struct job_request *request, enum error_code code, const char *part)
{
        struct error error = { 0 };
        struct job *j;

        assert_true(manager_submit(fx->manager, fx->p, NULL, request, &j, &error) < 0);
        if (error.code != code || !strstr(error.message, part))
                fail_msg("%s: %s, not %s", error_code_name(error.code), error.message, part);
}

/* Up: one leg, an addition of the difference, whose states and zones are the job's. */
static void test_up(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, MAKE(0) MAKE(1) INSERT(0) "reply\n" INSERT(1) DEVICES(BOTH, "2G") "reply\n");
        script(fx->guest, "expect prepare {'zone':'movable','bytes':2G}\nreply\n"
                          "expect online {'targets':[[4G,1G],[5G,1G]],'zone':'movable'}\n"
                          "reply {'ranges':[[4G,2G,'online','movable',0]]}\n");
        struct job *j = submit(fx, SET_TO(3 * GIB));
        assert_int_equal(pool_requested_bytes(fx->p), 3 * GIB);
        assert_int_equal(pool_held_bytes(fx->p), 3 * GIB);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 2 * GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING PLUGGING ONLINING VERIFYING DONE");
        assert_int_equal(j->request.bytes, 2 * GIB);
        assert_int_equal(j->direction, JOB_ADD_MEMORY);
        assert_int_equal(j->movable_bytes, 2 * GIB);
        assert_int_equal(j->n_plan, 2);
        assert_int_equal(j->current_bytes, 3 * GIB);
        assert_null(j->leg);
        finish(fx);
        assert_int_equal(pool_requested_bytes(fx->p), 3 * GIB);
        assert_int_equal(fx->n_added, 1);
        assert_int_equal(fx->n_ended, 1);
}

static void test_down_and_equal(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES(BOTH, "2G"),
                BLOCKS(",[4G,2G,'online','movable',0]") "on get-state reply {" MEMORY(
                        "1G", "2G", "512M") "}\n");
        RUN_UNTIL(fx, partition_is_settled(fx->p));
        struct job *same = submit(fx, SET_TO(3 * GIB));
        RUN_UNTIL_END(fx, same);
        assert_job(fx, same, JOB_DONE, 0, 0);
        assert_int_equal(same->n_notes, 1);
        assert_non_null(strstr(same->notes[0], "already"));

        script(fx->guest, "expect offline {'targets':[[5G,1G]]}\nreply {'ranges':[" OFFLINE(
                                  "5G") "]}\n"
                                        "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        struct job *j = submit(fx, SET_TO(2 * GIB));
        assert_int_equal(pool_requested_bytes(fx->p), 2 * GIB);
        assert_int_equal(pool_held_bytes(fx->p), 3 * GIB);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_int_equal(j->direction, JOB_REMOVE_MEMORY);
        finish(fx);
        assert_int_equal(pool_requested_bytes(fx->p), 2 * GIB);
}

/* What cannot be is refused with the limit, or with the totals that can. */
static void test_refused(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES("<0 4G 2G>", "2G"), BLOCKS(",[4G,2G,'online','movable',0]"));
        RUN_UNTIL(fx, partition_is_settled(fx->p));
        refused(fx, SET_TO(0), ERROR_INVALID_SIZE, "cannot have no memory");
        refused(fx, SET_TO(17 * GIB), ERROR_BEYOND_MAX, "16G (as QEMU was started)");
        refused(fx, SET_TO(3 * GIB + MIB), ERROR_UNALIGNED_SIZE, "the nearest totals are 3G and 3200M");
        refused(fx, SET_TO(2 * GIB), ERROR_NO_EXACT_FIT, "the nearest totals are 1G and 3G");
        refused(fx, SET_TO(512 * MIB), ERROR_NOT_PLUGGED, "");
        refused(fx, SET_TO(2 * GIB, .method = "magic"), ERROR_UNKNOWN_METHOD, "magic");
        set_profile(fx, GIB, 2 * GIB, 4 * GIB);
        refused(fx, SET_TO(5 * GIB), ERROR_BEYOND_MAX, "4G (by its profile)");
        refused(fx, SET_TO(1023 * MIB), ERROR_NOT_PLUGGED, "below the 1G that the profile");
        refused(fx, ADD(2 * GIB), ERROR_BEYOND_MAX, "its profile allows");
        set_profile(fx, 2 * GIB, 2 * GIB, 4 * GIB);
        refused(fx, REMOVE(2 * GIB), ERROR_NOT_PLUGGED, "its profile keeps");
        finish(fx);
        assert_int_equal(fx->n_added, 0);
}

/* Behind another job the way is not known, and is found when it is its turn: also that there is none. */
static void test_in_its_turn(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, MAKE(0) UNMAKE(0));
        script(fx->guest, "expect prepare\n");
        struct job *first = submit(fx, ADD(GIB));
        struct job *set = submit(fx, SET_TO(GIB));
        struct job *bad = submit(fx, SET_TO(GIB + MIB));
        assert_int_equal(pool_requested_bytes(fx->p), GIB + MIB);
        assert_int_equal(pool_held_bytes(fx->p), 2 * GIB);
        script(fx->guest, "failure internal Out of luck\n");
        RUN_UNTIL_END(fx, bad);
        assert_job(fx, first, JOB_FAILED, 0, 1);
        assert_job(fx, set, JOB_DONE, 0, 0);
        assert_job(fx, bad, JOB_FAILED, 0, 1);
        assert_reason(bad, 0, "", ERROR_UNALIGNED_SIZE, "nearest totals");
        finish(fx);
        assert_int_equal(pool_requested_bytes(fx->p), GIB);
}

/* Cancelled: the leg stops, and there is one reason for it. */
static void test_cancel(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES(BOTH, "2G"), BLOCKS(",[4G,2G,'online','movable',0]"));
        RUN_UNTIL(fx, partition_is_settled(fx->p));
        script(fx->guest, "expect offline @off\n");
        struct job *j = submit(fx, SET_TO(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        assert_int_equal(j->state, JOB_OFFLINING);
        expect_cancel(fx);
        script(fx->guest, "reply @off {'complete':false,'ranges':[" ONLINE("5G") "]}\n");
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_int_equal(j->state, JOB_CANCELLED);
        unsigned n = 0;
        for (size_t i = 0; i < j->n_reasons; i++)
                n += j->reasons[i].error.code == ERROR_CANCELLED;
        assert_int_equal(n, 1);
        finish(fx);
        assert_int_equal(pool_requested_bytes(fx->p), 3 * GIB);
}

static void test_dry_run(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        struct job *j = submit(fx, SET_TO(3 * GIB, .dry_run = true));
        assert_int_equal(pool_requested_bytes(fx->p), GIB);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        assert_int_equal(j->n_plan, 2);
        finish(fx);
        assert_int_equal(fx->p->kept_bytes, 0);
}

static void test_profile(void **state)
{
        struct fixture *fx = *state;
        static const struct {
                struct partition_profile profile;
                const char *part;
        } rows[] = {
                { { 4 * GIB, 0, 2 * GIB, 1 }, "make min at most 2G" },
                { { 2 * GIB, GIB, 0, 1 }, "make min at most 1G" },
                { { 0, 3 * GIB, 2 * GIB, 1 }, "make desired at most 2G" },
                { { 0, 0, 0, 0 }, "write 1 to 255" },
                { { 0, 0, 0, 256 }, "write 1 to 255" },
        };
        struct error error;

        start(fx, "", "");
        set_profile(fx, GIB, 2 * GIB, 8 * GIB);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                assert_true(manager_set_profile(fx->manager, fx->p, &rows[i].profile, &error) < 0);
                assert_int_equal(error.code, ERROR_INVALID_ARGUMENT);
                if (!strstr(error.message, rows[i].part))
                        fail_msg("'%s' lacks '%s'", error.message, rows[i].part);
        }
        assert_int_equal(fx->p->definition.profile.desired_bytes, 2 * GIB);
        assert_int_equal(partition_max_bytes(fx->p), 8 * GIB);
        fx->p->from_file = true;
        assert_true(manager_set_profile(fx->manager, fx->p, &rows[0].profile, &error) < 0);
        assert_non_null(strstr(error.message, "partitions.d"));
        fx->p->from_file = false;
        finish(fx);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_up),
                TEST(test_down_and_equal),
                TEST(test_refused),
                TEST(test_in_its_turn),
                TEST(test_cancel),
                TEST(test_dry_run),
                TEST(test_profile),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
