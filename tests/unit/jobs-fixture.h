/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "hvd/manager.h"
#include "tests/fakes/fake-guest.h"
#include "tests/fakes/fake-qmp.h"

/* A manager with one partition between a scripted QEMU and a scripted guest, all on one event loop, and an
 * observer that writes down the states that each job goes through. */

#define LIMIT_USEC (30 * USEC_PER_SEC)

/* Appends to a fake's script, with some things written shorter: '...' for "...", 4G and 128M for their bytes,
 * and <N ADDRESS SIZE> or <N ADDRESS SIZE NODE> for query-memory-devices' word on opendlpar-dimm-N. */
void script(struct fake *f, const char *text);

#define TRACES_MAX 16U /* jobs whose states are kept */
#define TRACE_MAX  256U

struct fixture {
        sd_event *event;
        char dir[40], qmp_path[64], channel_path[64];
        struct fake *qmp, *guest;
        struct manager *manager;
        struct partition *p;
        void (*fill_store)(struct store *s); /* what an hvd before left in it; NULL: nothing */

        char traces[TRACES_MAX][TRACE_MAX]; /* by job id, modulo TRACES_MAX: "QUEUED SURVEYING ..." */
        double progress;                    /* of the last change of a job that was not over yet */
        unsigned n_added, n_ended, n_forgotten, n_pool_changes;
        unsigned n_decided_grow; /* told of, of the policy's decisions */
};

int fixture_setup(void **state);
int fixture_teardown(void **state);

/* Both ends come up, with what the extra standing orders say of them, and the partition knows them. By
 * default: 1 GiB at boot, maxmem 16 GiB, 16 slots, nothing plugged, on x86. */
void start(struct fixture *fx, const char *qemu_orders, const char *guest_orders);
/* The same in parts: the manager with its partition, and waiting until it knows both ends. */
void start_fakes(struct fixture *fx, const char *qemu_orders, const char *guest_orders);
void start_manager(struct fixture *fx);
void run_until_known(struct fixture *fx);
/* The same as start(), of a guest that says what its pages are. */
void start_with_survey(struct fixture *fx, const char *qemu_orders, const char *guest_orders);
/* And that helps. */
void start_with_assist(struct fixture *fx, const char *qemu_orders, const char *guest_orders);
/* The same as start(), of a guest that takes several devices offline at one request. */
void start_with_sets(struct fixture *fx, const char *qemu_orders, const char *guest_orders);
/* The same as start(), of a guest that sends samples. */
void start_with_samples(struct fixture *fx, const char *qemu_orders, const char *guest_orders);
#define HELLO_OF_SAMPLES "hello {'capabilities':['samples']}\nexpect welcome\n"
/* The same as start(), of a guest that has hooks; and its part before the manager. */
void start_with_hooks(struct fixture *fx, const char *qemu_orders, const char *guest_orders);
void start_fakes_with_hooks(struct fixture *fx, const char *qemu_orders, const char *guest_orders);
#define SETTLE "expect hook {'phase':'settle'}\nreply\n"
/* The same as start(), of a pseries guest: 1 GiB at boot, maxmem 9 GiB, 32 slots, blocks of 256 MiB. */
void start_pseries(struct fixture *fx, const char *qemu_orders, const char *guest_orders);
#define HELLO_OF_PSERIES "hello {'arch':'ppc64le','block_bytes':256M}\nexpect welcome\n"
/* Both scripts must be done, with nothing left over, and the partition at rest. */
void finish(struct fixture *fx);
/* A second partition, with ends of its own, in the first one's manager; the same with its own part of it. */
struct fixture *start_second(
        struct fixture *fx, const char *name, const char *qemu_orders, const char *guest_orders);
void finish_second(struct fixture *fx, struct fixture *second);
/* Something has changed, and neither end has been asked since: a job must. */
void unsettle(struct fixture *fx);

struct job *submit(struct fixture *fx, const struct job_request *request);
enum error_code try_submit(struct fixture *fx, const struct job_request *request);
#define REQUEST(kind_, bytes_, ...)                                                                          \
        (&(struct job_request) { .kind = JOB_##kind_##_MEMORY, .bytes = (bytes_), .node = -1, __VA_ARGS__ })
#define ADD(bytes, ...)    REQUEST(ADD, bytes, __VA_ARGS__)
#define REMOVE(bytes, ...) REQUEST(REMOVE, bytes, __VA_ARGS__)
#define SET_TO(bytes, ...) REQUEST(SET, 0, .target_bytes = (bytes), __VA_ARGS__)
#define MOVE(bytes, ...)   REQUEST(MOVE, bytes, __VA_ARGS__)

void assert_job(
        struct fixture *fx, const struct job *j, enum job_state state, uint64_t done_bytes, size_t n_reasons);
void assert_reason(
        const struct job *j, size_t index, const char *device, enum error_code code, const char *part);
void assert_trace(struct fixture *fx, const struct job *j, const char *trace);
const char *complaints(struct fixture *fx);

/* The guest's next message must be a cancel of the request that it had last; the cancel is answered. */
void expect_cancel(struct fixture *fx);

#define RUN_UNTIL(fx, condition)                                                                             \
        do {                                                                                                 \
                FAKE_RUN_UNTIL((fx)->event,                                                                  \
                        (condition) || ((fx)->qmp && fake_failed((fx)->qmp)) ||                              \
                                ((fx)->guest && fake_failed((fx)->guest)),                                   \
                        LIMIT_USEC);                                                                         \
                if (!(condition))                                                                            \
                        fail_msg("never: %s; %s", #condition, complaints(fx));                               \
        } while (0)
#define RUN_UNTIL_END(fx, j) RUN_UNTIL(fx, job_state_is_end((j)->state))

/* What QEMU lists, and the sum of it. */
#define DEVICES(list, plugged)                                                                               \
        "on query-memory-devices reply [" list "]\n"                                                         \
        "on query-memory-size-summary reply {'base-memory':1G,'plugged-memory':" plugged "}\n"
/* The guest's blocks beside the 1 GiB that it was booted with. */
#define BLOCKS(list) "on get-blocks reply {'ranges':[[0,1G,'online','kernel',0]" list "]}\n"
#define MEMORY(kernel, movable, available)                                                                   \
        "'memory':{'total_bytes':1G,'free_bytes':512M,'available_bytes':" available                          \
        ",'swap_total_bytes':0,'swap_free_bytes':0,'kernel_bytes':" kernel ",'movable_bytes':" movable       \
        ",'online_blocks':8,'offline_blocks':0}"

/* The two devices of most tests, and what each command for them looks like. */
#define BOTH      "<0 4G 1G>,<1 5G 1G>"
#define ONLINE(a) "[" a ",1G,'online','movable',0]"
#define MAKE(n)                                                                                              \
        "expect object-add {'qom-type':'memory-backend-ram','id':'opendlpar-mem-" #n "','size':1G}\n"        \
        "reply\n"
#define INSERT(n)                                                                                            \
        "expect device_add {'driver':'pc-dimm','id':'opendlpar-dimm-" #n "','memdev':'opendlpar-mem-" #n     \
        "'}\n" TAKE(n)
#define PLUG(n) MAKE(n) INSERT(n)
/* Made while the guest was asked to prepare, and not needed then. */
#define UNMAKE(n) "expect object-del {'id':'opendlpar-mem-" #n "'}\nreply\n"
/* The guest has it. Said before device_add is answered, which is as good: no test waits for it in vain. */
#define TAKE(n)                                                                                              \
        "event ACPI_DEVICE_OST {'info':{'device':'opendlpar-dimm-" #n                                        \
        "','source':1,'status':0,'slot':'0','slot-type':'DIMM'}}\n"
#define UNPLUG(n) "expect device_del {'id':'opendlpar-dimm-" #n "'}\nreply\n"
#define LEAVE(n)                                                                                             \
        "event DEVICE_DELETED {'device':'opendlpar-dimm-" #n                                                 \
        "','path':'/machine/peripheral/opendlpar-dimm-" #n "'}\n"                                            \
        "expect object-del {'id':'opendlpar-mem-" #n "'}\n"
/* The guest is asked for the removal's end while QEMU is at it, and is told to stop when something else is
 * due. */
#define AWAIT_STOPPED                                                                                        \
        "expect await-removed @gone\nexpect cancel\nreply\n"                                                 \
        "reply @gone {'complete':false}\n"
#define HELLO_OF_ANOTHER_BOOT "hello {'boot_id':'22222222-2222-2222-2222-222222222222'}\nexpect welcome\n"
