/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Invariant: a setting is `ours` exactly while the file at state_path has a line for it: "NAME VALUE". The
 * file is written before the setting is, so that at worst a value is restored that never changed. */

#include "guestd/settings.h"

#include <fcntl.h>
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

static void save(const struct settings *s)
{
        char text[STATE_MAX];
        size_t length = 0;

        if (!s->state_path)
                return;
        for (int i = 0; i < SETTING_MAX; i++)
                if (s->ours[i])
                        length += (size_t)snprintf(
                                text + length, sizeof(text) - length, "%s %s\n", settings[i].name, s->was[i]);
        if (length == 0) {
                unlink(s->state_path);
                return;
        }
        _cleanup_close_ int fd =
                open(s->state_path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, text, length) != (ssize_t)length)
                log_debug("%s cannot be written: %s", s->state_path, strerror(errno));
}

/* A guestd before us ended in the middle. */
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
        for (int i = 0; i < SETTING_MAX; i++)
                settings_restore(s, i);
        unlink(s->state_path);
}

void settings_init(struct settings *s, int sys_fd, const char *state_path)
{
        *s = (struct settings) { .sys_fd = sys_fd, .state_path = state_path };
        recover(s);
}

int settings_replace(struct settings *s, enum setting which, const char *value)
{
        const char *path = settings[which].path;

        if (!s->ours[which]) {
                int r = sysfs_read(s->sys_fd, path, s->was[which], SETTING_VALUE_MAX);
                if (r < 0)
                        return r;
                if (strcmp(s->was[which], value) == 0)
                        return 0;
                s->ours[which] = true;
                save(s);
        }
        return sysfs_write(s->sys_fd, path, value);
}

void settings_restore(struct settings *s, enum setting which)
{
        if (!s->ours[which])
                return;
        s->ours[which] = false;
        int r = sysfs_write(s->sys_fd, settings[which].path, s->was[which]);
        if (r < 0)
                log_warning("%s cannot be set back to '%s': %s", settings[which].name, s->was[which],
                        strerror(-r));
        save(s);
}
