/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "hvd/config.h"
#include "hvd/platform/platform.h"

/* libvirt's XML of domains and devices: pure, text in and text out, without a libvirt. Nothing of it is
 * resolved or fetched: a document with a DTD is refused. */

#define DOMAIN_NAME_MAX     127U
#define DOMAIN_CHANNEL      "org.opendlpar.guestd.0"
#define DOMAIN_METADATA_URI "http://opendlpar.org/xmlns/domain/1"
/* libvirt wants names that others chose to begin so. What we plug is called PLATFORM_DEVICE_PREFIX "N" in hvd
 * and "ua-" PLATFORM_DEVICE_PREFIX "N" in libvirt and QEMU. */
#define DOMAIN_ALIAS_PREFIX "ua-"

/* One domain, running or defined. */
struct domain_account {
        char name[DOMAIN_NAME_MAX + 1]; /* cut if longer */
        int id; /* another one at each start; -1: it is not running, and this is its definition */
        bool has_channel;
        char channel_path[SOCKET_PATH_MAX + 1]; /* of a running one; another at each start */
        char channel_alias[PLATFORM_ID_MAX];
        bool channel_open;  /* by libvirt's word, the guest has it open */
        bool has_hotplug;   /* maxMemory, and a NUMA cell where the machine wants one */
        bool needs_cell;    /* it is that which is missing */
        uint64_t stats_sec; /* how often the balloon's statistics are renewed; 0: never */
        struct partition_profile profile;
        struct error profile_error; /* the metadata is not usable; the profile is as without it */
        /* All but the state; the plugged memory of virtio-mem by what it has now. A device's memdev is its
         * alias. */
        struct platform_snapshot snapshot;
};
void domain_account_done(struct domain_account *a);

/* Reads a domain's XML, as virDomainGetXMLDesc() or a hook's standard input has it. -EBADMSG with a sentence
 * (HYPERVISOR_MISBEHAVED) if it is no XML or no domain. */
int domain_account_parse(const char *xml, struct domain_account *ret, struct error *ret_error);

/* What a domain has to have to be a partition, or to grow, and has not: a sentence with the XML to add.
 * False: nothing is missing. */
bool domain_account_lacks(const struct domain_account *a, size_t size, char *ret);

/* hvd's name of a device for libvirt's alias, and back. A name that QEMU has and libvirt does not (see
 * libvirt.c) cannot be used again while the domain runs: then the alias is that of its next life, and the id
 * stays the same. */
void domain_alias_to_id(const char *alias, char ret[static PLATFORM_ID_MAX]);
void domain_id_to_alias(const char *id, unsigned life, char ret[static PLATFORM_ID_MAX + 3]);

/* The device element of a new DIMM; node -1: none is named. Allocated; NULL: out of memory. */
char *domain_dimm_xml(const char *alias, uint64_t size_bytes, int node);
/* The element of a domain's virtio-mem device with another wish in it, and all else as it is: allocated, or
 * NULL with a reason. */
char *domain_resize_xml(
        const char *xml, const char *alias, uint64_t requested_bytes, struct error *ret_error);
/* The profile's element for our namespace, without what is not set. Allocated. */
char *domain_profile_xml(const struct partition_profile *profile);

/* Adds what is missing to a definition: the channel; maxMemory (max_bytes, 0: four times the memory; slots,
 * 0: 16); a NUMA cell with all memory and all processors. *ret is allocated, and *ret_what says what was
 * added; *ret NULL if nothing was missing. A max that is given replaces the one that is there. */
int domain_enroll_xml(const char *xml, uint64_t max_bytes, unsigned slots, char **ret, struct error *ret_what,
        struct error *ret_error);
