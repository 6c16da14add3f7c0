/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

/* Removals in whose middle an end goes silent, restarts or goes away, and those that are stopped. */

#define OFFLINE(a) "[" a ",1G,'offline','unknown',0]"
#define ABSENT(a)  "[" a ",1G,'absent','unknown',0]"
#define STOPPED(a, code)                                                                                     \
        "reply {'complete':false,'ranges':[" ONLINE(                                                         \
                a) "],'failures':[{'start':" a ",'length':1G,'code':'" code "','message':'Stopped'}]}\n"
#define RELEASE(a) "expect offline {'targets':[[" a ",1G]]}\nreply {'ranges':[" OFFLINE(a) "]}\n"
#define PUT_BACK(a)                                                                                          \
        "expect online {'targets':[[" a ",1G]],'zone':'movable'}\n"                                          \
        "reply {'ranges':[" ONLINE(a) "]}\n"

static void start_two(struct fixture *fx)
{
        start(fx, DEVICES(BOTH, "2G"),
                BLOCKS(",[4G,2G,'online','movable',0]") "on get-state reply {" MEMORY(
                        "1G", "2G", "512M") "}\n");
}

/* The guest is at work on the device at 5G. */
static struct job *begin(struct fixture *fx, const struct job_request *request)
{
        start_two(fx);
        script(fx->guest, "expect offline {'targets':[[5G,1G]]}\n");
        struct job *j = submit(fx, request);
        RUN_UNTIL(fx, fake_finished(fx->guest));
        assert_int_equal(j->state, JOB_OFFLINING);
        return j;
}

/* --- stopped --- */

static void test_cancel_surveying(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        unsettle(fx);
        struct job *j = submit(fx, REMOVE(GIB));
        assert_int_equal(j->state, JOB_SURVEYING);
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 1);
        finish(fx);
}

static void test_cancel_offlining(void **state)
{
        struct fixture *fx = *state;
        struct job *j = begin(fx, REMOVE(2 * GIB));

        expect_cancel(fx);
        script(fx->guest, STOPPED("5G", "cancelled"));
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_CANCELLED, "Stopped");
        assert_reason(j, 1, "", ERROR_CANCELLED, "The job was cancelled");
        finish(fx);
}

/* One has left by then, or is about to: it stays gone and is said. */
static void test_cancel_between_devices(void **state)
{
        struct fixture *fx = *state;
        struct job *j = begin(fx, REMOVE(2 * GIB));

        script(fx->guest, "reply {'ranges':[" OFFLINE("5G") "]}\nexpect offline {'targets':[[4G,1G]]}\n");
        script(fx->qmp, UNPLUG(1));
        RUN_UNTIL(fx, fake_finished(fx->guest) && fake_finished(fx->qmp));
        expect_cancel(fx);
        script(fx->guest, STOPPED("4G", "cancelled"));
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL(fx, j->state == JOB_UNPLUGGING);
        script(fx->guest, "expect await-removed {'targets':[[5G,1G]]}\nreply\n");
        script(fx->qmp, DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, GIB, 2);
        assert_reason(j, 1, "", ERROR_CANCELLED, "");
        finish(fx);
}

static void test_cancel_unplugging_and_verifying(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("5G"));
        script(fx->qmp, UNPLUG(1));
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL(fx, fake_finished(fx->qmp) && j->state == JOB_UNPLUGGING);
        job_stop(j, JOB_STOP_CANCEL);
        script(fx->guest, "expect await-removed\n");
        script(fx->qmp, DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        RUN_UNTIL(fx, fake_finished(fx->guest) && j->state == JOB_VERIFYING);
        job_stop(j, JOB_STOP_CANCEL);
        script(fx->guest, "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0); /* it was done all the same */
        finish(fx);
}

static void test_cancel_all_or_nothing(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("5G") "expect offline {'targets':[[4G,1G]]}\n");
        struct job *j = submit(fx, REMOVE(2 * GIB, .all_or_nothing = true));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        script(fx->guest, STOPPED("4G", "cancelled") PUT_BACK("5G"));
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 2);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

static void test_deadline(void **state)
{
        struct fixture *fx = *state;
        struct job *j = begin(fx, REMOVE(GIB, .wait_usec = 600 * USEC_PER_MSEC));

        expect_cancel(fx);
        script(fx->guest, STOPPED("5G", "deadline"));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_DEADLINE, "Stopped");
        assert_reason(j, 1, "", ERROR_DEADLINE, "0.6 s");
        finish(fx);
}

/* Not enough time to try anything and to say how it went. */
static void test_too_little_time(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        struct job *j = submit(fx, REMOVE(GIB, .wait_usec = 90 * USEC_PER_MSEC));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_DEADLINE, "0.1 s");
        finish(fx);
}

/* --- the guest --- */

static void test_guest_silent(void **state)
{
        struct fixture *fx = *state;
        struct job *j = begin(fx, REMOVE(2 * GIB, .wait_usec = 600 * USEC_PER_MSEC));

        script(fx->guest, "on cancel nothing\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_AGENT_SILENT, "offline");
        finish(fx);
}

static void test_guestd_restarts(void **state)
{
        struct fixture *fx = *state;
        struct job *j = begin(fx, REMOVE(GIB));

        script(fx->guest,
                "hello\nexpect welcome\n" RELEASE("5G") "expect await-removed\nhello\n"
                                                        "expect welcome\n"
                                                        "expect await-removed {'targets':[[5G,1G]]}\n"
                                                        "reply\n");
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING OFFLINING UNPLUGGING VERIFYING DONE");
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

static void test_guest_reboots(void **state)
{
        struct fixture *fx = *state;
        struct job *j = begin(fx, REMOVE(2 * GIB));

        script(fx->guest, HELLO_OF_ANOTHER_BOOT);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_GUEST_RESET, "");
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

static void test_guest_is_reset(void **state)
{
        struct fixture *fx = *state;
        struct job *j = begin(fx, REMOVE(2 * GIB));

        script(fx->qmp, "event RESET {'guest':true,'reason':'guest-reset'}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_GUEST_RESET, "");
        script(fx->guest, HELLO_OF_ANOTHER_BOOT);
        finish(fx);
}

/* A device is on its way out while the guest restarts: what QEMU says of it still counts, but without the
 * guest's word it is not done. */
static void test_guest_reboots_in_between(void **state)
{
        struct fixture *fx = *state;
        struct job *j = begin(fx, REMOVE(2 * GIB));

        script(fx->guest, "reply {'ranges':[" OFFLINE("5G") "]}\nexpect offline {'targets':[[4G,1G]]}\n");
        script(fx->qmp, UNPLUG(1));
        RUN_UNTIL(fx, fake_finished(fx->guest) && fake_finished(fx->qmp));
        script(fx->guest, HELLO_OF_ANOTHER_BOOT);
        RUN_UNTIL(fx, j->n_reasons == 1);
        script(fx->guest, "expect await-removed {'targets':[[5G,1G]]}\nreply\n");
        script(fx->qmp, DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, GIB, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_GUEST_RESET, "");
        finish(fx);
}

static void test_guest_does_not_confirm(void **state)
{
        static const char *const answers[] = {
                "reply {'complete':false,'ranges':[" OFFLINE("5G") "],'failures':[{'start':5G,'length':1G,"
                                                                   "'code':'deadline','message':'x'}]}\n",
                /* asked once more, when QEMU has let go of it */
                "failure internal Out of luck\nexpect await-removed\nfailure internal Out of luck\n",
                /* another boot is asked as well, and has them, or ends too */
                HELLO_OF_ANOTHER_BOOT "expect await-removed {'targets':[[5G,1G]]}\n"
                                      "reply {'complete':false,'ranges':[" OFFLINE("5G") "]}\n",
        };

        for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
                void *again;
                fixture_setup(&again);
                struct fixture *fx = again;

                start_two(fx);
                script(fx->guest, RELEASE("5G") "expect await-removed {'targets':[[5G,1G]]}\n");
                script(fx->guest, answers[i]);
                script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
                struct job *j = submit(fx, REMOVE(GIB));
                RUN_UNTIL_END(fx, j);
                assert_job(fx, j, JOB_FAILED, 0, 1);
                assert_reason(j, 0, "opendlpar-dimm-1", ERROR_ACCOUNTS_DIFFER, "guest did not confirm");
                finish(fx);
                fixture_teardown(&again);
        }
}

/* A guest that booted anew without QEMU's word of a reset: it says itself whether it has the blocks. */
static void test_another_boot_confirms(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("5G") "expect await-removed {'targets':[[5G,1G]]}\n" HELLO_OF_ANOTHER_BOOT
                                        "expect await-removed {'targets':[[5G,1G]]}\nreply\n");
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        finish(fx);
}

#define RESET "event RESET {'guest':true,'reason':'guest-reset'}\n"

/* What left before or while the guest was reset it cannot have any more: the reset confirms it. */
static void test_reset_confirms(void **state)
{
        static const char *const rows[] = {
                /* pseries: the reset completes the unplug, and QEMU says that first */
                UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) RESET "reply\n",
                /* x86: it had left just before */
                UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n" RESET,
                /* it leaves behind the reset */
                UNPLUG(1) RESET DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n",
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                void *again;
                fixture_setup(&again);
                struct fixture *fx = again;

                start_two(fx);
                script(fx->guest, RELEASE("5G") "expect await-removed {'targets':[[5G,1G]]}\n");
                script(fx->qmp, rows[i]);
                struct job *j = submit(fx, REMOVE(GIB));
                RUN_UNTIL_END(fx, j);
                assert_job(fx, j, JOB_DONE, GIB, 0);
                script(fx->guest, HELLO_OF_ANOTHER_BOOT);
                finish(fx);
                fixture_teardown(&again);
        }
}

/* Of two, one has left and the other was being emptied. */
static void test_reset_in_between(void **state)
{
        struct fixture *fx = *state;
        struct job *j = begin(fx, REMOVE(2 * GIB));

        script(fx->guest, "reply {'ranges':[" OFFLINE("5G") "]}\nexpect offline {'targets':[[4G,1G]]}\n");
        script(fx->qmp, UNPLUG(1));
        RUN_UNTIL(fx, fake_finished(fx->guest) && fake_finished(fx->qmp));
        script(fx->qmp, DEVICES("<0 4G 1G>", "1G") LEAVE(1) RESET "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, GIB, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_GUEST_RESET, "");
        script(fx->guest, HELLO_OF_ANOTHER_BOOT);
        finish(fx);
}

/* A reset proves nothing of a device that QEMU still lists. */
static void test_reset_and_still_listed(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("5G") "expect await-removed\n");
        script(fx->qmp, UNPLUG(1) LEAVE(1) RESET "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_ACCOUNTS_DIFFER, "still lists it");
        script(fx->guest, HELLO_OF_ANOTHER_BOOT);
        finish(fx);
}

static void test_qemu_does_not_confirm(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("5G") "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(1) LEAVE(1) "reply\n"); /* and goes on listing it */
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_ACCOUNTS_DIFFER, "still lists it");
        finish(fx);
}

/* --- QEMU --- */

static void test_qemu_dies_offlining(void **state)
{
        struct fixture *fx = *state;
        struct job *j = begin(fx, REMOVE(2 * GIB));

        script(fx->guest, "close\n");
        script(fx->qmp, "close\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_AGENT_ABSENT, "");
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

/* Only the monitor: the guest puts back what QEMU can no longer be asked about. */
static void test_monitor_lost_unplugging(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("5G") AWAIT_STOPPED PUT_BACK("5G"));
        script(fx->qmp, UNPLUG(1) "close\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_HYPERVISOR_ABSENT, "closed");
        finish(fx);
}

static void test_monitor_lost_verifying(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("5G") "expect await-removed\n");
        script(fx->qmp, UNPLUG(1) LEAVE(1) "reply\nexpect query-memory-devices\nclose\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest) && !fx->p->platform_up);
        script(fx->guest, "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_ACCOUNTS_DIFFER, "does not confirm it now");
        finish(fx);
}

/* Both ends go while the last word is awaited. */
static void test_both_lost_verifying(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("5G") "expect await-removed\nclose\n");
        script(fx->qmp, UNPLUG(1) LEAVE(1) "reply\nexpect query-status\nclose\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_ACCOUNTS_DIFFER, "");
        finish(fx);
}

static void test_undefine(void **state)
{
        static const enum job_state states[] = { JOB_SURVEYING, JOB_OFFLINING, JOB_UNPLUGGING,
                JOB_VERIFYING };

        for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
                void *again;
                fixture_setup(&again);
                struct fixture *fx = again;
                struct error error;

                start_two(fx);
                script(fx->guest, "on await-removed nothing\non offline nothing\n");
                if (states[i] > JOB_OFFLINING)
                        script(fx->guest, "on offline reply {'ranges':[" OFFLINE("5G") "]}\n");
                if (states[i] > JOB_OFFLINING)
                        script(fx->qmp, UNPLUG(1));
                if (states[i] == JOB_VERIFYING)
                        script(fx->qmp, LEAVE(1) "reply\n");
                RUN_UNTIL(fx, fake_finished(fx->guest));
                if (states[i] == JOB_SURVEYING)
                        unsettle(fx);
                struct job *j = submit(fx, REMOVE(GIB));
                RUN_UNTIL(fx, j->state == states[i] && fake_finished(fx->qmp));
                assert_int_equal(manager_undefine(fx->manager, "web1", &error), 0);
                fx->p = NULL;
                assert_int_equal(j->state, JOB_FAILED);
                assert_reason(j, j->n_reasons - 1, "", ERROR_CANCELLED, "undefined");
                FAKE_RUN_UNTIL(fx->event, false, 10 * USEC_PER_MSEC);
                assert_int_equal(fx->n_ended, 1);
                fixture_teardown(&again);
        }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_cancel_surveying),
                TEST(test_cancel_offlining),
                TEST(test_cancel_between_devices),
                TEST(test_cancel_unplugging_and_verifying),
                TEST(test_cancel_all_or_nothing),
                TEST(test_deadline),
                TEST(test_too_little_time),
                TEST(test_guest_silent),
                TEST(test_guestd_restarts),
                TEST(test_guest_reboots),
                TEST(test_guest_is_reset),
                TEST(test_guest_reboots_in_between),
                cmocka_unit_test(test_guest_does_not_confirm),
                TEST(test_another_boot_confirms),
                cmocka_unit_test(test_reset_confirms),
                TEST(test_reset_in_between),
                TEST(test_reset_and_still_listed),
                TEST(test_qemu_does_not_confirm),
                TEST(test_qemu_dies_offlining),
                TEST(test_monitor_lost_unplugging),
                TEST(test_monitor_lost_verifying),
                TEST(test_both_lost_verifying),
                cmocka_unit_test(test_undefine),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
