/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Words, JSON and output: what the engine and its dialects both use, and what keeps no state. */

#include "tests/fakes/dialect.h"

#include <ctype.h>
#include <json-c/linkhash.h>
#include <stdio.h>
#include <string.h>

void *fake_must(void *p)
{
        if (!p)
                abort();
        return p;
}

const char *fake_take_word(const char *text, char *word, size_t size)
{
        size_t n = 0;

        while (isspace((unsigned char)*text))
                text++;
        for (; *text && !isspace((unsigned char)*text); text++)
                if (n + 1 < size)
                        word[n++] = *text;
        word[n] = '\0';
        while (isspace((unsigned char)*text))
                text++;
        return text;
}

size_t fake_json_span(const char *text)
{
        bool in_string = false;
        int depth = 0;

        if (*text != '{' && *text != '[')
                return 0;
        for (size_t i = 0; text[i]; i++) {
                char c = text[i];

                if (in_string && c == '\\' && text[i + 1])
                        i++;
                else if (c == '"')
                        in_string = !in_string;
                else if (!in_string && (c == '{' || c == '['))
                        depth++;
                else if (!in_string && (c == '}' || c == ']') && --depth == 0)
                        return i + 1;
        }
        return 0;
}

bool fake_contains(struct json_object *o, struct json_object *wanted)
{
        if (!json_object_is_type(wanted, json_type_object))
                return json_object_equal(o, wanted);
        if (!json_object_is_type(o, json_type_object))
                return false;
        json_object_object_foreach(wanted, key, value)
        {
                struct json_object *v;
                if (!json_object_object_get_ex(o, key, &v) || !fake_contains(v, value))
                        return false;
        }
        return true;
}

void fake_merge(struct json_object *base, struct json_object *overrides)
{
        if (!overrides)
                return;
        json_object_object_foreach(overrides, key, value)
                json_object_object_add(base, key, json_object_get(value));
}

void fake_output_bytes(struct fake_output *out, const void *data, size_t length)
{
        if (length == 0)
                return;
        if (out->length + length > out->allocated) {
                out->allocated = 2 * (out->length + length);
                out->data = fake_must(realloc(out->data, out->allocated));
        }
        memcpy(out->data + out->length, data, length);
        out->length += length;
}

void fake_output_json(struct fake_output *out, struct json_object *o)
{
        const char *text = fake_must((void *)json_object_to_json_string_ext(
                o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));

        fake_output_bytes(out, text, strlen(text));
        fake_output_bytes(out, "\n", 1);
        json_object_put(o);
}

void fake_output_raw(struct fake_output *out, const char *text)
{
        for (; *text; text++) {
                unsigned char c = (unsigned char)*text;
                unsigned hex;

                if (c == '\\' && text[1]) {
                        text++;
                        if (*text == 'x' && sscanf(text + 1, "%2x", &hex) == 1) {
                                c = (unsigned char)hex;
                                text += 2;
                        } else
                                c = *text == 'n'   ? '\n'
                                    : *text == 'r' ? '\r'
                                    : *text == 't' ? '\t'
                                                   : (unsigned char)*text;
                }
                fake_output_bytes(out, &c, 1);
        }
}
