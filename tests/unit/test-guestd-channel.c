/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The guest's end of the channel against a host of our own on the other end of a socket pair, and the loop.
 */

#include "test-guestd-tree.h"

#include <signal.h>
#include <sys/socket.h>

#include "common/lines.h"
#include "common/log.h"
#include "guestd/channel.h"
#include "guestd/port.h"

#define SESSION   "0123456789abcdef"
#define WAIT_USEC (60 * USEC_PER_SEC)

struct env {
        struct loop loop;
        struct channel *channel;
        int host_fd;
        struct line_reader reader;
        struct message last; /* from the guest */
        unsigned n_up, n_down, n_requests;
        uint64_t request_id;
        bool answer; /* each request is answered at once, with a long reply */
};

static void on_session(bool up, void *userdata)
{
        struct env *e = userdata;

        assert_int_equal(e->n_up, up ? e->n_down : e->n_down + 1);
        if (up)
                e->n_up++;
        else
                e->n_down++;
}

static void on_request(const struct message *m, void *userdata)
{
        struct env *e = userdata;
        struct block_range ranges[PROTO_RANGES_MAX];
        struct message reply = { .type = MESSAGE_REPLY,
                .id = m->id,
                .reply = { .op = OP_GET_BLOCKS, .ranges = ranges, .n_ranges = PROTO_RANGES_MAX } };

        e->n_requests++;
        e->request_id = m->id;
        if (!e->answer)
                return;
        for (unsigned i = 0; i < PROTO_RANGES_MAX; i++)
                ranges[i] = (struct block_range) { i * GIB, 512 * MIB, BLOCK_ONLINE, ZONE_MOVABLE, 0 };
        assert_int_equal(channel_send(e->channel, &reply, false), 0);
}

static int setup(void **state)
{
        static const struct channel_handlers handlers = { on_session, on_request };
        static const struct channel_times times = { .pause_usec = 20 * USEC_PER_MSEC,
                .refused_usec = 20 * USEC_PER_MSEC,
                .port_usec = 20 * USEC_PER_MSEC,
                .hello_usec = { 200 * USEC_PER_MSEC, 200 * USEC_PER_MSEC, 200 * USEC_PER_MSEC } };
        const struct message_hello hello = { .version = 1,
                .version_min = 1,
                .boot_id = "5c769364-36c1-4bc9-8927-7346d2f4f025",
                .agent = "guestd test",
                .arch = "x86_64",
                .block_bytes = 128 * MIB };
        struct env *e = calloc(1, sizeof(*e));
        int fds[2];

        signal(SIGPIPE, SIG_IGN);
        log_set_max_level(-1);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        assert_int_equal(loop_init(&e->loop), 0);
        assert_int_equal(
                channel_new(&e->loop, -1, "/nonexistent/port", &hello, &times, &handlers, e, &e->channel), 0);
        e->host_fd = fds[0];
        line_reader_init(&e->reader, PROTO_LINE_MAX, true);
        assert_int_equal(channel_attach(e->channel, fds[1]), 0);
        *state = e;
        return 0;
}

static int teardown(void **state)
{
        struct env *e = *state;

        channel_free(e->channel);
        assert_null(e->loop.timers);
        loop_done(&e->loop);
        line_reader_done(&e->reader);
        message_done(&e->last);
        close_fd(e->host_fd);
        free(e);
        return 0;
}

/* Takes a message that the guest sent into e->last. */
static bool receive(struct env *e)
{
        struct error error;
        size_t length;
        char *line;

        for (;;) {
                if (line_reader_next(&e->reader, &line, &length) > 0) {
                        message_done(&e->last);
                        assert_int_equal(message_decode(line, length, &e->last, &error), 0);
                        return true;
                }
                if (line_reader_read(&e->reader, e->host_fd, 65536) <= 0)
                        return false;
        }
}

static void host_send(struct env *e, const struct message *m)
{
        _cleanup_free_ char *line = NULL;
        size_t length;

        assert_int_equal(message_encode(m, &line, &length), 0);
        assert_int_equal(write(e->host_fd, line, length), length);
}

static void host_send_text(struct env *e, const char *text)
{
        assert_int_equal(write(e->host_fd, text, strlen(text)), strlen(text));
}

static void welcome(struct env *e, const char *nonce)
{
        struct message m = { .type = MESSAGE_WELCOME, .session = SESSION, .welcome = { .version = 1 } };

        snprintf(m.welcome.nonce, sizeof(m.welcome.nonce), "%s", nonce);
        host_send(e, &m);
}

static void host_request(struct env *e, const char *session, uint64_t id)
{
        struct message m = { .type = MESSAGE_REQUEST, .id = id, .request = { .op = OP_GET_STATE } };

        snprintf(m.session, sizeof(m.session), "%s", session);
        host_send(e, &m);
}

static void open_session(struct env *e)
{
        RUN_UNTIL(e, receive(e));
        assert_int_equal(e->last.type, MESSAGE_HELLO);
        welcome(e, e->last.hello.nonce);
        RUN_UNTIL(e, channel_has_session(e->channel));
}

static void test_session(void **state)
{
        struct env *e = *state;
        struct message reply = { .type = MESSAGE_REPLY, .id = 5, .reply = { .op = OP_CANCEL } };

        /* Without a session nothing is sent. */
        assert_int_equal(channel_send(e->channel, &reply, false), 0);
        open_session(e);
        assert_int_equal(e->last.hello.block_bytes, 128 * MIB);
        assert_int_equal(e->n_up, 1);
        host_request(e, SESSION, 5);
        RUN_UNTIL(e, e->n_requests == 1);
        assert_int_equal(e->request_id, 5);
        assert_int_equal(channel_send(e->channel, &reply, false), 0);
        RUN_UNTIL(e, receive(e));
        assert_int_equal(e->last.type, MESSAGE_REPLY);
        assert_string_equal(e->last.session, SESSION);
        channel_send_event(e->channel, EVENT_BLOCKS_CHANGED);
        RUN_UNTIL(e, receive(e));
        assert_int_equal(e->last.type, MESSAGE_EVENT);

        /* Of another session, and lines that come in pieces. */
        host_request(e, "ffffffffffffffff", 6);
        host_send_text(e, "{\"type\":\"request\",\"session\":\"" SESSION "\",");
        run_loop_for(&e->loop, 5 * USEC_PER_MSEC);
        host_send_text(e, "\"id\":7,\"op\":\"get-state\"}\n");
        RUN_UNTIL(e, e->n_requests == 2);
        assert_int_equal(e->request_id, 7);
        assert_int_equal(channel_counters(e->channel)->n_stale, 1);
        assert_int_equal(channel_counters(e->channel)->n_garbage, 0);
        assert_null(e->loop.timers);
}

static void test_hello_again(void **state)
{
        struct env *e = *state;
        char nonces[4][PROTO_TOKEN_LENGTH + 1];

        for (unsigned i = 0; i < 4; i++) {
                RUN_UNTIL(e, receive(e));
                assert_int_equal(e->last.type, MESSAGE_HELLO);
                memcpy(nonces[i], e->last.hello.nonce, sizeof(nonces[i]));
                assert_true(i == 0 || strcmp(nonces[i], nonces[i - 1]) != 0);
        }
        /* That is all: no timer runs for a host that never answers. */
        assert_null(e->loop.timers);
        /* An old welcome does not count, the last one does. */
        welcome(e, nonces[2]);
        run_loop_for(&e->loop, 5 * USEC_PER_MSEC);
        assert_false(channel_has_session(e->channel));
        assert_int_equal(channel_counters(e->channel)->n_stale, 1);
        welcome(e, nonces[3]);
        RUN_UNTIL(e, channel_has_session(e->channel));
        /* Twice is one too many. */
        welcome(e, nonces[3]);
        run_loop_for(&e->loop, 5 * USEC_PER_MSEC);
        assert_int_equal(e->n_up, 1);
        assert_int_equal(e->n_down, 0);
}

static void test_refused(void **state)
{
        struct env *e = *state;
        struct message m = { .type = MESSAGE_REFUSE,
                .refuse = { .error = { .code = ERROR_AGENT_TOO_OLD, .message = "too old" } } };

        RUN_UNTIL(e, receive(e));
        snprintf(m.refuse.nonce, sizeof(m.refuse.nonce), "0000000000000000");
        host_send(e, &m);
        memcpy(m.refuse.nonce, e->last.hello.nonce, sizeof(m.refuse.nonce));
        host_send(e, &m);
        RUN_UNTIL(e, channel_counters(e->channel)->n_stale == 1);
        assert_int_equal(channel_counters(e->channel)->n_hellos, 1);
        open_session(e);
        assert_int_equal(channel_counters(e->channel)->n_hellos, 2);
}

static void test_garbage(void **state)
{
        struct env *e = *state;
        char *big = malloc(PROTO_LINE_MAX + 3);

        open_session(e);
        for (unsigned i = 0; i < CHANNEL_GARBAGE_MAX - 3; i++)
                host_send_text(e, i % 2 ? "{}\n" : "\x01\x02 nonsense\n");
        host_send_text(e, "{\"type\":\"hello\"}\n");
        memset(big, 'x', PROTO_LINE_MAX + 1);
        memcpy(big + PROTO_LINE_MAX + 1, "\n", 2);
        for (size_t done = 0, all = strlen(big); done < all;) {
                ssize_t n = write(e->host_fd, big + done, all - done);
                if (n > 0)
                        done += (size_t)n;
                loop_run_once(&e->loop, 0);
        }
        free(big);
        RUN_UNTIL(e, channel_counters(e->channel)->n_garbage == CHANNEL_GARBAGE_MAX - 1);
        host_request(e, SESSION, 9);
        RUN_UNTIL(e, e->n_requests == 1);
        assert_true(channel_has_session(e->channel));

        host_send_text(e, "one more\nand after that\n");
        RUN_UNTIL(e, e->n_down == 1);
        host_request(e, SESSION, 10);
        open_session(e);
        run_loop_for(&e->loop, 5 * USEC_PER_MSEC);
        assert_int_equal(e->n_requests, 1);
        assert_int_equal(channel_counters(e->channel)->n_garbage, CHANNEL_GARBAGE_MAX);
}

static void test_resync(void **state)
{
        struct env *e = *state;

        open_session(e);
        host_send_text(e, "{\"type\":\"requ\xff");
        host_request(e, SESSION, 3);
        RUN_UNTIL(e, e->n_requests == 1);
        assert_int_equal(channel_counters(e->channel)->n_garbage, 0);
}

static void test_backpressure(void **state)
{
        struct env *e = *state;
        unsigned sent = 0;
        char line[128];

        open_session(e);
        e->answer = true;
        /* The host asks and does not read: until the guest no longer reads either. */
        for (unsigned idle = 0; idle < 20;) {
                int length = snprintf(line, sizeof(line),
                        "{\"type\":\"request\",\"session\":\"" SESSION "\",\"id\":%u,\"op\":\"get-state\"}\n",
                        sent + 1);
                if (write(e->host_fd, line, (size_t)length) == length) {
                        sent++;
                        idle = 0;
                } else {
                        idle++;
                        loop_run_once(&e->loop, 1);
                }
        }
        assert_true(e->n_requests < sent);
        assert_int_equal(channel_counters(e->channel)->n_dropped, 0);
        assert_true(channel_has_session(e->channel));
        /* What may be dropped is; an event comes later, once. */
        struct message progress = { .type = MESSAGE_PROGRESS, .id = 1, .progress = { 1, 2 } };
        assert_int_equal(channel_send(e->channel, &progress, true), 0);
        assert_int_equal(channel_counters(e->channel)->n_dropped, 1);
        channel_send_event(e->channel, EVENT_BLOCKS_CHANGED);
        channel_send_event(e->channel, EVENT_BLOCKS_CHANGED);

        unsigned n_replies = 0, n_events = 0;
        RUN_UNTIL(e, ({
                while (receive(e)) {
                        n_replies += e->last.type == MESSAGE_REPLY;
                        n_events += e->last.type == MESSAGE_EVENT;
                }
                n_replies == sent &&n_events == 1;
        }));
        assert_int_equal(e->n_requests, sent);
}

static void test_host_goes(void **state)
{
        struct env *e = *state;

        open_session(e);
        e->host_fd = close_fd(e->host_fd);
        RUN_UNTIL(e, e->n_down == 1);
        /* Hung up for as long as it lasts, and that costs nothing. */
        assert_null(e->loop.timers);
        assert_int_equal(loop_run_once(&e->loop, 10), 0);
        assert_int_equal(e->loop.n_ready, 0);
        assert_int_equal(channel_counters(e->channel)->n_hellos, 1);
}

static void test_ports(void **state)
{
        struct tree t;

        tree_init(&t);
        assert_int_equal(port_open(t.sys_fd, "/nonexistent/port"), -ENOENT);
        if (access("/dev/virtio-ports/" PROTO_PORT_NAME, F_OK) < 0) {
                assert_int_equal(port_open(t.sys_fd, NULL), -ENOENT);
                /* By its name in sysfs: of two, the right one (which /dev does not have). */
                tree_mkdir(t.sys_fd, "class/virtio-ports/null");
                tree_mkdir(t.sys_fd, "class/virtio-ports/vport99p1");
                tree_write(t.sys_fd, "class/virtio-ports/null/name", "org.other\n");
                tree_write(t.sys_fd, "class/virtio-ports/vport99p1/name", PROTO_PORT_NAME "\n");
                assert_int_equal(port_open(t.sys_fd, NULL), -ENOENT);
                tree_write(t.sys_fd, "class/virtio-ports/null/name", PROTO_PORT_NAME "\n");
                tree_write(t.sys_fd, "class/virtio-ports/vport99p1/name", "org.other\n");
                int fd = port_open(t.sys_fd, NULL);
                assert_true(fd >= 0);
                close_fd(fd);
        }
        tree_done(&t);
}

static unsigned order[8], n_order;

static void on_expired(struct loop_timer *t)
{
        assert_true(n_order < ARRAY_SIZE(order));
        order[n_order++] = *(unsigned *)t->userdata;
}

static void test_timers(void **state)
{
        unsigned numbers[4] = { 0, 1, 2, 3 };
        struct loop_timer t[4];
        struct loop loop;

        assert_int_equal(loop_init(&loop), 0);
        n_order = 0;
        for (unsigned i = 0; i < 4; i++)
                t[i] = (struct loop_timer) { .on_expired = on_expired, .userdata = &numbers[i] };
        uint64_t now = now_monotonic_usec();
        loop_timer_arm(&loop, &t[0], now + 3000);
        loop_timer_arm(&loop, &t[1], now + 1000);
        loop_timer_arm(&loop, &t[2], now + 2000);
        loop_timer_arm(&loop, &t[3], now + 1500);
        loop_timer_arm(&loop, &t[1], now + 4000);
        loop_timer_disarm(&loop, &t[3]);
        loop_timer_disarm(&loop, &t[3]);
        for (unsigned i = 0; i < 1000 && n_order < 3; i++)
                assert_int_equal(loop_run_once(&loop, 100), 0);
        assert_int_equal(n_order, 3);
        assert_int_equal(order[0], 2);
        assert_int_equal(order[1], 0);
        assert_int_equal(order[2], 1);
        assert_null(loop.timers);
        loop_done(&loop);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_session),
                TEST(test_hello_again),
                TEST(test_refused),
                TEST(test_garbage),
                TEST(test_resync),
                TEST(test_backpressure),
                TEST(test_host_goes),
                cmocka_unit_test(test_ports),
                cmocka_unit_test(test_timers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
