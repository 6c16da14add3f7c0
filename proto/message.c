/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The types of the guest protocol: their names, their shapes and their limits. Everything that bounds a value
 * is here, once, for both directions: message_check() guards what we send as well as what we receive. */

#include "proto/message.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/text.h"
#include "proto/codec.h"

#define VERSION_LIMIT 65535U

static const char *const zone_names[ZONE_MAX] = {
        [ZONE_UNKNOWN] = "unknown",
        [ZONE_KERNEL] = "kernel",
        [ZONE_MOVABLE] = "movable",
        [ZONE_NONE] = "none",
};

static const char *const block_state_names[BLOCK_STATE_MAX] = {
        [BLOCK_OFFLINE] = "offline",
        [BLOCK_ONLINE] = "online",
        [BLOCK_CHANGING] = "changing",
        [BLOCK_ABSENT] = "absent",
};

static const char *const page_kind_names[PAGE_KIND_MAX] = {
        [PAGE_FREE] = "free",
        [PAGE_MOVABLE] = "movable",
        [PAGE_HUGE] = "huge",
        [PAGE_SLAB] = "slab",
        [PAGE_TABLE] = "page-table",
        [PAGE_UNMOVABLE] = "unmovable",
        [PAGE_PINNED] = "pinned",
};

static const char *const hook_phase_names[HOOK_PHASE_MAX] = {
        [HOOK_CHECK] = "check",
        [HOOK_PRE] = "pre",
        [HOOK_POST] = "post",
        [HOOK_UNDO] = "undo",
        [HOOK_SETTLE] = "settle",
        [HOOK_BEGIN] = "begin",
        [HOOK_END] = "end",
};

static const char *const hook_operation_names[HOOK_OPERATION_MAX] = {
        [HOOK_ADD] = "add",
        [HOOK_REMOVE] = "remove",
};

static const char *const hook_outcome_names[HOOK_OUTCOME_MAX] = {
        [HOOK_OUTCOME_NONE] = "none",
        [HOOK_OUTCOME_DONE] = "done",
        [HOOK_OUTCOME_PARTIAL] = "partial",
        [HOOK_OUTCOME_FAILED] = "failed",
        [HOOK_OUTCOME_CANCELLED] = "cancelled",
        [HOOK_OUTCOME_DEADLINE] = "deadline",
};

static const char *const event_names[EVENT_TYPE_MAX] = {
        [EVENT_BLOCKS_CHANGED] = "blocks-changed",
        [EVENT_SAMPLE] = "sample",
};

static const char *const op_names[OP_MAX] = {
        [OP_GET_STATE] = "get-state",
        [OP_GET_BLOCKS] = "get-blocks",
        [OP_PREPARE] = "prepare",
        [OP_RELEASE] = "release",
        [OP_ONLINE] = "online",
        [OP_OFFLINE] = "offline",
        [OP_AWAIT_REMOVED] = "await-removed",
        [OP_CANCEL] = "cancel",
        [OP_SURVEY] = "survey",
        [OP_RECLAIM] = "reclaim",
        [OP_HOOK] = "hook",
        [OP_SAMPLE] = "sample",
};

static const char *const type_names[MESSAGE_TYPE_MAX] = {
        [MESSAGE_HELLO] = "hello",
        [MESSAGE_WELCOME] = "welcome",
        [MESSAGE_REFUSE] = "refuse",
        [MESSAGE_REQUEST] = "request",
        [MESSAGE_REPLY] = "reply",
        [MESSAGE_FAILURE] = "failure",
        [MESSAGE_PROGRESS] = "progress",
        [MESSAGE_EVENT] = "event",
};

static const unsigned op_shapes[OP_MAX] = {
        [OP_GET_STATE] = REPLY_MEMORY,
        [OP_GET_BLOCKS] = REQUEST_FROM | REPLY_RANGES,
        [OP_PREPARE] = REQUEST_ZONE | REQUEST_BYTES,
        [OP_ONLINE] = REQUEST_TARGETS | REQUEST_ZONE | REQUEST_DEADLINE | REPLY_COMPLETE,
        [OP_OFFLINE] =
                REQUEST_TARGETS | REQUEST_DEADLINE | REQUEST_ATTEMPT | REPLY_COMPLETE | REPLY_ASSISTANCE,
        [OP_AWAIT_REMOVED] = REQUEST_TARGETS | REQUEST_DEADLINE | REPLY_COMPLETE,
        [OP_CANCEL] = REQUEST_TARGET_ID,
        [OP_SURVEY] = REQUEST_TARGETS | REQUEST_DEADLINE | REPLY_SURVEYS,
        [OP_RECLAIM] = REQUEST_BYTES | REQUEST_DEADLINE | REPLY_ASSISTANCE,
        [OP_HOOK] = REQUEST_BYTES | REQUEST_DEADLINE | REQUEST_HOOK | REPLY_COMPLETE | REPLY_HOOKS,
        [OP_SAMPLE] = REQUEST_SAMPLING | REPLY_SAMPLE,
};

#define FIELD(member, low, high, f) #member, offsetof(struct message_request, member), low, high, f
const struct u64_field request_fields[] = {
        { FIELD(bytes, 1, PROTO_ADDRESS_MAX - 1, REQUEST_BYTES) },
        { FIELD(from, 0, PROTO_ADDRESS_MAX - 1, REQUEST_FROM) },
        { FIELD(deadline_msec, 1, PROTO_DEADLINE_MAX_MSEC, REQUEST_DEADLINE) },
        { FIELD(attempt_msec, 1, PROTO_DEADLINE_MAX_MSEC, REQUEST_ATTEMPT) },
        { FIELD(target_id, 1, PROTO_ID_MAX, REQUEST_TARGET_ID) },
#undef FIELD
#define FIELD(member, high)                                                                                  \
#member, offsetof(struct message_request, hook) + offsetof(struct hook_call, member), 0, high,       \
                REQUEST_HOOK
        { FIELD(job, PROTO_ID_MAX) },
        { FIELD(done_bytes, PROTO_ADDRESS_MAX - 1) },
#undef FIELD
#define FIELD(member, low, high)                                                                             \
#member, offsetof(struct message_request, sampling) + offsetof(struct sampling, member), low, high,  \
                REQUEST_SAMPLING
        { FIELD(interval_msec, 0, PROTO_INTERVAL_MAX_MSEC) },
        { FIELD(interval_max_msec, 0, PROTO_INTERVAL_MAX_MSEC) },
        { FIELD(stall_msec, 0, PROTO_WINDOW_MAX_MSEC) },
        { FIELD(window_msec, PROTO_WINDOW_MIN_MSEC, PROTO_WINDOW_MAX_MSEC) },
        { FIELD(headroom_bytes, 0, PROTO_ADDRESS_MAX - 1) },
};
#undef FIELD
const size_t n_request_fields = ARRAY_SIZE(request_fields);

#define FIELD(member) #member, offsetof(struct guest_memory, member), 0, PROTO_ADDRESS_MAX - 1, 0
const struct u64_field memory_fields[] = {
        { FIELD(total_bytes) },
        { FIELD(free_bytes) },
        { FIELD(available_bytes) },
        { FIELD(swap_total_bytes) },
        { FIELD(swap_free_bytes) },
        { FIELD(kernel_bytes) },
        { FIELD(movable_bytes) },
        { FIELD(online_blocks) },
        { FIELD(offline_blocks) },
};
#undef FIELD
const size_t n_memory_fields = ARRAY_SIZE(memory_fields);

#define FIELD(key, member) key, offsetof(struct assistance, member), 0, PROTO_ADDRESS_MAX - 1, 0
const struct u64_field assistance_fields[] = {
        { FIELD("reclaimed_bytes", reclaimed_bytes) },
        { FIELD("compactions", compactions) },
        { FIELD("retries", retries) },
};
#undef FIELD
const size_t n_assistance_fields = ARRAY_SIZE(assistance_fields);

static int find_name(const char *const *names, int n, const char *s)
{
        for (int i = 0; s && i < n; i++)
                if (strcmp(names[i], s) == 0)
                        return i;
        return -1;
}

#define DEFINE_NAMES(func, type, names)                                                                      \
        const char *func##_to_string(type v)                                                                 \
        {                                                                                                    \
                return v >= 0 && (size_t)v < ARRAY_SIZE(names) ? names[v] : NULL;                            \
        }                                                                                                    \
        type func##_from_string(const char *s)                                                               \
        {                                                                                                    \
                return find_name(names, ARRAY_SIZE(names), s);                                               \
        }

DEFINE_NAMES(zone, enum zone, zone_names)
DEFINE_NAMES(block_state, enum block_state, block_state_names)
DEFINE_NAMES(page_kind, enum page_kind, page_kind_names)
DEFINE_NAMES(hook_phase, enum hook_phase, hook_phase_names)
DEFINE_NAMES(hook_operation, enum hook_operation, hook_operation_names)
DEFINE_NAMES(hook_outcome, enum hook_outcome, hook_outcome_names)
DEFINE_NAMES(op, enum op, op_names)
DEFINE_NAMES(message_type, enum message_type, type_names)
DEFINE_NAMES(event_type, enum event_type, event_names)

unsigned op_shape(enum op op)
{
        return op >= 0 && op < OP_MAX ? op_shapes[op] : 0;
}

bool message_type_has_session(enum message_type t)
{
        return t != MESSAGE_HELLO && t != MESSAGE_REFUSE;
}

bool message_type_has_id(enum message_type t)
{
        return t == MESSAGE_REQUEST || t == MESSAGE_REPLY || t == MESSAGE_FAILURE || t == MESSAGE_PROGRESS;
}

enum error_code guest_error_code(enum error_code code, enum error_code fallback)
{
        switch (code) {
        case ERROR_BUSY:
        case ERROR_INVALID_ARGUMENT:
        case ERROR_NO_HEADROOM:
        case ERROR_BLOCK_BUSY:
        case ERROR_BLOCK_UNREMOVABLE:
        case ERROR_BLOCK_MISSING:
        case ERROR_BLOCK_FAILED:
        case ERROR_ZONE_MISMATCH:
        case ERROR_ZONE_RATIO:
        case ERROR_HOOK_REFUSED:
        case ERROR_HOOK_FAILED:
        case ERROR_HOOK_SKIPPED:
        case ERROR_CANCELLED:
        case ERROR_DEADLINE:
        case ERROR_LIMIT:
        case ERROR_INTERNAL:
                return code;
        default:
                return fallback;
        }
}

void message_done(struct message *m)
{
        switch (m->type) {
        case MESSAGE_HELLO:
                for (char **c = m->hello.capabilities; c && *c; c++)
                        free(*c);
                free(m->hello.capabilities);
                break;
        case MESSAGE_REQUEST:
                free(m->request.targets);
                break;
        case MESSAGE_REPLY:
                free(m->reply.ranges);
                free(m->reply.failures);
                free(m->reply.surveys);
                free(m->reply.assistance);
                free(m->reply.hooks);
                break;
        default:
                break;
        }
        *m = (struct message) { 0 };
}

#define BAD(ret_error, ...) error_set((ret_error), ERROR_AGENT_MISBEHAVED, __VA_ARGS__)

static bool is_hex(char c)
{
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

static int check_token(const char *key, const char *s, struct error *ret_error)
{
        size_t n = 0;

        while (n < PROTO_TOKEN_LENGTH && is_hex(s[n]))
                n++;
        if (n != PROTO_TOKEN_LENGTH || s[n] != '\0')
                return BAD(
                        ret_error, "'%s' is not %u lower case hexadecimal digits", key, PROTO_TOKEN_LENGTH);
        return 0;
}

static int check_uuid(const char *key, const char *s, struct error *ret_error)
{
        static const char pattern[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

        for (size_t i = 0; i < sizeof(pattern); i++)
                if (pattern[i] == 'x' ? !is_hex(s[i]) : s[i] != pattern[i])
                        return BAD(ret_error, "'%s' is not a UUID in lower case", key);
        return 0;
}

static int check_text(const char *key, const char *s, size_t size, struct error *ret_error)
{
        size_t n = strnlen(s, size);

        if (n == 0 || n == size)
                return BAD(ret_error, "'%s' is empty or longer than %zu bytes", key, size - 1);
        if (!text_is_printable(s))
                return BAD(ret_error, "'%s' is not printable", key);
        return 0;
}

int check_fields(const struct u64_field *fields, size_t n_fields, unsigned shape, const void *base,
        struct error *ret_error)
{
        for (size_t i = 0; i < n_fields; i++) {
                const struct u64_field *f = fields + i;
                uint64_t v = *(const uint64_t *)((const char *)base + f->offset);

                if (f->flag && !(shape & f->flag))
                        continue;
                if (v < f->min || v > f->max)
                        return BAD(ret_error, "'%s' is out of range", f->key);
        }
        return 0;
}

/* A run must lie at or behind *end, which moves to its own end. */
static int check_run(const char *key, uint64_t start, uint64_t length, uint64_t *end, struct error *ret_error)
{
        if (length == 0)
                return BAD(ret_error, "'%s' has an empty range", key);
        if (start % PROTO_BLOCK_MIN != 0 || length % PROTO_BLOCK_MIN != 0)
                return BAD(ret_error, "'%s' has a range that is not aligned to 1 MiB", key);
        if (start >= PROTO_ADDRESS_MAX || length >= PROTO_ADDRESS_MAX || length > PROTO_ADDRESS_MAX - start)
                return BAD(ret_error, "'%s' has a range that ends beyond 4 PiB", key);
        if (start < *end)
                return BAD(ret_error, "'%s' has ranges that overlap or are not sorted", key);
        *end = start + length;
        return 0;
}

static int check_hello(const struct message_hello *h, struct error *ret_error)
{
        size_t n = 0;
        int r;

        if (h->version_min < 1 || h->version_min > h->version || h->version > VERSION_LIMIT)
                return BAD(ret_error, "'version' or 'version_min' is out of range");
        if (h->block_bytes < PROTO_BLOCK_MIN || h->block_bytes > PROTO_BLOCK_MAX ||
                (h->block_bytes & (h->block_bytes - 1)) != 0)
                return BAD(ret_error, "'block_bytes' is not a power of two from 1 MiB to 64 GiB");

        if ((r = check_token("nonce", h->nonce, ret_error)) < 0 ||
                (r = check_uuid("boot_id", h->boot_id, ret_error)) < 0 ||
                (r = check_text("agent", h->agent, sizeof(h->agent), ret_error)) < 0 ||
                (r = check_text("arch", h->arch, sizeof(h->arch), ret_error)) < 0)
                return r;

        for (char **c = h->capabilities; c && *c; c++, n++) {
                if (n == PROTO_CAPS_MAX)
                        return BAD(ret_error, "'capabilities' has more than %u members", PROTO_CAPS_MAX);
                r = check_text("capabilities", *c, PROTO_STRING_MAX + 1, ret_error);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int check_hook(const struct hook_call *h, struct error *ret_error)
{
        if (h->phase < HOOK_CHECK || h->phase > HOOK_SETTLE)
                return BAD(ret_error, "'phase' is unknown");
        if (!hook_operation_to_string(h->operation))
                return BAD(ret_error, "'operation' is neither add nor remove");
        if (!hook_outcome_to_string(h->outcome))
                return BAD(ret_error, "'outcome' is unknown");
        if (h->has_node && h->node >= PROTO_NODES_MAX)
                return BAD(ret_error, "'node' is out of range");
        return 0;
}

static int check_request(const struct message_request *q, struct error *ret_error)
{
        unsigned shape = op_shape(q->op);
        uint64_t end = 0;

        if (!op_to_string(q->op))
                return BAD(ret_error, "'op' is unknown");
        if ((shape & REQUEST_ZONE) && q->zone != ZONE_KERNEL && q->zone != ZONE_MOVABLE)
                return BAD(ret_error, "'zone' is neither kernel nor movable");
        int r = check_fields(request_fields, n_request_fields, shape, q, ret_error);
        if (r >= 0 && (shape & REQUEST_HOOK))
                r = check_hook(&q->hook, ret_error);
        if (r >= 0 && (shape & REQUEST_SAMPLING))
                r = check_sampling(&q->sampling, ret_error);
        if (r < 0 || !(shape & REQUEST_TARGETS))
                return r;

        if (q->n_targets < 1 || q->n_targets > PROTO_RANGES_MAX)
                return BAD(
                        ret_error, "'targets' has %zu members, not 1 to %u", q->n_targets, PROTO_RANGES_MAX);
        for (size_t i = 0; i < q->n_targets; i++) {
                r = check_run("targets", q->targets[i].start, q->targets[i].length, &end, ret_error);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int check_memory(const struct guest_memory *m, struct error *ret_error)
{
        if (m->has_pressure && (m->some_avg10_centi > 10000 || m->full_avg10_centi > 10000))
                return BAD(ret_error, "'pressure' is above 100 percent");
        if (m->margin_bytes >= PROTO_ADDRESS_MAX)
                return BAD(ret_error, "'margin_bytes' is out of range");
        return check_fields(memory_fields, n_memory_fields, 0, m, ret_error);
}

static int check_ranges(const struct message_reply *p, uint64_t *ret_end, struct error *ret_error)
{
        uint64_t end = 0;

        if (p->n_ranges > PROTO_RANGES_MAX)
                return BAD(ret_error, "'ranges' has more than %u members", PROTO_RANGES_MAX);
        for (size_t i = 0; i < p->n_ranges; i++) {
                const struct block_range *b = p->ranges + i;

                if (!block_state_to_string(b->state) || !zone_to_string(b->zone) ||
                        b->node >= PROTO_NODES_MAX)
                        return BAD(ret_error, "'ranges' has a state, zone or node that is out of range");
                int r = check_run("ranges", b->start, b->length, &end, ret_error);
                if (r < 0)
                        return r;
        }
        *ret_end = end;
        return 0;
}

static int check_surveys(const struct message_reply *p, uint64_t *ret_end, struct error *ret_error)
{
        uint64_t end = 0;

        if (p->n_surveys > PROTO_SURVEYS_MAX)
                return BAD(ret_error, "'surveys' has more than %u members", PROTO_SURVEYS_MAX);
        /* Beside them all there may be no room in a line for others. */
        if (p->n_ranges > 0 || p->n_failures > 0)
                return BAD(ret_error, "'ranges' or 'failures' stands beside 'surveys'");
        if (p->page_bytes < PROTO_PAGE_MIN || p->page_bytes > PROTO_BLOCK_MIN ||
                (p->page_bytes & (p->page_bytes - 1)) != 0)
                return BAD(ret_error, "'page_bytes' is not a power of two from 4 KiB to 1 MiB");
        for (size_t i = 0; i < p->n_surveys; i++) {
                const struct block_survey *b = p->surveys + i;
                uint64_t left = b->sampled;

                int r = check_run("surveys", b->start, b->length, &end, ret_error);
                if (r < 0)
                        return r;
                if (b->length > PROTO_BLOCK_MAX)
                        return BAD(ret_error, "'surveys' has a member that is longer than a block can be");
                if (b->sampled > b->length / p->page_bytes || b->cost_bytes > b->length)
                        return BAD(ret_error, "'surveys' has a member with more than its block has");
                for (enum page_kind k = 0; k < PAGE_KIND_MAX; k++) {
                        if (b->pages[k] > left)
                                return BAD(ret_error,
                                        "'surveys' has a member with more pages than were looked at");
                        left -= b->pages[k];
                }
        }
        *ret_end = end;
        return 0;
}

static int check_assistance(const struct assistance *a, struct error *ret_error)
{
        int r = check_fields(assistance_fields, n_assistance_fields, 0, a, ret_error);

        if (r < 0)
                return r;
        if (a->n_pools > PROTO_POOLS_MAX)
                return BAD(ret_error, "'huge_pages' has more than %u members", PROTO_POOLS_MAX);
        for (size_t i = 0; i < a->n_pools; i++) {
                const struct assisted_pool *p = &a->pools[i];

                if (p->node >= PROTO_NODES_MAX || p->page_bytes < PROTO_PAGE_MIN ||
                        p->page_bytes > PROTO_BLOCK_MAX || (p->page_bytes & (p->page_bytes - 1)) != 0)
                        return BAD(ret_error, "'huge_pages' has a node or a page size that is out of range");
                if (p->taken >= PROTO_ADDRESS_MAX / p->page_bytes || p->restored > p->taken)
                        return BAD(ret_error, "'huge_pages' has a number of pages that is out of range");
        }
        return 0;
}

static int check_error(const struct error *e, struct error *ret_error)
{
        if (e->code <= ERROR_NONE || e->code >= ERROR_CODE_MAX)
                return BAD(ret_error, "'code' is out of range");
        return 0;
}

static int check_hooks(const struct message_reply *p, struct error *ret_error)
{
        if (p->n_hooks > PROTO_HOOKS_MAX)
                return BAD(ret_error, "'hooks' has more than %u members", PROTO_HOOKS_MAX);
        /* Beside them all there may be no room in a line for others. */
        if (p->n_ranges > 0 || p->n_failures > 0)
                return BAD(ret_error, "'ranges' or 'failures' stands beside 'hooks'");
        for (size_t i = 0; i < p->n_hooks; i++) {
                const struct hook_result *h = p->hooks + i;

                if (strnlen(h->name, sizeof(h->name)) == sizeof(h->name) || !text_is_printable(h->name))
                        return BAD(ret_error, "'name' is too long or not printable");
                int r = check_error(&h->error, ret_error);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int check_reply(const struct message_reply *p, struct error *ret_error)
{
        unsigned shape = op_shape(p->op);
        uint64_t end = 0;
        int r;

        if (!op_to_string(p->op))
                return BAD(ret_error, "'op' is unknown");
        if ((shape & REPLY_MEMORY) && !p->has_memory)
                return BAD(ret_error, "'memory' is missing");
        if (p->has_memory && (r = check_memory(&p->memory, ret_error)) < 0)
                return r;
        if (p->assistance && (r = check_assistance(p->assistance, ret_error)) < 0)
                return r;
        if ((shape & REPLY_SAMPLE) && (r = check_sample(&p->sample, ret_error)) < 0)
                return r;
        if ((shape & REPLY_SAMPLE) && (p->n_ranges > 0 || p->n_failures > 0))
                return BAD(ret_error, "'ranges' or 'failures' stands beside 'sample'");
        if (shape & REPLY_SURVEYS)
                r = check_surveys(p, &end, ret_error);
        else
                r = check_ranges(p, &end, ret_error);
        if (r >= 0 && (shape & REPLY_HOOKS))
                r = check_hooks(p, ret_error);
        if (r < 0)
                return r;
        /* Or a reader of pages would go round for ever. */
        size_t n = shape & REPLY_SURVEYS ? p->n_surveys : p->n_ranges;
        if (p->has_next && (n == 0 || p->next < end || p->next >= PROTO_ADDRESS_MAX))
                return BAD(ret_error, "'next' is not behind what the reply lists");

        if (p->n_failures > PROTO_FAILURES_MAX)
                return BAD(ret_error, "'failures' has more than %u members", PROTO_FAILURES_MAX);
        if ((shape & REPLY_COMPLETE) && p->complete && p->n_failures > 0)
                return BAD(ret_error, "'complete' is true beside failures");
        for (size_t i = 0; i < p->n_failures; i++) {
                const struct block_failure *f = p->failures + i;
                uint64_t failure_end = 0;

                if (f->error.code <= ERROR_NONE || f->error.code >= ERROR_CODE_MAX)
                        return BAD(ret_error, "'code' is out of range");
                r = check_run("failures", f->start, f->length, &failure_end, ret_error);
                if (r < 0)
                        return r;
        }
        return 0;
}

int message_check(const struct message *m, struct error *ret_error)
{
        int r;

        if (message_type_has_session(m->type) && (r = check_token("session", m->session, ret_error)) < 0)
                return r;
        if (message_type_has_id(m->type) && (m->id < 1 || m->id > PROTO_ID_MAX))
                return BAD(ret_error, "'id' is out of range");

        switch (m->type) {
        case MESSAGE_HELLO:
                return check_hello(&m->hello, ret_error);
        case MESSAGE_WELCOME:
                if (m->welcome.version < 1 || m->welcome.version > VERSION_LIMIT)
                        return BAD(ret_error, "'version' is out of range");
                return check_token("nonce", m->welcome.nonce, ret_error);
        case MESSAGE_REFUSE:
                if ((r = check_error(&m->refuse.error, ret_error)) < 0)
                        return r;
                return check_token("nonce", m->refuse.nonce, ret_error);
        case MESSAGE_REQUEST:
                return check_request(&m->request, ret_error);
        case MESSAGE_REPLY:
                return check_reply(&m->reply, ret_error);
        case MESSAGE_FAILURE:
                return check_error(&m->failure, ret_error);
        case MESSAGE_PROGRESS:
                if (m->progress.total_bytes >= PROTO_ADDRESS_MAX ||
                        m->progress.done_bytes > m->progress.total_bytes)
                        return BAD(ret_error, "'done_bytes' or 'total_bytes' is out of range");
                return 0;
        case MESSAGE_EVENT:
                if (!event_type_to_string(m->event.type))
                        return BAD(ret_error, "'event' is unknown");
                return m->event.type == EVENT_SAMPLE ? check_sample(&m->event.sample, ret_error) : 0;
        default:
                return BAD(ret_error, "'type' is unknown");
        }
}
