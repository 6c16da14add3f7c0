/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hooks/client.h"

/* opendlpar-hooks, as its callers ask it, and a folder of hooks that is the test's own. */

#define WAIT_MSEC  20000
#define LIMIT_USEC (10 * USEC_PER_SEC)

struct env {
        char dir[40], folder[64], state[64], trace[64];
        struct hooks_client_config config;
        struct hooks_client client;
        struct hooks_answer answer;
        uint64_t last_id;
};

void put_at(const char *path, mode_t mode, const char *text);

/* A hook. "TRACE" in its text is a file that it may write to. */
void put(struct env *e, const char *name, mode_t mode, const char *text);
void remove_file(struct env *e, const char *name);
char *read_trace(struct env *e);
struct hooks_request request(enum hook_phase phase);
void send_request(struct env *e, struct hooks_request q);

/* Returns how long it took. */
uint64_t receive(struct env *e);
uint64_t run(struct env *e, enum hook_phase phase);
void assert_result(struct env *e, size_t i, const char *name, enum error_code code, const char *part);
void assert_answer(struct env *e, bool complete, size_t n_results);
int setup(void **state);
int teardown(void **state);

/* As if PRE had been called. */
void put_begun(struct env *e);

/* By the number that a hook wrote. */
bool is_alive(const char *pid);

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
