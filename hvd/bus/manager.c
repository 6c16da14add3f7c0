/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* org.opendlpar.hvd1.Manager. */

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "hvd/bus/internal.h"
#include "hvd/pool.h"

static int method_add_partition(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct bus *b = userdata;
        struct partition_definition d = { .profile.weight = PARTITION_WEIGHT_DEFAULT };
        const char *name, *qmp = "", *channel = "";
        uint32_t weight = PARTITION_WEIGHT_DEFAULT;
        struct bus_option options[] = {
                { "qmp", 's', &qmp },
                { "channel", 's', &channel },
                { "min", 't', &d.profile.min_bytes },
                { "desired", 't', &d.profile.desired_bytes },
                { "max", 't', &d.profile.max_bytes },
                { "weight", 'u', &weight },
        };
        struct error error;
        struct partition *p;

        int r = sd_bus_message_read_basic(m, 's', &name);
        if (r < 0)
                return r;
        if (bus_read_options(m, options, ARRAY_SIZE(options), &error) < 0)
                return bus_fail(e, &error);
        if (!partition_name_valid(name)) {
                error_set(&error, ERROR_INVALID_ARGUMENT,
                        "'%.64s' is not a partition's name; use up to %u letters, digits, '.', '_' and '-', "
                        "beginning "
                        "with neither '.' nor '-'",
                        name, PARTITION_NAME_MAX);
                return bus_fail(e, &error);
        }
        snprintf(d.name, sizeof(d.name), "%s", name);
        d.profile.weight = weight;
        if (partition_socket_parse(qmp, d.qmp_path, &error) < 0 ||
                partition_socket_parse(channel, d.channel_path, &error) < 0 ||
                manager_define(b->manager, &d, &p, &error) < 0)
                return bus_fail(e, &error);

        _cleanup_free_ char *path = bus_partition_path(p);
        return path ? sd_bus_reply_method_return(m, "o", path) : -ENOMEM;
}

static int method_remove_partition(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct bus *b = userdata;
        const char *name;
        struct error error;

        int r = sd_bus_message_read_basic(m, 's', &name);
        if (r < 0)
                return r;
        if (manager_undefine(b->manager, name, &error) < 0)
                return bus_fail(e, &error);
        return sd_bus_reply_method_return(m, "");
}

int bus_find_partition(struct bus *b, const char *name, struct partition **ret, struct error *ret_error)
{
        struct partition *p = manager_find_partition(b->manager, name);

        if (!p)
                return error_set(ret_error, ERROR_UNKNOWN_PARTITION,
                        "There is no partition '%.64s'; 'hmc-cli list' shows them", name);
        *ret = p;
        return 0;
}

static int method_get_partition(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct bus *b = userdata;
        const char *name;

        int r = sd_bus_message_read_basic(m, 's', &name);
        if (r < 0)
                return r;
        struct partition *p = NULL;
        struct error error;
        if (bus_find_partition(b, name, &p, &error) < 0)
                return bus_fail(e, &error);
        _cleanup_free_ char *path = bus_partition_path(p);
        return path ? sd_bus_reply_method_return(m, "o", path) : -ENOMEM;
}

static int get_string(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        return sd_bus_message_append(reply, "s", PROJECT_VERSION);
}

static int get_pool(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct bus *b = userdata;
        struct pool_account a = pool_account(b->manager);
        const struct {
                const char *name;
                uint64_t value;
        } table[] = {
                { "PoolTotal", a.total_bytes },
                { "PoolReserved", a.reserved_bytes },
                { "PoolCurrent", a.current_bytes },
                { "PoolRequested", a.requested_bytes },
                { "PoolReservations", a.reservations_bytes },
                { "PoolFree", a.free_bytes },
        };

        for (size_t i = 0; i < ARRAY_SIZE(table); i++)
                if (strcmp(table[i].name, property) == 0)
                        return sd_bus_message_append(reply, "t", table[i].value);
        return -ENOENT;
}

static int get_reservations(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct bus *b = userdata;
        const struct reservation *v = NULL;
        int r = sd_bus_message_open_container(reply, 'a', "(ustb)");

        while (r >= 0 && (v = pool_next_reservation(b->manager, v)))
                r = sd_bus_message_append(reply, "(ustb)", v->id, v->owner, v->bytes, v->is_held);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

#define CHANGES SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("AddPartition", SD_BUS_ARGS("s", name, "a{sv}", options),
                SD_BUS_RESULT("o", partition), method_add_partition, 0),
        SD_BUS_METHOD_WITH_ARGS(
                "RemovePartition", SD_BUS_ARGS("s", name), SD_BUS_NO_RESULT, method_remove_partition, 0),
        SD_BUS_METHOD_WITH_ARGS("GetPartition", SD_BUS_ARGS("s", name), SD_BUS_RESULT("o", partition),
                method_get_partition, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListPartitions", SD_BUS_NO_ARGS,
                SD_BUS_RESULT("as", names, "a" BUS_PARTITION_ROW, partitions), bus_method_list_partitions,
                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListJobs", SD_BUS_NO_ARGS, SD_BUS_RESULT("as", names, "a" BUS_JOB_ROW, jobs),
                bus_method_list_jobs, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("EnrollDomain", SD_BUS_ARGS("s", domain, "a{sv}", options),
                SD_BUS_RESULT("s", text), bus_method_enroll_domain, 0),
        SD_BUS_METHOD_WITH_ARGS("ListLackingDomains", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(ss)", domains),
                bus_method_list_lacking_domains, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("MoveMemory", SD_BUS_ARGS("s", from, "s", to, "t", bytes, "a{sv}", options),
                SD_BUS_RESULT("o", job), bus_method_move_memory, 0),
        SD_BUS_METHOD_WITH_ARGS("Reserve", SD_BUS_ARGS("s", owner, "t", bytes, "a{sv}", options),
                SD_BUS_RESULT("u", id), bus_method_reserve, 0),
        SD_BUS_METHOD_WITH_ARGS(
                "ReleaseReservation", SD_BUS_ARGS("u", id), SD_BUS_NO_RESULT, bus_method_release, 0),
        SD_BUS_METHOD_WITH_ARGS("ListDecisions", SD_BUS_ARGS("s", partition, "u", max),
                SD_BUS_RESULT("a(ttssss)", decisions), bus_method_list_decisions, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ExplainDecision", SD_BUS_ARGS("t", id), SD_BUS_RESULT("s", explanation),
                bus_method_explain_decision, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("Version", "s", get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_WRITABLE_PROPERTY("PolicyMode", "s", bus_get_policy_mode, bus_set_policy_mode, 0, CHANGES),
        SD_BUS_PROPERTY("PoolTotal", "t", get_pool, 0, CHANGES),
        SD_BUS_PROPERTY("PoolReserved", "t", get_pool, 0, CHANGES),
        SD_BUS_PROPERTY("PoolCurrent", "t", get_pool, 0, CHANGES),
        SD_BUS_PROPERTY("PoolRequested", "t", get_pool, 0, CHANGES),
        SD_BUS_PROPERTY("PoolReservations", "t", get_pool, 0, CHANGES),
        SD_BUS_PROPERTY("PoolFree", "t", get_pool, 0, CHANGES),
        SD_BUS_PROPERTY("Reservations", "a(ustb)", get_reservations, 0, CHANGES),
        SD_BUS_SIGNAL_WITH_ARGS("PolicyDecided",
                SD_BUS_ARGS("s", partition, "s", mode, "s", action, "t", current_bytes, "t", target_bytes,
                        "s", cause, "s", bound, "s", text),
                0),
        SD_BUS_SIGNAL_WITH_ARGS("JobNew", SD_BUS_ARGS("u", id, "o", job), 0),
        SD_BUS_SIGNAL_WITH_ARGS("JobRemoved", SD_BUS_ARGS("u", id, "o", job, "s", result), 0),
        SD_BUS_VTABLE_END,
};

int bus_manager_register(struct bus *b)
{
        sd_bus_slot *slot;
        int r = sd_bus_add_object_vtable(b->bus, &slot, BUS_ROOT, BUS_IFACE_MANAGER,
                polkit_guard(b->polkit, BUS_IFACE_MANAGER, vtable), b);

        return r < 0 ? r : bus_add_slot(b, slot);
}
