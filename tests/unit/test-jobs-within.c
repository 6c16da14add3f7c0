/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

#include "hvd/memory/trickle.h"

/* Removals within a time: what is cheap, what is waited for, what is held and put back. Devices have a block
 * or two. */

#define PAGES(start, counts) "[" start ",128M,32768," counts "]"
#define IDLE                 "32768,0,0,0,0,0,0,0"
#define USED                 "16384,16384,0,0,0,0,0,64M"
#define PINNED               "32765,0,0,0,0,0,3,12288"
#define SURVEY(list)         "expect survey\nreply {'page_bytes':4096,'surveys':[" list "]}\n"
#define TAKE_BLOCK(a)                                                                                        \
        "expect offline {'targets':[[" a ",128M]],'attempt_msec':1000}\n"                                    \
        "reply {'ranges':[[" a ",128M,'offline','unknown',0]]}\n"
#define REFUSE_BLOCK(a, code)                                                                                \
        "expect offline {'targets':[[" a ",128M]]}\n"                                                        \
        "reply {'complete':false,'ranges':[[" a ",128M,'online','movable',0]],'failures':[{'start':" a       \
        ",'length':128M,'code':'" code "','message':'No'}]}\n"
#define WITHIN(bytes, usec, ...) REMOVE(bytes, .within = true, .wait_usec = (usec), __VA_ARGS__)
#define SECONDS(n)               ((n)*USEC_PER_SEC)
#define STATE                    "on get-state reply {" MEMORY("1G", "1G", "512M") "}\n"

#define ONE        "<0 4G 128M>"
#define TWO        "<0 4G 128M>,<1 4224M 128M>"
#define TWO_BLOCKS ",[4G,256M,'online','movable',0]"

static void start_two(struct fixture *fx)
{
        start_with_survey(fx, DEVICES(TWO, "256M"), BLOCKS(TWO_BLOCKS) STATE);
}

/* --- the rules --- */

static void test_rules(void **state)
{
        struct guest_memory memory = { .total_bytes = 5000 * MIB, .available_bytes = 50 * MIB };
        uint64_t pause = 0, expected[] = { 1, 2, 4, 8, 10, 10 };

        assert_int_equal(trickle_bound(128 * MIB, 0, SECONDS(100)), 4 * MIB);
        assert_int_equal(trickle_bound(128 * MIB, SECONDS(30), SECONDS(100)), 8 * MIB);
        assert_int_equal(trickle_bound(128 * MIB, SECONDS(60), SECONDS(100)), 16 * MIB);
        assert_int_equal(trickle_bound(128 * MIB, SECONDS(99), SECONDS(100)), 32 * MIB);
        assert_int_equal(trickle_bound(128 * MIB, SECONDS(900), SECONDS(100)), 32 * MIB);
        assert_int_equal(trickle_bound(128 * MIB, 0, 0), 32 * MIB);
        for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
                pause = trickle_pause(pause, false);
                assert_int_equal(pause, SECONDS(expected[i]));
        }
        assert_int_equal(trickle_pause(pause, true), SECONDS(1));

        assert_false(trickle_is_tight(&memory)); /* what guestd has just left it with */
        memory.available_bytes = 49 * MIB;
        assert_true(trickle_is_tight(&memory));
        memory = (struct guest_memory) { .total_bytes = 512 * MIB, .available_bytes = 31 * MIB };
        assert_true(trickle_is_tight(&memory));
}

static void test_choice(void **state)
{
        struct block_survey blocks[] = {
                { .start = 4 * GIB, .length = 128 * MIB, .sampled = 9, .cost_bytes = 3 * MIB },
                { .start = 4 * GIB + 128 * MIB, .length = 128 * MIB, .sampled = 9, .cost_bytes = 2 * MIB },
                { .start = 4 * GIB + 256 * MIB, .length = 128 * MIB, .sampled = 9, .cost_bytes = 9 * MIB },
                { .start = 5 * GIB, .length = 128 * MIB, .sampled = 9 },
        };
        struct survey s = { .page_bytes = 4096, .blocks = blocks, .n_blocks = ARRAY_SIZE(blocks) };
        uint64_t done[] = { blocks[1].start, blocks[0].start };

        assert_ptr_equal(trickle_cheapest(&s, 4 * GIB, GIB, 4 * MIB, done, 0), &blocks[1]);
        assert_ptr_equal(trickle_cheapest(&s, 4 * GIB, GIB, 4 * MIB, done, 1), &blocks[0]);
        assert_null(trickle_cheapest(&s, 4 * GIB, GIB, 4 * MIB, done, 2));
        assert_null(trickle_cheapest(&s, 4 * GIB, GIB, 1 * MIB, done, 0));
        struct trickle_view view = trickle_look(&s, 4 * GIB, GIB);
        assert_int_equal(view.block, blocks[2].start);
        assert_int_equal(view.cost, 9 * MIB);
        assert_false(view.has_obstacle);
        assert_int_equal(trickle_look(&s, 6 * GIB, GIB).block_bytes, 0);
        trickle_prefer(&s, 4 * GIB, GIB);
        assert_int_equal(blocks[1].cost_bytes, MIB);
        trickle_avoid(&s, 4 * GIB, GIB);
        assert_true(trickle_look(&s, 4 * GIB, GIB).has_obstacle);
        assert_false(trickle_look(&s, 5 * GIB, GIB).has_obstacle);
        trickle_avoid(&s, 6 * GIB, GIB);
}

/* --- jobs --- */

/* A guestd that knows how is asked not to hurry. */
static void test_gentle(void **state)
{
        struct fixture *fx = *state;

        start_fakes(fx, DEVICES(ONE, "128M"), BLOCKS(",[4G,128M,'online','movable',0]") STATE);
        script(fx->guest, "close\naccept\nhello {'capabilities':['survey','gentle']}\nexpect welcome\n");
        start_manager(fx);
        RUN_UNTIL(fx, partition_guest_can(fx->p, "gentle") && partition_is_settled(fx->p));
        script(fx->guest, SURVEY(PAGES("4G", IDLE)) "expect offline {'gentle':true}\n"
                                                    "reply {'ranges':[[4G,128M,'offline','unknown',0]]}\n");
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        struct job *j = submit(fx, WITHIN(128 * MIB, SECONDS(30)));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, "expect await-removed\nreply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 128 * MIB, 0);
        finish(fx);
}

static void test_at_once(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, SURVEY(PAGES("4G", USED) "," PAGES("4224M", IDLE)) TAKE_BLOCK("4224M"));
        struct job *j = submit(fx, WITHIN(128 * MIB, SECONDS(30)));
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 128M>", "128M") LEAVE(1) "reply\n");
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, "expect await-removed {'targets':[[4224M,128M]]}\nreply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 128 * MIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING OFFLINING VERIFYING DONE");
        assert_string_equal(j->waiting, "");
        finish(fx);
}

/* What is in use is waited for, and said. */
static void test_waits(void **state)
{
        struct fixture *fx = *state;

        start_with_survey(fx, DEVICES(ONE, "128M"), BLOCKS(",[4G,128M,'online','movable',0]") STATE);
        script(fx->guest, SURVEY(PAGES("4G", USED)));
        struct job *j = submit(fx, WITHIN(128 * MIB, SECONDS(30)));
        RUN_UNTIL(fx, j->waiting[0] != '\0');
        assert_string_equal(j->waiting,
                "0 B of 128 MiB offline; opendlpar-dimm-0: Block memory32 has 64 MiB to be "
                "moved, and now it may have 4 MiB");
        script(fx->guest, SURVEY(PAGES("4G", IDLE)) TAKE_BLOCK("4G"));
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, "expect await-removed\nreply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 128 * MIB, 0);
        finish(fx);
}

/* One block of two is held when the time is over: it goes back, and the other one is the reason. */
static void test_put_back_at_the_deadline(void **state)
{
        struct fixture *fx = *state;

        start_with_survey(fx, DEVICES("<0 4G 256M>", "256M"), BLOCKS(TWO_BLOCKS) STATE);
        script(fx->guest, SURVEY(PAGES("4G", IDLE) "," PAGES("4224M", USED)) TAKE_BLOCK("4G") BLOCKS(
                                  ",[4G,128M,'offline','unknown',0],[4224M,128M,'online','movable',0]"));
        struct job *j = submit(fx, WITHIN(256 * MIB, 500 * USEC_PER_MSEC));
        RUN_UNTIL(fx, j->waiting[0] != '\0');
        assert_int_equal(j->progress_bytes, 128 * MIB);
        assert_non_null(strstr(j->waiting, "128 MiB of 256 MiB offline"));
        script(fx->guest, "expect online {'targets':[[4G,256M]],'zone':'movable'}\n" BLOCKS(
                                  TWO_BLOCKS) "reply {'ranges':[[4G,256M,'online','movable',0]]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_BLOCK_BUSY, "Block memory33 has 64 MiB to be moved");
        assert_string_equal(j->reasons[0].block, "0x108000000");
        assert_reason(j, 1, "", ERROR_DEADLINE, "0.5 s");
        assert_string_equal(j->waiting, "");
        finish(fx);
}

/* What somebody in the guest took offline is not brought back for that. */
static void test_foreign_offline_blocks(void **state)
{
        struct fixture *fx = *state;

        start_with_survey(fx, DEVICES("<0 4G 128M>,<1 4224M 256M>", "384M"),
                BLOCKS(",[4G,384M,'online','movable',0]") STATE);
        script(fx->guest, BLOCKS(",[4G,128M,'online','movable',0],[4224M,128M,'offline','unknown',0],"
                                 "[4352M,128M,'online','movable',0]"));
        script(fx->guest, SURVEY(PAGES("4G", IDLE) "," PAGES("4352M", USED)) TAKE_BLOCK("4G"));
        script(fx->qmp, UNPLUG(0) DEVICES("<1 4224M 256M>", "256M") LEAVE(0) "reply\n");
        struct job *j = submit(fx, WITHIN(128 * MIB, SECONDS(30)));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, "expect await-removed {'targets':[[4G,128M]]}\nreply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 128 * MIB, 0);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

static void test_put_back_fails(void **state)
{
        struct fixture *fx = *state;

        start_with_survey(fx, DEVICES("<0 4G 256M>", "256M"), BLOCKS(TWO_BLOCKS) STATE);
        script(fx->guest, SURVEY(PAGES("4G", IDLE) "," PAGES("4224M", USED)) TAKE_BLOCK("4G"));
        struct job *j = submit(fx, WITHIN(256 * MIB, SECONDS(30)));
        RUN_UNTIL(fx, j->waiting[0] != '\0');
        job_stop(j, JOB_STOP_CANCEL);
        script(fx->guest, "expect online {'targets':[[4G,256M]]}\nreply {'complete':false,'ranges':"
                          "[[4G,128M,'offline','unknown',0],[4224M,128M,'online','movable',0]],"
                          "'failures':[{'start':4G,'length':128M,'code':'block-failed','message':'EIO'}]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 3);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_BLOCK_FAILED, "EIO");
        assert_reason(j, 2, "", ERROR_CANCELLED, "");
        finish(fx);
}

/* While the guest is at a block: that is stopped, and what it took before goes back. */
static void test_cancel_while_taking(void **state)
{
        struct fixture *fx = *state;

        start_with_survey(fx, DEVICES("<0 4G 256M>", "256M"), BLOCKS(TWO_BLOCKS) STATE);
        script(fx->guest, SURVEY(PAGES("4G", IDLE) "," PAGES("4224M", IDLE))
                                  TAKE_BLOCK("4G") "expect offline @take {'targets':[[4224M,128M]]}\n");
        struct job *j = submit(fx, WITHIN(256 * MIB, SECONDS(30)));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL(fx, fake_finished(fx->guest));
        script(fx->guest,
                "reply @take {'complete':false,'ranges':[[4224M,128M,'online','movable',0]],'failures':"
                "[{'start':4224M,'length':128M,'code':'cancelled','message':'Stopped'}]}\n"
                "expect online {'targets':[[4G,256M]]}\nreply {'ranges':[[4G,256M,'online','movable',0]]}\n");
        RUN_UNTIL_END(fx, j);
        assert_int_equal(j->state, JOB_CANCELLED);
        finish(fx);
}

/* Pages that do not move are seen by a close look at the block that did not go; then the other device is
 * taken. */
static void test_next_best(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest,
                SURVEY(PAGES("4G", USED) "," PAGES("4224M", IDLE)) REFUSE_BLOCK("4224M",
                        "block-busy") "expect survey {'targets':[[4224M,128M]],'deadline_msec':2000}\n"
                                      "reply {'page_bytes':4096,'surveys':[" PAGES("4224M", PINNED) "]}\n");
        struct job *j = submit(fx, WITHIN(128 * MIB, SECONDS(30)));
        RUN_UNTIL(fx, j->waiting[0] != '\0');
        assert_non_null(strstr(
                j->waiting, "opendlpar-dimm-1: Block memory33 holds pages that do not move: 3 pinned"));
        script(fx->guest, SURVEY(PAGES("4G", IDLE) "," PAGES("4224M", IDLE)) TAKE_BLOCK("4G"));
        script(fx->qmp, UNPLUG(0) DEVICES("<1 4224M 128M>", "128M") LEAVE(0) "reply\n");
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, "expect await-removed {'targets':[[4G,128M]]}\nreply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 128 * MIB, 0);
        finish(fx);
}

/* Without room nothing more is tried in that round, and no device is at fault. */
static void test_no_headroom(void **state)
{
        struct fixture *fx = *state;

        start_with_survey(fx, DEVICES("<0 4G 256M>", "256M"), BLOCKS(TWO_BLOCKS) STATE);
        script(fx->guest,
                SURVEY(PAGES("4G", IDLE) "," PAGES("4224M", IDLE)) REFUSE_BLOCK("4G", "no-headroom"));
        struct job *j = submit(fx, WITHIN(256 * MIB, 800 * USEC_PER_MSEC));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_NO_HEADROOM, "No");
        finish(fx);
}

/* A guest that runs short gets back what is held. */
static void test_short_of_memory(void **state)
{
        struct fixture *fx = *state;

        start_with_survey(fx, DEVICES("<0 4G 256M>", "256M"), BLOCKS(TWO_BLOCKS) STATE);
        script(fx->guest, SURVEY(PAGES("4G", IDLE) "," PAGES("4224M", USED)) TAKE_BLOCK("4G") BLOCKS(
                                  ",[4G,128M,'offline','unknown',0],[4224M,128M,'online','movable',0]"));
        struct job *j = submit(fx, WITHIN(256 * MIB, SECONDS(30)));
        RUN_UNTIL(fx, j->waiting[0] != '\0');
        script(fx->guest,
                "on get-state reply {" MEMORY("1G", "1G",
                        "20M") "}\n"
                               "expect online {'targets':[[4G,256M]]}\n" BLOCKS(
                                       TWO_BLOCKS) "reply {'ranges':[[4G,256M,'online','movable',0]]}\n");
        RUN_UNTIL(fx, strstr(j->waiting, "too little memory"));
        assert_int_equal(j->progress_bytes, 0);
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_int_equal(j->state, JOB_CANCELLED);
        finish(fx);
}

/* A survey that fails now and then is no end. */
static void test_silence(void **state)
{
        struct fixture *fx = *state;

        start_with_survey(fx, DEVICES(ONE, "128M"), BLOCKS(",[4G,128M,'online','movable',0]") STATE);
        script(fx->guest, "expect survey\nfailure busy The guest is at work: survey\n");
        struct job *j = submit(fx, WITHIN(128 * MIB, SECONDS(30)));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        script(fx->guest, SURVEY(PAGES("4G", IDLE)) TAKE_BLOCK("4G"));
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, "expect await-removed\nreply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 128 * MIB, 0);
        finish(fx);
}

static void test_qemu_goes_away(void **state)
{
        struct fixture *fx = *state;

        start_with_survey(fx, DEVICES(ONE, "128M"), BLOCKS(",[4G,128M,'online','movable',0]") STATE);
        script(fx->guest, "expect survey\nclose\n");
        script(fx->qmp, "close\n");
        struct job *j = submit(fx, WITHIN(128 * MIB, SECONDS(30)));
        RUN_UNTIL_END(fx, j);
        assert_int_equal(j->state, JOB_FAILED);
        assert_true(j->n_reasons > 0);
}

/* What QEMU does not let go is put back, and another one leaves. */
static void test_unplug_refused(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, SURVEY(PAGES("4G", USED) "," PAGES("4224M", IDLE)) TAKE_BLOCK("4224M") BLOCKS(
                                  ",[4G,128M,'online','movable',0],[4224M,128M,'offline','unknown',0]"));
        struct job *j = submit(fx, WITHIN(128 * MIB, SECONDS(30)));
        script(fx->qmp, "expect device_del {'id':'opendlpar-dimm-1'}\nerror GenericError Not now\n");
        RUN_UNTIL(fx, fake_finished(fx->qmp) && fake_finished(fx->guest));
        script(fx->guest,
                SURVEY(PAGES("4G", IDLE)) "expect online {'targets':[[4224M,128M]]}\n" BLOCKS(
                        TWO_BLOCKS) "reply {'ranges':[[4224M,128M,'online','movable',0]]}\n" TAKE_BLOCK("4"
                                                                                                        "G"));
        script(fx->qmp, UNPLUG(0) DEVICES("<1 4224M 128M>", "128M") LEAVE(0) "reply\n");
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, "expect await-removed {'targets':[[4G,128M]]}\nreply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 128 * MIB, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_HYPERVISOR_REFUSED, "Not now");
        finish(fx);
}

/* Held until all can go. */
static void test_all_or_nothing(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, SURVEY(PAGES("4G", USED) "," PAGES("4224M", IDLE)) TAKE_BLOCK("4224M") BLOCKS(
                                  ",[4G,128M,'online','movable',0],[4224M,128M,'offline','unknown',0]"));
        struct job *j = submit(fx, WITHIN(256 * MIB, SECONDS(30), .all_or_nothing = true));
        RUN_UNTIL(fx, j->waiting[0] != '\0');
        assert_non_null(strstr(j->waiting, "128 MiB of 256 MiB offline"));
        job_stop(j, JOB_STOP_CANCEL);
        script(fx->guest, "expect online {'targets':[[4224M,128M]]}\n" BLOCKS(
                                  TWO_BLOCKS) "reply {'ranges':[[4224M,128M,'online','movable',0]]}\n");
        RUN_UNTIL_END(fx, j);
        assert_int_equal(j->state, JOB_CANCELLED);
        assert_int_equal(j->done_bytes, 0);
        finish(fx);
}

static void test_refused(void **state)
{
        struct fixture *fx = *state;
        struct error error = { 0 };
        struct job *j;

        start(fx, DEVICES(ONE, "128M"), BLOCKS(",[4G,128M,'online','movable',0]") STATE);
        assert_true(manager_submit(fx->manager, fx->p, WITHIN(128 * MIB, SECONDS(9)), &j, &error) < 0);
        assert_int_equal(error.code, ERROR_AGENT_TOO_OLD);
        assert_non_null(strstr(error.message, "update guestd"));
        assert_int_equal(
                try_submit(fx, ADD(GIB, .within = true, .wait_usec = SECONDS(9))), ERROR_INVALID_ARGUMENT);
        finish(fx);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rules),
                cmocka_unit_test(test_choice),
                TEST(test_gentle),
                TEST(test_at_once),
                TEST(test_waits),
                TEST(test_put_back_at_the_deadline),
                TEST(test_foreign_offline_blocks),
                TEST(test_put_back_fails),
                TEST(test_cancel_while_taking),
                TEST(test_next_best),
                TEST(test_no_headroom),
                TEST(test_short_of_memory),
                TEST(test_silence),
                TEST(test_qemu_goes_away),
                TEST(test_unplug_refused),
                TEST(test_all_or_nothing),
                TEST(test_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
