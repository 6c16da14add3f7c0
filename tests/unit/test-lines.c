/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The line reader, fed whole, byte by byte and in every way between: the pieces must not matter. */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/lines.h"

#define MAX_LINE 8

/* Takes all lines there are; writes them to out as "line|", an oversized one as "!|". */
static void drain(struct line_reader *r, char *out, size_t size)
{
        for (;;) {
                char *line;
                size_t length, used = strlen(out);
                int e = line_reader_next(r, &line, &length);

                if (e == 0)
                        return;
                if (e < 0) {
                        assert_int_equal(e, -EMSGSIZE);
                        snprintf(out + used, size - used, "!|");
                        continue;
                }
                assert_int_equal(e, 1);
                assert_int_equal(line[length], '\0');
                assert_true(length > 0 && length <= r->max_line);
                snprintf(out + used, size - used, "%.*s|", (int)length, line);
        }
}

static void test_pieces(void **state)
{
        static const struct {
                const char *input, *expected;
                bool resync;
        } table[] = {
                { "", "", false },
                { "abc", "", false },
                { "abc\n", "abc|", false },
                { "a\nb\nc\nd", "a|b|c|", false },
                { "a\r\nb\r\n", "a|b|", false },
                { "\n\n\r\na\n\n", "a|", false },
                { "a\rb\n", "a\rb|", false },
                { "12345678\n", "12345678|", false },
                { "123456789\nab\n", "!|ab|", false },
                { "123456789abcdefghijklmnopqrstuvwxyz\nab\n123456789\n", "!|ab|!|", false },
                { "123456789abcdefghijklmnopqrstuvwxyz", "!|", false },
                { "a\xFF\x62\n", "a\xFF\x62|", false },
                { "\xFF\x61\n", "a|", true },
                { "abc\xFF\x64\x65\n", "de|", true },
                { "abc\xFF", "", true },
                { "abc\xFF\n", "", true },
                { "\xFF\xFF\xFF\x61\nb\xFF\x63\xFF\x64\ne\n", "a|d|e|", true },
                { "abc\nde\xFF\x66\n", "abc|f|", true },
                { "123\xFF\x34\x35\x36\x37\x38\x39\n", "456789|", true },
        };
        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
                size_t n = strlen(table[i].input);

                for (size_t piece = 1; piece <= n + 1; piece++) {
                        struct line_reader r;
                        char out[128] = "";

                        line_reader_init(&r, MAX_LINE, table[i].resync);
                        for (size_t at = 0; at < n; at += piece) {
                                assert_int_equal(
                                        line_reader_feed(&r, table[i].input + at, MIN(piece, n - at)), 0);
                                drain(&r, out, sizeof(out));
                                assert_true(r.fill - r.parsed <= MAX_LINE);
                        }
                        if (strcmp(out, table[i].expected) != 0)
                                fail_msg("'%s' by %zu: '%s', not '%s'", table[i].input, piece, out,
                                        table[i].expected);
                        line_reader_done(&r);
                }
        }
}

/* A mark inside an oversized line ends it; whether the line was called oversized before depends on the
 * pieces, what comes out of it does not. */
static void test_resync_oversized(void **state)
{
        static const char input[] = "123456789abcdef\xFFok\n";

        for (size_t piece = 1; piece < sizeof(input); piece++) {
                struct line_reader r;
                char out[128] = "";

                line_reader_init(&r, MAX_LINE, true);
                for (size_t at = 0; at < sizeof(input) - 1; at += piece) {
                        assert_int_equal(
                                line_reader_feed(&r, input + at, MIN(piece, sizeof(input) - 1 - at)), 0);
                        drain(&r, out, sizeof(out));
                }
                assert_string_equal(out, r.n_oversized ? "!|ok|" : "ok|");
                line_reader_done(&r);
        }
}

static void test_reset(void **state)
{
        struct line_reader r;
        char out[128] = "";

        line_reader_init(&r, MAX_LINE, false);
        line_reader_feed(&r, "1234567890", 10);
        drain(&r, out, sizeof(out));
        assert_string_equal(out, "!|");
        line_reader_reset(&r);
        assert_int_equal(line_reader_feed(&r, "a\nhalf", 6), 0);
        drain(&r, out, sizeof(out));
        line_reader_reset(&r);
        assert_int_equal(line_reader_feed(&r, "b\n", 2), 0);
        assert_int_equal(line_reader_feed(&r, NULL, 0), 0);
        drain(&r, out, sizeof(out));
        assert_string_equal(out, "!|a|b|");
        assert_int_equal(r.n_oversized, 1);
        line_reader_done(&r);
        line_reader_done(&r);
}

/* However much a peer sends on one line, the buffer stays at a line and a read. */
static void test_bounded(void **state)
{
        const size_t max_line = 64 * 1024, read_size = 4096;
        struct line_reader r;
        char chunk[4096], *line;
        size_t length;
        unsigned n_oversized = 0;

        memset(chunk, 'x', sizeof(chunk));
        line_reader_init(&r, max_line, true);
        for (int i = 0; i < 1000; i++) {
                assert_int_equal(line_reader_feed(&r, chunk, sizeof(chunk)), 0);
                for (int e; (e = line_reader_next(&r, &line, &length)) != 0;) {
                        assert_int_equal(e, -EMSGSIZE);
                        n_oversized++;
                }
                assert_true(r.allocated <= max_line + read_size);
        }
        assert_int_equal(n_oversized, 1);
        assert_int_equal(r.n_oversized, 1);
        assert_int_equal(line_reader_feed(&r, "\nok\n", 4), 0);
        assert_int_equal(line_reader_next(&r, &line, &length), 1);
        assert_string_equal(line, "ok");
        line_reader_done(&r);
}

static void test_read(void **state)
{
        struct line_reader r;
        char out[128] = "";
        int fds[2];

        assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
        line_reader_init(&r, MAX_LINE, false);
        assert_int_equal(line_reader_read(&r, fds[0], 16), -EAGAIN);
        assert_int_equal(write(fds[1], "one\ntwo\nthree\n123456789\nfour\nend", 32), 32);
        assert_int_equal(line_reader_read(&r, fds[0], 5), 5);
        drain(&r, out, sizeof(out));
        assert_string_equal(out, "one|");
        assert_int_equal(line_reader_read(&r, fds[0], 64), 27);
        drain(&r, out, sizeof(out));
        assert_string_equal(out, "one|two|three|!|four|");
        /* An unfinished line stays; without one there is nothing to keep. */
        line_reader_release(&r);
        assert_int_equal(r.fill - r.parsed, 3);
        assert_int_equal(write(fds[1], "s\n", 2), 2);
        assert_int_equal(line_reader_read(&r, fds[0], 64), 2);
        drain(&r, out, sizeof(out));
        assert_string_equal(out, "one|two|three|!|four|ends|");
        line_reader_release(&r);
        assert_null(r.buffer);
        assert_int_equal(r.allocated, 0);
        close(fds[1]);
        assert_int_equal(line_reader_read(&r, fds[0], 16), 0);
        drain(&r, out, sizeof(out));
        assert_string_equal(out, "one|two|three|!|four|ends|");
        close(fds[0]);
        assert_int_equal(line_reader_read(&r, -1, 16), -EBADF);
        line_reader_done(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pieces),
                cmocka_unit_test(test_resync_oversized),
                cmocka_unit_test(test_reset),
                cmocka_unit_test(test_bounded),
                cmocka_unit_test(test_read),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
