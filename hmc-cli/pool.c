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
                { "MIN", .right = true },
                { "DESIRED", .right = true },
                { "MAX", .right = true },
                { "WEIGHT", .right = true },
        };
        static const char *const sizes[] = { "current_bytes", "requested_bytes", "min_bytes", "desired_bytes",
                "max_bytes" };
        _cleanup_(output_cells_done) struct output_cells cells = {};

        for (size_t i = 0; i < json_object_array_length(partitions); i++) {
                struct json_object *p = json_object_array_get_idx(partitions, i);

                output_cell(&cells, "%s", field_string(p, "name"));
                for (size_t k = 0; k < ARRAY_SIZE(sizes); k++)
                        output_cell(&cells, "%s", TEXT_SIZE(field_u64(p, sizes[k])));
                output_cell(&cells, "%" PRIu64, field_u64(p, "weight"));
        }
        return output_cells_print(f, columns, ARRAY_SIZE(columns), &cells);
}

/* The manager's properties, and of each partition what concerns the pool. */
static int print_json(const struct cli *cli, struct json_object *pool, struct json_object *partitions)
{
        static const char *const keys[] = { "name", "state", "current_bytes", "requested_bytes", "min_bytes",
                "desired_bytes", "max_bytes", "weight" };
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
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_json_ struct json_object *pool = NULL, *partitions = NULL;
        const char *words[CLI_POSITIONALS_MAX];
        int r;

        if (!bus_begin(cli, verb, argc, argv, words, &r))
                return r;
        r = bus_get_all(cli, HVD_PATH, HVD_MANAGER_INTERFACE, &pool, &bus_error);
        if (r < 0)
                return bus_fail(cli, &bus_error, r);
        r = bus_get_objects(cli, HVD_PARTITION_INTERFACE, "name", &partitions);
        if (r != 0)
                return r;

        if (cli->arg_json)
                return print_json(cli, pool, partitions);
        printf("total     %s\nreserved  %s\nfree      %s\n", TEXT_SIZE(field_u64(pool, "pool_total")),
                TEXT_SIZE(field_u64(pool, "pool_reserved")), TEXT_SIZE(field_u64(pool, "pool_free")));
        if (json_object_array_length(partitions) == 0)
                return CLI_DONE;
        putchar('\n');
        r = print_partitions(stdout, partitions);
        return r < 0 ? output_fail_errno(cli, r) : CLI_DONE;
}

const struct cli_verb verb_pool = {
        .name = "pool",
        .help = "Shows the host's memory for partitions, and who has it",
        .run = run_pool,
};
