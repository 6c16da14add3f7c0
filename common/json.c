/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* json-c behind strict rules. json-c 0.16 keeps the last of two equal keys without a word, cuts a key at
 * "\u0000", accepts "NaN", "-01", "1." and raw control characters even in strict mode, takes overlong UTF-8
 * for valid, and stops at the first value; each of these is closed here. */

#include "common/json.h"

#include <json-c/json_tokener.h>
#include <json-c/linkhash.h>
#include <limits.h>
#include <string.h>

#include "common/text.h"

static size_t skip_digits(const char *text, size_t i, size_t length)
{
        while (i < length && text[i] >= '0' && text[i] <= '9')
                i++;
        return i;
}

/* The length of the number at the start of text, 0 if json-c alone would take it for one ("01", "1.", "-.5").
 */
static size_t scan_number(const char *text, size_t length)
{
        size_t i = text[0] == '-', from = i;

        i = skip_digits(text, i, length);
        if (i == from || (text[from] == '0' && i > from + 1))
                return 0;
        if (i < length && text[i] == '.') {
                from = i + 1;
                i = skip_digits(text, from, length);
                if (i == from)
                        return 0;
        }
        if (i < length && (text[i] | 0x20) == 'e') {
                from = i + 1;
                if (from < length && (text[from] == '+' || text[from] == '-'))
                        from++;
                i = skip_digits(text, from, length);
                if (i == from)
                        return 0;
        }
        return i;
}

/* What json-c would let pass. Outside of strings the number of ':' is the number of members as written, and a
 * letter N or I can only begin NaN or Infinity. */
static bool scan_text(const char *text, size_t length, size_t *ret_members)
{
        bool in_string = false;
        size_t members = 0;

        for (size_t i = 0, n; i < length; i += n) {
                char c = text[i];

                n = utf8_sequence(text + i, length - i);
                if (n == 0)
                        return false;
                if (in_string) {
                        if ((unsigned char)c < 0x20)
                                return false;
                        if (c == '\\') {
                                if (length - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0)
                                        return false;
                                n = 2;
                        }
                        if (c == '"')
                                in_string = false;
                        continue;
                }
                if (c == '"')
                        in_string = true;
                else if (c == ':')
                        members++;
                else if (c == '-' || (c >= '0' && c <= '9')) {
                        n = scan_number(text + i, length - i);
                        if (n == 0)
                                return false;
                } else if (c == '\0' || c == '\'' || c == 'N' || c == 'I')
                        return false;
        }
        *ret_members = members;
        return true;
}

/* The number of members that json-c kept. Depth is bounded by the parser. */
static size_t count_members(struct json_object *o)
{
        size_t n = 0;

        if (json_object_is_type(o, json_type_object)) {
                json_object_object_foreach(o, key, value)
                {
                        (void)key;
                        n += 1 + count_members(value);
                }
        } else if (json_object_is_type(o, json_type_array))
                for (size_t i = 0; i < json_object_array_length(o); i++)
                        n += count_members(json_object_array_get_idx(o, i));
        return n;
}

static void tokener_freep(struct json_tokener **t)
{
        if (*t)
                json_tokener_free(*t);
}

int json_parse(const char *text, size_t length, struct json_object **ret)
{
        _cleanup_(tokener_freep) struct json_tokener *tokener = NULL;
        _cleanup_json_ struct json_object *o = NULL;
        size_t members;

        if (length == 0 || length > INT_MAX || !scan_text(text, length, &members))
                return -EBADMSG;
        tokener = json_tokener_new_ex(JSON_DEPTH_MAX);
        if (!tokener)
                return -ENOMEM;
        json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);

        o = json_tokener_parse_ex(tokener, text, (int)length);
        enum json_tokener_error e = json_tokener_get_error(tokener);
        if (e == json_tokener_continue) {
                /* A bare number ends only with the next byte: give it one. In strict mode a NUL must not
                 * follow an object's end, so it is not given in general. */
                o = json_tokener_parse_ex(tokener, "", 1);
                e = json_tokener_get_error(tokener);
        } else if (e == json_tokener_success && json_tokener_get_parse_end(tokener) != length)
                return -EBADMSG;
        if (e == json_tokener_error_depth)
                return -ELOOP;
        if (e != json_tokener_success || !o)
                return -EBADMSG;
        if (count_members(o) != members)
                return -EBADMSG;

        *ret = steal_pointer(o);
        return 0;
}

static int get_typed(struct json_object *o, const char *key, enum json_type type, struct json_object **ret)
{
        struct json_object *v;

        if (!json_object_object_get_ex(o, key, &v) || !v)
                return -ENOENT;
        if (!json_object_is_type(v, type))
                return -EINVAL;
        *ret = v;
        return 0;
}

int json_get_object(struct json_object *o, const char *key, struct json_object **ret)
{
        return get_typed(o, key, json_type_object, ret);
}

int json_get_array(struct json_object *o, const char *key, struct json_object **ret)
{
        return get_typed(o, key, json_type_array, ret);
}

int json_get_string(struct json_object *o, const char *key, const char **ret)
{
        struct json_object *v;
        int r = get_typed(o, key, json_type_string, &v);
        if (r < 0)
                return r;

        /* "\u0000" is legal JSON and a trap in C. */
        const char *s = json_object_get_string(v);
        if (strlen(s) != (size_t)json_object_get_string_len(v))
                return -EINVAL;
        *ret = s;
        return 0;
}

int json_get_bool(struct json_object *o, const char *key, bool *ret)
{
        struct json_object *v;
        int r = get_typed(o, key, json_type_boolean, &v);
        if (r < 0)
                return r;
        *ret = json_object_get_boolean(v);
        return 0;
}

static int to_u64(struct json_object *v, uint64_t max, uint64_t *ret)
{
        if (!json_object_is_type(v, json_type_int))
                return -EINVAL;
        /* Negative numbers read as 0 through get_uint64(), and large ones saturate: look at both. */
        if (json_object_get_int64(v) < 0)
                return -EINVAL;
        uint64_t u = json_object_get_uint64(v);
        if (u > max || u == UINT64_MAX)
                return -EINVAL;
        *ret = u;
        return 0;
}

int json_get_u64(struct json_object *o, const char *key, uint64_t max, uint64_t *ret)
{
        struct json_object *v;
        int r = get_typed(o, key, json_type_int, &v);
        if (r < 0)
                return r;
        return to_u64(v, max, ret);
}

int json_array_get_u64(struct json_object *array, size_t index, uint64_t max, uint64_t *ret)
{
        if (index >= json_object_array_length(array))
                return -ENOENT;
        return to_u64(json_object_array_get_idx(array, index), max, ret);
}

int json_add(struct json_object *o, const char *key, struct json_object *value)
{
        if (!value)
                return -ENOMEM;
        if (json_object_object_add(o, key, value) < 0) {
                json_object_put(value);
                return -ENOMEM;
        }
        return 0;
}

int json_add_string(struct json_object *o, const char *key, const char *value)
{
        return json_add(o, key, json_object_new_string(value));
}

int json_add_u64(struct json_object *o, const char *key, uint64_t value)
{
        return json_add(o, key, json_object_new_uint64(value));
}

int json_add_bool(struct json_object *o, const char *key, bool value)
{
        return json_add(o, key, json_object_new_boolean(value));
}

int json_array_add(struct json_object *array, struct json_object *value)
{
        if (!value)
                return -ENOMEM;
        if (json_object_array_add(array, value) < 0) {
                json_object_put(value);
                return -ENOMEM;
        }
        return 0;
}
