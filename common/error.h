/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include "common/cleanup.h"

/* What can go wrong, as operators and scripts see it. The names are stable: they cross the guest channel, the
 * bus (as org.opendlpar.hvd1.Error.*) and JSON. One table in error.c maps them all. */
enum error_code {
        ERROR_NONE,
        /* the request */
        ERROR_INVALID_ARGUMENT,
        ERROR_INVALID_SIZE,
        ERROR_UNALIGNED_SIZE,
        ERROR_BEYOND_MAX,
        ERROR_NO_SLOTS,
        ERROR_SLOT_RULE,
        ERROR_NO_HOTPLUG,
        ERROR_NOT_PLUGGED,
        ERROR_NO_EXACT_FIT,
        ERROR_UNKNOWN_PARTITION,
        ERROR_PARTITION_EXISTS,
        ERROR_UNKNOWN_DEVICE,
        ERROR_UNKNOWN_METHOD,
        ERROR_UNKNOWN_NODE,
        ERROR_UNKNOWN_JOB,
        ERROR_POOL_EXHAUSTED,
        ERROR_BUSY,
        ERROR_LIMIT,
        ERROR_CONFIG,
        ERROR_DENIED,
        /* the guest */
        ERROR_AGENT_ABSENT,
        ERROR_AGENT_SILENT,
        ERROR_AGENT_TOO_OLD,
        ERROR_AGENT_MISBEHAVED,
        ERROR_AGENT_RESTARTED,
        ERROR_GUEST_RESET,
        ERROR_NO_HEADROOM,
        ERROR_BLOCK_BUSY,
        ERROR_BLOCK_UNREMOVABLE,
        ERROR_BLOCK_MISSING,
        ERROR_BLOCK_FAILED,
        ERROR_ZONE_MISMATCH,
        ERROR_ZONE_RATIO,
        ERROR_HOOK_REFUSED,
        ERROR_HOOK_FAILED,
        ERROR_HOOK_SKIPPED,
        /* the hypervisor */
        ERROR_HYPERVISOR_ABSENT,
        ERROR_HYPERVISOR_REFUSED,
        ERROR_HYPERVISOR_SILENT,
        ERROR_HYPERVISOR_MISBEHAVED,
        ERROR_NOT_RUNNING,
        ERROR_UNPLUG_PENDING,
        ERROR_UNPLUG_REFUSED,
        /* the job */
        ERROR_CANCELLED,
        ERROR_DEADLINE,
        ERROR_INTERRUPTED,
        ERROR_ACCOUNTS_DIFFER,
        ERROR_INTERNAL,
        ERROR_CODE_MAX,
        ERROR_CODE_INVALID = -1,
};

#define ERROR_MESSAGE_MAX 512

/* The one object in which text for people crosses layers: a stable code and a sentence. Holds no memory. */
struct error {
        enum error_code code;
        char message[ERROR_MESSAGE_MAX];
};

/* Sets *ret_error (NULL is allowed) and returns the code's -errno, so that callers can `return
 * error_set(...)`. An overlong message is cut. */
int error_set(struct error *ret_error, enum error_code code, const char *format, ...) _printf_(3, 4);

/* The same, with ": <strerror>" appended for a positive or negative errno; returns -errno. */
int error_set_errno(struct error *ret_error, enum error_code code, int errnum, const char *format, ...)
        _printf_(4, 5);

/* "no-headroom"; never NULL. */
const char *error_code_name(enum error_code code);
/* ERROR_CODE_INVALID if unknown. */
enum error_code error_code_from_name(const char *name);
/* "org.opendlpar.hvd1.Error.NoHeadroom"; never NULL. */
const char *error_code_dbus_name(enum error_code code);
enum error_code error_code_from_dbus_name(const char *name);
