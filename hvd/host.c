/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the host's kernel says of itself. */

#include "hvd/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t host_figure(const char *proc, const char *name, const char *key)
{
        char path[256], line[256];
        uint64_t value = 0;

        snprintf(path, sizeof(path), "%s/%s", proc, name);
        FILE *f = fopen(path, "re");
        if (!f)
                return 0; /* a kernel without PSI */
        while (fgets(line, sizeof(line), f)) {
                const char *at = strstr(line, key);

                if (at) {
                        value = strtoull(at + strlen(key), NULL, 10);
                        break;
                }
        }
        fclose(f);
        return value;
}
