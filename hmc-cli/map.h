/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdio.h>

#include "common/json.h"

/* Draws the map that memory-map -o json prints: a line of cells for base memory and for each device, a
 * legend with totals, and why blocks stay. width: of the terminal. 0 or -errno. */
int map_print(FILE *f, struct json_object *map, bool color, unsigned width);
