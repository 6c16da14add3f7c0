/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

/* Additions and removals in a guest with hooks: when they are called and with what, what a refusal does and a
 * failure does not do, and that nobody else is asked. */

#define OFFLINE(a) "[" a ",1G,'offline','unknown',0]"
#define HOOK(phase, operation)                                                                               \
        "expect hook {'phase':'" phase "','operation':'" operation "','bytes':1G,'outcome':'none',"          \
        "'reason':'operator','done_bytes':0}\n"
#define CHECK(operation) HOOK("check", operation)
#define PRE(operation)   HOOK("pre", operation)
#define END(phase, outcome, done)                                                                            \
        "expect hook {'phase':'" phase "','bytes':1G,'outcome':'" outcome "','done_bytes':" done "}\n"
#define SAYS(name, code, text)                                                                               \
        "reply {'complete':false,'hooks':[{'name':'" name "','code':'" code "','message':'" text "'}]}\n"
#define NOTES(name, text) "reply {'hooks':[{'name':'" name "','code':'hook-skipped','message':'" text "'}]}\n"

static void start_one(struct fixture *fx)
{
        start_with_hooks(fx, DEVICES("<0 4G 1G>", "1G"),
                BLOCKS(",[4G,1G,'online','movable',0]") "on get-state reply {" MEMORY(
                        "1G", "1G", "512M") "}\n");
}

/* Both phases before anything else, and one behind. */
static void test_removal(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, CHECK("remove") "reply\n" PRE(
                                  "remove") "reply\n"
                                            "expect offline\nreply {'ranges':[" OFFLINE(
                                                    "4G") "]}\n"
                                                          "expect await-removed\n" BLOCKS("") "reply\n" END(
                                                                  "post", "done", "1G") "reply\n");
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING OFFLINING UNPLUGGING VERIFYING DONE");
        finish(fx);
}

static void test_addition(void **state)
{
        struct fixture *fx = *state;

        start_with_hooks(fx, "", "");
        script(fx->guest,
                "expect hook {'phase':'check','operation':'add','node':0,'job':1}\nreply\n" PRE(
                        "add") "reply\n"
                               "expect prepare\nreply\nexpect online\nreply {'ranges':[" ONLINE(
                                       "4G") "]}\n"
                                             "expect release\nreply\n" END("post", "done", "1G") "reply\n");
        script(fx->qmp, PLUG(0) DEVICES("<0 4G 1G>", "1G") "reply\n");
        struct job *j = submit(fx, &(struct job_request) { .kind = JOB_ADD_MEMORY, .bytes = GIB });
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        finish(fx);
}

/* Nothing was begun: nothing is undone, and QEMU hears nothing. */
static void test_veto(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, CHECK("remove") SAYS("50-db", "hook-refused", "A backup is running until 10:00"));
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_HOOK_REFUSED, "Hook 50-db, check: A backup is running until 10:00");
        finish(fx);
}

/* A guest's words are a stranger's. */
static void test_hostile_text(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest,
                CHECK("remove") "reply {'complete':false,'hooks':[{'name':'a','code':'accounts-differ',"
                                "'message':'x\\u001b[2Jy'}]}\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_HOOK_FAILED, "Hook a, check: x [2Jy");
        script(fx->guest, CHECK("remove") "reply {'complete':false}\n");
        j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_HOOK_FAILED, "do not say why");
        finish(fx);
}

static void test_pre_refuses(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest,
                CHECK("remove") "reply\n" PRE("remove") SAYS("50-db", "hook-failed",
                        "it crashed: signal 11") "expect hook "
                                                 "{'phase':'undo','outcome':'failed','done_bytes':0,"
                                                 "'reason':'Hook 50-db, pre: it crashed: signal 11'}\n" SAYS(
                                                         "50-db", "hook-failed", "it crashed again"));
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "", ERROR_HOOK_FAILED, "Hook 50-db, pre: it crashed: signal 11");
        assert_reason(j, 1, "", ERROR_HOOK_FAILED, "Hook 50-db, undo: it crashed again");
        finish(fx);
}

/* Those that are not run are told of once, and stop nothing; nor does one that fails at the end. */
static void test_notes(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest,
                CHECK("remove") NOTES("10-x", "not run: it is not executable (mode 0644)") PRE("remove")
                        NOTES("10-x", "not run: it is not executable (mode "
                                      "0644)") "expect offline\nreply "
                                               "{'ranges':[" OFFLINE("4G") "]}\n"
                                                                           "expect "
                                                                           "await-"
                                                                           "removed"
                                                                           "\n" BLOCKS("") "reply\n" END(
                                                                                   "post", "done", "1G")
                                                                                   SAYS("20-y",
                                                                                           "hook-"
                                                                                           "failed",
                                                                                           "no "
                                                                                           "disk"));
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 2);
        assert_reason(j, 0, "", ERROR_HOOK_SKIPPED, "Hook 10-x: not run: it is not executable (mode 0644)");
        assert_reason(j, 1, "", ERROR_HOOK_FAILED, "Hook 20-y, post: no disk");
        finish(fx);
}

/* Nothing could leave: undo. */
#define IS_FULL                                                                                              \
        "expect offline\nreply {'complete':false,'ranges':[" ONLINE(                                         \
                "4G") "],'failures':[{'start':4G,"                                                           \
                      "'length':128M,'code':'no-headroom','message':'It is full'}]}\n"

static void test_undo(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, CHECK("remove") "reply\n" PRE("remove") "reply\n");
        script(fx->guest, IS_FULL IS_FULL);
        script(fx->guest, "expect hook {'phase':'undo','outcome':'failed','reason':'It is full'}\nreply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        finish(fx);
}

/* Cancelled in PRE: the guest is told to stop, and then to undo. */
static void test_cancel(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, CHECK("remove") "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        script(fx->guest, "expect hook @pre {'phase':'pre'}\n");
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        script(fx->guest, "reply @pre {'complete':false,'hooks':[{'name':'a','code':'hook-failed',"
                          "'message':'it was killed: the operation was cancelled'}]}\n"
                          "expect hook {'phase':'undo','outcome':'cancelled'}\nreply\n");
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_CANCELLED, 0, 2);
        assert_reason(j, 0, "", ERROR_HOOK_FAILED, "it was killed");
        assert_reason(j, 1, "", ERROR_CANCELLED, "cancelled");
        finish(fx);
}

/* Undo takes long: a job that was stopped does not wait for it. */
static void test_cancel_is_quick(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, CHECK("remove") "reply\n"
                                          "expect hook @pre {'phase':'pre'}\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        script(fx->guest, "reply @pre {'complete':false}\nexpect hook @undo {'phase':'undo'}\n");
        uint64_t begin = now_monotonic_usec();
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_true(now_monotonic_usec() - begin < 2 * USEC_PER_SEC);
        assert_job(fx, j, JOB_CANCELLED, 0, 2);
        assert_reason(j, 0, "", ERROR_HOOK_FAILED, "still at work (undo)");
        script(fx->guest, "reply @undo\n");
        finish(fx);
}

/* One that is cancelled while its hooks hear that it is done is done. */
static void test_cancel_at_end(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest,
                CHECK("remove") "reply\n" PRE(
                        "remove") "reply\n"
                                  "expect offline\nreply {'ranges':[" OFFLINE(
                                          "4G") "]}\n"
                                                "expect await-removed\n" BLOCKS(
                                                        "") "reply\nexpect hook {'phase':'post'}\n");
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        job_stop(j, JOB_STOP_CANCEL);
        job_stop(j, JOB_STOP_DEADLINE);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 1);
        assert_reason(j, 0, "", ERROR_HOOK_FAILED, "still at work (post)");
        finish(fx);
}

static void test_deadline(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, "expect hook @check {'phase':'check'}\n");
        struct job *j = submit(fx, REMOVE(GIB, .wait_usec = 300 * USEC_PER_MSEC));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        script(fx->guest, "reply @check {'complete':false}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_DEADLINE, "0.3 s");
        finish(fx);
}

/* Only CHECK; what is not run is told of in the plan. */
static void test_dry_run(void **state)
{
        struct fixture *fx = *state;

        start_with_hooks(fx, "", "");
        script(fx->guest, CHECK("add") NOTES("10-x", "not run: it is not executable"));
        struct job *j = submit(fx, ADD(GIB, .dry_run = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        assert_int_equal(j->n_plan, 2);
        assert_string_equal(j->plan[1], "Hook 10-x: not run: it is not executable");
        script(fx->guest, CHECK("add") SAYS("10-x", "hook-refused", "no"));
        j = submit(fx, ADD(GIB, .dry_run = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_int_equal(j->n_plan, 1);
        finish(fx);
}

/* The guest cannot run them: nobody can say yes. */
static void test_cannot_run(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, CHECK("remove") "failure internal The program is missing\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_INTERNAL, "Hooks, check: The program is missing");
        finish(fx);
}

/* The guest says that they came and went, by the event that there is. */
static void test_come_and_go(void **state)
{
        struct fixture *fx = *state;

        start_fakes(fx, "", "");
        start_manager(fx);
        run_until_known(fx);
        /* Without the capability a guest's word counts for nothing. */
        script(fx->guest, "send {'type':'event','event':'blocks-changed','hooks':true}\n");
        RUN_UNTIL(fx, agent_hello(fx->p->agent)->hooks);
        struct job *j = submit(fx, ADD(GIB, .dry_run = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        script(fx->guest, "hello {'capabilities':['hooks']}\nexpect welcome\n");
        RUN_UNTIL(fx, fake_finished(fx->guest) && !agent_hello(fx->p->agent)->hooks);
        run_until_known(fx);
        j = submit(fx, ADD(GIB, .dry_run = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        script(fx->guest, "send {'type':'event','event':'blocks-changed','hooks':true}\n");
        RUN_UNTIL(fx, agent_hello(fx->p->agent)->hooks);
        script(fx->guest, CHECK("add") SAYS("a", "hook-refused", "no"));
        j = submit(fx, ADD(GIB, .dry_run = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        script(fx->guest, "event blocks-changed\n"); /* no word about hooks: as before */
        script(fx->guest, "send {'type':'event','event':'blocks-changed','hooks':false}\n");
        RUN_UNTIL(fx, !agent_hello(fx->p->agent)->hooks);
        j = submit(fx, ADD(GIB, .dry_run = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        finish(fx);
}

/* guestd restarts in PRE: it is asked again, and nothing is settled behind the job's back. */
static void test_restart(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, CHECK("remove") "reply\nexpect hook {'phase':'pre'}\n"
                                          "hello {'capabilities':['hooks'],'hooks':true}\nexpect welcome\n"
                                          "expect hook {'phase':'pre'}\n" SAYS("a", "hook-refused",
                                                  "no") "expect hook {'phase':'undo'}\nreply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        finish(fx);
}

/* hvd was killed between plug and online: what it began is completed first, and only then settled. */
static void test_settle_after_restore(void **state)
{
        struct fixture *fx = *state;

        start_fakes_with_hooks(fx, DEVICES("<0 4G 1G>", "1G"), BLOCKS("," OFFLINE("4G")));
        script(fx->guest, "expect online {'targets':[[4G,1G]]}\n" BLOCKS(
                                  "," ONLINE("4G")) "reply {'ranges':[" ONLINE("4G") "]}\n" SETTLE);
        start_manager(fx);
        RUN_UNTIL(fx, fx->n_ended == 1);
        finish(fx);
        assert_int_equal(fx->n_added, 1);
}

/* A restore that fails is not repeated, and the hooks do not wait for it for ever. */
static void test_settle_after_failed_restore(void **state)
{
        struct fixture *fx = *state;

        start_fakes_with_hooks(fx, DEVICES("<0 4G 1G>", "1G"), BLOCKS("," OFFLINE("4G")));
        script(fx->guest, "expect online\nfailure internal No process\n" SETTLE);
        start_manager(fx);
        RUN_UNTIL(fx, fx->n_ended == 1);
        finish(fx);
}

/* The guest has not shown the blocks of what was plugged yet. */
static void test_settle_after_blocks(void **state)
{
        struct fixture *fx = *state;

        start_fakes_with_hooks(fx, DEVICES("<0 4G 1G>", "1G"), BLOCKS(""));
        start_manager(fx);
        run_until_known(fx);
        assert_true(fx->p->hooks_owed_usec > 0); /* and a message that was not expected fails the test */
        script(fx->guest, BLOCKS("," ONLINE("4G")) "event blocks-changed\n" SETTLE);
        finish(fx);
        RUN_UNTIL(fx, fx->p->hooks_owed_usec == 0);
}

/* A job that begins before that goes first. */
static void test_settle_after_job(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest, "expect hook @check {'phase':'check'}\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        script(fx->guest, "hello {'capabilities':['hooks'],'hooks':true}\nexpect welcome\n"
                          "expect hook {'phase':'check'}\n" SAYS("a", "hook-refused", "no") SETTLE);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        finish(fx);
}

/* A guest that is gone settles by itself. */
static void test_gone_at_end(void **state)
{
        struct fixture *fx = *state;

        start_one(fx);
        script(fx->guest,
                CHECK("remove") "reply\n" PRE(
                        "remove") "reply\nexpect offline\n"
                                  "hello {'boot_id':'22222222-2222-2222-2222-222222222222'}\nexpect "
                                  "welcome\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        finish(fx);
}

/* The partition goes while its hooks are asked. */
static void test_undefined(void **state)
{
        struct fixture *fx = *state;
        struct error error;

        start_one(fx);
        script(fx->guest, "expect hook {'phase':'check'}\nexpect-close\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL(fx, fake_n_received(fx->guest) >= 5);
        uint32_t id = j->id;
        assert_int_equal(manager_undefine(fx->manager, "web1", &error), 0);
        fx->p = NULL;
        j = manager_find_job(fx->manager, id);
        assert_int_equal(j->state, JOB_FAILED);
        RUN_UNTIL(fx, fake_finished(fx->guest));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

/* Its memory was to go to another one, which is undefined meanwhile. */
static void test_receiver_undefined(void **state)
{
        struct fixture *fx = *state, *second;
        struct error error;
        struct job *j;

        start_one(fx);
        second = start_second(fx, "web2", "", "");
        RUN_UNTIL(fx, partition_is_settled(fx->p) && partition_is_settled(second->p));
        script(fx->guest, CHECK("remove") "reply\n" PRE("remove") "reply\nexpect offline\n");
        assert_int_equal(manager_submit(fx->manager, fx->p, second->p, MOVE(GIB), &j, &error), 0);
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        script(fx->guest, SETTLE);
        assert_int_equal(manager_undefine(fx->manager, "web2", &error), 0);
        second->p = NULL;
        RUN_UNTIL(fx, fake_finished(fx->guest));
        finish(fx);
        finish_second(fx, second);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_removal),
                TEST(test_addition),
                TEST(test_veto),
                TEST(test_hostile_text),
                TEST(test_pre_refuses),
                TEST(test_notes),
                TEST(test_undo),
                TEST(test_cancel),
                TEST(test_cancel_is_quick),
                TEST(test_cancel_at_end),
                TEST(test_deadline),
                TEST(test_dry_run),
                TEST(test_cannot_run),
                TEST(test_come_and_go),
                TEST(test_restart),
                TEST(test_settle_after_restore),
                TEST(test_settle_after_failed_restore),
                TEST(test_settle_after_blocks),
                TEST(test_settle_after_job),
                TEST(test_gone_at_end),
                TEST(test_undefined),
                TEST(test_receiver_undefined),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
