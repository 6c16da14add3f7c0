/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

#include "common/error.h"

struct store;

/* A decision that the store has, as JSON: {"id", "partition", "mode", "time_usec" (CLOCK_REALTIME), "text",
 * "outcome", "decision", "input"} as of policy_runner_explain(). The caller frees *ret. -ENOENT
 * (INVALID_ARGUMENT): there is none, or no longer. Blocks for reading one round, about 1 MiB at most. */
int policy_explain_past(struct store *s, uint64_t id, char **ret, struct error *ret_error);
