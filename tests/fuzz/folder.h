/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

/* A folder in memory for parsers that read files. It is made once for a process and emptied at its exit; the
 * files stay open, as opening them anew would be most of what a run costs. */

#define FOLDER_FILES_MAX 20U
#define FOLDER_FILE_MAX  4096U

static struct {
        char path[64];
        const char *names[FOLDER_FILES_MAX];
        int fds[FOLDER_FILES_MAX];
        char texts[FOLDER_FILES_MAX][FOLDER_FILE_MAX]; /* what is in them */
        size_t sizes[FOLDER_FILES_MAX];
        unsigned n;
} folder;

static inline void folder_die(const char *what)
{
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        abort();
}

/* Leaves files and the folders that they are in, the deepest first. */
static inline void folder_remove(void)
{
        char path[256];

        for (unsigned i = 0; i < folder.n; i++) {
                snprintf(path, sizeof(path), "%s/%s", folder.path, folder.names[i]);
                unlink(path);
        }
        for (unsigned i = 0; i < folder.n; i++) {
                snprintf(path, sizeof(path), "%s/%s", folder.path, folder.names[i]);
                for (char *slash; (slash = strrchr(path, '/')) && slash > path + strlen(folder.path);) {
                        *slash = '\0';
                        rmdir(path);
                }
        }
        rmdir(folder.path);
}

static inline void folder_make(const char *const *names, unsigned n)
{
        char path[256];

        if (folder.n > 0)
                return;
        snprintf(folder.path, sizeof(folder.path), "%s/opendlpar-fuzz-XXXXXX",
                access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        if (!mkdtemp(folder.path))
                folder_die(folder.path);
        for (unsigned i = 0; i < n; i++) {
                snprintf(path, sizeof(path), "%s/%s", folder.path, names[i]);
                for (char *p = path + strlen(folder.path) + 1; (p = strchr(p, '/')); *p++ = '/') {
                        *p = '\0';
                        if (mkdir(path, 0700) < 0 && errno != EEXIST)
                                folder_die(path);
                }
                folder.names[i] = names[i];
                folder.fds[i] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
                if (folder.fds[i] < 0)
                        folder_die(path);
        }
        folder.n = n;
        atexit(folder_remove);
}

/* What is longer than FOLDER_FILE_MAX is cut off there. A file that has it already is left alone: two runs
 * differ in a file or two, and system calls are most of what a run costs. */
static inline void folder_write(unsigned i, const void *data, size_t size)
{
        size = MIN(size, FOLDER_FILE_MAX);
        if (folder.sizes[i] == size && memcmp(folder.texts[i], data, size) == 0)
                return;
        memcpy(folder.texts[i], data, size);
        folder.sizes[i] = size;
        if (ftruncate(folder.fds[i], 0) < 0 || pwrite(folder.fds[i], data, size, 0) != (ssize_t)size)
                folder_die(folder.names[i]);
}

/* The input cut into pieces at each NUL: one for each file in turn, what is missing is empty. */
static inline void folder_write_pieces(const uint8_t *data, size_t size, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                const uint8_t *end = size > 0 ? memchr(data, '\0', size) : NULL;
                size_t length = end ? (size_t)(end - data) : size;

                folder_write(i, data, length);
                data += length + (end ? 1 : 0);
                size -= length + (end ? 1 : 0);
        }
}
