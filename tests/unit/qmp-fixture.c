/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "qmp-fixture.h"

void on_up(struct qmp_client *c, void *userdata)
{
        struct fixture *fx = userdata;

        assert_true(qmp_client_is_up(c));
        fx->n_up++;
        if (fx->on_up)
                fx->on_up(fx);
}

static void on_down(struct qmp_client *c, const struct error *error, void *userdata)
{
        struct fixture *fx = userdata;

        assert_false(qmp_client_is_up(c));
        fx->n_down++;
        fx->down = *error;
}

void on_event(struct qmp_client *c, const char *name, struct json_object *data, void *userdata)
{
        struct fixture *fx = userdata;

        fx->n_events++;
        snprintf(fx->event_name, sizeof(fx->event_name), "%s", name);
        snprintf(fx->event_data, sizeof(fx->event_data), "%s",
                data ? json_object_to_json_string_ext(data, 0) : "");
        if (fx->on_event)
                fx->on_event(fx);
}

void on_reply(struct json_object *result, const struct error *error, void *userdata)
{
        struct record *r = userdata;

        assert_true(!result != !error);
        r->n++;
        r->code = error ? error->code : ERROR_NONE;
        snprintf(r->text, sizeof(r->text), "%s",
                error ? error->message : json_object_to_json_string_ext(result, JSON_C_TO_STRING_PLAIN));
        if (r->then)
                r->then(r);
}

int setup(void **state)
{
        struct fixture *fx = calloc(1, sizeof(*fx));

        strcpy(fx->dir, "/tmp/test-qmp-XXXXXX");
        assert_non_null(mkdtemp(fx->dir));
        snprintf(fx->socket, sizeof(fx->socket), "%s/qmp", fx->dir);
        assert_int_equal(sd_event_new(&fx->event), 0);
        *state = fx;
        return 0;
}

int teardown(void **state)
{
        struct fixture *fx = *state;

        qmp_client_free(fx->client);
        fake_free(fx->fake);
        sd_event_unref(fx->event);
        unlink(fx->socket);
        rmdir(fx->dir);
        free(fx);
        return 0;
}

void start_client(struct fixture *fx)
{
        static const struct qmp_handlers handlers = { on_up, on_down, on_event };
        static const struct qmp_limits limits = { LIMIT_USEC, 5 * USEC_PER_MSEC, 20 * USEC_PER_MSEC };

        assert_int_equal(qmp_client_new(fx->event, fx->socket, &handlers, fx, &fx->client), 0);
        qmp_client_set_limits(fx->client, &limits);
}

void start_fake(struct fixture *fx, const char *script)
{
        assert_int_equal(fake_qmp_new(fx->event, fx->socket, script, &fx->fake), 0);
}

void start(struct fixture *fx, const char *script)
{
        start_fake(fx, script);
        start_client(fx);
}

void start_up(struct fixture *fx, const char *script)
{
        start(fx, "negotiate");
        fake_append(fx->fake, script);
        RUN_UNTIL(fx, qmp_client_is_up(fx->client));
}

struct qmp_call *call(struct fixture *fx, const char *command, struct record *r)
{
        struct qmp_call *handle = NULL;

        r->fx = fx;
        assert_int_equal(qmp_call(fx->client, command, NULL, LIMIT_USEC, on_reply, r, &handle), 0);
        return handle;
}
