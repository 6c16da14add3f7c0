/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns what the host asked for: the one run under way, the guest's own auto_online_blocks while ours is in
 * its place, and the pledges. Decides which request may begin and what a lost session undoes; the ops
 * themselves are in op-wait.c and op-offline.c.
 *
 * Invariants: a request gets exactly one answer, or none if its session ended; at most one run at a time, and
 * none begins while an earlier one is still being undone. */

#include "guestd/ops-internal.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"
#include "guestd/memory.h"

/* Longer than any device takes to leave that is wholly offline. */
#define HURRY_MAX_USEC (60 * USEC_PER_SEC)

static void fail(struct ops *ops, const struct message *m, const struct error *error)
{
        ops->link.failure(m->id, error, ops->userdata);
}

static void note_zones(struct ops *ops, struct zone_account account)
{
        ops->zones.at_change = ops->blocks->n_changes;
        ops->zones.account = account;
}

static void reply_memory(struct ops *ops, const struct message *m)
{
        struct message_reply reply = { .op = m->request.op, .has_memory = true };
        struct error error;

        int r = memory_read(ops->config.proc_fd, ops->blocks, &reply.memory);
        if (r >= 0) {
                reply.memory.margin_bytes = memory_margin(ops->config.margin_bytes, reply.memory.total_bytes);
                note_zones(
                        ops, (struct zone_account) { reply.memory.kernel_bytes, reply.memory.movable_bytes });
                blocks_count(ops->blocks, &reply.memory.online_blocks, &reply.memory.offline_blocks);
                r = ops->link.reply(m->id, &reply, ops->userdata);
        }
        if (r < 0) {
                error_set_errno(&error, ERROR_INTERNAL, r, "The guest's memory accounts cannot be read");
                fail(ops, m, &error);
        }
}

/* The bare word that it is done. */
static void reply_done(struct ops *ops, const struct message *m)
{
        struct message_reply reply = { .op = m->request.op };

        (void)ops->link.reply(m->id, &reply, ops->userdata);
}

static void sample(struct ops *ops, const struct message *m)
{
        struct message_reply reply = { .op = OP_SAMPLE };
        struct error error;

        int r = ops->config.sampler ? sampler_begin(ops->config.sampler, &m->request.sampling, &reply.sample)
                                    : -EOPNOTSUPP;
        if (r >= 0)
                r = ops->link.reply(m->id, &reply, ops->userdata);
        if (r < 0) {
                error_set_errno(&error, ERROR_INTERNAL, r, "The guest's memory accounts cannot be read");
                fail(ops, m, &error);
        }
}

static void get_blocks(struct ops *ops, const struct message *m)
{
        struct message_reply reply = { .op = OP_GET_BLOCKS };
        struct error error;

        zones_learn(ops->config.proc_fd, ops->blocks);
        int r = blocks_ranges(
                ops->blocks, m->request.from, PROTO_RANGES_MAX, &reply.ranges, &reply.n_ranges, &reply.next);
        reply.has_next = reply.next > 0;
        if (r >= 0)
                r = ops->link.reply(m->id, &reply, ops->userdata);
        free(reply.ranges);
        if (r < 0) {
                error_set_errno(&error, ERROR_INTERNAL, r, "The block list cannot be made");
                fail(ops, m, &error);
        }
}

static void note_hurry(struct ops *ops, int result)
{
        if (result < 0)
                log_debug("rcu_expedited cannot be set: %s", strerror(-result));
        /* Whatever the host does or forgets. */
        loop_timer_arm(ops->loop, &ops->rest_timer, now_monotonic_usec() + HURRY_MAX_USEC);
}

/* Every block that goes online or offline, and every device that leaves, waits for a grace period of RCU or
 * two (percpu_down_write() in mem_hotplug_begin()), 5 to 20 ms each on an idle guest. The kernel expedites
 * them in boot and suspend, and lets root ask for it. A guest that was booted with rcupdate.rcu_normal=1, as
 * for real time, is not moved by it. */
static void hurry(struct ops *ops)
{
        note_hurry(ops, settings_replace(&ops->settings, SETTING_RCU_EXPEDITED, "1"));
}

static void on_rest_timer(struct loop_timer *timer)
{
        struct ops *ops = timer->userdata;

        settings_restore(&ops->settings, SETTING_RCU_EXPEDITED);
}

void ops_rest(struct ops *ops)
{
        if (ops->prepared || ops->run.phase != PHASE_IDLE || ops->n_pledges > 0)
                return;
        loop_timer_disarm(ops->loop, &ops->rest_timer);
        settings_restore(&ops->settings, SETTING_RCU_EXPEDITED);
}

void ops_be_quiet(struct ops *ops)
{
        monitor_pause(ops->monitor);
        ops->quiet = true;
}

void ops_listen(struct ops *ops)
{
        if (!ops->quiet)
                return;
        if (ops->bell) { /* the run that waits in this quiet counts what comes */
                monitor_drain(ops->monitor);
                return;
        }
        ops->catching_up = true;
        monitor_resume(ops->monitor);
        ops->catching_up = ops->quiet = false;
}

static void release(struct ops *ops)
{
        ops_listen(ops);
        loop_timer_disarm(ops->loop, &ops->release_timer);
        ops->prepared = false;
        settings_restore(&ops->settings, SETTING_AUTO_ONLINE);
        ops_rest(ops);
}

/* Without the host's word, as it or a guestd before us is gone. Not at once: the kernel may be bringing up
 * what was plugged, and a DIMM in the middle of which auto_online_blocks becomes "offline" gets the rest of
 * its blocks in zone Normal (Linux 6.1: online_memory_block() takes MMOP_OFFLINE for "wherever"). */
static void release_later(struct ops *ops)
{
        if (ops->prepared)
                loop_timer_arm(ops->loop, &ops->release_timer, now_monotonic_usec() + ops->config.grace_usec);
}

static void on_release_timer(struct loop_timer *timer)
{
        struct ops *ops = timer->userdata;

        if (ops_busy(ops))
                release_later(ops);
        else
                release(ops);
}

/* Both before the host plugs: what is written later competes with the driver. Kernels before 5.7 know no zone
 * in auto_online_blocks: there new blocks stay offline and a worker brings them up. */
static int set_for_plug(struct ops *ops, enum zone zone)
{
        struct setting_change changes[] = {
                { SETTING_AUTO_ONLINE, zone == ZONE_MOVABLE ? "online_movable" : "online_kernel", 0 },
                { SETTING_RCU_EXPEDITED, "1", 0 },
        };

        settings_change(&ops->settings, changes, ARRAY_SIZE(changes));
        note_hurry(ops, changes[1].result);
        return changes[0].result == -EINVAL ? settings_replace(&ops->settings, SETTING_AUTO_ONLINE, "offline")
                                            : changes[0].result;
}

static void prepare(struct ops *ops, const struct message *m)
{
        const struct message_request *q = &m->request;
        struct zone_account account = ops->zones.account;
        struct error error;

        /* Zones change with blocks. The host has mostly asked for the guest's state since they last did. */
        if (q->zone == ZONE_MOVABLE &&
                (account.kernel_bytes == 0 || ops->zones.at_change != ops->blocks->n_changes)) {
                (void)zones_account(ops->config.proc_fd, ops->blocks, &account);
                note_zones(ops, account);
        }
        uint64_t kernel_bytes = account.kernel_bytes, movable_bytes = account.movable_bytes;
        if (q->zone == ZONE_MOVABLE && !zone_ratio_allows(kernel_bytes, movable_bytes, q->bytes)) {
                uint64_t budget = zone_ratio_budget(kernel_bytes, movable_bytes);

                error_set(&error, ERROR_ZONE_RATIO,
                        "%" PRIu64 " MiB more in zone Movable are beyond 3:1: kernel zones have %" PRIu64
                        " MiB, Movable %" PRIu64 " MiB; up to %" PRIu64 " MiB are possible",
                        q->bytes / MIB, kernel_bytes / MIB, movable_bytes / MIB, budget / MIB);
                fail(ops, m, &error);
                return;
        }
        int r = set_for_plug(ops, q->zone);
        if (r < 0) {
                ops_rest(ops);
                error_set_errno(&error, ERROR_INTERNAL, r, "auto_online_blocks cannot be set");
                fail(ops, m, &error);
                return;
        }
        ops->prepared = true;
        loop_timer_disarm(ops->loop, &ops->release_timer);
        ops_be_quiet(ops);
        reply_done(ops, m);
}

static void stop_run(struct ops *ops, enum error_code why)
{
        if (ops->run.op == OP_OFFLINE)
                offline_stop(ops, why);
        else if (ops->run.op == OP_RECLAIM)
                reclaim_stop(ops, why);
        else
                wait_stop(ops, why);
}

static void cancel(struct ops *ops, const struct message *m)
{
        /* What is done, or was never asked for, needs no cancelling: that is no failure. */
        reply_done(ops, m);
        if (ops->run.phase != PHASE_IDLE && ops->run.id == m->request.target_id)
                stop_run(ops, ERROR_CANCELLED);
        else if (ops->survey.id > 0 && ops->survey.id == m->request.target_id)
                survey_stop(ops, ERROR_CANCELLED);
        else if (ops->hook.id > 0 && ops->hook.id == m->request.target_id)
                hook_stop(ops);
}

static void on_run_timer(struct loop_timer *timer)
{
        struct ops *ops = timer->userdata;

        if (ops->run.op == OP_OFFLINE)
                offline_on_timer(ops);
        else
                wait_on_timer(ops);
}

static int copy_targets(struct op_run *run, const struct message_request *q)
{
        run->targets = calloc(q->n_targets, sizeof(*run->targets));
        if (!run->targets)
                return -ENOMEM;
        memcpy(run->targets, q->targets, q->n_targets * sizeof(*run->targets));
        run->n_targets = q->n_targets;
        return 0;
}

static void begin(struct ops *ops, const struct message *m)
{
        const struct message_request *q = &m->request;
        struct op_run *run = &ops->run;
        uint64_t now = now_monotonic_usec();
        struct error error;

        int r = blocks_check_targets(ops->blocks, q->targets, q->n_targets, &error);
        if (r >= 0 && (r = copy_targets(run, q)) < 0)
                error_set(&error, ERROR_INTERNAL, "Out of memory");
        if (r < 0) {
                fail(ops, m, &error);
                return;
        }
        pledge_take_over(ops, q->targets, q->n_targets);
        run->op = q->op;
        run->id = m->id;
        run->zone = q->zone;
        run->began_usec = run->progress_usec = now;
        run->deadline_usec = now + q->deadline_msec * USEC_PER_MSEC;
        run->attempt_usec = q->attempt_msec * USEC_PER_MSEC;
        run->each = q->each;
        if (q->op == OP_OFFLINE) {
                if (!q->gentle)
                        hurry(ops);
                offline_begin(ops);
        } else
                wait_begin(ops);
}

void ops_request(struct ops *ops, const struct message *m)
{
        struct error error;

        if (m->request.op == OP_SAMPLE) { /* whatever is under way, it is not about blocks */
                sample(ops, m);
                return;
        }
        /* Who waits for blocks listens when it knows which. */
        if (m->request.op != OP_PREPARE && m->request.op != OP_ONLINE && m->request.op != OP_AWAIT_REMOVED &&
                m->request.op != OP_CANCEL)
                ops_listen(ops);
        if (!ops->quiet)
                monitor_drain(ops->monitor);
        switch (m->request.op) {
        case OP_GET_STATE:
                reply_memory(ops, m);
                return;
        case OP_GET_BLOCKS:
                get_blocks(ops, m);
                return;
        case OP_CANCEL:
                cancel(ops, m);
                return;
        case OP_SURVEY:
                survey_begin(ops, m);
                return;
        case OP_HOOK:
                hook_begin(ops, m);
                return;
        case OP_RELEASE:
                release(ops);
                reply_done(ops, m);
                return;
        default:
                break;
        }
        if (ops->run.phase != PHASE_IDLE) {
                error_set(&error, ERROR_BUSY, "The guest is at work: %s%s", op_to_string(ops->run.op),
                        ops->run.id == 0 ? ", which is being undone" : "");
                fail(ops, m, &error);
                return;
        }
        debt_interrupt(ops);
        if (m->request.op == OP_PREPARE)
                prepare(ops, m);
        else if (m->request.op == OP_RECLAIM)
                reclaim_begin(ops, m);
        else
                begin(ops, m);
        debt_settle(ops);
}

void ops_set_session(struct ops *ops, bool up)
{
        if (ops->session == up)
                return;
        ops->session = up;
        pledge_on_session(ops, up);
        hook_on_session(ops, up);
        if (up) {
                children_keep_spare(ops->children);
                return;
        }

        loop_timer_disarm(ops->loop, &ops->event_timer);
        if (ops->config.sampler)
                sampler_end(ops->config.sampler);
        survey_reset(ops);
        ops_listen(ops);
        release_later(ops);
        if (ops->run.phase == PHASE_IDLE)
                return;
        if (ops->run.op == OP_OFFLINE)
                offline_stop(ops, ERROR_INTERRUPTED);
        else if (ops->run.op == OP_RECLAIM)
                reclaim_stop(ops, ERROR_INTERRUPTED);
        else
                run_reset(ops);
}

static void on_event_timer(struct loop_timer *timer)
{
        struct ops *ops = timer->userdata;

        if (ops->session)
                ops->link.event(EVENT_BLOCKS_CHANGED, ops->userdata);
}

static void announce(struct ops *ops)
{
        if (ops->session && !ops->event_timer.armed)
                loop_timer_arm(
                        ops->loop, &ops->event_timer, now_monotonic_usec() + ops->config.debounce_usec);
}

void ops_on_block(struct ops *ops, uint32_t number, enum block_state state)
{
        struct op_run *run = &ops->run;
        enum block_state before = blocks_note(ops->blocks, number, state);

        if (state != BLOCK_OFFLINE)
                pledge_drop(ops, number);
        if (before == state)
                return;
        if (run->phase == PHASE_IDLE ||
                !targets_contain(run->targets, run->n_targets, number * ops->blocks->block_bytes))
                announce(ops);
        else if (run->phase == PHASE_WAITING && !ops->catching_up) /* else it counts when all is caught up */
                wait_on_block(ops, number, before, state);
}

void ops_on_overflow(struct ops *ops)
{
        int r = blocks_scan(ops->blocks);
        if (r < 0)
                log_warning("The memory blocks cannot be listed: %s", strerror(-r));
        for (size_t i = ops->n_pledges; i-- > 0;)
                if (blocks_state(ops->blocks, ops->pledges[i].item.block) != BLOCK_OFFLINE)
                        pledge_drop(ops, ops->pledges[i].item.block);
        if (ops->run.phase == PHASE_IDLE)
                announce(ops);
        else
                wait_recount(ops);
}

bool ops_busy(struct ops *ops)
{
        return ops->run.phase != PHASE_IDLE;
}

bool ops_owes(struct ops *ops)
{
        return ops_busy(ops) || ops->n_pledges > 0 || ops->settings.n_pools > 0 || ops->hook.under_way ||
               ops->prepared;
}

struct children *ops_children(struct ops *ops)
{
        return ops->children;
}

int ops_new(struct loop *loop, struct blocks *blocks, struct monitor *monitor,
        const struct ops_config *config, const struct ops_link *link, void *userdata, struct ops **ret)
{
        struct ops *ops = calloc(1, sizeof(*ops));

        if (!ops)
                return -ENOMEM;
        *ops = (struct ops) {
                .loop = loop,
                .blocks = blocks,
                .monitor = monitor,
                .config = *config,
                .link = *link,
                .userdata = userdata,
                .run.timer = { .on_expired = on_run_timer, .userdata = ops },
                .grace_timer = { .on_expired = pledge_on_timer, .userdata = ops },
                .event_timer = { .on_expired = on_event_timer, .userdata = ops },
                .release_timer = { .on_expired = on_release_timer, .userdata = ops },
                .rest_timer = { .on_expired = on_rest_timer, .userdata = ops },
                .hook_timer = { .on_expired = hook_on_timer, .userdata = ops },
        };
        if (ops->config.grace_usec == 0)
                ops->config.grace_usec = OPS_GRACE_USEC;
        if (ops->config.settle_usec == 0)
                ops->config.settle_usec = OPS_SETTLE_USEC;
        if (ops->config.repay_usec == 0)
                ops->config.repay_usec = OPS_REPAY_USEC;
        if (ops->config.debounce_usec == 0)
                ops->config.debounce_usec = OPS_DEBOUNCE_USEC;
        struct worker_config worker = {
                .memory_fd = blocks->memory_fd,
                .proc_fd = config->proc_fd,
                .sys_fd = config->sys_fd,
                .block_bytes = blocks->block_bytes,
                .margin_bytes = config->margin_bytes,
                .may_mount = config->may_mount,
                .write = config->write,
                .write_setting = config->write_setting,
        };
        int r = children_new(loop, &worker, &ops->children);
        if (r < 0) {
                free(ops);
                return r;
        }
        settings_init(&ops->settings, config->sys_fd, config->proc_fd, config->state_path);
        settings_restore(&ops->settings, SETTING_SWAPPINESS);
        debt_init(ops);
        ops->prepared = settings_any(&ops->settings);
        release_later(ops);
        hook_await_session(ops);
        *ret = ops;
        return 0;
}

struct ops *ops_free(struct ops *ops)
{
        if (!ops)
                return NULL;
        ops->session = false;
        survey_reset(ops);
        run_reset(ops);
        debt_interrupt(ops);
        release(ops);
        on_rest_timer(&ops->rest_timer); /* also with devices that are still to leave */
        loop_timer_disarm(ops->loop, &ops->rest_timer);
        loop_timer_disarm(ops->loop, &ops->grace_timer);
        loop_timer_disarm(ops->loop, &ops->event_timer);
        loop_timer_disarm(ops->loop, &ops->hook_timer);
        children_free(ops->children);
        free(ops->pledges);
        free(ops);
        return NULL;
}
