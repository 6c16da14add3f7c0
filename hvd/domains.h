/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <systemd/sd-event.h>

#include "hvd/manager.h"
#include "hvd/platform/libvirt.h"

/* libvirt's domains as partitions: finds them, defines and drops their partitions, and knows what the others
 * lack. One connection, as the configuration says. */
struct domains;

int domains_new(sd_event *event, struct manager *m, struct domains **ret);
/* After the manager, whose partitions stand on it. */
struct domains *domains_free(struct domains *d);
/* After another configuration: connects, disconnects, or nothing. */
void domains_configure(struct domains *d);

/* The connection; NULL: libvirt is not served. */
struct libvirt_connection *domains_connection(struct domains *d);
/* Why nothing can be asked of libvirt, or 0. */
int domains_check(struct domains *d, struct error *ret_error);

/* Has a profile written into the domain's metadata, as libvirt_set_profile() does: when that is done without
 * an error the caller says so by domains_profile_written(), and need not wait until the domain was looked at.
 * INVALID_ARGUMENT: the profile is none; NOT_RUNNING: it is being migrated. */
int domains_set_profile(struct domains *d, struct partition *p, const struct partition_profile *profile,
        libvirt_text_t done, void *userdata, struct libvirt_call **ret, struct error *ret_error);
/* The partition of that domain, if there is one still, has the profile now. */
void domains_profile_written(struct domains *d, const char *uuid, const struct partition_profile *profile);

/* The domains that lack something, to be partitions or to be moved, by name: NULL begins, NULL ends. */
struct lacking;
const struct lacking *domains_next_lacking(struct domains *d, const struct lacking *after);
const char *lacking_name(const struct lacking *l);
const char *lacking_what(const struct lacking *l);
