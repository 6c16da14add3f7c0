/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "proto/message.h"

/* What encode.c and decode.c share: the shape of each message and the one check of its values. */

/* What a request of an op carries, and what its reply must. */
enum {
        REQUEST_TARGETS = 1 << 0,
        REQUEST_ZONE = 1 << 1,
        REQUEST_BYTES = 1 << 2,
        REQUEST_FROM = 1 << 3,
        REQUEST_DEADLINE = 1 << 4,
        REQUEST_ATTEMPT = 1 << 5,
        REQUEST_TARGET_ID = 1 << 6,
        REPLY_MEMORY = 1 << 7,
        REPLY_RANGES = 1 << 8,
        REPLY_COMPLETE = 1 << 9,
        REPLY_SURVEYS = 1 << 10,
        REPLY_ASSISTANCE = 1 << 11,
        REQUEST_HOOK = 1 << 12,
        REPLY_HOOKS = 1 << 13,
        REQUEST_SAMPLING = 1 << 14,
        REPLY_SAMPLE = 1 << 15,
};
unsigned op_shape(enum op op);

/* A uint64_t of a struct under its JSON key. In a request it is there if op_shape() has the flag. */
struct u64_field {
        const char *key;
        size_t offset;
        uint64_t min, max;
        unsigned flag;
};
extern const struct u64_field request_fields[];
extern const size_t n_request_fields;
extern const struct u64_field memory_fields[];
extern const size_t n_memory_fields;
extern const struct u64_field assistance_fields[];
extern const size_t n_assistance_fields;

extern const struct u64_field sample_fields[];
extern const size_t n_sample_fields;
extern const struct u64_field stall_fields[]; /* of its pressure */
extern const size_t n_stall_fields;

const char *message_type_to_string(enum message_type t);
enum message_type message_type_from_string(const char *s);
bool message_type_has_session(enum message_type t);
bool message_type_has_id(enum message_type t);
const char *event_type_to_string(enum event_type e);
enum event_type event_type_from_string(const char *s);

/* The code itself if a guest may send it, else the fallback. */
enum error_code guest_error_code(enum error_code code, enum error_code fallback);

/* Checks every value against PROTOCOL.md: 0, or -EPROTO with *ret_error set. Encoder and decoder both end
 * here, so that neither can know a limit that the other does not. */
int message_check(const struct message *m, struct error *ret_error);
/* The parts of it that others of its files have. */
int check_fields(const struct u64_field *fields, size_t n_fields, unsigned shape, const void *base,
        struct error *ret_error);
int check_sampling(const struct sampling *s, struct error *ret_error);
int check_sample(const struct guest_sample *s, struct error *ret_error);
