/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Decisions in sentences. They say what the JSON says, and nothing that is not in the input or the decision.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/policy/internal.h"

/* What a guest uses is known to the page, and read more easily without that. */
#define ROUGHLY(bytes) SIZE((bytes) < 16 * MIB ? (bytes) : (bytes) / MIB * MIB)

static const char *cause_text(enum policy_rule rule)
{
        switch (rule) {
        case POLICY_RULE_BELOW_MIN:
                return "it has less than its min";
        case POLICY_RULE_PRESSURE:
                return "it stalls for memory";
        case POLICY_RULE_DEMAND:
                return "its headroom is used up, or will be in a moment";
        case POLICY_RULE_DESIRED:
                return "the pool has plenty, and it has less than desired";
        case POLICY_RULE_EQUAL_RATIO:
                return "no sample ever came, so it gets the same part of its range as all others";
        case POLICY_RULE_OTHERS_NEED:
                return "others need what lies idle here";
        case POLICY_RULE_ABOVE_SHARE:
                return "memory is short, and it has more than its share";
        case POLICY_RULE_HOST_PRESSURE:
                return "the host itself stalls for memory";
        case POLICY_RULE_IDLE:
                return "it has been quiet, and has more than desired";
        case POLICY_RULE_CUSHION:
                return "it has been quiet, and the pool keeps a cushion for the next burst";
        default:
                return "nothing calls for a change";
        }
}

static const char *bound_text(enum policy_rule rule)
{
        switch (rule) {
        case POLICY_RULE_ENOUGH:
                return "It has what it wants, to within half of its headroom";
        case POLICY_RULE_MODE:
                return "Its policy is off";
        case POLICY_RULE_STATE:
                return "It is booting, migrating or paused, and left alone meanwhile";
        case POLICY_RULE_BUSY:
                return "A change of it is under way, and there is one at a time";
        case POLICY_RULE_STALE:
                return "Its last sample is too old to go by";
        case POLICY_RULE_REFUSED:
                return "It refused to give, and is not asked again for a while";
        case POLICY_RULE_DEBT:
                return "It refused to give, and until it does it gets no more than its weight's part";
        case POLICY_RULE_MIN:
                return "Its min is a promise";
        case POLICY_RULE_MAX:
                return "It wants more, but max is the most that it may have";
        case POLICY_RULE_SHARE:
                return "Memory is short: more would be above its share by weight";
        case POLICY_RULE_POOL:
                return "Nothing is free in the pool, and nobody has memory to spare";
        case POLICY_RULE_FREE_FIRST:
                return "The pool has no more free at the moment: others have to give first";
        case POLICY_RULE_CHEAP:
                return "The rest could not leave cheaply";
        case POLICY_RULE_QUIET:
                return "Some lies idle, but not for long enough, or the last step was a moment ago";
        case POLICY_RULE_STEP:
                return "The rest follows in further steps, if it stays quiet";
        case POLICY_RULE_HYSTERESIS:
                return "It was shrunk a moment ago, and uses no more than it did then";
        case POLICY_RULE_IN_USE:
                return "It has more than its share, but has it in use, and is not asked for that again for a "
                       "while";
        case POLICY_RULE_FAILED:
                return "It wants more, but its last growth failed, and is not tried again for a while";
        case POLICY_RULE_NO_SIZE:
                return "Its devices leave whole, and none has a size that it could give";
        default:
                return NULL;
        }
}

static void write_change(FILE *f, const struct policy_partition *p, const struct policy_decision *d)
{
        switch (d->action) {
        case POLICY_GROW:
                fprintf(f, "%s grows by %s, from %s to %s: ", p->name,
                        SIZE(d->target_bytes - p->current_bytes), SIZE(p->current_bytes),
                        SIZE(d->target_bytes));
                break;
        case POLICY_SHRINK:
                fprintf(f, "%s gives %s, from %s to %s: ", p->name, SIZE(p->current_bytes - d->target_bytes),
                        SIZE(p->current_bytes), SIZE(d->target_bytes));
                break;
        default:
                fprintf(f, "%s keeps its %s: ", p->name, SIZE(p->current_bytes));
        }
        fprintf(f, "%s. ", cause_text(d->cause));
}

char *policy_explain(const struct policy_input *in, size_t index, const struct policy_decision *d)
{
        const struct policy_partition *p = &in->partitions[index];
        char *text = NULL;
        size_t size;
        FILE *f = open_memstream(&text, &size);

        if (!f)
                return NULL;
        write_change(f, p, d);
        if (bound_text(d->bound))
                fprintf(f, "%s. ", bound_text(d->bound));
        fprintf(f, "It uses %s", ROUGHLY(d->used_bytes));
        if (d->cache_bytes > 0)
                fprintf(f, " (%s of it file pages that it drops and reads again, and stalls for)",
                        ROUGHLY(d->cache_bytes));
        if (d->pressed_bytes > 0)
                fprintf(f, ", is held to want %s more soon", ROUGHLY(d->pressed_bytes));
        fprintf(f, ", and shall have %s beside that: it wants %s", ROUGHLY(d->headroom_bytes),
                ROUGHLY(d->want_bytes));
        if (d->share_bytes < d->want_bytes)
                fprintf(f, ", of which its share is %s", ROUGHLY(d->share_bytes));
        fprintf(f, "; its weight's part of the pool is %s. ", ROUGHLY(d->weight_bytes));
        if (p->sample.taken_usec > 0 && p->sample.taken_usec <= in->now_usec)
                fprintf(f, "Its sample was %" PRIu64 " ms old.",
                        (in->now_usec - p->sample.taken_usec) / USEC_PER_MSEC);
        else
                fprintf(f, "No sample of it came.");
        if (fclose(f) == 0)
                return text;
        free(text);
        return NULL;
}
