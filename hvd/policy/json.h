/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-c/json_object.h>

#include "common/error.h"
#include "hvd/policy/policy.h"

/* What a round of decisions rested on, and what was decided, so that it can be explained and decided again.
 */

/* An input that owns its arrays. */
struct policy_record {
        struct policy_input input;
        struct policy_partition *partitions;
        struct policy_history *history;
};
void policy_record_done(struct policy_record *r);

/* The whole input, whose samples went through policy_sample_bound(). The caller owns *ret. -ENOMEM. */
int policy_input_to_json(const struct policy_input *in, struct json_object **ret);
/* The other way round: everything has to be there and in its range, else ERROR_INVALID_ARGUMENT names what is
 * not. The caller ends *ret with policy_record_done(). */
int policy_input_from_json(struct json_object *o, struct policy_record *ret, struct error *ret_error);

/* {"partition", "action", "target_bytes", "cause", "bound", figures}. The caller owns *ret. -ENOMEM. */
int policy_decision_to_json(const char *name, const struct policy_decision *d, struct json_object **ret);
