/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/plan.h"

/* Shared by the planner's files. */

#define DIV_UP(a, b) (((a) + (b)-1) / (b))

int plan_check_size(const struct plan_snapshot *s, uint64_t size_bytes, struct error *ret_error);

/* What is plugged in each node, and what that is measured by: its memory at boot, or, where that is not
 * known, the same for all. One without memory at boot counts as having a block. */
struct plan_nodes {
        uint64_t plugged_bytes[PLAN_NODES_MAX], base_bytes[PLAN_NODES_MAX];
};
void plan_nodes_measure(const struct plan_snapshot *s, struct plan_nodes *ret);
/* Where a device counts. */
unsigned plan_nodes_index(unsigned node);
/* Whether node a has more plugged than node b, in proportion. */
bool plan_nodes_is_fuller(const struct plan_nodes *nodes, unsigned a, unsigned b);

#define PLAN_OFFER_MAX 96
/* "ask for 1G", "ask for 1G or 2G", or what to do if no size will do. Bytes; 0 and UINT64_MAX: there is none.
 */
const char *plan_offer(
        uint64_t below, uint64_t above, const char *otherwise, char buffer[static PLAN_OFFER_MAX]);
