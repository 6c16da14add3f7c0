/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The table of everything that can go wrong. A code has one name in JSON and on the guest channel, one on the
 * bus, and one errno for C callers; adding a code means adding a row here and nowhere else. */

#include "common/error.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/text.h"

#define BUS "org.opendlpar.hvd1.Error."

static const struct {
        const char *name;
        const char *dbus_name;
        int errnum;
} error_table[ERROR_CODE_MAX] = {
        [ERROR_NONE] = { "none", BUS "None", 0 },
        [ERROR_INVALID_ARGUMENT] = { "invalid-argument", BUS "InvalidArgument", EINVAL },
        [ERROR_INVALID_SIZE] = { "invalid-size", BUS "InvalidSize", EINVAL },
        [ERROR_UNALIGNED_SIZE] = { "unaligned-size", BUS "UnalignedSize", EINVAL },
        [ERROR_BEYOND_MAX] = { "beyond-max", BUS "BeyondMax", ENOSPC },
        [ERROR_NO_SLOTS] = { "no-slots", BUS "NoSlots", ENOSPC },
        [ERROR_SLOT_RULE] = { "slot-rule", BUS "SlotRule", ENOSPC },
        [ERROR_NO_HOTPLUG] = { "no-hotplug", BUS "NoHotplug", EOPNOTSUPP },
        [ERROR_NOT_PLUGGED] = { "not-plugged", BUS "NotPlugged", ERANGE },
        [ERROR_NO_EXACT_FIT] = { "no-exact-fit", BUS "NoExactFit", ERANGE },
        [ERROR_UNKNOWN_PARTITION] = { "unknown-partition", BUS "UnknownPartition", ENOENT },
        [ERROR_PARTITION_EXISTS] = { "partition-exists", BUS "PartitionExists", EEXIST },
        [ERROR_UNKNOWN_DEVICE] = { "unknown-device", BUS "UnknownDevice", ENODEV },
        [ERROR_UNKNOWN_METHOD] = { "unknown-method", BUS "UnknownMethod", EOPNOTSUPP },
        [ERROR_UNKNOWN_NODE] = { "unknown-node", BUS "UnknownNode", ENXIO },
        [ERROR_UNKNOWN_JOB] = { "unknown-job", BUS "UnknownJob", ENOENT },
        [ERROR_POOL_EXHAUSTED] = { "pool-exhausted", BUS "PoolExhausted", ENOSPC },
        [ERROR_BUSY] = { "busy", BUS "Busy", EBUSY },
        [ERROR_LIMIT] = { "limit", BUS "Limit", EMSGSIZE },
        [ERROR_CONFIG] = { "config", BUS "Config", EINVAL },
        [ERROR_DENIED] = { "denied", BUS "Denied", EPERM },
        [ERROR_AGENT_ABSENT] = { "agent-absent", BUS "AgentAbsent", ENOTCONN },
        [ERROR_AGENT_SILENT] = { "agent-silent", BUS "AgentSilent", ETIMEDOUT },
        [ERROR_AGENT_TOO_OLD] = { "agent-too-old", BUS "AgentTooOld", EPROTONOSUPPORT },
        [ERROR_AGENT_MISBEHAVED] = { "agent-misbehaved", BUS "AgentMisbehaved", EPROTO },
        [ERROR_AGENT_RESTARTED] = { "agent-restarted", BUS "AgentRestarted", ECONNRESET },
        [ERROR_GUEST_RESET] = { "guest-reset", BUS "GuestReset", ECONNRESET },
        [ERROR_NO_HEADROOM] = { "no-headroom", BUS "NoHeadroom", ENOMEM },
        [ERROR_BLOCK_BUSY] = { "block-busy", BUS "BlockBusy", EBUSY },
        [ERROR_BLOCK_UNREMOVABLE] = { "block-unremovable", BUS "BlockUnremovable", EPERM },
        [ERROR_BLOCK_MISSING] = { "block-missing", BUS "BlockMissing", ENOENT },
        [ERROR_BLOCK_FAILED] = { "block-failed", BUS "BlockFailed", EIO },
        [ERROR_ZONE_MISMATCH] = { "zone-mismatch", BUS "ZoneMismatch", EINVAL },
        [ERROR_ZONE_RATIO] = { "zone-ratio", BUS "ZoneRatio", ERANGE },
        [ERROR_HOOK_REFUSED] = { "hook-refused", BUS "HookRefused", EPERM },
        [ERROR_HOOK_FAILED] = { "hook-failed", BUS "HookFailed", EIO },
        [ERROR_HOOK_SKIPPED] = { "hook-skipped", BUS "HookSkipped", ENOEXEC },
        [ERROR_HYPERVISOR_ABSENT] = { "hypervisor-absent", BUS "HypervisorAbsent", ENOTCONN },
        [ERROR_HYPERVISOR_REFUSED] = { "hypervisor-refused", BUS "HypervisorRefused", EIO },
        [ERROR_HYPERVISOR_SILENT] = { "hypervisor-silent", BUS "HypervisorSilent", ETIMEDOUT },
        [ERROR_HYPERVISOR_MISBEHAVED] = { "hypervisor-misbehaved", BUS "HypervisorMisbehaved", EPROTO },
        [ERROR_NOT_RUNNING] = { "not-running", BUS "NotRunning", EAGAIN },
        [ERROR_UNPLUG_PENDING] = { "unplug-pending", BUS "UnplugPending", EINPROGRESS },
        [ERROR_UNPLUG_REFUSED] = { "unplug-refused", BUS "UnplugRefused", EBUSY },
        [ERROR_CANCELLED] = { "cancelled", BUS "Cancelled", ECANCELED },
        [ERROR_DEADLINE] = { "deadline", BUS "Deadline", ETIME },
        [ERROR_INTERRUPTED] = { "interrupted", BUS "Interrupted", EINTR },
        [ERROR_ACCOUNTS_DIFFER] = { "accounts-differ", BUS "AccountsDiffer", EBADE },
        [ERROR_INTERNAL] = { "internal", BUS "Internal", EIO },
};

static void error_fill(struct error *ret_error, enum error_code code, const char *format, va_list ap)
{
        ret_error->code = code;
        /* The caller's format was checked by the attribute on the public functions. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        vsnprintf(ret_error->message, sizeof(ret_error->message), format, ap);
#pragma GCC diagnostic pop
        /* "%.40s" of a stranger's text may end inside a character. */
        text_clean(ret_error->message, sizeof(ret_error->message), ret_error->message);
}

int error_set(struct error *ret_error, enum error_code code, const char *format, ...)
{
        assert(code > ERROR_NONE && code < ERROR_CODE_MAX);

        if (ret_error) {
                va_list ap;
                va_start(ap, format);
                error_fill(ret_error, code, format, ap);
                va_end(ap);
        }
        return -error_table[code].errnum;
}

int error_set_errno(struct error *ret_error, enum error_code code, int errnum, const char *format, ...)
{
        errnum = abs(errnum);
        if (ret_error) {
                va_list ap;
                va_start(ap, format);
                error_fill(ret_error, code, format, ap);
                va_end(ap);

                size_t used = strlen(ret_error->message);
                snprintf(ret_error->message + used, sizeof(ret_error->message) - used, ": %s",
                        strerrordesc_np(errnum) ?: "unknown error");
        }
        return errnum ? -errnum : -EIO;
}

const char *error_code_name(enum error_code code)
{
        return code >= 0 && code < ERROR_CODE_MAX ? error_table[code].name : "internal";
}

const char *error_code_dbus_name(enum error_code code)
{
        return code >= 0 && code < ERROR_CODE_MAX ? error_table[code].dbus_name : BUS "Internal";
}

enum error_code error_code_from_name(const char *name)
{
        for (int i = 0; name && i < ERROR_CODE_MAX; i++)
                if (strcmp(error_table[i].name, name) == 0)
                        return i;
        return ERROR_CODE_INVALID;
}

enum error_code error_code_from_dbus_name(const char *name)
{
        for (int i = 0; name && i < ERROR_CODE_MAX; i++)
                if (strcmp(error_table[i].dbus_name, name) == 0)
                        return i;
        return ERROR_CODE_INVALID;
}
