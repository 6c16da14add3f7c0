/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent-fixture.h"

static void on_state(struct agent *a, enum agent_state state, void *userdata)
{
        struct fixture *fx = userdata;

        assert_int_equal(agent_state(a), state);
        fx->n_states[state]++;
        fx->last_state = state;
        if (state == AGENT_READY) {
                assert_non_null(agent_hello(a));
                if (fx->on_ready)
                        fx->on_ready(fx);
        }
}

static void on_event(struct agent *a, enum event_type event, void *userdata)
{
        struct fixture *fx = userdata;

        assert_int_equal(event, EVENT_BLOCKS_CHANGED);
        fx->n_events++;
}

static void on_sample(struct agent *a, const struct guest_sample *sample, void *userdata)
{
        struct fixture *fx = userdata;

        fx->sample = *sample;
        fx->n_samples++;
}

void on_reply(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct record *r = userdata;

        assert_true(!reply != !error);
        r->n++;
        r->code = error ? error->code : ERROR_NONE;
        snprintf(r->text, sizeof(r->text), "%s", error ? error->message : "");
        if (reply) {
                r->op = reply->op;
                r->available_bytes = reply->memory.available_bytes;
        }
        if (r->then)
                r->then(r);
}

static void on_progress(uint64_t done_bytes, uint64_t total_bytes, void *userdata)
{
        struct record *r = userdata;

        r->n_progress++;
        r->done_bytes = done_bytes;
        r->total_bytes = total_bytes;
}

int setup(void **state)
{
        struct fixture *fx = calloc(1, sizeof(*fx));

        strcpy(fx->dir, "/tmp/test-agent-XXXXXX");
        assert_non_null(mkdtemp(fx->dir));
        snprintf(fx->socket, sizeof(fx->socket), "%s/channel", fx->dir);
        assert_int_equal(sd_event_new(&fx->event), 0);
        *state = fx;
        return 0;
}

int teardown(void **state)
{
        struct fixture *fx = *state;

        agent_free(fx->agent);
        fake_free(fx->fake);
        sd_event_unref(fx->event);
        rmdir(fx->dir);
        free(fx);
        return 0;
}

void start_agent(struct fixture *fx, uint64_t hello_usec)
{
        static const struct agent_handlers handlers = { on_state, on_event, on_sample };
        struct agent_limits limits = {
                .hello_usec = hello_usec,
                .absent_min_usec = 2 * USEC_PER_MSEC,
                .absent_max_usec = 10 * USEC_PER_MSEC,
                .silent_min_usec = 20 * USEC_PER_MSEC,
                .silent_max_usec = 40 * USEC_PER_MSEC,
                .shun_usec = 30 * USEC_PER_MSEC,
        };

        assert_int_equal(agent_new(fx->event, fx->socket, &handlers, fx, &fx->agent), 0);
        agent_set_limits(fx->agent, &limits);
}

void start_fake(struct fixture *fx, const char *script)
{
        assert_int_equal(fake_guest_new(fx->event, fx->socket, script, &fx->fake), 0);
}

void start(struct fixture *fx, const char *script)
{
        start_fake(fx, script);
        start_agent(fx, LIMIT_USEC);
}

void start_ready(struct fixture *fx, const char *script)
{
        start(fx, "begin");
        fake_append(fx->fake, script);
        RUN_UNTIL(fx, agent_state(fx->agent) == AGENT_READY);
}

struct agent_call *call(struct fixture *fx, enum op op, struct record *r)
{
        static struct mem_range target = { 4 * GIB, 128 * MIB };
        struct message_request request = { .op = op };
        struct agent_call *handle = NULL;

        if (op == OP_OFFLINE) {
                request.targets = &target;
                request.n_targets = 1;
                request.deadline_msec = 5000;
                request.attempt_msec = 1000;
        }
        r->fx = fx;
        assert_int_equal(
                agent_call(fx->agent, &request, LIMIT_USEC, on_reply, on_progress, r, &handle, NULL), 0);
        return handle;
}

int try_call(struct fixture *fx, struct record *r)
{
        struct message_request request = { .op = OP_GET_STATE };
        return agent_call(fx->agent, &request, LIMIT_USEC, on_reply, NULL, r, NULL, NULL);
}

void assert_explained(struct fixture *fx, enum error_code code, const char *part)
{
        struct error error;

        agent_explain(fx->agent, &error);
        assert_int_equal(error.code, code);
        if (!strstr(error.message, part))
                fail_msg("'%s' is not in '%s'", part, error.message);
}
