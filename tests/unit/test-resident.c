/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the host's /proc says of a QEMU, and when it is not believed. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/resident.h"

#define PID 4711

static char proc[64];

static int setup(void **state)
{
        char path[96];

        snprintf(proc, sizeof(proc), "/tmp/test-resident.XXXXXX");
        if (!mkdtemp(proc))
                return -1;
        snprintf(path, sizeof(path), "%s/%d", proc, PID);
        return mkdir(path, 0700);
}

static int teardown(void **state)
{
        static const char *const names[] = { "/stat", "/status", "" };
        char path[96];

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                snprintf(path, sizeof(path), "%s/%d%s", proc, PID, names[i]);
                remove(path);
        }
        return rmdir(proc);
}

/* NULL: there is none. */
static void put(const char *name, const char *text)
{
        char path[96];

        snprintf(path, sizeof(path), "%s/%d/%s", proc, PID, name);
        if (!text) {
                remove(path);
                return;
        }
        FILE *f = fopen(path, "we");
        assert_non_null(f);
        fputs(text, f);
        fclose(f);
}

#define STAT "4711 (qemu-system-x86) S 1 1 1 0 -1 4 1 1 1 1 1 1 1 1 20 0 3 0 5555 1 1\n"
/* A guest of 1 GiB. */
#define STATUS "Name:\tqemu-system-x86\nUmask:\t0022\nVmData:\t 1300000 kB\n"
#define TOUCHED                                                                                              \
        "VmRSS:\t   102400 kB\nRssAnon:\t   90000 kB\nVmSwap:\t    1024 kB\nHugetlbPages:\t    2048 kB\n"

static void test_cases(void **state)
{
        static const struct {
                const char *what, *stat, *status;
                pid_t pid;
                uint64_t bytes; /* 0: not known */
        } cases[] = {
                { "a QEMU", STAT, STATUS TOUCHED, PID, 103 * MIB },
                { "its name has a parenthesis",
                        "4711 (a) b 1) S 1 1 1 0 -1 4 1 1 1 1 1 1 1 1 20 0 3 0 5555 1 1\n", STATUS TOUCHED,
                        PID, 103 * MIB },
                { "no pid", STAT, STATUS TOUCHED, 0, 0 },
                { "another pid", STAT, STATUS TOUCHED, PID + 1, 0 },
                { "hidden", NULL, NULL, PID, 0 },
                { "gone in between", NULL, STATUS TOUCHED, PID, 0 },
                { "a zombie", STAT, "Name:\tqemu-system-x86\n", PID, 0 },
                { "the manager that made the socket", STAT, "Name:\tvirtlogd\nVmData:\t 1300000 kB\n" TOUCHED,
                        PID, 0 },
                { "shared memory", STAT, "Name:\tqemu-kvm\nVmData:\t 300000 kB\n" TOUCHED, PID, 0 },
                { "shared memory, of a small guest in a large process", STAT,
                        STATUS TOUCHED "RssShmem:\t   20000 kB\n", PID, 0 },
                { "a little that is shared, as with a display", STAT,
                        STATUS TOUCHED "RssShmem:\t    9000 kB\n", PID, 103 * MIB },
                { "a stat that ends early", "4711 (qemu) S 1 1\n", STATUS TOUCHED, PID, 0 },
                { "rubbish", "rubbish", "rubbish", PID, 0 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct resident_process p = { 0 };
                uint64_t bytes = 0;

                put("stat", cases[i].stat);
                put("status", cases[i].status);
                bool known = resident_read(proc, &p, cases[i].pid, GIB, &bytes);
                if (known != (cases[i].bytes > 0) || bytes != cases[i].bytes)
                        fail_msg("%s: %d, %llu", cases[i].what, known, (unsigned long long)bytes);
        }
}

/* The same pid is not the same process. */
static void test_reuse(void **state)
{
        struct resident_process p = { 0 };
        uint64_t bytes = 0;

        put("status", STATUS TOUCHED);
        put("stat", STAT);
        assert_true(resident_read(proc, &p, PID, GIB, &bytes));
        assert_true(resident_read(proc, &p, PID, GIB, &bytes));
        put("stat", "4711 (qemu-system-x86) S 1 1 1 0 -1 4 1 1 1 1 1 1 1 1 20 0 3 0 5556 1 1\n");
        assert_false(resident_read(proc, &p, PID, GIB, &bytes));
        /* A QEMU that was started anew has another pid, and is known by that. */
        p.pid = PID + 1;
        assert_true(resident_read(proc, &p, PID, GIB, &bytes));
        /* What could not be read once can be the next time. */
        p = (struct resident_process) { .pid = PID };
        assert_true(resident_read(proc, &p, PID, GIB, &bytes));
}

/* This process is no QEMU, but its files are read as what they are. */
static void test_real(void **state)
{
        struct resident_process p = { 0 };
        uint64_t bytes = 0;

        assert_false(resident_read("/proc", &p, getpid(), 0, &bytes));
        assert_int_equal(p.pid, getpid());
        assert_true(p.start_ticks > 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_cases, setup, teardown),
                cmocka_unit_test_setup_teardown(test_reuse, setup, teardown),
                cmocka_unit_test(test_real),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
