/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

/* Additions that go as they should, that are refused, and that an operator stops. */

#define OFFLINE(a)    "[" a ",1G,'offline','unknown',0]"
#define ABSENT(a)     "[" a ",1G,'absent','unknown',0]"
#define BUSY(a, code) "'failures':[{'start':" a ",'length':128M,'code':'" code "','message':'It is in use'}]"

static void test_two_devices(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, MAKE(0) MAKE(1) INSERT(0) "reply\n" INSERT(1) DEVICES(BOTH, "2G") "reply\n");
        script(fx->guest, "expect prepare {'zone':'movable','bytes':2G}\nreply\n"
                          "expect online {'targets':[[4G,1G],[5G,1G]],'zone':'movable'}\n"
                          "reply {'ranges':[[4G,2G,'online','movable',0]]}\n"
                          "expect release\nreply\n");
        struct job *j = submit(fx, ADD(2 * GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 2 * GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING PLUGGING ONLINING VERIFYING DONE");
        assert_int_equal(j->movable_bytes, 2 * GIB);
        assert_int_equal(j->kernel_bytes, 0);
        assert_true(job_progress(j) >= 1.0 && job_progress(j) <= 1.0);
        assert_true(j->ended_usec >= j->created_usec);
        assert_int_equal(j->n_plan, 2);
        assert_non_null(strstr(j->plan[0], "opendlpar-dimm-0"));
        finish(fx);
        assert_int_equal(partition_current_bytes(fx->p), 3 * GIB);
        assert_int_equal(fx->n_added, 1);
        assert_int_equal(fx->n_ended, 1);
        assert_true(fx->n_pool_changes > 0);
}

static void test_kernel_zone_on_a_node(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, "expect object-add\nreply\nexpect device_add {'node':1}\n" DEVICES(
                                "<0 4G 1G 1>", "1G") "reply\n");
        script(fx->guest, "expect prepare {'zone':'kernel','bytes':1G}\nreply\n"
                          "expect online {'targets':[[4G,1G]],'zone':'kernel'}\n"
                          "reply {'ranges':[[4G,512M,'online','kernel',1],[4608M,512M,'online','none',1]]}"
                          "\n");
        struct job_request request = *ADD(GIB, .zone = ZONE_POLICY_KERNEL);
        request.node = 1;
        struct job *j = submit(fx, &request);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_int_equal(j->kernel_bytes, GIB);
        assert_int_equal(j->movable_bytes, 0);
        finish(fx);
}

/* Beyond the ratio the smallest kernel part comes first, as a device and a batch of its own. */
static void test_zones_in_batches(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "on get-state reply {" MEMORY("1G", "3G", "512M") "}\n");
        script(fx->qmp, "expect object-add {'size':256M}\nreply\nexpect device_add\n" DEVICES("<0 4G 256M>",
                                "256M") "reply\n"
                                        "expect object-add {'id':'opendlpar-mem-1','size':768M}\nreply\n");
        script(fx->guest, "expect prepare {'zone':'kernel','bytes':256M}\nreply\n"
                          "expect online {'targets':[[4G,256M]],'zone':'kernel'}\n"
                          "reply {'ranges':[[4G,256M,'online','kernel',0]]}\n"
                          "expect prepare {'zone':'movable','bytes':768M}\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        assert_int_equal(j->progress_bytes, 256 * MIB);
        assert_true(fx->progress >= 0.25 && fx->progress <= 0.25);
        script(fx->qmp, "expect device_add\n" DEVICES("<0 4G 256M>,<1 4352M 768M>", "1G") "reply\n");
        script(fx->guest, "reply\nexpect online {'targets':[[4352M,768M]],'zone':'movable'}\n"
                          "reply {'ranges':[[4352M,768M,'online','movable',0]]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING PLUGGING ONLINING PLUGGING ONLINING VERIFYING DONE");
        assert_int_equal(j->kernel_bytes, 256 * MIB);
        assert_int_equal(j->movable_bytes, 768 * MIB);
        finish(fx);
}

/* New memory's page structures come out of the old: with 32 MiB available not more than 1 GiB at once. Names
 * that are taken, by a device or by a backend, are passed over. */
static void test_small_batches_and_names(void **state)
{
        static const char others[] =
                DEVICES("<0 4G 1G>,{'type':'dimm','data':{'id':'d9','memdev':'/objects/opendlpar-mem-1',"
                        "'addr':5G,'size':1G,'slot':1,'node':0,'hotpluggable':true}}",
                        "2G") "on qom-list reply [{'name':'opendlpar-mem-0','type':'c'},"
                              "{'name':'opendlpar-mem-1','type':'c'}]\n";
        struct fixture *fx = *state;

        start(fx, others,
                BLOCKS(",[4G,2G,'online','kernel',0]") "on get-state reply {" MEMORY("3G", "0", "32M") "}\n");
        script(fx->qmp, PLUG(2) DEVICES("<2 6G 1G>", "3G") "reply\n" PLUG(3)
                                DEVICES("<2 6G 1G>,<3 7G 1G>", "4G") "reply\n");
        script(fx->guest,
                "on prepare reply {" MEMORY("3G", "1G",
                        "32M") "}\n"
                               "expect online {'targets':[[6G,1G]]}\n"
                               "reply {'ranges':[" ONLINE("6G") "]}\n"
                                                                "expect online {'targets':[[7G,1G]]}\n"
                                                                "reply {'ranges':[" ONLINE("7G") "]}\n");
        struct job *j = submit(fx, ADD(2 * GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 2 * GIB, 0);
        finish(fx);
}

static void test_dry_run(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        struct job *j = submit(fx, ADD(2 * GIB, .dry_run = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        assert_trace(fx, j, "QUEUED SURVEYING DONE");
        assert_int_equal(j->n_plan, 2);
        finish(fx);
}

/* Right behind a removal the guest's zones are not known yet: the job asks. */
static void test_old_zones(void **state)
{
        struct fixture *fx = *state;
        const struct job_request *request = ADD(GIB, .zone = ZONE_POLICY_MOVABLE, .dry_run = true);

        start(fx, "", "");
        RUN_UNTIL(fx, partition_is_settled(fx->p));
        fx->p->memory.movable_bytes = 3 * GIB;
        assert_int_equal(try_submit(fx, request), ERROR_ZONE_RATIO);
        unsettle(fx);
        struct job *j = submit(fx, request);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
}

static void test_refused_at_once(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        assert_int_equal(try_submit(fx, ADD(0)), ERROR_INVALID_SIZE);
        assert_int_equal(try_submit(fx, ADD(100 * MIB)), ERROR_UNALIGNED_SIZE);
        assert_int_equal(try_submit(fx, ADD(16 * GIB)), ERROR_BEYOND_MAX);
        assert_int_equal(try_submit(fx, ADD(UINT64_MAX)), ERROR_BEYOND_MAX);
        assert_int_equal(try_submit(fx, ADD(4 * GIB, .zone = ZONE_POLICY_MOVABLE)), ERROR_ZONE_RATIO);
        assert_int_equal(try_submit(fx, ADD(GIB, .method = "drc")), ERROR_UNKNOWN_METHOD);
        assert_int_equal(try_submit(fx, ADD(GIB, .wait_usec = USEC_INFINITY)), ERROR_INVALID_ARGUMENT);
        fx->p->definition.profile.max_bytes = 2 * GIB;
        assert_int_equal(try_submit(fx, ADD(1152 * MIB)), ERROR_BEYOND_MAX);
        script(fx->qmp, "on query-status reply {'status':'paused'}\nevent STOP\n");
        RUN_UNTIL(fx, fx->p->snapshot.state == RUN_PAUSED);
        assert_int_equal(try_submit(fx, ADD(GIB)), ERROR_NOT_RUNNING);
        finish(fx);
        assert_int_equal(fx->n_added, 0);
}

static void test_one_device_refused(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp,
                MAKE(0) MAKE(1) INSERT(
                        0) "error GenericError a used vhost backend has no free memory slots left\n" INSERT(1)
                        DEVICES("<1 5G 1G>", "1G") "reply\n" UNMAKE(0));
        script(fx->guest, "expect prepare {'bytes':2G}\nreply\nexpect online {'targets':[[5G,1G]]}\n"
                          "reply {'ranges':[" ONLINE("5G") "]}\nexpect release\nreply\n");
        struct job *j = submit(fx, ADD(2 * GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, GIB, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_HYPERVISOR_REFUSED, "no free memory slots");
        assert_true(job_progress(j) >= 0.5 && job_progress(j) <= 0.5);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

static void test_all_devices_refused(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, MAKE(0) MAKE(1) INSERT(0) "error GenericError no\n" INSERT(
                                1) "error GenericError no\n" UNMAKE(0) UNMAKE(1));
        script(fx->guest, "expect prepare\nreply\nexpect release\nreply\n");
        struct job *j = submit(fx, ADD(2 * GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_HYPERVISOR_REFUSED, "no");
        assert_reason(j, 1, "opendlpar-dimm-1", ERROR_HYPERVISOR_REFUSED, "no");
        assert_trace(fx, j, "QUEUED SURVEYING PLUGGING VERIFYING FAILED");
        finish(fx);
}

static void test_prepare_refused(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, MAKE(0) UNMAKE(0));
        script(fx->guest, "expect prepare\nfailure zone-ratio Only 512 MiB may become Movable\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_ZONE_RATIO, "Only 512 MiB");
        finish(fx);
}

/* --- what does not come online leaves again --- */

static void plug_one(struct fixture *fx, const char *online_reply)
{
        start(fx, "", "");
        script(fx->qmp, PLUG(0) DEVICES("<0 4G 1G>", "1G") "reply\n");
        script(fx->guest, "expect prepare\nreply\nexpect online\n");
        script(fx->guest, online_reply);
}

static void test_never_online(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx,
                "reply {'complete':false,'ranges':[" ABSENT("4G") "]," BUSY("4G",
                        "block-missing") "}\n"
                                         "expect offline {'targets':[[4G,1G]]}\nreply {'ranges':[" ABSENT(
                                                 "4G") "]}\n"
                                                       "expect release\nreply\n");
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_BLOCK_MISSING, "It is in use");
        assert_string_equal(j->reasons[0].block, "0x100000000");
        assert_trace(fx, j, "QUEUED SURVEYING PLUGGING ONLINING WITHDRAWING VERIFYING FAILED");
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

#define HALF "[4G,512M,'online','movable',0],[4608M,512M,'offline','unknown',0]"

static void test_partly_online(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx,
                "reply {'complete':false,'ranges':[" HALF "]," BUSY("4608M",
                        "block-failed") "}\n"
                                        "expect offline {'targets':[[4G,1G]]}\nreply {'ranges':[" OFFLINE(
                                                "4G") "]}\n");
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_BLOCK_FAILED, "It is in use");
        finish(fx);
}

/* A guest that gives no reason for what it did not do must not leave the operator without one. */
static void test_partly_online_without_a_reason(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx, "reply {'complete':false,'ranges':[" HALF "]}\n"
                     "expect offline\nreply {'ranges':[" OFFLINE("4G") "]}\n");
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_BLOCK_FAILED, "512 MiB of 1 GiB");
        finish(fx);
}

/* It came online after all, and will not leave: then it has been added. */
static void test_withdrawing_what_is_in_use(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx, "reply {'complete':false,'ranges':[" HALF "]," BUSY("4608M",
                             "block-failed") "}\n"
                                             "expect offline\nreply {'complete':false,'ranges':[" ONLINE(
                                                     "4G") "]," BUSY("4G", "block-busy") "}\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 2);
        assert_int_equal(j->movable_bytes, GIB);
        finish(fx);
}

/* Neither in nor out: it is reported, and the restore job that follows brings it online. */
static void test_withdrawing_fails(void **state)
{
        static const struct {
                const char *reply;
                enum error_code code;
                bool unplug;
        } rows[] = {
                { "reply {'complete':false,'ranges':[" HALF "]," BUSY("4G", "block-busy") "}\n",
                        ERROR_BLOCK_FAILED, false },
                { "failure internal Out of luck\n", ERROR_INTERNAL, false },
                { "reply {'ranges':[" OFFLINE("4G") "]}\n", ERROR_UNPLUG_REFUSED, true },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct fixture *fx;
                void *again;

                fixture_setup(&again);
                fx = again;
                plug_one(fx, "reply {'complete':false,'ranges':[" HALF
                             "]," BUSY("4608M", "block-failed") "}"
                                                                "\nexpect offline\n");
                script(fx->guest, rows[i].reply);
                script(fx->guest, BLOCKS("," HALF) "expect online {'targets':[[4608M,512M]]}\n" BLOCKS(
                                          "," ONLINE("4G")) "reply {'ranges':[" ONLINE("4G") "]}\n");
                if (rows[i].unplug) {
                        script(fx->qmp, UNPLUG(0) "event ACPI_DEVICE_OST {'info':{'device':'opendlpar-dimm-0'"
                                                  ",'source':3,'status':130,'slot':'0'}}\n");
                        script(fx->guest, "");
                }
                struct job *j = submit(fx, ADD(GIB));
                RUN_UNTIL_END(fx, j);
                assert_job(fx, j, JOB_FAILED, 0, 2);
                assert_reason(j, 0, "opendlpar-dimm-0", ERROR_BLOCK_FAILED, "It is in use");
                assert_reason(j, 1, "opendlpar-dimm-0", rows[i].code, "stays plugged");
                RUN_UNTIL(fx, fx->n_ended == 2);
                finish(fx);
                struct job *restore = manager_next_job(fx->manager, j);
                assert_job(fx, restore, JOB_DONE, 512 * MIB, 0);
                assert_int_equal(fx->n_added, 2);
                fixture_teardown(&again);
        }
}

static void test_zone_mismatch(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx, "reply {'complete':false,'ranges':[[4G,1G,'online','kernel',0]]," BUSY(
                             "4G", "zone-mismatch") "}\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_ZONE_MISMATCH, "");
        assert_int_equal(j->kernel_bytes, GIB);
        finish(fx);
}

/* A device that QEMU took and does not list (an x86 guest may eject it at once) has no address, and the guest
 * must not be asked about one. */
static void test_device_vanishes(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, MAKE(0) MAKE(1) INSERT(0) "reply\n" INSERT(1) DEVICES("<1 5G 1G>", "1G") "reply\n");
        script(fx->guest, "expect prepare\nreply\nexpect online {'targets':[[5G,1G]]}\n"
                          "reply {'ranges':[" ONLINE("5G") "]}\nexpect release\nreply\n");
        struct job *j = submit(fx, ADD(2 * GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, GIB, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_ACCOUNTS_DIFFER, "does not list it");
        finish(fx);
}

static void test_device_vanishes_before_the_end(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx, "");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        script(fx->qmp, DEVICES("<1 9G 1G>", "1G") LEAVE(0) "reply\n");
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, "reply {'ranges':[" ONLINE("4G") "]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_ACCOUNTS_DIFFER, "not in its list");
        finish(fx);
}

/* --- all or nothing --- */

static void test_all_or_nothing_refused(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp,
                MAKE(0) MAKE(1) INSERT(0) "reply\n" INSERT(1) "error GenericError no\n" DEVICES(
                        "<0 4G 1G>", "1G") "expect object-del {'id':'opendlpar-mem-1'}\nreply\n" UNPLUG(0)
                        DEVICES("", "0") LEAVE(0) "reply\n");
        script(fx->guest,
                "expect prepare\nreply\nexpect online {'targets':[[4G,1G]]}\n"
                "reply {'ranges':[" ONLINE(
                        "4G") "]}\n"
                              "expect offline {'targets':[[4G,1G]]}\nreply {'ranges':[" OFFLINE("4G") "]}\n");
        struct job *j = submit(fx, ADD(2 * GIB, .all_or_nothing = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_HYPERVISOR_REFUSED, "no");
        finish(fx);
}

static void test_all_or_nothing_not_online(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, MAKE(0) MAKE(1) INSERT(0) "reply\n" INSERT(1) DEVICES(BOTH, "2G") "reply\n" UNPLUG(1)
                                LEAVE(1) "reply\n" UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        script(fx->guest,
                "expect prepare\nreply\nexpect online\n"
                "reply {'complete':false,'ranges':[" ONLINE("4G") "," OFFLINE("5G") "]," BUSY("5G",
                        "block-failed") "}\n"
                                        "expect offline {'targets':[[5G,1G]]}\nreply {'ranges':[" OFFLINE(
                                                "5G") "]}\n"
                                                      "expect offline {'targets':[[4G,1G]]}\nreply "
                                                      "{'ranges':[" OFFLINE("4G") "]}\n"
                                                                                  "expect release\nreply\n");
        struct job *j = submit(fx, ADD(2 * GIB, .all_or_nothing = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        finish(fx);
}

/* A guest that fails the request as such is not asked for each device in turn. */
static void test_withdrawing_two_fails(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, MAKE(0) MAKE(1) INSERT(0) "reply\n" INSERT(1) DEVICES(BOTH, "2G") "reply\n");
        script(fx->guest, "expect prepare\nreply\nexpect online\n"
                          "reply {'complete':false,'ranges':[" OFFLINE("4G") "," OFFLINE(
                                  "5G") "]}\n"
                                        "expect offline {'targets':[[5G,1G]]}\nfailure internal Out of luck\n"
                                        "expect release\nreply\n");
        struct job *j = submit(fx, ADD(2 * GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 4);
        assert_reason(j, 2, "opendlpar-dimm-1", ERROR_INTERNAL, "stays plugged");
        assert_reason(j, 3, "opendlpar-dimm-0", ERROR_DEADLINE, "stays plugged");
        finish(fx);
}

/* --- cancel, in each state --- */

static void test_cancel_surveying(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        unsettle(fx);
        struct job *j = submit(fx, ADD(GIB));
        assert_int_equal(j->state, JOB_SURVEYING);
        job_stop(j, JOB_STOP_CANCEL);
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 1);
        assert_reason(j, 0, "", ERROR_CANCELLED, "cancelled");
        job_stop(j, JOB_STOP_CANCEL);
        finish(fx);
        assert_job(fx, j, JOB_CANCELLED, 0, 1);

        unsettle(fx);
        j = submit(fx, ADD(GIB, .dry_run = true));
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 1);
}

static void test_cancel_preparing(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, MAKE(0) UNMAKE(0));
        script(fx->guest, "expect prepare\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        job_stop(j, JOB_STOP_CANCEL);
        script(fx->guest, "reply\nexpect release\nreply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 1);
        assert_trace(fx, j, "QUEUED SURVEYING PLUGGING VERIFYING CANCELLED");
        finish(fx);
}

/* What QEMU has taken already is still brought online. */
static void test_cancel_plugging(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "on get-state reply {" MEMORY("1G", "0", "32M") "}\n");
        script(fx->qmp, PLUG(0));
        script(fx->guest, "expect prepare\nreply {" MEMORY("1G", "0", "32M") "}\n");
        struct job *j = submit(fx, ADD(2 * GIB));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        job_stop(j, JOB_STOP_CANCEL);
        script(fx->qmp, DEVICES("<0 4G 1G>", "1G") "reply\n");
        script(fx->guest, "expect online\nreply {'ranges':[" ONLINE("4G") "]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, GIB, 1);
        assert_reason(j, 0, "", ERROR_CANCELLED, "");
        finish(fx);
}

static void test_cancel_onlining(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx, "");
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        script(fx->guest, "reply {'complete':false,'ranges':[" OFFLINE("4G") "]," BUSY("4G",
                                  "cancelled") "}\n"
                                               "expect offline\nreply {'ranges':[" OFFLINE("4G") "]}\n");
        job_stop(j, JOB_STOP_CANCEL);
        job_stop(j, JOB_STOP_DEADLINE); /* asked once */
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_CANCELLED, "");
        assert_reason(j, 1, "", ERROR_CANCELLED, "");
        finish(fx);
}

/* From here on a job ends by itself, and soon. */
static void test_cancel_withdrawing_and_verifying(void **state)
{
        struct fixture *fx = *state;

        plug_one(fx, "reply {'complete':false,'ranges':[" OFFLINE("4G") "]," BUSY(
                             "4G", "block-failed") "}\n"
                                                   "expect offline\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, j->state == JOB_WITHDRAWING);
        job_stop(j, JOB_STOP_CANCEL);
        script(fx->guest, "reply {'ranges':[" OFFLINE("4G") "]}\n");
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\nexpect query-status\n");
        RUN_UNTIL(fx, j->state == JOB_VERIFYING);
        job_stop(j, JOB_STOP_CANCEL);
        script(fx->qmp, "reply {'status':'running'}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 2);
        finish(fx);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_two_devices),
                TEST(test_kernel_zone_on_a_node),
                TEST(test_zones_in_batches),
                TEST(test_small_batches_and_names),
                TEST(test_dry_run),
                TEST(test_old_zones),
                TEST(test_refused_at_once),
                TEST(test_one_device_refused),
                TEST(test_all_devices_refused),
                TEST(test_prepare_refused),
                TEST(test_never_online),
                TEST(test_partly_online),
                TEST(test_partly_online_without_a_reason),
                TEST(test_withdrawing_what_is_in_use),
                cmocka_unit_test(test_withdrawing_fails),
                TEST(test_zone_mismatch),
                TEST(test_device_vanishes),
                TEST(test_device_vanishes_before_the_end),
                TEST(test_all_or_nothing_refused),
                TEST(test_all_or_nothing_not_online),
                TEST(test_withdrawing_two_fails),
                TEST(test_cancel_surveying),
                TEST(test_cancel_preparing),
                TEST(test_cancel_plugging),
                TEST(test_cancel_onlining),
                TEST(test_cancel_withdrawing_and_verifying),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
