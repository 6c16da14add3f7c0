/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The connection to libvirt, and the domains behind it.
 *
 * It is made, lost and made again: a pause grows from a tenth of a second to ten. libvirtd may be restarted
 * at any time, and the guests run on: what was under way is kept for LIBVIRT_GRACE_USEC and goes on from what
 * libvirt then says of the domain. Only after that the domains' platforms are told that they are down.
 *
 * A domain is known by its UUID. Every event but few is a reason to look at the domain and nothing more: one
 * look (XML, state and job in one go) is what all else is derived from. What a guest can cause at will (a
 * reboot, its port) leads to ten looks a second at most. */

#include "hvd/platform/libvirt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "hvd/platform/libvirt-internal.h"

#define PAUSE_MIN_USEC (100 * USEC_PER_MSEC)
#define PAUSE_MAX_USEC (10 * USEC_PER_SEC)
#define LOOK_USEC      (100 * USEC_PER_MSEC)

/* --- calls --- */

static void call_done(struct worker_task *t)
{
        struct lv_call *call = (struct lv_call *)t;

        /* Not of the connection before. */
        if (call->is_lost && call->generation == call->connection->generation)
                lv_connection_lost(call->connection);
        if (call->on_done)
                call->on_done(call, call->userdata);
}

static void call_free(struct worker_task *t)
{
        struct lv_call *call = (struct lv_call *)t;

        domain_account_done(&call->look.account);
        free(call->xml);
        free(call->uuids);
        free(call->text);
        free(call);
}

struct lv_call *lv_call_new(struct libvirt_connection *c, enum lv_kind kind, const char *uuid,
        void (*on_done)(struct lv_call *, void *), void *userdata)
{
        struct lv_call *call = calloc(1, sizeof(*call));

        if (!call)
                return NULL;
        *call = (struct lv_call) {
                .task = { .run = lv_call_run, .done = call_done, .free = call_free },
                .connection = c,
                .kind = kind,
                .live = true,
                .on_done = on_done,
                .userdata = userdata,
        };
        if (uuid)
                snprintf(call->uuid, sizeof(call->uuid), "%s", uuid);
        return call;
}

static int push(struct worker *w, struct lv_call *call)
{
        call->generation = call->connection->generation;
        int r = worker_push(w, &call->task);
        if (r < 0)
                lv_call_discard(call);
        return r;
}

int lv_call_push(struct lv_call *call)
{
        return push(call->connection->worker, call);
}

int lv_call_push_look(struct lv_call *call)
{
        return push(call->connection->lookers, call);
}

void lv_call_discard(struct lv_call *call)
{
        if (call)
                call_free(&call->task);
}

void lv_call_orphan(struct lv_call *call)
{
        if (call)
                call->on_done = NULL;
}

/* --- domains --- */

struct lv_domain *lv_domain_find(struct libvirt_connection *c, const char *uuid)
{
        struct lv_domain *d;

        TAILQ_FOREACH (d, &c->domains, entry)
                if (strcmp(d->uuid, uuid) == 0)
                        return d;
        return NULL;
}

struct lv_domain *lv_domain_need(struct libvirt_connection *c, const char *uuid)
{
        struct lv_domain *d = lv_domain_find(c, uuid);

        if (d || !(d = calloc(1, sizeof(*d))))
                return d;
        d->connection = c;
        snprintf(d->uuid, sizeof(d->uuid), "%s", uuid);
        TAILQ_INSERT_TAIL(&c->domains, d, entry);
        return d;
}

static void domain_free(struct lv_domain *d)
{
        lv_call_orphan(d->look);
        TAILQ_REMOVE(&d->connection->domains, d, entry);
        free(d);
}

/* The observer may take the platform away, or give one. */
void lv_domain_take(struct lv_domain *d, const struct lv_look *look)
{
        struct libvirt_connection *c = d->connection;
        bool was_known = d->is_known;

        if (look->is_absent) {
                c->observer.on_gone(d->uuid, c->userdata);
                if (d->platform)
                        lv_platform_take(d->platform, look, !was_known);
                else
                        domain_free(d);
                return;
        }
        d->is_known = true;
        c->observer.on_domain(
                &(struct libvirt_domain) {
                        .uuid = d->uuid, .is_active = look->is_active, .account = &look->account },
                c->userdata);
        if (d->platform)
                lv_platform_take(d->platform, look, !was_known);
        if (d->platform && !was_known)
                lv_platform_resume(d->platform);
}

static void look_soon(struct libvirt_connection *c)
{
        int enabled;

        if (sd_event_source_get_enabled(c->look_timer, &enabled) >= 0 && enabled != SD_EVENT_OFF)
                return;
        sd_event_source_set_time_relative(c->look_timer, LOOK_USEC);
        sd_event_source_set_enabled(c->look_timer, SD_EVENT_ONESHOT);
}

static void on_looked(struct lv_call *call, void *userdata)
{
        struct lv_domain *d = userdata;

        d->look = NULL;
        if (d->is_dirty)
                look_soon(d->connection);
        if (call->error.code && !call->is_lost)
                log_debug("Domain %s could not be looked at: %s", d->uuid, call->error.message);
        if (!call->error.code)
                lv_domain_take(d, &call->look);
}

static void look(struct lv_domain *d)
{
        if (d->look || !d->connection->is_up)
                return;
        struct lv_call *call = lv_call_new(d->connection, LV_LOOK, d->uuid, on_looked, d);
        if (call)
                call->wants_balloon = d->platform;
        if (!call || lv_call_push_look(call) < 0) {
                look_soon(d->connection);
                return;
        }
        d->look = call;
        d->is_dirty = false;
}

static int on_look_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct libvirt_connection *c = userdata;
        struct lv_domain *d;

        TAILQ_FOREACH (d, &c->domains, entry)
                if (d->is_dirty)
                        look(d);
        return 0;
}

void lv_domain_touch(struct lv_domain *d)
{
        d->is_dirty = true;
        look_soon(d->connection);
}

/* --- news --- */

void lv_connection_take_news(struct lv_news *news)
{
        struct libvirt_connection *c = news->connection;

        if (news->generation != c->generation)
                return;
        if (worker_missed(c->worker)) {
                struct lv_domain *each;

                log_debug("There was more news of libvirt than could be kept; looking at all domains");
                TAILQ_FOREACH (each, &c->domains, entry)
                        lv_domain_touch(each);
        }
        if (news->kind == LV_NEWS_CLOSED) {
                lv_connection_lost(c);
                return;
        }
        struct lv_domain *d = lv_domain_need(c, news->uuid);
        if (!d)
                return;
        lv_domain_touch(d);
        if (d->platform)
                lv_platform_take_news(d->platform, news);
}

/* --- connecting --- */

static void tell(struct libvirt_connection *c, bool up, const struct error *error)
{
        if (!c->was_told || up != c->is_up)
                c->observer.on_connection(up, error, c->userdata);
        c->was_told = true;
}

static void retry_after_pause(struct libvirt_connection *c)
{
        sd_event_source_set_time_relative(c->retry, c->pause_usec);
        sd_event_source_set_enabled(c->retry, SD_EVENT_ONESHOT);
        c->pause_usec = MIN(c->pause_usec * 2, PAUSE_MAX_USEC);
}

void lv_connection_lost(struct libvirt_connection *c)
{
        struct lv_domain *d;
        struct error error;

        if (!c->is_up)
                return;
        error_set(&error, ERROR_HYPERVISOR_ABSENT, "The connection to libvirt ended");
        tell(c, false, &error);
        c->is_up = false;
        c->generation++;
        TAILQ_FOREACH (d, &c->domains, entry) {
                lv_call_orphan(d->look);
                d->look = NULL;
                d->is_known = false;
        }
        struct lv_call *call = lv_call_new(c, LV_CLOSE, NULL, NULL, NULL);
        if (call)
                lv_call_push(call);
        sd_event_source_set_time_relative(c->grace, LIBVIRT_GRACE_USEC);
        sd_event_source_set_enabled(c->grace, SD_EVENT_ONESHOT);
        retry_after_pause(c);
}

static int on_grace(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct libvirt_connection *c = userdata;
        struct lv_domain *d;
        struct error error;

        error_set(&error, ERROR_HYPERVISOR_SILENT, "libvirt is out of reach; is libvirtd running?");
        if (!c->is_up)
                TAILQ_FOREACH (d, &c->domains, entry)
                        if (d->platform)
                                lv_platform_down(d->platform, &error);
        return 0;
}

static void on_opened(struct lv_call *call, void *userdata)
{
        struct libvirt_connection *c = userdata;
        struct lv_domain *d;

        c->opening = NULL;
        if (call->error.code) {
                tell(c, false, &call->error);
                retry_after_pause(c);
                return;
        }
        tell(c, true, NULL);
        c->is_up = true;
        c->pause_usec = PAUSE_MIN_USEC;
        sd_event_source_set_enabled(c->grace, SD_EVENT_OFF);
        for (size_t i = 0; i < call->n_uuids; i++)
                lv_domain_need(c, call->uuids[i]);
        /* Those of before too: the look says that they are gone. */
        TAILQ_FOREACH (d, &c->domains, entry)
                look(d);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct libvirt_connection *c = userdata;

        if (c->opening || c->is_up)
                return 0;
        struct lv_call *call = lv_call_new(c, LV_OPEN, NULL, on_opened, c);
        c->generation++;
        if (!call || lv_call_push(call) < 0)
                retry_after_pause(c);
        else
                c->opening = call;
        return 0;
}

/* --- what is asked for domains that are no partitions --- */

struct libvirt_call {
        TAILQ_ENTRY(libvirt_call) entry;
        struct libvirt_connection *connection;
        struct lv_call *call;
        libvirt_text_t done;
        void *userdata;
};

struct libvirt_call *libvirt_call_free(struct libvirt_call *call)
{
        if (!call)
                return NULL;
        lv_call_orphan(call->call);
        TAILQ_REMOVE(&call->connection->calls, call, entry);
        free(call);
        return NULL;
}

static void answer(struct libvirt_call *call, const char *text, const struct error *error)
{
        libvirt_text_t done = call->done;
        void *userdata = call->userdata;

        libvirt_call_free(call);
        done(error ? NULL : text, error, userdata);
}

static void on_text(struct lv_call *call, void *userdata)
{
        struct libvirt_call *mine = userdata;

        mine->call = NULL;
        answer(mine, call->text ?: "", call->error.code ? &call->error : NULL);
}

static int start_call(struct libvirt_connection *c, struct lv_call *call, libvirt_text_t done, void *userdata,
        struct libvirt_call **ret, struct error *ret_error)
{
        struct libvirt_call *mine = call && c->is_up ? calloc(1, sizeof(*mine)) : NULL;

        if (!mine) {
                lv_call_discard(call);
                return c->is_up ? error_set(ret_error, ERROR_INTERNAL, "Out of memory")
                                : error_set(ret_error, ERROR_HYPERVISOR_ABSENT,
                                          "libvirt is out of reach; is libvirtd running?");
        }
        *mine = (struct libvirt_call) { .connection = c, .call = call, .done = done, .userdata = userdata };
        call->userdata = mine;
        TAILQ_INSERT_TAIL(&c->calls, mine, entry);
        if (lv_call_push(call) < 0) {
                mine->call = NULL;
                libvirt_call_free(mine);
                return error_set(ret_error, ERROR_BUSY, "There are too many calls to libvirt waiting");
        }
        *ret = mine;
        return 0;
}

int libvirt_enroll(struct libvirt_connection *c, const char *name, uint64_t max_bytes, unsigned slots,
        libvirt_text_t done, void *userdata, struct libvirt_call **ret, struct error *ret_error)
{
        struct lv_call *call = lv_call_new(c, LV_ENROLL, NULL, on_text, NULL);

        if (call) {
                snprintf(call->name, sizeof(call->name), "%s", name);
                call->bytes = max_bytes;
                call->slots = slots;
                call->live = false;
        }
        return start_call(c, call, done, userdata, ret, ret_error);
}

int libvirt_set_profile(struct libvirt_connection *c, const char *uuid,
        const struct partition_profile *profile, libvirt_text_t done, void *userdata,
        struct libvirt_call **ret, struct error *ret_error)
{
        struct lv_call *call = lv_call_new(c, LV_PROFILE, uuid, on_text, NULL);

        if (call && !(call->xml = domain_profile_xml(profile))) {
                lv_call_discard(call);
                call = NULL;
        }
        return start_call(c, call, done, userdata, ret, ret_error);
}

/* --- life --- */

struct libvirt_connection *libvirt_connection_free(struct libvirt_connection *c)
{
        struct error error;

        if (!c)
                return NULL;
        c->is_up = false;
        lv_call_orphan(c->opening);
        error_set(&error, ERROR_HYPERVISOR_ABSENT,
                "hvd has let go of this libvirt before it answered; whether that was done is not known");
        while (!TAILQ_EMPTY(&c->calls))
                answer(TAILQ_FIRST(&c->calls), NULL, &error);
        while (!TAILQ_EMPTY(&c->domains))
                domain_free(TAILQ_FIRST(&c->domains));
        sd_event_source_disable_unref(c->retry);
        sd_event_source_disable_unref(c->grace);
        sd_event_source_disable_unref(c->look_timer);
        lv_events_free(c->events);
        bool has_ended = worker_free(c->worker);
        has_ended &= worker_free(c->lookers);
        sd_event_unref(c->event);
        if (!has_ended) /* the worker is in a call, and has it in hand */
                return NULL;
        if (c->handle) {
                lv_events_deregister(c->handle, c);
                virConnectClose(c->handle);
        }
        pthread_mutex_destroy(&c->lock);
        free(c->uri);
        free(c);
        return NULL;
}

static int add_timer(struct libvirt_connection *c, sd_event_time_handler_t handler, sd_event_source **ret)
{
        int r = sd_event_add_time_relative(c->event, ret, CLOCK_MONOTONIC, 0, 0, handler, c);

        return r < 0 ? r : sd_event_source_set_enabled(*ret, SD_EVENT_OFF);
}

int libvirt_connection_new(sd_event *event, const char *uri, const struct libvirt_observer *observer,
        void *userdata, struct libvirt_connection **ret)
{
        struct libvirt_connection *c = calloc(1, sizeof(*c));

        if (!c)
                return -ENOMEM;
        c->event = sd_event_ref(event);
        c->observer = *observer;
        c->userdata = userdata;
        c->pause_usec = PAUSE_MIN_USEC;
        memset(c->event_ids, -1, sizeof(c->event_ids));
        c->monitor_event_id = -1;
        TAILQ_INIT(&c->domains);
        TAILQ_INIT(&c->calls);
        pthread_mutex_init(&c->lock, NULL);
        c->uri = strdup(uri);
        int r = c->uri ? worker_new(event, 1, &c->worker) : -ENOMEM;
        if (r >= 0)
                r = worker_new(event, WORKER_THREADS_MAX, &c->lookers);
        if (r >= 0)
                r = lv_events_new(&c->events);
        if (r >= 0)
                r = add_timer(c, on_grace, &c->grace);
        if (r >= 0)
                r = add_timer(c, on_look_timer, &c->look_timer);
        if (r >= 0)
                r = add_timer(c, on_retry, &c->retry);
        if (r >= 0)
                r = sd_event_source_set_enabled(c->retry, SD_EVENT_ONESHOT);
        if (r < 0) {
                libvirt_connection_free(c);
                return r;
        }
        *ret = c;
        return 0;
}
