/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns the uevent socket. An offline of 2 GiB sends 16 events and guestd is the cause of all of them, so the
 * operation pauses the monitor while its worker runs rather than being woken for each. */

#include "guestd/monitor.h"

#include <libudev.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "guestd/uevent.h"

/* Only a limit: the kernel charges what is really waiting. An addition of 1 TiB to a guest with blocks of 128
 * MiB sends 16384 events of about 1 KiB. */
#define RECEIVE_BUFFER (32 * 1024 * 1024)
#define BATCH          32

struct monitor {
        struct loop *loop;
        struct loop_io io;
        struct udev *udev;
        struct udev_monitor *udev_monitor;
        struct monitor_handlers handlers;
        void *userdata;
        bool watched;
        bool is_draining, drain_again;
        bool overflowed; /* and the blocks were not listed since */
};

/* Read as it is: making a udev_device of each costs an emulated guest half a millisecond, in the middle of
 * the addition that it reports. */
static void handle_message(struct monitor *m, const char *text, size_t length)
{
        enum block_state state;
        uint32_t number;

        if (uevent_read_block(text, length, &number, &state) >= 0)
                m->handlers.on_block(number, state, m->userdata);
        else if (strstr(text, "/virtio-ports/"))
                m->handlers.on_port(m->userdata);
}

/* Takes what waits, many messages at a time: a system call is dear in an emulated guest. Returns whether
 * there may be more. */
static bool receive(struct monitor *m)
{
        static char texts[BATCH][UEVENT_MAX];
        struct sockaddr_nl from[BATCH];
        struct iovec iov[BATCH];
        struct mmsghdr messages[BATCH];

        for (size_t i = 0; i < BATCH; i++) {
                iov[i] = (struct iovec) { .iov_base = texts[i], .iov_len = UEVENT_MAX - 1 };
                messages[i] = (struct mmsghdr) { .msg_hdr = { .msg_name = &from[i],
                                                         .msg_namelen = sizeof(from[i]),
                                                         .msg_iov = &iov[i],
                                                         .msg_iovlen = 1 } };
        }
        int n = recvmmsg(m->io.fd, messages, BATCH, MSG_DONTWAIT, NULL);
        if (n < 0) {
                if (errno == EINTR)
                        return true;
                if (errno != ENOBUFS)
                        return false;
                m->overflowed = true;
                return true;
        }
        for (int i = 0; i < n; i++) {
                /* Of the kernel's group, and from the kernel: root could send here too. */
                if (from[i].nl_pid != 0 || from[i].nl_groups == 0)
                        continue;
                texts[i][messages[i].msg_len] = '\0';
                handle_message(m, texts[i], messages[i].msg_len);
        }
        return n == BATCH;
}

void monitor_drain(struct monitor *m)
{
        if (!m)
                return;
        m->drain_again = true;
        /* Called by a handler: what waits is newer than what is still to be handled of this batch. */
        if (m->is_draining)
                return;
        m->is_draining = true;
        while (m->drain_again) {
                m->drain_again = false;
                while (receive(m))
                        ;
                if (!m->overflowed)
                        continue;
                /* The kernel tells of it before what it had queued until then, and queues nothing more until
                 * all of that was read: only a list that is made now is newer than all that was handled, and
                 * what it misses is still told. */
                m->overflowed = false;
                m->drain_again = true;
                m->handlers.on_overflow(m->userdata);
        }
        m->is_draining = false;
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
