/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* Where memory is needed: samples, profiles, the pool and what went before in, one decision for each
 * partition out, with the figures it rests on and the rule that bound it. Pure: no file descriptors, no
 * clock, no state but what the caller hands in and takes out, whole numbers only, so that the same input
 * gives the same output anywhere. hvd and the simulator run this very code.
 *
 * What a guest says (struct policy_sample) is its word and no more: it is clamped by the host's own account
 * and can earn a guest nothing that its weight would not. */

#define POLICY_PARTITIONS_MAX 1024U
#define POLICY_NAME_MAX       64U /* with its NUL */
#define POLICY_BYTES_MAX      (UINT64_C(1) << 50)
#define POLICY_USEC_MAX       (UINT64_C(1) << 62)

/* The limits of each are in policy_config_keys(). */
struct policy_config {
        uint64_t headroom_permille;      /* of what is used: what shall be available beside it */
        uint64_t headroom_min_bytes;     /* and at least */
        uint64_t horizon_usec;           /* how far ahead a rise of what is used is prolonged */
        uint64_t pressure_permille;      /* the share of stalled time from which a guest is in distress */
        uint64_t idle_tax_permille;      /* of its headroom that a guest loses if memory is short */
        uint64_t quiet_usec;             /* how long memory has to lie idle before it leaves unasked */
        uint64_t step_usec;              /* between two steps of an unasked way back */
        uint64_t fresh_usec;             /* nothing leaves a guest whose sample is older */
        uint64_t refusal_usec;           /* the first pause after a refusal; doubles with each */
        uint64_t refusal_max_usec;       /* and at most */
        uint64_t cushion_permille;       /* of the pool: what shall be free for the next burst */
        uint64_t host_pressure_permille; /* of the host's own stalled time, from which its guests give */
        uint64_t host_relief_permille;   /* of the pool: what they give then in one round */
};

/* One key of [policy], for the file's reader, for messages and for documentation. */
struct policy_config_key {
        const char *name;
        size_t offset; /* of the uint64_t in struct policy_config */
        enum policy_unit { POLICY_UNIT_PERMILLE, POLICY_UNIT_BYTES, POLICY_UNIT_USEC } unit;
        uint64_t min, max, usual;
};
/* Ends with a NULL name. */
const struct policy_config_key *policy_config_keys(void);
void policy_config_init(struct policy_config *ret); /* the usual values */
/* Takes a value as it is written in hvd.conf (permille: a whole number of thousandths; 0 has no unit) into
 * the key's field. INVALID_ARGUMENT: no such key, or what would be right. */
int policy_setting_parse(
        const char *name, const char *value, struct policy_config *ret, struct error *ret_error);
/* NULL, or the key whose value is out of its range. */
const struct policy_config_key *policy_config_check(const struct policy_config *c);

enum policy_mode {
        POLICY_MODE_OFF,     /* it is left alone, and its memory is nobody else's */
        POLICY_MODE_OBSERVE, /* decided and told, not done */
        POLICY_MODE_AUTO,
        POLICY_MODE_MAX,
        POLICY_MODE_INVALID = -1,
};
enum policy_mode policy_mode_from_string(const char *s);
const char *policy_mode_to_string(enum policy_mode m); /* NULL if invalid */

enum policy_state {
        POLICY_RUNNING,
        POLICY_BOOTING,
        POLICY_MIGRATING,
        POLICY_PAUSED,
        POLICY_STATE_MAX,
        POLICY_STATE_INVALID = -1,
};
enum policy_state policy_state_from_string(const char *s);
const char *policy_state_to_string(enum policy_state s); /* NULL if invalid */

struct policy_sample {
        uint64_t taken_usec;            /* 0: none came, ever */
        uint64_t available_bytes;       /* MemAvailable */
        uint64_t some_permille;         /* of the time since the last one, somebody stalled for memory */
        uint64_t full_permille;         /* everybody did */
        uint64_t refault_bytes_per_sec; /* file pages read again soon after they were dropped */
        uint64_t swap_in_bytes_per_sec;
        bool has_removable;       /* else not known */
        uint64_t removable_bytes; /* what a survey says could leave cheaply */
};

/* Brings what a guest said into what a record can hold; no decision depends on what is cut. */
void policy_sample_bound(struct policy_sample *s);

struct policy_partition {
        char name[POLICY_NAME_MAX];
        enum policy_mode mode;
        enum policy_state state;
        uint64_t min_bytes, desired_bytes, max_bytes; /* min <= desired <= max; 0 where not set */
        unsigned weight;                              /* at least 1 */
        uint64_t current_bytes;                       /* by the host's account */
        uint64_t floor_bytes;                         /* what cannot leave, whoever asks */
        uint64_t granule_bytes;                       /* more than 0 */
        bool is_busy;                                 /* a change is under way */
        bool has_failed;  /* max is current for a while, as its last growth failed */
        bool has_no_size; /* nothing is removable for a while, as no device has a size that it could give */
        uint64_t claimed_bytes;  /* what it takes of the pool: current, or where a growth will end */
        uint64_t leaving_bytes;  /* what is on its way out of it */
        uint64_t changed_usec;   /* when current changed last; what was sampled before does not count */
        bool has_resident;       /* else not known */
        uint64_t resident_bytes; /* what the host sees it to have touched */
        struct policy_sample sample;
};

struct policy_pool {
        uint64_t total_bytes, reserve_bytes;
        uint64_t reserved_bytes;     /* for guests that are about to start, and the like */
        uint64_t host_some_permille; /* the host's own pressure */
};

/* What went before, for each partition; zeroed for a new one. Only policy_*() write it. */
struct policy_history {
        uint64_t used_bytes, used_usec; /* by the last sample that counted */
        uint64_t rise_bytes_per_sec;
        uint64_t held_bytes[2], held_usec; /* peaks of what it wanted, in this window and the one before */
        uint64_t grown_usec, asked_usec;   /* when it was last asked to grow, and to give */
        uint64_t asked_used_bytes;         /* what it used when it was asked to give */
        uint64_t asked_in_use_bytes;       /* and how much of that it was to give */
        uint64_t shrunk_usec;              /* the same three, of when it last gave */
        uint64_t shrunk_used_bytes, shrunk_in_use_bytes;
        /* When it was asked: with less than this it gives what it has in use; and the least that it might be
         * left with. */
        uint64_t asked_taxed_bytes, asked_least_bytes;
        uint64_t n_refusals; /* of what lay idle, since it last gave */
        uint64_t refused_usec;
        uint64_t n_denials; /* of what it had in use, since it last gave */
        uint64_t denied_usec;
};

/* It gave something of what it was asked for, or refused all. Who refuses what lies idle in it is in debt and
 * has a pause; who denies what it has in use is not asked for such for a while. */
void policy_history_gave(struct policy_history *h);
void policy_history_refused(struct policy_history *h, uint64_t now_usec);

enum policy_action { POLICY_KEEP, POLICY_GROW, POLICY_SHRINK, POLICY_ACTION_MAX, POLICY_ACTION_INVALID = -1 };
const char *policy_action_to_string(enum policy_action a);

/* Why something is decided; of the rules that speak against more of it, the one that bound. */
enum policy_rule {
        POLICY_RULE_NONE,
        /* causes */
        POLICY_RULE_BELOW_MIN,     /* grow: the profile promises it min */
        POLICY_RULE_PRESSURE,      /* grow: it stalls for memory */
        POLICY_RULE_DEMAND,        /* grow: its headroom is used up, or will be within the horizon */
        POLICY_RULE_DESIRED,       /* grow: the pool has plenty, and it has less than desired */
        POLICY_RULE_EQUAL_RATIO,   /* grow: no sample ever came; the same part of its range as all */
        POLICY_RULE_OTHERS_NEED,   /* shrink: others need what lies idle here */
        POLICY_RULE_ABOVE_SHARE,   /* shrink: memory is short, and it has more than its weight's part */
        POLICY_RULE_HOST_PRESSURE, /* shrink: the host stalls for memory */
        POLICY_RULE_IDLE,          /* shrink: quiet, and above desired */
        POLICY_RULE_CUSHION,       /* shrink: quiet, and the pool's cushion is not full */
        /* bounds */
        POLICY_RULE_ENOUGH, /* it has what it wants, to within the hysteresis */
        POLICY_RULE_MODE,
        POLICY_RULE_STATE,
        POLICY_RULE_BUSY,    /* one change at a time */
        POLICY_RULE_STALE,   /* no fresh sample */
        POLICY_RULE_REFUSED, /* the pause after a refusal */
        POLICY_RULE_DEBT,    /* it refused: no growth above its weight's part until it gives */
        POLICY_RULE_MIN,
        POLICY_RULE_MAX,
        POLICY_RULE_SHARE,      /* its part of what there is, by weight */
        POLICY_RULE_POOL,       /* nothing is free, and nobody has idle memory */
        POLICY_RULE_FREE_FIRST, /* others have to give first */
        POLICY_RULE_CHEAP,      /* the rest could not leave cheaply */
        POLICY_RULE_QUIET,      /* it has not been idle for long enough */
        POLICY_RULE_STEP,       /* slowly */
        POLICY_RULE_HYSTERESIS, /* it was shrunk a moment ago, and its demand is the same */
        POLICY_RULE_IN_USE,     /* it did not give what it has in use, and is not asked again for a while */
        POLICY_RULE_FAILED,     /* its last growth failed, and is not tried again for a while */
        POLICY_RULE_NO_SIZE,    /* its devices have no size that it could give */
        POLICY_RULE_MAX_VALUE,
        POLICY_RULE_INVALID = -1,
};
const char *policy_rule_to_string(enum policy_rule r); /* "others-need" */

struct policy_decision {
        enum policy_action action;
        uint64_t target_bytes;         /* of current; whole granules away from it */
        enum policy_rule cause, bound; /* bound: NONE if nothing spoke against more */
        /* the figures that it rests on, beside the input's: */
        uint64_t used_bytes;    /* as the policy sees it */
        uint64_t cache_bytes;   /* of that, what it has available but reads again and again */
        uint64_t pressed_bytes; /* added for stalls, refaults and a rise */
        uint64_t headroom_bytes;
        uint64_t want_bytes;   /* of these three, within min and max */
        uint64_t share_bytes;  /* what it may have now; == want unless memory is short */
        uint64_t weight_bytes; /* its weight's part of the pool */
};

struct policy_input {
        struct policy_config config;
        uint64_t now_usec; /* of the same clock as all others; more than 0 */
        struct policy_pool pool;
        size_t n_partitions; /* at most POLICY_PARTITIONS_MAX */
        const struct policy_partition *partitions;
        const struct policy_history *history; /* one for each */
};

/* One decision for each partition into ret, in their order; what they are to remember into ret_history, which
 * may be in->history itself. Cannot fail. Guaranteed for any input, whatever samples say:
 *  1. no target is above max, none that shrinks is below min or floor, and none moves what is not a whole
 *     number of granules;
 *  2. the growths together fit into what is free of the pool, less its reserve and what is reserved: what
 *     others are asked for in the same round counts only once they gave it;
 *  3. whoever is busy, off, or not running is left alone; nothing leaves without a fresh sample, nor in the
 *     pause after a refusal, and what is in use not in the pause after it was denied;
 *  4. what gave grows again within quiet_usec only for another demand: if it uses half a granule more than
 *     when it was asked, or stalls though all was left to it that it used then;
 *  5. when memory is short each gets what it wants up to one level per weight (its min first): a guest that
 *     wants without end gets no more than that level, and nobody whose wants lie below it loses more than
 *     headroom; who wants no more than its weight's part keeps headroom_min_bytes of that.
 * Which decisions are for doing is the caller's: those of partitions in mode AUTO. */
void policy_decide(
        const struct policy_input *in, struct policy_decision *ret, struct policy_history *ret_history);

/* The level per weight at which parties that want `want` and are promised `floor` share `total`: into
 * ret_share, floor <= share <= max(floor, want). Adds up to at most total, unless the floors alone are more.
 * True if not all got what they want. */
bool policy_fill(size_t n, const unsigned *weight, const uint64_t *floor, const uint64_t *want,
        uint64_t total, uint64_t *ret_share);

/* Some sentences for people: what was decided, on which figures, and what bound it. The caller frees it;
 * NULL: out of memory. */
char *policy_explain(const struct policy_input *in, size_t index, const struct policy_decision *d);
