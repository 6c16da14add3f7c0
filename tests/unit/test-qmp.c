/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <cmocka.h>

#include "hvd/qmp/limits.h"
#include "hvd/qmp/message.h"
#include "hvd/qmp/qmp.h"
#include "tests/fakes/fake-qmp.h"

#define LIMIT_USEC (20 * USEC_PER_SEC)

struct fixture {
        sd_event *event;
        char dir[32], socket[64];
        struct fake *fake;
        struct qmp_client *client;
        unsigned n_up, n_down, n_events;
        struct error down;
        char event_name[64], event_data[256];
        void (*on_up)(struct fixture *fx);
        void (*on_event)(struct fixture *fx);
};

/* What a call came to. */
struct record {
        struct fixture *fx;
        unsigned n;
        enum error_code code;
        char text[ERROR_MESSAGE_MAX];
        void (*then)(struct record *r);
        struct qmp_call *other;
};

#define RUN_UNTIL(fx, condition)                                                                             \
        do {                                                                                                 \
                if (!FAKE_RUN_UNTIL((fx)->event, condition, LIMIT_USEC))                                     \
                        fail_msg("never: %s; fake: %s", #condition,                                          \
                                (fx)->fake ? fake_complaint((fx)->fake) ?: "finished" : "none");             \
        } while (0)

#define RUN_SCRIPT(fx)                                                                                       \
        do {                                                                                                 \
                RUN_UNTIL(fx, fake_finished((fx)->fake) || fake_failed((fx)->fake));                         \
                if (fake_failed((fx)->fake))                                                                 \
                        fail_msg("%s", fake_complaint((fx)->fake));                                          \
        } while (0)

static void on_up(struct qmp_client *c, void *userdata)
{
        struct fixture *fx = userdata;

        assert_true(qmp_client_is_up(c));
        fx->n_up++;
        if (fx->on_up)
                fx->on_up(fx);
}

static void on_down(struct qmp_client *c, const struct error *error, void *userdata)
{
        struct fixture *fx = userdata;

        assert_false(qmp_client_is_up(c));
        fx->n_down++;
        fx->down = *error;
}

static void on_event(struct qmp_client *c, const char *name, struct json_object *data, void *userdata)
{
        struct fixture *fx = userdata;

        fx->n_events++;
        snprintf(fx->event_name, sizeof(fx->event_name), "%s", name);
        snprintf(fx->event_data, sizeof(fx->event_data), "%s",
                data ? json_object_to_json_string_ext(data, 0) : "");
        if (fx->on_event)
                fx->on_event(fx);
}

static void on_reply(struct json_object *result, const struct error *error, void *userdata)
{
        struct record *r = userdata;

        assert_true(!result != !error);
        r->n++;
        r->code = error ? error->code : ERROR_NONE;
        snprintf(r->text, sizeof(r->text), "%s",
                error ? error->message : json_object_to_json_string_ext(result, JSON_C_TO_STRING_PLAIN));
        if (r->then)
                r->then(r);
}

static int setup(void **state)
{
        struct fixture *fx = calloc(1, sizeof(*fx));

        strcpy(fx->dir, "/tmp/test-qmp-XXXXXX");
        assert_non_null(mkdtemp(fx->dir));
        snprintf(fx->socket, sizeof(fx->socket), "%s/qmp", fx->dir);
        assert_int_equal(sd_event_new(&fx->event), 0);
        *state = fx;
        return 0;
}

static int teardown(void **state)
{
        struct fixture *fx = *state;

        qmp_client_free(fx->client);
        fake_free(fx->fake);
        sd_event_unref(fx->event);
        unlink(fx->socket);
        rmdir(fx->dir);
        free(fx);
        return 0;
}

static void start_client(struct fixture *fx)
{
        static const struct qmp_handlers handlers = { on_up, on_down, on_event };
        static const struct qmp_limits limits = { LIMIT_USEC, 5 * USEC_PER_MSEC, 20 * USEC_PER_MSEC };

        assert_int_equal(qmp_client_new(fx->event, fx->socket, &handlers, fx, &fx->client), 0);
        qmp_client_set_limits(fx->client, &limits);
}

static void start_fake(struct fixture *fx, const char *script)
{
        assert_int_equal(fake_qmp_new(fx->event, fx->socket, script, &fx->fake), 0);
}

static void start(struct fixture *fx, const char *script)
{
        start_fake(fx, script);
        start_client(fx);
}

static void start_up(struct fixture *fx, const char *script)
{
        start(fx, "negotiate");
        fake_append(fx->fake, script);
        RUN_UNTIL(fx, qmp_client_is_up(fx->client));
}

static struct qmp_call *call(struct fixture *fx, const char *command, struct record *r)
{
        struct qmp_call *handle = NULL;

        r->fx = fx;
        assert_int_equal(qmp_call(fx->client, command, NULL, LIMIT_USEC, on_reply, r, &handle), 0);
        return handle;
}

static void test_paths(void **state)
{
        struct fixture *fx = *state;
        struct qmp_handlers handlers = { 0 };
        struct qmp_client *c = NULL;
        char path[200];

        memset(path, 'x', sizeof(path));
        path[sizeof(path) - 1] = '\0';
        assert_int_equal(qmp_client_new(fx->event, path, &handlers, NULL, &c), -ENAMETOOLONG);
        assert_int_equal(qmp_client_new(fx->event, "", &handlers, NULL, &c), -EINVAL);
        assert_null(c);
        assert_null(qmp_client_free(NULL));
        assert_null(qmp_call_free(NULL));
}

static void test_absent_then_there(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_client(fx);
        assert_int_equal(
                qmp_call(fx->client, "stop", json_object_new_object(), LIMIT_USEC, on_reply, &r, NULL),
                -ENOTCONN);
        RUN_UNTIL(fx, fx->n_down == 1);
        assert_int_equal(fx->down.code, ERROR_HYPERVISOR_ABSENT);
        assert_non_null(strstr(fx->down.message, fx->socket));
        /* Further failures of the same kind are not said again. */
        FAKE_RUN_UNTIL(fx->event, false, 60 * USEC_PER_MSEC);
        assert_int_equal(fx->n_down, 1);

        start_fake(fx, "negotiate");
        RUN_UNTIL(fx, fx->n_up == 1);
        RUN_SCRIPT(fx);
        assert_int_equal(r.n, 0);
        assert_int_equal(qmp_client_counters(fx->client).n_connects, 1);
}

static void test_refused_then_full(void **state)
{
        struct fixture *fx = *state;
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        strcpy(address.sun_path, fx->socket);
        assert_int_equal(bind(server, (struct sockaddr *)&address, sizeof(address)), 0);
        start_client(fx);
        RUN_UNTIL(fx, fx->n_down == 1); /* bound, not listening */
        assert_int_equal(fx->down.code, ERROR_HYPERVISOR_ABSENT);
        assert_non_null(strstr(fx->down.message, "refused"));

        assert_int_equal(listen(server, 0), 0);
        assert_int_equal(connect(other, (struct sockaddr *)&address, sizeof(address)), 0);
        RUN_UNTIL(fx, fx->n_down == 2); /* the backlog is full */
        assert_int_equal(fx->down.code, ERROR_HYPERVISOR_ABSENT);
        close(server);
        close(other);
}

static void test_never_served(void **state)
{
        static const struct qmp_limits limits = { 20 * USEC_PER_MSEC, 1000, 1000 };
        struct fixture *fx = *state;

        start(fx, "wait 100000");
        qmp_client_set_limits(fx->client, &limits);
        RUN_UNTIL(fx, fx->n_down == 1);
        assert_int_equal(fx->down.code, ERROR_HYPERVISOR_SILENT);
}

static void test_split_greeting(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start(fx, "accept\n"
                  "slowly greet\n"
                  "expect qmp_capabilities {\"enable\":[\"oob\"]}\n"
                  "slowly reply\n"
                  "expect query-status\n"
                  "slowly reply {\"status\":\"running\"}\n");
        RUN_UNTIL(fx, fx->n_up == 1);
        call(fx, "query-status", &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_string_equal(r.text, "{\"status\":\"running\"}");
}

static void test_bad_beginnings(void **state)
{
        static const char *const scripts[] = {
                "accept\nraw SSH-2.0-OpenSSH_9.2\\r\\n\nexpect-close",
                "accept\nraw {\"QMP\": 3}\\n\nexpect-close",
                "accept\nraw {\"QMP\": {\"version\": {}}}\\n\nexpect-close",
                "accept\nevent STOP\nexpect-close",
                "accept\nraw {\"return\": {}}\\n\nexpect-close",
                "accept\nraw {\"a\":1,\"a\":2}\\n\nexpect-close",
                "accept\nraw [1]\\n\nexpect-close",
                "accept\ngreet\nexpect qmp_capabilities\nerror CommandNotFound no\nexpect-close",
                "accept\ngreet\nexpect qmp_capabilities\ngreet\nexpect-close",
        };
        struct fixture *fx = *state;

        for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
                fx->n_down = 0;
                start(fx, scripts[i]);
                RUN_UNTIL(fx, fx->n_down == 1);
                assert_int_equal(fx->down.code, ERROR_HYPERVISOR_MISBEHAVED);
                RUN_SCRIPT(fx);
                /* It tries again, and a QEMU that has come to its senses is taken. */
                fake_append(fx->fake, "negotiate");
                RUN_UNTIL(fx, qmp_client_is_up(fx->client));
                assert_int_equal(qmp_client_counters(fx->client).n_garbage, 1);
                fx->client = qmp_client_free(fx->client);
                fx->fake = fake_free(fx->fake);
        }
}

static void test_out_of_order(void **state)
{
        struct fixture *fx = *state;
        struct record a = { 0 }, b = { 0 }, c = { 0 };

        start_up(fx, "expect one @a\nexpect two @b\nexpect three @c\n"
                     "reply @c 3\nerror @a DeviceNotFound Device 'x' not found\nreply @b [2]\n");
        call(fx, "one", &a);
        call(fx, "two", &b);
        call(fx, "three", &c);
        RUN_UNTIL(fx, b.n == 1);
        assert_int_equal(a.n + b.n + c.n, 3);
        assert_int_equal(a.code, ERROR_HYPERVISOR_REFUSED);
        assert_string_equal(a.text, "Device 'x' not found");
        assert_string_equal(b.text, "[2]");
        assert_string_equal(c.text, "3");
}

static void test_arguments(void **state)
{
        struct fixture *fx = *state;
        struct record r = { .fx = fx };
        struct json_object *arguments = json_object_new_object();

        start_up(fx, "expect device_del {\"id\":\"dimm0\"}\nreply null\n");
        json_add_string(arguments, "id", "dimm0");
        assert_int_equal(qmp_call(fx->client, "device_del", arguments, UINT64_MAX, on_reply, &r, NULL), 0);
        RUN_UNTIL(fx, r.n == 1);
        assert_string_equal(r.text, "{}");
}

static void test_unknown_id(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_up(fx, "expect stop\nraw {\"return\":{},\"id\":7}\\n\nreply {}\n");
        call(fx, "stop", &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(qmp_client_counters(fx->client).n_late_replies, 1);
        assert_true(qmp_client_is_up(fx->client));
}

static void test_reply_without_id(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_up(fx,
                "expect stop\nraw {\"error\":{\"class\":\"GenericError\",\"desc\":\"JSON parse error\"}}\\n\n"
                "expect-close\n");
        call(fx, "stop", &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_HYPERVISOR_MISBEHAVED);
        RUN_SCRIPT(fx);
}

static void test_late_after_free(void **state)
{
        struct fixture *fx = *state;
        struct record a = { 0 }, b = { 0 };

        start_up(fx, "expect one @a\nexpect two @b\nreply @a\nreply @b\n");
        struct qmp_call *handle = call(fx, "one", &a);
        call(fx, "two", &b);
        assert_null(qmp_call_free(handle));
        RUN_UNTIL(fx, b.n == 1);
        assert_int_equal(a.n, 0);
        assert_int_equal(qmp_client_counters(fx->client).n_late_replies, 1);
}

static void test_timeout(void **state)
{
        struct fixture *fx = *state;
        struct record r = { .fx = fx };

        start_up(fx, "expect slow\nwait 40\nreply {}\n");
        assert_int_equal(qmp_call(fx->client, "slow", NULL, 5 * USEC_PER_MSEC, on_reply, &r, NULL), 0);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_HYPERVISOR_SILENT);
        assert_non_null(strstr(r.text, "'slow'"));
        RUN_UNTIL(fx, qmp_client_counters(fx->client).n_late_replies == 1);
        assert_int_equal(r.n, 1);
        assert_true(qmp_client_is_up(fx->client));
}

static void test_events(void **state)
{
        struct fixture *fx = *state;

        start_up(fx, "event ACPI_DEVICE_OST {\"info\":{\"slot\":\"0\"}}\n");
        RUN_UNTIL(fx, fx->n_events == 1);
        assert_string_equal(fx->event_name, "ACPI_DEVICE_OST");
        assert_non_null(strstr(fx->event_data, "slot"));
        fake_append(fx->fake, "event RESUME\n");
        RUN_UNTIL(fx, fx->n_events == 2);
        assert_string_equal(fx->event_data, "");
}

static void test_event_flood(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };
        unsigned most = 0;

        /* One read may hold more messages than one wake-up handles; the reply behind the flood arrives. */
        start_up(fx, "expect stop\nrepeat 20000 raw {\"event\":\"A\"}\\n\nreply {}\n");
        call(fx, "stop", &r);
        for (uint64_t end = now_monotonic_usec() + LIMIT_USEC; r.n == 0 && now_monotonic_usec() < end;) {
                unsigned before = fx->n_events;

                assert_true(sd_event_run(fx->event, LIMIT_USEC) >= 0);
                most = MAX(most, fx->n_events - before);
        }
        assert_int_equal(r.n, 1);
        assert_int_equal(fx->n_events, 20000);
        assert_in_range(most, 2, QMP_EVENTS_BURST);
}

/* Those that a guest can cause without end are dropped; other events, and the reply behind them, are not. */
static void test_ost_flood(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };
        uint64_t begin = now_monotonic_usec();

        start_up(fx,
                "expect stop\nrepeat 10000 event ACPI_DEVICE_OST {\"info\":{\"slot\":\"0\"}}\n"
                "event DEVICE_DELETED {\"path\":\"/ACPI_DEVICE_OST\"}\nreply {\"a\":\"ACPI_DEVICE_OST\"}\n");
        call(fx, "stop", &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_NONE);
        assert_string_equal(fx->event_name, "DEVICE_DELETED");
        assert_int_equal(fx->n_events + qmp_client_counters(fx->client).n_dropped, 10001);
        assert_in_range(fx->n_events, QMP_EVENTS_SPARE,
                QMP_EVENTS_SPARE + 2 + (now_monotonic_usec() - begin) * QMP_EVENTS_PER_SEC / USEC_PER_SEC);
}

static void test_oversized(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        start_up(fx, "expect stop\nrepeat 1000 repeat 5000 raw x\nexpect-close");
        call(fx, "stop", &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(r.code, ERROR_HYPERVISOR_MISBEHAVED);
        assert_int_equal(qmp_client_counters(fx->client).n_oversized, 1);
}

static void test_long_line(void **state)
{
        struct fixture *fx = *state;
        struct record r = { 0 };

        /* 3 MB in one line is long and legal. */
        start_up(fx,
                "expect stop\nraw {\"event\":\"A\",\"data\":{\"x\":\"\nrepeat 1000 repeat 3000 raw x\nraw "
                "\"}}\\n\nreply {}\n");
        call(fx, "stop", &r);
        RUN_UNTIL(fx, r.n == 1);
        assert_int_equal(fx->n_events, 1);
}

static void test_closed_in_mid_reply(void **state)
{
        struct fixture *fx = *state;
        struct record a = { 0 }, b = { 0 };

        start_up(fx,
                "expect one @a\nexpect two\nhalf reply @a {\"x\":1}\nclose\nnegotiate\nexpect one\nreply {}");
        call(fx, "one", &a);
        call(fx, "two", &b);
        RUN_UNTIL(fx, fx->n_down == 1);
        assert_int_equal(a.n + b.n, 2);
        assert_int_equal(a.code, ERROR_HYPERVISOR_ABSENT);
        assert_int_equal(b.code, ERROR_HYPERVISOR_ABSENT);

        RUN_UNTIL(fx, fx->n_up == 2);
        call(fx, "one", &a);
        RUN_UNTIL(fx, a.n == 2);
        assert_int_equal(a.code, ERROR_NONE);
        assert_int_equal(qmp_client_counters(fx->client).n_connects, 2);
}

static void test_garbage_when_up(void **state)
{
        static const char *const lines[] = {
                "raw nonsense\\n",
                "raw {\"return\":{},\"error\":{}}\\n",
                "raw {\"return\":{},\"id\":\"x\"}\\n",
                "raw {\"event\":\"X\",\"data\":[]}\\n",
                "raw {\"error\":{\"class\":\"X\"},\"id\":1}\\n",
                "raw {\"timestamp\":{}}\\n",
                "raw {\"event\":\"\\xff\"}\\n",
                "raw \\x00\\n",
        };
        struct fixture *fx = *state;

        for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
                struct record r = { 0 };

                start_up(fx, "expect stop\n");
                fake_append(fx->fake, lines[i]);
                fake_append(fx->fake, "expect-close");
                call(fx, "stop", &r);
                RUN_UNTIL(fx, r.n == 1);
                assert_int_equal(r.code, ERROR_HYPERVISOR_MISBEHAVED);
                RUN_SCRIPT(fx);
                fx->client = qmp_client_free(fx->client);
                fx->fake = fake_free(fx->fake);
        }
}

static void free_other_and_call(struct record *r)
{
        r->then = NULL;
        r->other = qmp_call_free(r->other);
        if (qmp_client_is_up(r->fx->client))
                call(r->fx, "three", r);
        else
                assert_int_equal(qmp_call(r->fx->client, "three", NULL, 1, on_reply, r, NULL), -ENOTCONN);
}

static void test_callbacks_act(void **state)
{
        struct fixture *fx = *state;
        struct record a = { .then = free_other_and_call }, b = { 0 }, c = { 0 };

        start_up(fx, "expect one @a\nexpect two @b\nreply @a\nreply @b\nexpect three\nreply 3\n");
        call(fx, "one", &a);
        a.other = call(fx, "two", &b);
        RUN_UNTIL(fx, a.n == 2);
        assert_int_equal(b.n, 0);
        assert_string_equal(a.text, "3");

        /* The same while the connection dies: the first of three frees the second. */
        a = (struct record) { .then = free_other_and_call };
        fake_append(fx->fake, "expect one\nexpect two\nexpect four\nclose\n");
        call(fx, "one", &a);
        a.other = call(fx, "two", &b);
        call(fx, "four", &c);
        RUN_UNTIL(fx, fx->n_down == 1);
        assert_int_equal(a.n, 1);
        assert_int_equal(b.n, 0);
        assert_int_equal(c.n, 1);
}

static void call_at_once(struct fixture *fx)
{
        static struct record r;

        r = (struct record) { 0 };
        call(fx, "query-status", &r);
}

static void test_call_in_on_up_and_on_event(void **state)
{
        struct fixture *fx = *state;

        fx->on_up = call_at_once;
        fx->on_event = call_at_once;
        start(fx, "negotiate\nexpect query-status\nreply\nevent STOP\nexpect query-status\nreply\n");
        RUN_SCRIPT(fx);
}

static void test_limits(void **state)
{
        struct fixture *fx = *state;
        struct record r = { .fx = fx };

        start_up(fx, "repeat 2 nothing\n");
        for (unsigned i = 0; i < QMP_CALLS_MAX; i++)
                assert_int_equal(qmp_call(fx->client, "stop", NULL, LIMIT_USEC, on_reply, &r, NULL), 0);
        assert_int_equal(qmp_call(fx->client, "stop", NULL, LIMIT_USEC, on_reply, &r, NULL), -EBUSY);
        assert_int_equal(r.n, 0);
        fx->client = qmp_client_free(fx->client);
        assert_int_equal(r.n, 0); /* pending calls end without their callbacks */
}

static void test_backpressure(void **state)
{
        struct fixture *fx = *state;
        struct record r = { .fx = fx };
        char big[60001];

        memset(big, 'x', sizeof(big) - 1);
        big[sizeof(big) - 1] = '\0';
        /* QEMU does not read at first: what the socket does not take waits in the queue, and no more than
         * that. */
        start_up(fx, "expect first\n");
        call(fx, "first", &r);
        RUN_UNTIL(fx, fake_finished(fx->fake));
        unsigned n = 0;
        int e;
        for (;; n++) {
                struct json_object *arguments = json_object_new_object();
                json_add_string(arguments, "x", big);
                e = qmp_call(fx->client, "big", arguments, LIMIT_USEC, on_reply, &r, NULL);
                if (e < 0)
                        break;
        }
        assert_int_equal(e, -EBUSY);
        assert_in_range(qmp_client_queued(fx->client), 1, 1024 * 1024);
        fake_append(fx->fake, "on big reply {}\nwait 1\n");
        RUN_UNTIL(fx, r.n == n);
        assert_int_equal(qmp_client_queued(fx->client), 0);
}

static void test_peer_gone_at_write(void **state)
{
        struct fixture *fx = *state;
        struct record r = { .fx = fx };

        start_up(fx, "");
        RUN_SCRIPT(fx);
        fx->fake = fake_free(fx->fake);
        /* The end of file was not seen yet: the call is taken, and completes from the loop. */
        assert_int_equal(qmp_call(fx->client, "stop", NULL, LIMIT_USEC, on_reply, &r, NULL), 0);
        assert_int_equal(r.n, 0);
        assert_int_equal(qmp_call(fx->client, "stop", NULL, LIMIT_USEC, on_reply, &r, NULL), -ENOTCONN);
        RUN_UNTIL(fx, fx->n_down >= 1);
        assert_int_equal(r.n, 1);
        assert_int_equal(r.code, ERROR_HYPERVISOR_ABSENT);
}

static void test_messages(void **state)
{
        static const struct {
                const char *line;
                enum qmp_message_type type; /* _MAX: bad */
        } cases[] = {
                { "{\"QMP\":{\"version\":{\"qemu\":{}},\"capabilities\":[]}}", QMP_MESSAGE_GREETING },
                { "{\"return\":{},\"id\":1}", QMP_MESSAGE_RETURN },
                { "{\"return\":null}", QMP_MESSAGE_RETURN },
                { "{\"return\":[],\"id\":9007199254740991}", QMP_MESSAGE_RETURN },
                { "{\"return\":{},\"id\":9007199254740992}", QMP_MESSAGE_TYPE_MAX },
                { "{\"return\":{},\"id\":-1}", QMP_MESSAGE_TYPE_MAX },
                { "{\"error\":{\"class\":\"A\",\"desc\":\"b\"},\"id\":1}", QMP_MESSAGE_ERROR },
                { "{\"error\":\"x\",\"id\":1}", QMP_MESSAGE_TYPE_MAX },
                { "{\"event\":\"STOP\",\"timestamp\":{\"seconds\":1,\"microseconds\":2}}",
                        QMP_MESSAGE_EVENT },
                { "{\"event\":\"STOP\",\"data\":{\"a\":1}}", QMP_MESSAGE_EVENT },
                { "{\"event\":1}", QMP_MESSAGE_TYPE_MAX },
                { "{\"event\":\"STOP\",\"return\":1}", QMP_MESSAGE_TYPE_MAX },
                { "{}", QMP_MESSAGE_TYPE_MAX },
                { "", QMP_MESSAGE_TYPE_MAX },
                { "null", QMP_MESSAGE_TYPE_MAX },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct qmp_message m = { 0 };
                struct error error;

                int r = qmp_message_parse(cases[i].line, strlen(cases[i].line), &m, &error);
                assert_int_equal(r < 0, cases[i].type == QMP_MESSAGE_TYPE_MAX);
                if (r < 0)
                        assert_int_equal(error.code, ERROR_HYPERVISOR_MISBEHAVED);
                else
                        assert_int_equal(m.type, cases[i].type);
                qmp_message_done(&m);
        }
}

static void test_answers_to_greetings(void **state)
{
        static const struct {
                const char *offered, *wanted;
        } cases[] = {
                { "[]", "null" },
                { "[\"oob\"]", "{\"enable\":[\"oob\"]}" },
                { "[1,\"other\",\"oob\"]", "{\"enable\":[\"oob\"]}" },
                { "[\"out-of-band\"]", "null" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                _cleanup_json_ struct json_object *arguments = NULL;
                struct qmp_message m = { 0 };
                struct error error;
                char line[128];

                int n = snprintf(line, sizeof(line), "{\"QMP\":{\"version\":{},\"capabilities\":%s}}",
                        cases[i].offered);
                assert_int_equal(qmp_message_parse(line, (size_t)n, &m, &error), 0);
                assert_int_equal(qmp_message_answer_greeting(&m, &arguments), 0);
                assert_string_equal(
                        json_object_to_json_string_ext(arguments, JSON_C_TO_STRING_PLAIN), cases[i].wanted);
                qmp_message_done(&m);
        }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_messages),
                cmocka_unit_test(test_answers_to_greetings),
                TEST(test_paths),
                TEST(test_absent_then_there),
                TEST(test_refused_then_full),
                TEST(test_never_served),
                TEST(test_split_greeting),
                TEST(test_bad_beginnings),
                TEST(test_out_of_order),
                TEST(test_arguments),
                TEST(test_unknown_id),
                TEST(test_reply_without_id),
                TEST(test_late_after_free),
                TEST(test_timeout),
                TEST(test_events),
                TEST(test_event_flood),
                TEST(test_ost_flood),
                TEST(test_oversized),
                TEST(test_long_line),
                TEST(test_closed_in_mid_reply),
                TEST(test_garbage_when_up),
                TEST(test_callbacks_act),
                TEST(test_call_in_on_up_and_on_event),
                TEST(test_limits),
                TEST(test_backpressure),
                TEST(test_peer_gone_at_write),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
