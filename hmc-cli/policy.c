/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The automatic policy: whether it runs, and for whom. */

#include "hmc-cli/policy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/size.h"
#include "hmc-cli/args.h"
#include "hmc-cli/bus.h"
#include "hmc-cli/output.h"

int policy_parse_mode(
        const char *what, const char *value, bool of_partition, const char **ret, struct error *ret_error)
{
        static const char *const modes[] = { "off", "observe", "auto", "host" };

        for (size_t i = 0; i < (of_partition ? 4U : 3U); i++)
                if (strcmp(value, modes[i]) == 0) {
                        *ret = modes[i];
                        return 0;
                }
        return error_set(ret_error, ERROR_INVALID_ARGUMENT, "%s '%.40s' is not known; there are %s", what,
                value,
                of_partition ? "off, observe, auto and host (as the host's)" : "off, observe and auto");
}

int policy_set_mode(
        const struct cli *cli, const char *path, const char *interface, const char *mode, sd_bus_error *e)
{
        return sd_bus_set_property(cli->bus, HVD_NAME, path, interface, "PolicyMode", e, "s", mode);
}

/* --- policy --- */

static int print_modes(FILE *f, struct json_object *partitions)
{
        static const struct output_column columns[] = {
                { "PARTITION" },
                { "POLICY" },
                { "CURRENT", .right = true },
                { "MIN", .right = true },
                { "DESIRED", .right = true },
                { "MAX", .right = true },
                { "WEIGHT", .right = true },
        };
        _cleanup_(output_cells_done) struct output_cells cells = {};
        static const char *const sizes[] = { "current_bytes", "min_bytes", "desired_bytes", "max_bytes" };

        for (size_t i = 0; i < json_object_array_length(partitions); i++) {
                struct json_object *p = json_object_array_get_idx(partitions, i);

                output_cell(&cells, "%s", field_string(p, "name"));
                output_cell(&cells, "%s", field_string(p, "policy_mode"));
                for (size_t k = 0; k < ARRAY_SIZE(sizes); k++) {
                        uint64_t bytes = field_u64(p, sizes[k]);

                        output_cell(&cells, "%s", bytes > 0 ? TEXT_SIZE(bytes) : "");
                }
                output_cell(&cells, "%" PRIu64, field_u64(p, "weight"));
        }
        return output_cells_print(f, columns, ARRAY_SIZE(columns), &cells);
}

static int print_policy_json(const struct cli *cli, const char *mode, struct json_object *partitions)
{
        static const char *const keys[] = { "name", "policy_mode", "current_bytes", "min_bytes",
                "desired_bytes", "max_bytes", "weight" };
        _cleanup_json_ struct json_object *o = json_object_new_object();
        struct json_object *array = json_object_new_array();

        if (!o || json_add(o, "partitions", array) < 0 || json_add_string(o, "policy_mode", mode) < 0)
                return output_fail_errno(cli, -ENOMEM);
        for (size_t i = 0; i < json_object_array_length(partitions); i++) {
                struct json_object *p = json_object_array_get_idx(partitions, i),
                                   *row = json_object_new_object(), *v;

                if (json_array_add(array, row) < 0)
                        return output_fail_errno(cli, -ENOMEM);
                for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
                        if (json_object_object_get_ex(p, keys[k], &v) &&
                                json_add(row, keys[k], json_object_get(v)) < 0)
                                return output_fail_errno(cli, -ENOMEM);
        }
        output_json(o);
        return CLI_DONE;
}

static void put_policy(const char *mode)
{
        static const struct {
                const char *mode, *what;
        } texts[] = {
                { "off", "nothing is sampled, nothing decided" },
                { "observe", "decides and tells, and moves nothing" },
                { "auto", "moves memory where it is needed" },
        };
        const char *what = "";

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
                if (strcmp(texts[i].mode, mode) == 0)
                        what = texts[i].what;
        printf("policy: %s%s%s\n", mode, *what ? " - " : "", what);
}

static int run_policy(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        static const char *const wanted[] = { "name", "policy_mode", "current_bytes", "min_bytes",
                "desired_bytes", "max_bytes", "weight", NULL };
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_json_ struct json_object *manager = NULL, *partitions = NULL;
        const char *words[CLI_POSITIONALS_MAX], *mode = NULL;
        struct error error;

        int r = args_parse(cli, verb, argc, argv, NULL, words, &error);
        if (r == ARGS_OK && words[0])
                r = policy_parse_mode("Mode", words[0], false, &mode, &error);
        if (r != ARGS_OK)
                return args_finish(cli, verb, r, &error);
        r = bus_open(cli);
        if (r != 0)
                return r;
        if (mode)
                r = policy_set_mode(cli, HVD_PATH, HVD_MANAGER_INTERFACE, mode, &bus_error);
        if (r >= 0)
                r = bus_get_all(cli, HVD_PATH, HVD_MANAGER_INTERFACE, &manager, &bus_error);
        if (r < 0)
                return bus_fail(cli, &bus_error, r);
        r = bus_get_objects(cli, "ListPartitions", "name", wanted, &partitions);
        if (r != 0)
                return r;

        if (cli->arg_json)
                return print_policy_json(cli, field_string(manager, "policy_mode"), partitions);
        put_policy(field_string(manager, "policy_mode"));
        if (json_object_array_length(partitions) == 0)
                return CLI_DONE;
        putchar('\n');
        r = print_modes(stdout, partitions);
        return r < 0 ? output_fail_errno(cli, r) : CLI_DONE;
}

const struct cli_verb verb_policy = {
        .name = "policy",
        .positionals = { "MODE" },
        .n_optional = 1,
        .help = "Shows the automatic policy, or sets it: off, observe or auto",
        .run = run_policy,
};

/* --- times --- */

const char *policy_time(uint64_t usec, char buffer[static POLICY_TIME_MAX])
{
        time_t seconds = (time_t)(usec / USEC_PER_SEC);
        struct tm tm;
        size_t n = 0;

        if (localtime_r(&seconds, &tm))
                n = strftime(buffer, POLICY_TIME_MAX, "%H:%M:%S", &tm);
        snprintf(buffer + n, POLICY_TIME_MAX - n, ".%03" PRIu64, usec / USEC_PER_MSEC % 1000);
        return buffer;
}
