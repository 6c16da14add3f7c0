/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Sizes and spans as people write them. Strict: a number that could mean two things is an error. */

#include "common/size.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* Reads a run of digits at *s and moves *s behind it. -EINVAL: no digit; -ERANGE: above UINT64_MAX. */
static int parse_digits(const char **s, uint64_t *ret)
{
        uint64_t v = 0;
        const char *p = *s;

        if (*p < '0' || *p > '9')
                return -EINVAL;
        for (; *p >= '0' && *p <= '9'; p++)
                if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
                        __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
                        return -ERANGE;
        *s = p;
        *ret = v;
        return 0;
}

static int size_error(struct error *ret_error, const char *s, const char *why)
{
        return error_set(ret_error, ERROR_INVALID_SIZE,
                "Size '%.40s' %s; write for example 512M, 2G or 1536MiB", s, why);
}

int size_parse(const char *s, uint64_t *ret_bytes, struct error *ret_error)
{
        static const struct {
                char letter;
                uint64_t factor;
        } units[] = { { 'K', KIB }, { 'M', MIB }, { 'G', GIB }, { 'T', TIB } };
        const char *p = s;
        uint64_t v, factor = 0;

        if (*p == '-')
                return size_error(ret_error, s, "is negative");
        int r = parse_digits(&p, &v);
        if (r == -ERANGE)
                return size_error(ret_error, s, "is too large");
        if (r < 0)
                return size_error(ret_error, s, "does not start with a whole number");
        if (*p == '.' || *p == ',')
                return size_error(ret_error, s, "has a fraction, and sizes are whole numbers");
        if (*p == '\0')
                return size_error(ret_error, s, "has no unit");

        for (size_t i = 0; i < ARRAY_SIZE(units); i++)
                if ((*p & ~0x20) == units[i].letter)
                        factor = units[i].factor;
        if (factor == 0 || (p[1] != '\0' && strcasecmp(p + 1, "iB") != 0 && strcasecmp(p + 1, "B") != 0))
                return size_error(ret_error, s, "has an unknown unit");
        if (v == 0)
                return size_error(ret_error, s, "is zero");
        if (__builtin_mul_overflow(v, factor, &v) || v > INT64_MAX)
                return size_error(ret_error, s, "is too large");

        *ret_bytes = v;
        return 0;
}

const char *size_format(uint64_t bytes, char buffer[static SIZE_FORMAT_MAX])
{
        static const struct {
                uint64_t factor;
                const char *name;
        } units[] = { { TIB, "TiB" }, { GIB, "GiB" }, { MIB, "MiB" }, { KIB, "KiB" } };

        for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
                uint64_t f = units[i].factor, quarters;

                if (bytes < f)
                        continue;
                if (bytes % f == 0)
                        snprintf(buffer, SIZE_FORMAT_MAX, "%" PRIu64 " %s", bytes / f, units[i].name);
                else if ((quarters = bytes % f / (f / 4)) * (f / 4) == bytes % f)
                        snprintf(buffer, SIZE_FORMAT_MAX, "%" PRIu64 ".%s %s", bytes / f,
                                quarters == 1   ? "25"
                                : quarters == 2 ? "5"
                                                : "75",
                                units[i].name);
                else if (i + 1 < ARRAY_SIZE(units) && bytes % units[i + 1].factor == 0)
                        snprintf(buffer, SIZE_FORMAT_MAX, "%" PRIu64 " %s", bytes / units[i + 1].factor,
                                units[i + 1].name);
                else
                        snprintf(
                                buffer, SIZE_FORMAT_MAX, "%.1f %s", (double)bytes / (double)f, units[i].name);
                return buffer;
        }
        snprintf(buffer, SIZE_FORMAT_MAX, "%" PRIu64 " B", bytes);
        return buffer;
}

const char *size_format_exact(uint64_t bytes, char buffer[static SIZE_FORMAT_MAX])
{
        if (bytes % GIB == 0 && bytes > 0)
                snprintf(buffer, SIZE_FORMAT_MAX, "%" PRIu64 "G", bytes / GIB);
        else if (bytes % MIB == 0)
                snprintf(buffer, SIZE_FORMAT_MAX, "%" PRIu64 "M", bytes / MIB);
        else
                snprintf(buffer, SIZE_FORMAT_MAX, "%" PRIu64 "K", bytes / KIB);
        return buffer;
}

int timespan_parse(const char *s, uint64_t *ret_usec, struct error *ret_error)
{
        static const struct {
                const char *suffix;
                uint64_t usec;
        } units[] = {
                { "", USEC_PER_SEC },
                { "ms", USEC_PER_MSEC },
                { "s", USEC_PER_SEC },
                { "m", 60 * USEC_PER_SEC },
                { "min", 60 * USEC_PER_SEC },
                { "h", 3600 * USEC_PER_SEC },
        };
        const char *p = s;
        uint64_t v;

        if (parse_digits(&p, &v) == 0)
                for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
                        if (strcmp(p, units[i].suffix) != 0)
                                continue;
                        if (v == 0 || __builtin_mul_overflow(v, units[i].usec, &v) ||
                                v > 7 * 24 * 3600 * USEC_PER_SEC)
                                break;
                        *ret_usec = v;
                        return 0;
                }
        return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                "Time '%.40s' is not valid; write for example 500ms, 20s, 5m or 1h, at most 7 days", s);
}

uint64_t now_monotonic_usec(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / 1000;
}
