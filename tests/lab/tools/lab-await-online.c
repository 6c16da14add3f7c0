/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * lab-await-online BLOCK, such as memory23: says "watching", waits in a lab guest for the kernel's word that
 * this memory block is online, and says "online".
 *
 * It is the end of what scripts/bench measures where QEMU is not told: a pseries guest sends nothing to the
 * host when it has taken a DIMM. So that watching does not cost what it measures, a filter in the kernel
 * leaves it asleep until the one message that counts (an addition of 4 GiB sends 32), and it holds all its
 * memory before it begins.
 */

#include <linux/filter.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENT_MAX = 64 };

static void die(const char *what)
{
        perror(what);
        exit(1);
}

/* Lets through messages that begin with these bytes. */
static void filter_by(int fd, const char *bytes, size_t n)
{
        struct sock_filter code[2 * EVENT_MAX + 2];
        struct sock_fprog program = { .filter = code };
        unsigned short k = 0;

        for (size_t i = 0; i < n; i++) {
                code[k++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (uint32_t)i);
                code[k] = (struct sock_filter)BPF_JUMP(
                        BPF_JMP | BPF_JEQ | BPF_K, (uint8_t)bytes[i], 0, (uint8_t)(2 * n - k));
                k++;
        }
        code[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, UINT32_MAX);
        code[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
        program.len = k;
        if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0)
                die("lab-await-online: filter");
}

static void say(const char *word)
{
        if (write(STDOUT_FILENO, word, strlen(word)) < 0)
                _exit(1);
}

int main(int argc, char **argv)
{
        struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
        char event[EVENT_MAX], message[4096];

        if (argc != 2) {
                fprintf(stderr, "usage: lab-await-online BLOCK\n");
                return 2;
        }
        int n = snprintf(event, sizeof(event), "online@/devices/system/memory/%s", argv[1]);
        if (n < 0 || (size_t)n >= sizeof(event)) {
                fprintf(stderr, "lab-await-online: this is no block: %s\n", argv[1]);
                return 2;
        }

        int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
        if (fd < 0)
                die("lab-await-online: socket");
        filter_by(fd, event, (size_t)n + 1); /* with its NUL: memory2 is not memory23 */
        if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                die("lab-await-online: bind");
        mlockall(MCL_CURRENT | MCL_FUTURE);
        say("watching\n");
        if (recv(fd, message, sizeof(message), 0) <= 0)
                die("lab-await-online: recv");
        say("online\n");
        return 0;
}
