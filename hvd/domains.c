/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which of libvirt's domains are partitions.
 *
 * One that has our channel is, under its own name, whether it runs or not; what it has of a profile is in its
 * metadata. It stays one until its definition is gone, loses the channel, or changes its name (then it is
 * another partition). Of every other one it is kept, and said once in the log, what it lacks. */

#include "hvd/domains.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "hvd/record.h"

#define LACKING_MAX 1024U

struct lacking {
        TAILQ_ENTRY(lacking) entry; /* by name */
        char uuid[40], name[DOMAIN_NAME_MAX + 1];
        char what[ERROR_MESSAGE_MAX];
};

struct domains {
        sd_event *event;
        struct manager *manager;
        struct libvirt_connection *connection;
        char uri[LIBVIRT_URI_MAX + 1]; /* of the connection */
        bool is_up;
        struct error error; /* why it is not */
        TAILQ_HEAD(lacking_list, lacking) lacking;
        size_t n_lacking;
};

/* --- what they lack --- */

static void forget_lacking(struct domains *d, const char *uuid)
{
        struct lacking *l;

        TAILQ_FOREACH (l, &d->lacking, entry)
                if (strcmp(l->uuid, uuid) == 0) {
                        TAILQ_REMOVE(&d->lacking, l, entry);
                        free(l);
                        d->n_lacking--;
                        return;
                }
}

static void note_lacking(struct domains *d, const struct libvirt_domain *domain, const char *what)
{
        struct lacking *l, *other;

        TAILQ_FOREACH (l, &d->lacking, entry)
                if (strcmp(l->uuid, domain->uuid) == 0 && strcmp(l->what, what) == 0 &&
                        strcmp(l->name, domain->account->name) == 0)
                        return;
        forget_lacking(d, domain->uuid);
        if (d->n_lacking >= LACKING_MAX || !(l = calloc(1, sizeof(*l))))
                return;
        snprintf(l->uuid, sizeof(l->uuid), "%s", domain->uuid);
        snprintf(l->name, sizeof(l->name), "%s", domain->account->name);
        snprintf(l->what, sizeof(l->what), "%s", what);
        TAILQ_FOREACH (other, &d->lacking, entry)
                if (strcmp(other->name, l->name) > 0)
                        break;
        if (other)
                TAILQ_INSERT_BEFORE(other, l, entry);
        else
                TAILQ_INSERT_TAIL(&d->lacking, l, entry);
        d->n_lacking++;
        log_info("libvirt's domain '%s': %s", l->name, what);
}

const struct lacking *domains_next_lacking(struct domains *d, const struct lacking *after)
{
        return after ? TAILQ_NEXT(after, entry) : TAILQ_FIRST(&d->lacking);
}

const char *lacking_name(const struct lacking *l)
{
        return l->name;
}

const char *lacking_what(const struct lacking *l)
{
        return l->what;
}

/* --- what is one --- */

static struct partition *find(struct domains *d, const char *uuid)
{
        struct partition *p = NULL;

        while ((p = manager_next_partition(d->manager, p)))
                if (strcmp(p->definition.domain, uuid) == 0)
                        return p;
        return NULL;
}

static void drop(struct domains *d, const char *uuid, const char *why)
{
        struct partition *p = find(d, uuid);

        if (!p)
                return;
        log_info("Partition '%s' is gone: %s", p->definition.name, why);
        manager_release(d->manager, p);
}

static struct partition *adopt(struct domains *d, const struct libvirt_domain *domain)
{
        struct partition_definition definition = { .profile = domain->account->profile };
        struct partition *p;
        struct error error;

        /* Its name is one for a partition: on_domain() saw to that. */
        snprintf(definition.name, sizeof(definition.name), "%.*s", (int)PARTITION_NAME_MAX,
                domain->account->name);
        snprintf(definition.domain, sizeof(definition.domain), "%s", domain->uuid);
        if (manager_adopt(d->manager, &definition, &p, &error) < 0) {
                char what[ERROR_MESSAGE_MAX];
                snprintf(what, sizeof(what), "no partition: %.480s", error.message);
                note_lacking(d, domain, what);
                return NULL;
        }
        log_info("libvirt's domain '%s' is a partition", definition.name);
        return p;
}

static void set_profile(struct partition *p, const struct partition_profile *profile)
{
        if (memcmp(&p->definition.profile, profile, sizeof(*profile)) == 0)
                return;
        p->definition.profile = *profile;
        manager_partition_changed(p->manager, p);
}

int domains_set_profile(struct domains *d, struct partition *p, const struct partition_profile *profile,
        libvirt_text_t done, void *userdata, struct libvirt_call **ret, struct error *ret_error)
{
        struct partition_definition definition = p->definition;

        definition.profile = *profile;
        int r = partition_definition_check(&definition, ret_error);
        if (r >= 0)
                r = domains_check(d, ret_error);
        if (r < 0)
                return r;
        return libvirt_set_profile(
                d->connection, p->definition.domain, profile, done, userdata, ret, ret_error);
}

void domains_profile_written(struct domains *d, const char *uuid, const struct partition_profile *profile)
{
        struct partition *p = find(d, uuid);

        if (p)
                set_profile(p, profile);
}

static void on_domain(const struct libvirt_domain *domain, void *userdata)
{
        struct domains *d = userdata;
        const struct domain_account *a = domain->account;
        struct partition *p = find(d, domain->uuid);
        char what[ERROR_MESSAGE_MAX], lacks[400];

        if (p && strcmp(p->definition.name, a->name) != 0) {
                drop(d, domain->uuid, "its domain has another name now");
                p = NULL;
        }
        if (a->has_channel && !partition_name_valid(a->name)) {
                snprintf(what, sizeof(what),
                        "no partition, as its name is none for one, which has at most %u of A-Z a-z 0-9 . _ "
                        "- and begins "
                        "with neither . nor -; 'virsh domrename' changes it",
                        PARTITION_NAME_MAX);
                note_lacking(d, domain, what);
                return;
        }
        if (!a->has_channel) {
                if (p)
                        drop(d, domain->uuid, "its domain has lost the channel");
                domain_account_lacks(a, sizeof(lacks), lacks);
                snprintf(what, sizeof(what), "no partition, as it lacks %s; 'hmc-cli enroll' adds it", lacks);
                note_lacking(d, domain, what);
                return;
        }
        if (!p && !(p = adopt(d, domain)))
                return;
        if (a->profile_error.code)
                snprintf(what, sizeof(what), "the profile in its metadata is not used: %.400s",
                        a->profile_error.message);
        else if (domain_account_lacks(a, sizeof(lacks), lacks))
                snprintf(what, sizeof(what), "it lacks %s; 'hmc-cli enroll' adds it", lacks);
        if (a->profile_error.code || !a->has_hotplug)
                note_lacking(d, domain, what);
        else
                forget_lacking(d, domain->uuid);
        set_profile(p, &a->profile);
        if (!domain->is_active)
                record_owed(manager_store(d->manager), p, 0); /* the balloon of its next start is empty */
        partition_set_channel(p, domain->is_active && a->channel_path[0] ? a->channel_path : NULL);
}

static void on_gone(const char *uuid, void *userdata)
{
        struct domains *d = userdata;

        drop(d, uuid, "its domain is gone");
        forget_lacking(d, uuid);
}

static void on_connection(bool up, const struct error *error, void *userdata)
{
        struct domains *d = userdata;
        bool matters = manager_config(d->manager)->libvirt == LIBVIRT_YES || d->is_up;

        d->is_up = up;
        if (up)
                log_info("libvirt answers (%s)", d->uri);
        else {
                d->error = *error;
                if (matters)
                        log_warning("%s", error->message);
                else
                        log_debug("%s", error->message);
        }
}

/* --- life --- */

struct libvirt_connection *domains_connection(struct domains *d)
{
        return d->connection;
}

int domains_check(struct domains *d, struct error *ret_error)
{
        if (d->is_up)
                return 0;
        return error_set(ret_error, d->error.code, "%s", d->error.message);
}

static void disconnect(struct domains *d)
{
        struct partition *p, *next;

        for (p = manager_next_partition(d->manager, NULL); p; p = next) {
                next = manager_next_partition(d->manager, p);
                if (p->definition.domain[0])
                        manager_release(d->manager, p);
        }
        while (!TAILQ_EMPTY(&d->lacking))
                forget_lacking(d, TAILQ_FIRST(&d->lacking)->uuid);
        d->connection = libvirt_connection_free(d->connection);
        d->is_up = false;
}

void domains_configure(struct domains *d)
{
        static const struct libvirt_observer observer = {
                .on_domain = on_domain,
                .on_gone = on_gone,
                .on_connection = on_connection,
        };
        const struct config *c = manager_config(d->manager);

        if (d->connection && (c->libvirt == LIBVIRT_NO || strcmp(c->libvirt_uri, d->uri) != 0))
                disconnect(d);
        if (c->libvirt == LIBVIRT_NO)
                error_set(&d->error, ERROR_HYPERVISOR_ABSENT,
                        "libvirt is not served: the configuration says 'enabled = no' in [libvirt]");
        if (c->libvirt == LIBVIRT_NO || d->connection)
                return;
        strcpy(d->uri, c->libvirt_uri);
        error_set(&d->error, ERROR_HYPERVISOR_ABSENT, "libvirt has not answered yet");
        int r = libvirt_connection_new(d->event, d->uri, &observer, d, &d->connection);
        if (r < 0)
                error_set_errno(&d->error, ERROR_HYPERVISOR_ABSENT, r, "libvirt cannot be served");
        if (r < 0 && c->libvirt == LIBVIRT_YES)
                log_warning("%s", d->error.message);
}

struct domains *domains_free(struct domains *d)
{
        if (!d)
                return NULL;
        while (!TAILQ_EMPTY(&d->lacking))
                forget_lacking(d, TAILQ_FIRST(&d->lacking)->uuid);
        libvirt_connection_free(d->connection);
        sd_event_unref(d->event);
        free(d);
        return NULL;
}

int domains_new(sd_event *event, struct manager *m, struct domains **ret)
{
        struct domains *d = calloc(1, sizeof(*d));

        if (!d)
                return -ENOMEM;
        d->event = sd_event_ref(event);
        d->manager = m;
        TAILQ_INIT(&d->lacking);
        manager_set_domains(m, d);
        domains_configure(d);
        *ret = d;
        return 0;
}
