/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/message.h"

/* The kernel's memory blocks (/sys/devices/system/memory/memoryN): what there is and in which state. Block N
 * is the memory at N * block_bytes. */
struct block {
        uint32_t number;
        int16_t node;  /* -1: not known yet */
        uint8_t state; /* enum block_state, never ABSENT */
        uint8_t zone;  /* enum zone; ZONE_MAX: not looked up yet */
};

struct blocks {
        int memory_fd; /* devices/system/memory */
        uint64_t block_bytes;
        bool one_node;   /* there never is another than node 0 */
        struct block *v; /* sorted by number */
        size_t n, allocated;
        uint64_t
                n_changes; /* of states, as far as we were told: what was derived at another count is stale */
};

#define BLOCKS_TARGET_MAX (1U << 20) /* blocks in one request's targets */

/* Opens <sys_fd>/devices/system/memory and takes the first inventory. -ENOENT: a kernel without memory
 * hotplug. */
int blocks_open(struct blocks *b, int sys_fd);
void blocks_close(struct blocks *b);

/* Takes the inventory anew: states are read, zones and nodes looked up when asked for. */
int blocks_scan(struct blocks *b);

/* Borrowed, until the next change; NULL if there is no such block. */
struct block *blocks_find(struct blocks *b, uint32_t number);
enum block_state blocks_state(struct blocks *b, uint32_t number);
void blocks_count(struct blocks *b, uint64_t *ret_online, uint64_t *ret_offline);

/* Takes in a uevent's word without looking at sysfs: ABSENT removes. Returns the state before. */
enum block_state blocks_note(struct blocks *b, uint32_t number, enum block_state state);

/* Reads one block's state from sysfs and returns it. */
enum block_state blocks_refresh(struct blocks *b, uint32_t number);
/* The zone of an online block, from valid_zones, read once; UNKNOWN for any other block. */
enum zone blocks_zone(struct blocks *b, uint32_t number);
/* Read once there is one; 0 until then. */
unsigned blocks_node(struct blocks *b, uint32_t number);

/* The inventory from block `from_address` on, as runs of blocks alike. At most max ranges; if more follow,
 * *ret_next is the address to go on from, else 0. The caller frees *ret (NULL when empty). */
int blocks_ranges(struct blocks *b, uint64_t from_address, size_t max, struct block_range **ret,
        size_t *ret_n, uint64_t *ret_next);
/* The same for a request's targets, absent blocks included; what does not fit into max is left out. */
int blocks_ranges_of(struct blocks *b, const struct mem_range *targets, size_t n_targets, size_t max,
        struct block_range **ret, size_t *ret_n);

/* Targets are sorted and disjoint (the codec's promise). 0, or an error for a peer: not whole blocks, or too
 * many. */
int blocks_check_targets(
        const struct blocks *b, const struct mem_range *targets, size_t n_targets, struct error *ret_error);
uint64_t targets_bytes(const struct mem_range *targets, size_t n_targets);
bool targets_contain(const struct mem_range *targets, size_t n_targets, uint64_t address);

/* For each block number of the targets, ascending; targets must have passed blocks_check_targets(). */
/* NOLINTBEGIN(bugprone-macro-parentheses): number is a declaration. */
#define TARGETS_FOREACH(b, targets, n_targets, number)                                                       \
        for (size_t _t = 0; _t < (n_targets); _t++)                                                          \
                for (uint32_t number = (uint32_t)((targets)[_t].start / (b)->block_bytes),                   \
                              _end = number + (uint32_t)((targets)[_t].length / (b)->block_bytes);           \
                        number < _end; number++)
/* NOLINTEND(bugprone-macro-parentheses) */

/* auto_online_blocks: what the kernel does with new blocks, without the newline. */
#define AUTO_ONLINE_MAX 32
int blocks_get_auto_online(struct blocks *b, char value[static AUTO_ONLINE_MAX]);

/* "memory40" -> 40; -EINVAL for any other name. */
int block_number_from_name(const char *name, uint32_t *ret_number);

/* Reads a small sysfs file below dir_fd: NUL-terminated, without the trailing newline. Its length or -errno.
 */
int sysfs_read(int dir_fd, const char *path, char *buffer, size_t size);
/* Tells of each line of a file of any length in turn, but of none beyond SYSFS_LINE_MAX bytes. 0 or -errno.
 */
#define SYSFS_LINE_MAX 512U
int sysfs_read_lines(
        int dir_fd, const char *path, void (*on_line)(const char *line, void *userdata), void *userdata);
/* Writes a value in one write(). 0 or -errno, the kernel's answer to it. */
int sysfs_write(int dir_fd, const char *path, const char *value);
/* What the kernel calls a zone: "Normal", "Movable" ... */
enum zone zone_from_name(const char *name);
/* What valid_zones says of an online block. */
enum zone sysfs_read_zone(int memory_fd, uint32_t number);
enum block_state sysfs_read_state(int memory_fd, uint32_t number);
