/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Stored samples as a trace, in two passes: who there is and what their profiles were last, and then what
 * they used. A trace wants a profile that is whole, and a pool in which all have what they desire at the
 * beginning: where the host had set less, what the guests had stands in for it. */

#include "hvd/recording.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/policy/policy.h"
#include "hvd/store/store.h"

struct subject {
        char name[POLICY_NAME_MAX];
        struct store_sample first, last; /* their strings are not kept */
        uint64_t most_bytes;             /* that it had or used */
        uint64_t written_msec;           /* of its last point, and 1 */
        size_t n_points;
};

struct recording {
        FILE *file;
        uint64_t from_usec, to_usec, pool_bytes;
        struct subject *subjects; /* owned */
        size_t n_subjects;
};

static struct subject *find_subject(struct recording *r, const char *name)
{
        for (size_t i = 0; i < r->n_subjects; i++)
                if (strcmp(r->subjects[i].name, name) == 0)
                        return &r->subjects[i];
        return NULL;
}

static int on_first_pass(const struct store_sample *sample, void *userdata)
{
        struct recording *r = userdata;
        struct subject *s = find_subject(r, sample->partition);

        if (r->from_usec == 0)
                r->from_usec = sample->time_usec;
        r->to_usec = sample->time_usec;
        r->pool_bytes = MAX(r->pool_bytes, sample->pool_bytes);
        if (!s) {
                if (r->n_subjects == POLICY_PARTITIONS_MAX)
                        return 0;
                s = reallocarray(r->subjects, r->n_subjects + 1, sizeof(*s));
                if (!s)
                        return -ENOMEM;
                r->subjects = s;
                s += r->n_subjects++;
                *s = (struct subject) { .first = *sample };
                snprintf(s->name, sizeof(s->name), "%s", sample->partition);
        }
        s->last = *sample;
        s->most_bytes = MAX(s->most_bytes, sample->current_bytes);
        s->most_bytes = MAX(s->most_bytes, sample->used_bytes);
        return 0;
}

/* Sizes of a trace have a unit. */
static uint64_t in_kib(uint64_t bytes)
{
        return MAX((bytes + KIB - 1) / KIB, UINT64_C(1));
}

static int on_second_pass(const struct store_sample *sample, void *userdata)
{
        struct recording *r = userdata;
        struct subject *s = find_subject(r, sample->partition);
        uint64_t msec = (sample->time_usec - r->from_usec) / USEC_PER_MSEC;

        /* Its times have to rise. */
        if (!s || msec + 1 <= s->written_msec)
                return 0;
        s->written_msec = msec + 1;
        s->n_points++;
        fprintf(r->file, "at %" PRIu64 ".%03" PRIu64 " %s %" PRIu64 "K\n", msec / 1000, msec % 1000, s->name,
                in_kib(sample->used_bytes));
        return 0;
}

static void write_head(struct recording *r)
{
        uint64_t msec = (r->to_usec - r->from_usec) / USEC_PER_MSEC, desired_sum = 0;

        for (size_t i = 0; i < r->n_subjects; i++)
                desired_sum += r->subjects[i].first.current_bytes;
        fprintf(r->file,
                "opendlpar-trace 1\n# recorded by hvd\npool %" PRIu64 "K\nlength %" PRIu64 ".%03" PRIu64 "\n",
                in_kib(MAX(r->pool_bytes, desired_sum)), msec / 1000, msec % 1000);
        for (size_t i = 0; i < r->n_subjects; i++) {
                const struct subject *s = &r->subjects[i];
                uint64_t desired = s->first.current_bytes;
                uint64_t min = s->last.min_bytes > 0 ? MIN(s->last.min_bytes, desired) : desired;
                uint64_t max = MAX(s->last.max_bytes, s->most_bytes); /* desired is among the latter */

                fprintf(r->file,
                        "partition %s min %" PRIu64 "K desired %" PRIu64 "K max %" PRIu64 "K weight %" PRIu64
                        "\n",
                        s->name, in_kib(min), in_kib(desired), in_kib(max), s->last.weight);
        }
}

int recording_write(struct store *s, uint64_t now_usec, uint64_t span_usec, FILE *f, struct error *ret_error)
{
        struct recording r = { .file = f };
        uint64_t from = now_usec - MIN(span_usec, now_usec);
        int k = store_sample_foreach(s, from, now_usec, on_first_pass, &r, ret_error);

        if (k == -ENOMEM)
                error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        else if (k >= 0 && r.to_usec < r.from_usec + USEC_PER_SEC)
                k = error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "There are no samples of that time, or of less than a second; the policy has to be "
                        "observe or auto for guests to send some");
        if (k >= 0) {
                write_head(&r);
                k = store_sample_foreach(s, from, r.to_usec, on_second_pass, &r, ret_error);
        }
        free(r.subjects);
        if (k >= 0 && (fflush(f) != 0 || ferror(f)))
                k = error_set_errno(ret_error, ERROR_INTERNAL, errno, "The trace cannot be written");
        return k;
}
