/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The words of messages, errors and what people read of them, and the rule of zones that both ends share. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "proto/message.h"

#define SESSION "0011223344556677"

/* Text for people is made safe on the way out, codes on both ways. */
static void test_errors(void **state)
{
        static const struct {
                enum error_code code, expected;
        } table[] = {
                { ERROR_BUSY, ERROR_BUSY },
                { ERROR_DEADLINE, ERROR_DEADLINE },
                { ERROR_POOL_EXHAUSTED, ERROR_INTERNAL },
                { ERROR_HYPERVISOR_REFUSED, ERROR_INTERNAL },
        };
        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
                _cleanup_(message_done) struct message again = { 0 };
                _cleanup_free_ char *line = NULL;
                size_t length;
                struct message m = { .type = MESSAGE_FAILURE,
                        .session = SESSION,
                        .id = 1,
                        .failure = { table[i].code, "a\nb\033[2Jc\xC3" } };
                assert_int_equal(message_encode(&m, &line, &length), 0);
                assert_int_equal(message_decode(line, length - 1, &again, NULL), 0);
                assert_int_equal(again.failure.code, table[i].expected);
                assert_string_equal(again.failure.message, "a b [2Jc?");
        }

        /* A reason is cut between characters: 192 bytes are 96 of these. */
        _cleanup_(message_done) struct message again = { 0 };
        _cleanup_free_ char *line = NULL;
        size_t length;
        struct block_failure failure = { 0, MIB, { ERROR_SLOT_RULE, "x" } };
        for (size_t i = 0; i < 200; i++)
                memcpy(failure.error.message + 1 + 2 * i, "\xC3\xA9", 3);
        struct message m = { .type = MESSAGE_REPLY,
                .session = SESSION,
                .id = 7,
                .reply = { .op = OP_OFFLINE, .failures = &failure, .n_failures = 1 } };
        assert_int_equal(message_encode(&m, &line, &length), 0);
        assert_int_equal(message_decode(line, length - 1, &again, NULL), 0);
        assert_int_equal(again.reply.failures[0].error.code, ERROR_BLOCK_FAILED);
        assert_int_equal(strlen(again.reply.failures[0].error.message), PROTO_REASON_MAX - 1);
}

static void test_names(void **state)
{
        for (enum zone z = 0; z < ZONE_MAX; z++)
                assert_int_equal(zone_from_string(zone_to_string(z)), z);
        for (enum block_state s = 0; s < BLOCK_STATE_MAX; s++)
                assert_int_equal(block_state_from_string(block_state_to_string(s)), s);
        for (enum page_kind k = 0; k < PAGE_KIND_MAX; k++)
                assert_int_equal(page_kind_from_string(page_kind_to_string(k)), k);
        for (enum sample_cause c = 0; c < SAMPLE_CAUSE_MAX; c++)
                assert_int_equal(sample_cause_from_string(sample_cause_to_string(c)), c);
        for (enum op op = 0; op < OP_MAX; op++)
                assert_int_equal(op_from_string(op_to_string(op)), op);
        assert_null(zone_to_string(ZONE_MAX));
        assert_null(zone_to_string(ZONE_INVALID));
        assert_null(block_state_to_string(BLOCK_STATE_MAX));
        assert_null(op_to_string(OP_INVALID));
        assert_int_equal(zone_from_string("Movable"), ZONE_INVALID);
        assert_int_equal(zone_from_string(NULL), ZONE_INVALID);
        assert_int_equal(block_state_from_string(""), BLOCK_STATE_INVALID);
        assert_int_equal(op_from_string("online "), OP_INVALID);
}

static void test_zone_ratio(void **state)
{
        static const struct {
                uint64_t kernel, movable, budget;
        } table[] = {
                { 0, 0, 0 },
                { 0, GIB, 0 },
                { 1, 0, 3 },
                { 99, 0, 297 },
                { 100, 0, 301 },
                { 199, 0, 598 },
                { GIB, 0, GIB / 100 * 301 + GIB % 100 * 301 / 100 },
                { GIB, 3 * GIB, GIB / 100 + GIB % 100 / 100 },
                { GIB, 4 * GIB, 0 },
                { 512 * MIB, GIB, (512 * MIB / 100 * 301 + 512 * MIB % 100 * 301 / 100) - GIB },
                { UINT64_MAX, 0, UINT64_MAX },
                { UINT64_MAX, UINT64_MAX, 0 },
                { UINT64_MAX / 4, 0, UINT64_MAX / 400 * 301 + (UINT64_MAX / 4 % 100) * 301 / 100 },
        };
        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
                uint64_t kernel = table[i].kernel, movable = table[i].movable, budget = table[i].budget;

                assert_int_equal(zone_ratio_budget(kernel, movable), budget);
                assert_true(zone_ratio_allows(kernel, movable, 0));
                assert_true(zone_ratio_allows(kernel, movable, budget));
                if (budget < UINT64_MAX)
                        assert_false(zone_ratio_allows(kernel, movable, budget + 1));
                if (budget < UINT64_MAX)
                        assert_false(zone_ratio_allows(kernel, movable, UINT64_MAX));
        }
        /* 3:1 exactly is what an operator expects to work. */
        assert_true(zone_ratio_allows(GIB, 0, 3 * GIB));
        assert_true(zone_ratio_allows(GIB, 2 * GIB, GIB));
        assert_false(zone_ratio_allows(GIB, 3 * GIB, 128 * MIB));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_errors),
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_zone_ratio),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
