/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every property of every object of a kind, as a table: the properties' names once, then a row for each
 * object.
 *
 * GetManagedObjects says the same, but looks each object up several times and puts each value into a variant
 * behind its name, which the bus and the caller have to take apart again (systemd 252; docs/decisions.md). */

#include <stdio.h>
#include <string.h>

#include "hvd/bus/internal.h"

static bool is_property(const sd_bus_vtable *v)
{
        return v->type == _SD_BUS_VTABLE_PROPERTY || v->type == _SD_BUS_VTABLE_WRITABLE_PROPERTY;
}

int bus_table_open(struct bus_table *t, sd_bus_message *reply, const sd_bus_vtable *vtable)
{
        size_t used = 0;
        int r = sd_bus_message_open_container(reply, 'a', "s");

        *t = (struct bus_table) { .reply = reply, .vtable = vtable };
        for (const sd_bus_vtable *v = vtable; r >= 0 && v->type != _SD_BUS_VTABLE_END; v++) {
                if (!is_property(v))
                        continue;
                size_t length = strlen(v->x.property.signature);

                if (used + length + sizeof("()") > sizeof(t->row))
                        return -ENOBUFS;
                memcpy(t->row + used, v->x.property.signature, length + 1);
                used += length;
                r = sd_bus_message_append_basic(reply, 's', v->x.property.member);
        }
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (r < 0)
                return r;

        char contents[sizeof(t->row) + 2];
        snprintf(contents, sizeof(contents), "(%s)", t->row);
        return sd_bus_message_open_container(reply, 'a', contents);
}

static int append_property(const struct bus_table *t, const sd_bus_vtable *v, const char *interface,
        void *object, sd_bus_error *e)
{
        const char *name = v->x.property.member;

        if (v->x.property.get)
                return v->x.property.get(
                        sd_bus_message_get_bus(t->reply), "", interface, name, t->reply, object, e);
        return sd_bus_message_append_basic(
                t->reply, *v->x.property.signature, (const char *)object + v->x.property.offset);
}

int bus_table_append(const struct bus_table *t, const char *interface, void *object, sd_bus_error *e)
{
        int r = sd_bus_message_open_container(t->reply, 'r', t->row);

        for (const sd_bus_vtable *v = t->vtable; r >= 0 && v->type != _SD_BUS_VTABLE_END; v++)
                if (is_property(v))
                        r = append_property(t, v, interface, object, e);
        return r < 0 ? r : sd_bus_message_close_container(t->reply);
}

int bus_table_send(const struct bus_table *t)
{
        int r = sd_bus_message_close_container(t->reply);

        return r < 0 ? r : sd_bus_send(NULL, t->reply, NULL);
}
