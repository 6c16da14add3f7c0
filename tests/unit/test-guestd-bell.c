/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The bell's filter, run by the kernel on a socket that carries what uevents look like. */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/size.h"

#include "guestd/bell.h"

static int pair[2];

static bool passes(const char *text)
{
        char buffer[256];

        assert_int_equal(send(pair[0], text, strlen(text) + 1, MSG_DONTWAIT), strlen(text) + 1);
        ssize_t n = recv(pair[1], buffer, sizeof(buffer), MSG_DONTWAIT);
        if (n >= 0)
                assert_string_equal(buffer, text);
        return n >= 0;
}

static void listen_for(enum block_state state, const uint32_t *blocks, size_t n)
{
        assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(bell_filter(pair[1], state, blocks, n), 0);
}

static void hang_up(void)
{
        close(pair[0]);
        close(pair[1]);
}

static void test_online(void **state)
{
        static const uint32_t blocks[] = { 47, 4, UINT32_MAX };

        listen_for(BLOCK_ONLINE, blocks, ARRAY_SIZE(blocks));
        assert_true(passes("online@/devices/system/memory/memory47"));
        assert_true(passes("online@/devices/system/memory/memory4"));
        assert_true(passes("online@/devices/system/memory/memory4294967295"));
        assert_false(passes("online@/devices/system/memory/memory46"));
        assert_false(passes("online@/devices/system/memory/memory470"));
        assert_false(passes("online@/devices/system/memory/memory7"));
        assert_false(passes("online@/devices/system/memory/memory"));
        assert_false(passes("offline@/devices/system/memory/memory47"));
        assert_false(passes("add@/devices/system/memory/memory47"));
        assert_false(passes("remove@/devices/system/memory/memory47"));
        assert_false(passes("online@/devices/system/cpu/cpu1"));
        assert_false(passes("o"));
        hang_up();
}

static void test_removed(void **state)
{
        uint32_t blocks[BELL_BLOCKS_MAX];

        /* As many and as long as they may be. */
        for (uint32_t i = 0; i < BELL_BLOCKS_MAX; i++)
                blocks[i] = UINT32_MAX - i;
        listen_for(BLOCK_ABSENT, blocks, BELL_BLOCKS_MAX);
        assert_true(passes("remove@/devices/system/memory/memory4294967295"));
        assert_true(passes("remove@/devices/system/memory/memory4294967288"));
        assert_false(passes("remove@/devices/system/memory/memory4294967287"));
        assert_false(passes("online@/devices/system/memory/memory4294967295"));
        hang_up();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_online),
                cmocka_unit_test(test_removed),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
