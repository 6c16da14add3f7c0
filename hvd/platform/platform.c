/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What all platforms share. */

#include "hvd/platform/platform.h"

#include <string.h>

const char *run_state_to_string(enum run_state s)
{
        static const char *const names[RUN_STATE_MAX] = {
                [RUN_ABSENT] = "absent",
                [RUN_RUNNING] = "running",
                [RUN_PAUSED] = "paused",
                [RUN_MIGRATING] = "migrating",
                [RUN_SAVING] = "saving",
                [RUN_STOPPED] = "stopped",
        };

        return s < RUN_STATE_MAX ? names[s] : "absent";
}

bool run_state_is_transfer(enum run_state s)
{
        return s == RUN_MIGRATING || s == RUN_SAVING;
}

bool platform_arch_is_pseries(const char *arch)
{
        /* QEMU says ppc64 of either byte order; none of its other machines can plug DIMMs. */
        return strcmp(arch, "ppc64") == 0 || strcmp(arch, "ppc64le") == 0;
}

void platform_snapshot_done(struct platform_snapshot *s)
{
        free(s->devices);
        free(s->backends);
        *s = (struct platform_snapshot) { 0 };
}

uint64_t platform_balloon_total(const struct platform_snapshot *s)
{
        uint64_t total = s->base_bytes;

        for (size_t i = 0; i < s->n_devices; i++)
                if (s->devices[i].is_dimm)
                        total += s->devices[i].size_bytes;
        return total;
}

const struct platform_device *platform_snapshot_find(const struct platform_snapshot *s, const char *id)
{
        for (size_t i = 0; i < s->n_devices; i++)
                if (strcmp(s->devices[i].id, id) == 0)
                        return &s->devices[i];
        return NULL;
}
