/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The calls that are about libvirt's domains, or wait for libvirt's answer: EnrollDomain and
 * ListLackingDomains of the Manager, and a Partition's SetProfile where the profile is in its metadata. */

#include <stdio.h>

#include "common/log.h"
#include "hvd/bus/internal.h"
#include "hvd/domains.h"

/* One that awaits libvirt's answer. */
struct domain_call {
        TAILQ_ENTRY(domain_call) entry;
        struct bus *bus;
        sd_bus_message *message;
        struct libvirt_call *libvirt;
        char uuid[40]; /* SetProfile: of the domain, whose partition may be gone by then */
        struct partition_profile profile;
};

static void call_free(struct domain_call *call)
{
        TAILQ_REMOVE(&call->bus->domain_calls, call, entry);
        libvirt_call_free(call->libvirt);
        sd_bus_message_unref(call->message);
        free(call);
}

void bus_domain_calls_free(struct bus *b)
{
        while (!TAILQ_EMPTY(&b->domain_calls))
                call_free(TAILQ_FIRST(&b->domain_calls));
}

static struct domain_call *call_new(struct bus *b, sd_bus_message *m)
{
        struct domain_call *call = calloc(1, sizeof(*call));

        if (!call)
                return NULL;
        call->bus = b;
        call->message = sd_bus_message_ref(m);
        TAILQ_INSERT_TAIL(&b->domain_calls, call, entry);
        return call;
}

/* text: NULL for a call without a result. */
static void answer(struct domain_call *call, const char *text, const struct error *error)
{
        int r;

        call->libvirt = NULL;
        if (error)
                r = sd_bus_reply_method_errorf(
                        call->message, error_code_dbus_name(error->code), "%s", error->message);
        else if (text)
                r = sd_bus_reply_method_return(call->message, "s", text);
        else
                r = sd_bus_reply_method_return(call->message, "");
        if (r < 0)
                log_debug("The answer to %s could not be sent: %s", sd_bus_message_get_member(call->message),
                        strerrordesc_np(-r));
        call_free(call);
}

/* --- EnrollDomain --- */

static void on_enrolled(const char *text, const struct error *error, void *userdata)
{
        answer(userdata, text, error);
}

int bus_method_enroll_domain(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct bus *b = userdata;
        struct domains *domains = manager_domains(b->manager);
        uint64_t max_bytes = 0;
        uint32_t slots = 0;
        struct bus_option options[] = {
                { "max", 't', &max_bytes },
                { "slots", 'u', &slots },
        };
        const char *name;
        struct error error;

        int r = sd_bus_message_read_basic(m, 's', &name);
        if (r < 0)
                return r;
        if (bus_read_options(m, options, ARRAY_SIZE(options), &error) < 0 ||
                domains_check(domains, &error) < 0)
                return bus_fail(e, &error);
        if (slots > PLATFORM_SLOTS_MAX || max_bytes > PROTO_ADDRESS_MAX) {
                error_set(&error, ERROR_INVALID_ARGUMENT, "A guest has at most %u slots, and 8 EiB",
                        PLATFORM_SLOTS_MAX);
                return bus_fail(e, &error);
        }
        struct domain_call *call = call_new(b, m);
        if (!call)
                return -ENOMEM;
        if (libvirt_enroll(domains_connection(domains), name, max_bytes, slots, on_enrolled, call,
                    &call->libvirt, &error) < 0) {
                call_free(call);
                return bus_fail(e, &error);
        }
        return 1;
}

int bus_method_list_lacking_domains(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct bus *b = userdata;
        const struct lacking *l = NULL;
        sd_bus_message *reply = NULL;
        int r = sd_bus_message_new_method_return(m, &reply);

        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "(ss)");
        while (r >= 0 && (l = domains_next_lacking(manager_domains(b->manager), l)))
                r = sd_bus_message_append(reply, "(ss)", lacking_name(l), lacking_what(l));
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (r >= 0)
                r = sd_bus_send(NULL, reply, NULL);
        sd_bus_message_unref(reply);
        return r;
}

/* --- SetProfile --- */

static void on_written(const char *text, const struct error *error, void *userdata)
{
        struct domain_call *call = userdata;

        if (!error)
                domains_profile_written(manager_domains(call->bus->manager), call->uuid, &call->profile);
        answer(call, NULL, error);
}

int bus_set_domain_profile(struct bus *b, sd_bus_message *m, struct partition *p,
        const struct partition_profile *profile, sd_bus_error *e)
{
        struct domain_call *call = call_new(b, m);
        struct error error;

        if (!call)
                return -ENOMEM;
        snprintf(call->uuid, sizeof(call->uuid), "%s", p->definition.domain);
        call->profile = *profile;
        if (domains_set_profile(
                    manager_domains(b->manager), p, profile, on_written, call, &call->libvirt, &error) < 0) {
                call_free(call);
                return bus_fail(e, &error);
        }
        return 1;
}
