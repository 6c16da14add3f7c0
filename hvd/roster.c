/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A sorted array: with a thousand partitions a list that is searched from its beginning, once for each of
 * them, is most of what hvd does. */

#include "hvd/roster.h"

#include <assert.h>
#include <string.h>

/* Where the partition of that name is, or would be. */
static size_t find_place(const struct roster *r, const char *name)
{
        size_t low = 0, high = r->n;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (strcmp(r->by_name[middle]->definition.name, name) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

struct partition *roster_find(const struct roster *r, const char *name)
{
        size_t i = find_place(r, name);

        return i < r->n && strcmp(r->by_name[i]->definition.name, name) == 0 ? r->by_name[i] : NULL;
}

struct partition *roster_next(const struct roster *r, const struct partition *after)
{
        return after ? TAILQ_NEXT(after, entry) : TAILQ_FIRST(&r->list);
}

void roster_insert(struct roster *r, struct partition *p)
{
        size_t i = find_place(r, p->definition.name), n_behind = r->n - i;

        assert(r->n < ROSTER_MAX);
        if (n_behind > 0)
                TAILQ_INSERT_BEFORE(r->by_name[i], p, entry);
        else
                TAILQ_INSERT_TAIL(&r->list, p, entry);
        memmove(&r->by_name[i + 1], &r->by_name[i], n_behind * sizeof(r->by_name[0]));
        r->by_name[i] = p;
        r->n++;
}

void roster_remove(struct roster *r, struct partition *p)
{
        size_t i = find_place(r, p->definition.name);

        assert(i < r->n && r->by_name[i] == p);
        TAILQ_REMOVE(&r->list, p, entry);
        r->n--;
        memmove(&r->by_name[i], &r->by_name[i + 1], (r->n - i) * sizeof(r->by_name[0]));
}

void roster_init(struct roster *r)
{
        TAILQ_INIT(&r->list);
        r->n = 0;
}
