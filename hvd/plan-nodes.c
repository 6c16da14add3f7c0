/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The balance of a guest's NUMA nodes: each shall have plugged memory in proportion to what it had at boot,
 * which is what whoever laid out the guest thought right for its processors. */

#include "common/size.h"
#include "hvd/plan-internal.h"

unsigned plan_nodes_index(unsigned node)
{
        return MIN(node, PLAN_NODES_MAX - 1);
}

void plan_nodes_measure(const struct plan_snapshot *s, struct plan_nodes *ret)
{
        *ret = (struct plan_nodes) { 0 };
        for (unsigned i = 0; i < PLAN_NODES_MAX; i++) {
                ret->base_bytes[i] = MAX(s->granule_bytes, UINT64_C(1));
                if (i < s->n_nodes)
                        ret->base_bytes[i] = MAX(ret->base_bytes[i], s->node_base_bytes[i]);
        }
        for (size_t i = 0; i < s->n_devices; i++)
                ret->plugged_bytes[plan_nodes_index(s->devices[i].node)] += s->devices[i].size_bytes;
}

static bool is_more(uint64_t a_bytes, uint64_t a_base, uint64_t b_bytes, uint64_t b_base)
{
        return (unsigned __int128)a_bytes * b_base > (unsigned __int128)b_bytes * a_base;
}

bool plan_nodes_is_fuller(const struct plan_nodes *nodes, unsigned a, unsigned b)
{
        return is_more(
                nodes->plugged_bytes[a], nodes->base_bytes[a], nodes->plugged_bytes[b], nodes->base_bytes[b]);
}

/* -1: no node had memory at boot. */
static int least_node(const struct plan_snapshot *s, const struct plan_nodes *nodes, uint64_t add_bytes)
{
        int least = -1;

        for (int i = 0; i < (int)MIN(s->n_nodes, PLAN_NODES_MAX); i++)
                if (s->node_base_bytes[i] > 0 &&
                        (least < 0 ||
                                is_more(nodes->plugged_bytes[least] + add_bytes, nodes->base_bytes[least],
                                        nodes->plugged_bytes[i] + add_bytes, nodes->base_bytes[i])))
                        least = i;
        return least;
}

void plan_choose_nodes(const struct plan_snapshot *s, int node, struct plan_add *add)
{
        struct plan_nodes nodes;

        plan_nodes_measure(s, &nodes);
        for (size_t i = 0; i < add->n_pieces; i++) {
                struct plan_piece *piece = &add->pieces[i];

                piece->node = node;
                if (node >= 0 || s->n_nodes < 2)
                        continue;
                piece->node = least_node(s, &nodes, piece->size_bytes);
                if (piece->node >= 0)
                        nodes.plugged_bytes[piece->node] += piece->size_bytes;
        }
}
