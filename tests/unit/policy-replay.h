/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "jobs-fixture.h"

struct seen_decisions {
        unsigned n, n_grow;
        uint64_t id; /* of the newest */
        struct store *store;
        char outcome[256], decision[1024]; /* likewise */
};

/* The last 100 decisions that the store has: each comes out the same from its stored input alone, or the test
 * fails. */
struct seen_decisions replay_decisions(struct fixture *fx);
