/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* watch: what the policy decides, as it decides it, and what the partitions have and want for.
 *
 * On a terminal a table that is drawn anew each second, with the latest decisions below; elsewhere a line for
 * each decision, each job's end and each change of a partition that is worth one; with -o json an object a
 * line. All of it comes by signals, nothing is asked for again and again. */

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include <json-c/linkhash.h>
#include <systemd/sd-event.h>

#include "common/size.h"
#include "hmc-cli/args.h"
#include "hmc-cli/bus.h"
#include "hmc-cli/output.h"
#include "hmc-cli/policy.h"

#define DRAW_USEC     USEC_PER_SEC
#define DECISIONS_MAX 12U
/* A line is due when the pressure has moved by so much, in percent. */
#define PRESSURE_STEP 5.0

struct watch {
        struct cli *cli;
        sd_event *event;
        struct json_object *partitions; /* by their paths, as they are now */
        struct json_object *told;       /* by their paths, as they were in the last line */
        char *decisions[DECISIONS_MAX]; /* the latest; a ring */
        size_t n_decisions;
        bool is_screen;
        sd_event_source *timer;
        sd_bus_slot *slots[6];
        size_t n_slots;
};

static void watch_done(struct watch *w)
{
        for (size_t i = 0; i < w->n_slots; i++)
                sd_bus_slot_unref(w->slots[i]);
        for (size_t i = 0; i < DECISIONS_MAX; i++)
                free(w->decisions[i]);
        sd_event_source_unref(w->timer);
        if (w->cli->bus)
                sd_bus_detach_event(w->cli->bus);
        sd_event_unref(w->event);
        json_object_put(w->partitions);
        json_object_put(w->told);
}

static uint64_t now_usec(void)
{
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        return (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / 1000;
}

/* A line that nobody reads any more ends the watch. */
static int end_line(struct watch *w)
{
        return fflush(stdout) == 0 ? 0 : sd_event_exit(w->event, CLI_FAILED);
}

/* --- the screen --- */

static int draw_table(FILE *f, struct json_object *partitions)
{
        static const struct output_column columns[] = {
                { "NAME" },
                { "POLICY" },
                { "CURRENT", .right = true },
                { "REQUESTED", .right = true },
                { "AVAILABLE", .right = true },
                { "PRESSURE", .right = true },
        };
        _cleanup_(output_cells_done) struct output_cells cells = {};

        json_object_object_foreach(partitions, path, p)
        {
                (void)path;
                output_cell(&cells, "%s", field_string(p, "name"));
                output_cell(&cells, "%s", field_string(p, "policy_mode"));
                output_cell(&cells, "%s", TEXT_SIZE(field_u64(p, "current_bytes")));
                output_cell(&cells, "%s", TEXT_SIZE(field_u64(p, "requested_bytes")));
                output_cell(&cells, "%s", TEXT_SIZE(field_u64(p, "available_bytes")));
                output_cell(&cells, "%.2f %%", field_double(p, "pressure"));
        }
        return output_cells_print(f, columns, ARRAY_SIZE(columns), &cells);
}

/* How many of the latest decisions have room below the table, as the terminal wraps them: what is drawn
 * beyond its last line would push the table out of sight. */
static size_t n_fitting(const struct watch *w)
{
        size_t n = MIN(w->n_decisions, (size_t)DECISIONS_MAX), room, i;
        /* The time, the table's head, an empty line behind each, and where the cursor stays. */
        size_t others = (size_t)json_object_object_length(w->partitions) + 5;
        struct winsize size = { 0 };

        if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row == 0 || size.ws_col == 0)
                return n;
        room = size.ws_row - MIN((size_t)size.ws_row, others);
        for (i = 0; i < n; i++) {
                const char *line = w->decisions[(w->n_decisions - 1 - i) % DECISIONS_MAX];
                size_t lines = strlen(line) / size.ws_col + 1;

                if (lines > room)
                        break;
                room -= lines;
        }
        return i;
}

static int draw(struct watch *w)
{
        size_t n = n_fitting(w);
        char time[POLICY_TIME_MAX];

        printf("\033[H\033[J%s  Ctrl-C leaves\n\n", policy_time(now_usec(), time));
        if (draw_table(stdout, w->partitions) < 0)
                return sd_event_exit(w->event, output_fail_errno(w->cli, -ENOMEM));
        putchar('\n');
        for (size_t i = w->n_decisions - n; i < w->n_decisions; i++) {
                text_put(stdout, w->decisions[i % DECISIONS_MAX]);
                putchar('\n');
        }
        return end_line(w);
}

static int on_draw(sd_event_source *source, uint64_t usec, void *userdata)
{
        int r = sd_event_source_set_time_relative(source, DRAW_USEC);

        if (r >= 0)
                r = sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        return r < 0 ? r : draw(userdata);
}

/* --- lines --- */

static int print_event(struct watch *w, const char *event, struct json_object *o)
{
        if (json_add_string(o, "event", event) < 0 || json_add_u64(o, "time_usec", now_usec()) < 0)
                return sd_event_exit(w->event, output_fail_errno(w->cli, -ENOMEM));
        puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
        return end_line(w);
}

static int print_line(struct watch *w, const char *text)
{
        char time[POLICY_TIME_MAX];

        printf("%s ", policy_time(now_usec(), time));
        text_put(stdout, text);
        putchar('\n');
        return end_line(w);
}

static int say_decision(struct watch *w, struct json_object *d)
{
        _cleanup_free_ char *text = NULL;
        bool is_done = strcmp(field_string(d, "mode"), "auto") == 0;

        if (w->cli->arg_json)
                return print_event(w, "decision", d);
        if (asprintf(&text, "%s%s", is_done ? "" : "(observed) ", field_string(d, "text")) < 0) {
                text = NULL;
                return sd_event_exit(w->event, output_fail_errno(w->cli, -ENOMEM));
        }
        if (!w->is_screen)
                return print_line(w, text);
        char time[POLICY_TIME_MAX], *line;
        if (asprintf(&line, "%s %s", policy_time(now_usec(), time), text) < 0)
                return sd_event_exit(w->event, output_fail_errno(w->cli, -ENOMEM));
        free(w->decisions[w->n_decisions % DECISIONS_MAX]);
        w->decisions[w->n_decisions++ % DECISIONS_MAX] = line;
        return draw(w);
}

static bool is_news(struct json_object *now, struct json_object *before)
{
        double moved = field_double(now, "pressure") - field_double(before, "pressure");

        return !before || field_u64(now, "current_bytes") != field_u64(before, "current_bytes") ||
               strcmp(field_string(now, "policy_mode"), field_string(before, "policy_mode")) != 0 ||
               strcmp(field_string(now, "state"), field_string(before, "state")) != 0 ||
               moved >= PRESSURE_STEP || moved <= -PRESSURE_STEP;
}

/* What a line says of a partition; the caller owns it. */
static struct json_object *digest(struct json_object *p)
{
        static const char *const keys[] = { "name", "state", "policy_mode", "current_bytes",
                "requested_bytes", "available_bytes", "pressure" };
        struct json_object *o = json_object_new_object(), *v;

        for (size_t i = 0; o && i < ARRAY_SIZE(keys); i++)
                if (json_object_object_get_ex(p, keys[i], &v) &&
                        json_add(o, keys[i], json_object_get(v)) < 0) {
                        json_object_put(o);
                        return NULL;
                }
        return o;
}

static int say_partition(struct watch *w, const char *path)
{
        struct json_object *p, *before = NULL;
        char text[256];

        if (w->is_screen || !json_object_object_get_ex(w->partitions, path, &p))
                return 0;
        json_object_object_get_ex(w->told, path, &before);
        if (!is_news(p, before))
                return 0;
        _cleanup_json_ struct json_object *o = digest(p);
        if (!o || json_add(w->told, path, json_object_get(o)) < 0)
                return sd_event_exit(w->event, output_fail_errno(w->cli, -ENOMEM));
        if (w->cli->arg_json)
                return print_event(w, "partition", o);
        snprintf(text, sizeof(text), "%.63s: %s, policy %s: %s, of which %s available, pressure %.2f %%",
                field_string(p, "name"), field_string(p, "state"), field_string(p, "policy_mode"),
                TEXT_SIZE(field_u64(p, "current_bytes")), TEXT_SIZE(field_u64(p, "available_bytes")),
                field_double(p, "pressure"));
        return print_line(w, text);
}

/* --- what hvd tells --- */

static int on_decided(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
        struct watch *w = userdata;
        const char *partition, *mode, *action, *cause, *bound, *text;
        uint64_t current, target;

        if (sd_bus_message_read(
                    m, "sssttsss", &partition, &mode, &action, &current, &target, &cause, &bound, &text) < 0)
                return 0;
        _cleanup_json_ struct json_object *o = json_object_new_object();
        if (json_add_string(o, "partition", partition) < 0 || json_add_string(o, "mode", mode) < 0 ||
                json_add_string(o, "action", action) < 0 || json_add_u64(o, "current_bytes", current) < 0 ||
                json_add_u64(o, "target_bytes", target) < 0 || json_add_string(o, "cause", cause) < 0 ||
                json_add_string(o, "bound", bound) < 0 || json_add_string(o, "text", text) < 0)
                return sd_event_exit(w->event, output_fail_errno(w->cli, -ENOMEM));
        return say_decision(w, o);
}

/* A new partition comes by what changes, and a name never does. */
static int add_name(struct json_object *p, const char *path)
{
        _cleanup_free_ char *name = NULL;

        if (json_object_object_get_ex(p, "name", NULL))
                return 0;
        int r = sd_bus_path_decode(path, HVD_PARTITION_PATH, &name);
        return r > 0 ? json_add_string(p, "name", name) : r;
}

static int on_changed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
        struct watch *w = userdata;
        const char *interface, *path = sd_bus_message_get_path(m);
        struct json_object *p;

        /* Before the answer to the first question, which has it. */
        if (!w->partitions || sd_bus_message_read(m, "s", &interface) < 0 ||
                strcmp(interface, HVD_PARTITION_INTERFACE) != 0)
                return 0;
        p = json_object_object_get(w->partitions, path);
        p = p ? json_object_get(p) : NULL;
        if (bus_read_properties(m, &p) < 0 || add_name(p, path) < 0) {
                json_object_put(p);
                return 0;
        }
        if (json_add(w->partitions, path, p) < 0)
                return sd_event_exit(w->event, output_fail_errno(w->cli, -ENOMEM));
        return say_partition(w, path);
}

static int on_job_removed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
        struct watch *w = userdata;
        const char *path, *result;
        char text[128];
        uint32_t id;

        if (w->is_screen || sd_bus_message_read(m, "uos", &id, &path, &result) < 0)
                return 0;
        if (w->cli->arg_json) {
                _cleanup_json_ struct json_object *o = json_object_new_object();

                if (json_add_u64(o, "id", id) < 0 || json_add_string(o, "state", result) < 0)
                        return sd_event_exit(w->event, output_fail_errno(w->cli, -ENOMEM));
                return print_event(w, "job", o);
        }
        snprintf(text, sizeof(text), "job %" PRIu32 " has ended: %.32s", id, result);
        return print_line(w, text);
}

static int on_objects_removed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
        struct watch *w = userdata;
        const char *path;

        if (w->partitions && sd_bus_message_read(m, "o", &path) >= 0) {
                json_object_object_del(w->partitions, path);
                json_object_object_del(w->told, path);
        }
        return 0;
}

static int on_owner_changed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
        struct watch *w = userdata;
        const char *name, *before, *after;

        if (sd_bus_message_read(m, "sss", &name, &before, &after) < 0 || !*before)
                return 0;
        return sd_event_exit(w->event, bus_fail_unreachable(w->cli, *after ? "it was replaced" : "it ended"));
}

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
        struct watch *w = userdata;

        return sd_event_exit(w->event, bus_fail_unreachable(w->cli, "the connection to the bus was closed"));
}

/* --- begin and end --- */

static int add_match(
        struct watch *w, const char *interface, const char *member, sd_bus_message_handler_t handler)
{
        char match[256];

        snprintf(match, sizeof(match), "type='signal',sender='" HVD_NAME "',interface='%s',member='%s'",
                interface, member);
        return sd_bus_add_match_async(w->cli->bus, &w->slots[w->n_slots++], match, handler, NULL, w);
}

static int add_matches(struct watch *w)
{
        int r = add_match(w, HVD_MANAGER_INTERFACE, "PolicyDecided", on_decided);

        if (r >= 0)
                r = add_match(w, HVD_MANAGER_INTERFACE, "JobRemoved", on_job_removed);
        if (r >= 0)
                r = add_match(w, "org.freedesktop.DBus.Properties", "PropertiesChanged", on_changed);
        if (r >= 0)
                r = add_match(
                        w, "org.freedesktop.DBus.ObjectManager", "InterfacesRemoved", on_objects_removed);
        if (r >= 0)
                r = sd_bus_add_match_async(w->cli->bus, &w->slots[w->n_slots++],
                        "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
                        "member='NameOwnerChanged',arg0='" HVD_NAME "'",
                        on_owner_changed, NULL, w);
        if (r >= 0)
                r = sd_bus_match_signal(w->cli->bus, &w->slots[w->n_slots++], "org.freedesktop.DBus.Local",
                        "/org/freedesktop/DBus/Local", "org.freedesktop.DBus.Local", "Disconnected",
                        on_disconnected, w);
        return r;
}

/* Exit code. */
static int ask_partitions(struct watch *w)
{
        _cleanup_json_ struct json_object *array = NULL;
        struct json_object *partitions = json_object_new_object();

        w->told = json_object_new_object();
        if (!partitions || !w->told) {
                json_object_put(partitions);
                return output_fail_errno(w->cli, -ENOMEM);
        }
        w->partitions = partitions;
        int r = bus_get_objects(w->cli, "ListPartitions", "name", NULL, &array);
        for (size_t i = 0; r == 0 && i < json_object_array_length(array); i++) {
                struct json_object *p = json_object_array_get_idx(array, i);
                _cleanup_free_ char *path = NULL;

                if (bus_partition_path(field_string(p, "name"), &path) < 0 ||
                        json_add(partitions, path, json_object_get(p)) < 0)
                        return output_fail_errno(w->cli, -ENOMEM);
                say_partition(w, path);
        }
        return r;
}

static int begin(struct watch *w)
{
        sigset_t mask;
        int r = sd_event_new(&w->event);

        sigemptyset(&mask);
        sigaddset(&mask, SIGINT);
        sigaddset(&mask, SIGTERM);
        sigprocmask(SIG_BLOCK, &mask, NULL);
        if (r >= 0)
                r = sd_event_add_signal(w->event, NULL, SIGINT, NULL, (void *)(intptr_t)CLI_DONE);
        if (r >= 0)
                r = sd_event_add_signal(w->event, NULL, SIGTERM, NULL, (void *)(intptr_t)CLI_DONE);
        if (r >= 0)
                r = sd_bus_attach_event(w->cli->bus, w->event, SD_EVENT_PRIORITY_NORMAL);
        if (r >= 0)
                r = add_matches(w);
        if (r < 0)
                return bus_fail(w->cli, NULL, r);
        r = ask_partitions(w);
        if (r == 0 && w->is_screen) {
                r = sd_event_add_time_relative(
                        w->event, &w->timer, CLOCK_MONOTONIC, 0, 100 * USEC_PER_MSEC, on_draw, w);
                r = r < 0 ? output_fail_errno(w->cli, r) : 0;
        }
        return r;
}

static int run_watch(struct cli *cli, const struct cli_verb *verb, int argc, char **argv)
{
        const char *words[CLI_POSITIONALS_MAX], *term = getenv("TERM");
        _cleanup_(watch_done) struct watch w = { .cli = cli };
        int r;

        if (!bus_begin(cli, verb, argc, argv, words, &r))
                return r;
        w.is_screen = !cli->arg_json && isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
        r = begin(&w);
        if (r != 0)
                return r;
        r = sd_event_loop(w.event);
        return r < 0 ? bus_fail(cli, NULL, r) : r;
}

const struct cli_verb verb_watch = {
        .name = "watch",
        .help = "Shows what the policy decides and what partitions have, as it happens",
        .run = run_watch,
};
