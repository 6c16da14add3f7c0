/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Partitions as hvd knows them: define, undefine, list and show. */

#include "hmc-cli/partition.h"

#include <inttypes.h>
#include <string.h>

#include "common/size.h"
#include "common/text.h"
#include "hmc-cli/args.h"
#include "hmc-cli/bus.h"
#include "hmc-cli/mechanisms.h"
#include "hmc-cli/output.h"

/* hvd asks the guest under a limit of its own; this is for an hvd that does not answer at all. */
#define USAGE_DAYS          31
#define SURVEY_TIMEOUT_USEC (30 * USEC_PER_SEC)

enum {
        OPTION_QMP = 0x200,
        OPTION_CHANNEL,
        OPTION_MIN,
        OPTION_DESIRED,
        OPTION_MAX,
        OPTION_WEIGHT,
};

static const struct cli_option define_options[] = {
        { "qmp", OPTION_QMP, "SOCKET", "The QMP socket of the guest's QEMU" },
        { "channel", OPTION_CHANNEL, "SOCKET", "The socket of the port org.opendlpar.guestd.0" },
        { "min", OPTION_MIN, "SIZE", "Never less than this" },
        { "desired", OPTION_DESIRED, "SIZE", "What it should have when there is enough for all" },
        { "max", OPTION_MAX, "SIZE", "Never more than this (what QEMU was started with)" },
        { "weight", OPTION_WEIGHT, "N", "Its share when there is not enough for all" },
        {},
};

void define_request_done(struct define_request *q)
{
        free(q->qmp);
        free(q->channel);
        *q = (struct define_request) {};
}

static int parse_socket(const char *what, const char *value, char **slot, struct error *ret_error)
{
        const char *s;
        int r;

        r = args_parse_string(what, value, &s, ret_error);
        if (r < 0)
                return r;
        free(*slot);
        *slot = strdup(s);
        return *slot ? 0 : error_set_errno(ret_error, ERROR_INTERNAL, ENOMEM, "hmc-cli cannot go on");
}

static int define_option(void *request, int id, const char *value, struct error *ret_error)
{
        struct define_request *q = request;

        switch (id) {
        case OPTION_QMP:
                return parse_socket("--qmp", value, &q->qmp, ret_error);
        case OPTION_CHANNEL:
                return parse_socket("--channel", value, &q->channel, ret_error);
        case OPTION_MIN:
                return size_parse(value, &q->min_bytes, ret_error);
        case OPTION_DESIRED:
                return size_parse(value, &q->desired_bytes, ret_error);
        case OPTION_MAX:
                return size_parse(value, &q->max_bytes, ret_error);
        case OPTION_WEIGHT:
                q->has_weight = true;
                return args_parse_u32("--weight", value, &q->weight, ret_error);
        default:
                return -EINVAL;
        }
}

/* hvd has a working directory of its own, so it takes absolute paths only. */
static int make_absolute(const struct cli *cli, const char *what, char **path, struct error *ret_error)
{
        _cleanup_free_ char *folder = NULL, *joined = NULL;

        if (!*path)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "%s is missing; write hmc-cli define PARTITION --qmp SOCKET --channel SOCKET", what);
        if (**path == '/')
                return 0;
        if (cli->arg_host)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "%s '%.80s' is relative; with --host a socket's path must be absolute", what, *path);
        folder = getcwd(NULL, 0);
        if (!folder)
                return error_set_errno(ret_error, ERROR_INVALID_ARGUMENT, errno,
                        "%s is relative, and the working directory cannot be read", what);
        if (!text_is_printable(folder))
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "%s is relative, and the name of the working directory is not plain text", what);
        if (asprintf(&joined, "%s/%s", strcmp(folder, "/") == 0 ? "" : folder, *path) < 0) {
                joined = NULL;
                return error_set_errno(ret_error, ERROR_INTERNAL, ENOMEM, "hmc-cli cannot go on");
        }
        free(*path);
        *path = steal_pointer(joined);
        return 0;
}

int define_parse(struct cli *cli, const struct cli_verb *verb, int argc, char **argv,
        struct define_request *ret, struct error *ret_error)
{
        const char *words[CLI_POSITIONALS_MAX];
        int r;

        *ret = (struct define_request) {};
        r = args_parse(cli, verb, argc, argv, ret, words, ret_error);
        if (r != ARGS_OK)
                return r;
        ret->name = words[0];
        r = make_absolute(cli, "--qmp", &ret->qmp, ret_error);
        return r < 0 ? r : make_absolute(cli, "--channel", &ret->channel, ret_error);
}

static int append_definition(sd_bus_message *m, const struct define_request *q)
{
        int r;

        r = sd_bus_message_append(m, "s", q->name);
        if (r >= 0)
                r = sd_bus_message_open_container(m, SD_BUS_TYPE_ARRAY, "{sv}");
        if (r >= 0)
                r = sd_bus_message_append(m, "{sv}{sv}", "qmp", "s", q->qmp, "channel", "s", q->channel);
        if (r >= 0 && q->min_bytes > 0)
                r = sd_bus_message_append(m, "{sv}", "min", "t", q->min_bytes);
        if (r >= 0 && q->desired_bytes > 0)
                r = sd_bus_message_append(m, "{sv}", "desired", "t", q->desired_bytes);
        if (r >= 0 && q->max_bytes > 0)
                r = sd_bus_message_append(m, "{sv}", "max", "t", q->max_bytes);
        if (r >= 0 && q->has_weight)
                r = sd_bus_message_append(m, "{sv}", "weight", "u", q->weight);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

/* define and undefine have little to say: {"partition":"web1","state":"defined"}. */
static int say_defined(const struct cli *cli, const char *name, const char *state)
{
        if (!cli->arg_json) {
                text_put(stdout, name);
                printf(": %s\n", state);
                return CLI_DONE;
        }
        _cleanup_json_ struct json_object *o = json_object_new_object();
        if (json_add_string(o, "partition", name) < 0 || json_add_string(o, "state", state) < 0)
                return output_fail_errno(cli, -ENOMEM);
        output_json(o);
        return CLI_DONE;
}

static int run_define(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        _cleanup_(define_request_done) struct define_request q = {};
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_message_ sd_bus_message *call = NULL;
        struct error error;
        int r;

        r = define_parse(cli, verb, argc, argv, &q, &error);
        if (r != ARGS_OK)
                return args_finish(cli, verb, r, &error);
        r = bus_open(cli);
        if (r != 0)
                return r;
        r = sd_bus_message_new_method_call(
                cli->bus, &call, HVD_NAME, HVD_PATH, HVD_MANAGER_INTERFACE, "AddPartition");
        if (r >= 0)
                r = append_definition(call, &q);
        if (r >= 0)
                r = sd_bus_call(cli->bus, call, 0, &bus_error, NULL);
        return r < 0 ? bus_fail(cli, &bus_error, r) : say_defined(cli, q.name, "defined");
}

static int run_undefine(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        const char *words[CLI_POSITIONALS_MAX];
        int r;

        if (!bus_begin(cli, verb, argc, argv, words, &r))
                return r;
        r = sd_bus_call_method(cli->bus, HVD_NAME, HVD_PATH, HVD_MANAGER_INTERFACE, "RemovePartition",
                &bus_error, NULL, "s", words[0]);
        return r < 0 ? bus_fail(cli, &bus_error, r) : say_defined(cli, words[0], "undefined");
}

/* A figure that nobody has measured yet is not zero. */
static void add_figure(struct output_cells *cells, bool known, uint64_t bytes)
{
        output_cell(cells, "%s", known ? TEXT_SIZE(bytes) : "");
}

int partition_print_list(FILE *f, struct json_object *partitions)
{
        static const struct output_column columns[] = {
                { "NAME" },
                { "STATE" },
                { "AGENT" },
                { "CURRENT", .right = true },
                { "MAX", .right = true },
                { "PLUGGED", .right = true },
                { "AVAILABLE", .right = true },
                { "PRESSURE", .right = true },
        };
        _cleanup_(output_cells_done) struct output_cells cells = {};

        for (size_t i = 0; i < json_object_array_length(partitions); i++) {
                struct json_object *p = json_object_array_get_idx(partitions, i);
                bool known = field_u64(p, "base_bytes") > 0, seen = field_u64(p, "total_bytes") > 0;

                output_cell(&cells, "%s", field_string(p, "name"));
                output_cell(&cells, "%s", field_string(p, "state"));
                output_cell(&cells, "%s", field_string(p, "agent_state"));
                add_figure(&cells, known, field_u64(p, "current_bytes"));
                add_figure(&cells, field_u64(p, "max_bytes") > 0, field_u64(p, "max_bytes"));
                add_figure(&cells, known, field_u64(p, "plugged_bytes"));
                add_figure(&cells, seen, field_u64(p, "available_bytes"));
                if (seen)
                        output_cell(&cells, "%.2f %%", field_double(p, "pressure"));
                else
                        output_cell(&cells, "%s", "");
        }
        return output_cells_print(f, columns, ARRAY_SIZE(columns), &cells);
}

static int run_list(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        static const char *const wanted[] = { "name", "state", "agent_state", "base_bytes", "current_bytes",
                "max_bytes", "plugged_bytes", "total_bytes", "available_bytes", "pressure", NULL };
        _cleanup_json_ struct json_object *partitions = NULL;
        const char *words[CLI_POSITIONALS_MAX];
        int r;

        if (!bus_begin(cli, verb, argc, argv, words, &r))
                return r;
        r = bus_get_objects(cli, "ListPartitions", "name", wanted, &partitions);
        if (r != 0)
                return r;

        if (cli->arg_json) {
                output_json(partitions);
                return CLI_DONE;
        }
        if (json_object_array_length(partitions) == 0) {
                puts("No partitions are defined; see 'hmc-cli define'.");
                return CLI_DONE;
        }
        r = partition_print_list(stdout, partitions);
        return r < 0 ? output_fail_errno(cli, r) : CLI_DONE;
}

static void put_account(FILE *f, struct json_object *p)
{
        uint64_t current = field_u64(p, "current_bytes"), requested = field_u64(p, "requested_bytes");
        int64_t pending = field_i64(p, "pending_bytes");
        bool known = field_u64(p, "base_bytes") > 0;

        fputs("Memory\n", f);
        if (known) {
                output_line(f, "base", TEXT_SIZE(field_u64(p, "base_bytes")));
                output_line(f, "plugged", TEXT_SIZE(field_u64(p, "plugged_bytes")));
                output_line(f, "balloon", TEXT_SIZE(field_u64(p, "balloon_bytes")));
                output_line(f, "current", TEXT_SIZE(current));
        } else
                output_line(f, "current", "not known until its QEMU runs");
        if (requested != current || pending != 0) {
                char text[3 * TEXT_FORMAT_MAX];

                snprintf(text, sizeof(text), "%s, %s%s pending", TEXT_SIZE(requested),
                        pending < 0 ? "-" : "+",
                        TEXT_SIZE(pending < 0 ? -(uint64_t)pending : (uint64_t)pending));
                output_line(f, "requested", text);
        }

        char profile[4 * TEXT_FORMAT_MAX];
        snprintf(profile, sizeof(profile), "min %s, desired %s, max %s, weight %" PRIu64,
                TEXT_SIZE(field_u64(p, "min_bytes")), TEXT_SIZE(field_u64(p, "desired_bytes")),
                TEXT_SIZE(field_u64(p, "max_bytes")), field_u64(p, "weight"));
        output_line(f, "profile", profile);
}

static void put_guest_view(FILE *f, struct json_object *p)
{
        char text[TEXT_FORMAT_MAX];

        fputs("Guest's own view\n", f);
        if (field_u64(p, "total_bytes") == 0) {
                output_line(f, "total", "not known until guestd answers");
                return;
        }
        output_line(f, "total", TEXT_SIZE(field_u64(p, "total_bytes")));
        output_line(f, "available", TEXT_SIZE(field_u64(p, "available_bytes")));
        snprintf(text, sizeof(text), "%.2f %%", field_double(p, "pressure"));
        output_line(f, "pressure", text);
        output_line(f, "block size", TEXT_SIZE(field_u64(p, "block_bytes")));
}

/* "Movable" for a device whose blocks are all alike, else what is where: "128 MiB Movable, 128 MiB offline".
 */
static void add_zone_cell(struct output_cells *cells, struct json_object *device)
{
        static const struct {
                const char *key, *word;
        } kinds[] = {
                { "movable_bytes", "Movable" },
                { "kernel_bytes", "Normal" },
                { "offline_bytes", "offline" },
                { "stuck_bytes", "stuck" },
        };
        uint64_t size = field_u64(device, "size_bytes");
        char text[256] = "";

        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
                uint64_t bytes = field_u64(device, kinds[i].key);
                size_t used = strlen(text);

                if (bytes == 0)
                        continue;
                snprintf(text + used, sizeof(text) - used, "%s%s%s%s", used > 0 ? ", " : "",
                        bytes == size ? "" : TEXT_SIZE(bytes), bytes == size ? "" : " ", kinds[i].word);
        }
        output_cell(cells, "%s", text);
}

/* Of a pseries guest: "0x80000004", or "0x80000004-0x80000007". */
static void add_drc_cell(struct output_cells *cells, struct json_object *device)
{
        uint64_t first = field_u64(device, "drc_first"), last = field_u64(device, "drc_last");

        if (first == 0)
                output_cell(cells, "%s", "");
        else if (first == last)
                output_cell(cells, "0x%08" PRIx64, first);
        else
                output_cell(cells, "0x%08" PRIx64 "-0x%08" PRIx64, first, last);
}

static bool is_pending(struct json_object *device)
{
        return strcmp(field_string(device, "state"), "unplug-pending") == 0;
}

/* The columns DRC and STATE are there only if a device has something to say in them. */
static int print_devices(FILE *f, struct json_object *devices)
{
        struct output_column columns[OUTPUT_COLUMNS_MAX];
        _cleanup_(output_cells_done) struct output_cells cells = {};
        bool any_drc = false, any_pending = false;
        size_t n = 0;

        for (size_t i = 0; i < json_object_array_length(devices); i++) {
                struct json_object *d = json_object_array_get_idx(devices, i);

                any_drc |= field_u64(d, "drc_first") > 0;
                any_pending |= is_pending(d);
        }
        columns[n++] = (struct output_column) { "ID" };
        columns[n++] = (struct output_column) { "SIZE", .right = true };
        columns[n++] = (struct output_column) { "ADDRESS", .right = true };
        if (any_drc)
                columns[n++] = (struct output_column) { "DRC" };
        columns[n++] = (struct output_column) { "SLOT", .right = true };
        columns[n++] = (struct output_column) { "NODE", .right = true };
        columns[n++] = (struct output_column) { "ZONE" };
        if (any_pending)
                columns[n++] = (struct output_column) { "STATE" };

        for (size_t i = 0; i < json_object_array_length(devices); i++) {
                struct json_object *d = json_object_array_get_idx(devices, i);

                output_cell(&cells, "%s", field_string(d, "id"));
                output_cell(&cells, "%s", TEXT_SIZE(field_u64(d, "size_bytes")));
                output_cell(&cells, "0x%" PRIx64, field_u64(d, "address"));
                if (any_drc)
                        add_drc_cell(&cells, d);
                if (mechanisms_is_virtio_mem(d))
                        output_cell(&cells, "%s", "");
                else
                        output_cell(&cells, "%" PRIu64, field_u64(d, "slot"));
                output_cell(&cells, "%" PRIu64, field_u64(d, "node"));
                add_zone_cell(&cells, d);
                if (any_pending)
                        output_cell(&cells, "%s", is_pending(d) ? "unplug pending" : "");
        }
        int r = output_cells_print(f, columns, n, &cells);
        if (r >= 0 && any_pending)
                fputs("\nAn unplug that is pending ends when the guest lets go of the device, at the latest "
                      "when the guest is reset.\nDo not migrate the guest before that.\n",
                        f);
        return r;
}

/* Of a guest with several. */
static void put_nodes(FILE *f, struct json_object *nodes)
{
        char name[32], text[128];
        size_t n = nodes ? json_object_array_length(nodes) : 0;

        if (n < 2)
                return;
        fputs("NUMA nodes\n", f);
        for (size_t i = 0; i < n; i++) {
                struct json_object *node = json_object_array_get_idx(nodes, i);

                snprintf(name, sizeof(name), "node %" PRIu64, field_u64(node, "node"));
                snprintf(text, sizeof(text), "%s at boot, %s plugged",
                        TEXT_SIZE(field_u64(node, "base_bytes")),
                        TEXT_SIZE(field_u64(node, "plugged_bytes")));
                output_line(f, name, text);
        }
}

/* "12.5 GiB h today, 310 GiB h in 31 days" */
static void put_usage(FILE *f, struct json_object *usage)
{
        size_t n = usage ? json_object_array_length(usage) : 0;
        double newest = 0, all = 0;
        char text[128];

        for (size_t i = 0; i < n; i++) {
                struct json_object *day = json_object_array_get_idx(usage, i);
                double hours = (double)field_u64(day, "mib_seconds") / 1024 / 3600;

                newest = i == 0 ? hours : newest;
                all += hours;
        }
        if (n == 0)
                return;
        snprintf(text, sizeof(text), "%.2f GiB h on %.10s, %.2f GiB h in %d days", newest,
                field_string(json_object_array_get_idx(usage, 0), "day"), all, USAGE_DAYS);
        output_line(f, "used", text);
}

int partition_print_sheet(FILE *f, struct json_object *p)
{
        struct json_object *devices = field_array(p, "devices");
        char text[TEXT_FORMAT_MAX];

        text_put(f, field_string(p, "name"));
        fputc('\n', f);
        output_line(f, "uuid", field_string(p, "uuid"));
        output_line(f, "architecture", field_string(p, "architecture"));
        output_line(f, "platform", field_string(p, "platform"));
        output_line(f, "state", field_string(p, "state"));
        output_line(f, "guestd", field_string(p, "agent_state"));
        output_line(f, "policy", field_string(p, "policy_mode"));
        put_account(f, p);
        put_guest_view(f, p);

        put_usage(f, field_array(p, "usage"));
        put_nodes(f, field_array(p, "nodes"));
        fputs("Memory devices\n", f);
        snprintf(text, sizeof(text), "%" PRIu64 " of %" PRIu64 " used", field_u64(p, "slots_used"),
                field_u64(p, "slots_total"));
        output_line(f, "slots", text);
        mechanisms_print(f, devices, field_array(p, "balloon"));
        if (!devices || json_object_array_length(devices) == 0)
                return 0;
        fputc('\n', f);
        return print_devices(f, devices);
}

/* Asks the guest now. A guest that does not answer is no failure of show, which then says what is known: *ret
 * stays NULL and *ret_error says why. Exit code, for all other errors. */
static int survey(struct cli *cli, const char *name, const char *path, struct json_object **ret,
        sd_bus_error *ret_error)
{
        _cleanup_message_ sd_bus_message *call = NULL, *reply = NULL;
        int r;

        r = sd_bus_message_new_method_call(
                cli->bus, &call, HVD_NAME, path, HVD_PARTITION_INTERFACE, "Survey");
        if (r < 0)
                return output_fail_errno(cli, r);
        r = sd_bus_call(cli->bus, call, SURVEY_TIMEOUT_USEC, ret_error, &reply);
        if (r >= 0) {
                r = bus_read_value(reply, "Survey", ret);
                return r < 0 ? output_fail_errno(cli, r) : 0;
        }
        if (error_code_from_dbus_name(ret_error->name) >= 0 &&
                !sd_bus_error_has_name(ret_error, error_code_dbus_name(ERROR_UNKNOWN_PARTITION)))
                return 0;
        return bus_fail_partition(cli, name, ret_error, r);
}

/* How much it had for how long: without it, as of an hvd that does not count it, the rest is shown all the
 * same. Exit code. */
static int add_usage(struct cli *cli, const char *path, struct json_object *partition)
{
        _cleanup_message_ sd_bus_message *reply = NULL;
        struct json_object *usage = NULL;

        int r = sd_bus_call_method(cli->bus, HVD_NAME, path, HVD_PARTITION_INTERFACE, "GetUsage", NULL,
                &reply, "u", (uint32_t)USAGE_DAYS);
        if (r < 0)
                return 0;
        r = bus_read_value(reply, "Usage", &usage);
        if (r >= 0)
                r = json_add(partition, "usage", usage);
        return r < 0 ? output_fail_errno(cli, r) : 0;
}

static int print_json_sheet(const struct cli *cli, struct json_object *partition, struct json_object *blocks,
        const sd_bus_error *survey_error)
{
        if (json_object_object_add(partition, "blocks", json_object_get(blocks)) < 0)
                return output_fail_errno(cli, -ENOMEM);
        if (!blocks) {
                struct json_object *e = json_object_new_object();

                if (json_add_string(e, "code", bus_error_code(survey_error)) < 0 ||
                        json_add_string(e, "message", survey_error->message ?: "") < 0 ||
                        json_add(partition, "survey_error", e) < 0)
                        return output_fail_errno(cli, -ENOMEM);
        }
        output_json(partition);
        return CLI_DONE;
}

static int run_show(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        _cleanup_bus_error_ sd_bus_error survey_error = SD_BUS_ERROR_NULL, bus_error = SD_BUS_ERROR_NULL;
        _cleanup_json_ struct json_object *partition = NULL, *blocks = NULL;
        _cleanup_free_ char *path = NULL;
        const char *words[CLI_POSITIONALS_MAX];
        struct error error;
        int r;

        r = args_parse(cli, verb, argc, argv, NULL, words, &error);
        if (r != ARGS_OK)
                return args_finish(cli, verb, r, &error);
        r = bus_partition_path(words[0], &path);
        if (r < 0)
                return output_fail_errno(cli, r);
        r = bus_open(cli);
        if (r != 0)
                return r;
        r = survey(cli, words[0], path, &blocks, &survey_error);
        if (r != 0)
                return r;
        r = bus_get_all(cli, path, HVD_PARTITION_INTERFACE, &partition, &bus_error);
        if (r < 0)
                return bus_fail_partition(cli, words[0], &bus_error, r);

        r = add_usage(cli, path, partition);
        if (r != 0)
                return r;

        if (cli->arg_json)
                return print_json_sheet(cli, partition, blocks, &survey_error);
        r = partition_print_sheet(stdout, partition);
        if (r < 0)
                return output_fail_errno(cli, r);
        if (!blocks) {
                fputs("\nThe guest was not surveyed, so its figures may be old: ", stdout);
                text_put(stdout, survey_error.message ?: survey_error.name);
                fputc('\n', stdout);
        }
        return CLI_DONE;
}

const struct cli_verb verb_define = {
        .name = "define",
        .positionals = { "PARTITION" },
        .help = "Makes a QEMU guest known to hvd; --qmp and --channel are needed",
        .options = define_options,
        .option = define_option,
        .run = run_define,
};

const struct cli_verb verb_undefine = {
        .name = "undefine",
        .positionals = { "PARTITION" },
        .help = "Makes hvd forget a partition; the guest is left alone",
        .run = run_undefine,
};

const struct cli_verb verb_list = {
        .name = "list",
        .help = "Lists the partitions",
        .run = run_list,
};

const struct cli_verb verb_show = {
        .name = "show",
        .positionals = { "PARTITION" },
        .help = "Shows all that is known of a partition",
        .run = run_show,
};
