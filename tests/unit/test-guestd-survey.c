/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The survey with a /proc/kpageflags of our own: what a page counts as, how a sample is spread, and the
 * request from its arrival to its one answer. The children are real. */

#include "test-guestd-tree.h"

#include <linux/kernel-page-flags.h>
#include <sys/stat.h>

#include "common/log.h"
#include "guestd/ops.h"
#include "guestd/pages.h"

#define BLOCK     (128 * MIB)
#define FIRST     32U
#define N_BLOCKS  4U
#define WAIT_USEC (10 * USEC_PER_SEC)
#define BIT(n)    (UINT64_C(1) << (n))
#define LRU_ANON  (BIT(KPF_LRU) | BIT(KPF_ANON) | BIT(KPF_SWAPBACKED) | BIT(KPF_UPTODATE))

static uint64_t page_bytes(void)
{
        return (uint64_t)sysconf(_SC_PAGESIZE);
}

static void test_classify(void **state)
{
        static const struct {
                uint64_t flags;
                enum page_kind movable, kernel; /* in a block of that zone */
        } table[] = {
                { 0, PAGE_FREE, PAGE_UNMOVABLE },
                { BIT(KPF_NOPAGE), PAGE_KIND_INVALID, PAGE_KIND_INVALID },
                { BIT(KPF_BUDDY), PAGE_FREE, PAGE_FREE },
                { BIT(KPF_HWPOISON) | BIT(KPF_LRU), PAGE_FREE, PAGE_FREE },
                { BIT(KPF_SLAB), PAGE_SLAB, PAGE_SLAB },
                { BIT(KPF_SLAB) | BIT(KPF_COMPOUND_TAIL), PAGE_SLAB, PAGE_SLAB },
                { BIT(KPF_PGTABLE), PAGE_TABLE, PAGE_TABLE },
                { BIT(KPF_PGTABLE) | BIT(KPF_MMAP), PAGE_TABLE, PAGE_TABLE },
                { BIT(KPF_HUGE) | BIT(KPF_COMPOUND_HEAD), PAGE_HUGE, PAGE_HUGE },
                { BIT(KPF_HUGE) | BIT(KPF_COMPOUND_TAIL) | BIT(KPF_ANON), PAGE_HUGE, PAGE_HUGE },
                { BIT(32), PAGE_UNMOVABLE, PAGE_UNMOVABLE },
                { BIT(KPF_COMPOUND_HEAD), PAGE_FREE, PAGE_UNMOVABLE },
                { LRU_ANON | BIT(KPF_MMAP), PAGE_MOVABLE, PAGE_MOVABLE },
                { LRU_ANON | BIT(KPF_SWAPCACHE), PAGE_MOVABLE, PAGE_MOVABLE },
                { LRU_ANON, PAGE_PINNED, PAGE_PINNED },
                { BIT(KPF_ANON) | BIT(KPF_THP) | BIT(KPF_COMPOUND_TAIL), PAGE_PINNED, PAGE_PINNED },
                { BIT(KPF_ANON) | BIT(KPF_THP) | BIT(KPF_COMPOUND_TAIL) | BIT(KPF_MMAP), PAGE_MOVABLE,
                        PAGE_MOVABLE },
                /* Just freed, and still on the way to its LRU list. */
                { BIT(KPF_ANON) | BIT(KPF_UPTODATE), PAGE_MOVABLE, PAGE_MOVABLE },
                { BIT(KPF_LRU) | BIT(KPF_UPTODATE) | BIT(KPF_REFERENCED), PAGE_MOVABLE, PAGE_MOVABLE },
                { BIT(KPF_UPTODATE), PAGE_MOVABLE, PAGE_MOVABLE },
                { BIT(KPF_LRU) | BIT(KPF_SWAPBACKED) | BIT(KPF_UNEVICTABLE) | BIT(KPF_MMAP), PAGE_MOVABLE,
                        PAGE_MOVABLE },
                { BIT(KPF_OFFLINE), PAGE_MOVABLE, PAGE_MOVABLE },
        };

        for (size_t i = 0; i < ARRAY_SIZE(table); i++)
                if (page_classify(table[i].flags, ZONE_MOVABLE) != table[i].movable ||
                        page_classify(table[i].flags, ZONE_KERNEL) != table[i].kernel)
                        fail_msg("row %zu: %d and %d", i, page_classify(table[i].flags, ZONE_MOVABLE),
                                page_classify(table[i].flags, ZONE_KERNEL));
}

struct env {
        struct tree tree;
        struct loop loop;
        struct blocks blocks;
        struct ops *ops;
        uint64_t reply_id, failure_id;
        struct message_reply reply;
        struct block_survey surveys[PROTO_SURVEYS_MAX];
        struct error failure;
        unsigned n_replies, n_failures;
};

/* Sets the flags of n pages from the first of a block on; what was not set reads 0. */
static void set_flags(struct env *e, unsigned block, uint64_t first, uint64_t n, uint64_t flags)
{
        uint64_t words[512];
        int fd = openat(e->tree.proc_fd, "kpageflags", O_WRONLY | O_CREAT | O_CLOEXEC, 0400);
        off_t at = (off_t)((block * (BLOCK / page_bytes()) + first) * sizeof(words[0]));

        assert_true(fd >= 0);
        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                words[i] = flags;
        while (n > 0) {
                size_t k = MIN(n, (uint64_t)ARRAY_SIZE(words));
                assert_int_equal(pwrite(fd, words, k * sizeof(words[0]), at), k * sizeof(words[0]));
                at += (off_t)(k * sizeof(words[0]));
                n -= k;
        }
        close(fd);
}

static int on_reply(uint64_t id, const struct message_reply *reply, void *userdata)
{
        struct env *e = userdata;
        struct message m = {
                .type = MESSAGE_REPLY, .session = "0011223344556677", .id = id, .reply = *reply
        };
        _cleanup_free_ char *line = NULL;
        size_t length;

        assert_int_equal(message_encode(&m, &line, &length), 0);
        e->n_replies++;
        e->reply_id = id;
        e->reply = *reply;
        if (reply->n_surveys > 0)
                memcpy(e->surveys, reply->surveys, reply->n_surveys * sizeof(*reply->surveys));
        return 0;
}

static void on_failure(uint64_t id, const struct error *error, void *userdata)
{
        struct env *e = userdata;

        e->n_failures++;
        e->failure_id = id;
        e->failure = *error;
}

static void on_progress(uint64_t id, uint64_t done_bytes, uint64_t total_bytes, void *userdata)
{
        fail();
}

static void on_event(enum event_type event, void *userdata)
{
}

static int setup(void **state)
{
        static const struct ops_link link = { on_reply, on_failure, on_progress, on_event };
        struct env *e = calloc(1, sizeof(*e));
        struct ops_config config = { 0 };

        log_set_max_level(-1);
        tree_init(&e->tree);
        for (unsigned i = 0; i < N_BLOCKS; i++)
                tree_block(&e->tree, FIRST + i, "online\n", i < 1 ? "Normal\n" : "Movable\n", 0);
        set_flags(e, FIRST + N_BLOCKS, 0, 1, BIT(KPF_NOPAGE));
        config.sys_fd = e->tree.sys_fd;
        config.proc_fd = e->tree.proc_fd;
        assert_int_equal(loop_init(&e->loop), 0);
        assert_int_equal(blocks_open(&e->blocks, e->tree.sys_fd), 0);
        assert_int_equal(ops_new(&e->loop, &e->blocks, NULL, &config, &link, e, &e->ops), 0);
        ops_set_session(e->ops, true);
        *state = e;
        return 0;
}

static int teardown(void **state)
{
        struct env *e = *state;

        ops_free(e->ops);
        assert_null(e->loop.timers);
        blocks_close(&e->blocks);
        loop_done(&e->loop);
        tree_done(&e->tree);
        free(e);
        return 0;
}

static void survey(struct env *e, uint64_t id, unsigned first, unsigned n, uint64_t deadline_msec)
{
        struct mem_range target = { first * BLOCK, n * BLOCK };
        struct message m = { .type = MESSAGE_REQUEST,
                .id = id,
                .request = { .op = OP_SURVEY,
                        .targets = &target,
                        .n_targets = 1,
                        .deadline_msec = deadline_msec } };

        ops_request(e->ops, &m);
}

static void await_answer(struct env *e, unsigned n)
{
        RUN_UNTIL(e, e->n_replies + e->n_failures >= n);
}

static void test_full(void **state)
{
        struct env *e = *state;
        uint64_t pages = BLOCK / page_bytes();

        set_flags(e, FIRST, 0, 10, BIT(KPF_SLAB));
        set_flags(e, FIRST, 10, 5, BIT(KPF_PGTABLE));
        set_flags(e, FIRST, 15, pages - 15, BIT(KPF_BUDDY));
        set_flags(e, FIRST + 1, 100, 1000, LRU_ANON | BIT(KPF_MMAP));
        set_flags(e, FIRST + 1, pages - 7, 7, LRU_ANON);
        set_flags(e, FIRST + 2, 512, 512, BIT(KPF_HUGE));
        set_flags(e, FIRST + 2, 0, 100, BIT(KPF_NOPAGE));
        tree_block(&e->tree, FIRST + 3, "offline\n", "Normal Movable\n", 0);
        assert_int_equal(blocks_scan(&e->blocks), 0);

        survey(e, 7, FIRST, N_BLOCKS, 2000);
        await_answer(e, 1);
        assert_int_equal(e->n_replies, 1);
        assert_int_equal(e->reply_id, 7);
        assert_int_equal(e->reply.op, OP_SURVEY);
        assert_int_equal(e->reply.page_bytes, page_bytes());
        assert_false(e->reply.has_next);
        assert_int_equal(e->reply.n_surveys, 3); /* what is offline has no pages */
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(e->surveys[i].start, (FIRST + i) * BLOCK);
                assert_int_equal(e->surveys[i].length, BLOCK);
                assert_int_equal(e->surveys[i].sampled, pages);
        }
        assert_int_equal(e->surveys[0].pages[PAGE_SLAB], 10);
        assert_int_equal(e->surveys[0].pages[PAGE_TABLE], 5);
        assert_int_equal(e->surveys[0].pages[PAGE_FREE], pages - 15);
        assert_int_equal(e->surveys[0].cost_bytes, 0);
        assert_int_equal(e->surveys[1].pages[PAGE_MOVABLE], 1000);
        assert_int_equal(e->surveys[1].pages[PAGE_PINNED], 7);
        assert_int_equal(e->surveys[1].pages[PAGE_FREE], pages - 1007); /* no flags, but in Movable */
        assert_int_equal(e->surveys[1].cost_bytes, 1007 * page_bytes());
        assert_int_equal(e->surveys[2].pages[PAGE_HUGE], 512);
        assert_int_equal(e->surveys[2].pages[PAGE_FREE], pages - 612);
        assert_int_equal(e->surveys[2].cost_bytes, 512 * page_bytes());
}

/* A quarter in one stretch is a quarter of any sample, wherever time ends. */
static void test_sample(void **state)
{
        struct env *e = *state;
        uint64_t pages = BLOCK / page_bytes();
        struct work_item items[] = { { FIRST + 1, ZONE_MOVABLE }, { FIRST + 2, ZONE_MOVABLE } };
        struct page_counts counts[2];

        set_flags(e, FIRST + 1, pages / 2, pages / 4, LRU_ANON | BIT(KPF_MMAP));
        assert_int_equal(pages_survey(e->tree.proc_fd, BLOCK, items, 2, 0, counts), 0);
        assert_true(counts[0].sampled > 0 && counts[0].sampled == counts[1].sampled);
        assert_true(counts[0].sampled <= 64);

        /* However far it comes in this time: as many of each block, but for the last round. */
        for (unsigned msec = 1; msec < 8; msec++) {
                assert_int_equal(pages_survey(e->tree.proc_fd, BLOCK, items, 2,
                                         now_monotonic_usec() + msec * USEC_PER_MSEC / 4, counts),
                        0);
                assert_true(counts[0].sampled - counts[1].sampled <= 64);
                if (counts[0].sampled < 1024)
                        continue;
                uint64_t cost = page_counts_cost(&counts[0], BLOCK, page_bytes());
                assert_true(cost > BLOCK / 5 && cost < BLOCK * 3 / 10);
                assert_int_equal(page_counts_cost(&counts[1], BLOCK, page_bytes()), 0);
        }
        assert_int_equal(pages_survey(e->tree.proc_fd, BLOCK, items, 2, USEC_INFINITY, counts), 0);
        assert_int_equal(counts[0].sampled, pages);
        assert_int_equal(page_counts_cost(&counts[0], BLOCK, page_bytes()), BLOCK / 4);
        assert_int_equal(page_counts_cost(&(struct page_counts) { 0 }, BLOCK, page_bytes()), 0);
}

static void test_failures(void **state)
{
        struct env *e = *state;
        struct mem_range odd = { FIRST * BLOCK, MIB };
        struct message m = { .type = MESSAGE_REQUEST,
                .id = 1,
                .request = { .op = OP_SURVEY, .targets = &odd, .n_targets = 1, .deadline_msec = 10 } };

        ops_request(e->ops, &m);
        assert_int_equal(e->n_failures, 1);
        assert_int_equal(e->failure.code, ERROR_INVALID_ARGUMENT);

        /* No blocks there: an answer, and an empty one. */
        survey(e, 2, FIRST + 20, 2, 10);
        assert_int_equal(e->n_replies, 1);
        assert_int_equal(e->reply.n_surveys, 0);

        assert_int_equal(unlinkat(e->tree.proc_fd, "kpageflags", 0), 0);
        survey(e, 3, FIRST, 1, 10);
        assert_int_equal(e->n_failures, 2);
        assert_int_equal(e->failure_id, 3);
        assert_int_equal(e->failure.code, ERROR_INTERNAL);
        assert_non_null(strstr(e->failure.message, "/proc/kpageflags"));

        /* One that opens and cannot be read. */
        tree_mkdir(e->tree.proc_fd, "kpageflags");
        survey(e, 4, FIRST, 1, 10);
        await_answer(e, 4);
        assert_int_equal(e->n_failures, 3);
        assert_int_equal(e->failure_id, 4);
        assert_int_equal(e->failure.code, ERROR_INTERNAL);
}

/* A kernel that does not answer: opening this waits for a writer. */
static void hang(struct env *e)
{
        assert_int_equal(unlinkat(e->tree.proc_fd, "kpageflags", 0), 0);
        assert_int_equal(mkfifoat(e->tree.proc_fd, "kpageflags", 0600), 0);
}

static void test_one_at_a_time(void **state)
{
        struct env *e = *state;
        struct message m = { .type = MESSAGE_REQUEST, .id = 3, .request = { .op = OP_GET_BLOCKS } };

        hang(e);
        survey(e, 1, FIRST, 2, 1000);
        survey(e, 2, FIRST, 1, 1000);
        assert_int_equal(e->n_failures, 1);
        assert_int_equal(e->failure_id, 2);
        assert_int_equal(e->failure.code, ERROR_BUSY);
        assert_false(ops_busy(e->ops));
        ops_request(e->ops, &m); /* others are answered meanwhile */
        assert_int_equal(e->reply_id, 3);

        m.id = 4;
        m.request = (struct message_request) { .op = OP_CANCEL, .target_id = 1 };
        ops_request(e->ops, &m);
        assert_int_equal(e->reply_id, 4);
        await_answer(e, 4);
        assert_int_equal(e->failure_id, 1);
        assert_int_equal(e->failure.code, ERROR_CANCELLED);

        unlinkat(e->tree.proc_fd, "kpageflags", 0);
        set_flags(e, FIRST + N_BLOCKS, 0, 1, 0);
        survey(e, 5, FIRST, 1, 100);
        await_answer(e, 5);
        assert_int_equal(e->reply_id, 5);
}

static void test_session_loss(void **state)
{
        struct env *e = *state;

        hang(e);
        survey(e, 1, FIRST, 2, 1000);
        ops_set_session(e->ops, false);
        ops_set_session(e->ops, true);
        assert_int_equal(e->n_replies + e->n_failures, 0);
        survey(e, 1, FIRST, 2, 1);
        assert_int_equal(e->n_failures, 0);
        await_answer(e, 1); /* a hanging kernel is given up */
        assert_int_equal(e->failure.code, ERROR_DEADLINE);
}

static void test_many(void **state)
{
        struct env *e = *state;

        for (unsigned i = 0; i < PROTO_SURVEYS_MAX; i++)
                blocks_note(&e->blocks, FIRST + N_BLOCKS + i, BLOCK_ONLINE);
        survey(e, 1, FIRST, N_BLOCKS + PROTO_SURVEYS_MAX, 1);
        await_answer(e, 1);
        assert_int_equal(e->reply.n_surveys, PROTO_SURVEYS_MAX);
        assert_true(e->reply.has_next);
        assert_int_equal(e->reply.next, (FIRST + PROTO_SURVEYS_MAX) * BLOCK);
        survey(e, 2, FIRST + PROTO_SURVEYS_MAX, N_BLOCKS, 1);
        await_answer(e, 2);
        assert_int_equal(e->reply.n_surveys, N_BLOCKS);
        assert_false(e->reply.has_next);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_classify),
                TEST(test_full),
                TEST(test_sample),
                TEST(test_failures),
                TEST(test_one_at_a_time),
                TEST(test_session_loss),
                TEST(test_many),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
