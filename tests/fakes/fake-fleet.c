/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Many fakes in one process, all by the same two scripts:
 *
 *   fake-fleet FOLDER COUNT QMP-SCRIPT GUEST-SCRIPT [MSEC STEP]
 *
 * makes FOLDER/N.qmp and FOLDER/N.channel for each N below COUNT; "%N" in a script stands for it. With STEP
 * every guest that was welcomed carries out this sending step each MSEC, the guests evenly one after the
 * other. Ends at SIGTERM or SIGINT, with exit 0 if no fake has failed, and with 1 at the first that does. */

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <systemd/sd-event.h>

#include "tests/fakes/dialect.h"
#include "tests/fakes/fake-guest.h"
#include "tests/fakes/fake-qmp.h"

#define COUNT_MAX 4096U

struct fleet {
        sd_event *event;
        struct fake **monitors, **guests;
        size_t n, next;
        const char *step;
        uint64_t pause_usec, at_usec;
        bool stopped;
};

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
        ((struct fleet *)userdata)->stopped = true;
        return 0;
}

/* Catches up with what is due, so that the rate is as asked for on a busy machine too. */
static int on_step(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct fleet *f = userdata;

        for (uint64_t now = now_monotonic_usec(); f->at_usec <= now; f->at_usec += f->pause_usec) {
                fake_say(f->guests[f->next], f->step);
                f->next = (f->next + 1) % f->n;
        }
        sd_event_source_set_time(source, f->at_usec);
        return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static char *number_script(const char *script, size_t number)
{
        struct fake_output out = { 0 };
        char digits[24];

        snprintf(digits, sizeof(digits), "%zu", number);
        for (const char *at; (at = strstr(script, "%N")); script = at + 2) {
                fake_output_bytes(&out, script, (size_t)(at - script));
                fake_output_bytes(&out, digits, strlen(digits));
        }
        fake_output_bytes(&out, script, strlen(script) + 1);
        return out.data;
}

static int add_fake(struct fleet *f, const char *folder, size_t number, const char *suffix, fake_new_t new,
        const char *script, struct fake **ret)
{
        _cleanup_free_ char *text = number_script(script, number), *path = NULL;

        if (asprintf(&path, "%s/%zu.%s", folder, number, suffix) < 0)
                abort();
        int r = new (f->event, path, text, ret);
        if (r < 0)
                fprintf(stderr, "fake-fleet: cannot listen at %s: %s\n", path, strerror(-r));
        return r;
}

/* NULL: none has failed. */
static struct fake *find_failed(const struct fleet *f)
{
        for (size_t i = 0; i < f->n; i++) {
                if (fake_failed(f->monitors[i]))
                        return f->monitors[i];
                if (fake_failed(f->guests[i]))
                        return f->guests[i];
        }
        return NULL;
}

/* Each fake has a socket that listens and one that is served. */
static void raise_limit(size_t n)
{
        rlim_t wanted = (rlim_t)(4 * n + 64);
        struct rlimit limit;

        getrlimit(RLIMIT_NOFILE, &limit);
        if (limit.rlim_cur >= wanted)
                return;
        limit.rlim_cur = MIN(limit.rlim_max, wanted);
        setrlimit(RLIMIT_NOFILE, &limit);
}

static int set_up(struct fleet *f, const char *folder, const char *qmp_script, const char *guest_script)
{
        sigset_t signals;

        sigemptyset(&signals);
        sigaddset(&signals, SIGTERM);
        sigaddset(&signals, SIGINT);
        sigprocmask(SIG_BLOCK, &signals, NULL);
        int r = sd_event_new(&f->event);
        if (r >= 0)
                r = sd_event_add_signal(f->event, NULL, SIGTERM, on_signal, f);
        if (r >= 0)
                r = sd_event_add_signal(f->event, NULL, SIGINT, on_signal, f);
        for (size_t i = 0; r >= 0 && i < f->n; i++) {
                r = add_fake(f, folder, i, "qmp", fake_qmp_new, qmp_script, &f->monitors[i]);
                if (r >= 0)
                        r = add_fake(f, folder, i, "channel", fake_guest_new, guest_script, &f->guests[i]);
        }
        if (r >= 0 && f->step) {
                f->at_usec = now_monotonic_usec() + f->pause_usec;
                r = sd_event_add_time(f->event, NULL, CLOCK_MONOTONIC, f->at_usec, 1, on_step, f);
        }
        return r;
}

static int run(struct fleet *f)
{
        struct fake *failed = NULL;

        puts("ready");
        fflush(stdout);
        for (uint64_t looked = 0; !f->stopped && !failed;) {
                if (sd_event_run(f->event, USEC_PER_SEC) < 0)
                        abort();
                /* There are many: not after each event. */
                uint64_t now = now_monotonic_usec();
                if (now - looked > USEC_PER_SEC / 10) {
                        failed = find_failed(f);
                        looked = now;
                }
        }
        failed = failed ?: find_failed(f);
        if (failed)
                fprintf(stderr, "fake-fleet: %s\n", fake_complaint(failed));
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
        _cleanup_free_ char *qmp_script = NULL, *guest_script = NULL;
        struct fleet f = { 0 };
        int code = EXIT_FAILURE;

        f.n = argc == 5 || argc == 7 ? strtoul(argv[2], NULL, 10) : 0;
        uint64_t every_msec = argc == 7 ? strtoul(argv[5], NULL, 10) : 1;
        if (f.n == 0 || f.n > COUNT_MAX || every_msec == 0) {
                fprintf(stderr, "usage: fake-fleet FOLDER COUNT QMP-SCRIPT GUEST-SCRIPT [MSEC STEP]\n");
                return 2;
        }
        if (fake_read_script(argv[3], &qmp_script) < 0 || fake_read_script(argv[4], &guest_script) < 0) {
                fprintf(stderr, "fake-fleet: the scripts cannot be read\n");
                return EXIT_FAILURE;
        }
        f.step = argc == 7 ? argv[6] : NULL;
        f.pause_usec = MAX(every_msec * USEC_PER_MSEC / f.n, (uint64_t)1);
        f.monitors = fake_must(calloc(f.n, sizeof(struct fake *)));
        f.guests = fake_must(calloc(f.n, sizeof(struct fake *)));
        raise_limit(f.n);
        if (set_up(&f, argv[1], qmp_script, guest_script) >= 0)
                code = run(&f);
        for (size_t i = 0; i < f.n; i++) {
                fake_free(f.monitors[i]);
                fake_free(f.guests[i]);
        }
        free(f.monitors);
        free(f.guests);
        sd_event_unref(f.event);
        return code;
}
