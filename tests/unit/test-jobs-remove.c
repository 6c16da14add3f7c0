/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

/* Removals: which devices are tried, what is put back, and what counts as done. */

#define OFFLINE(a) "[" a ",1G,'offline','unknown',0]"
#define REFUSE(a)                                                                                            \
        "expect offline {'targets':[[" a ",1G]]}\n"                                                          \
        "reply {'complete':false,'ranges':[" ONLINE(                                                         \
                a) "],'failures':[{'start':" a ",'length':128M,"                                             \
                   "'code':'block-busy','message':'A page is pinned'}]}\n"
#define RELEASE(a) "expect offline {'targets':[[" a ",1G]]}\nreply {'ranges':[" OFFLINE(a) "]}\n"
#define PUT_BACK(a)                                                                                          \
        "expect online {'targets':[[" a ",1G]],'zone':'movable'}\n"                                          \
        "reply {'ranges':[" ONLINE(a) "]}\n"

/* Two devices, online and Movable. */
static void start_two(struct fixture *fx)
{
        start(fx, DEVICES(BOTH, "2G"),
                BLOCKS(",[4G,2G,'online','movable',0]") "on get-state reply {" MEMORY(
                        "1G", "2G", "512M") "}\n");
}

static void start_three(struct fixture *fx)
{
        start(fx, DEVICES(BOTH ",<2 6G 1G>", "3G"),
                BLOCKS(",[4G,3G,'online','movable',0]") "on get-state reply {" MEMORY(
                        "1G", "3G", "512M") "}\n");
}

/* The guest works on the second device only when the first one's unplug was seen through: the two overlap in
 * truth, and a script cannot say "either". */
static void run_qemu_script(struct fixture *fx, const char *text)
{
        script(fx->qmp, text);
        RUN_UNTIL(fx, fake_finished(fx->qmp));
}

static void test_two_devices(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, "expect offline {'targets':[[5G,1G]],'attempt_msec':10000}\nprogress 512M 1G\n");
        struct job *j = submit(fx, REMOVE(2 * GIB));
        RUN_UNTIL(fx, j->progress_bytes == 512 * MIB);
        assert_true(fx->progress >= 0.25 && fx->progress <= 0.25);
        script(fx->guest, "reply {'ranges':[" OFFLINE("5G") "]}\nexpect offline {'targets':[[4G,1G]]}\n");
        run_qemu_script(fx, UNPLUG(1) LEAVE(1) "reply\n");
        assert_int_equal(j->progress_bytes, GIB);
        assert_int_equal(j->done_bytes, 0); /* not before both ends confirm */
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        script(fx->guest,
                "reply {'ranges':[" OFFLINE(
                        "4G") "]}\n"
                              "expect await-removed {'targets':[[4G,1G],[5G,1G]]}\n" BLOCKS("") "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 2 * GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING OFFLINING UNPLUGGING OFFLINING UNPLUGGING VERIFYING DONE");
        assert_int_equal(j->n_plan, 2);
        finish(fx);
        assert_int_equal(partition_current_bytes(fx->p), GIB);
        assert_int_equal(fx->n_added, 1);
}

static void test_next_best(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest, REFUSE("6G") RELEASE("5G") "expect await-removed {'targets':[[5G,1G]]}\nreply\n");
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G>,<2 6G 1G>", "2G") LEAVE(1) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 1);
        assert_reason(j, 0, "opendlpar-dimm-2", ERROR_BLOCK_BUSY, "pinned");
        assert_string_equal(j->reasons[0].block, "0x180000000");
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

static void test_no_alternative(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        /* Each has a second chance, if there is none better. */
        script(fx->guest, REFUSE("5G") REFUSE("4G") REFUSE("5G") REFUSE("4G"));
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_BLOCK_BUSY, "pinned");
        assert_reason(j, 1, "opendlpar-dimm-0", ERROR_BLOCK_BUSY, "pinned");
        assert_trace(fx, j, "QUEUED SURVEYING OFFLINING FAILED");
        assert_int_equal(j->progress_bytes, 0);
        finish(fx);
}

static void test_partial(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, REFUSE("5G") RELEASE("4G")
                                  REFUSE("5G") "expect await-removed {'targets':[[4G,1G]]}\nreply\n");
        script(fx->qmp, UNPLUG(0) DEVICES("<1 5G 1G>", "1G") LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(2 * GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, GIB, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_BLOCK_BUSY, "pinned");
        finish(fx);
}

/* A failure of the request itself: that device is done with, others may go. */
static void test_guest_refuses_the_request(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, "expect offline {'targets':[[5G,1G]]}\nfailure invalid-argument Not of whole "
                          "blocks\n" RELEASE("4G") "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(0) DEVICES("<1 5G 1G>", "1G") LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_INVALID_ARGUMENT, "whole blocks");
        finish(fx);
}

/* A guest that still puts back what an earlier request took offline is asked again. */
static void test_guest_is_busy_for_a_moment(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest,
                "expect offline {'targets':[[5G,1G]]}\nfailure busy Request 2 is under way\n"
                "expect offline {'targets':[[5G,1G]]}\nfailure busy Request 2 is under way\n" RELEASE(
                        "5G") "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        finish(fx);
}

/* What a guest's ranges say counts, not its "complete". */
static void test_guest_lies(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest,
                "expect offline\nreply {'complete':true,'ranges':[" ONLINE("5G") "]}\n"
                                                                                 "expect offline\nreply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_BLOCK_FAILED, "does not say why");
        assert_reason(j, 1, "opendlpar-dimm-0", ERROR_BLOCK_FAILED, "does not say why");
        finish(fx);
}

static void test_no_exact_fit(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        assert_int_equal(try_submit(fx, REMOVE(512 * MIB)), ERROR_NO_EXACT_FIT);
        /* DIMMs leave whole: 1.5 GiB is more than one and less than two. */
        script(fx->guest, RELEASE("5G") "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        struct job *j = submit(fx, REMOVE(1536 * MIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, GIB, 1);
        assert_reason(j, 0, "", ERROR_NO_EXACT_FIT, "nearest below is 1G");
        finish(fx);
}

static void test_no_exact_fit_all_or_nothing(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        struct job *j = submit(fx, REMOVE(1536 * MIB, .all_or_nothing = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_NO_EXACT_FIT, "");
        finish(fx);
}

static void test_refused_at_once(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        assert_int_equal(try_submit(fx, REMOVE(0)), ERROR_INVALID_SIZE);
        assert_int_equal(try_submit(fx, REMOVE(3 * GIB)), ERROR_NOT_PLUGGED);
        assert_int_equal(try_submit(fx, REMOVE(UINT64_MAX)), ERROR_NOT_PLUGGED);
        assert_int_equal(try_submit(fx, REMOVE(GIB, .device = "dimm0")), ERROR_UNKNOWN_DEVICE);
        assert_int_equal(try_submit(fx, REMOVE(2 * GIB, .device = "opendlpar-dimm-0")), ERROR_NO_EXACT_FIT);
        assert_int_equal(try_submit(fx, REMOVE(GIB, .method = "ballon")), ERROR_UNKNOWN_METHOD);
        assert_int_equal(try_submit(fx, REMOVE(GIB, .method = "balloon")), ERROR_NO_HOTPLUG);
        fx->p->definition.profile.min_bytes = 2 * GIB;
        assert_int_equal(try_submit(fx, REMOVE(2 * GIB)), ERROR_NOT_PLUGGED);
        finish(fx);
        assert_int_equal(fx->n_added, 0);
}

static void test_device_by_id(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("4G") "expect await-removed {'targets':[[4G,1G]]}\nreply\n");
        script(fx->qmp, UNPLUG(0) DEVICES("<1 5G 1G>", "1G") LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB, .device = "opendlpar-dimm-0"));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);

        /* If it will not go no other one does in its place. */
        RUN_UNTIL(fx, fx->p->snapshot.n_devices == 1 && !fx->p->settling);
        script(fx->guest, BLOCKS(",[5G,1G,'online','movable',0]") REFUSE("5G") REFUSE("5G"));
        j = submit(fx, REMOVE(GIB, .device = "opendlpar-dimm-1"));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        finish(fx);
}

static void test_device_of_another_node(void **state)
{
        struct fixture *fx = *state;
        struct job_request request = *REMOVE(GIB);

        start_two(fx);
        request.node = 1;
        assert_int_equal(try_submit(fx, &request), ERROR_NOT_PLUGGED);
        finish(fx);
        assert_int_equal(fx->n_added, 0);
}

static void test_dry_run(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        struct job *j = submit(fx, REMOVE(GIB, .dry_run = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        assert_int_equal(j->n_plan, 2);
        assert_non_null(strstr(j->plan[1], "pages were not surveyed"));
        assert_non_null(strstr(j->plan[0], "opendlpar-dimm-1"));
        finish(fx);
}

/* --- a device that is offline and does not leave --- */

static void test_unplug_refused(void **state)
{
        static const struct {
                const char *answer;
                enum error_code code;
        } rows[] = {
                { "error GenericError Memory unplug already in progress\n", ERROR_HYPERVISOR_REFUSED },
                { "reply\nevent ACPI_DEVICE_OST {'info':{'device':'opendlpar-dimm-1','source':3,'status':132,"
                  "'slot':'1'}}\nevent ACPI_DEVICE_OST {'info':{'device':'opendlpar-dimm-1','source':3,"
                  "'status':130,'slot':'1'}}\n",
                        ERROR_UNPLUG_REFUSED },
                { "reply\nevent DEVICE_UNPLUG_GUEST_ERROR {'device':'opendlpar-dimm-1','path':'x'}\n"
                  "event DEVICE_UNPLUG_GUEST_ERROR {'device':'opendlpar-dimm-1','path':'x'}\n",
                        ERROR_UNPLUG_REFUSED },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                void *again;
                fixture_setup(&again);
                struct fixture *fx = again;

                start_two(fx);
                script(fx->guest, RELEASE("5G") AWAIT_STOPPED PUT_BACK("5G"));
                script(fx->qmp, "expect device_del {'id':'opendlpar-dimm-1'}\n");
                script(fx->qmp, rows[i].answer);
                struct job *j = submit(fx, REMOVE(GIB, .device = "opendlpar-dimm-1"));
                RUN_UNTIL_END(fx, j);
                assert_job(fx, j, JOB_FAILED, 0, 1);
                assert_reason(j, 0, "opendlpar-dimm-1", rows[i].code, "");
                assert_trace(fx, j, "QUEUED SURVEYING OFFLINING UNPLUGGING FAILED");
                finish(fx);
                assert_int_equal(fx->n_added, 1);
                fixture_teardown(&again);
        }
}

/* Refused by QEMU rather than by the guest's blocks: the next best is tried all the same. */
static void test_unplug_refused_then_next_best(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->qmp, "expect device_del {'id':'opendlpar-dimm-1'}\nerror GenericError no\n" UNPLUG(0)
                                DEVICES("<1 5G 1G>", "1G") LEAVE(0) "reply\n");
        script(fx->guest, RELEASE("5G") AWAIT_STOPPED RELEASE("4G")
                                  PUT_BACK("5G") "expect await-removed {'targets':[[4G,1G]]}\nreply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_HYPERVISOR_REFUSED, "no");
        finish(fx);
}

/* Its blocks are gone, so the guest is not asked for them again; its memory is not back with the host. */
static void test_backend_stays(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("5G") "expect await-removed\nreply\n");
        script(fx->qmp,
                UNPLUG(1) DEVICES("<0 4G 1G>", "1G")
                        LEAVE(1) "on qom-list reply [{'name':'opendlpar-mem-1','type':'c'}]\n"
                                 "error GenericError in use\n"
                                 "expect object-del {'id':'opendlpar-mem-1'}\non qom-list reply []\nreply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_ACCOUNTS_DIFFER, "has left, but its backend");
        RUN_UNTIL(fx, fx->n_ended == 2); /* the orphan is deleted */
        finish(fx);
}

static void test_put_back_into_a_kernel_zone(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES("<0 4G 1G>", "1G"), BLOCKS(",[4G,1G,'online','kernel',0]"));
        script(fx->guest, RELEASE("4G") AWAIT_STOPPED "expect online {'targets':[[4G,1G]],'zone':'kernel'}\n"
                                                      "reply {'ranges':[[4G,1G,'online','kernel',0]]}\n");
        script(fx->qmp, "expect device_del\nerror GenericError no\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        finish(fx);
}

static void test_unplug_pending(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("5G") AWAIT_STOPPED "expect online\n");
        /* Again after each second, on x86, for the 5 s that an unplug has. */
        script(fx->qmp, UNPLUG(1) UNPLUG(1) UNPLUG(1) "on device_del reply\n");
        struct job *j =
                submit(fx, REMOVE(GIB, .device = "opendlpar-dimm-1", .wait_usec = 1100 * USEC_PER_MSEC));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_UNPLUG_PENDING, "may still leave");

        /* And it does, while the guest is to put it back. */
        script(fx->qmp, DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, "reply {'complete':false,'ranges':[[5G,1G,'absent','unknown',0]],'failures':["
                          "{'start':5G,'length':1G,'code':'block-missing','message':'It is gone'}]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 1); /* late, but done */
        finish(fx);
        assert_int_equal(fx->p->snapshot.n_devices, 1);
}

static void test_putting_back_fails(void **state)
{
        static const struct {
                const char *reply;
                enum error_code code;
        } rows[] = {
                { "failure internal Out of luck\n", ERROR_INTERNAL },
                { "reply {'complete':false,'ranges':[" OFFLINE(
                          "5G") "],'failures':[{'start':5G,'length':1G,"
                                "'code':'block-failed','message':'EIO'}]}\n",
                        ERROR_BLOCK_FAILED },
                { "reply {'complete':false,'ranges':[" OFFLINE("5G") "]}\n", ERROR_BLOCK_FAILED },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                void *again;
                fixture_setup(&again);
                struct fixture *fx = again;

                start_two(fx);
                script(fx->guest, RELEASE("5G") AWAIT_STOPPED BLOCKS(
                                          "," ONLINE("4G") "," OFFLINE("5G")) "expect online\n");
                script(fx->guest, rows[i].reply);
                /* Half done: the restore job has another go. */
                script(fx->guest,
                        "expect online {'targets':[[5G,1G]]}\n" BLOCKS(
                                ",[4G,2G,'online','movable',0]") "reply {'ranges':[" ONLINE("5G") "]}\n");
                script(fx->qmp, "expect device_del\nerror GenericError no\n");
                struct job *j = submit(fx, REMOVE(GIB, .device = "opendlpar-dimm-1"));
                RUN_UNTIL_END(fx, j);
                assert_job(fx, j, JOB_FAILED, 0, 2);
                assert_reason(j, 1, "opendlpar-dimm-1", rows[i].code, "");
                RUN_UNTIL(fx, fx->n_ended == 2);
                assert_job(fx, manager_next_job(fx->manager, j), JOB_DONE, GIB, 0);
                finish(fx);
                fixture_teardown(&again);
        }
}

/* --- all or nothing --- */

static void test_all_or_nothing(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("5G") "expect offline {'targets':[[4G,1G]]}\n");
        struct job *j = submit(fx, REMOVE(2 * GIB, .all_or_nothing = true));
        RUN_UNTIL(fx, fake_finished(fx->guest)); /* and no device_del so far */
        script(fx->qmp, UNPLUG(1) UNPLUG(0) DEVICES("", "0") LEAVE(1) "reply\n" LEAVE(0) "reply\n");
        script(fx->guest, "reply {'ranges':[" OFFLINE("4G") "]}\nexpect await-removed\nreply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 2 * GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING OFFLINING UNPLUGGING VERIFYING DONE");
        finish(fx);
}

static void test_all_or_nothing_one_refuses(void **state)
{
        struct fixture *fx = *state;

        start_two(fx);
        script(fx->guest, RELEASE("5G") REFUSE("4G") REFUSE("4G") PUT_BACK("5G"));
        struct job *j = submit(fx, REMOVE(2 * GIB, .all_or_nothing = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_BLOCK_BUSY, "");
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

/* Each device that the guest cannot be asked for any more has its reason. */
static void test_all_or_nothing_cannot_be_put_back(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest,
                RELEASE("6G") RELEASE("5G") REFUSE("4G") REFUSE("4G") "expect online {'targets':[[6G,1G]]}\n"
                                                                      "failure internal Out of luck\n");
        struct job *j = submit(fx, REMOVE(3 * GIB, .all_or_nothing = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 3);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_BLOCK_BUSY, "");
        assert_reason(j, 1, "opendlpar-dimm-2", ERROR_INTERNAL, "");
        assert_reason(j, 2, "opendlpar-dimm-1", ERROR_AGENT_ABSENT, "stays so until");
        finish(fx);
}

static void test_all_or_nothing_with_a_substitute(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest, REFUSE("6G") RELEASE("5G") RELEASE("4G") "expect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(1) UNPLUG(0) DEVICES("<2 6G 1G>", "1G") LEAVE(1) "reply\n" LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(2 * GIB, .all_or_nothing = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 2 * GIB, 1);
        finish(fx);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_two_devices),
                TEST(test_next_best),
                TEST(test_no_alternative),
                TEST(test_partial),
                TEST(test_guest_refuses_the_request),
                TEST(test_guest_is_busy_for_a_moment),
                TEST(test_guest_lies),
                TEST(test_no_exact_fit),
                TEST(test_no_exact_fit_all_or_nothing),
                TEST(test_refused_at_once),
                TEST(test_device_by_id),
                TEST(test_device_of_another_node),
                TEST(test_dry_run),
                cmocka_unit_test(test_unplug_refused),
                TEST(test_unplug_refused_then_next_best),
                TEST(test_backend_stays),
                TEST(test_put_back_into_a_kernel_zone),
                TEST(test_unplug_pending),
                cmocka_unit_test(test_putting_back_fails),
                TEST(test_all_or_nothing),
                TEST(test_all_or_nothing_one_refuses),
                TEST(test_all_or_nothing_cannot_be_put_back),
                TEST(test_all_or_nothing_with_a_substitute),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
