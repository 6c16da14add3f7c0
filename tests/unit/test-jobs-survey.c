/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

/* Removals from a guest that says what its pages are: what is asked for, what is chosen, what is foretold,
 * and what is said of what stayed. */

/* A block of 128 MiB of which all pages were seen. */
#define PAGES(start, counts) "[" start ",128M,32768," counts "]"
#define IDLE                 "32768,0,0,0,0,0,0,0"
#define USED                 "16384,16384,0,0,0,0,0,64M"
#define SLAB                 "32700,0,0,60,0,8,0,0"
#define PINNED               "32765,0,0,0,0,0,3,12288"
#define SURVEY(list)         "reply {'page_bytes':4096,'surveys':[" list "]}\n"

#define RELEASE(a)                                                                                           \
        "expect offline {'targets':[[" a ",1G]]}\nreply {'ranges':[[" a ",1G,'offline','unknown',0]]}\n"
#define THREE "<0 4G 1G>,<1 5G 1G>,<2 6G 1G>"

static void start_three(struct fixture *fx)
{
        start_with_survey(fx, DEVICES(THREE, "3G"),
                BLOCKS(",[4G,3G,'online','movable',0]") "on get-state reply {" MEMORY(
                        "1G", "3G", "512M") "}\n");
}

/* The device at the highest address holds programs, the next one slab: the lowest is the cheapest. */
static void test_cheapest(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest, "expect survey {'targets':[[4G,1G],[5G,1G],[6G,1G]],'deadline_msec':6}\n" SURVEY(
                                  PAGES("4G", IDLE) "," PAGES("5G", SLAB) "," PAGES("6G", USED))
                                  RELEASE("4G") "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(0) DEVICES("<1 5G 1G>,<2 6G 1G>", "2G") LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING OFFLINING UNPLUGGING VERIFYING DONE");
        finish(fx);
}

/* Two are asked for: the one with slab is not among them, and the cheaper one goes first. */
static void test_cheapest_two(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest, "expect survey\n" SURVEY(PAGES("4G", IDLE) "," PAGES("5G", SLAB) "," PAGES(
                                  "6G", USED)) RELEASE("4G") "expect offline {'targets':[[6G,1G]]}\n");
        struct job *j = submit(fx, REMOVE(2 * GIB));
        script(fx->qmp, UNPLUG(0) LEAVE(0) "reply\n");
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->qmp, UNPLUG(2) DEVICES("<1 5G 1G>", "1G") LEAVE(2) "reply\n");
        script(fx->guest, "reply {'ranges':[[6G,1G,'offline','unknown',0]]}\nexpect await-removed\nreply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 2 * GIB, 0);
        finish(fx);
}

/* All of it, or this one: there is nothing to choose, and no time is spent on it. */
static void test_no_choice(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest, RELEASE("5G") "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G>,<2 6G 1G>", "2G") LEAVE(1) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB, .device = "opendlpar-dimm-1"));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        finish(fx);
}

static const char *plan_of(const struct job *j)
{
        static char text[4096];
        size_t n = 0;

        text[0] = '\0';
        for (size_t i = 0; i < j->n_plan; i++)
                n += (size_t)snprintf(text + n, sizeof(text) - n, "%s\n", j->plan[i]);
        return text;
}

static void test_forecast(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest,
                "expect survey {'targets':[[4G,1G],[5G,1G],[6G,1G]],'deadline_msec':2000}\n" SURVEY(PAGES(
                        "4G", IDLE) "," PAGES("5G", SLAB) "," PAGES("5248M", SLAB) "," PAGES("6G", USED)));
        struct job *j = submit(fx, REMOVE(2 * GIB, .dry_run = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        assert_string_equal(plan_of(j),
                "take opendlpar-dimm-0 offline, 1 GiB at 0x100000000 in zone Movable, with nothing to move, "
                "and unplug it\n"
                "take opendlpar-dimm-2 offline, 1 GiB at 0x180000000 in zone Movable, after moving 64 MiB, "
                "and unplug it\n"
                "leave opendlpar-dimm-1 where it is: block 0x140000000: Block memory40 holds pages that do "
                "not move: 60 slab, 8 unmovable; such pages are in 2 of its 2 blocks\n");
        finish(fx);
}

/* More than can go: what stays is a reason each, and the rest is planned. */
static void test_forecast_of_less(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest,
                "expect survey\n" SURVEY(PAGES("4G", PINNED) "," PAGES("5G", SLAB) "," PAGES("6G", IDLE)));
        struct job *j = submit(fx, REMOVE(2 * GIB, .dry_run = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_BLOCK_UNREMOVABLE, "60 slab, 8 unmovable");
        assert_string_equal(j->reasons[0].block, "0x140000000");
        assert_reason(j, 1, "opendlpar-dimm-0", ERROR_BLOCK_BUSY,
                "memory32 holds pages that do not move: 3 pinned");
        assert_int_equal(j->n_plan, 1);
        finish(fx);
}

/* A sample is an estimate, and says so. */
static void test_sampled(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest, "expect survey\n" SURVEY("[5G,128M,4096,4000,80,0,16,0,0,0,3M]"));
        struct job *j = submit(fx, REMOVE(GIB, .dry_run = true, .device = "opendlpar-dimm-1"));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_BLOCK_UNREMOVABLE, "do not move, estimated: 128 slab");
        finish(fx);
}

/* Whatever becomes of the survey, the removal goes on: by address, as without one. */
static void test_survey_fails(void **state)
{
        static const char *const answers[] = {
                "failure internal The guest's kernel has no /proc/kpageflags\n",
                SURVEY(PAGES("0", IDLE)), /* was not asked for */
                SURVEY(PAGES("7040M", IDLE) "," PAGES("7G", IDLE)),
        };
        struct fixture *fx = *state;

        start_three(fx);
        for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
                script(fx->guest, "expect survey\n");
                script(fx->guest, answers[i]);
                struct job *j = submit(fx, REMOVE(GIB, .dry_run = true));
                RUN_UNTIL_END(fx, j);
                assert_job(fx, j, JOB_DONE, 0, 0);
                assert_int_equal(j->n_plan, 2);
                assert_non_null(strstr(j->plan[0], "take opendlpar-dimm-2 offline"));
                assert_non_null(strstr(j->plan[1], "were not surveyed: "));
                RUN_UNTIL(fx, !fx->p->settling);
        }
        script(fx->guest,
                "expect survey\nfailure internal no\n" RELEASE("6G") "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(2) DEVICES(BOTH, "2G") LEAVE(2) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        finish(fx);
}

/* One answer is not all: the rest is asked for from where it ended. */
static void test_pages_of_it(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest,
                "expect survey {'targets':[[4G,1G],[5G,1G],[6G,1G]]}\n"
                "reply {'page_bytes':4096,'surveys':[" PAGES("4G",
                        USED) "],'next':5632M}\n"
                              "expect survey {'targets':[[5632M,512M],[6G,1G]]}\n" SURVEY(PAGES("6G", SLAB)));
        struct job *j = submit(fx, REMOVE(GIB, .dry_run = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        assert_non_null(strstr(j->plan[0], "take opendlpar-dimm-1 offline"));
        finish(fx);
}

/* A block that would not go: what is left in it is asked for before the next device is tried. */
static void test_findings(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest, "expect survey\n" SURVEY(PAGES("4G", USED) "," PAGES("5G", USED) "," PAGES("6G",
                                  IDLE)) "expect offline {'targets':[[6G,1G]]}\n"
                                         "reply {'complete':false,'ranges':[" ONLINE(
                                                 "6G") "],'failures':[{'start':6272M,"
                                                       "'length':128M,'code':'block-busy','message':'Block "
                                                       "memory49: it could not be emptied'}]}\n"
                                                       "expect survey {'targets':[[6272M,128M]]}\n" SURVEY(
                                                               "[6272M,128M,32768,32760,8,0,0,0,0,0,32768]")
                                                               RELEASE("5G") "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G>,<2 6G 1G>", "2G") LEAVE(1) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 1);
        assert_reason(j, 0, "opendlpar-dimm-2", ERROR_BLOCK_BUSY,
                "could not be emptied; pages left in it: 8 movable");
        assert_string_equal(j->reasons[0].block, "0x188000000");
        finish(fx);
}

static void test_cancel(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest, "expect survey\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 1);
        finish(fx);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_cheapest),
                TEST(test_cheapest_two),
                TEST(test_no_choice),
                TEST(test_forecast),
                TEST(test_forecast_of_less),
                TEST(test_sampled),
                TEST(test_survey_fails),
                TEST(test_pages_of_it),
                TEST(test_findings),
                TEST(test_cancel),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
