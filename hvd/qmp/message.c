/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The vocabulary of QMP: which of the four kinds of message a line is. Nothing here keeps state, so that the
 * fuzzer sees exactly the code that reads a real QEMU. A message must be of one kind only; keys that we do
 * not know are ignored, as the QMP specification asks of clients. */

#include "hvd/qmp/message.h"

#include <errno.h>
#include <string.h>

void qmp_message_done(struct qmp_message *m)
{
        if (m->root)
                json_object_put(m->root);
        *m = (struct qmp_message) { 0 };
}

static int bad(struct error *ret_error, const char *why)
{
        return error_set(ret_error, ERROR_HYPERVISOR_MISBEHAVED, "QEMU's monitor sent %s", why);
}

static int parse_id(struct json_object *root, struct qmp_message *m, struct error *ret_error)
{
        int r = json_get_u64(root, "id", QMP_ID_MAX, &m->id);
        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return bad(ret_error, "a reply with an id that is no number of ours");
        m->has_id = true;
        return 0;
}

static int parse_greeting(struct json_object *root, struct qmp_message *m, struct error *ret_error)
{
        struct json_object *qmp, *version, *capabilities;

        if (json_get_object(root, "QMP", &qmp) < 0 || json_get_object(qmp, "version", &version) < 0 ||
                json_get_array(qmp, "capabilities", &capabilities) < 0)
                return bad(ret_error, "a greeting that is not QMP");
        for (size_t i = 0; i < json_object_array_length(capabilities); i++) {
                struct json_object *c = json_object_array_get_idx(capabilities, i);

                m->offers_oob |= json_object_is_type(c, json_type_string) &&
                                 strcmp(json_object_get_string(c), "oob") == 0;
        }
        return 0;
}

static int parse_return(struct json_object *root, struct qmp_message *m, struct error *ret_error)
{
        if (!json_object_object_get_ex(root, "return", &m->object) || !m->object) {
                /* "return": null is a value of QMP's type 'null'. json-c has no object for it; callers are
                 * promised one, so an empty object stands for it. */
                int r = json_add(root, "return", json_object_new_object());
                if (r < 0)
                        return r;
                json_object_object_get_ex(root, "return", &m->object);
        }
        return parse_id(root, m, ret_error);
}

static int parse_error(struct json_object *root, struct qmp_message *m, struct error *ret_error)
{
        struct json_object *e;

        if (json_get_object(root, "error", &e) < 0 || json_get_string(e, "class", &m->name) < 0 ||
                json_get_string(e, "desc", &m->description) < 0)
                return bad(ret_error, "an error without class and desc");
        return parse_id(root, m, ret_error);
}

static int parse_event(struct json_object *root, struct qmp_message *m, struct error *ret_error)
{
        if (json_get_string(root, "event", &m->name) < 0 || !*m->name)
                return bad(ret_error, "an event without a name");
        int r = json_get_object(root, "data", &m->object);
        if (r < 0 && r != -ENOENT)
                return bad(ret_error, "an event with data that is no object");
        return 0;
}

static const struct {
        const char *key;
        int (*parse)(struct json_object *root, struct qmp_message *m, struct error *ret_error);
} kinds[QMP_MESSAGE_TYPE_MAX] = {
        [QMP_MESSAGE_GREETING] = { "QMP", parse_greeting },
        [QMP_MESSAGE_RETURN] = { "return", parse_return },
        [QMP_MESSAGE_ERROR] = { "error", parse_error },
        [QMP_MESSAGE_EVENT] = { "event", parse_event },
};

int qmp_message_parse(const char *line, size_t length, struct qmp_message *ret_m, struct error *ret_error)
{
        _cleanup_json_ struct json_object *root = NULL;
        struct qmp_message m = { .type = QMP_MESSAGE_TYPE_MAX };

        int r = json_parse(line, length, &root);
        if (r == -ENOMEM)
                return error_set_errno(ret_error, ERROR_INTERNAL, r, "Cannot read QEMU's monitor");
        if (r < 0)
                return bad(ret_error, "a line that is not JSON");
        if (!json_object_is_type(root, json_type_object))
                return bad(ret_error, "JSON that is no object");

        for (int i = 0; i < QMP_MESSAGE_TYPE_MAX; i++) {
                if (!json_object_object_get_ex(root, kinds[i].key, NULL))
                        continue;
                if (m.type != QMP_MESSAGE_TYPE_MAX)
                        return bad(ret_error, "a message of two kinds at once");
                m.type = i;
        }
        if (m.type == QMP_MESSAGE_TYPE_MAX)
                return bad(ret_error, "a message of no known kind");

        r = kinds[m.type].parse(root, &m, ret_error);
        if (r == -ENOMEM)
                return error_set_errno(ret_error, ERROR_INTERNAL, r, "Cannot read QEMU's monitor");
        if (r < 0)
                return r;

        m.root = steal_pointer(root);
        *ret_m = m;
        return 0;
}

/* Nothing is sent out of band. But without the capability QEMU (7.2) reads a command only when the one before
 * has been answered, and hands each from one of its threads to another and back; with it they queue. */
int qmp_message_answer_greeting(const struct qmp_message *greeting, struct json_object **ret_arguments)
{
        static const char enable_oob[] = "{\"enable\":[\"oob\"]}";

        *ret_arguments = NULL;
        return greeting->offers_oob ? json_parse(enable_oob, sizeof(enable_oob) - 1, ret_arguments) : 0;
}

int qmp_message_format(
        const char *command, struct json_object *arguments, uint64_t id, char **ret_line, size_t *ret_length)
{
        _cleanup_json_ struct json_object *o = json_object_new_object();
        size_t length;

        if (!o)
                return -ENOMEM;
        int r = json_add_string(o, "execute", command);
        if (r == 0 && arguments)
                r = json_add(o, "arguments", json_object_get(arguments));
        if (r == 0)
                r = json_add_u64(o, "id", id);
        if (r < 0)
                return r;

        const char *text = json_object_to_json_string_length(
                o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &length);
        char *line = text ? malloc(length + 2) : NULL;
        if (!line)
                return -ENOMEM;
        memcpy(line, text, length);
        memcpy(line + length, "\n", 2);

        *ret_line = line;
        *ret_length = length + 1;
        return 0;
}
