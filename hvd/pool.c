/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The host's memory for partitions, as an account: nothing is stored, all is added up when it is asked for.
 *
 * A partition holds the most that it has, was asked to have, or has on the way there: an addition holds its
 * bytes from the moment in which it is queued, a removal frees them when both ends say that they are gone,
 * and one whose hypervisor does not answer holds what it did before. So two requests are never granted the
 * same memory, and what hvd was told to keep for an owner is not given to another one in the meantime.
 * Reservations live as long as hvd does, but those that are kept beyond the connection of who made them:
 * these are in the store until they end. */

#include "hvd/pool.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/host.h"
#include "hvd/manager.h"
#include "hvd/reclaim.h"
#include "hvd/record.h"

struct pool {
        TAILQ_HEAD(, reservation) reservations; /* by id */
        size_t n_reservations;
        uint32_t last_id;
        uint64_t host_bytes;
        const char *proc; /* the host's */
};

/* --- accounts --- */

/* What a job makes of the memory that a partition has; *peak: the most that it may have by then, as what is
 * to leave may stay. */
static int64_t after_job(const struct partition *p, const struct job *j, int64_t before, int64_t *peak)
{
        int64_t after = before;
        int64_t bytes = (int64_t)MIN(j->request.bytes, PROTO_ADDRESS_MAX);

        switch (j->request.kind) {
        case JOB_ADD_MEMORY:
                after += bytes;
                *peak += bytes;
                break;
        case JOB_REMOVE_MEMORY:
                after -= bytes;
                break;
        case JOB_SET_MEMORY:
                after = (int64_t)j->request.target_bytes;
                *peak = MAX(*peak, after);
                break;
        case JOB_MOVE_MEMORY:
                after += j->peer == p ? bytes : -bytes;
                /* What is moved is the one's until it is freed, and then on its way to the other. */
                *peak +=
                        j->peer == p ? (int64_t)(j->transit_bytes + j->done_bytes) : -(int64_t)j->freed_bytes;
                break;
        default:
                break;
        }
        return after;
}

/* What the active job has already changed at QEMU's end is both current and pending: requested is what
 * current was before it plus the whole of its wish, so it is kept from the base of that job. */
static int64_t follow_jobs(const struct partition *p, int64_t *ret_peak)
{
        bool moving = p->active && p->active->request.kind != JOB_RESTORE_MEMORY;
        uint64_t at_rest = partition_current_bytes(p);
        const struct job_link *link;

        if (p->has_snapshot && p->kept_bytes)
                at_rest = p->kept_bytes + partition_dimm_bytes(p);
        int64_t bytes = (int64_t)(moving ? p->settled_bytes : at_rest), peak = bytes;

        TAILQ_FOREACH (link, &p->jobs, entry)
                if (!job_state_is_end(link->job->state) && !link->job->request.dry_run)
                        bytes = after_job(p, link->job, bytes, &peak);
        *ret_peak = peak;
        return bytes;
}

uint64_t pool_requested_bytes(const struct partition *p)
{
        int64_t peak;

        return (uint64_t)MAX(follow_jobs(p, &peak), (int64_t)0);
}

uint64_t pool_held_bytes(const struct partition *p)
{
        int64_t peak, current = (int64_t)partition_current_bytes(p);

        follow_jobs(p, &peak);
        uint64_t held = (uint64_t)MAX(peak, current);
        return MAX(held, p->unheard_bytes);
}

static uint64_t total_bytes(struct manager *m)
{
        const struct config *c = manager_config(m);
        uint64_t host = manager_get_pool(m)->host_bytes;

        return c->pool_total_bytes ?: host - MIN(host, c->pool_reserve_bytes);
}

static uint64_t held_by_partitions(struct manager *m)
{
        struct partition *p = NULL;
        uint64_t bytes = 0;

        while ((p = manager_next_partition(m, p)))
                bytes += pool_held_bytes(p);
        return bytes;
}

struct pool_account pool_account(struct manager *m)
{
        struct pool_account a = {
                .total_bytes = total_bytes(m),
                .reserved_bytes = manager_config(m)->pool_reserve_bytes,
        };
        const struct reservation *r;
        struct partition *p = NULL;

        while ((p = manager_next_partition(m, p))) {
                a.current_bytes += partition_current_bytes(p);
                a.requested_bytes += pool_requested_bytes(p);
        }
        TAILQ_FOREACH (r, &manager_get_pool(m)->reservations, entry)
                a.reservations_bytes += r->bytes;
        uint64_t used = held_by_partitions(m) + a.reservations_bytes;
        a.free_bytes = a.total_bytes - MIN(used, a.total_bytes);
        a.short_bytes = used - MIN(used, a.total_bytes);
        return a;
}

/* What others on the host have taken the pool cannot give: QEMU would promise it all the same, and the host
 * swap or kill when the guest uses it. What is promised and not there yet is given already; what guests have
 * and never used counts as available, as nobody knows whether they will. A total that the operator set may be
 * more than there is, on purpose. UINT64_MAX: no limit. */
static uint64_t host_givable_bytes(struct manager *m)
{
        const struct config *c = manager_config(m);
        uint64_t available = 0, taken = c->pool_reserve_bytes;
        const struct reservation *r;
        struct partition *p = NULL;

        if (c->pool_total_bytes == 0)
                available = host_figure(manager_get_pool(m)->proc, "meminfo", "MemAvailable:") * KIB;
        if (available == 0)
                return UINT64_MAX;
        while ((p = manager_next_partition(m, p)))
                taken += pool_held_bytes(p) - partition_current_bytes(p);
        TAILQ_FOREACH (r, &manager_get_pool(m)->reservations, entry)
                taken += r->is_held ? r->bytes : 0;
        return available - MIN(available, taken);
}

static int check_host(struct manager *m, uint64_t more_bytes, struct error *ret_error)
{
        uint64_t givable = host_givable_bytes(m);

        if (more_bytes <= givable)
                return 0;
        return error_set(ret_error, ERROR_POOL_EXHAUSTED,
                "%s is more than the host can give now: of its MemAvailable %s is left beside "
                "pool_reserve and what is promised already; ask for less, end what else runs on the "
                "host, or set pool_total in hvd.conf to promise more than there is",
                SIZE_EXACT(more_bytes), SIZE(givable));
}

int pool_check(struct manager *m, uint64_t more_bytes, struct error *ret_error)
{
        struct pool_account a = pool_account(m);

        if (more_bytes <= a.free_bytes)
                return check_host(m, more_bytes, ret_error);
        return error_set(ret_error, ERROR_POOL_EXHAUSTED,
                "%s is more than the %s that the host's pool has free: of its %s partitions have %s and were "
                "asked to have %s, and %s is reserved; ask for at most %s, remove memory elsewhere, or raise "
                "pool_total in hvd.conf",
                SIZE_EXACT(more_bytes), SIZE_EXACT(a.free_bytes), SIZE(a.total_bytes), SIZE(a.current_bytes),
                SIZE(a.requested_bytes), SIZE(a.reservations_bytes), SIZE_EXACT(a.free_bytes));
}

/* --- reservations --- */

static struct reservation *reservation_free(struct reservation *r)
{
        struct pool *pool = manager_get_pool(r->manager);

        record_reservation(manager_store(r->manager), r, 0);
        TAILQ_REMOVE(&pool->reservations, r, entry);
        pool->n_reservations--;
        reclaim_free(r->reclaim);
        sd_event_source_disable_unref(r->expiry);
        free(r);
        return NULL;
}

static int on_expiry(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct reservation *r = userdata;
        struct manager *m = r->manager;

        log_notice("The reservation of %s for '%s' has expired", SIZE(r->bytes), r->owner);
        reservation_free(r);
        manager_pool_changed(m);
        return 0;
}

static void expire_at(struct reservation *r, uint64_t ends_usec)
{
        if (sd_event_add_time(
                    manager_event(r->manager), &r->expiry, CLOCK_MONOTONIC, ends_usec, 0, on_expiry, r) < 0)
                log_warning("The reservation for '%s' will not expire by itself", r->owner);
}

static void hold(struct reservation *r)
{
        void (*done)(uint32_t id, const struct error *error, void *userdata) = r->done;

        r->is_held = true;
        r->done = NULL;
        r->reclaim = reclaim_free(r->reclaim);
        if (r->keep_usec) {
                uint64_t ends_usec = now_monotonic_usec() + r->keep_usec;

                expire_at(r, ends_usec);
                record_reservation(manager_store(r->manager), r, ends_usec);
        }
        log_info("%s is reserved for '%s'", SIZE(r->bytes), r->owner);
        done(r->id, NULL, r->userdata);
}

uint64_t pool_missing_bytes(const struct reservation *r)
{
        uint64_t used = held_by_partitions(r->manager), total = total_bytes(r->manager), waiting = 0;
        const struct reservation *other;

        TAILQ_FOREACH (other, &manager_get_pool(r->manager)->reservations, entry) {
                if (other->is_held || other->id <= r->id)
                        used += other->bytes;
                if (!other->is_held && other->id <= r->id)
                        waiting += other->bytes;
        }
        uint64_t missing = used - MIN(used, total), givable = host_givable_bytes(r->manager);
        waiting -= MIN(waiting, givable);
        return MAX(missing, waiting);
}

void pool_give_up(struct reservation *r, const struct error *why)
{
        void (*done)(uint32_t id, const struct error *error, void *userdata) = r->done;
        struct manager *m = r->manager;
        void *userdata = r->userdata;
        struct error copy = *why;
        uint32_t id = r->id;

        reservation_free(r);
        manager_pool_changed(m);
        if (done)
                done(id, &copy, userdata);
}

static int check_reservation(struct manager *m, const char *owner, uint64_t bytes, struct error *ret_error)
{
        if (!partition_name_valid(owner))
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "'%.64s' is no owner's name; use up to %u letters, digits, '.', '_' and '-', "
                        "beginning with neither '.' nor '-'",
                        owner, RESERVATION_OWNER_MAX);
        if (bytes == 0 || bytes > PROTO_ADDRESS_MAX)
                return error_set(ret_error, ERROR_INVALID_SIZE,
                        "%" PRIu64 " bytes cannot be reserved; ask for 1 to the pool's %" PRIu64, bytes,
                        total_bytes(m));
        if (manager_get_pool(m)->n_reservations >= RESERVATIONS_MAX)
                return error_set(ret_error, ERROR_LIMIT,
                        "There are %u reservations already, which is the limit", RESERVATIONS_MAX);
        return 0;
}

int pool_reserve(struct manager *m, const char *owner, uint64_t bytes, uint64_t wait_usec, uint64_t keep_usec,
        reserved_t done, void *userdata, uint32_t *ret_id, struct error *ret_error)
{
        struct pool *pool = manager_get_pool(m);
        int r = check_reservation(m, owner, bytes, ret_error);
        if (r < 0)
                return r;

        struct reservation *v = calloc(1, sizeof(*v));
        if (!v)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        *v = (struct reservation) {
                .id = ++pool->last_id,
                .bytes = bytes,
                .manager = m,
                .keep_usec = keep_usec,
                .done = done,
                .userdata = userdata,
        };
        snprintf(v->owner, sizeof(v->owner), "%s", owner);
        TAILQ_INSERT_TAIL(&pool->reservations, v, entry);
        pool->n_reservations++;
        if (ret_id)
                *ret_id = v->id;
        if (pool_missing_bytes(v) > 0) {
                r = reclaim_new(v, wait_usec, &v->reclaim, ret_error);
                if (r < 0) {
                        reservation_free(v);
                        return r;
                }
                manager_pool_changed(m);
                return 0;
        }
        hold(v);
        manager_pool_changed(m);
        return 0;
}

static int on_stored(const struct store_reservation *stored, void *userdata)
{
        struct manager *m = userdata;
        struct pool *pool = manager_get_pool(m);

        if (check_reservation(m, stored->owner, stored->bytes, NULL) < 0)
                return 0;
        struct reservation *v = calloc(1, sizeof(*v));
        if (!v)
                return 0;
        *v = (struct reservation) {
                .id = stored->id, .bytes = stored->bytes, .manager = m, .is_held = true, .is_stored = true
        };
        snprintf(v->owner, sizeof(v->owner), "%s", stored->owner);
        TAILQ_INSERT_TAIL(&pool->reservations, v, entry);
        pool->n_reservations++;
        expire_at(v, stored->ends_usec);
        log_info("%s is still reserved for '%s'", SIZE(v->bytes), v->owner);
        return 0;
}

void pool_restore(struct manager *m)
{
        manager_get_pool(m)->last_id = record_reservations_read(manager_store(m), on_stored, m);
}

int pool_release(struct manager *m, uint32_t id, struct error *ret_error)
{
        struct reservation *r;
        struct error error;

        TAILQ_FOREACH (r, &manager_get_pool(m)->reservations, entry)
                if (r->id == id)
                        break;
        if (!r)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "There is no reservation %" PRIu32 "; 'hmc-cli pool' shows those that there are", id);
        error_set(&error, ERROR_CANCELLED, "The reservation was released before there was room for it");
        pool_give_up(r, &error);
        return 0;
}

const struct reservation *pool_next_reservation(struct manager *m, const struct reservation *after)
{
        return after ? TAILQ_NEXT(after, entry) : TAILQ_FIRST(&manager_get_pool(m)->reservations);
}

/* --- news --- */

void pool_partition_up(struct manager *m, const struct partition *p)
{
        struct reservation *r, *next;

        for (r = TAILQ_FIRST(&manager_get_pool(m)->reservations); r; r = next) {
                next = TAILQ_NEXT(r, entry);
                if (!r->is_held || strcmp(r->owner, p->definition.name) != 0)
                        continue;
                log_info("Partition '%s' runs; the %s reserved for it is its own now", r->owner,
                        SIZE(r->bytes));
                reservation_free(r);
        }
}

/* done() may reserve or release: the list is gone through anew. */
static struct reservation *next_ready(struct pool *pool)
{
        struct reservation *r;

        TAILQ_FOREACH (r, &pool->reservations, entry)
                if (!r->is_held && pool_missing_bytes(r) == 0)
                        return r;
        return NULL;
}

void pool_changed(struct manager *m)
{
        struct pool *pool = manager_get_pool(m);
        struct reservation *r;

        while (pool->n_reservations > 0 && (r = next_ready(pool)))
                hold(r);
}

void pool_job_ended(struct manager *m, const struct job *j)
{
        struct reservation *r, *next;

        pool_changed(m);
        for (r = TAILQ_FIRST(&manager_get_pool(m)->reservations); r; r = next) {
                next = TAILQ_NEXT(r, entry);
                if (r->reclaim)
                        reclaim_job_ended(r->reclaim, j); /* may free r alone */
        }
}

/* --- life --- */

void pool_set_proc(struct pool *pool, const char *proc)
{
        pool->proc = proc;
}

static uint64_t read_host_bytes(void)
{
        long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

        return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
}

struct pool *pool_free(struct pool *pool)
{
        if (!pool)
                return NULL;
        while (!TAILQ_EMPTY(&pool->reservations)) {
                TAILQ_FIRST(&pool->reservations)->is_stored = false; /* for the next hvd */
                reservation_free(TAILQ_FIRST(&pool->reservations));
        }
        free(pool);
        return NULL;
}

int pool_new(struct pool **ret)
{
        struct pool *pool = calloc(1, sizeof(*pool));

        if (!pool)
                return -ENOMEM;
        TAILQ_INIT(&pool->reservations);
        pool->host_bytes = read_host_bytes();
        pool->proc = "/proc";
        *ret = pool;
        return 0;
}
