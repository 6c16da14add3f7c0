/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/json.h"
#include "hmc-cli/cli.h"

/* Writes what comes from a guest or from argv, without its terminal escapes and broken UTF-8; see
 * text_clean(). */
void text_put(FILE *f, const char *s);

#define TEXT_FORMAT_MAX 48
/* A size for reading: exact where that is short ("1.5 GiB"), else rounded ("2.93 GiB"); "0" for none. */
const char *text_size(uint64_t bytes, char buffer[static TEXT_FORMAT_MAX]);
#define TEXT_SIZE(bytes) text_size((bytes), (char[TEXT_FORMAT_MAX]) { 0 })
/* "0.24 s", "20.0 s", "2 min 5 s", "1 h 10 min". */
const char *text_span(uint64_t usec, char buffer[static TEXT_FORMAT_MAX]);
#define TEXT_SPAN(usec) text_span((usec), (char[TEXT_FORMAT_MAX]) { 0 })

/* "PoolTotal" -> "pool_total". Writes at most size bytes with the NUL. */
void text_snake_case(const char *name, char *buffer, size_t size);

/* Fields of what hvd sent, with 0 or "" where it lacks one: a newer or older hvd must not break a table. */
uint64_t field_u64(struct json_object *o, const char *key);
int64_t field_i64(struct json_object *o, const char *key);
bool field_bool(struct json_object *o, const char *key);
double field_double(struct json_object *o, const char *key);
const char *field_string(struct json_object *o, const char *key);
/* NULL if there is no such array. */
struct json_object *field_array(struct json_object *o, const char *key);

/* One JSON value and a newline on stdout; indented on a terminal. */
void output_json(struct json_object *o);

/* Says an error: the sentence on stderr, and with -o json {"error":{"code","message"}} on stdout. Returns
 * exit_code. */
int output_fail(const struct cli *cli, int exit_code, const char *code, const char *format, ...)
        _printf_(4, 5);
/* output_fail() for a failed allocation or the like on our side. */
int output_fail_errno(const struct cli *cli, int r);

/* Tables. Cells are set row by row. */
struct libscols_table;
struct output_column {
        const char *name;
        bool right;
        bool truncate; /* to fit a terminal */
};
#define OUTPUT_COLUMNS_MAX 12

/* Prints n_rows rows of n_columns cells to f; cells are borrowed, NULL reads "-". 0 or -errno. */
int output_table(FILE *f, const struct output_column *columns, size_t n_columns, const char *const *cells,
        size_t n_rows);

/* A growing set of cells that it owns, row after row. */
struct output_cells {
        char **cells;
        size_t n, allocated;
        bool oom;
};
void output_cells_done(struct output_cells *c);
/* Appends a cell; "" reads "-". */
void output_cell(struct output_cells *c, const char *format, ...) _printf_(2, 3);
/* Prints them; -ENOMEM also when a cell could not be kept. */
int output_cells_print(
        FILE *f, const struct output_column *columns, size_t n_columns, struct output_cells *c);

/* A line of a sheet: a label, and a value or "-". */
void output_line(FILE *f, const char *label, const char *value);
