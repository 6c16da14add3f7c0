/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The connection to the bus, what the interfaces share, and the manager's news turned into signals. */

#include "hvd/bus/bus.h"

#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/bus/internal.h"

/* One signal serves what happens in this time. A timer: a guest that floods its channel keeps the loop from
 * ever being idle, and sets the rate of its jobs' progress. */
#define FLUSH_USEC (100 * USEC_PER_MSEC)

struct dirty {
        TAILQ_ENTRY(dirty) entry;
        char *path;
        const char *interface;
};

int bus_fail(sd_bus_error *e, const struct error *error)
{
        return sd_bus_error_set(e, error_code_dbus_name(error->code), error->message);
}

char *bus_partition_path(const struct partition *p)
{
        char *path = NULL;

        return sd_bus_path_encode(BUS_PARTITION_ROOT, p->definition.name, &path) < 0 ? NULL : path;
}

char *bus_job_path(const struct job *j)
{
        char *path = NULL;

        return asprintf(&path, BUS_JOB_ROOT "/%" PRIu32, j->id) < 0 ? NULL : path;
}

int bus_add_slot(struct bus *b, sd_bus_slot *slot)
{
        if (b->n_slots == ARRAY_SIZE(b->slots)) {
                sd_bus_slot_unref(slot);
                return -ENOBUFS;
        }
        b->slots[b->n_slots++] = slot;
        return 0;
}

/* --- options --- */

static int option_error(
        struct error *ret_error, const struct bus_option *options, size_t n_options, const char *key)
{
        char known[256] = "";

        for (size_t i = 0; i < n_options; i++) {
                size_t used = strlen(known);
                snprintf(known + used, sizeof(known) - used, "%s%s", i ? ", " : "", options[i].key);
        }
        return error_set(ret_error, ERROR_INVALID_ARGUMENT, "Option '%.40s' is not known here; there are %s",
                key, known);
}

static int read_option(
        sd_bus_message *m, struct bus_option *options, size_t n_options, struct error *ret_error)
{
        const char *key;
        int r = sd_bus_message_read_basic(m, 's', &key);
        if (r < 0)
                return error_set_errno(ret_error, ERROR_INVALID_ARGUMENT, r, "The options cannot be read");
        for (size_t i = 0; i < n_options; i++) {
                struct bus_option *o = &options[i];

                if (strcmp(o->key, key) != 0)
                        continue;
                if (o->seen)
                        return error_set(
                                ret_error, ERROR_INVALID_ARGUMENT, "Option '%s' is given twice", key);
                o->seen = true;
                if (sd_bus_message_enter_container(m, 'v', (char[2]) { o->type, '\0' }) < 0 ||
                        sd_bus_message_read_basic(m, o->type, o->target) < 0 ||
                        sd_bus_message_exit_container(m) < 0)
                        return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                                "Option '%s' must be of D-Bus type '%c'", key, o->type);
                return 0;
        }
        return option_error(ret_error, options, n_options, key);
}

int bus_read_options(sd_bus_message *m, struct bus_option *options, size_t n_options, struct error *ret_error)
{
        int r = sd_bus_message_enter_container(m, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                int k = read_option(m, options, n_options, ret_error);
                if (k < 0)
                        return k;
                r = sd_bus_message_exit_container(m);
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        return r < 0 ? error_set_errno(ret_error, ERROR_INVALID_ARGUMENT, r, "The options cannot be read")
                     : 0;
}

/* --- PropertiesChanged --- */

static void emit_changed(struct bus *b, const char *path, const char *interface)
{
        /* All of those that can change. */
        int r = sd_bus_emit_properties_changed_strv(b->bus, path, interface, NULL);
        if (r < 0)
                log_warning("PropertiesChanged of %s could not be sent: %s", path, strerrordesc_np(-r));
}

static int compare_dirty(const void *a, const void *b)
{
        const struct dirty *x = a, *y = b;

        return strcmp(x->path, y->path);
}

static void dirty_free(struct bus *b, struct dirty *d)
{
        TAILQ_REMOVE(&b->dirty, d, entry);
        tdelete(d, &b->dirty_by_path, compare_dirty);
        free(d->path);
        free(d);
}

static int on_flush(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct bus *b = userdata;
        struct dirty *d;

        while ((d = TAILQ_FIRST(&b->dirty))) {
                emit_changed(b, d->path, d->interface);
                dirty_free(b, d);
        }
        return 0;
}

static struct dirty *find_dirty(struct bus *b, char *path)
{
        struct dirty key = { .path = path };
        struct dirty *const *found = tfind(&key, &b->dirty_by_path, compare_dirty);

        return found ? *found : NULL;
}

void bus_mark_dirty(struct bus *b, char *path, const char *interface)
{
        _cleanup_free_ char *owned = path;

        if (!path || find_dirty(b, path))
                return;
        struct dirty *d = calloc(1, sizeof(*d));
        if (!d)
                return;
        d->path = owned;
        d->interface = interface;
        if (!tsearch(d, &b->dirty_by_path, compare_dirty)) {
                free(d);
                return;
        }
        steal_pointer(owned);
        TAILQ_INSERT_TAIL(&b->dirty, d, entry);
        if (TAILQ_FIRST(&b->dirty) != d || TAILQ_NEXT(d, entry))
                return; /* it is armed */
        sd_event_source_set_time_relative(b->flush, FLUSH_USEC);
        sd_event_source_set_enabled(b->flush, SD_EVENT_ONESHOT);
}

static void mark_clean(struct bus *b, char *path)
{
        struct dirty *d = find_dirty(b, path);

        if (d)
                dirty_free(b, d);
}

/* --- the manager's news --- */

static void on_partition_added(struct partition *p, void *userdata)
{
        struct bus *b = userdata;
        _cleanup_free_ char *path = bus_partition_path(p);

        if (path)
                sd_bus_emit_object_added(b->bus, path);
}

static void on_partition_removed(struct partition *p, void *userdata)
{
        struct bus *b = userdata;
        _cleanup_free_ char *path = bus_partition_path(p);

        bus_partition_forget(b, p);
        if (path) {
                mark_clean(b, path);
                sd_bus_emit_object_removed(b->bus, path);
        }
}

static void on_pool_changed(void *userdata)
{
        struct bus *b = userdata;

        bus_mark_dirty(b, strdup(BUS_ROOT), BUS_IFACE_MANAGER);
}

static void on_partition_changed(struct partition *p, void *userdata)
{
        bus_mark_dirty(userdata, bus_partition_path(p), BUS_IFACE_PARTITION);
}

static void on_job_added(struct job *j, void *userdata)
{
        struct bus *b = userdata;
        _cleanup_free_ char *path = bus_job_path(j);

        if (!path)
                return;
        sd_bus_emit_object_added(b->bus, path);
        sd_bus_emit_signal(b->bus, BUS_ROOT, BUS_IFACE_MANAGER, "JobNew", "uo", j->id, path);
        if (j->partition)
                on_partition_changed(j->partition, b);
        if (j->peer)
                on_partition_changed(j->peer, b);
}

static void on_job_changed(struct job *j, void *userdata)
{
        bus_mark_dirty(userdata, bus_job_path(j), BUS_IFACE_JOB);
}

static void on_job_ended(struct job *j, void *userdata)
{
        struct bus *b = userdata;
        _cleanup_free_ char *path = bus_job_path(j);

        if (!path)
                return;
        mark_clean(b, path);
        emit_changed(b, path, BUS_IFACE_JOB);
        sd_bus_emit_signal(b->bus, BUS_ROOT, BUS_IFACE_MANAGER, "JobRemoved", "uos", j->id, path,
                job_state_to_string(j->state));
        if (j->partition)
                on_partition_changed(j->partition, b);
        if (j->peer)
                on_partition_changed(j->peer, b);
}

static void on_job_forgotten(struct job *j, void *userdata)
{
        struct bus *b = userdata;
        _cleanup_free_ char *path = bus_job_path(j);

        if (path) {
                mark_clean(b, path);
                sd_bus_emit_object_removed(b->bus, path);
        }
}

static const struct manager_observer observer = {
        .partition_added = on_partition_added,
        .partition_removed = on_partition_removed,
        .partition_changed = on_partition_changed,
        .job_added = on_job_added,
        .job_changed = on_job_changed,
        .job_ended = on_job_ended,
        .job_forgotten = on_job_forgotten,
        .pool_changed = on_pool_changed,
        .policy_decided = bus_policy_decided,
};

/* --- life --- */

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct bus *b = userdata;

        log_error("The connection to the bus is lost");
        /* sd-bus has let go of its event loop by now (systemd 252). */
        return sd_event_exit(manager_event(b->manager), EXIT_FAILURE);
}

static int open_bus(const char *where, sd_bus **ret)
{
        sd_bus *bus = NULL;
        int r;

        if (strcmp(where, "system") == 0)
                return sd_bus_open_system(ret);
        if (strcmp(where, "session") == 0)
                return sd_bus_open_user(ret);
        r = sd_bus_new(&bus);
        if (r >= 0)
                r = sd_bus_set_address(bus, where);
        if (r >= 0)
                r = sd_bus_set_bus_client(bus, true);
        if (r >= 0)
                r = sd_bus_start(bus);
        if (r < 0) {
                sd_bus_unref(bus);
                return r;
        }
        *ret = bus;
        return 0;
}

struct bus *bus_free(struct bus *b)
{
        if (!b)
                return NULL;
        manager_set_observer(b->manager, NULL, NULL);
        bus_surveys_free(b);
        bus_domain_calls_free(b);
        bus_reserves_free(b);
        while (!TAILQ_EMPTY(&b->dirty))
                dirty_free(b, TAILQ_FIRST(&b->dirty));
        for (size_t i = 0; i < b->n_slots; i++)
                sd_bus_slot_unref(b->slots[i]);
        polkit_free(b->polkit);
        sd_event_source_disable_unref(b->flush);
        if (b->bus)
                sd_bus_flush_close_unref(b->bus);
        free(b);
        return NULL;
}

static int set_up(struct bus *b, sd_event *event)
{
        sd_bus_slot *slot;
        int r = sd_event_add_time(event, &b->flush, CLOCK_MONOTONIC, 0, 0, on_flush, b);
        if (r < 0)
                return r;
        sd_event_source_set_enabled(b->flush, SD_EVENT_OFF);

        r = polkit_new(b->bus, &b->polkit);
        if (r >= 0)
                r = sd_bus_add_object_manager(b->bus, &slot, BUS_ROOT);
        if (r >= 0)
                r = bus_add_slot(b, slot);
        if (r >= 0)
                r = bus_manager_register(b);
        if (r >= 0)
                r = bus_partition_register(b);
        if (r >= 0)
                r = bus_job_register(b);
        if (r >= 0)
                r = sd_bus_match_signal(b->bus, &slot, "org.freedesktop.DBus.Local",
                        "/org/freedesktop/DBus/Local", "org.freedesktop.DBus.Local", "Disconnected",
                        on_disconnected, b);
        if (r >= 0)
                r = bus_add_slot(b, slot);
        if (r >= 0)
                /* As the guests' and QEMU's sources: anyone may call, and callers must not starve them, nor
                 * they us. */
                r = sd_bus_attach_event(b->bus, event, SD_EVENT_PRIORITY_NORMAL + 10);
        return r;
}

int bus_new(sd_event *event, const char *where, struct manager *manager, struct bus **ret,
        struct error *ret_error)
{
        struct bus *b = calloc(1, sizeof(*b));
        if (!b)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        b->manager = manager;
        TAILQ_INIT(&b->dirty);
        TAILQ_INIT(&b->surveys);
        TAILQ_INIT(&b->domain_calls);
        TAILQ_INIT(&b->reserves);

        int r = open_bus(where, &b->bus);
        if (r < 0) {
                error_set_errno(ret_error, ERROR_INTERNAL, r, "The bus '%s' is out of reach", where);
                bus_free(b);
                return r;
        }
        r = set_up(b, event);
        if (r < 0) {
                error_set_errno(ret_error, ERROR_INTERNAL, r, "The bus objects could not be set up");
                bus_free(b);
                return r;
        }
        manager_set_observer(manager, &observer, b);
        r = sd_bus_request_name(b->bus, BUS_NAME, 0);
        if (r < 0) {
                error_set_errno(ret_error, ERROR_INTERNAL, r,
                        r == -EEXIST ? "The name %s is taken: is another hvd running on this bus?"
                                     : "The name %s was not given",
                        BUS_NAME);
                bus_free(b);
                return r;
        }
        *ret = b;
        return 0;
}
