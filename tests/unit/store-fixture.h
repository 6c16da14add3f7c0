/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hvd/store/store.h"

/* A folder of the test's own, with the path of a store in it. */

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

extern char path[80];

int setup(void **state);
int teardown(void **state);

/* As hvd opens it; fails the test. */
struct store *open_store(void);
/* Past the store, while it is closed. */
void run_sql(const char *sql);
