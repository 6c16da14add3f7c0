/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The guest's samples with a /proc of our own and a trigger that the test pulls: a socket's urgent data polls
 * as the kernel's does. Times are short, and only those that must pass at least are held against a clock. */

#include "test-guestd-tree.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include "common/log.h"
#include "guestd/memory.h"
#include "guestd/ops.h"
#include "guestd/sampler.h"

#define WAIT_USEC   (10 * USEC_PER_SEC)
#define SAMPLES_MAX 64U
#define PUSH_USEC   (20 * USEC_PER_MSEC)
#define LOOK_USEC   (2 * USEC_PER_MSEC)
#define TOTAL       (8 * GIB)
#define HEADROOM    (512 * MIB)

struct env {
        struct tree tree;
        struct loop loop;
        struct sampler *sampler;
        struct guest_sample samples[SAMPLES_MAX];
        uint64_t times[SAMPLES_MAX];
        unsigned n, n_refused;
        bool refuses; /* the channel is not free */
        unsigned n_replies, n_failures;
        struct message_reply reply;
        struct error failure;
};

/* The trigger: there is one at a time, and what the sampler has is its end. */
static struct {
        int error; /* instead of a trigger */
        unsigned n;
        uint64_t stall_usec, window_usec;
        int fd, their_fd;
} trigger;

static int watch(int proc_fd, uint64_t stall_usec, uint64_t window_usec)
{
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t length = sizeof(address);

        trigger.n++;
        trigger.stall_usec = stall_usec;
        trigger.window_usec = window_usec;
        if (trigger.error < 0)
                return trigger.error;
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
        assert_int_equal(listen(listener, 1), 0);
        assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
        trigger.fd = close_fd(trigger.fd);
        trigger.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(trigger.fd, (struct sockaddr *)&address, length), 0);
        trigger.their_fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(trigger.their_fd >= 0);
        close(listener);
        return trigger.their_fd;
}

static void stall(void)
{
        assert_int_equal(send(trigger.fd, "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
}

static bool trigger_is_closed(void)
{
        return fcntl(trigger.their_fd, F_GETFD) < 0;
}

static bool on_send(const struct guest_sample *s, void *userdata)
{
        struct message m = { .type = MESSAGE_EVENT,
                .session = "0011223344556677",
                .event = { .type = EVENT_SAMPLE, .sample = *s } };
        _cleanup_free_ char *line = NULL;
        struct env *e = userdata;
        size_t length;

        assert_int_equal(message_encode(&m, &line, &length), 0);
        if (e->refuses) {
                e->n_refused++;
                return false;
        }
        assert_true(e->n < SAMPLES_MAX);
        e->times[e->n] = now_monotonic_usec();
        e->samples[e->n++] = *s;
        return true;
}

static int setup(void **state)
{
        struct env *e = calloc(1, sizeof(*e));

        log_set_max_level(-1);
        tree_init(&e->tree);
        tree_meminfo(&e->tree, TOTAL, 6 * GIB);
        memset(&trigger, 0, sizeof(trigger));
        trigger.fd = trigger.their_fd = -1;
        assert_int_equal(loop_init(&e->loop), 0);
        struct sampler_config config = {
                .proc_fd = e->tree.proc_fd, .push_usec = PUSH_USEC, .look_usec = LOOK_USEC, .watch = watch
        };
        assert_int_equal(sampler_new(&e->loop, &config, on_send, e, &e->sampler), 0);
        *state = e;
        return 0;
}

static int teardown(void **state)
{
        struct env *e = *state;

        sampler_free(e->sampler);
        assert_null(e->loop.timers);
        assert_true(trigger.their_fd < 0 || trigger_is_closed());
        close_fd(trigger.fd);
        loop_done(&e->loop);
        tree_done(&e->tree);
        free(e);
        return 0;
}

static struct guest_sample begin(struct env *e, const struct sampling *s)
{
        struct guest_sample sample;

        assert_int_equal(sampler_begin(e->sampler, s, &sample), 0);
        assert_int_equal(sample.cause, SAMPLE_ASKED);
        return sample;
}

static void set_available(struct env *e, uint64_t bytes)
{
        tree_meminfo(&e->tree, TOTAL, bytes);
}

static void test_reading(void **state)
{
        struct env *e = *state;
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        struct guest_sample s;

        tree_mkdir(e->tree.proc_fd, "pressure");
        tree_write(e->tree.proc_fd, "pressure/memory",
                "some avg10=1.25 avg60=0.00 avg300=0.00 total=7001\n"
                "full avg10=0.50 avg60=0.00 avg300=0.00 total=42\n");
        tree_write(e->tree.proc_fd, "vmstat",
                "nr_free_pages 5\nworkingset_nodes 9\nworkingset_refault_anon 2\nworkingset_refault_file 3\n"
                "pgpgin 8\npswpin 4\npswpout 6\npswpinned 77\n");
        tree_write(e->tree.proc_fd, "zoneinfo",
                "Node 0, zone   Normal\n  per-node stats\n      nr_inactive_file 50\n  pages free     10\n"
                "        spanned  100\n        present  90\n      nr_free_pages 10\n"
                "      nr_zone_inactive_file 11\n"
                "Node 0, zone  Movable\n  pages free     12\n        boost    0\n        spanned  100\n"
                "        present  80\n      nr_zone_inactive_file 13\n      nr_zone_active_file 14\n"
                "Node 1, zone  Movable\n  pages free     1\n        present  2\n"
                "      nr_zone_inactive_file 3\n");
        assert_int_equal(memory_read_sample(e->tree.proc_fd, &s), 0);
        assert_int_equal(s.total_bytes, TOTAL);
        assert_int_equal(s.available_bytes, 6 * GIB);
        assert_int_equal(s.free_bytes, 6 * GIB);
        assert_int_equal(s.movable_bytes, 82 * page);
        assert_int_equal(s.movable_free_bytes, 13 * page);
        assert_int_equal(s.movable_cache_bytes, 16 * page);
        assert_int_equal(s.refault_file_bytes, 3 * page);
        assert_int_equal(s.refault_anon_bytes, 2 * page);
        assert_int_equal(s.swap_in_bytes, 4 * page);
        assert_int_equal(s.swap_out_bytes, 6 * page);
        assert_true(s.has_pressure);
        assert_int_equal(s.some_avg10_centi, 125);
        assert_int_equal(s.full_avg10_centi, 50);
        assert_int_equal(s.some_total_usec, 7001);
        assert_int_equal(s.full_total_usec, 42);

        /* Linux before 5.9. */
        tree_write(e->tree.proc_fd, "vmstat", "workingset_refault 21\npswpin 0");
        assert_int_equal(memory_read_sample(e->tree.proc_fd, &s), 0);
        assert_int_equal(s.refault_file_bytes, 21 * page);
        assert_int_equal(s.refault_anon_bytes, 0);
}

/* A kernel may say anything; what is sent has to be within the protocol. */
static void test_reading_oddities(void **state)
{
        static const char huge[] = "99999999999999999999999999";
        static const char *const pressures[] = { "", "some",
                "some avg10=1.00 total=\nfull avg10=0.00 total=1\n",
                "some avg10=0.00\nfull avg10=0.00 total=7\n", "some avg10=1.00 total=1\n",
                "full avg10=0.00 total=1\n" };
        struct env *e = *state;
        char text[1024], line[256];
        struct guest_sample s;

        tree_mkdir(e->tree.proc_fd, "pressure");
        snprintf(text, sizeof(text), "MemTotal: %s kB\nMemFree: %s kB\nMemAvailable: 18014398509481983 kB\n",
                huge, huge);
        tree_write(e->tree.proc_fd, "meminfo", text);
        assert_int_equal(memory_read_sample(e->tree.proc_fd, &s), -EBADMSG);
        tree_write(e->tree.proc_fd, "meminfo",
                "MemTotal: 18014398509481983 kB\nMemFree: 1 kB\nMemAvailable: 18014398509481983 kB\n");
        snprintf(text, sizeof(text),
                "Node 0, zone Movable\npages free %s\npresent %s\nnr_zone_inactive_file -1\n", huge, huge);
        tree_write(e->tree.proc_fd, "zoneinfo", text);
        snprintf(text, sizeof(text), "pswpin %s\npswpout -1\nworkingset_refault_file x\nw\n\np", huge);
        tree_write(e->tree.proc_fd, "vmstat", text);
        snprintf(text, sizeof(text), "some avg10=999.99 total=%s\nfull avg10=100.00 total=%s\n", huge, huge);
        tree_write(e->tree.proc_fd, "pressure/memory", text);
        assert_int_equal(sampler_begin(e->sampler, &(struct sampling) { 0 }, &s), 0);
        assert_true(s.has_pressure);
        s.cause = SAMPLE_PERIODIC;
        assert_true(on_send(&s, e)); /* encodes */

        for (size_t i = 0; i < ARRAY_SIZE(pressures); i++) {
                tree_write(e->tree.proc_fd, "pressure/memory", pressures[i]);
                assert_int_equal(memory_read_sample(e->tree.proc_fd, &s), 0);
                if (s.has_pressure && i != 2)
                        fail_msg("pressure %zu was taken", i);
        }
        /* A line beyond all measure is none, and those behind it still are. */
        memset(line, 'w', sizeof(line) - 1);
        line[sizeof(line) - 1] = '\0';
        snprintf(text, sizeof(text), "%s%s%s\npswpin 5\n", line, line, line);
        tree_write(e->tree.proc_fd, "vmstat", text);
        assert_int_equal(memory_read_sample(e->tree.proc_fd, &s), 0);
        assert_int_equal(s.swap_in_bytes, 5 * (uint64_t)sysconf(_SC_PAGESIZE));
}

static void test_nothing_asked(void **state)
{
        struct env *e = *state;
        struct guest_sample s;

        assert_null(e->loop.timers);
        s = begin(e, &(struct sampling) { .stall_msec = 50, .window_msec = 1000, .headroom_bytes = GIB });
        assert_int_equal(s.available_bytes, 6 * GIB);
        assert_int_equal(s.margin_bytes, memory_margin(0, TOTAL));
        assert_false(s.is_watched);
        assert_null(e->loop.timers);
        assert_int_equal(trigger.n, 0);

        /* And not any more either. */
        s = begin(e, &(struct sampling) { 10, 10, 50, 1000, GIB });
        assert_true(s.is_watched);
        assert_int_equal(trigger.stall_usec, 50 * USEC_PER_MSEC);
        assert_int_equal(trigger.window_usec, USEC_PER_SEC);
        assert_non_null(e->loop.timers);
        s = begin(e, &(struct sampling) { 0, 0, 50, 1000, GIB });
        assert_false(s.is_watched);
        assert_null(e->loop.timers);
        assert_true(trigger_is_closed());
        assert_int_equal(e->n, 0);
}

static void test_back_off(void **state)
{
        static const uint64_t msec[] = { 20, 40, 80, 160, 160 };
        struct env *e = *state;
        uint64_t since = now_monotonic_usec(), least = 0;

        begin(e, &(struct sampling) { 20, 160, 0, 1000, 0 });
        RUN_UNTIL(e, e->n == ARRAY_SIZE(msec));
        for (size_t i = 0; i < ARRAY_SIZE(msec); i++) {
                assert_int_equal(e->samples[i].cause, SAMPLE_PERIODIC);
                least += msec[i] * USEC_PER_MSEC;
                if (e->times[i] - since < least)
                        fail_msg("sample %zu came after %llu usec", i,
                                (unsigned long long)(e->times[i] - since));
        }

        /* A change is told soon, and then it begins anew. */
        set_available(e, 5 * GIB);
        RUN_UNTIL(e, e->n == ARRAY_SIZE(msec) + 2);
        assert_int_equal(e->samples[ARRAY_SIZE(msec)].cause, SAMPLE_CHANGE);
        assert_int_equal(e->samples[ARRAY_SIZE(msec)].available_bytes, 5 * GIB);
        assert_int_equal(e->samples[ARRAY_SIZE(msec) + 1].cause, SAMPLE_PERIODIC);

        /* What is no change of note is none. */
        set_available(e, 5 * GIB + 100 * MIB);
        RUN_UNTIL(e, e->n == ARRAY_SIZE(msec) + 3);
        assert_int_equal(e->samples[ARRAY_SIZE(msec) + 2].cause, SAMPLE_PERIODIC);
        /* But what drifts adds up, to what was last said. */
        set_available(e, 5 * GIB + 300 * MIB);
        RUN_UNTIL(e, e->n == ARRAY_SIZE(msec) + 4);
        assert_int_equal(e->samples[ARRAY_SIZE(msec) + 3].cause, SAMPLE_CHANGE);
}

static void test_headroom(void **state)
{
        struct env *e = *state;
        uint64_t since = now_monotonic_usec();

        /* It looks as often as it might speak, whatever the back-off came to. */
        set_available(e, 8 * HEADROOM);
        begin(e, &(struct sampling) { 30, 60000, 0, 1000, HEADROOM });
        RUN_UNTIL(e, e->n == 2);
        set_available(e, HEADROOM / 2 - MIB);
        RUN_UNTIL(e, e->n == 3);
        assert_int_equal(e->samples[2].cause, SAMPLE_HEADROOM);
        assert_int_equal(e->samples[2].available_bytes, HEADROOM / 2 - MIB);

        /* It is said once, and again when things become worse. */
        run_loop_for(&e->loop, 2 * PUSH_USEC);
        for (unsigned i = 3; i < e->n; i++)
                assert_int_equal(e->samples[i].cause, SAMPLE_PERIODIC);
        unsigned n = e->n;
        set_available(e, HEADROOM / 4);
        RUN_UNTIL(e, e->n > n && e->samples[e->n - 1].available_bytes == HEADROOM / 4);
        assert_int_equal(e->samples[e->n - 1].cause, SAMPLE_HEADROOM);
        assert_true(now_monotonic_usec() - since >= (e->n - 1) * PUSH_USEC);
}

/* What dwindles is looked at more often than every interval. */
static void test_dwindling(void **state)
{
        struct env *e = *state;

        set_available(e, HEADROOM);
        begin(e, &(struct sampling) { 600, 600, 0, 1000, HEADROOM });
        set_available(e, HEADROOM / 2 + 60 * MIB);
        RUN_UNTIL(e, e->n == 1);
        assert_int_equal(e->samples[0].cause, SAMPLE_CHANGE);
        /* At that pace the rest is gone in some 180 ms. */
        set_available(e, HEADROOM / 2 - 1 * MIB);
        RUN_UNTIL(e, e->n == 2);
        assert_int_equal(e->samples[1].cause, SAMPLE_HEADROOM);
        assert_true(e->times[1] - e->times[0] < 500 * USEC_PER_MSEC);
}

static void test_pressure(void **state)
{
        struct env *e = *state;

        begin(e, &(struct sampling) { 60000, 60000, 50, 1000, 0 });
        run_loop_for(&e->loop, PUSH_USEC + LOOK_USEC);
        assert_int_equal(e->n, 0);
        uint64_t since = now_monotonic_usec();
        stall();
        RUN_UNTIL(e, e->n == 1);
        assert_int_equal(e->samples[0].cause, SAMPLE_PRESSURE);

        /* The next one waits for its time, and is not lost; two in that time are one. */
        stall();
        run_loop_for(&e->loop, LOOK_USEC);
        stall();
        bool is_late = now_monotonic_usec() - e->times[0] >= PUSH_USEC; /* a machine that is starved */
        RUN_UNTIL(e, e->n >= 2);
        assert_int_equal(e->samples[1].cause, SAMPLE_PRESSURE);
        assert_true(e->times[1] - since >= PUSH_USEC);
        run_loop_for(&e->loop, 2 * PUSH_USEC);
        assert_true(e->n == 2 || is_late);
        e->n = 2;

        /* The same again keeps the trigger, and what it was about to tell. */
        stall();
        begin(e, &(struct sampling) { 60000, 60000, 50, 1000, 0 });
        assert_int_equal(trigger.n, 1);
        RUN_UNTIL(e, e->n == 3);
        assert_int_equal(e->samples[2].cause, SAMPLE_PRESSURE);
        begin(e, &(struct sampling) { 60000, 60000, 60, 1000, 0 });
        assert_int_equal(trigger.n, 2);

        /* The session's end. */
        sampler_end(e->sampler);
        assert_true(trigger_is_closed());
        assert_null(e->loop.timers);
}

static void test_channel_busy(void **state)
{
        struct env *e = *state;

        begin(e, &(struct sampling) { 30, 30, 50, 1000, 0 });
        e->refuses = true;
        stall();
        RUN_UNTIL(e, e->n_refused >= 3);
        assert_int_equal(e->n, 0);
        e->refuses = false;
        RUN_UNTIL(e, e->n == 1);
        assert_int_equal(e->samples[0].cause, SAMPLE_PRESSURE);
}

/* Without PSI, or without the right to a trigger. */
static void test_no_trigger(void **state)
{
        struct env *e = *state;
        struct guest_sample s;

        trigger.error = -EPERM;
        s = begin(e, &(struct sampling) { 10, 10, 50, 1000, 0 });
        assert_int_equal(trigger.n, 1);
        assert_false(s.is_watched);
        assert_false(s.has_pressure);
        RUN_UNTIL(e, e->n == 2);
        assert_int_equal(e->samples[1].cause, SAMPLE_PERIODIC);
        assert_false(e->samples[1].is_watched);
}

/* The kernel's own trigger, as far as this host has one to give. */
static void test_real_trigger(void **state)
{
        struct env *e = *state;
        struct sampler_config config = { .proc_fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC) };
        struct guest_sample s;

        int fd = openat(config.proc_fd, "pressure/memory", O_RDWR | O_CLOEXEC);
        bool can = fd >= 0 && write(fd, "some 100000 2000000", 20) > 0;
        close_fd(fd);
        sampler_free(e->sampler);
        assert_int_equal(sampler_new(&e->loop, &config, on_send, e, &e->sampler), 0);
        s = begin(e, &(struct sampling) { 60000, 60000, 100, 2000, 0 });
        assert_int_equal(s.is_watched, can);
        assert_true(s.total_bytes > 0);
        sampler_end(e->sampler);
        close(config.proc_fd);
        if (!can)
                print_message("This host gives us no trigger\n");
}

static int on_reply(uint64_t id, const struct message_reply *reply, void *userdata)
{
        struct env *e = userdata;

        e->n_replies++;
        e->reply = *reply;
        return 0;
}

static void on_failure(uint64_t id, const struct error *error, void *userdata)
{
        struct env *e = userdata;

        e->n_failures++;
        e->failure = *error;
}

/* The request, from its arrival to its one answer, and the session's end. */
static void test_request(void **state)
{
        static const struct ops_link link = { on_reply, on_failure, NULL, NULL };
        struct env *e = *state;
        struct ops_config config = {
                .sys_fd = e->tree.sys_fd, .proc_fd = e->tree.proc_fd, .sampler = e->sampler
        };
        struct message m = { .type = MESSAGE_REQUEST,
                .id = 1,
                .request = { .op = OP_SAMPLE, .sampling = { 10, 10, 50, 1000, HEADROOM } } };
        struct blocks blocks;
        struct ops *ops;

        tree_block(&e->tree, 0, "online\n", "none\n", 0);
        assert_int_equal(blocks_open(&blocks, e->tree.sys_fd), 0);
        assert_int_equal(ops_new(&e->loop, &blocks, NULL, &config, &link, e, &ops), 0);
        ops_set_session(ops, true);
        ops_request(ops, &m);
        assert_int_equal(e->n_replies, 1);
        assert_int_equal(e->reply.sample.available_bytes, 6 * GIB);
        assert_true(e->reply.sample.is_watched);
        RUN_UNTIL(e, e->n == 1);
        ops_set_session(ops, false);
        assert_true(trigger_is_closed());

        unlinkat(e->tree.proc_fd, "meminfo", 0);
        ops_set_session(ops, true);
        ops_request(ops, &m);
        assert_int_equal(e->n_failures, 1);
        assert_int_equal(e->failure.code, ERROR_INTERNAL);
        ops_free(ops);
        blocks_close(&blocks);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_reading, setup, teardown),
                cmocka_unit_test_setup_teardown(test_reading_oddities, setup, teardown),
                cmocka_unit_test_setup_teardown(test_nothing_asked, setup, teardown),
                cmocka_unit_test_setup_teardown(test_back_off, setup, teardown),
                cmocka_unit_test_setup_teardown(test_headroom, setup, teardown),
                cmocka_unit_test_setup_teardown(test_dwindling, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pressure, setup, teardown),
                cmocka_unit_test_setup_teardown(test_channel_busy, setup, teardown),
                cmocka_unit_test_setup_teardown(test_no_trigger, setup, teardown),
                cmocka_unit_test_setup_teardown(test_real_trigger, setup, teardown),
                cmocka_unit_test_setup_teardown(test_request, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
