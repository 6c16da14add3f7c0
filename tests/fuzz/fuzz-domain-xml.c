/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A domain's XML, as libvirt has it and whoever may define domains wrote parts of it: the input is the whole
 * document, or behind a first "m" what is in <metadata>, or behind "a" the attributes of our profile there.
 * What is taken is within limits, and what is made of it can be read again. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/platform/libvirt-xml.h"
#include "proto/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DOMAIN(metadata)                                                                                     \
        "<domain id='3'><name>web1</name><metadata>" metadata "</metadata>"                                  \
        "<memory>1048576</memory></domain>"

static void require(bool condition)
{
        if (!condition)
                abort();
}

static void check_profile(const struct domain_account *a)
{
        _cleanup_free_ char *element = domain_profile_xml(&a->profile), *document = NULL;
        struct domain_account again;

        require(partition_profile_check(&a->profile, NULL) == 0);
        /* libvirt gives it its namespace. */
        require(element && strncmp(element, "<profile ", 9) == 0);
        require(asprintf(&document, DOMAIN("<profile xmlns='" DOMAIN_METADATA_URI "' %s"), element + 9) > 0);
        require(domain_account_parse(document, &again, NULL) == 0);
        require(again.profile_error.code == ERROR_NONE);
        require(again.profile.min_bytes == a->profile.min_bytes &&
                again.profile.desired_bytes == a->profile.desired_bytes &&
                again.profile.max_bytes == a->profile.max_bytes && again.profile.weight == a->profile.weight);
        domain_account_done(&again);
}

static void check_devices(const char *xml, const struct domain_account *a)
{
        const struct platform_snapshot *s = &a->snapshot;

        require(s->n_devices <= PLATFORM_DEVICES_MAX && s->n_nodes <= PLATFORM_NODES_MAX);
        require(s->base_bytes <= PROTO_ADDRESS_MAX && s->plugged_bytes <= PROTO_ADDRESS_MAX);
        for (size_t i = 0; i < s->n_devices; i++) {
                const struct platform_device *d = &s->devices[i];

                require(memchr(d->id, '\0', sizeof(d->id)) && memchr(d->memdev, '\0', sizeof(d->memdev)));
                if (d->is_dimm || i > 0)
                        continue;
                struct error error = { 0 };
                _cleanup_free_ char *element = domain_resize_xml(xml, d->memdev, GIB, &error);
                require(element || error.code != ERROR_NONE);
        }
}

/* A definition that was given what it lacked lacks nothing. */
static void check_enrolled(const char *xml)
{
        _cleanup_free_ char *enrolled = NULL, *again = NULL;
        struct error error = { 0 }, what;

        if (domain_enroll_xml(xml, 0, 0, &enrolled, &what, &error) < 0) {
                require(error.code != ERROR_NONE);
                return;
        }
        if (!enrolled)
                return;
        require(what.message[0] != '\0');
        require(domain_enroll_xml(enrolled, 0, 0, &again, &what, NULL) == 0 && !again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *xml = NULL;
        const char *format = "%.*s";
        struct domain_account a;
        struct error error = { 0 };
        int length = (int)size;

        if (size > 0 && data[0] == 'm')
                format = DOMAIN("%.*s");
        else if (size > 0 && data[0] == 'a')
                format = DOMAIN("<p:profile xmlns:p='" DOMAIN_METADATA_URI "' %.*s/>");
        if (size > 0 && (data[0] == 'm' || data[0] == 'a')) {
                data++;
                length--;
        }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        require(asprintf(&xml, format, length, (const char *)data) >= 0);
#pragma GCC diagnostic pop
        if (domain_account_parse(xml, &a, &error) < 0) {
                require(error.code == ERROR_HYPERVISOR_MISBEHAVED && error.message[0] != '\0');
                return 0;
        }
        require(memchr(a.name, '\0', sizeof(a.name)) && memchr(a.channel_path, '\0', sizeof(a.channel_path)));
        check_profile(&a);
        check_devices(xml, &a);
        check_enrolled(xml);
        domain_account_done(&a);
        return 0;
}
