/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A guest cannot hide what it has touched: its memory is its QEMU's, whose account the host's kernel keeps.
 * The pid comes from a socket's peer, and says who called listen(): that may have been a manager that handed
 * the socket on. So the process has to look like a QEMU that has the guest's memory as its own: by its name,
 * and by private writable memory for the whole of the guest (VmData leaves out what is shared: memfd, or a
 * file that vhost-user has open as well). As a QEMU maps more than its guest has, it may have hardly any
 * shared memory either. */

#include "hvd/resident.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"

#define QEMU_NAME "qemu"
/* Of shared memory: no guest is that small. */
#define SHARED_MAX (16 * MIB)
/* /proc/PID/status has 60 lines. */
#define LINES_MAX 200U
/* The 22nd word of /proc/PID/stat; the second one may hold anything, and ends with the last ')'. */
#define START_WORD 22U

static FILE *open_file(const char *proc, pid_t pid, const char *name)
{
        char path[256];

        snprintf(path, sizeof(path), "%s/%d/%s", proc, (int)pid, name);
        return fopen(path, "re");
}

static void closep_file(FILE **f)
{
        if (*f)
                fclose(*f);
}

/* 0: there is no such process. */
static uint64_t read_start(const char *proc, pid_t pid)
{
        _cleanup_(closep_file) FILE *f = open_file(proc, pid, "stat");
        char line[1024];
        uint64_t start;

        if (!f || !fgets(line, sizeof(line), f))
                return 0;
        const char *at = strrchr(line, ')');
        for (unsigned i = 2; at && i < START_WORD; i++)
                at = strchr(at + 1, ' ');
        return at && sscanf(at, " %" SCNu64, &start) == 1 ? start : 0;
}

struct status {
        bool is_qemu;
        uint64_t data, rss, shared, swap, huge; /* bytes */
};

static void take_line(const char *line, struct status *ret)
{
        const struct {
                const char *key;
                uint64_t *bytes;
        } keys[] = {
                { "VmData:", &ret->data },
                { "VmRSS:", &ret->rss },
                { "RssShmem:", &ret->shared },
                { "VmSwap:", &ret->swap },
                { "HugetlbPages:", &ret->huge },
        };
        uint64_t kib;

        for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
                if (strncmp(line, keys[i].key, strlen(keys[i].key)) == 0 &&
                        sscanf(line + strlen(keys[i].key), "%" SCNu64, &kib) == 1)
                        *keys[i].bytes = MIN(kib, UINT64_MAX / KIB / 4) * KIB;
        if (strncmp(line, "Name:\t" QEMU_NAME, strlen("Name:\t" QEMU_NAME)) == 0)
                ret->is_qemu = true;
}

static bool read_status(const char *proc, pid_t pid, struct status *ret)
{
        _cleanup_(closep_file) FILE *f = open_file(proc, pid, "status");
        char line[256];

        *ret = (struct status) { 0 };
        for (unsigned n = 0; f && n < LINES_MAX && fgets(line, sizeof(line), f); n++)
                take_line(line, ret);
        return ret->rss > 0;
}

bool resident_read(
        const char *proc, struct resident_process *p, pid_t pid, uint64_t guest_bytes, uint64_t *ret_bytes)
{
        struct status status;

        if (pid <= 0 || !read_status(proc, pid, &status))
                return false;
        /* Behind what was read: whoever has the pid now had it then, if it began long before. */
        uint64_t start = read_start(proc, pid);
        if (p->pid != pid || p->start_ticks == 0)
                *p = (struct resident_process) { .pid = pid, .start_ticks = start };
        if (start == 0 || start != p->start_ticks || !status.is_qemu || status.data < guest_bytes ||
                status.shared > SHARED_MAX)
                return false;
        *ret_bytes = status.rss + status.swap + status.huge;
        return true;
}
