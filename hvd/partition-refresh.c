/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a partition's two ends say of it, asked of both side by side. Answers are taken whole; between them
 * the last ones stand. */

#include "hvd/partition.h"

#include <string.h>

#include "common/size.h"
#include "hvd/manager.h"

#define GUEST_QUERY_USEC (10 * USEC_PER_SEC)
/* An answer to GET_BLOCKS is at most so many pages, 1 MiB of ranges in all: 4 TiB in blocks of 128 MiB, every
 * other one different. */
#define BLOCK_PAGES_MAX 64U

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
        partition_place_devices(p);
        uint64_t total = platform_balloon_total(&p->snapshot);
        if (p->snapshot.balloon.present)
                partition_take_balloon(p, s->balloon.present ? s->balloon.actual_bytes
                                                             : total - MIN(p->snapshot.balloon_bytes, total));
}

static void on_devices(struct platform_snapshot *s, const struct error *error, void *userdata)
{
        struct partition_refresh *r = userdata;

        uint64_t current = partition_current_bytes(r->partition);

        r->query = NULL;
        if (s) {
                take_devices(r->partition, s);
                partition_note_growth(r->partition, current);
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
                partition_place_devices(p);
                if (p->has_snapshot)
                        partition_note_growth(p, current);
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
        if (reply && reply->has_memory) {
                r->partition->memory = reply->memory;
                r->partition->has_memory = true;
        }
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
        partition_place_devices(p);
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
