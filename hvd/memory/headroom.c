/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns nothing. The guest's kernel is asked through two mouths: guestd, and the driver of the balloon. Either
 * may be old or be lying, and neither is believed when the other says less. */

#include "hvd/memory/headroom.h"

#include <inttypes.h>
#include <time.h>

#include "common/size.h"

/* Statistics are renewed every PLATFORM_STATS_SEC; a guest that is busy may be late. */
#define FRESH_SEC (3 * PLATFORM_STATS_SEC)
/* A wish is not ended as quickly as an offline that guestd itself does: the guest may take as much meanwhile.
 */
#define MARGIN_MIN_BYTES (64 * MIB)

/* UINT64_MAX: never. */
static uint64_t stats_age_sec(const struct platform_balloon *b)
{
        time_t now = time(NULL);

        if (b->stats.updated_sec == 0)
                return UINT64_MAX;
        return (uint64_t)now > b->stats.updated_sec ? (uint64_t)now - b->stats.updated_sec : 0;
}

/* They lag behind: what came since is not in them, and guestd is asked after it. A time that is still to come
 * is of a clock that has been set back since: that it could be told by is over, and they are renewed soon. */
static bool is_before_growth(const struct partition *p)
{
        return p->grown_sec > 0 && p->grown_sec <= time(NULL) &&
               p->snapshot.balloon.stats.updated_sec <= (uint64_t)p->grown_sec;
}

uint64_t headroom_margin_bytes(const struct partition *p)
{
        uint64_t margin = p->memory.margin_bytes ?: margin_of(p->memory.total_bytes);

        return MAX(margin, MARGIN_MIN_BYTES);
}

uint64_t headroom_bytes(const struct partition *p)
{
        const struct platform_balloon *b = &p->snapshot.balloon;
        uint64_t available = p->memory.available_bytes, margin = headroom_margin_bytes(p);

        /* An unset value is the greatest that there is. */
        if (b->present && stats_age_sec(b) <= FRESH_SEC && !is_before_growth(p))
                available = MIN(available, b->stats.available_bytes);
        return available > margin ? available - margin : 0;
}

bool headroom_may_be_old(const struct partition *p, const struct job_request *request)
{
        uint64_t current = partition_current_bytes(p), min = p->definition.profile.min_bytes;
        uint64_t most = p->snapshot.plugged_bytes;

        if (p->snapshot.balloon.present)
                most += p->snapshot.balloon.actual_bytes;
        return request->kind == JOB_REMOVE_MEMORY && request->bytes <= most &&
               min + request->bytes <= current && headroom_bytes(p) < request->bytes;
}

void headroom_add_note(struct job *j)
{
        const struct platform_balloon *b = &j->partition->snapshot.balloon;
        uint64_t age = stats_age_sec(b);

        if (!b->present)
                return;
        if (age == UINT64_MAX)
                job_add_note(j, "The balloon's statistics were never updated (is its driver loaded in the "
                                "guest?), and "
                                "guestd's word alone counts");
        else if (is_before_growth(j->partition))
                job_add_note(j, "The balloon's statistics are from before memory came, and guestd's word "
                                "alone counts");
        else if (age > FRESH_SEC)
                job_add_note(j,
                        "The balloon's statistics are %" PRIu64 " s old, and guestd's word alone counts",
                        age);
        else if (b->stats.available_bytes == UINT64_MAX)
                job_add_note(j, "The balloon's statistics do not say what is available, and guestd's word "
                                "alone counts");
}
