/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Following one job from the call that makes it to the last line about it.
 *
 * Latency is the point: a command may take little more than the guest itself does. So everything is
 * asynchronous and goes out in one write behind the bus's own handshake: the matches for changes of jobs and
 * for the loss of hvd, then the call. The bus keeps the order, so no change of our job can be missed once the
 * call is on its way; but a job may end before its path is known here, which is why its properties are asked
 * for as soon as it is. From then on each change brings the new values along, and the one that shows a final
 * state ends the wait: nothing is left to ask for.
 *
 * Replies that never come because hvd goes away are answered by the bus with an error, as are calls to
 * nobody; what is left is hvd going away between calls, which NameOwnerChanged tells.
 *
 * Ctrl-C asks hvd to cancel and goes on waiting, since the job's end says what had moved; a second one
 * leaves. */

#include "hmc-cli/wait.h"

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
#include "hmc-cli/report.h"

#define PROGRESS_FIRST_USEC (300 * USEC_PER_MSEC) /* a short job is over before a line would be read */
#define PROGRESS_EVERY_USEC USEC_PER_SEC
#define PROGRESS_MIN_USEC   (50 * USEC_PER_MSEC)
/* hvd ends a job at its deadline, or when it has put back what it can: one that is silent for longer is
 * asked. */
#define OVERDUE_USEC (60 * USEC_PER_SEC)
/* Taking a job needs no guest: an hvd this slow is stuck. */
#define CALL_TIMEOUT_USEC (25 * USEC_PER_SEC)

struct wait {
        struct cli *cli;
        const struct wait_options *options;
        sd_event *event;

        char *path;
        uint32_t id;
        struct json_object *job;
        bool cancel; /* Ctrl-C was pressed */

        bool show_progress, progress_drawn, progress_due;
        uint64_t progress_usec; /* CLOCK_MONOTONIC of the last one drawn */
        sd_event_source *progress_timer, *interrupt, *overdue;
        sd_bus_slot *ask_slot, *cancel_slot;
        sd_bus_slot *slots[4]; /* of matches and calls; freeing them at the end forgets what is pending */
        size_t n_slots;
};

static void wait_done(struct wait *w)
{
        for (size_t i = 0; i < w->n_slots; i++)
                sd_bus_slot_unref(w->slots[i]);
        sd_event_source_unref(w->progress_timer);
        sd_event_source_unref(w->interrupt);
        sd_event_source_unref(w->overdue);
        sd_bus_slot_unref(w->ask_slot);
        sd_bus_slot_unref(w->cancel_slot);
        if (w->cli->bus)
                sd_bus_detach_event(w->cli->bus);
        sd_event_unref(w->event);
        json_object_put(w->job);
        free(w->path);
}

static void progress_clear(struct wait *w)
{
        if (w->progress_drawn)
                fputs("\r\033[K", stderr);
        w->progress_drawn = false;
}

static void progress_draw(struct wait *w)
{
        _cleanup_free_ char *line = NULL;
        size_t length, width = 79;
        struct winsize size;
        struct timespec now;

        if (!w->progress_due || !w->job || w->cancel)
                return;
        if (now_monotonic_usec() - w->progress_usec < PROGRESS_MIN_USEC)
                return;
        FILE *f = open_memstream(&line, &length);
        if (!f)
                return;
        clock_gettime(CLOCK_REALTIME, &now);
        report_progress(f, w->job, (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / 1000);
        if (fclose(f) != 0)
                return;

        /* A line that wraps could not be redrawn. */
        if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
                width = size.ws_col - 1U;
        fprintf(stderr, "\r\033[K%.*s", (int)MIN(width, length), line);
        fflush(stderr);
        w->progress_drawn = true;
        w->progress_usec = now_monotonic_usec();
}

/* Everything that ends the wait comes through one of these two. */
static int wait_exit(struct wait *w, int exit_code)
{
        return sd_event_exit(w->event, exit_code);
}

static int wait_fail(struct wait *w, const sd_bus_error *error, int r)
{
        progress_clear(w);
        return wait_exit(w, bus_fail(w->cli, error, r));
}

static int wait_lost(struct wait *w, const char *why)
{
        progress_clear(w);
        if (!w->path)
                return wait_exit(w, bus_fail_unreachable(w->cli, why));
        return wait_exit(
                w, output_fail(w->cli, CLI_UNREACHABLE, "hvd-unreachable",
                           "hvd went away while job %" PRIu32
                           " was running (%s); when it is back, 'hmc-cli jobs' says what became of it",
                           w->id, why));
}

static int wait_finish(struct wait *w)
{
        progress_clear(w);
        if (w->cli->arg_json)
                output_json(w->job);
        else if (w->options->dry_run)
                report_plan(stdout, w->job);
        else
                report_job(stdout, w->job);
        return wait_exit(w, w->options->no_wait ? CLI_DONE : report_job_exit(w->job));
}

static int watch_overdue(struct wait *w);

static int on_job(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
        struct wait *w = userdata;
        int r;

        if (sd_bus_message_is_method_error(m, NULL))
                return wait_fail(w, sd_bus_message_get_error(m), -sd_bus_message_get_errno(m));
        r = bus_read_properties(m, &w->job);
        if (r < 0)
                return wait_fail(w, NULL, r);
        if (w->options->no_wait)
                return wait_finish(w);
        return report_job_is_final(w->job) ? wait_finish(w) : watch_overdue(w);
}

static int ask_job(struct wait *w)
{
        w->ask_slot = sd_bus_slot_unref(w->ask_slot);
        return sd_bus_call_method_async(w->cli->bus, &w->ask_slot, HVD_NAME, w->path,
                "org.freedesktop.DBus.Properties", "GetAll", on_job, w, "s", HVD_JOB_INTERFACE);
}

static int on_overdue(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct wait *w = userdata;
        int r = ask_job(w);

        return r < 0 ? wait_fail(w, NULL, r) : 0;
}

/* Nothing is heard of an hvd that hangs, nor of a change that the bus could not take: an hvd that does not
 * answer then either is out of reach. */
static int watch_overdue(struct wait *w)
{
        uint64_t deadline = field_u64(w->job, "deadline"), left = OVERDUE_USEC;
        struct timespec now;
        int r;

        clock_gettime(CLOCK_REALTIME, &now);
        uint64_t now_usec = (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / 1000;
        if (deadline > now_usec)
                left += deadline - now_usec;
        w->overdue = sd_event_source_disable_unref(w->overdue);
        r = sd_event_add_time_relative(w->event, &w->overdue, CLOCK_MONOTONIC, left, 0, on_overdue, w);
        return r < 0 ? wait_fail(w, NULL, r) : 0;
}

static int on_job_changed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
        struct wait *w = userdata;
        _cleanup_json_ struct json_object *changed = NULL;
        const char *interface;
        int r;

        /* Of other jobs, or before the answer to GetAll, which has it. */
        if (!w->job || strcmp(sd_bus_message_get_path(m), w->path) != 0)
                return 0;
        r = sd_bus_message_read(m, "s", &interface);
        if (r >= 0)
                r = bus_read_properties(m, &changed);
        if (r < 0)
                return wait_fail(w, NULL, r);
        json_object_object_foreach(changed, key, value)
                json_object_object_add(w->job, key, json_object_get(value));
        if (report_job_is_final(w->job))
                return wait_finish(w);
        progress_draw(w);
        return 0;
}

static int on_owner_changed(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
        const char *name, *old_owner, *new_owner;

        if (sd_bus_message_read(m, "sss", &name, &old_owner, &new_owner) < 0)
                return 0;
        /* An empty old owner: the bus has just started hvd for our call. */
        return *old_owner ? wait_lost(userdata, *new_owner ? "it was replaced" : "it ended") : 0;
}

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
        return wait_lost(userdata, "the connection to the bus was closed");
}

static int on_cancelled(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
        /* A job that has just ended cannot be cancelled, and its end is on its way. Other refusals matter. */
        const sd_bus_error *error = sd_bus_message_get_error(m);

        if (error && !sd_bus_error_has_name(error, SD_BUS_ERROR_UNKNOWN_OBJECT))
                fprintf(stderr, "The job was not cancelled: %s\n", error->message ?: error->name);
        return 0;
}

static int cancel_job(struct wait *w)
{
        int r;

        fprintf(stderr, "Stopping job %" PRIu32 "; what has moved stays. Ctrl-C again leaves at once.\n",
                w->id);
        r = sd_bus_call_method_async(w->cli->bus, &w->cancel_slot, HVD_NAME, w->path, HVD_JOB_INTERFACE,
                "Cancel", on_cancelled, w, NULL);
        return r < 0 ? wait_fail(w, NULL, r) : 0;
}

static int on_interrupt(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
        struct wait *w = userdata;

        progress_clear(w);
        fputs(isatty(STDERR_FILENO) ? "\n" : "", stderr); /* behind the terminal's "^C" */
        if (w->cancel) {
                fputs("Left; hvd ends the job by itself, see 'hmc-cli jobs'.\n", stderr);
                return wait_exit(w, CLI_INTERRUPTED);
        }
        w->cancel = true;
        if (w->path)
                return cancel_job(w);
        fputs("The job is stopped as soon as hvd has taken it. Ctrl-C again leaves at once.\n", stderr);
        return 0;
}

static int on_progress_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct wait *w = userdata;

        w->progress_due = true;
        progress_draw(w);
        if (sd_event_source_set_time_relative(source, PROGRESS_EVERY_USEC) < 0)
                return 0;
        return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* Progress is for a person who watches: a terminal on stderr, and no JSON. */
static int start_progress(struct wait *w)
{
        const char *term = getenv("TERM");

        if (w->cli->arg_json || w->options->no_wait || w->options->dry_run || !isatty(STDERR_FILENO) ||
                !term || strcmp(term, "dumb") == 0)
                return 0;
        return sd_event_add_time_relative(
                w->event, &w->progress_timer, CLOCK_MONOTONIC, PROGRESS_FIRST_USEC, 0, on_progress_timer, w);
}

static int on_taken(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
        struct wait *w = userdata;
        struct error error;
        const char *path;
        int r;

        if (sd_bus_message_is_method_error(m, NULL))
                return wait_exit(w, bus_fail_partition(w->cli, w->options->partition,
                                            sd_bus_message_get_error(m), -sd_bus_message_get_errno(m)));
        r = sd_bus_message_read(m, "o", &path);
        if (r < 0)
                return wait_fail(w, NULL, r);
        const char *slash = strrchr(path, '/');
        if (args_parse_u32("job", slash + 1, &w->id, &error) < 0)
                return wait_fail(w, NULL, -EBADMSG);
        w->path = strdup(path);
        if (!w->path)
                return wait_fail(w, NULL, -ENOMEM);

        if (w->options->no_wait && !w->cli->arg_json) {
                printf("job %" PRIu32 "\n", w->id);
                return wait_exit(w, CLI_DONE);
        }
        r = start_progress(w);
        if (r >= 0)
                r = ask_job(w);
        if (r < 0)
                return wait_fail(w, NULL, r);
        return w->cancel ? cancel_job(w) : 0;
}

static int add_matches(struct wait *w)
{
        sd_bus *bus = w->cli->bus;
        int r;

        r = sd_bus_add_match_async(bus, &w->slots[w->n_slots++],
                "type='signal',sender='" HVD_NAME "',path_namespace='" HVD_PATH "/job',"
                "interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',"
                "arg0='" HVD_JOB_INTERFACE "'",
                on_job_changed, NULL, w);
        if (r < 0)
                return r;
        r = sd_bus_add_match_async(bus, &w->slots[w->n_slots++],
                "type='signal',sender='org.freedesktop.DBus',path='/org/freedesktop/DBus',"
                "interface='org.freedesktop.DBus',member='NameOwnerChanged',arg0='" HVD_NAME "'",
                on_owner_changed, NULL, w);
        if (r < 0)
                return r;
        return sd_bus_match_signal(bus, &w->slots[w->n_slots++], "org.freedesktop.DBus.Local",
                "/org/freedesktop/DBus/Local", "org.freedesktop.DBus.Local", "Disconnected", on_disconnected,
                w);
}

static int start(struct wait *w, sd_bus_message *call)
{
        sigset_t mask;
        int r;

        r = sd_event_new(&w->event);
        if (r < 0)
                return r;
        if (!w->options->no_wait) {
                sigemptyset(&mask);
                sigaddset(&mask, SIGINT);
                if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
                        return -errno;
                r = sd_event_add_signal(w->event, &w->interrupt, SIGINT, on_interrupt, w);
                if (r < 0)
                        return r;
        }
        r = sd_bus_attach_event(w->cli->bus, w->event, SD_EVENT_PRIORITY_NORMAL);
        if (r < 0)
                return r;
        r = add_matches(w);
        if (r < 0)
                return r;
        return sd_bus_call_async(
                w->cli->bus, &w->slots[w->n_slots++], call, on_taken, w, bus_timeout(CALL_TIMEOUT_USEC));
}

int wait_for_job(struct cli *cli, sd_bus_message *call, const struct wait_options *options)
{
        _cleanup_(wait_done) struct wait w = { .cli = cli, .options = options };
        int r;

        r = start(&w, call);
        if (r >= 0)
                r = sd_event_loop(w.event);
        return r < 0 ? bus_fail(cli, NULL, r) : r;
}
