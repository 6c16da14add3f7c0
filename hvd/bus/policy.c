/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The policy on the bus: its modes, what it decides, and why. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "hvd/bus/internal.h"
#include "hvd/policy-past.h"
#include "hvd/policy-runner.h"

/* "host" is for a partition, and no mode of its own. */
static int read_mode(sd_bus_message *value, bool of_partition, enum policy_mode *ret, struct error *ret_error)
{
        const char *mode;
        int r = sd_bus_message_read_basic(value, 's', &mode);

        if (r < 0)
                return error_set_errno(ret_error, ERROR_INVALID_ARGUMENT, r, "The mode cannot be read");
        *ret = policy_mode_from_string(mode);
        if (*ret != POLICY_MODE_INVALID || (of_partition && strcmp(mode, "host") == 0))
                return 0;
        return error_set(ret_error, ERROR_INVALID_ARGUMENT, "'%.40s' is no mode of the policy; there are %s",
                mode, of_partition ? "off, observe, auto and host (as the host's)" : "off, observe and auto");
}

int bus_get_policy_mode(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct bus *b = userdata;

        return sd_bus_message_append(
                reply, "s", policy_mode_to_string(policy_runner_mode(manager_policy(b->manager))));
}

int bus_set_policy_mode(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *value, void *userdata, sd_bus_error *e)
{
        struct bus *b = userdata;
        enum policy_mode mode;
        struct error error;

        if (read_mode(value, false, &mode, &error) < 0 ||
                policy_runner_set_mode(manager_policy(b->manager), mode, &error) < 0)
                return bus_fail(e, &error);
        return 0;
}

int bus_get_partition_policy_mode(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct partition *p = userdata;
        enum policy_mode mode = policy_runner_partition_mode(manager_policy(p->manager), p);

        return sd_bus_message_append(reply, "s", policy_mode_to_string(mode));
}

int bus_set_partition_policy_mode(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *value, void *userdata, sd_bus_error *e)
{
        struct partition *p = userdata;
        enum policy_mode mode;
        struct error error;

        if (read_mode(value, true, &mode, &error) < 0 ||
                policy_runner_set_partition_mode(manager_policy(p->manager), p, mode, &error) < 0)
                return bus_fail(e, &error);
        return 0;
}

int bus_method_explain(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct partition *p = userdata;
        _cleanup_free_ char *text = NULL;
        int r = policy_runner_explain(manager_policy(p->manager), p, &text);

        return r < 0 ? r : sd_bus_reply_method_return(m, "s", text);
}

/* In one answer. */
#define DECISIONS_MAX 1000U

struct decisions {
        sd_bus_message *reply;
        size_t n;
};

static int append_decision(const struct store_decision *d, void *userdata)
{
        struct decisions *all = userdata;

        all->n++;
        int r = sd_bus_message_append(
                all->reply, "(ttssss)", d->id, d->time_usec, d->partition, d->decision, d->text, d->outcome);
        return r < 0 ? r : 0;
}

/* Of one that is not defined any more, too, as long as the store has some. */
static int append_decisions(
        struct bus *b, sd_bus_message *reply, const char *partition, uint32_t max, struct error *ret_error)
{
        struct decisions all = { .reply = reply };
        struct partition *p;
        int r = sd_bus_message_open_container(reply, 'a', "(ttssss)");

        error_set(ret_error, ERROR_INTERNAL, "The decisions could not be listed");
        if (r >= 0)
                r = store_decision_foreach(
                        manager_store(b->manager), partition, max, append_decision, &all, ret_error);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        if (r >= 0 && *partition && all.n == 0)
                r = bus_find_partition(b, partition, &p, ret_error);
        return r;
}

int bus_method_list_decisions(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        struct bus *b = userdata;
        const char *partition;
        struct error error;
        uint32_t max;

        int r = sd_bus_message_read(m, "su", &partition, &max);
        if (r < 0)
                return r;
        if (max < 1 || max > DECISIONS_MAX) {
                error_set(&error, ERROR_INVALID_ARGUMENT,
                        "%" PRIu32 " decisions cannot be listed; 1 to %u can", max, DECISIONS_MAX);
                return bus_fail(e, &error);
        }
        r = sd_bus_message_new_method_return(m, &reply);
        if (r < 0)
                return r;
        if (append_decisions(b, reply, partition, max, &error) < 0)
                return bus_fail(e, &error);
        return sd_bus_send(NULL, reply, NULL);
}

int bus_method_explain_decision(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        _cleanup_free_ char *text = NULL;
        struct bus *b = userdata;
        struct error error;
        uint64_t id;

        int r = sd_bus_message_read_basic(m, 't', &id);
        if (r < 0)
                return r;
        if (policy_explain_past(manager_store(b->manager), id, &text, &error) < 0)
                return bus_fail(e, &error);
        return sd_bus_reply_method_return(m, "s", text);
}

void bus_policy_decided(const struct policy_news *news, void *userdata)
{
        const struct policy_decision *d = news->decision;
        struct bus *b = userdata;
        int r = sd_bus_emit_signal(b->bus, BUS_ROOT, BUS_IFACE_MANAGER, "PolicyDecided", "sssttsss",
                news->partition->definition.name, policy_mode_to_string(news->mode),
                policy_action_to_string(d->action), news->current_bytes, d->target_bytes,
                policy_rule_to_string(d->cause), policy_rule_to_string(d->bound), news->text);

        if (r < 0)
                log_debug("A decision could not be told: %s", strerrordesc_np(-r));
}
