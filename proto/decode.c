/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Lines into messages. The peer is hostile: here what is needed is looked for and has to have its type,
 * nothing is allocated beyond a limit of message.h, and message_check() then judges every value. */

#include "proto/message.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/text.h"
#include "proto/codec.h"

#define BAD(ret_error, ...) error_set((ret_error), ERROR_AGENT_MISBEHAVED, __VA_ARGS__)

static int no_memory(struct error *ret_error)
{
        error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        return -ENOMEM;
}

/* The sentence for a json_get_*() that failed. */
static int bad_key(int r, const char *key, struct error *ret_error)
{
        if (r == -ENOENT)
                return BAD(ret_error, "'%s' is missing", key);
        return BAD(ret_error, "'%s' has a wrong type or is out of range", key);
}

static int get_u64(
        struct json_object *o, const char *key, uint64_t max, uint64_t *ret, struct error *ret_error)
{
        int r = json_get_u64(o, key, max, ret);
        return r < 0 ? bad_key(r, key, ret_error) : 0;
}

static int get_unsigned(struct json_object *o, const char *key, unsigned *ret, struct error *ret_error)
{
        uint64_t v;
        int r = get_u64(o, key, UINT_MAX, &v, ret_error);
        if (r < 0)
                return r;
        *ret = (unsigned)v;
        return 0;
}

static int get_string(struct json_object *o, const char *key, const char **ret, struct error *ret_error)
{
        int r = json_get_string(o, key, ret);
        return r < 0 ? bad_key(r, key, ret_error) : 0;
}

static int copy_string(
        struct json_object *o, const char *key, char *dest, size_t size, struct error *ret_error)
{
        const char *s;
        int r = get_string(o, key, &s, ret_error);
        if (r < 0)
                return r;

        size_t length = strlen(s);
        if (length >= size)
                return BAD(ret_error, "'%s' is longer than %zu bytes", key, size - 1);
        memcpy(dest, s, length + 1);
        return 0;
}

static int get_fields(struct json_object *o, const struct u64_field *fields, size_t n_fields, unsigned shape,
        void *base, struct error *ret_error)
{
        for (size_t i = 0; i < n_fields; i++) {
                const struct u64_field *f = fields + i;

                if (f->flag && !(shape & f->flag))
                        continue;
                int r = get_u64(o, f->key, f->max, (uint64_t *)((char *)base + f->offset), ret_error);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* An array of at most max members; one that is missing counts as empty unless it is required. */
static int get_array(struct json_object *o, const char *key, bool required, size_t max,
        struct json_object **ret, size_t *ret_n, struct error *ret_error)
{
        struct json_object *array = NULL;
        int r = json_get_array(o, key, &array);

        if (r < 0 && (r != -ENOENT || required))
                return bad_key(r, key, ret_error);
        size_t n = array ? json_object_array_length(array) : 0;
        if (n > max)
                return BAD(ret_error, "'%s' has more than %zu members", key, max);
        *ret = array;
        *ret_n = n;
        return 0;
}

/* The string at an index, or NULL. */
static const char *array_string(struct json_object *array, size_t i)
{
        struct json_object *v = json_object_array_get_idx(array, i);
        return json_object_is_type(v, json_type_string) ? json_object_get_string(v) : NULL;
}

/* Code and message as they are in a refuse, a failure or a reply's failures. What a newer peer calls by a
 * name that we do not know is still a failure. */
static int get_error(struct json_object *o, struct error *ret, struct error *ret_error)
{
        const char *code, *text;
        int r;

        if ((r = get_string(o, "code", &code, ret_error)) < 0 ||
                (r = get_string(o, "message", &text, ret_error)) < 0)
                return r;
        if (strlen(code) > PROTO_STRING_MAX)
                return BAD(ret_error, "'code' is longer than %u bytes", PROTO_STRING_MAX);
        ret->code = error_code_from_name(code);
        text_clean(ret->message, sizeof(ret->message), text);
        return 0;
}

/* A key that may be missing, or NULL. */
static int get_optional_bool(
        struct json_object *o, const char *key, bool *ret_has, bool *ret, struct error *ret_error)
{
        int r = json_get_bool(o, key, ret);

        if (r < 0 && r != -ENOENT)
                return bad_key(r, key, ret_error);
        *ret_has = r >= 0;
        return 0;
}

static int decode_hello(struct json_object *o, struct message *m, struct error *ret_error)
{
        struct message_hello *h = &m->hello;
        struct json_object *caps;
        bool has_hooks;
        size_t n;
        int r;

        if ((r = get_unsigned(o, "version", &h->version, ret_error)) < 0 ||
                (r = get_unsigned(o, "version_min", &h->version_min, ret_error)) < 0 ||
                (r = copy_string(o, "nonce", h->nonce, sizeof(h->nonce), ret_error)) < 0 ||
                (r = copy_string(o, "boot_id", h->boot_id, sizeof(h->boot_id), ret_error)) < 0 ||
                (r = copy_string(o, "agent", h->agent, sizeof(h->agent), ret_error)) < 0 ||
                (r = copy_string(o, "arch", h->arch, sizeof(h->arch), ret_error)) < 0 ||
                (r = get_u64(o, "block_bytes", PROTO_BLOCK_MAX, &h->block_bytes, ret_error)) < 0 ||
                (r = get_optional_bool(o, "hooks", &has_hooks, &h->hooks, ret_error)) < 0 ||
                (r = get_array(o, "capabilities", false, PROTO_CAPS_MAX, &caps, &n, ret_error)) < 0)
                return r;
        if (n == 0)
                return 0;

        if (!(h->capabilities = calloc(n + 1, sizeof(*h->capabilities))))
                return no_memory(ret_error);
        for (size_t i = 0; i < n; i++) {
                const char *s = array_string(caps, i);

                if (!s || strlen(s) > PROTO_STRING_MAX)
                        return BAD(ret_error, "'capabilities' has a member that is not a short string");
                if (!(h->capabilities[i] = strdup(s)))
                        return no_memory(ret_error);
        }
        return 0;
}

static int decode_welcome(struct json_object *o, struct message *m, struct error *ret_error)
{
        int r = get_unsigned(o, "version", &m->welcome.version, ret_error);
        if (r < 0)
                return r;
        return copy_string(o, "nonce", m->welcome.nonce, sizeof(m->welcome.nonce), ret_error);
}

static int decode_refuse(struct json_object *o, struct message *m, struct error *ret_error)
{
        int r = get_error(o, &m->refuse.error, ret_error);
        if (r < 0)
                return r;
        if (m->refuse.error.code <= ERROR_NONE)
                m->refuse.error.code = ERROR_INTERNAL;
        return copy_string(o, "nonce", m->refuse.nonce, sizeof(m->refuse.nonce), ret_error);
}

static int get_op(struct json_object *o, enum op *ret, struct error *ret_error)
{
        const char *s;
        int r = get_string(o, "op", &s, ret_error);
        if (r < 0)
                return r;
        enum op op = op_from_string(s);
        if (op == OP_INVALID)
                return BAD(ret_error, "Op '%.40s' is unknown", s);
        *ret = op;
        return 0;
}

static int get_hook_call(struct json_object *o, struct hook_call *h, struct error *ret_error)
{
        const char *phase, *operation, *outcome, *reason;
        uint64_t node;
        int r;

        if ((r = get_string(o, "phase", &phase, ret_error)) < 0 ||
                (r = get_string(o, "operation", &operation, ret_error)) < 0 ||
                (r = get_string(o, "outcome", &outcome, ret_error)) < 0 ||
                (r = get_string(o, "reason", &reason, ret_error)) < 0)
                return r;
        h->phase = hook_phase_from_string(phase);
        h->operation = hook_operation_from_string(operation);
        h->outcome = hook_outcome_from_string(outcome);
        text_clean(h->reason, sizeof(h->reason), reason);
        r = json_get_u64(o, "node", PROTO_NODES_MAX, &node);
        if (r < 0)
                return r == -ENOENT ? 0 : bad_key(r, "node", ret_error);
        h->has_node = true;
        h->node = (unsigned)node;
        return 0;
}

static int decode_request(struct json_object *o, struct message *m, struct error *ret_error)
{
        struct message_request *q = &m->request;
        struct json_object *targets;
        const char *zone;
        size_t n;
        int r;

        if ((r = get_op(o, &q->op, ret_error)) < 0)
                return r;
        unsigned shape = op_shape(q->op);
        if (shape & REQUEST_ZONE) {
                if ((r = get_string(o, "zone", &zone, ret_error)) < 0)
                        return r;
                q->zone = zone_from_string(zone);
        }
        if ((shape & REQUEST_ATTEMPT) && (r = json_get_bool(o, "gentle", &q->gentle)) < 0 && r != -ENOENT)
                return bad_key(r, "gentle", ret_error);
        if ((shape & REQUEST_ATTEMPT) && (r = json_get_bool(o, "each", &q->each)) < 0 && r != -ENOENT)
                return bad_key(r, "each", ret_error);
        if ((shape & REQUEST_HOOK) && (r = get_hook_call(o, &q->hook, ret_error)) < 0)
                return r;
        if ((r = get_fields(o, request_fields, n_request_fields, shape, q, ret_error)) < 0 ||
                !(shape & REQUEST_TARGETS))
                return r;

        if ((r = get_array(o, "targets", true, PROTO_RANGES_MAX, &targets, &n, ret_error)) < 0)
                return r;
        if (n > 0 && !(q->targets = calloc(n, sizeof(*q->targets))))
                return no_memory(ret_error);
        for (q->n_targets = 0; q->n_targets < n; q->n_targets++) {
                struct json_object *v = json_object_array_get_idx(targets, q->n_targets);
                struct mem_range *t = q->targets + q->n_targets;

                if (!json_object_is_type(v, json_type_array) || json_object_array_length(v) != 2 ||
                        json_array_get_u64(v, 0, PROTO_ADDRESS_MAX, &t->start) < 0 ||
                        json_array_get_u64(v, 1, PROTO_ADDRESS_MAX, &t->length) < 0)
                        return BAD(ret_error, "'targets' has a member that is not [start, length]");
        }
        return 0;
}

static int get_memory(struct json_object *o, struct message_reply *p, struct error *ret_error)
{
        struct json_object *memory, *pressure;
        int r = json_get_object(o, "memory", &memory);

        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return bad_key(r, "memory", ret_error);
        r = get_fields(memory, memory_fields, n_memory_fields, 0, &p->memory, ret_error);
        if (r < 0)
                return r;
        p->has_memory = true;
        r = json_get_u64(memory, "margin_bytes", PROTO_ADDRESS_MAX - 1, &p->memory.margin_bytes);
        if (r < 0 && r != -ENOENT)
                return bad_key(r, "margin_bytes", ret_error);

        r = json_get_object(memory, "pressure", &pressure);
        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return bad_key(r, "pressure", ret_error);
        p->memory.has_pressure = true;
        r = get_unsigned(pressure, "some_avg10_centi", &p->memory.some_avg10_centi, ret_error);
        if (r < 0)
                return r;
        return get_unsigned(pressure, "full_avg10_centi", &p->memory.full_avg10_centi, ret_error);
}

static int get_sample_pressure(struct json_object *sample, struct guest_sample *s, struct error *ret_error)
{
        struct json_object *o;
        int r = json_get_object(sample, "pressure", &o);

        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return bad_key(r, "pressure", ret_error);
        s->has_pressure = true;
        if ((r = json_get_bool(o, "watched", &s->is_watched)) < 0)
                return bad_key(r, "watched", ret_error);
        if ((r = get_unsigned(o, "some_avg10_centi", &s->some_avg10_centi, ret_error)) < 0 ||
                (r = get_unsigned(o, "full_avg10_centi", &s->full_avg10_centi, ret_error)) < 0)
                return r;
        return get_fields(o, stall_fields, n_stall_fields, 0, s, ret_error);
}

static int get_sample(struct json_object *o, struct guest_sample *s, struct error *ret_error)
{
        struct json_object *sample;
        const char *cause;
        int r = json_get_object(o, "sample", &sample);

        if (r < 0)
                return bad_key(r, "sample", ret_error);
        if ((r = get_string(sample, "cause", &cause, ret_error)) < 0 ||
                (r = get_fields(sample, sample_fields, n_sample_fields, 0, s, ret_error)) < 0)
                return r;
        s->cause = sample_cause_from_string(cause);
        return get_sample_pressure(sample, s, ret_error);
}

static int get_ranges(struct json_object *o, struct message_reply *p, struct error *ret_error)
{
        bool required = op_shape(p->op) & REPLY_RANGES;
        struct json_object *ranges;
        size_t n;
        int r = get_array(o, "ranges", required, PROTO_RANGES_MAX, &ranges, &n, ret_error);

        if (r < 0 || n == 0)
                return r;
        if (!(p->ranges = calloc(n, sizeof(*p->ranges))))
                return no_memory(ret_error);
        for (p->n_ranges = 0; p->n_ranges < n; p->n_ranges++) {
                struct json_object *v = json_object_array_get_idx(ranges, p->n_ranges);
                struct block_range *b = p->ranges + p->n_ranges;
                uint64_t node;

                if (!json_object_is_type(v, json_type_array) || json_object_array_length(v) != 5 ||
                        json_array_get_u64(v, 0, PROTO_ADDRESS_MAX, &b->start) < 0 ||
                        json_array_get_u64(v, 1, PROTO_ADDRESS_MAX, &b->length) < 0 ||
                        json_array_get_u64(v, 4, PROTO_NODES_MAX, &node) < 0)
                        return BAD(ret_error,
                                "'ranges' has a member that is not [start, length, state, zone, node]");
                b->state = block_state_from_string(array_string(v, 2));
                b->zone = zone_from_string(array_string(v, 3));
                b->node = (unsigned)node;
        }
        return 0;
}

static int get_failures(struct json_object *o, struct message_reply *p, struct error *ret_error)
{
        struct json_object *failures;
        size_t n;
        int r = get_array(o, "failures", false, PROTO_FAILURES_MAX, &failures, &n, ret_error);

        if (r < 0 || n == 0)
                return r;
        if (!(p->failures = calloc(n, sizeof(*p->failures))))
                return no_memory(ret_error);
        for (p->n_failures = 0; p->n_failures < n; p->n_failures++) {
                struct json_object *v = json_object_array_get_idx(failures, p->n_failures);
                struct block_failure *f = p->failures + p->n_failures;

                if (!json_object_is_type(v, json_type_object))
                        return BAD(ret_error, "'failures' has a member that is not an object");
                if ((r = get_u64(v, "start", PROTO_ADDRESS_MAX, &f->start, ret_error)) < 0 ||
                        (r = get_u64(v, "length", PROTO_ADDRESS_MAX, &f->length, ret_error)) < 0 ||
                        (r = get_error(v, &f->error, ret_error)) < 0)
                        return r;
                f->error.code = guest_error_code(f->error.code, ERROR_BLOCK_FAILED);
        }
        return 0;
}

static int get_surveys(struct json_object *o, struct message_reply *p, struct error *ret_error)
{
        struct json_object *surveys;
        size_t n;
        int r;

        if (!(op_shape(p->op) & REPLY_SURVEYS))
                return 0;
        if ((r = get_u64(o, "page_bytes", PROTO_BLOCK_MIN, &p->page_bytes, ret_error)) < 0 ||
                (r = get_array(o, "surveys", true, PROTO_SURVEYS_MAX, &surveys, &n, ret_error)) < 0)
                return r;
        if (n > 0 && !(p->surveys = calloc(n, sizeof(*p->surveys))))
                return no_memory(ret_error);
        for (p->n_surveys = 0; p->n_surveys < n; p->n_surveys++) {
                struct json_object *v = json_object_array_get_idx(surveys, p->n_surveys);
                struct block_survey *b = p->surveys + p->n_surveys;
                size_t at = 0;
                bool good = json_object_is_type(v, json_type_array) &&
                            json_object_array_length(v) == 4 + PAGE_KIND_MAX &&
                            json_array_get_u64(v, at++, PROTO_ADDRESS_MAX, &b->start) >= 0 &&
                            json_array_get_u64(v, at++, PROTO_ADDRESS_MAX, &b->length) >= 0 &&
                            json_array_get_u64(v, at++, PROTO_ADDRESS_MAX, &b->sampled) >= 0;

                for (enum page_kind k = 0; good && k < PAGE_KIND_MAX; k++)
                        good = json_array_get_u64(v, at++, PROTO_ADDRESS_MAX, &b->pages[k]) >= 0;
                if (!good || json_array_get_u64(v, at, PROTO_ADDRESS_MAX, &b->cost_bytes) < 0)
                        return BAD(ret_error, "'surveys' has a member that is not %d numbers",
                                4 + PAGE_KIND_MAX);
        }
        return 0;
}

static int get_pool(struct json_object *v, struct assisted_pool *p, struct error *ret_error)
{
        uint64_t node;

        if (!json_object_is_type(v, json_type_array) || json_object_array_length(v) != 4 ||
                json_array_get_u64(v, 0, PROTO_NODES_MAX, &node) < 0 ||
                json_array_get_u64(v, 1, PROTO_BLOCK_MAX, &p->page_bytes) < 0 ||
                json_array_get_u64(v, 2, PROTO_ADDRESS_MAX, &p->taken) < 0 ||
                json_array_get_u64(v, 3, PROTO_ADDRESS_MAX, &p->restored) < 0)
                return BAD(ret_error,
                        "'huge_pages' has a member that is not [node, page_bytes, taken, restored]");
        p->node = (unsigned)node;
        return 0;
}

static int get_assistance(struct json_object *o, struct message_reply *p, struct error *ret_error)
{
        struct json_object *v, *pools;
        struct assistance *a;
        size_t n;
        int r;

        if (!(op_shape(p->op) & REPLY_ASSISTANCE) || (r = json_get_object(o, "assistance", &v)) == -ENOENT)
                return 0;
        if (r < 0)
                return bad_key(r, "assistance", ret_error);
        if (!(a = p->assistance = calloc(1, sizeof(*a))))
                return no_memory(ret_error);
        if ((r = get_fields(v, assistance_fields, n_assistance_fields, 0, a, ret_error)) < 0 ||
                (r = get_array(v, "huge_pages", false, PROTO_POOLS_MAX, &pools, &n, ret_error)) < 0)
                return r;
        for (; r >= 0 && a->n_pools < n; a->n_pools++)
                r = get_pool(json_object_array_get_idx(pools, a->n_pools), &a->pools[a->n_pools], ret_error);
        return r;
}

static int get_hooks(struct json_object *o, struct message_reply *p, struct error *ret_error)
{
        struct json_object *hooks;
        size_t n;
        int r;

        if (!(op_shape(p->op) & REPLY_HOOKS))
                return 0;
        r = get_array(o, "hooks", false, PROTO_HOOKS_MAX, &hooks, &n, ret_error);
        if (r < 0 || n == 0)
                return r;
        if (!(p->hooks = calloc(n, sizeof(*p->hooks))))
                return no_memory(ret_error);
        for (p->n_hooks = 0; p->n_hooks < n; p->n_hooks++) {
                struct json_object *v = json_object_array_get_idx(hooks, p->n_hooks);
                struct hook_result *h = p->hooks + p->n_hooks;

                if (!json_object_is_type(v, json_type_object))
                        return BAD(ret_error, "'hooks' has a member that is not an object");
                if ((r = copy_string(v, "name", h->name, sizeof(h->name), ret_error)) < 0 ||
                        (r = get_error(v, &h->error, ret_error)) < 0)
                        return r;
                h->error.code = guest_error_code(h->error.code, ERROR_HOOK_FAILED);
        }
        return 0;
}

static int decode_reply(struct json_object *o, struct message *m, struct error *ret_error)
{
        struct message_reply *p = &m->reply;
        int r;

        if ((r = get_op(o, &p->op, ret_error)) < 0 || (r = get_memory(o, p, ret_error)) < 0 ||
                (r = get_ranges(o, p, ret_error)) < 0 || (r = get_failures(o, p, ret_error)) < 0 ||
                (r = get_surveys(o, p, ret_error)) < 0 || (r = get_assistance(o, p, ret_error)) < 0 ||
                (r = get_hooks(o, p, ret_error)) < 0)
                return r;
        if ((op_shape(p->op) & REPLY_COMPLETE) && (r = json_get_bool(o, "complete", &p->complete)) < 0)
                return bad_key(r, "complete", ret_error);
        if ((op_shape(p->op) & REPLY_SAMPLE) && (r = get_sample(o, &p->sample, ret_error)) < 0)
                return r;

        r = json_get_u64(o, "next", PROTO_ADDRESS_MAX, &p->next);
        if (r < 0 && r != -ENOENT)
                return bad_key(r, "next", ret_error);
        p->has_next = r >= 0;
        return 0;
}

static int decode_failure(struct json_object *o, struct message *m, struct error *ret_error)
{
        int r = get_error(o, &m->failure, ret_error);
        if (r < 0)
                return r;
        m->failure.code = guest_error_code(m->failure.code, ERROR_INTERNAL);
        return 0;
}

static int decode_progress(struct json_object *o, struct message *m, struct error *ret_error)
{
        int r = get_u64(o, "done_bytes", PROTO_ADDRESS_MAX, &m->progress.done_bytes, ret_error);
        if (r < 0)
                return r;
        return get_u64(o, "total_bytes", PROTO_ADDRESS_MAX, &m->progress.total_bytes, ret_error);
}

static int decode_event(struct json_object *o, struct message *m, struct error *ret_error)
{
        const char *s;
        int r = get_string(o, "event", &s, ret_error);
        if (r < 0)
                return r;
        m->event.type = event_type_from_string(s);
        if (m->event.type == EVENT_SAMPLE && (r = get_sample(o, &m->event.sample, ret_error)) < 0)
                return r;
        return get_optional_bool(o, "hooks", &m->event.has_hooks, &m->event.hooks, ret_error);
}

static int (*const decoders[MESSAGE_TYPE_MAX])(
        struct json_object *o, struct message *m, struct error *ret_error) = {
        [MESSAGE_HELLO] = decode_hello,
        [MESSAGE_WELCOME] = decode_welcome,
        [MESSAGE_REFUSE] = decode_refuse,
        [MESSAGE_REQUEST] = decode_request,
        [MESSAGE_REPLY] = decode_reply,
        [MESSAGE_FAILURE] = decode_failure,
        [MESSAGE_PROGRESS] = decode_progress,
        [MESSAGE_EVENT] = decode_event,
};

static int parse_line(const char *line, size_t length, struct json_object **ret, struct error *ret_error)
{
        if (length > PROTO_LINE_MAX)
                return BAD(ret_error, "The message is longer than %u bytes", PROTO_LINE_MAX);

        _cleanup_json_ struct json_object *o = NULL;
        int r = json_parse(line, length, &o);
        if (r == -ENOMEM)
                return no_memory(ret_error);
        if (r < 0)
                return BAD(ret_error,
                        r == -ELOOP ? "The message is nested too deeply" : "The message is not strict JSON");
        if (!json_object_is_type(o, json_type_object))
                return BAD(ret_error, "The message is not an object");
        *ret = steal_pointer(o);
        return 0;
}

int message_decode(const char *line, size_t length, struct message *ret_m, struct error *ret_error)
{
        _cleanup_json_ struct json_object *o = NULL;
        _cleanup_(message_done) struct message m = { 0 };
        const char *type;
        int r;

        if ((r = parse_line(line, length, &o, ret_error)) < 0 ||
                (r = get_string(o, "type", &type, ret_error)) < 0)
                return r;
        m.type = message_type_from_string(type);
        if (m.type == MESSAGE_TYPE_INVALID)
                return BAD(ret_error, "Type '%.40s' is unknown", type);
        if (message_type_has_session(m.type) &&
                (r = copy_string(o, "session", m.session, sizeof(m.session), ret_error)) < 0)
                return r;
        if (message_type_has_id(m.type) && (r = get_u64(o, "id", PROTO_ID_MAX, &m.id, ret_error)) < 0)
                return r;
        if ((r = decoders[m.type](o, &m, ret_error)) < 0 || (r = message_check(&m, ret_error)) < 0)
                return r;

        *ret_m = m;
        m = (struct message) { 0 };
        return 0;
}
