/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The connection to hvd: opening it, errors from it in our terms, and replies as JSON objects, which are what
 * tables and -o json are both made from. Nothing here knows a single property by name but those that are
 * arrays of structs. */

#include "hmc-cli/bus.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/size.h"
#include "hmc-cli/args.h"
#include "hmc-cli/output.h"

/* hvd waits for polkit for two minutes. */
#define PASSWORD_USEC (125 * USEC_PER_SEC)

/* Whoever sits at a terminal may be asked for a password, and needs time to give it. */
static bool may_be_asked(void)
{
        return isatty(STDIN_FILENO);
}

uint64_t bus_timeout(uint64_t usec)
{
        return may_be_asked() ? PASSWORD_USEC + usec : usec;
}

int bus_open(struct cli *cli)
{
        const char *name = cli->arg_bus ?: "system";
        sd_bus *bus = NULL;
        int r;

        if (cli->arg_host)
                r = sd_bus_open_system_remote(&bus, cli->arg_host);
        else if (strcmp(name, "system") == 0)
                r = sd_bus_open_system(&bus);
        else if (strcmp(name, "session") == 0)
                r = sd_bus_open_user(&bus);
        else {
                r = sd_bus_new(&bus);
                if (r >= 0)
                        r = sd_bus_set_address(bus, name);
                if (r >= 0)
                        r = sd_bus_set_bus_client(bus, true);
                if (r >= 0)
                        r = sd_bus_start(bus);
        }
        if (r < 0) {
                sd_bus_unref(bus);
                return bus_fail_unreachable(cli, strerror(-r));
        }
        if (may_be_asked()) {
                sd_bus_set_allow_interactive_authorization(bus, true);
                sd_bus_set_method_call_timeout(bus, PASSWORD_USEC);
        }
        cli->bus = bus;
        return 0;
}

bool bus_begin(struct cli *cli, const struct cli_verb *verb, int argc, char **argv, const char **words,
        int *ret_exit)
{
        struct error error;

        int r = args_parse(cli, verb, argc, argv, NULL, words, &error);
        *ret_exit = r == ARGS_OK ? bus_open(cli) : args_finish(cli, verb, r, &error);
        return r == ARGS_OK && *ret_exit == 0;
}

void bus_close(struct cli *cli)
{
        cli->bus = sd_bus_flush_close_unref(cli->bus);
}

int bus_fail_unreachable(const struct cli *cli, const char *why)
{
        const char *name = cli->arg_bus ?: "system";
        bool known = strcmp(name, "system") == 0 || strcmp(name, "session") == 0;

        if (cli->arg_host)
                return output_fail(cli, CLI_UNREACHABLE, "hvd-unreachable", "hvd is not reachable on %s: %s",
                        cli->arg_host, why);
        return output_fail(cli, CLI_UNREACHABLE, "hvd-unreachable", "hvd is not reachable on the %s%s%s: %s",
                known ? name : "bus at ", known ? " bus" : "", known ? "" : name, why);
}

bool bus_error_is_unreachable(const sd_bus_error *error, int r)
{
        static const char *const names[] = {
                SD_BUS_ERROR_SERVICE_UNKNOWN,
                SD_BUS_ERROR_NAME_HAS_NO_OWNER,
                SD_BUS_ERROR_NO_REPLY,
                SD_BUS_ERROR_DISCONNECTED,
                SD_BUS_ERROR_NO_SERVER,
                SD_BUS_ERROR_TIMEOUT,
                "org.freedesktop.DBus.Error.TimedOut",
                "System.Error.ECONNRESET",
                "System.Error.ENOTCONN",
                "System.Error.ETIMEDOUT",
                "System.Error.EPIPE",
        };

        if (!sd_bus_error_is_set(error))
                return r == -ENOTCONN || r == -ECONNRESET || r == -EPIPE || r == -ETIMEDOUT ||
                       r == -ESHUTDOWN || r == -ECONNREFUSED;
        if (strncmp(error->name, "org.freedesktop.DBus.Error.Spawn.", 33) == 0)
                return true;
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (strcmp(error->name, names[i]) == 0)
                        return true;
        return false;
}

const char *bus_error_code(const sd_bus_error *error)
{
        enum error_code code = ERROR_CODE_INVALID;

        if (sd_bus_error_is_set(error)) {
                code = error_code_from_dbus_name(error->name);
                if (code < 0 &&
                        (strcmp(error->name, SD_BUS_ERROR_ACCESS_DENIED) == 0 ||
                                strcmp(error->name, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED) == 0))
                        code = ERROR_DENIED;
        }
        return error_code_name(code);
}

int bus_fail(const struct cli *cli, const sd_bus_error *error, int r)
{
        const char *why = sd_bus_error_is_set(error) ? error->message ?: error->name : strerror(abs(r));

        if (bus_error_is_unreachable(error, r)) {
                if (sd_bus_error_has_name(error, SD_BUS_ERROR_SERVICE_UNKNOWN) ||
                        sd_bus_error_has_name(error, SD_BUS_ERROR_NAME_HAS_NO_OWNER))
                        why = "it does not run there";
                return bus_fail_unreachable(cli, why);
        }
        return output_fail(cli, CLI_FAILED, bus_error_code(error), "%s", why);
}

int bus_partition_path(const char *name, char **ret_path)
{
        return sd_bus_path_encode(HVD_PARTITION_PATH, name, ret_path);
}

int bus_fail_partition(const struct cli *cli, const char *name, const sd_bus_error *error, int r)
{
        _cleanup_bus_error_ sd_bus_error e = SD_BUS_ERROR_NULL;

        if (sd_bus_error_has_name(error, SD_BUS_ERROR_UNKNOWN_OBJECT) ||
                sd_bus_error_has_name(error, SD_BUS_ERROR_UNKNOWN_METHOD) ||
                sd_bus_error_has_name(error, SD_BUS_ERROR_UNKNOWN_INTERFACE)) {
                int k = sd_bus_call_method(cli->bus, HVD_NAME, HVD_PATH, HVD_MANAGER_INTERFACE,
                        "GetPartition", &e, NULL, "s", name);
                if (k < 0)
                        return bus_fail(cli, &e, k);
        }
        return bus_fail(cli, error, r);
}

/* The members of the structs in array properties. */
static const struct {
        const char *property;
        const char *members[20];
} struct_names[] = {
        { "Reasons", { "device", "block", "code", "message" } },
        { "Devices", { "id", "kind", "address", "size_bytes", "slot", "node", "movable_bytes", "kernel_bytes",
                             "offline_bytes", "stuck_bytes", "state", "drc_first", "drc_last",
                             "requested_bytes", "unit_bytes" } },
        { "Balloon",
                { "taken_bytes", "actual_bytes", "deflate_on_oom", "free_page_reporting", "stats_updated_sec",
                        "stats_total_bytes", "stats_free_bytes", "stats_available_bytes" } },
        { "Nodes", { "node", "base_bytes", "plugged_bytes" } },
        { "Reservations", { "id", "owner", "bytes", "held" } },
        { "Transitions", { "state", "time_usec" } },
        { "Usage", { "day", "mib_seconds" } },
        { "Decisions", { "id", "time_usec", "partition", "decision", "text", "outcome" } },
        { "Survey", { "start", "length", "state", "zone", "node", "device", "drc" } },
        { "MemoryMap", { "start", "length", "state", "zone", "node", "device", "drc", "fate", "why",
                               "sampled_pages", "free_pages", "movable_pages", "huge_pages", "slab_pages",
                               "page_table_pages", "unmovable_pages", "pinned_pages", "cost_bytes" } },
};

static const char *const *find_members(const char *name)
{
        for (size_t i = 0; name && i < ARRAY_SIZE(struct_names); i++)
                if (strcmp(struct_names[i].property, name) == 0)
                        return struct_names[i].members;
        return NULL;
}

/* json-c writes 17 digits; a percentage reads better without the noise of binary fractions. JSON has no NaN.
 */
static int new_double(double d, struct json_object **ret)
{
        char text[32];

        if (!isfinite(d)) {
                *ret = NULL;
                return 0;
        }
        snprintf(text, sizeof(text) - 2, "%.6g", d);
        if (!strpbrk(text, ".e"))
                strcat(text, ".0");
        *ret = json_object_new_double_s(d, text);
        return *ret ? 0 : -ENOMEM;
}

static int read_basic(sd_bus_message *m, char type, struct json_object **ret)
{
        union {
                uint8_t y;
                int b; /* as sd-bus stores it */
                int16_t n;
                uint16_t q;
                int32_t i;
                uint32_t u;
                int64_t x;
                uint64_t t;
                double d;
                const char *s;
        } v;

        if (type == SD_BUS_TYPE_UNIX_FD)
                return -EOPNOTSUPP;
        int r = sd_bus_message_read_basic(m, type, &v);
        if (r < 0)
                return r;
        switch (type) {
        case SD_BUS_TYPE_BYTE:
                *ret = json_object_new_int(v.y);
                break;
        case SD_BUS_TYPE_BOOLEAN:
                *ret = json_object_new_boolean(v.b);
                break;
        case SD_BUS_TYPE_INT16:
                *ret = json_object_new_int(v.n);
                break;
        case SD_BUS_TYPE_UINT16:
                *ret = json_object_new_int(v.q);
                break;
        case SD_BUS_TYPE_INT32:
                *ret = json_object_new_int(v.i);
                break;
        case SD_BUS_TYPE_UINT32:
                *ret = json_object_new_int64(v.u);
                break;
        case SD_BUS_TYPE_INT64:
                *ret = json_object_new_int64(v.x);
                break;
        case SD_BUS_TYPE_UINT64:
                *ret = json_object_new_uint64(v.t);
                break;
        case SD_BUS_TYPE_DOUBLE:
                return new_double(v.d, ret);
        default:
                *ret = json_object_new_string(v.s);
                break;
        }
        return *ret ? 0 : -ENOMEM;
}

static int read_struct(sd_bus_message *m, const char *const *members, struct json_object **ret)
{
        _cleanup_json_ struct json_object *o = members ? json_object_new_object() : json_object_new_array();
        size_t i = 0;
        int r;

        if (!o)
                return -ENOMEM;
        while ((r = sd_bus_message_at_end(m, false)) == 0) {
                struct json_object *v = NULL;

                r = bus_read_value(m, NULL, &v);
                if (r < 0)
                        return r;
                if (!members)
                        r = json_object_array_add(o, v);
                else if (members[i])
                        r = json_object_object_add(o, members[i++], v);
                else
                        json_object_put(v); /* a member that this version does not know */
                if (r < 0) {
                        json_object_put(v);
                        return -ENOMEM;
                }
        }
        if (r < 0)
                return r;
        *ret = steal_pointer(o);
        return 0;
}

static int read_array(sd_bus_message *m, const char *name, struct json_object **ret)
{
        _cleanup_json_ struct json_object *o = json_object_new_array();
        int r;

        if (!o)
                return -ENOMEM;
        while ((r = sd_bus_message_at_end(m, false)) == 0) {
                struct json_object *v = NULL;

                r = bus_read_value(m, name, &v);
                if (r < 0)
                        return r;
                if (json_object_array_add(o, v) < 0) {
                        json_object_put(v);
                        return -ENOMEM;
                }
        }
        if (r < 0)
                return r;
        *ret = steal_pointer(o);
        return 0;
}

int bus_read_value(sd_bus_message *m, const char *name, struct json_object **ret)
{
        _cleanup_json_ struct json_object *v = NULL;
        const char *contents;
        char type;
        int r;

        r = sd_bus_message_peek_type(m, &type, &contents);
        if (r <= 0)
                return r < 0 ? r : -EBADMSG;
        if (!contents)
                return read_basic(m, type, ret);
        if (type == SD_BUS_TYPE_ARRAY && contents[0] == SD_BUS_TYPE_DICT_ENTRY_BEGIN) {
                if (strcmp(contents, "{sv}") != 0)
                        return -EOPNOTSUPP;
                r = bus_read_properties(m, &v);
                if (r < 0)
                        return r;
                *ret = steal_pointer(v);
                return 0;
        }

        r = sd_bus_message_enter_container(m, type, contents);
        if (r < 0)
                return r;
        if (type == SD_BUS_TYPE_VARIANT)
                r = bus_read_value(m, name, &v);
        else if (type == SD_BUS_TYPE_STRUCT)
                r = read_struct(m, find_members(name), &v);
        else
                r = read_array(m, name, &v);
        if (r < 0)
                return r;
        r = sd_bus_message_exit_container(m);
        if (r < 0)
                return r;
        *ret = steal_pointer(v);
        return 0;
}

int bus_read_properties(sd_bus_message *m, struct json_object **o)
{
        int r;

        if (!*o && !(*o = json_object_new_object()))
                return -ENOMEM;
        r = sd_bus_message_enter_container(m, SD_BUS_TYPE_ARRAY, "{sv}");
        if (r < 0)
                return r;
        while ((r = sd_bus_message_enter_container(m, SD_BUS_TYPE_DICT_ENTRY, "sv")) > 0) {
                struct json_object *v = NULL;
                const char *name;
                char key[80];

                r = sd_bus_message_read_basic(m, 's', &name);
                if (r < 0)
                        return r;
                r = bus_read_value(m, name, &v);
                if (r < 0)
                        return r;
                text_snake_case(name, key, sizeof(key));
                if (json_object_object_add(*o, key, v) < 0) {
                        json_object_put(v);
                        return -ENOMEM;
                }
                r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        return r < 0 ? r : 0;
}

int bus_get_all(const struct cli *cli, const char *path, const char *interface, struct json_object **ret,
        sd_bus_error *ret_error)
{
        _cleanup_message_ sd_bus_message *reply = NULL;
        _cleanup_json_ struct json_object *o = NULL;
        int r;

        r = sd_bus_call_method(cli->bus, HVD_NAME, path, "org.freedesktop.DBus.Properties", "GetAll",
                ret_error, &reply, "s", interface);
        if (r < 0)
                return r;
        r = bus_read_properties(reply, &o);
        if (r < 0)
                return sd_bus_error_set_errnof(ret_error, r, "hvd's answer cannot be read: %s", strerror(-r));
        *ret = steal_pointer(o);
        return 0;
}

/* A table's columns: what the values are called, the keys of that, and whether anybody wants them. */
struct columns {
        char **names;
        char (*keys)[80];
        bool *is_wanted;
        size_t n;
};

static void columns_done(struct columns *c)
{
        for (size_t i = 0; i < c->n; i++)
                free(c->names[i]);
        free(c->names);
        free(c->keys);
        free(c->is_wanted);
}

static bool is_one_of(const char *const *keys, const char *key)
{
        while (*keys && strcmp(*keys, key) != 0)
                keys++;
        return *keys;
}

static int read_columns(sd_bus_message *m, const char *const *wanted, struct columns *ret)
{
        int r = sd_bus_message_read_strv(m, &ret->names);

        if (r < 0)
                return r;
        while (ret->names && ret->names[ret->n])
                ret->n++;
        ret->keys = calloc(ret->n + 1, sizeof(*ret->keys));
        ret->is_wanted = calloc(ret->n + 1, sizeof(*ret->is_wanted));
        if (!ret->keys || !ret->is_wanted)
                return -ENOMEM;
        for (size_t i = 0; i < ret->n; i++) {
                text_snake_case(ret->names[i], ret->keys[i], sizeof(ret->keys[i]));
                ret->is_wanted[i] = !wanted || is_one_of(wanted, ret->keys[i]);
        }
        return 0;
}

static int read_row(sd_bus_message *m, const struct columns *columns, struct json_object **ret)
{
        _cleanup_json_ struct json_object *o = json_object_new_object();

        if (!o)
                return -ENOMEM;
        for (size_t i = 0; i < columns->n; i++) {
                struct json_object *v = NULL;
                int r = columns->is_wanted[i] ? bus_read_value(m, columns->names[i], &v)
                                              : sd_bus_message_skip(m, NULL);

                if (r < 0)
                        return r;
                if (columns->is_wanted[i] && json_object_object_add(o, columns->keys[i], v) < 0) {
                        json_object_put(v);
                        return -ENOMEM;
                }
        }
        *ret = steal_pointer(o);
        return 0;
}

/* (as names, a(...) rows), see docs/dbus.md. */
static int read_table(sd_bus_message *m, const char *const *wanted, struct json_object *array)
{
        _cleanup_(columns_done) struct columns columns = {};
        const char *contents;
        char type;
        int r = read_columns(m, wanted, &columns);

        if (r >= 0)
                r = sd_bus_message_peek_type(m, &type, &contents);
        if (r >= 0)
                r = sd_bus_message_enter_container(m, SD_BUS_TYPE_ARRAY, contents);
        while (r >= 0 && (r = sd_bus_message_at_end(m, false)) == 0) {
                struct json_object *o = NULL;

                r = sd_bus_message_enter_container(m, SD_BUS_TYPE_STRUCT, NULL);
                if (r >= 0)
                        r = read_row(m, &columns, &o);
                if (r >= 0)
                        r = json_array_add(array, o);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r < 0 ? r : sd_bus_message_exit_container(m);
}

static const char *sort_key; /* for the one comparison that json-c's sort knows no context for */

static int compare_objects(const void *a, const void *b)
{
        struct json_object *x = *(struct json_object *const *)a, *y = *(struct json_object *const *)b;
        uint64_t i = field_u64(x, sort_key), j = field_u64(y, sort_key);

        if (i != j)
                return i < j ? -1 : 1;
        return strverscmp(field_string(x, sort_key), field_string(y, sort_key));
}

int bus_get_objects(const struct cli *cli, const char *method, const char *key, const char *const *wanted,
        struct json_object **ret)
{
        _cleanup_bus_error_ sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_message_ sd_bus_message *reply = NULL;
        _cleanup_json_ struct json_object *array = json_object_new_array();
        int r;

        if (!array)
                return output_fail_errno(cli, -ENOMEM);
        r = sd_bus_call_method(
                cli->bus, HVD_NAME, HVD_PATH, HVD_MANAGER_INTERFACE, method, &error, &reply, NULL);
        if (r < 0)
                return bus_fail(cli, &error, r);
        r = read_table(reply, cli->arg_json ? NULL : wanted, array);
        if (r < 0)
                return output_fail_errno(cli, r);
        sort_key = key;
        json_object_array_sort(array, compare_objects);
        *ret = steal_pointer(array);
        return 0;
}
