/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

/* Removals from a guest that helps: what it is asked for before devices are chosen, what is told of its help,
 * and the second chance of a device that was busy. */

#define PAGES(start, counts) "[" start ",128M,32768," counts "]"
#define IDLE                 "32768,0,0,0,0,0,0,0"
#define CACHE                "0,32768,0,0,0,0,0,128M"
#define SURVEY(list)         "expect survey\nreply {'page_bytes':4096,'surveys':[" list "]}\n"
#define FULL                 SURVEY(PAGES("4G", CACHE) "," PAGES("5G", CACHE) "," PAGES("6G", CACHE))
#define EMPTIED              SURVEY(PAGES("4G", IDLE) "," PAGES("5G", CACHE) "," PAGES("6G", CACHE))
#define RECLAIMED            "reply {'assistance':{'reclaimed_bytes':1000M,'compactions':0,'retries':0}}\n"
#define OFFLINE(a, more)                                                                                     \
        "expect offline {'targets':[[" a ",1G]]}\nreply {'ranges':[[" a ",1G,'offline','unknown',0]]" more   \
        "}\n"
#define STAYS(a, code, more)                                                                                 \
        "expect offline {'targets':[[" a                                                                     \
        ",1G]]}\nreply {'complete':false,'ranges':[" ONLINE(a) "],'failures':[{'start':" a                   \
                                                               ",'length':128M,'code':'" code                \
                                                               "','message':'So it is'}]" more "}\n"
#define HELP(pools) ",'assistance':{'reclaimed_bytes':0,'compactions':1,'retries':1,'huge_pages':[" pools "]}"
#define THREE       "<0 4G 1G>,<1 5G 1G>,<2 6G 1G>"

static void start_three(struct fixture *fx)
{
        start_with_assist(fx, DEVICES(THREE, "3G"),
                BLOCKS(",[4G,3G,'online','movable',0]") "on get-state reply {" MEMORY(
                        "1G", "3G", "512M") "}\n");
}

static void start_one(struct fixture *fx)
{
        start_with_assist(fx, DEVICES("<0 4G 1G>", "1G"),
                BLOCKS(",[4G,1G,'online','movable',0]") "on get-state reply {" MEMORY(
                        "1G", "1G", "512M") "}\n");
}

/* Pages would have to be moved: the guest reclaims what it can, and then the devices are chosen. */
static void test_reclaim_first(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest, FULL "expect reclaim {'bytes':1G}\n" RECLAIMED EMPTIED OFFLINE(
                                  "4G", "") "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(0) DEVICES("<1 5G 1G>,<2 6G 1G>", "2G") LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_int_equal(j->n_notes, 1);
        assert_string_equal(j->notes[0], "1000 MiB of page cache were reclaimed rather than moved");
        assert_int_equal(j->n_plan, 1);
        finish(fx);
}

/* Nothing came of it, or it failed: the removal goes on as it was planned. */
static void reclaim_in_vain(struct fixture *fx, const char *answer)
{
        char text[1024];

        start_three(fx);
        snprintf(text, sizeof(text), "%sexpect reclaim\n%s%s", FULL, answer,
                OFFLINE("6G", "") "expect await-removed\nreply\n");
        script(fx->guest, text);
        script(fx->qmp, UNPLUG(2) DEVICES("<0 4G 1G>,<1 5G 1G>", "2G") LEAVE(2) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_int_equal(j->n_notes, 0);
        finish(fx);
}

static void test_reclaim_does_nothing(void **state)
{
        reclaim_in_vain(*state, "reply\n");
}

static void test_reclaim_fails(void **state)
{
        reclaim_in_vain(*state, "failure internal It cannot\n");
}

/* There is nothing to choose: no survey, but room is made all the same if there was little. */
static void test_reclaim_without_survey(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest,
                "expect reclaim {'bytes':1G}\n" RECLAIMED OFFLINE("4G", "") "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_int_equal(j->n_notes, 1);
        finish(fx);
}

static void test_cancel_in_reclaim(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest, FULL "expect reclaim\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 1);
        RUN_UNTIL(fx, fake_finished(fx->guest));
        finish(fx);
}

/* A job in which all went well is not made to look otherwise. */
static void test_notes(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, "expect reclaim\nreply\n" OFFLINE(
                                  "4G", HELP("[0,2M,120,0],[1,1G,2,2]")) "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_int_equal(j->n_notes, 1);
        assert_string_equal(j->notes[0],
                "opendlpar-dimm-0: its node was compacted; a busy block was tried again; 120 free huge pages "
                "of "
                "2 MiB of node 0 were given up; 2 free huge pages of 1 GiB of node 1 were given up, and all "
                "restored");
        finish(fx);
}

/* Busy at first, and gone at the second try: no reason is left of it. */
static void test_second_chance(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, "expect reclaim\nreply\n" STAYS(
                                  "4G", "block-busy", "") "expect survey\nfailure internal No\n" OFFLINE("4G",
                                  "") "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING OFFLINING UNPLUGGING VERIFYING DONE");
        finish(fx);
}

/* What the kernel never lets go is not asked for again, and no second chance is taken without time for it. */
static void test_no_second_chance(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, "expect reclaim\nreply\n" STAYS("4G", "block-unremovable", ""));
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_BLOCK_UNREMOVABLE, "So it is");

        script(fx->guest, "expect reclaim\nreply\n" STAYS("4G", "block-busy", "")
                                  SURVEY(PAGES("4G", "32000,0,0,700,0,68,0,0")));
        j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_BLOCK_BUSY, "700 slab");

        script(fx->guest, BLOCKS(",[4G,1G,'online','movable',0]") "expect reclaim\nreply\n" STAYS(
                                  "4G", "no-headroom", ""));
        j = submit(fx, REMOVE(GIB, .wait_usec = 900 * USEC_PER_MSEC));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        finish(fx);
}

/* Cancelled in the pause before it. */
static void test_cancel_before_second_chance(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, "expect reclaim\nreply\n" STAYS("4G", "no-headroom", ""));
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL(fx, j->n_reasons == 1);
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 2);
        assert_int_equal(j->n_notes, 1);
        assert_string_equal(j->notes[0], "tried, and in use as before: 1 device of 1 GiB: opendlpar-dimm-0");
        finish(fx);
}

/* Which one left, which one is back, and which one was not begun. */
static void test_fates(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest,
                "expect reclaim\nreply\n" OFFLINE("6G", "") "expect offline {'targets':[[5G,1G]]}\n");
        script(fx->qmp, UNPLUG(2) DEVICES("<0 4G 1G>,<1 5G 1G>", "2G") LEAVE(2) "reply\n");
        struct job *j = submit(fx, REMOVE(3 * GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest) && fake_finished(fx->qmp));
        expect_cancel(fx);
        script(fx->guest, "reply {'complete':false,'ranges':[" ONLINE(
                                  "5G") "],'failures':[{'start':5G,'length':128M,'code':'cancelled',"
                                        "'message':'Stopped'}]}\nexpect await-removed\nreply\n");
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_int_equal(j->state, JOB_PARTIAL);
        assert_int_equal(j->n_notes, 3);
        assert_string_equal(j->notes[0], "left: 1 device of 1 GiB: opendlpar-dimm-2");
        assert_string_equal(j->notes[1], "tried, and in use as before: 1 device of 1 GiB: opendlpar-dimm-1");
        assert_string_equal(j->notes[2], "not begun: 1 device of 1 GiB: opendlpar-dimm-0");
        finish(fx);
}

/* It is told to stop, and its guestd is restarted before it answers: nobody has said what is in use. */
static void test_fate_unknown(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, "expect reclaim\nreply\nexpect offline\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        script(fx->guest, "hello\nexpect welcome\n");
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_int_equal(j->state, JOB_CANCELLED);
        assert_int_equal(j->n_notes, 1);
        assert_string_equal(j->notes[0],
                "tried, and the guest has not said whether it is in use again: 1 device of 1 GiB: "
                "opendlpar-dimm-0");
        finish(fx);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_reclaim_first),
                TEST(test_reclaim_does_nothing),
                TEST(test_reclaim_fails),
                TEST(test_reclaim_without_survey),
                TEST(test_cancel_in_reclaim),
                TEST(test_notes),
                TEST(test_second_chance),
                TEST(test_no_second_chance),
                TEST(test_cancel_before_second_chance),
                TEST(test_fates),
                TEST(test_fate_unknown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
