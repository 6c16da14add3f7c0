/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

#include "hvd/pool.h"

/* Memory moved between two partitions: it is with one of them, or in the pool, and never twice. */

#define OFFLINE(a) "[" a ",1G,'offline','unknown',0]"
#define RELEASE(a) "expect offline {'targets':[[" a ",1G]]}\nreply {'ranges':[" OFFLINE(a) "]}\n"
#define TAKE_ONLINE(a)                                                                                       \
        "expect prepare\nreply\nexpect online {'targets':[[" a ",1G]]}\nreply {'ranges':[" ONLINE(a) "]}\n"
#define GONE "expect await-removed\nreply\n"

struct pair {
        struct fixture *a, *b;
        uint64_t free_bytes;
};

/* web1 has 2 GiB in DIMMs, web2 none. */
static struct pair start_pair(struct fixture *fx)
{
        struct pair p = { .a = fx };

        start(fx, DEVICES(BOTH, "2G"),
                BLOCKS(",[4G,2G,'online','movable',0]") "on get-state reply {" MEMORY(
                        "1G", "2G", "512M") "}\n");
        p.b = start_second(fx, "web2", "", "");
        RUN_UNTIL(fx, partition_is_settled(p.a->p) && partition_is_settled(p.b->p));
        p.free_bytes = pool_account(fx->manager).free_bytes;
        return p;
}

static struct job *move(struct pair *p, const struct job_request *request)
{
        struct error error = { 0 };
        struct job *j = NULL;

        if (manager_submit(p->a->manager, p->a->p, p->b->p, request, &j, &error) < 0)
                fail_msg("refused: %s", error.message);
        assert_ptr_equal(p->a->p->active, j);
        assert_ptr_equal(p->b->p->active, j);
        return j;
}

/* The sum over both and the pool is what it was; each has what is said. */
static void end_pair(struct pair *p, uint64_t a_bytes, uint64_t b_bytes)
{
        finish(p->a);
        finish(p->b);
        assert_int_equal(partition_current_bytes(p->a->p), a_bytes);
        assert_int_equal(partition_current_bytes(p->b->p), b_bytes);
        assert_int_equal(pool_requested_bytes(p->a->p), a_bytes);
        assert_int_equal(pool_requested_bytes(p->b->p), b_bytes);
        assert_int_equal(pool_account(p->a->manager).free_bytes, p->free_bytes + 4 * GIB - a_bytes - b_bytes);
        finish_second(p->a, p->b);
}

static void test_moved(void **state)
{
        struct pair p = start_pair(*state);

        script(p.a->guest, RELEASE("5G") GONE);
        script(p.a->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        script(p.b->qmp, MAKE(0));
        script(p.b->guest, "expect prepare\n");
        struct job *j = move(&p, MOVE(GIB));
        assert_int_equal(pool_requested_bytes(p.a->p), 2 * GIB);
        assert_int_equal(pool_requested_bytes(p.b->p), 2 * GIB);
        /* At no moment is it held twice. */
        assert_int_equal(pool_held_bytes(p.a->p) + pool_held_bytes(p.b->p), 4 * GIB);
        RUN_UNTIL(p.b, fake_finished(p.b->guest));
        assert_int_equal(j->freed_bytes, GIB);
        assert_true(job_progress(j) >= 0.5 && job_progress(j) <= 0.5);
        assert_int_equal(pool_held_bytes(p.a->p) + pool_held_bytes(p.b->p), 4 * GIB);
        assert_int_equal(pool_account(p.a->manager).free_bytes, p.free_bytes);
        script(p.b->qmp, INSERT(0) DEVICES("<0 4G 1G>", "1G") "reply\n");
        script(p.b->guest, "reply\nexpect online\nreply {'ranges':[" ONLINE("4G") "]}\n");
        RUN_UNTIL_END(p.a, j);
        assert_job(p.a, j, JOB_DONE, GIB, 0);
        assert_trace(p.a, j,
                "QUEUED SURVEYING OFFLINING UNPLUGGING VERIFYING SURVEYING PLUGGING ONLINING VERIFYING DONE");
        assert_non_null(
                strstr(j->notes[j->n_notes - 1], "1 GiB is with web2, 0 B is back with web1 and 0 B is"));
        assert_int_equal(j->movable_bytes, GIB);
        end_pair(&p, 2 * GIB, 2 * GIB);
}

/* Half of it leaves, and so half of it arrives. */
static void test_partial_removal(void **state)
{
        struct pair p = start_pair(*state);

        script(p.a->guest,
                RELEASE("5G") "expect offline {'targets':[[4G,1G]]}\nfailure block-busy It is pinned\n"
                              "on offline failure block-busy It is pinned\non online reply "
                              "{'ranges':[" ONLINE("4G") "]}\n"
                                                         "on await-removed reply\n");
        script(p.a->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        script(p.b->guest, TAKE_ONLINE("4G"));
        script(p.b->qmp, PLUG(0) DEVICES("<0 4G 1G>", "1G") "reply\n");
        struct job *j = move(&p, MOVE(2 * GIB));
        RUN_UNTIL_END(p.a, j);
        assert_int_equal(j->state, JOB_PARTIAL);
        assert_int_equal(j->done_bytes, GIB);
        assert_true(j->n_reasons > 0);
        assert_non_null(strstr(j->reasons[0].error.message, "web1: "));
        end_pair(&p, 2 * GIB, 2 * GIB);
}

/* The receiver's guest does not take it: it goes back. */
static void test_goes_back(void **state)
{
        struct pair p = start_pair(*state);

        script(p.a->guest, RELEASE("5G") GONE TAKE_ONLINE("5G"));
        script(p.a->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n" PLUG(1)
                                 DEVICES(BOTH, "2G") "reply\n");
        script(p.b->qmp, MAKE(0) UNMAKE(0));
        script(p.b->guest, "expect prepare\nfailure zone-ratio There is too little kernel memory\n");
        struct job *j = move(&p, MOVE(GIB));
        RUN_UNTIL_END(p.a, j);
        assert_job(p.a, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_ZONE_RATIO, "web2: ");
        assert_non_null(
                strstr(j->notes[j->n_notes - 1], "0 B is with web2, 1 GiB is back with web1 and 0 B is"));
        end_pair(&p, 3 * GIB, GIB);
}

static void test_stays_in_the_pool(void **state)
{
        struct pair p = start_pair(*state);

        script(p.a->guest, RELEASE("5G") GONE);
        script(p.a->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        script(p.b->qmp, MAKE(0) UNMAKE(0));
        script(p.b->guest, "expect prepare\nfailure zone-ratio There is too little kernel memory\n");
        struct job *j = move(&p, MOVE(GIB, .return_to_pool = true));
        RUN_UNTIL_END(p.a, j);
        assert_job(p.a, j, JOB_FAILED, 0, 1);
        assert_non_null(
                strstr(j->notes[j->n_notes - 1], "0 B is back with web1 and 1 GiB is free in the pool"));
        end_pair(&p, 2 * GIB, GIB);
}

/* The receiver's QEMU is killed while it is given the memory. */
static void test_receiver_killed(void **state)
{
        struct pair p = start_pair(*state);

        script(p.a->guest, RELEASE("5G") GONE TAKE_ONLINE("5G"));
        script(p.a->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n" PLUG(1)
                                 DEVICES(BOTH, "2G") "reply\n");
        script(p.b->guest, "expect prepare\nreply\n");
        script(p.b->qmp, "expect object-add\nreply\nexpect device_add\nclose\n");
        struct job *j = move(&p, MOVE(GIB));
        RUN_UNTIL_END(p.a, j);
        assert_int_equal(j->state, JOB_FAILED);
        assert_int_equal(j->done_bytes, 0);
        assert_non_null(strstr(j->notes[j->n_notes - 1], "1 GiB is back with web1"));
        assert_int_equal(partition_current_bytes(p.b->p), 0);
        finish(p.a);
        assert_int_equal(partition_current_bytes(p.a->p), 3 * GIB);
        assert_int_equal(pool_account(p.a->manager).free_bytes, p.free_bytes + GIB);
        finish_second(p.a, p.b);
}

/* Cancelled in the middle: what has left goes back. */
static void test_cancelled(void **state)
{
        struct pair p = start_pair(*state);

        script(p.a->guest, RELEASE("5G") GONE);
        script(p.a->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        script(p.b->qmp, MAKE(0) UNMAKE(0));
        script(p.b->guest, "expect prepare @prepare\n");
        struct job *j = move(&p, MOVE(GIB));
        RUN_UNTIL(p.b, fake_finished(p.b->guest));
        script(p.a->guest, TAKE_ONLINE("5G"));
        script(p.a->qmp, PLUG(1) DEVICES(BOTH, "2G") "reply\n");
        expect_cancel(p.b);
        script(p.b->guest, "reply @prepare\n");
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(p.a, j);
        assert_job(p.a, j, JOB_CANCELLED, 0, 1);
        end_pair(&p, 3 * GIB, GIB);
}

/* Both are busy, others wait for their turn, and two that cross do not wait for each other. */
static void test_queue(void **state)
{
        struct pair p = start_pair(*state);
        struct error error;
        struct job *back, *third;

        script(p.a->guest, "expect offline @off\n");
        struct job *j = move(&p, MOVE(GIB));
        assert_int_equal(
                manager_submit(p.a->manager, p.b->p, p.a->p, MOVE(GIB, .dry_run = true), &back, &error), 0);
        assert_int_equal(
                manager_submit(p.a->manager, p.b->p, NULL, ADD(GIB, .dry_run = true), &third, &error), 0);
        RUN_UNTIL(p.a, fake_finished(p.a->guest));
        assert_int_equal(back->state, JOB_QUEUED);
        assert_int_equal(third->state, JOB_QUEUED);
        expect_cancel(p.a);
        script(p.a->guest, "reply @off {'complete':false,'ranges':[" ONLINE("5G") "]}\n");
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(p.a, third);
        assert_int_equal(j->state, JOB_CANCELLED);
        assert_job(p.a, back, JOB_FAILED, 0, 1); /* web2 has nothing plugged */
        assert_reason(back, 0, "", ERROR_NOT_PLUGGED, "web2: ");
        assert_job(p.a, third, JOB_DONE, 0, 0);
        end_pair(&p, 3 * GIB, GIB);
}

/* One that is cancelled in the queue lets those behind it go. */
static void test_cancelled_in_the_queue(void **state)
{
        struct pair p = start_pair(*state);
        struct error error;
        struct job *waits, *behind;

        script(p.a->guest, "expect offline @off\n");
        struct job *first = submit(p.a, REMOVE(GIB));
        assert_int_equal(manager_submit(p.a->manager, p.a->p, p.b->p, MOVE(GIB), &waits, &error), 0);
        assert_int_equal(
                manager_submit(p.a->manager, p.b->p, NULL, ADD(GIB, .dry_run = true), &behind, &error), 0);
        RUN_UNTIL(p.a, fake_finished(p.a->guest));
        assert_int_equal(behind->state, JOB_QUEUED);
        assert_null(p.b->p->active);
        job_stop(waits, JOB_STOP_CANCEL);
        RUN_UNTIL_END(p.a, behind);
        assert_job(p.a, behind, JOB_DONE, 0, 0);
        assert_job(p.a, waits, JOB_CANCELLED, 0, 1);
        expect_cancel(p.a);
        script(p.a->guest, "reply @off {'complete':false,'ranges':[" ONLINE("5G") "]}\n");
        job_stop(first, JOB_STOP_CANCEL);
        RUN_UNTIL_END(p.a, first);
        end_pair(&p, 3 * GIB, GIB);
}

static void test_refused(void **state)
{
        struct pair p = start_pair(*state);
        struct manager *m = p.a->manager;
        struct error error;
        struct job *j;

        assert_true(manager_submit(m, p.a->p, p.a->p, MOVE(GIB), &j, &error) < 0);
        assert_int_equal(error.code, ERROR_INVALID_ARGUMENT);
        assert_non_null(strstr(error.message, "itself"));
        assert_true(manager_submit(m, p.a->p, p.b->p, MOVE(0), &j, &error) < 0);
        assert_int_equal(error.code, ERROR_INVALID_SIZE);
        assert_true(manager_submit(m, p.b->p, p.a->p, MOVE(GIB), &j, &error) < 0);
        assert_int_equal(error.code, ERROR_NOT_PLUGGED);
        assert_true(manager_submit(m, p.a->p, p.b->p, MOVE(GIB + MIB), &j, &error) < 0);
        assert_int_equal(error.code, ERROR_UNALIGNED_SIZE);
        p.b->p->definition.profile.max_bytes = GIB;
        assert_true(manager_submit(m, p.a->p, p.b->p, MOVE(GIB), &j, &error) < 0);
        assert_int_equal(error.code, ERROR_BEYOND_MAX);
        assert_non_null(strstr(error.message, "web2"));
        p.b->p->definition.profile.max_bytes = 0;
        end_pair(&p, 3 * GIB, GIB);
}

/* The one that gives, or the one that gets, is undefined in the middle. */
static void test_undefined(void **state)
{
        struct pair p = start_pair(*state);
        struct error error;

        script(p.a->guest, RELEASE("5G") GONE);
        script(p.a->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        script(p.b->qmp, MAKE(0));
        script(p.b->guest, "expect prepare\n");
        struct job *j = move(&p, MOVE(GIB));
        RUN_UNTIL(p.b, fake_finished(p.b->guest) && fake_finished(p.b->qmp));
        script(p.b->qmp, "expect object-del {'id':'opendlpar-mem-0'}\n");
        assert_int_equal(manager_undefine(p.a->manager, "web2", &error), 0);
        p.b->p = NULL;
        assert_true(job_state_is_end(j->state));
        assert_null(j->partition);
        assert_null(p.a->p->active);
        RUN_UNTIL(p.b, fake_finished(p.b->qmp));
        finish(p.a);
        assert_int_equal(partition_current_bytes(p.a->p), 2 * GIB);
        finish_second(p.a, p.b);
}

/* The one that gets is undefined while the other one's guest is at work: it is told to stop. */
static void test_undefined_while_it_leaves(void **state)
{
        struct pair p = start_pair(*state);
        struct error error;

        script(p.a->guest, "expect offline\n");
        struct job *j = move(&p, MOVE(GIB));
        RUN_UNTIL(p.a, fake_finished(p.a->guest));
        expect_cancel(p.a);
        assert_int_equal(manager_undefine(p.a->manager, "web2", &error), 0);
        p.b->p = NULL;
        assert_true(job_state_is_end(j->state));
        RUN_UNTIL(p.a, fake_finished(p.a->guest));
        finish(p.a);
        assert_int_equal(partition_current_bytes(p.a->p), 3 * GIB);
        finish_second(p.a, p.b);
}

static void on_reserved(uint32_t id, const struct error *error, void *userdata)
{
        assert_null(error);
}

/* An addition that waits behind a move: it may find that nothing has left, and what it needs then is held. */
static void test_addition_behind(void **state)
{
        struct pair p = start_pair(*state);
        struct manager *m = p.a->manager;
        struct error error;
        struct job *third;
        uint32_t id;

        assert_int_equal(pool_reserve(m, "others", p.free_bytes - GIB, USEC_PER_SEC, 0, on_reserved, NULL,
                                 &id, &error),
                0);
        script(p.a->guest, "expect offline @off\n");
        struct job *j = move(&p, MOVE(GIB)), *behind = submit(p.a, ADD(GIB));
        assert_int_equal(pool_account(m).free_bytes, 0);
        assert_int_equal(pool_requested_bytes(p.a->p), 3 * GIB);
        assert_true(manager_submit(m, p.b->p, NULL, ADD(GIB), &third, &error) < 0);
        assert_int_equal(error.code, ERROR_POOL_EXHAUSTED);
        RUN_UNTIL(p.a, fake_finished(p.a->guest));
        job_stop(behind, JOB_STOP_CANCEL);
        expect_cancel(p.a);
        script(p.a->guest, "reply @off {'complete':false,'ranges':[" ONLINE("5G") "]}\n");
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(p.a, j);
        assert_int_equal(pool_release(m, id, &error), 0);
        end_pair(&p, 3 * GIB, GIB);
}

/* web1's guest is reset while its move waits for web2: what it had comes back at once. */
static void test_restore_before_the_queue(void **state)
{
        struct pair p = start_pair(*state);
        struct error error;
        struct job *busy, *waits;

        script(p.b->qmp, MAKE(0) UNMAKE(0));
        script(p.b->guest, "expect prepare @prepare\n");
        assert_int_equal(manager_submit(p.a->manager, p.b->p, NULL, ADD(GIB), &busy, &error), 0);
        assert_int_equal(manager_submit(p.a->manager, p.a->p, p.b->p, MOVE(GIB), &waits, &error), 0);
        RUN_UNTIL(p.b, fake_finished(p.b->guest));
        assert_null(p.a->p->active);
        script(p.a->qmp, "event RESET {'guest':true,'reason':'guest-reset'}\n");
        RUN_UNTIL(p.a, agent_state(p.a->p->agent) == AGENT_WAITING);
        script(p.a->guest, "on get-state reply {" MEMORY("1G", "0", "512M") "}\n");
        script(p.a->guest, BLOCKS(",[4G,2G,'offline','unknown',0]") HELLO_OF_ANOTHER_BOOT "expect online\n");
        script(p.a->guest, BLOCKS(",[4G,2G,'online','movable',0]"));
        script(p.a->guest, "reply {'ranges':[[4G,2G,'online','movable',0]]}\n");
        RUN_UNTIL(p.a, fake_finished(p.a->guest) && !p.a->p->active);
        assert_int_equal(waits->state, JOB_QUEUED);
        job_stop(waits, JOB_STOP_CANCEL);
        expect_cancel(p.b);
        script(p.b->guest, "reply @prepare\n");
        job_stop(busy, JOB_STOP_CANCEL);
        RUN_UNTIL_END(p.a, busy);
        end_pair(&p, 3 * GIB, GIB);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_moved),
                TEST(test_partial_removal),
                TEST(test_goes_back),
                TEST(test_stays_in_the_pool),
                TEST(test_receiver_killed),
                TEST(test_cancelled),
                TEST(test_queue),
                TEST(test_cancelled_in_the_queue),
                TEST(test_refused),
                TEST(test_undefined),
                TEST(test_undefined_while_it_leaves),
                TEST(test_addition_behind),
                TEST(test_restore_before_the_queue),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
