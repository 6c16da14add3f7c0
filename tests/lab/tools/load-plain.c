/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Loads of one kind of memory each, all of which the kernel can move or drop. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "load.h"

#define STEP_BYTES (64 * KIB)

static struct {
        char *start;
        uint64_t bytes;
} memory;
static int file_fd = -1;
static uint64_t file_bytes;
static char buffer[STEP_BYTES];

/* --- page cache --- */

static void mount_at(const char *device, const char *type, unsigned long flags, const char *options)
{
        mkdir(LOAD_MOUNT, 0700);
        if (mount(device, LOAD_MOUNT, type, flags, options) < 0)
                load_die("mount: %s", strerror(errno));
}

static void cache_build(int argc, char **argv)
{
        struct stat status;

        mount_at(argv[0], "ext4", MS_RDONLY, "");
        file_fd = open(LOAD_MOUNT "/file", O_RDONLY | O_CLOEXEC);
        file_bytes = load_parse_number(argv[1]) * MIB;
        /* More than there is, so that reclaim has begun when its end is read. */
        if (file_bytes == 0)
                file_bytes = load_meminfo("MemTotal") / 10 * 11 / MIB * MIB;
        if (file_fd < 0 || fstat(file_fd, &status) < 0 || (uint64_t)status.st_size < file_bytes)
                load_die("%s has no file of that size", argv[0]);
        /* The kernel reads no more at once than the device's read-ahead, or this. */
        for (uint64_t offset = 0; offset < file_bytes; offset += 2 * STEP_BYTES)
                posix_fadvise(file_fd, (off_t)offset, 2 * STEP_BYTES, POSIX_FADV_WILLNEED);
        printf("%llu MiB of page cache\n", (unsigned long long)(load_meminfo("Cached") / MIB));
}

static void cache_live(void)
{
        if (pread(file_fd, buffer, STEP_BYTES, (off_t)(load_random(file_bytes / STEP_BYTES) * STEP_BYTES)) <
                0)
                exit(1);
        usleep(1000);
}

const struct load_kind load_cache = {
        .name = "cache",
        .arguments = "DEVICE MIB",
        .help = "so much of /file on this ext4 is in the page cache (0: all that fits); reads go on",
        .n_arguments = -2,
        .build = cache_build,
        .live = cache_live,
};

/* --- anonymous memory --- */

static void anon_build(int argc, char **argv)
{
        memory.bytes = load_meminfo("MemTotal") / 100 * load_parse_number(argv[0]) / STEP_BYTES * STEP_BYTES;
        memory.start = load_take(memory.bytes, true);
        printf("%llu MiB of anonymous memory\n", (unsigned long long)(memory.bytes / MIB));
}

/* As fast as it can, all over. */
static void anon_live(void)
{
        ((volatile char *)memory.start)[load_random(memory.bytes)]++;
}

const struct load_kind load_anon = {
        .name = "anon",
        .arguments = "PERCENT",
        .help = "of all memory, by a program that writes to it all the time",
        .n_arguments = -1,
        .build = anon_build,
        .live = anon_live,
};

/* --- tmpfs --- */

static void tmpfs_build(int argc, char **argv)
{
        uint64_t n = load_parse_number(argv[0]) * MIB;

        mount_at("none", "tmpfs", 0, "size=0");
        file_fd = open(LOAD_MOUNT "/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        for (; file_bytes < n; file_bytes += STEP_BYTES)
                if (write(file_fd, buffer, STEP_BYTES) != (ssize_t)STEP_BYTES)
                        load_die("write: %s", strerror(errno));
        printf("%llu MiB in a tmpfs\n", (unsigned long long)(file_bytes / MIB));
}

static void tmpfs_live(void)
{
        if (pwrite(file_fd, buffer, 4096, (off_t)(load_random(file_bytes / 4096) * 4096)) < 0)
                exit(1);
        usleep(1000);
}

const struct load_kind load_tmpfs = {
        .name = "tmpfs",
        .arguments = "MIB",
        .help = "a file in a tmpfs, without swap; writes go on",
        .n_arguments = -1,
        .build = tmpfs_build,
        .live = tmpfs_live,
};

/* --- locked memory --- */

static void memory_live(void)
{
        ((volatile char *)memory.start)[load_random(memory.bytes)]++;
        usleep(1000);
}

static void mlock_build(int argc, char **argv)
{
        memory.bytes = load_parse_number(argv[0]) * MIB;
        memory.start = load_take(memory.bytes, false);
        if (mlock(memory.start, memory.bytes) < 0)
                load_die("mlock: %s", strerror(errno));
        printf("%llu MiB locked\n", (unsigned long long)load_meminfo("Mlocked") / MIB);
}

const struct load_kind load_mlock = {
        .name = "mlock",
        .arguments = "MIB",
        .help = "a locked region; writes go on",
        .n_arguments = -1,
        .build = mlock_build,
        .live = memory_live,
};

/* --- huge pages --- */

static void hugetlb_build(int argc, char **argv)
{
        uint64_t huge = load_meminfo("Hugepagesize"), n = load_parse_number(argv[0]) * MIB / huge;

        memory.bytes = load_parse_number(argv[1]) * MIB / huge * huge;
        load_write_number("/proc/sys/vm/nr_hugepages", n);
        if (load_meminfo("HugePages_Total") != n)
                load_die("the pool has %llu huge pages, not %llu",
                        (unsigned long long)load_meminfo("HugePages_Total"), (unsigned long long)n);
        memory.start = mmap(
                NULL, memory.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
        if (memory.start == MAP_FAILED)
                load_die("mmap: %s", strerror(errno));
        for (uint64_t i = 0; i < memory.bytes; i += huge)
                ((volatile char *)memory.start)[i] = 1;
        printf("%llu huge pages in the pool, %llu in use\n", (unsigned long long)n,
                (unsigned long long)(memory.bytes / huge));
}

const struct load_kind load_hugetlb = {
        .name = "hugetlb",
        .arguments = "POOL-MIB USED-MIB",
        .help = "a pool of huge pages, a part of which is in use; writes go on",
        .n_arguments = -2,
        .build = hugetlb_build,
        .live = memory_live,
};
