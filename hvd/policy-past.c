/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Decisions of before, as the store has them. A round's input is that of all partitions, up to a thousand; an
 * explanation has the one that it is about. */

#include "hvd/policy-past.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "hvd/store/store.h"

struct past {
        struct json_object *explanation;
        uint64_t round;
        char partition[PARTITION_NAME_MAX + 1];
};

static int on_decision(const struct store_decision *d, void *userdata)
{
        struct past *past = userdata;
        _cleanup_json_ struct json_object *o = json_object_new_object();
        struct json_object *decision;

        past->round = d->round;
        snprintf(past->partition, sizeof(past->partition), "%s", d->partition);
        int r = json_parse(d->decision, strlen(d->decision), &decision);
        if (r < 0)
                return r;
        if (json_add(o, "decision", decision) < 0 || json_add_u64(o, "id", d->id) < 0 ||
                json_add_string(o, "partition", d->partition) < 0 ||
                json_add_string(o, "text", d->text) < 0 || json_add_u64(o, "time_usec", d->time_usec) < 0 ||
                json_add_string(o, "outcome", d->outcome) < 0)
                return -ENOMEM;
        past->explanation = steal_pointer(o);
        return 0;
}

/* Leaves of the input's partitions that one, borrowed. */
static int single_out(struct json_object *input, const char *name, struct json_object **ret)
{
        struct json_object *all, *own, *p = NULL;
        const char *s;
        size_t i = 0;

        if (json_get_array(input, "partitions", &all) < 0)
                return -EBADMSG;
        for (; i < json_object_array_length(all); i++) {
                p = json_object_array_get_idx(all, i);
                if (json_get_string(p, "name", &s) >= 0 && strcmp(s, name) == 0)
                        break;
        }
        if (i == json_object_array_length(all))
                return -EBADMSG;
        own = json_object_new_array();
        if (!own || json_array_add(own, json_object_get(p)) < 0) {
                json_object_put(own);
                return -ENOMEM;
        }
        *ret = p;
        return json_add(input, "partitions", own); /* in place of all */
}

static int add_input(struct past *past, const char *text)
{
        _cleanup_json_ struct json_object *input = NULL;
        struct json_object *own;
        const char *mode;

        int r = json_parse(text, strlen(text), &input);
        if (r >= 0)
                r = single_out(input, past->partition, &own);
        if (r >= 0)
                r = json_get_string(own, "mode", &mode) < 0 ? -EBADMSG : 0;
        if (r >= 0)
                r = json_add_string(past->explanation, "mode", mode);
        return r < 0 ? r : json_add(past->explanation, "input", steal_pointer(input));
}

int policy_explain_past(struct store *s, uint64_t id, char **ret, struct error *ret_error)
{
        _cleanup_json_ struct json_object *explanation = NULL;
        _cleanup_free_ char *input = NULL;
        struct past past = { 0 };
        const char *text;

        error_set(ret_error, ERROR_INTERNAL, "What the store has of decision %" PRIu64 " is not understood",
                id);
        int r = store_decision_get(s, id, on_decision, &past, ret_error);
        explanation = past.explanation;
        if (r >= 0)
                r = store_round_get(s, past.round, &input, ret_error);
        if (r >= 0)
                r = add_input(&past, input);
        if (r < 0)
                return r;
        text = json_object_to_json_string_ext(
                explanation, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
        *ret = text ? strdup(text) : NULL;
        return *ret ? 0 : error_set(ret_error, ERROR_INTERNAL, "Out of memory");
}
