/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdio.h>

#include "common/error.h"

struct store;

struct replay_result {
        unsigned n, n_same;
};

/* Decides the newest max decisions of a store again, each from its stored input alone, and writes a line to
 * tells for each that comes out differently, or whose input this policy cannot read. Blocks. */
int replay_store(
        struct store *s, unsigned max, FILE *tells, struct replay_result *ret, struct error *ret_error);
