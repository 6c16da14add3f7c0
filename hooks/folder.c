/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Hooks are run as root. So whoever can change one, or put another in its place, must be root already: that
 * is all that is checked here, of the file, of every folder above it and of every link on the way. After that
 * a path is as good as a descriptor, as nobody else can change what it leads to. */

#include "hooks/folder.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/text.h"

#define LINKS_MAX 40U /* as the kernel */

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

/* What it is that cannot be looked at is the machine's fault, but for what is not there. */
static int fail(struct error *ret_error, const char *path, int error)
{
        if (error == ENOENT)
                return error_set(ret_error, ERROR_HOOK_SKIPPED, "not run: it is not there");
        return error_set_errno(ret_error, ERROR_HOOK_FAILED, error, "not run: %s", path);
}

/* A link is as good as the folder that holds it, and in one with the sticky bit as its owner. */
static int check_step(const char *path, const struct stat *st, bool is_last, struct error *ret_error)
{
        struct stat judged = *st;

        if (S_ISLNK(st->st_mode))
                judged.st_mode &= ~(mode_t)(S_IWGRP | S_IWOTH);
        else if (!is_last && !S_ISDIR(st->st_mode))
                return fail(ret_error, path, ENOTDIR);
        return is_ours(&judged) ? 0 : refuse(ret_error, path, st);
}

/* What is still to be walked, after a link: its target, and then the rest. */
static int follow(char *real, char *rest, const char *left)
{
        char target[PATH_MAX], all[PATH_MAX];
        ssize_t n = readlink(real, target, sizeof(target) - 1);

        if (n < 0)
                return -errno;
        target[n] = '\0';
        if (snprintf(all, sizeof(all), "%s/%s", target, left) >= (int)sizeof(all))
                return -ENAMETOOLONG;
        memcpy(rest, all, sizeof(all));
        *(target[0] == '/' ? real : strrchr(real, '/')) = '\0';
        return 0;
}

/* Goes along path as the kernel does, and looks at all that it leads through: the folders, also those that
 * only hold a link, and the file itself. */
static int walk(const char *path, struct stat *ret, struct error *ret_error)
{
        char real[PATH_MAX] = "", rest[PATH_MAX];
        unsigned n_links = 0;
        int r;

        if (path[0] != '/')
                return fail(ret_error, path, EINVAL);
        if (snprintf(rest, sizeof(rest), "%s", path) >= (int)sizeof(rest))
                return fail(ret_error, path, ENAMETOOLONG);
        if (stat("/", ret) < 0)
                return fail(ret_error, "/", errno);
        if ((r = check_step("/", ret, false, ret_error)) < 0)
                return r;
        for (char *name = rest + strspn(rest, "/"); *name;) {
                size_t length = strcspn(name, "/"), slashes = strspn(name + length, "/"), at = strlen(real);
                char *left = name + length + slashes;

                if (length == 2 && strncmp(name, "..", 2) == 0)
                        *(strrchr(real, '/') ?: real) = '\0';
                else if (length != 1 || name[0] != '.') {
                        if (at + 1 + length >= sizeof(real))
                                return fail(ret_error, path, ENAMETOOLONG);
                        snprintf(real + at, sizeof(real) - at, "/%.*s", (int)length, name);
                        if (lstat(real, ret) < 0)
                                return fail(ret_error, real, errno);
                        if ((r = check_step(real, ret, !*left, ret_error)) < 0)
                                return r;
                        if (S_ISLNK(ret->st_mode)) {
                                r = ++n_links > LINKS_MAX ? -ELOOP : follow(real, rest, left);
                                if (r < 0)
                                        return fail(ret_error, path, -r);
                                left = rest + strspn(rest, "/");
                        }
                }
                name = left;
        }
        /* A link to a folder may end in "." or "..". */
        return stat(real[0] ? real : "/", ret) < 0 ? fail(ret_error, real, errno) : 0;
}

int folder_check_itself(const char *folder, struct error *ret_error)
{
        struct stat st;

        if (lstat(folder, &st) < 0)
                return fail(ret_error, folder, errno);
        if (!S_ISDIR(st.st_mode))
                return error_set(ret_error, ERROR_HOOK_SKIPPED, "not run: %s is not a folder", folder);
        struct stat judged = st;
        judged.st_mode &= ~(mode_t)S_ISVTX; /* a name that others add would be a hook */
        return is_ours(&judged) ? 0 : refuse(ret_error, folder, &st);
}

int folder_check(const char *folder, const char *name, char **ret_path, struct error *ret_error)
{
        _cleanup_free_ char *path = NULL;
        struct stat st;

        if (asprintf(&path, "%s/%s", folder, name) < 0)
                return error_set(ret_error, ERROR_HOOK_FAILED, "not run: out of memory");
        int r = walk(path, &st, ret_error);
        if (r < 0)
                return r;
        if (!S_ISREG(st.st_mode))
                return error_set(ret_error, ERROR_HOOK_SKIPPED, "not run: it is not a file");
        if (!(st.st_mode & S_IXUSR))
                return error_set(ret_error, ERROR_HOOK_SKIPPED, "not run: it is not executable (mode %04o)",
                        (unsigned)(st.st_mode & 07777));
        *ret_path = steal_pointer(path); /* what it is called by may tell it what to do */
        return 0;
}
