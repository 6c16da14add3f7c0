/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The picture of memory-map, from what hvd sent as JSON. */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "hmc-cli/map.h"

#define BLOCK(start, length, state, zone, device, drc, fate, why)                                            \
        "{\"start\":" start ",\"length\":" length ",\"state\":\"" state "\",\"zone\":\"" zone                \
        "\",\"device\":\"" device "\",\"drc\":" drc ",\"fate\":\"" fate "\",\"why\":\"" why "\"}"
#define MAP(note, blocks)                                                                                    \
        "{\"partition\":\"web1\",\"block_bytes\":134217728,\"page_bytes\":4096,\"note\":\"" note             \
        "\",\"blocks\":[" blocks "]}"

static char *draw(const char *text, bool color, unsigned width)
{
        _cleanup_json_ struct json_object *o = NULL;
        char *drawn = NULL;
        size_t size;
        FILE *f = open_memstream(&drawn, &size);

        assert_non_null(f);
        assert_int_equal(json_parse(text, strlen(text), &o), 0);
        assert_int_equal(map_print(f, o, color, width), 0);
        fclose(f);
        return drawn;
}

static const char all[] = MAP("",
        BLOCK("0", "268435456", "online", "kernel", "", "0", "base", "") "," BLOCK("4294967296", "134217728",
                "online", "movable", "d0", "0", "stuck",
                "3 pinned") "," BLOCK("4429185024", "134217728", "online", "movable", "d0", "0", "held",
                "") "," BLOCK("4563402752", "268435456", "offline", "unknown", "d0", "0", "held",
                "") "," BLOCK("5368709120", "268435456", "online", "movable", "d1", "0", "leaves",
                "") "," BLOCK("5637144576", "134217728", "online", "kernel", "d2", "0", "may-leave",
                "") "," BLOCK("5771362304", "134217728", "online", "movable", "d2", "0", "may-leave", ""));

static void test_plain(void **state)
{
        _cleanup_free_ char *s = draw(all, false, 80);

        assert_non_null(strstr(s, "web1: 1.25 GiB in blocks of 128 MiB, a cell is 128 MiB\n\n"
                                  "0x0           base  BB\n"
                                  "0x100000000   d0    Shoo\n"
                                  "0x140000000   d1    LL\n"
                                  "0x150000000   d2    KM\n"));
        assert_non_null(strstr(s, "\nStuck:\n  d0, block 0x100000000: 3 pinned\n"));
        assert_null(strchr(s, '\033'));
        assert_null(strstr(s, "not surveyed"));
}

/* A color goes on once for a run of cells, and off at its end. */
static void test_color(void **state)
{
        _cleanup_free_ char *s = draw(all, true, 80);

        assert_non_null(strstr(s, "base  \033[34mBB\033[0m\n"));
        assert_non_null(strstr(s, "d0    \033[1;31mS\033[0m\033[35mh\033[0m\033[36moo\033[0m\n"));
}

static void test_narrow(void **state)
{
        _cleanup_free_ char *s =
                draw(MAP("", BLOCK("0", "1342177280", "online", "kernel", "", "0", "base", "")), true, 10);

        assert_non_null(strstr(s, "base  \033[34mBBBBBBBB\033[0m\n                    \033[34mBB\033[0m\n"));
}

/* 1 TiB of it: a cell stands for eight blocks, and the worst of them shows. */
static void test_large(void **state)
{
        _cleanup_free_ char *s =
                draw(MAP("", BLOCK("0", "549755813888", "online", "kernel", "", "0", "base", "") "," BLOCK(
                                     "549755813888", "134217728", "online", "movable", "d0", "0", "may-leave",
                                     "") "," BLOCK("549890031616", "134217728", "online", "movable", "d0",
                                     "0", "stuck", "x") "," BLOCK("550024249344", "549487378432", "online",
                                     "movable", "d0", "0", "may-leave", "")),
                        false, 80);

        assert_non_null(strstr(s, "a cell is 1 GiB\n"));
        assert_non_null(strstr(s, "d0    SMMMMMMM"));
}

static void test_lmbs(void **state)
{
        _cleanup_free_ char *s =
                draw(MAP("guestd 0.1.0 has no survey",
                             BLOCK("4294967296", "536870912", "online", "movable", "d0", "2147483664",
                                     "may-leave", "") "," BLOCK("4831838208", "268435456", "online",
                                     "movable", "d1", "2147483666", "may-leave", "")),
                        false, 80);

        assert_non_null(strstr(s, "0x80000010-0x80000011  d0  MMMM\n0x80000012  d1             MM\n"));
        assert_non_null(strstr(s, "The guest's pages were not surveyed"));
        assert_non_null(strstr(s, ": guestd 0.1.0 has no survey\n"));
}

/* Of several nodes each line says which. */
static void test_nodes(void **state)
{
        _cleanup_free_ char *s =
                draw(MAP("", BLOCK("0", "134217728", "online", "kernel", "", "0,\"node\":0", "base",
                                     "") "," BLOCK("134217728", "268435456", "online", "kernel", "",
                                     "0,\"node\":1", "base", "") "," BLOCK("4294967296", "134217728",
                                     "online", "movable", "d0", "0,\"node\":1", "leaves", "")),
                        false, 80);

        assert_non_null(strstr(s, "0x0           base  node 0  B\n"
                                  "0x8000000     base  node 1  BB\n"
                                  "0x100000000   d0  node 1    L\n"));
}

/* What a guest or a foreign hvd may put there does not reach the terminal as it is. */
static void test_odd(void **state)
{
        _cleanup_free_ char *s = draw(MAP("", BLOCK("0", "134217728", "online", "movable", "d\\u001b[2J", "0",
                                                      "stuck", "a\\u001b[2Jb")),
                false, 80);
        assert_null(strchr(s, '\033'));

        _cleanup_free_ char *none = draw("{\"partition\":\"web1\"}", false, 80);
        assert_string_equal(none, "web1: the guest lists no memory blocks\n");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_plain),
                cmocka_unit_test(test_color),
                cmocka_unit_test(test_narrow),
                cmocka_unit_test(test_large),
                cmocka_unit_test(test_lmbs),
                cmocka_unit_test(test_nodes),
                cmocka_unit_test(test_odd),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
