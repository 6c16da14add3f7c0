/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What the host sees that a guest has touched of its memory, whatever the guest says. */

/* The process that was looked at last; zeroed: none yet. */
struct resident_process {
        pid_t pid;
        uint64_t start_ticks;
};

/* Of the QEMU `pid` whose guest has guest_bytes: what of its memory lies in the host's memory or swap, with
 * what QEMU itself needs. proc: where the host's /proc is. False: not known, as the process is hidden, is no
 * QEMU, is another one than the last time under the same pid, or shares the guest's memory with others, which
 * may have touched more of it. Blocks for reading two files of /proc. */
bool resident_read(
        const char *proc, struct resident_process *p, pid_t pid, uint64_t guest_bytes, uint64_t *ret_bytes);
