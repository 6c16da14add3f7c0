/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "hvd/platform/libvirt-xml.h"
#include "hvd/platform/platform.h"

/* One connection to a libvirt, shared by all of its domains: keeps itself connected, knows the domains and
 * follows what happens to them. Nothing here blocks: every call to libvirt is a worker's. */
struct libvirt_connection;

/* A domain at one moment, borrowed for the call. */
struct libvirt_domain {
        const char *uuid;
        bool is_active;
        const struct domain_account *account;
};

struct libvirt_observer {
        /* A domain was looked at: it is new, or something changed, or nothing did. */
        void (*on_domain)(const struct libvirt_domain *d, void *userdata);
        /* There is no such domain any more. */
        void (*on_gone)(const char *uuid, void *userdata);
        /* up: connected, and the domains follow. Not up: why; told once until it changes. Platforms of its
         * domains learn of it only when it lasts (LIBVIRT_GRACE_USEC). */
        void (*on_connection)(bool up, const struct error *error, void *userdata);
};

/* What a libvirtd that restarts may take before its domains count as out of reach. */
#define LIBVIRT_GRACE_USEC (20 * 1000000ULL)

/* uri: as libvirt has it, or "" for libvirt's own choice. -EOPNOTSUPP: built without libvirt. One at a time
 * in a process, as libvirt has one event loop. */
int libvirt_connection_new(sd_event *event, const char *uri, const struct libvirt_observer *observer,
        void *userdata, struct libvirt_connection **ret);
/* Its platforms must have gone before. What was asked of it and is not answered yet fails first
 * (HYPERVISOR_ABSENT). */
struct libvirt_connection *libvirt_connection_free(struct libvirt_connection *c);

/* A domain's platform. It is up while the domain runs. */
int platform_libvirt_new(struct libvirt_connection *c, const char *uuid,
        const struct platform_handlers *handlers, void *userdata, struct platform **ret);

/* Adds what is missing to a domain's persistent definition (domain_enroll_xml()); text says what was done.
 * UNKNOWN_PARTITION: there is no such domain; HYPERVISOR_ABSENT: no libvirt. The reply comes exactly once,
 * unless the handle is freed before. */
struct libvirt_call;
typedef void (*libvirt_text_t)(const char *text, const struct error *error, void *userdata);
int libvirt_enroll(struct libvirt_connection *c, const char *name, uint64_t max_bytes, unsigned slots,
        libvirt_text_t done, void *userdata, struct libvirt_call **ret, struct error *ret_error);
/* Writes a profile into a domain's metadata, of the running and of the persistent domain; the same. */
int libvirt_set_profile(struct libvirt_connection *c, const char *uuid,
        const struct partition_profile *profile, libvirt_text_t done, void *userdata,
        struct libvirt_call **ret, struct error *ret_error);
struct libvirt_call *libvirt_call_free(struct libvirt_call *call);
