/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "common/json.h"

/* One of the devices of a partition's JSON. */
bool mechanisms_is_virtio_mem(struct json_object *device);
/* What each mechanism holds, a line each; both arrays may be NULL. */
void mechanisms_print(FILE *f, struct json_object *devices, struct json_object *balloons);
