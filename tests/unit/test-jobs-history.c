/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What an hvd before this one was at: jobs that had ended are listed, and those that had not end with what
 * both ends tell of them. */

#include "jobs-fixture.h"

#include <stdlib.h>
#include <systemd/sd-id128.h>

#include "hvd/history.h"
#include "hvd/job.h"
#include "hvd/store/store.h"

#define GUEST_BOOT "11111111-1111-1111-1111-111111111111" /* the fake's */

static const char *boot_of(const char *guest)
{
        static char boots[2][RECORD_BOOT_MAX];
        static unsigned n;
        char *boot = boots[n++ % 2];
        sd_id128_t host;

        assert_int_equal(sd_id128_get_boot(&host), 0);
        snprintf(boot, RECORD_BOOT_MAX, SD_ID128_FORMAT_STR "/%s", SD_ID128_FORMAT_VAL(host), guest);
        return boot;
}

static void put(struct store *s, const char *kind, uint64_t bytes, uint64_t before_bytes,
        const struct store_job *more)
{
        struct store_job j = *more;
        uint32_t last;

        assert_int_equal(store_job_next_id(s, &last, NULL), 0);
        j.id = last;
        j.partition = "web1";
        j.kind = kind;
        j.state = j.state ?: "QUEUED";
        j.requested_bytes = bytes;
        j.before_bytes = before_bytes;
        j.created_usec = USEC_PER_SEC;
        j.deadline_usec = 31 * USEC_PER_SEC;
        j.boot = j.boot ?: boot_of(GUEST_BOOT);
        j.peer_boot = j.peer_boot ?: boot_of(GUEST_BOOT);
        assert_int_equal(store_job_put(s, &j, NULL), 0);
}
#define PUT(s, kind, bytes, before, ...) put(s, kind, bytes, before, &(struct store_job) { __VA_ARGS__ })

static void put_state(struct store *s, uint32_t job, unsigned n, const char *name)
{
        assert_int_equal(store_transition_put(s, job,
                                 &(struct store_transition) { n, (n + 1) * USEC_PER_SEC, name }, NULL),
                0);
}

static struct job *job_of(struct fixture *fx, uint32_t id)
{
        struct job *j = manager_find_job(fx->manager, id);

        assert_non_null(j);
        return j;
}

static void fill_ended(struct store *s)
{
        for (unsigned i = 0; i < MANAGER_JOBS_ENDED_KEPT + 5; i++)
                PUT(s, "add-memory", GIB, GIB, .state = "DONE", .done_bytes = GIB,
                        .ended_usec = 3 * USEC_PER_SEC);
        PUT(s, "remove-memory", 2 * GIB, 4 * GIB, .state = "PARTIAL", .done_bytes = GIB,
                .ended_usec = 9 * USEC_PER_SEC,
                .reasons =
                        "[{\"device\":\"opendlpar-dimm-1\",\"block\":\"0x140000000\",\"code\":\"block-busy\","
                        "\"message\":\"Busy\"},{\"code\":\"of another hvd\"},5]");
        PUT(s, "move-memory", GIB, GIB, .state = "DONE", .peer = "web2", .ended_usec = 9 * USEC_PER_SEC,
                .reasons = "no json");
        PUT(s, "shine-memory", GIB, GIB, .state = "DONE", .ended_usec = 9 * USEC_PER_SEC);
        put_state(s, MANAGER_JOBS_ENDED_KEPT + 6, 0, "QUEUED");
        put_state(s, MANAGER_JOBS_ENDED_KEPT + 6, 1, "SURVEYING");
        put_state(s, MANAGER_JOBS_ENDED_KEPT + 6, 2, "PARTIAL");
}

static void test_ended(void **state)
{
        struct fixture *fx = *state;
        unsigned n = 0;
        uint32_t last = 0;

        fx->fill_store = fill_ended;
        start(fx, "", "");
        for (struct job *j = manager_next_job(fx->manager, NULL); j;
                j = manager_next_job(fx->manager, j), n++) {
                assert_true(j->id > last);
                last = j->id;
        }
        assert_int_equal(
                n, MANAGER_JOBS_ENDED_KEPT - 1); /* of the kept ones, one is of no kind that there is */
        struct job *j = job_of(fx, MANAGER_JOBS_ENDED_KEPT + 6);
        assert_int_equal(j->state, JOB_PARTIAL);
        assert_int_equal(j->done_bytes, GIB);
        assert_int_equal(j->request.bytes, 2 * GIB);
        assert_int_equal(job_elapsed_usec(j), 8 * USEC_PER_SEC);
        assert_int_equal(j->request.wait_usec, 30 * USEC_PER_SEC);
        assert_int_equal(j->n_reasons, 3);
        assert_reason(j, 0, "opendlpar-dimm-1", ERROR_BLOCK_BUSY, "Busy");
        assert_string_equal(j->reasons[0].block, "0x140000000");
        assert_reason(j, 1, "", ERROR_INTERNAL, "");
        assert_int_equal(j->n_transitions, 3);
        assert_int_equal(j->transitions[2].state, JOB_PARTIAL);
        assert_int_equal(j->transitions[2].time_usec, 3 * USEC_PER_SEC);
        assert_string_equal(job_of(fx, last)->peer_name, "web2");
        assert_int_equal(job_of(fx, last)->n_reasons, 0);

        /* They make room for those that end now, the oldest first. */
        uint32_t first = manager_next_job(fx->manager, NULL)->id;
        for (unsigned i = 0; i < 3; i++) {
                j = submit(fx, ADD(GIB, .dry_run = true));
                RUN_UNTIL_END(fx, j);
        }
        assert_int_equal(manager_next_job(fx->manager, NULL)->id, first + 2);
        finish(fx);
}

static void assert_interrupted(
        struct fixture *fx, uint32_t id, enum job_state job_state, uint64_t done_bytes, const char *says)
{
        struct job *j = job_of(fx, id);

        RUN_UNTIL_END(fx, j);
        assert_int_equal(j->state, job_state);
        assert_int_equal(j->done_bytes, done_bytes);
        assert_reason(j, j->n_reasons - 1, "", ERROR_INTERRUPTED, says);
        assert_string_equal(j->waiting, "");
        assert_int_equal(j->transitions[j->n_transitions - 1].state, job_state);
}

static void fill_interrupted(struct store *s)
{
        PUT(s, "add-memory", 2 * GIB, GIB); /* all of it came */
        PUT(s, "add-memory", 4 * GIB, GIB); /* a part */
        PUT(s, "add-memory", GIB, 3 * GIB); /* nothing */
        PUT(s, "remove-memory", GIB, 4 * GIB, .reasons = "[{\"code\":\"block-busy\"}]");
        PUT(s, "set-memory", 0, GIB, .target_bytes = 3 * GIB);     /* grew */
        PUT(s, "set-memory", 0, 5 * GIB, .target_bytes = 2 * GIB); /* shrank by two of three */
        PUT(s, "remove-memory", 0, 4 * GIB);                       /* a whole node */
        PUT(s, "set-memory", 0, 3 * GIB, .target_bytes = 3 * GIB); /* had it already */
        PUT(s, "remove-memory", GIB, 4 * GIB, .boot = boot_of("another boot of it"));
        PUT(s, "add-memory", GIB, 0); /* had not begun */
        put_state(s, 1, 0, "QUEUED");
        put_state(s, 1, 1, "ONLINING");
        put_state(s, 2, 0, "DONE"); /* an end that is none */
}

/* 1 GiB at boot and 2 plugged, which the guest uses. */
static void test_interrupted(void **state)
{
        struct fixture *fx = *state;

        fx->fill_store = fill_interrupted;
        start_fakes(fx, DEVICES(BOTH, "2G"), BLOCKS("," ONLINE("4G") "," ONLINE("5G")));
        start_manager(fx);
        struct job *j = job_of(fx, 1);
        assert_int_equal(j->state, JOB_ONLINING);
        assert_non_null(strstr(j->waiting, "both ends"));
        job_stop(j, JOB_STOP_CANCEL); /* there is nothing to stop */
        assert_int_equal(j->state, JOB_ONLINING);
        assert_int_equal(job_of(fx, 2)->state, JOB_VERIFYING);
        assert_interrupted(fx, 10, JOB_FAILED, 0, "before the job began");

        assert_interrupted(fx, 1, JOB_DONE, 2 * GIB, "2 GiB has moved");
        assert_interrupted(fx, 2, JOB_PARTIAL, 2 * GIB, "2 GiB has moved");
        assert_interrupted(fx, 3, JOB_FAILED, 0, "nothing has moved");
        assert_interrupted(fx, 4, JOB_DONE, GIB, "1 GiB has moved");
        assert_int_equal(job_of(fx, 4)->n_reasons, 2);
        assert_interrupted(fx, 5, JOB_DONE, 2 * GIB, "2 GiB has moved");
        assert_int_equal(job_of(fx, 5)->direction, JOB_ADD_MEMORY);
        assert_interrupted(fx, 6, JOB_PARTIAL, 2 * GIB, "2 GiB has moved");
        assert_int_equal(job_of(fx, 6)->request.bytes, 3 * GIB);
        assert_interrupted(fx, 7, JOB_PARTIAL, GIB, "1 GiB has moved, of as much as the node had");
        assert_interrupted(fx, 8, JOB_DONE, 0, "nothing has moved");
        assert_interrupted(fx, 9, JOB_DONE, GIB, "1 GiB has moved");
        assert_int_equal(job_of(fx, 1)->current_bytes, 3 * GIB);
        finish(fx);
}

static void fill_unknown(struct store *s)
{
        /* another host's boot; with nothing plugged, another boot of the guest; an older hvd's, and its move
         */
        PUT(s, "remove-memory", GIB, 4 * GIB, .boot = "00000000000000000000000000000000/" GUEST_BOOT);
        PUT(s, "remove-memory", GIB, 4 * GIB, .boot = boot_of("another boot of it"));
        PUT(s, "add-memory", GIB, 0, .done_bytes = 512 * MIB);
        put_state(s, 3, 0, "QUEUED");
        put_state(s, 3, 1, "ONLINING");
        PUT(s, "move-memory", GIB, 4 * GIB, .peer = "web1");
}

static void test_unknown(void **state)
{
        struct fixture *fx = *state;

        fx->fill_store = fill_unknown;
        start(fx, "", "");
        assert_interrupted(fx, 1, JOB_FAILED, 0, "cannot tell");
        assert_interrupted(fx, 2, JOB_FAILED, 0, "cannot tell");
        assert_interrupted(fx, 3, JOB_PARTIAL, 512 * MIB, "cannot tell");
        assert_interrupted(fx, 4, JOB_FAILED, 0, "cannot tell");
        finish(fx);
}

static void fill_old(struct store *s)
{
        PUT(s, "add-memory", GIB, 0);
        PUT(s, "remove-memory", GIB, 2 * GIB);
        for (unsigned i = 0; i < MANAGER_JOBS_ENDED_KEPT; i++)
                PUT(s, "add-memory", GIB, GIB, .state = "DONE", .done_bytes = GIB,
                        .ended_usec = 3 * USEC_PER_SEC);
}

/* Jobs that waited for long: as they end, others are forgotten. */
static void test_old(void **state)
{
        struct fixture *fx = *state;

        fx->fill_store = fill_old;
        start(fx, "", "");
        assert_interrupted(fx, 1, JOB_FAILED, 0, "before the job began");
        assert_interrupted(fx, 2, JOB_DONE, GIB, "1 GiB has moved");
        assert_null(manager_find_job(fx->manager, 3));
        assert_null(manager_find_job(fx->manager, 4));
        assert_non_null(manager_find_job(fx->manager, 5));
        finish(fx);
}

static void fill_move(struct store *s)
{
        PUT(s, "move-memory", 2 * GIB, 3 * GIB, .peer = "web2", .peer_before_bytes = GIB);
        PUT(s, "move-memory", 2 * GIB, 3 * GIB, .peer = "gone", .peer_before_bytes = GIB);
}

/* Of a move both partitions have to be heard; others wait for that, for a while. */
static void test_move(void **state)
{
        struct fixture *fx = *state;

        fx->fill_store = fill_move;
        start(fx, "", "");
        assert_int_equal(job_of(fx, 1)->state, JOB_QUEUED);
        struct fixture *other =
                start_second(fx, "web2", DEVICES("<0 4G 1G>", "1G"), BLOCKS("," ONLINE("4G")));
        assert_interrupted(fx, 1, JOB_PARTIAL, GIB, "2 GiB has left 'web1', and 1 GiB has come to 'web2'");
        assert_int_equal(job_of(fx, 1)->freed_bytes, 2 * GIB);

        struct job *dry = submit(fx, ADD(GIB, .dry_run = true)), *j = submit(fx, ADD(GIB));
        RUN_UNTIL_END(fx, dry);
        assert_int_equal(j->state, JOB_QUEUED);
        assert_non_null(strstr(j->waiting, "has to end first"));
        assert_int_equal(job_of(fx, 2)->state, JOB_QUEUED);
        script(fx->qmp, MAKE(0) UNMAKE(0));
        script(fx->guest, "expect prepare\nfailure internal Out of luck\n");
        job_of(fx, 2)->deadline_usec = 0; /* the while is over */
        assert_interrupted(fx, 2, JOB_FAILED, 0, "cannot tell");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_string_equal(j->waiting, "");
        finish(fx);
        finish_second(fx, other);
}

static void fill_two(struct store *s)
{
        PUT(s, "remove-memory", GIB, 3 * GIB);
        PUT(s, "move-memory", GIB, 3 * GIB, .peer = "web1", .peer_before_bytes = GIB);
}

/* What is on its way yet is not told as moved. */
#define VIRTIO_MEM(size, requested)                                                                          \
        DEVICES("{'type':'virtio-mem','data':{'id':'vm0','memdev':'/objects/x','memaddr':8G,'size':" size    \
                ",'max-size':4G,'requested-size':" requested ",'block-size':2M,'node':0}}",                  \
                size)
static void test_under_way(void **state)
{
        struct fixture *fx = *state;

        fx->fill_store = fill_two;
        start(fx, VIRTIO_MEM("2G", "1G"), BLOCKS(",[8G,2G,'online','movable',0]"));
        assert_int_equal(job_of(fx, 1)->state, JOB_QUEUED);
        script(fx->qmp,
                VIRTIO_MEM("1G", "1G") "event MEMORY_DEVICE_SIZE_CHANGE "
                                       "{'id':'vm0','size':1G,'qom-path':'/machine/peripheral/vm0'}\n");
        assert_interrupted(fx, 1, JOB_DONE, GIB, "1 GiB has moved");
        finish(fx);
}

/* A partition that is undefined takes its jobs along. */
static void test_undefined(void **state)
{
        struct fixture *fx = *state;
        struct error error;

        fx->fill_store = fill_two;
        start(fx, VIRTIO_MEM("2G", "1G"), "");
        assert_int_equal(manager_undefine(fx->manager, "web1", &error), 0);
        fx->p = NULL;
        assert_interrupted(fx, 1, JOB_FAILED, 0, "cannot tell");
        assert_interrupted(fx, 2, JOB_FAILED, 0, "cannot tell");
}

static void fill_offline(struct store *s)
{
        PUT(s, "add-memory", 2 * GIB, GIB);
}

/* What is plugged and not in use has not come; but it is brought online before that is told. */
static void test_offline(void **state)
{
        struct fixture *fx = *state;

        fx->fill_store = fill_offline;
        start_fakes(fx, DEVICES(BOTH, "2G"), BLOCKS("," ONLINE("4G") ",[5G,1G,'offline','none',0]"));
        script(fx->guest, "expect online {'targets':[[5G,1G]]}\n");
        start_manager(fx);
        RUN_UNTIL(fx, fake_finished(fx->guest));
        assert_int_equal(job_of(fx, 1)->state, JOB_QUEUED);
        script(fx->guest,
                "reply {'ranges':[[5G,1G,'online','movable',0]],'failures':[],'complete':true}\n" BLOCKS(
                        "," ONLINE("4G") "," ONLINE("5G")));
        assert_interrupted(fx, 1, JOB_DONE, 2 * GIB, "2 GiB has moved");
        finish(fx);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_ended),
                TEST(test_interrupted),
                TEST(test_unknown),
                TEST(test_old),
                TEST(test_move),
                TEST(test_under_way),
                TEST(test_undefined),
                TEST(test_offline),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
