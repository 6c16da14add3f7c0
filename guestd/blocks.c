/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns the inventory: a sorted vector of 8 bytes a block, since block numbers are sparse (memory may sit at
 * high addresses) and a guest of 16 TiB still fits into 1 MiB.
 *
 * States are kept by uevents alone: each transition of the kernel sends one, and they end in the truth even
 * when older ones are read late. Zones and nodes cost a file or a directory each, so they are looked up only
 * when somebody asks, and forgotten when the block's state changes. */

#include "guestd/blocks.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/size.h"

static void closedirp(DIR **d)
{
        if (*d)
                closedir(*d);
}

/* opendir() below dir_fd: NULL and errno. */
static DIR *opendir_at(int dir_fd, const char *path)
{
        int fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return NULL;
        DIR *d = fdopendir(fd);
        if (!d)
                close_fd(fd);
        return d;
}

/* Where `number` is, or would go. */
static size_t position(const struct blocks *b, uint32_t number)
{
        size_t low = 0, high = b->n;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (b->v[middle].number < number)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

struct block *blocks_find(struct blocks *b, uint32_t number)
{
        size_t i = position(b, number);

        return i < b->n && b->v[i].number == number ? &b->v[i] : NULL;
}

static int insert(struct blocks *b, uint32_t number, enum block_state state)
{
        size_t i = position(b, number);

        if (b->n == b->allocated) {
                size_t want = b->allocated + b->allocated / 2 + 32;
                struct block *v = realloc(b->v, want * sizeof(*v));
                if (!v)
                        return -ENOMEM;
                b->v = v;
                b->allocated = want;
        }
        memmove(b->v + i + 1, b->v + i, (b->n - i) * sizeof(*b->v));
        b->v[i] = (struct block) { .number = number, .node = -1, .state = (uint8_t)state, .zone = ZONE_MAX };
        b->n++;
        return 0;
}

enum block_state blocks_note(struct blocks *b, uint32_t number, enum block_state state)
{
        struct block *k = blocks_find(b, number);
        enum block_state before = k ? (enum block_state)k->state : BLOCK_ABSENT;

        if (state == before)
                return before;
        b->n_changes++;
        if (state == BLOCK_ABSENT) {
                size_t i = (size_t)(k - b->v);
                memmove(b->v + i, b->v + i + 1, (b->n - i - 1) * sizeof(*b->v));
                b->n--;
        } else if (!k)
                (void)insert(b, number, state); /* out of memory: found again by the next scan or refresh */
        else {
                k->state = (uint8_t)state;
                k->zone = ZONE_MAX;
        }
        return before;
}

enum block_state blocks_state(struct blocks *b, uint32_t number)
{
        struct block *k = blocks_find(b, number);

        return k ? (enum block_state)k->state : BLOCK_ABSENT;
}

void blocks_count(struct blocks *b, uint64_t *ret_online, uint64_t *ret_offline)
{
        uint64_t online = 0;

        for (size_t i = 0; i < b->n; i++)
                online += b->v[i].state == BLOCK_ONLINE;
        *ret_online = online;
        *ret_offline = b->n - online;
}

enum block_state blocks_refresh(struct blocks *b, uint32_t number)
{
        enum block_state state = sysfs_read_state(b->memory_fd, number);

        blocks_note(b, number, state);
        return state;
}

enum zone blocks_zone(struct blocks *b, uint32_t number)
{
        struct block *k = blocks_find(b, number);

        if (!k || k->state == BLOCK_OFFLINE)
                return ZONE_UNKNOWN;
        if (k->zone == ZONE_MAX)
                k->zone = (uint8_t)sysfs_read_zone(b->memory_fd, number);
        return (enum zone)k->zone;
}

static int node_from_name(const char *name)
{
        unsigned v;
        char rest;

        if (sscanf(name, "node%5u%c", &v, &rest) != 1 || v > INT16_MAX)
                return -1;
        return (int)v;
}

/* -1: it has none yet. The kernel tells of all blocks of a device before it links the first to its node. */
static int look_up_node(struct blocks *b, uint32_t number, int hint)
{
        char path[64];

        /* The neighbour's node is a good guess, and a look-up is cheaper than reading the directory. */
        snprintf(path, sizeof(path), "memory%u/node%d", number, hint);
        if (faccessat(b->memory_fd, path, F_OK, 0) == 0)
                return hint;

        snprintf(path, sizeof(path), "memory%u", number);
        _cleanup_(closedirp) DIR *d = opendir_at(b->memory_fd, path);
        if (!d)
                return -1;
        for (struct dirent *e; (e = readdir(d));) {
                int node = node_from_name(e->d_name);
                if (node >= 0)
                        return node;
        }
        return -1;
}

unsigned blocks_node(struct blocks *b, uint32_t number)
{
        struct block *k = blocks_find(b, number);

        if (!k || b->one_node)
                return 0;
        if (k->node < 0) {
                int hint = k > b->v && k[-1].node >= 0 ? k[-1].node : 0;
                k->node = (int16_t)look_up_node(b, number, hint);
        }
        return k->node < 0 ? 0 : (unsigned)k->node;
}

int blocks_scan(struct blocks *b)
{
        _cleanup_(closedirp) DIR *d = opendir_at(b->memory_fd, ".");
        uint32_t number;

        if (!d)
                return -errno;
        b->n = 0;
        b->n_changes++;
        for (struct dirent *e; (e = readdir(d));) {
                if (block_number_from_name(e->d_name, &number) < 0)
                        continue;
                enum block_state state = sysfs_read_state(b->memory_fd, number);
                if (state == BLOCK_ABSENT || blocks_find(b, number))
                        continue;
                int r = insert(b, number, state);
                if (r < 0)
                        return r;
        }
        return 0;
}

int blocks_open(struct blocks *b, int sys_fd)
{
        _cleanup_close_ int fd = -1;
        char word[32], *end;

        *b = (struct blocks) { .memory_fd = -1 };
        fd = openat(sys_fd, "devices/system/memory", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        int r = sysfs_read(fd, "block_size_bytes", word, sizeof(word));
        if (r < 0)
                return r;
        errno = 0;
        uint64_t bytes = strtoull(word, &end, 16); /* hexadecimal without 0x */
        if (errno != 0 || end == word || *end != '\0' || bytes < MIB || (bytes & (bytes - 1)) != 0)
                return -EINVAL;

        /* Set at boot; a kernel without NUMA has no such file. */
        r = sysfs_read(sys_fd, "devices/system/node/possible", word, sizeof(word));
        b->one_node = r == -ENOENT || (r >= 0 && strcmp(word, "0") == 0);
        b->memory_fd = steal_fd(&fd);
        b->block_bytes = bytes;
        r = blocks_scan(b);
        if (r < 0)
                blocks_close(b);
        return r;
}

void blocks_close(struct blocks *b)
{
        b->memory_fd = close_fd(b->memory_fd);
        free(b->v);
        b->v = NULL;
        b->n = b->allocated = 0;
}

/* An offline that fails sends no event when its block is online again: what was seen to change is looked at
 * anew. */
static enum block_state settled_state(struct blocks *b, uint32_t number)
{
        struct block *k = blocks_find(b, number);

        if (!k)
                return BLOCK_ABSENT;
        if (k->state == BLOCK_CHANGING) {
                enum block_state now = sysfs_read_state(b->memory_fd, number);
                if (now != BLOCK_ABSENT && now != BLOCK_CHANGING) { /* absent: its event will say so */
                        b->n_changes++;
                        k->state = (uint8_t)now;
                        k->zone = ZONE_MAX; /* while it changed, valid_zones named another thing */
                }
        }
        return (enum block_state)k->state;
}

/* A growing list of runs. add() returns 1 when the block would need a run beyond max. */
struct runs {
        struct block_range *v;
        size_t n, allocated, max;
};

static int runs_add(struct runs *runs, struct blocks *b, uint32_t number)
{
        enum block_state state = settled_state(b, number);
        enum zone zone = state == BLOCK_ABSENT ? ZONE_UNKNOWN : blocks_zone(b, number);
        unsigned node = blocks_node(b, number);
        uint64_t start = number * b->block_bytes;
        struct block_range *last = runs->n > 0 ? &runs->v[runs->n - 1] : NULL;

        if (last && last->start + last->length == start && last->state == state && last->zone == zone &&
                last->node == node) {
                last->length += b->block_bytes;
                return 0;
        }
        if (runs->n >= runs->max)
                return 1;
        if (runs->n == runs->allocated) {
                size_t want = MIN(runs->allocated * 2 + 8, runs->max);
                struct block_range *v = realloc(runs->v, want * sizeof(*v));
                if (!v)
                        return -ENOMEM;
                runs->v = v;
                runs->allocated = want;
        }
        runs->v[runs->n++] = (struct block_range) { start, b->block_bytes, state, zone, node };
        return 0;
}

int blocks_ranges(struct blocks *b, uint64_t from_address, size_t max, struct block_range **ret,
        size_t *ret_n, uint64_t *ret_next)
{
        struct runs runs = { .max = max };
        uint64_t from = (from_address + b->block_bytes - 1) / b->block_bytes, next = 0;
        size_t i = from > UINT32_MAX ? b->n : position(b, (uint32_t)from);

        for (; i < b->n; i++) {
                int r = runs_add(&runs, b, b->v[i].number);
                if (r < 0) {
                        free(runs.v);
                        return r;
                }
                if (r > 0) {
                        next = b->v[i].number * b->block_bytes;
                        break;
                }
        }
        *ret = runs.v;
        *ret_n = runs.n;
        *ret_next = next;
        return 0;
}

int blocks_ranges_of(struct blocks *b, const struct mem_range *targets, size_t n_targets, size_t max,
        struct block_range **ret, size_t *ret_n)
{
        struct runs runs = { .max = max };

        TARGETS_FOREACH (b, targets, n_targets, number) {
                int r = runs_add(&runs, b, number);
                if (r < 0) {
                        free(runs.v);
                        return r;
                }
        }
        *ret = runs.v;
        *ret_n = runs.n;
        return 0;
}

int blocks_check_targets(
        const struct blocks *b, const struct mem_range *targets, size_t n_targets, struct error *ret_error)
{
        uint64_t n = 0;

        if (n_targets == 0)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT, "The request names no memory");
        for (size_t i = 0; i < n_targets; i++) {
                if (targets[i].start % b->block_bytes != 0 || targets[i].length % b->block_bytes != 0 ||
                        targets[i].length == 0)
                        return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                                "%s at 0x%" PRIx64 " is not whole memory blocks of %s",
                                SIZE(targets[i].length), targets[i].start, SIZE(b->block_bytes));
                n += targets[i].length / b->block_bytes;
                if (n > BLOCKS_TARGET_MAX ||
                        (targets[i].start + targets[i].length) / b->block_bytes >= UINT32_MAX)
                        return error_set(ret_error, ERROR_LIMIT,
                                "A request may name %u memory blocks and no more", BLOCKS_TARGET_MAX);
        }
        return 0;
}

uint64_t targets_bytes(const struct mem_range *targets, size_t n_targets)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < n_targets; i++)
                sum += targets[i].length;
        return sum;
}

bool targets_contain(const struct mem_range *targets, size_t n_targets, uint64_t address)
{
        size_t low = 0, high = n_targets;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (targets[middle].start + targets[middle].length <= address)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low < n_targets && targets[low].start <= address;
}

int blocks_get_auto_online(struct blocks *b, char value[static AUTO_ONLINE_MAX])
{
        int n = sysfs_read(b->memory_fd, "auto_online_blocks", value, AUTO_ONLINE_MAX);

        return n < 0 ? n : 0;
}
