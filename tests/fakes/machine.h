/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/cleanup.h"

/* A machine that keeps account: a QEMU with its DIMMs and backends, and a guest with its memory blocks,
 * behind the two sockets that hvd knows. Unlike the scripted fakes it has no opinion about what comes next:
 * it does what it is told, as QEMU 7.2 and Linux do, so that whatever way hvd takes can be judged by what is
 * left in the end. It has MACHINE_BASE bytes at boot, room for MACHINE_MAX and MACHINE_SLOTS DIMMs.
 *
 * Out of memory is not handled: this is a test's tool, and aborts. */

#define MACHINE_BASE  (4 * GIB)
#define MACHINE_MAX   (16 * GIB)
#define MACHINE_BLOCK (128 * MIB)
#define MACHINE_SLOTS 16U

/* What goes wrong at one of the requests, to QEMU and to the guest, which are counted together. */
enum machine_fault {
        MACHINE_ERROR,  /* it is not carried out, and the answer is an error */
        MACHINE_LOST,   /* it is not carried out, and there is no answer */
        MACHINE_SILENT, /* it is carried out, and there is no answer */
        MACHINE_LATE,   /* it is carried out; the answer, and all that follows, comes late_usec later */
        MACHINE_CLOSE,  /* it is carried out, and the connection ends */
        MACHINE_RESET,  /* it is carried out and answered, and the guest is reset */
        MACHINE_FAULT_MAX,
};
const char *machine_fault_to_string(enum machine_fault f);

/* May be shared by machines that a job has in common. Counts while armed. */
struct machine_plan {
        enum machine_fault fault;
        uint64_t late_usec;
        unsigned long at, n; /* at 0: only counted */
        bool armed;
        char where[64]; /* the request that it was */
};

struct machine;

/* Listens on both sockets. The plan is borrowed, and may be NULL. */
struct machine *machine_new(
        sd_event *event, const char *qmp_socket, const char *channel_socket, struct machine_plan *plan);
struct machine *machine_free(struct machine *m); /* NULL is fine; returns NULL */

/* As hvd would have done it, and named so: a DIMM with its backend, its blocks online in zone Movable, or
 * offline. */
void machine_plug(struct machine *m, uint64_t bytes, bool online);
/* A backend that nothing uses. */
void machine_add_orphan(struct machine *m);
/* The guest begins anew: every block of a DIMM is offline. */
void machine_reset(struct machine *m);

uint64_t machine_plugged_bytes(const struct machine *m);
/* NULL: each DIMM has its backend and each backend its DIMM, and no block is offline. Else what is wrong;
 * valid until the next call. */
const char *machine_flaw(struct machine *m);
/* What hvd did that it must never do, such as a device_del of blocks that are online; NULL: nothing. */
const char *machine_complaint(const struct machine *m);
