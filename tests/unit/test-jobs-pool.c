/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

#include <unistd.h>

#include "hvd/metering.h"
#include "hvd/pool.h"
#include "hvd/record.h"

/* The pool: what is held, what is refused, and what is reserved and taken back. The fixture's has 1 TiB. */

#define TOTAL      (1024 * GIB)
#define OFFLINE(a) "[" a ",1G,'offline','unknown',0]"
#define LEAVING                                                                                              \
        "expect offline {'targets':[[5G,1G]]}\nreply {'ranges':[" OFFLINE("5G") "]}\nexpect await-removed\n" \
                                                                                "reply\n"

struct answer {
        unsigned n;
        uint32_t id;
        enum error_code code;
        char message[ERROR_MESSAGE_MAX];
};

static void on_reserved(uint32_t id, const struct error *error, void *userdata)
{
        struct answer *a = userdata;

        a->n++;
        a->id = id;
        a->code = error ? error->code : ERROR_NONE;
        snprintf(a->message, sizeof(a->message), "%s", error ? error->message : "");
}

static uint64_t free_bytes(struct fixture *fx)
{
        return pool_account(fx->manager).free_bytes;
}

static int reserve(struct fixture *fx, const char *owner, uint64_t bytes, uint64_t wait_usec,
        struct answer *a, struct error *error)
{
        *a = (struct answer) { 0 };
        return pool_reserve(fx->manager, owner, bytes, wait_usec, 0, on_reserved, a, NULL, error);
}

static void reserve_now(struct fixture *fx, const char *owner, uint64_t bytes, struct answer *a)
{
        struct error error = { 0 };

        if (reserve(fx, owner, bytes, USEC_PER_SEC, a, &error) < 0)
                fail_msg("%s", error.message);
        assert_int_equal(a->n, 1);
        assert_int_equal(a->code, ERROR_NONE);
}

static void test_account(void **state)
{
        struct fixture *fx = *state;

        start(fx,
                DEVICES("<0 4G 1G>", "1G") "on query-balloon reply {'actual':1536M}\non qom-list reply []\n",
                BLOCKS("," ONLINE("4G")));
        struct pool_account a = pool_account(fx->manager);
        assert_int_equal(a.total_bytes, TOTAL);
        assert_int_equal(a.current_bytes, 1536 * MIB);
        assert_int_equal(a.requested_bytes, 1536 * MIB);
        assert_int_equal(a.free_bytes, TOTAL - 1536 * MIB);
        assert_int_equal(a.short_bytes, 0);
        finish(fx);
}

/* A job holds what it has asked for, from the moment in which it is queued. */
static void test_held(void **state)
{
        struct fixture *fx = *state;
        struct answer all;
        struct error error;
        struct job *j;

        start(fx, "", "");
        reserve_now(fx, "others", TOTAL - 4 * GIB, &all);
        assert_int_equal(free_bytes(fx), 3 * GIB);
        assert_true(manager_submit(fx->manager, fx->p, NULL, ADD(4 * GIB), &j, &error) < 0);
        assert_int_equal(error.code, ERROR_POOL_EXHAUSTED);
        assert_non_null(strstr(error.message, "ask for at most 3G"));
        assert_int_equal(try_submit(fx, SET_TO(5 * GIB)), ERROR_POOL_EXHAUSTED);
        script(fx->qmp, MAKE(0) MAKE(1) UNMAKE(0) UNMAKE(1));
        script(fx->guest, "expect prepare\n");
        struct job *first = submit(fx, ADD(2 * GIB));
        assert_int_equal(free_bytes(fx), GIB);
        assert_int_equal(try_submit(fx, ADD(2 * GIB)), ERROR_POOL_EXHAUSTED);
        struct job *second = submit(fx, ADD(GIB));
        assert_int_equal(free_bytes(fx), 0);
        assert_int_equal(pool_account(fx->manager).requested_bytes, 4 * GIB);
        /* What a later job frees is not free before. */
        struct job *third = submit(fx, REMOVE(3 * GIB));
        assert_int_equal(pool_account(fx->manager).requested_bytes, GIB);
        assert_int_equal(free_bytes(fx), 0);
        job_stop(second, JOB_STOP_CANCEL);
        job_stop(third, JOB_STOP_CANCEL);
        script(fx->guest, "failure internal Out of luck\n");
        RUN_UNTIL(fx, fx->n_ended == 3);
        assert_int_equal(first->state, JOB_FAILED);
        finish(fx);
        assert_int_equal(free_bytes(fx), 3 * GIB);
        assert_int_equal(pool_release(fx->manager, all.id, &error), 0);
        assert_int_equal(free_bytes(fx), TOTAL - GIB);
        assert_true(pool_release(fx->manager, all.id, &error) < 0);
        assert_int_equal(error.code, ERROR_INVALID_ARGUMENT);
}

static void host_has(struct fixture *fx, uint64_t available_bytes)
{
        char path[96];

        snprintf(path, sizeof(path), "%s/meminfo", fx->dir);
        FILE *f = fopen(path, "we");
        assert_non_null(f);
        fprintf(f, "MemTotal: 1 kB\nMemAvailable: %" PRIu64 " kB\n", available_bytes / KIB);
        fclose(f);
}

/* The pool is the host's memory: what others on it have taken cannot be given, nor what is promised already.
 */
static void test_host_is_short(void **state)
{
        struct fixture *fx = *state;
        struct answer a, b;
        struct error error;
        struct config *c;
        struct job *j;

        start(fx, "", "");
        c = (struct config *)manager_config(fx->manager); /* nobody else's */
        c->pool_total_bytes = 0;
        c->pool_reserve_bytes = 128 * MIB;
        pool_set_proc(manager_get_pool(fx->manager), fx->dir);
        assert_true(free_bytes(fx) >= 3 * GIB);

        host_has(fx, 3 * GIB / 2 + 128 * MIB);
        assert_true(manager_submit(fx->manager, fx->p, NULL, ADD(2 * GIB), &j, &error) < 0);
        assert_int_equal(error.code, ERROR_POOL_EXHAUSTED);
        assert_non_null(strstr(error.message, "of its MemAvailable 1.5 GiB is left"));
        assert_true(reserve(fx, "vm1", 2 * GIB, USEC_PER_SEC, &a, &error) < 0);
        assert_int_equal(error.code, ERROR_POOL_EXHAUSTED);
        assert_non_null(strstr(error.message, "512 MiB is missing"));

        host_has(fx, 2 * GIB + 128 * MIB);
        reserve_now(fx, "vm1", GIB, &a);
        assert_int_equal(try_submit(fx, ADD(2 * GIB)), ERROR_POOL_EXHAUSTED);
        script(fx->qmp, MAKE(0) UNMAKE(0));
        script(fx->guest, "expect prepare\n");
        j = submit(fx, ADD(GIB));
        assert_true(reserve(fx, "vm2", GIB, USEC_PER_SEC, &b, &error) < 0);
        script(fx->guest, "failure internal Out of luck\n");
        RUN_UNTIL(fx, fx->n_ended == 1);
        assert_int_equal(j->state, JOB_FAILED);
        reserve_now(fx, "vm2", GIB, &b);

        /* An operator who says how much there is knows of it; and a kernel that tells nothing is not asked.
         */
        c->pool_total_bytes = TOTAL;
        assert_int_equal(pool_check(fx->manager, 8 * GIB, &error), 0);
        c->pool_total_bytes = 0;
        host_has(fx, 0);
        assert_int_equal(pool_check(fx->manager, MIN(free_bytes(fx), GIB), &error), 0);
        c->pool_total_bytes = TOTAL;
        finish(fx);

        char path[96];
        snprintf(path, sizeof(path), "%s/meminfo", fx->dir);
        unlink(path);
}

static void test_reservations(void **state)
{
        struct fixture *fx = *state;
        struct answer a, b;
        struct error error;

        start(fx, "", "");
        reserve_now(fx, "vm1", GIB, &a);
        reserve_now(fx, "vm2", 2 * GIB, &b);
        assert_true(b.id > a.id);
        assert_int_equal(pool_account(fx->manager).reservations_bytes, 3 * GIB);
        const struct reservation *r = pool_next_reservation(fx->manager, NULL);
        assert_string_equal(r->owner, "vm1");
        assert_true(r->is_held);
        assert_string_equal(pool_next_reservation(fx->manager, r)->owner, "vm2");
        assert_int_equal(pool_release(fx->manager, a.id, &error), 0);

        struct answer c;
        assert_true(reserve(fx, "no name", GIB, 1, &c, &error) < 0);
        assert_int_equal(error.code, ERROR_INVALID_ARGUMENT);
        assert_true(reserve(fx, "vm3", 0, 1, &c, &error) < 0);
        assert_int_equal(error.code, ERROR_INVALID_SIZE);
        /* Nobody has more than it desires: nothing is taken from anyone. */
        assert_true(reserve(fx, "vm3", TOTAL, USEC_PER_SEC, &c, &error) < 0);
        assert_int_equal(error.code, ERROR_POOL_EXHAUSTED);
        assert_non_null(strstr(error.message, "3 GiB is missing"));
        assert_int_equal(c.n, 0);
        assert_int_equal(pool_account(fx->manager).reservations_bytes, 2 * GIB);
        assert_int_equal(fx->n_added, 0);
        finish(fx);
}

static int on_stored(const struct store_reservation *v, void *userdata)
{
        ++*(unsigned *)userdata;
        return 0;
}

static int on_usage(uint32_t day, uint64_t mib_seconds, void *userdata)
{
        *(uint64_t *)userdata += mib_seconds;
        return 0;
}

static uint64_t used_mib_seconds(struct fixture *fx)
{
        uint64_t sum = 0;

        /* Two days, as midnight may pass. */
        assert_int_equal(metering_foreach(fx->p, 2, on_usage, &sum, NULL), 0);
        return sum;
}

/* 1 GiB for some time, and nothing while QEMU is gone. */
static void test_used(void **state)
{
        struct fixture *fx = *state;
        uint64_t begin = now_monotonic_usec();

        start(fx, "", "");
        uint64_t first = used_mib_seconds(fx), known = now_monotonic_usec();
        RUN_UNTIL(fx, now_monotonic_usec() > known + 100 * USEC_PER_MSEC);
        uint64_t second = used_mib_seconds(fx), end = now_monotonic_usec();
        assert_in_range(second - first, 100, 1024 * (end - known) / USEC_PER_SEC + 1);
        assert_in_range(second, 100, 1024 * (end - begin) / USEC_PER_SEC + 1);

        finish(fx);
        fx->p->platform_up = false;
        manager_partition_changed(fx->manager, fx->p);
        uint64_t last = used_mib_seconds(fx);
        usleep(20000);
        assert_int_equal(used_mib_seconds(fx), last);
        fx->p->platform_up = true;
}

/* Those that the next hvd would take up. */
static unsigned count_stored(struct fixture *fx)
{
        unsigned n = 0;

        record_reservations_read(manager_store(fx->manager), on_stored, &n);
        return n;
}

/* What an hvd before had granted: it is held again, ends as it would have, and its number is not given out.
 */
static void test_taken_up(void **state)
{
        struct fixture *fx = *state;
        struct reservation before[] = {
                { .id = 40, .bytes = GIB, .owner = "web2" },
                { .id = 41, .bytes = 2 * GIB, .owner = "web3" },
                { .id = 42, .bytes = 4 * GIB, .owner = "web4" },
                { .id = 43, .bytes = 8 * GIB, .owner = "web5" },
        };
        struct answer a;
        struct error error;

        start(fx, "", "");
        uint64_t now = now_monotonic_usec();
        record_reservation(manager_store(fx->manager), &before[0], now + 60 * USEC_PER_SEC);
        record_reservation(manager_store(fx->manager), &before[1], now + 60 * USEC_PER_SEC);
        record_reservation(manager_store(fx->manager), &before[2], now + USEC_PER_SEC);
        record_reservation(manager_store(fx->manager), &before[3], now - 1);
        pool_restore(fx->manager);
        assert_int_equal(free_bytes(fx), TOTAL - 8 * GIB);
        assert_true(pool_next_reservation(fx->manager, NULL)->is_held);
        reserve_now(fx, "web6", GIB, &a);
        assert_int_equal(a.id, 44);
        assert_int_equal(pool_release(fx->manager, a.id, &error), 0);

        RUN_UNTIL(fx, free_bytes(fx) == TOTAL - 4 * GIB);
        struct fixture *second = start_second(fx, "web2", "", "");
        assert_int_equal(free_bytes(fx), TOTAL - 4 * GIB);
        assert_int_equal(count_stored(fx), 1);
        assert_int_equal(pool_release(fx->manager, 41, &error), 0);
        assert_int_equal(count_stored(fx), 0);
        finish_second(fx, second);
        finish(fx);
}

/* One for a partition is the partition's own when it starts; one that is to be kept for a while ends then. */
static void test_absorbed_and_expired(void **state)
{
        struct fixture *fx = *state;
        struct answer a, b, c;
        struct error error;
        uint32_t id;

        start(fx, "", "");
        reserve_now(fx, "web2", GIB, &a);
        reserve_now(fx, "web3", GIB, &b);
        assert_int_equal(pool_reserve(fx->manager, "web4", GIB, USEC_PER_SEC, USEC_PER_SEC / 2, on_reserved,
                                 &c, &id, &error),
                0);
        assert_int_equal(free_bytes(fx), TOTAL - 4 * GIB);
        assert_int_equal(count_stored(fx), 1);
        RUN_UNTIL(fx, free_bytes(fx) == TOTAL - 3 * GIB);
        assert_int_equal(count_stored(fx), 0);
        struct fixture *second = start_second(fx, "web2", "", "");
        assert_int_equal(free_bytes(fx), TOTAL - 3 * GIB);
        assert_true(pool_release(fx->manager, a.id, &error) < 0);
        assert_int_equal(pool_release(fx->manager, b.id, &error), 0);
        finish_second(fx, second);
        finish(fx);
}

/* web1 has 3 GiB and desires `desired`; the pool is short of what is reserved by so much. */
static void start_rich(struct fixture *fx, uint64_t desired)
{
        struct answer others;

        start(fx, DEVICES(BOTH, "2G"),
                BLOCKS(",[4G,2G,'online','movable',0]") "on get-state reply {" MEMORY(
                        "1G", "2G", "512M") "}\n");
        RUN_UNTIL(fx, partition_is_settled(fx->p));
        fx->p->definition.profile.desired_bytes = desired;
        reserve_now(fx, "others", TOTAL - 4 * GIB, &others);
        assert_int_equal(free_bytes(fx), GIB);
}

static void test_taken_back(void **state)
{
        struct fixture *fx = *state;
        struct answer a;
        struct error error;

        start_rich(fx, GIB);
        script(fx->guest, LEAVING);
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        assert_int_equal(reserve(fx, "web9", 2 * GIB, 10 * USEC_PER_SEC, &a, &error), 0);
        assert_int_equal(a.n, 0);
        assert_int_equal(fx->n_added, 1);
        assert_int_equal(free_bytes(fx), 0);
        assert_int_equal(try_submit(fx, ADD(GIB)), ERROR_POOL_EXHAUSTED);
        RUN_UNTIL(fx, a.n > 0);
        assert_int_equal(a.code, ERROR_NONE);
        assert_int_equal(free_bytes(fx), 0);
        finish(fx);
        assert_int_equal(partition_current_bytes(fx->p), 2 * GIB);
        assert_int_equal(a.n, 1);
        assert_int_equal(pool_release(fx->manager, a.id, &error), 0);
        assert_int_equal(free_bytes(fx), 2 * GIB);
}

/* Never below what is desired, and that is known at once. */
static void test_not_below_desired(void **state)
{
        struct fixture *fx = *state;
        struct answer a;
        struct error error;

        start_rich(fx, 2 * GIB);
        assert_true(reserve(fx, "web9", 3 * GIB, USEC_PER_SEC, &a, &error) < 0);
        assert_int_equal(error.code, ERROR_POOL_EXHAUSTED);
        assert_non_null(strstr(error.message, "2 GiB is missing"));
        assert_non_null(strstr(error.message, "above what they desire that is 1 GiB"));
        assert_int_equal(fx->n_added, 0);
        finish(fx);
}

/* It does not come back, or not in time: the figures, and what did come back is free. */
static void test_not_given(void **state)
{
        struct fixture *fx = *state;
        struct answer a;
        struct error error;

        start_rich(fx, GIB);
        script(fx->guest, "on offline failure no-headroom There is no room\n"
                          "on online reply {'ranges':[[4G,2G,'online','movable',0]]}\n");
        assert_int_equal(reserve(fx, "web9", 2 * GIB, 10 * USEC_PER_SEC, &a, &error), 0);
        RUN_UNTIL(fx, a.n > 0);
        assert_int_equal(a.code, ERROR_POOL_EXHAUSTED);
        assert_non_null(strstr(a.message, "nobody has more to give"));
        finish(fx);
        assert_int_equal(free_bytes(fx), GIB);
}

static void test_late(void **state)
{
        struct fixture *fx = *state;
        struct answer a;
        struct error error;

        start_rich(fx, GIB);
        script(fx->guest, "expect offline @off\n");
        assert_int_equal(reserve(fx, "web9", 2 * GIB, USEC_PER_SEC, &a, &error), 0);
        RUN_UNTIL(fx, fake_finished(fx->guest));
        script(fx->guest, "on cancel reply\n");
        RUN_UNTIL(fx, a.n > 0);
        assert_int_equal(a.code, ERROR_DEADLINE);
        script(fx->guest, "reply @off {'complete':false,'ranges':[" ONLINE("5G") "]}\n");
        finish(fx);
        assert_int_equal(free_bytes(fx), GIB);
}

/* A request that is withdrawn while it waits. */
static void test_withdrawn(void **state)
{
        struct fixture *fx = *state;
        struct answer a;
        struct error error;

        start_rich(fx, GIB);
        script(fx->guest, LEAVING);
        script(fx->qmp, UNPLUG(1) DEVICES("<0 4G 1G>", "1G") LEAVE(1) "reply\n");
        assert_int_equal(reserve(fx, "web9", 2 * GIB, 10 * USEC_PER_SEC, &a, &error), 0);
        const struct reservation *r = pool_next_reservation(fx->manager, NULL);
        r = pool_next_reservation(fx->manager, r);
        assert_false(r->is_held);
        assert_int_equal(pool_release(fx->manager, r->id, &error), 0);
        assert_int_equal(a.code, ERROR_CANCELLED);
        finish(fx);
        assert_int_equal(a.n, 1);
        assert_int_equal(free_bytes(fx), 2 * GIB);
}

/* What was asked for is known while the guest has it anew, and forgotten with the QEMU that it was asked of.
 * A DIMM is there or not. */
static void test_requested(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES(BOTH, "2G") "on query-balloon reply {'actual':2560M}\non qom-list reply []\n",
                BLOCKS(",[4G,2G,'online','movable',0]"));
        RUN_UNTIL(fx, partition_is_settled(fx->p));
        struct job *j = submit(fx, SET_TO(2560 * MIB));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 0, 0);
        finish(fx);
        assert_int_equal(pool_requested_bytes(fx->p), 2560 * MIB);
        script(fx->qmp, DEVICES("<0 4G 1G>", "1G") "on query-balloon reply {'actual':1536M}\n"
                                                   "event DEVICE_DELETED {'device':'opendlpar-dimm-1',"
                                                   "'path':'/machine/peripheral/opendlpar-dimm-1'}\n"
                                                   "expect object-del\nreply\n");
        RUN_UNTIL(fx, partition_current_bytes(fx->p) == 1536 * MIB);
        assert_int_equal(pool_requested_bytes(fx->p), 1536 * MIB);
        finish(fx);

        /* The balloon is empty for a while, as after a reset. */
        script(fx->qmp, "on query-balloon reply {'actual':2G}\n");
        script(fx->guest, "event blocks-changed\n");
        RUN_UNTIL(fx, partition_current_bytes(fx->p) == 2 * GIB);
        assert_int_equal(pool_requested_bytes(fx->p), 1536 * MIB);
        assert_int_equal(pool_held_bytes(fx->p), 2 * GIB);
        finish(fx);

        script(fx->qmp, DEVICES("", "0") "on query-balloon reply {'actual':1G}\nclose\n");
        RUN_UNTIL(fx, !fx->p->platform_up);
        assert_int_equal(free_bytes(fx), TOTAL);
        script(fx->qmp, "negotiate\n");
        RUN_UNTIL(fx, fx->p->has_snapshot);
        assert_int_equal(pool_requested_bytes(fx->p), GIB);
        finish(fx);
}

/* A QEMU that is not understood any more runs on, and has what it had; one that is gone has nothing. */
static void test_unheard(void **state)
{
        struct fixture *fx = *state;

        start(fx, DEVICES(BOTH, "2G"), BLOCKS(",[4G,2G,'online','movable',0]"));
        RUN_UNTIL(fx, partition_is_settled(fx->p));
        assert_int_equal(free_bytes(fx), TOTAL - 3 * GIB);
        script(fx->qmp, "raw no QMP\\n\nexpect-close\n");
        RUN_UNTIL(fx, !fx->p->platform_up);
        assert_int_equal(free_bytes(fx), TOTAL - 3 * GIB);
        assert_int_equal(pool_account(fx->manager).current_bytes, 0);
        script(fx->qmp, "negotiate\n");
        RUN_UNTIL(fx, fx->p->has_snapshot);
        assert_int_equal(free_bytes(fx), TOTAL - 3 * GIB);
        assert_int_equal(fx->p->unheard_bytes, 0);
        RUN_UNTIL(fx, partition_is_settled(fx->p));

        script(fx->qmp, "raw no QMP\\n\nexpect-close\naccept\nclose\n");
        RUN_UNTIL(fx, free_bytes(fx) == TOTAL);
        script(fx->qmp, "negotiate\n");
        RUN_UNTIL(fx, fx->p->has_snapshot);
        assert_int_equal(free_bytes(fx), TOTAL - 3 * GIB);
        finish(fx);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_account),
                TEST(test_held),
                TEST(test_host_is_short),
                TEST(test_reservations),
                TEST(test_used),
                TEST(test_taken_up),
                TEST(test_absorbed_and_expired),
                TEST(test_taken_back),
                TEST(test_not_below_desired),
                TEST(test_not_given),
                TEST(test_late),
                TEST(test_withdrawn),
                TEST(test_requested),
                TEST(test_unheard),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
