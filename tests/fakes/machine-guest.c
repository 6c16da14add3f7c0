/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The machine's guest: a guestd over an array of blocks. It takes and gives back blocks at once; a request
 * that waits for blocks to come or go is answered when they have, or when its deadline has passed. Of a host
 * that is gone it undoes nothing by itself: guestd would, after a while, and so hvd has the harder part. */

#include <stdio.h>
#include <string.h>

#include "tests/fakes/machine-internal.h"

#define PAGE 4096U

static void send_message(struct machine *m, struct message *message)
{
        _cleanup_free_ char *line = NULL;
        size_t length;

        if (message->type != MESSAGE_HELLO)
                memcpy(message->session, m->session, sizeof(message->session));
        if (message_encode(message, &line, &length) < 0)
                machine_complain(m, "a message of type %d cannot be encoded", message->type);
        else
                machine_send(&m->channel, line, length);
}

void guest_hello(struct machine *m)
{
        static const char resync = (char)PROTO_RESYNC;
        char *capabilities[] = { (char[]) { PROTO_CAPABILITY_SURVEY }, (char[]) { PROTO_CAPABILITY_GENTLE },
                (char[]) { PROTO_CAPABILITY_SETS }, NULL };
        struct message hello = {
                .type = MESSAGE_HELLO,
                .hello = { .version = PROTO_VERSION,
                        .version_min = PROTO_VERSION_MIN,
                        .agent = "machine",
                        .arch = "x86_64",
                        .block_bytes = MACHINE_BLOCK,
                        .capabilities = capabilities },
        };
        static unsigned n;

        if (m->channel.fd < 0 || !m->port_open)
                return;
        snprintf(hello.hello.nonce, sizeof(hello.hello.nonce), "%016x", ++n);
        snprintf(hello.hello.boot_id, sizeof(hello.hello.boot_id), "00000000-0000-4000-8000-%012x", m->boot);
        machine_send(&m->channel, &resync, 1);
        send_message(m, &hello);
}

static void forget_wait(struct machine *m, size_t i)
{
        message_done(&m->waits[i].request);
        memmove(&m->waits[i], &m->waits[i + 1], (--m->n_waits - i) * sizeof(m->waits[0]));
}

void guest_session_end(struct machine *m)
{
        m->session[0] = '\0';
        while (m->n_waits > 0)
                forget_wait(m, m->n_waits - 1);
}

static struct machine_block *block_at(struct machine *m, uint64_t address)
{
        static struct machine_block none;

        none = (struct machine_block) { BLOCK_ABSENT, ZONE_UNKNOWN };
        return address / MACHINE_BLOCK < BLOCKS_MAX ? &m->blocks[address / MACHINE_BLOCK] : &none;
}

static uint64_t count(struct machine *m, enum block_state state, enum zone zone)
{
        uint64_t n = 0;

        for (size_t i = 0; i < BLOCKS_MAX; i++)
                n += m->blocks[i].state == state && (zone == ZONE_UNKNOWN || m->blocks[i].zone == zone);
        return n;
}

static void reply_memory(struct machine *m, struct message_reply *reply)
{
        uint64_t total = count(m, BLOCK_ONLINE, ZONE_UNKNOWN) * MACHINE_BLOCK;

        reply->has_memory = true;
        reply->memory = (struct guest_memory) {
                .total_bytes = total,
                .free_bytes = total - GIB,
                .available_bytes = total - GIB,
                .kernel_bytes = count(m, BLOCK_ONLINE, ZONE_KERNEL) * MACHINE_BLOCK,
                .movable_bytes = count(m, BLOCK_ONLINE, ZONE_MOVABLE) * MACHINE_BLOCK,
                .online_blocks = total / MACHINE_BLOCK,
                .offline_blocks = count(m, BLOCK_OFFLINE, ZONE_UNKNOWN),
        };
}

/* The blocks of a range as runs; absent ones are left out where the whole guest is listed. */
static void add_ranges(
        struct machine *m, struct message_reply *reply, uint64_t start, uint64_t length, bool absent)
{
        for (uint64_t at = start; at < start + length; at += MACHINE_BLOCK) {
                const struct machine_block *b = block_at(m, at);
                struct block_range *last = reply->n_ranges ? &reply->ranges[reply->n_ranges - 1] : NULL;

                if (b->state == BLOCK_ABSENT && !absent)
                        continue;
                if (last && last->start + last->length == at && last->state == b->state &&
                        last->zone == b->zone) {
                        last->length += MACHINE_BLOCK;
                        continue;
                }
                reply->ranges =
                        fake_must(reallocarray(reply->ranges, reply->n_ranges + 1, sizeof(*reply->ranges)));
                reply->ranges[reply->n_ranges++] =
                        (struct block_range) { at, MACHINE_BLOCK, b->state, b->zone, 0 };
        }
}

static void add_failure(struct message_reply *reply, uint64_t at)
{
        struct block_failure *f;

        if (reply->n_failures == PROTO_FAILURES_MAX)
                return;
        reply->failures =
                fake_must(reallocarray(reply->failures, reply->n_failures + 1, sizeof(*reply->failures)));
        f = &reply->failures[reply->n_failures++];
        *f = (struct block_failure) { at, MACHINE_BLOCK, { 0 } };
        error_set(
                &f->error, ERROR_DEADLINE, "Block memory%u is not as asked", (unsigned)(at / MACHINE_BLOCK));
}

/* Whether a block is as the request would have it. */
static bool is_as_asked(const struct message_request *q, const struct machine_block *b)
{
        return b->state == (q->op == OP_ONLINE           ? BLOCK_ONLINE
                                   : q->op == OP_OFFLINE ? BLOCK_OFFLINE
                                                         : BLOCK_ABSENT);
}

#define FOREACH_BLOCK(q, at)                                                                                 \
        for (size_t _t = 0; _t < (q)->n_targets; _t++)                                                       \
                for (uint64_t at = (q)->targets[_t].start;                                                   \
                        at < (q)->targets[_t].start + (q)->targets[_t].length; at += MACHINE_BLOCK)

/* What there is of the targets goes the way that is asked for. True: all is so. */
static bool work(struct machine *m, const struct message_request *q)
{
        bool all = true;

        FOREACH_BLOCK(q, at)
        {
                struct machine_block *b = block_at(m, at);

                if (q->op == OP_ONLINE && b->state == BLOCK_OFFLINE)
                        *b = (struct machine_block) { BLOCK_ONLINE, q->zone };
                else if (q->op == OP_OFFLINE && b->state == BLOCK_ONLINE)
                        *b = (struct machine_block) { BLOCK_OFFLINE, ZONE_UNKNOWN };
                all &= is_as_asked(q, b);
        }
        return all;
}

static void answer_work(struct machine *m, const struct message *request)
{
        const struct message_request *q = &request->request;
        struct message answer = { .type = MESSAGE_REPLY, .id = request->id, .reply = { .op = q->op } };

        FOREACH_BLOCK(q, at)
        if (!is_as_asked(q, block_at(m, at)))
                add_failure(&answer.reply, at);
        for (size_t t = 0; t < q->n_targets; t++)
                add_ranges(m, &answer.reply, q->targets[t].start, q->targets[t].length, true);
        answer.reply.complete = answer.reply.n_failures == 0;
        send_message(m, &answer);
        message_done(&answer);
}

static int on_waits_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        guest_look(userdata);
        return 0;
}

void guest_look(struct machine *m)
{
        uint64_t next = USEC_INFINITY;

        for (size_t i = m->n_waits; i-- > 0;) {
                struct machine_wait *w = &m->waits[i];

                if (work(m, &w->request.request) || now_monotonic_usec() >= w->until_usec) {
                        answer_work(m, &w->request);
                        forget_wait(m, i);
                } else
                        next = MIN(next, w->until_usec);
        }
        if (next != USEC_INFINITY) {
                sd_event_source_set_time(m->waits_timer, next);
                sd_event_source_set_enabled(m->waits_timer, SD_EVENT_ONESHOT);
        }
}

static void add_surveys(const struct message_request *q, struct message_reply *reply)
{
        reply->page_bytes = PAGE;
        FOREACH_BLOCK(q, at)
        {
                if (reply->n_surveys == PROTO_SURVEYS_MAX) {
                        reply->has_next = true;
                        reply->next = at;
                        return;
                }
                reply->surveys = fake_must(
                        reallocarray(reply->surveys, reply->n_surveys + 1, sizeof(*reply->surveys)));
                reply->surveys[reply->n_surveys++] = (struct block_survey) {
                        .start = at,
                        .length = MACHINE_BLOCK,
                        .sampled = MACHINE_BLOCK / PAGE,
                        .pages = { [PAGE_FREE] = MACHINE_BLOCK / PAGE },
                };
        }
}

static void cancel(struct machine *m, uint64_t id)
{
        for (size_t i = 0; i < m->n_waits; i++)
                if (m->waits[i].request.id == id) {
                        answer_work(m, &m->waits[i].request);
                        forget_wait(m, i);
                        return;
                }
}

/* Steals the request if it has to wait. */
static void carry_out(struct machine *m, struct message *request)
{
        struct message_request *q = &request->request;
        struct message answer = { .type = MESSAGE_REPLY, .id = request->id, .reply = { .op = q->op } };

        switch (q->op) {
        case OP_ONLINE:
        case OP_OFFLINE:
        case OP_AWAIT_REMOVED:
                if (work(m, q) || q->op == OP_OFFLINE || m->n_waits == WAITING_MAX) {
                        answer_work(m, request);
                        return;
                }
                m->waits[m->n_waits++] = (struct machine_wait) { *request,
                        now_monotonic_usec() + q->deadline_msec * USEC_PER_MSEC };
                *request = (struct message) { 0 };
                guest_look(m);
                return;
        case OP_PREPARE:
                m->prepared = q->zone;
                break;
        case OP_RELEASE:
                m->prepared = ZONE_UNKNOWN;
                break;
        case OP_CANCEL:
                cancel(m, q->target_id);
                break;
        case OP_SURVEY:
                add_surveys(q, &answer.reply);
                break;
        case OP_GET_BLOCKS:
                add_ranges(m, &answer.reply, q->from, MACHINE_MAX - MIN(q->from, MACHINE_MAX), false);
                break;
        default:
                break;
        }
        if (q->op == OP_GET_STATE || q->op == OP_PREPARE || q->op == OP_RELEASE)
                reply_memory(m, &answer.reply);
        send_message(m, &answer);
        message_done(&answer);
}

static void refuse(struct machine *m, uint64_t id)
{
        struct message answer = { .type = MESSAGE_FAILURE, .id = id };

        error_set(&answer.failure, ERROR_INTERNAL, "This guest fails on purpose");
        send_message(m, &answer);
}

void guest_line(struct machine *m, const char *line, size_t length)
{
        _cleanup_(message_done) struct message message = { 0 };
        struct error error;

        if (message_decode(line, length, &message, &error) < 0) {
                machine_complain(m, "the guest was sent what is no message: %s", error.message);
                return;
        }
        if (message.type == MESSAGE_WELCOME) {
                memcpy(m->session, message.session, sizeof(m->session));
                return;
        }
        /* Of a session that is over. */
        if (message.type != MESSAGE_REQUEST || strcmp(message.session, m->session) != 0)
                return;
        uint64_t id = message.id;
        if (!machine_meets_fault(m, &m->channel, op_to_string(message.request.op)))
                carry_out(m, &message);
        else
                refuse(m, id);
        machine_after(m, &m->channel);
}

void guest_init(struct machine *m)
{
        m->port_open = true;
        for (size_t i = 0; i < BLOCKS_MAX; i++)
                m->blocks[i] = i < MACHINE_BASE / MACHINE_BLOCK
                                       ? (struct machine_block) { BLOCK_ONLINE, ZONE_KERNEL }
                                       : (struct machine_block) { BLOCK_ABSENT, ZONE_UNKNOWN };
        if (sd_event_add_time(m->event, &m->waits_timer, CLOCK_MONOTONIC, 0, 1, on_waits_timer, m) < 0)
                abort();
        sd_event_source_set_enabled(m->waits_timer, SD_EVENT_OFF);
}

void guest_done(struct machine *m)
{
        guest_session_end(m);
        sd_event_source_disable_unref(m->waits_timer);
}
