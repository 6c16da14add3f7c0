/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/policy/policy.h"
#include "proto/message.h"

/* What guests say of their memory, made into what the policy takes. Pure. */

/* The sample that rates are counted from, and the rates so far; zeroed at a session's beginning. */
struct sample_track {
        bool has_base;
        struct guest_sample base;
        uint64_t base_usec;
        struct policy_sample rates; /* only the rates in it count */
};

/* What the host knows, which bounds what the guest may say. */
struct sample_host {
        uint64_t current_bytes;
        bool has_dimms_only; /* its memory can leave only as DIMMs, and so from zone Movable */
        uint64_t dimm_bytes;
        struct sampling sampling; /* what the guest was asked for */
};

/* Takes a sample that was received at now_usec (CLOCK_MONOTONIC, more than 0): brings the track up to it and
 * gives what the policy is to know, within policy_sample_bound() and the host's own account. Counters become
 * rates over the time since the base, at least 0.1 s; the first sample has PSI's ten seconds in their place.
 * A push for pressure says that tasks stalled at least as long as was to be told of. */
void sample_take(struct sample_track *t, const struct guest_sample *s, const struct sample_host *h,
        uint64_t now_usec, struct policy_sample *ret);
