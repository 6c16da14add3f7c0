/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* org.opendlpar.hvd1.Job. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hvd/bus/internal.h"

static int find_job(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret_found,
        sd_bus_error *e)
{
        struct bus *b = userdata;
        const char *number = path + strlen(BUS_JOB_ROOT);
        char *end;

        /* sd-bus asks for the root of the subtree itself as well. */
        if (*number++ != '/' || *number < '1' || *number > '9')
                return 0;
        errno = 0;
        unsigned long id = strtoul(number, &end, 10);
        if (errno || *end || id > UINT32_MAX)
                return 0;
        *ret_found = manager_find_job(b->manager, (uint32_t)id);
        return *ret_found ? 1 : 0;
}

static int enumerate_jobs(sd_bus *bus, const char *prefix, void *userdata, char ***ret_nodes, sd_bus_error *e)
{
        struct bus *b = userdata;
        size_t n = 0, i = 0;
        struct job *j = NULL;

        while ((j = manager_next_job(b->manager, j)))
                n++;
        char **nodes = calloc(n + 1, sizeof(*nodes));
        if (!nodes)
                return -ENOMEM;
        while (i < n && (j = manager_next_job(b->manager, j)))
                nodes[i++] = bus_job_path(j);
        *ret_nodes = nodes;
        return 0;
}

static int method_cancel(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct job *j = userdata;

        if (job_state_is_end(j->state)) {
                struct error error;
                error_set(&error, ERROR_INVALID_ARGUMENT, "Job %" PRIu32 " has ended already: %s", j->id,
                        job_state_to_string(j->state));
                return bus_fail(e, &error);
        }
        if (j->is_interrupted) {
                struct error error;
                error_set(&error, ERROR_INVALID_ARGUMENT,
                        "Job %" PRIu32
                        " ended with the hvd before this one; what became of it is being looked at",
                        j->id);
                return bus_fail(e, &error);
        }
        job_stop(j, JOB_STOP_CANCEL);
        return sd_bus_reply_method_return(m, "");
}

static const char *direction(const struct job *j)
{
        switch (j->direction) {
        case JOB_ADD_MEMORY:
                return "add";
        case JOB_REMOVE_MEMORY:
                return "remove";
        default:
                return "";
        }
}

static int get_string(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct job *j = userdata;

        return sd_bus_message_append(reply, "s",
                strcmp(property, "Partition") == 0   ? j->partition_name
                : strcmp(property, "Peer") == 0      ? j->peer_name
                : strcmp(property, "Direction") == 0 ? direction(j)
                : strcmp(property, "Waiting") == 0   ? j->waiting
                : strcmp(property, "Kind") == 0      ? job_kind_to_string(j->request.kind)
                                                     : job_state_to_string(j->state));
}

static int get_u64(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct job *j = userdata;

        return sd_bus_message_append(reply, "t",
                strcmp(property, "Deadline") == 0 ? j->created_realtime_usec + j->request.wait_usec
                                                  : job_elapsed_usec(j));
}

static int get_progress(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        return sd_bus_message_append(reply, "d", job_progress(userdata));
}

static int get_reasons(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct job *j = userdata;
        int r = sd_bus_message_open_container(reply, 'a', "(ssss)");

        for (size_t i = 0; r >= 0 && i < j->n_reasons; i++) {
                const struct job_reason *reason = &j->reasons[i];
                r = sd_bus_message_append(reply, "(ssss)", reason->device, reason->block,
                        error_code_name(reason->error.code), reason->error.message);
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_transitions(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct job *j = userdata;
        int r = sd_bus_message_open_container(reply, 'a', "(st)");

        for (size_t i = 0; r >= 0 && i < j->n_transitions; i++)
                r = sd_bus_message_append(reply, "(st)", job_state_to_string(j->transitions[i].state),
                        j->transitions[i].time_usec);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

/* Plan, or Notes. */
static int get_sentences(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e)
{
        struct job *j = userdata;
        bool is_plan = strcmp(property, "Plan") == 0;
        size_t n = is_plan ? j->n_plan : j->n_notes;
        int r = sd_bus_message_open_container(reply, 'a', "s");

        for (size_t i = 0; r >= 0 && i < n; i++)
                r = sd_bus_message_append(reply, "s", is_plan ? j->plan[i] : j->notes[i]);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

#define CHANGES SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE
#define CONST   SD_BUS_VTABLE_PROPERTY_CONST

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("Cancel", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, method_cancel, 0),
        SD_BUS_PROPERTY("Id", "u", NULL, offsetof(struct job, id), CONST),
        SD_BUS_PROPERTY("Partition", "s", get_string, 0, CONST),
        SD_BUS_PROPERTY("Peer", "s", get_string, 0, CONST),
        SD_BUS_PROPERTY("Kind", "s", get_string, 0, CONST),
        SD_BUS_PROPERTY("Direction", "s", get_string, 0, CHANGES),
        SD_BUS_PROPERTY("TargetBytes", "t", NULL, offsetof(struct job, request.target_bytes), CONST),
        SD_BUS_PROPERTY("State", "s", get_string, 0, CHANGES),
        SD_BUS_PROPERTY("RequestedBytes", "t", NULL, offsetof(struct job, request.bytes), CHANGES),
        SD_BUS_PROPERTY("DoneBytes", "t", NULL, offsetof(struct job, done_bytes), CHANGES),
        SD_BUS_PROPERTY("Progress", "d", get_progress, 0, CHANGES),
        SD_BUS_PROPERTY("MovableBytes", "t", NULL, offsetof(struct job, movable_bytes), CHANGES),
        SD_BUS_PROPERTY("KernelBytes", "t", NULL, offsetof(struct job, kernel_bytes), CHANGES),
        SD_BUS_PROPERTY("CurrentBytes", "t", NULL, offsetof(struct job, current_bytes), CHANGES),
        SD_BUS_PROPERTY("MaxBytes", "t", NULL, offsetof(struct job, max_bytes), CHANGES),
        SD_BUS_PROPERTY("Deadline", "t", get_u64, 0, CONST),
        SD_BUS_PROPERTY("CreatedUsec", "t", NULL, offsetof(struct job, created_realtime_usec), CONST),
        SD_BUS_PROPERTY("ElapsedUsec", "t", get_u64, 0, CHANGES),
        SD_BUS_PROPERTY("Reasons", "a(ssss)", get_reasons, 0, CHANGES),
        SD_BUS_PROPERTY("Transitions", "a(st)", get_transitions, 0, CHANGES),
        SD_BUS_PROPERTY("Waiting", "s", get_string, 0, CHANGES),
        SD_BUS_PROPERTY("Plan", "as", get_sentences, 0, CHANGES),
        SD_BUS_PROPERTY("Notes", "as", get_sentences, 0, CHANGES),
        SD_BUS_VTABLE_END,
};

static int append_jobs(struct bus *b, sd_bus_message *reply, sd_bus_error *e)
{
        struct bus_table table;
        struct job *j = NULL;
        int r = bus_table_open(&table, reply, vtable);

        while (r >= 0 && (j = manager_next_job(b->manager, j)))
                r = bus_table_append(&table, BUS_IFACE_JOB, j, e);
        return r < 0 ? r : bus_table_send(&table);
}

int bus_method_list_jobs(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        sd_bus_message *reply = NULL;
        int r = sd_bus_message_new_method_return(m, &reply);

        if (r >= 0)
                r = append_jobs(userdata, reply, e);
        sd_bus_message_unref(reply);
        return r < 0 ? r : 1;
}

int bus_job_register(struct bus *b)
{
        sd_bus_slot *slot;
        int r = sd_bus_add_fallback_vtable(b->bus, &slot, BUS_JOB_ROOT, BUS_IFACE_JOB,
                polkit_guard(b->polkit, BUS_IFACE_JOB, vtable), find_job, b);
        if (r >= 0)
                r = bus_add_slot(b, slot);
        if (r >= 0)
                r = sd_bus_add_node_enumerator(b->bus, &slot, BUS_JOB_ROOT, enumerate_jobs, b);
        return r < 0 ? r : bus_add_slot(b, slot);
}
