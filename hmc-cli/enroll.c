/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libvirt's domains that are no partitions yet: what they lack, and how they get it. */

#include <inttypes.h>
#include <stdio.h>

#include "common/size.h"
#include "hmc-cli/args.h"
#include "hmc-cli/bus.h"
#include "hmc-cli/output.h"

enum {
        OPTION_MAX = 0x200,
        OPTION_SLOTS,
};

struct enroll_request {
        uint64_t max_bytes; /* 0: not given */
        bool has_slots;
        uint32_t slots;
};

static const struct cli_option enroll_options[] = {
        { "max", OPTION_MAX, "SIZE", "What it may grow to (four times what it has at boot)" },
        { "slots", OPTION_SLOTS, "N", "For so many DIMMs (16)" },
        {},
};

static int enroll_option(void *request, int id, const char *value, struct error *ret_error)
{
        struct enroll_request *q = request;

        if (id == OPTION_MAX)
                return size_parse(value, &q->max_bytes, ret_error);
        int r = args_parse_u32("--slots", value, &q->slots, ret_error);
        if (r >= 0 && (q->slots < 1 || q->slots > 256))
                r = error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "--slots %" PRIu32 " is out of range; write 1 to 256", q->slots);
        q->has_slots = true;
        return r;
}

static int append_enroll(sd_bus_message *m, const char *name, const struct enroll_request *q)
{
        int r = sd_bus_message_append(m, "s", name);

        if (r >= 0)
                r = sd_bus_message_open_container(m, SD_BUS_TYPE_ARRAY, "{sv}");
        if (r >= 0 && q->max_bytes > 0)
                r = sd_bus_message_append(m, "{sv}", "max", "t", q->max_bytes);
        if (r >= 0 && q->has_slots)
                r = sd_bus_message_append(m, "{sv}", "slots", "u", q->slots);
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int enroll(struct cli *cli, const char *name, const struct enroll_request *q)
{
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_message_ sd_bus_message *call = NULL, *reply = NULL;
        const char *text;

        int r = sd_bus_message_new_method_call(
                cli->bus, &call, HVD_NAME, HVD_PATH, HVD_MANAGER_INTERFACE, "EnrollDomain");
        if (r >= 0)
                r = append_enroll(call, name, q);
        if (r >= 0)
                r = sd_bus_call(cli->bus, call, bus_timeout(HVD_LIBVIRT_TIMEOUT_USEC), &bus_error, &reply);
        if (r >= 0)
                r = sd_bus_message_read(reply, "s", &text);
        if (r < 0)
                return bus_fail(cli, &bus_error, r);
        if (!cli->arg_json) {
                text_put(stdout, text);
                putchar('\n');
                return CLI_DONE;
        }
        _cleanup_json_ struct json_object *o = json_object_new_object();
        if (json_add_string(o, "domain", name) < 0 || json_add_string(o, "message", text) < 0)
                return output_fail_errno(cli, -ENOMEM);
        output_json(o);
        return CLI_DONE;
}

/* Every domain that lacks something, with what it is. */
static int list_lacking(struct cli *cli)
{
        _cleanup_bus_error_ sd_bus_error bus_error = SD_BUS_ERROR_NULL;
        _cleanup_message_ sd_bus_message *reply = NULL;
        _cleanup_json_ struct json_object *array = json_object_new_array();
        const char *name, *what;

        int r = sd_bus_call_method(cli->bus, HVD_NAME, HVD_PATH, HVD_MANAGER_INTERFACE, "ListLackingDomains",
                &bus_error, &reply, "");
        if (r >= 0)
                r = sd_bus_message_enter_container(reply, 'a', "(ss)");
        if (r < 0)
                return bus_fail(cli, &bus_error, r);
        while ((r = sd_bus_message_read(reply, "(ss)", &name, &what)) > 0) {
                struct json_object *o = json_object_new_object();

                if (json_array_add(array, o) < 0 || json_add_string(o, "domain", name) < 0 ||
                        json_add_string(o, "message", what) < 0)
                        return output_fail_errno(cli, -ENOMEM);
                if (cli->arg_json)
                        continue;
                text_put(stdout, name);
                fputs(": ", stdout);
                text_put(stdout, what);
                putchar('\n');
        }
        if (r < 0)
                return bus_fail(cli, NULL, r);
        if (cli->arg_json)
                output_json(array);
        return CLI_DONE;
}

static int run_enroll(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        const char *words[CLI_POSITIONALS_MAX];
        struct enroll_request q = {};
        struct error error;

        int r = args_parse(cli, verb, argc, argv, &q, words, &error);
        if (r != ARGS_OK)
                return args_finish(cli, verb, r, &error);
        r = bus_open(cli);
        if (r != 0)
                return r;
        return words[0] ? enroll(cli, words[0], &q) : list_lacking(cli);
}

const struct cli_verb verb_enroll = {
        .name = "enroll",
        .positionals = { "DOMAIN" },
        .n_optional = 1,
        .help = "Gives a domain of libvirt what it lacks; without DOMAIN: who lacks what",
        .options = enroll_options,
        .option = enroll_option,
        .run = run_enroll,
};
