/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is said on a connection: hellos and their answers, requests and theirs. A session is a nonce that we
 * draw for each hello; whatever does not carry it belongs to the past and is counted as stale, so that a
 * guest that was reset, or a reply that QEMU's buffers kept, is never taken for an answer. */

#include "hvd/agent/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "common/fault.h"
#include "common/size.h"

#define HELLOS_USEC    (10 * USEC_PER_SEC)
#define TIMER_ACCURACY (5 * USEC_PER_MSEC)

/* Calls */

struct agent_call *agent_call_free(struct agent_call *call)
{
        if (!call)
                return NULL;

        *call->link = call->next;
        if (call->next)
                call->next->link = call->link;
        else
                call->agent->calls_end = call->link;
        call->agent->n_calls--;
        sd_event_source_disable_unref(call->timer);
        free(call);
        return NULL;
}

static void call_complete(
        struct agent_call *call, const struct message_reply *reply, const struct error *error)
{
        struct agent *a = call->agent;
        agent_reply_t on_reply = call->on_reply;
        void *userdata = call->userdata;

        agent_call_free(call);
        if (on_reply) {
                a->in_callback++;
                on_reply(reply, error, userdata);
                a->in_callback--;
        }
}

static int on_call_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct agent_call *call = userdata;
        struct message_request cancel = { .op = OP_CANCEL, .target_id = call->id };
        struct error error;

        /* Nobody waits for it any more: a guest that was only paused shall not go on with it. */
        if (call->op == OP_OFFLINE || call->op == OP_ONLINE || call->op == OP_AWAIT_REMOVED ||
                call->op == OP_HOOK)
                (void)agent_call(call->agent, &cancel, USEC_PER_SEC, NULL, NULL, NULL, NULL, NULL);
        error_set(
                &error, ERROR_AGENT_SILENT, "The guest did not answer '%s' in time", op_to_string(call->op));
        call_complete(call, NULL, &error);
        return 0;
}

void agent_session_end(struct agent *a, enum agent_state state, const struct error *error)
{
        a->state = state;
        a->session[0] = '\0';
        write_queue_clear(&a->queue);
        while (a->calls)
                call_complete(a->calls, NULL, error);
}

/* Writing */

void agent_set_events(void *agent)
{
        struct agent *a = agent;

        if (a->fd < 0)
                return;
        sd_event_source_set_io_events(a->io, (a->throttle.is_paused ? 0U : EPOLLIN) |
                                                     (write_queue_waiting(&a->queue) > 0 ? EPOLLOUT : 0U));
}

void agent_queue_flush(struct agent *a)
{
        if (write_queue_flush(&a->queue, a->fd, 0) < 0) {
                /* The reader shall see the end, after what the guest still had to say. */
                write_queue_clear(&a->queue);
                shutdown(a->fd, SHUT_RDWR);
        }
        agent_set_events(a);
}

static int agent_send(struct agent *a, const struct message *m)
{
        _cleanup_free_ char *line = NULL;
        size_t length;

        int r = message_encode(m, &line, &length);
        if (r < 0)
                return r;
        r = write_queue_push(&a->queue, line, length, AGENT_QUEUE_MAX);
        if (r < 0)
                return r;
        agent_queue_flush(a);
        return 0;
}

/* The answer to a hello: the first words of ours that this guestd reads, so they begin with a mark that ends
 * whatever was cut off before them. */
static int agent_send_answer(struct agent *a, const struct message *m)
{
        const unsigned char resync = PROTO_RESYNC;

        write_queue_clear(&a->queue);
        int r = write_queue_push(&a->queue, &resync, 1, AGENT_QUEUE_MAX);
        if (r < 0)
                return r;
        return agent_send(a, m);
}

int agent_call(struct agent *a, const struct message_request *request, uint64_t timeout_usec,
        agent_reply_t on_reply, agent_progress_t on_progress, void *userdata, struct agent_call **ret_call,
        uint64_t *ret_id)
{
        if (a->state != AGENT_READY)
                return -ENOTCONN;
        if (a->n_calls >= AGENT_CALLS_MAX)
                return -EBUSY;

        struct agent_call *call = calloc(1, sizeof(*call));
        if (!call)
                return -ENOMEM;
        *call = (struct agent_call) {
                .agent = a,
                .link = a->calls_end,
                .id = a->last_id + 1,
                .op = request->op,
                .on_reply = on_reply,
                .on_progress = on_progress,
                .userdata = userdata,
        };
        *a->calls_end = call;
        a->calls_end = &call->next;
        a->n_calls++;

        struct message m = { .type = MESSAGE_REQUEST, .id = call->id, .request = *request };
        memcpy(m.session, a->session, sizeof(m.session));

        int r = 0;
        if (timeout_usec != USEC_INFINITY)
                r = sd_event_add_time_relative(a->event, &call->timer, CLOCK_MONOTONIC, timeout_usec,
                        TIMER_ACCURACY, on_call_timeout, call);
        fault_point("guest-send", op_to_string(request->op));
        if (r >= 0)
                r = agent_send(a, &m);
        fault_point("guest-sent", op_to_string(request->op));
        if (r < 0) {
                agent_call_free(call);
                return r;
        }
        a->last_id++;
        if (ret_call)
                *ret_call = call;
        if (ret_id)
                *ret_id = call->id;
        return 0;
}

/* Reading */

/* Says true for the one hello too many. */
static bool hello_is_excessive(struct agent *a)
{
        uint64_t *oldest = &a->hello_times[a->next_hello_time];
        uint64_t now = now_monotonic_usec();
        bool excessive = *oldest != 0 && now - *oldest < HELLOS_USEC;

        *oldest = now;
        a->next_hello_time = (a->next_hello_time + 1) % HELLOS_MAX;
        return excessive;
}

static void end_replaced_session(struct agent *a, const struct message_hello *hello)
{
        struct error error;

        if (a->hello.type == MESSAGE_HELLO && strcmp(a->hello.hello.boot_id, hello->boot_id) != 0)
                error_set(&error, ERROR_GUEST_RESET, "The guest restarted in between");
        else
                error_set(&error, ERROR_AGENT_RESTARTED, "The guest's agent restarted in between");
        agent_session_end(a, AGENT_WAITING, &error);
}

static void refuse_hello(struct agent *a, const struct message_hello *hello)
{
        struct message m = { .type = MESSAGE_REFUSE };
        enum agent_state old = a->state;

        memcpy(m.refuse.nonce, hello->nonce, sizeof(m.refuse.nonce));
        error_set(&m.refuse.error, ERROR_AGENT_TOO_OLD,
                "The guest's agent speaks versions %u to %u of the protocol, and this host %u to %u; update "
                "the "
                "older of the two",
                hello->version_min, hello->version, (unsigned)PROTO_VERSION_MIN, (unsigned)PROTO_VERSION);
        a->reason = m.refuse.error;
        end_replaced_session(a, hello);
        /* The guest says hello again by itself, and needs no reason more than silence if memory is short. */
        (void)agent_send_answer(a, &m);
        sd_event_source_set_enabled(a->timer, SD_EVENT_OFF);
        a->state = AGENT_TOO_OLD;
        if (old != AGENT_TOO_OLD)
                agent_announce(a);
}

static int session_begin(struct agent *a, struct message *hello)
{
        struct message m = { .type = MESSAGE_WELCOME };
        uint64_t random;

        if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
                return -EIO;
        snprintf(m.session, sizeof(m.session), "%016" PRIx64, random);
        m.welcome.version = MIN(hello->hello.version, (unsigned)PROTO_VERSION);
        memcpy(m.welcome.nonce, hello->hello.nonce, sizeof(m.welcome.nonce));
        int r = agent_send_answer(a, &m);
        if (r < 0)
                return r;

        message_done(&a->hello);
        a->hello = *hello;
        *hello = (struct message) { 0 };
        memcpy(a->session, m.session, sizeof(a->session));
        a->n_bad_lines = 0;
        return 0;
}

static void handle_hello(struct agent *a, struct message *m)
{
        const struct message_hello *hello = &m->hello;

        a->counters.n_hellos++;
        fault_point("guest-hello", hello->agent);
        if (hello_is_excessive(a)) {
                agent_misbehaved(a, "it says hello without end");
                return;
        }
        agent_back_off_reset(a);
        if (hello->version < PROTO_VERSION_MIN || hello->version_min > PROTO_VERSION) {
                refuse_hello(a, hello);
                return;
        }

        end_replaced_session(a, hello);
        int r = session_begin(a, m);
        if (r < 0) {
                agent_lost(a, r);
                return;
        }
        /* Only now: a callback above may have armed it through agent_set_port_open(). */
        sd_event_source_set_enabled(a->timer, SD_EVENT_OFF);
        a->state = AGENT_READY;
        agent_announce(a);
        fault_point("guest", "welcomed");
}

static struct agent_call *call_find(struct agent *a, uint64_t id)
{
        for (struct agent_call *call = a->calls; call; call = call->next)
                if (call->id == id)
                        return call;
        return NULL;
}

static void handle_answer(struct agent *a, const struct message *m)
{
        struct agent_call *call = call_find(a, m->id);

        if (!call) {
                if (m->id == 0 || m->id > a->last_id)
                        agent_garbage(a, "it answers a request that was never made");
                else
                        a->counters.n_late_replies++;
                return;
        }
        _unused_ enum op op = call->op;
        fault_point("guest-answer", op_to_string(op));
        switch (m->type) {
        case MESSAGE_REPLY:
                if (m->reply.op != call->op)
                        agent_garbage(a, "it answers another operation than was asked for");
                else
                        call_complete(call, &m->reply, NULL);
                break;
        case MESSAGE_FAILURE:
                call_complete(call, NULL, &m->failure);
                break;
        default:
                if (call->on_progress) {
                        a->in_callback++;
                        call->on_progress(m->progress.done_bytes, m->progress.total_bytes, call->userdata);
                        a->in_callback--;
                }
        }
        fault_point("guest-taken", op_to_string(op));
}

/* Samples that come unasked */

static bool sample_is_excessive(const struct agent *a, uint64_t now)
{
        return a->samples_usec > now && a->samples_usec - now > (AGENT_SAMPLES_MAX - 1) * AGENT_SAMPLE_USEC;
}

static void drop_sample(struct agent *a, uint64_t now)
{
        a->counters.n_samples_dropped++;
        if (now - a->flood_usec >= USEC_PER_SEC) {
                a->flood_usec = now;
                a->n_flood = 0;
        }
        if (++a->n_flood > AGENT_SAMPLES_FLOOD) {
                a->n_flood = 0;
                agent_misbehaved(a, "it sends samples without end");
        }
}

/* A look at the raw line: in strict JSON these bytes are a key and its value, as quotes in a string have
 * their backslash. Who writes it otherwise has it read and dropped behind that. */
static bool drop_unread(struct agent *a, const char *line, size_t length)
{
        static const char mark[] = "\"event\":\"sample\"";

        if (a->samples_usec == 0 || !memmem(line, length, mark, sizeof(mark) - 1))
                return false;
        uint64_t now = now_monotonic_usec();
        if (!sample_is_excessive(a, now))
                return false;
        drop_sample(a, now);
        return true;
}

static void handle_sample(struct agent *a, const struct guest_sample *sample)
{
        uint64_t now = now_monotonic_usec();

        if (sample_is_excessive(a, now)) {
                drop_sample(a, now);
                return;
        }
        a->samples_usec = MAX(a->samples_usec, now) + AGENT_SAMPLE_USEC;
        if (a->handlers.on_sample) {
                a->in_callback++;
                a->handlers.on_sample(a, sample, a->userdata);
                a->in_callback--;
        }
}

static void handle_event(struct agent *a, const struct message_event *event)
{
        if (event->has_hooks)
                a->hello.hello.hooks = event->hooks;
        if (event->type == EVENT_SAMPLE)
                handle_sample(a, &event->sample);
        else if (a->handlers.on_event) {
                a->in_callback++;
                a->handlers.on_event(a, event->type, a->userdata);
                a->in_callback--;
        }
}

void agent_handle_line(struct agent *a, const char *line, size_t length)
{
        _cleanup_(message_done) struct message m = { 0 };
        struct error error;

        if (drop_unread(a, line, length))
                return;
        if (message_decode(line, length, &m, &error) < 0) {
                agent_garbage(a, error.message);
                return;
        }
        switch (m.type) {
        case MESSAGE_HELLO:
                handle_hello(a, &m);
                return;
        case MESSAGE_REPLY:
        case MESSAGE_FAILURE:
        case MESSAGE_PROGRESS:
        case MESSAGE_EVENT:
                break;
        default:
                agent_garbage(a, "it sends what only the host may send");
                return;
        }
        if (a->state != AGENT_READY || strcmp(m.session, a->session) != 0) {
                a->counters.n_stale++;
                return;
        }
        if (m.type != MESSAGE_EVENT)
                handle_answer(a, &m);
        else
                handle_event(a, &m.event);
}
