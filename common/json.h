/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json_object.h>

#include "common/cleanup.h"

/* The one place that calls json-c's parser. Peers are hostile: what is not RFC 8259 is refused. */

static inline void json_putp(struct json_object **o)
{
        json_object_put(*o);
}
#define _cleanup_json_ _cleanup_(json_putp)

#define JSON_DEPTH_MAX 16

/* Parses exactly one JSON value that fills the text. Refused with -EBADMSG: anything that is not strict JSON
 * (single quotes, NaN, Infinity, comments, trailing commas or bytes), invalid UTF-8, an embedded NUL, a
 * duplicate key in any object; with -ELOOP: more than JSON_DEPTH_MAX levels. The caller owns *ret. */
int json_parse(const char *text, size_t length, struct json_object **ret);

/* Typed look-ups in an object. -ENOENT: no such key (or null); -EINVAL: another type, or out of range;
 * -ENOTUNIQ never. Outputs are borrowed from o and untouched on failure. o may be NULL (-ENOENT). */
int json_get_object(struct json_object *o, const char *key, struct json_object **ret);
int json_get_array(struct json_object *o, const char *key, struct json_object **ret);
int json_get_string(struct json_object *o, const char *key, const char **ret);
int json_get_bool(struct json_object *o, const char *key, bool *ret);
/* A whole number from 0 to max. */
int json_get_u64(struct json_object *o, const char *key, uint64_t max, uint64_t *ret);
/* The same for an array's element. */
int json_array_get_u64(struct json_object *array, size_t index, uint64_t max, uint64_t *ret);

/* Builders that cannot be ignored when memory runs out: json-c's constructors return NULL, and adding NULL
 * would write "null". These return -ENOMEM instead; json_add() takes ownership of value in every case. */
int json_add(struct json_object *o, const char *key, struct json_object *value);
int json_add_string(struct json_object *o, const char *key, const char *value);
int json_add_u64(struct json_object *o, const char *key, uint64_t value);
int json_add_bool(struct json_object *o, const char *key, bool value);
int json_array_add(struct json_object *array, struct json_object *value);
