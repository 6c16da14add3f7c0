/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a busy guest does with its memory, for tests and benchmarks in the lab.
 *
 * One load stands at a time. `start` returns when it does, so that whoever measures knows the state; `stop`
 * ends it and leaves nothing of it. The load itself is a process of its own that the kernel may kill, as any
 * other.
 *
 * `census` is the other half: what can leave physically, counted from the kernel's own tables before anybody
 * tries, and without a line of what is tested. It reads every page, of which guestd reads a sample. */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "load.h"

static const struct load_kind *const kinds[] = {
        &load_cache,
        &load_anon,
        &load_tmpfs,
        &load_mlock,
        &load_hugetlb,
        &load_pins,
        &load_kernel,
};

void load_die(const char *format, ...)
{
        va_list args;

        fputs("lab-load: ", stderr);
        va_start(args, format);
        vfprintf(stderr, format, args);
        va_end(args);
        fputc('\n', stderr);
        exit(1);
}

uint64_t load_parse_number(const char *text)
{
        char *end;

        errno = 0;
        unsigned long long n = strtoull(text, &end, 0);
        if (errno || end == text || *end)
                load_die("not a number: %s", text);
        return n;
}

struct load_range load_parse_range(const char *text)
{
        struct load_range range;
        char *end;

        range.start = strtoull(text, &end, 0);
        if (*end != ':')
                load_die("not a range: %s", text);
        range.length = load_parse_number(end + 1);
        return range;
}

uint64_t load_page_bytes(void)
{
        return (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t load_meminfo(const char *field)
{
        FILE *f = fopen("/proc/meminfo", "re");
        char line[128];
        uint64_t n = UINT64_MAX;

        while (f && n == UINT64_MAX && fgets(line, sizeof(line), f))
                if (strncmp(line, field, strlen(field)) == 0 && line[strlen(field)] == ':')
                        n = strtoull(line + strlen(field) + 1, NULL, 10);
        if (n == UINT64_MAX)
                load_die("/proc/meminfo has no %s", field);
        fclose(f);
        return strncmp(field, "HugePages_", 10) == 0 ? n : n * KIB;
}

void load_write_number(const char *path, uint64_t number)
{
        FILE *f = fopen(path, "we");

        if (!f || fprintf(f, "%llu\n", (unsigned long long)number) < 0 || fclose(f) != 0)
                load_die("%s: %s", path, strerror(errno));
}

void *load_take(uint64_t bytes, bool huge_pages)
{
        volatile char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
                load_die("mmap: %s", strerror(errno));
        madvise((void *)p, bytes, huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
        for (uint64_t i = 0; i < bytes; i += load_page_bytes())
                p[i] = 1;
        return (void *)p;
}

static uint64_t random_state = 1;

/* splitmix64 */
void load_seed(uint64_t seed)
{
        random_state = seed;
}

uint64_t load_random(uint64_t below)
{
        uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return (z ^ z >> 31) % below;
}

/* --- its life --- */

/* 0: there is none. */
static pid_t standing(void)
{
        FILE *f = fopen(LOAD_PID, "re");
        int pid = 0;

        if (f) {
                if (fscanf(f, "%d", &pid) != 1)
                        pid = 0;
                fclose(f);
        }
        return pid > 0 && kill(pid, 0) == 0 ? pid : 0;
}

static void become_load(const struct load_kind *kind, int argc, char **argv, int ready_fd)
{
        setsid();
        kind->build(argc, argv);
        load_write_number(LOAD_PID, (uint64_t)getpid());
        fflush(stdout);

        int fd = open("/dev/null", O_RDWR);
        for (int i = 0; i <= 2; i++)
                dup2(fd, i);
        if (write(ready_fd, "", 1) != 1)
                exit(1);
        close(ready_fd);
        for (;;)
                if (kind->live)
                        kind->live();
                else
                        pause();
}

static int start(const struct load_kind *kind, int argc, char **argv)
{
        int ends[2];
        char byte;

        if (standing())
                load_die("a load stands already");
        if (pipe2(ends, O_CLOEXEC) < 0)
                load_die("pipe: %s", strerror(errno));
        pid_t pid = fork();
        if (pid < 0)
                load_die("fork: %s", strerror(errno));
        if (pid == 0) {
                close(ends[0]);
                become_load(kind, argc, argv, ends[1]);
        }
        close(ends[1]);
        if (read(ends[0], &byte, 1) == 1)
                return 0;
        int status = 0;
        waitpid(pid, &status, 0);
        if (WIFSIGNALED(status))
                load_die("%s was killed while it took its memory: %s", kind->name,
                        strsignal(WTERMSIG(status)));
        return 1;
}

/* Also what a load left that was killed. */
static int stop(void)
{
        pid_t pid = standing();

        for (int i = 0; pid && kill(pid, i < 1000 ? SIGTERM : SIGKILL) == 0; i++) {
                if (i > 2000)
                        load_die("process %d does not end", pid);
                usleep(10000);
        }
        umount2(LOAD_MOUNT, MNT_DETACH);
        rmdir(LOAD_MOUNT);
        if (load_meminfo("HugePages_Total") > 0)
                load_write_number("/proc/sys/vm/nr_hugepages", 0);
        unlink(LOAD_PINS);
        unlink(LOAD_PID);
        return 0;
}

static int usage(void)
{
        fputs("usage: lab-load start KIND ARGUMENT...   returns when the load stands\n"
              "       lab-load alive                   exit 0 if it still does\n"
              "       lab-load stop                    ends it, if there is one\n"
              "       lab-load census START:LENGTH...  what the pages of devices are, and what could leave, "
              "as JSON\n"
              "kinds:\n",
                stderr);
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
                fprintf(stderr, "  %-7s %-29s %s\n", kinds[i]->name, kinds[i]->arguments, kinds[i]->help);
        return 2;
}

int main(int argc, char **argv)
{
        const char *verb = argc > 1 ? argv[1] : "";

        if (strcmp(verb, "alive") == 0)
                return standing() ? 0 : 1;
        if (strcmp(verb, "stop") == 0)
                return stop();
        if (strcmp(verb, "census") == 0 && argc > 2)
                return census_main(argc - 2, argv + 2);
        for (size_t i = 0; strcmp(verb, "start") == 0 && argc > 2 && i < sizeof(kinds) / sizeof(kinds[0]);
                i++) {
                int n = argc - 3, wanted = kinds[i]->n_arguments;

                if (strcmp(argv[2], kinds[i]->name) == 0 && (wanted < 0 ? n == -wanted : n >= wanted))
                        return start(kinds[i], n, argv + 3);
        }
        return usage();
}
