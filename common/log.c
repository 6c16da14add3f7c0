/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Logging is the service manager's: this only formats a line and hands it to stderr. */

#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

static int max_level = LOG_INFO;

void log_set_max_level(int level)
{
        max_level = level;
}

int log_level_from_string(const char *s)
{
        static const struct {
                const char *name;
                int level;
        } levels[] = {
                { "error", LOG_ERR },
                { "warning", LOG_WARNING },
                { "notice", LOG_NOTICE },
                { "info", LOG_INFO },
                { "debug", LOG_DEBUG },
        };

        for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
                if (strcmp(levels[i].name, s) == 0)
                        return levels[i].level;
        return -EINVAL;
}

void log_line(int level, const char *format, ...)
{
        if (level > max_level)
                return;

        int saved_errno = errno;
        char prefix[8], text[2048];
        va_list ap;

        va_start(ap, format);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        int length = vsnprintf(text, sizeof(text), format, ap);
#pragma GCC diagnostic pop
        va_end(ap);
        if (length < 0)
                length = 0;
        if ((size_t)length >= sizeof(text))
                length = sizeof(text) - 1;

        /* A peer's text may be quoted in a line: it must not forge further lines. */
        for (int i = 0; i < length; i++)
                if ((unsigned char)text[i] < 0x20)
                        text[i] = ' ';

        int prefix_length = isatty(STDERR_FILENO) ? 0 : snprintf(prefix, sizeof(prefix), "<%d>", level);
        struct iovec iov[] = {
                { prefix, (size_t)prefix_length },
                { text, (size_t)length },
                { (char *)"\n", 1 },
        };
        ssize_t r _unused_ = writev(STDERR_FILENO, iov, ARRAY_SIZE(iov));
        errno = saved_errno;
}
