/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

/* Additions in whose middle an end goes silent, restarts or goes away. */

#define OFFLINE(a) "[" a ",1G,'offline','unknown',0]"

static void plug_one(struct fixture *fx)
{
        start(fx, "", "");
        script(fx->qmp, PLUG(0) DEVICES("<0 4G 1G>", "1G") "reply\n");
        script(fx->guest, "expect prepare\nreply\nexpect online {'targets':[[4G,1G]],'zone':'movable'}\n");
}

/* The job that hvd makes of its own accord afterwards: what was left offline comes online. */
#define RESTORED                                                                                             \
        BLOCKS("," OFFLINE("4G"))                                                                            \
        "expect online {'targets':[[4G,1G]]}\n" BLOCKS("," ONLINE("4G")) "reply {'ranges':[" ONLINE(         \
                "4G") "]}\n"

static void assert_restored(struct fixture *fx, const struct job *j)
{
        RUN_UNTIL(fx, fx->n_ended == 2);
        finish(fx);
        struct job *restore = manager_next_job(fx->manager, (struct job *)j);
        assert_int_equal(restore->request.kind, JOB_RESTORE_MEMORY);
        assert_job(fx, restore, JOB_DONE, GIB, 0);
        assert_int_equal(fx->n_added, 2);
}

static void test_guest_silent_at_prepare(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, MAKE(0) UNMAKE(0));
        script(fx->guest, "on cancel nothing\nexpect prepare\nexpect release\n");
        struct job *j = submit(fx, ADD(GIB, .wait_usec = 500 * USEC_PER_MSEC));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "", ERROR_AGENT_SILENT, "prepare");
        assert_reason(j, 1, "", ERROR_DEADLINE, "0.5 s");
        finish(fx);
}

static void test_guest_silent_at_online(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx);
        script(fx->guest, "on cancel nothing\n" RESTORED);
        struct job *j = submit(fx, ADD(GIB, .wait_usec = 500 * USEC_PER_MSEC));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_AGENT_SILENT, "stays plugged");
        assert_reason(j, 1, "", ERROR_DEADLINE, "");
        assert_restored(fx, j);
}

/* At the deadline a guest that obeys tells what it has; what is not online leaves again. */
static void test_deadline(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx);
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        struct job *j = submit(fx, ADD(GIB, .wait_usec = 500 * USEC_PER_MSEC));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        script(fx->guest, "reply {'complete':false,'ranges':[" OFFLINE(
                                  "4G") "],'failures':[{'start':4G,'length':1G,"
                                        "'code':'cancelled','message':'x'}]}\n"
                                        "expect offline\nreply {'ranges':[" OFFLINE("4G") "]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 1, "", ERROR_DEADLINE, "time limit of 0.5 s passed");
        assert_int_equal(j->stop, JOB_STOP_DEADLINE);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

/* --- guestd, or the whole guest, restarts --- */

static void run_restart_of_guestd(struct fixture *fx, const char *again)
{
        plug_one(fx);
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        script(fx->guest, again);
        script(fx->guest, "expect online {'targets':[[4G,1G]],'zone':'movable'}\n"
                          "reply {'ranges':[" ONLINE("4G") "]}\nexpect release\nreply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING PLUGGING ONLINING VERIFYING DONE");
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

static void test_guestd_says_hello_anew(void **state)
{
        run_restart_of_guestd(*state, "hello\nexpect welcome\n");
}

static void test_guestd_restarts_three_times(void **state)
{
        run_restart_of_guestd(*state,
                "hello\nexpect welcome\nexpect online\nhello\nexpect welcome\nexpect online\n"
                "hello\nexpect welcome\n");
}

/* QEMU says that the port was closed, and for a moment nobody speaks. */
static void close_port(struct fixture *fx)
{
        char text[300];

        snprintf(text, sizeof(text),
                "event VSERPORT_CHANGE {'open':false,'id':'p0'}\nexpect query-chardev\n"
                "reply [{'frontend-open':false,'filename':'unix:%s,server=on','label':'c0'}]\n",
                fx->channel_path);
        script(fx->qmp, text);
        RUN_UNTIL(fx, agent_state(fx->p->agent) == AGENT_WAITING);
}

static void test_guestd_away_for_a_moment(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx);
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        close_port(fx);
        assert_int_equal(j->state, JOB_ONLINING);
        script(fx->guest, "hello\nexpect welcome\nexpect online\nreply {'ranges':[" ONLINE("4G") "]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        finish(fx);
}

static void test_guestd_stays_away(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx);
        struct job *j = submit(fx, ADD(GIB, .wait_usec = 700 * USEC_PER_MSEC));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        close_port(fx);
        RUN_UNTIL_END(fx, j);
        assert_int_equal(j->state, JOB_FAILED);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_AGENT_RESTARTED, "stays plugged");
        script(fx->guest, BLOCKS("," OFFLINE("4G")) "hello\nexpect welcome\n" RESTORED);
        assert_restored(fx, j);
}

static void test_cancel_while_guestd_is_away(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx);
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        close_port(fx);
        job_stop(j, JOB_STOP_CANCEL);
        assert_int_equal(j->state, JOB_ONLINING); /* never from inside */
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_AGENT_RESTARTED, "stays plugged");
        assert_reason(j, 1, "", ERROR_CANCELLED, "");
        finish(fx);
}

static void test_guest_reboots(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx);
        script(fx->guest, BLOCKS("," OFFLINE("4G")) HELLO_OF_ANOTHER_BOOT RESTORED);
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_GUEST_RESET, "stays plugged");
        assert_restored(fx, j);
}

/* A port that closes may be guestd's end or the whole guest's: the hello tells. */
static void test_guest_reboots_in_silence(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx);
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        close_port(fx);
        assert_int_equal(j->state, JOB_ONLINING);
        script(fx->guest, BLOCKS("," OFFLINE("4G")) HELLO_OF_ANOTHER_BOOT RESTORED);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_GUEST_RESET, "");
        assert_restored(fx, j);
}

/* QEMU's word of a reset is enough: nothing waits for a hello that may never come. */
static void test_guest_is_reset(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx);
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        script(fx->qmp, "event RESET {'guest':false,'reason':'host-qmp-system-reset'}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_GUEST_RESET, "");
        assert_int_equal(agent_state(fx->p->agent), AGENT_WAITING);
        script(fx->guest, BLOCKS("," OFFLINE("4G")) HELLO_OF_ANOTHER_BOOT RESTORED);
        assert_restored(fx, j);
}

/* --- QEMU dies --- */

static void test_qemu_dies_plugging(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, "expect object-add\nreply\nexpect device_add\nclose\n");
        script(fx->guest, "expect prepare\nreply\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_HYPERVISOR_ABSENT, "closed");

        /* It was the monitor alone, and the backend had been made: it is found and deleted. */
        script(fx->qmp, "on qom-list reply [{'name':'opendlpar-mem-0','type':'c'}]\nnegotiate\n"
                        "expect object-del {'id':'opendlpar-mem-0'}\non qom-list reply []\nreply\n");
        RUN_UNTIL(fx, fx->n_ended == 2);
        finish(fx);
        assert_job(fx, manager_next_job(fx->manager, j), JOB_DONE, 0, 0);
        assert_int_equal(fx->n_added, 2);
}

static void test_qemu_dies_onlining(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx);
        script(fx->guest, "close\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, j->state == JOB_ONLINING);
        script(fx->qmp, "close\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_HYPERVISOR_ABSENT, "when QEMU went away");
        finish(fx);
        assert_int_equal(fx->n_added, 1);
        assert_false(fx->p->has_snapshot);
}

static void test_qemu_dies_while_guestd_is_away(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx);
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        close_port(fx);
        script(fx->qmp, "close\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_HYPERVISOR_ABSENT, "");
        finish(fx);
}

/* The guest has the memory, and QEMU cannot confirm it: both ends must agree. */
static void test_monitor_lost_while_onlining(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx);
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        script(fx->qmp, "close\n");
        RUN_UNTIL(fx, !fx->p->platform_up);
        script(fx->guest, "reply {'ranges':[" ONLINE("4G") "]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_ACCOUNTS_DIFFER, "closed");
        finish(fx);
}

static void test_monitor_lost_while_withdrawing(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx);
        script(fx->guest, "reply {'complete':false,'ranges':[" OFFLINE(
                                  "4G") "]}\n"
                                        "expect offline\nreply {'ranges':[" OFFLINE("4G") "]}\n");
        script(fx->qmp, UNPLUG(0) "close\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 1, "opendlpar-dimm-0", ERROR_HYPERVISOR_ABSENT, "stays plugged");
        finish(fx);
}

/* --- the partition is undefined in the middle --- */

static void undefine(struct fixture *fx)
{
        struct error error;

        assert_int_equal(manager_undefine(fx->manager, "web1", &error), 0);
        fx->p = NULL;
}

static void test_undefine(void **state)
{
        static const enum job_state states[] = { JOB_SURVEYING, JOB_PLUGGING, JOB_ONLINING, JOB_WITHDRAWING,
                JOB_VERIFYING };

        for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
                void *again;
                fixture_setup(&again);
                struct fixture *fx = again;

                start(fx, "", "");
                script(fx->qmp, states[i] == JOB_SURVEYING  ? ""
                                : states[i] == JOB_PLUGGING ? PLUG(0)
                                                            : PLUG(0) DEVICES("<0 4G 1G>", "1G") "reply\n");
                script(fx->guest, "on prepare reply\non offline nothing\n");
                script(fx->guest,
                        states[i] == JOB_WITHDRAWING
                                ? "on online reply {'complete':false,'ranges':[" OFFLINE("4G") "]}\n"
                        : states[i] == JOB_ONLINING  ? "on online nothing\n"
                        : states[i] == JOB_VERIFYING ? "on online failure internal Not today\n"
                                                     : "on online reply {'ranges':[" ONLINE("4G") "]}\n");
                RUN_UNTIL(fx, fake_finished(fx->guest));
                if (states[i] == JOB_SURVEYING)
                        unsettle(fx);
                struct job *j = submit(fx, ADD(GIB)), *queued = submit(fx, ADD(GIB));
                RUN_UNTIL(fx, fake_finished(fx->qmp) && j->state == states[i]);
                undefine(fx);
                assert_int_equal(j->state, JOB_FAILED);
                assert_int_equal(queued->state, JOB_FAILED);
                assert_null(j->partition);
                assert_reason(j, j->n_reasons - 1, "", ERROR_CANCELLED, "undefined");
                assert_reason(queued, 0, "", ERROR_CANCELLED, "undefined");
                assert_int_equal(fx->n_ended, 2);
                FAKE_RUN_UNTIL(fx->event, false, 20 * USEC_PER_MSEC);
                assert_int_equal(fx->n_added, 2);
                fixture_teardown(&again);
        }
}

/* It ends in the same turn of the loop in which it would have ended by itself. */
static void test_undefine_at_the_end(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        struct job *j = submit(fx, ADD(GIB));
        job_stop(j, JOB_STOP_CANCEL);
        undefine(fx);
        assert_int_equal(j->state, JOB_CANCELLED);
        FAKE_RUN_UNTIL(fx->event, false, 10 * USEC_PER_MSEC);
        assert_int_equal(fx->n_ended, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_guest_silent_at_prepare),
                TEST(test_guest_silent_at_online),
                TEST(test_deadline),
                TEST(test_guestd_says_hello_anew),
                TEST(test_guestd_restarts_three_times),
                TEST(test_guestd_away_for_a_moment),
                TEST(test_guestd_stays_away),
                TEST(test_cancel_while_guestd_is_away),
                TEST(test_guest_reboots),
                TEST(test_guest_reboots_in_silence),
                TEST(test_guest_is_reset),
                TEST(test_qemu_dies_plugging),
                TEST(test_qemu_dies_onlining),
                TEST(test_qemu_dies_while_guestd_is_away),
                TEST(test_monitor_lost_while_onlining),
                TEST(test_monitor_lost_while_withdrawing),
                cmocka_unit_test(test_undefine),
                TEST(test_undefine_at_the_end),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
