/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/queue.h>

#include "common/json.h"
#include "common/size.h"
#include "hvd/platform/platform.h"
#include "hvd/qmp/qmp.h"

/* Shared by platform/qmp.c and the files qmp-*.c beside it. */

#define COMMAND_USEC     (10 * USEC_PER_SEC)
#define BALLOON_PATH_MAX 192U

enum op_kind {
        OP_KIND_QUERY,
        OP_KIND_ATTACH,
        OP_KIND_DETACH,
        OP_KIND_DELETE_BACKEND,
        OP_KIND_RESIZE,
};

/* The commands of one query. */
enum query_part {
        QUERY_STATUS,
        QUERY_MIGRATE,
        QUERY_SUMMARY,
        QUERY_MACHINE,
        QUERY_DEVICES,
        QUERY_OBJECTS,
        QUERY_UUID,
        QUERY_TARGET,
        QUERY_NUMA,
        QUERY_BALLOON,
        QUERY_STATS,
        QUERY_FIND, /* the balloon, and what it is like: once */
        QUERY_DEFLATE,
        QUERY_REPORTING,
        QUERY_INTERVAL,
        QUERY_PART_MAX,
};

struct qmp_platform;

struct platform_op {
        const struct platform_ops *ops; /* first: see platform_op_free() */
        enum op_kind kind;
        struct qmp_platform *platform;
        LIST_ENTRY(platform_op) entry;
        void *userdata;
        platform_done_t done;
        platform_query_t query_done;

        struct qmp_call *calls[QUERY_PART_MAX];
        unsigned n_pending;
        struct error error; /* the first; code NONE if all is well */

        struct platform_snapshot snapshot; /* QUERY */
        struct json_object *balloon;       /* QUERY: taken last */
        bool devices_only, anonymous;      /* QUERY */

        char device[PLATFORM_ID_MAX], backend[PLATFORM_ID_MAX];
        struct json_object *device_add; /* ATTACH: while it is staged, what is still to be sent; owned */
        bool backend_created;           /* ATTACH */
        bool requested;                 /* DETACH: QEMU took a device_del */
        bool deleted;                   /* DETACH: DEVICE_DELETED was seen */
        sd_event_source *reissue, *limit;
};

struct qmp_platform {
        struct platform base;
        sd_event *event;
        struct qmp_client *qmp;
        char *channel;
        LIST_HEAD(, platform_op) ops;
        struct qmp_call *chardev_call;
        struct {
                char device[PLATFORM_ID_MAX], backend[PLATFORM_ID_MAX];
                bool unplug_pending; /* see qmp-detach.c */
        } * known;                   /* from the last query */
        size_t n_known;
        bool is_x86, is_pseries;
        /* What cannot change while a QEMU runs is asked for once for each connection, and a balloon that is
         * not there not again until one shows: each command takes half a millisecond of QEMU's main loop,
         * and the guest waits for it. */
        bool has_constants, has_no_balloon;
        struct platform_snapshot constants;
        struct {                             /* see qmp-balloon.c */
                char path[BALLOON_PATH_MAX]; /* empty: not found yet, or there is none that we could ask */
                bool deflate_on_oom, free_page_reporting;
                uint64_t target_bytes; /* of ours, that it is still on its way to; 0: none */
        } balloon;
};

extern const struct platform_ops qmp_platform_ops;

struct platform_op *op_new(struct qmp_platform *p, enum op_kind kind, void *userdata);
struct platform_op *op_destroy(struct platform_op *op);
/* Notes the first error. */
void op_take_error(struct platform_op *op, const struct error *error);
/* Sends a command of an operation; its reply arrives in on_reply with the operation as userdata. */
int op_call(struct platform_op *op, unsigned index, const char *command, struct json_object *arguments,
        qmp_reply_t on_reply);
/* Completes a DONE-style operation: frees it, then calls back. */
void op_complete(struct platform_op *op);
/* For a command that follows in an operation that has already begun: failing to send is the operation's
 * failure. */
void op_call_or_complete(struct platform_op *op, unsigned index, const char *command,
        struct json_object *arguments, qmp_reply_t on_reply);
/* What QEMU (7.2) refuses for a reason that the operator can act on gets a code and a sentence of its own. */
void qmp_translate_refusal(struct error *error);
/* {"key": "value"}, or NULL when out of memory. */
struct json_object *object_with_string(const char *key, const char *value);

int qmp_platform_query(struct platform *base, bool devices_only, platform_query_t done, void *userdata,
        struct platform_op **ret);
int qmp_platform_detach(struct platform *base, const char *id, const char *backend, uint64_t timeout_usec,
        platform_done_t done, void *userdata, struct platform_op **ret);
int qmp_platform_delete_backend(struct platform *base, const char *backend, platform_done_t done,
        void *userdata, struct platform_op **ret);

int qmp_platform_resize(struct platform *base, const char *id, uint64_t requested_bytes, platform_done_t done,
        void *userdata, struct platform_op **ret);
int qmp_platform_set_balloon(struct platform *base, uint64_t actual_bytes, platform_done_t done,
        void *userdata, struct platform_op **ret);

/* A query learnt that there is a balloon: asks what it is like, if that is not known; the query's pending
 * parts grow by what is asked. And what a snapshot says of it at the end. */
void qmp_balloon_look(struct platform_op *op);
void qmp_balloon_complete(struct qmp_platform *p, struct platform_snapshot *s);
/* For a command that is part of a query. */
int qmp_query_call(struct platform_op *op, enum query_part part, const char *command,
        struct json_object *arguments, qmp_reply_t on_reply);
/* A part of a query has been answered; its place in calls is free. */
void qmp_query_part_done(struct platform_op *op);
/* {"path": path, "property": property} */
struct json_object *qom_arguments(const char *path, const char *property);

/* QEMU's word about a device, which may be NULL: it has left; the guest will not let it go. */
void qmp_device_deleted(struct qmp_platform *p, const char *device);
void qmp_unplug_refused(struct qmp_platform *p, const char *device, const char *why);
/* No unplug is pending any more, as far as is known. */
/* No device_del is sent again: the guest was reset, and the next boot may have the blocks online. */
void qmp_stop_asking(struct qmp_platform *p);
void qmp_forget_pending_unplugs(struct qmp_platform *p);
