/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

/* What hvd makes whole of its own accord. */

#define OFFLINE(a)   "[" a ",1G,'offline','unknown',0]"
#define BOTH_ONLINE  BLOCKS(",[4G,2G,'online','movable',0]")
#define BOTH_OFFLINE BLOCKS(",[4G,2G,'offline','unknown',0]")

static struct job *first_job(struct fixture *fx)
{
        return manager_next_job(fx->manager, NULL);
}

/* hvd starts, and meets this. */
static struct job *meet(struct fixture *fx, const char *qemu_orders, const char *guest_orders)
{
        start_fakes(fx, qemu_orders, guest_orders);
        start_manager(fx);
        RUN_UNTIL(fx, first_job(fx));
        assert_int_equal(first_job(fx)->request.kind, JOB_RESTORE_MEMORY);
        return first_job(fx);
}

static void test_all_is_well(void **state)
{
        struct fixture *fx = *state;

        start(fx,
                DEVICES(BOTH, "2G") "on qom-list reply [{'name':'opendlpar-mem-0','type':'c'},"
                                    "{'name':'opendlpar-mem-1','type':'c'},{'name':'m9','type':'c'}]\n",
                BOTH_ONLINE);
        partition_settle(fx->p, true);
        finish(fx);
        assert_int_equal(fx->n_added, 0);
}

static void test_offline_blocks(void **state)
{
        struct fixture *fx = *state;
        struct job *j = meet(fx, DEVICES(BOTH, "2G"), BOTH_OFFLINE);

        assert_int_equal(j->request.bytes, 2 * GIB);
        script(fx->guest, "expect online {'targets':[[4G,1G],[5G,1G]],'zone':'movable'}\n" BOTH_ONLINE
                          "reply {'ranges':[[4G,2G,'online','movable',0]]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 2 * GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING ONLINING DONE");
        assert_int_equal(j->movable_bytes, 2 * GIB);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

/* Movable as far as the ratio allows; each device goes to one zone as a whole. */
static void test_zone_ratio(void **state)
{
        struct fixture *fx = *state;
        struct job *j = meet(fx, DEVICES(BOTH, "2G"),
                BOTH_OFFLINE "on get-state reply {" MEMORY("1G", "1536M", "512M") "}\n");

        script(fx->guest, "expect online {'targets':[[4G,1G]],'zone':'movable'}\n"
                          "reply {'ranges':[" ONLINE(
                                  "4G") "]}\n"
                                        "expect get-state\nreply {" MEMORY("1G", "2560M",
                                                "512M") "}\n"
                                                        "expect online "
                                                        "{'targets':[[5G,1G]],'zone':'kernel'}\n" BOTH_ONLINE
                                                        "reply {'ranges':[[5G,1G,'online','kernel',0]]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 2 * GIB, 0);
        assert_int_equal(j->movable_bytes, GIB);
        assert_int_equal(j->kernel_bytes, GIB);
        finish(fx);
}

#define VIRTIO_MEM(size, requested)                                                                          \
        "{'type':'virtio-mem','data':{'id':'vm0','memdev':'/objects/x','memaddr':8G,'size':" size            \
        ",'max-size':4G,'requested-size':" requested ",'block-size':2M,'node':0}}"

/* What is in no device is the guest's own. */
static void test_not_ours_to_restore(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES(VIRTIO_MEM("1G", "1G"), "1G"),
                BLOCKS(",[8G,1G,'online','movable',0],[16G,1G,'offline','unknown',0]"));
        partition_settle(fx->p, true);
        finish(fx);
        assert_int_equal(fx->n_added, 0);
}

/* After a reboot the driver of virtio-mem stops when much of it is offline, and goes on as that comes online;
 * what comes then comes online by itself. */
static void test_virtio_mem(void **state)
{
        struct fixture *fx = *state;
        struct job *j =
                meet(fx, DEVICES(VIRTIO_MEM("1G", "2G"), "1G"), BLOCKS(",[8G,1G,'offline','unknown',0]"));

        assert_int_equal(j->request.bytes, 2 * GIB);
        script(fx->guest, "expect prepare {'zone':'movable','bytes':2G}\nreply\n"
                          "expect online {'targets':[[8G,1G]],'zone':'movable'}\n"
                          "reply {'ranges':[[8G,1G,'online','movable',0]]}\n");
        RUN_UNTIL(fx, fake_finished(fx->guest));
        script(fx->qmp, DEVICES(VIRTIO_MEM("2G", "2G"), "2G"));
        script(fx->guest, BLOCKS(",[8G,2G,'online','movable',0]"));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 2 * GIB, 0);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

/* Its kernel part goes first, and without the kernel's own rule being changed. */
static void test_virtio_mem_zones(void **state)
{
        struct fixture *fx = *state;
        struct job *j = meet(fx, DEVICES(VIRTIO_MEM("1G", "1G"), "1G"),
                BLOCKS(",[8G,1G,'offline','unknown',0]") "on get-state reply {" MEMORY(
                        "1G", "2560M", "512M") "}\n");

        script(fx->guest, "expect online {'targets':[[8G,128M]],'zone':'kernel'}\n");
        script(fx->guest, BLOCKS(",[8G,128M,'online','kernel',0],[8320M,896M,'offline','unknown',0]"));
        script(fx->guest, "on get-state reply {" MEMORY("1152M", "2560M", "512M") "}\n");
        script(fx->guest, "reply {'ranges':[[8G,128M,'online','kernel',0]]}\n"
                          "expect online {'targets':[[8320M,896M]],'zone':'movable'}\n");
        script(fx->guest, BLOCKS(",[8G,128M,'online','kernel',0],[8320M,896M,'online','movable',0]"));
        script(fx->guest, "reply {'ranges':[[8320M,896M,'online','movable',0]]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        finish(fx);
}

/* The driver does not go on: said, once, and left. */
static void test_virtio_mem_stalls(void **state)
{
        struct fixture *fx = *state;
        struct job *j =
                meet(fx, DEVICES(VIRTIO_MEM("1G", "2G"), "1G"), BLOCKS(",[8G,1G,'online','movable',0]"));

        script(fx->guest, "expect prepare\nreply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_BLOCK_FAILED, "1 GiB more than the guest has plugged");
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

#define BALLOON(actual)                                                                                      \
        "on query-balloon reply {'actual':" actual "}\n"                                                     \
        "on qom-list {'path':'/machine/peripheral'} reply []\n"                                              \
        "on qom-list {'path':'/machine/peripheral-anon'} reply []\n"

/* At the reset the balloon is told to leave the memory at boot alone; when the rest is back it takes what it
 * had, by what its driver says and not by what QEMU remembers of the boot before. */
static void test_balloon(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES(BOTH, "2G") BALLOON("2G"), BOTH_ONLINE);
        script(fx->qmp, "event RESET {'guest':true,'reason':'guest-reset'}\n"
                        "expect balloon {'value':2816M}\nreply\n");
        RUN_UNTIL(fx, agent_state(fx->p->agent) == AGENT_WAITING);
        assert_int_equal(fx->p->balloon_owed_bytes, GIB);
        script(fx->guest, BOTH_OFFLINE HELLO_OF_ANOTHER_BOOT
                "expect online\n" BOTH_ONLINE "on get-state reply {" MEMORY(
                        "1G", "2G", "2G") "}\nreply {'ranges':[[4G,2G,'online','movable',0]]}\n");
        RUN_UNTIL(fx, fake_finished(fx->guest) && fx->p->active);
        script(fx->qmp, BALLOON("2816M") "event BALLOON_CHANGE {'actual':2816M}\n"
                                         "expect balloon {'value':2G}\n" BALLOON("2G") "reply\n");
        RUN_UNTIL(fx, fx->n_ended == 1);
        assert_job(fx, first_job(fx), JOB_DONE, 2 * GIB, 0);
        assert_int_equal(fx->p->balloon_owed_bytes, 0);
        finish(fx);
        assert_int_equal(fx->p->snapshot.balloon_bytes, GIB);
        assert_int_equal(fx->n_added, 1);
}

/* What the memory at boot can bear is left as it is. */
static void test_small_balloon(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES(BOTH, "2G") BALLOON("2816M"), BOTH_ONLINE);
        script(fx->qmp, "event RESET {'guest':true,'reason':'guest-reset'}\n");
        RUN_UNTIL(fx, agent_state(fx->p->agent) == AGENT_WAITING);
        assert_int_equal(fx->p->balloon_owed_bytes, 0);
        script(fx->guest, HELLO_OF_ANOTHER_BOOT);
        finish(fx);
        assert_int_equal(fx->n_added, 0);
}

static void test_after_a_reboot(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES(BOTH, "2G"), BOTH_ONLINE);
        script(fx->qmp, "event RESET {'guest':true,'reason':'guest-reset'}\n");
        RUN_UNTIL(fx, agent_state(fx->p->agent) == AGENT_WAITING);
        script(fx->guest, BOTH_OFFLINE HELLO_OF_ANOTHER_BOOT
                "expect online\n" BOTH_ONLINE "reply {'ranges':[[4G,2G,'online','movable',0]]}\n");
        RUN_UNTIL(fx, fx->n_ended == 1);
        assert_job(fx, first_job(fx), JOB_DONE, 2 * GIB, 0);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

/* --- backends without a device --- */

#define OBJECTS                                                                                              \
        "on qom-list reply [{'name':'opendlpar-mem-0','type':'c'},{'name':'opendlpar-mem-7','type':'c'}]\n"

static void test_orphan_without_a_guest(void **state)
{
        struct fixture *fx = *state;

        start_fakes(fx, DEVICES("<0 4G 1G>", "1G") OBJECTS, "");
        fx->guest = fake_free(fx->guest); /* nobody listens */
        start_manager(fx);
        script(fx->qmp, "expect object-del {'id':'opendlpar-mem-7'}\n"
                        "on qom-list reply [{'name':'opendlpar-mem-0','type':'c'}]\nreply\n");
        RUN_UNTIL(fx, fx->n_ended == 1);
        assert_job(fx, first_job(fx), JOB_DONE, 0, 0);
        assert_int_equal(first_job(fx)->n_plan, 1);
        RUN_UNTIL(fx, fake_finished(fx->qmp) && !fx->p->settling);
        assert_int_equal(fx->n_added, 1);
}

/* It will not go: once for each time that hvd meets this QEMU, not in a loop. */
static void test_orphan_stays(void **state)
{
        struct fixture *fx = *state;
        struct job *j = meet(fx, DEVICES("<0 4G 1G>", "1G") OBJECTS, BLOCKS("," ONLINE("4G")));

        script(fx->qmp, "expect object-del\nerror GenericError object is in use\n");
        RUN_UNTIL_END(fx, j);
        finish(fx);
        partition_settle(fx->p, false);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

/* --- when it fails --- */

#define REFUSE                                                                                               \
        "reply {'complete':false,'ranges':[[4G,2G,'offline','unknown',0]],'failures':[{'start':5G,"          \
        "'length':1G,'code':'block-failed','message':'EIO'}]}\n"

static void test_failure_is_not_repeated(void **state)
{
        struct fixture *fx = *state;
        struct job *j = meet(fx, DEVICES(BOTH, "2G"), BOTH_OFFLINE);
        struct fake *guest = fx->guest;

        script(guest, "expect online\n" REFUSE);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_BLOCK_FAILED, "EIO");
        finish(fx);

        /* The guest's blocks changed: looked at, and left. */
        uint64_t n = fake_n_received(guest);
        script(guest, "event blocks-changed\n");
        RUN_UNTIL(fx, fake_n_received(guest) >= n + 2);
        finish(fx);
        assert_int_equal(fx->n_added, 1);

        /* A new session is another chance. */
        script(guest, "hello\nexpect welcome\nexpect online\n" BOTH_ONLINE
                      "reply {'ranges':[[4G,2G,'online','movable',0]]}\n");
        RUN_UNTIL(fx, fx->n_ended == 2);
        /* Of these, which a guest can cause at will, only the last one is kept. */
        assert_int_equal(fx->n_forgotten, 1);
        assert_job(fx, first_job(fx), JOB_DONE, 2 * GIB, 0);
        finish(fx);
        assert_int_equal(fx->n_added, 2);
}

static void test_partial(void **state)
{
        struct fixture *fx = *state;
        struct job *j = meet(fx, DEVICES(BOTH, "2G"), BOTH_OFFLINE);

        script(fx->guest, "expect online\nreply {'complete':false,'ranges':[" ONLINE("4G") "," OFFLINE(
                                  "5G") "],'failures':[{'start':5G,'length':1G,'code':'block-failed',"
                                        "'message':'EIO'}]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, GIB, 1);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

static void test_guest_fails(void **state)
{
        struct fixture *fx = *state;
        struct job *j = meet(fx, DEVICES(BOTH, "2G"), BOTH_OFFLINE);

        script(fx->guest, "expect online\nfailure internal Out of luck\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_INTERNAL, "Out of luck");
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

/* The guest restarts in the middle: what is offline then is restored anew. */
static void test_guest_reboots(void **state)
{
        struct fixture *fx = *state;
        struct job *j = meet(fx, DEVICES(BOTH, "2G"), BOTH_OFFLINE);

        script(fx->guest, "expect online\n" HELLO_OF_ANOTHER_BOOT "expect online\n" BOTH_ONLINE
                          "reply {'ranges':[[4G,2G,'online','movable',0]]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_GUEST_RESET, "");
        RUN_UNTIL(fx, fx->n_ended == 2);
        assert_job(fx, first_job(fx), JOB_DONE, 2 * GIB, 0);
        finish(fx);
        assert_int_equal(fx->n_added, 2);
}

static void test_cancel(void **state)
{
        struct fixture *fx = *state;
        struct job *j = meet(fx, DEVICES(BOTH, "2G"), BOTH_OFFLINE);

        script(fx->guest, "expect online\n");
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        script(fx->guest, REFUSE);
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 2);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

static void test_cancel_between_batches(void **state)
{
        struct fixture *fx = *state;
        struct job *j = meet(fx, DEVICES(BOTH, "2G"),
                BOTH_OFFLINE "on get-state reply {" MEMORY("1G", "1536M", "512M") "}\n");

        script(fx->guest, "expect online {'targets':[[4G,1G]]}\n");
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        script(fx->guest, "reply {'ranges':[" ONLINE("4G") "]}\n");
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, GIB, 1);
        assert_reason(j, 0, "", ERROR_CANCELLED, "");
        finish(fx);
}

static void test_cancel_surveying(void **state)
{
        struct fixture *fx = *state;
        struct job *j = meet(fx, DEVICES(BOTH, "2G"), BOTH_OFFLINE);

        assert_int_equal(j->state, JOB_SURVEYING);
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 1);
        finish(fx);
}

static void test_qemu_dies(void **state)
{
        struct fixture *fx = *state;
        struct job *j = meet(fx, DEVICES(BOTH, "2G"), BOTH_OFFLINE);

        script(fx->guest, "expect online\n");
        RUN_UNTIL(fx, fake_finished(fx->guest));
        script(fx->guest, "close\n");
        script(fx->qmp, "close\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

static void test_undefine(void **state)
{
        struct fixture *fx = *state;
        struct job *j = meet(fx, DEVICES(BOTH, "2G"), BOTH_OFFLINE);
        struct error error;

        script(fx->guest, "expect online\n");
        RUN_UNTIL(fx, fake_finished(fx->guest));
        assert_int_equal(manager_undefine(fx->manager, "web1", &error), 0);
        assert_int_equal(j->state, JOB_FAILED);
        FAKE_RUN_UNTIL(fx->event, false, 10 * USEC_PER_MSEC);
        assert_int_equal(fx->n_added, 1);
}

/* --- together with other jobs --- */

/* A job leaves something half done while another one waits already: that one runs first, and what the first
 * left is not forgotten. */
static void test_restore_after_the_queue(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES("<1 5G 1G>", "1G"), BLOCKS("," ONLINE("5G")));
        script(fx->qmp, PLUG(0) DEVICES(BOTH, "2G") "reply\n" MAKE(2));
        script(fx->guest, "expect prepare\nreply\nexpect online\n");
        struct job *j = submit(fx, ADD(GIB)), *next = submit(fx, ADD(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        script(fx->guest, BLOCKS("," OFFLINE("4G") "," ONLINE("5G")) "failure internal Out of luck\n"
                                                                     "expect prepare\n");
        RUN_UNTIL_END(fx, j);
        RUN_UNTIL(fx, fake_finished(fx->guest) && !fx->p->settling);
        assert_ptr_equal(fx->p->active, next);
        assert_int_equal(fx->n_added, 2);

        script(fx->qmp, INSERT(2) DEVICES(BOTH ",<2 6G 1G>", "3G") "reply\n");
        script(fx->guest, "reply\nexpect online {'targets':[[6G,1G]]}\n"
                          "reply {'ranges':[" ONLINE("6G") "]}\n"
                                                           "expect online {'targets':[[4G,1G]]}\n" BOTH_ONLINE
                                                           "reply {'ranges':[" ONLINE("4G") "]}\n");
        RUN_UNTIL(fx, fx->n_ended == 3);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_job(fx, next, JOB_DONE, GIB, 0);
        finish(fx);
        assert_job(fx, manager_next_job(fx->manager, next), JOB_DONE, GIB, 0);
        assert_int_equal(fx->n_added, 3);
}

/* A job on the way is no reason to touch what it has half done. */
static void test_no_restore_in_the_middle(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES(BOTH, "2G"), BOTH_ONLINE);
        script(fx->guest, "expect offline {'targets':[[5G,1G]]}\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        script(fx->guest, BLOCKS("," ONLINE("4G") "," OFFLINE("5G")) "hello\nexpect welcome\n"
                                                                     "expect offline\n");
        RUN_UNTIL(fx, fake_finished(fx->guest));
        RUN_UNTIL(fx, fx->p->has_blocks && !fx->p->settling);
        assert_int_equal(fx->n_added, 1);
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        script(fx->guest, "reply {'ranges':[" OFFLINE("5G") "]}\nexpect await-removed\n" BLOCKS(
                                  "," ONLINE("4G")) "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_all_is_well),
                TEST(test_offline_blocks),
                TEST(test_zone_ratio),
                TEST(test_not_ours_to_restore),
                TEST(test_virtio_mem),
                TEST(test_virtio_mem_zones),
                TEST(test_virtio_mem_stalls),
                TEST(test_balloon),
                TEST(test_small_balloon),
                TEST(test_after_a_reboot),
                TEST(test_orphan_without_a_guest),
                TEST(test_orphan_stays),
                TEST(test_failure_is_not_repeated),
                TEST(test_partial),
                TEST(test_guest_fails),
                TEST(test_guest_reboots),
                TEST(test_cancel),
                TEST(test_cancel_between_batches),
                TEST(test_cancel_surveying),
                TEST(test_qemu_dies),
                TEST(test_undefine),
                TEST(test_restore_after_the_queue),
                TEST(test_no_restore_in_the_middle),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
