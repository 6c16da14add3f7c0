/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Holds a few pages so that the kernel cannot move them, as a guest's program may: it puts them into a pipe
 * by vmsplice(2), which takes references without copying, and sleeps. Pages of a program come from zone
 * Movable first.
 *
 * It runs in a lab guest and gets there through a command line, hence no libc. */

#include <linux/mman.h>
#include <linux/uio.h>
#include <stddef.h>
#include <sys/syscall.h>

#define PAGES 8

#if !defined(__x86_64__)
#error "the system call instruction of this architecture is missing here"
#endif

/* The kernel's convention of x86-64. */
static long call(long number, long a, long b, long c, long d, long e, long f)
{
        register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
        long result;

        __asm__ volatile("syscall"
                         : "=a"(result)
                         : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                         : "rcx", "r11", "memory");
        return result;
}

__attribute__((noreturn)) void _start(void);
__attribute__((noreturn)) void _start(void)
{
        int ends[2] = { -1, -1 };
        long memory =
                call(SYS_mmap, 0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        struct iovec all = { .iov_base = (void *)memory, .iov_len = PAGES * 4096 };

        for (long i = 0; memory > 0 && i < PAGES; i++)
                ((volatile char *)memory)[i * 4096] = 1;
        if (memory < 0 || call(SYS_pipe, (long)ends, 0, 0, 0, 0, 0) < 0 ||
                call(SYS_vmsplice, ends[1], (long)&all, 1, 0, 0, 0) != PAGES * 4096)
                call(SYS_exit_group, 1, 0, 0, 0, 0, 0);
        for (;;)
                call(SYS_pause, 0, 0, 0, 0, 0, 0);
}
