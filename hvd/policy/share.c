/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Shares by weight: water is filled in until the level per weight is where the pool ends. Who wants less than
 * the level keeps what it wants, so that nobody loses by what others claim. */

#include "hvd/policy/internal.h"

#include "common/cleanup.h"

static uint64_t share_at(uint64_t level, unsigned weight, uint64_t floor, uint64_t want)
{
        unsigned __int128 bytes = (unsigned __int128)level * weight;

        if (bytes >= want)
                return MAX(floor, want);
        return MAX(floor, (uint64_t)bytes);
}

static bool fits(size_t n, const unsigned *weight, const uint64_t *floor, const uint64_t *want,
        uint64_t total, uint64_t level)
{
        unsigned __int128 sum = 0;

        for (size_t i = 0; i < n; i++)
                sum += share_at(level, weight[i], floor[i], want[i]);
        return sum <= total;
}

bool policy_fill(size_t n, const unsigned *weight, const uint64_t *floor, const uint64_t *want,
        uint64_t total, uint64_t *ret_share)
{
        uint64_t low = 0, high = POLICY_BYTES_MAX;
        bool all = fits(n, weight, floor, want, total, high);

        /* The level is a whole number of bytes per weight: at most a few hundred bytes a party are left. */
        while (!all && low + 1 < high) {
                uint64_t middle = low + (high - low) / 2;

                if (fits(n, weight, floor, want, total, middle))
                        low = middle;
                else
                        high = middle;
        }
        for (size_t i = 0; i < n; i++)
                ret_share[i] = share_at(all ? high : low, weight[i], floor[i], want[i]);
        return !all;
}

uint64_t policy_equal_ratio(const struct policy_input *in, size_t index)
{
        uint64_t usable = policy_less(in->pool.total_bytes, in->pool.reserve_bytes + in->pool.reserved_bytes);
        uint64_t floors = 0, ranges = 0;
        const struct policy_partition *p;

        for (size_t i = 0; i < in->n_partitions; i++) {
                p = &in->partitions[i];
                floors += p->min_bytes;
                ranges += policy_less(p->max_bytes, p->min_bytes);
        }
        p = &in->partitions[index];
        return p->min_bytes + policy_scale(policy_less(p->max_bytes, p->min_bytes),
                                      MIN(policy_less(usable, floors), ranges), ranges);
}
