/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The kernel's uevents: what they say, and in which order it is heard. The socket is the real one, but what
 * comes out of it is ours. */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/size.h"
#include "guestd/monitor.h"
#include "guestd/uevent.h"

#define BLOCK_PATH "/devices/system/memory/memory"
#define PORT_PATH  "/devices/pci0000:00/0000:00:03.0/virtio1/virtio-ports/vport1p1"
/* As the kernel writes it, and what it adds when somebody asked for it. */
#define UEVENT(action, path) action "@" path "\0ACTION=" action "\0DEVPATH=" path "\0SUBSYSTEM=memory"
#define SYNTHETIC            "\0SYNTH_UUID=0"
#define END                  "\0SEQNUM=1234"
#define TEXT(words)          .text = (words), .length = sizeof(words)

/* What the socket gives next: an error, or a message. */
struct item {
        int errnum;
        const char *text;
        size_t length;
        uint32_t sender; /* 0: the kernel */
};

static struct {
        struct item items[16];
        size_t n, next;
} queue;
static struct loop loop;
static struct monitor *monitor;
static char heard[256];
/* What a handler does when it is called for the first time. */
static void (*then)(void);

static void put(struct item item)
{
        assert_true(queue.n < ARRAY_SIZE(queue.items));
        queue.items[queue.n++] = item;
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned n_max, int flags, struct timespec *timeout)
{
        unsigned n = 0;

        while (n < n_max && queue.next < queue.n) {
                const struct item *item = &queue.items[queue.next];
                struct msghdr *h = &messages[n].msg_hdr;

                if (item->errnum && n > 0)
                        break;
                queue.next++;
                if (item->errnum) {
                        errno = item->errnum;
                        return -1;
                }
                *(struct sockaddr_nl *)h->msg_name = (struct sockaddr_nl) {
                        .nl_family = AF_NETLINK, .nl_pid = item->sender, .nl_groups = 1
                };
                messages[n].msg_len = (unsigned)MIN(item->length, h->msg_iov->iov_len);
                memcpy(h->msg_iov->iov_base, item->text, messages[n].msg_len);
                n++;
        }
        if (n > 0)
                return (int)n;
        errno = EAGAIN;
        return -1;
}

static void hear(const char *word)
{
        void (*now)(void) = then;

        assert_true(strlen(heard) + strlen(word) + 2 <= sizeof(heard));
        if (*heard)
                strcat(heard, " ");
        strcat(heard, word);
        then = NULL;
        if (now)
                now();
}

static void on_block(uint32_t number, enum block_state state, void *userdata)
{
        char word[32];

        snprintf(word, sizeof(word), "%u:%s", number, block_state_to_string(state));
        hear(word);
}

static void on_port(void *userdata)
{
        hear("port");
}

static void on_overflow(void *userdata)
{
        hear("overflow");
}

static int setup(void **state)
{
        static const struct monitor_handlers handlers = { on_block, on_port, on_overflow };

        memset(&queue, 0, sizeof(queue));
        heard[0] = '\0';
        then = NULL;
        assert_int_equal(loop_init(&loop), 0);
        assert_int_equal(monitor_new(&loop, &handlers, NULL, &monitor), 0);
        return 0;
}

static int teardown(void **state)
{
        monitor = monitor_free(monitor);
        loop_done(&loop);
        return 0;
}

static void test_words(void **state)
{
        static const struct {
                const char *text;
                size_t length;
                int r;
                enum block_state state;
        } cases[] = {
                { TEXT(UEVENT("add", BLOCK_PATH "40") END), 0, BLOCK_OFFLINE },
                { TEXT(UEVENT("online", BLOCK_PATH "40") END), 0, BLOCK_ONLINE },
                { TEXT(UEVENT("offline", BLOCK_PATH "40") END), 0, BLOCK_OFFLINE },
                { TEXT(UEVENT("remove", BLOCK_PATH "40") END), 0, BLOCK_ABSENT },
                { TEXT("add@" BLOCK_PATH "40"), 0, BLOCK_OFFLINE },
                { TEXT(UEVENT("change", BLOCK_PATH "40") END), -EINVAL, 0 },
                { TEXT(UEVENT("add", BLOCK_PATH) END), -EINVAL, 0 },
                { TEXT(UEVENT("add", "/devices/system/cpu/cpu40") END), -EINVAL, 0 },
                { TEXT(BLOCK_PATH "40"), -EINVAL, 0 },
                /* Nothing has changed. */
                { TEXT(UEVENT("add", BLOCK_PATH "40") SYNTHETIC END), -EINVAL, 0 },
                { TEXT(UEVENT("remove", BLOCK_PATH "40") SYNTHETIC END), -EINVAL, 0 },
                { TEXT(UEVENT("add", BLOCK_PATH "40") SYNTHETIC "\0SYNTH_ARG_A=b" END), -EINVAL, 0 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                enum block_state said = 0;
                uint32_t number = 0;

                assert_int_equal(
                        uevent_read_block(cases[i].text, cases[i].length - 1, &number, &said), cases[i].r);
                if (cases[i].r < 0)
                        continue;
                assert_int_equal(number, 40);
                assert_int_equal(said, cases[i].state);
        }
}

static void test_who_speaks(void **state)
{
        put((struct item) { TEXT(UEVENT("add", BLOCK_PATH "40") END), .sender = 4711 });
        put((struct item) { TEXT(UEVENT("add", BLOCK_PATH "41") SYNTHETIC END) });
        put((struct item) { TEXT(UEVENT("add", BLOCK_PATH "42") END) });
        put((struct item) { TEXT(UEVENT("add", PORT_PATH) END) });
        put((struct item) { TEXT(UEVENT("add", "/devices/system/cpu/cpu40") END) });
        monitor_drain(monitor);
        assert_string_equal(heard, "42:offline port");
}

static void goes_online(void)
{
        put((struct item) { TEXT(UEVENT("online", BLOCK_PATH "40") END) });
}

/* The kernel tells of an overflow at once, though what it queued before is older than any list made then. */
static void test_overflow(void **state)
{
        put((struct item) { .errnum = ENOBUFS });
        put((struct item) { TEXT(UEVENT("offline", BLOCK_PATH "40") END) });
        monitor_drain(monitor);
        assert_string_equal(heard, "40:offline overflow");

        /* What comes while the list is made is newer, and waits for nothing. */
        heard[0] = '\0';
        put((struct item) { .errnum = ENOBUFS });
        then = goes_online;
        monitor_drain(monitor);
        assert_string_equal(heard, "overflow 40:online");
}

static void goes_online_and_is_asked_for(void)
{
        goes_online();
        monitor_drain(monitor);
}

/* A handler that ends a wait listens again, in the middle of a batch. */
static void test_asked_by_handler(void **state)
{
        put((struct item) { TEXT(UEVENT("remove", BLOCK_PATH "50") END) });
        put((struct item) { TEXT(UEVENT("offline", BLOCK_PATH "40") END) });
        then = goes_online_and_is_asked_for;
        monitor_pause(monitor);
        monitor_resume(monitor);
        assert_string_equal(heard, "50:absent 40:offline 40:online");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_words),
                cmocka_unit_test_setup_teardown(test_who_speaks, setup, teardown),
                cmocka_unit_test_setup_teardown(test_overflow, setup, teardown),
                cmocka_unit_test_setup_teardown(test_asked_by_handler, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
