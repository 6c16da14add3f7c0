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

/* Has a profile written into the domain's metadata. When libvirt has answered, and the partition, if there is
 * one still, has the profile, or has not, done is called; exactly once, unless the handle is freed before,
 * which leaves the writing to run out. INVALID_ARGUMENT: the profile is none; NOT_RUNNING: it is being
 * migrated. */
struct profile_write;
typedef void (*profile_written_t)(const struct error *error, void *userdata);
int domains_set_profile(struct domains *d, struct partition *p, const struct partition_profile *profile,
        profile_written_t done, void *userdata, struct profile_write **ret, struct error *ret_error);
struct profile_write *profile_write_free(struct profile_write *w);

/* The domains that lack something, to be partitions or to be moved, by name: NULL begins, NULL ends. */
struct lacking;
const struct lacking *domains_next_lacking(struct domains *d, const struct lacking *after);
const char *lacking_name(const struct lacking *l);
const char *lacking_what(const struct lacking *l);
