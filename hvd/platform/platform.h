/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "proto/message.h"

/* How a guest's hypervisor side is reached, whatever stands behind it: a QEMU of one's own by QMP, or
 * libvirt. Everything is asynchronous. An operation's handle is dead once its callback has begun; freeing it
 * before drops the callback and leaves the hypervisor's part to run out. */

#define PLATFORM_DEVICES_MAX 1024U
#define PLATFORM_ID_MAX      64U
#define PLATFORM_SLOTS_MAX   256U /* QEMU's own limits, as is the next */
#define PLATFORM_NODES_MAX   128U
/* Above all memory: no block of a guest's is ever in a device that lies there. */
#define PLATFORM_ADDRESS_UNKNOWN PROTO_ADDRESS_MAX
/* What we create in QEMU is named so, and what is named so and has no device is ours to delete. */
#define PLATFORM_BACKEND_PREFIX "opendlpar-mem-"
#define PLATFORM_DEVICE_PREFIX  "opendlpar-dimm-"

enum run_state {
        RUN_ABSENT, /* no QEMU */
        RUN_RUNNING,
        RUN_PAUSED,
        RUN_MIGRATING,
        RUN_STOPPED, /* shut down, crashed, not yet started */
        RUN_STATE_MAX,
};
const char *run_state_to_string(enum run_state s);

struct platform_device {
        char id[PLATFORM_ID_MAX];
        char memdev[PLATFORM_ID_MAX]; /* the backend's id; empty if unknown */
        bool is_dimm;                 /* else virtio-mem */
        bool hotpluggable;
        bool unplug_pending; /* pseries: an unplug of it is under way that only a reset of the guest ends */
        /* From PLATFORM_ADDRESS_UNKNOWN on: the hypervisor does not say. Size: for virtio-mem what is plugged
         * in it. */
        uint64_t address, size_bytes;
        bool is_placed;        /* the address is not the hypervisor's word: partition_place_devices() */
        uint64_t region_bytes; /* address space and maxmem that it takes */
        /* virtio-mem: what it was asked to have plugged, and the unit of that; a DIMM has its size, and 0. */
        uint64_t requested_bytes, unit_bytes;
        unsigned slot, node;
};

/* The balloon's statistics, by its driver in the guest: not to be trusted more than guestd. */
struct platform_balloon_stats {
        uint64_t total_bytes, free_bytes, available_bytes; /* UINT64_MAX: the guest does not say */
        uint64_t updated_sec;                              /* CLOCK_REALTIME; 0: never */
};

struct platform_balloon {
        bool present;
        /* What the guest has by the balloon's reckoning, which leaves virtio-mem out: base + DIMMs - taken.
         */
        uint64_t actual_bytes;
        bool deflate_on_oom, free_page_reporting;
        struct platform_balloon_stats stats;
};
/* How often the statistics are renewed, where nobody else has set that. */
#define PLATFORM_STATS_SEC 5U

/* QEMU's account at one moment. */
struct platform_snapshot {
        enum run_state state;
        char uuid[40], arch[32];
        uint64_t base_bytes, plugged_bytes, max_bytes, balloon_bytes;
        unsigned slots;
        unsigned n_nodes; /* NUMA nodes of the guest, numbered from 0; 0: not known */
        uint64_t node_base_bytes[PLATFORM_NODES_MAX];
        struct platform_device *devices; /* owned, by address */
        size_t n_devices;
        char (*backends)[PLATFORM_ID_MAX]; /* owned: memory backends with our prefix */
        size_t n_backends;
        struct platform_balloon balloon;
};
void platform_snapshot_done(struct platform_snapshot *s);
/* What the balloon's reckoning counts from: base and DIMMs. */
uint64_t platform_balloon_total(const struct platform_snapshot *s);
/* Of a guest whose memory comes in LMBs that have DRC indices (snapshot.arch). */
bool platform_arch_is_pseries(const char *arch);
/* The device of that id, borrowed, or NULL. */
const struct platform_device *platform_snapshot_find(const struct platform_snapshot *s, const char *id);

struct platform;
struct platform_op;

struct platform_handlers {
        void (*on_up)(struct platform *p, void *userdata);
        void (*on_down)(struct platform *p, const struct error *error, void *userdata);
        /* The guest was reset. */
        void (*on_reset)(struct platform *p, void *userdata);
        /* The guest's end of the agent's port was opened or closed. */
        void (*on_port)(struct platform *p, bool open, void *userdata);
        /* A device left without an operation behind it (an x86 guest may eject by itself); its backend is
         * deleted. */
        void (*on_device_deleted)(struct platform *p, const char *id, void *userdata);
        /* Run state or something else changed: query again. */
        void (*on_changed)(struct platform *p, void *userdata);
        /* A virtio-mem device has another size now (at most one a second for each, by QEMU's throttle). */
        void (*on_device_size)(struct platform *p, const char *id, uint64_t size_bytes, void *userdata);
        /* The balloon has another size: actual_bytes as in struct platform_balloon (at most one a second). */
        void (*on_balloon)(struct platform *p, uint64_t actual_bytes, void *userdata);
};

typedef void (*platform_done_t)(const struct error *error, void *userdata);
/* The snapshot belongs to the caller, who may steal its arrays; NULL on error. */
typedef void (*platform_query_t)(struct platform_snapshot *s, const struct error *error, void *userdata);

struct platform_ops {
        const char *name;
        bool can_persist; /* has a definition that outlives the guest: see struct platform */
        struct platform *(*free)(struct platform *p);
        int (*query)(struct platform *p, bool devices_only, platform_query_t done, void *userdata,
                struct platform_op **ret);
        int (*attach_dimm)(struct platform *p, const char *id, const char *backend, uint64_t size_bytes,
                int node, platform_done_t done, void *userdata, struct platform_op **ret);
        int (*detach)(struct platform *p, const char *id, const char *backend, uint64_t timeout_usec,
                platform_done_t done, void *userdata, struct platform_op **ret);
        int (*delete_backend)(struct platform *p, const char *backend, platform_done_t done, void *userdata,
                struct platform_op **ret);
        /* Both NULL where the platform cannot. */
        int (*resize)(struct platform *p, const char *id, uint64_t requested_bytes, platform_done_t done,
                void *userdata, struct platform_op **ret);
        int (*set_balloon)(struct platform *p, uint64_t actual_bytes, platform_done_t done, void *userdata,
                struct platform_op **ret);
        struct platform_op *(*op_free)(struct platform_op *op);
        pid_t (*pid)(struct platform *p); /* NULL where the platform does not tell */
};

/* Embedded first in each implementation. */
struct platform {
        const struct platform_ops *ops;
        const struct platform_handlers *handlers;
        void *userdata;
        /* The owner's wish, if ops->can_persist: operations that begin now change the guest's definition too,
         * which its next start takes. */
        bool persistent;
};

/* A QEMU reached by its QMP socket. `channel` is the agent channel's socket, to know its chardev by. */
int platform_qmp_new(sd_event *event, const char *socket, const char *channel,
        const struct platform_handlers *handlers, void *userdata, struct platform **ret);

static inline struct platform *platform_free(struct platform *p)
{
        return p ? p->ops->free(p) : NULL;
}

/* Takes a snapshot; devices_only: which may have nothing but the devices, the balloon's actual_bytes
 * (present) while it is on its way to a target of ours, and what never changes, but stands a running guest
 * less in the way (a QMP command takes 0.3 to 0.5 ms, for which QEMU's guest waits). Fails with
 * HYPERVISOR_ABSENT at once (through the callback never) when not up: -ENOTCONN.
 */
static inline int platform_query(struct platform *p, bool devices_only, platform_query_t done, void *userdata,
        struct platform_op **ret)
{
        return p->ops->query(p, devices_only, done, userdata, ret);
}

/* Creates a backend and plugs a DIMM on it; node -1 leaves the choice to the hypervisor. When the device is
 * refused the backend is deleted before done is called. UNKNOWN_NODE: the guest has no such node, but those
 * that the message says; NOT_RUNNING: it is being migrated. */
static inline int platform_attach_dimm(struct platform *p, const char *id, const char *backend,
        uint64_t size_bytes, int node, platform_done_t done, void *userdata, struct platform_op **ret)
{
        return p->ops->attach_dimm(p, id, backend, size_bytes, node, done, userdata, ret);
}

/* Unplugs a device and deletes its backend (if not empty): done without error means that the hypervisor says
 * it is gone. Call only when every block of it is offline in the guest: an eject with blocks online can hang
 * a busy guest for ever. UNPLUG_REFUSED: the guest refused; UNPLUG_PENDING: nothing was heard within the
 * timeout, and the device may still leave later (on_device_deleted), or an unplug from before is pending
 * (on pseries the device is then marked in snapshots until it leaves, the guest refuses, or is reset);
 * NOT_RUNNING: the guest is being migrated; ACCOUNTS_DIFFER: the device has left and its backend could not be
 * deleted. */
static inline int platform_detach(struct platform *p, const char *id, const char *backend,
        uint64_t timeout_usec, platform_done_t done, void *userdata, struct platform_op **ret)
{
        return p->ops->detach(p, id, backend, timeout_usec, done, userdata, ret);
}

static inline int platform_delete_backend(struct platform *p, const char *backend, platform_done_t done,
        void *userdata, struct platform_op **ret)
{
        return p->ops->delete_backend(p, backend, done, userdata, ret);
}

/* Asks a virtio-mem device to have requested_bytes plugged, a multiple of its unit and at most its region.
 * Done without error means that the hypervisor took the wish; the guest follows by and by (on_device_size),
 * and perhaps not all the way. -EOPNOTSUPP where the platform cannot. */
static inline int platform_resize(struct platform *p, const char *id, uint64_t requested_bytes,
        platform_done_t done, void *userdata, struct platform_op **ret)
{
        return p->ops->resize ? p->ops->resize(p, id, requested_bytes, done, userdata, ret) : -EOPNOTSUPP;
}

/* Sets the balloon's target, in the reckoning of struct platform_balloon. Done without error means that the
 * hypervisor took the wish; the guest follows by and by (on_balloon), and perhaps not all the way. */
static inline int platform_set_balloon(struct platform *p, uint64_t actual_bytes, platform_done_t done,
        void *userdata, struct platform_op **ret)
{
        return p->ops->set_balloon ? p->ops->set_balloon(p, actual_bytes, done, userdata, ret) : -EOPNOTSUPP;
}

/* The process that is the guest's hypervisor, as far as its socket tells (see resident.c); 0: not known. */
static inline pid_t platform_pid(struct platform *p)
{
        return p->ops->pid ? p->ops->pid(p) : 0;
}

static inline struct platform_op *platform_op_free(struct platform_op *op)
{
        /* Every implementation's operation starts with its ops table. */
        return op ? (*(const struct platform_ops **)op)->op_free(op) : NULL;
}
