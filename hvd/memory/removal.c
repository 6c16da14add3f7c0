/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The wish behind a removal, put to the planner. */

#include "hvd/memory/removal.h"

#include "common/size.h"
#include "hvd/memory/nodes.h"

bool removal_names_device(const struct job_request *request)
{
        return request->device[0] || request->has_drc;
}

static int check_min(const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        uint64_t min = p->definition.profile.min_bytes, current = partition_current_bytes(p);

        if (min && request->bytes <= current && current - request->bytes < min)
                return error_set(ret_error, ERROR_NOT_PLUGGED,
                        "Partition '%s' has %s and its profile keeps %s; at most %s can be removed",
                        p->definition.name, SIZE(current), SIZE(min),
                        SIZE_EXACT(current - MIN(min, current)));
        return 0;
}

int removal_resolve(const struct partition *p, struct job_request *request, struct error *ret_error)
{
        int r = request->whole_node ? nodes_resolve_whole(p, request, ret_error) : 0;

        return r < 0 ? r : check_min(p, request, ret_error);
}

/* Only devices of the operator's node may leave. */
static int restrict_to_node(
        struct plan_device *devices, size_t n_devices, unsigned node, uint64_t bytes, struct error *ret_error)
{
        bool any = false, any_dimm = false;
        uint64_t bytes_there = 0;

        for (size_t i = 0; i < n_devices; i++) {
                any_dimm |= devices[i].is_dimm;
                any |= devices[i].is_dimm && devices[i].node == node;
                if (devices[i].node != node)
                        devices[i].removable = false;
                else if (devices[i].is_dimm)
                        bytes_there += devices[i].size_bytes;
        }
        if (any_dimm && !any)
                return error_set(ret_error, ERROR_NOT_PLUGGED,
                        "No DIMM is plugged in node %u; leave the node out, or name one that has some", node);
        if (bytes > bytes_there && any)
                return error_set(ret_error, ERROR_NOT_PLUGGED,
                        "%s is more than the %s plugged in DIMMs in node %u; ask for at most that, or leave "
                        "the "
                        "size out to empty the node",
                        SIZE_EXACT(bytes), SIZE_EXACT(bytes_there), node);
        return 0;
}

int removal_plan(const struct partition *p, const struct job_request *request, char *const *excluded,
        const struct survey *survey, uint64_t bytes, struct plan_snapshot *ret_snapshot,
        struct plan_device **ret_devices, struct plan_remove *ret, struct error *ret_error)
{
        const char *device = request->device[0] ? request->device : NULL;
        int r;

        r = nodes_check(p, request->node, ret_error);
        if (r < 0)
                return r;
        if (partition_plan_snapshot(p, excluded, ret_snapshot, ret_devices) < 0)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        if (survey)
                survey_apply(survey, *ret_devices, ret_snapshot->n_devices);
        if (request->node >= 0) {
                r = restrict_to_node(
                        *ret_devices, ret_snapshot->n_devices, (unsigned)request->node, bytes, ret_error);
                if (r < 0)
                        return r;
        }
        if (request->has_drc) {
                size_t index;
                r = plan_find_drc(ret_snapshot, request->drc, bytes, &index, ret_error);
                if (r < 0)
                        return r;
                device = ret_snapshot->devices[index].id;
        }
        return plan_removal(ret_snapshot, bytes, device, ret, ret_error);
}

void removal_add_ratio_reason(struct job *j, const struct error *error)
{
        if (error->code != ERROR_ZONE_RATIO)
                return;
        for (size_t i = 0; i < j->n_reasons; i++)
                if (j->reasons[i].error.code == ERROR_ZONE_RATIO)
                        return;
        job_add_reason(j, NULL, UINT64_MAX, error);
}

static void add_pending_reasons(struct job *j)
{
        const struct platform_snapshot *s = &j->partition->snapshot;

        for (size_t i = 0; i < s->n_devices; i++) {
                const struct platform_device *d = &s->devices[i];
                struct error error;

                if (!d->unplug_pending || (j->request.node >= 0 && d->node != (unsigned)j->request.node))
                        continue;
                error_set(&error, ERROR_UNPLUG_PENDING,
                        "its unplug is pending in QEMU, and the guest does not see to it; a reset of the "
                        "guest ends that (the device leaves then)");
                job_add_reason(j, d->id, UINT64_MAX, &error);
        }
}

void removal_add_shortfall(struct job *j, uint64_t planned_bytes, uint64_t kept_bytes)
{
        struct error error = { 0 };

        if (kept_bytes > 0)
                error_set(&error, ERROR_ZONE_RATIO,
                        "%s of kernel memory stays: without it zone Movable would be more than three times "
                        "what "
                        "the kernel has; remove Movable memory first, or name a device",
                        SIZE(kept_bytes));
        else if (!j->request.whole_node)
                error_set(&error, ERROR_NO_EXACT_FIT,
                        "DIMMs leave whole, and those that are plugged do not add up to %s; the nearest "
                        "below "
                        "is %s",
                        SIZE_EXACT(j->request.bytes), SIZE_EXACT(planned_bytes));
        if (error.code)
                job_add_reason(j, NULL, UINT64_MAX, &error);
        add_pending_reasons(j);
        if (j->request.whole_node)
                nodes_add_fixed_reasons(j);
}
