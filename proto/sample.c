/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a sample holds and when it is sent: the part of message.c that is about that. */

#include <string.h>

#include "common/cleanup.h"
#include "proto/codec.h"

#define BAD(ret_error, ...) error_set((ret_error), ERROR_AGENT_MISBEHAVED, __VA_ARGS__)

static const char *const cause_names[SAMPLE_CAUSE_MAX] = {
        [SAMPLE_ASKED] = "asked",
        [SAMPLE_PERIODIC] = "periodic",
        [SAMPLE_CHANGE] = "change",
        [SAMPLE_HEADROOM] = "headroom",
        [SAMPLE_PRESSURE] = "pressure",
};

#define FIELD(member, end) #member, offsetof(struct guest_sample, member), 0, end - 1, 0
const struct u64_field sample_fields[] = {
        { FIELD(total_bytes, PROTO_ADDRESS_MAX) },
        { FIELD(available_bytes, PROTO_ADDRESS_MAX) },
        { FIELD(free_bytes, PROTO_ADDRESS_MAX) },
        { FIELD(movable_bytes, PROTO_ADDRESS_MAX) },
        { FIELD(movable_free_bytes, PROTO_ADDRESS_MAX) },
        { FIELD(movable_cache_bytes, PROTO_ADDRESS_MAX) },
        { FIELD(margin_bytes, PROTO_ADDRESS_MAX) },
        { FIELD(refault_file_bytes, PROTO_COUNTER_END) },
        { FIELD(refault_anon_bytes, PROTO_COUNTER_END) },
        { FIELD(swap_in_bytes, PROTO_COUNTER_END) },
        { FIELD(swap_out_bytes, PROTO_COUNTER_END) },
};
const size_t n_sample_fields = ARRAY_SIZE(sample_fields);

const struct u64_field stall_fields[] = {
        { FIELD(some_total_usec, PROTO_COUNTER_END) },
        { FIELD(full_total_usec, PROTO_COUNTER_END) },
};
#undef FIELD
const size_t n_stall_fields = ARRAY_SIZE(stall_fields);

const char *sample_cause_to_string(enum sample_cause c)
{
        return c >= 0 && c < SAMPLE_CAUSE_MAX ? cause_names[c] : NULL;
}

enum sample_cause sample_cause_from_string(const char *s)
{
        for (enum sample_cause c = 0; s && c < SAMPLE_CAUSE_MAX; c++)
                if (strcmp(cause_names[c], s) == 0)
                        return c;
        return SAMPLE_CAUSE_INVALID;
}

int check_sampling(const struct sampling *s, struct error *ret_error)
{
        if (s->interval_msec > 0 && s->interval_msec < PROTO_INTERVAL_MIN_MSEC)
                return BAD(
                        ret_error, "'interval_msec' is neither 0 nor at least %u", PROTO_INTERVAL_MIN_MSEC);
        if (s->interval_max_msec < s->interval_msec)
                return BAD(ret_error, "'interval_max_msec' is below 'interval_msec'");
        if (s->stall_msec > s->window_msec)
                return BAD(ret_error, "'stall_msec' is above 'window_msec'");
        return 0;
}

int check_sample(const struct guest_sample *s, struct error *ret_error)
{
        if (!sample_cause_to_string(s->cause))
                return BAD(ret_error, "'cause' is unknown");
        int r = check_fields(sample_fields, n_sample_fields, 0, s, ret_error);
        if (r < 0 || !s->has_pressure)
                return r;
        if (s->some_avg10_centi > 10000 || s->full_avg10_centi > 10000)
                return BAD(ret_error, "'pressure' is above 100 percent");
        return check_fields(stall_fields, n_stall_fields, 0, s, ret_error);
}
