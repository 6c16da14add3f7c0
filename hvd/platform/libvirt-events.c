/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libvirt's event loop and what it tells.
 *
 * It is libvirt's own implementation, in a thread of its own: it has to run while the worker is in a call
 * that waits for another domain, it is called from both threads, and sd-event is not for that. Callbacks
 * write down what they heard and post it to the loop.
 *
 * virConnectDomainQemuMonitorEventRegister() hears QEMU's own events and does not taint a domain, unlike a
 * monitor command. It is needed for what libvirt (9.0) has no event for: a port of the guest's that opens or
 * closes, and a migration's progress. */

#include <libvirt/libvirt-qemu.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "hvd/platform/libvirt-internal.h"

struct lv_events {
        pthread_t thread;
        atomic_bool stopping;
        int timer;
};

/* What each callback of one connection has in hand; libvirt frees it. */
struct link {
        struct libvirt_connection *connection;
        unsigned generation;
};

static void *run_events(void *userdata)
{
        struct lv_events *e = userdata;

        while (!atomic_load(&e->stopping))
                if (virEventRunDefaultImpl() < 0)
                        break;
        return NULL;
}

static void on_timer(int timer, void *userdata)
{
        virEventUpdateTimeout(timer, -1);
}

static void on_error(void *userdata, virErrorPtr error)
{
        /* Every caller has its own way to tell; libvirt's is standard error. */
}

int lv_events_new(struct lv_events **ret)
{
        struct lv_events *e = calloc(1, sizeof(*e));
        sigset_t all, before;
        static bool is_registered;

        if (!e)
                return -ENOMEM;
        virSetErrorFunc(NULL, on_error);
        if (virInitialize() < 0 || (!is_registered && virEventRegisterDefaultImpl() < 0)) {
                free(e);
                return -EIO;
        }
        is_registered = true; /* for the life of the process: libvirt has no way back */
        e->timer = virEventAddTimeout(-1, on_timer, NULL, NULL);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int r = e->timer < 0 ? -EIO : -pthread_create(&e->thread, NULL, run_events, e);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r < 0) {
                free(e);
                return r;
        }
        *ret = e;
        return 0;
}

struct lv_events *lv_events_free(struct lv_events *e)
{
        if (!e)
                return NULL;
        atomic_store(&e->stopping, true);
        virEventUpdateTimeout(e->timer, 0);
        pthread_join(e->thread, NULL);
        virEventRemoveTimeout(e->timer);
        free(e);
        return NULL;
}

/* --- news --- */

static void news_done(struct worker_task *t)
{
        lv_connection_take_news((struct lv_news *)t);
}

static void news_free(struct worker_task *t)
{
        free(t);
}

static void tell(void *userdata, virDomainPtr domain, enum lv_news_kind kind, const char *alias, bool value)
{
        const struct link *link = userdata;
        struct lv_news *news = calloc(1, sizeof(*news));

        if (!news)
                return;
        *news = (struct lv_news) {
                .task = { .done = news_done, .free = news_free },
                .connection = link->connection,
                .generation = link->generation,
                .kind = kind,
                .value = value,
        };
        if (domain)
                virDomainGetUUIDString(domain, news->uuid);
        /* libvirt 9.0 calls a DIMM by its backend's name in one event and by its own in another. */
        if (alias && strncmp(alias, "mem", 3) == 0 && strncmp(alias, "memory", 6) != 0)
                alias += 3;
        if (alias)
                snprintf(news->alias, sizeof(news->alias), "%s", alias);
        if (worker_post(link->connection->worker, &news->task) < 0)
                free(news);
}

static void on_closed(virConnectPtr handle, int reason, void *userdata)
{
        tell(userdata, NULL, LV_NEWS_CLOSED, NULL, false);
}

static void on_lifecycle(virConnectPtr handle, virDomainPtr domain, int event, int detail, void *userdata)
{
        tell(userdata, domain, LV_NEWS_CHANGED, NULL, false);
}

static void on_reboot(virConnectPtr handle, virDomainPtr domain, void *userdata)
{
        tell(userdata, domain, LV_NEWS_RESET, NULL, false);
}

static void on_balloon(
        virConnectPtr handle, virDomainPtr domain, unsigned long long actual_kib, void *userdata)
{
        tell(userdata, domain, LV_NEWS_CHANGED, NULL, false);
}

static void on_device_added(virConnectPtr handle, virDomainPtr domain, const char *alias, void *userdata)
{
        tell(userdata, domain, LV_NEWS_CHANGED, alias, false);
}

static void on_device_removed(virConnectPtr handle, virDomainPtr domain, const char *alias, void *userdata)
{
        tell(userdata, domain, LV_NEWS_REMOVED, alias, false);
}

static void on_removal_failed(virConnectPtr handle, virDomainPtr domain, const char *alias, void *userdata)
{
        tell(userdata, domain, LV_NEWS_REMOVAL_FAILED, alias, false);
}

static void on_job_completed(
        virConnectPtr handle, virDomainPtr domain, virTypedParameterPtr params, int n, void *userdata)
{
        tell(userdata, domain, LV_NEWS_CHANGED, NULL, false);
}

static void on_device_size(virConnectPtr handle, virDomainPtr domain, const char *alias,
        unsigned long long size_kib, void *userdata)
{
        tell(userdata, domain, LV_NEWS_CHANGED, alias, false);
}

static void on_metadata(virConnectPtr handle, virDomainPtr domain, int type, const char *uri, void *userdata)
{
        tell(userdata, domain, LV_NEWS_CHANGED, NULL, false);
}

static void on_monitor_event(virConnectPtr handle, virDomainPtr domain, const char *event, long long seconds,
        unsigned micros, const char *details, void *userdata)
{
        _cleanup_json_ struct json_object *o = NULL;
        const char *id;
        bool open;

        if (strcmp(event, "VSERPORT_CHANGE") != 0)
                tell(userdata, domain, LV_NEWS_CHANGED, NULL, false);
        else if (details && json_parse(details, strlen(details), &o) >= 0 &&
                 json_get_string(o, "id", &id) >= 0 && json_get_bool(o, "open", &open) >= 0)
                tell(userdata, domain, LV_NEWS_PORT, id, open);
}

static struct link *link_new(struct libvirt_connection *c, unsigned generation)
{
        struct link *link = calloc(1, sizeof(*link));

        if (link)
                *link = (struct link) { c, generation };
        return link;
}

void lv_events_deregister(virConnectPtr handle, struct libvirt_connection *c)
{
        for (size_t i = 0; i < LV_EVENTS_MAX; i++) {
                if (c->event_ids[i] >= 0)
                        virConnectDomainEventDeregisterAny(handle, c->event_ids[i]);
                c->event_ids[i] = -1;
        }
        if (c->monitor_event_id >= 0)
                virConnectDomainQemuMonitorEventDeregister(handle, c->monitor_event_id);
        c->monitor_event_id = -1;
        if (c->hears_close)
                virConnectUnregisterCloseCallback(handle, on_closed);
        c->hears_close = false;
}

int lv_events_register(virConnectPtr handle, struct libvirt_connection *c, unsigned generation)
{
        static const struct {
                int id;
                virConnectDomainEventGenericCallback callback;
        } events[] = {
                { VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle) },
                { VIR_DOMAIN_EVENT_ID_REBOOT, VIR_DOMAIN_EVENT_CALLBACK(on_reboot) },
                { VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, VIR_DOMAIN_EVENT_CALLBACK(on_balloon) },
                { VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, VIR_DOMAIN_EVENT_CALLBACK(on_device_added) },
                { VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, VIR_DOMAIN_EVENT_CALLBACK(on_device_removed) },
                { VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, VIR_DOMAIN_EVENT_CALLBACK(on_removal_failed) },
                { VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, VIR_DOMAIN_EVENT_CALLBACK(on_job_completed) },
                { VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, VIR_DOMAIN_EVENT_CALLBACK(on_metadata) },
                { VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE, VIR_DOMAIN_EVENT_CALLBACK(on_device_size) },
        };
        _Static_assert(ARRAY_SIZE(events) <= LV_EVENTS_MAX, "there is no room for their numbers");
        const char *type = virConnectGetType(handle);
        struct link *link = NULL;

        /* Where there is none a call that fails tells. libvirt (9.0) says that its test driver has one, and
         * forgets what it was given. */
        if (type && strcasecmp(type, "test") != 0)
                link = link_new(c, generation);
        c->hears_close = link && virConnectRegisterCloseCallback(handle, on_closed, link, free) >= 0;
        if (!c->hears_close)
                free(link);
        for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
                link = link_new(c, generation);
                c->event_ids[i] = link ? virConnectDomainEventRegisterAny(
                                                 handle, NULL, events[i].id, events[i].callback, link, free)
                                       : -1;
                if (c->event_ids[i] < 0) {
                        free(link);
                        return -1;
                }
        }
        /* Not there with drivers other than QEMU's, and then nothing depends on it. */
        link = link_new(c, generation);
        if (link)
                c->monitor_event_id = virConnectDomainQemuMonitorEventRegister(handle, NULL,
                        "^(VSERPORT_CHANGE|MIGRATION)$", on_monitor_event, link, free,
                        VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX);
        if (c->monitor_event_id < 0)
                free(link);
        return 0;
}
