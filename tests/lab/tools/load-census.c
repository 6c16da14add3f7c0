/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What can leave physically: the truth that a removal is measured against.
 *
 * Every page of a device is looked at: its flags (/proc/kpageflags), its count of references (struct page, by
 * /proc/kcore), and whether the load says that it holds it. A device can leave if none of its pages is
 *
 *     pinned     held by the load, which knows the frame by /proc/self/pagemap
 *     slab, page_table, reserved
 *     kernel     in use, and neither a program's nor a file's
 *
 * and if there is room for what lies in it: what is to leave is at most what the kernel counts as available
 * (MemAvailable: free, and what can be reclaimed, less the low watermarks) and the huge pages of the pool
 * that nobody uses, which go with their memory.
 *
 * The reference count is what tells a page that the kernel uses from one that lies free on the list of a CPU:
 * both have no flag. Where struct page is not as known here (x86-64 from 5.x on: 64 bytes, the count at 52),
 * or cannot be read, the census says so and fails, rather than guess. */

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kernel-page-flags.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load.h"

#define STRUCT_PAGE_BYTES 64
#define REFCOUNT_OFFSET   52
/* More are no passing thing. */
#define LOOK_AGAIN_MAX   64
#define KPF_RESERVED_BIT 32 /* not in the header for programs */
#define BIT(n)           (UINT64_C(1) << (n))

enum kind { FREE, MOVABLE, HUGE, PINNED, SLAB, PAGE_TABLE, RESERVED, KERNEL, HOLE, KIND_MAX };
static const char *const kind_names[KIND_MAX] = { "free", "movable", "huge", "pinned", "slab", "page_table",
        "reserved", "kernel", "hole" };

static bool is_obstacle(enum kind kind)
{
        return kind >= PINNED && kind <= KERNEL;
}

/* --- the kernel's memory --- */

static struct {
        int fd;
        Elf64_Phdr *segments;
        size_t n_segments;
        uint64_t pages; /* the array of struct page */
} kcore;

static void kcore_read(uint64_t address, void *to, size_t n)
{
        for (size_t i = 0; i < kcore.n_segments; i++) {
                const Elf64_Phdr *s = &kcore.segments[i];

                if (s->p_type == PT_LOAD && address >= s->p_vaddr && address - s->p_vaddr + n <= s->p_memsz &&
                        pread(kcore.fd, to, n, (off_t)(s->p_offset + address - s->p_vaddr)) == (ssize_t)n)
                        return;
        }
        load_die("/proc/kcore has no 0x%llx", (unsigned long long)address);
}

static uint64_t find_symbol(const char *wanted)
{
        FILE *f = fopen("/proc/kallsyms", "re");
        unsigned long long address;
        char name[256];

        while (f && fscanf(f, "%llx %*c %255[^\n]", &address, name) == 2)
                if (strcmp(name, wanted) == 0) {
                        fclose(f);
                        return address;
                }
        load_die("the kernel has no %s", wanted);
}

static void kcore_open(void)
{
        Elf64_Ehdr header;

        kcore.fd = open("/proc/kcore", O_RDONLY | O_CLOEXEC);
        if (kcore.fd < 0 || pread(kcore.fd, &header, sizeof(header), 0) != sizeof(header))
                load_die("/proc/kcore: %s", strerror(errno));
        kcore.n_segments = header.e_phnum;
        size_t bytes = kcore.n_segments * sizeof(*kcore.segments);
        kcore.segments = malloc(bytes);
        if (pread(kcore.fd, kcore.segments, bytes, (off_t)header.e_phoff) != (ssize_t)bytes)
                load_die("/proc/kcore: %s", strerror(errno));
        kcore_read(find_symbol("vmemmap_base"), &kcore.pages, sizeof(kcore.pages));
}

/* --- pages --- */

static uint64_t *pins;
static size_t n_pins;

static int compare(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? -1 : x > y;
}

static void read_pins(void)
{
        FILE *f = fopen(LOAD_PINS, "re");
        unsigned long long frame;

        while (f && fscanf(f, "%llu", &frame) == 1) {
                pins = realloc(pins, (n_pins + 1) * sizeof(*pins));
                pins[n_pins++] = frame;
        }
        if (f)
                fclose(f);
        if (n_pins > 0)
                qsort(pins, n_pins, sizeof(*pins), compare);
}

static enum kind classify(uint64_t frame, uint64_t flags, uint32_t refcount, enum kind head)
{
        if (flags & BIT(KPF_NOPAGE))
                return HOLE;
        if (n_pins > 0 && bsearch(&frame, pins, n_pins, sizeof(*pins), compare))
                return PINNED;
        if (flags & BIT(KPF_SLAB))
                return SLAB;
        if (flags & BIT(KPF_PGTABLE))
                return PAGE_TABLE;
        if (flags & BIT(KPF_HUGE))
                return HUGE;
        if (flags & BIT(KPF_COMPOUND_TAIL))
                return head;
        if (flags & BIT(KPF_BUDDY) || refcount == 0)
                return FREE;
        if (flags & BIT(KPF_RESERVED_BIT))
                return RESERVED;
        /* On an LRU list, in a page table, of a file, or on its way there. Balloon pages move as well. */
        if (flags & (BIT(KPF_LRU) | BIT(KPF_ANON) | BIT(KPF_MMAP) | BIT(KPF_SWAPBACKED) | BIT(KPF_UPTODATE) |
                            BIT(KPF_THP) | BIT(KPF_KSM) | BIT(KPF_OFFLINE)))
                return MOVABLE;
        return KERNEL;
}

static uint32_t read_refcount(uint64_t frame)
{
        uint32_t refcount;

        kcore_read(kcore.pages + frame * STRUCT_PAGE_BYTES + REFCOUNT_OFFSET, &refcount, sizeof(refcount));
        return refcount;
}

/* A page that has just been taken says nothing of itself yet, and there are always some. */
static void look_again(int flags_fd, uint64_t first, uint64_t n, enum kind *kinds)
{
        uint64_t i, left;

        for (int tries = 0; tries < 5; tries++) {
                for (i = 0, left = 0; i < n; i++) {
                        if (kinds[i] != KERNEL || left > LOOK_AGAIN_MAX)
                                continue;
                        uint64_t flags;
                        if (pread(flags_fd, &flags, sizeof(flags), (off_t)((first + i) * sizeof(flags))) ==
                                sizeof(flags))
                                kinds[i] = classify(first + i, flags, read_refcount(first + i), KERNEL);
                        left += kinds[i] == KERNEL;
                }
                if (left == 0 || left > LOOK_AGAIN_MAX)
                        return;
                usleep(10000);
        }
}

static void count_block(int flags_fd, uint64_t start, uint64_t length, uint64_t counts[KIND_MAX])
{
        uint64_t page = load_page_bytes(), n = length / page, first = start / page;
        uint64_t *flags = malloc(n * sizeof(*flags));
        char *pages = malloc(n * STRUCT_PAGE_BYTES);
        enum kind *kinds = malloc(n * sizeof(*kinds)), head = KERNEL;

        if (pread(flags_fd, flags, n * sizeof(*flags), (off_t)(first * sizeof(*flags))) !=
                (ssize_t)(n * sizeof(*flags)))
                load_die("/proc/kpageflags: %s", strerror(errno));
        kcore_read(kcore.pages + first * STRUCT_PAGE_BYTES, pages, n * STRUCT_PAGE_BYTES);
        for (uint64_t i = 0; i < n; i++) {
                uint32_t refcount;

                memcpy(&refcount, pages + i * STRUCT_PAGE_BYTES + REFCOUNT_OFFSET, sizeof(refcount));
                kinds[i] = head = classify(first + i, flags[i], refcount, head);
        }
        look_again(flags_fd, first, n, kinds);
        for (uint64_t i = 0; i < n; i++)
                counts[kinds[i]]++;
        free(kinds);
        free(flags);
        free(pages);
}

static void put_counts(const uint64_t counts[KIND_MAX])
{
        for (enum kind k = 0; k < KIND_MAX; k++)
                printf(",\"%s\":%llu", kind_names[k], (unsigned long long)counts[k]);
}

static void count_device(int flags_fd, struct load_range device, uint64_t block_bytes)
{
        uint64_t all[KIND_MAX] = { 0 }, obstacles = 0;

        printf("{\"start\":%llu,\"length\":%llu,\"blocks\":[", (unsigned long long)device.start,
                (unsigned long long)device.length);
        for (uint64_t at = device.start; at < device.start + device.length; at += block_bytes) {
                uint64_t counts[KIND_MAX] = { 0 };

                count_block(flags_fd, at, block_bytes, counts);
                printf("%s{\"start\":%llu", at > device.start ? "," : "", (unsigned long long)at);
                put_counts(counts);
                putchar('}');
                for (enum kind k = 0; k < KIND_MAX; k++) {
                        all[k] += counts[k];
                        obstacles += is_obstacle(k) ? counts[k] : 0;
                }
        }
        printf("],\"obstacles\":%llu", (unsigned long long)obstacles);
        put_counts(all);
        putchar('}');
}

int census_main(int argc, char **argv)
{
        int flags_fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
        FILE *f = fopen("/sys/devices/system/memory/block_size_bytes", "re");
        unsigned long long block_bytes;

        if (flags_fd < 0 || !f || fscanf(f, "%llx", &block_bytes) != 1)
                load_die("the guest does not show its pages or blocks: %s", strerror(errno));
        /* Its own memory is none of the state. */
        uint64_t available = load_meminfo("MemAvailable");
        uint64_t spare = load_meminfo("HugePages_Free") - load_meminfo("HugePages_Rsvd");
        kcore_open();
        read_pins();
        printf("{\"available_bytes\":%llu,\"spare_huge_bytes\":%llu,\"devices\":[",
                (unsigned long long)available, (unsigned long long)(spare * load_meminfo("Hugepagesize")));
        for (int i = 0; i < argc; i++) {
                fputs(i ? "," : "", stdout);
                count_device(flags_fd, load_parse_range(argv[i]), block_bytes);
        }
        puts("]}");
        return 0;
}
