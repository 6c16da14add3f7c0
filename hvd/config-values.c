/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The keys that there are, and what their values may be. */

#include "hvd/config-internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"
#include "common/text.h"
#include "hooks/hooks.h"

static int parse_level(const struct key *key, const char *value, void *field, struct error *ret_error)
{
        int level = log_level_from_string(value);

        if (level < 0)
                return error_set(ret_error, ERROR_CONFIG,
                        "'%.40s' is no log level; write error, warning, notice, info or debug", value);
        *(int *)field = level;
        return 0;
}

static int parse_span(const struct key *key, const char *value, void *field, struct error *ret_error)
{
        return timespan_parse(value, field, ret_error);
}

/* The key's limits are milliseconds. */
static int parse_span_within(const struct key *key, const char *value, void *field, struct error *ret_error)
{
        uint64_t usec;
        int r = timespan_parse(value, &usec, ret_error);

        if (r < 0)
                return r;
        if (usec < key->min * USEC_PER_MSEC || usec > key->max * USEC_PER_MSEC)
                return error_set(ret_error, ERROR_CONFIG, "'%.40s' is out of range; write %ums to %us", value,
                        key->min, key->max / 1000);
        *(uint64_t *)field = usec;
        return 0;
}

static int parse_size(const struct key *key, const char *value, void *field, struct error *ret_error)
{
        return size_parse(value, field, ret_error);
}

static int parse_size_or_zero(const struct key *key, const char *value, void *field, struct error *ret_error)
{
        if (strcmp(value, "0") != 0)
                return size_parse(value, field, ret_error);
        *(uint64_t *)field = 0;
        return 0;
}

static int parse_size_or_auto(const struct key *key, const char *value, void *field, struct error *ret_error)
{
        if (strcmp(value, "auto") != 0)
                return size_parse(value, field, ret_error);
        *(uint64_t *)field = 0;
        return 0;
}

static int parse_count(const struct key *key, const char *value, void *field, struct error *ret_error)
{
        size_t length = strspn(value, "0123456789");
        unsigned long v =
                length > 0 && length < 10 && value[length] == '\0' ? strtoul(value, NULL, 10) : ULONG_MAX;

        if (v < key->min || v > key->max)
                return error_set(ret_error, ERROR_CONFIG, "'%.40s' is not a whole number from %u to %u",
                        value, key->min, key->max);
        *(unsigned *)field = (unsigned)v;
        return 0;
}

static int parse_socket(const struct key *key, const char *value, void *field, struct error *ret_error)
{
        return partition_socket_parse(value, field, ret_error);
}

static int parse_libvirt_use(const struct key *key, const char *value, void *field, struct error *ret_error)
{
        static const char *const names[] = {
                [LIBVIRT_AUTO] = "auto", [LIBVIRT_YES] = "yes", [LIBVIRT_NO] = "no"
        };

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (strcmp(value, names[i]) == 0) {
                        *(enum libvirt_use *)field = (enum libvirt_use)i;
                        return 0;
                }
        return error_set(ret_error, ERROR_CONFIG, "'%.40s' is not known; write auto, yes or no", value);
}

static int parse_uri(const struct key *key, const char *value, void *field, struct error *ret_error)
{
        if (strlen(value) > LIBVIRT_URI_MAX || !text_is_printable(value) || !strstr(value, "://"))
                return error_set(ret_error, ERROR_CONFIG,
                        "'%.60s' is no URI of libvirt's of at most %u bytes; write one as in qemu:///system",
                        value, LIBVIRT_URI_MAX);
        strcpy(field, value);
        return 0;
}

static int parse_folder(const struct key *key, const char *value, void *field, struct error *ret_error)
{
        if (value[0] != '/' || strlen(value) > HOOKS_FOLDER_MAX)
                return error_set(ret_error, ERROR_CONFIG,
                        "'%.40s' is no absolute path of at most %u bytes; write it from the root, as "
                        "in " HOOKS_HOST_FOLDER,
                        value, HOOKS_FOLDER_MAX);
        strcpy(field, value);
        return 0;
}

static int parse_policy_mode(const struct key *key, const char *value, void *field, struct error *ret_error)
{
        enum policy_mode mode = policy_mode_from_string(value);

        if (mode < 0)
                return error_set(ret_error, ERROR_CONFIG,
                        "'%.40s' is no mode of the policy; write off, observe or auto", value);
        *(enum policy_mode *)field = mode;
        return 0;
}

static int parse_policy(const struct key *key, const char *value, void *field, struct error *ret_error)
{
        return policy_setting_parse(key->name, value, field, ret_error);
}

#define HVD_FIELD(f)       .offset = offsetof(struct config, f)
#define PARTITION_FIELD(f) .offset = offsetof(struct partition_definition, f)

const struct section config_hvd_sections[] = {
        {
                .name = "hvd",
                .keys =
                        (const struct key[]) {
                                { "log_level", parse_level, HVD_FIELD(log_level) },
                                { "job_wait", parse_span, HVD_FIELD(job_wait_usec) },
                                { "block_attempt", parse_span, HVD_FIELD(block_attempt_usec) },
                                { "retry_after", parse_span, HVD_FIELD(retry_after_usec) },
                                { "pool_total", parse_size_or_auto, HVD_FIELD(pool_total_bytes) },
                                { "pool_reserve", parse_size_or_zero, HVD_FIELD(pool_reserve_bytes) },
                                { "jobs_kept", parse_count, HVD_FIELD(jobs_kept), .min = 1, .max = 1000000 },
                                { "jobs_queued", parse_count, HVD_FIELD(jobs_queued), .min = 1, .max = 256 },
                                { "hooks", parse_folder, HVD_FIELD(hooks_folder) },
                                { "hook_limit", parse_span, HVD_FIELD(hook_limit_usec) },
                                { 0 },
                        },
        },
        {
                .name = "libvirt",
                .keys =
                        (const struct key[]) {
                                { "enabled", parse_libvirt_use, HVD_FIELD(libvirt) },
                                { "uri", parse_uri, HVD_FIELD(libvirt_uri) },
                                { 0 },
                        },
        },
        {
                .name = "policy",
                .keys =
                        (const struct key[]) {
                                { "mode", parse_policy_mode, HVD_FIELD(policy_mode) },
                                { "period", parse_span_within, HVD_FIELD(policy_period_usec), .min = 100,
                                        .max = 60000 },
                                { "sample", parse_span_within, HVD_FIELD(policy_sample_usec), .min = 100,
                                        .max = 60000 },
                                { "headroom", parse_policy, HVD_FIELD(policy) },
                                { "headroom_min", parse_policy, HVD_FIELD(policy) },
                                { "horizon", parse_policy, HVD_FIELD(policy) },
                                { "pressure", parse_policy, HVD_FIELD(policy) },
                                { "idle_tax", parse_policy, HVD_FIELD(policy) },
                                { "quiet", parse_policy, HVD_FIELD(policy) },
                                { "step", parse_policy, HVD_FIELD(policy) },
                                { "fresh", parse_policy, HVD_FIELD(policy) },
                                { "refusal", parse_policy, HVD_FIELD(policy) },
                                { "refusal_max", parse_policy, HVD_FIELD(policy) },
                                { "cushion", parse_policy, HVD_FIELD(policy) },
                                { "host_pressure", parse_policy, HVD_FIELD(policy) },
                                { "host_relief", parse_policy, HVD_FIELD(policy) },
                                { 0 },
                        },
        },
        { 0 }
};

const struct section config_partition_sections[] = {
        {
                .name = "partition",
                .keys =
                        (const struct key[]) {
                                { "qmp", parse_socket, PARTITION_FIELD(qmp_path), .required = true },
                                { "channel", parse_socket, PARTITION_FIELD(channel_path), .required = true },
                                { "min", parse_size, PARTITION_FIELD(profile.min_bytes) },
                                { "desired", parse_size, PARTITION_FIELD(profile.desired_bytes) },
                                { "max", parse_size, PARTITION_FIELD(profile.max_bytes) },
                                { "weight", parse_count, PARTITION_FIELD(profile.weight), .min = 1,
                                        .max = PARTITION_WEIGHT_MAX },
                                { 0 },
                        },
        },
        { 0 }
};
