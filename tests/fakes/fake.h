/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/json.h"
#include "common/size.h"

/* clang-format off */

/* A scripted peer on a unix socket: plays QEMU's monitor (fake-qmp.h) or a guest behind QEMU's chardev
 * (fake-guest.h), in the same event loop as the code under test or as a program of its own. What comes and
 * was not expected fails it, and so does what was expected and did not come.
 *
 * A script is lines; "#" begins a comment line. Each step waits until the one before is done and all that it
 * sends is written.
 *
 *   accept                waits for the next connection and serves it; others wait in the backlog unserved
 *   expect NAME [@LABEL] [JSON]
 *                         the next message must be NAME, and what it carries must contain JSON: objects need
 *                         the given keys at least, arrays and the rest must be equal. LABEL names it for a
 *                         later answer; without one it is the message that "reply" and its like answer.
 *   on NAME [JSON] STEP   a standing order: whenever a message NAME (that contains JSON) comes and the current
 *                         step does not expect it, the one sending STEP answers it. The newest that fits is
 *                         taken.
 *   raw TEXT              sends TEXT as it is, with \n \r \t \\ and \xHH
 *   repeat N STEP         a sending step N times
 *   try STEP              a sending step, or nothing when the peer has closed by then
 *   half STEP             only the first half of what it would send
 *   slowly STEP           one byte for each turn of the event loop
 *   wait MSEC             a pause; standing orders are carried out
 *   quiet MSEC            the same, and anything that comes fails
 *   close                 closes the connection
 *   expect-close          the peer must close it
 *   serve                 standing orders only, until the peer closes (then the script goes on)
 *   nothing               as the STEP of an order: swallow it
 *
 * and the steps that fake-qmp.h and fake-guest.h add. */

/* clang-format on */
struct fake;

/* Goes on with a script behind what there is already. A line that makes no sense fails the fake when it is
 * met. */
void fake_append(struct fake *f, const char *script);
/* Every step was done and nothing failed. */
bool fake_finished(struct fake *f);
/* Why it failed, or which step it still waits in; NULL when finished. Valid until the next call. */
const char *fake_complaint(struct fake *f);
bool fake_failed(struct fake *f);
/* In "serve", with nothing left to answer. */
bool fake_is_serving(struct fake *f);
/* Messages that were received whole. */
uint64_t fake_n_received(struct fake *f);
/* A sending step beside the script, now; nothing before the peer has said something, nor to nobody. */
void fake_say(struct fake *f, const char *step);
/* Closes, and unlinks the socket. NULL is fine; returns NULL. */
struct fake *fake_free(struct fake *f);

/* Runs the loop until the condition holds or, false, until limit_usec have passed. */
#define FAKE_RUN_UNTIL(event, condition, limit_usec)                                                         \
        ({                                                                                                   \
                uint64_t _end = now_monotonic_usec() + (limit_usec);                                         \
                while (!(condition) && now_monotonic_usec() < _end)                                          \
                        if (sd_event_run((event), 20 * USEC_PER_MSEC) < 0)                                   \
                                abort();                                                                     \
                (condition);                                                                                 \
        })

/* For tests with a RUN_UNTIL(fx, condition) of their own: until the fake has done its script. */
#define FAKE_RUN_SCRIPT(fx)                                                                                  \
        do {                                                                                                 \
                RUN_UNTIL(fx, fake_finished((fx)->fake) || fake_failed((fx)->fake));                         \
                if (fake_failed((fx)->fake))                                                                 \
                        fail_msg("%s", fake_complaint((fx)->fake));                                          \
        } while (0)

/* For programs: `NAME SOCKET SCRIPT-FILE` ("-": stdin). Exit 0 when the script is done, or in "serve" at
 * SIGTERM or SIGINT; 1 with the complaint on stderr; 2 usage. Prints "ready" on stdout once the socket
 * listens. */
typedef int (*fake_new_t)(sd_event *event, const char *socket, const char *script, struct fake **ret);
int fake_main(int argc, char **argv, fake_new_t new);
/* The whole of a file, or of stdin for "-"; the caller frees. 0 or -errno. */
int fake_read_script(const char *path, char **ret);
