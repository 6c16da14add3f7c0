/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <systemd/sd-bus.h>

/* Who may call what changes anything. Callers other than root and hvd's own user are asked for at polkit;
 * nothing here blocks. */
struct polkit;

/* Begins to look at every call on the bus, which must outlive it. */
int polkit_new(sd_bus *bus, struct polkit **ret);
/* Calls that await an answer are dropped without one. To be called after the vtables' slots are gone. */
struct polkit *polkit_free(struct polkit *p);

/* The vtable in the form in which sd-bus is to have it: what is not marked SD_BUS_VTABLE_UNPRIVILEGED is
 * checked here from now on, and no longer by sd-bus, which knows root alone. A vtable that did not go through
 * here stays root's. Owned by p; NULL when out of memory. */
const sd_bus_vtable *polkit_guard(struct polkit *p, const char *interface, const sd_bus_vtable *vtable);
