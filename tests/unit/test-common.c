/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Sizes, spans, the table of errors and text that strangers wrote. */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/log.h"
#include "common/size.h"
#include "common/text.h"

static void test_size_good(void **state)
{
        static const struct {
                const char *text;
                uint64_t bytes;
        } table[] = {
                { "1K", KIB },
                { "1k", KIB },
                { "512M", 512 * MIB },
                { "512m", 512 * MIB },
                { "2G", 2 * GIB },
                { "2GB", 2 * GIB },
                { "1536MiB", 1536 * MIB },
                { "1T", TIB },
                { "0512M", 512 * MIB },
                { "8388607T", 8388607 * TIB },
                { "9007199254740991K", INT64_MAX - 1023 },
        };
        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
                struct error error = { 0 };
                uint64_t bytes = 0;

                if (size_parse(table[i].text, &bytes, &error) < 0)
                        fail_msg("%s: %s", table[i].text, error.message);
                assert_int_equal(bytes, table[i].bytes);
                assert_int_equal(error.code, ERROR_NONE);
        }
}

static void test_size_bad(void **state)
{
        static const char *const table[] = { "", " ", "0", "0M", "00G", "512", "-1G", "+1G", " 1G", "1G ",
                "1 G", "1.5G", "1,5G", "G", "MiB", "1X", "1Mi", "1MB1", "1MiBs", "1MM", "1GK", "1b", "1P",
                "1E", "0x10M", "1e3M", "8388608T", "9007199254740992K", "18446744073709551615K",
                "18446744073709551616M", "99999999999999999999999999999G", "1\xC2\xA0G", "\xEF\xBC\x91G",
                "infG", "nan" };

        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
                struct error error = { 0 };
                uint64_t bytes = 42;

                if (size_parse(table[i], &bytes, &error) >= 0)
                        fail_msg("'%s' was taken for %ju", table[i], (uintmax_t)bytes);
                assert_int_equal(bytes, 42);
                assert_int_equal(error.code, ERROR_INVALID_SIZE);
                assert_non_null(strstr(error.message, "512M"));
                assert_true(size_parse(table[i], &bytes, NULL) < 0);
        }
}

static void test_size_format(void **state)
{
        static const struct {
                uint64_t bytes;
                const char *text;
        } table[] = {
                { 0, "0 B" },
                { 1, "1 B" },
                { 1023, "1023 B" },
                { KIB, "1 KiB" },
                { KIB + KIB / 4, "1.25 KiB" },
                { 512 * MIB, "512 MiB" },
                { GIB, "1 GiB" },
                { GIB + GIB / 2, "1.5 GiB" },
                { GIB + 3 * GIB / 4, "1.75 GiB" },
                { GIB + 128 * MIB, "1152 MiB" },
                { 16 * TIB, "16 TiB" },
                { TIB + GIB, "1025 GiB" },
        };
        for (size_t i = 0; i < ARRAY_SIZE(table); i++)
                assert_string_equal(SIZE(table[i].bytes), table[i].text);
        assert_true(strlen(SIZE(UINT64_MAX)) < SIZE_FORMAT_MAX);

        static const uint64_t exact[] = { KIB, 3 * KIB, MIB, 1536 * MIB, GIB, 3 * GIB, 5 * TIB, TIB + KIB };
        for (size_t i = 0; i < ARRAY_SIZE(exact); i++) {
                uint64_t bytes = 0;

                assert_int_equal(size_parse(SIZE_EXACT(exact[i]), &bytes, NULL), 0);
                assert_int_equal(bytes, exact[i]);
        }
        assert_string_equal(SIZE_EXACT(1536 * MIB), "1536M");
}

static void test_timespan(void **state)
{
        static const struct {
                const char *text;
                uint64_t usec; /* 0: refused */
        } table[] = {
                { "1", USEC_PER_SEC },
                { "500ms", 500 * USEC_PER_MSEC },
                { "20s", 20 * USEC_PER_SEC },
                { "5m", 300 * USEC_PER_SEC },
                { "5min", 300 * USEC_PER_SEC },
                { "1h", 3600 * USEC_PER_SEC },
                { "168h", 7 * 24 * 3600 * USEC_PER_SEC },
                { "604800", 7 * 24 * 3600 * USEC_PER_SEC },
                { "604801", 0 },
                { "169h", 0 },
                { "0", 0 },
                { "0s", 0 },
                { "", 0 },
                { "s", 0 },
                { "-1", 0 },
                { "+1", 0 },
                { " 1", 0 },
                { "1 s", 0 },
                { "1.5s", 0 },
                { "1d", 0 },
                { "1S", 0 },
                { "1sec", 0 },
                { "5m30s", 0 },
                { "18446744073709551615h", 0 },
                { "18446744073709551616", 0 },
                { "infinity", 0 },
        };
        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
                struct error error = { 0 };
                uint64_t usec = 0;
                int r = timespan_parse(table[i].text, &usec, &error);

                assert_int_equal(usec, table[i].usec);
                if ((r < 0) != (table[i].usec == 0))
                        fail_msg("'%s': %d %s", table[i].text, r, error.message);
                assert_int_equal(error.code, r < 0 ? ERROR_INVALID_ARGUMENT : ERROR_NONE);
        }
}

/* A code without a row, or a row that was copied and not changed, shows here. */
static void test_error_table(void **state)
{
        for (enum error_code code = 0; code < ERROR_CODE_MAX; code++) {
                const char *name = error_code_name(code), *dbus_name = error_code_dbus_name(code);
                static const char prefix[] = "org.opendlpar.hvd1.Error.";

                if (!name || !dbus_name)
                        fail_msg("Error code %d has no row", code);
                assert_int_equal(error_code_from_name(name), code);
                assert_int_equal(error_code_from_dbus_name(dbus_name), code);
                assert_true(strncmp(dbus_name, prefix, strlen(prefix)) == 0);

                /* "no-headroom" is "NoHeadroom". */
                const char *d = dbus_name + strlen(prefix);
                bool upper = true;
                for (const char *n = name; *n; n++) {
                        if (*n == '-') {
                                upper = true;
                                continue;
                        }
                        assert_int_equal(*d, upper ? toupper(*n) : *n);
                        upper = false;
                        d++;
                }
                assert_int_equal(*d, '\0');
                if (code != ERROR_NONE)
                        assert_true(error_set(NULL, code, "x") < 0);
        }
        assert_int_equal(error_code_from_name("No-Headroom"), ERROR_CODE_INVALID);
        assert_int_equal(error_code_from_name(""), ERROR_CODE_INVALID);
        assert_int_equal(error_code_from_name(NULL), ERROR_CODE_INVALID);
        assert_int_equal(error_code_from_dbus_name(NULL), ERROR_CODE_INVALID);
        assert_string_equal(error_code_name(ERROR_CODE_INVALID), "internal");
        assert_string_equal(error_code_name(ERROR_CODE_MAX), "internal");
        assert_non_null(error_code_dbus_name(ERROR_CODE_MAX));
}

static void test_error_set(void **state)
{
        struct error error = { 0 };
        char long_text[2 * ERROR_MESSAGE_MAX];

        assert_int_equal(error_set(&error, ERROR_BUSY, "Job %d runs", 7), -EBUSY);
        assert_int_equal(error.code, ERROR_BUSY);
        assert_string_equal(error.message, "Job 7 runs");

        assert_int_equal(error_set_errno(&error, ERROR_CONFIG, -ENOENT, "Reading %s", "x"), -ENOENT);
        assert_int_equal(error.code, ERROR_CONFIG);
        assert_string_equal(error.message, "Reading x: No such file or directory");
        assert_int_equal(error_set_errno(NULL, ERROR_CONFIG, ENOENT, "x"), -ENOENT);
        assert_int_equal(error_set_errno(NULL, ERROR_CONFIG, 0, "x"), -EIO);

        memset(long_text, 'a', sizeof(long_text));
        long_text[sizeof(long_text) - 1] = '\0';
        error_set(&error, ERROR_BUSY, "%s", long_text);
        assert_int_equal(strlen(error.message), ERROR_MESSAGE_MAX - 1);
        error_set_errno(&error, ERROR_BUSY, EIO, "%s", long_text);
        assert_int_equal(strlen(error.message), ERROR_MESSAGE_MAX - 1);

        /* D-Bus refuses a message with half a character in it. */
        error_set(&error, ERROR_BUSY, "'%.2s' \033[1m", "a\xC3\xA9");
        assert_string_equal(error.message, "'a?'  [1m");
}

static void test_utf8(void **state)
{
        static const struct {
                const char *text;
                size_t length;
        } table[] = {
                { "a", 1 },
                { "\x7F", 1 },
                { "\xC2\x80", 2 },
                { "\xDF\xBF", 2 },
                { "\xE0\xA0\x80", 3 },
                { "\xED\x9F\xBF", 3 },
                { "\xEE\x80\x80", 3 },
                { "\xEF\xBF\xBF", 3 },
                { "\xF0\x90\x80\x80", 4 },
                { "\xF4\x8F\xBF\xBF", 4 },
                { "\x80", 0 },
                { "\xC0\x80", 0 },
                { "\xC1\xBF", 0 },
                { "\xC2", 0 },
                { "\xC2\x41", 0 },
                { "\xE0\x9F\xBF", 0 },
                { "\xE2\x82", 0 },
                { "\xED\xA0\x80", 0 },
                { "\xF0\x8F\xBF\xBF", 0 },
                { "\xF4\x90\x80\x80", 0 },
                { "\xF5\x80\x80\x80", 0 },
                { "\xFF", 0 },
        };
        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
                assert_int_equal(utf8_sequence(table[i].text, strlen(table[i].text)), table[i].length);
                for (size_t n = 0; n < table[i].length; n++)
                        assert_int_equal(utf8_sequence(table[i].text, n), 0);
        }
}

static void test_text(void **state)
{
        static const struct {
                const char *text, *cleaned;
                size_t size;
        } table[] = {
                { "plain \xC3\xA9 \xF0\x9F\x98\x80", "plain \xC3\xA9 \xF0\x9F\x98\x80", 64 },
                { "", "", 1 },
                { "abc", "", 1 },
                { "abc", "ab", 3 },
                { "a\xC3\xA9", "a", 3 },
                { "a\xC3\xA9", "a\xC3\xA9", 4 },
                { "a\nb\tc\033[0m\x7F.", "a b c [0m .", 64 },
                { "\xC2\x9Bx", " x", 64 },
                { "\xC2\xA0x", "\xC2\xA0x", 64 },
                { "\xFF\xC3x\xED\xA0\x80", "??x???", 64 },
                { "x\xC3", "x?", 64 },
        };
        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
                char out[64], in_place[64];

                text_clean(out, table[i].size, table[i].text);
                assert_string_equal(out, table[i].cleaned);
                assert_true(text_is_printable(out));
                strcpy(in_place, table[i].text);
                text_clean(in_place, table[i].size, in_place);
                assert_string_equal(in_place, table[i].cleaned);
                if (table[i].size == 64)
                        assert_int_equal(text_is_printable(table[i].text),
                                strcmp(table[i].text, table[i].cleaned) == 0);
        }
}

static void test_log_level(void **state)
{
        assert_int_equal(log_level_from_string("error"), LOG_ERR);
        assert_int_equal(log_level_from_string("debug"), LOG_DEBUG);
        assert_int_equal(log_level_from_string("loud"), -EINVAL);
        assert_int_equal(log_level_from_string(""), -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_size_good),
                cmocka_unit_test(test_size_bad),
                cmocka_unit_test(test_size_format),
                cmocka_unit_test(test_timespan),
                cmocka_unit_test(test_error_table),
                cmocka_unit_test(test_error_set),
                cmocka_unit_test(test_utf8),
                cmocka_unit_test(test_text),
                cmocka_unit_test(test_log_level),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
