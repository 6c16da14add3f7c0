/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tests/fakes/fake.h"

/* What fake.c needs to know of a protocol. */

struct fake_output {
        char *data;
        size_t length, allocated;
};

/* A word that stands for several lines of script. */
struct fake_macro {
        const char *name, *lines;
};

struct fake_dialect {
        bool resync; /* the peer's lines may begin with 0xFF */
        size_t line_max;
        const struct fake_macro *macros; /* up to a NULL name */
        /* The name of a message as scripts call it and what it carries, both borrowed. False: not of this
         * protocol. */
        bool (*classify)(
                struct json_object *message, const char **ret_name, struct json_object **ret_arguments);
        /* A message was taken by "expect" or an order. False: fake_fail() was called. May be NULL. */
        bool (*on_taken)(struct fake *f, struct json_object *message);
        /* Builds what the step sends by fake_output_*(). request: what is answered, may be NULL. 0: no such
         * verb; 1: done; -1: fake_fail() was called. */
        int (*build)(struct fake *f, const char *verb, const char *rest, struct json_object *request,
                struct fake_output *out);
};

int fake_new(sd_event *event, const char *socket, const struct fake_dialect *dialect, void *state,
        const char *script, struct fake **ret);
void *fake_state(struct fake *f);      /* freed with free() by fake_free() */
unsigned fake_n_marks(struct fake *f); /* 0xFF bytes seen on this connection */
void fake_fail(struct fake *f, const char *format, ...) _printf_(2, 3);

/* Aborts on NULL: a test's tool has no better answer to want of memory. */
void *fake_must(void *p);
void fake_output_bytes(struct fake_output *out, const void *data, size_t length);
/* One line; takes ownership. */
void fake_output_json(struct fake_output *out, struct json_object *o);
void fake_output_raw(struct fake_output *out, const char *text); /* with escapes */
/* The length of the object or array that the text begins with, or 0. */
size_t fake_json_span(const char *text);
/* Every key of wanted, at every depth, is in o with a value that contains it; what is no object must be
 * equal. */
bool fake_contains(struct json_object *o, struct json_object *wanted);
/* A step's JSON argument: NULL and true if there is none; false: fake_fail() was called. The caller owns
 * *ret. */
bool fake_parse_json(struct fake *f, const char *text, struct json_object **ret);
/* Takes one word off the text. */
const char *fake_take_word(const char *text, char *word, size_t size);
/* Sets base's keys to those of overrides (borrowed, may be NULL). */
void fake_merge(struct json_object *base, struct json_object *overrides);
