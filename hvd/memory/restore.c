/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Of hvd's own accord: after hvd, QEMU or the guest came back, or a job ended badly, whatever is half done is
 * made whole. Backends of ours that no device uses are deleted; blocks of plugged devices that are offline
 * (an x86 guest's DIMMs come back so from every reboot) are brought online again, Movable as far as the zone
 * ratio allows. What virtio-mem and the balloon do by themselves is then seen through: see restore-wish.c. */

#include <inttypes.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/memory/guest.h"
#include "hvd/memory/mechanism.h"
#include "hvd/memory/ranges.h"
#include "hvd/memory/restore-work.h"
#include "hvd/memory/restore.h"

/* The planner's view of what is attached. Arrays are allocated; strings are borrowed from the partition. */
struct reconcile {
        struct plan_reconcile plan;
        struct plan_attached *devices;
        const char **backends;
};

static void reconcile_done(struct reconcile *r)
{
        free(r->devices);
        free(r->backends);
}

static int reconcile_init(struct reconcile *r, const struct partition *p)
{
        const struct platform_snapshot *s = &p->snapshot;

        *r = (struct reconcile) {
                .devices = calloc(s->n_devices + 1, sizeof(*r->devices)),
                .backends = calloc(s->n_backends + 1, sizeof(*r->backends)),
        };
        if (!r->devices || !r->backends) {
                reconcile_done(r);
                return -ENOMEM;
        }
        size_t n_devices = 0;
        for (size_t i = 0; i < s->n_devices; i++)
                r->devices[n_devices++] = (struct plan_attached) {
                        .id = s->devices[i].id,
                        .backend = s->devices[i].memdev,
                        .address = s->devices[i].address,
                        /* A virtio-mem device's blocks are seen to later. */
                        .size_bytes = s->devices[i].is_dimm ? s->devices[i].size_bytes : 0,
                };
        for (size_t i = 0; i < s->n_backends; i++)
                r->backends[i] = s->backends[i];
        r->plan = (struct plan_reconcile) {
                .granule_bytes = partition_block_bytes(p),
                .devices = r->devices,
                .n_devices = n_devices,
                .backends = r->backends,
                .n_backends = s->n_backends,
                .blocks = p->blocks,
                .n_blocks = p->n_blocks,
        };
        return 0;
}

bool restore_is_due(const struct partition *p, uint64_t *ret_bytes)
{
        _cleanup_(reconcile_done) struct reconcile r = { 0 };
        _cleanup_free_ struct mem_range *ranges = NULL;
        size_t n_ranges = 0, n_orphans = 0;
        uint64_t bytes = 0;

        if (!p->has_snapshot || reconcile_init(&r, p) < 0)
                return false;
        bool wish_is_due = restore_wish_is_due(p, &bytes);
        _cleanup_free_ size_t *orphans = calloc(p->snapshot.n_backends + 1, sizeof(*orphans));
        if (orphans)
                n_orphans = plan_orphan_backends(&r.plan, orphans);
        if (p->has_blocks && plan_offline_ranges(&r.plan, &ranges, &n_ranges) < 0)
                return false;
        for (size_t i = 0; i < n_ranges; i++)
                bytes += ranges[i].length;
        *ret_bytes = bytes;
        return n_ranges > 0 || n_orphans > 0 || wish_is_due;
}

bool restore_is_awaited(const struct partition *p)
{
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;

        if (!p->has_snapshot || !p->has_blocks || partition_plan_snapshot(p, NULL, &s, &devices) < 0)
                return false;
        for (size_t i = 0; i < s.n_devices; i++) {
                const struct plan_device *d = &devices[i];

                if (p->snapshot.devices[i].requested_bytes > p->snapshot.devices[i].size_bytes)
                        return true;
                if (d->is_dimm && d->movable_bytes + d->kernel_bytes + d->stuck_bytes + d->offline_bytes <
                                          d->size_bytes)
                        return true;
        }
        return false;
}

static void fail(struct restore *w, const struct error *error)
{
        job_add_reason(w->job, NULL, UINT64_MAX, error);
}

static void online_next(struct restore *w);

/* How much more Movable the zones bear, after what has come online. */
static void on_zones(struct partition *p, const struct error *error, void *userdata)
{
        struct restore *w = userdata;

        w->refresh = NULL;
        if (error) /* then by what was known before: memory in use in the wrong zone is better than offline */
                log_debug("Job %" PRIu32 ": %s", w->job->id, error->message);
        online_next(w);
}

static void on_online(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct restore *w = userdata;

        w->call = NULL;
        if (error) {
                fail(w, error);
                job_finish(w->job);
                return;
        }
        for (size_t i = w->next; i < w->until; i++) {
                struct range_account a = ranges_account(
                        reply->ranges, reply->n_ranges, w->ranges[i].start, w->ranges[i].length);
                job_add_done(w->job, range_account_online(&a));
                w->job->movable_bytes += a.movable_bytes;
                w->job->kernel_bytes += a.kernel_bytes + a.stuck_bytes;
        }
        ranges_add_reasons(w->job, reply);
        w->next = w->until;
        struct error local;
        if (w->next == w->n_ranges)
                restore_wishes(w);
        else if (partition_refresh(w->job->partition, REFRESH_MEMORY, on_zones, w, &w->refresh, &local) < 0)
                on_zones(w->job->partition, &local, w);
}

/* The next ranges that fit one zone. With no budget left for Movable the rest goes to a kernel zone: memory
 * in use that cannot leave is better than memory that nobody has. */
static void online_next(struct restore *w)
{
        struct partition *p = w->job->partition;
        uint64_t budget = zone_ratio_budget(p->memory.kernel_bytes, p->memory.movable_bytes), bytes = 0;
        struct error error;

        if (w->next == w->n_ranges || w->job->stop != JOB_STOP_NO) {
                restore_wishes(w);
                return;
        }
        w->zone = w->ranges[w->next].length <= budget ? ZONE_MOVABLE : ZONE_KERNEL;
        for (w->until = w->next; w->until < w->n_ranges && w->until - w->next < PROTO_RANGES_MAX;
                w->until++) {
                bytes += w->ranges[w->until].length;
                if (w->until > w->next && (w->zone == ZONE_KERNEL || bytes > budget))
                        break;
        }

        job_set_state(w->job, JOB_ONLINING);
        struct message_request request = {
                .op = OP_ONLINE,
                .targets = w->ranges + w->next,
                .n_targets = w->until - w->next,
                .zone = w->zone,
        };
        if (guest_call_start(w->job, &request, w->job->deadline_usec, on_online, NULL, w, &w->call, &error) <
                0)
                on_online(NULL, &error, w);
}

static void on_orphan_deleted(const struct error *error, void *userdata)
{
        if (error)
                log_warning("An orphaned backend could not be deleted: %s", error->message);
}

static void delete_orphans(struct restore *w, const struct reconcile *r)
{
        struct partition *p = w->job->partition;
        _cleanup_free_ size_t *orphans = calloc(r->plan.n_backends + 1, sizeof(*orphans));
        size_t n = orphans ? plan_orphan_backends(&r->plan, orphans) : 0;

        for (size_t i = 0; i < n; i++) {
                const char *backend = r->plan.backends[orphans[i]];
                job_add_plan(w->job, "delete the backend %s, which no device uses", backend);
                log_notice("Partition '%s': backend %s has no device and is deleted", w->job->partition_name,
                        backend);
                platform_delete_backend(p->platform, backend, on_orphan_deleted, NULL, NULL);
        }
}

/* Cuts the offline ranges at the edges of devices: each DIMM goes to one zone as a whole. */
static int take_ranges(struct restore *w, const struct reconcile *r)
{
        _cleanup_free_ struct mem_range *offline = NULL;
        size_t n_offline = 0;

        int k = plan_offline_ranges(&r->plan, &offline, &n_offline);
        if (k < 0)
                return k;
        w->ranges = calloc(n_offline + r->plan.n_devices + 1, sizeof(*w->ranges));
        if (!w->ranges)
                return -ENOMEM;
        /* Both are in the order of addresses; a device may end a range and begin the next. */
        for (size_t i = 0; i < n_offline; i++)
                for (size_t d = 0; d < r->plan.n_devices; d++) {
                        uint64_t from = MAX(offline[i].start, r->devices[d].address);
                        uint64_t to = MIN(offline[i].start + offline[i].length,
                                r->devices[d].address + r->devices[d].size_bytes);
                        if (from < to)
                                w->ranges[w->n_ranges++] = (struct mem_range) { from, to - from };
                }
        return 0;
}

static void on_surveyed(struct partition *p, const struct error *error, void *userdata)
{
        struct restore *w = userdata;
        _cleanup_(reconcile_done) struct reconcile r = { 0 };

        w->refresh = NULL;
        if (error || reconcile_init(&r, p) < 0) {
                if (error)
                        fail(w, error);
                job_finish(w->job);
                return;
        }
        delete_orphans(w, &r);
        w->job->request.bytes = 0;
        if (p->has_blocks && take_ranges(w, &r) >= 0)
                for (size_t i = 0; i < w->n_ranges; i++) {
                        w->job->request.bytes += w->ranges[i].length;
                        job_add_plan(w->job, "bring %s at 0x%" PRIx64 " online", SIZE(w->ranges[i].length),
                                w->ranges[i].start);
                }
        online_next(w);
}

static int restore_check(
        const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        return 0;
}

static void restore_start(struct job *j)
{
        struct error error;
        struct restore *w = calloc(1, sizeof(*w));
        bool agent_ready = agent_state(j->partition->agent) == AGENT_READY;

        if (w) {
                w->job = j;
                j->work = w;
                if (partition_refresh(j->partition, agent_ready ? REFRESH_ALL : REFRESH_HYPERVISOR,
                            on_surveyed, w, &w->refresh, &error) >= 0)
                        return;
        } else
                error_set(&error, ERROR_INTERNAL, "Out of memory");
        job_add_reason(j, NULL, UINT64_MAX, &error);
        job_finish(j);
}

static void restore_stop(struct job *j)
{
        struct restore *w = j->work;

        if (j->state == JOB_SURVEYING) {
                w->refresh = partition_refresh_free(w->refresh);
                job_finish(j);
        } else if (!restore_wishes_stop(w) && w->call)
                guest_call_stop(w->call);
}

static void restore_free(struct job *j)
{
        struct restore *w = j->work;

        restore_wishes_free(w);
        partition_refresh_free(w->refresh);
        guest_call_free(w->call);
        free(w->ranges);
        free(w);
}

const struct mechanism mechanism_restore = {
        .method = "dimm",
        .kind = JOB_RESTORE_MEMORY,
        .check = restore_check,
        .start = restore_start,
        .stop = restore_stop,
        .free_work = restore_free,
};
