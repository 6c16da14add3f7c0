/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

#include "hvd/memory/mechanism.h"

#include <time.h>

/* Memory that the balloon takes and gives. */

#define ACTUAL(bytes) "on query-balloon reply {'actual':" bytes "}\n"
#define BALLOON_OF(deflates)                                                                                 \
        "on qom-list {'path':'/machine/peripheral'} reply "                                                  \
        "[{'name':'b7','type':'child<virtio-balloon-pci>'}]\n"                                               \
        "on qom-get {'path':'/machine/peripheral/b7','property':'deflate-on-oom'} reply " deflates "\n"      \
        "on qom-get {'path':'/machine/peripheral/b7','property':'free-page-reporting'} reply true\n"         \
        "on qom-get {'path':'/machine/peripheral/b7','property':'guest-stats-polling-interval'} reply 5\n"
#define NO_STATS                                                                                             \
        "on qom-get {'path':'/machine/peripheral/b7','property':'guest-stats'} reply "                       \
        "{'last-update':0,'stats':{"                                                                         \
        "'stat-available-memory':18446744073709551615,'stat-free-memory':18446744073709551615,"              \
        "'stat-total-memory':18446744073709551615}}\n"
#define BALLOON    ACTUAL("1G") BALLOON_OF("true") NO_STATS
#define SET(bytes) "expect balloon {'value':" bytes "}\n"
#define STATE(available)                                                                                     \
        "on get-state reply {'memory':{'total_bytes':1G,'free_bytes':" available                             \
        ",'available_bytes':" available                                                                      \
        ",'swap_total_bytes':0,'swap_free_bytes':0,'kernel_bytes':1G,'movable_bytes':0,"                     \
        "'online_blocks':8,'offline_blocks':0,'margin_bytes':128M}}\n"

#define BY_BALLOON .method = "balloon"

/* Statistics of so many seconds ago. */
static void script_stats(struct fixture *fx, unsigned age_sec, const char *available)
{
        char text[512];

        snprintf(text, sizeof(text),
                "on qom-get {'path':'/machine/peripheral/b7','property':'guest-stats'} reply "
                "{'last-update':%llu,"
                "'stats':{'stat-available-memory':%s,'stat-free-memory':1G,'stat-total-memory':1G}}\n",
                (unsigned long long)time(NULL) - age_sec, available);
        script(fx->qmp, text);
}

static void test_account(void **state)
{
        struct fixture *fx = *state;
        const struct platform_balloon *b;

        start(fx, "on query-balloon reply {'actual':768M}\n" BALLOON_OF("true") NO_STATS, "");
        b = &fx->p->snapshot.balloon;
        assert_true(b->present && b->deflate_on_oom && b->free_page_reporting);
        assert_int_equal(b->actual_bytes, 768 * MIB);
        assert_int_equal(fx->p->snapshot.balloon_bytes, 256 * MIB);
        assert_int_equal(b->stats.updated_sec, 0);
        assert_true(b->stats.available_bytes == UINT64_MAX);
        assert_int_equal(partition_current_bytes(fx->p), 768 * MIB);

        /* QEMU's word of it is taken as it comes. */
        script(fx->qmp, ACTUAL("1G") "event BALLOON_CHANGE {'actual':1G}\n");
        RUN_UNTIL(fx, fx->p->snapshot.balloon_bytes == 0);
        finish(fx);
}

static void test_remove(void **state)
{
        struct fixture *fx = *state;

        start(fx, BALLOON, STATE("896M"));
        struct job *j = submit(fx, REMOVE(256 * MIB, BY_BALLOON));
        script(fx->qmp, SET("768M") ACTUAL("1000M") "reply\n");
        RUN_UNTIL(fx, j->progress_bytes == 24 * MIB);
        script(fx->qmp, ACTUAL("768M"));
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 256 * MIB, 0);
        assert_trace(fx, j, "QUEUED SURVEYING OFFLINING VERIFYING DONE");
        assert_int_equal(j->n_notes, 1);
        assert_non_null(strstr(j->notes[0], "never updated"));
        assert_int_equal(j->current_bytes, 768 * MIB);
        finish(fx);
}

static void test_add(void **state)
{
        struct fixture *fx = *state;

        start(fx, ACTUAL("512M") BALLOON_OF("true") NO_STATS, "");
        struct job *j = submit(fx, ADD(256 * MIB, BY_BALLOON));
        script(fx->qmp, SET("768M") ACTUAL("768M") "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 256 * MIB, 0);
        finish(fx);

        assert_int_equal(try_submit(fx, ADD(512 * MIB, BY_BALLOON)), ERROR_BEYOND_MAX);
        assert_int_equal(try_submit(fx, ADD(256 * MIB + 4096, BY_BALLOON)), ERROR_BEYOND_MAX);
        assert_int_equal(try_submit(fx, ADD(MIB + 4096, BY_BALLOON)), ERROR_UNALIGNED_SIZE);
        struct job_request request = *ADD(MIB, BY_BALLOON);
        request.node = 0;
        assert_int_equal(try_submit(fx, &request), ERROR_INVALID_ARGUMENT);
        assert_int_equal(
                try_submit(fx, ADD(MIB, BY_BALLOON, .zone = ZONE_POLICY_KERNEL)), ERROR_INVALID_ARGUMENT);
        fx->p->definition.profile.max_bytes = 800 * MIB;
        assert_int_equal(try_submit(fx, ADD(100 * MIB, BY_BALLOON)), ERROR_BEYOND_MAX);
        fx->p->definition.profile.min_bytes = 700 * MIB;
        assert_int_equal(try_submit(fx, REMOVE(100 * MIB, BY_BALLOON)), ERROR_NOT_PLUGGED);
}

/* Of two fresh words the lower counts; an old one does not, and that is said. */
static void test_statistics(void **state)
{
        struct fixture *fx = *state;
        uint64_t unit;

        start(fx, BALLOON, STATE("896M"));
        assert_int_equal(mechanism_balloon_remove.room(fx->p, REMOVE(1, BY_BALLOON), &unit), 768 * MIB);
        script_stats(fx, 1, "328M");
        partition_settle(fx->p, false);
        RUN_UNTIL(fx, fx->p->snapshot.balloon.stats.updated_sec > 0);

        /* Those from before it grew do not count, nor those from before QEMU was first asked, unless only a
         * clock that was set back makes them look so. */
        assert_int_equal(mechanism_balloon_remove.room(fx->p, REMOVE(1, BY_BALLOON), &unit), 768 * MIB);
        fx->p->grown_sec = 0;
        assert_int_equal(mechanism_balloon_remove.room(fx->p, REMOVE(1, BY_BALLOON), &unit), 200 * MIB);
        fx->p->grown_sec = time(NULL);
        assert_int_equal(mechanism_balloon_remove.room(fx->p, REMOVE(1, BY_BALLOON), &unit), 768 * MIB);
        fx->p->grown_sec = time(NULL) + 3600;
        assert_int_equal(mechanism_balloon_remove.room(fx->p, REMOVE(1, BY_BALLOON), &unit), 200 * MIB);
        fx->p->grown_sec = 0;

        script_stats(fx, 60, "328M");
        struct job *j = submit(fx, REMOVE(256 * MIB, BY_BALLOON));
        script(fx->qmp, SET("768M") ACTUAL("768M") "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, 256 * MIB, 0);
        assert_int_equal(j->n_notes, 1);
        assert_non_null(strstr(j->notes[0], "s old"));
        finish(fx);
}

/* Never below what the guest needs: a part is taken, and then the guest's word is the end of it. */
static void test_headroom(void **state)
{
        struct fixture *fx = *state;

        start(fx, BALLOON, STATE("328M"));
        struct job *j = submit(fx, REMOVE(512 * MIB, BY_BALLOON));
        script(fx->qmp, SET("824M"));
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        script(fx->guest, STATE("128M"));
        script(fx->qmp, ACTUAL("824M") "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, 200 * MIB, 1);
        assert_reason(j, 0, "", ERROR_NO_HEADROOM, "128 MiB available");
        finish(fx);
}

/* At the deadline the target is what was reached: nothing leaves later unasked. */
static void test_deadline(void **state)
{
        struct fixture *fx = *state;

        start(fx, BALLOON, STATE("896M"));
        struct job *j = submit(fx, REMOVE(512 * MIB, BY_BALLOON));
        script(fx->qmp, SET("512M") ACTUAL("900M") "reply\n");
        RUN_UNTIL(fx, j->progress_bytes == 124 * MIB);
        script(fx->qmp, SET("900M") "reply\n");
        job_stop(j, JOB_STOP_DEADLINE);
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_PARTIAL, 124 * MIB, 2);
        assert_reason(j, 0, "", ERROR_DEADLINE, "took 124 MiB of 512 MiB in time");
        finish(fx);
}

/* Where the guest's MemTotal follows, it has to. */
static void test_total(void **state)
{
        struct fixture *fx = *state;

        start(fx, ACTUAL("1G") BALLOON_OF("false") NO_STATS, STATE("896M"));
        struct job *j = submit(fx, REMOVE(256 * MIB, BY_BALLOON));
        script(fx->qmp, SET("768M") ACTUAL("768M") "reply\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_FAILED, 0, 1);
        assert_reason(j, 0, "", ERROR_ACCOUNTS_DIFFER, "MemTotal went from 1 GiB to 1 GiB");
        finish(fx);
}

static void test_absent(void **state)
{
        struct fixture *fx = *state;

        start(fx, "", "");
        assert_int_equal(try_submit(fx, ADD(MIB, BY_BALLOON)), ERROR_NO_HOTPLUG);
        assert_int_equal(try_submit(fx, REMOVE(MIB, BY_BALLOON)), ERROR_NO_HOTPLUG);
        finish(fx);
}

/* A DIMM comes: QEMU's figure shifts with no event, and what the balloon has taken does not. */
static void test_plug(void **state)
{
        struct fixture *fx = *state;

        start(fx, ACTUAL("768M") BALLOON_OF("true") NO_STATS, "");
        struct job *j = submit(fx, ADD(GIB));
        script(fx->guest, "expect prepare\nreply\n");
        script(fx->qmp, PLUG(0) DEVICES("<0 4G 1G>", "1G") ACTUAL("1792M") "reply\n");
        script(fx->guest, "expect online\n" BLOCKS("," ONLINE("4G")) "reply {'ranges':[" ONLINE("4G") "]}\n");
        RUN_UNTIL_END(fx, j);
        assert_job(fx, j, JOB_DONE, GIB, 0);
        assert_int_equal(fx->p->snapshot.balloon_bytes, 256 * MIB);
        assert_int_equal(fx->p->snapshot.balloon.actual_bytes, 1792 * MIB);
        finish(fx);
        assert_int_equal(fx->p->snapshot.balloon_bytes, 256 * MIB);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_account),
                TEST(test_remove),
                TEST(test_add),
                TEST(test_statistics),
                TEST(test_headroom),
                TEST(test_deadline),
                TEST(test_total),
                TEST(test_absent),
                TEST(test_plug),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
