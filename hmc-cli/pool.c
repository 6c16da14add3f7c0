/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The host's memory for partitions, and who has it. */

#include <inttypes.h>
#include <stdio.h>

#include "hmc-cli/args.h"
#include "hmc-cli/bus.h"
#include "hmc-cli/output.h"

static int print_partitions(FILE *f, struct json_object *partitions)
{
        static const struct output_column columns[] = {
                { "PARTITION" },
                { "CURRENT", .right = true },
                { "REQUESTED", .right = true },
                { "PENDING", .right = true },
                { "MIN", .right = true },
                { "DESIRED", .right = true },
                { "MAX", .right = true },
                { "WEIGHT", .right = true },
        };
        static const char *const profile[] = { "min_bytes", "desired_bytes", "max_bytes" };
        _cleanup_(output_cells_done) struct output_cells cells = {};

        for (size_t i = 0; i < json_object_array_length(partitions); i++) {
                struct json_object *p = json_object_array_get_idx(partitions, i);

                output_cell(&cells, "%s", field_string(p, "name"));
                int64_t pending = field_i64(p, "pending_bytes");
                output_cell(&cells, "%s", TEXT_SIZE(field_u64(p, "current_bytes")));
                output_cell(&cells, "%s", TEXT_SIZE(field_u64(p, "requested_bytes")));
                output_cell(&cells, "%s%s",
                        pending < 0   ? "-"
                        : pending > 0 ? "+"
                                      : "",
                        TEXT_SIZE(pending < 0 ? -(uint64_t)pending : (uint64_t)pending));
                for (size_t k = 0; k < ARRAY_SIZE(profile); k++)
                        output_cell(&cells, "%s", TEXT_SIZE(field_u64(p, profile[k])));
                output_cell(&cells, "%" PRIu64, field_u64(p, "weight"));
        }
        return output_cells_print(f, columns, ARRAY_SIZE(columns), &cells);
}

static int print_reservations(FILE *f, struct json_object *reservations)
{
        static const struct output_column columns[] = {
                { "RESERVATION", .right = true },
                { "OWNER" },
                { "SIZE", .right = true },
                { "STATE" },
        };
        _cleanup_(output_cells_done) struct output_cells cells = {};

        for (size_t i = 0; i < json_object_array_length(reservations); i++) {
                struct json_object *v = json_object_array_get_idx(reservations, i), *held;

                output_cell(&cells, "%" PRIu64, field_u64(v, "id"));
                output_cell(&cells, "%s", field_string(v, "owner"));
                output_cell(&cells, "%s", TEXT_SIZE(field_u64(v, "bytes")));
                bool is_held = json_object_object_get_ex(v, "held", &held) && json_object_get_boolean(held);
                output_cell(&cells, "%s", is_held ? "held" : "waits for memory");
        }
        return output_cells_print(f, columns, ARRAY_SIZE(columns), &cells);
}

static void put_pool(struct json_object *pool)
{
        static const struct {
                const char *label, *key;
        } lines[] = {
                { "total", "pool_total" },
                { "reserved", "pool_reserved" },
                { "current", "pool_current" },
                { "requested", "pool_requested" },
                { "for others", "pool_reservations" },
                { "free", "pool_free" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
                printf("%-11s %s\n", lines[i].label, TEXT_SIZE(field_u64(pool, lines[i].key)));
}

/* The manager's properties, and of each partition what concerns the pool. */
static int print_json(const struct cli *cli, struct json_object *pool, struct json_object *partitions)
{
        static const char *const keys[] = { "name", "state", "current_bytes", "requested_bytes",
                "pending_bytes", "min_bytes", "desired_bytes", "max_bytes", "weight" };
        struct json_object *array = json_object_new_array();

        if (json_add(pool, "partitions", array) < 0)
                return output_fail_errno(cli, -ENOMEM);
        for (size_t i = 0; i < json_object_array_length(partitions); i++) {
                struct json_object *p = json_object_array_get_idx(partitions, i),
                                   *o = json_object_new_object(), *v;

                if (json_array_add(array, o) < 0)
                        return output_fail_errno(cli, -ENOMEM);
                for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
                        if (json_object_object_get_ex(p, keys[k], &v) &&
                                json_add(o, keys[k], json_object_get(v)) < 0)
                                return output_fail_errno(cli, -ENOMEM);
        }
        output_json(pool);
        return CLI_DONE;
}

static int run_pool(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        static const char *const wanted[] = { "name", "current_bytes", "requested_bytes", "pending_bytes",
                "min_bytes", "desired_bytes", "max_bytes", "weight", NULL };
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_json_ struct json_object *pool = NULL, *partitions = NULL;
        const char *words[CLI_POSITIONALS_MAX];
        int r;

        if (!bus_begin(cli, verb, argc, argv, words, &r))
                return r;
        r = bus_get_all(cli, HVD_PATH, HVD_MANAGER_INTERFACE, &pool, &bus_error);
        if (r < 0)
                return bus_fail(cli, &bus_error, r);
        r = bus_get_objects(cli, "ListPartitions", "name", wanted, &partitions);
        if (r != 0)
                return r;

        if (cli->arg_json)
                return print_json(cli, pool, partitions);
        put_pool(pool);
        struct json_object *reservations = field_array(pool, "reservations");
        if (json_object_array_length(partitions) > 0) {
                putchar('\n');
                r = print_partitions(stdout, partitions);
        }
        if (r >= 0 && reservations && json_object_array_length(reservations) > 0) {
                putchar('\n');
                r = print_reservations(stdout, reservations);
        }
        return r < 0 ? output_fail_errno(cli, r) : CLI_DONE;
}

const struct cli_verb verb_pool = {
        .name = "pool",
        .help = "Shows the host's memory for partitions, and who has it",
        .run = run_pool,
};
