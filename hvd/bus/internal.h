/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/queue.h>
#include <systemd/sd-bus.h>

#include "hvd/bus/bus.h"
#include "hvd/bus/polkit.h"

/* Shared by the files of bus/: one file an interface. */
struct bus {
        sd_bus *bus;
        struct manager *manager;
        struct polkit *polkit;
        TAILQ_HEAD(, dirty) dirty; /* objects whose PropertiesChanged is due */
        void *dirty_by_path;       /* the same: a thousand may be at once */
        sd_event_source *flush;
        TAILQ_HEAD(, survey_call) surveys;
        TAILQ_HEAD(, domain_call) domain_calls;
        TAILQ_HEAD(, reserve_call) reserves;
        sd_bus_slot *slots[16];
        size_t n_slots;
};

/* A bus error from ours: returns what a method handler returns. */
int bus_fail(sd_bus_error *e, const struct error *error);
/* Paths; the caller frees. NULL when out of memory. */
char *bus_partition_path(const struct partition *p);
char *bus_job_path(const struct job *j);
/* PropertiesChanged for that object at the end of this turn of the loop, once however often it is asked. */
void bus_mark_dirty(struct bus *b, char *path /* taken */, const char *interface);

/* An a{sv} of options against a table: an unknown key, a wrong type or a key given twice is INVALID_ARGUMENT.
 */
struct bus_option {
        const char *key;
        char type;    /* 's', 't', 'u' or 'b' */
        void *target; /* const char ** (borrowed from the message), uint64_t *, uint32_t *, int * */
        bool seen;
};
int bus_read_options(
        sd_bus_message *m, struct bus_option *options, size_t n_options, struct error *ret_error);

/* UNKNOWN_PARTITION, with where to look. */
int bus_find_partition(struct bus *b, const char *name, struct partition **ret, struct error *ret_error);

int bus_method_change_memory(sd_bus_message *m, void *userdata, sd_bus_error *e);
int bus_method_set_profile(sd_bus_message *m, void *userdata, sd_bus_error *e);
int bus_method_move_memory(sd_bus_message *m, void *userdata, sd_bus_error *e);
int bus_method_reserve(sd_bus_message *m, void *userdata, sd_bus_error *e);
int bus_method_release(sd_bus_message *m, void *userdata, sd_bus_error *e);
int bus_method_enroll_domain(sd_bus_message *m, void *userdata, sd_bus_error *e);
int bus_method_list_lacking_domains(sd_bus_message *m, void *userdata, sd_bus_error *e);
/* What is left of SetProfile: answered when libvirt has. */
int bus_set_domain_profile(struct bus *b, sd_bus_message *m, struct partition *p,
        const struct partition_profile *profile, sd_bus_error *e);
void bus_reserves_free(struct bus *b);

/* table.c: every property of a kind of object, as (as names, a(...) rows). Open; append each object, of the
 * vtable's userdata; send. 0 or -errno. The reply stays the caller's. */
struct bus_table {
        sd_bus_message *reply;
        const sd_bus_vtable *vtable;
        char row[256]; /* the signature of what is in a row; D-Bus has at most 255 */
};
/* The types of all properties of a partition and of a job: sd-bus sends no answer that is not of them. */
#define BUS_PARTITION_ROW "(sssssstttttxtttuttdtuua(ssttuuttttsuutt)a(ttbbtttt)a(utt)s)"
#define BUS_JOB_ROW       "(usssststtdttttttta(ssss)a(st)sasas)"
int bus_table_open(struct bus_table *t, sd_bus_message *reply, const sd_bus_vtable *vtable);
int bus_table_append(const struct bus_table *t, const char *interface, void *object, sd_bus_error *e);
int bus_table_send(const struct bus_table *t);
int bus_method_list_partitions(sd_bus_message *m, void *userdata, sd_bus_error *e);
int bus_method_list_jobs(sd_bus_message *m, void *userdata, sd_bus_error *e);

/* policy.c */
int bus_get_policy_mode(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e);
int bus_set_policy_mode(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *value, void *userdata, sd_bus_error *e);
int bus_get_partition_policy_mode(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *reply, void *userdata, sd_bus_error *e);
int bus_set_partition_policy_mode(sd_bus *bus, const char *path, const char *interface, const char *property,
        sd_bus_message *value, void *userdata, sd_bus_error *e);
int bus_method_list_decisions(sd_bus_message *m, void *userdata, sd_bus_error *e);
int bus_method_explain_decision(sd_bus_message *m, void *userdata, sd_bus_error *e);
int bus_method_explain(sd_bus_message *m, void *userdata, sd_bus_error *e);
void bus_policy_decided(const struct policy_news *news, void *userdata);

int bus_manager_register(struct bus *b);
int bus_partition_register(struct bus *b);
int bus_job_register(struct bus *b);
int bus_add_slot(struct bus *b, sd_bus_slot *slot);

void bus_partition_forget(struct bus *b, struct partition *p);
void bus_surveys_free(struct bus *b);
void bus_domain_calls_free(struct bus *b);
