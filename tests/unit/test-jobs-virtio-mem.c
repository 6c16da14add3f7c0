/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

#include "hvd/memory/mechanism.h"

/* Memory in virtio-mem devices. */

#define DEVICE(id, address, size, requested, node)                                                           \
        "{'type':'virtio-mem','data':{'id':'" id "','memdev':'/objects/mem-" id "','memaddr':" address       \
        ",'size':" size ",'requested-size':" requested ",'max-size':4G,'block-size':2M,'node':" node "}}"
#define VM(size, requested)    DEVICE("vm0", "4G", size, requested, "0")
#define PLUGGED(bytes)         "on query-memory-size-summary reply {'base-memory':1G,'plugged-memory':" bytes "}\n"
#define LIST(devices, plugged) "on query-memory-devices reply [" devices "]\n" PLUGGED(plugged)
#define RESIZE(id, bytes)                                                                                    \
        "expect qom-set {'path':'/machine/peripheral/" id "','property':'requested-size','value':" bytes "}" \
        "\n"

#define STATE_OF(total, kernel, movable, available)                                                          \
        "on get-state reply {'memory':{'total_bytes':" total ",'free_bytes':" available                      \
        ",'available_bytes':" available ",'swap_total_bytes':0,'swap_free_bytes':0,'kernel_bytes':" kernel   \
        ",'movable_bytes':" movable ",'online_blocks':8,'offline_blocks':0,'margin_bytes':128M}}\n"
#define STATE(total, movable, available) STATE_OF(total, "1G", movable, available)

#define BY_VM .method = "virtio-mem"

static void test_add(void **state)
{
        struct fixture *fx = *state;

        start(fx, LIST(VM("0", "0"), "0"), "");
        struct job *j = submit(fx, ADD(2 * GIB, BY_VM));
        script(fx->guest, "expect prepare {'zone':'movable','bytes':2G}\nreply\n");
        script(fx->qmp, RESIZE("vm0", "2G"));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        /* On its way; QEMU tells of it. */
        script(fx->qmp,
                LIST(VM("128M", "2G"),
                        "128M") "reply\n"
                                "event MEMORY_DEVICE_SIZE_CHANGE {'id':'vm0','size':128M,'qom-path':'x'}\n");
        RUN_UNTIL(fx, j->progress_bytes == 128 * MIB);
        assert_int_equal(j->state, JOB_ONLINING);
        /* It is plugged before the guest has the last block online. */
        script(fx->guest, STATE("3G", "1G", "2G") BLOCKS(",[4G,1G,'online','movable',0]"));
        script(fx->qmp, LIST(VM("2G", "2G"), "2G"));
        RUN_UNTIL(fx, j->state == JOB_VERIFYING);
        script(fx->guest, STATE("3G", "2G", "2G") BLOCKS(",[4G,2G,'online','movable',0]"));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 2 * GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING PLUGGING ONLINING VERIFYING DONE");
        assert_int_equal(j->movable_bytes, 2 * GIB);
        assert_int_equal(j->current_bytes, 3 * GIB);
        finish(fx);
}

/* QEMU tells of the way's end when the job has long looked: nothing is asked for that. Another size is news.
 */
static void test_late_event(void **state)
{
        struct fixture *fx = *state;

        start(fx, LIST(VM("0", "0"), "0"), "");
        struct job *j = submit(fx, ADD(GIB, BY_VM));
        script(fx->guest,
                "expect prepare\nreply\n" STATE("2G", "1G", "2G") BLOCKS(",[4G,1G,'online','movable',0]"));
        script(fx->qmp, RESIZE("vm0", "1G") LIST(VM("1G", "1G"), "1G") "reply\n");
        RUN_UNTIL_END(fx, j);
        RUN_UNTIL(fx, partition_is_settled(fx->p));
        script(fx->qmp, "event MEMORY_DEVICE_SIZE_CHANGE {'id':'vm0','size':1G,'qom-path':'x'}\n");
        assert_false(FAKE_RUN_UNTIL(fx->event, !partition_is_settled(fx->p), 100 * USEC_PER_MSEC));
        assert_true(fake_finished(fx->qmp));
        script(fx->qmp,
                LIST(VM("512M", "1G"),
                        "512M") "event MEMORY_DEVICE_SIZE_CHANGE {'id':'vm0','size':512M,'qom-path':'x'}\n");
        RUN_UNTIL(fx, !partition_is_settled(fx->p));
        assert_int_equal(partition_current_bytes(fx->p), GIB + 512 * MIB);
        finish(fx);
}

/* The kernel's part goes first, in whole blocks, and the rest is Movable. */
static void test_zones(void **state)
{
        struct fixture *fx = *state;

        start(fx, LIST(VM("0", "0"), "0"), STATE("1G", "0", "512M"));
        struct job *j = submit(fx, ADD(4 * GIB, BY_VM));
        script(fx->guest, "expect prepare {'zone':'kernel','bytes':256M}\nreply\n");
        script(fx->qmp, RESIZE("vm0", "256M") LIST(VM("256M", "256M"), "256M") "reply\n");
        script(fx->guest, "expect prepare {'zone':'movable','bytes':3840M}\nreply\n");
        script(fx->qmp, RESIZE("vm0", "4G") LIST(VM("4G", "4G"), "4G") "reply\n");
        script(fx->guest, STATE("5G", "3840M", "4G") BLOCKS(
                                  ",[4G,256M,'online','kernel',0],[4352M,3840M,'online','movable',0]"));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 4 * GIB, 0);
        assert_int_equal(j->kernel_bytes, 256 * MIB);
        assert_int_equal(j->movable_bytes, 3840 * MIB);
        finish(fx);

        assert_int_equal(try_submit(fx, ADD(GIB, BY_VM, .zone = ZONE_POLICY_MOVABLE)), ERROR_BEYOND_MAX);
}

/* The driver takes a part and then no more: what it took stays, and the wish is taken back. */
static void test_add_stalls(void **state)
{
        struct fixture *fx = *state;

        start(fx, LIST(VM("0", "0"), "0"), "");
        struct job *j = submit(fx, ADD(GIB, BY_VM));
        script(fx->guest, "expect prepare\nreply\n");
        script(fx->qmp, RESIZE("vm0", "1G") LIST(VM("256M", "1G"), "256M") "reply\n" /* nudged once */
                RESIZE("vm0", "256M") "reply\n" RESIZE("vm0", "1G") "reply\n" RESIZE("vm0", "256M")
                        LIST(VM("256M", "256M"), "256M") "reply\n");
        script(fx->guest, STATE("1280M", "256M", "1G") BLOCKS(",[4G,256M,'online','movable',0]"));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, 256 * MIB, 1);
        assert_reason(j, 0, "vm0", ERROR_BLOCK_FAILED, "256 MiB of 1 GiB");
        finish(fx);
}

static void test_remove(void **state)
{
        struct fixture *fx = *state;

        start(fx, LIST(VM("2G", "2G"), "2G"),
                STATE("3G", "2G", "2560M") BLOCKS(",[4G,2G,'online','movable',0]"));
        struct job *j = submit(fx, REMOVE(1536 * MIB, BY_VM));
        script(fx->qmp, RESIZE("vm0", "512M"));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->qmp, LIST(VM("512M", "512M"), "512M") "reply\n");
        script(fx->guest, STATE("1536M", "512M", "1G") BLOCKS(",[4G,512M,'online','movable',0]"));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 1536 * MIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING OFFLINING VERIFYING DONE");
        finish(fx);
}

/* The guest's own word limits each step, and it is asked again before the next. */
static void test_remove_in_steps(void **state)
{
        struct fixture *fx = *state;

        start(fx, LIST(VM("2G", "2G"), "2G"),
                STATE("3G", "2G", "640M") BLOCKS(",[4G,2G,'online','movable',0]"));
        struct job *j = submit(fx, REMOVE(GIB, BY_VM));
        script(fx->qmp, RESIZE("vm0", "1536M"));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, STATE("2560M", "1536M", "256M"));
        script(fx->qmp, LIST(VM("1536M", "1536M"), "1536M") "reply\n" RESIZE("vm0", "1408M"));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, STATE("2432M", "1408M", "128M") BLOCKS(",[4G,1408M,'online','movable',0]"));
        script(fx->qmp, LIST(VM("1408M", "1408M"), "1408M") "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, 640 * MIB, 1);
        assert_reason(j, 0, "vm0", ERROR_NO_HEADROOM, "128 MiB available and keeps a margin of 128 MiB");
        finish(fx);
}

/* Somebody in the guest takes memory while it shrinks. */
static void test_remove_runs_short(void **state)
{
        struct fixture *fx = *state;

        start(fx, LIST(VM("2G", "2G"), "2G"),
                STATE("3G", "2G", "2560M") BLOCKS(",[4G,2G,'online','movable',0]"));
        struct job *j = submit(fx, REMOVE(GIB, BY_VM));
        script(fx->qmp, RESIZE("vm0", "1G"));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, STATE("2560M", "1536M", "32M") BLOCKS(",[4G,1536M,'online','movable',0]"));
        script(fx->qmp, LIST(VM("1536M", "1G"), "1536M") "reply\n" RESIZE("vm0", "1536M")
                                LIST(VM("1536M", "1536M"), "1536M") "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, 512 * MIB, 1);
        assert_reason(j, 0, "vm0", ERROR_NO_HEADROOM, "512 MiB of 1 GiB left, and 1.5 GiB stays");
        finish(fx);
}

static void test_remove_cancelled(void **state)
{
        struct fixture *fx = *state;

        start(fx, LIST(VM("2G", "2G"), "2G"),
                STATE("3G", "2G", "2560M") BLOCKS(",[4G,2G,'online','movable',0]"));
        struct job *j = submit(fx, REMOVE(GIB, BY_VM));
        script(fx->qmp, RESIZE("vm0", "1G") LIST(VM("1536M", "1G"), "1536M") "reply\n");
        RUN_UNTIL(fx, j->progress_bytes == 512 * MIB);
        /* It moves on while it is told to stay. */
        script(fx->qmp, RESIZE("vm0", "1536M") LIST(VM("1534M", "1536M"), "1534M") "reply\n" RESIZE(
                                "vm0", "1534M") LIST(VM("1534M", "1534M"), "1534M") "reply\n");
        script(fx->guest, STATE("2558M", "1534M", "2G") BLOCKS(",[4G,1536M,'online','movable',0]"));
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, 514 * MIB, 2);
        assert_reason(j, 0, "vm0", ERROR_CANCELLED, "514 MiB of 1 GiB left in time");
        finish(fx);
}

static void test_all_or_nothing(void **state)
{
        struct fixture *fx = *state;

        start(fx, LIST(VM("2G", "2G"), "2G"),
                STATE("3G", "2G", "2560M") BLOCKS(",[4G,2G,'online','movable',0]"));
        struct job *j = submit(fx, REMOVE(GIB, BY_VM, .all_or_nothing = true));
        script(fx->qmp, RESIZE("vm0", "1G"));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, STATE("2560M", "1536M", "32M"));
        script(fx->qmp, LIST(VM("1536M", "1G"), "1536M") "reply\n" RESIZE("vm0", "1536M") "reply\n");
        script(fx->guest, "expect prepare {'zone':'movable','bytes':512M}\nreply\n");
        script(fx->qmp, RESIZE("vm0", "2G") LIST(VM("2G", "2G"), "2G") "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        finish(fx);
}

/* QEMU's word alone is not enough. */
static void test_guest_does_not_confirm(void **state)
{
        struct fixture *fx = *state;

        start(fx, LIST(VM("0", "0"), "0"), "");
        struct job *j = submit(fx, ADD(GIB, BY_VM));
        script(fx->guest, "expect prepare\nreply\n");
        script(fx->qmp, RESIZE("vm0", "1G") LIST(VM("1G", "1G"), "1G") "reply\n");
        script(fx->guest, STATE("1G", "0", "512M") BLOCKS(",[4G,1G,'offline','unknown',0]"));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_ACCOUNTS_DIFFER, "1 GiB offline");
        /* What is offline is brought online by the restore that follows. */
        script(fx->guest,
                "expect online {'targets':[[4G,1G]],'zone':'movable'}\n" STATE("2G", "1G", "1G") BLOCKS(
                        ",[4G,1G,'online','movable',0]") "reply {'ranges':[[4G,1G,'online','movable',0]]}\n");
        RUN_UNTIL(fx, fx->n_ended == 2);
        finish(fx);
}

/* A reset in the middle: what had come stays asked for, and no more. */
static void test_reset(void **state)
{
        struct fixture *fx = *state;

        start(fx, LIST(VM("0", "0"), "0"), "");
        struct job *j = submit(fx, ADD(GIB, BY_VM));
        script(fx->guest, "expect prepare\nreply\n");
        script(fx->qmp, RESIZE("vm0", "1G") LIST(VM("256M", "1G"), "256M") "reply\n");
        RUN_UNTIL(fx, j->progress_bytes == 256 * MIB);
        script(fx->qmp,
                LIST(VM("0", "256M"), "0") "event RESET {'guest':true,'reason':'guest-reset'}\n" RESIZE(
                        "vm0", "256M") "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_int_equal(j->state, JOB_FAILED);
        assert_int_equal(j->done_bytes, 0);
        assert_reason(j, 0, "vm0", ERROR_GUEST_RESET, "comes back with 256 MiB");
        finish(fx);
}

/* Each node gets what suits its memory at boot. */
static void test_nodes(void **state)
{
        struct fixture *fx = *state;
        static const char both[] = DEVICE("vm0", "4G", "0", "0", "0") "," DEVICE("vm1", "8G", "0", "0", "1");
        char orders[1024];

        snprintf(orders, sizeof(orders),
                "on query-memory-devices reply [%s]\n"
                "on human-monitor-command reply '2 nodes\\nnode 0 cpus: 0\\nnode 0 size: 768 MB\\n"
                "node 0 plugged: 0 MB\\nnode 1 cpus:\\nnode 1 size: 256 MB\\nnode 1 plugged: 0 MB\\n'\n",
                both);
        start(fx, orders, "");
        struct job *j = submit(fx, ADD(GIB, BY_VM));
        script(fx->guest, "expect prepare\nreply\n");
        script(fx->qmp, RESIZE("vm0", "768M") "on query-memory-devices reply [" DEVICE("vm0", "4G", "768M",
                                "768M", "0") "," DEVICE("vm1", "8G", "0", "0", "1") "]\nreply\n");
        script(fx->qmp, RESIZE("vm1", "256M") LIST(DEVICE("vm0", "4G", "768M", "768M", "0") "," DEVICE(
                                                           "vm1", "8G", "256M", "256M", "1"),
                                "1G") "reply\n");
        script(fx->guest, STATE("2G", "1G", "1G")
                                  BLOCKS(",[4G,768M,'online','movable',0],[8G,256M,'online','movable',1]"));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        finish(fx);
        struct job_request request = *REMOVE(512 * MIB, BY_VM);
        request.node = 1;
        assert_int_equal(try_submit(fx, &request), ERROR_NOT_PLUGGED);
        assert_int_equal(try_submit(fx, REMOVE(512 * MIB, BY_VM, .device = "vm9")), ERROR_UNKNOWN_DEVICE);
}

static void test_refusals(void **state)
{
        struct fixture *fx = *state;
        struct job *j = NULL;
        struct error error;

        start(fx, LIST(VM("1G", "1G"), "1G"), BLOCKS(",[4G,1G,'online','movable',0]"));
        assert_int_equal(manager_submit(fx->manager, fx->p, NULL, ADD(3 * MIB, BY_VM), &j, &error), -EINVAL);
        assert_non_null(strstr(error.message, "2M and 4M"));
        assert_int_equal(manager_submit(fx->manager, fx->p, NULL, ADD(4 * GIB, BY_VM), &j, &error), -ENOSPC);
        assert_non_null(strstr(error.message, "1 GiB of 4 GiB plugged; at most 3G"));
        assert_int_equal(try_submit(fx, REMOVE(2 * GIB, BY_VM)), ERROR_NOT_PLUGGED);
        assert_int_equal(
                try_submit(fx, REMOVE(GIB, BY_VM, .has_drc = true, .drc = 4)), ERROR_INVALID_ARGUMENT);
        fx->p->definition.profile.min_bytes = 1536 * MIB;
        assert_int_equal(try_submit(fx, REMOVE(GIB, BY_VM)), ERROR_NOT_PLUGGED);
        fx->p->definition.profile.max_bytes = 2560 * MIB;
        assert_int_equal(try_submit(fx, ADD(GIB, BY_VM)), ERROR_BEYOND_MAX);
        finish(fx);
}

static void test_without_a_device(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        assert_int_equal(try_submit(fx, ADD(GIB, BY_VM)), ERROR_NO_HOTPLUG);
        finish(fx);
}

static void test_room(void **state)
{
        struct fixture *fx = *state;
        uint64_t unit = 0;

        start(fx, LIST(VM("1G", "1G"), "1G"),
                STATE("2G", "1G", "901M") BLOCKS(",[4G,1G,'online','movable',0]"));
        assert_int_equal(mechanism_virtio_mem_add.room(fx->p, ADD(1, BY_VM), &unit), 3 * GIB);
        assert_int_equal(unit, 2 * MIB);
        assert_int_equal(mechanism_virtio_mem_remove.room(fx->p, REMOVE(1, BY_VM), &unit), 772 * MIB);
        struct job_request request = *ADD(1, BY_VM);
        request.node = 3;
        assert_int_equal(mechanism_virtio_mem_add.room(fx->p, &request, &unit), 0);
        finish(fx);
}

/* A device that was made without an id, or another's: it counts, and is not ours to resize. */
static void test_nameless(void **state)
{
        struct fixture *fx = *state;

        start(fx,
                "on query-memory-devices reply [{'type':'virtio-mem','data':{'memdev':'/objects/x',"
                "'memaddr':4G,'size':1G,'requested-size':1G,'max-size':4G,'block-size':2M,'node':0}}]"
                "\n" PLUGGED("1G"),
                BLOCKS(",[4G,1G,'online','movable',0]"));
        assert_int_equal(try_submit(fx, ADD(GIB, BY_VM)), ERROR_NO_HOTPLUG);
        finish(fx);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_add),
                TEST(test_late_event),
                TEST(test_zones),
                TEST(test_add_stalls),
                TEST(test_remove),
                TEST(test_remove_in_steps),
                TEST(test_remove_runs_short),
                TEST(test_remove_cancelled),
                TEST(test_all_or_nothing),
                TEST(test_guest_does_not_confirm),
                TEST(test_reset),
                TEST(test_nodes),
                TEST(test_refusals),
                TEST(test_without_a_device),
                TEST(test_room),
                TEST(test_nameless),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
