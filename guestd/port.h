/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Opens the guest's end of the channel for reading and writing, non-blocking: `path` if it is not NULL, else
 * /dev/virtio-ports/PROTO_PORT_NAME (udev's name for it), else /dev/NAME for the NAME that
 * <sys_fd>/class/virtio-ports/NAME/name says it has (an initramfs has no udev). The fd; -ENOENT: there is no
 * such port; -EBUSY: somebody else has it open. */
int port_open(int sys_fd, const char *path);
