/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Messages into lines. A message is checked first, so that what follows can fail only for want of memory; the
 * limits of message.h are such that every message that passes fits in PROTO_LINE_MAX (tests/unit/test-proto.c
 * proves it). */

#include "proto/message.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/text.h"
#include "proto/codec.h"

static int add_fields(struct json_object *o, const struct u64_field *fields, size_t n_fields, unsigned shape,
        const void *base)
{
        for (size_t i = 0; i < n_fields; i++) {
                const struct u64_field *f = fields + i;

                if (f->flag && !(shape & f->flag))
                        continue;
                int r = json_add_u64(o, f->key, *(const uint64_t *)((const char *)base + f->offset));
                if (r < 0)
                        return r;
        }
        return 0;
}

static int add_error(struct json_object *o, const struct error *e, enum error_code code, size_t message_max)
{
        char text[ERROR_MESSAGE_MAX];

        text_clean(text, MIN(message_max + 1, sizeof(text)), e->message);
        int r = json_add_string(o, "code", error_code_name(code));
        return r < 0 ? r : json_add_string(o, "message", text);
}

/* Each array is built whole before it is added: a failure frees it. */
static int add_array(struct json_object *o, const char *key, struct json_object **array)
{
        return json_add(o, key, steal_pointer(*array));
}

static int new_array(struct json_object **ret)
{
        *ret = json_object_new_array();
        return *ret ? 0 : -ENOMEM;
}

static int new_run(uint64_t start, uint64_t length, struct json_object **ret)
{
        int r;

        if ((r = new_array(ret)) < 0 || (r = json_array_add(*ret, json_object_new_uint64(start))) < 0 ||
                (r = json_array_add(*ret, json_object_new_uint64(length))) < 0)
                return r;
        return 0;
}

static int encode_hello(struct json_object *o, const struct message *m)
{
        const struct message_hello *h = &m->hello;
        _cleanup_json_ struct json_object *caps = NULL;
        int r;

        if ((r = json_add_u64(o, "version", h->version)) < 0 ||
                (r = json_add_u64(o, "version_min", h->version_min)) < 0 ||
                (r = json_add_string(o, "nonce", h->nonce)) < 0 ||
                (r = json_add_string(o, "boot_id", h->boot_id)) < 0 ||
                (r = json_add_string(o, "agent", h->agent)) < 0 ||
                (r = json_add_string(o, "arch", h->arch)) < 0 ||
                (r = json_add_u64(o, "block_bytes", h->block_bytes)) < 0 || (r = new_array(&caps)) < 0)
                return r;
        for (char **c = h->capabilities; c && *c; c++)
                if ((r = json_array_add(caps, json_object_new_string(*c))) < 0)
                        return r;
        r = add_array(o, "capabilities", &caps);
        return r < 0 || !h->hooks ? r : json_add_bool(o, "hooks", true);
}

static int encode_welcome(struct json_object *o, const struct message *m)
{
        int r = json_add_u64(o, "version", m->welcome.version);
        return r < 0 ? r : json_add_string(o, "nonce", m->welcome.nonce);
}

static int encode_refuse(struct json_object *o, const struct message *m)
{
        int r = json_add_string(o, "nonce", m->refuse.nonce);
        if (r < 0)
                return r;
        return add_error(o, &m->refuse.error, m->refuse.error.code, ERROR_MESSAGE_MAX - 1);
}

static int add_hook_call(struct json_object *o, const struct hook_call *h)
{
        char reason[PROTO_REASON_MAX + 1];
        int r;

        text_clean(reason, sizeof(reason), h->reason);
        if ((r = json_add_string(o, "phase", hook_phase_to_string(h->phase))) < 0 ||
                (r = json_add_string(o, "operation", hook_operation_to_string(h->operation))) < 0 ||
                (r = json_add_string(o, "outcome", hook_outcome_to_string(h->outcome))) < 0 ||
                (h->has_node && (r = json_add_u64(o, "node", h->node)) < 0))
                return r;
        return json_add_string(o, "reason", reason);
}

static int encode_request(struct json_object *o, const struct message *m)
{
        const struct message_request *q = &m->request;
        unsigned shape = op_shape(q->op);
        _cleanup_json_ struct json_object *targets = NULL;
        int r;

        if ((r = json_add_string(o, "op", op_to_string(q->op))) < 0)
                return r;
        if ((shape & REQUEST_ZONE) && (r = json_add_string(o, "zone", zone_to_string(q->zone))) < 0)
                return r;
        if ((shape & REQUEST_ATTEMPT) && q->gentle && (r = json_add_bool(o, "gentle", true)) < 0)
                return r;
        if ((shape & REQUEST_ATTEMPT) && q->each && (r = json_add_bool(o, "each", true)) < 0)
                return r;
        if ((shape & REQUEST_HOOK) && (r = add_hook_call(o, &q->hook)) < 0)
                return r;
        if ((r = add_fields(o, request_fields, n_request_fields, shape, q)) < 0 || !(shape & REQUEST_TARGETS))
                return r;

        if ((r = new_array(&targets)) < 0)
                return r;
        for (size_t i = 0; i < q->n_targets; i++) {
                _cleanup_json_ struct json_object *run = NULL;

                if ((r = new_run(q->targets[i].start, q->targets[i].length, &run)) < 0 ||
                        (r = json_array_add(targets, steal_pointer(run))) < 0)
                        return r;
        }
        return add_array(o, "targets", &targets);
}

static int add_memory(struct json_object *o, const struct guest_memory *memory)
{
        _cleanup_json_ struct json_object *v = json_object_new_object(), *pressure = NULL;
        int r;

        if (!v)
                return -ENOMEM;
        if ((r = add_fields(v, memory_fields, n_memory_fields, 0, memory)) < 0)
                return r;
        if (memory->margin_bytes > 0 && (r = json_add_u64(v, "margin_bytes", memory->margin_bytes)) < 0)
                return r;
        if (memory->has_pressure) {
                if (!(pressure = json_object_new_object()))
                        return -ENOMEM;
                if ((r = json_add_u64(pressure, "some_avg10_centi", memory->some_avg10_centi)) < 0 ||
                        (r = json_add_u64(pressure, "full_avg10_centi", memory->full_avg10_centi)) < 0 ||
                        (r = json_add(v, "pressure", steal_pointer(pressure))) < 0)
                        return r;
        }
        return json_add(o, "memory", steal_pointer(v));
}

static int add_sample_pressure(struct json_object *sample, const struct guest_sample *s)
{
        _cleanup_json_ struct json_object *o = json_object_new_object();
        int r;

        if (!o)
                return -ENOMEM;
        if ((r = json_add_u64(o, "some_avg10_centi", s->some_avg10_centi)) < 0 ||
                (r = json_add_u64(o, "full_avg10_centi", s->full_avg10_centi)) < 0 ||
                (r = add_fields(o, stall_fields, n_stall_fields, 0, s)) < 0 ||
                (r = json_add_bool(o, "watched", s->is_watched)) < 0)
                return r;
        return json_add(sample, "pressure", steal_pointer(o));
}

static int add_sample(struct json_object *o, const struct guest_sample *s)
{
        _cleanup_json_ struct json_object *sample = json_object_new_object();
        int r;

        if (!sample)
                return -ENOMEM;
        if ((r = json_add_string(sample, "cause", sample_cause_to_string(s->cause))) < 0 ||
                (r = add_fields(sample, sample_fields, n_sample_fields, 0, s)) < 0 ||
                (s->has_pressure && (r = add_sample_pressure(sample, s)) < 0))
                return r;
        return json_add(o, "sample", steal_pointer(sample));
}

static int add_ranges(struct json_object *o, const struct block_range *ranges, size_t n_ranges)
{
        _cleanup_json_ struct json_object *array = NULL;
        int r = new_array(&array);

        for (size_t i = 0; r >= 0 && i < n_ranges; i++) {
                const struct block_range *b = ranges + i;
                _cleanup_json_ struct json_object *v = NULL;

                if ((r = new_run(b->start, b->length, &v)) < 0 ||
                        (r = json_array_add(v, json_object_new_string(block_state_to_string(b->state)))) <
                                0 ||
                        (r = json_array_add(v, json_object_new_string(zone_to_string(b->zone)))) < 0 ||
                        (r = json_array_add(v, json_object_new_uint64(b->node))) < 0)
                        return r;
                r = json_array_add(array, steal_pointer(v));
        }
        return r < 0 ? r : add_array(o, "ranges", &array);
}

static int add_failures(struct json_object *o, const struct block_failure *failures, size_t n_failures)
{
        _cleanup_json_ struct json_object *array = NULL;
        int r = new_array(&array);

        for (size_t i = 0; r >= 0 && i < n_failures; i++) {
                const struct block_failure *f = failures + i;
                _cleanup_json_ struct json_object *v = json_object_new_object();
                enum error_code code = guest_error_code(f->error.code, ERROR_BLOCK_FAILED);

                if (!v)
                        return -ENOMEM;
                if ((r = json_add_u64(v, "start", f->start)) < 0 ||
                        (r = json_add_u64(v, "length", f->length)) < 0 ||
                        (r = add_error(v, &f->error, code, PROTO_REASON_MAX)) < 0)
                        return r;
                r = json_array_add(array, steal_pointer(v));
        }
        return r < 0 ? r : add_array(o, "failures", &array);
}

static int add_surveys(struct json_object *o, const struct message_reply *p)
{
        _cleanup_json_ struct json_object *array = NULL;
        int r = new_array(&array);

        for (size_t i = 0; r >= 0 && i < p->n_surveys; i++) {
                const struct block_survey *b = p->surveys + i;
                _cleanup_json_ struct json_object *v = NULL;

                if ((r = new_run(b->start, b->length, &v)) < 0 ||
                        (r = json_array_add(v, json_object_new_uint64(b->sampled))) < 0)
                        return r;
                for (enum page_kind k = 0; k < PAGE_KIND_MAX; k++)
                        if ((r = json_array_add(v, json_object_new_uint64(b->pages[k]))) < 0)
                                return r;
                if ((r = json_array_add(v, json_object_new_uint64(b->cost_bytes))) < 0)
                        return r;
                r = json_array_add(array, steal_pointer(v));
        }
        if (r < 0 || (r = json_add_u64(o, "page_bytes", p->page_bytes)) < 0)
                return r;
        return add_array(o, "surveys", &array);
}

static int add_assistance(struct json_object *o, const struct assistance *a)
{
        _cleanup_json_ struct json_object *v = json_object_new_object(), *pools = NULL;
        int r;

        if (!v)
                return -ENOMEM;
        if ((r = add_fields(v, assistance_fields, n_assistance_fields, 0, a)) < 0 ||
                (r = new_array(&pools)) < 0)
                return r;
        for (size_t i = 0; i < a->n_pools; i++) {
                const struct assisted_pool *p = &a->pools[i];
                _cleanup_json_ struct json_object *member = NULL;

                if ((r = new_run(p->node, p->page_bytes, &member)) < 0 ||
                        (r = json_array_add(member, json_object_new_uint64(p->taken))) < 0 ||
                        (r = json_array_add(member, json_object_new_uint64(p->restored))) < 0 ||
                        (r = json_array_add(pools, steal_pointer(member))) < 0)
                        return r;
        }
        if (a->n_pools > 0 && (r = add_array(v, "huge_pages", &pools)) < 0)
                return r;
        return json_add(o, "assistance", steal_pointer(v));
}

static int add_hooks(struct json_object *o, const struct message_reply *p)
{
        _cleanup_json_ struct json_object *array = NULL;
        int r = new_array(&array);

        for (size_t i = 0; r >= 0 && i < p->n_hooks; i++) {
                const struct hook_result *h = p->hooks + i;
                _cleanup_json_ struct json_object *v = json_object_new_object();

                if (!v)
                        return -ENOMEM;
                if ((r = json_add_string(v, "name", h->name)) < 0 ||
                        (r = add_error(v, &h->error, guest_error_code(h->error.code, ERROR_HOOK_FAILED),
                                 PROTO_REASON_MAX)) < 0)
                        return r;
                r = json_array_add(array, steal_pointer(v));
        }
        return r < 0 ? r : add_array(o, "hooks", &array);
}

static int encode_reply(struct json_object *o, const struct message *m)
{
        const struct message_reply *p = &m->reply;
        unsigned shape = op_shape(p->op);
        int r;

        if ((r = json_add_string(o, "op", op_to_string(p->op))) < 0)
                return r;
        if ((shape & REPLY_COMPLETE) && (r = json_add_bool(o, "complete", p->complete)) < 0)
                return r;
        if (p->has_memory && (r = add_memory(o, &p->memory)) < 0)
                return r;
        if ((p->n_ranges > 0 || (shape & REPLY_RANGES)) && (r = add_ranges(o, p->ranges, p->n_ranges)) < 0)
                return r;
        if (p->n_failures > 0 && (r = add_failures(o, p->failures, p->n_failures)) < 0)
                return r;
        if ((shape & REPLY_SURVEYS) && (r = add_surveys(o, p)) < 0)
                return r;
        if ((shape & REPLY_ASSISTANCE) && p->assistance && (r = add_assistance(o, p->assistance)) < 0)
                return r;
        if (p->n_hooks > 0 && (r = add_hooks(o, p)) < 0)
                return r;
        if ((shape & REPLY_SAMPLE) && (r = add_sample(o, &p->sample)) < 0)
                return r;
        return p->has_next ? json_add_u64(o, "next", p->next) : 0;
}

static int encode_failure(struct json_object *o, const struct message *m)
{
        return add_error(
                o, &m->failure, guest_error_code(m->failure.code, ERROR_INTERNAL), ERROR_MESSAGE_MAX - 1);
}

static int encode_progress(struct json_object *o, const struct message *m)
{
        int r = json_add_u64(o, "done_bytes", m->progress.done_bytes);
        return r < 0 ? r : json_add_u64(o, "total_bytes", m->progress.total_bytes);
}

static int encode_event(struct json_object *o, const struct message *m)
{
        int r = json_add_string(o, "event", event_type_to_string(m->event.type));
        if (r >= 0 && m->event.type == EVENT_SAMPLE)
                r = add_sample(o, &m->event.sample);
        return r < 0 || !m->event.has_hooks ? r : json_add_bool(o, "hooks", m->event.hooks);
}

static int (*const encoders[MESSAGE_TYPE_MAX])(struct json_object *o, const struct message *m) = {
        [MESSAGE_HELLO] = encode_hello,
        [MESSAGE_WELCOME] = encode_welcome,
        [MESSAGE_REFUSE] = encode_refuse,
        [MESSAGE_REQUEST] = encode_request,
        [MESSAGE_REPLY] = encode_reply,
        [MESSAGE_FAILURE] = encode_failure,
        [MESSAGE_PROGRESS] = encode_progress,
        [MESSAGE_EVENT] = encode_event,
};

int message_encode(const struct message *m, char **ret_line, size_t *ret_length)
{
        _cleanup_json_ struct json_object *o = NULL;
        size_t length;
        int r;

        if (message_check(m, NULL) < 0)
                return -EINVAL;
        if (!(o = json_object_new_object()))
                return -ENOMEM;
        if ((r = json_add_string(o, "type", message_type_to_string(m->type))) < 0)
                return r;
        if (message_type_has_session(m->type) && (r = json_add_string(o, "session", m->session)) < 0)
                return r;
        if (message_type_has_id(m->type) && (r = json_add_u64(o, "id", m->id)) < 0)
                return r;
        if ((r = encoders[m->type](o, m)) < 0)
                return r;

        const char *text = json_object_to_json_string_length(
                o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &length);
        if (!text)
                return -ENOMEM;
        if (length > PROTO_LINE_MAX)
                return -EMSGSIZE;
        char *line = malloc(length + 2);
        if (!line)
                return -ENOMEM;
        memcpy(line, text, length);
        memcpy(line + length, "\n", 2);
        *ret_line = line;
        *ret_length = length + 1;
        return 0;
}
