/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The configuration, all or nothing: a set of files becomes one struct config, or one sentence that names
 * file and line. Nothing is applied here, so that a caller can keep the last good set when a new one is
 * refused.
 *
 * The files are parsed by inih, whose habits are fenced in by the reader that feeds it (read_line): Debian's
 * build gives handlers no line number, cuts lines at 200 bytes and goes on with the rest as a line of its
 * own, joins indented lines to the value above, takes text behind "]" for nothing, keeps quiet about sections
 * without keys, and does not stop at an error. Since it asks for a line only after it has handled the one
 * before, the reader's count is the line number wherever a handler runs. */

#include "hvd/config-internal.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <ini.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "common/text.h"
#include "hooks/hooks.h"

struct parser {
        const char *path;
        const struct section *sections; /* those that the file may have; ends with a NULL name */
        void *target;                   /* their struct */
        FILE *file;
        char *buffer;
        size_t allocated;
        unsigned line;
        unsigned section_line;
        unsigned key_lines[SECTIONS_MAX][KEYS_MAX]; /* where each key was given; 0: not yet */
        struct error error;                         /* the first one; what comes later is not looked at */
};

#define parser_fail(p, format, ...)                                                                          \
        error_set(&(p)->error, ERROR_CONFIG, "%s:%u: " format, (p)->path,                                    \
                (p)->line __VA_OPT__(, ) __VA_ARGS__)

/* "[partition]", or "[hvd], [libvirt] and [policy]". */
static void describe_sections(const struct parser *p, size_t size, char *ret)
{
        size_t used = 0;

        for (const struct section *s = p->sections; s->name && used < size; s++)
                used += (size_t)snprintf(ret + used, size - used, "%s[%s]",
                        s == p->sections ? ""
                        : s[1].name      ? ", "
                                         : " and ",
                        s->name);
}

static const struct section *find_section(const struct parser *p, const char *name, size_t length)
{
        for (const struct section *s = p->sections; s->name; s++)
                if (length == strlen(s->name) && strncmp(name, s->name, length) == 0)
                        return s;
        return NULL;
}

static int check_section_line(struct parser *p, const char *text)
{
        const char *end = strchr(text, ']');

        if (!end)
                return parser_fail(p, "'%.60s' has no closing bracket; write [%s]", text, p->sections->name);
        size_t length = end - text - 1;
        if (!find_section(p, text + 1, length)) {
                char known[64];
                describe_sections(p, sizeof(known), known);
                return parser_fail(p, "Unknown section '%.*s'; the only %s here %s %s",
                        (int)MIN(length, (size_t)60), text + 1, p->sections[1].name ? "ones" : "one",
                        p->sections[1].name ? "are" : "is", known);
        }
        end += 1 + strspn(end + 1, " \t\r\n");
        if (*end != '\0' && *end != '#' && *end != ';')
                return parser_fail(
                        p, "Text behind [%.*s]; put it on a line of its own", (int)length, text + 1);
        if (p->section_line == 0)
                p->section_line = p->line;
        return 0;
}

/* inih's fgets: one whole line without its indentation, or NULL at the end or at the first error. */
static char *read_line(char *ret, int size, void *userdata)
{
        struct parser *p = userdata;
        ssize_t length;

        if (p->error.code != ERROR_NONE)
                return NULL;
        length = getline(&p->buffer, &p->allocated, p->file);
        if (length < 0) {
                if (!feof(p->file))
                        error_set_errno(&p->error, ERROR_CONFIG, errno, "%s: Cannot be read", p->path);
                return NULL;
        }
        p->line++;

        const char *text = p->buffer + strspn(p->buffer, " \t\r\n");
        size_t text_length = strcspn(text, "\r\n");
        if (strlen(p->buffer) != (size_t)length) {
                parser_fail(p, "A NUL byte; this is no text file");
                return NULL;
        }
        if (text_length >= (size_t)size) {
                parser_fail(p, "Line of %zu bytes is too long; at most %d are read", text_length, size - 1);
                return NULL;
        }
        if (text[0] == '[' && check_section_line(p, text) < 0)
                return NULL;
        memcpy(ret, text, text_length);
        ret[text_length] = '\0';
        return ret;
}

static void describe_keys(const struct section *section, size_t size, char *ret)
{
        size_t used = 0;

        for (const struct key *k = section->keys; k->name && used < size; k++)
                used += (size_t)snprintf(
                        ret + used, size - used, "%s%s", k == section->keys ? "" : ", ", k->name);
}

/* inih's handler: 1 to go on. */
static int on_key(void *userdata, const char *section, const char *name, const char *value)
{
        struct parser *p = userdata;
        const struct section *s = find_section(p, section, strlen(section));
        struct error reason = { 0 };

        if (!s) {
                parser_fail(p, "Key '%.50s' stands before any section; write [%s] above it", name,
                        p->sections->name);
                return 0;
        }
        const struct key *key = s->keys;
        while (key->name && strcmp(key->name, name) != 0)
                key++;
        if (!key->name) {
                char known[320];
                describe_keys(s, sizeof(known), known);
                parser_fail(p, "Unknown key '%.50s' in [%s]; known are %s", name, s->name, known);
                return 0;
        }
        assert(s - p->sections < SECTIONS_MAX && key - s->keys < KEYS_MAX);
        unsigned *key_line = &p->key_lines[s - p->sections][key - s->keys];
        if (*key_line > 0) {
                parser_fail(p, "%s is given twice, first in line %u; keep one", name, *key_line);
                return 0;
        }
        *key_line = p->line;
        if (key->parse(key, value, (char *)p->target + key->offset, &reason) < 0) {
                parser_fail(p, "%s: %s", name, reason.message);
                return 0;
        }
        return 1;
}

static int check_required(struct parser *p)
{
        p->line = MAX(p->section_line, 1U);
        for (const struct section *s = p->sections; s->name; s++)
                for (const struct key *k = s->keys; k->name; k++)
                        if (k->required && p->key_lines[s - p->sections][k - s->keys] == 0)
                                return parser_fail(
                                        p, "[%s] has no %s; add '%s = ...'", s->name, k->name, k->name);
        return 0;
}

static void fclosep(FILE **f)
{
        if (*f)
                fclose(*f);
}

static int parse_file(struct parser *p, const char *path, const struct section *sections, void *target,
        struct error *ret_error)
{
        _cleanup_(fclosep) FILE *file = NULL;
        _cleanup_close_ int fd = -1;
        struct stat st;

        *p = (struct parser) { .path = path, .sections = sections, .target = target };

        /* Not to wait for a FIFO's other end. */
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0 || fstat(fd, &st) < 0)
                return error_set_errno(ret_error, ERROR_CONFIG, errno, "%s: Cannot be read", path);
        if (!S_ISREG(st.st_mode))
                return error_set(
                        ret_error, ERROR_CONFIG, "%s: Not a regular file; make it one, or remove it", path);
        file = fdopen(fd, "re");
        if (!file)
                return error_set(ret_error, ERROR_CONFIG, "%s: Out of memory", path);
        steal_fd(&fd);

        p->file = file;
        int bad_line = ini_parse_stream(read_line, p, on_key, p);
        free(p->buffer);
        /* inih names the first line that it or the handler did not like, and goes on; ours may come after it.
         */
        if (bad_line > 0 && (p->error.code == ERROR_NONE || (unsigned)bad_line < p->line)) {
                p->line = (unsigned)bad_line;
                parser_fail(p, "Neither a section nor a key with its value; write [%s] or 'key = value'",
                        sections->name);
        } else if (bad_line < 0)
                error_set(&p->error, ERROR_CONFIG, "%s: Out of memory", path);
        if (p->error.code == ERROR_NONE)
                check_required(p);
        if (p->error.code != ERROR_NONE)
                return error_set(ret_error, ERROR_CONFIG, "%s", p->error.message);
        return 0;
}

struct listing {
        struct dirent **entries;
        int n;
};

static void listing_done(struct listing *l)
{
        for (int i = 0; i < l->n; i++)
                free(l->entries[i]);
        free(l->entries);
}

static int is_config_name(const struct dirent *e)
{
        size_t length = strlen(e->d_name);

        return e->d_name[0] != '.' && length > 5 && strcmp(e->d_name + length - 5, ".conf") == 0;
}

/* By bytes: alphasort() would follow the locale. */
static int compare_entries(const struct dirent **a, const struct dirent **b)
{
        return strcmp((*a)->d_name, (*b)->d_name);
}

static int list_folder(const char *folder, struct listing *ret, struct error *ret_error)
{
        ret->n = scandir(folder, &ret->entries, is_config_name, compare_entries);
        if (ret->n >= 0)
                return 0;
        ret->n = 0;
        ret->entries = NULL;
        if (errno == ENOENT)
                return 0;
        error_set_errno(ret_error, ERROR_CONFIG, errno, "%s: Cannot be listed", folder);
        return -EINVAL;
}

static int load_overrides(struct config *c, const char *folder, struct error *ret_error)
{
        _cleanup_(listing_done) struct listing l = { 0 };
        int e = list_folder(folder, &l, ret_error);

        for (int i = 0; e >= 0 && i < l.n; i++) {
                _cleanup_free_ char *path = NULL;
                struct parser p;

                if (asprintf(&path, "%s/%s", folder, l.entries[i]->d_name) < 0)
                        return error_set(ret_error, ERROR_CONFIG, "Out of memory");
                e = parse_file(&p, path, config_hvd_sections, c, ret_error);
        }
        return e < 0 ? -EINVAL : 0;
}

static int load_partition(
        struct config *c, const char *folder, const char *file_name, struct error *ret_error)
{
        struct partition_definition d = { .profile.weight = PARTITION_WEIGHT_DEFAULT };
        size_t length = strlen(file_name) - strlen(".conf");
        _cleanup_free_ char *path = NULL;
        struct error reason;
        struct parser p;

        if (asprintf(&path, "%s/%s", folder, file_name) < 0)
                return error_set(ret_error, ERROR_CONFIG, "Out of memory");
        /* One byte too many is enough for the check of the name to fail. */
        char name[PARTITION_NAME_MAX + 2] = "";
        memcpy(name, file_name, MIN(length, sizeof(name) - 1));
        if (!partition_name_valid(name))
                return error_set(ret_error, ERROR_CONFIG,
                        "%s:1: The file's name is no partition name; use 1 to %u of A-Z a-z 0-9 . _ - before "
                        ".conf, "
                        "beginning with neither . nor -",
                        path, PARTITION_NAME_MAX);
        memcpy(d.name, name, length);

        if (parse_file(&p, path, config_partition_sections, &d, ret_error) < 0)
                return -EINVAL;
        p.line = MAX(p.section_line, 1U);
        if (partition_definition_check(&d, &reason) < 0) {
                parser_fail(&p, "%s", reason.message);
                return error_set(ret_error, ERROR_CONFIG, "%s", p.error.message);
        }
        for (size_t i = 0; i < c->n_partitions; i++) {
                const struct partition_definition *other = &c->partitions[i];
                const char *shared = NULL;

                for (int j = 0; j < 2; j++)
                        if (strcmp(j ? d.channel_path : d.qmp_path, other->qmp_path) == 0 ||
                                strcmp(j ? d.channel_path : d.qmp_path, other->channel_path) == 0)
                                shared = j ? d.channel_path : d.qmp_path;
                if (shared)
                        return error_set(ret_error, ERROR_CONFIG,
                                "%s:%u: Socket %s belongs to partition %s already; give each its own", path,
                                p.line, shared, other->name);
        }
        c->partitions[c->n_partitions++] = d;
        return 0;
}

static int load_partitions(struct config *c, const char *folder, struct error *ret_error)
{
        _cleanup_(listing_done) struct listing l = { 0 };
        int e = list_folder(folder, &l, ret_error);

        if (e < 0 || l.n == 0)
                return e;
        if ((unsigned)l.n > PARTITIONS_MAX)
                return error_set(ret_error, ERROR_CONFIG,
                        "%s: %d partitions are too many; at most %u are served", folder, l.n, PARTITIONS_MAX);
        c->partitions = calloc((size_t)l.n, sizeof(*c->partitions));
        if (!c->partitions)
                return error_set(ret_error, ERROR_CONFIG, "Out of memory");
        for (int i = 0; e >= 0 && i < l.n; i++)
                e = load_partition(c, folder, l.entries[i]->d_name, ret_error);
        return e;
}

/* What several keys say together, whatever files they are in. */
static int check_together(const struct config *c, const char *path, struct error *ret_error)
{
        if (c->policy.fresh_usec < 2 * c->policy_sample_usec)
                return error_set(ret_error, ERROR_CONFIG,
                        "%s: [policy] takes a sample for fresh for %" PRIu64 " ms, and asks for one every "
                        "%" PRIu64 " ms: nothing would ever be fresh; make fresh at least twice sample",
                        path, c->policy.fresh_usec / USEC_PER_MSEC, c->policy_sample_usec / USEC_PER_MSEC);
        if (c->policy.refusal_max_usec < c->policy.refusal_usec)
                return error_set(ret_error, ERROR_CONFIG,
                        "%s: [policy] pauses %" PRIu64 " s after a first refusal and at most %" PRIu64
                        " s; make refusal_max at least refusal",
                        path, c->policy.refusal_usec / USEC_PER_SEC,
                        c->policy.refusal_max_usec / USEC_PER_SEC);
        return 0;
}

struct config *config_free(struct config *c)
{
        if (c)
                free(c->partitions);
        free(c);
        return NULL;
}

static void config_freep(struct config **c)
{
        config_free(*c);
}

int config_load(const char *path, bool must_exist, struct config **ret, struct error *ret_error)
{
        _cleanup_(config_freep) struct config *c = NULL;
        _cleanup_free_ char *overrides = NULL, *partitions = NULL;
        const char *slash = strrchr(path, '/');
        struct parser p;

        c = calloc(1, sizeof(*c));
        if (!c || asprintf(&overrides, "%s.d", path) < 0 ||
                asprintf(&partitions, "%.*spartitions.d", slash ? (int)(slash - path + 1) : 0, path) < 0)
                return error_set(ret_error, ERROR_CONFIG, "Out of memory");
        *c = (struct config) {
                .log_level = LOG_INFO,
                .job_wait_usec = 5 * 60 * USEC_PER_SEC,
                .block_attempt_usec = 10 * USEC_PER_SEC,
                .retry_after_usec = 1 * USEC_PER_SEC,
                .pool_reserve_bytes = GIB,
                .jobs_kept = 1000,
                .jobs_queued = 16,
                .hooks_folder = HOOKS_HOST_FOLDER,
                .hook_limit_usec = HOOKS_LIMIT_USEC,
                .libvirt_uri = "qemu:///system",
                .policy_mode = POLICY_MODE_OBSERVE,
                .policy_period_usec = 2 * USEC_PER_SEC,
                .policy_sample_usec = 1 * USEC_PER_SEC,
        };
        policy_config_init(&c->policy);

        struct error error;
        int e = parse_file(&p, path, config_hvd_sections, c, &error);
        if (e == -ENOENT && !must_exist)
                e = 0;
        else if (e < 0 && ret_error)
                *ret_error = error;
        if (e >= 0)
                e = load_overrides(c, overrides, ret_error);
        if (e >= 0)
                e = check_together(c, path, ret_error);
        if (e >= 0)
                e = load_partitions(c, partitions, ret_error);
        if (e < 0)
                return -EINVAL;
        *ret = steal_pointer(c);
        return 0;
}
