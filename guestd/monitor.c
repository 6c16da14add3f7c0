/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns the uevent socket. An offline of 2 GiB sends 16 events and guestd is the cause of all of them, so the
 * operation pauses the monitor while its worker runs rather than being woken for each. */

#include "guestd/monitor.h"

#include <libudev.h>
#include <string.h>

#include "common/cleanup.h"
#include "guestd/blocks.h"

/* Only a limit: the kernel charges what is really waiting. An addition of 1 TiB to a guest with blocks of 128
 * MiB sends 16384 events of about 1 KiB. */
#define RECEIVE_BUFFER (32 * 1024 * 1024)

struct monitor {
        struct loop *loop;
        struct loop_io io;
        struct udev *udev;
        struct udev_monitor *udev_monitor;
        struct monitor_handlers handlers;
        void *userdata;
        bool watched;
};

static void udev_device_unrefp(struct udev_device **d)
{
        udev_device_unref(*d);
}

static void handle_block(struct monitor *m, struct udev_device *d)
{
        static const struct {
                const char *action;
                enum block_state state;
        } actions[] = {
                { "add", BLOCK_OFFLINE }, /* before its "online", if that comes */
                { "online", BLOCK_ONLINE },
                { "offline", BLOCK_OFFLINE },
                { "remove", BLOCK_ABSENT },
        };
        const char *action = udev_device_get_action(d), *name = udev_device_get_sysname(d);
        uint32_t number;

        if (!action || !name || block_number_from_name(name, &number) < 0)
                return;
        for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
                if (strcmp(action, actions[i].action) == 0)
                        m->handlers.on_block(number, actions[i].state, m->userdata);
}

/* 0: nothing waits any more. */
static int receive(struct monitor *m)
{
        _cleanup_(udev_device_unrefp) struct udev_device *d = NULL;

        errno = 0;
        d = udev_monitor_receive_device(m->udev_monitor);
        if (!d) {
                if (errno != ENOBUFS)
                        return 0;
                m->handlers.on_overflow(m->userdata);
                return 1;
        }
        const char *subsystem = udev_device_get_subsystem(d);
        if (subsystem && strcmp(subsystem, "memory") == 0)
                handle_block(m, d);
        else
                m->handlers.on_port(m->userdata);
        return 1;
}

void monitor_drain(struct monitor *m)
{
        while (m && receive(m) > 0)
                ;
}

static void on_ready(struct loop_io *io, uint32_t events)
{
        monitor_drain(io->userdata);
}

void monitor_pause(struct monitor *m)
{
        if (m && m->watched) {
                loop_remove(m->loop, &m->io);
                m->watched = false;
        }
}

void monitor_resume(struct monitor *m)
{
        if (!m || m->watched)
                return;
        m->watched = loop_add(m->loop, &m->io, EPOLLIN) >= 0;
        monitor_drain(m);
}

struct monitor *monitor_free(struct monitor *m)
{
        if (!m)
                return NULL;
        monitor_pause(m);
        udev_monitor_unref(m->udev_monitor);
        udev_unref(m->udev);
        free(m);
        return NULL;
}

static void monitor_freep(struct monitor **m)
{
        monitor_free(*m);
}

int monitor_new(
        struct loop *loop, const struct monitor_handlers *handlers, void *userdata, struct monitor **ret)
{
        _cleanup_(monitor_freep) struct monitor *m = calloc(1, sizeof(*m));
        int r;

        if (!m)
                return -ENOMEM;
        *m = (struct monitor) {
                .loop = loop,
                .io = { .fd = -1, .on_ready = on_ready, .userdata = m },
                .handlers = *handlers,
                .userdata = userdata,
        };
        errno = 0;
        if (!(m->udev = udev_new()) || !(m->udev_monitor = udev_monitor_new_from_netlink(m->udev, "kernel")))
                return errno > 0 ? -errno : -ENOMEM;
        if ((r = udev_monitor_filter_add_match_subsystem_devtype(m->udev_monitor, "memory", NULL)) < 0 ||
                (r = udev_monitor_filter_add_match_subsystem_devtype(m->udev_monitor, "virtio-ports", NULL)) <
                        0)
                return r;
        (void)udev_monitor_set_receive_buffer_size(m->udev_monitor, RECEIVE_BUFFER);
        if ((r = udev_monitor_enable_receiving(m->udev_monitor)) < 0)
                return r;
        m->io.fd = udev_monitor_get_fd(m->udev_monitor);
        r = loop_add(loop, &m->io, EPOLLIN);
        if (r < 0)
                return r;
        m->watched = true;
        *ret = steal_pointer(m);
        return 0;
}
