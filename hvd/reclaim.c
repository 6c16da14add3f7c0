/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Rounds of removals for one reservation. A round asks each partition for its part of what is missing, as
 * jobs like any other that operators see; the next one begins when all of them have ended. */

#include "hvd/reclaim.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/memory/auto.h"
#include "hvd/policy-runner.h"
#include "hvd/pool.h"

struct donor {
        char name[64];
        struct partition *partition; /* valid while a round is made */
        uint64_t excess_bytes;
        uint32_t job;    /* 0: none under way */
        bool is_refused; /* it did not give what it was asked for */
};

struct reclaim {
        struct reservation *reservation;
        uint64_t deadline_usec;
        sd_event_source *timer;
        struct donor *donors;
        size_t n_donors;
        uint64_t asked_bytes, freed_bytes;
};

static uint64_t excess_of(const struct partition *p)
{
        const struct partition_profile *profile = &p->definition.profile;
        uint64_t floor = MAX(profile->desired_bytes, profile->min_bytes),
                 current = partition_current_bytes(p),
                 wanted = policy_runner_wanted_bytes(manager_policy(p->manager), p);

        /* What it uses above that it would not give, or would ask back for. */
        floor = MAX(floor, wanted);

        if (profile->desired_bytes == 0 || p->active || partition_check_usable(p, NULL) < 0)
                return 0;
        return current - MIN(current, floor);
}

/* Where the donor of that name is, or would be: they are in the order of names, as partitions are. */
static size_t find_place(const struct reclaim *c, const char *name)
{
        size_t low = 0, high = c->n_donors;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (strcmp(c->donors[middle].name, name) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

/* Finds the donor of that name, or makes one. NULL: out of memory. */
static struct donor *get_donor(struct reclaim *c, const char *name)
{
        size_t i = find_place(c, name);

        if (i < c->n_donors && strcmp(c->donors[i].name, name) == 0)
                return &c->donors[i];
        struct donor *grown = reallocarray(c->donors, c->n_donors + 1, sizeof(*grown));
        if (!grown)
                return NULL;
        c->donors = grown;
        memmove(&grown[i + 1], &grown[i], (c->n_donors - i) * sizeof(*grown));
        c->n_donors++;
        grown[i] = (struct donor) { 0 };
        snprintf(grown[i].name, sizeof(grown[i].name), "%s", name);
        return &grown[i];
}

/* Who has something to give now. Returns the sum. */
static uint64_t find_donors(struct reclaim *c)
{
        struct manager *m = c->reservation->manager;
        struct partition *p = NULL;
        uint64_t sum = 0;

        for (size_t i = 0; i < c->n_donors; i++)
                c->donors[i].excess_bytes = 0;
        while ((p = manager_next_partition(m, p))) {
                uint64_t excess = excess_of(p);
                struct donor *d = excess > 0 ? get_donor(c, p->definition.name) : NULL;

                if (!d || d->is_refused)
                        continue;
                d->partition = p;
                d->excess_bytes = excess;
                sum += excess;
        }
        return sum;
}

/* Asks one for `bytes`, or for the nearest that its mechanisms can do without going below what it desires. */
static bool ask(struct reclaim *c, struct donor *d, uint64_t bytes)
{
        struct job_request request = { .kind = JOB_REMOVE_MEMORY, .node = -1 };
        uint64_t below, above, now = now_monotonic_usec();
        struct error error;
        struct job *j;

        auto_nearest(d->partition, &request, bytes, &below, &above);
        request.bytes = above <= d->excess_bytes ? above : below;
        request.wait_usec = c->deadline_usec > now ? c->deadline_usec - now : 1;
        if (request.bytes == 0 ||
                manager_submit(d->partition->manager, d->partition, NULL, &request, &j, &error) < 0) {
                log_debug("Partition '%s' has nothing to give: %s", d->name,
                        request.bytes ? error.message : "no size fits");
                d->is_refused = true;
                return false;
        }
        log_notice("Partition '%s' has more than it desires and gives %s back, for '%s'", d->name,
                SIZE(request.bytes), c->reservation->owner);
        d->job = j->id;
        c->asked_bytes += request.bytes;
        return true;
}

static bool begin_round(struct reclaim *c)
{
        uint64_t missing = pool_missing_bytes(c->reservation), sum = find_donors(c), given = 0;
        bool any = false;

        if (sum == 0 || now_monotonic_usec() >= c->deadline_usec)
                return false;
        for (size_t i = 0; i < c->n_donors; i++) {
                struct donor *d = &c->donors[i];
                uint64_t share = plan_share(MIN(missing, sum), d->excess_bytes, sum);
                uint64_t left = missing - MIN(missing, given);

                share = MIN(share, left);
                if (share == 0)
                        continue;
                uint64_t before = c->asked_bytes;
                any |= ask(c, d, share);
                given += c->asked_bytes - before;
        }
        return any;
}

static void give_up(struct reclaim *c, enum error_code code, const char *why)
{
        struct reservation *r = c->reservation;
        struct pool_account a = pool_account(r->manager);
        struct error error;

        error_set(&error, code,
                "%s cannot be reserved for '%s' (%s): %s is missing in the pool of %s, of which partitions "
                "have %s; %s of the %s that those with more than they desire were asked for has come back "
                "and is free",
                SIZE(r->bytes), r->owner, why, SIZE(pool_missing_bytes(r)), SIZE(a.total_bytes),
                SIZE(a.current_bytes), SIZE(c->freed_bytes), SIZE(c->asked_bytes));
        pool_give_up(r, &error);
}

static int on_deadline(sd_event_source *s, uint64_t usec, void *userdata)
{
        give_up(userdata, ERROR_DEADLINE, "the time limit passed");
        return 0;
}

void reclaim_job_ended(struct reclaim *c, const struct job *j)
{
        bool any = false;

        for (size_t i = 0; i < c->n_donors; i++) {
                struct donor *d = &c->donors[i];

                if (d->job == j->id) {
                        d->job = 0;
                        d->is_refused = j->state != JOB_DONE;
                        c->freed_bytes += j->done_bytes;
                }
                any |= d->job != 0;
        }
        if (!any && pool_missing_bytes(c->reservation) > 0 && !begin_round(c))
                give_up(c, ERROR_POOL_EXHAUSTED, "nobody has more to give");
}

struct reclaim *reclaim_free(struct reclaim *c)
{
        if (!c)
                return NULL;
        sd_event_source_disable_unref(c->timer);
        free(c->donors);
        free(c);
        return NULL;
}

int reclaim_new(struct reservation *r, uint64_t wait_usec, struct reclaim **ret, struct error *ret_error)
{
        struct pool_account a = pool_account(r->manager);
        uint64_t missing = pool_missing_bytes(r);
        struct reclaim *c = calloc(1, sizeof(*c));

        if (!c)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        c->reservation = r;
        c->deadline_usec = now_monotonic_usec() + wait_usec;
        uint64_t excess = find_donors(c);
        int k = 0;
        if (excess < missing)
                k = error_set(ret_error, ERROR_POOL_EXHAUSTED,
                        "%s cannot be reserved for '%s': %s is missing in the pool of %s, of which "
                        "partitions "
                        "have %s; above what they desire that is %s, and no more is taken back",
                        SIZE(r->bytes), r->owner, SIZE(missing), SIZE(a.total_bytes), SIZE(a.current_bytes),
                        SIZE(excess));
        else if (!begin_round(c))
                k = error_set(ret_error, ERROR_POOL_EXHAUSTED,
                        "%s cannot be reserved for '%s': %s is missing in the pool of %s, and those that "
                        "have "
                        "more than they desire cannot give it now",
                        SIZE(r->bytes), r->owner, SIZE(missing), SIZE(a.total_bytes));
        else if (sd_event_add_time(manager_event(r->manager), &c->timer, CLOCK_MONOTONIC, c->deadline_usec, 1,
                         on_deadline, c) < 0)
                k = error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        if (k < 0) {
                reclaim_free(c);
                return k;
        }
        *ret = c;
        return 0;
}
