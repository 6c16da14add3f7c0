/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* How things are written: text that is safe for a terminal, figures, tables by libsmartcols, JSON by json-c.
 */

#include "hmc-cli/output.h"

#include <inttypes.h>
#include <libsmartcols.h>
#include <locale.h>
#include <stdarg.h>
#include <string.h>

#include "common/size.h"
#include "common/text.h"

static char *clean_copy(const char *s)
{
        size_t size = strlen(s) + 1;
        char *copy = malloc(size);

        if (copy)
                text_clean(copy, size, s);
        return copy;
}

void text_put(FILE *f, const char *s)
{
        _cleanup_free_ char *clean = clean_copy(s);

        fputs(clean ?: "?", f);
}

const char *text_size(uint64_t bytes, char buffer[static TEXT_FORMAT_MAX])
{
        double mib = (double)bytes / (double)MIB;

        if (bytes == 0)
                snprintf(buffer, TEXT_FORMAT_MAX, "0");
        else if (bytes % (64 * MIB) == 0 || bytes < MIB)
                size_format(bytes, buffer);
        else if (mib < 1023.5)
                snprintf(buffer, TEXT_FORMAT_MAX, "%.0f MiB", mib);
        else if (mib < 1023.995 * 1024)
                snprintf(buffer, TEXT_FORMAT_MAX, "%.2f GiB", mib / 1024);
        else
                snprintf(buffer, TEXT_FORMAT_MAX, "%.2f TiB", mib / 1024 / 1024);
        return buffer;
}

const char *text_span(uint64_t usec, char buffer[static TEXT_FORMAT_MAX])
{
        uint64_t seconds;

        if (usec < 9995000)
                snprintf(buffer, TEXT_FORMAT_MAX, "%.2f s", (double)usec / USEC_PER_SEC);
        else if (usec < 59950000)
                snprintf(buffer, TEXT_FORMAT_MAX, "%.1f s", (double)usec / USEC_PER_SEC);
        else if ((seconds = (usec + USEC_PER_SEC / 2) / USEC_PER_SEC) < 3600)
                snprintf(
                        buffer, TEXT_FORMAT_MAX, "%" PRIu64 " min %" PRIu64 " s", seconds / 60, seconds % 60);
        else
                snprintf(buffer, TEXT_FORMAT_MAX, "%" PRIu64 " h %" PRIu64 " min", seconds / 3600,
                        seconds % 3600 / 60);
        return buffer;
}

void text_snake_case(const char *name, char *buffer, size_t size)
{
        size_t n = 0;

        for (const char *p = name; *p && n + 2 < size; p++) {
                bool upper = *p >= 'A' && *p <= 'Z';

                if (upper && p > name)
                        buffer[n++] = '_';
                buffer[n++] = upper ? (char)(*p | 0x20) : *p;
        }
        buffer[n] = '\0';
}

uint64_t field_u64(struct json_object *o, const char *key)
{
        uint64_t v;

        return json_get_u64(o, key, UINT64_MAX, &v) < 0 ? 0 : v;
}

int64_t field_i64(struct json_object *o, const char *key)
{
        struct json_object *v;

        return json_object_object_get_ex(o, key, &v) ? json_object_get_int64(v) : 0;
}

bool field_bool(struct json_object *o, const char *key)
{
        bool v;

        return json_get_bool(o, key, &v) >= 0 && v;
}

double field_double(struct json_object *o, const char *key)
{
        struct json_object *v;

        return json_object_object_get_ex(o, key, &v) ? json_object_get_double(v) : 0;
}

const char *field_string(struct json_object *o, const char *key)
{
        const char *s;

        return json_get_string(o, key, &s) < 0 ? "" : s;
}

struct json_object *field_array(struct json_object *o, const char *key)
{
        struct json_object *a;

        return json_get_array(o, key, &a) < 0 ? NULL : a;
}

void output_json(struct json_object *o)
{
        int flags = JSON_C_TO_STRING_NOSLASHESCAPE |
                    (isatty(STDOUT_FILENO) ? JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED : 0);

        puts(json_object_to_json_string_ext(o, flags));
}

int output_fail(const struct cli *cli, int exit_code, const char *code, const char *format, ...)
{
        char message[2 * ERROR_MESSAGE_MAX];
        va_list ap;

        va_start(ap, format);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        vsnprintf(message, sizeof(message), format, ap);
#pragma GCC diagnostic pop
        va_end(ap);

        _cleanup_free_ char *clean = clean_copy(message);
        if (cli->arg_json) {
                _cleanup_json_ struct json_object *o = json_object_new_object();
                struct json_object *error = json_object_new_object();

                if (json_add_string(error, "code", code) == 0 &&
                        json_add_string(error, "message", clean ?: "out of memory") == 0 &&
                        json_add(o, "error", error) == 0)
                        output_json(o);
                fflush(stdout);
        }
        fprintf(stderr, "%s\n", clean ?: "Out of memory");
        return exit_code;
}

int output_fail_errno(const struct cli *cli, int r)
{
        return output_fail(cli, CLI_FAILED, error_code_name(ERROR_INTERNAL), "hmc-cli cannot go on: %s",
                strerror(abs(r)));
}

static void table_unrefp(struct libscols_table **t)
{
        scols_unref_table(*t);
}

int output_table(FILE *f, const struct output_column *columns, size_t n_columns, const char *const *cells,
        size_t n_rows)
{
        _cleanup_(table_unrefp) struct libscols_table *table = NULL;
        int r;

        /* For the width of names that are not ASCII; numbers keep their decimal point. */
        setlocale(LC_CTYPE, "");
        table = scols_new_table();
        if (!table)
                return -ENOMEM;
        scols_table_set_stream(table, f);
        for (size_t i = 0; i < n_columns; i++) {
                int flags =
                        (columns[i].right ? SCOLS_FL_RIGHT : 0) | (columns[i].truncate ? SCOLS_FL_TRUNC : 0);

                if (!scols_table_new_column(table, columns[i].name, 0, flags))
                        return -ENOMEM;
        }
        for (size_t row = 0; row < n_rows; row++) {
                struct libscols_line *line = scols_table_new_line(table, NULL);

                if (!line)
                        return -ENOMEM;
                for (size_t i = 0; i < n_columns; i++) {
                        r = scols_line_set_data(line, i, cells[row * n_columns + i] ?: "-");
                        if (r < 0)
                                return r;
                }
        }
        return scols_print_table(table);
}

void output_cells_done(struct output_cells *c)
{
        for (size_t i = 0; i < c->n; i++)
                free(c->cells[i]);
        free(c->cells);
        *c = (struct output_cells) {};
}

void output_cell(struct output_cells *c, const char *format, ...)
{
        _cleanup_free_ char *text = NULL;
        va_list ap;

        if (c->n == c->allocated) {
                size_t allocated = MAX(2 * c->allocated, (size_t)64);
                char **cells = reallocarray(c->cells, allocated, sizeof(char *));

                if (!cells) {
                        c->oom = true;
                        return;
                }
                c->cells = cells;
                c->allocated = allocated;
        }
        va_start(ap, format);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        int r = vasprintf(&text, format, ap);
#pragma GCC diagnostic pop
        va_end(ap);
        if (r < 0) {
                text = NULL;
                c->oom = true;
        }
        char *clean = text && *text ? clean_copy(text) : NULL;
        c->oom |= text && *text && !clean;
        c->cells[c->n++] = clean;
}

int output_cells_print(FILE *f, const struct output_column *columns, size_t n_columns, struct output_cells *c)
{
        if (c->oom)
                return -ENOMEM;
        return output_table(f, columns, n_columns, (const char *const *)c->cells, c->n / n_columns);
}

void output_line(FILE *f, const char *label, const char *value)
{
        fprintf(f, "  %-14s", label);
        text_put(f, *value ? value : "-");
        fputc('\n', f);
}
