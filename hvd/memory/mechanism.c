/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The table of mechanisms. */

#include "hvd/memory/mechanism.h"

#include <string.h>

int mechanism_find(
        enum job_kind kind, const char *method, const struct mechanism **ret, struct error *ret_error)
{
        static const struct mechanism *const mechanisms[] = {
                &mechanism_dimm_add,
                &mechanism_dimm_remove,
                &mechanism_restore,
        };

        for (size_t i = 0; i < ARRAY_SIZE(mechanisms); i++)
                if (mechanisms[i]->kind == kind && (!method || strcmp(method, "auto") == 0 ||
                                                           strcmp(method, mechanisms[i]->method) == 0)) {
                        *ret = mechanisms[i];
                        return 0;
                }
        return error_set(ret_error, ERROR_UNKNOWN_METHOD,
                "Method '%.40s' is not known; there are auto and dimm", method);
}
