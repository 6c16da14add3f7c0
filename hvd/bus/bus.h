/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <systemd/sd-event.h>

#include "common/error.h"
#include "hvd/manager.h"

/* The D-Bus API (docs/dbus.md): hvd's face towards operators. Observes the manager; owns no state of its own
 * but calls that await an answer. */
struct bus;

#define BUS_NAME            "org.opendlpar.hvd1"
#define BUS_ROOT            "/org/opendlpar/hvd1"
#define BUS_PARTITION_ROOT  BUS_ROOT "/partition"
#define BUS_JOB_ROOT        BUS_ROOT "/job"
#define BUS_IFACE_MANAGER   "org.opendlpar.hvd1.Manager"
#define BUS_IFACE_PARTITION "org.opendlpar.hvd1.Partition"
#define BUS_IFACE_JOB       "org.opendlpar.hvd1.Job"

/* where: "system", "session" or a D-Bus address. Connects and takes the name; blocks for that. When the
 * connection is lost the event loop exits with EXIT_FAILURE: the service manager starts hvd again with the
 * bus. */
int bus_new(sd_event *event, const char *where, struct manager *manager, struct bus **ret,
        struct error *ret_error);
struct bus *bus_free(struct bus *b);
