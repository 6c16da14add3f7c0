/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which mechanism carries how much of a request. The earlier one of the list is the better one: it carries
 * what it can, and the later ones the rest. Only where their sizes would not add up to the request does an
 * earlier one leave something to the next: virtio-mem, whose unit is small, what a DIMM needs to be whole. */

#include "hvd/plan.h"

#include <string.h>

#include "common/cleanup.h"

static void nearest(const struct plan_source *s, uint64_t bytes, uint64_t *ret_below, uint64_t *ret_above)
{
        uint64_t unit = MAX(s->unit_bytes, UINT64_C(1));

        if (s->room_bytes == 0) {
                *ret_below = 0;
                *ret_above = bytes == 0 ? 0 : UINT64_MAX;
        } else if (s->nearest)
                s->nearest(s->userdata, bytes, ret_below, ret_above);
        else {
                uint64_t room = s->room_bytes / unit * unit;
                *ret_below = MIN(bytes, room) / unit * unit;
                *ret_above = bytes > room ? UINT64_MAX : bytes % unit ? (bytes / unit + 1) * unit : bytes;
        }
}

/* The most that sources[0..n) carry of `bytes`, exact where they can be, and the earliest have the most. */
static uint64_t split(const struct plan_source *sources, size_t n, uint64_t bytes, uint64_t *ret)
{
        uint64_t below, above, take, total, rest[PLAN_SOURCES_MAX];

        if (n == 0)
                return 0;
        nearest(&sources[0], bytes, &below, &above);
        ret[0] = below;
        total = below + split(sources + 1, n - 1, bytes - below, ret + 1);

        /* Each of the others may be the one that needs more to be whole, or has nothing as small. */
        for (size_t i = 1; i < n && total < bytes; i++) {
                nearest(&sources[i], bytes - below, &take, &above);
                if (above > bytes)
                        continue;
                nearest(&sources[0], bytes - above, &take, &above);
                uint64_t other = take + split(sources + 1, n - 1, bytes - take, rest);
                if (other <= total)
                        continue;
                total = other;
                ret[0] = take;
                memcpy(ret + 1, rest, (n - 1) * sizeof(*ret));
        }
        return total;
}

uint64_t plan_split(
        const struct plan_source *sources, size_t n, uint64_t bytes, uint64_t ret_shares[PLAN_SOURCES_MAX])
{
        memset(ret_shares, 0, PLAN_SOURCES_MAX * sizeof(*ret_shares));
        return split(sources, MIN(n, (size_t)PLAN_SOURCES_MAX), bytes, ret_shares);
}

uint64_t plan_split_above(const struct plan_source *sources, size_t n, uint64_t bytes)
{
        uint64_t shares[PLAN_SOURCES_MAX], best = UINT64_MAX;

        n = MIN(n, (size_t)PLAN_SOURCES_MAX);
        if (plan_split(sources, n, bytes, shares) == bytes)
                return bytes;
        /* One of them goes beyond what is left when the others have carried what they can. */
        for (size_t i = 0; i < n; i++) {
                struct plan_source others[PLAN_SOURCES_MAX];
                uint64_t below, above;
                size_t n_others = 0;

                for (size_t k = 0; k < n; k++)
                        if (k != i)
                                others[n_others++] = sources[k];
                uint64_t carried = split(others, n_others, bytes, shares);
                nearest(&sources[i], bytes - carried, &below, &above);
                if (above != UINT64_MAX)
                        best = MIN(best, carried + above);
        }
        return best;
}

uint64_t plan_share(uint64_t bytes, uint64_t has_bytes, uint64_t all_have_bytes)
{
        if (all_have_bytes == 0)
                return 0;
        __uint128_t share = ((__uint128_t)bytes * has_bytes + all_have_bytes - 1) / all_have_bytes;

        return (uint64_t)MIN(share, (__uint128_t)has_bytes);
}
