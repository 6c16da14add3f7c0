/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "hvd/memory/dimm-room.h"

#include "common/cleanup.h"
#include "hvd/memory/nodes.h"

/* False: nothing is known that could be planned on. */
static bool take_snapshot(const struct partition *p, const struct job_request *request,
        struct plan_snapshot *ret, struct plan_device **ret_devices)
{
        *ret_devices = NULL;
        return p->has_snapshot && nodes_check(p, request->node, NULL) >= 0 &&
               partition_plan_snapshot(p, NULL, ret, ret_devices) >= 0;
}

/* Only devices of the operator's node may leave. */
static void keep_other_nodes(const struct job_request *request, struct plan_device *devices, size_t n_devices)
{
        for (size_t i = 0; request->node >= 0 && i < n_devices; i++)
                if (devices[i].node != (unsigned)request->node)
                        devices[i].removable = false;
}

uint64_t dimm_add_room(const struct partition *p, const struct job_request *request, uint64_t *ret_unit_bytes)
{
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;

        *ret_unit_bytes = 0;
        if (!p->has_memory || !take_snapshot(p, request, &s, &devices))
                return 0;
        *ret_unit_bytes = s.granule_bytes;
        return plan_addition_room(&s, request->zone);
}

void dimm_add_nearest(const struct partition *p, const struct job_request *request, uint64_t bytes,
        uint64_t *ret_below, uint64_t *ret_above)
{
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;

        *ret_below = 0;
        *ret_above = UINT64_MAX;
        if (p->has_memory && take_snapshot(p, request, &s, &devices))
                plan_nearest_additions(&s, bytes, request->zone, ret_below, ret_above);
}

uint64_t dimm_remove_room(
        const struct partition *p, const struct job_request *request, uint64_t *ret_unit_bytes)
{
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;

        *ret_unit_bytes = 0;
        if (!take_snapshot(p, request, &s, &devices))
                return 0;
        *ret_unit_bytes = s.granule_bytes;
        keep_other_nodes(request, devices, s.n_devices);
        return plan_removal_room(&s);
}

void dimm_remove_nearest(const struct partition *p, const struct job_request *request, uint64_t bytes,
        uint64_t *ret_below, uint64_t *ret_above)
{
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;

        *ret_below = 0;
        *ret_above = UINT64_MAX;
        if (!take_snapshot(p, request, &s, &devices))
                return;
        keep_other_nodes(request, devices, s.n_devices);
        plan_nearest_removals(&s, bytes, ret_below, ret_above);
}

bool dimm_zones_may_be_old(const struct partition *p, const struct error *error)
{
        return error->code == ERROR_ZONE_RATIO && !partition_is_settled(p);
}
