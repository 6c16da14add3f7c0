/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

/* The manager: who is defined, who waits, and what is kept. */

static void test_define(void **state)
{
        struct fixture *fx = *state;
        struct partition_definition d = { .profile.weight = PARTITION_WEIGHT_DEFAULT };
        struct partition *p = NULL;
        struct error error;

        start(fx, "", "");
        strcpy(d.name, "web1");
        strcpy(d.qmp_path, "/nowhere/q");
        strcpy(d.channel_path, "/nowhere/c");
        assert_true(manager_define(fx->manager, &d, &p, &error) < 0);
        assert_int_equal(error.code, ERROR_PARTITION_EXISTS);

        strcpy(d.name, "web2");
        strcpy(d.channel_path, fx->channel_path);
        assert_true(manager_define(fx->manager, &d, &p, &error) < 0);
        assert_int_equal(error.code, ERROR_INVALID_ARGUMENT);
        assert_null(p);

        /* In the order of names. */
        strcpy(d.name, "a1");
        strcpy(d.channel_path, "/nowhere/c");
        assert_int_equal(manager_define(fx->manager, &d, &p, &error), 0);
        assert_ptr_equal(manager_next_partition(fx->manager, NULL), p);
        assert_ptr_equal(manager_next_partition(fx->manager, p), fx->p);
        assert_null(manager_next_partition(fx->manager, fx->p));
        assert_ptr_equal(manager_find_partition(fx->manager, "a1"), p);

        assert_int_equal(manager_undefine(fx->manager, "a1", &error), 0);
        assert_null(manager_find_partition(fx->manager, "a1"));
        assert_true(manager_undefine(fx->manager, "a1", &error) < 0);
        assert_int_equal(error.code, ERROR_UNKNOWN_PARTITION);
        finish(fx);
}

/* Nothing can be asked of a guest of which one end is missing. */
static void test_unusable(void **state)
{
        struct fixture *fx = *state;

        start_fakes(fx, "", "");
        start_manager(fx);
        assert_int_equal(try_submit(fx, ADD(GIB)), ERROR_HYPERVISOR_ABSENT);
        run_until_known(fx);
        script(fx->guest, "close\n");
        RUN_UNTIL(fx, agent_state(fx->p->agent) != AGENT_READY);
        assert_int_equal(try_submit(fx, ADD(GIB)), ERROR_AGENT_ABSENT);
        script(fx->guest, "begin\n");
        RUN_UNTIL(fx, agent_state(fx->p->agent) == AGENT_READY);
        script(fx->qmp, "close\n");
        RUN_UNTIL(fx, !fx->p->platform_up);
        assert_int_equal(try_submit(fx, ADD(GIB)), ERROR_HYPERVISOR_ABSENT);
        finish(fx);
        assert_int_equal(fx->n_added, 0);
}

/* One at a time, in order; each plans with what the one before has changed. */
static void test_order(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, PLUG(0) DEVICES("<0 4G 1G>", "1G") "reply\n");
        script(fx->guest, "on prepare reply\nexpect online {'targets':[[4G,1G]]}\n");
        struct job *first = submit(fx, ADD(GIB));
        struct job *second = submit(fx, ADD(GIB));
        struct job *third = submit(fx, REMOVE(GIB)); /* nothing is plugged as yet */
        assert_true(first->id < second->id && second->id < third->id);
        assert_ptr_equal(manager_next_job(fx->manager, first), second);
        assert_ptr_equal(manager_find_job(fx->manager, third->id), third);
        RUN_UNTIL(fx, fake_finished(fx->guest));
        assert_int_equal(second->state, JOB_QUEUED);
        assert_int_equal(third->state, JOB_QUEUED);
        assert_ptr_equal(fx->p->active, first);

        script(fx->qmp, PLUG(1) DEVICES(BOTH, "2G") "reply\n");
        script(fx->guest, "reply {'ranges':[" ONLINE("4G") "]}\nexpect online {'targets':[[5G,1G]]}\n");
        RUN_UNTIL_END(fx, first);
        assert_job(fx, first, JOB_DONE, GIB, 0);
        RUN_UNTIL(fx, fake_finished(fx->guest));
        assert_int_equal(third->state, JOB_QUEUED);

        script(fx->guest, BLOCKS(",[4G,2G,'online','movable',0]") "reply {'ranges':[" ONLINE(
                                  "5G") "]}\n"
                                        "expect offline {'targets':[[5G,1G]]}\n"
                                        "reply {'ranges':[[5G,1G,'offline','unknown',0]]}\n"
                                        "expect await-removed\nreply\n");
        RUN_UNTIL_END(fx, second);
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        RUN_UNTIL_END(fx, third);
        assert_job(fx, second, JOB_DONE, GIB, 0);
        assert_job(fx, third, JOB_DONE, GIB, 0);
        finish(fx);
        assert_int_equal(fx->n_ended, 3);
}

/* What could not be known when it was queued is refused when it is its turn. */
static void test_refused_in_its_turn(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, MAKE(0) UNMAKE(0));
        script(fx->guest, "expect prepare\n");
        struct job *first = submit(fx, ADD(GIB));
        struct job *second = submit(fx, ADD(100 * MIB));
        struct job *third = submit(fx, REMOVE(GIB));
        script(fx->guest, "failure internal Out of luck\n");
        RUN_UNTIL_END(fx, third);
        assert_job(fx, first, JOB_FAILED, 0, 1);
        assert_job(fx, second, JOB_FAILED, 0, 1);
        assert_reason(second, 0, "", ERROR_UNALIGNED_SIZE, "");
        assert_job(fx, third, JOB_FAILED, 0, 1);
        assert_reason(third, 0, "", ERROR_NOT_PLUGGED, "");
        assert_trace(fx, second, "QUEUED SURVEYING FAILED");
        finish(fx);
}

static void test_limit(void **state)
{
        struct fixture *fx = *state;
        struct job *jobs[17];
        unsigned limit = 16;

        start(fx, "", "");
        assert_int_equal(manager_config(fx->manager)->jobs_queued, limit);
        script(fx->qmp, MAKE(0) UNMAKE(0));
        script(fx->guest, "expect prepare\n");
        for (unsigned i = 0; i <= limit; i++) /* one of them is active */
                jobs[i] = submit(fx, ADD(GIB, .dry_run = i > 0));
        assert_int_equal(try_submit(fx, ADD(GIB)), ERROR_BUSY);
        job_stop(jobs[5], JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, jobs[5]);
        jobs[5] = submit(fx, ADD(GIB, .dry_run = true));
        assert_int_equal(try_submit(fx, ADD(GIB)), ERROR_BUSY);
        script(fx->guest, "failure internal Out of luck\n");
        RUN_UNTIL(fx, fx->n_ended == limit + 2);
        for (unsigned i = 1; i <= limit; i++)
                assert_job(fx, jobs[i], JOB_DONE, 0, 0);
        finish(fx);
}

static void test_deadline_and_cancel_in_the_queue(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, MAKE(0) UNMAKE(0));
        script(fx->guest, "expect prepare\n");
        struct job *first = submit(fx, ADD(GIB));
        struct job *late = submit(fx, ADD(GIB, .wait_usec = 20 * USEC_PER_MSEC));
        struct job *unwanted = submit(fx, ADD(GIB));
        struct job *last = submit(fx, ADD(GIB, .dry_run = true));
        job_stop(unwanted, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, unwanted);
        assert_job(fx, unwanted, JOB_CANCELLED, 0, 1);
        assert_trace(fx, unwanted, "QUEUED CANCELLED");
        RUN_UNTIL_END(fx, late);
        assert_job(fx, late, JOB_FAILED, 0, 1);
        assert_reason(late, 0, "", ERROR_DEADLINE, "queued behind another");
        RUN_UNTIL(fx, fake_finished(fx->guest));
        assert_int_equal(first->state, JOB_PLUGGING);
        assert_ptr_equal(fx->p->active, first);
        script(fx->guest, "failure internal Out of luck\n");
        RUN_UNTIL_END(fx, last);
        assert_job(fx, last, JOB_DONE, 0, 0);
        finish(fx);
}

/* The active one and a waiting one are stopped in the same turn: the waiting one never starts. */
static void test_cancel_two_at_once(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        unsettle(fx);
        struct job *first = submit(fx, ADD(GIB)), *second = submit(fx, ADD(GIB));
        job_stop(first, JOB_STOP_CANCEL);
        job_stop(second, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, second);
        assert_job(fx, first, JOB_CANCELLED, 0, 1);
        assert_trace(fx, second, "QUEUED CANCELLED");
        finish(fx);
}

/* Ended jobs are kept, and not for ever. */
static void test_a_thousand_jobs(void **state)
{
        struct fixture *fx = *state;
        unsigned n = 0;
        uint32_t last = 0;

        start(fx, "", "");
        for (unsigned i = 0; i < 1000; i++) {
                struct job *j = submit(fx, ADD(GIB, .dry_run = true));
                if (i % 7 == 0)
                        job_stop(j, JOB_STOP_CANCEL);
                RUN_UNTIL(fx, fx->n_ended == i + 1);
        }
        for (struct job *j = manager_next_job(fx->manager, NULL); j; j = manager_next_job(fx->manager, j)) {
                n++;
                assert_true(j->id > last);
                last = j->id;
        }
        assert_int_equal(last, 1000);
        assert_int_equal(n, MANAGER_JOBS_ENDED_KEPT);
        assert_int_equal(fx->n_forgotten, 1000 - MANAGER_JOBS_ENDED_KEPT);
        finish(fx);
}

/* A second partition beside the first: its jobs run at the same time. However many of them end, a job that
 * took long can be read when it has ended. */
static void test_two_partitions(void **state)
{
        struct fixture *fx = *state;
        struct error error;
        struct job *j;

        start(fx, "", "");
        struct fixture *other = start_second(fx, "web2", "", "");

        script(fx->qmp, MAKE(0) UNMAKE(0));
        script(fx->guest, "expect prepare\n");
        struct job *slow = submit(fx, ADD(GIB));
        for (unsigned i = 0; i < MANAGER_JOBS_ENDED_KEPT + 10; i++) {
                assert_int_equal(
                        manager_submit(fx->manager, other->p, NULL, ADD(GIB, .dry_run = true), &j, &error),
                        0);
                RUN_UNTIL_END(other, j);
                assert_int_equal(j->state, JOB_DONE);
        }
        assert_int_equal(slow->state, JOB_PLUGGING);
        assert_int_equal(fx->n_forgotten, 10);
        script(fx->guest, "failure internal Out of luck\n");
        RUN_UNTIL(fx, fx->n_ended == MANAGER_JOBS_ENDED_KEPT + 11);
        assert_ptr_equal(manager_find_job(fx->manager, 1), slow);
        assert_job(fx, slow, JOB_FAILED, 0, 1);
        assert_int_equal(fx->n_forgotten, 11);
        finish(fx);
        finish_second(fx, other);
}

static void test_freed_in_the_middle(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, PLUG(0) DEVICES("<0 4G 1G>", "1G") "reply\n");
        script(fx->guest, "expect prepare\nreply\nexpect online\n");
        submit(fx, ADD(GIB));
        submit(fx, ADD(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        fx->manager = manager_free(fx->manager);
        assert_int_equal(fx->n_ended, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_define),
                TEST(test_unusable),
                TEST(test_order),
                TEST(test_refused_in_its_turn),
                TEST(test_limit),
                TEST(test_deadline_and_cancel_in_the_queue),
                TEST(test_cancel_two_at_once),
                TEST(test_a_thousand_jobs),
                TEST(test_two_partitions),
                TEST(test_freed_in_the_middle),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
