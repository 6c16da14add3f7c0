/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A uevent socket of its own with a filter of classic BPF, which the kernel runs on "online@/devices/system/
 * memory/memory40" and the like. The filter looks at the action's first two letters and at the number: few
 * other events have this shape, and those are passed over here. */

#include "guestd/bell.h"

#include <inttypes.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "guestd/uevent.h"

/* Of a block's number: its digits and its NUL. */
#define NUMBER_MAX 11U
#define CODE_MAX   (4 + BELL_BLOCKS_MAX * (2 * NUMBER_MAX + 1))

struct bell {
        struct loop *loop;
        struct loop_io io;
        enum block_state state;
        void (*on_ring)(uint32_t block, void *userdata);
        void *userdata;
};

/* Returns the length of the program. */
static unsigned short compile(
        struct sock_filter code[static CODE_MAX], enum block_state state, const uint32_t *blocks, size_t n)
{
        static const char path[] = "/devices/system/memory/memory";
        const char *action = state == BLOCK_ONLINE ? "online@" : "remove@";
        const size_t at = strlen(action) + strlen(path);
        char number[NUMBER_MAX];
        unsigned short k = 0;

        code[k++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0);
        code[k++] = (struct sock_filter)BPF_JUMP(
                BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)action[0] << 8 | (uint32_t)action[1], 1, 0);
        code[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
        for (size_t i = 0; i < n; i++) {
                size_t length = (size_t)snprintf(number, sizeof(number), "%" PRIu32, blocks[i]) + 1;

                for (size_t c = 0; c < length; c++) {
                        /* A mismatch goes on behind this number's RET. */
                        uint8_t skip = (uint8_t)(2 * (length - c - 1) + 1);

                        code[k++] =
                                (struct sock_filter)BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (uint32_t)(at + c));
                        code[k++] = (struct sock_filter)BPF_JUMP(
                                BPF_JMP | BPF_JEQ | BPF_K, (uint8_t)number[c], 0, skip);
                }
                code[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, UINT32_MAX);
        }
        code[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
        return k;
}

int bell_filter(int fd, enum block_state state, const uint32_t *blocks, size_t n)
{
        struct sock_filter code[CODE_MAX];
        struct sock_fprog program = { .len = compile(code, state, blocks, n), .filter = code };

        return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno : 0;
}

static void on_ready(struct loop_io *io, uint32_t events)
{
        struct bell *b = io->userdata;
        struct sockaddr_nl from = { 0 };
        socklen_t length = sizeof(from);
        char text[UEVENT_MAX];
        enum block_state state;
        uint32_t block;

        ssize_t n = recvfrom(io->fd, text, sizeof(text) - 1, 0, (struct sockaddr *)&from, &length);
        if (n < 0 || from.nl_pid != 0 || from.nl_groups == 0) /* not the kernel: root could send here too */
                return;
        text[n] = '\0';
        if (uevent_read_block(text, (size_t)n, &block, &state) >= 0 && state == b->state)
                b->on_ring(block, b->userdata);
}

struct bell *bell_free(struct bell *b)
{
        if (!b)
                return NULL;
        loop_remove(b->loop, &b->io);
        close_fd(b->io.fd);
        free(b);
        return NULL;
}

static void bell_freep(struct bell **b)
{
        bell_free(*b);
}

int bell_new(struct loop *loop, enum block_state state, const uint32_t *blocks, size_t n,
        void (*on_ring)(uint32_t block, void *userdata), void *userdata, struct bell **ret)
{
        struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
        _cleanup_(bell_freep) struct bell *b = calloc(1, sizeof(*b));

        if (!b)
                return -ENOMEM;
        *b = (struct bell) {
                .loop = loop,
                .io = { .on_ready = on_ready, .userdata = b },
                .state = state,
                .on_ring = on_ring,
                .userdata = userdata,
        };
        b->io.fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
        if (b->io.fd < 0)
                return -errno;
        int r = bell_filter(b->io.fd, state, blocks, n);
        if (r < 0)
                return r;
        if (bind(b->io.fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return -errno;
        r = loop_add(loop, &b->io, EPOLLIN);
        if (r < 0)
                return r;
        *ret = steal_pointer(b);
        return 0;
}
