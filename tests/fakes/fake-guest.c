/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The guest protocol as a guest speaks it, right or wrong, as a script wants. Messages are made here by hand
 * and not by proto/, which would refuse to make the wrong ones. */

#include "tests/fakes/fake-guest.h"

#include <stdio.h>
#include <string.h>

#include "common/size.h"
#include "proto/message.h"
#include "tests/fakes/dialect.h"

struct guest {
        char session[PROTO_TOKEN_LENGTH + 1];
};

static const char hello[] =
        "{\"type\":\"hello\",\"version\":1,\"version_min\":1,\"nonce\":\"00112233445566ff\","
        "\"boot_id\":\"11111111-1111-1111-1111-111111111111\",\"agent\":\"guestd fake\","
        "\"arch\":\"x86_64\",\"block_bytes\":134217728,\"capabilities\":[]}";

/* 1 GiB at boot, all of it online. */
static const char memory[] =
        "{\"total_bytes\":1073741824,\"free_bytes\":805306368,\"available_bytes\":838860800,\"swap_total_"
        "bytes\":0,"
        "\"swap_free_bytes\":0,\"kernel_bytes\":1073741824,\"movable_bytes\":0,\"online_blocks\":8,"
        "\"offline_blocks\":0}";

/* The same in short. */
static const char sample[] =
        "{\"cause\":\"asked\",\"total_bytes\":1073741824,\"available_bytes\":838860800,\"free_bytes\":"
        "805306368,"
        "\"movable_bytes\":0,\"movable_free_bytes\":0,\"movable_cache_bytes\":0,\"margin_bytes\":33554432,"
        "\"refault_file_bytes\":0,\"refault_anon_bytes\":0,\"swap_in_bytes\":0,\"swap_out_bytes\":0,"
        "\"pressure\":{\"some_avg10_centi\":0,\"full_avg10_centi\":0,\"some_total_usec\":0,"
        "\"full_total_usec\":0,\"watched\":true}}";

static struct json_object *parse(const char *text)
{
        struct json_object *o;

        if (json_parse(text, strlen(text), &o) < 0)
                abort();
        return o;
}

static bool classify(struct json_object *message, const char **ret_name, struct json_object **ret_arguments)
{
        const char *type;

        *ret_arguments = message;
        if (json_get_string(message, "type", &type) < 0)
                return false;
        if (strcmp(type, "request") == 0)
                return json_get_string(message, "op", ret_name) == 0;
        *ret_name = type;
        return strcmp(type, "welcome") == 0 || strcmp(type, "refuse") == 0;
}

static bool on_taken(struct fake *f, struct json_object *message)
{
        struct guest *g = fake_state(f);
        const char *type, *session;

        json_get_string(message, "type", &type);
        if (json_get_string(message, "session", &session) < 0)
                session = "";
        if (strcmp(type, "request") == 0) {
                if (strcmp(session, g->session) == 0)
                        return true;
                fake_fail(f, "a request of session '%s' came, not of '%s'", session, g->session);
                return false;
        }
        if (fake_n_marks(f) == 0) {
                fake_fail(f, "the host's first words did not begin with 0xFF");
                return false;
        }
        if (strcmp(type, "welcome") == 0)
                snprintf(g->session, sizeof(g->session), "%s", session);
        return true;
}

/* What a reply to the op must have, beside the op. */
static void add_defaults(struct json_object *o, const char *op)
{
        switch (op_from_string(op)) {
        case OP_GET_STATE:
        case OP_PREPARE:
        case OP_RELEASE:
                json_add(o, "memory", parse(memory));
                break;
        case OP_GET_BLOCKS:
                json_add(o, "ranges", parse("[[0,1073741824,\"online\",\"kernel\",0]]"));
                break;
        case OP_ONLINE:
        case OP_OFFLINE:
        case OP_AWAIT_REMOVED:
        case OP_HOOK:
                json_add_bool(o, "complete", true);
                break;
        case OP_SURVEY:
                json_add_u64(o, "page_bytes", 4096);
                json_add(o, "surveys", parse("[]"));
                break;
        case OP_SAMPLE:
                json_add(o, "sample", parse(sample));
                break;
        default:
                break;
        }
}

static struct json_object *new_message(struct fake *f, const char *type, struct json_object *request)
{
        struct json_object *o = fake_must(json_object_new_object()), *id;
        struct guest *g = fake_state(f);

        json_add_string(o, "type", type);
        json_add_string(o, "session", g->session);
        if (request && json_object_object_get_ex(request, "id", &id))
                json_object_object_add(o, "id", json_object_get(id));
        return o;
}

static int build(struct fake *f, const char *verb, const char *rest, struct json_object *request,
        struct fake_output *out)
{
        _cleanup_json_ struct json_object *overrides = NULL;
        struct json_object *o;
        char word[64];

        if (strcmp(verb, "hello") == 0 || strcmp(verb, "send") == 0 || strcmp(verb, "reply") == 0)
                if (!fake_parse_json(f, rest, &overrides))
                        return -1;

        if (strcmp(verb, "hello") == 0) {
                fake_output_bytes(out, "\xff", 1);
                o = parse(hello);
        } else if (strcmp(verb, "send") == 0)
                o = new_message(f, "none", NULL);
        else if (strcmp(verb, "reply") == 0) {
                const char *op;

                if (json_get_string(request, "op", &op) < 0) {
                        fake_fail(f, "there is no request to reply to");
                        return -1;
                }
                o = new_message(f, "reply", request);
                json_add_string(o, "op", op);
                add_defaults(o, op);
        } else if (strcmp(verb, "failure") == 0) {
                rest = fake_take_word(rest, word, sizeof(word));
                o = new_message(f, "failure", request);
                json_add_string(o, "code", word);
                json_add_string(o, "message", rest);
        } else if (strcmp(verb, "progress") == 0) {
                unsigned long long done = 0, total = 0;

                sscanf(rest, "%llu %llu", &done, &total);
                o = new_message(f, "progress", request);
                json_add_u64(o, "done_bytes", done);
                json_add_u64(o, "total_bytes", total);
        } else if (strcmp(verb, "event") == 0) {
                o = new_message(f, "event", NULL);
                json_add_string(o, "event", rest);
        } else
                return 0;
        fake_merge(o, overrides);
        fake_output_json(out, o);
        return 1;
}

static const struct fake_macro macros[] = {
        { "begin", "accept\nhello\nexpect welcome\n" },
        { NULL },
};

static const struct fake_dialect dialect = {
        .resync = true,
        .line_max = PROTO_LINE_MAX,
        .macros = macros,
        .classify = classify,
        .on_taken = on_taken,
        .build = build,
};

int fake_guest_new(sd_event *event, const char *socket, const char *script, struct fake **ret)
{
        return fake_new(event, socket, &dialect, fake_must(calloc(1, sizeof(struct guest))), script, ret);
}
