/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "tests/fakes/fake.h"
#include "tests/fakes/machine.h"

/* A bus, an hvd that can be made to end at a point, and machines for it: what the enumeration of crash points
 * stands on. Whatever goes wrong here, as against in hvd, ends the program. */

struct rig {
        sd_event *event;
        sd_bus *bus;
        char folder[64];
        const char *build;      /* where the programs are */
        pid_t bus_pid, hvd_pid; /* 0: it has ended */
        int hvd_signal;         /* by this */
        struct machine **machines;
        struct machine_plan *plans;
        size_t n_machines;
};

/* Ends the program, with what is known. */
void rig_die(struct rig *r, const char *format, ...) _printf_(2, 3) __attribute__((noreturn));

void rig_init(struct rig *r, const char *build);
void rig_done(struct rig *r);

/* Machines p0, p1 and so on, with a plan each. plans_for: of so many machines one after the other the first
 * one's plan is that of all (a job that has two). */
void rig_make_machines(struct rig *r, size_t n, size_t plans_for);
void rig_drop_machines(struct rig *r);

/* at 0: it ends at no point; from: see common/fault.h, NULL: all points count. Fresh: without what an hvd
 * before it has stored. Returns when it answers, false if it ended before. */
bool rig_start_hvd(struct rig *r, unsigned long at, const char *from, bool fresh);
/* Whether it has ended; asked again it is still so. *ret_signal: 0 if it was by exit(). */
bool rig_hvd_ended(struct rig *r, int *ret_signal);
/* SIGTERM; its exit code must be 0, which with sanitizers says that nothing leaked. */
void rig_stop_hvd(struct rig *r);
void rig_kill_hvd(struct rig *r);
/* The points that the last hvd passed, and the last one's name. */
unsigned long rig_points(struct rig *r, char *ret_last, size_t size);

/* Tells hvd of every machine. False: it has ended. */
bool rig_define(struct rig *r);

struct rig_view {
        bool running, ready;
        uint64_t plugged_bytes, current_bytes, requested_bytes, block_bytes;
        int64_t pending_bytes;
};
/* What hvd says of a partition; false: nothing. */
bool rig_look(struct rig *r, size_t machine, struct rig_view *ret);
/* Both ends of that machine are whole and hvd knows them as they are. NULL; or why not, valid until the next
 * call. */
const char *rig_differs(struct rig *r, size_t machine);

/* kind: AddMemory, RemoveMemory; or MoveMemory, from this machine to the next. The job's id; 0: there was no
 * answer, or a refusal. */
uint32_t rig_start_job(struct rig *r, const char *kind, size_t machine, uint64_t bytes, uint64_t wait_usec);

struct rig_job {
        char state[16], reasons[2048];
        uint64_t requested_bytes, done_bytes;
        bool over;
};
/* As the store has it. False: it has no such job. */
bool rig_stored_job(struct rig *r, uint32_t id, struct rig_job *ret);
