/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include "guestd/pools.h"

/* Settings of the guest's kernel that are ours for the time of an operation, and what they were before. */
enum setting {
        SETTING_AUTO_ONLINE,   /* devices/system/memory/auto_online_blocks: what becomes of new blocks */
        SETTING_RCU_EXPEDITED, /* kernel/rcu_expedited: grace periods without waiting for the next tick */
        SETTING_SWAPPINESS,    /* /proc/sys/vm/swappiness: while page cache is reclaimed */
        SETTING_MAX,
};

#define SETTING_VALUE_MAX 32

struct settings {
        int sys_fd, proc_fd;
        const char *state_path;
        bool ours[SETTING_MAX];
        char was[SETTING_MAX][SETTING_VALUE_MAX];
        /* Pools of huge pages that may be smaller because of us, and what they were: node, page_bytes,
         * n_pages count. */
        struct pool pools[POOLS_MAX];
        size_t n_pools;
};

/* Borrows both. state_path: where the values of before are kept while ours stand in their place, so that a
 * guestd that is killed leaves no trace: what the one before us changed is ours then, to be restored. NULL:
 * nowhere. */
void settings_init(struct settings *s, int sys_fd, int proc_fd, const char *state_path);

/* Whether any is changed. */
bool settings_any(const struct settings *s);
/* One that is to become ours. result: 0 or -errno (-ENOENT: this kernel has no such setting, -EINVAL: it does
 * not know the value); then it is as it was. */
struct setting_change {
        enum setting which;
        const char *value;
        int result;
};

/* Remembers the guest's own values, unless that was done, by one write of the file, and writes ours. */
void settings_change(struct settings *s, struct setting_change *changes, size_t n);
/* One alone. Its result. */
int settings_replace(struct settings *s, enum setting which, const char *value);
/* Writes back what was there before us; nothing if it is not ours. If that fails it stays ours. */
void settings_restore(struct settings *s, enum setting which);

/* Remembers the size of pools, except of those of which one is known from before: that is the guest's own. 0
 * or -errno: then they are known, but not beyond this process's life. */
int settings_note_pools(struct settings *s, const struct pool *pools, size_t n_pools);
/* pools[i] is the guest's own at this size. */
void settings_set_pool(struct settings *s, size_t i, uint64_t n_pages);
/* They are as they were, or shall stay as they are. */
void settings_forget_pools(struct settings *s);
