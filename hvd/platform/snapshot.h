/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/json.h"
#include "hvd/platform/platform.h"

/* QEMU's answers -> a snapshot: pure, so that odd answers can be tested without a QEMU. Each takes the
 * "return" of one command and fills its fields; -EBADMSG when the answer is not what the command is
 * documented to give. */
int snapshot_take_status(struct platform_snapshot *s, struct json_object *o);    /* query-status */
int snapshot_take_migration(struct platform_snapshot *s, struct json_object *o); /* query-migrate */
int snapshot_take_summary(struct platform_snapshot *s, struct json_object *o); /* query-memory-size-summary */
int snapshot_take_machine_memory(
        struct platform_snapshot *s, struct json_object *o);                   /* qom-get /machine memory */
int snapshot_take_devices(struct platform_snapshot *s, struct json_object *o); /* query-memory-devices */
int snapshot_take_objects(struct platform_snapshot *s, struct json_object *o); /* qom-list /objects */
int snapshot_take_uuid(struct platform_snapshot *s, struct json_object *o);    /* query-uuid */
int snapshot_take_target(struct platform_snapshot *s, struct json_object *o);  /* query-target */
/* human-monitor-command "info numa": text for people, which no command has for programs. What is not
 * understood leaves the nodes unknown. */
int snapshot_take_numa(struct platform_snapshot *s, struct json_object *o);
/* query-balloon; after summary and devices, if these were asked for: QEMU's "actual" counts RAM and DIMMs but
 * no virtio-mem, and what the balloon has taken is the rest. */
int snapshot_take_balloon(struct platform_snapshot *s, struct json_object *o);
int snapshot_take_balloon_stats(struct platform_snapshot *s, struct json_object *o); /* its guest-stats */
/* qom-list of a folder of devices: the name of the balloon in it, borrowed; NULL: there is none. */
const char *snapshot_find_balloon(struct json_object *o);

/* query-chardev: 1 open, 0 closed by the guest, -ENOENT when no chardev listens on that socket. */
int chardev_is_open(struct json_object *o, const char *socket);
