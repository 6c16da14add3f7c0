/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <sys/queue.h>

#include "common/size.h"
#include "hvd/platform/libvirt-worker.h"
#include "hvd/platform/libvirt.h"

/* Shared by platform/libvirt.c, platform/libvirt-connection.c, platform/libvirt-calls.c,
 * platform/libvirt-events.c and platform/libvirt-news.c. */

enum lv_kind {
        LV_OPEN,
        LV_CLOSE,
        LV_LOOK,
        LV_ATTACH,
        LV_DETACH,
        LV_RESIZE,
        LV_BALLOON,
        LV_ENROLL,
        LV_PROFILE,
        LV_KIND_MAX,
};

/* What is seen of a domain in one go. */
struct lv_look {
        bool is_absent; /* no such domain */
        bool is_active;
        int domain_id; /* another one at each start */
        struct domain_account account;
};

/* A call, on its way to the worker and back. The fields are the loop's before push and after done, and the
 * worker's in between. */
struct lv_call {
        struct worker_task task; /* first */
        struct libvirt_connection *connection;
        enum lv_kind kind;
        char uuid[40];
        /* in */
        char name[DOMAIN_NAME_MAX + 1];
        char alias[PLATFORM_ID_MAX + 3];
        char *xml; /* owned */
        uint64_t bytes;
        unsigned slots;
        bool live, persistent;
        bool wants_balloon;  /* LOOK: QEMU's own word of it, and its statistics */
        unsigned generation; /* of the connection; set by push */
        /* out */
        bool is_lost; /* the connection broke: whether it was carried out is not known */
        struct error error;
        struct lv_look look;
        char (*uuids)[40]; /* OPEN: owned; the domains that there are */
        size_t n_uuids;
        char *text; /* owned */
        /* Who waits for it; NULL: nobody any more. */
        void (*on_done)(struct lv_call *call, void *userdata);
        void *userdata;
};

struct lv_call *lv_call_new(struct libvirt_connection *c, enum lv_kind kind, const char *uuid,
        void (*on_done)(struct lv_call *, void *), void *userdata);
/* Queues it, with the worker or, a look, with those who look; or frees it and says why not. */
int lv_call_push(struct lv_call *call);
int lv_call_push_look(struct lv_call *call);
/* For a call that was never pushed. */
void lv_call_discard(struct lv_call *call);
/* Nobody waits for it any more. */
void lv_call_orphan(struct lv_call *call);
/* libvirt-calls.c: the worker's part. */
void lv_call_run(struct worker_task *t);

#define LV_EVENTS_MAX 16U

struct lv_domain {
        TAILQ_ENTRY(lv_domain) entry;
        struct libvirt_connection *connection;
        char uuid[40];
        struct libvirt_platform *platform; /* NULL: no partition */
        struct lv_call *look;              /* under way */
        bool is_dirty;
        bool is_known; /* looked at since the connection was made */
};

struct libvirt_connection {
        sd_event *event;
        char *uri;
        struct libvirt_observer observer;
        void *userdata;
        /* What changes something, in order; and looks at domains that an event was about. These may hang: a
         * domain that is starting answers nobody until its hook has ended, and that may be ours, which waits
         * for others to be shrunk. */
        struct worker *worker, *lookers;
        struct lv_events *events;
        TAILQ_HEAD(, lv_domain) domains;
        bool is_up, was_told;
        struct lv_call *opening;
        unsigned generation; /* of the connection that there is, or that is being made */
        uint64_t pause_usec;
        sd_event_source *retry, *grace, *look_timer;
        TAILQ_HEAD(, libvirt_call) calls;

        pthread_mutex_t lock; /* of the handle, which the workers use */
        virConnectPtr handle;
        /* Who hears the handle's events: the worker's, and in the end the loop's. -1: not registered. */
        int event_ids[LV_EVENTS_MAX], monitor_event_id;
        bool hears_close;
};

struct lv_domain *lv_domain_find(struct libvirt_connection *c, const char *uuid);
struct lv_domain *lv_domain_need(struct libvirt_connection *c, const char *uuid);
/* Looks at it soon; what a guest can cause at will is answered at a limited rate. */
void lv_domain_touch(struct lv_domain *d);
/* A look's result, of whoever asked for it. */
void lv_domain_take(struct lv_domain *d, const struct lv_look *look);
/* The connection is gone; seen by a call that failed, or by libvirt itself. */
void lv_connection_lost(struct libvirt_connection *c);

/* libvirt-events.c: libvirt's event loop, a thread of its own, and what it tells. */
struct lv_events;
int lv_events_new(struct lv_events **ret);
struct lv_events *lv_events_free(struct lv_events *e);
/* On the worker, once for each connection: -1 with libvirt's error set; then, too,
 * what was registered is to be deregistered. */
int lv_events_register(virConnectPtr handle, struct libvirt_connection *c, unsigned generation);
/* Before the connection is closed, which its callbacks would keep open: none is called after this, but for
 * one that is running in libvirt's loop. */
void lv_events_deregister(virConnectPtr handle, struct libvirt_connection *c);

enum lv_news_kind {
        LV_NEWS_CLOSED,
        LV_NEWS_CHANGED, /* of a domain: look at it */
        LV_NEWS_REMOVED, /* a device has left */
        LV_NEWS_REMOVAL_FAILED,
        LV_NEWS_RESET,
        LV_NEWS_PORT, /* value: open */
};
struct lv_news {
        struct worker_task task; /* first */
        struct libvirt_connection *connection;
        unsigned generation;
        enum lv_news_kind kind;
        char uuid[40];
        char alias[PLATFORM_ID_MAX + 3];
        bool value;
};
void lv_connection_take_news(struct lv_news *news);

/* libvirt.c: a domain's platform. */
#define LOST_MAX 16U

struct platform_op {
        const struct platform_ops *ops; /* first: see platform_op_free() */
        enum lv_kind kind;              /* LOOK: a query */
        struct libvirt_platform *platform;
        LIST_ENTRY(platform_op) entry;
        platform_done_t done;
        platform_query_t query_done;
        void *userdata;

        struct lv_call *call;
        struct error error;
        char id[PLATFORM_ID_MAX];
        uint64_t bytes;
        int node;
        bool persistent;
        bool wants_balloon; /* LOOK */
        bool must_restart;  /* the connection broke, or was not there */
        bool requested;     /* DETACH: libvirt took one */
        bool deleted;       /* DETACH: the device has left */
        sd_event_source *reissue, *limit;
};

struct libvirt_platform {
        struct platform base; /* first */
        struct lv_domain *domain;
        LIST_HEAD(, platform_op) ops;
        bool is_up, port_open;
        bool is_silent;      /* down as libvirt is out of reach: the domain may run */
        bool port_was_heard; /* by an event: a look may be older than that */
        int domain_id;
        char channel_alias[PLATFORM_ID_MAX];
        struct platform_snapshot last;
        uint64_t balloon_wish_bytes;          /* of ours, which it has not reached yet; 0: none */
        char lost[LOST_MAX][PLATFORM_ID_MAX]; /* names that QEMU has and libvirt has not; of this start */
        unsigned n_lost;
};

/* Completes an operation with its error, if there is one: frees it, then calls back. */
void lv_op_complete(struct platform_op *op);
/* The device has left. */
void lv_detach_finish(struct platform_op *op);
/* The detach of a device that has not left yet, or NULL. */
struct platform_op *lv_find_detach(struct libvirt_platform *p, const char *id);
/* In `last`: a device, or NULL; all of it anew; without a device; with its mark of a pending unplug. */
struct platform_device *lv_find_last(struct libvirt_platform *p, const char *id);
int lv_remember(struct libvirt_platform *p, const struct platform_snapshot *s);
void lv_forget_device(struct libvirt_platform *p, const char *id);
void lv_mark_pending(struct libvirt_platform *p, const char *id, bool pending);
/* The connection is there again, and the domain was looked at: what was under way goes on. */
void lv_platform_resume(struct libvirt_platform *p);

/* libvirt-news.c: what a look or an event tells of it. is_first: since the connection was made. */
void lv_platform_take(struct libvirt_platform *p, const struct lv_look *look, bool is_first);
void lv_platform_take_news(struct libvirt_platform *p, const struct lv_news *news);
void lv_platform_down(struct libvirt_platform *p, const struct error *error);
