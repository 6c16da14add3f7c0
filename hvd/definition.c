/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a definition of a partition has to be, whether it came from a file or from the bus. */

#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/config.h"

bool partition_name_valid(const char *name)
{
        static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

        if (!name || name[0] == '\0' || name[0] == '.' || name[0] == '-')
                return false;
        size_t length = strspn(name, allowed);
        return name[length] == '\0' && length <= PARTITION_NAME_MAX;
}

int partition_socket_parse(const char *value, char ret[static SOCKET_PATH_MAX + 1], struct error *ret_error)
{
        size_t length = strlen(value);

        if (value[0] != '/')
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Socket path '%.120s' is not absolute; write it from the root, as in "
                        "/run/vm/web1.qmp",
                        value);
        if (length > SOCKET_PATH_MAX)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Socket path '%.40s...' has %zu bytes; a UNIX socket's has at most %u", value, length,
                        SOCKET_PATH_MAX);
        for (const char *p = value; *p; p++)
                if ((unsigned char)*p < 0x20 || *p == 0x7f)
                        return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                                "Socket path holds a control character; write a plain path");
        memcpy(ret, value, length + 1);
        return 0;
}

int partition_profile_check(const struct partition_profile *p, struct error *ret_error)
{
        if (p->weight < 1 || p->weight > PARTITION_WEIGHT_MAX)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Weight %u is out of range; write 1 to %u", p->weight, PARTITION_WEIGHT_MAX);

        const struct {
                const char *low_name, *high_name;
                uint64_t low, high;
        } pairs[] = {
                { "min", "desired", p->min_bytes, p->desired_bytes },
                { "desired", "max", p->desired_bytes, p->max_bytes },
                { "min", "max", p->min_bytes, p->max_bytes },
        };
        for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
                if (pairs[i].low > 0 && pairs[i].high > 0 && pairs[i].low > pairs[i].high)
                        return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                                "%s (%s) is above %s (%s); make %s at most %s", pairs[i].low_name,
                                SIZE_EXACT(pairs[i].low), pairs[i].high_name, SIZE_EXACT(pairs[i].high),
                                pairs[i].low_name, SIZE_EXACT(pairs[i].high));
        return 0;
}

int partition_definition_check(const struct partition_definition *d, struct error *ret_error)
{
        if (!partition_name_valid(d->name))
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Partition name '%.64s' is not valid; use 1 to %u of A-Z a-z 0-9 . _ - and begin "
                        "with "
                        "neither . nor -",
                        d->name, PARTITION_NAME_MAX);
        if (d->domain[0]) /* libvirt knows the sockets */
                return partition_profile_check(&d->profile, ret_error);
        if (d->qmp_path[0] != '/' || d->channel_path[0] != '/')
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Partition %s has no %s socket; give its absolute path", d->name,
                        d->qmp_path[0] != '/' ? "QMP" : "channel");
        if (strcmp(d->qmp_path, d->channel_path) == 0)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "QMP and channel of %s are the same socket, %s; they are two chardevs of QEMU",
                        d->name, d->qmp_path);
        return partition_profile_check(&d->profile, ret_error);
}
