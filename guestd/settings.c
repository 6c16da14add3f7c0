/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Invariant: a setting is `ours` exactly while the file at state_path has a line for it: "NAME VALUE". The
 * file is written before the setting is, and a setting whose line cannot be written is not changed: at worst
 * a value is restored that never changed. */

#include "guestd/settings.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "guestd/blocks.h"

#define STATE_MAX (SETTING_MAX * (SETTING_VALUE_MAX + 64) + POOLS_MAX * 64)
#define POOL_NAME "hugepages"

/* Values are the words that the kernel is known to say, the last one NULL, or a number up to a limit: nothing
 * else is ever written back. */
static const struct {
        const char *path, *name, *values[5];
        unsigned long max;
        bool in_proc;
} settings[SETTING_MAX] = {
        [SETTING_AUTO_ONLINE] = { "devices/system/memory/auto_online_blocks", "auto_online_blocks",
                { "offline", "online", "online_kernel", "online_movable" } },
        [SETTING_RCU_EXPEDITED] = { "kernel/rcu_expedited", "rcu_expedited", { "0", "1" } },
        [SETTING_SWAPPINESS] = { "sys/vm/swappiness", "swappiness", .max = 200, .in_proc = true },
};

static int root_of(const struct settings *s, enum setting which)
{
        return settings[which].in_proc ? s->proc_fd : s->sys_fd;
}

static bool is_value(enum setting which, const char *value)
{
        for (const char *const *v = settings[which].values; *v; v++)
                if (strcmp(*v, value) == 0)
                        return true;
        return settings[which].max > 0 && value[0] && strlen(value) <= 9 &&
               strspn(value, "0123456789") == strlen(value) &&
               strtoul(value, NULL, 10) <= settings[which].max;
}

/* By a file beside it: one that is torn would protect nothing. */
static int save(const struct settings *s)
{
        char text[STATE_MAX], path[PATH_MAX];
        size_t length = 0;

        if (!s->state_path)
                return 0;
        for (int i = 0; i < SETTING_MAX; i++)
                if (s->ours[i])
                        length += (size_t)snprintf(
                                text + length, sizeof(text) - length, "%s %s\n", settings[i].name, s->was[i]);
        for (size_t i = 0; i < s->n_pools; i++)
                length += (size_t)snprintf(text + length, sizeof(text) - length,
                        POOL_NAME " %u:%" PRIu64 ":%" PRIu64 "\n", s->pools[i].node,
                        s->pools[i].page_bytes / 1024, s->pools[i].n_pages);
        if (length == 0)
                return unlink(s->state_path) < 0 && errno != ENOENT ? -errno : 0;
        snprintf(path, sizeof(path), "%s.new", s->state_path);
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        ssize_t n = write(fd, text, length);
        if (n < 0)
                return -errno;
        if ((size_t)n != length)
                return -ENOSPC;
        return rename(path, s->state_path) < 0 ? -errno : 0;
}

/* The same, and says so if it fails. */
static int keep(const struct settings *s)
{
        int r = save(s);

        if (r < 0)
                log_warning("%s cannot be written: %s", s->state_path, strerror(-r));
        return r;
}

static void recover_pool(struct settings *s, const char *value)
{
        struct pool p = { 0 };
        uint64_t kib;
        char rest;

        if (s->n_pools < POOLS_MAX &&
                sscanf(value, "%u:%" SCNu64 ":%" SCNu64 "%c", &p.node, &kib, &p.n_pages, &rest) == 3 &&
                kib > 0 && kib <= UINT32_MAX && p.n_pages <= UINT32_MAX) {
                p.page_bytes = kib * 1024;
                s->pools[s->n_pools++] = p;
        }
}

/* What a guestd before us left, when it ended in the middle. */
static void recover(struct settings *s)
{
        char text[STATE_MAX], *rest, *line = text;

        if (!s->state_path || sysfs_read(AT_FDCWD, s->state_path, text, sizeof(text)) < 0)
                return;
        while ((line = strtok_r(line, "\n", &rest))) {
                char *value = strchr(line, ' ');

                if (value)
                        *value++ = '\0';
                if (value && strcmp(line, POOL_NAME) == 0)
                        recover_pool(s, value);
                for (int i = 0; value && i < SETTING_MAX; i++)
                        if (strcmp(line, settings[i].name) == 0 && is_value(i, value)) {
                                s->ours[i] = true;
                                snprintf(s->was[i], SETTING_VALUE_MAX, "%s", value);
                        }
                line = NULL;
        }
        (void)save(s); /* without what was no setting */
}

void settings_init(struct settings *s, int sys_fd, int proc_fd, const char *state_path)
{
        *s = (struct settings) { .sys_fd = sys_fd, .proc_fd = proc_fd, .state_path = state_path };
        recover(s);
}

bool settings_any(const struct settings *s)
{
        bool any = false;

        for (int i = 0; i < SETTING_MAX; i++)
                any |= s->ours[i];
        return any;
}

/* Whether there is something to write: 1, or 0 if the guest has this value of its own accord. Or -errno. */
static int claim(struct settings *s, enum setting which, const char *value)
{
        if (s->ours[which])
                return 1;
        int r = sysfs_read(root_of(s, which), settings[which].path, s->was[which], SETTING_VALUE_MAX);
        if (r < 0)
                return r;
        s->ours[which] = strcmp(s->was[which], value) != 0;
        return s->ours[which];
}

void settings_change(struct settings *s, struct setting_change *changes, size_t n)
{
        bool were_ours[SETTING_MAX];
        int saved = 0;

        memcpy(were_ours, s->ours, sizeof(were_ours));
        for (size_t i = 0; i < n; i++)
                changes[i].result = claim(s, changes[i].which, changes[i].value);
        if (memcmp(were_ours, s->ours, sizeof(were_ours)) != 0 && (saved = keep(s)) < 0)
                memcpy(s->ours, were_ours, sizeof(were_ours));
        for (size_t i = 0; i < n; i++) {
                struct setting_change *c = &changes[i];

                if (c->result <= 0)
                        continue;
                if (!s->ours[c->which]) {
                        c->result = saved;
                        continue;
                }
                c->result = sysfs_write(root_of(s, c->which), settings[c->which].path, c->value);
                if (c->result < 0 && !were_ours[c->which]) {
                        s->ours[c->which] = false;
                        (void)save(s);
                }
        }
}

int settings_replace(struct settings *s, enum setting which, const char *value)
{
        struct setting_change change = { which, value, 0 };

        settings_change(s, &change, 1);
        return change.result;
}

void settings_restore(struct settings *s, enum setting which)
{
        if (!s->ours[which])
                return;
        int r = sysfs_write(root_of(s, which), settings[which].path, s->was[which]);
        if (r < 0) {
                log_warning("%s cannot be set back to '%s': %s", settings[which].name, s->was[which],
                        strerror(-r));
                return;
        }
        s->ours[which] = false;
        (void)keep(s);
}

int settings_note_pools(struct settings *s, const struct pool *pools, size_t n_pools)
{
        size_t n_before = s->n_pools;

        for (size_t i = 0; i < n_pools; i++) {
                size_t k = 0;

                while (k < s->n_pools &&
                        (s->pools[k].node != pools[i].node || s->pools[k].page_bytes != pools[i].page_bytes))
                        k++;
                if (k == s->n_pools && k < POOLS_MAX)
                        s->pools[s->n_pools++] = pools[i];
        }
        if (s->n_pools == n_before)
                return 0;
        return keep(s);
}

void settings_set_pool(struct settings *s, size_t i, uint64_t n_pages)
{
        s->pools[i].n_pages = n_pages;
        (void)keep(s);
}

void settings_forget_pools(struct settings *s)
{
        if (s->n_pools == 0)
                return;
        s->n_pools = 0;
        (void)keep(s);
}
