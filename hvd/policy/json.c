/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Inputs as JSON and back. One table for each struct drives both ways, so that what is written is what is
 * read: a record that lost a figure would be decided otherwise. */

#include "hvd/policy/json.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"

struct field {
        const char *key;
        size_t offset; /* of a uint64_t */
        uint64_t max;
        size_t has_offset; /* of the bool that says whether there is one; 0: always */
};

#define CONFIG(f)  offsetof(struct policy_config, f), POLICY_USEC_MAX
#define POOL(f)    offsetof(struct policy_pool, f)
#define PART(f)    offsetof(struct policy_partition, f)
#define SAMPLE(f)  offsetof(struct policy_sample, f)
#define HISTORY(f) offsetof(struct policy_history, f)

static const struct field config_fields[] = {
        { "headroom_permille", CONFIG(headroom_permille) },
        { "headroom_min_bytes", CONFIG(headroom_min_bytes) },
        { "horizon_usec", CONFIG(horizon_usec) },
        { "pressure_permille", CONFIG(pressure_permille) },
        { "idle_tax_permille", CONFIG(idle_tax_permille) },
        { "quiet_usec", CONFIG(quiet_usec) },
        { "step_usec", CONFIG(step_usec) },
        { "fresh_usec", CONFIG(fresh_usec) },
        { "refusal_usec", CONFIG(refusal_usec) },
        { "refusal_max_usec", CONFIG(refusal_max_usec) },
        { "cushion_permille", CONFIG(cushion_permille) },
        { "host_pressure_permille", CONFIG(host_pressure_permille) },
        { "host_relief_permille", CONFIG(host_relief_permille) },
        { 0 },
};

static const struct field pool_fields[] = {
        { "total_bytes", POOL(total_bytes), POLICY_BYTES_MAX },
        { "reserve_bytes", POOL(reserve_bytes), POLICY_BYTES_MAX },
        { "reserved_bytes", POOL(reserved_bytes), POLICY_BYTES_MAX },
        { "host_some_permille", POOL(host_some_permille), 1000 },
        { 0 },
};

static const struct field partition_fields[] = {
        { "min_bytes", PART(min_bytes), POLICY_BYTES_MAX },
        { "desired_bytes", PART(desired_bytes), POLICY_BYTES_MAX },
        { "max_bytes", PART(max_bytes), POLICY_BYTES_MAX },
        { "current_bytes", PART(current_bytes), POLICY_BYTES_MAX },
        { "floor_bytes", PART(floor_bytes), POLICY_BYTES_MAX },
        { "granule_bytes", PART(granule_bytes), POLICY_BYTES_MAX },
        { "claimed_bytes", PART(claimed_bytes), POLICY_BYTES_MAX },
        { "leaving_bytes", PART(leaving_bytes), POLICY_BYTES_MAX },
        { "changed_usec", PART(changed_usec), POLICY_USEC_MAX },
        { "resident_bytes", PART(resident_bytes), POLICY_BYTES_MAX, PART(has_resident) },
        { 0 },
};

/* See policy_sample_bound(). */
static const struct field sample_fields[] = {
        { "taken_usec", SAMPLE(taken_usec), POLICY_USEC_MAX },
        { "available_bytes", SAMPLE(available_bytes), POLICY_BYTES_MAX },
        { "some_permille", SAMPLE(some_permille), 1000 },
        { "full_permille", SAMPLE(full_permille), 1000 },
        { "refault_bytes_per_sec", SAMPLE(refault_bytes_per_sec), POLICY_BYTES_MAX },
        { "swap_in_bytes_per_sec", SAMPLE(swap_in_bytes_per_sec), POLICY_BYTES_MAX },
        { "removable_bytes", SAMPLE(removable_bytes), POLICY_BYTES_MAX, SAMPLE(has_removable) },
        { 0 },
};

static const struct field history_fields[] = {
        { "used_bytes", HISTORY(used_bytes), INT64_MAX },
        { "used_usec", HISTORY(used_usec), POLICY_USEC_MAX },
        { "rise_bytes_per_sec", HISTORY(rise_bytes_per_sec), INT64_MAX },
        { "held_bytes", HISTORY(held_bytes[0]), INT64_MAX },
        { "held_before_bytes", HISTORY(held_bytes[1]), INT64_MAX },
        { "held_usec", HISTORY(held_usec), POLICY_USEC_MAX },
        { "grown_usec", HISTORY(grown_usec), POLICY_USEC_MAX },
        { "asked_usec", HISTORY(asked_usec), POLICY_USEC_MAX },
        { "asked_used_bytes", HISTORY(asked_used_bytes), INT64_MAX },
        { "asked_in_use_bytes", HISTORY(asked_in_use_bytes), INT64_MAX },
        { "asked_taxed_bytes", HISTORY(asked_taxed_bytes), INT64_MAX },
        { "asked_least_bytes", HISTORY(asked_least_bytes), INT64_MAX },
        { "shrunk_usec", HISTORY(shrunk_usec), POLICY_USEC_MAX },
        { "shrunk_used_bytes", HISTORY(shrunk_used_bytes), INT64_MAX },
        { "shrunk_in_use_bytes", HISTORY(shrunk_in_use_bytes), INT64_MAX },
        { "n_refusals", HISTORY(n_refusals), INT64_MAX },
        { "refused_usec", HISTORY(refused_usec), POLICY_USEC_MAX },
        { "n_denials", HISTORY(n_denials), INT64_MAX },
        { "denied_usec", HISTORY(denied_usec), POLICY_USEC_MAX },
        { 0 },
};

static const struct field decision_fields[] = {
        { "target_bytes", offsetof(struct policy_decision, target_bytes) },
        { "used_bytes", offsetof(struct policy_decision, used_bytes) },
        { "cache_bytes", offsetof(struct policy_decision, cache_bytes) },
        { "pressed_bytes", offsetof(struct policy_decision, pressed_bytes) },
        { "headroom_bytes", offsetof(struct policy_decision, headroom_bytes) },
        { "want_bytes", offsetof(struct policy_decision, want_bytes) },
        { "share_bytes", offsetof(struct policy_decision, share_bytes) },
        { "weight_bytes", offsetof(struct policy_decision, weight_bytes) },
        { 0 },
};

/* --- writing --- */

static int add_fields(struct json_object *o, const struct field *fields, const void *s)
{
        for (const struct field *f = fields; f->key; f++) {
                if (f->has_offset > 0 && !*(const bool *)((const char *)s + f->has_offset))
                        continue;
                int r = json_add_u64(o, f->key, *(const uint64_t *)((const char *)s + f->offset));
                if (r < 0)
                        return r;
        }
        return 0;
}

/* A new object in parent, borrowed; NULL: out of memory. */
static struct json_object *add_object(struct json_object *parent, const char *key)
{
        struct json_object *o = json_object_new_object();

        return json_add(parent, key, o) < 0 ? NULL : o;
}

static int add_struct(struct json_object *parent, const char *key, const struct field *fields, const void *s)
{
        struct json_object *o = add_object(parent, key);

        return o ? add_fields(o, fields, s) : -ENOMEM;
}

static int add_partition(
        struct json_object *array, const struct policy_partition *p, const struct policy_history *h)
{
        struct json_object *o = json_object_new_object();

        if (json_array_add(array, o) < 0 || json_add_string(o, "name", p->name) < 0 ||
                json_add_string(o, "mode", policy_mode_to_string(p->mode)) < 0 ||
                json_add_string(o, "state", policy_state_to_string(p->state)) < 0 ||
                json_add_u64(o, "weight", p->weight) < 0 || json_add_bool(o, "is_busy", p->is_busy) < 0 ||
                (p->has_failed && json_add_bool(o, "has_failed", true) < 0) ||
                (p->has_no_size && json_add_bool(o, "has_no_size", true) < 0) ||
                add_fields(o, partition_fields, p) < 0 ||
                add_struct(o, "sample", sample_fields, &p->sample) < 0 ||
                add_struct(o, "history", history_fields, h) < 0)
                return -ENOMEM;
        return 0;
}

int policy_input_to_json(const struct policy_input *in, struct json_object **ret)
{
        _cleanup_json_ struct json_object *o = json_object_new_object();
        struct json_object *array = json_object_new_array();

        if (!o || json_add(o, "partitions", array) < 0)
                return -ENOMEM;
        if (json_add_u64(o, "now_usec", in->now_usec) < 0 ||
                add_struct(o, "config", config_fields, &in->config) < 0 ||
                add_struct(o, "pool", pool_fields, &in->pool) < 0)
                return -ENOMEM;
        for (size_t i = 0; i < in->n_partitions; i++)
                if (add_partition(array, &in->partitions[i], &in->history[i]) < 0)
                        return -ENOMEM;
        *ret = steal_pointer(o);
        return 0;
}

int policy_decision_to_json(const char *name, const struct policy_decision *d, struct json_object **ret)
{
        _cleanup_json_ struct json_object *o = json_object_new_object();

        if (!o || json_add_string(o, "partition", name) < 0 ||
                json_add_string(o, "action", policy_action_to_string(d->action)) < 0 ||
                json_add_string(o, "cause", policy_rule_to_string(d->cause)) < 0 ||
                json_add_string(o, "bound", policy_rule_to_string(d->bound)) < 0 ||
                add_fields(o, decision_fields, d) < 0)
                return -ENOMEM;
        *ret = steal_pointer(o);
        return 0;
}

/* --- reading --- */

static int bad_key(struct error *ret_error, const char *where, const char *key, const char *right)
{
        return error_set(ret_error, ERROR_INVALID_ARGUMENT, "The record's %s has no valid %s; it is %s",
                where, key, right);
}

static int get_fields(struct json_object *o, const char *where, const struct field *fields, void *s,
        struct error *ret_error)
{
        for (const struct field *f = fields; f->key; f++) {
                int r = json_get_u64(o, f->key, f->max, (uint64_t *)((char *)s + f->offset));
                if (r == -ENOENT && f->has_offset > 0)
                        continue;
                if (r < 0)
                        return bad_key(ret_error, where, f->key, "a whole number within its range");
                if (f->has_offset > 0)
                        *(bool *)((char *)s + f->has_offset) = true;
        }
        return 0;
}

static int get_struct(struct json_object *parent, const char *key, const struct field *fields, void *s,
        struct error *ret_error)
{
        struct json_object *o;

        if (json_get_object(parent, key, &o) < 0)
                return bad_key(ret_error, "input", key, "an object");
        return get_fields(o, key, fields, s, ret_error);
}

static int get_partition(
        struct json_object *o, struct policy_partition *p, struct policy_history *h, struct error *ret_error)
{
        const char *name, *mode, *state;
        uint64_t weight;

        if (json_get_string(o, "name", &name) < 0 || strlen(name) >= sizeof(p->name))
                return bad_key(ret_error, "partition", "name", "a string of less than 64 bytes");
        strcpy(p->name, name);
        if (json_get_string(o, "mode", &mode) < 0 || policy_mode_from_string(mode) < 0)
                return bad_key(ret_error, name, "mode", "off, observe or auto");
        p->mode = policy_mode_from_string(mode);
        if (json_get_string(o, "state", &state) < 0 || policy_state_from_string(state) < 0)
                return bad_key(ret_error, name, "state", "running, booting, migrating or paused");
        p->state = policy_state_from_string(state);
        if (json_get_u64(o, "weight", 255, &weight) < 0 || weight == 0)
                return bad_key(ret_error, name, "weight", "1 to 255");
        p->weight = (unsigned)weight;
        if (json_get_bool(o, "is_busy", &p->is_busy) < 0)
                return bad_key(ret_error, name, "is_busy", "true or false");
        /* Left out where false. */
        int r = json_get_bool(o, "has_failed", &p->has_failed);
        if (r >= 0 || r == -ENOENT)
                r = json_get_bool(o, "has_no_size", &p->has_no_size);
        if (r < 0 && r != -ENOENT)
                return bad_key(ret_error, name, "has_failed or has_no_size", "true or false");
        r = get_fields(o, name, partition_fields, p, ret_error);
        if (r >= 0 && p->granule_bytes == 0)
                r = bad_key(ret_error, name, "granule_bytes", "more than 0");
        if (r >= 0)
                r = get_struct(o, "sample", sample_fields, &p->sample, ret_error);
        if (r >= 0)
                r = get_struct(o, "history", history_fields, h, ret_error);
        return r;
}

static int get_partitions(struct json_object *array, struct policy_record *r, struct error *ret_error)
{
        size_t n = json_object_array_length(array);

        if (n > POLICY_PARTITIONS_MAX)
                return bad_key(ret_error, "input", "partitions", "an array of at most 1024");
        r->partitions = calloc(n + 1, sizeof(*r->partitions));
        r->history = calloc(n + 1, sizeof(*r->history));
        if (!r->partitions || !r->history)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        for (size_t i = 0; i < n; i++) {
                struct json_object *o = json_object_array_get_idx(array, i);

                if (!json_object_is_type(o, json_type_object))
                        return bad_key(ret_error, "input", "partitions", "an array of objects");
                int k = get_partition(o, &r->partitions[i], &r->history[i], ret_error);
                if (k < 0)
                        return k;
        }
        r->input.partitions = r->partitions;
        r->input.history = r->history;
        r->input.n_partitions = n;
        return 0;
}

int policy_input_from_json(struct json_object *o, struct policy_record *ret, struct error *ret_error)
{
        struct policy_record record = { 0 };
        struct json_object *array;
        int r = 0;

        if (json_get_u64(o, "now_usec", POLICY_USEC_MAX, &record.input.now_usec) < 0)
                r = bad_key(ret_error, "input", "now_usec", "a whole number");
        else if (json_get_array(o, "partitions", &array) < 0)
                r = bad_key(ret_error, "input", "partitions", "an array");
        if (r >= 0)
                r = get_struct(o, "config", config_fields, &record.input.config, ret_error);
        if (r >= 0 && policy_config_check(&record.input.config))
                r = bad_key(ret_error, "config", policy_config_check(&record.input.config)->name,
                        "within the range of hvd.conf(5)");
        if (r >= 0)
                r = get_struct(o, "pool", pool_fields, &record.input.pool, ret_error);
        if (r >= 0)
                r = get_partitions(array, &record, ret_error);
        if (r < 0) {
                policy_record_done(&record);
                return r;
        }
        *ret = record;
        return 0;
}

void policy_record_done(struct policy_record *r)
{
        free(r->partitions);
        free(r->history);
        *r = (struct policy_record) { 0 };
}
