/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Of what a hook prints the first line is kept; all else is read too, or the hook would wait. */

#include "hooks/output.h"

#include <errno.h>
#include <unistd.h>

static void take(struct first_line *line, const char *data, size_t n)
{
        for (size_t i = 0; i < n && !line->complete; i++) {
                bool end = data[i] == '\n';

                /* Empty lines before it do not count. */
                if (end && line->length == 0)
                        continue;
                if (end || line->length == sizeof(line->text) - 1)
                        line->complete = true;
                else
                        line->text[line->length++] = data[i] ? data[i] : ' ';
        }
}

bool output_drain(int fd, struct first_line *line)
{
        char buffer[4096];

        for (unsigned i = 0; i < 16; i++) { /* then the clock is looked at */
                ssize_t n = read(fd, buffer, sizeof(buffer));
                if (n <= 0)
                        return n < 0 && (errno == EAGAIN || errno == EINTR);
                take(line, buffer, (size_t)n);
        }
        return true;
}
