/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A pseries guest: memory in LMBs of 256 MiB, named by DRC index. */

#include "jobs-pseries.h"

/* --- methods --- */

static void test_methods(void **state)
{
        static const struct {
                const char *method;
                enum error_code on_x86, on_pseries;
        } rows[] = {
                { NULL, ERROR_NONE, ERROR_NONE },
                { "auto", ERROR_NONE, ERROR_NONE },
                { "dimm", ERROR_NONE, ERROR_UNKNOWN_METHOD },
                { "lmb", ERROR_UNKNOWN_METHOD, ERROR_NONE },
                { "LMB", ERROR_UNKNOWN_METHOD, ERROR_UNKNOWN_METHOD },
                { "drmgr", ERROR_UNKNOWN_METHOD, ERROR_UNKNOWN_METHOD },
                { "", ERROR_UNKNOWN_METHOD, ERROR_UNKNOWN_METHOD },
        };

        for (int pseries = 0; pseries < 2; pseries++) {
                void *again;
                fixture_setup(&again);
                struct fixture *fx = again;
                struct error error;
                struct job *j;

                if (pseries)
                        start_four(fx);
                else
                        start(fx, DEVICES(BOTH, "2G"), BLOCKS(",[4G,2G,'online','movable',0]"));
                for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                        enum error_code code = pseries ? rows[i].on_pseries : rows[i].on_x86;

                        assert_int_equal(
                                try_submit(fx, ADD(GIB, .method = rows[i].method, .dry_run = true)), code);
                        RUN_UNTIL(fx, !fx->p->active);
                        assert_int_equal(
                                try_submit(fx, REMOVE(GIB, .method = rows[i].method, .dry_run = true)), code);
                        RUN_UNTIL(fx, !fx->p->active);
                }
                /* The sentence says which method is the guest's. */
                const char *wrong = pseries ? "dimm" : "lmb";
                assert_true(
                        manager_submit(fx->manager, fx->p, NULL, ADD(GIB, .method = wrong), &j, &error) < 0);
                assert_non_null(strstr(
                        error.message, pseries ? "a pseries guest (ppc64)" : "no pseries guest (x86_64)"));
                assert_non_null(strstr(error.message, pseries ? "by method lmb" : "by method dimm"));
                finish(fx);
                fixture_teardown(&again);
        }
}

/* Accepted while QEMU has not said what it is; the job finds out, and changes nothing. */
static void test_method_found_wrong_later(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        script(fx->qmp, "close\nnegotiate\nexpect query-status @s\n");
        RUN_UNTIL(fx, fx->p->platform_up && !fx->p->has_snapshot &&
                              agent_state(fx->p->agent) == AGENT_READY && fake_finished(fx->qmp));
        struct job *j = submit(fx, ADD(GIB, .method = "lmb"));
        script(fx->qmp, "reply @s {'status':'running','running':true}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_UNKNOWN_METHOD, "by method dimm");
        finish(fx);
}

/* --- additions --- */

#define MAKE_LMB(n)                                                                                          \
        "expect object-add {'qom-type':'memory-backend-ram','id':'opendlpar-mem-" #n "','size':256M}\n"      \
        "reply\n"
#define INSERT_LMB(n)                                                                                        \
        "expect device_add {'driver':'pc-dimm','id':'opendlpar-dimm-" #n "','memdev':'opendlpar-mem-" #n     \
        "'}\n"
#define NEW_LMBS "<0 1G 256M>,<1 1280M 256M>,<2 1536M 256M>,<3 1792M 256M>"

/* An LMB is a device of its own, and there is no ACPI to wait for. */
static void test_add(void **state)
{
        struct fixture *fx = *state;

        start_pseries(fx, "", "");
        script(fx->qmp,
                MAKE_LMB(0) MAKE_LMB(1) MAKE_LMB(2) MAKE_LMB(3) INSERT_LMB(0) "reply\n" INSERT_LMB(
                        1) "reply\n" INSERT_LMB(2) "reply\n" INSERT_LMB(3) DEVICES(NEW_LMBS, "1G") "reply\n");
        script(fx->guest,
                "expect prepare {'zone':'movable','bytes':1G}\nreply\n"
                "expect online "
                "{'targets':[[1G,256M],[1280M,256M],[1536M,256M],[1792M,256M]],'zone':'movable'}\n"
                "reply {'ranges':[[1G,1G,'online','movable',0]]}\n" BLOCKS(",[1G,1G,'online','movable',0]"));
        uint64_t began = now_monotonic_usec();
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL_END(fx, j);
        assert_true(now_monotonic_usec() - began < 450 * USEC_PER_MSEC);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_int_equal(j->movable_bytes, GIB);
        assert_int_equal(j->n_plan, 4);
        finish(fx);
}

/* A guest whose blocks are smaller than LMBs still gets whole LMBs. */
static void test_granule(void **state)
{
        struct fixture *fx = *state;
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;

        start(fx, "on query-target reply {'arch':'ppc64'}\n", "");
        assert_int_equal(partition_block_bytes(fx->p), 128 * MIB);
        assert_int_equal(partition_plan_snapshot(fx->p, NULL, &s, &devices), 0);
        assert_int_equal(s.granule_bytes, MIB_256);
        assert_true(s.is_pseries);
        assert_int_equal(try_submit(fx, ADD(384 * MIB)), ERROR_UNALIGNED_SIZE);
        finish(fx);
}

/* What concerns all pieces is said once, and no backend stays. */
static void test_add_refused_for_all(void **state)
{
        static const struct {
                const char *words;
                enum error_code code;
                const char *part;
        } rows[] = {
                { "'DIMM property node has value 7' which exceeds the number of numa nodes: 2",
                        ERROR_UNKNOWN_NODE, "nodes 0 to 1" },
                { "device_add not allowed while migrating", ERROR_NOT_RUNNING, "being migrated" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct job_request request = *ADD(GIB);
                void *again;
                char text[300];
                fixture_setup(&again);
                struct fixture *fx = again;

                start_pseries(fx, "on object-add reply\non object-del reply\n", "on prepare reply\n");
                snprintf(text, sizeof(text), "on device_add {'node':7} error GenericError %s\n",
                        rows[i].words);
                script(fx->qmp, text);
                request.node = 7;
                struct job *j = submit(fx, &request);
                RUN_UNTIL_END(fx, j);
                assert_job(fx, j, JOB_FAILED, 0, 1);
                assert_reason(j, 0, "", rows[i].code, rows[i].part);
                finish(fx);
                fixture_teardown(&again);
        }
}

/* --- an addition that the guest has not finished --- */

#define TWO_LMBS      "[[1G,256M],[1280M,256M]]"
#define LMB_ABSENT(a) "[" a ",256M,'absent','unknown',0]"
#define MISSING(a)    "'failures':[{'start':" a ",'length':256M,'code':'block-missing','message':'Not here'}]"

/* Two LMBs are plugged, and the guest says of the request to see them online what is told. */
static void add_two(struct fixture *fx, const char *online_reply)
{
        start_pseries(fx, "", "");
        script(fx->qmp,
                MAKE_LMB(0) MAKE_LMB(1) INSERT_LMB(0) "reply\n" INSERT_LMB(1) DEVICES(TWO, "512M") "reply\n");
        script(fx->guest, "expect prepare\nreply\nexpect online {'targets':" TWO_LMBS "}\n");
        script(fx->guest, online_reply);
}

/* Until the guest has shown every block of a device QEMU is not told to take it out: the guest would give up
 * what it is doing. They come a moment later, and leave in order. */
static void test_withdrawn_after_it_has_come(void **state)
{
        struct fixture *fx = *state;

        add_two(fx, "");
        struct job *j = submit(fx, ADD(2 * MIB_256));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        expect_cancel(fx);
        script(fx->guest,
                "reply {'complete':false,'ranges':[" LMB_ONLINE("1G") "," LMB_ABSENT("1280M") "]," MISSING(
                        "1280M") "}\n"
                                 "expect online {'targets':[[1280M,256M]],'zone':'movable'}\nquiet 50\n"
                                 "reply {'ranges':[" LMB_ONLINE("1280M") "]}\n" RELEASE("1280M"));
        script(fx->qmp, UNPLUG(1) DEVICES("<0 1G 256M>", "256M") LEAVE(1) "reply\n");
        job_stop(j, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, MIB_256, 2);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_BLOCK_MISSING, "");
        assert_trace(fx, j, "QUEUED SURVEYING PLUGGING ONLINING WITHDRAWING VERIFYING PARTIAL");
        finish(fx);
}

/* None of it has come when the job ends: the guest is asked for all devices at once. */
static void test_withdrawn_together(void **state)
{
        struct fixture *fx = *state;

        add_two(fx, "reply {'complete':false,'ranges':[[1G,512M,'absent','unknown',0]]," MISSING(
                            "1G") "}\n"
                                  "expect online {'targets':" TWO_LMBS "}\n"
                                  "reply {'ranges':[[1G,512M,'online','movable',0]]}\n" RELEASE("1280M")
                                          RELEASE("1G"));
        script(fx->qmp, UNPLUG(1) DEVICES("<0 1G 256M>", "256M") LEAVE(1) "reply\n" UNPLUG(0) DEVICES("", "0")
                                LEAVE(0) "reply\n");
        struct job *j = submit(fx, ADD(2 * MIB_256));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        finish(fx);
}

/* One that does not come stays in QEMU, without a device_del, and is reported. */
static void test_never_comes(void **state)
{
        struct fixture *fx = *state;

        add_two(fx, "reply {'complete':false,'ranges':[" LMB_ONLINE("1G") "," LMB_ABSENT(
                            "1280M") "]," MISSING("1280M") "}\n"
                                                           "expect online {'targets':[[1280M,256M]]}\n"
                                                           "reply {'complete':false,'ranges':[" LMB_ABSENT(
                                                                   "1280M") "]," MISSING("1280M") "}\n");
        script(fx->guest, BLOCKS(",[1G,256M,'online','movable',0]"));
        struct job *j = submit(fx, ADD(2 * MIB_256));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, MIB_256, 2);
        assert_reason(j, 1, "opendlpar-dimm-1", ERROR_BLOCK_MISSING, "taken in 0 B of its 256 MiB");
        finish(fx);
        assert_false(is_pending(fx, "opendlpar-dimm-1"));
}

/* The guest gave them up between its two answers. */
static void test_given_up_while_withdrawn(void **state)
{
        struct fixture *fx = *state;

        add_two(fx, "reply {'complete':false,'ranges':[" LMB_ONLINE("1G") "," LMB_OFFLINE(
                            "1280M") "]}\n"
                                     "expect offline {'targets':[[1280M,256M]]}\n"
                                     "reply {'complete':false,'ranges':[" LMB_ABSENT("1280M") "]," MISSING(
                                             "1280M") "}\n");
        script(fx->guest, BLOCKS(",[1G,256M,'online','movable',0]"));
        struct job *j = submit(fx, ADD(2 * MIB_256));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, MIB_256, 2);
        assert_reason(j, 1, "opendlpar-dimm-1", ERROR_BLOCK_MISSING, "stays plugged");
        finish(fx);
}

/* guestd is silent while they are waited for: nothing is unplugged. */
static void test_silent_while_it_comes(void **state)
{
        struct fixture *fx = *state;

        add_two(fx, "reply {'complete':false,'ranges':[[1G,512M,'absent','unknown',0]]," MISSING(
                            "1G") "}\n"
                                  "expect online\nfailure internal Out of luck\n");
        script(fx->guest, BLOCKS(",[1G,512M,'online','movable',0]"));
        struct job *j = submit(fx, ADD(2 * MIB_256));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 4);
        assert_reason(j, 2, "opendlpar-dimm-1", ERROR_INTERNAL, "stays plugged");
        finish(fx);
}

/* --- by DRC index --- */

static void test_drc(void **state)
{
        struct fixture *fx = *state;

        start_four(fx);
        script(fx->guest, RELEASE("1G") REMOVED("1G"));
        script(fx->qmp, UNPLUG(0) DEVICES("<1 1280M 256M>,<2 1536M 512M>", "768M") LEAVE(0) "reply\n");
        struct job *j = submit(fx, REMOVE(MIB_256, DRC(0x80000004)));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, MIB_256, 0);
        assert_int_equal(j->n_plan, 1);
        assert_non_null(strstr(j->plan[0], "opendlpar-dimm-0"));
        assert_non_null(strstr(j->plan[0], "LMB 0x80000004"));
        finish(fx);
}

/* The whole of a larger device, by any of its LMBs. */
static void test_drc_of_a_larger_device(void **state)
{
        struct fixture *fx = *state;

        start_four(fx);
        struct job *j = submit(fx, REMOVE(512 * MIB, DRC(0x80000007), .method = "lmb", .dry_run = true));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        assert_int_equal(j->n_plan, 2); /* and that there was no survey */
        assert_non_null(strstr(j->plan[0], "opendlpar-dimm-2"));
        assert_non_null(strstr(j->plan[0], "LMBs 0x80000006 to 0x80000007"));
        finish(fx);
}

static void test_drc_refused(void **state)
{
        static const struct {
                uint32_t drc;
                uint64_t bytes;
                enum error_code code;
        } rows[] = {
                { 0, 256 * MIB, ERROR_UNKNOWN_DEVICE },
                { 4, 256 * MIB, ERROR_UNKNOWN_DEVICE },
                { 0x80000010, 256 * MIB, ERROR_UNKNOWN_DEVICE },
                { 0x80000000, 256 * MIB, ERROR_NOT_PLUGGED },
                { 0x80000003, 256 * MIB, ERROR_NOT_PLUGGED },
                { 0x80000007, 256 * MIB, ERROR_NO_EXACT_FIT },
                { 0x80000004, 512 * MIB, ERROR_NO_EXACT_FIT },
        };
        struct fixture *fx = *state;

        start_four(fx);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                assert_int_equal(try_submit(fx, REMOVE(rows[i].bytes, DRC(rows[i].drc))), rows[i].code);
        assert_int_equal(try_submit(fx, REMOVE(MIB_256, DRC(0x80000004), .device = "opendlpar-dimm-0")),
                ERROR_INVALID_ARGUMENT);
        finish(fx);
        assert_int_equal(fx->n_added, 0);
}

static void test_drc_on_x86(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES(BOTH, "2G"), BLOCKS(",[4G,2G,'online','movable',0]"));
        assert_int_equal(try_submit(fx, REMOVE(GIB, DRC(0x80000010))), ERROR_INVALID_ARGUMENT);
        finish(fx);
        assert_int_equal(fx->n_added, 0);
}

/* If that LMB will not go, no other one does in its place. */
static void test_drc_is_busy(void **state)
{
        struct fixture *fx = *state;

#define BUSY                                                                                                 \
        "expect offline {'targets':[[1G,256M]]}\n"                                                           \
        "reply {'complete':false,'ranges':[" LMB_ONLINE(                                                     \
                "1G") "],'failures':[{'start':1G,"                                                           \
                      "'length':256M,'code':'block-busy','message':'A page is pinned'}]}\n"
        start_four(fx);
        script(fx->guest, BUSY BUSY);
#undef BUSY
        struct job *j = submit(fx, REMOVE(MIB_256, DRC(0x80000004)));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_BLOCK_BUSY, "pinned");
        finish(fx);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_methods),
                TEST(test_method_found_wrong_later),
                TEST(test_add),
                TEST(test_granule),
                cmocka_unit_test(test_add_refused_for_all),
                TEST(test_withdrawn_after_it_has_come),
                TEST(test_withdrawn_together),
                TEST(test_never_comes),
                TEST(test_given_up_while_withdrawn),
                TEST(test_silent_while_it_comes),
                TEST(test_drc),
                TEST(test_drc_of_a_larger_device),
                TEST(test_drc_refused),
                TEST(test_drc_on_x86),
                TEST(test_drc_is_busy),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
