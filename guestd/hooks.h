/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include "guestd/loop.h"
#include "hooks/client.h"

/* The guest's hooks: whether there are any, and running them by opendlpar-hooks. A guest without hooks costs
 * nothing, one with hooks no wake-up but for a change of them. */
struct hooks;

struct hooks_config {
        struct hooks_client_config client; /* strings borrowed */
        uint64_t limit_usec;               /* of one hook */
};

/* Whether there are any has changed. */
typedef void (*hooks_changed_t)(bool any, void *userdata);
/* Exactly once for each hooks_run(). NULL: the program has not answered, or is gone. */
typedef void (*hooks_done_t)(const struct hooks_answer *answer, void *userdata);

int hooks_new(struct loop *loop, const struct hooks_config *config, hooks_changed_t on_changed,
        void *userdata, struct hooks **ret);
/* What runs ends. NULL is fine. */
struct hooks *hooks_free(struct hooks *h);

/* There is a file in the folder, or something to be settled. */
bool hooks_any(const struct hooks *h);
/* PRE was called, and neither POST nor UNDO yet. */
bool hooks_are_pending(const struct hooks *h);
/* Runs them, one request at a time: -EBUSY. q's limits are filled in, but for total_usec. */
int hooks_run(struct hooks *h, struct hooks_request *q, hooks_done_t done, void *userdata);
/* The hook that runs is killed, and the answer follows. */
void hooks_cancel(struct hooks *h);
