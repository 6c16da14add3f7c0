/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Why the policy decided what it did: the last time, at one time, and in a row. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/size.h"
#include "hmc-cli/args.h"
#include "hmc-cli/bus.h"
#include "hmc-cli/output.h"
#include "hmc-cli/policy.h"

#define LAST_USUAL 20U
#define LAST_MAX   1000U /* hvd's own bound for one answer */

struct explain_request {
        uint32_t last, id; /* 0: not given */
};

enum {
        OPTION_LAST = 0x200,
        OPTION_ID,
};

static const struct cli_option explain_options[] = {
        { "last", OPTION_LAST, "N", "The latest N decisions, of all partitions if none is named" },
        { "id", OPTION_ID, "ID", "That decision, by its number in such a list" },
        {},
};

static int explain_option(void *request, int id, const char *value, struct error *ret_error)
{
        struct explain_request *q = request;
        bool is_last = id == OPTION_LAST;
        uint32_t *number = is_last ? &q->last : &q->id;

        int r = args_parse_u32(is_last ? "--last" : "--id", value, number, ret_error);
        if (r < 0)
                return r;
        if (*number < 1 || (is_last && *number > LAST_MAX))
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        is_last ? "--last '%.40s' is out of range; write 1 to 1000"
                                : "--id '%.40s' is no decision's number; they begin with 1",
                        value);
        return 0;
}

/* --- one --- */

static struct json_object *object_in(struct json_object *o, const char *key)
{
        struct json_object *v;

        return json_get_object(o, key, &v) < 0 ? NULL : v;
}

static void print_input(FILE *f, struct json_object *input)
{
        struct json_object *array = field_array(input, "partitions"), *resident;
        struct json_object *p = array ? json_object_array_get_idx(array, 0) : NULL;
        struct json_object *sample = object_in(p, "sample");
        char text[TEXT_FORMAT_MAX + 16];

        output_line(f, "has", TEXT_SIZE(field_u64(p, "current_bytes")));
        output_line(f, "min", TEXT_SIZE(field_u64(p, "min_bytes")));
        output_line(f, "max", TEXT_SIZE(field_u64(p, "max_bytes")));
        output_line(f, "available", TEXT_SIZE(field_u64(sample, "available_bytes")));
        snprintf(text, sizeof(text), "%" PRIu64 ".%" PRIu64 " %% of the time",
                field_u64(sample, "some_permille") / 10, field_u64(sample, "some_permille") % 10);
        output_line(f, "stalled", text);
        if (p && json_object_object_get_ex(p, "resident_bytes", &resident))
                output_line(f, "touched", TEXT_SIZE(field_u64(p, "resident_bytes")));
        output_line(f, "pool", TEXT_SIZE(field_u64(object_in(input, "pool"), "total_bytes")));
}

void policy_print_explanation(FILE *f, struct json_object *explanation)
{
        static const struct {
                const char *label, *key;
        } figures[] = {
                { "used", "used_bytes" },
                { "more soon", "pressed_bytes" },
                { "headroom", "headroom_bytes" },
                { "wants", "want_bytes" },
                { "may have", "share_bytes" },
                { "by weight", "weight_bytes" },
                { "target", "target_bytes" },
        };
        struct json_object *decision = object_in(explanation, "decision");
        uint64_t decided_usec = field_u64(explanation, "time_usec");
        time_t decided_sec = (time_t)(decided_usec / USEC_PER_SEC);
        char clock[POLICY_TIME_MAX], day[16] = "", when[sizeof(clock) + sizeof(day)];
        struct tm tm;

        text_put(f, field_string(explanation, "text"));
        fputc('\n', f);
        if (!decision)
                return;
        if (localtime_r(&decided_sec, &tm))
                strftime(day, sizeof(day), "%F ", &tm);
        snprintf(when, sizeof(when), "%s%s", day, policy_time(decided_usec, clock));
        output_line(f, "decided at", when);
        output_line(f, "mode", field_string(explanation, "mode"));
        output_line(f, "action", field_string(decision, "action"));
        output_line(f, "cause", field_string(decision, "cause"));
        output_line(f, "bound by", field_string(decision, "bound"));
        output_line(f, "came of it", field_string(explanation, "outcome"));
        for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
                output_line(f, figures[i].label, TEXT_SIZE(field_u64(decision, figures[i].key)));
        print_input(f, object_in(explanation, "input"));
}

static int read_explanation(const struct cli *cli, sd_bus_message *reply, struct json_object **ret)
{
        const char *text;
        int r = sd_bus_message_read_basic(reply, 's', &text);

        if (r >= 0)
                r = json_parse(text, strlen(text), ret);
        return r < 0 ? output_fail_errno(cli, r) : CLI_DONE;
}

/* The last one of a partition, told or not. Exit code. */
static int ask_last(struct cli *cli, const char *partition, struct json_object **ret)
{
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_message_ sd_bus_message *reply = NULL;
        _cleanup_free_ char *path = NULL;

        int r = bus_partition_path(partition, &path);
        if (r < 0)
                return output_fail_errno(cli, r);
        r = sd_bus_call_method(
                cli->bus, HVD_NAME, path, HVD_PARTITION_INTERFACE, "Explain", &bus_error, &reply, NULL);
        return r < 0 ? bus_fail_partition(cli, partition, &bus_error, r) : read_explanation(cli, reply, ret);
}

static int ask_id(struct cli *cli, const char *partition, uint32_t id, struct json_object **ret)
{
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_message_ sd_bus_message *reply = NULL;

        int r = sd_bus_call_method(cli->bus, HVD_NAME, HVD_PATH, HVD_MANAGER_INTERFACE, "ExplainDecision",
                &bus_error, &reply, "t", (uint64_t)id);
        if (r < 0)
                return bus_fail(cli, &bus_error, r);
        r = read_explanation(cli, reply, ret);
        if (r == CLI_DONE && partition && strcmp(field_string(*ret, "partition"), partition) != 0)
                return output_fail(cli, CLI_FAILED, error_code_name(ERROR_INVALID_ARGUMENT),
                        "Decision %" PRIu32 " is of partition '%s', not of '%s'", id,
                        field_string(*ret, "partition"), partition);
        return r;
}

/* --- many --- */

/* Of a month ago as well as of now. */
static void cell_time(struct output_cells *cells, uint64_t usec)
{
        time_t seconds = (time_t)(usec / USEC_PER_SEC);
        char text[POLICY_TIME_MAX] = "";
        struct tm tm;

        if (localtime_r(&seconds, &tm))
                strftime(text, sizeof(text), "%m-%d %H:%M:%S", &tm);
        output_cell(cells, "%s", text);
}

int policy_print_decisions(FILE *f, struct json_object *decisions)
{
        static const struct output_column columns[] = {
                { "ID", .right = true },
                { "TIME" },
                { "PARTITION" },
                { "ACTION" },
                { "TARGET", .right = true },
                { "USED", .right = true },
                { "HEADROOM", .right = true },
                { "WANTS", .right = true },
                { "MAY HAVE", .right = true },
                { "CAUSE" },
                { "BOUND BY" },
                { "WHAT CAME OF IT", .truncate = true },
        };
        static const char *const sizes[] = { "target_bytes", "used_bytes", "headroom_bytes", "want_bytes",
                "share_bytes" };
        _cleanup_(output_cells_done) struct output_cells cells = {};

        for (size_t i = 0; i < json_object_array_length(decisions); i++) {
                struct json_object *o = json_object_array_get_idx(decisions, i),
                                   *d = object_in(o, "decision");

                output_cell(&cells, "%" PRIu64, field_u64(o, "id"));
                cell_time(&cells, field_u64(o, "time_usec"));
                output_cell(&cells, "%s", field_string(o, "partition"));
                output_cell(&cells, "%s", field_string(d, "action"));
                for (size_t k = 0; k < ARRAY_SIZE(sizes); k++)
                        output_cell(&cells, "%s", TEXT_SIZE(field_u64(d, sizes[k])));
                output_cell(&cells, "%s", field_string(d, "cause"));
                output_cell(&cells, "%s", field_string(d, "bound"));
                output_cell(&cells, "%s", field_string(o, "outcome"));
        }
        return output_cells_print(f, columns, ARRAY_SIZE(columns), &cells);
}

/* hvd's answer begins with the newest, a list with the oldest; and decisions are text in the one. */
static int take_decisions(struct json_object *newest_first, struct json_object **ret)
{
        _cleanup_json_ struct json_object *array = json_object_new_array();
        size_t n = json_object_array_length(newest_first);

        if (!array)
                return -ENOMEM;
        while (n > 0) {
                struct json_object *o = json_object_array_get_idx(newest_first, --n), *decision;
                const char *text = field_string(o, "decision");

                int r = json_parse(text, strlen(text), &decision);
                if (r >= 0)
                        r = json_add(o, "decision", decision);
                if (r >= 0)
                        r = json_array_add(array, json_object_get(o));
                if (r < 0)
                        return r;
        }
        *ret = steal_pointer(array);
        return 0;
}

static int list(struct cli *cli, const char *partition, uint32_t max)
{
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_message_ sd_bus_message *reply = NULL;
        _cleanup_json_ struct json_object *answer = NULL, *decisions = NULL;

        int r = sd_bus_call_method(cli->bus, HVD_NAME, HVD_PATH, HVD_MANAGER_INTERFACE, "ListDecisions",
                &bus_error, &reply, "su", partition ?: "", max);
        if (r < 0)
                return bus_fail(cli, &bus_error, r);
        r = bus_read_value(reply, "Decisions", &answer);
        if (r >= 0)
                r = take_decisions(answer, &decisions);
        if (r >= 0 && cli->arg_json)
                output_json(decisions);
        else if (r >= 0)
                r = policy_print_decisions(stdout, decisions);
        return r < 0 ? output_fail_errno(cli, r) : CLI_DONE;
}

/* --- the verb --- */

static int run_explain(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        _cleanup_json_ struct json_object *explanation = NULL;
        const char *words[CLI_POSITIONALS_MAX];
        struct explain_request q = {};
        struct error error;

        int r = args_parse(cli, verb, argc, argv, &q, words, &error);
        if (r == ARGS_OK && q.last && q.id)
                r = error_set(&error, ERROR_INVALID_ARGUMENT,
                        "--last and --id exclude each other: the one lists decisions, the other explains "
                        "one");
        if (r != ARGS_OK)
                return args_finish(cli, verb, r, &error);
        r = bus_open(cli);
        if (r != 0)
                return r;
        if (q.last || (!words[0] && !q.id))
                return list(cli, words[0], q.last ?: LAST_USUAL);
        r = q.id ? ask_id(cli, words[0], q.id, &explanation) : ask_last(cli, words[0], &explanation);
        if (r != CLI_DONE)
                return r;
        if (cli->arg_json)
                output_json(explanation);
        else
                policy_print_explanation(stdout, explanation);
        return CLI_DONE;
}

const struct cli_verb verb_explain = {
        .name = "explain",
        .positionals = { "PARTITION" },
        .n_optional = 1,
        .help = "Says what the policy decided last of a partition, on what, and what bound it",
        .options = explain_options,
        .option = explain_option,
        .run = run_explain,
};
