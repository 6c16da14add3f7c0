/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "hvd/request.h"

#include <inttypes.h>
#include <string.h>

#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/memory/auto.h"
#include "hvd/memory/mechanism.h"
#include "hvd/pool.h"

/* As in the configuration and hmc-cli; the guest protocol has no longer deadline. */
#define JOB_WAIT_MAX_USEC (7 * 24 * 3600 * USEC_PER_SEC)

const struct mechanism *request_mechanism(const struct partition *p, const struct job_request *request)
{
        const struct mechanism *m = NULL;
        const char *method;

        switch (request->kind) {
        case JOB_SET_MEMORY:
                return &mechanism_set;
        case JOB_MOVE_MEMORY:
                return &mechanism_move;
        case JOB_RESTORE_MEMORY:
                return &mechanism_restore;
        default:
                break;
        }
        /* What would leave is foretold of now, and so without the time. */
        if (request->within && !request->dry_run)
                return &mechanism_dimm_trickle;
        if (!request->method)
                return auto_choose(p, request);
        mechanism_find(request->kind, request->method, &m, &method, NULL);
        return m;
}

/* --- the profile --- */

int request_check_total(const struct partition *p, uint64_t bytes, struct error *ret_error)
{
        uint64_t min = p->definition.profile.min_bytes, max = partition_max_bytes(p);

        if (bytes < min)
                return error_set(ret_error, ERROR_NOT_PLUGGED,
                        "%s is below the %s that the profile of partition '%s' keeps; ask for at least that",
                        SIZE_EXACT(bytes), SIZE_EXACT(min), p->definition.name);
        if (max && bytes > max)
                return error_set(ret_error, ERROR_BEYOND_MAX,
                        "%s is above the max of partition '%s', %s (%s); ask for at most that",
                        SIZE_EXACT(bytes), p->definition.name, SIZE_EXACT(max),
                        max == p->definition.profile.max_bytes ? "by its profile" : "as QEMU was started");
        return 0;
}

int request_check_profile(
        const struct partition *p, enum job_kind kind, uint64_t bytes, struct error *ret_error)
{
        uint64_t min = p->definition.profile.min_bytes, max = p->definition.profile.max_bytes;
        uint64_t current = partition_current_bytes(p);

        if (!p->has_snapshot)
                return 0;
        if (kind == JOB_REMOVE_MEMORY && min && bytes <= current && current - bytes < min)
                return error_set(ret_error, ERROR_NOT_PLUGGED,
                        "Partition '%s' has %s and its profile keeps %s; at most %s can be removed",
                        p->definition.name, SIZE(current), SIZE(min),
                        SIZE_EXACT(current - MIN(min, current)));
        if (kind == JOB_ADD_MEMORY && max && bytes > max - (current < max ? current : max))
                return error_set(ret_error, ERROR_BEYOND_MAX,
                        "Partition '%s' has %s and its profile allows %s; at most %s can be added",
                        p->definition.name, SIZE(current), SIZE(max), SIZE_EXACT(max - MIN(max, current)));
        return 0;
}

/* --- a request --- */

/* The methods of an addition are those of a removal, and a set or a move may take either. */
static int check_method(const struct partition *p, struct job_request *q, struct error *ret_error)
{
        enum job_kind kind = q->kind == JOB_REMOVE_MEMORY ? JOB_REMOVE_MEMORY : JOB_ADD_MEMORY;
        const struct mechanism *m;

        if (!q->method || strcmp(q->method, "auto") == 0) {
                q->method = NULL;
                return 0;
        }
        int r = mechanism_find(kind, q->method, &m, &q->method, ret_error);

        return r < 0 ? r : mechanism_check_method(p, m, q->method, ret_error);
}

static int check_size(struct job_request *q, struct error *ret_error)
{
        if (q->kind == JOB_SET_MEMORY) {
                q->bytes = 0;
                if (q->target_bytes == 0)
                        return error_set(ret_error, ERROR_INVALID_SIZE,
                                "A partition cannot have no memory; name the total that it is to have");
        } else if (q->bytes == 0 && q->kind == JOB_REMOVE_MEMORY && q->node >= 0 && !q->has_drc &&
                   !q->device[0])
                q->whole_node = true;
        else if (q->bytes == 0)
                return error_set(ret_error, ERROR_INVALID_SIZE, "Nothing to move: the size is zero");
        return 0;
}

/* Said last: what the partition can have is the better answer. */
static int check_sane(const struct job_request *q, struct error *ret_error)
{
        if (q->bytes > PROTO_ADDRESS_MAX || q->target_bytes > PROTO_ADDRESS_MAX)
                return error_set(ret_error, ERROR_INVALID_SIZE,
                        "%" PRIu64 " bytes are more than any guest can have", MAX(q->bytes, q->target_bytes));
        return 0;
}

static int check_alone(const struct job_request *q, struct error *ret_error)
{
        const struct mechanism *m = &mechanism_dimm_remove;
        const char *method;

        if (q->within && q->kind != JOB_REMOVE_MEMORY)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT, "Only a removal can take its time");
        if (q->within && q->method)
                mechanism_find(JOB_REMOVE_MEMORY, q->method, &m, &method, NULL);
        if (m != &mechanism_dimm_remove)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Memory of method %s leaves as soon as the guest can give it; only DIMMs take their "
                        "time",
                        q->method);
        if (q->has_drc && q->device[0])
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "A device and a DRC index exclude each other; name the memory by one of them");
        if (q->wait_usec > JOB_WAIT_MAX_USEC)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT, "A job's time limit is at most 7 days");
        return 0;
}

/* What a request asks of the pool beyond what is held already. A move brings its memory along. */
static int check_pool(const struct partition *p, const struct job_request *q, struct error *ret_error)
{
        uint64_t held = pool_held_bytes(p);

        if (q->kind == JOB_ADD_MEMORY)
                return pool_check(p->manager, q->bytes, ret_error);
        if (q->kind == JOB_SET_MEMORY && p->has_snapshot && q->target_bytes > held)
                return pool_check(p->manager, q->target_bytes - held, ret_error);
        return 0;
}

static int check_partition(const struct partition *p, const struct job_request *q, struct error *ret_error)
{
        int r = partition_check_usable(p, ret_error);

        if (r >= 0 && q->persistent && !p->platform->ops->can_persist)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Partition '%s' has no definition that outlives its QEMU; only libvirt's domains "
                        "have",
                        p->definition.name);
        /* What an active or a waiting job will have changed is not known yet: then the job itself plans, and
         * refuses. */
        if (r < 0 || p->active)
                return r;
        return request_mechanism(p, q)->check(p, q, ret_error);
}

static int check_peer(const struct partition *p, const struct partition *peer, const struct job_request *q,
        struct error *ret_error)
{
        if (!peer || q->kind != JOB_MOVE_MEMORY)
                return 0;
        if (p == peer)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "Memory cannot be moved from partition '%s' to itself; name two", p->definition.name);
        struct job_request add = *q;
        add.kind = JOB_ADD_MEMORY;
        int r = check_method(peer, &add, ret_error);
        if (r >= 0)
                r = request_check_profile(peer, JOB_ADD_MEMORY, q->bytes, ret_error);
        return r < 0 ? r : check_partition(peer, &add, ret_error);
}

int request_check(struct partition *p, struct partition *peer, struct job_request *q, struct error *ret_error)
{
        enum job_kind leaves = q->kind == JOB_MOVE_MEMORY ? JOB_REMOVE_MEMORY : q->kind;
        struct job_request own = *q;

        int r = check_method(p, q, ret_error);
        if (r >= 0)
                r = check_alone(q, ret_error);
        if (r >= 0)
                r = check_size(q, ret_error);
        if (r < 0)
                return r;
        own = *q;
        own.kind = leaves;
        r = check_peer(p, peer, q, ret_error);
        if (r >= 0)
                r = check_partition(p, &own, ret_error);
        if (r >= 0 && q->kind == JOB_SET_MEMORY)
                r = request_check_total(p, q->target_bytes, ret_error);
        else if (r >= 0 && !p->active)
                r = request_check_profile(p, leaves, q->bytes, ret_error);
        if (r >= 0)
                r = check_sane(q, ret_error);
        if (r >= 0)
                r = check_pool(p, q, ret_error);
        if (r >= 0 && !q->wait_usec)
                q->wait_usec = manager_config(p->manager)->job_wait_usec;
        return r;
}
