/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "jobs-fixture.h"

#include "hvd/platform/platform.h"

/* One platform and one scripted QEMU; the fixture's manager and guest stay unused. */
struct context {
        struct fixture *fx;
        struct platform *platform;
        unsigned n_up, n_down, n_reset, n_port, n_deleted, n_sized, n_balloon, n_changed;
        bool port_open;
        char deleted[PLATFORM_ID_MAX], sized[PLATFORM_ID_MAX + 24];
        uint64_t balloon_bytes;
};

/* What an operation came to. */
struct record {
        unsigned n;
        enum error_code code;
        char text[ERROR_MESSAGE_MAX];
        struct platform_snapshot snapshot;
};

#define RUN(c, condition) RUN_UNTIL((c)->fx, condition)
#define RUN_SCRIPT(c)     RUN(c, fake_finished((c)->fx->qmp))

int setup(void **state);
int teardown(void **state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* One DIMM is plugged, of an x86 guest, unless `orders` says otherwise. */
void start_up(struct context *c, const char *orders, const char *rest);

/* Handlers whose userdata is a record. */
void on_done(const struct error *error, void *userdata);
void on_snapshot(struct platform_snapshot *s, const struct error *error, void *userdata);

void query(struct context *c, struct record *r);
/* Whatever QEMU had said before has been taken. */
void drain(struct context *c);
/* Of opendlpar-dimm-1, 1 GiB. */
struct platform_op *attach(struct context *c, int node, struct record *r);
/* Of opendlpar-dimm-0. */
struct platform_op *detach(struct context *c, const char *backend, uint64_t timeout_usec, struct record *r);
/* The one that there is ended so, and part of its text is this. */
void assert_record(const struct record *r, enum error_code code, const char *part);
