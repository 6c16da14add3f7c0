/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Invariant: a setting is `ours` exactly while the file at state_path has a line for it: "NAME VALUE". The
 * file is written before the setting is, and a setting whose line cannot be written is not changed: at worst
 * a value is restored that never changed. */

#include "guestd/settings.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "guestd/blocks.h"

#define STATE_MAX (SETTING_MAX * (SETTING_VALUE_MAX + 64))

/* Values are the words that the kernel is known to say, the last one NULL: nothing else is ever written back.
 */
static const struct {
        const char *path, *name, *values[5];
} settings[SETTING_MAX] = {
        [SETTING_AUTO_ONLINE] = { "devices/system/memory/auto_online_blocks", "auto_online_blocks",
                { "offline", "online", "online_kernel", "online_movable" } },
        [SETTING_RCU_EXPEDITED] = { "kernel/rcu_expedited", "rcu_expedited", { "0", "1" } },
};

static bool is_value(enum setting which, const char *value)
{
        for (const char *const *v = settings[which].values; *v; v++)
                if (strcmp(*v, value) == 0)
                        return true;
        return false;
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
                for (int i = 0; value && i < SETTING_MAX; i++)
                        if (strcmp(line, settings[i].name) == 0 && is_value(i, value)) {
                                s->ours[i] = true;
                                snprintf(s->was[i], SETTING_VALUE_MAX, "%s", value);
                        }
                line = NULL;
        }
        (void)save(s); /* without what was no setting */
}

void settings_init(struct settings *s, int sys_fd, const char *state_path)
{
        *s = (struct settings) { .sys_fd = sys_fd, .state_path = state_path };
        recover(s);
}

bool settings_any(const struct settings *s)
{
        bool any = false;

        for (int i = 0; i < SETTING_MAX; i++)
                any |= s->ours[i];
        return any;
}

int settings_replace(struct settings *s, enum setting which, const char *value)
{
        const char *path = settings[which].path;
        bool was_ours = s->ours[which];

        if (!was_ours) {
                int r = sysfs_read(s->sys_fd, path, s->was[which], SETTING_VALUE_MAX);
                if (r < 0)
                        return r;
                if (strcmp(s->was[which], value) == 0)
                        return 0;
                s->ours[which] = true;
                r = save(s);
                if (r < 0) {
                        s->ours[which] = false;
                        log_warning("%s stays as it is, as %s cannot be written: %s", settings[which].name,
                                s->state_path, strerror(-r));
                        return r;
                }
        }
        int r = sysfs_write(s->sys_fd, path, value);
        if (r < 0 && !was_ours) {
                s->ours[which] = false;
                (void)save(s);
        }
        return r;
}

void settings_restore(struct settings *s, enum setting which)
{
        if (!s->ours[which])
                return;
        int r = sysfs_write(s->sys_fd, settings[which].path, s->was[which]);
        if (r < 0) {
                log_warning("%s cannot be set back to '%s': %s", settings[which].name, s->was[which],
                        strerror(-r));
                return;
        }
        s->ours[which] = false;
        r = save(s);
        if (r < 0)
                log_warning("%s cannot be written: %s", s->state_path, strerror(-r));
}
