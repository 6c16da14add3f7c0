/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Finds the virtio-serial port. No state. */

#include "guestd/port.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>

#include "common/cleanup.h"
#include "guestd/blocks.h"
#include "proto/message.h"

#define OPEN_FLAGS (O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)

static void closedirp(DIR **d)
{
        if (*d)
                closedir(*d);
}

static int open_path(const char *path)
{
        struct termios t;
        int fd = open(path, OPEN_FLAGS);

        if (fd < 0)
                return -errno;
        /* A serial line or a pty in its place, as in tests: bytes and nothing else. */
        if (tcgetattr(fd, &t) == 0) {
                cfmakeraw(&t);
                (void)tcsetattr(fd, TCSANOW, &t);
        }
        return fd;
}

static int open_by_class(int sys_fd)
{
        _cleanup_(closedirp) DIR *d = NULL;
        char path[300], name[PROTO_STRING_MAX];

        int fd = openat(sys_fd, "class/virtio-ports", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        if (!(d = fdopendir(fd))) {
                close_fd(fd);
                return -ENOMEM;
        }
        for (struct dirent *e; (e = readdir(d));) {
                if (e->d_name[0] == '.')
                        continue;
                snprintf(path, sizeof(path), "%s/name", e->d_name);
                if (sysfs_read(dirfd(d), path, name, sizeof(name)) < 0 || strcmp(name, PROTO_PORT_NAME) != 0)
                        continue;
                snprintf(path, sizeof(path), "/dev/%s", e->d_name);
                return open_path(path);
        }
        return -ENOENT;
}

int port_open(int sys_fd, const char *path)
{
        if (path)
                return open_path(path);

        int fd = open_path("/dev/virtio-ports/" PROTO_PORT_NAME);
        return fd != -ENOENT ? fd : open_by_class(sys_fd);
}
