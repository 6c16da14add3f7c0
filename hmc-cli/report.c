/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A job in words. The first line has to be enough at a glance: what moved, how long it took, where it is,
 * what the partition has now. Reasons follow only where something stayed. */

#include "hmc-cli/report.h"

#include <ctype.h>
#include <string.h>

#include "common/size.h"
#include "hmc-cli/output.h"

#define REASONS_MAX  10
#define PROGRESS_BAR 10

static bool job_is(struct json_object *job, const char *kind)
{
        return strcmp(field_string(job, "kind"), kind) == 0;
}

static bool job_adds(struct json_object *job)
{
        return !job_is(job, "remove-memory") && strcmp(field_string(job, "direction"), "remove") != 0;
}

/* Of one that is to set a total it is not known at first which it will be. */
static const char *job_verb(struct json_object *job)
{
        if (job_is(job, "move-memory"))
                return "moved";
        if (job_is(job, "set-memory") && !*field_string(job, "direction"))
                return "changed";
        return job_adds(job) ? "added" : "removed";
}

bool report_job_is_final(struct json_object *job)
{
        static const char *const final[] = { "DONE", "PARTIAL", "FAILED", "CANCELLED" };

        for (size_t i = 0; i < ARRAY_SIZE(final); i++)
                if (strcmp(field_string(job, "state"), final[i]) == 0)
                        return true;
        return false;
}

int report_job_exit(struct json_object *job)
{
        const char *state = field_string(job, "state");

        if (strcmp(state, "PARTIAL") == 0)
                return CLI_PARTIAL;
        return strcmp(state, "FAILED") == 0 || strcmp(state, "CANCELLED") == 0 ? CLI_FAILED : CLI_DONE;
}

void report_reason(FILE *f, struct json_object *reason)
{
        const char *device = field_string(reason, "device"), *block = field_string(reason, "block");
        const char *code = field_string(reason, "code");

        text_put(f, device);
        if (*block) {
                fputs(*device ? ", block " : "block ", f);
                text_put(f, block);
        }
        if (*device || *block)
                fputs(": ", f);
        text_put(f, code);
        fputs(*code ? ": " : "", f);
        text_put(f, field_string(reason, "message"));
}

static size_t count(struct json_object *array)
{
        return array ? json_object_array_length(array) : 0;
}

static void put_reasons(FILE *f, struct json_object *reasons, size_t first)
{
        size_t n = count(reasons);

        for (size_t i = first; i < n; i++) {
                if (i - first == REASONS_MAX && n - i > 1) {
                        fprintf(f, "  ... and %zu more\n", n - i);
                        break;
                }
                fputs("  ", f);
                report_reason(f, json_object_array_get_idx(reasons, i));
                fputc('\n', f);
        }
}

static void put_notes(FILE *f, struct json_object *job)
{
        struct json_object *notes = field_array(job, "notes");

        for (size_t i = 0; i < count(notes); i++) {
                fputs("  note: ", f);
                text_put(f, json_object_get_string(json_object_array_get_idx(notes, i)) ?: "");
                fputc('\n', f);
        }
}

static void put_zones(FILE *f, struct json_object *job, uint64_t done)
{
        uint64_t movable = field_u64(job, "movable_bytes"), kernel = field_u64(job, "kernel_bytes");

        if (movable > 0 && movable >= done)
                fputs(", all in zone Movable", f);
        else if (kernel > 0 && kernel >= done)
                fputs(", all in kernel zones", f);
        else {
                if (movable > 0)
                        fprintf(f, ", %s in Movable", TEXT_SIZE(movable));
                if (kernel > 0)
                        fprintf(f, ", %s in kernel zones", TEXT_SIZE(kernel));
        }
}

/* Of what is done: why a device was passed over on the way is of no interest, but hooks are to be seen to. */
static void put_hook_reasons(FILE *f, struct json_object *reasons)
{
        for (size_t i = 0; i < count(reasons); i++) {
                struct json_object *reason = json_object_array_get_idx(reasons, i);

                if (strncmp(field_string(reason, "code"), "hook-", 5) != 0)
                        continue;
                fputs("  ", f);
                report_reason(f, reason);
                fputc('\n', f);
        }
}

/* ": added 1 GiB of 2 GiB", ": set to 5 GiB, added 4 GiB", ": moved 1 GiB to web2" */
static void put_moved(FILE *f, struct json_object *job, bool is_done)
{
        uint64_t requested = field_u64(job, "requested_bytes"), done = field_u64(job, "done_bytes");
        bool is_set = is_done && job_is(job, "set-memory");

        fputs(":", f);
        if (is_set)
                fprintf(f, " set to %s", TEXT_SIZE(field_u64(job, "target_bytes")));
        if (!is_set || requested > 0)
                fprintf(f, "%s %s %s", is_set ? "," : "", job_verb(job), TEXT_SIZE(done));
        if (done < requested)
                fprintf(f, " of %s", TEXT_SIZE(requested));
        if (job_is(job, "move-memory")) {
                fputs(" to ", f);
                text_put(f, field_string(job, "peer"));
        }
}

static void put_now(FILE *f, struct json_object *job)
{
        if (field_u64(job, "max_bytes") == 0)
                return;
        fputs("; ", f);
        if (job_is(job, "move-memory")) {
                text_put(f, field_string(job, "partition"));
                fputc(' ', f);
        }
        fprintf(f, "now %s of %s", TEXT_SIZE(field_u64(job, "current_bytes")),
                TEXT_SIZE(field_u64(job, "max_bytes")));
}

void report_job(FILE *f, struct json_object *job)
{
        uint64_t requested = field_u64(job, "requested_bytes"), done = field_u64(job, "done_bytes");
        struct json_object *reasons = field_array(job, "reasons");
        const char *verb = job_verb(job);
        int exit_code = report_job_exit(job);

        text_put(f, field_string(job, "partition"));
        if (exit_code == CLI_FAILED && done == 0) {
                fprintf(f, ": nothing %s", verb);
                if (requested > 0) /* else a whole node, of which nothing came to be known */
                        fprintf(f, " of %s", TEXT_SIZE(requested));
                fprintf(f, " in %s: ", TEXT_SPAN(field_u64(job, "elapsed_usec")));
                if (count(reasons) > 0)
                        report_reason(f, json_object_array_get_idx(reasons, 0));
                else
                        fputs(strcmp(field_string(job, "state"), "CANCELLED") == 0 ? "cancelled"
                                                                                   : "hvd gives no reason",
                                f);
                fputc('\n', f);
                put_reasons(f, reasons, 1);
                put_notes(f, job);
                return;
        }

        put_moved(f, job, exit_code == CLI_DONE);
        fprintf(f, " in %s", TEXT_SPAN(field_u64(job, "elapsed_usec")));
        if (job_adds(job))
                put_zones(f, job, done);
        put_now(f, job);
        fputc('\n', f);
        if (exit_code != CLI_DONE)
                put_reasons(f, reasons, 0);
        else
                put_hook_reasons(f, reasons);
        put_notes(f, job);
}

void report_plan(FILE *f, struct json_object *job)
{
        struct json_object *plan = field_array(job, "plan");

        if (report_job_exit(job) != CLI_DONE) {
                report_job(f, job);
                return;
        }
        for (size_t i = 0; i < count(plan); i++) {
                const char *sentence = json_object_get_string(json_object_array_get_idx(plan, i));

                text_put(f, sentence ?: "");
                fputc('\n', f);
        }
        if (count(plan) == 0)
                fputs("There is nothing to do\n", f);
}

void report_progress(FILE *f, struct json_object *job, uint64_t now_usec)
{
        uint64_t requested = field_u64(job, "requested_bytes"), deadline = field_u64(job, "deadline");
        double progress = field_double(job, "progress");
        const char *state = field_string(job, "state");

        progress = progress > 1 ? 1 : progress > 0 ? progress : 0;
        text_put(f, field_string(job, "partition"));
        fputs(": ", f);
        for (const char *p = state; *p; p++)
                fputc(isalpha((unsigned char)*p) ? tolower((unsigned char)*p) : '-', f);

        uint64_t moved = (uint64_t)(progress * (double)(requested / MIB)) * MIB;
        if (strcmp(state, "QUEUED") != 0)
                fprintf(f, " %s of %s", moved >= requested ? TEXT_SIZE(requested) : TEXT_SIZE(moved),
                        TEXT_SIZE(requested));
        fputs(" [", f);
        for (int i = 0; i < PROGRESS_BAR; i++)
                fputc(i < (int)(progress * PROGRESS_BAR) ? '#' : '.', f);
        fputc(']', f);

        if (deadline > 0) {
                uint64_t left = deadline > now_usec ? (deadline - now_usec) / USEC_PER_SEC : 0;

                if (left < 60)
                        fprintf(f, " %u s left", (unsigned)left);
                else
                        fprintf(f, " %s left", TEXT_SPAN(left * USEC_PER_SEC));
        }
        if (*field_string(job, "waiting")) {
                fputs("; ", f);
                text_put(f, field_string(job, "waiting"));
        }
}
