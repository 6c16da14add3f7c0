/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One guest: its two ends (platform and agent) and what they last said. Nothing here is remembered across a
 * restart or guessed: the account is asked for again whenever an end comes up, the guest resets, blocks or
 * devices change, or a job has ended. Answers are taken whole; between them the last ones stand. */

#include "hvd/partition.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/domains.h"
#include "hvd/manager.h"
#include "hvd/memory/hooks.h"
#include "hvd/memory/mechanism.h"
#include "hvd/memory/restore.h"

#define GUEST_QUERY_USEC (10 * USEC_PER_SEC)
/* An answer to GET_BLOCKS is at most so many pages: 16 TiB in blocks of 128 MiB, every other one different.
 */
#define BLOCK_PAGES_MAX 512U
/* Changes that a guest can cause at will are looked at so often at most. */
#define SETTLE_USEC (250 * USEC_PER_MSEC)
/* An end that did not answer, when something is perhaps to be restored, is asked again after. */
#define RETRY_USEC (10 * USEC_PER_SEC)
/* QEMU tells of a migration's beginning and end only those who change its capabilities: one that is seen is
 * looked at again after. */
#define MIGRATION_USEC (2 * USEC_PER_SEC)

struct partition_refresh {
        struct partition *partition;
        partition_refreshed_t done;
        void *userdata;
        unsigned pending; /* enum refresh_what */
        struct error error;
        struct platform_op *query;
        struct agent_call *memory_call, *blocks_call;
        struct block_range *blocks;
        size_t n_blocks;
        unsigned n_pages;
};

/* --- refresh --- */

struct partition_refresh *partition_refresh_free(struct partition_refresh *r)
{
        if (!r)
                return NULL;
        platform_op_free(r->query);
        agent_call_free(r->memory_call);
        agent_call_free(r->blocks_call);
        free(r->blocks);
        free(r);
        return NULL;
}

static void refresh_part_done(struct partition_refresh *r, enum refresh_what part, const struct error *error)
{
        if (error && !r->error.code)
                r->error = *error;
        r->pending &= ~(unsigned)part;
        if (r->pending)
                return;

        struct partition *p = r->partition;
        partition_refreshed_t done = r->done;
        void *userdata = r->userdata;
        struct error first = r->error;

        partition_refresh_free(r);
        manager_partition_changed(p->manager, p);
        done(p, first.code ? &first : NULL, userdata);
}

/* Statistics from before tell nothing of what the guest has now. */
static void note_growth(struct partition *p, uint64_t current_bytes)
{
        if (partition_current_bytes(p) > current_bytes)
                p->grown_sec = time(NULL);
}

/* What the balloon has taken is what is said; how much that leaves of base and DIMMs follows. */
static void take_balloon(struct partition *p, uint64_t actual_bytes)
{
        uint64_t total = platform_balloon_total(&p->snapshot);

        p->snapshot.balloon.actual_bytes = actual_bytes;
        p->snapshot.balloon_bytes = actual_bytes < total ? total - actual_bytes : 0;
}

/* What QEMU counts as plugged is what lies in its memory devices. A DIMM that came or left shifts what the
 * balloon leaves, and not what it has taken. */
static void take_devices(struct partition *p, struct platform_snapshot *s)
{
        struct platform_device *devices = p->snapshot.devices;

        p->snapshot.devices = s->devices;
        p->snapshot.n_devices = s->n_devices;
        p->snapshot.plugged_bytes = 0;
        for (size_t i = 0; i < s->n_devices; i++)
                p->snapshot.plugged_bytes += s->devices[i].size_bytes;
        s->devices = devices;
        uint64_t total = platform_balloon_total(&p->snapshot);
        if (p->snapshot.balloon.present)
                take_balloon(p, s->balloon.present ? s->balloon.actual_bytes
                                                   : total - MIN(p->snapshot.balloon_bytes, total));
}

static void on_devices(struct platform_snapshot *s, const struct error *error, void *userdata)
{
        struct partition_refresh *r = userdata;

        uint64_t current = partition_current_bytes(r->partition);

        r->query = NULL;
        if (s) {
                take_devices(r->partition, s);
                note_growth(r->partition, current);
        }
        refresh_part_done(r, REFRESH_DEVICES, error);
}

static void on_snapshot(struct platform_snapshot *s, const struct error *error, void *userdata)
{
        struct partition_refresh *r = userdata;
        struct partition *p = r->partition;
        uint64_t current = p->has_snapshot ? partition_current_bytes(p) : 0;

        r->query = NULL;
        if (s) {
                bool is_first = !p->has_snapshot;

                platform_snapshot_done(&p->snapshot);
                p->snapshot = *s;
                *s = (struct platform_snapshot) { 0 };
                if (p->has_snapshot)
                        note_growth(p, current);
                p->has_snapshot = true;
                if (is_first)
                        manager_partition_up(p->manager, p);
        }
        refresh_part_done(r, REFRESH_HYPERVISOR, error);
}

static void on_memory(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct partition_refresh *r = userdata;

        r->memory_call = NULL;
        if (reply && reply->has_memory)
                partition_take_memory(r->partition, &reply->memory);
        refresh_part_done(r, REFRESH_MEMORY, error);
}

static void on_blocks(const struct message_reply *reply, const struct error *error, void *userdata);

static int ask_blocks(struct partition_refresh *r, uint64_t from)
{
        struct message_request request = { .op = OP_GET_BLOCKS, .from = from };

        return agent_call(
                r->partition->agent, &request, GUEST_QUERY_USEC, on_blocks, NULL, r, &r->blocks_call, NULL);
}

/* Takes a page of the block inventory. A guest's word: pages must go upwards, and end. */
static int take_blocks(
        struct partition_refresh *r, const struct message_reply *reply, struct error *ret_error)
{
        uint64_t end = r->n_blocks ? r->blocks[r->n_blocks - 1].start + r->blocks[r->n_blocks - 1].length : 0;

        for (size_t i = 0; i < reply->n_ranges; i++) {
                if (reply->ranges[i].start < end)
                        return error_set(ret_error, ERROR_AGENT_MISBEHAVED,
                                "guestd lists its memory blocks out of order");
                end = reply->ranges[i].start + reply->ranges[i].length;
        }
        if (reply->has_next && (reply->next < end || ++r->n_pages > BLOCK_PAGES_MAX))
                return error_set(
                        ret_error, ERROR_AGENT_MISBEHAVED, "guestd's list of memory blocks does not end");

        struct block_range *grown =
                reallocarray(r->blocks, r->n_blocks + reply->n_ranges + 1, sizeof(*grown));
        if (!grown)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        r->blocks = grown;
        memcpy(grown + r->n_blocks, reply->ranges, reply->n_ranges * sizeof(*grown));
        r->n_blocks += reply->n_ranges;
        return 0;
}

static void on_blocks(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct partition_refresh *r = userdata;
        struct partition *p = r->partition;
        struct error bad;

        r->blocks_call = NULL;
        if (error || take_blocks(r, reply, &bad) < 0) {
                refresh_part_done(r, REFRESH_BLOCKS, error ?: &bad);
                return;
        }
        if (reply->has_next) {
                int k = ask_blocks(r, reply->next);
                if (k >= 0)
                        return;
                error_set_errno(
                        &bad, ERROR_AGENT_ABSENT, k, "The guest could not be asked for its memory blocks");
                refresh_part_done(r, REFRESH_BLOCKS, &bad);
                return;
        }

        free(p->blocks);
        p->blocks = steal_pointer(r->blocks);
        p->n_blocks = r->n_blocks;
        p->has_blocks = true;
        refresh_part_done(r, REFRESH_BLOCKS, NULL);
}

int partition_refresh(struct partition *p, unsigned what, partition_refreshed_t done, void *userdata,
        struct partition_refresh **ret, struct error *ret_error)
{
        if (what & (REFRESH_HYPERVISOR | REFRESH_DEVICES) && !p->platform_up)
                return error_set(ret_error, p->platform_error.code ?: ERROR_HYPERVISOR_ABSENT, "%s",
                        p->platform_error.message);
        if (what & (REFRESH_MEMORY | REFRESH_BLOCKS) && agent_state(p->agent) != AGENT_READY) {
                struct error error;
                agent_explain(p->agent, &error);
                return error_set(ret_error, error.code, "%s", error.message);
        }

        struct partition_refresh *r = calloc(1, sizeof(*r));
        if (!r)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        *r = (struct partition_refresh) {
                .partition = p, .done = done, .userdata = userdata, .pending = what
        };

        struct message_request get_state = { .op = OP_GET_STATE };
        int k = 0;
        if (what & REFRESH_HYPERVISOR)
                k = platform_query(p->platform, false, on_snapshot, r, &r->query);
        else if (what & REFRESH_DEVICES)
                k = platform_query(p->platform, true, on_devices, r, &r->query);
        if (k >= 0 && what & REFRESH_MEMORY)
                k = agent_call(
                        p->agent, &get_state, GUEST_QUERY_USEC, on_memory, NULL, r, &r->memory_call, NULL);
        if (k >= 0 && what & REFRESH_BLOCKS)
                k = ask_blocks(r, 0);
        if (k < 0) {
                partition_refresh_free(r);
                return error_set_errno(ret_error, ERROR_INTERNAL, k, "Partition '%s' cannot be asked now",
                        p->definition.name);
        }
        if (ret)
                *ret = r;
        return 0;
}

/* --- settling --- */

static void settle_after(struct partition *p, uint64_t usec)
{
        uint64_t at = now_monotonic_usec() + usec, armed;
        int enabled;

        if (sd_event_source_get_enabled(p->settle_timer, &enabled) >= 0 && enabled != SD_EVENT_OFF &&
                sd_event_source_get_time(p->settle_timer, &armed) >= 0 && armed <= at)
                return;
        sd_event_source_set_time(p->settle_timer, at);
        sd_event_source_set_enabled(p->settle_timer, SD_EVENT_ONESHOT);
}

static void on_settled(struct partition *p, const struct error *error, void *userdata)
{
        bool again = p->settle_again, restore = p->settle_restore;

        p->settling = NULL;
        p->settle_failed = error != NULL;
        if (error)
                log_debug("Partition '%s' could not be asked: %s", p->definition.name, error->message);
        p->settle_again = false;
        p->settle_restore = error && restore; /* still owed: a guest that is paused answers nothing */
        if (again)
                partition_settle(p, restore);
        else if (restore && !error)
                manager_partition_ready(p->manager, p);
        else if (restore)
                settle_after(p, RETRY_USEC);
        uint64_t hooks_usec = again || error ? 0 : hooks_on_settled(p);
        if (hooks_usec > 0)
                settle_after(p, hooks_usec);
        if (p->has_snapshot && p->snapshot.state == RUN_MIGRATING)
                settle_after(p, MIGRATION_USEC);
}

bool partition_is_settled(const struct partition *p)
{
        int enabled = SD_EVENT_OFF;

        if (p->settle_timer)
                sd_event_source_get_enabled(p->settle_timer, &enabled);
        return p->platform_up && p->has_snapshot && p->has_memory && p->has_blocks && !p->settling &&
               !p->settle_failed && enabled == SD_EVENT_OFF;
}

void partition_settle(struct partition *p, bool restore)
{
        unsigned what = 0;

        p->settle_restore |= restore;
        if (p->settling) {
                p->settle_again = true;
                return;
        }
        if (p->platform_up)
                what |= REFRESH_HYPERVISOR;
        if (agent_state(p->agent) == AGENT_READY)
                what |= REFRESH_MEMORY | REFRESH_BLOCKS;
        if (what && partition_refresh(p, what, on_settled, NULL, &p->settling, NULL) < 0) {
                p->settle_failed = true;
                settle_after(p, RETRY_USEC);
        }
        manager_partition_changed(p->manager, p);
}

static int on_settle_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct partition *p = userdata;

        /* A job looks for itself, and its end settles. */
        if (p->active)
                return 0;
        partition_settle(p, false);
        return 0;
}

void partition_settle_soon(struct partition *p, bool restore)
{
        p->settle_restore |= restore;
        settle_after(p, SETTLE_USEC);
}

/* --- the platform's and the agent's news --- */

static void tell_gone(struct partition *p, const struct error *error)
{
        struct agent_waiter *w = steal_pointer(p->waiter);

        if (w)
                w->on_gone(w, error);
}

static void on_platform_up(struct platform *platform, void *userdata)
{
        struct partition *p = userdata;

        log_info("Partition '%s': QEMU answers", p->definition.name);
        p->platform_up = true;
        partition_settle(p, true);
}

static void on_platform_down(struct platform *platform, const struct error *error, void *userdata)
{
        struct partition *p = userdata;

        log_info("Partition '%s': %s", p->definition.name, error->message);
        p->platform_up = false;
        p->platform_error = *error;
        p->has_snapshot = false;
        platform_snapshot_done(&p->snapshot);
        p->balloon_owed_bytes = 0; /* another QEMU's balloon is empty */
        p->balloon_unheard = false;

        tell_gone(p, error);
        manager_partition_changed(p->manager, p);
}

static void on_platform_reset(struct platform *platform, void *userdata)
{
        struct partition *p = userdata;
        struct error error;

        log_info("Partition '%s': the guest was reset", p->definition.name);
        p->n_resets++;
        restore_on_reset(p);
        agent_set_port_open(p->agent, false);
        error_set(&error, ERROR_GUEST_RESET, "The guest was reset while it worked on the request");
        tell_gone(p, &error);
        partition_settle(p, false);
}

static void on_platform_port(struct platform *platform, bool open, void *userdata)
{
        struct partition *p = userdata;

        agent_set_port_open(p->agent, open);
}

static void on_platform_device_deleted(struct platform *platform, const char *id, void *userdata)
{
        struct partition *p = userdata;

        p->n_departures++;
        log_info("Partition '%s': %s left by itself", p->definition.name, id);
        /* A restore may wait for blocks that have left with it: it begins anew. */
        if (p->active && p->active->request.kind == JOB_RESTORE_MEMORY) {
                p->settle_restore = true;
                job_stop(p->active, JOB_STOP_CANCEL);
        }
        partition_settle(p, false);
}

/* A job that moves it looks for itself. */
static void tell_change(struct partition *p)
{
        struct job *j = job_at_work(p);

        if (j && j->mechanism->on_change)
                j->mechanism->on_change(j);
        partition_settle_soon(p, false);
}

static void on_platform_device_size(
        struct platform *platform, const char *id, uint64_t size_bytes, void *userdata)
{
        struct partition *p = userdata;
        uint64_t current = partition_current_bytes(p);

        for (size_t i = 0; p->has_snapshot && i < p->snapshot.n_devices; i++) {
                struct platform_device *d = &p->snapshot.devices[i];

                if (strcmp(d->id, id) != 0 || d->is_dimm)
                        continue;
                p->snapshot.plugged_bytes -= MIN(d->size_bytes, p->snapshot.plugged_bytes);
                p->snapshot.plugged_bytes += size_bytes;
                d->size_bytes = size_bytes;
        }
        note_growth(p, current);
        tell_change(p);
}

static void on_platform_balloon(struct platform *platform, uint64_t actual_bytes, void *userdata)
{
        struct partition *p = userdata;
        uint64_t current = partition_current_bytes(p);

        p->balloon_unheard = false;
        if (p->has_snapshot && p->snapshot.balloon.present)
                take_balloon(p, actual_bytes);
        note_growth(p, current);
        tell_change(p);
}

static void on_platform_changed(struct platform *platform, void *userdata)
{
        partition_settle_soon(userdata, false);
}

static void forget_guest(struct partition *p)
{
        p->has_memory = p->has_blocks = false;
        free(p->blocks);
        p->blocks = NULL;
        p->n_blocks = 0;
}

static void on_agent_state(struct agent *a, enum agent_state state, void *userdata)
{
        struct partition *p = userdata;

        if (state != AGENT_READY) {
                log_info("Partition '%s': agent %s", p->definition.name, agent_state_to_string(state));
                forget_guest(p);
                sampling_on_session(p);
                manager_partition_changed(p->manager, p);
                return;
        }

        const struct message_hello *hello = agent_hello(a);
        log_info("Partition '%s': %s speaks (%s, blocks of %s, boot %.8s)", p->definition.name, hello->agent,
                hello->arch, SIZE(hello->block_bytes), hello->boot_id);

        p->session_resets = p->n_resets;
        struct agent_waiter *w = steal_pointer(p->waiter);
        if (w)
                w->on_ready(w);
        hooks_on_session(p);
        partition_settle(p, true);
        sampling_on_session(p);
}

static void on_agent_event(struct agent *a, enum event_type event, void *userdata)
{
        partition_settle_soon(userdata, false);
}

static void on_agent_sample(struct agent *a, const struct guest_sample *sample, void *userdata)
{
        sampling_take(userdata, sample);
}

/* --- the account --- */

uint64_t partition_current_bytes(const struct partition *p)
{
        const struct platform_snapshot *s = &p->snapshot;

        return s->base_bytes + s->plugged_bytes - MIN(s->balloon_bytes, s->base_bytes + s->plugged_bytes);
}

uint64_t partition_dimm_bytes(const struct partition *p)
{
        uint64_t bytes = 0;

        for (size_t i = 0; i < p->snapshot.n_devices; i++)
                if (p->snapshot.devices[i].is_dimm)
                        bytes += p->snapshot.devices[i].size_bytes;
        return bytes;
}

uint64_t partition_max_bytes(const struct partition *p)
{
        uint64_t profile = p->definition.profile.max_bytes, qemu = 0;

        if (p->has_snapshot)
                qemu = MAX(p->snapshot.max_bytes, p->snapshot.base_bytes);
        return profile && (!qemu || profile < qemu) ? profile : qemu;
}

uint64_t partition_block_bytes(const struct partition *p)
{
        const struct message_hello *hello = agent_hello(p->agent);

        return hello ? hello->block_bytes : 0;
}

bool partition_guest_can(const struct partition *p, const char *capability)
{
        const struct message_hello *hello = agent_hello(p->agent);

        for (char **c = hello ? hello->capabilities : NULL; c && *c; c++)
                if (strcmp(*c, capability) == 0)
                        return true;
        return false;
}

bool partition_is_pseries(const struct partition *p)
{
        return p->has_snapshot && platform_arch_is_pseries(p->snapshot.arch);
}

int partition_check_usable(const struct partition *p, struct error *ret_error)
{
        if (!p->platform_up)
                return error_set(ret_error, p->platform_error.code ?: ERROR_HYPERVISOR_ABSENT, "%s",
                        p->platform_error.message);
        if (p->has_snapshot && p->snapshot.state != RUN_RUNNING)
                return error_set(ret_error, ERROR_NOT_RUNNING,
                        "Partition '%s' is %s; its memory can change only while it runs", p->definition.name,
                        run_state_to_string(p->snapshot.state));
        if (agent_state(p->agent) != AGENT_READY) {
                struct error error;
                agent_explain(p->agent, &error);
                return error_set(
                        ret_error, error.code, "Partition '%s': %.450s", p->definition.name, error.message);
        }
        return 0;
}

void partition_take_memory(struct partition *p, const struct guest_memory *memory)
{
        p->memory = *memory;
        p->has_memory = true;
}

const char *partition_device_at(const struct partition *p, uint64_t address)
{
        for (size_t i = 0; i < p->snapshot.n_devices; i++) {
                const struct platform_device *d = &p->snapshot.devices[i];
                if (address >= d->address && address - d->address < d->region_bytes)
                        return d->id;
        }
        return "";
}

/* The first run that does not end before the address: take_blocks() saw to their order. A guest may list a
 * quarter of a million, and there may be hundreds of devices. */
static size_t first_block_behind(const struct partition *p, uint64_t address)
{
        size_t low = 0, high = p->n_blocks;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (p->blocks[middle].start + p->blocks[middle].length <= address)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

/* Adds up what the guest's blocks within a device are. */
static void sum_blocks(const struct partition *p, struct plan_device *d)
{
        uint64_t device_end = d->address + d->size_bytes;

        for (size_t i = first_block_behind(p, d->address); i < p->n_blocks; i++) {
                const struct block_range *b = &p->blocks[i];
                if (b->start >= device_end)
                        break;
                uint64_t start = MAX(b->start, d->address), end = MIN(b->start + b->length, device_end);

                if (start >= end)
                        continue;
                if (b->state == BLOCK_OFFLINE)
                        d->offline_bytes += end - start;
                else if (b->zone == ZONE_MOVABLE)
                        d->movable_bytes += end - start;
                else if (b->zone == ZONE_NONE)
                        d->stuck_bytes += end - start;
                else
                        d->kernel_bytes += end - start;
        }
}

static bool is_excluded(const char *id, char *const *excluded)
{
        for (; excluded && *excluded; excluded++)
                if (strcmp(*excluded, id) == 0)
                        return true;
        return false;
}

int partition_plan_snapshot(const struct partition *p, char *const *excluded, struct plan_snapshot *ret,
        struct plan_device **ret_devices)
{
        const struct platform_snapshot *s = &p->snapshot;
        struct plan_device *devices = calloc(s->n_devices + 1, sizeof(*devices));
        if (!devices)
                return -ENOMEM;

        for (size_t i = 0; i < s->n_devices; i++) {
                struct plan_device *d = &devices[i];
                const struct platform_device *from = &s->devices[i];

                snprintf(d->id, sizeof(d->id), "%s", from->id);
                d->address = from->address;
                d->size_bytes = from->region_bytes;
                d->slot = from->slot;
                d->node = from->node;
                d->is_dimm = from->is_dimm;
                d->unplug_pending = from->unplug_pending;
                d->removable = from->is_dimm && from->hotpluggable && !from->unplug_pending &&
                               !is_excluded(from->id, excluded);
                sum_blocks(p, d);
        }
        /* QEMU's pseries takes whole LMBs only, however small the guest's blocks may be. */
        uint64_t granule = partition_block_bytes(p);
        if (granule > 0 && partition_is_pseries(p))
                granule = MAX(granule, PLAN_LMB_BYTES);
        *ret = (struct plan_snapshot) {
                .granule_bytes = granule,
                .is_pseries = partition_is_pseries(p),
                .base_bytes = s->base_bytes,
                .max_bytes = s->max_bytes,
                .slots = s->slots,
                .kernel_bytes = p->memory.kernel_bytes,
                .movable_bytes = p->memory.movable_bytes,
                .n_nodes = s->n_nodes,
                .node_base_bytes = s->node_base_bytes,
                .devices = devices,
                .n_devices = s->n_devices,
        };
        *ret_devices = devices;
        return 0;
}

/* --- life --- */

void partition_set_channel(struct partition *p, const char *socket)
{
        if (agent_set_socket(p->agent, socket) < 0)
                log_warning("Partition '%s': the guest channel's path is too long for a socket: %s",
                        p->definition.name, socket);
        else
                snprintf(p->definition.channel_path, sizeof(p->definition.channel_path), "%s", socket ?: "");
}

struct partition *partition_free(struct partition *p)
{
        if (!p)
                return NULL;
        partition_refresh_free(p->settling);
        sd_event_source_disable_unref(p->settle_timer);
        platform_free(p->platform);
        agent_free(p->agent);
        platform_snapshot_done(&p->snapshot);
        free(p->blocks);
        free(p);
        return NULL;
}

int partition_new(struct manager *m, sd_event *event, const struct partition_definition *d,
        struct partition **ret, struct error *ret_error)
{
        static const struct platform_handlers platform_handlers = {
                .on_up = on_platform_up,
                .on_down = on_platform_down,
                .on_reset = on_platform_reset,
                .on_port = on_platform_port,
                .on_device_deleted = on_platform_device_deleted,
                .on_device_size = on_platform_device_size,
                .on_balloon = on_platform_balloon,
                .on_changed = on_platform_changed,
        };
        static const struct agent_handlers agent_handlers = {
                .on_state = on_agent_state,
                .on_event = on_agent_event,
                .on_sample = on_agent_sample,
        };
        struct partition *p = calloc(1, sizeof(*p));
        if (!p)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");

        p->manager = m;
        p->definition = *d;
        if (d->domain[0])
                error_set(&p->platform_error, ERROR_HYPERVISOR_ABSENT,
                        "The domain does not run; 'virsh start %s' starts it", d->name);
        else
                error_set(&p->platform_error, ERROR_HYPERVISOR_ABSENT, "QEMU's socket %s was not reached yet",
                        d->qmp_path);

        int r = d->domain[0] ? platform_libvirt_new(domains_connection(manager_domains(m)), d->domain,
                                       &platform_handlers, p, &p->platform)
                             : platform_qmp_new(event, d->qmp_path, d->channel_path, &platform_handlers, p,
                                       &p->platform);
        if (r >= 0)
                r = sd_event_add_time(event, &p->settle_timer, CLOCK_MONOTONIC, 0, 0, on_settle_timer, p);
        if (r >= 0)
                r = sd_event_source_set_enabled(p->settle_timer, SD_EVENT_OFF);
        if (r >= 0)
                r = agent_new(event, d->domain[0] ? NULL : d->channel_path, &agent_handlers, p, &p->agent);
        if (r < 0) {
                partition_free(p);
                return error_set_errno(
                        ret_error, ERROR_INVALID_ARGUMENT, r, "Partition '%s' cannot be defined", d->name);
        }
        *ret = p;
        return 0;
}
