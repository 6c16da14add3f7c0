/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Runs a fuzz target over committed inputs, so that every compiler and every ctest run sees what the fuzzer
 * once found. Each argument is a folder or a file; no input at all is a failure, or an empty corpus would
 * pass. */

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void die(const char *path)
{
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(EXIT_FAILURE);
}

static void run_file(const char *path)
{
        struct stat st;
        FILE *f = fopen(path, "re");
        if (!f || fstat(fileno(f), &st) < 0)
                die(path);

        /* An exact buffer: a sanitizer then sees the first byte too far. */
        size_t size = (size_t)st.st_size;
        _cleanup_free_ uint8_t *data = malloc(size ?: 1);
        if (!data || fread(data, 1, size, f) != size)
                die(path);
        fclose(f);
        LLVMFuzzerTestOneInput(data, size);
}

static size_t run_folder(const char *path)
{
        size_t n = 0;
        DIR *d = opendir(path);
        if (!d)
                die(path);
        for (struct dirent *e; (e = readdir(d));) {
                _cleanup_free_ char *name = NULL;

                if (e->d_name[0] == '.')
                        continue;
                if (asprintf(&name, "%s/%s", path, e->d_name) < 0)
                        die(path);
                run_file(name);
                n++;
        }
        closedir(d);
        return n;
}

int main(int argc, char *argv[])
{
        size_t n = 0;

        for (int i = 1; i < argc; i++) {
                struct stat st;

                if (stat(argv[i], &st) < 0)
                        die(argv[i]);
                if (S_ISDIR(st.st_mode))
                        n += run_folder(argv[i]);
                else {
                        run_file(argv[i]);
                        n++;
                }
        }
        printf("%zu inputs\n", n);
        return n > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
