/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A bounded line splitter. Invariant: buffer[parsed..fill) holds the bytes that were not yet handed out, at
 * most one unfinished line and one read. */

#include "common/lines.h"

#include <string.h>

#include "common/cleanup.h"

#define RESYNC_BYTE 0xFF

void line_reader_init(struct line_reader *r, size_t max_line, bool resync)
{
        *r = (struct line_reader) { .max_line = max_line, .resync = resync };
}

void line_reader_done(struct line_reader *r)
{
        free(r->buffer);
        *r = (struct line_reader) { 0 };
}

void line_reader_reset(struct line_reader *r)
{
        r->fill = r->parsed = 0;
        r->dropping = false;
}

void line_reader_release(struct line_reader *r)
{
        if (r->parsed < r->fill)
                return;
        free(r->buffer);
        r->buffer = NULL;
        r->fill = r->parsed = r->allocated = 0;
}

/* Makes room for `length` more bytes behind fill. */
static int reserve(struct line_reader *r, size_t length)
{
        if (r->parsed > 0) {
                memmove(r->buffer, r->buffer + r->parsed, r->fill - r->parsed);
                r->fill -= r->parsed;
                r->parsed = 0;
        }
        if (r->fill + length <= r->allocated)
                return 0;

        size_t want = MAX(r->fill + length, (size_t)4096);
        char *p = realloc(r->buffer, want);
        if (!p)
                return -ENOMEM;
        r->buffer = p;
        r->allocated = want;
        return 0;
}

int line_reader_feed(struct line_reader *r, const void *data, size_t length)
{
        if (length == 0)
                return 0;
        int e = reserve(r, length);
        if (e < 0)
                return e;
        memcpy(r->buffer + r->fill, data, length);
        r->fill += length;
        return 0;
}

int line_reader_next(struct line_reader *r, char **ret_line, size_t *ret_length)
{
        while (r->parsed < r->fill) {
                char *start = r->buffer + r->parsed;
                size_t available = r->fill - r->parsed;
                char *newline = memchr(start, '\n', available);
                size_t length = newline ? (size_t)(newline - start) : available;

                if (r->resync) {
                        char *mark = memrchr(start, RESYNC_BYTE, length);
                        if (mark) {
                                /* Everything before the mark is the rest of something else. */
                                r->parsed += (size_t)(mark - start) + 1;
                                r->dropping = false;
                                continue;
                        }
                }

                if (r->dropping) {
                        r->parsed += length + (newline ? 1 : 0);
                        if (!newline)
                                return 0;
                        r->dropping = false;
                        continue;
                }
                if (length > r->max_line) {
                        r->n_oversized++;
                        r->dropping = true;
                        return -EMSGSIZE;
                }
                if (!newline)
                        return 0;

                r->parsed += length + 1;
                if (length > 0 && start[length - 1] == '\r')
                        length--;
                if (length == 0)
                        continue;
                start[length] = '\0';
                *ret_line = start;
                *ret_length = length;
                return 1;
        }
        return 0;
}

ssize_t line_reader_read(struct line_reader *r, int fd, size_t limit)
{
        int e = reserve(r, limit);
        if (e < 0)
                return e;

        ssize_t n;
        do
                n = read(fd, r->buffer + r->fill, limit);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        r->fill += (size_t)n;
        return n;
}
