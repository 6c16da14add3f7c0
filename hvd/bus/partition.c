/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* org.opendlpar.hvd1.Partition. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "hvd/bus/internal.h"
#include "hvd/bus/map.h"
#include "hvd/pool.h"

/* A Survey() or MemoryMap() call that awaits the partition's answer. */
struct survey_call {
        TAILQ_ENTRY(survey_call) entry;
        struct bus *bus;
        struct partition *partition;
        sd_bus_message *message;
        struct partition_refresh *refresh;
        bool is_map; /* MemoryMap: the pages are asked for next */
        uint64_t map_bytes;
        struct survey_ask *ask;
};

/* For one partition: anyone may ask, and a job's own calls to QEMU and to the guest must find room. */
#define SURVEYS_MAX 4U

static int find_partition(sd_bus *bus, const char *path, const char *interface, void *userdata,
        void **ret_found, sd_bus_error *e)
{
        struct bus *b = userdata;
        _cleanup_free_ char *name = NULL;

        int r = sd_bus_path_decode(path, BUS_PARTITION_ROOT, &name);
        if (r <= 0)
                return r;
        *ret_found = manager_find_partition(b->manager, name);
        return *ret_found ? 1 : 0;
}

static int enumerate_partitions(
        sd_bus *bus, const char *prefix, void *userdata, char ***ret_nodes, sd_bus_error *e)
{
        struct bus *b = userdata;
        size_t n = 0, i = 0;
        struct partition *p = NULL;

        while ((p = manager_next_partition(b->manager, p)))
                n++;
        char **nodes = calloc(n + 1, sizeof(*nodes));
        if (!nodes)
                return -ENOMEM;
        while (i < n && (p = manager_next_partition(b->manager, p)))
                nodes[i++] = bus_partition_path(p);
        *ret_nodes = nodes;
        return 0;
}

/* --- Survey --- */

static void survey_free(struct survey_call *s)
{
        TAILQ_REMOVE(&s->bus->surveys, s, entry);
        partition_refresh_free(s->refresh);
        survey_ask_free(s->ask);
        sd_bus_message_unref(s->message);
        free(s);
}

void bus_surveys_free(struct bus *b)
{
        while (!TAILQ_EMPTY(&b->surveys))
                survey_free(TAILQ_FIRST(&b->surveys));
}

void bus_partition_forget(struct bus *b, struct partition *p)
{
        struct survey_call *s, *next;

        for (s = TAILQ_FIRST(&b->surveys); s; s = next) {
                next = TAILQ_NEXT(s, entry);
                if (s->partition != p)
                        continue;
                sd_bus_reply_method_errorf(s->message, error_code_dbus_name(ERROR_UNKNOWN_PARTITION),
                        "Partition '%s' was undefined", p->definition.name);
                survey_free(s);
        }
}

/* Appends the runs of blocks, cut at the edges of memory devices. */
static int append_blocks(sd_bus_message *reply, const struct partition *p)
{
        int r = sd_bus_message_open_container(reply, 'a', "(ttssusu)");

        for (size_t i = 0; r >= 0 && i < p->n_blocks; i++) {
                const struct block_range *range = &p->blocks[i];
                uint64_t at = range->start, end = range->start + range->length;

                while (r >= 0 && at < end) {
                        uint64_t until = end;
                        const char *device = "";
                        for (size_t k = 0; k < p->snapshot.n_devices; k++) {
                                const struct platform_device *d = &p->snapshot.devices[k];
                                uint64_t d_end = d->address + d->region_bytes;

                                if (at >= d->address && at < d_end) {
                                        device = d->id;
                                        until = MIN(until, d_end);
                                } else if (d->address > at)
                                        until = MIN(until, d->address);
                        }
                        r = sd_bus_message_append(reply, "(ttssusu)", at, until - at,
                                block_state_to_string(range->state), zone_to_string(range->zone), range->node,
                                device, *device && partition_is_pseries(p) ? plan_drc_index(at) : 0);
                        at = until;
                }
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static void answer_map(struct survey_call *s, const struct survey *pages, const char *note)
{
        sd_bus_message *reply = NULL;
        int r = sd_bus_message_new_method_return(s->message, &reply);

        if (r >= 0)
                r = bus_append_map(reply, s->partition, pages, note, s->map_bytes);
        if (r >= 0)
                r = sd_bus_send(NULL, reply, NULL);
        sd_bus_message_unref(reply);
        if (r < 0)
                log_debug("A memory map could not be sent: %s", strerrordesc_np(-r));
        survey_free(s);
}

static void on_pages(struct survey *pages, const struct error *error, void *userdata)
{
        struct survey_call *s = userdata;

        s->ask = NULL;
        answer_map(s, pages ?: &(struct survey) { 0 }, error ? error->message : "");
}

static void ask_pages(struct survey_call *s)
{
        _cleanup_free_ struct mem_range *targets = NULL;
        struct error error = { 0 };
        size_t n = 0;

        if (bus_map_targets(s->partition, &targets, &n) < 0)
                error_set(&error, ERROR_INTERNAL, "Out of memory");
        else if (n > 0 &&
                 survey_start(s->partition, targets, n, SURVEY_THOROUGH, on_pages, s, &s->ask, &error) >= 0)
                return;
        answer_map(s, &(struct survey) { 0 }, error.message);
}

static void on_surveyed(struct partition *p, const struct error *error, void *userdata)
{
        struct survey_call *s = userdata;
        sd_bus_message *reply = NULL;
        int r;

        s->refresh = NULL;
        if (!error && s->is_map) {
                ask_pages(s);
                return;
        }
        if (error)
                r = sd_bus_reply_method_errorf(
                        s->message, error_code_dbus_name(error->code), "%s", error->message);
        else {
                r = sd_bus_message_new_method_return(s->message, &reply);
                if (r >= 0)
                        r = append_blocks(reply, p);
                if (r >= 0)
                        r = sd_bus_send(NULL, reply, NULL);
                sd_bus_message_unref(reply);
        }
        if (r < 0)
                log_debug("A survey's answer could not be sent: %s", strerrordesc_np(-r));
        survey_free(s);
}

static int method_survey(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct partition *p = userdata;
        struct bus *b = sd_bus_slot_get_userdata(sd_bus_get_current_slot(sd_bus_message_get_bus(m)));
        struct survey_call *s;
        bool is_map = strcmp(sd_bus_message_get_member(m), "MemoryMap") == 0;
        uint64_t bytes = 0;
        size_t n = 0;
        struct error error;

        if (is_map) {
                int r = sd_bus_message_read_basic(m, 't', &bytes);
                if (r < 0)
                        return r;
        }
        TAILQ_FOREACH (s, &b->surveys, entry)
                n += s->partition == p;
        if (n >= SURVEYS_MAX) {
                error_set(&error, ERROR_BUSY, "%zu surveys of '%s' are under way already", n,
                        p->definition.name);
                return bus_fail(e, &error);
        }
        s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        *s = (struct survey_call) { .bus = b,
                .partition = p,
                .message = sd_bus_message_ref(m),
                .is_map = is_map,
                .map_bytes = bytes };
        TAILQ_INSERT_TAIL(&b->surveys, s, entry);
        if (partition_refresh(p, REFRESH_ALL, on_surveyed, s, &s->refresh, &error) < 0) {
                survey_free(s);
                return bus_fail(e, &error);
        }
        return 1;
}

/* --- properties --- */

static int get_string(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct partition *p = userdata;
        const char *value = "";

        if (strcmp(property, "Name") == 0)
                value = p->definition.name;
        else if (strcmp(property, "Uuid") == 0)
                value = p->snapshot.uuid;
        else if (strcmp(property, "Architecture") == 0)
                value = p->snapshot.arch;
        else if (strcmp(property, "Platform") == 0)
                value = p->platform->ops->name;
        else if (strcmp(property, "State") == 0)
                value = run_state_to_string(p->has_snapshot ? p->snapshot.state : RUN_ABSENT);
        else if (strcmp(property, "AgentState") == 0)
                value = agent_state_to_string(agent_state(p->agent));
        return sd_bus_message_append(reply, "s", value);
}

static unsigned slots_used(const struct partition *p)
{
        unsigned n = 0;

        for (size_t i = 0; i < p->snapshot.n_devices; i++)
                n += p->snapshot.devices[i].is_dimm;
        return n;
}

static uint64_t u64_property(const struct partition *p, const char *property)
{
        const struct {
                const char *name;
                uint64_t value;
        } table[] = {
                { "BaseBytes", p->snapshot.base_bytes },
                { "PluggedBytes", p->snapshot.plugged_bytes },
                { "BalloonBytes", p->snapshot.balloon_bytes },
                { "CurrentBytes", partition_current_bytes(p) },
                { "RequestedBytes", pool_requested_bytes(p) },
                { "MinBytes", p->definition.profile.min_bytes },
                { "DesiredBytes", p->definition.profile.desired_bytes },
                { "MaxBytes", partition_max_bytes(p) },
                { "TotalBytes", p->has_memory ? p->memory.total_bytes : 0 },
                { "AvailableBytes", p->has_memory ? p->memory.available_bytes : 0 },
                { "BlockBytes", partition_block_bytes(p) },
        };

        for (size_t i = 0; i < ARRAY_SIZE(table); i++)
                if (strcmp(table[i].name, property) == 0)
                        return table[i].value;
        return 0;
}

static int get_u64(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        return sd_bus_message_append(reply, "t", u64_property(userdata, property));
}

static int get_pending(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct partition *p = userdata;

        return sd_bus_message_append(
                reply, "x", (int64_t)pool_requested_bytes(p) - (int64_t)partition_current_bytes(p));
}

static int get_u32(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct partition *p = userdata;
        uint32_t value = strcmp(property, "Weight") == 0       ? p->definition.profile.weight
                         : strcmp(property, "SlotsTotal") == 0 ? p->snapshot.slots
                                                               : slots_used(p);

        return sd_bus_message_append(reply, "u", value);
}

static int get_pressure(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct partition *p = userdata;
        double pressure = p->has_memory && p->memory.has_pressure ? p->memory.some_avg10_centi / 100.0 : 0.0;

        return sd_bus_message_append(reply, "d", pressure);
}

#define BALLOON_TYPE "(ttbbtttt)" /* none or one */
#define DEVICE_TYPE  "(ssttuuttttsuutt)"

static int get_devices(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct partition *p = userdata;
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;

        int r = partition_plan_snapshot(p, NULL, &s, &devices);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', DEVICE_TYPE);
        for (size_t i = 0; r >= 0 && i < s.n_devices; i++) {
                const struct plan_device *d = &devices[i];
                bool has_drc = s.is_pseries && d->size_bytes > 0;
                uint64_t address = d->address < PLATFORM_ADDRESS_UNKNOWN ? d->address : 0;

                r = sd_bus_message_append(reply, DEVICE_TYPE, d->id, d->is_dimm ? "dimm" : "virtio-mem",
                        address, p->snapshot.devices[i].size_bytes, d->slot, d->node, d->movable_bytes,
                        d->kernel_bytes, d->offline_bytes, d->stuck_bytes,
                        d->unplug_pending ? "unplug-pending" : "plugged",
                        has_drc ? plan_drc_index(d->address) : 0,
                        has_drc ? plan_drc_index(d->address + d->size_bytes - 1) : 0,
                        p->snapshot.devices[i].requested_bytes, p->snapshot.devices[i].unit_bytes);
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_balloon(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct partition *p = userdata;
        const struct platform_balloon *b = &p->snapshot.balloon;
        int r = sd_bus_message_open_container(reply, 'a', BALLOON_TYPE);

        if (r >= 0 && p->has_snapshot && b->present)
                r = sd_bus_message_append(reply, BALLOON_TYPE, p->snapshot.balloon_bytes, b->actual_bytes,
                        b->deflate_on_oom, b->free_page_reporting, b->stats.updated_sec, b->stats.total_bytes,
                        b->stats.free_bytes, b->stats.available_bytes);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_nodes(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct partition *p = userdata;
        const struct platform_snapshot *s = &p->snapshot;
        int r = sd_bus_message_open_container(reply, 'a', "(utt)");

        for (unsigned i = 0; r >= 0 && i < s->n_nodes; i++) {
                uint64_t plugged_bytes = 0;

                for (size_t k = 0; k < s->n_devices; k++)
                        if (s->devices[k].node == i)
                                plugged_bytes += s->devices[k].size_bytes;
                r = sd_bus_message_append(reply, "(utt)", i, s->node_base_bytes[i], plugged_bytes);
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

#define CHANGES SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE
#define CONST   SD_BUS_VTABLE_PROPERTY_CONST

static int append_usage(uint32_t day, uint64_t mib_seconds, void *userdata)
{
        time_t sec = (time_t)day * 24 * 3600;
        char text[sizeof("2026-01-01")];
        struct tm tm;

        if (!gmtime_r(&sec, &tm) || strftime(text, sizeof(text), "%F", &tm) == 0)
                return 0; /* no day of ours */
        return MIN(sd_bus_message_append(userdata, "(st)", text, mib_seconds), 0);
}

static int method_get_usage(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        struct error error;
        uint32_t days;

        int r = sd_bus_message_read_basic(m, 'u', &days);
        if (r < 0)
                return r;
        if (days == 0 || days > STORE_USAGE_DAYS) {
                error_set(&error, ERROR_INVALID_ARGUMENT, "%" PRIu32 " is no number of days; ask for 1 to %u",
                        days, STORE_USAGE_DAYS);
                return bus_fail(e, &error);
        }
        r = sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "(st)");
        if (r < 0)
                return r;
        error = (struct error) { 0 };
        r = metering_foreach(userdata, days, append_usage, reply, &error);
        if (r < 0)
                return error.code ? bus_fail(e, &error) : r;
        r = sd_bus_message_close_container(reply);
        return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("AddMemory", SD_BUS_ARGS("t", bytes, "a{sv}", options),
                SD_BUS_RESULT("o", job), bus_method_change_memory, 0),
        SD_BUS_METHOD_WITH_ARGS("RemoveMemory", SD_BUS_ARGS("t", bytes, "a{sv}", options),
                SD_BUS_RESULT("o", job), bus_method_change_memory, 0),
        SD_BUS_METHOD_WITH_ARGS("SetMemory", SD_BUS_ARGS("t", bytes, "a{sv}", options),
                SD_BUS_RESULT("o", job), bus_method_change_memory, 0),
        SD_BUS_METHOD_WITH_ARGS(
                "SetProfile", SD_BUS_ARGS("a{sv}", options), SD_BUS_NO_RESULT, bus_method_set_profile, 0),
        SD_BUS_METHOD_WITH_ARGS("Survey", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(ttssusu)", blocks), method_survey,
                SD_BUS_VTABLE_UNPRIVILEGED),
        /* Not for everyone: it costs the guest up to two seconds of a processor. */
        SD_BUS_METHOD_WITH_ARGS("MemoryMap", SD_BUS_ARGS("t", bytes),
                SD_BUS_RESULT("t", block_bytes, "t", page_bytes, "s", note, "a(ttssusussttttttttt)", blocks),
                method_survey, 0),
        SD_BUS_METHOD_WITH_ARGS("GetUsage", SD_BUS_ARGS("u", days), SD_BUS_RESULT("a(st)", usage),
                method_get_usage, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Explain", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", explanation),
                bus_method_explain, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("Name", "s", get_string, 0, CONST),
        SD_BUS_PROPERTY("Uuid", "s", get_string, 0, CHANGES),
        SD_BUS_PROPERTY("Architecture", "s", get_string, 0, CHANGES),
        SD_BUS_PROPERTY("Platform", "s", get_string, 0, CONST),
        SD_BUS_PROPERTY("State", "s", get_string, 0, CHANGES),
        SD_BUS_PROPERTY("AgentState", "s", get_string, 0, CHANGES),
        SD_BUS_PROPERTY("BaseBytes", "t", get_u64, 0, CHANGES),
        SD_BUS_PROPERTY("PluggedBytes", "t", get_u64, 0, CHANGES),
        SD_BUS_PROPERTY("BalloonBytes", "t", get_u64, 0, CHANGES),
        SD_BUS_PROPERTY("CurrentBytes", "t", get_u64, 0, CHANGES),
        SD_BUS_PROPERTY("RequestedBytes", "t", get_u64, 0, CHANGES),
        SD_BUS_PROPERTY("PendingBytes", "x", get_pending, 0, CHANGES),
        SD_BUS_PROPERTY("MinBytes", "t", get_u64, 0, CHANGES),
        SD_BUS_PROPERTY("DesiredBytes", "t", get_u64, 0, CHANGES),
        SD_BUS_PROPERTY("MaxBytes", "t", get_u64, 0, CHANGES),
        SD_BUS_PROPERTY("Weight", "u", get_u32, 0, CHANGES),
        SD_BUS_PROPERTY("TotalBytes", "t", get_u64, 0, CHANGES),
        SD_BUS_PROPERTY("AvailableBytes", "t", get_u64, 0, CHANGES),
        SD_BUS_PROPERTY("Pressure", "d", get_pressure, 0, CHANGES),
        SD_BUS_PROPERTY("BlockBytes", "t", get_u64, 0, CHANGES),
        SD_BUS_PROPERTY("SlotsTotal", "u", get_u32, 0, CHANGES),
        SD_BUS_PROPERTY("SlotsUsed", "u", get_u32, 0, CHANGES),
        SD_BUS_PROPERTY("Devices", "a" DEVICE_TYPE, get_devices, 0, CHANGES),
        SD_BUS_PROPERTY("Balloon", "a" BALLOON_TYPE, get_balloon, 0, CHANGES),
        SD_BUS_PROPERTY("Nodes", "a(utt)", get_nodes, 0, CHANGES),
        SD_BUS_WRITABLE_PROPERTY(
                "PolicyMode", "s", bus_get_partition_policy_mode, bus_set_partition_policy_mode, 0, CHANGES),
        SD_BUS_VTABLE_END,
};

static int append_partitions(struct bus *b, sd_bus_message *reply, sd_bus_error *e)
{
        struct bus_table table;
        struct partition *p = NULL;
        int r = bus_table_open(&table, reply, vtable);

        while (r >= 0 && (p = manager_next_partition(b->manager, p)))
                r = bus_table_append(&table, BUS_IFACE_PARTITION, p, e);
        return r < 0 ? r : bus_table_send(&table);
}

int bus_method_list_partitions(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        sd_bus_message *reply = NULL;
        int r = sd_bus_message_new_method_return(m, &reply);

        if (r >= 0)
                r = append_partitions(userdata, reply, e);
        sd_bus_message_unref(reply);
        return r < 0 ? r : 1;
}

int bus_partition_register(struct bus *b)
{
        sd_bus_slot *slot;
        int r = sd_bus_add_fallback_vtable(b->bus, &slot, BUS_PARTITION_ROOT, BUS_IFACE_PARTITION,
                polkit_guard(b->polkit, BUS_IFACE_PARTITION, vtable), find_partition, b);
        if (r >= 0)
                r = bus_add_slot(b, slot);
        if (r >= 0)
                r = sd_bus_add_node_enumerator(b->bus, &slot, BUS_PARTITION_ROOT, enumerate_partitions, b);
        return r < 0 ? r : bus_add_slot(b, slot);
}
