/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "hvd/memory/nodes.h"

#include <stdio.h>

#include "common/size.h"

int nodes_check(const struct partition *p, int node, struct error *ret_error)
{
        unsigned n = p->has_snapshot ? p->snapshot.n_nodes : 0;
        char known[48];

        if (node < 0 || n == 0 || (unsigned)node < n)
                return 0;
        if (n == 1)
                snprintf(known, sizeof(known), "only node 0");
        else if (n == 2)
                snprintf(known, sizeof(known), "nodes 0 and 1");
        else
                snprintf(known, sizeof(known), "%u, nodes 0 to %u", n, n - 1);
        return error_set(ret_error, ERROR_UNKNOWN_NODE, "Partition '%s' has no NUMA node %d: it has %s",
                p->definition.name, node, known);
}

static bool is_in(const struct platform_device *d, unsigned node)
{
        return d->is_dimm && d->node == node;
}

uint64_t nodes_plugged_bytes(const struct partition *p, unsigned node)
{
        uint64_t bytes = 0;

        for (size_t i = 0; i < p->snapshot.n_devices; i++)
                if (is_in(&p->snapshot.devices[i], node))
                        bytes += p->snapshot.devices[i].region_bytes;
        return bytes;
}

int nodes_resolve_whole(const struct partition *p, struct job_request *request, struct error *ret_error)
{
        int r = nodes_check(p, request->node, ret_error);
        if (r < 0)
                return r;
        uint64_t bytes = nodes_plugged_bytes(p, (unsigned)request->node);
        if (bytes == 0)
                return error_set(ret_error, ERROR_NOT_PLUGGED,
                        "Node %d of partition '%s' has no memory in DIMMs, and what it had at boot cannot "
                        "leave",
                        request->node, p->definition.name);
        request->bytes = bytes;
        return 0;
}

void nodes_add_fixed_reasons(struct job *j)
{
        const struct platform_snapshot *s = &j->partition->snapshot;

        for (size_t i = 0; i < s->n_devices; i++) {
                struct error error;

                if (!is_in(&s->devices[i], (unsigned)j->request.node) || s->devices[i].hotpluggable)
                        continue;
                error_set(&error, ERROR_NOT_PLUGGED,
                        "QEMU was started with it, or it has no id by which it could be unplugged");
                job_add_reason(j, s->devices[i].id, UINT64_MAX, &error);
        }
}

void nodes_check_empty(struct job *j)
{
        uint64_t left = nodes_plugged_bytes(j->partition, (unsigned)j->request.node);
        struct error error;

        if (left == 0 || j->done_bytes < j->request.bytes)
                return;
        error_set(&error, ERROR_ACCOUNTS_DIFFER,
                "Node %d has %s in DIMMs again, which came while it was emptied", j->request.node,
                SIZE(left));
        job_add_reason(j, NULL, UINT64_MAX, &error);
}

bool nodes_are(const struct block_range *ranges, size_t n_ranges, uint64_t start, uint64_t length,
        unsigned node, unsigned *ret_other)
{
        for (size_t i = 0; i < n_ranges; i++) {
                const struct block_range *r = &ranges[i];

                if (r->start >= start + length || r->start + r->length <= start || r->node == node)
                        continue;
                *ret_other = r->node;
                return false;
        }
        return true;
}
