/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The calls that change what partitions have, or may have: AddMemory, RemoveMemory, SetMemory and SetProfile
 * of a partition, MoveMemory of the manager. */

#include <stdio.h>
#include <string.h>

#include "hvd/bus/internal.h"

#define OPTIONS_MAX 12U

/* What the options say, before it is looked at. */
struct wish {
        struct job_request request;
        const char *zone, *device, *back;
        uint32_t drc, node;
        uint64_t within_usec;
        int dry_run, all_or_nothing, config;
        struct bus_option options[OPTIONS_MAX];
        size_t n_options;
};

static void know(struct wish *w, const char *key, char type, void *target)
{
        w->options[w->n_options++] = (struct bus_option) { key, type, target, false };
}

static bool is_seen(const struct wish *w, const char *key)
{
        for (size_t i = 0; i < w->n_options; i++)
                if (strcmp(w->options[i].key, key) == 0)
                        return w->options[i].seen;
        return false;
}

static void wish_init(struct wish *w, enum job_kind kind)
{
        *w = (struct wish) {
                .request = { .kind = kind, .node = -1 },
                .zone = "auto",
                .device = "",
                .back = "from",
                .node = UINT32_MAX,
        };
        know(w, "method", 's', &w->request.method);
        know(w, "wait-usec", 't', &w->request.wait_usec);
        know(w, "dry-run", 'b', &w->dry_run);
        know(w, "all-or-nothing", 'b', &w->all_or_nothing);
        know(w, "config", 'b', &w->config);
        if (kind != JOB_REMOVE_MEMORY)
                know(w, "zone", 's', &w->zone);
        if (kind != JOB_MOVE_MEMORY)
                know(w, "node", 'u', &w->node);
        else
                know(w, "return", 's', &w->back);
        if (kind != JOB_REMOVE_MEMORY)
                return;
        know(w, "device", 's', &w->device);
        know(w, "within-usec", 't', &w->within_usec);
        know(w, "drc", 'u', &w->drc);
}

static int take_strings(struct wish *w, struct error *ret_error)
{
        struct job_request *q = &w->request;

        q->zone = zone_policy_from_string(w->zone);
        if (q->zone == ZONE_POLICY_INVALID)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Zone '%.40s' is not known; there are auto, movable and kernel", w->zone);
        if (strlen(w->device) >= sizeof(q->device))
                return error_set(ret_error, ERROR_UNKNOWN_DEVICE, "No device has so long an id: '%.70s...'",
                        w->device);
        snprintf(q->device, sizeof(q->device), "%s", w->device);
        if (strcmp(w->back, "from") != 0 && strcmp(w->back, "pool") != 0)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "What does not arrive cannot go to '%.40s'; write from (back to where it was) or "
                        "pool",
                        w->back);
        q->return_to_pool = strcmp(w->back, "pool") == 0;
        return 0;
}

static int wish_take(struct wish *w, struct error *ret_error)
{
        struct job_request *q = &w->request;
        int r = take_strings(w, ret_error);

        if (r < 0)
                return r;
        q->has_drc = is_seen(w, "drc"); /* 0 is no index, and not the same as none */
        q->drc = w->drc;
        if (w->node != UINT32_MAX) {
                if (w->node > 1023)
                        return error_set(ret_error, ERROR_UNKNOWN_NODE,
                                "Node %u is not possible; nodes are 0 to 1023", w->node);
                q->node = (int)w->node;
        }
        if (w->within_usec > 0 && q->wait_usec > 0)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "within-usec is the job's time limit, and excludes wait-usec");
        q->within = w->within_usec > 0;
        q->wait_usec = w->within_usec ?: q->wait_usec;
        q->dry_run = w->dry_run;
        q->all_or_nothing = w->all_or_nothing;
        q->persistent = w->config;
        return 0;
}

static int submit(sd_bus_message *m, struct partition *p, struct partition *peer,
        const struct job_request *request, sd_bus_error *e)
{
        struct error error;
        struct job *j;

        if (manager_submit(p->manager, p, peer, request, &j, &error) < 0)
                return bus_fail(e, &error);
        _cleanup_free_ char *path = bus_job_path(j);
        return path ? sd_bus_reply_method_return(m, "o", path) : -ENOMEM;
}

int bus_method_change_memory(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        const char *member = sd_bus_message_get_member(m);
        struct partition *p = userdata;
        struct error error;
        struct wish w;

        wish_init(&w, strcmp(member, "AddMemory") == 0      ? JOB_ADD_MEMORY
                      : strcmp(member, "RemoveMemory") == 0 ? JOB_REMOVE_MEMORY
                                                            : JOB_SET_MEMORY);
        bool is_set = w.request.kind == JOB_SET_MEMORY;
        int r = sd_bus_message_read_basic(m, 't', is_set ? &w.request.target_bytes : &w.request.bytes);
        if (r < 0)
                return r;
        if (bus_read_options(m, w.options, w.n_options, &error) < 0 || wish_take(&w, &error) < 0)
                return bus_fail(e, &error);
        return submit(m, p, NULL, &w.request, e);
}

int bus_method_move_memory(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct bus *b = userdata;
        const char *names[2];
        struct partition *found[2] = { 0 };
        struct error error;
        struct wish w;

        wish_init(&w, JOB_MOVE_MEMORY);
        int r = sd_bus_message_read(m, "sst", &names[0], &names[1], &w.request.bytes);
        if (r < 0)
                return r;
        if (bus_read_options(m, w.options, w.n_options, &error) < 0 || wish_take(&w, &error) < 0 ||
                bus_find_partition(b, names[0], &found[0], &error) < 0 ||
                bus_find_partition(b, names[1], &found[1], &error) < 0)
                return bus_fail(e, &error);
        return submit(m, found[0], found[1], &w.request, e);
}

int bus_method_set_profile(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct partition *p = userdata;
        struct partition_profile profile = p->definition.profile;
        uint32_t weight = profile.weight;
        struct bus_option options[] = {
                { "min", 't', &profile.min_bytes },
                { "desired", 't', &profile.desired_bytes },
                { "max", 't', &profile.max_bytes },
                { "weight", 'u', &weight },
        };
        struct error error;

        if (bus_read_options(m, options, ARRAY_SIZE(options), &error) < 0)
                return bus_fail(e, &error);
        profile.weight = weight;
        if (p->definition.domain[0]) {
                struct bus *b = sd_bus_slot_get_userdata(sd_bus_get_current_slot(sd_bus_message_get_bus(m)));

                return bus_set_domain_profile(b, m, p, &profile, e);
        }
        if (manager_set_profile(p->manager, p, &profile, &error) < 0)
                return bus_fail(e, &error);
        return sd_bus_reply_method_return(m, "");
}
