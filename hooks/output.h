/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "proto/message.h"

/* What was read of one hook's output. */
struct first_line {
        char text[PROTO_REASON_MAX + 1];
        size_t length;
        bool complete;
};

/* Reads what is there; never waits. False: nobody can write any more. */
bool output_drain(int fd, struct first_line *line);
