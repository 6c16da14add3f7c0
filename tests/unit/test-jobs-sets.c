/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

/* Removals from a guest that takes several devices offline at one request, each a set of its own. */

#define OFFLINE(a) "[" a ",1G,'offline','unknown',0]"
#define FAIL(a, code)                                                                                        \
        "'failures':[{'start':" a ",'length':128M,'code':'" code "','message':'A page is pinned'}]"

static void start_sets(struct fixture *fx)
{
        start_with_sets(fx, DEVICES(BOTH ",<2 6G 1G>", "3G"),
                BLOCKS(",[4G,3G,'online','movable',0]") "on get-state reply {" MEMORY(
                        "1G", "3G", "512M") "}\n");
}

static void test_one_request(void **state)
{
        struct fixture *fx = *state;

        start_sets(fx);
        script(fx->guest, "expect offline {'targets':[[5G,1G],[6G,1G]],'each':true}\n"
                          "reply {'ranges':[" OFFLINE("5G") "," OFFLINE(
                                  "6G") "]}\n"
                                        "expect await-removed {'targets':[[5G,1G],[6G,1G]]}\nreply\n");
        script(fx->qmp, UNPLUG(2) UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(2) "reply\n" LEAVE(1) "reply\n");
        struct job *j = submit(fx, REMOVE(2 * GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 2 * GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING OFFLINING UNPLUGGING VERIFYING DONE");
        finish(fx);
}

/* One does not go: those before it leave, those behind it are asked for anew, and the next best. */
static void test_one_stays(void **state)
{
        struct fixture *fx = *state;

        start_sets(fx);
        script(fx->guest,
                "expect offline {'targets':[[4G,1G],[5G,1G],[6G,1G]],'each':true}\n"
                "reply {'complete':false,'ranges':[" ONLINE("4G") "," ONLINE("5G") "," OFFLINE(
                        "6G") "]," FAIL("5G", "block-failed") "}\n"
                                                              "expect offline {'targets':[[4G,1G]]}\n"
                                                              "reply {'ranges':[" OFFLINE(
                                                                      "4G") "]}\n"
                                                                            "expect await-removed "
                                                                            "{'targets':[[4G,1G],[6G,1G]]}\n"
                                                                            "reply\n");
        script(fx->qmp, UNPLUG(2) UNPLUG(0) DEVICES("<1 5G 1G>", "1G") LEAVE(2) "reply\n" LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(3 * GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, 2 * GIB, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_BLOCK_FAILED, "pinned");
        finish(fx);
}

/* A guest that has done nothing and says of nothing why is not asked the same again. */
static void test_no_answer(void **state)
{
        struct fixture *fx = *state;

        start_sets(fx);
        script(fx->guest, "expect offline {'targets':[[5G,1G],[6G,1G]],'each':true}\n"
                          "reply {'complete':false,'ranges':[" ONLINE("5G") "," ONLINE(
                                  "6G") "],'failures':[]}\n"
                                        "expect offline {'targets':[[4G,1G],[5G,1G]],'each':true}\n"
                                        "reply {'complete':false,'ranges':[" ONLINE("4G") "," ONLINE(
                                                "5G") "],'failures':[]}\n"
                                                      "expect offline {'targets':[[4G,1G]]}\n"
                                                      "reply {'complete':false,'ranges':[" ONLINE(
                                                              "4G") "],'failures':[]}\n");
        struct job *j = submit(fx, REMOVE(2 * GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 3);
        assert_reason(j, 0, "opendlpar-dimm-2", ERROR_BLOCK_FAILED, "does not say why");
        finish(fx);
}

static void test_all_or_nothing(void **state)
{
        struct fixture *fx = *state;

        start_sets(fx);
        script(fx->guest,
                "expect offline {'targets':[[4G,1G],[5G,1G],[6G,1G]],'each':true}\n"
                "reply {'complete':false,'ranges':[" ONLINE("4G") "," ONLINE("5G") "," OFFLINE(
                        "6G") "]," FAIL("5G", "block-failed") "}\n"
                                                              "expect online {'targets':[[6G,1G]]}\n"
                                                              "reply {'ranges':[" ONLINE("6G") "]}\n");
        struct job *j = submit(fx, REMOVE(3 * GIB, .all_or_nothing = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        finish(fx);
}

static void test_cancel(void **state)
{
        struct fixture *fx = *state;

        start_sets(fx);
        script(fx->guest, "expect offline {'each':true}\n");
        struct job *j = submit(fx, REMOVE(2 * GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        script(fx->guest, "reply {'complete':false,'ranges':[" ONLINE("5G") "," OFFLINE("6G") "]," FAIL(
                                  "5G", "cancelled") "}\n"
                                                     "expect await-removed {'targets':[[6G,1G]]}\n"
                                                     "reply\n");
        job_stop(j, JOB_STOP_CANCEL);
        script(fx->qmp, UNPLUG(2) DEVICES(BOTH, "2G") LEAVE(2) "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, GIB, 2);
        finish(fx);
}

/* An error instead of an answer says nothing of any of them. */
static void test_error(void **state)
{
        struct fixture *fx = *state;

        start_sets(fx);
        script(fx->guest, "expect offline {'each':true}\nfailure internal Out of luck\n");
        struct job *j = submit(fx, REMOVE(2 * GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        finish(fx);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_one_request),
                TEST(test_one_stays),
                TEST(test_no_answer),
                TEST(test_all_or_nothing),
                TEST(test_cancel),
                TEST(test_error),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
