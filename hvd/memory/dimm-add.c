/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Adding memory by DIMMs.
 *
 * The plan's pieces are taken in batches, one zone each: the guest is prepared for the zone (PREPARE),
 * devices are plugged, QEMU says where they lie, and the guest reports their blocks online (ONLINE), which is
 * what counts. Their backends are made while the guest prepares: that takes QEMU some time, and needs no
 * guest. A batch is as large as the guest can bear: the page structures of new memory cost 1/64 of it out of
 * the memory that is there before.
 *
 * A piece is in one of the states below, and in the end either ONLINE, or gone again (FAILED, WITHDRAWN), or
 * LEFT: plugged, without the guest's word, reported, and brought online or withdrawn when the guest speaks
 * again (restore.c). */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/memory/dimm-add.h"
#include "hvd/memory/dimm-room.h"
#include "hvd/memory/hooks.h"
#include "hvd/memory/mechanism.h"
#include "hvd/memory/nodes.h"

/* Kept from the job's time so that the guest's answer and what follows it fit before the deadline. */
#define GUEST_RESERVE_USEC (300 * USEC_PER_MSEC)
/* Page structures: 64 bytes for a page of 4 KiB. */
#define MEMMAP_DIVISOR 64U
/* Each takes two of the QMP client's calls, and QEMU's time for one must not use up another's. */
#define BATCH_MAX 64U

static void next_batch(struct dimm_add *w);

void dimm_add_fail(struct dimm_add *w, const char *device, const struct error *error)
{
        job_add_reason(w->job, device, UINT64_MAX, error);
}

/* What concerns all pieces alike is said once, and of none of them. */
static void fail_piece(struct dimm_add *w, const struct piece *piece, const struct error *error)
{
        bool of_all = error->code == ERROR_UNKNOWN_NODE || error->code == ERROR_NOT_RUNNING;

        for (size_t i = 0; of_all && i < w->job->n_reasons; i++)
                if (w->job->reasons[i].error.code == error->code)
                        return;
        dimm_add_fail(w, of_all ? NULL : piece->id, error);
}

/* --- the end --- */

static void on_verified(struct partition *p, const struct error *error, void *userdata)
{
        struct dimm_add *w = userdata;

        w->refresh = NULL;
        for (size_t i = 0; i < w->n_pieces; i++) {
                struct piece *piece = &w->pieces[i];

                if (piece->state != PIECE_ONLINE)
                        continue;
                if (!error && platform_snapshot_find(&p->snapshot, piece->id)) {
                        job_add_done(w->job, piece->size_bytes);
                        w->job->movable_bytes += piece->movable_bytes;
                        w->job->kernel_bytes += piece->kernel_bytes;
                        continue;
                }
                struct error missing;
                error_set(&missing, ERROR_ACCOUNTS_DIFFER,
                        "the guest has %s online, but QEMU does not confirm the device: %.200s", piece->id,
                        error ? error->message : "it is not in its list");
                dimm_add_fail(w, piece->id, &missing);
        }
        job_finish(w->job);
}

void dimm_add_verify(struct dimm_add *w)
{
        struct partition *p = w->job->partition;
        struct message_request release = { .op = OP_RELEASE };
        struct error error;

        job_set_state(w->job, JOB_VERIFYING);
        /* Its answer changes nothing for this job: the guest also releases when the session ends. */
        if (agent_state(p->agent) == AGENT_READY)
                agent_call(p->agent, &release, USEC_PER_SEC, NULL, NULL, NULL, NULL, NULL);

        /* QEMU has listed the devices, the guest has their blocks online, and nothing has left since. */
        bool all_online =
                w->n_pieces > 0 && p->platform_up && p->has_snapshot && p->n_departures == w->n_departures;
        for (size_t i = 0; i < w->n_pieces; i++)
                all_online &= w->pieces[i].state == PIECE_ONLINE;
        if (all_online)
                on_verified(p, NULL, w);
        else if (partition_refresh(p, REFRESH_HYPERVISOR, on_verified, w, &w->refresh, &error) < 0)
                on_verified(p, &error, w);
}

/* No further batch: what is doubtful leaves again, and with all-or-nothing everything does unless all is
 * online. */
static void wrap_up(struct dimm_add *w)
{
        bool all_online = true;

        for (size_t i = 0; i < w->n_pieces; i++)
                all_online &= w->pieces[i].state == PIECE_ONLINE;
        if (!all_online && w->job->request.all_or_nothing)
                for (size_t i = 0; i < w->n_pieces; i++)
                        if (w->pieces[i].state == PIECE_ONLINE)
                                w->pieces[i].state = PIECE_DOUBTFUL;
        dimm_add_withdraw(w);
}

/* --- a batch --- */

/* The batch before took its page structures out of what the guest has available. */
static void on_available(struct partition *p, const struct error *error, void *userdata)
{
        struct dimm_add *w = userdata;

        w->refresh = NULL;
        if (error)
                dimm_add_fail(w, NULL, error);
        if (error || w->job->stop != JOB_STOP_NO)
                wrap_up(w);
        else
                next_batch(w);
}

/* Whether it lies in the node that was asked for, as both ends see it; what does not is not what was asked.
 */
static bool is_in_node(struct dimm_add *w, const struct piece *piece, const struct message_reply *reply)
{
        const struct platform_device *d = platform_snapshot_find(&w->job->partition->snapshot, piece->id);
        struct error error;
        unsigned other;

        if (w->job->request.node < 0)
                return true;
        if (d && d->node != (unsigned)piece->node)
                error_set(&error, ERROR_ACCOUNTS_DIFFER, "QEMU has it in node %u, not in node %d", d->node,
                        piece->node);
        else if (!nodes_are(reply->ranges, reply->n_ranges, piece->address, piece->size_bytes,
                         (unsigned)piece->node, &other))
                error_set(&error, ERROR_ACCOUNTS_DIFFER,
                        "QEMU has it in node %d, but the guest's kernel in node %u (was it started "
                        "without NUMA?); it is withdrawn",
                        piece->node, other);
        else
                return true;
        dimm_add_fail(w, piece->id, &error);
        return false;
}

static void on_online(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct dimm_add *w = userdata;
        bool all_online = true;
        uint64_t online_bytes = 0;
        struct error local;

        w->call = NULL;
        for (size_t i = w->batch; i < w->batch_end; i++) {
                struct piece *piece = &w->pieces[i];

                if (piece->state != PIECE_PLUGGED)
                        continue;
                if (error) {
                        dimm_add_leave(w, piece, error);
                        all_online = false;
                        continue;
                }
                struct range_account a =
                        ranges_account(reply->ranges, reply->n_ranges, piece->address, piece->size_bytes);
                if (range_account_online(&a) == piece->size_bytes && !is_in_node(w, piece, reply)) {
                        piece->state = PIECE_DOUBTFUL;
                        all_online = false;
                } else if (range_account_online(&a) == piece->size_bytes) {
                        piece->state = PIECE_ONLINE;
                        piece->movable_bytes = a.movable_bytes;
                        piece->kernel_bytes = a.kernel_bytes + a.stuck_bytes;
                        online_bytes += piece->size_bytes;
                } else {
                        piece->state = dimm_add_is_coming(w, &a) ? PIECE_COMING : PIECE_DOUBTFUL;
                        all_online = false;
                        ranges_add_missing_reason(w->job, reply, piece->id,
                                (struct mem_range) { piece->address, piece->size_bytes },
                                range_account_online(&a), "online");
                }
        }
        if (reply)
                ranges_add_reasons(w->job, reply);
        job_set_progress(w->job, w->job->progress_bytes + online_bytes);

        w->batch = w->batch_end;
        if (!all_online || w->job->stop != JOB_STOP_NO || w->batch == w->n_pieces)
                wrap_up(w);
        else if (partition_refresh(w->job->partition, REFRESH_MEMORY, on_available, w, &w->refresh, &local) <
                 0)
                on_available(w->job->partition, &local, w);
}

/* Where the new devices lie, in the order of addresses, as targets must be. A device that QEMU took and does
 * not list has left again (an x86 guest may eject one unasked): it has no address, and the guest must not be
 * asked about any. Its backend is an orphan for the restore job. */
static size_t locate(struct dimm_add *w, struct mem_range targets[static PLAN_DEVICES_MAX])
{
        const struct platform_snapshot *s = &w->job->partition->snapshot;
        size_t n_targets = 0;
        struct error error;

        for (size_t k = 0; k < s->n_devices; k++)
                for (size_t i = w->batch; i < w->batch_end; i++) {
                        struct piece *piece = &w->pieces[i];

                        if (piece->state != PIECE_PLUGGED || piece->address > 0 ||
                                strcmp(piece->id, s->devices[k].id) != 0)
                                continue;
                        piece->address = s->devices[k].address;
                        targets[n_targets++] = (struct mem_range) { piece->address, piece->size_bytes };
                }
        for (size_t i = w->batch; i < w->batch_end; i++) {
                struct piece *piece = &w->pieces[i];

                if (piece->state != PIECE_PLUGGED || piece->address > 0)
                        continue;
                error_set(&error, ERROR_ACCOUNTS_DIFFER, "QEMU took the device and does not list it");
                piece->state = PIECE_FAILED;
                dimm_add_fail(w, piece->id, &error);
        }
        return n_targets;
}

/* QEMU said where the new devices lie: the guest is asked to see them online. */
static void on_located(struct partition *p, const struct error *error, void *userdata)
{
        struct dimm_add *w = userdata;
        struct mem_range targets[PLAN_DEVICES_MAX];
        struct error local;

        w->refresh = NULL;
        if (error) {
                on_online(NULL, error, w);
                return;
        }
        size_t n_targets = locate(w, targets);
        if (n_targets == 0) {
                wrap_up(w);
                return;
        }

        job_set_state(w->job, JOB_ONLINING);
        /* Time may be up already: what is plugged gets its moment to come online all the same. */
        uint64_t left = w->job->stop == JOB_STOP_NO ? job_left_usec(w->job) : MOP_UP_USEC;
        left = left > 2 * GUEST_RESERVE_USEC ? left - GUEST_RESERVE_USEC : GUEST_RESERVE_USEC;
        struct message_request request = {
                .op = OP_ONLINE,
                .targets = targets,
                .n_targets = n_targets,
                .zone = w->pieces[w->batch].zone,
        };
        if (guest_call_start(
                    w->job, &request, now_monotonic_usec() + left, on_online, NULL, w, &w->call, &local) < 0)
                on_online(NULL, &local, w);
}

static bool all_listed(const struct dimm_add *w)
{
        const struct platform_snapshot *s = &w->job->partition->snapshot;

        for (size_t i = w->batch; i < w->batch_end; i++)
                if (w->pieces[i].state == PIECE_PLUGGED && !platform_snapshot_find(s, w->pieces[i].id))
                        return false;
        return true;
}

static void batch_plugged(struct dimm_add *w)
{
        struct partition *p = w->job->partition;
        bool any = false;
        struct error error;

        for (size_t i = w->batch; i < w->batch_end; i++)
                any |= w->pieces[i].state == PIECE_PLUGGED;
        if (!any) {
                w->refresh = partition_refresh_free(w->refresh);
                wrap_up(w);
                return;
        }
        /* An early answer that lacks a device is no proof. */
        if (w->listed && all_listed(w))
                on_located(p, NULL, w);
        else if (!w->refresh && partition_refresh(p, REFRESH_DEVICES, on_located, w, &w->refresh, &error) < 0)
                on_located(p, &error, w);
}

static void on_listed(struct partition *p, const struct error *error, void *userdata)
{
        struct dimm_add *w = userdata;

        w->refresh = NULL;
        w->listed = !error;
        if (w->n_plugging == 0)
                batch_plugged(w);
}

/* Asked for right behind the devices, so that the answer is there before the guest is through with them. */
static void list_devices(struct dimm_add *w)
{
        w->listed = false;
        partition_refresh(w->job->partition, REFRESH_DEVICES, on_listed, w, &w->refresh, NULL);
}

static void on_plugged(const struct error *error, void *userdata)
{
        struct piece *piece = userdata;
        struct dimm_add *w = piece->job->work;

        piece->op = NULL;
        /* A QEMU that did not answer in time may plug it yet: its list, asked for next and answered after, is
         * what tells. */
        if (error && error->code != ERROR_HYPERVISOR_SILENT) {
                piece->state = PIECE_FAILED;
                fail_piece(w, piece, error);
        } else
                piece->state = PIECE_PLUGGED;
        if (--w->n_plugging == 0 && !w->refresh)
                batch_plugged(w);
}

static void plug(struct dimm_add *w, struct piece *piece)
{
        struct job *j = w->job;

        piece->state = PIECE_PLUGGING;
        int r = piece->op ? platform_attach_staged(piece->op)
                          : platform_attach_dimm(j->partition->platform, piece->id, piece->backend,
                                    piece->size_bytes, piece->node, on_plugged, piece, &piece->op);
        if (r >= 0) {
                w->n_plugging++;
                return;
        }
        piece->op = NULL;
        struct error error;
        error_set_errno(&error, ERROR_HYPERVISOR_ABSENT, r, "QEMU cannot be told to plug %s", piece->id);
        piece->state = PIECE_FAILED;
        dimm_add_fail(w, piece->id, &error);
}

/* What cannot be staged is plugged in one step later, and what is wrong with it told then. */
static void stage_batch(struct dimm_add *w)
{
        for (size_t i = w->batch; i < w->batch_end; i++) {
                struct piece *piece = &w->pieces[i];

                (void)platform_stage_dimm(w->job->partition->platform, piece->id, piece->backend,
                        piece->size_bytes, piece->node, on_plugged, piece, &piece->op);
        }
}

static void unstage_batch(struct dimm_add *w)
{
        for (size_t i = w->batch; i < w->batch_end; i++)
                w->pieces[i].op = platform_op_free(w->pieces[i].op);
}

static void on_prepared(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct dimm_add *w = userdata;

        w->call = NULL;
        if (error || w->job->stop != JOB_STOP_NO) {
                if (error)
                        dimm_add_fail(w, NULL, error);
                unstage_batch(w);
                wrap_up(w);
                return;
        }
        for (size_t i = w->batch; i < w->batch_end; i++)
                plug(w, &w->pieces[i]);
        if (w->n_plugging == 0)
                wrap_up(w);
        else
                list_devices(w);
}

/* The next pieces of one zone whose page structures take at most half of what the guest has available. */
static void next_batch(struct dimm_add *w)
{
        const struct partition *p = w->job->partition;
        uint64_t bytes = 0, bearable = UINT64_MAX;
        struct error error;

        if (p->has_memory)
                bearable = p->memory.available_bytes / 2 * MEMMAP_DIVISOR;
        for (w->batch_end = w->batch; w->batch_end < w->n_pieces; w->batch_end++) {
                const struct piece *piece = &w->pieces[w->batch_end];
                bool first = w->batch_end == w->batch;

                if (!first &&
                        (piece->zone != w->pieces[w->batch].zone || bytes + piece->size_bytes > bearable ||
                                w->batch_end - w->batch == BATCH_MAX))
                        break;
                bytes += piece->size_bytes;
        }

        job_set_state(w->job, JOB_PLUGGING);
        struct message_request request = {
                .op = OP_PREPARE, .zone = w->pieces[w->batch].zone, .bytes = bytes
        };
        if (guest_call_start(
                    w->job, &request, w->job->deadline_usec, on_prepared, NULL, w, &w->call, &error) < 0)
                on_prepared(NULL, &error, w);
        else
                stage_batch(w);
}

/* --- planning --- */

static bool name_taken(const struct platform_snapshot *s, const char *id, const char *backend)
{
        if (platform_snapshot_find(s, id))
                return true;
        for (size_t i = 0; i < s->n_backends; i++)
                if (strcmp(s->backends[i], backend) == 0)
                        return true;
        return false;
}

static void take_plan(struct dimm_add *w, const struct plan_add *plan)
{
        const struct platform_snapshot *s = &w->job->partition->snapshot;
        unsigned number = 0;

        for (size_t i = 0; i < plan->n_pieces; i++) {
                struct piece *piece = &w->pieces[i];
                char node[24] = "";

                piece->job = w->job;
                piece->size_bytes = plan->pieces[i].size_bytes;
                piece->zone = plan->pieces[i].zone;
                piece->node = plan->pieces[i].node;
                do {
                        snprintf(piece->id, sizeof(piece->id), PLATFORM_DEVICE_PREFIX "%u", number);
                        snprintf(
                                piece->backend, sizeof(piece->backend), PLATFORM_BACKEND_PREFIX "%u", number);
                        number++;
                } while (name_taken(s, piece->id, piece->backend));
                if (piece->node >= 0)
                        snprintf(node, sizeof(node), ", into node %d", piece->node);
                job_add_plan(w->job, "plug %s, a DIMM of %s%s, and bring it online in %s", piece->id,
                        SIZE(piece->size_bytes), node,
                        piece->zone == ZONE_MOVABLE ? "zone Movable" : "a kernel zone");
        }
        w->n_pieces = plan->n_pieces;
}

static int make_plan(const struct partition *p, const struct job_request *request, struct plan_add *ret,
        struct error *ret_error)
{
        _cleanup_free_ struct plan_device *devices = NULL;
        struct plan_snapshot s;
        int r = nodes_check(p, request->node, ret_error);

        if (r < 0)
                return r;
        if (partition_plan_snapshot(p, NULL, &s, &devices) < 0)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        uint64_t max = partition_max_bytes(p), current = s.base_bytes + p->snapshot.plugged_bytes;
        if (p->definition.profile.max_bytes && max < s.max_bytes && current + request->bytes > max)
                return error_set(ret_error, ERROR_BEYOND_MAX,
                        "Partition '%s' has %s and its profile allows %s; at most %s can be added",
                        p->definition.name, SIZE(current), SIZE(max), SIZE_EXACT(max - MIN(max, current)));
        r = plan_addition(&s, request->bytes, request->zone, ret, ret_error);
        if (r >= 0)
                plan_choose_nodes(&s, request->node, ret);
        return r;
}

static void go_on(struct job *j)
{
        if (j->request.dry_run)
                job_finish(j);
        else
                next_batch(j->work);
}

static void on_surveyed(struct partition *p, const struct error *error, void *userdata)
{
        struct dimm_add *w = userdata;
        struct error local;
        struct plan_add plan;

        w->refresh = NULL;
        if (!error && mechanism_check_job(w->job, &local) >= 0 &&
                make_plan(p, &w->job->request, &plan, &local) >= 0) {
                take_plan(w, &plan);
                if (!hooks_before(w->job, go_on))
                        go_on(w->job);
                return;
        }
        dimm_add_fail(w, NULL, error ?: &local);
        job_finish(w->job);
}

/* --- the mechanism --- */

static int dimm_add_check(
        const struct partition *p, const struct job_request *request, struct error *ret_error)
{
        struct plan_add plan;

        if (!p->has_snapshot || !p->has_memory)
                return 0; /* not known yet: the job's own survey decides */
        int r = make_plan(p, request, &plan, ret_error);
        return r < 0 && dimm_zones_may_be_old(p, ret_error) ? 0 : r;
}

static void dimm_add_start(struct job *j)
{
        struct partition *p = j->partition;
        struct error error;
        struct dimm_add *w = calloc(1, sizeof(*w));

        if (!w) {
                error_set(&error, ERROR_INTERNAL, "Out of memory");
                job_add_reason(j, NULL, UINT64_MAX, &error);
                job_finish(j);
                return;
        }
        w->job = j;
        w->n_departures = p->n_departures;
        j->work = w;
        /* What is known is current when nothing has changed since. QEMU has the last word on each device
         * anyhow, and the guest on its zones. */
        if (partition_is_settled(p)) {
                on_surveyed(p, NULL, w);
                return;
        }
        if (partition_refresh(p, REFRESH_HYPERVISOR | REFRESH_MEMORY, on_surveyed, w, &w->refresh, &error) <
                0) {
                dimm_add_fail(w, NULL, &error);
                job_finish(j);
        }
}

static void dimm_add_stop(struct job *j)
{
        struct dimm_add *w = j->work;

        if (j->state == JOB_SURVEYING) {
                w->refresh = partition_refresh_free(w->refresh);
                job_finish(j);
        } else if (w->call && (j->state == JOB_PLUGGING || j->state == JOB_ONLINING))
                guest_call_stop(w->call);
}

static void dimm_add_free(struct job *j)
{
        struct dimm_add *w = j->work;

        for (size_t i = 0; i < w->n_pieces; i++)
                platform_op_free(w->pieces[i].op);
        partition_refresh_free(w->refresh);
        guest_call_free(w->call);
        free(w);
}

const struct mechanism mechanism_dimm_add = {
        .method = "dimm",
        .pseries_method = "lmb",
        .kind = JOB_ADD_MEMORY,
        .check = dimm_add_check,
        .room = dimm_add_room,
        .nearest = dimm_add_nearest,
        .start = dimm_add_start,
        .stop = dimm_add_stop,
        .free_work = dimm_add_free,
};
