/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The machine's QEMU. A command is carried out when it comes, and what QEMU says of itself (DEVICE_DELETED)
 * comes in the next turn of the loop, behind the answer. */

#include "tests/fakes/machine.h"

#include <stdio.h>
#include <string.h>

#include "tests/fakes/machine-internal.h"

#define BOOT_USEC (100 * USEC_PER_MSEC)

static void send_object(struct machine *m, struct json_object *o)
{
        struct fake_output out = { 0 };

        fake_output_json(&out, o);
        machine_send(&m->qmp, out.data, out.length);
        free(out.data);
}

void machine_event(struct machine *m, const char *name, struct json_object *data)
{
        struct json_object *o = fake_must(json_object_new_object()), *t = fake_must(json_object_new_object());

        json_add_u64(t, "seconds", 1700000000);
        json_add_u64(t, "microseconds", 0);
        json_add(o, "timestamp", t);
        json_add_string(o, "event", name);
        if (data)
                json_add(o, "data", data);
        send_object(m, o);
}

/* --- memory --- */

static struct machine_backend *find_backend(struct machine *m, const char *id)
{
        for (size_t i = 0; i < m->n_backends; i++)
                if (strcmp(m->backends[i].id, id) == 0)
                        return &m->backends[i];
        return NULL;
}

static struct machine_dimm *find_dimm(struct machine *m, const char *id, const char *backend)
{
        for (size_t i = 0; i < MACHINE_SLOTS; i++)
                if (m->dimms[i].used && ((id && strcmp(m->dimms[i].id, id) == 0) ||
                                                (backend && strcmp(m->dimms[i].backend, backend) == 0)))
                        return &m->dimms[i];
        return NULL;
}

static uint64_t find_room(struct machine *m, uint64_t bytes)
{
        uint64_t n = 0;

        for (uint64_t i = MACHINE_BASE / MACHINE_BLOCK; i < BLOCKS_MAX; i++) {
                n = m->blocks[i].state == BLOCK_ABSENT ? n + 1 : 0;
                if (n * MACHINE_BLOCK == bytes)
                        return (i + 1 - n) * MACHINE_BLOCK;
        }
        return 0;
}

static void set_blocks(struct machine *m, const struct machine_dimm *d, struct machine_block to)
{
        for (uint64_t i = 0; i < d->bytes / MACHINE_BLOCK; i++)
                m->blocks[d->address / MACHINE_BLOCK + i] = to;
}

static const char *add_backend(struct machine *m, const char *id, uint64_t bytes)
{
        if (find_backend(m, id))
                return "attempt to add duplicate property to object (type 'container')";
        if (m->n_backends == BACKENDS_MAX || bytes == 0 || bytes % MACHINE_BLOCK != 0)
                return "this machine has no such backends";
        struct machine_backend *b = &m->backends[m->n_backends++];
        *b = (struct machine_backend) { .bytes = bytes };
        snprintf(b->id, sizeof(b->id), "%s", id);
        return NULL;
}

static const char *add_dimm(struct machine *m, const char *id, const char *backend)
{
        struct machine_backend *b = find_backend(m, backend);
        size_t slot = 0;

        if (!b)
                return "Device memdev not found";
        if (find_dimm(m, NULL, backend))
                return "can't use already busy memdev";
        if (find_dimm(m, id, NULL))
                return "Duplicate ID for device";
        while (slot < MACHINE_SLOTS && m->dimms[slot].used)
                slot++;
        uint64_t address = find_room(m, b->bytes);
        if (slot == MACHINE_SLOTS || !address)
                return "no slots or no space";
        struct machine_dimm *d = &m->dimms[slot];
        *d = (struct machine_dimm) { .used = true, .address = address, .bytes = b->bytes };
        snprintf(d->id, sizeof(d->id), "%s", id);
        snprintf(d->backend, sizeof(d->backend), "%s", backend);
        set_blocks(m, d,
                m->prepared == ZONE_UNKNOWN ? (struct machine_block) { BLOCK_OFFLINE, ZONE_UNKNOWN }
                                            : (struct machine_block) { BLOCK_ONLINE, m->prepared });
        return NULL;
}

/* What an x86 guest does with an ejection: it lets go of what is offline. */
static const char *delete_dimm(struct machine *m, const char *id)
{
        struct machine_dimm *d = find_dimm(m, id, NULL);

        if (!d)
                return "Device not found";
        for (uint64_t i = 0; i < d->bytes / MACHINE_BLOCK; i++)
                if (m->blocks[d->address / MACHINE_BLOCK + i].state == BLOCK_ONLINE) {
                        machine_complain(m, "device_del of %s, of which a block is online", id);
                        return NULL;
                }
        json_array_add(m->leaving, json_object_new_string(id));
        sd_event_source_set_enabled(m->defer, SD_EVENT_ONESHOT);
        return NULL;
}

static void unplug(struct machine *m, const char *id)
{
        struct machine_dimm *d = find_dimm(m, id, NULL);
        struct json_object *data;

        if (!d)
                return;
        set_blocks(m, d, (struct machine_block) { BLOCK_ABSENT, ZONE_UNKNOWN });
        d->used = false;
        data = fake_must(json_object_new_object());
        json_add_string(data, "device", id);
        json_add_string(data, "path", "/machine/peripheral/dimm");
        machine_event(m, "DEVICE_DELETED", data);
}

static int on_defer(sd_event_source *s, void *userdata)
{
        struct machine *m = userdata;

        for (size_t i = 0; i < json_object_array_length(m->leaving); i++)
                unplug(m, json_object_get_string(json_object_array_get_idx(m->leaving, i)));
        json_object_put(m->leaving);
        m->leaving = fake_must(json_object_new_array());
        guest_look(m);
        return 0;
}

static const char *delete_backend(struct machine *m, const char *id)
{
        struct machine_backend *b = find_backend(m, id);

        if (!b)
                return "object not found";
        if (find_dimm(m, NULL, id))
                return "object is in use, can not be deleted";
        *b = m->backends[--m->n_backends];
        return NULL;
}

/* --- QMP --- */

static struct json_object *parse(const char *text)
{
        struct json_object *o;

        if (json_parse(text, strlen(text), &o) < 0)
                abort();
        return o;
}

static struct json_object *list_devices(struct machine *m)
{
        struct json_object *list = fake_must(json_object_new_array());
        char text[512];

        for (size_t i = 0; i < MACHINE_SLOTS; i++) {
                const struct machine_dimm *d = &m->dimms[i];

                if (!d->used)
                        continue;
                snprintf(text, sizeof(text),
                        "{\"type\":\"dimm\",\"data\":{\"memdev\":\"/objects/%s\",\"hotplugged\":true,"
                        "\"addr\":%llu,\"hotpluggable\":true,\"size\":%llu,\"slot\":%zu,\"node\":0,"
                        "\"id\":\"%s\"}}",
                        d->backend, (unsigned long long)d->address, (unsigned long long)d->bytes, i, d->id);
                json_array_add(list, parse(text));
        }
        return list;
}

static struct json_object *list_objects(struct machine *m)
{
        struct json_object *list = parse("[{\"name\":\"pc.ram\",\"type\":\"child<memory-backend-ram>\"}]");

        for (size_t i = 0; i < m->n_backends; i++) {
                struct json_object *o = fake_must(json_object_new_object());

                json_add_string(o, "name", m->backends[i].id);
                json_add_string(o, "type", "child<memory-backend-ram>");
                json_array_add(list, o);
        }
        return list;
}

static struct json_object *format(const char *text, uint64_t a, uint64_t b)
{
        char buffer[256];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(buffer, sizeof(buffer), text, (unsigned long long)a, (unsigned long long)b);
#pragma GCC diagnostic pop
        return parse(buffer);
}

static struct json_object *chardevs(struct machine *m)
{
        char text[300];

        snprintf(text, sizeof(text),
                "[{\"label\":\"guestd\",\"filename\":\"unix:%s,server=on\",\"frontend-open\":%s}]",
                m->channel.path, m->port_open ? "true" : "false");
        return parse(text);
}

/* The answer, or NULL and *ret_error: what QEMU refuses. */
static struct json_object *carry_out(
        struct machine *m, const char *command, struct json_object *arguments, const char **ret_error)
{
        static const struct {
                const char *command, *answer;
        } fixed[] = {
                { "qmp_capabilities", "{}" },
                { "query-status", "{\"status\":\"running\",\"running\":true,\"singlestep\":false}" },
                { "query-migrate", "{}" },
                { "query-uuid", "{\"UUID\":\"00000000-0000-0000-0000-000000000000\"}" },
                { "query-target", "{\"arch\":\"x86_64\"}" },
        };
        const char *id = "", *memdev = "";
        uint64_t bytes = 0;

        json_get_string(arguments, "id", &id);
        json_get_string(arguments, "memdev", &memdev);
        json_get_u64(arguments, "size", MACHINE_MAX, &bytes);
        *ret_error = NULL;
        for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
                if (strcmp(command, fixed[i].command) == 0)
                        return parse(fixed[i].answer);
        if (strcmp(command, "query-memory-size-summary") == 0)
                return format("{\"base-memory\":%llu,\"plugged-memory\":%llu}", MACHINE_BASE,
                        machine_plugged_bytes(m));
        if (strcmp(command, "qom-get") == 0)
                return format("{\"max-size\":%llu,\"slots\":%llu}", MACHINE_MAX, MACHINE_SLOTS);
        if (strcmp(command, "query-memory-devices") == 0)
                return list_devices(m);
        if (strcmp(command, "qom-list") == 0)
                return list_objects(m);
        if (strcmp(command, "human-monitor-command") == 0)
                return json_object_new_string("0 nodes\r\n");
        if (strcmp(command, "query-chardev") == 0)
                return chardevs(m);
        if (strcmp(command, "object-add") == 0)
                *ret_error = add_backend(m, id, bytes);
        else if (strcmp(command, "device_add") == 0)
                *ret_error = add_dimm(m, id, memdev);
        else if (strcmp(command, "device_del") == 0)
                *ret_error = delete_dimm(m, id);
        else if (strcmp(command, "object-del") == 0)
                *ret_error = delete_backend(m, id);
        else
                *ret_error = strcmp(command, "query-balloon") == 0 ? "No balloon device has been activated"
                                                                   : "The command has not been found";
        return *ret_error ? NULL : parse("{}");
}

static void qmp_line(struct machine *m, const char *line, size_t length)
{
        _cleanup_json_ struct json_object *request = NULL;
        struct json_object *arguments = NULL, *id, *result = NULL, *o;
        const char *command, *error = "This QEMU fails on purpose";

        if (json_parse(line, length, &request) < 0 || json_get_string(request, "execute", &command) < 0) {
                machine_complain(m, "QEMU was sent what is no command: %.100s", line);
                return;
        }
        json_get_object(request, "arguments", &arguments);
        if (!machine_meets_fault(m, &m->qmp, command))
                result = carry_out(m, command, arguments, &error);
        o = fake_must(json_object_new_object());
        if (json_object_object_get_ex(request, "id", &id))
                json_object_object_add(o, "id", json_object_get(id));
        if (result)
                json_object_object_add(o, "return", result);
        else {
                struct json_object *e = fake_must(json_object_new_object());

                json_add_string(e, "class", "GenericError");
                json_add_string(e, "desc", error);
                json_add(o, "error", e);
        }
        send_object(m, o);
        machine_after(m, &m->qmp);
        guest_look(m);
}

/* --- the machine --- */

static void port_changes(struct machine *m, bool open)
{
        struct json_object *data = fake_must(json_object_new_object());

        m->port_open = open;
        json_add_string(data, "id", "guestd");
        json_add_bool(data, "open", open);
        machine_event(m, "VSERPORT_CHANGE", data);
}

static int on_booted(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct machine *m = userdata;

        m->boot_timer = sd_event_source_disable_unref(m->boot_timer);
        port_changes(m, true);
        guest_hello(m);
        return 0;
}

void machine_reset(struct machine *m)
{
        guest_session_end(m);
        m->boot++;
        m->prepared = ZONE_UNKNOWN;
        for (size_t i = 0; i < MACHINE_SLOTS; i++)
                if (m->dimms[i].used)
                        set_blocks(m, &m->dimms[i], (struct machine_block) { BLOCK_OFFLINE, ZONE_UNKNOWN });
        port_changes(m, false);
        machine_event(m, "RESET", parse("{\"guest\":true,\"reason\":\"guest-reset\"}"));
        if (sd_event_add_time_relative(
                    m->event, &m->boot_timer, CLOCK_MONOTONIC, BOOT_USEC, 1, on_booted, m) < 0)
                abort();
}

void machine_after(struct machine *m, struct machine_end *e)
{
        if (!m->resets)
                return;
        m->resets = false;
        machine_reset(m);
}

void machine_plug(struct machine *m, uint64_t bytes, bool online)
{
        char id[64], backend[64];
        static unsigned n = 100;
        enum zone prepared = m->prepared;

        snprintf(id, sizeof(id), "opendlpar-dimm-%u", n);
        snprintf(backend, sizeof(backend), "opendlpar-mem-%u", n++);
        m->prepared = online ? ZONE_MOVABLE : ZONE_UNKNOWN;
        if (add_backend(m, backend, bytes) || add_dimm(m, id, backend))
                abort();
        m->prepared = prepared;
}

void machine_add_orphan(struct machine *m)
{
        if (add_backend(m, "opendlpar-mem-99", GIB))
                abort();
}

uint64_t machine_plugged_bytes(const struct machine *m)
{
        uint64_t bytes = 0;

        for (size_t i = 0; i < MACHINE_SLOTS; i++)
                bytes += m->dimms[i].used ? m->dimms[i].bytes : 0;
        return bytes;
}

const char *machine_flaw(struct machine *m)
{
        m->flaw[0] = '\0';
        for (size_t i = 0; i < m->n_backends; i++)
                if (!find_dimm(m, NULL, m->backends[i].id))
                        snprintf(m->flaw, sizeof(m->flaw), "backend %s has no device", m->backends[i].id);
        for (size_t i = 0; i < BLOCKS_MAX; i++)
                if (m->blocks[i].state == BLOCK_OFFLINE)
                        snprintf(m->flaw, sizeof(m->flaw), "block memory%zu is offline", i);
        return m->flaw[0] ? m->flaw : NULL;
}

const char *machine_complaint(const struct machine *m)
{
        return m->complaint[0] ? m->complaint : NULL;
}

struct machine *machine_new(
        sd_event *event, const char *qmp_socket, const char *channel_socket, struct machine_plan *plan)
{
        struct machine *m = fake_must(calloc(1, sizeof(*m)));

        m->event = sd_event_ref(event);
        m->plan = plan ? plan : &m->no_plan;
        m->leaving = fake_must(json_object_new_array());
        if (sd_event_add_defer(event, &m->defer, on_defer, m) < 0)
                abort();
        sd_event_source_set_enabled(m->defer, SD_EVENT_OFF);
        guest_init(m);
        machine_end_init(m, &m->qmp, qmp_socket, 1024 * 1024, false, qmp_line);
        machine_end_init(m, &m->channel, channel_socket, PROTO_LINE_MAX, true, guest_line);
        return m;
}

struct machine *machine_free(struct machine *m)
{
        if (!m)
                return NULL;
        machine_end_done(&m->qmp);
        machine_end_done(&m->channel);
        guest_done(m);
        sd_event_source_disable_unref(m->boot_timer);
        sd_event_source_disable_unref(m->defer);
        json_object_put(m->leaving);
        sd_event_unref(m->event);
        free(m);
        return NULL;
}
