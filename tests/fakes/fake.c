/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The engine behind the fakes: a socket, a script, and an inbox between them. Everything advances in pump(),
 * which runs from the event loop only. Out of memory is not handled: this is a test's tool, and aborts. */

#include "tests/fakes/dialect.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/lines.h"

/* Below the code under test, so that what is sent slowly is also read slowly. */
#define PRIORITY (SD_EVENT_PRIORITY_NORMAL + 20)

struct step {
        unsigned line;
        char *text;
};

struct order {
        char *name, *text;
        struct json_object *arguments;
};

struct request {
        char label[32];
        struct json_object *message;
};

struct fake {
        const struct fake_dialect *dialect;
        void *state;
        struct sockaddr_un address;
        int listen_fd, fd;
        sd_event *event;
        sd_event_source *listen_io, *io, *pump, *timer;

        struct step *steps;
        size_t n_steps, next;
        unsigned n_lines;
        struct order *orders;
        size_t n_orders;
        struct request *requests; /* [0] is the one without a label */
        size_t n_requests;
        struct json_object *answering; /* by an order; borrowed */
        struct json_object **inbox;
        size_t n_inbox;

        struct line_reader reader;
        struct fake_output out;
        size_t sent;
        bool slow, eof, timer_set, timer_fired;
        unsigned n_marks;
        uint64_t n_received;
        char failure[1024], complaint[1200];
};

void fake_fail(struct fake *f, const char *format, ...)
{
        char text[800];
        va_list ap;

        if (f->failure[0]) /* the first one tells */
                return;
        va_start(ap, format);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        vsnprintf(text, sizeof(text), format, ap);
#pragma GCC diagnostic pop
        va_end(ap);
        if (f->next < f->n_steps)
                snprintf(f->failure, sizeof(f->failure), "line %u (%.100s): %s", f->steps[f->next].line,
                        f->steps[f->next].text, text);
        else
                snprintf(f->failure, sizeof(f->failure), "after the script's end: %s", text);
}

bool fake_parse_json(struct fake *f, const char *text, struct json_object **ret)
{
        *ret = NULL;
        if (!*text)
                return true;
        if (json_parse(text, strlen(text), ret) == 0)
                return true;
        fake_fail(f, "'%.200s' is not JSON", text);
        return false;
}

/* The connection */

static void schedule(struct fake *f)
{
        sd_event_source_set_enabled(f->pump, SD_EVENT_ONESHOT);
}

static void connection_drop(struct fake *f)
{
        f->io = sd_event_source_disable_unref(f->io);
        f->fd = close_fd(f->fd);
        f->out.length = f->sent = 0;
        f->slow = f->eof = false;
        line_reader_reset(&f->reader);
}

static void flush_output(struct fake *f)
{
        while (f->sent < f->out.length) {
                size_t n = f->slow ? 1 : f->out.length - f->sent;
                ssize_t k = send(f->fd, f->out.data + f->sent, n, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (k < 0 && errno != EAGAIN) {
                        f->eof = true;
                        f->sent = f->out.length;
                        break;
                }
                if (k < 0)
                        break;
                f->sent += (size_t)k;
                if (f->slow)
                        break;
        }
        if (f->sent == f->out.length) {
                f->out.length = f->sent = 0;
                f->slow = false;
        }
        /* At the end of file epoll would report without pause. */
        sd_event_source_set_io_events(f->io, f->out.length ? EPOLLIN | EPOLLOUT : EPOLLIN);
        if (f->eof)
                sd_event_source_set_enabled(f->io, SD_EVENT_OFF);
}

static void take_lines(struct fake *f)
{
        char *line;
        size_t length;
        int r;

        while ((r = line_reader_next(&f->reader, &line, &length)) != 0) {
                struct json_object *o = NULL;

                if (r < 0 || json_parse(line, length, &o) < 0) {
                        fake_fail(f, r < 0 ? "an oversized line came" : "a line that is not JSON came");
                        return;
                }
                f->inbox = fake_must(realloc(f->inbox, (f->n_inbox + 1) * sizeof(*f->inbox)));
                f->inbox[f->n_inbox++] = o;
                f->n_received++;
        }
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        struct fake *f = userdata;
        char buffer[16384];

        if (revents & EPOLLOUT)
                flush_output(f);
        if (revents & ~(uint32_t)EPOLLOUT) {
                ssize_t n = read(fd, buffer, sizeof(buffer));
                if (n > 0) {
                        for (ssize_t i = 0; i < n; i++)
                                f->n_marks += (unsigned char)buffer[i] == 0xFF;
                        if (line_reader_feed(&f->reader, buffer, (size_t)n) < 0)
                                abort();
                        take_lines(f);
                } else if (n == 0 || errno != EAGAIN) {
                        f->eof = true;
                        f->out.length = f->sent = 0;
                        sd_event_source_set_enabled(f->io, SD_EVENT_OFF);
                }
        }
        schedule(f);
        return 0;
}

static int on_connection(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        struct fake *f = userdata;

        f->fd = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (f->fd < 0)
                return 0;
        f->n_marks = 0;
        sd_event_source_set_enabled(f->listen_io, SD_EVENT_OFF);
        if (sd_event_add_io(f->event, &f->io, f->fd, EPOLLIN, on_io, f) < 0)
                abort();
        sd_event_source_set_priority(f->io, PRIORITY);
        schedule(f);
        return 0;
}

/* Sending steps */

static struct json_object *find_request(struct fake *f, const char *label)
{
        if (f->answering)
                return f->answering;
        for (size_t i = 0; i < f->n_requests; i++)
                if (strcmp(f->requests[i].label, label) == 0)
                        return f->requests[i].message;
        return NULL;
}

/* Takes ownership. */
static void remember_request(struct fake *f, const char *label, struct json_object *message)
{
        size_t i = 0;

        while (i < f->n_requests && strcmp(f->requests[i].label, label) != 0)
                i++;
        if (i == f->n_requests) {
                f->requests = fake_must(realloc(f->requests, ++f->n_requests * sizeof(*f->requests)));
                f->requests[i] = (struct request) { 0 };
                snprintf(f->requests[i].label, sizeof(f->requests[i].label), "%s", label);
        }
        json_object_put(f->requests[i].message);
        f->requests[i].message = message;
}

/* Takes "@LABEL" off the text, if it is there. */
static const char *take_label(const char *text, char *label, size_t size)
{
        label[0] = '\0';
        return *text == '@' ? fake_take_word(text + 1, label, size) : text;
}

/* False: no such step, or it failed. */
static bool build_output(struct fake *f, const char *text, struct fake_output *out)
{
        char verb[64], label[32];
        const char *rest = fake_take_word(text, verb, sizeof(verb));

        if (strcmp(verb, "raw") == 0)
                fake_output_raw(out, rest);
        else if (strcmp(verb, "half") == 0) {
                if (!build_output(f, rest, out))
                        return false;
                out->length /= 2;
        } else if (strcmp(verb, "slowly") == 0) {
                f->slow = true;
                return build_output(f, rest, out);
        } else if (strcmp(verb, "repeat") == 0) {
                struct fake_output once = { 0 };
                char count[16];

                rest = fake_take_word(rest, count, sizeof(count));
                bool good = build_output(f, rest, &once);
                for (long n = strtol(count, NULL, 10); good && n > 0; n--)
                        fake_output_bytes(out, once.data, once.length);
                free(once.data);
                return good;
        } else if (strcmp(verb, "nothing") != 0) {
                rest = take_label(rest, label, sizeof(label));
                int r = f->dialect->build(f, verb, rest, find_request(f, label), out);
                if (r == 0)
                        fake_fail(f, "'%s' is no step", verb);
                return r > 0;
        }
        return true;
}

static void run_sending(struct fake *f, const char *text)
{
        if (f->fd < 0 || f->eof) {
                fake_fail(f, "nobody is connected");
                return;
        }
        if (build_output(f, text, &f->out) && f->out.length > 0)
                flush_output(f);
}

void fake_say(struct fake *f, const char *step)
{
        if (f->fd >= 0 && !f->eof && f->n_received > 0)
                run_sending(f, step);
}

/* Waiting steps */

static struct json_object *inbox_take(struct fake *f)
{
        struct json_object *o = f->inbox[0];

        memmove(f->inbox, f->inbox + 1, --f->n_inbox * sizeof(*f->inbox));
        return o;
}

static bool is_expect(const struct step *s, const char **ret_rest)
{
        char verb[64];

        if (!s)
                return false;
        *ret_rest = fake_take_word(s->text, verb, sizeof(verb));
        return strcmp(verb, "expect") == 0;
}

/* The inbox is not empty. True: a message was taken, or the fake failed. */
static bool take_message(struct fake *f, const struct step *s)
{
        struct json_object *message = f->inbox[0], *arguments = NULL;
        _cleanup_json_ struct json_object *wanted = NULL;
        const char *name, *rest;
        char wanted_name[64], label[32];
        bool expecting = is_expect(s, &rest);

        if (!f->dialect->classify(message, &name, &arguments)) {
                fake_fail(f, "a message came that means nothing: %s", json_object_to_json_string(message));
                return true;
        }
        if (expecting) {
                rest = fake_take_word(rest, wanted_name, sizeof(wanted_name));
                rest = take_label(rest, label, sizeof(label));
                if (!fake_parse_json(f, rest, &wanted))
                        return true;
                if (strcmp(name, wanted_name) == 0 && (!wanted || fake_contains(arguments, wanted))) {
                        remember_request(f, label, inbox_take(f));
                        if (!f->dialect->on_taken || f->dialect->on_taken(f, message))
                                f->next++;
                        return true;
                }
        }
        for (size_t i = f->n_orders; i-- > 0;) {
                const struct order *o = f->orders + i;

                if (strcmp(name, o->name) != 0 || (o->arguments && !fake_contains(arguments, o->arguments)))
                        continue;
                _cleanup_json_ struct json_object *taken = inbox_take(f);
                f->answering = taken;
                if ((!f->dialect->on_taken || f->dialect->on_taken(f, taken)) && !f->eof)
                        run_sending(f, o->text);
                f->answering = NULL;
                return true;
        }
        if (expecting || !s || strcmp(s->text, "serve") == 0 || strncmp(s->text, "quiet", 5) == 0) {
                fake_fail(f, "came: %s", json_object_to_json_string(message));
                return true;
        }
        return false;
}

static bool add_order(struct fake *f, const char *rest)
{
        struct order o = { 0 };
        char name[64];

        rest = fake_take_word(rest, name, sizeof(name));
        size_t span = fake_json_span(rest);
        if (span > 0) {
                _cleanup_free_ char *json = fake_must(strndup(rest, span));
                if (!fake_parse_json(f, json, &o.arguments))
                        return false;
                rest += span;
                rest += strspn(rest, " \t");
        }
        o.name = fake_must(strdup(name));
        o.text = fake_must(strdup(rest));
        f->orders = fake_must(realloc(f->orders, (f->n_orders + 1) * sizeof(*f->orders)));
        f->orders[f->n_orders++] = o;
        return true;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct fake *f = userdata;

        f->timer_fired = true;
        schedule(f);
        return 0;
}

static bool pause_is_over(struct fake *f, const char *rest)
{
        if (!f->timer_set) {
                sd_event_source_set_time_relative(f->timer, strtoull(rest, NULL, 10) * USEC_PER_MSEC);
                sd_event_source_set_enabled(f->timer, SD_EVENT_ONESHOT);
                f->timer_set = true;
                f->timer_fired = false;
        }
        if (!f->timer_fired)
                return false;
        f->timer_set = false;
        return true;
}

/* True: the step is done, or failed. */
static bool run_step(struct fake *f, const struct step *s)
{
        char verb[64];
        const char *rest = fake_take_word(s->text, verb, sizeof(verb));

        if (strcmp(verb, "accept") == 0) {
                if (f->eof)
                        connection_drop(f);
                if (f->fd < 0)
                        sd_event_source_set_enabled(f->listen_io, SD_EVENT_ON);
                return f->fd >= 0;
        }
        if (strcmp(verb, "expect") == 0) {
                if (f->eof || f->fd < 0)
                        fake_fail(f, "the connection is closed");
                return false;
        }
        if (strcmp(verb, "wait") == 0 || strcmp(verb, "quiet") == 0)
                return pause_is_over(f, rest);
        if (strcmp(verb, "expect-close") == 0 || strcmp(verb, "serve") == 0) {
                if (!f->eof)
                        return false;
                connection_drop(f);
        } else if (strcmp(verb, "close") == 0)
                connection_drop(f);
        else if (strcmp(verb, "on") == 0)
                add_order(f, rest);
        else if (strcmp(verb, "try") != 0)
                run_sending(f, s->text);
        else if (f->fd >= 0 && !f->eof)
                run_sending(f, rest);
        return true;
}

static int pump(sd_event_source *source, void *userdata)
{
        struct fake *f = userdata;

        /* What was sent is written before anything else happens. */
        while (!f->failure[0] && f->out.length == 0) {
                const struct step *s = f->next < f->n_steps ? f->steps + f->next : NULL;

                if (f->n_inbox > 0 && take_message(f, s))
                        continue;
                if (!s || !run_step(f, s))
                        break;
                if (!f->failure[0])
                        f->next++;
        }
        return 0;
}

/* The fake */

static void append_line(struct fake *f, unsigned line, const char *text, size_t length)
{
        while (length > 0 && isspace((unsigned char)*text))
                text++, length--;
        while (length > 0 && isspace((unsigned char)text[length - 1]))
                length--;
        if (length == 0 || *text == '#')
                return;
        for (size_t i = 0; f->dialect->macros[i].name; i++)
                if (strlen(f->dialect->macros[i].name) == length &&
                        memcmp(f->dialect->macros[i].name, text, length) == 0) {
                        for (const char *p = f->dialect->macros[i].lines; *p; p += strcspn(p, "\n") + 1)
                                append_line(f, line, p, strcspn(p, "\n"));
                        return;
                }
        f->steps = fake_must(realloc(f->steps, (f->n_steps + 1) * sizeof(*f->steps)));
        f->steps[f->n_steps++] = (struct step) { line, fake_must(strndup(text, length)) };
}

void fake_append(struct fake *f, const char *script)
{
        while (*script) {
                size_t length = strcspn(script, "\n");
                append_line(f, ++f->n_lines, script, length);
                script += length + (script[length] == '\n');
        }
        schedule(f);
}

static int listen_at(struct fake *f, const char *socket_path)
{
        if (strlen(socket_path) >= sizeof(f->address.sun_path))
                return -ENAMETOOLONG;
        f->address.sun_family = AF_UNIX;
        strcpy(f->address.sun_path, socket_path);
        unlink(socket_path);
        f->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (f->listen_fd < 0 || bind(f->listen_fd, (struct sockaddr *)&f->address, sizeof(f->address)) < 0 ||
                listen(f->listen_fd, 1) < 0)
                return -errno;
        return 0;
}

int fake_new(sd_event *event, const char *socket_path, const struct fake_dialect *dialect, void *state,
        const char *script, struct fake **ret)
{
        struct fake *f = fake_must(calloc(1, sizeof(*f)));

        *f = (struct fake) {
                .dialect = dialect,
                .state = state,
                .event = sd_event_ref(event),
                .listen_fd = -1,
                .fd = -1,
                .requests = fake_must(calloc(1, sizeof(struct request))),
                .n_requests = 1,
        };
        line_reader_init(&f->reader, dialect->line_max, dialect->resync);
        int r = listen_at(f, socket_path);
        if (r >= 0)
                r = sd_event_add_io(event, &f->listen_io, f->listen_fd, EPOLLIN, on_connection, f);
        if (r >= 0)
                r = sd_event_add_defer(event, &f->pump, pump, f);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &f->timer, CLOCK_MONOTONIC, 0, 1, on_timer, f);
        if (r < 0) {
                fake_free(f);
                return r;
        }
        sd_event_source_set_enabled(f->listen_io, SD_EVENT_OFF);
        sd_event_source_set_enabled(f->timer, SD_EVENT_OFF);
        sd_event_source_set_priority(f->pump, PRIORITY);
        fake_append(f, script);
        *ret = f;
        return 0;
}

struct fake *fake_free(struct fake *f)
{
        if (!f)
                return NULL;

        connection_drop(f);
        sd_event_source_disable_unref(f->listen_io);
        sd_event_source_disable_unref(f->pump);
        sd_event_source_disable_unref(f->timer);
        sd_event_unref(f->event);
        if (f->listen_fd >= 0)
                unlink(f->address.sun_path);
        close_fd(f->listen_fd);
        for (size_t i = 0; i < f->n_steps; i++)
                free(f->steps[i].text);
        for (size_t i = 0; i < f->n_orders; i++) {
                free(f->orders[i].name);
                free(f->orders[i].text);
                json_object_put(f->orders[i].arguments);
        }
        for (size_t i = 0; i < f->n_requests; i++)
                json_object_put(f->requests[i].message);
        for (size_t i = 0; i < f->n_inbox; i++)
                json_object_put(f->inbox[i]);
        line_reader_done(&f->reader);
        free(f->steps);
        free(f->orders);
        free(f->requests);
        free(f->inbox);
        free(f->out.data);
        free(f->state);
        free(f);
        return NULL;
}

bool fake_failed(struct fake *f)
{
        return f->failure[0] != '\0';
}

bool fake_finished(struct fake *f)
{
        return !fake_failed(f) && f->next == f->n_steps && f->n_inbox == 0 && f->out.length == 0;
}

bool fake_is_serving(struct fake *f)
{
        return !fake_failed(f) && f->next < f->n_steps && strcmp(f->steps[f->next].text, "serve") == 0 &&
               f->n_inbox == 0;
}

const char *fake_complaint(struct fake *f)
{
        if (fake_failed(f))
                return f->failure;
        if (fake_finished(f))
                return NULL;
        snprintf(f->complaint, sizeof(f->complaint), "line %u: still in '%.200s'",
                f->next < f->n_steps ? f->steps[f->next].line : f->n_lines,
                f->next < f->n_steps ? f->steps[f->next].text : "the end");
        return f->complaint;
}

uint64_t fake_n_received(struct fake *f)
{
        return f->n_received;
}

void *fake_state(struct fake *f)
{
        return f->state;
}

unsigned fake_n_marks(struct fake *f)
{
        return f->n_marks;
}
