/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

#include "hvd/memory/auto.h"
#include "hvd/memory/mechanism.h"

/* Requests that several mechanisms serve: a guest with 1 GiB of virtio-mem beside its slots. */

#define VM(size, requested)                                                                                  \
        "{'type':'virtio-mem','data':{'id':'vm0','memdev':'/objects/mem-vm0','memaddr':4G,'size':" size      \
        ",'requested-size':" requested ",'max-size':1G,'block-size':2M,'node':0}}"
#define LIST(devices, plugged)                                                                               \
        "on query-memory-devices reply [" devices "]\n"                                                      \
        "on query-memory-size-summary reply {'base-memory':1G,'plugged-memory':" plugged "}\n"
#define RESIZE(bytes)                                                                                        \
        "expect qom-set {'path':'/machine/peripheral/vm0','property':'requested-size','value':" bytes "}\n"
#define STATE(total, movable, available)                                                                     \
        "on get-state reply {'memory':{'total_bytes':" total ",'free_bytes':" available                      \
        ",'available_bytes':" available                                                                      \
        ",'swap_total_bytes':0,'swap_free_bytes':0,'kernel_bytes':1G,'movable_bytes':" movable               \
        ",'online_blocks':8,'offline_blocks':0,'margin_bytes':128M}}\n"
#define EMPTY LIST(VM("0", "0"), "0")
#define FULL  LIST(VM("1G", "1G"), "1G")
#define DIMM  "<0 8G 1G>"
#define GROWN STATE("2G", "1G", "1536M") BLOCKS("," ONLINE("4G"))

static void refused(
        struct fixture *fx, const struct job_request *request, enum error_code code, const char *part)
{
        struct error error = { 0 };
        struct job *j;

        assert_true(manager_submit(fx->manager, fx->p, NULL, request, &j, &error) < 0);
        if (error.code != code || !strstr(error.message, part))
                fail_msg("%s: %s, not %s", error_code_name(error.code), error.message, part);
}

static void start_empty(struct fixture *fx)
{
        start(fx, EMPTY, STATE("1G", "0", "512M"));
        RUN_UNTIL(fx, partition_is_settled(fx->p));
}

/* The first leg, by virtio-mem, of 1 GiB, goes as it should. */
static void run_first_leg(struct fixture *fx)
{
        script(fx->guest, "expect prepare {'zone':'movable','bytes':1G}\nreply\n");
        script(fx->qmp, RESIZE("1G"));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, GROWN);
        script(fx->qmp, FULL "reply\n");
}

static void test_one_leg(void **state)
{
        struct fixture *fx = *state;

        start_empty(fx);
        assert_ptr_equal(auto_choose(fx->p, ADD(GIB)), &mechanism_split_add);
        struct job *j = submit(fx, ADD(GIB));
        run_first_leg(fx);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING PLUGGING ONLINING VERIFYING DONE");
        assert_string_equal(j->plan[0], "1 GiB by virtio-mem");
        assert_int_equal(j->movable_bytes, GIB);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
        assert_int_equal(fx->n_ended, 1);
}

static void test_two_legs(void **state)
{
        struct fixture *fx = *state;

        start_empty(fx);
        struct job *j = submit(fx, ADD(2 * GIB));
        run_first_leg(fx);
        script(fx->qmp, MAKE(0));
        script(fx->guest, "expect prepare {'zone':'movable','bytes':1G}\n");
        RUN_UNTIL(fx, fake_finished(fx->guest));
        assert_int_equal(j->done_bytes, GIB);
        assert_true(job_progress(j) >= 0.5 && job_progress(j) <= 0.5);
        assert_ptr_equal(job_at_work(fx->p), j->leg);
        assert_ptr_equal(fx->p->active, j);
        script(fx->qmp, INSERT(0) LIST(VM("1G", "1G") "," DIMM, "2G") "reply\n");
        script(fx->guest,
                "reply\nexpect online {'targets':[[8G,1G]]}\nreply {'ranges':[" ONLINE("8G") "]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 2 * GIB, 0);
        assert_int_equal(j->movable_bytes, 2 * GIB);
        assert_int_equal(j->current_bytes, 3 * GIB);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

static void test_dry_run(void **state)
{
        struct fixture *fx = *state;

        start_empty(fx);
        struct job *j = submit(fx, ADD(2 * GIB, .dry_run = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        assert_string_equal(j->plan[0], "1 GiB by virtio-mem");
        assert_string_equal(j->plan[1], "1 GiB by dimm");
        assert_true(j->n_plan >= 4);
        assert_non_null(strstr(j->plan[j->n_plan - 1], "plug opendlpar-dimm-0"));
        finish(fx);
}

/* Which options leave which mechanisms. */
static void test_choice(void **state)
{
        struct fixture *fx = *state;

        start_empty(fx);
        assert_ptr_equal(auto_choose(fx->p, ADD(GIB, .zone = ZONE_POLICY_KERNEL)), &mechanism_dimm_add);
        assert_ptr_equal(auto_choose(fx->p, REMOVE(GIB, .device = "d")), &mechanism_dimm_remove);
        assert_ptr_equal(auto_choose(fx->p, REMOVE(GIB, .has_drc = true)), &mechanism_dimm_remove);
        assert_ptr_equal(auto_choose(fx->p, REMOVE(GIB, .within = true)), &mechanism_dimm_remove);
        refused(fx, ADD(16 * GIB), ERROR_BEYOND_MAX, "by virtio-mem 1 GiB, dimm 14 GiB, balloon 0 B");
        refused(fx, ADD(MIB), ERROR_UNALIGNED_SIZE, "ask for 2M");
        refused(fx, REMOVE(GIB), ERROR_NOT_PLUGGED, "virtio-mem 0 B");
        finish(fx);
}

/* What the first one cannot do the next one does, and the reason for it is kept. */
static void test_next_one(void **state)
{
        struct fixture *fx = *state;

        start_empty(fx);
        struct job *j = submit(fx, ADD(GIB));
        script(fx->guest,
                "expect prepare\nreply\nexpect prepare\nreply\nexpect online\nreply {'ranges':[" ONLINE(
                        "8G") "]}\n");
        script(fx->qmp, RESIZE("1G") "error GenericError It is broken\n");
        script(fx->qmp, PLUG(0) LIST(VM("0", "0") "," DIMM, "1G") "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 1);
        assert_reason(j, 0, "vm0", ERROR_HYPERVISOR_REFUSED, "broken");
        finish(fx);
}

/* All or nothing, and the second leg fails: the first one is undone. */
static void test_undone(void **state)
{
        struct fixture *fx = *state;

        start_empty(fx);
        struct job *j = submit(fx, ADD(2 * GIB, .all_or_nothing = true));
        run_first_leg(fx);
        /* As of a domain of libvirt's, which would be refused here. */
        j->request.persistent = true;
        script(fx->guest, "expect prepare\nfailure zone-ratio There is too little kernel memory\n");
        script(fx->qmp, MAKE(0) UNMAKE(0) RESIZE("0"));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        assert_true(fx->p->platform->persistent);
        script(fx->guest, STATE("1G", "0", "512M") BLOCKS(""));
        script(fx->qmp, EMPTY "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_ZONE_RATIO, "");
        assert_non_null(strstr(j->notes[0], "1 GiB by virtio-mem is undone"));
        assert_int_equal(j->movable_bytes, 0);
        finish(fx);
        assert_int_equal(partition_current_bytes(fx->p), GIB);
}

/* A removal over both. */
static void test_removal(void **state)
{
        struct fixture *fx = *state;

        start(fx, LIST(VM("512M", "512M") "," DIMM, "1536M"),
                STATE("2560M", "1536M", "2G") BLOCKS(",[4G,512M,'online','movable',0]," ONLINE("8G")));
        RUN_UNTIL(fx, partition_is_settled(fx->p));
        struct job *j = submit(fx, REMOVE(1536 * MIB));
        script(fx->qmp, RESIZE("0"));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest,
                STATE("2G", "1G", "1536M") BLOCKS("," ONLINE("8G")) "expect offline {'targets':[[8G,1G]]}\n");
        script(fx->qmp, LIST(VM("0", "0") "," DIMM, "1G") "reply\n");
        RUN_UNTIL(fx, fake_finished(fx->guest));
        assert_int_equal(j->done_bytes, 512 * MIB);
        script(fx->guest, "reply {'ranges':[[8G,1G,'offline','unknown',0]]}\nexpect await-removed\nreply\n");
        script(fx->qmp, UNPLUG(0) EMPTY LEAVE(0) "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 1536 * MIB, 0);
        finish(fx);
}

/* What the guest had available when it was last asked refuses nothing: it is asked again, and says it. */
static void test_old_headroom(void **state)
{
        struct fixture *fx = *state;

        start(fx, FULL, STATE("2G", "1G", "160M") BLOCKS("," ONLINE("4G")));
        RUN_UNTIL(fx, partition_is_settled(fx->p));
        refused(fx, REMOVE(2 * GIB), ERROR_NOT_PLUGGED, "virtio-mem 32 MiB");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_NOT_PLUGGED, "virtio-mem 32 MiB");

        RUN_UNTIL(fx, partition_is_settled(fx->p));
        script(fx->guest, STATE("2G", "1G", "64M"));
        partition_settle(fx->p, false);
        RUN_UNTIL(fx, partition_is_settled(fx->p));
        script(fx->guest, GROWN);
        assert_ptr_equal(auto_choose(fx->p, REMOVE(GIB)), &mechanism_split_remove);
        j = submit(fx, REMOVE(GIB));
        script(fx->qmp, RESIZE("0"));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, STATE("1G", "0", "512M") BLOCKS(""));
        script(fx->qmp, EMPTY "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        finish(fx);
}

/* Cancelled in the second leg: what the first one moved stays. */
static void test_cancelled(void **state)
{
        struct fixture *fx = *state;

        start_empty(fx);
        struct job *j = submit(fx, ADD(2 * GIB));
        run_first_leg(fx);
        script(fx->qmp, MAKE(0) UNMAKE(0));
        script(fx->guest, "expect prepare @p\n");
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        script(fx->guest, "reply @p\n");
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, GIB, 1);
        assert_reason(j, 0, "", ERROR_CANCELLED, "");
        finish(fx);
}

/* A total takes legs of legs, and an undefined partition ends them all. */
static void test_set_and_abort(void **state)
{
        struct fixture *fx = *state;
        struct error error;

        start_empty(fx);
        struct job *j = submit(fx, SET_TO(3 * GIB));
        run_first_leg(fx);
        script(fx->qmp, MAKE(0));
        script(fx->guest, "expect prepare {'zone':'movable','bytes':1G}\n");
        RUN_UNTIL(fx, fake_finished(fx->guest) && fake_finished(fx->qmp));
        assert_non_null(j->leg->leg);
        assert_true(job_progress(j) >= 0.5 && job_progress(j) <= 0.5);
        script(fx->qmp, "expect object-del {'id':'opendlpar-mem-0'}\n");
        assert_int_equal(manager_undefine(fx->manager, "web1", &error), 0);
        fx->p = NULL;
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        assert_int_equal(j->state, JOB_PARTIAL);
        assert_int_equal(j->done_bytes, GIB);
        assert_null(j->leg);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_one_leg),
                TEST(test_two_legs),
                TEST(test_dry_run),
                TEST(test_choice),
                TEST(test_next_one),
                TEST(test_undone),
                TEST(test_removal),
                TEST(test_old_headroom),
                TEST(test_cancelled),
                TEST(test_set_and_abort),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
