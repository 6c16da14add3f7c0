/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The kernel's zones, from /proc/zoneinfo. The file grows with the number of CPUs, so it is read in pieces.
 */

#include "guestd/zones.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

/* Fewer blocks are looked at one by one: reading zoneinfo costs an emulated guest as much as six of them. */
#define LEARN_BLOCKS_MIN 8U
#define SPANS_MAX        64U

struct reading {
        void (*on_zone)(const struct zone_info *z, void *userdata);
        void *userdata;
        bool any;
        uint64_t page_bytes, spanned_bytes;
        struct zone_info zone;
};

static void zone_ends(struct reading *r)
{
        if (r->any)
                r->on_zone(&r->zone, r->userdata);
}

static bool take_pages(const struct reading *r, const char *line, const char *name, uint64_t *ret_bytes)
{
        size_t length = strlen(name);

        if (strncmp(line, name, length) != 0)
                return false;
        *ret_bytes = strtoull(line + length, NULL, 10) * r->page_bytes;
        return true;
}

/* Most lines are none of ours, and sscanf() is slow in an emulated guest: a glance decides. */
static void take_line(const char *line, void *userdata)
{
        static const char node[] = "Node ";
        struct reading *r = userdata;
        char name[16];

        if (strncmp(line, node, sizeof(node) - 1) == 0) {
                zone_ends(r);
                r->any = sscanf(line, "Node %*u, zone %15s", name) == 1;
                r->zone = (struct zone_info) { .zone = r->any ? zone_from_name(name) : ZONE_UNKNOWN };
                return;
        }
        line += strspn(line, " ");
        if (take_pages(r, line, "spanned ", &r->spanned_bytes) ||
                take_pages(r, line, "present ", &r->zone.present_bytes) ||
                take_pages(r, line, "pages free ", &r->zone.free_bytes) ||
                take_pages(r, line, "nr_zone_inactive_file ", &r->zone.cache_bytes))
                return;
        if (take_pages(r, line, "start_pfn:", &r->zone.start))
                r->zone.end = r->zone.start + r->spanned_bytes;
}

int zones_read(int proc_fd, void (*on_zone)(const struct zone_info *z, void *userdata), void *userdata)
{
        struct reading r = {
                .on_zone = on_zone, .userdata = userdata, .page_bytes = (uint64_t)sysconf(_SC_PAGESIZE)
        };
        int k = sysfs_read_lines(proc_fd, "zoneinfo", take_line, &r);

        if (k >= 0)
                zone_ends(&r);
        return k;
}

/* A reading of the file. */
struct spans {
        struct zone_info v[SPANS_MAX];
        size_t n;
        struct zone_account account;
};

static void note_zone(const struct zone_info *z, void *userdata)
{
        struct spans *spans = userdata;

        if (z->zone == ZONE_MOVABLE)
                spans->account.movable_bytes += z->present_bytes;
        else if (z->zone == ZONE_KERNEL)
                spans->account.kernel_bytes += z->present_bytes;
        if (z->start < z->end && spans->n++ < SPANS_MAX)
                spans->v[spans->n - 1] = *z;
}

static enum zone only_zone_of(const struct spans *spans, uint64_t start, uint64_t end)
{
        const struct zone_info *in = NULL;

        for (size_t i = 0; i < spans->n; i++) {
                const struct zone_info *z = &spans->v[i];

                if (end <= z->start || z->end <= start)
                        continue;
                if (in || start < z->start || z->end < end)
                        return ZONE_UNKNOWN;
                in = z;
        }
        return in ? in->zone : ZONE_UNKNOWN;
}

static bool is_unknown(const struct block *k)
{
        return k->state == BLOCK_ONLINE && k->zone == ZONE_MAX;
}

static void learn(const struct spans *spans, struct blocks *b)
{
        for (size_t i = 0; i < b->n; i++) {
                struct block *k = &b->v[i];
                uint64_t start = k->number * b->block_bytes;

                if (!is_unknown(k))
                        continue;
                enum zone zone = only_zone_of(spans, start, start + b->block_bytes);
                if (zone != ZONE_UNKNOWN)
                        k->zone = (uint8_t)zone;
        }
}

int zones_account(int proc_fd, struct blocks *b, struct zone_account *ret)
{
        struct spans spans = { 0 };
        int r = zones_read(proc_fd, note_zone, &spans);

        *ret = spans.account;
        if (r >= 0 && b && spans.n <= SPANS_MAX)
                learn(&spans, b);
        return r;
}

void zones_learn(int proc_fd, struct blocks *b)
{
        struct zone_account account;
        size_t n = 0;

        for (size_t i = 0; i < b->n; i++)
                n += is_unknown(&b->v[i]);
        if (n >= LEARN_BLOCKS_MIN)
                (void)zones_account(proc_fd, b, &account);
}
