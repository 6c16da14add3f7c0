/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Reads traces. Strict: a trace that is not what it seems gives figures that are not what they seem. */

#include "hvd/sim/trace.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"

#define WORDS_MAX 20U

struct reader {
        const char *name;
        unsigned line;
        struct trace *trace;
        size_t n_points;
        bool has_magic;
        struct error *error;
};

#define reader_fail(r, format, ...)                                                                          \
        error_set((r)->error, ERROR_INVALID_ARGUMENT, "%s:%u: " format, (r)->name,                           \
                (r)->line __VA_OPT__(, ) __VA_ARGS__)

static const char *const manner_names[TRACE_MANNER_MAX] = {
        [TRACE_HONEST] = "honest",
        [TRACE_DISTRESS] = "distress",
        [TRACE_RANDOM] = "random",
        [TRACE_SILENT] = "silent",
        [TRACE_FLOOD] = "flood",
        [TRACE_REFUSES] = "refuses",
};

enum trace_manner trace_manner_from_string(const char *s)
{
        for (int i = 0; i < TRACE_MANNER_MAX; i++)
                if (strcmp(manner_names[i], s) == 0)
                        return i;
        return TRACE_MANNER_INVALID;
}

/* Seconds with at most three decimals. */
static int parse_time(struct reader *r, const char *s, uint64_t *ret_usec)
{
        size_t whole = strspn(s, "0123456789"), part = 0;
        uint64_t usec, scale = 100 * USEC_PER_MSEC;

        if (s[whole] == '.')
                part = strspn(s + whole + 1, "0123456789");
        if (whole == 0 || whole > 9 || part > 3 || s[whole + (part > 0 ? part + 1 : 0)] != '\0')
                return reader_fail(r, "'%.40s' is no time; write seconds, as in 90 or 90.5", s);
        usec = strtoull(s, NULL, 10) * USEC_PER_SEC;
        for (size_t i = 0; i < part; i++, scale /= 10)
                usec += (uint64_t)(s[whole + 1 + i] - '0') * scale;
        if (usec > TRACE_USEC_MAX)
                return reader_fail(r, "%.40s is too long; a trace has at most 31 days", s);
        *ret_usec = usec;
        return 0;
}

static int parse_bytes(struct reader *r, const char *s, uint64_t *ret_bytes)
{
        struct error error;
        uint64_t bytes = 0;

        if (strcmp(s, "0") != 0 && size_parse(s, &bytes, &error) < 0)
                return reader_fail(r, "%s", error.message);
        if (bytes > POLICY_BYTES_MAX)
                return reader_fail(r, "%.40s is too much; write at most 1024T", s);
        *ret_bytes = bytes;
        return 0;
}

static struct trace_partition *find_partition(struct trace *t, const char *name)
{
        for (size_t i = 0; i < t->n_partitions; i++)
                if (strcmp(t->partitions[i].name, name) == 0)
                        return &t->partitions[i];
        return NULL;
}

static int read_pool(struct reader *r, char **words, size_t n)
{
        if (r->trace->pool_bytes > 0)
                return reader_fail(r, "A second pool; a trace has one");
        if ((n != 2 && n != 4) || (n == 4 && strcmp(words[2], "reserve") != 0))
                return reader_fail(r, "Write: pool SIZE [reserve SIZE]");
        int k = parse_bytes(r, words[1], &r->trace->pool_bytes);
        if (k >= 0 && n == 4)
                k = parse_bytes(r, words[3], &r->trace->reserve_bytes);
        if (k >= 0 && r->trace->pool_bytes <= r->trace->reserve_bytes)
                return reader_fail(r, "The reserve is all of the pool; make it smaller");
        return k;
}

static int read_attribute(struct reader *r, struct trace_partition *p, const char *key, const char *value)
{
        if (strcmp(key, "min") == 0)
                return parse_bytes(r, value, &p->min_bytes);
        if (strcmp(key, "desired") == 0)
                return parse_bytes(r, value, &p->desired_bytes);
        if (strcmp(key, "max") == 0)
                return parse_bytes(r, value, &p->max_bytes);
        if (strcmp(key, "start") == 0)
                return parse_time(r, value, &p->start_usec);
        if (strcmp(key, "weight") == 0) {
                p->weight = strspn(value, "0123456789") == strlen(value) && strlen(value) < 5
                                    ? (unsigned)atoi(value)
                                    : 0;
                return p->weight >= 1 && p->weight <= 255
                               ? 0
                               : reader_fail(r, "'%.40s' is no weight; write 1 to 255", value);
        }
        if (strcmp(key, "manner") == 0) {
                p->manner = trace_manner_from_string(value);
                return p->manner != TRACE_MANNER_INVALID ? 0
                                                         : reader_fail(r,
                                                                   "'%.40s' is no manner; there are honest, "
                                                                   "distress, random, silent, flood "
                                                                   "and refuses",
                                                                   value);
        }
        return reader_fail(r,
                "'%.40s' is not known of a partition; there are min, desired, max, weight, start "
                "and manner",
                key);
}

static int read_partition(struct reader *r, char **words, size_t n)
{
        struct trace *t = r->trace;
        struct trace_partition p = { .weight = 128 };

        if (n < 2 || n % 2 != 0 || strlen(words[1]) >= sizeof(p.name))
                return reader_fail(r,
                        "Write: partition NAME min SIZE desired SIZE max SIZE [weight N] [start "
                        "TIME] [manner MANNER], with a name below %zu bytes",
                        sizeof(p.name));
        if (find_partition(t, words[1]))
                return reader_fail(r, "A second partition %s; give each a name of its own", words[1]);
        if (t->n_partitions >= POLICY_PARTITIONS_MAX)
                return reader_fail(r, "More than %u partitions", POLICY_PARTITIONS_MAX);
        strcpy(p.name, words[1]);
        for (size_t i = 2; i < n; i += 2) {
                int k = read_attribute(r, &p, words[i], words[i + 1]);
                if (k < 0)
                        return k;
        }
        if (p.min_bytes == 0 || p.min_bytes > p.desired_bytes || p.desired_bytes > p.max_bytes)
                return reader_fail(r,
                        "Give %s a min that is more than 0, and then desired and max, each at "
                        "least the one before",
                        p.name);
        struct trace_partition *more =
                reallocarray(t->partitions, t->n_partitions + 1, sizeof(*t->partitions));
        if (!more)
                return error_set(r->error, ERROR_INTERNAL, "Out of memory");
        t->partitions = more;
        t->partitions[t->n_partitions++] = p;
        return 0;
}

static int read_point(struct reader *r, char **words, size_t n)
{
        struct trace_partition *p;
        struct trace_point point;

        if (n != 4)
                return reader_fail(r, "Write: at TIME NAME SIZE");
        p = find_partition(r->trace, words[2]);
        if (!p)
                return reader_fail(r, "There is no partition %.64s; write a line for it before", words[2]);
        if (parse_time(r, words[1], &point.usec) < 0 || parse_bytes(r, words[3], &point.bytes) < 0)
                return -EINVAL;
        if (p->n_points > 0 && point.usec <= p->points[p->n_points - 1].usec)
                return reader_fail(r, "The times of %s do not rise; the one before is at %g s", p->name,
                        (double)p->points[p->n_points - 1].usec / USEC_PER_SEC);
        if (++r->n_points > TRACE_POINTS_MAX)
                return reader_fail(r, "More than %u points", TRACE_POINTS_MAX);
        if ((p->n_points & (p->n_points - 1)) == 0) {
                struct trace_point *more =
                        reallocarray(p->points, p->n_points > 0 ? 2 * p->n_points : 1, sizeof(*more));
                if (!more)
                        return error_set(r->error, ERROR_INTERNAL, "Out of memory");
                p->points = more;
        }
        p->points[p->n_points++] = point;
        return 0;
}

static int read_line(struct reader *r, char *line)
{
        char *words[WORDS_MAX], *state = NULL;
        size_t n = 0;

        for (char *w = strtok_r(line, " \t\r\n", &state); w && w[0] != '#';
                w = strtok_r(NULL, " \t\r\n", &state)) {
                if (n == WORDS_MAX)
                        return reader_fail(r, "More than %u words", WORDS_MAX);
                words[n++] = w;
        }
        if (n == 0)
                return 0;
        if (!r->has_magic) {
                r->has_magic =
                        n == 2 && strcmp(words[0], "opendlpar-trace") == 0 && strcmp(words[1], "1") == 0;
                return r->has_magic ? 0 : reader_fail(r, "No trace: the first line is opendlpar-trace 1");
        }
        if (strcmp(words[0], "at") == 0)
                return read_point(r, words, n);
        if (strcmp(words[0], "partition") == 0)
                return read_partition(r, words, n);
        if (strcmp(words[0], "pool") == 0)
                return read_pool(r, words, n);
        if (strcmp(words[0], "length") == 0)
                return n == 2 ? parse_time(r, words[1], &r->trace->length_usec)
                              : reader_fail(r, "Write: length TIME");
        return reader_fail(
                r, "'%.40s' begins no line of a trace; there are pool, length, partition and at", words[0]);
}

static int check_whole(struct reader *r)
{
        const struct trace *t = r->trace;
        uint64_t at_first = 0;

        if (t->pool_bytes == 0 || t->length_usec == 0 || t->n_partitions == 0)
                return reader_fail(r, "The trace ends without a %s",
                        t->pool_bytes == 0    ? "pool"
                        : t->length_usec == 0 ? "length"
                                              : "partition");
        for (size_t i = 0; i < t->n_partitions; i++) {
                if (t->partitions[i].n_points == 0)
                        return reader_fail(r, "%s has no points; write at least one", t->partitions[i].name);
                if (t->partitions[i].start_usec == 0)
                        at_first += t->partitions[i].desired_bytes;
        }
        if (at_first > t->pool_bytes - t->reserve_bytes)
                return reader_fail(r,
                        "What is desired at the beginning, %s, is more than the pool without its "
                        "reserve, %s",
                        SIZE(at_first), SIZE(t->pool_bytes - t->reserve_bytes));
        return 0;
}

int trace_read(FILE *file, const char *name, struct trace *ret, struct error *ret_error)
{
        char line[TRACE_LINE_MAX + 2];
        struct trace trace = { 0 };
        struct reader r = { .name = name, .trace = &trace, .error = ret_error };
        int k = 0;

        while (k >= 0 && fgets(line, sizeof(line), file)) {
                r.line++;
                k = strlen(line) > TRACE_LINE_MAX
                            ? reader_fail(&r, "More than %u bytes in a line", TRACE_LINE_MAX)
                            : read_line(&r, line);
        }
        if (k >= 0 && ferror(file))
                k = error_set_errno(ret_error, ERROR_INVALID_ARGUMENT, EIO, "%s cannot be read", name);
        if (k >= 0)
                k = check_whole(&r);
        if (k < 0) {
                trace_done(&trace);
                return k;
        }
        *ret = trace;
        return 0;
}

void trace_done(struct trace *t)
{
        for (size_t i = 0; i < t->n_partitions; i++)
                free(t->partitions[i].points);
        free(t->partitions);
        *t = (struct trace) { 0 };
}

uint64_t trace_demand(const struct trace_partition *p, uint64_t usec, size_t *cursor)
{
        while (*cursor < p->n_points && p->points[*cursor].usec <= usec)
                (*cursor)++;
        if (*cursor == 0)
                return p->points[0].bytes;
        const struct trace_point *a = &p->points[*cursor - 1];
        if (*cursor == p->n_points)
                return a->bytes;
        const struct trace_point *b = a + 1;
        uint64_t in = usec - a->usec, of = b->usec - a->usec;
        return a->bytes <= b->bytes
                       ? a->bytes + (uint64_t)((unsigned __int128)(b->bytes - a->bytes) * in / of)
                       : a->bytes - (uint64_t)((unsigned __int128)(a->bytes - b->bytes) * in / of);
}
