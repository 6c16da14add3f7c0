/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

#include "common/error.h"
#include "hooks/hooks.h"

/* A folder of hooks: which files in it count, and whether they may be run. */

/* The names of those that count, sorted by byte, each allocated; at most HOOKS_FILES_MAX. What is hidden or
 * left over by an editor or a package manager does not count. 0 with none if there is no such folder, -errno,
 * -E2BIG if there are more. */
int folder_list(const char *folder, char ***ret_names, size_t *ret_n);
void folder_names_free(char **names, size_t n);

/* 0 and the path to execute (allocated), or why this one is not to be run: HOOK_SKIPPED, or HOOK_FAILED if
 * that cannot be told. Every folder on the way to the file, those of symlinks too, must be root's (or ours)
 * and writable by nobody else, and so must the file, which must be executable. */
int folder_check(const char *folder, const char *name, char **ret_path, struct error *ret_error);
/* The same for the folder itself, which must be no symlink. */
int folder_check_itself(const char *folder, struct error *ret_error);
