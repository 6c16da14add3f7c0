/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A partition's profile: shown, and changed if there is something to change. */

#include "hmc-cli/profile.h"

#include <inttypes.h>
#include <string.h>

#include "common/size.h"
#include "hmc-cli/args.h"
#include "hmc-cli/bus.h"
#include "hmc-cli/output.h"
#include "hmc-cli/policy.h"

enum {
        OPTION_MIN = 0x200,
        OPTION_DESIRED,
        OPTION_MAX,
        OPTION_WEIGHT,
        OPTION_POLICY,
};

static const struct cli_option profile_options[] = {
        { "min", OPTION_MIN, "SIZE", "Never less than this; none: no such limit" },
        { "desired", OPTION_DESIRED, "SIZE", "What it should have when there is enough for all; or none" },
        { "max", OPTION_MAX, "SIZE", "Never more than this; none: what QEMU was started with" },
        { "weight", OPTION_WEIGHT, "N", "Its share when there is not enough for all: 1 to 255" },
        { "policy", OPTION_POLICY, "MODE", "off, observe, auto, or host: as the host's" },
        {},
};

static int parse_limit(const char *value, struct profile_size *ret, struct error *ret_error)
{
        ret->is_given = true;
        ret->bytes = 0;
        return strcmp(value, "none") == 0 ? 0 : size_parse(value, &ret->bytes, ret_error);
}

static int profile_option(void *request, int id, const char *value, struct error *ret_error)
{
        struct profile_request *q = request;

        switch (id) {
        case OPTION_MIN:
                return parse_limit(value, &q->min, ret_error);
        case OPTION_DESIRED:
                return parse_limit(value, &q->desired, ret_error);
        case OPTION_MAX:
                return parse_limit(value, &q->max, ret_error);
        case OPTION_WEIGHT:
                q->has_weight = true;
                return args_parse_u32("--weight", value, &q->weight, ret_error);
        case OPTION_POLICY:
                return policy_parse_mode("--policy", value, true, &q->policy, ret_error);
        default:
                return -EINVAL;
        }
}

int profile_parse(struct cli *cli, const struct cli_verb *verb, int argc, char **argv,
        struct profile_request *ret, struct error *ret_error)
{
        const char *words[CLI_POSITIONALS_MAX];

        *ret = (struct profile_request) {};
        int r = args_parse(cli, verb, argc, argv, ret, words, ret_error);
        if (r == ARGS_OK)
                ret->partition = words[0];
        return r;
}

static bool changes(const struct profile_request *q)
{
        return q->min.is_given || q->desired.is_given || q->max.is_given || q->has_weight;
}

static int append_change(sd_bus_message *m, const struct profile_request *q)
{
        int r = sd_bus_message_open_container(m, SD_BUS_TYPE_ARRAY, "{sv}");

        if (r >= 0 && q->min.is_given)
                r = sd_bus_message_append(m, "{sv}", "min", "t", q->min.bytes);
        if (r >= 0 && q->desired.is_given)
                r = sd_bus_message_append(m, "{sv}", "desired", "t", q->desired.bytes);
        if (r >= 0 && q->max.is_given)
                r = sd_bus_message_append(m, "{sv}", "max", "t", q->max.bytes);
        if (r >= 0 && q->has_weight)
                r = sd_bus_message_append(m, "{sv}", "weight", "u", q->weight);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

/* Exit code. */
static int change(struct cli *cli, const char *path, const struct profile_request *q)
{
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_message_ sd_bus_message *call = NULL;

        int r = sd_bus_message_new_method_call(
                cli->bus, &call, HVD_NAME, path, HVD_PARTITION_INTERFACE, "SetProfile");
        if (r >= 0)
                r = append_change(call, q);
        if (r >= 0)
                r = sd_bus_call(cli->bus, call, bus_timeout(HVD_LIBVIRT_TIMEOUT_USEC), &bus_error, NULL);
        return r < 0 ? bus_fail_partition(cli, q->partition, &bus_error, r) : CLI_DONE;
}

static void put_limit(const char *label, uint64_t bytes, const char *otherwise)
{
        printf("%-9s %s\n", label, bytes ? TEXT_SIZE(bytes) : otherwise);
}

static int print_profile(const struct cli *cli, struct json_object *p)
{
        static const char *const keys[] = { "min_bytes", "desired_bytes", "max_bytes", "weight" };

        if (!cli->arg_json) {
                put_limit("min", field_u64(p, keys[0]), "none");
                put_limit("desired", field_u64(p, keys[1]), "none");
                put_limit("max", field_u64(p, keys[2]), "not known until its QEMU runs");
                printf("%-9s %" PRIu64 "\n", "weight", field_u64(p, keys[3]));
                printf("%-9s %s\n", "policy", field_string(p, "policy_mode"));
                return CLI_DONE;
        }
        _cleanup_json_ struct json_object *o = json_object_new_object();
        if (json_add_string(o, "partition", field_string(p, "name")) < 0)
                return output_fail_errno(cli, -ENOMEM);
        for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
                if (json_add(o, keys[i], json_object_new_uint64(field_u64(p, keys[i]))) < 0)
                        return output_fail_errno(cli, -ENOMEM);
        if (json_add_string(o, "policy_mode", field_string(p, "policy_mode")) < 0)
                return output_fail_errno(cli, -ENOMEM);
        output_json(o);
        return CLI_DONE;
}

static int run_profile(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_json_ struct json_object *partition = NULL;
        _cleanup_free_ char *path = NULL;
        struct profile_request q;
        struct error error;

        int r = profile_parse(cli, verb, argc, argv, &q, &error);
        if (r != ARGS_OK)
                return args_finish(cli, verb, r, &error);
        r = bus_partition_path(q.partition, &path);
        if (r < 0)
                return output_fail_errno(cli, r);
        r = bus_open(cli);
        if (r == 0 && changes(&q))
                r = change(cli, path, &q);
        if (r != 0)
                return r;
        if (q.policy) {
                r = policy_set_mode(cli, path, HVD_PARTITION_INTERFACE, q.policy, &bus_error);
                if (r < 0)
                        return bus_fail_partition(cli, q.partition, &bus_error, r);
        }
        r = bus_get_all(cli, path, HVD_PARTITION_INTERFACE, &partition, &bus_error);
        return r < 0 ? bus_fail_partition(cli, q.partition, &bus_error, r) : print_profile(cli, partition);
}

const struct cli_verb verb_profile = {
        .name = "profile",
        .positionals = { "PARTITION" },
        .help = "Shows a partition's profile, or changes and keeps it",
        .options = profile_options,
        .option = profile_option,
        .run = run_profile,
};
