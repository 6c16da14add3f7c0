/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The count lies in a page that a process shares with its children: guestd's are the ones that write to
 * sysfs, and they take guestd with them. Everything is set up before main(), so that a child that is forked
 * early counts too. */

#include "common/fault.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct fault {
        unsigned long at;
        const char *from;
        int log_fd;
        pid_t owner;
        struct {
                unsigned long n;
                int counting;
        } * shared; /* NULL: nothing is asked for */
} fault = { .log_fd = -1 };

__attribute__((constructor)) static void fault_init(void)
{
        const char *at = getenv("OPENDLPAR_FAULT_AT"), *log = getenv("OPENDLPAR_FAULT_LOG");

        if (!at && !log)
                return;
        void *p =
                mmap(NULL, sizeof(*fault.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
                abort(); /* a test that could not fail would be worse */
        fault.at = at ? strtoul(at, NULL, 10) : 0;
        fault.from = getenv("OPENDLPAR_FAULT_FROM");
        fault.owner = getpid();
        fault.log_fd = log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
        fault.shared = p;
        fault.shared->counting = !fault.from;
}

void fault_point(const char *what, const char *which)
{
        char words[160];

        if (!fault.shared)
                return;
        int length = snprintf(words, sizeof(words), "%s %s", what, which);
        if (!fault.shared->counting && strcmp(words, fault.from) != 0)
                return;
        fault.shared->counting = 1;
        unsigned long n = __atomic_add_fetch(&fault.shared->n, 1, __ATOMIC_SEQ_CST);
        if (fault.log_fd >= 0 && length > 0)
                dprintf(fault.log_fd, "%lu %s\n", n, words);
        if (n == fault.at) {
                kill(fault.owner, SIGKILL);
                raise(SIGKILL);
        }
}
