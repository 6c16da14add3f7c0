/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* For builds without libvirt (OPENDLPAR_LIBVIRT=OFF): there is no connection, and so nothing to ask it. */

#include "hvd/platform/libvirt.h"

int libvirt_connection_new(sd_event *event, const char *uri, const struct libvirt_observer *observer,
        void *userdata, struct libvirt_connection **ret)
{
        return -EOPNOTSUPP;
}

struct libvirt_connection *libvirt_connection_free(struct libvirt_connection *c)
{
        return NULL;
}

int platform_libvirt_new(struct libvirt_connection *c, const char *uuid,
        const struct platform_handlers *handlers, void *userdata, struct platform **ret)
{
        return -EOPNOTSUPP;
}

static int refuse(struct error *ret_error)
{
        return error_set(ret_error, ERROR_HYPERVISOR_ABSENT, "This hvd was built without libvirt");
}

int libvirt_enroll(struct libvirt_connection *c, const char *name, uint64_t max_bytes, unsigned slots,
        libvirt_text_t done, void *userdata, struct libvirt_call **ret, struct error *ret_error)
{
        return refuse(ret_error);
}

int libvirt_set_profile(struct libvirt_connection *c, const char *uuid,
        const struct partition_profile *profile, libvirt_text_t done, void *userdata,
        struct libvirt_call **ret, struct error *ret_error)
{
        return refuse(ret_error);
}

struct libvirt_call *libvirt_call_free(struct libvirt_call *call)
{
        return NULL;
}
