/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What QEMU says of itself, too much of it, and what is no QMP. */

#include "qmp-fixture.h"

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
        const struct CMUnitTest tests[] = {
                TEST(test_events),
                TEST(test_event_flood),
                TEST(test_ost_flood),
                TEST(test_oversized),
                TEST(test_long_line),
                TEST(test_closed_in_mid_reply),
                TEST(test_garbage_when_up),
                cmocka_unit_test(test_messages),
                cmocka_unit_test(test_answers_to_greetings),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
