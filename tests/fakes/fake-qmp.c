/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* QMP as QEMU speaks it, as far as a script wants. */

#include "tests/fakes/fake-qmp.h"

#include <string.h>

#include "tests/fakes/dialect.h"

/* As QEMU 7.2 on Debian 12 says it. */
static const char greeting[] =
        "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, "
        "\"package\": \"Debian 1:7.2+dfsg-7\"}, \"capabilities\": [\"oob\"]}}\r\n";

static bool classify(struct json_object *message, const char **ret_name, struct json_object **ret_arguments)
{
        *ret_arguments = NULL;
        json_get_object(message, "arguments", ret_arguments);
        return json_get_string(message, "execute", ret_name) == 0;
}

static struct json_object *with_id(struct json_object *request)
{
        struct json_object *o = fake_must(json_object_new_object()), *id;

        if (json_object_object_get_ex(request, "id", &id))
                json_object_object_add(o, "id", json_object_get(id));
        return o;
}

static int build(struct fake *f, const char *verb, const char *rest, struct json_object *request,
        struct fake_output *out)
{
        struct json_object *o, *value;
        char word[64];

        if (strcmp(verb, "greet") == 0) {
                fake_output_bytes(out, greeting, strlen(greeting));
                return 1;
        }
        if (strcmp(verb, "reply") == 0) {
                value = NULL;
                if (strcmp(rest, "null") != 0 && !fake_parse_json(f, *rest ? rest : "{}", &value))
                        return -1;
                o = with_id(request);
                json_object_object_add(o, "return", value);
        } else if (strcmp(verb, "error") == 0) {
                rest = fake_take_word(rest, word, sizeof(word));
                value = fake_must(json_object_new_object());
                json_add_string(value, "class", word);
                json_add_string(value, "desc", rest);
                o = with_id(request);
                json_object_object_add(o, "error", value);
        } else if (strcmp(verb, "event") == 0) {
                rest = fake_take_word(rest, word, sizeof(word));
                if (!fake_parse_json(f, rest, &value))
                        return -1;
                struct json_object *timestamp = fake_must(json_object_new_object());
                json_add_u64(timestamp, "seconds", 1700000000);
                json_add_u64(timestamp, "microseconds", 0);
                o = fake_must(json_object_new_object());
                json_object_object_add(o, "timestamp", timestamp);
                json_add_string(o, "event", word);
                if (value)
                        json_object_object_add(o, "data", value);
        } else
                return 0;
        fake_output_json(out, o);
        return 1;
}

static const struct fake_macro macros[] = {
        { "negotiate", "accept\ngreet\nexpect qmp_capabilities\nreply {}\n" },
        { NULL },
};

static const struct fake_dialect dialect = {
        .line_max = 1024 * 1024,
        .macros = macros,
        .classify = classify,
        .build = build,
};

int fake_qmp_new(sd_event *event, const char *socket, const char *script, struct fake **ret)
{
        return fake_new(event, socket, &dialect, NULL, script, ret);
}
