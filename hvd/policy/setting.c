/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Values of [policy], as people write them: for hvd.conf and for hvd-sim. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/policy/policy.h"

static int parse_permille(const char *value, uint64_t *ret, struct error *ret_error)
{
        size_t length = strspn(value, "0123456789");

        if (length == 0 || length > 9 || value[length] != '\0')
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "'%.40s' is no whole number of thousandths", value);
        *ret = strtoull(value, NULL, 10);
        return 0;
}

static int parse(enum policy_unit unit, const char *value, uint64_t *ret, struct error *ret_error)
{
        if (strcmp(value, "0") == 0) {
                *ret = 0;
                return 0;
        }
        switch (unit) {
        case POLICY_UNIT_BYTES:
                return size_parse(value, ret, ret_error);
        case POLICY_UNIT_USEC:
                return timespan_parse(value, ret, ret_error);
        default:
                return parse_permille(value, ret, ret_error);
        }
}

static void describe(enum policy_unit unit, uint64_t value, size_t size, char *ret)
{
        if (unit == POLICY_UNIT_BYTES && value > 0)
                snprintf(ret, size, "%s", SIZE_EXACT(value));
        else if (unit == POLICY_UNIT_USEC && value > 0)
                snprintf(ret, size, "%" PRIu64 "s", value / USEC_PER_SEC);
        else
                snprintf(ret, size, "%" PRIu64, value);
}

int policy_setting_parse(
        const char *name, const char *value, struct policy_config *ret, struct error *ret_error)
{
        const struct policy_config_key *key = policy_config_keys();
        char min[SIZE_FORMAT_MAX], max[SIZE_FORMAT_MAX];
        uint64_t v;

        while (key->name && strcmp(key->name, name) != 0)
                key++;
        if (!key->name)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "There is no setting '%.40s' of the policy; see hvd.conf(5)", name);
        int r = parse(key->unit, value, &v, ret_error);
        if (r < 0)
                return r;
        if (v < key->min || v > key->max) {
                describe(key->unit, key->min, sizeof(min), min);
                describe(key->unit, key->max, sizeof(max), max);
                return error_set(ret_error, ERROR_INVALID_ARGUMENT, "'%.40s' is out of range; write %s to %s",
                        value, min, max);
        }
        *(uint64_t *)((char *)ret + key->offset) = v;
        return 0;
}
