/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Blocks that a request took offline wholly and whose device_del is to come. If the host dies in between,
 * nobody would ever bring them back, and the guest would stay short of memory that it has: some time after
 * the session is gone they go back online, each in its former zone. A new session within that time takes over
 * those that it asks for.
 *
 * Invariants: pledges[] is sorted by block; every entry is offline as far as we know. The grace timer is
 * armed if and only if one is orphaned. */

#include "guestd/ops-internal.h"

#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"

#define RETRY_USEC 1000000ULL

static size_t position(const struct ops *ops, uint32_t block)
{
        size_t low = 0, high = ops->n_pledges;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (ops->pledges[middle].item.block < block)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

static bool make_room(struct ops *ops, size_t n)
{
        size_t want = ops->n_pledges + n;

        if (want <= ops->n_pledges_allocated)
                return true;
        struct pledge *v = realloc(ops->pledges, want * sizeof(*v));
        if (!v)
                return false;
        ops->pledges = v;
        ops->n_pledges_allocated = want;
        return true;
}

void pledge_add(struct ops *ops, const struct work_item *items, size_t n_items)
{
        if (!make_room(ops, n_items)) {
                log_warning("Out of memory: blocks that the host leaves offline would stay so");
                return;
        }
        for (size_t i = 0; i < n_items; i++) {
                size_t at = position(ops, items[i].block);

                if (at == ops->n_pledges || ops->pledges[at].item.block != items[i].block) {
                        memmove(ops->pledges + at + 1, ops->pledges + at,
                                (ops->n_pledges - at) * sizeof(*ops->pledges));
                        ops->n_pledges++;
                }
                ops->pledges[at] = (struct pledge) { .item = items[i] };
        }
}

/* Only the first n are left. */
static void truncate_to(struct ops *ops, size_t n)
{
        ops->n_pledges = n;
        if (n > 0)
                return;
        free(steal_pointer(ops->pledges));
        ops->n_pledges_allocated = 0;
}

/* The grace is over if nobody waits for its end. */
static void end_grace(struct ops *ops)
{
        if (!ops->grace_timer.armed)
                return;
        for (size_t i = 0; i < ops->n_pledges; i++)
                if (ops->pledges[i].is_orphaned)
                        return;
        loop_timer_disarm(ops->loop, &ops->grace_timer);
}

void pledge_drop(struct ops *ops, uint32_t block)
{
        size_t at = position(ops, block);

        if (at == ops->n_pledges || ops->pledges[at].item.block != block)
                return;
        memmove(ops->pledges + at, ops->pledges + at + 1, (ops->n_pledges - at - 1) * sizeof(*ops->pledges));
        truncate_to(ops, ops->n_pledges - 1);
        end_grace(ops);
        if (ops->n_pledges == 0)
                ops_rest(ops);
}

void pledge_on_session(struct ops *ops, bool up)
{
        /* A new session alone changes nothing: it has to ask for the blocks, see pledge_take_over(). */
        if (up || ops->n_pledges == 0)
                return;
        for (size_t i = 0; i < ops->n_pledges; i++)
                ops->pledges[i].is_orphaned = true;
        loop_timer_arm(ops->loop, &ops->grace_timer, now_monotonic_usec() + ops->config.grace_usec);
}

void pledge_take_over(struct ops *ops, const struct mem_range *targets, size_t n_targets)
{
        for (size_t i = 0; i < ops->n_pledges; i++) {
                struct pledge *p = &ops->pledges[i];

                if (targets_contain(targets, n_targets, p->item.block * ops->blocks->block_bytes))
                        p->is_orphaned = false;
        }
        end_grace(ops);
}

void pledge_on_timer(struct loop_timer *timer)
{
        struct ops *ops = timer->userdata;
        struct work_item *items = ops_busy(ops) ? NULL : calloc(ops->n_pledges, sizeof(*items));
        size_t n_items = 0, n_left = 0;

        if (!items) {
                loop_timer_arm(ops->loop, timer, now_monotonic_usec() + RETRY_USEC);
                return;
        }
        for (size_t i = 0; i < ops->n_pledges; i++)
                if (ops->pledges[i].is_orphaned)
                        items[n_items++] = ops->pledges[i].item;
                else
                        ops->pledges[n_left++] = ops->pledges[i];
        truncate_to(ops, n_left);
        log_notice("The host went away: %zu blocks that it did not remove go back online", n_items);
        put_back_begin(ops, items, n_items);
}
