/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Jobs that are already there: listing and cancelling them. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hmc-cli/args.h"
#include "hmc-cli/bus.h"
#include "hmc-cli/output.h"
#include "hmc-cli/report.h"

static void add_job_row(struct output_cells *cells, struct json_object *job)
{
        struct json_object *reasons = field_array(job, "reasons");
        _cleanup_free_ char *reason = NULL;
        size_t length;

        if (reasons && json_object_array_length(reasons) > 0) {
                FILE *f = open_memstream(&reason, &length);

                if (!f) {
                        cells->oom = true;
                        return;
                }
                report_reason(f, json_object_array_get_idx(reasons, 0));
                cells->oom |= fclose(f) != 0;
        }
        output_cell(cells, "%" PRIu64, field_u64(job, "id"));
        output_cell(cells, "%s", field_string(job, "partition"));
        output_cell(cells, "%s", field_string(job, "kind"));
        output_cell(cells, "%s", field_string(job, "state"));
        output_cell(cells, "%s / %s", TEXT_SIZE(field_u64(job, "done_bytes")),
                TEXT_SIZE(field_u64(job, "requested_bytes")));
        output_cell(cells, "%s", TEXT_SPAN(field_u64(job, "elapsed_usec")));
        if (!reason && *field_string(job, "waiting"))
                output_cell(cells, "waits: %s", field_string(job, "waiting"));
        else
                output_cell(cells, "%s", reason ?: "");
}

static int run_jobs(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        static const struct output_column columns[] = {
                { "ID", .right = true },
                { "PARTITION" },
                { "KIND" },
                { "STATE" },
                { "DONE/REQUESTED", .right = true },
                { "ELAPSED", .right = true },
                { "FIRST REASON", .truncate = true },
        };
        _cleanup_(output_cells_done) struct output_cells cells = {};
        _cleanup_json_ struct json_object *jobs = NULL;
        const char *words[CLI_POSITIONALS_MAX];
        int r;

        if (!bus_begin(cli, verb, argc, argv, words, &r))
                return r;
        r = bus_get_objects(cli, "ListJobs", "id", NULL, &jobs);
        if (r != 0)
                return r;

        if (cli->arg_json) {
                output_json(jobs);
                return CLI_DONE;
        }
        if (json_object_array_length(jobs) == 0) {
                puts("There are no jobs.");
                return CLI_DONE;
        }
        for (size_t i = 0; i < json_object_array_length(jobs); i++)
                add_job_row(&cells, json_object_array_get_idx(jobs, i));
        r = output_cells_print(stdout, columns, ARRAY_SIZE(columns), &cells);
        return r < 0 ? output_fail_errno(cli, r) : CLI_DONE;
}

static int run_cancel(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_json_ struct json_object *job = NULL;
        const char *words[CLI_POSITIONALS_MAX];
        char path[sizeof(HVD_JOB_PATH) + 16];
        struct error error;
        uint32_t id;
        int r;

        r = args_parse(cli, verb, argc, argv, NULL, words, &error);
        if (r == ARGS_OK)
                r = args_parse_u32("Job", words[0], &id, &error);
        if (r != ARGS_OK)
                return args_finish(cli, verb, r, &error);
        r = bus_open(cli);
        if (r != 0)
                return r;

        snprintf(path, sizeof(path), HVD_JOB_PATH "/%" PRIu32, id);
        r = sd_bus_call_method(cli->bus, HVD_NAME, path, HVD_JOB_INTERFACE, "Cancel", &bus_error, NULL, NULL);
        if (r < 0 && (sd_bus_error_has_name(&bus_error, SD_BUS_ERROR_UNKNOWN_OBJECT) ||
                             sd_bus_error_has_name(&bus_error, SD_BUS_ERROR_UNKNOWN_METHOD)))
                return output_fail(cli, CLI_FAILED, error_code_name(ERROR_UNKNOWN_JOB),
                        "There is no job %" PRIu32 "; see 'hmc-cli jobs'", id);
        if (r < 0)
                return bus_fail(cli, &bus_error, r);
        if (!cli->arg_json) {
                printf("job %" PRIu32 ": asked to stop; see 'hmc-cli jobs' for how it ends\n", id);
                return CLI_DONE;
        }
        r = bus_get_all(cli, path, HVD_JOB_INTERFACE, &job, &bus_error);
        if (r < 0)
                return bus_fail(cli, &bus_error, r);
        output_json(job);
        return CLI_DONE;
}

const struct cli_verb verb_jobs = {
        .name = "jobs",
        .help = "Lists the jobs that run, wait, or ended lately; the newest last",
        .run = run_jobs,
};

const struct cli_verb verb_cancel = {
        .name = "cancel",
        .positionals = { "JOB" },
        .help = "Stops a job at its next safe point; what has moved stays",
        .run = run_cancel,
};
