/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Each promise of common/json.h, with what json-c alone would have let through. */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/json.h"

static int parse(const char *text, struct json_object **ret)
{
        return json_parse(text, strlen(text), ret);
}

static struct json_object *parse_good(const char *text)
{
        struct json_object *o = NULL;
        int r = parse(text, &o);

        if (r < 0)
                fail_msg("%s: %d", text, r);
        return o;
}

static void test_good(void **state)
{
        static const char *const table[] = { "{}", "[]", "1", "0", "-1", "-0", "1.5", "-1.5e-10", "0.0",
                "1E+3", "true", "false", "\"\"", " {} ", "\t{\r\n}\n", "{\"a\":{\"a\":{\"a\":1}}}",
                "[{\"a\":1},{\"a\":1}]", "{\"a\":null}", "{\"\":1}",
                "\"a:b,c'd NaN Infinity /* */ \\\" \\\\ : \"", "\"\\u00e9\\ud83d\\ude00\\b\\f\\n\\r\\t\\/\"",
                "\"\\\\u0000\"", "{\"a\":\"\\\"}\"}", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\x7F\"",
                "[1,2 , 3]", "{\"a\" : 1 , \"b\" : [ ] }" };

        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
                _cleanup_json_ struct json_object *o = parse_good(table[i]);
                assert_non_null(o);
        }
}

static void test_bad(void **state)
{
        static const char *const table[] = { "", " ", "null", "{", "}", "[", "]", "{\"a\"}", "{\"a\":}",
                "{\"a\":1", "{\"a\":1]", "[1}", "{a:1}", "{'a':1}", "{\"a\":'b'}", "['a']", "{\"a\":1,}",
                "[1,]", "[,1]", "[1,,2]", "[1 2]", "{\"a\" 1}", "{\"a\":1;\"b\":2}", "{\"a\":1 \"b\":2}",
                "NaN", "[NaN]", "[nan]", "[-NaN]", "Infinity", "[Infinity]", "[-Infinity]", "[infinity]",
                "[Nul]", "TRUE", "[True]", "[FALSE]", "[Null]", "[NULL]", "[tru]", "[truex]", "[nulll]",
                "[undefined]", "01", "[00]", "[-01]", "[1.]", "[1.e3]", "[.5]", "[-.5]", "[+1]", "[--1]",
                "[1e]", "[1e+]", "[1-2]", "[1.2.3]", "[-]", "[0x10]", "[1_000]", "{}{}", "{} {}", "{}x",
                "{},", "1 2", "[]]", "\"a\"\"b\"", "/* */{}", "{}//", "[1/**/]", "# a\n{}", "\"abc",
                "\"a\nb\"", "\"a\tb\"", "\"\001\"", "\"\\x41\"", "\"\\'\"", "\"\\u12\"", "\"\\u12g4\"",
                "\"\\", "\"\\u0000\"", "{\"a\\u0000b\":1}", "\"\xFF\"", "\"\xC0\x80\"", "\"\xED\xA0\x80\"",
                "\"\xF4\x90\x80\x80\"", "\"\xC3\"", "\xEF\xBB\xBF{}", "\v{}", "\f{}", "{}\xC2\xA0",
                "{\"a\":1,\"a\":1}", "{\"a\":1,\"\\u0061\":2}", "{\"a\":{\"b\":1,\"b\":2}}",
                "[[{\"b\":1,\"b\":2}]]", "{\"a\":{\"c\":1},\"a\":{}}", "{\"a\":null,\"a\":null}",
                "{\"\":1,\"\":1}", "[1E400x]" };

        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
                struct json_object *o = NULL;
                int r = parse(table[i], &o);

                if (r != -EBADMSG || o)
                        fail_msg("%s: %d", table[i], r);
        }
}

static void test_nul(void **state)
{
        static const char inside[] = "{\"a\":\0 1}", behind[] = "{}\0", in_string[] = "\"a\0b\"",
                          number[] = "1\0";
        struct json_object *o = NULL;

        assert_int_equal(json_parse(inside, sizeof(inside) - 1, &o), -EBADMSG);
        assert_int_equal(json_parse(behind, 3, &o), -EBADMSG);
        assert_int_equal(json_parse(in_string, sizeof(in_string) - 1, &o), -EBADMSG);
        assert_int_equal(json_parse(number, 2, &o), -EBADMSG);
        /* The length rules, not a terminator. */
        assert_int_equal(json_parse("{}x", 2, &o), 0);
        json_object_put(o);
}

static void test_depth(void **state)
{
        char text[2 * (JSON_DEPTH_MAX + 2) + 1];

        for (size_t depth = 1; depth <= JSON_DEPTH_MAX + 2; depth++) {
                _cleanup_json_ struct json_object *o = NULL;

                memset(text, '[', depth);
                memset(text + depth, ']', depth);
                int r = json_parse(text, 2 * depth, &o);
                assert_int_equal(r, depth <= JSON_DEPTH_MAX ? 0 : -ELOOP);
        }
        static char deep[100000];
        struct json_object *o = NULL;
        memset(deep, '[', sizeof(deep));
        assert_int_equal(json_parse(deep, sizeof(deep), &o), -ELOOP);
        assert_null(o);
}

static void test_u64(void **state)
{
        static const struct {
                const char *text;
                uint64_t max, expected;
                int r;
        } table[] = {
                { "{\"a\":0}", 0, 0, 0 },
                { "{\"a\":-0}", 0, 0, 0 },
                { "{\"a\":1}", 0, 0, -EINVAL },
                { "{\"a\":-1}", UINT64_MAX, 0, -EINVAL },
                { "{\"a\":-9223372036854775808}", UINT64_MAX, 0, -EINVAL },
                { "{\"a\":-9223372036854775809}", UINT64_MAX, 0, -EINVAL },
                { "{\"a\":9007199254740993}", UINT64_MAX, 9007199254740993U, 0 },
                { "{\"a\":9223372036854775807}", UINT64_MAX, INT64_MAX, 0 },
                { "{\"a\":9223372036854775808}", UINT64_MAX, 9223372036854775808U, 0 },
                { "{\"a\":9223372036854775808}", INT64_MAX, 0, -EINVAL },
                { "{\"a\":18446744073709551614}", UINT64_MAX, UINT64_MAX - 1, 0 },
                { "{\"a\":18446744073709551615}", UINT64_MAX, 0, -EINVAL },
                { "{\"a\":18446744073709551616}", UINT64_MAX, 0, -EINVAL },
                { "{\"a\":99999999999999999999999}", UINT64_MAX, 0, -EINVAL },
                { "{\"a\":1.0}", UINT64_MAX, 0, -EINVAL },
                { "{\"a\":1e3}", UINT64_MAX, 0, -EINVAL },
                { "{\"a\":1e400}", UINT64_MAX, 0, -EINVAL },
                { "{\"a\":\"1\"}", UINT64_MAX, 0, -EINVAL },
                { "{\"a\":true}", UINT64_MAX, 0, -EINVAL },
                { "{\"a\":[1]}", UINT64_MAX, 0, -EINVAL },
                { "{\"a\":{}}", UINT64_MAX, 0, -EINVAL },
                { "{\"a\":null}", UINT64_MAX, 0, -ENOENT },
                { "{\"b\":1}", UINT64_MAX, 0, -ENOENT },
        };
        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
                _cleanup_json_ struct json_object *o = parse_good(table[i].text);
                uint64_t v = 42;
                int r = json_get_u64(o, "a", table[i].max, &v);

                if (r != table[i].r)
                        fail_msg("%s: %d", table[i].text, r);
                assert_int_equal(v, r < 0 ? 42 : table[i].expected);
        }
}

static void test_get(void **state)
{
        _cleanup_json_ struct json_object *o = parse_good(
                "{\"o\":{\"x\":1},\"a\":[1,-1,\"s\",null],\"s\":\"text\",\"t\":true,\"f\":false,\"n\":null}");
        struct json_object *v = NULL;
        const char *s = NULL;
        uint64_t u = 42;
        bool b = false;

        assert_int_equal(json_get_object(o, "o", &v), 0);
        assert_int_equal(json_get_u64(v, "x", 1, &u), 0);
        assert_int_equal(json_get_array(o, "o", &v), -EINVAL);
        assert_int_equal(json_get_object(o, "a", &v), -EINVAL);
        assert_int_equal(json_get_array(o, "a", &v), 0);
        assert_int_equal(json_get_string(o, "s", &s), 0);
        assert_string_equal(s, "text");
        assert_int_equal(json_get_bool(o, "t", &b), 0);
        assert_true(b);
        assert_int_equal(json_get_bool(o, "f", &b), 0);
        assert_false(b);
        assert_int_equal(json_get_bool(o, "s", &b), -EINVAL);
        assert_int_equal(json_get_string(o, "t", &s), -EINVAL);
        assert_int_equal(json_get_string(o, "n", &s), -ENOENT);
        assert_int_equal(json_get_string(o, "missing", &s), -ENOENT);
        assert_int_equal(json_get_string(NULL, "s", &s), -ENOENT);

        assert_int_equal(json_array_get_u64(v, 0, 1, &u), 0);
        assert_int_equal(u, 1);
        assert_int_equal(json_array_get_u64(v, 0, 0, &u), -EINVAL);
        assert_int_equal(json_array_get_u64(v, 1, 9, &u), -EINVAL);
        assert_int_equal(json_array_get_u64(v, 2, 9, &u), -EINVAL);
        assert_int_equal(json_array_get_u64(v, 3, 9, &u), -EINVAL);
        assert_int_equal(json_array_get_u64(v, 4, 9, &u), -ENOENT);
        assert_int_equal(u, 1);

        /* Not an object at all. */
        assert_int_equal(json_get_string(v, "s", &s), -ENOENT);
}

static void test_add(void **state)
{
        _cleanup_json_ struct json_object *o = json_object_new_object();
        struct json_object *array = json_object_new_array();

        assert_int_equal(json_add(o, "x", NULL), -ENOMEM);
        assert_int_equal(json_array_add(array, NULL), -ENOMEM);
        assert_int_equal(json_array_add(array, json_object_new_uint64(UINT64_MAX - 1)), 0);
        assert_int_equal(json_add(o, "a", array), 0);
        assert_int_equal(json_add_string(o, "s", "q\"\n"), 0);
        assert_int_equal(json_add_u64(o, "u", 1ULL << 63), 0);
        assert_int_equal(json_add_bool(o, "b", false), 0);

        const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
        assert_string_equal(text,
                "{\"a\":[18446744073709551614],\"s\":\"q\\\"\\n\",\"u\":9223372036854775808,\"b\":false}");
        _cleanup_json_ struct json_object *again = parse_good(text);
        assert_int_equal(json_object_equal(o, again), 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_good),
                cmocka_unit_test(test_bad),
                cmocka_unit_test(test_nul),
                cmocka_unit_test(test_depth),
                cmocka_unit_test(test_u64),
                cmocka_unit_test(test_get),
                cmocka_unit_test(test_add),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
