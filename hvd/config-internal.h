/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/config.h"

/* What a file's reader keeps of each. */
#define KEYS_MAX     20
#define SECTIONS_MAX 3

struct key {
        const char *name;
        int (*parse)(const struct key *key, const char *value, void *field, struct error *ret_error);
        size_t offset; /* of the field in the section's struct */
        bool required;
        unsigned min, max; /* parse_count(), parse_span_within() */
};

struct section {
        const char *name;
        const struct key *keys; /* ends with a NULL name */
};

/* Each ends with a NULL name. Their fields are those of struct config and struct partition_definition. */
extern const struct section config_hvd_sections[], config_partition_sections[];
