/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The policy's words, and the ranges of its configuration: one table each, for files, JSON and people. */

#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/policy/policy.h"

static const struct policy_config_key keys[] = {
        { "headroom", offsetof(struct policy_config, headroom_permille), POLICY_UNIT_PERMILLE, 20, 1000,
                150 },
        { "headroom_min", offsetof(struct policy_config, headroom_min_bytes), POLICY_UNIT_BYTES, 16 * MIB,
                64 * GIB, 256 * MIB },
        { "horizon", offsetof(struct policy_config, horizon_usec), POLICY_UNIT_USEC, 0, 60 * USEC_PER_SEC,
                3 * USEC_PER_SEC },
        { "pressure", offsetof(struct policy_config, pressure_permille), POLICY_UNIT_PERMILLE, 1, 1000, 50 },
        { "idle_tax", offsetof(struct policy_config, idle_tax_permille), POLICY_UNIT_PERMILLE, 0, 1000, 750 },
        { "quiet", offsetof(struct policy_config, quiet_usec), POLICY_UNIT_USEC, USEC_PER_SEC,
                86400 * USEC_PER_SEC, 300 * USEC_PER_SEC },
        { "step", offsetof(struct policy_config, step_usec), POLICY_UNIT_USEC, USEC_PER_SEC,
                3600 * USEC_PER_SEC, 10 * USEC_PER_SEC },
        { "fresh", offsetof(struct policy_config, fresh_usec), POLICY_UNIT_USEC, USEC_PER_SEC,
                600 * USEC_PER_SEC, 15 * USEC_PER_SEC },
        { "refusal", offsetof(struct policy_config, refusal_usec), POLICY_UNIT_USEC, USEC_PER_SEC,
                3600 * USEC_PER_SEC, 30 * USEC_PER_SEC },
        { "refusal_max", offsetof(struct policy_config, refusal_max_usec), POLICY_UNIT_USEC, USEC_PER_SEC,
                7 * 86400 * USEC_PER_SEC, 3600 * USEC_PER_SEC },
        { "cushion", offsetof(struct policy_config, cushion_permille), POLICY_UNIT_PERMILLE, 0, 900, 100 },
        { "host_pressure", offsetof(struct policy_config, host_pressure_permille), POLICY_UNIT_PERMILLE, 1,
                1000, 50 },
        { "host_relief", offsetof(struct policy_config, host_relief_permille), POLICY_UNIT_PERMILLE, 1, 500,
                50 },
        { 0 },
};

static uint64_t *config_field(struct policy_config *c, const struct policy_config_key *key)
{
        return (uint64_t *)((char *)c + key->offset);
}

const struct policy_config_key *policy_config_keys(void)
{
        return keys;
}

void policy_config_init(struct policy_config *ret)
{
        for (const struct policy_config_key *key = keys; key->name; key++)
                *config_field(ret, key) = key->usual;
}

const struct policy_config_key *policy_config_check(const struct policy_config *c)
{
        struct policy_config copy = *c;

        for (const struct policy_config_key *key = keys; key->name; key++)
                if (*config_field(&copy, key) < key->min || *config_field(&copy, key) > key->max)
                        return key;
        return NULL;
}

static const char *const mode_names[POLICY_MODE_MAX] = {
        [POLICY_MODE_OFF] = "off",
        [POLICY_MODE_OBSERVE] = "observe",
        [POLICY_MODE_AUTO] = "auto",
};

static const char *const state_names[POLICY_STATE_MAX] = {
        [POLICY_RUNNING] = "running",
        [POLICY_BOOTING] = "booting",
        [POLICY_MIGRATING] = "migrating",
        [POLICY_PAUSED] = "paused",
};

static const char *const action_names[POLICY_ACTION_MAX] = {
        [POLICY_KEEP] = "keep",
        [POLICY_GROW] = "grow",
        [POLICY_SHRINK] = "shrink",
};

static const char *const rule_names[POLICY_RULE_MAX_VALUE] = {
        [POLICY_RULE_NONE] = "none",
        [POLICY_RULE_BELOW_MIN] = "below-min",
        [POLICY_RULE_PRESSURE] = "pressure",
        [POLICY_RULE_DEMAND] = "demand",
        [POLICY_RULE_DESIRED] = "desired",
        [POLICY_RULE_EQUAL_RATIO] = "equal-ratio",
        [POLICY_RULE_OTHERS_NEED] = "others-need",
        [POLICY_RULE_ABOVE_SHARE] = "above-share",
        [POLICY_RULE_HOST_PRESSURE] = "host-pressure",
        [POLICY_RULE_IDLE] = "idle",
        [POLICY_RULE_CUSHION] = "cushion",
        [POLICY_RULE_ENOUGH] = "enough",
        [POLICY_RULE_MODE] = "mode",
        [POLICY_RULE_STATE] = "state",
        [POLICY_RULE_BUSY] = "busy",
        [POLICY_RULE_STALE] = "stale",
        [POLICY_RULE_REFUSED] = "refused",
        [POLICY_RULE_DEBT] = "debt",
        [POLICY_RULE_MIN] = "min",
        [POLICY_RULE_MAX] = "max",
        [POLICY_RULE_SHARE] = "share",
        [POLICY_RULE_POOL] = "pool",
        [POLICY_RULE_FREE_FIRST] = "free-first",
        [POLICY_RULE_CHEAP] = "cheap",
        [POLICY_RULE_QUIET] = "quiet",
        [POLICY_RULE_STEP] = "step",
        [POLICY_RULE_HYSTERESIS] = "hysteresis",
        [POLICY_RULE_IN_USE] = "in-use",
        [POLICY_RULE_FAILED] = "failed",
        [POLICY_RULE_NO_SIZE] = "no-size",
};

static const char *to_string(const char *const *names, int n, int value)
{
        return value >= 0 && value < n ? names[value] : NULL;
}

static int from_string(const char *const *names, int n, const char *s)
{
        for (int i = 0; s && i < n; i++)
                if (strcmp(names[i], s) == 0)
                        return i;
        return -1;
}

const char *policy_mode_to_string(enum policy_mode m)
{
        return to_string(mode_names, POLICY_MODE_MAX, m);
}

enum policy_mode policy_mode_from_string(const char *s)
{
        return from_string(mode_names, POLICY_MODE_MAX, s);
}

const char *policy_state_to_string(enum policy_state s)
{
        return to_string(state_names, POLICY_STATE_MAX, s);
}

enum policy_state policy_state_from_string(const char *s)
{
        return from_string(state_names, POLICY_STATE_MAX, s);
}

const char *policy_action_to_string(enum policy_action a)
{
        return to_string(action_names, POLICY_ACTION_MAX, a);
}

const char *policy_rule_to_string(enum policy_rule r)
{
        return to_string(rule_names, POLICY_RULE_MAX_VALUE, r);
}
