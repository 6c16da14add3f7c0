/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Holds a few pages so that the kernel cannot move them, as a guest's program may: it puts them into a pipe
 * by vmsplice(2), which takes references without copying, and sleeps. Pages of a program come from zone
 * Movable first. It then unmaps them, so that nothing but the pipe holds them: that can be told from
 * /proc/kpageflags.
 *
 * It runs in a lab guest and gets there through a command line, hence no libc. */

#include <linux/mman.h>
#include <linux/uio.h>
#include <stddef.h>
#include <sys/syscall.h>

#define PAGES 8

#if defined(__x86_64__)
#define PAGE_SIZE 4096L
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
#elif defined(__powerpc64__)
#define PAGE_SIZE 65536L
/* The kernel's convention of PPC64: the summary overflow bit says that the result is an error. */
static long call(long number, long a, long b, long c, long d, long e, long f)
{
        register long r0 __asm__("r0") = number, r3 __asm__("r3") = a, r4 __asm__("r4") = b,
                         r5 __asm__("r5") = c, r6 __asm__("r6") = d, r7 __asm__("r7") = e,
                         r8 __asm__("r8") = f;

        __asm__ volatile("sc\n\tbns+ 1f\n\tneg %1, %1\n1:"
                         : "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6), "+r"(r7), "+r"(r8)
                         :
                         : "r9", "r10", "r11", "r12", "cr0", "ctr", "xer", "memory");
        return r3;
}
#else
#error "the system call instruction of this architecture is missing here"
#endif

__attribute__((noreturn)) void _start(void);
__attribute__((noreturn)) void _start(void)
{
        int ends[2] = { -1, -1 };
        long memory = call(
                SYS_mmap, 0, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        struct iovec all = { .iov_base = (void *)memory, .iov_len = PAGES * PAGE_SIZE };

        for (long i = 0; memory > 0 && i < PAGES; i++)
                ((volatile char *)memory)[i * PAGE_SIZE] = 1;
        if (memory < 0 || call(SYS_pipe, (long)ends, 0, 0, 0, 0, 0) < 0 ||
                call(SYS_vmsplice, ends[1], (long)&all, 1, 0, 0, 0) != PAGES * PAGE_SIZE)
                call(SYS_exit_group, 1, 0, 0, 0, 0, 0);
        call(SYS_munmap, memory, PAGES * PAGE_SIZE, 0, 0, 0, 0);
        for (;;)
                call(SYS_pause, 0, 0, 0, 0, 0, 0);
}
