/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "common/cleanup.h"
#include "common/queue.h"

static void test_order_and_limit(void **state)
{
        _cleanup_(write_queue_clear) struct write_queue q = { 0 };
        int fds[2];
        char seen[16];

        assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
        assert_int_equal(write_queue_push(&q, "abc", 3, 8), 0);
        assert_int_equal(write_queue_push(&q, "defgh", 5, 8), 0);
        assert_int_equal(write_queue_push(&q, "i", 1, 8), -EBUSY);
        assert_int_equal(write_queue_push(&q, "i", SIZE_MAX, 8), -EBUSY);
        assert_int_equal(write_queue_waiting(&q), 8);
        /* A pipe takes write() where a socket takes send(). */
        assert_int_equal(write_queue_flush(&q, fds[1], 3), 0);
        assert_int_equal(write_queue_waiting(&q), 0);
        assert_int_equal(read(fds[0], seen, sizeof(seen)), 8);
        assert_memory_equal(seen, "abcdefgh", 8);
        close(fds[0]);
        close(fds[1]);
}

static void test_full_and_broken(void **state)
{
        static char block[65536], sink[65536];
        _cleanup_(write_queue_clear) struct write_queue q = { 0 };
        size_t pushed = 0, seen = 0;
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        while (write_queue_waiting(&q) == 0) {
                for (size_t i = 0; i < sizeof(block); i++)
                        block[i] = (char)((pushed + i) % 251);
                assert_int_equal(write_queue_push(&q, block, sizeof(block), 1 << 20), 0);
                pushed += sizeof(block);
                assert_int_equal(write_queue_flush(&q, fds[0], 0), 0);
        }
        for (ssize_t n; seen < pushed;) {
                while ((n = read(fds[1], sink, sizeof(sink))) > 0)
                        for (ssize_t i = 0; i < n; i++)
                                assert_int_equal(sink[i], (char)(seen++ % 251));
                assert_int_equal(write_queue_flush(&q, fds[0], 0), 0);
        }

        close(fds[1]);
        assert_int_equal(write_queue_push(&q, "x", 1, 8), 0);
        assert_int_equal(write_queue_flush(&q, fds[0], 0), -EPIPE);
        close(fds[0]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_order_and_limit),
                cmocka_unit_test(test_full_and_broken),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
