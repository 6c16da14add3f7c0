/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The guest channel as hvd and guestd read it: a byte stream through the line reader into the codec. What
 * decodes must encode, decode again, and from then on stay the same to the byte. The stream is fed in pieces
 * whose size the first byte chooses, so that lines break everywhere. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/lines.h"
#include "proto/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition)                                                                                   \
        do {                                                                                                 \
                if (!(condition))                                                                            \
                        abort();                                                                             \
        } while (0)

static void check_line(const char *line, size_t length)
{
        _cleanup_(message_done) struct message m = { 0 }, again = { 0 };
        _cleanup_free_ char *first = NULL, *second = NULL;
        size_t first_length, second_length;
        struct error error = { 0 };

        if (message_decode(line, length, &m, &error) < 0) {
                REQUIRE(error.code == ERROR_AGENT_MISBEHAVED && error.message[0] != '\0');
                return;
        }
        REQUIRE(message_encode(&m, &first, &first_length) == 0);
        REQUIRE(first_length >= 2 && memchr(first, '\n', first_length) == first + first_length - 1);
        REQUIRE(message_decode(first, first_length - 1, &again, NULL) == 0);
        REQUIRE(again.type == m.type && again.id == m.id && strcmp(again.session, m.session) == 0);
        REQUIRE(message_encode(&again, &second, &second_length) == 0);
        REQUIRE(first_length == second_length && memcmp(first, second, first_length) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct line_reader r;
        size_t piece = size > 0 ? (size_t)data[0] * 16 + 1 : 1;

        line_reader_init(&r, PROTO_LINE_MAX, true);
        for (size_t i = 0; i < size; i += piece) {
                char *line;
                size_t length;
                int e;

                REQUIRE(line_reader_feed(&r, data + i, MIN(piece, size - i)) == 0);
                while ((e = line_reader_next(&r, &line, &length)) != 0)
                        if (e > 0)
                                check_line(line, length);
                REQUIRE(r.fill - r.parsed <= PROTO_LINE_MAX);
        }
        /* A last line without its newline is a message cut off: the codec has to bear it too. */
        if (r.fill > r.parsed)
                check_line(r.buffer + r.parsed, r.fill - r.parsed);
        line_reader_done(&r);
        return 0;
}
