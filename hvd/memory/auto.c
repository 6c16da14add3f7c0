/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "hvd/memory/auto.h"

#include <stdio.h>
#include <string.h>

#include "common/size.h"
#include "hvd/memory/headroom.h"
#include "hvd/memory/mechanism.h"

struct offer {
        const struct partition *partition;
        const struct job_request *request;
        const struct mechanism *mechanism;
};

static void nearest(const void *userdata, uint64_t bytes, uint64_t *ret_below, uint64_t *ret_above)
{
        const struct offer *o = userdata;

        o->mechanism->nearest(o->partition, o->request, bytes, ret_below, ret_above);
}

/* The offers as the planner wants them; both arrays have room for PLAN_SOURCES_MAX. */
static size_t gather(const struct partition *p, const struct job_request *request, unsigned excluded,
        struct offer *offers, struct plan_source *sources)
{
        const struct mechanism *m;
        size_t n = 0;

        for (size_t i = 0; n < PLAN_SOURCES_MAX && (m = mechanism_of_kind(request->kind, i)); i++) {
                if (!m->room || excluded & (1U << i))
                        continue;
                offers[n] = (struct offer) { p, request, m };
                sources[n] = (struct plan_source) {
                        .nearest = m->nearest ? nearest : NULL,
                        .userdata = &offers[n],
                };
                sources[n].room_bytes = m->room(p, request, &sources[n].unit_bytes);
                n++;
        }
        return n;
}

void auto_plan(const struct partition *p, const struct job_request *request, unsigned excluded,
        struct auto_plan *ret)
{
        struct offer offers[PLAN_SOURCES_MAX];
        struct plan_source sources[PLAN_SOURCES_MAX];

        *ret = (struct auto_plan) { .n = gather(p, request, excluded, offers, sources) };
        for (size_t i = 0; i < ret->n; i++) {
                ret->mechanisms[i] = offers[i].mechanism;
                ret->room_bytes[i] = sources[i].room_bytes;
                ret->unit_bytes[i] = sources[i].unit_bytes;
                ret->all_bytes += sources[i].room_bytes;
        }
        ret->total_bytes = plan_split(sources, ret->n, request->bytes, ret->shares);
}

static int too_much(const struct partition *p, const struct job_request *request, const struct auto_plan *a,
        struct error *ret_error)
{
        bool adds = request->kind == JOB_ADD_MEMORY;
        char each[160] = "";
        size_t used = 0;

        for (size_t i = 0; i < a->n; i++)
                used += (size_t)snprintf(each + used, sizeof(each) - used, "%s%s %s", i ? ", " : "",
                        mechanism_name(p, a->mechanisms[i]), SIZE(a->room_bytes[i]));
        return error_set(ret_error, adds ? ERROR_BEYOND_MAX : ERROR_NOT_PLUGGED,
                "%s is more than the %s that can be %s partition '%s' now (by %s); %s",
                SIZE_EXACT(request->bytes), SIZE_EXACT(a->all_bytes), adds ? "added to" : "removed from",
                p->definition.name, each,
                a->all_bytes == 0 ? adds ? "remove memory first" : "add memory first"
                                  : "ask for at most that");
}

static int not_exact(const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        uint64_t below, above;

        auto_nearest(p, request, request->bytes, &below, &above);
        bool both = below > 0 && above != UINT64_MAX;
        return error_set(ret_error, ERROR_UNALIGNED_SIZE,
                "%s is not made up of what the mechanisms of partition '%s' can move; ask for %s%s%s",
                SIZE_EXACT(request->bytes), p->definition.name, SIZE_EXACT(below > 0 ? below : above),
                both ? " or " : "", both ? SIZE_EXACT(above) : "");
}

int auto_check(const struct partition *p, const struct job_request *request, struct auto_plan *ret,
        struct error *ret_error)
{
        auto_plan(p, request, 0, ret);
        if (request->bytes > ret->all_bytes)
                return too_much(p, request, ret, ret_error);
        if (ret->total_bytes < request->bytes)
                return not_exact(p, request, ret_error);
        for (size_t i = 0; i < ret->n; i++) {
                struct job_request share = *request;

                share.bytes = ret->shares[i];
                if (share.bytes == 0)
                        continue;
                int r = ret->mechanisms[i]->check(p, &share, ret_error);
                if (r < 0)
                        return r;
        }
        return 0;
}

static bool is_for_dimms(const struct job_request *q)
{
        return q->device[0] || q->has_drc || q->within || q->whole_node ||
               (q->kind == JOB_ADD_MEMORY && q->zone == ZONE_POLICY_KERNEL);
}

const struct mechanism *auto_choose(const struct partition *p, const struct job_request *request)
{
        const struct mechanism *dimms =
                request->kind == JOB_ADD_MEMORY ? &mechanism_dimm_add : &mechanism_dimm_remove;
        const struct mechanism *split =
                request->kind == JOB_ADD_MEMORY ? &mechanism_split_add : &mechanism_split_remove;
        const struct mechanism *m;
        bool has_others = false;
        uint64_t unit;

        if (is_for_dimms(request))
                return dimms;
        if (!p->has_snapshot)
                return split; /* it asks first */
        for (size_t i = 0; (m = mechanism_of_kind(request->kind, i)); i++)
                if (m != dimms && m->room && m->room(p, request, &unit) > 0)
                        return split;
        for (size_t i = 0; i < p->snapshot.n_devices; i++)
                has_others |= !p->snapshot.devices[i].is_dimm;
        if (has_others && headroom_may_be_old(p, request))
                return split; /* likewise */
        /* With all of them at their end, what is said of DIMMs alone would mislead. */
        return has_others && dimms->room(p, request, &unit) == 0 ? split : dimms;
}

void auto_nearest(const struct partition *p, const struct job_request *request, uint64_t bytes,
        uint64_t *ret_below, uint64_t *ret_above)
{
        struct offer offers[PLAN_SOURCES_MAX];
        struct plan_source sources[PLAN_SOURCES_MAX];
        uint64_t shares[PLAN_SOURCES_MAX];
        const char *own;
        const struct mechanism *only = NULL;
        unsigned excluded = 0;

        if (request->method && mechanism_find(request->kind, request->method, &only, &own, NULL) >= 0)
                for (size_t i = 0; mechanism_of_kind(request->kind, i); i++)
                        excluded |= mechanism_of_kind(request->kind, i) != only ? 1U << i : 0;
        size_t n = gather(p, request, excluded, offers, sources);
        *ret_below = plan_split(sources, n, bytes, shares);
        *ret_above = plan_split_above(sources, n, bytes);
}
