/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The fakes as programs. */

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-event.h>

#include "tests/fakes/fake.h"

int fake_read_script(const char *path, char **ret)
{
        FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
        char *text = NULL;
        size_t size = 0;

        if (!file)
                return -errno;
        ssize_t n = getdelim(&text, &size, '\0', file);
        if (file != stdin)
                fclose(file);
        if (n < 0) {
                free(text);
                return -ENODATA;
        }
        *ret = text;
        return 0;
}

struct program {
        struct fake *fake;
        bool stopped;
};

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
        ((struct program *)userdata)->stopped = true;
        return 0;
}

static bool program_is_over(void *userdata)
{
        struct program *p = userdata;
        return p->stopped || fake_failed(p->fake) || fake_finished(p->fake);
}

int fake_main(int argc, char **argv, fake_new_t new)
{
        _cleanup_free_ char *script = NULL;
        struct program p = { 0 };
        sd_event *event = NULL;
        sigset_t signals;

        if (argc != 3) {
                fprintf(stderr, "Usage: %s SOCKET SCRIPT-FILE\n", argv[0]);
                return 2;
        }
        int r = fake_read_script(argv[2], &script);
        if (r < 0) {
                fprintf(stderr, "%s: cannot read %s: %s\n", argv[0], argv[2], strerror(-r));
                return 1;
        }
        sigemptyset(&signals);
        sigaddset(&signals, SIGTERM);
        sigaddset(&signals, SIGINT);
        sigprocmask(SIG_BLOCK, &signals, NULL);
        if ((r = sd_event_new(&event)) < 0 ||
                (r = sd_event_add_signal(event, NULL, SIGTERM, on_signal, &p)) < 0 ||
                (r = sd_event_add_signal(event, NULL, SIGINT, on_signal, &p)) < 0 ||
                (r = new (event, argv[1], script, &p.fake)) < 0) {
                fprintf(stderr, "%s: cannot listen at %s: %s\n", argv[0], argv[1], strerror(-r));
                sd_event_unref(event);
                return 1;
        }
        puts("ready");
        fflush(stdout);

        while (!program_is_over(&p))
                if (sd_event_run(event, UINT64_MAX) < 0)
                        abort();
        bool good = fake_finished(p.fake) || (p.stopped && fake_is_serving(p.fake));
        if (!good)
                fprintf(stderr, "%s: %s\n", argv[0], fake_complaint(p.fake));
        fake_free(p.fake);
        sd_event_unref(event);
        return good ? 0 : 1;
}
