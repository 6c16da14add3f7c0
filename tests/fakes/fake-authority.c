/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Stands in for polkitd: fake-authority ADDRESS MODE-FILE owns polkit's name on that bus, and answers each
 * question as the file's one word says at that moment: yes, no, challenge, dismissed, error, garbage, never,
 * late (yes, but after half a second), slow (after 27 s), or gone (it exits, without an answer). Prints a
 * line for each question and each withdrawal:
 *
 *   check UNIQUE-NAME ACTION METHOD OBJECT FLAGS CANCELLATION-ID
 *   cancel CANCELLATION-ID */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "common/cleanup.h"

static const char *arg_mode_file;

static void read_mode(char ret[static 32])
{
        FILE *f = fopen(arg_mode_file, "re");

        if (!f || fscanf(f, "%31s", ret) != 1) {
                fprintf(stderr, "fake-authority: no mode in %s\n", arg_mode_file);
                exit(EXIT_FAILURE);
        }
        fclose(f);
}

static int on_late(sd_event_source *s, uint64_t usec, void *userdata)
{
        sd_bus_message *m = userdata;

        sd_bus_reply_method_return(m, "(bba{ss})", 1, 0, 0);
        sd_bus_message_unref(m);
        return 0;
}

static int answer_later(sd_bus_message *m, sd_event *event, uint64_t msec)
{
        return sd_event_add_time_relative(
                       event, NULL, CLOCK_MONOTONIC, msec * 1000, 0, on_late, sd_bus_message_ref(m)) < 0
                       ? -ENOMEM
                       : 1;
}

static void print_question(sd_bus_message *m)
{
        const char *kind, *key, *name, *action, *k1, *v1, *k2, *v2, *id;
        uint32_t flags;
        int r = sd_bus_message_read(m, "(sa{sv})sa{ss}us", &kind, 1, &key, "s", &name, &action, 2, &k1, &v1,
                &k2, &v2, &flags, &id);

        if (r < 0 || strcmp(kind, "system-bus-name") != 0 || strcmp(key, "name") != 0 ||
                strcmp(k1, "method") != 0 || strcmp(k2, "object") != 0) {
                fprintf(stderr, "fake-authority: not a question that is expected\n");
                exit(EXIT_FAILURE);
        }
        printf("check %s %s %s %s %u %s\n", name, action, v1, v2, flags, id);
}

static int method_check(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        char mode[32];

        print_question(m);
        read_mode(mode);
        if (strcmp(mode, "yes") == 0)
                return sd_bus_reply_method_return(m, "(bba{ss})", 1, 0, 0);
        if (strcmp(mode, "no") == 0)
                return sd_bus_reply_method_return(m, "(bba{ss})", 0, 0, 0);
        if (strcmp(mode, "challenge") == 0)
                return sd_bus_reply_method_return(m, "(bba{ss})", 0, 1, 0);
        if (strcmp(mode, "dismissed") == 0)
                return sd_bus_reply_method_return(m, "(bba{ss})", 0, 1, 1, "polkit.dismissed", "true");
        if (strcmp(mode, "garbage") == 0)
                return sd_bus_reply_method_return(m, "s", "yes");
        if (strcmp(mode, "never") == 0)
                return 1;
        if (strcmp(mode, "late") == 0)
                return answer_later(m, userdata, 500);
        if (strcmp(mode, "slow") == 0)
                return answer_later(m, userdata, 27000);
        if (strcmp(mode, "gone") == 0)
                exit(EXIT_SUCCESS);
        return sd_bus_error_set(e, "org.freedesktop.PolicyKit1.Error.Failed", "Action is not registered");
}

static int method_cancel(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        const char *id;

        if (sd_bus_message_read(m, "s", &id) < 0)
                return -EINVAL;
        printf("cancel %s\n", id);
        return sd_bus_reply_method_return(m, "");
}

/* Not by a vtable: sd-bus would not send an answer of another type. */
static int on_call(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        if (sd_bus_message_is_method_call(m, "org.freedesktop.PolicyKit1.Authority", "CheckAuthorization"))
                return method_check(m, userdata, e);
        if (sd_bus_message_is_method_call(
                    m, "org.freedesktop.PolicyKit1.Authority", "CancelCheckAuthorization"))
                return method_cancel(m, userdata, e);
        return 0;
}

int main(int argc, char **argv)
{
        sd_event *event = NULL;
        sd_bus *bus = NULL;

        if (argc != 3) {
                fprintf(stderr, "usage: fake-authority ADDRESS MODE-FILE\n");
                return 2;
        }
        arg_mode_file = argv[2];
        setvbuf(stdout, NULL, _IOLBF, 0);
        int r = sd_event_default(&event);
        if (r >= 0)
                r = sd_bus_new(&bus);
        if (r >= 0)
                r = sd_bus_set_address(bus, argv[1]);
        if (r >= 0)
                r = sd_bus_set_bus_client(bus, true);
        if (r >= 0)
                r = sd_bus_start(bus);
        if (r >= 0)
                r = sd_bus_add_object(bus, NULL, "/org/freedesktop/PolicyKit1/Authority", on_call, event);
        if (r >= 0)
                r = sd_bus_attach_event(bus, event, 0);
        if (r >= 0)
                r = sd_bus_request_name(bus, "org.freedesktop.PolicyKit1", 0);
        if (r >= 0) {
                puts("ready");
                r = sd_event_loop(event);
        }
        sd_bus_flush_close_unref(bus);
        sd_event_unref(event);
        if (r < 0)
                fprintf(stderr, "fake-authority: %s\n", strerrordesc_np(-r));
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
