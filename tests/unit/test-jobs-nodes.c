/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

/* Guests of several NUMA nodes: where memory goes, where it is taken from, and nodes that there are not. */

#define NUMA                                                                                                 \
        "on human-monitor-command {'command-line':'info numa'} reply '2 nodes\\r\\nnode 0 cpus: 0\\r\\n"     \
        "node 0 size: 1536 MB\\r\\nnode 0 plugged: 1024 MB\\r\\nnode 1 cpus:\\r\\nnode 1 size: 512 MB\\r\\n" \
        "node 1 plugged: 0 MB\\r\\n'\n"
#define OFFLINE(a) "[" a ",1G,'offline','unknown',0]"
#define RELEASE(a) "expect offline {'targets':[[" a ",1G]]}\nreply {'ranges':[" OFFLINE(a) "]}\n"
#define REFUSE(a)                                                                                            \
        "expect offline {'targets':[[" a ",1G]]}\n"                                                          \
        "reply {'complete':false,'ranges':[" ONLINE(                                                         \
                a) "],'failures':[{'start':" a ",'length':128M,"                                             \
                   "'code':'block-busy','message':'A page is pinned'}]}\n"
#define PLUG_IN(n, node)                                                                                     \
        "expect object-add {'id':'opendlpar-mem-" #n "'}\nreply\n"                                           \
        "expect device_add {'id':'opendlpar-dimm-" #n "','node':" #node "}\n" TAKE(n)

/* Node 0 has two devices, node 1 has one. */
static void start_three(struct fixture *fx)
{
        start(fx, NUMA DEVICES("<0 4G 1G 0>,<1 5G 1G 0>,<2 6G 1G 1>", "3G"),
                BLOCKS(",[4G,2G,'online','movable',0],[6G,1G,'online','movable',1]") "on get-state reply "
                                                                                     "{" MEMORY("1G", "3G",
                                                                                             "512M") "}\n");
}

static struct job_request on_node(const struct job_request *request, int node)
{
        struct job_request r = *request;

        r.node = node;
        return r;
}

static void assert_refused(
        struct fixture *fx, const struct job_request *request, enum error_code code, const char *part)
{
        struct error error = { 0 };
        struct job *j;

        assert_true(manager_submit(fx->manager, fx->p, NULL, request, &j, &error) < 0);
        if (error.code != code || !strstr(error.message, part))
                fail_msg("%s: %s", error_code_name(error.code), error.message);
}

static void test_known_nodes(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        assert_int_equal(fx->p->snapshot.n_nodes, 2);
        assert_int_equal(fx->p->snapshot.node_base_bytes[0], 512 * MIB);
        assert_int_equal(fx->p->snapshot.node_base_bytes[1], 512 * MIB);
        finish(fx);
}

/* Before anything is sent to either end: the scripts expect nothing. */
static void test_refused_at_once(void **state)
{
        struct fixture *fx = *state;
        struct job_request request;

        start_three(fx);
        request = on_node(ADD(GIB), 2);
        assert_refused(fx, &request, ERROR_UNKNOWN_NODE, "no NUMA node 2: it has nodes 0 and 1");
        request = on_node(ADD(GIB, .dry_run = true), 2);
        assert_refused(fx, &request, ERROR_UNKNOWN_NODE, "nodes 0 and 1");
        request = on_node(REMOVE(GIB), 2);
        assert_refused(fx, &request, ERROR_UNKNOWN_NODE, "nodes 0 and 1");
        request = on_node(REMOVE(0), 2);
        assert_refused(fx, &request, ERROR_UNKNOWN_NODE, "nodes 0 and 1");
        request = on_node(REMOVE(2 * GIB), 1);
        assert_refused(fx, &request, ERROR_NOT_PLUGGED, "more than the 1G plugged in DIMMs in node 1");
        request = on_node(ADD(0), 1);
        assert_refused(fx, &request, ERROR_INVALID_SIZE, "zero");
        request = on_node(REMOVE(0, .device = "opendlpar-dimm-2"), 1);
        assert_refused(fx, &request, ERROR_INVALID_SIZE, "zero");
        fx->p->definition.profile.min_bytes = 3 * GIB + 1;
        request = on_node(REMOVE(0), 1);
        assert_refused(fx, &request, ERROR_NOT_PLUGGED, "its profile keeps");
        finish(fx);
        assert_int_equal(fx->n_added, 0);
}

static void test_node_with_base_memory_alone(void **state)
{
        struct fixture *fx = *state;
        struct job_request request;

        start(fx, NUMA DEVICES("<0 4G 1G 0>", "1G"), BLOCKS(",[4G,1G,'online','movable',0]"));
        request = on_node(REMOVE(0), 1);
        assert_refused(fx, &request, ERROR_NOT_PLUGGED, "Node 1 of partition 'web1' has no memory in DIMMs");
        request = on_node(REMOVE(GIB), 1);
        assert_refused(fx, &request, ERROR_NOT_PLUGGED, "No DIMM is plugged in node 1");
        finish(fx);
}

/* A QEMU that does not tell has the last word, which stays as clear. */
static void test_nodes_not_told(void **state)
{
        struct fixture *fx = *state;

        start(fx, "on human-monitor-command error CommandNotFound No such command\n", "");
        assert_int_equal(fx->p->snapshot.n_nodes, 0);
        script(fx->qmp, "expect object-add\nreply\nexpect device_add {'node':7}\nerror GenericError "
                        "'DIMM property node has value 7' which exceeds the number of numa nodes: 2\n"
                        "expect object-del\nreply\n");
        script(fx->guest, "expect prepare\nreply\n");
        struct job_request request = on_node(ADD(GIB), 7);
        struct job *j = submit(fx, &request);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_UNKNOWN_NODE, "nodes 0 to 1");
        finish(fx);
}

static void test_whole_node(void **state)
{
        struct fixture *fx = *state;

        start(fx, NUMA DEVICES("<0 4G 1G 0>,<1 5G 1G 1>", "2G"),
                BLOCKS(",[4G,1G,'online','movable',0],[5G,1G,'online','movable',1]") "on get-state reply "
                                                                                     "{" MEMORY("1G", "2G",
                                                                                             "512M") "}\n");
        script(fx->guest, RELEASE("5G") "expect await-removed {'targets':[[5G,1G]]}\nreply\n");
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G 0>", "1G") LEAVE(1) "reply\n");
        struct job_request request = on_node(REMOVE(0), 1);
        struct job *j = submit(fx, &request);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_int_equal(j->request.bytes, GIB);
        finish(fx);
}

static void test_whole_node_partly(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest, REFUSE("5G") RELEASE("4G")
                                  REFUSE("5G") "expect await-removed {'targets':[[4G,1G]]}\nreply\n");
        script(fx->qmp, UNPLUG(0) DEVICES("<1 5G 1G 0>,<2 6G 1G 1>", "2G") LEAVE(0) "reply\n");
        struct job_request request = on_node(REMOVE(0), 0);
        struct job *j = submit(fx, &request);
        RUN_UNTIL_END(fx, j);
        /* Node 1 could have given as much, and was not asked. */
        assert_job(fx, j, JOB_PARTIAL, GIB, 1);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_BLOCK_BUSY, "pinned");
        finish(fx);
}

static void test_whole_node_dry_run(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        struct job_request request = on_node(REMOVE(0, .dry_run = true), 0);
        struct job *j = submit(fx, &request);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        assert_int_equal(j->request.bytes, 2 * GIB);
        assert_non_null(strstr(j->plan[0], "opendlpar-dimm-1"));
        assert_non_null(strstr(j->plan[1], "opendlpar-dimm-0"));
        finish(fx);
}

/* Queued behind another one: what the node has is looked up when its turn comes, or never. */
static void test_whole_node_queued(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest, "expect offline {'targets':[[5G,1G]]}\n");
        struct job *first = submit(fx, REMOVE(GIB, .device = "opendlpar-dimm-1"));
        struct job_request request = on_node(REMOVE(0), 1);
        struct job *second = submit(fx, &request), *third = submit(fx, &request);
        assert_int_equal(second->request.bytes, 0);
        job_stop(third, JOB_STOP_CANCEL);
        RUN_UNTIL_END(fx, third);
        assert_job(fx, third, JOB_CANCELLED, 0, 1);
        assert_reason(third, 0, "", ERROR_CANCELLED, "");
        script(fx->guest,
                "reply {'complete':false,'ranges':[" ONLINE(
                        "5G") "],'failures':[{'start':5G,'length':128M,'code':'block-busy','message':'No'}]}"
                              "\n" REFUSE("5G") RELEASE("6G") "expect await-removed\n" BLOCKS(
                                      ",[4G,2G,'online','movable',"
                                      "0]") "reply\n");
        script(fx->qmp, UNPLUG(2) DEVICES("<0 4G 1G 0>,<1 5G 1G 0>", "2G") LEAVE(2) "reply\n");
        RUN_UNTIL_END(fx, second);
        assert_job(fx, first, JOB_FAILED, 0, 1);
        assert_job(fx, second, JOB_DONE, GIB, 0);
        assert_int_equal(second->request.bytes, GIB);
        finish(fx);
}

/* Unasked, each piece goes where there is least; here node 0 has more already. */
static void test_addition_spreads(void **state)
{
        struct fixture *fx = *state;

        start(fx, NUMA DEVICES("<0 4G 1G 0>", "1G"),
                BLOCKS(",[4G,1G,'online','movable',0]") "on get-state reply {" MEMORY(
                        "1G", "1G", "512M") "}\n");
        script(fx->qmp, PLUG_IN(1, 1) DEVICES("<0 4G 1G 0>,<1 5G 1G 1>", "2G") "reply\n");
        script(fx->guest, "expect prepare\nreply\nexpect online {'targets':[[5G,1G]]}\n"
                          "reply {'ranges':[[5G,1G,'online','movable',1]]}\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_non_null(strstr(j->plan[0], "into node 1"));
        finish(fx);
}

/* A kernel that puts all into one node is no failure where none was asked for. */
static void test_guest_without_numa(void **state)
{
        struct fixture *fx = *state;

        start(fx, NUMA DEVICES("<0 4G 1G 0>", "1G"),
                BLOCKS(",[4G,1G,'online','movable',0]") "on get-state reply {" MEMORY(
                        "1G", "1G", "512M") "}\n");
        script(fx->qmp, PLUG_IN(1, 1) DEVICES("<0 4G 1G 0>,<1 5G 1G 1>", "2G") "reply\n");
        script(fx->guest, "expect prepare\nreply\nexpect online\n"
                          "reply {'ranges':[[5G,1G,'online','movable',0]]}\n");
        struct job *j = submit(fx, ADD(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        finish(fx);
}

/* Asked for, it is: what came elsewhere leaves again. */
static void test_other_node_in_the_guest(void **state)
{
        struct fixture *fx = *state;

        start(fx, NUMA, "on get-state reply {" MEMORY("1G", "0", "512M") "}\n");
        script(fx->qmp, PLUG_IN(0, 1) DEVICES("<0 4G 1G 1>", "1G") "reply\n");
        script(fx->guest, "expect prepare\nreply\nexpect online\n"
                          "reply {'ranges':[[4G,1G,'online','movable',0]]}\n" RELEASE("4G"));
        struct job_request request = on_node(ADD(GIB), 1);
        struct job *j = submit(fx, &request);
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_ACCOUNTS_DIFFER, "the guest's kernel in node 0");
        finish(fx);
}

static void test_other_node_in_qemu(void **state)
{
        struct fixture *fx = *state;

        start(fx, NUMA, "on get-state reply {" MEMORY("1G", "0", "512M") "}\n");
        script(fx->qmp, PLUG_IN(0, 1) DEVICES("<0 4G 1G 0>", "1G") "reply\n");
        script(fx->guest, "expect prepare\nreply\nexpect online\n"
                          "reply {'ranges':[[4G,1G,'online','movable',1]]}\n" RELEASE("4G"));
        struct job_request request = on_node(ADD(GIB), 1);
        struct job *j = submit(fx, &request);
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->qmp, UNPLUG(0) DEVICES("", "0") LEAVE(0) "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(
                j, 0, "opendlpar-dimm-0", ERROR_ACCOUNTS_DIFFER, "QEMU has it in node 0, not in node 1");
        finish(fx);
}

static void test_removal_from_the_fuller_node(void **state)
{
        struct fixture *fx = *state;

        start_three(fx);
        script(fx->guest, RELEASE("5G") "expect await-removed {'targets':[[5G,1G]]}\nreply\n");
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G 0>,<2 6G 1G 1>", "2G") LEAVE(1) "reply\n");
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        finish(fx);
}

/* Kernel memory that zone Movable needs beside it is not taken, and the reason says so. */
static void test_zone_ratio(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES("<0 4G 1G>,<1 5G 1G>", "2G"),
                BLOCKS(",[4G,1G,'online','kernel',0],[5G,1G,'online','movable',0]") "on get-state reply "
                                                                                    "{" MEMORY("2G", "6G",
                                                                                            "512M") "}\n");
        script(fx->guest, REFUSE("5G") REFUSE("5G"));
        struct job *j = submit(fx, REMOVE(GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "", ERROR_ZONE_RATIO, "kernel memory");
        assert_reason(j, 1, "opendlpar-dimm-1", ERROR_BLOCK_BUSY, "pinned");
        finish(fx);
}

/* Right behind another removal it is not known what zone Movable has: the job asks. */
static void test_old_zones(void **state)
{
        struct fixture *fx = *state;
        const struct job_request *request = REMOVE(GIB, .dry_run = true);

        start(fx, DEVICES("<0 4G 1G>", "1G"),
                BLOCKS(",[4G,1G,'online','kernel',0]") "on get-state reply {" MEMORY(
                        "2G", "0", "512M") "}\n");
        RUN_UNTIL(fx, partition_is_settled(fx->p));
        fx->p->memory.movable_bytes = 6 * GIB;
        assert_int_equal(try_submit(fx, request), ERROR_ZONE_RATIO);
        unsettle(fx);
        struct job *j = submit(fx, request);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        assert_non_null(strstr(j->plan[0], "opendlpar-dimm-0"));
        finish(fx);
}

/* Allowed because Movable memory was to leave too, and that did not. */
static void test_zone_ratio_later(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES("<0 4G 1G>,<1 5G 1G>", "2G"),
                BLOCKS(",[4G,1G,'online','kernel',0],[5G,1G,'online','movable',0]") "on get-state reply "
                                                                                    "{" MEMORY("2G", "4G",
                                                                                            "512M") "}\n");
        script(fx->guest, REFUSE("5G") REFUSE("5G"));
        struct job *j = submit(fx, REMOVE(2 * GIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 2);
        assert_reason(j, 0, "opendlpar-dimm-0", ERROR_ZONE_RATIO, "too little of zone Movable");
        assert_reason(j, 1, "opendlpar-dimm-1", ERROR_BLOCK_BUSY, "pinned");
        finish(fx);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_known_nodes),
                TEST(test_refused_at_once),
                TEST(test_node_with_base_memory_alone),
                TEST(test_nodes_not_told),
                TEST(test_whole_node),
                TEST(test_whole_node_partly),
                TEST(test_whole_node_dry_run),
                TEST(test_whole_node_queued),
                TEST(test_addition_spreads),
                TEST(test_guest_without_numa),
                TEST(test_other_node_in_the_guest),
                TEST(test_other_node_in_qemu),
                TEST(test_removal_from_the_fuller_node),
                TEST(test_zone_ratio),
                TEST(test_old_zones),
                TEST(test_zone_ratio_later),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
