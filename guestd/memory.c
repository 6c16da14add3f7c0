/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Reads /proc's accounts of memory, which fit into a page of the stack. No state. */

#include "guestd/memory.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "guestd/blocks.h"
#include "guestd/zones.h"

/* "Name:   123 kB" -> bytes. */
static bool field_bytes(const char *text, const char *name, uint64_t *ret)
{
        size_t length = strlen(name);

        for (const char *p = text; p; p = strchr(p, '\n'), p = p ? p + 1 : NULL)
                if (strncmp(p, name, length) == 0 && p[length] == ':') {
                        uint64_t v = strtoull(p + length + 1, NULL, 10);
                        return !__builtin_mul_overflow(v, (uint64_t)1024, ret);
                }
        return false;
}

static int read_meminfo(int proc_fd, struct guest_memory *m)
{
        char text[4096];

        int r = sysfs_read(proc_fd, "meminfo", text, sizeof(text));
        if (r < 0)
                return r;
        if (!field_bytes(text, "MemTotal", &m->total_bytes) ||
                !field_bytes(text, "MemFree", &m->free_bytes) ||
                !field_bytes(text, "MemAvailable", &m->available_bytes))
                return -EBADMSG;
        (void)field_bytes(text, "SwapTotal", &m->swap_total_bytes);
        (void)field_bytes(text, "SwapFree", &m->swap_free_bytes);
        return 0;
}

/* "some avg10=1.23 ..." -> 123. */
static bool pressure_centi(const char *text, const char *word, unsigned *ret)
{
        const char *p = strstr(text, word);
        unsigned whole, cents;

        if (!p || sscanf(p + strlen(word), " avg10=%3u.%2u", &whole, &cents) != 2)
                return false;
        *ret = MIN(whole * 100 + cents, 10000U);
        return true;
}

static void read_pressure(int proc_fd, struct guest_memory *m)
{
        char text[256];

        if (sysfs_read(proc_fd, "pressure/memory", text, sizeof(text)) < 0)
                return;
        m->has_pressure = pressure_centi(text, "some", &m->some_avg10_centi) &&
                          pressure_centi(text, "full", &m->full_avg10_centi);
}

/* The pages' number behind a name of vmstat, as bytes. */
static bool counter_bytes(const char *line, const char *name, uint64_t *ret)
{
        size_t length = strlen(name);

        if (strncmp(line, name, length) != 0 || line[length] != ' ')
                return false;
        *ret = strtoull(line + length, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
        return true;
}

static void take_counter(const char *line, void *userdata)
{
        struct guest_sample *s = userdata;

        /* Most lines are none of ours. */
        if (line[0] != 'w' && line[0] != 'p')
                return;
        /* Before Linux 5.9 only page cache was counted, under one name. */
        if (counter_bytes(line, "workingset_refault_file", &s->refault_file_bytes) ||
                counter_bytes(line, "workingset_refault", &s->refault_file_bytes) ||
                counter_bytes(line, "workingset_refault_anon", &s->refault_anon_bytes) ||
                counter_bytes(line, "pswpin", &s->swap_in_bytes))
                return;
        (void)counter_bytes(line, "pswpout", &s->swap_out_bytes);
}

/* "some ... total=123" -> 123. */
static bool pressure_total(const char *text, const char *word, uint64_t *ret)
{
        static const char key[] = " total=";
        const char *p = strstr(text, word), *end = p ? strchrnul(p, '\n') : NULL;

        p = p ? strstr(p, key) : NULL;
        if (!p || p > end)
                return false;
        *ret = strtoull(p + sizeof(key) - 1, NULL, 10) & (PROTO_COUNTER_END - 1);
        return true;
}

static void read_stalls(int proc_fd, struct guest_sample *s)
{
        char text[256];

        if (sysfs_read(proc_fd, "pressure/memory", text, sizeof(text)) < 0)
                return;
        s->has_pressure = pressure_centi(text, "some", &s->some_avg10_centi) &&
                          pressure_centi(text, "full", &s->full_avg10_centi) &&
                          pressure_total(text, "some", &s->some_total_usec) &&
                          pressure_total(text, "full", &s->full_total_usec);
}

static void add_movable(const struct zone_info *z, void *userdata)
{
        struct guest_sample *s = userdata;

        if (z->zone != ZONE_MOVABLE)
                return;
        s->movable_bytes += z->present_bytes;
        s->movable_free_bytes += z->free_bytes;
        s->movable_cache_bytes += z->cache_bytes;
}

int memory_read_sample(int proc_fd, struct guest_sample *ret)
{
        struct guest_sample s = { 0 };
        struct memory_now now;

        int r = memory_read_now(proc_fd, &now);
        if (r < 0)
                return r;
        s.total_bytes = now.total_bytes;
        s.available_bytes = now.available_bytes;
        s.free_bytes = now.free_bytes;
        (void)zones_read(proc_fd, add_movable, &s);
        (void)sysfs_read_lines(proc_fd, "vmstat", take_counter, &s);
        read_stalls(proc_fd, &s);

        uint64_t *const sizes[] = { &s.total_bytes, &s.available_bytes, &s.free_bytes, &s.movable_bytes,
                &s.movable_free_bytes, &s.movable_cache_bytes };
        uint64_t *const counters[] = { &s.refault_file_bytes, &s.refault_anon_bytes, &s.swap_in_bytes,
                &s.swap_out_bytes };
        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
                *sizes[i] = MIN(*sizes[i], (uint64_t)PROTO_ADDRESS_MAX - 1);
        for (size_t i = 0; i < ARRAY_SIZE(counters); i++)
                *counters[i] &= PROTO_COUNTER_END - 1;
        *ret = s;
        return 0;
}

int memory_read(int proc_fd, struct blocks *blocks, struct guest_memory *ret)
{
        struct guest_memory m = { 0 };
        struct zone_account account;

        int r = read_meminfo(proc_fd, &m);
        if (r < 0)
                return r;
        (void)zones_account(proc_fd, blocks, &account);
        m.kernel_bytes = account.kernel_bytes;
        m.movable_bytes = account.movable_bytes;
        read_pressure(proc_fd, &m);
        *ret = m;
        return 0;
}

static int parse_now(const char *text, struct memory_now *ret)
{
        struct memory_now m = { 0 };

        if (!field_bytes(text, "MemTotal", &m.total_bytes) || !field_bytes(text, "MemFree", &m.free_bytes) ||
                !field_bytes(text, "MemAvailable", &m.available_bytes))
                return -EBADMSG;
        (void)field_bytes(text, "Inactive(file)", &m.inactive_file_bytes);
        (void)field_bytes(text, "SwapFree", &m.swap_free_bytes);
        (void)field_bytes(text, "Hugetlb", &m.hugetlb_bytes);
        *ret = m;
        return 0;
}

int memory_read_now(int proc_fd, struct memory_now *ret)
{
        char text[4096];
        int r = sysfs_read(proc_fd, "meminfo", text, sizeof(text));

        return r < 0 ? r : parse_now(text, ret);
}

int memory_read_headroom(int meminfo_fd, struct memory_now *ret)
{
        char text[512]; /* they stand in the first three lines */
        ssize_t n = pread(meminfo_fd, text, sizeof(text) - 1, 0);

        if (n < 0)
                return -errno;
        text[n] = '\0';
        return parse_now(text, ret);
}

uint64_t memory_margin(uint64_t margin_bytes, uint64_t total_bytes)
{
        return margin_bytes > 0 ? margin_bytes : margin_of(total_bytes);
}

int memory_read_boot_id(int proc_fd, char *buffer, size_t size)
{
        int n = sysfs_read(proc_fd, "sys/kernel/random/boot_id", buffer, size);

        return n < 0 ? n : n == 0 ? -ENODATA : 0;
}
