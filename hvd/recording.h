/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "common/error.h"

struct store;

/* Writes what guests used in the last span_usec, as their samples in the store say, as a trace for
 * hvd-sim(1). What a guest used is taken for what it wanted: while it stalled that was more.
 * INVALID_ARGUMENT: there is nothing, or it is too little. now_usec: CLOCK_REALTIME. */
int recording_write(struct store *s, uint64_t now_usec, uint64_t span_usec, FILE *f, struct error *ret_error);
