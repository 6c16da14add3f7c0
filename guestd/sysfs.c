/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The files of a memory block and how their words are read. No state: everything goes through a directory
 * descriptor, so that tests put another tree in its place. */

#include "guestd/blocks.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/lines.h"

int sysfs_read(int dir_fd, const char *path, char *buffer, size_t size)
{
        _cleanup_close_ int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
                return -errno;

        ssize_t n;
        do
                n = read(fd, buffer, size - 1);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        while (n > 0 && (buffer[n - 1] == '\n' || buffer[n - 1] == ' '))
                n--;
        buffer[n] = '\0';
        return (int)n;
}

static void line_reader_donep(struct line_reader *r)
{
        line_reader_done(r);
}

int sysfs_read_lines(
        int dir_fd, const char *path, void (*on_line)(const char *line, void *userdata), void *userdata)
{
        _cleanup_(line_reader_donep) struct line_reader reader;
        _cleanup_close_ int fd = -1;
        size_t length;
        char *line;
        ssize_t n;

        line_reader_init(&reader, SYSFS_LINE_MAX, false);
        fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
                return -errno;
        while ((n = line_reader_read(&reader, fd, 4096)) > 0)
                for (int k; (k = line_reader_next(&reader, &line, &length)) != 0;)
                        if (k > 0)
                                on_line(line, userdata);
        return (int)n;
}

int sysfs_write(int dir_fd, const char *path, const char *value)
{
        /* O_TRUNC as a shell has it: nothing to sysfs, and right for a file in its place. */
        _cleanup_close_ int fd = openat(dir_fd, path, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return -errno;

        /* Not repeated on EINTR: for a block's state that is the kernel's answer, "a signal ended the
         * attempt". */
        fault_point("write", path);
        ssize_t n = write(fd, value, strlen(value));
        fault_point("written", path);
        if (n < 0)
                return -errno;
        return (size_t)n == strlen(value) ? 0 : -EIO;
}

enum block_state sysfs_read_state(int memory_fd, uint32_t number)
{
        char path[40], word[32];

        snprintf(path, sizeof(path), "memory%u/state", number);
        int n = sysfs_read(memory_fd, path, word, sizeof(word));
        if (n == -ENOENT || n == -ENODEV)
                return BLOCK_ABSENT;
        if (n < 0)
                return BLOCK_CHANGING;
        if (strcmp(word, "online") == 0)
                return BLOCK_ONLINE;
        if (strcmp(word, "offline") == 0)
                return BLOCK_OFFLINE;
        return BLOCK_CHANGING;
}

enum zone zone_from_name(const char *name)
{
        if (strcmp(name, "Movable") == 0)
                return ZONE_MOVABLE;
        if (strcmp(name, "Normal") == 0 || strcmp(name, "DMA") == 0 || strcmp(name, "DMA32") == 0 ||
                strcmp(name, "HighMem") == 0)
                return ZONE_KERNEL;
        return ZONE_UNKNOWN;
}

enum zone sysfs_read_zone(int memory_fd, uint32_t number)
{
        char path[48], words[128];

        snprintf(path, sizeof(path), "memory%u/valid_zones", number);
        int n = sysfs_read(memory_fd, path, words, sizeof(words));
        if (n == -ENOENT)
                return ZONE_NONE; /* a kernel without memory hot-remove */
        if (n < 0)
                return ZONE_UNKNOWN;
        words[strcspn(words, " \t\n")] = '\0';
        return strcmp(words, "none") == 0 ? ZONE_NONE : zone_from_name(words);
}

int block_number_from_name(const char *name, uint32_t *ret_number)
{
        uint64_t v = 0;

        if (strncmp(name, "memory", 6) != 0 || name[6] == '\0')
                return -EINVAL;
        for (const char *p = name + 6; *p; p++) {
                if (*p < '0' || *p > '9')
                        return -EINVAL;
                v = v * 10 + (uint64_t)(*p - '0');
                if (v >= UINT32_MAX)
                        return -EINVAL;
        }
        *ret_number = (uint32_t)v;
        return 0;
}
