/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Loads that the kernel cannot move, in places that the seed says: half of the ranges, which are memory
 * devices.
 *
 * Nobody can ask for a page at an address. So nearly all of memory is taken first, and /proc/self/pagemap
 * tells which page lies where. Some of the pages that lie right are then kept (pins), or given back so that
 * the kernel, which has hardly any others, takes these (kernel); the rest is given back at the end. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "load.h"

#define CHUNK_BYTES (64 * MIB)
#define CHUNKS_MAX  512
#define RANGES_MAX  64
/* Stays free meanwhile: the guest has to live. */
#define KEEP_BYTES (256 * MIB)
#define PIPE_PAGES 256

static struct {
        char *chunks[CHUNKS_MAX];
        size_t n_chunks;
        int pagemap_fd;
} fill;

static struct range {
        struct load_range at;
        bool chosen;
        char **pages; /* a fair sample of those that lie in it */
        size_t n_pages;
        uint64_t n_seen;
} ranges[RANGES_MAX];
static size_t n_ranges;

/* --- where pages are --- */

static void read_frames(const char *from, uint64_t *frames, size_t n)
{
        size_t bytes = n * sizeof(frames[0]);
        off_t at = (off_t)((uintptr_t)from / load_page_bytes() * sizeof(frames[0]));

        if (pread(fill.pagemap_fd, frames, bytes, at) != (ssize_t)bytes)
                load_die("/proc/self/pagemap: %s", strerror(errno));
        /* Bit 63: present; the frame is in the low 55. */
        for (size_t i = 0; i < n; i++)
                frames[i] = frames[i] >> 63 ? frames[i] & ((UINT64_C(1) << 55) - 1) : 0;
}

static struct range *find_range(uint64_t frame)
{
        for (size_t i = 0; i < n_ranges; i++)
                if (frame * load_page_bytes() - ranges[i].at.start < ranges[i].at.length)
                        return &ranges[i];
        return NULL;
}

static void choose_ranges(int argc, char **argv)
{
        if (argc == 0) {
                ranges[n_ranges++] = (struct range) { .at.length = UINT64_MAX, .chosen = true };
                return;
        }
        n_ranges = (size_t)argc;
        if (n_ranges > RANGES_MAX)
                load_die("more than %d ranges", RANGES_MAX);
        for (size_t i = 0; i < n_ranges; i++)
                ranges[i].at = load_parse_range(argv[i]);
        for (size_t left = (n_ranges + 1) / 2; left > 0;) {
                struct range *r = &ranges[load_random(n_ranges)];

                left -= !r->chosen;
                r->chosen = true;
        }
        for (size_t i = 0; i < n_ranges; i++)
                if (ranges[i].chosen)
                        printf("0x%llx\n", (unsigned long long)ranges[i].at.start);
}

static void fill_memory(size_t n_chunks)
{
        fill.pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        while (load_meminfo("MemFree") > KEEP_BYTES + CHUNK_BYTES && fill.n_chunks < n_chunks)
                fill.chunks[fill.n_chunks++] = load_take(CHUNK_BYTES, false);
}

/* One in `keep` of the chunks remains in use, as a program's ordinary memory. */
static void fill_give_back(size_t keep)
{
        for (size_t i = 0; i < fill.n_chunks; i++)
                if (i % keep != 0)
                        munmap(fill.chunks[i], CHUNK_BYTES);
}

/* Draws up to n of every step'th page in each chosen range. */
static void sample_pages(size_t n, size_t step)
{
        size_t chunk_pages = CHUNK_BYTES / load_page_bytes();
        uint64_t *frames = calloc(chunk_pages, sizeof(*frames));

        for (size_t i = 0; i < n_ranges; i++)
                ranges[i].pages = calloc(n, sizeof(char *));
        for (size_t c = 0; c < fill.n_chunks; c++) {
                read_frames(fill.chunks[c], frames, chunk_pages);
                for (size_t i = 0; i < chunk_pages; i += step) {
                        struct range *r = frames[i] ? find_range(frames[i]) : NULL;

                        if (!r || !r->chosen)
                                continue;
                        uint64_t place = r->n_pages < n ? r->n_pages++ : load_random(r->n_seen + 1);
                        r->n_seen++;
                        if (place < n)
                                r->pages[place] = fill.chunks[c] + i * load_page_bytes();
                }
        }
        free(frames);
        for (size_t i = 0; i < n_ranges; i++)
                if (ranges[i].chosen && ranges[i].n_pages < n)
                        load_die("only %zu pages were to be had in a range", ranges[i].n_pages);
}

/* --- pinned pages --- */

static int new_pipe(void)
{
        int ends[2];

        if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0 ||
                fcntl(ends[1], F_SETPIPE_SZ, PIPE_PAGES * load_page_bytes()) < 0)
                load_die("pipe: %s", strerror(errno));
        return ends[1];
}

static void pin_page(char *page, FILE *list)
{
        static int fd = -1;
        static unsigned n;
        struct iovec iov = { .iov_base = page, .iov_len = load_page_bytes() };
        uint64_t frame;

        if (n++ % PIPE_PAGES == 0)
                fd = new_pipe();
        if (vmsplice(fd, &iov, 1, 0) != (ssize_t)load_page_bytes())
                load_die("vmsplice: %s", strerror(errno));
        /* From now on it stays where it is. */
        read_frames(page, &frame, 1);
        fprintf(list, "%llu\n", (unsigned long long)frame);
        munmap(page, load_page_bytes());
}

static void pins_build(int argc, char **argv)
{
        size_t n = load_parse_number(argv[1]);

        load_seed(load_parse_number(argv[0]));
        choose_ranges(argc - 2, argv + 2);
        fill_memory(argc > 2 ? CHUNKS_MAX : 4);
        sample_pages(n, 1);
        FILE *list = fopen(LOAD_PINS, "we");
        if (!list)
                load_die(LOAD_PINS ": %s", strerror(errno));
        for (size_t i = 0; i < n_ranges; i++)
                for (size_t k = 0; k < ranges[i].n_pages; k++)
                        pin_page(ranges[i].pages[k], list);
        if (fclose(list) != 0)
                load_die(LOAD_PINS ": %s", strerror(errno));
        fill_give_back(4);
}

const struct load_kind load_pins = {
        .name = "pins",
        .arguments = "SEED PAGES [START:LENGTH...]",
        .help = "so many pages in each of half of these devices are held by pipes; prints which",
        .n_arguments = 2,
        .build = pins_build,
};

/* --- kernel memory --- */

/* Buffers of a pipe that was written to: pages without a mark. */
static void take_pipe_buffers(uint64_t bytes)
{
        static char data[64 * 1024];

        for (uint64_t done = 0; done < bytes;) {
                int fd = new_pipe();
                ssize_t n;

                while ((n = write(fd, data, sizeof(data))) > 0)
                        done += (uint64_t)n;
        }
}

/* Messages that wait in sockets. */
static void take_slab(uint64_t bytes)
{
        static char data[3000];
        int ends[2], size = 1 << 30;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0 ||
                setsockopt(ends[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
                load_die("socketpair: %s", strerror(errno));
        for (uint64_t done = 0; done < bytes; done += 4096)
                if (write(ends[0], data, sizeof(data)) != sizeof(data))
                        load_die("a socket takes no more: %s", strerror(errno));
}

/* A table for each of many distant pages, which all are the page of zeros. */
static void take_page_tables(uint64_t bytes)
{
        uint64_t page = load_page_bytes(), reach = page / 8 * page, n = bytes / page;
        volatile char *p =
                mmap(NULL, n * reach, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (p == MAP_FAILED)
                load_die("mmap: %s", strerror(errno));
        madvise((void *)p, n * reach, MADV_NOHUGEPAGE);
        for (uint64_t i = 0; i < n; i++)
                (void)p[i * reach];
}

/* What the kernel takes in one piece for its own pages, on x86. */
#define HOLE_BYTES (4 * MIB)

static void make_holes(uint64_t bytes)
{
        sample_pages(bytes / ((n_ranges + 1) / 2) / HOLE_BYTES + 1, HOLE_BYTES / load_page_bytes());
        for (size_t i = 0; i < n_ranges; i++)
                for (size_t k = 0; k < ranges[i].n_pages; k++)
                        munmap(ranges[i].pages[k], HOLE_BYTES);
}

static void kernel_build(int argc, char **argv)
{
        uint64_t bytes = load_parse_number(argv[1]) * MIB;

        load_seed(load_parse_number(argv[0]));
        if (argc > 2) {
                choose_ranges(argc - 2, argv + 2);
                fill_memory(CHUNKS_MAX);
                make_holes(bytes + bytes / 2);
        }
        for (uint64_t done = 0; done < bytes; done += 3 * MIB) {
                take_pipe_buffers(MIB);
                take_slab(MIB);
                take_page_tables(MIB);
        }
        fill_give_back(4);
}

const struct load_kind load_kernel = {
        .name = "kernel",
        .arguments = "SEED MIB [START:LENGTH...]",
        .help = "pipe buffers, slab and page tables, in half of these devices as far as that can be had",
        .n_arguments = 2,
        .build = kernel_build,
};
