/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"

/* The guest's NUMA nodes, as jobs see them. */

/* UNKNOWN_NODE, with those that there are, if the guest lacks the node (-1: none was asked for). Where the
 * hypervisor does not tell its nodes any will do, and it has the last word. */
int nodes_check(const struct partition *p, int node, struct error *ret_error);

/* What is plugged in a node, in DIMMs. */
uint64_t nodes_plugged_bytes(const struct partition *p, unsigned node);

/* The job is to empty a node: its size becomes what is plugged there now. UNKNOWN_NODE, or NOT_PLUGGED. */
int nodes_resolve_whole(const struct partition *p, struct job_request *request, struct error *ret_error);

/* A reason for each DIMM of the job's node that no removal can take. */
void nodes_add_fixed_reasons(struct job *j);

/* A reason if QEMU has more in the job's node, when all that the job was for has left: it came meanwhile. */
void nodes_check_empty(struct job *j);

/* Whether what the guest says of a new device is as asked: all of it in that node. */
bool nodes_are(const struct block_range *ranges, size_t n_ranges, uint64_t start, uint64_t length,
        unsigned node, unsigned *ret_other);
