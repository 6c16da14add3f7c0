/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/sim/trace.h"

/* What anyone has to move, whatever rules it has and whatever it knows, to leave no more than that short: a
 * bound from below, true but not the highest. It holds for who never has a guest below its min or above its
 * max. 0 or -ENOMEM. */
int sim_least_moved(const struct trace *t, double short_gib_sec, double *ret_gib);
