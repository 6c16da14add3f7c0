/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Splits a byte stream into lines, for the guest channel and for QMP alike. Bounded: a line longer than
 * max_line bytes is dropped whole and counted, and memory never exceeds max_line plus one read. */
struct line_reader {
        size_t max_line; /* bytes without the newline */
        bool resync;     /* 0xFF throws away what came before it on the line */
        char *buffer;
        size_t fill, parsed, allocated;
        bool dropping; /* inside an oversized line */
        uint64_t n_oversized;
};

void line_reader_init(struct line_reader *r, size_t max_line, bool resync);
void line_reader_done(struct line_reader *r);
/* Forgets what is buffered: for a new connection. Keeps the counters. */
void line_reader_reset(struct line_reader *r);

/* Gives the buffer back if nothing is in it: for those who have many readers. The last line is gone. */
void line_reader_release(struct line_reader *r);

/* Appends bytes. 0, or -ENOMEM. Call line_reader_next() until it returns 0 before feeding again. */
int line_reader_feed(struct line_reader *r, const void *data, size_t length);

/* Takes the next whole line, without its "\n" or "\r\n". 1: *ret_line (NUL-terminated, borrowed until the
 * next call on r) and *ret_length are set; empty lines are skipped. 0: no whole line yet. -EMSGSIZE: an
 * oversized line was met and is being dropped; said once for each such line, call again. */
int line_reader_next(struct line_reader *r, char **ret_line, size_t *ret_length);

/* Reads at most `limit` bytes from a non-blocking fd and feeds them. Returns the bytes read, 0 at the end of
 * the stream, -EAGAIN, or another -errno. */
ssize_t line_reader_read(struct line_reader *r, int fd, size_t limit);
