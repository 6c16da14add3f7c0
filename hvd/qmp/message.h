/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/json.h"

/* What QEMU says on a monitor, one line at a time. Pure: text in, a classified message out. */

enum qmp_message_type {
        QMP_MESSAGE_GREETING,
        QMP_MESSAGE_RETURN,
        QMP_MESSAGE_ERROR,
        QMP_MESSAGE_EVENT,
        QMP_MESSAGE_TYPE_MAX,
};

struct qmp_message {
        enum qmp_message_type type;
        bool has_id; /* RETURN, ERROR: QEMU omits it when it could not read the command */
        uint64_t id;
        bool offers_oob;            /* GREETING: the capability "oob" */
        const char *name;           /* EVENT: its name; ERROR: its class. Borrowed from root, as all below */
        const char *description;    /* ERROR */
        struct json_object *object; /* RETURN: the value, of any type, never NULL; EVENT: data, may be NULL */
        struct json_object *root;   /* owned */
};

void qmp_message_done(struct qmp_message *m);

/* Classifies one line (without newline; need not be NUL-terminated). A negative errno if it is not QMP:
 * *ret_m is untouched and *ret_error (ERROR_HYPERVISOR_MISBEHAVED) says why. On success the caller calls
 * qmp_message_done(). */
int qmp_message_parse(const char *line, size_t length, struct qmp_message *ret_m, struct error *ret_error);

/* What to ask for by qmp_capabilities: its arguments, or NULL for none. The caller frees them. */
int qmp_message_answer_greeting(const struct qmp_message *greeting, struct json_object **ret_arguments);

/* One command line with its newline. arguments is borrowed and may be NULL. The caller frees *ret_line. */
int qmp_message_format(
        const char *command, struct json_object *arguments, uint64_t id, char **ret_line, size_t *ret_length);

/* Ids that we choose lie within what a double, and so any JSON reader, can hold. */
#define QMP_ID_MAX ((1ULL << 53) - 1)
