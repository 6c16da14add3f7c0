/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/json.h"
#include "common/lines.h"
#include "common/size.h"
#include "proto/message.h"
#include "tests/fakes/dialect.h"
#include "tests/fakes/machine.h"

/* Shared by machine.c, which is QEMU, machine-guest.c and machine-end.c. */

#define BLOCKS_MAX   (MACHINE_MAX / MACHINE_BLOCK)
#define BACKENDS_MAX 64U
#define WAITING_MAX  16U

struct machine_end {
        struct machine *machine;
        char path[108];
        int listen_fd, fd;
        sd_event_source *listen_io, *io, *timer;
        struct line_reader reader;
        struct fake_output held; /* while the timer runs */
        bool silent;             /* for the request in hand */
        bool closes;             /* after it */
        void (*on_line)(struct machine *m, const char *line, size_t length);
};

struct machine_block {
        enum block_state state;
        enum zone zone;
};

struct machine_backend {
        char id[64];
        uint64_t bytes;
};

struct machine_dimm {
        char id[64], backend[64];
        uint64_t address, bytes;
        bool used;
};

/* A request of the guest's that is answered when blocks have come or gone. */
struct machine_wait {
        struct message request;
        uint64_t until_usec;
};

struct machine {
        sd_event *event;
        struct machine_end qmp, channel;
        struct machine_plan *plan, no_plan;
        bool resets; /* when the request in hand is answered */
        char complaint[256], flaw[256];

        struct machine_dimm dimms[MACHINE_SLOTS];
        struct machine_backend backends[BACKENDS_MAX];
        size_t n_backends;
        struct machine_block blocks[BLOCKS_MAX];
        struct json_object *leaving; /* DIMMs whose DEVICE_DELETED is to come, when all is answered */
        sd_event_source *defer;

        bool port_open;
        unsigned boot;
        char session[PROTO_TOKEN_LENGTH + 1];
        enum zone prepared; /* UNKNOWN: new blocks stay offline */
        struct machine_wait waits[WAITING_MAX];
        size_t n_waits;
        sd_event_source *waits_timer, *boot_timer;
};

void machine_end_init(struct machine *m, struct machine_end *e, const char *path, size_t line_max,
        bool resync, void (*on_line)(struct machine *m, const char *line, size_t length));
void machine_end_done(struct machine_end *e);
void machine_complain(struct machine *m, const char *format, ...) _printf_(2, 3);
/* Counts the request. True: it is not to be carried out. */
bool machine_meets_fault(struct machine *m, struct machine_end *e, const char *name);
/* Borrows the data. It may be held, or not be sent, as the fault has it. */
void machine_send(struct machine_end *e, const char *data, size_t length);
/* The request in hand is over, answered or not. */
void machine_after(struct machine *m, struct machine_end *e);
void machine_event(struct machine *m, const char *name, struct json_object *data);

void guest_line(struct machine *m, const char *line, size_t length);
/* A connection of the host's, and its end. */
void guest_hello(struct machine *m);
void guest_session_end(struct machine *m);
/* Blocks have come, gone or changed. */
void guest_look(struct machine *m);
void guest_init(struct machine *m);
void guest_done(struct machine *m);
