/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* add-memory, remove-memory, set-memory and move-memory. What can be judged without the partition is judged
 * here, before anything is sent; what cannot (methods, alignment, limits) is hvd's to refuse. */

#include "hmc-cli/memory.h"

#include <string.h>

#include "common/size.h"
#include "hmc-cli/args.h"
#include "hmc-cli/bus.h"
#include "hmc-cli/output.h"
#include "hmc-cli/wait.h"

enum {
        OPTION_METHOD = 0x200,
        OPTION_ZONE,
        OPTION_NODE,
        OPTION_DEVICE,
        OPTION_DRC,
        OPTION_WAIT,
        OPTION_WITHIN,
        OPTION_NO_WAIT,
        OPTION_DRY_RUN,
        OPTION_ALL_OR_NOTHING,
        OPTION_CONFIG,
        OPTION_RETURN,
};

#define METHOD_OPTION                                                                                        \
        {                                                                                                    \
                "method", OPTION_METHOD, "METHOD", "auto, virtio-mem, dimm (x86), lmb (pseries) or balloon"  \
        }
#define ZONE_OPTION                                                                                          \
        {                                                                                                    \
                "zone", OPTION_ZONE, "ZONE",                                                                 \
                        "auto, movable or kernel (auto); movable memory can leave again"                     \
        }
#define WAIT_OPTIONS                                                                                         \
        { "wait", OPTION_WAIT, "TIME", "Deadline of the whole job, queueing included: 500ms, 20s, 5m, 1h" }, \
                { "no-wait", OPTION_NO_WAIT, NULL, "Print the job's number and do not wait for its end" },   \
                { "dry-run", OPTION_DRY_RUN, NULL, "Say what would be done, and do nothing" },               \
                { "config", OPTION_CONFIG, NULL, "Change libvirt's definition of it as well" },              \
        {                                                                                                    \
                "all-or-nothing", OPTION_ALL_OR_NOTHING, NULL,                                               \
                        "Undo everything if not all of it can be done"                                       \
        }

static const struct cli_option add_options[] = {
        METHOD_OPTION,
        { "node", OPTION_NODE, "N", "The guest's NUMA node that gets the memory" },
        ZONE_OPTION,
        WAIT_OPTIONS,
        {},
};

static const struct cli_option remove_options[] = {
        METHOD_OPTION,
        { "device", OPTION_DEVICE, "ID", "Remove this memory device; see 'hmc-cli show'" },
        { "within", OPTION_WITHIN, "TIME", "Take blocks as they become cheap, for so long; not by force" },
        { "drc", OPTION_DRC, "0xINDEX", "Remove the LMB with this DRC index (pseries); see 'hmc-cli show'" },
        { "node", OPTION_NODE, "N",
                "From this NUMA node of the guest; without SIZE: all that is plugged there" },
        WAIT_OPTIONS,
        {},
};

static const struct cli_option set_options[] = {
        METHOD_OPTION,
        { "node", OPTION_NODE, "N", "The guest's NUMA node that gets or loses the memory" },
        ZONE_OPTION,
        WAIT_OPTIONS,
        {},
};

static const struct cli_option move_options[] = {
        METHOD_OPTION,
        ZONE_OPTION,
        { "return", OPTION_RETURN, "WHERE", "What TO cannot take: from (goes back there) or pool (from)" },
        WAIT_OPTIONS,
        {},
};

static int parse_return(const char *value, const char **ret, struct error *ret_error)
{
        if (strcmp(value, "from") != 0 && strcmp(value, "pool") != 0)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "'%.40s' is no place for what does not arrive; write --return from or pool", value);
        *ret = value;
        return 0;
}

static int parse_zone(const char *value, const char **ret, struct error *ret_error)
{
        static const char *const zones[] = { "auto", "movable", "kernel" };

        for (size_t i = 0; i < ARRAY_SIZE(zones); i++)
                if (strcmp(value, zones[i]) == 0) {
                        *ret = value;
                        return 0;
                }
        return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                "Zone '%.40s' is unknown; write --zone auto, movable or kernel", value);
}

static int memory_option(void *request, int id, const char *value, struct error *ret_error)
{
        struct memory_request *q = request;

        switch (id) {
        case OPTION_METHOD:
                return args_parse_string("--method", value, &q->method, ret_error);
        case OPTION_ZONE:
                return parse_zone(value, &q->zone, ret_error);
        case OPTION_DEVICE:
                return args_parse_string("--device", value, &q->device, ret_error);
        case OPTION_DRC:
                q->has_drc = true;
                return args_parse_hex32("--drc", value, &q->drc, ret_error);
        case OPTION_NODE:
                q->has_node = true;
                return args_parse_u32("--node", value, &q->node, ret_error);
        case OPTION_WAIT:
                return timespan_parse(value, &q->wait_usec, ret_error);
        case OPTION_WITHIN:
                return timespan_parse(value, &q->within_usec, ret_error);
        case OPTION_NO_WAIT:
                q->no_wait = true;
                return 0;
        case OPTION_DRY_RUN:
                q->dry_run = true;
                return 0;
        case OPTION_CONFIG:
                q->config = true;
                return 0;
        case OPTION_ALL_OR_NOTHING:
                q->all_or_nothing = true;
                return 0;
        case OPTION_RETURN:
                return parse_return(value, &q->back, ret_error);
        default:
                return -EINVAL;
        }
}

int memory_parse(struct cli *cli, const struct cli_verb *verb, int argc, char **argv,
        struct memory_request *ret, struct error *ret_error)
{
        struct memory_request q = {};
        const char *words[CLI_POSITIONALS_MAX];
        int r;

        r = args_parse(cli, verb, argc, argv, &q, words, ret_error);
        if (r != ARGS_OK)
                return r;
        const char *size = verb == &verb_move_memory ? words[2] : words[1];
        if (size)
                r = size_parse(size, &q.size_bytes, ret_error);
        else if (!q.has_node || q.device || q.has_drc)
                r = error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "SIZE is missing; write hmc-cli %s PARTITION SIZE; only --node N does without, and "
                        "takes "
                        "all that is plugged in that node",
                        verb->name);
        if (r < 0)
                return r;
        if (q.wait_usec > 0 && q.no_wait)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "--wait and --no-wait exclude each other; leave one of them out");
        if (q.wait_usec > 0 && q.within_usec > 0)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "--within is a limit for the whole job, and excludes --wait; leave one of them out");
        if (q.device && q.has_drc)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "--device and --drc exclude each other; name the memory by one of them");
        q.partition = words[0];
        q.peer = verb == &verb_move_memory ? words[1] : NULL;
        if (q.peer && strcmp(q.peer, q.partition) == 0)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Memory cannot be moved from '%.64s' to itself; name two partitions", q.peer);
        *ret = q;
        return ARGS_OK;
}

/* The request as the bus wants it. Options that were not given are not sent: hvd has its defaults. */
static int append_request(sd_bus_message *m, const struct memory_request *q)
{
        int r;

        r = q->peer ? sd_bus_message_append(m, "ss", q->partition, q->peer) : 0;
        if (r >= 0)
                r = sd_bus_message_append(m, "t", q->size_bytes);
        if (r >= 0)
                r = sd_bus_message_open_container(m, SD_BUS_TYPE_ARRAY, "{sv}");
        if (r >= 0 && q->method)
                r = sd_bus_message_append(m, "{sv}", "method", "s", q->method);
        if (r >= 0 && q->zone)
                r = sd_bus_message_append(m, "{sv}", "zone", "s", q->zone);
        if (r >= 0 && q->device)
                r = sd_bus_message_append(m, "{sv}", "device", "s", q->device);
        if (r >= 0 && q->has_drc)
                r = sd_bus_message_append(m, "{sv}", "drc", "u", q->drc);
        if (r >= 0 && q->has_node)
                r = sd_bus_message_append(m, "{sv}", "node", "u", q->node);
        if (r >= 0 && q->wait_usec > 0)
                r = sd_bus_message_append(m, "{sv}", "wait-usec", "t", q->wait_usec);
        if (r >= 0 && q->within_usec > 0)
                r = sd_bus_message_append(m, "{sv}", "within-usec", "t", q->within_usec);
        if (r >= 0 && q->back)
                r = sd_bus_message_append(m, "{sv}", "return", "s", q->back);
        if (r >= 0 && q->dry_run)
                r = sd_bus_message_append(m, "{sv}", "dry-run", "b", true);
        if (r >= 0 && q->config)
                r = sd_bus_message_append(m, "{sv}", "config", "b", true);
        if (r >= 0 && q->all_or_nothing)
                r = sd_bus_message_append(m, "{sv}", "all-or-nothing", "b", true);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static const char *method_of(const struct cli_verb *verb)
{
        return verb == &verb_add_memory      ? "AddMemory"
               : verb == &verb_remove_memory ? "RemoveMemory"
               : verb == &verb_set_memory    ? "SetMemory"
                                             : "MoveMemory";
}

static int run_memory(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        _cleanup_message_ sd_bus_message *call = NULL;
        _cleanup_free_ char *path = NULL;
        struct memory_request q = { 0 };
        struct error error;
        int r;

        r = memory_parse(cli, verb, argc, argv, &q, &error);
        if (r != ARGS_OK)
                return args_finish(cli, verb, r, &error);
        r = bus_open(cli);
        if (r != 0)
                return r;

        r = bus_partition_path(q.partition, &path);
        if (r >= 0)
                r = sd_bus_message_new_method_call(cli->bus, &call, HVD_NAME, q.peer ? HVD_PATH : path,
                        q.peer ? HVD_MANAGER_INTERFACE : HVD_PARTITION_INTERFACE, method_of(verb));
        if (r >= 0)
                r = append_request(call, &q);
        if (r < 0)
                return bus_fail(cli, NULL, r);
        return wait_for_job(cli, call,
                &(struct wait_options) {
                        .partition = q.partition,
                        .no_wait = q.no_wait,
                        .dry_run = q.dry_run,
                });
}

const struct cli_verb verb_add_memory = {
        .name = "add-memory",
        .positionals = { "PARTITION", "SIZE" },
        .help = "Adds memory to a running partition",
        .options = add_options,
        .option = memory_option,
        .run = run_memory,
};

const struct cli_verb verb_remove_memory = {
        .name = "remove-memory",
        .positionals = { "PARTITION", "SIZE" },
        .n_optional = 1,
        .help = "Removes memory from a running partition",
        .options = remove_options,
        .option = memory_option,
        .run = run_memory,
};

const struct cli_verb verb_set_memory = {
        .name = "set-memory",
        .positionals = { "PARTITION", "SIZE" },
        .help = "Sets a running partition's memory to a total",
        .options = set_options,
        .option = memory_option,
        .run = run_memory,
};

const struct cli_verb verb_move_memory = {
        .name = "move-memory",
        .positionals = { "FROM", "TO", "SIZE" },
        .help = "Moves memory from a partition to another",
        .options = move_options,
        .option = memory_option,
        .run = run_memory,
};
