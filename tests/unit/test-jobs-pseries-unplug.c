/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Unplugs of a pseries guest that do not go as asked: refused in silence, kept pending, or at a bad time. */

#include "jobs-pseries.h"

/* Three events, one reason; once its pages are free the same LMB leaves. */
static void test_refused_once(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("1280M") AWAIT_STOPPED PUT_BACK("1280M"));
        script(fx->qmp, UNPLUG(1) REFUSED(1));
        struct job *j = submit(fx, REMOVE(MIB_256, DRC(0x80000005)));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_UNPLUG_REFUSED, "could not release");
        finish(fx);
        assert_false(is_pending(fx, "opendlpar-dimm-1"));

        script(fx->guest, RELEASE("1280M") REMOVED("1280M"));
        script(fx->qmp, UNPLUG(1) DEVICES("<0 1G 256M>", "256M") LEAVE(1) "reply\n");
        j = submit(fx, REMOVE(MIB_256, DRC(0x80000005)));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, MIB_256, 0);
        finish(fx);
}

/* The marked device is passed over, named, and refused by name. */
static void check_passed_over(struct fixture *fx)
{
        assert_true(is_pending(fx, "opendlpar-dimm-1"));
        assert_int_equal(try_submit(fx, REMOVE(MIB_256, .device = "opendlpar-dimm-1")), ERROR_UNPLUG_PENDING);
        assert_int_equal(try_submit(fx, REMOVE(MIB_256, DRC(0x80000005))), ERROR_UNPLUG_PENDING);

        script(fx->guest, RELEASE("1G") REMOVED("1G"));
        script(fx->qmp, UNPLUG(0) DEVICES("<1 1280M 256M>", "256M") LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(512 * MIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, MIB_256, 2);
        assert_reason(j, 0, "", ERROR_NO_EXACT_FIT, "nearest below is 256M");
        assert_reason(j, 1, "opendlpar-dimm-1", ERROR_UNPLUG_PENDING, "a reset of the guest ends that");
        finish(fx);
        assert_true(is_pending(fx, "opendlpar-dimm-1"));
        assert_int_equal(try_submit(fx, REMOVE(MIB_256)), ERROR_NOT_PLUGGED);
}

static void test_silence(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("1280M") AWAIT_STOPPED PUT_BACK("1280M"));
        script(fx->qmp, UNPLUG(1));
        struct job *j = submit(fx, REMOVE(MIB_256, DRC(0x80000005), .wait_usec = USEC_PER_SEC));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_UNPLUG_PENDING, "when the guest is reset");
        finish(fx);
        check_passed_over(fx);

        /* The reset lets it leave, and QEMU says so before. */
        script(fx->qmp, DEVICES("", "0") LEAVE(1) "reply\n" RESET);
        RUN_UNTIL(fx, fake_finished(fx->qmp) && fx->p->n_resets == 1);
        script(fx->guest, BLOCKS("") HELLO_OF_PSERIES);
        finish(fx);
        assert_int_equal(fx->p->snapshot.n_devices, 0);
}

/* What QEMU says of an unplug that was asked for before hvd came. */
static void test_already_in_progress(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("1280M") AWAIT_STOPPED PUT_BACK("1280M"));
        script(fx->qmp, "expect device_del {'id':'opendlpar-dimm-1'}\n"
                        "error GenericError Memory unplug already in progress for device opendlpar-dimm-1\n");
        struct job *j = submit(fx, REMOVE(MIB_256));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_UNPLUG_PENDING, "an earlier unplug");
        finish(fx);
        check_passed_over(fx);

        /* The guest's late refusal ends it too. */
        script(fx->qmp, REFUSED(1));
        RUN_UNTIL(fx, !is_pending(fx, "opendlpar-dimm-1"));
        finish(fx);
        script(fx->guest, RELEASE("1280M") REMOVED("1280M"));
        script(fx->qmp, UNPLUG(1) DEVICES("", "0") LEAVE(1) "reply\n");
        j = submit(fx, REMOVE(MIB_256));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, MIB_256, 0);
        finish(fx);
}

/* A guest that let go of the LMB by itself (drmgr, or /sys/kernel/dlpar): QEMU keeps the device for good. */
static void test_let_go_before(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest,
                "expect offline {'targets':[[1280M,256M]]}\n"
                "reply "
                "{'complete':false,'ranges':[[1280M,256M,'absent','unknown',0]],'failures':[{'start':1280M,"
                "'length':256M,'code':'block-missing','message':'There is none'}]}\n"
                "expect await-removed\nreply\n"
                "expect online {'targets':[[1280M,256M]]}\n"
                "reply "
                "{'complete':false,'ranges':[[1280M,256M,'absent','unknown',0]],'failures':[{'start':1280M,"
                "'length':256M,'code':'block-missing','message':'There is none'}]}\n");
        script(fx->qmp, UNPLUG(1));
        struct job *j = submit(fx, REMOVE(MIB_256, DRC(0x80000005), .wait_usec = USEC_PER_SEC));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 3);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_UNPLUG_PENDING, "when the guest is reset");
        assert_reason(j, 1, "opendlpar-dimm-1", ERROR_ACCOUNTS_DIFFER, "QEMU still has the device");
        finish(fx);
        assert_true(is_pending(fx, "opendlpar-dimm-1"));
}

/* The guest says nothing, and is reset while its blocks are to be put back: the unplug is complete by that.
 */
static void test_reset_ends_silence(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("1280M") AWAIT_STOPPED "expect online {'targets':[[1280M,256M]]}\n");
        script(fx->qmp, UNPLUG(1));
        struct job *j = submit(fx, REMOVE(MIB_256, .wait_usec = USEC_PER_SEC));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_UNPLUG_PENDING, "");
        script(fx->qmp, DEVICES("<0 1G 256M>", "256M") LEAVE(1) "reply\n" RESET);
        RUN_UNTIL_END(fx, j);
        assert_int_equal(j->state, JOB_DONE);
        assert_int_equal(j->done_bytes, MIB_256);
        script(fx->guest, HELLO_OF_PSERIES);
        finish(fx);
}

/* --- times at which nothing may change --- */

/* Until guestd has spoken the guest may not have negotiated hotplug, and an unplug would spoil its state. */
static void test_guest_is_not_up(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->qmp, RESET);
        RUN_UNTIL(fx, fx->p->n_resets == 1);
        RUN_UNTIL(fx, !fx->p->settling);
        assert_int_equal(try_submit(fx, ADD(MIB_256)), ERROR_AGENT_SILENT);
        assert_int_equal(try_submit(fx, REMOVE(MIB_256)), ERROR_AGENT_SILENT);
        assert_int_equal(try_submit(fx, REMOVE(MIB_256, DRC(0x80000004))), ERROR_AGENT_SILENT);
        script(fx->guest, HELLO_OF_PSERIES);
        RUN_UNTIL(fx, agent_state(fx->p->agent) == AGENT_READY);
        finish(fx);
        assert_int_equal(try_submit(fx, REMOVE(MIB_256, .dry_run = true)), ERROR_NONE);
        finish(fx);
}

static void test_migrating(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->qmp, "on query-migrate reply {'status':'active'}\nevent MIGRATION {'status':'active'}\n");
        RUN_UNTIL(fx, fx->p->snapshot.state == RUN_MIGRATING && !fx->p->settling);
        assert_int_equal(try_submit(fx, ADD(MIB_256)), ERROR_NOT_RUNNING);
        assert_int_equal(try_submit(fx, REMOVE(MIB_256)), ERROR_NOT_RUNNING);
        assert_int_equal(fx->n_added, 0);

        /* Its end makes no event. */
        script(fx->qmp, "on query-migrate reply {'status':'cancelled'}\n");
        RUN_UNTIL(fx, fx->p->snapshot.state == RUN_RUNNING && !fx->p->settling);
        assert_int_equal(try_submit(fx, REMOVE(MIB_256, .dry_run = true)), ERROR_NONE);
        finish(fx);
}

/* It begins while the guest is at work, unheard: QEMU refuses, what is offline is put back, and no other
 * device is tried. */
static void test_migration_begins(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("1280M") AWAIT_STOPPED PUT_BACK("1280M"));
        script(fx->qmp, "expect device_del\nerror GenericError device_del not allowed while migrating\n");
        struct job *j = submit(fx, REMOVE(MIB_256));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_NOT_RUNNING, "being migrated");
        finish(fx);
        assert_false(is_pending(fx, "opendlpar-dimm-1"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_refused_once),
                TEST(test_silence),
                TEST(test_already_in_progress),
                TEST(test_let_go_before),
                TEST(test_reset_ends_silence),
                TEST(test_guest_is_not_up),
                TEST(test_migrating),
                TEST(test_migration_begins),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
