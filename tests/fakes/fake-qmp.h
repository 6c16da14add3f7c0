/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tests/fakes/fake.h"

/* A scripted QEMU monitor. "expect" and "on" name a command; its arguments are what JSON is compared with.
 * Steps besides those of fake.h:
 *
 *   greet                            the greeting
 *   negotiate                        accept, greet, expect qmp_capabilities, reply {}
 *   reply [@LABEL] [VALUE]           {"return": VALUE, "id": the command's}; {} by default
 *   error [@LABEL] CLASS TEXT        {"error": ...}
 *   event NAME [DATA]
 *
 * A QEMU with memory devices:
 *
 *   negotiate
 *   on query-status reply {"status":"running","running":true}
 *   on query-memory-devices reply []
 *   expect object-add {"qom-type":"memory-backend-ram","size":1073741824}
 *   reply
 *   expect device_add {"driver":"pc-dimm"}
 *   on query-memory-devices reply [{"type":"dimm","data":{"id":"dimm0","size":1073741824,...}}]
 *   reply
 *   event ACPI_DEVICE_OST {"info":{"device":"dimm0","source":1,"status":0,"slot":"0","slot-type":"DIMM"}}
 *   serve
 */
int fake_qmp_new(sd_event *event, const char *socket, const char *script, struct fake **ret);
