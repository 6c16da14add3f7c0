/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns nothing. Page cache that is reclaimed before a removal leaves devices empty that would have been moved
 * page by page; so it is asked for before the devices are chosen, and they are surveyed again. All other help
 * is the guest's, in the midst of OFFLINE, and its reply tells. */

#include "hvd/memory/assist.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/size.h"

/* Of a removal's bytes: less than this is moved as quickly as the guest could be asked. */
#define WORTH_PART 16U
/* Of the time that is left. */
#define RECLAIM_PART     4U
#define RECLAIM_MAX_USEC (15 * USEC_PER_SEC)

bool assist_is_wanted(const struct job *j, uint64_t migrate_bytes)
{
        const struct partition *p = j->partition;

        if (j->request.dry_run || !partition_guest_can(p, PROTO_CAPABILITY_ASSIST))
                return false;
        /* An account from before the last change tells nothing; the guest looks by itself, set by set. */
        return migrate_bytes > j->request.bytes / WORTH_PART ||
               (partition_is_settled(p) && p->memory.free_bytes < j->request.bytes);
}

int assist_start(struct job *j, guest_reply_t on_reply, void *userdata, struct guest_call **ret)
{
        struct message_request request = { .op = OP_RECLAIM, .bytes = j->request.bytes };
        uint64_t limit = MIN(job_left_usec(j) / RECLAIM_PART, RECLAIM_MAX_USEC);

        return guest_call_start(
                j, &request, now_monotonic_usec() + limit, on_reply, NULL, userdata, ret, NULL);
}

static void append(char *text, size_t size, const char *words)
{
        size_t used = strlen(text);

        snprintf(text + used, size - used, "%s%s", used ? "; " : "", words);
}

void assist_add_note(struct job *j, const char *device, const struct message_reply *reply)
{
        const struct assistance *a = reply->assistance;
        char text[512] = "", words[160];

        if (!a)
                return;
        if (a->reclaimed_bytes >= MIB) {
                snprintf(words, sizeof(words), "%s of page cache were reclaimed rather than moved",
                        SIZE(a->reclaimed_bytes / MIB * MIB));
                append(text, sizeof(text), words);
        }
        if (a->compactions > 0)
                append(text, sizeof(text), "its node was compacted");
        if (a->retries > 0)
                append(text, sizeof(text), "a busy block was tried again");
        for (size_t i = 0; i < a->n_pools; i++) {
                const struct assisted_pool *p = &a->pools[i];

                int n = snprintf(words, sizeof(words),
                        "%" PRIu64 " free huge pages of %s of node %u were given up", p->taken,
                        SIZE(p->page_bytes), p->node);
                if (p->restored > 0)
                        snprintf(words + n, sizeof(words) - (size_t)n, ", and %s restored",
                                p->restored == p->taken ? "all" : SIZE(p->restored * p->page_bytes));
                append(text, sizeof(text), words);
        }
        if (text[0])
                job_add_note(j, "%s%s%s", device ?: "", device ? ": " : "", text);
}
