/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tests/fakes/fake.h"

/* A scripted guest behind QEMU's chardev: listens on the channel's socket and speaks as guestd would.
 * "expect" and "on" name a request's op, or "welcome" or "refuse"; JSON is compared with the whole message. A
 * welcome's session is remembered and put into everything that is said from then on. Steps besides those of
 * fake.h, where JSON overrides keys of the message:
 *
 *   hello [JSON]                     0xFF and a hello of an x86 guest with blocks of 128 MiB
 *   begin                            accept, hello, expect welcome
 *   reply [@LABEL] [JSON]            a reply; by default all went well
 *   failure [@LABEL] CODE TEXT
 *   progress [@LABEL] DONE TOTAL     bytes
 *   event NAME
 *   send JSON                        any message; "session" is added if it has none
 *
 * A guest that comes up, tells its state and takes a block offline:
 *
 *   begin
 *   on get-state reply
 *   expect offline {"targets":[[4294967296,134217728]]}
 *   progress 0 134217728
 *   reply {"ranges":[[4294967296,134217728,"offline","unknown",0]]}
 *   serve
 */
int fake_guest_new(sd_event *event, const char *socket, const char *script, struct fake **ret);
