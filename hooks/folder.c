/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Hooks are run as root. So whoever can change one, or put another in its place, must be root already: that
 * is all that is checked here, of the file and of every folder above it. After that a path is as good as a
 * descriptor, as nobody else can change what it leads to. */

#include "hooks/folder.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/text.h"

static bool counts(const char *name)
{
        size_t length = strlen(name);

        return name[0] != '.' && name[length - 1] != '~' && !strstr(name, ".dpkg-") &&
               !strstr(name, ".rpm") && length <= PROTO_HOOK_NAME_MAX && text_is_printable(name);
}

void folder_names_free(char **names, size_t n)
{
        for (size_t i = 0; i < n; i++)
                free(names[i]);
        free(names);
}

static int compare(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

static int read_names(DIR *dir, char **names, size_t *n)
{
        struct dirent *entry;

        while ((errno = 0, entry = readdir(dir))) {
                if (!counts(entry->d_name))
                        continue;
                if (*n == HOOKS_FILES_MAX)
                        return -E2BIG;
                if (!(names[*n] = strdup(entry->d_name)))
                        return -ENOMEM;
                (*n)++;
        }
        return -errno;
}

int folder_list(const char *folder, char ***ret_names, size_t *ret_n)
{
        DIR *dir = opendir(folder);
        size_t n = 0;

        if (!dir && errno != ENOENT)
                return -errno;
        char **names = calloc(HOOKS_FILES_MAX, sizeof(*names));
        int r = names ? 0 : -ENOMEM;
        if (r >= 0 && dir)
                r = read_names(dir, names, &n);
        if (dir)
                closedir(dir);
        if (r < 0) {
                folder_names_free(names, n);
                return r;
        }
        qsort(names, n, sizeof(*names), compare);
        *ret_names = names;
        *ret_n = n;
        return 0;
}

/* Whether others than root, and ourselves, can change it. In a folder with the sticky bit they can add names
 * and not touch those of others. */
static bool is_ours(const struct stat *st)
{
        bool sticky = S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX);

        return (st->st_uid == 0 || st->st_uid == geteuid()) &&
               (sticky || !(st->st_mode & (S_IWGRP | S_IWOTH)));
}

static int refuse(struct error *ret_error, const char *path, const struct stat *st)
{
        if (st->st_uid != 0 && st->st_uid != geteuid())
                return error_set(ret_error, ERROR_HOOK_SKIPPED,
                        "not run: %s belongs to user %u and not to root", path, (unsigned)st->st_uid);
        return error_set(ret_error, ERROR_HOOK_SKIPPED,
                "not run: %s can be written to by others (mode %04o); take that away with chmod go-w", path,
                (unsigned)(st->st_mode & 07777));
}

/* path is absolute and has no symlinks. */
static int check_above(const char *path, struct error *ret_error)
{
        char above[PATH_MAX];
        char *slash;

        snprintf(above, sizeof(above), "%s", path);
        while ((slash = strrchr(above, '/'))) {
                struct stat st;

                *slash = '\0';
                const char *folder = slash == above ? "/" : above;
                if (stat(folder, &st) < 0)
                        return error_set_errno(ret_error, ERROR_HOOK_SKIPPED, errno, "not run: %s", folder);
                if (!is_ours(&st))
                        return refuse(ret_error, folder, &st);
        }
        return 0;
}

int folder_check_itself(const char *folder, struct error *ret_error)
{
        struct stat st;

        if (lstat(folder, &st) < 0)
                return error_set_errno(ret_error, ERROR_HOOK_SKIPPED, errno, "not run: %s", folder);
        if (!S_ISDIR(st.st_mode))
                return error_set(ret_error, ERROR_HOOK_SKIPPED, "not run: %s is not a folder", folder);
        return is_ours(&st) ? 0 : refuse(ret_error, folder, &st);
}

int folder_check(const char *folder, const char *name, char **ret_path, struct error *ret_error)
{
        _cleanup_free_ char *path = NULL, *real = NULL;
        struct stat st;

        if (asprintf(&path, "%s/%s", folder, name) < 0)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        real = realpath(path, NULL);
        if (!real || stat(real, &st) < 0)
                return error_set_errno(ret_error, ERROR_HOOK_SKIPPED, errno, "not run: it is not there");
        if (!S_ISREG(st.st_mode))
                return error_set(ret_error, ERROR_HOOK_SKIPPED, "not run: it is not a file");
        if (!is_ours(&st))
                return refuse(ret_error, real, &st);
        int r = check_above(real, ret_error);
        if (r < 0)
                return r;
        if (!(st.st_mode & S_IXUSR))
                return error_set(ret_error, ERROR_HOOK_SKIPPED, "not run: it is not executable (mode %04o)",
                        (unsigned)(st.st_mode & 07777));
        *ret_path = steal_pointer(path); /* what it is called by may tell it what to do */
        return 0;
}
