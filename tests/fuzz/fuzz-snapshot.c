/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* QEMU's answers as the snapshot reads them: each line is one, and its first byte says of which command. All
 * lines go into one snapshot, in their order, as the commands of a query do. */

#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "hvd/platform/snapshot.h"
#include "proto/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
        if (!condition)
                abort();
}

/* qom-list of a folder of devices: which of them is the balloon. */
static int take_balloon_place(struct platform_snapshot *s, struct json_object *o)
{
        require(!snapshot_find_balloon(o) || json_object_is_type(o, json_type_array));
        return 0;
}

static int (*const takers[])(struct platform_snapshot *, struct json_object *) = {
        snapshot_take_status,
        snapshot_take_migration,
        snapshot_take_summary,
        snapshot_take_machine_memory,
        snapshot_take_devices,
        snapshot_take_objects,
        snapshot_take_uuid,
        snapshot_take_target,
        snapshot_take_numa,
        snapshot_take_balloon,
        NULL, /* query-chardev, which is no part of the snapshot */
        snapshot_take_balloon_stats,
        take_balloon_place,
};

static void check(const struct platform_snapshot *s)
{
        require(s->state >= 0 && s->state < RUN_STATE_MAX);
        require(s->base_bytes <= PROTO_ADDRESS_MAX && s->plugged_bytes <= PROTO_ADDRESS_MAX);
        require(s->n_nodes <= PLATFORM_NODES_MAX && s->n_devices <= PLATFORM_DEVICES_MAX);
        require(memchr(s->uuid, '\0', sizeof(s->uuid)) && memchr(s->arch, '\0', sizeof(s->arch)));
        for (size_t i = 0; i < s->n_devices; i++) {
                require(memchr(s->devices[i].id, '\0', PLATFORM_ID_MAX));
                require(memchr(s->devices[i].memdev, '\0', PLATFORM_ID_MAX));
                require(i == 0 || s->devices[i - 1].address <= s->devices[i].address);
                require(s->devices[i].id[0] == '\0' || platform_snapshot_find(s, s->devices[i].id));
        }
        for (size_t i = 0; i < s->n_backends; i++)
                require(strncmp(s->backends[i], PLATFORM_BACKEND_PREFIX, strlen(PLATFORM_BACKEND_PREFIX)) ==
                        0);
}

static void take(struct platform_snapshot *s, const char *line, size_t length)
{
        _cleanup_json_ struct json_object *o = NULL;
        size_t which = (size_t)line[0] - 'a';

        if (json_parse(line + 1, length - 1, &o) < 0)
                return;
        if (which < ARRAY_SIZE(takers) && takers[which]) {
                int r = takers[which](s, o);
                require(r == 0 || r == -EBADMSG || r == -ENOMEM);
        } else {
                int r = chardev_is_open(o, "/run/web1.channel");
                require(r <= 1);
        }
        check(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct platform_snapshot s = { 0 };
        const char *at = (const char *)data, *end = at + size;

        while (at < end) {
                const char *newline = memchr(at, '\n', (size_t)(end - at)) ?: end;

                if (newline > at)
                        take(&s, at, (size_t)(newline - at));
                at = newline + 1;
        }
        platform_snapshot_done(&s);
        return 0;
}
