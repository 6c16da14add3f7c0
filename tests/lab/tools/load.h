/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the parts of lab-load share; see lab-load.c. */

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)

/* Where a load keeps what others are to know of it. */
#define LOAD_PID   "/run/lab-load.pid"
#define LOAD_PINS  "/run/lab-load.pins" /* page frames that the load holds, a line each */
#define LOAD_MOUNT "/run/lab-load.mnt"

struct load_kind {
        const char *name, *arguments, *help;
        int n_arguments; /* at least; -N: exactly N */
        /* Takes the memory. Returns only if the load stands; dies otherwise. */
        void (*build)(int argc, char **argv);
        /* What it goes on doing until it is killed; NULL: it sleeps. */
        void (*live)(void);
};

extern const struct load_kind load_cache, load_anon, load_tmpfs, load_mlock, load_hugetlb; /* load-plain.c */
extern const struct load_kind load_pins, load_kernel; /* load-scatter.c */

/* Counts what the pages of ranges of physical memory are; load-census.c. */
int census_main(int argc, char **argv);

struct load_range {
        uint64_t start, length;
};
/* START:LENGTH in bytes, or dies. */
struct load_range load_parse_range(const char *text);
uint64_t load_parse_number(const char *text);

__attribute__((noreturn, format(printf, 1, 2))) void load_die(const char *format, ...);

uint64_t load_page_bytes(void);
uint64_t load_meminfo(const char *field); /* bytes of a line of /proc/meminfo */
void load_write_number(const char *path, uint64_t number);
/* Anonymous memory, in use from the first byte to the last. Without huge pages its pages lie where they may.
 */
void *load_take(uint64_t bytes, bool huge_pages);

/* A fixed sequence for each seed. */
void load_seed(uint64_t seed);
uint64_t load_random(uint64_t below);
