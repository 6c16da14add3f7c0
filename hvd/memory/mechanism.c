/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The table of mechanisms, and their names. What is a DIMM to QEMU is an LMB, or several, to a pseries guest
 * and its operator: one mechanism with two names, of which each machine has one. */

#include "hvd/memory/mechanism.h"

#include <string.h>

const struct mechanism *mechanism_of_kind(enum job_kind kind, size_t index)
{
        static const struct mechanism *const mechanisms[] = {
                &mechanism_virtio_mem_add,
                &mechanism_virtio_mem_remove,
                &mechanism_dimm_add,
                &mechanism_dimm_remove,
                &mechanism_balloon_add,
                &mechanism_balloon_remove,
                &mechanism_restore,
        };

        for (size_t i = 0; i < ARRAY_SIZE(mechanisms); i++)
                if (mechanisms[i]->kind == kind && index-- == 0)
                        return mechanisms[i];
        return NULL;
}

const char *mechanism_name(const struct partition *p, const struct mechanism *m)
{
        return partition_is_pseries(p) && m->pseries_method ? m->pseries_method : m->method;
}

int mechanism_find(enum job_kind kind, const char *method, const struct mechanism **ret,
        const char **ret_method, struct error *ret_error)
{
        const struct mechanism *m;

        for (size_t i = 0; (m = mechanism_of_kind(kind, i)); i++) {
                const char *names[] = { m->method, m->pseries_method };

                for (size_t k = 0; k < ARRAY_SIZE(names); k++)
                        if (names[k] && strcmp(method, names[k]) == 0) {
                                *ret = m;
                                *ret_method = names[k];
                                return 0;
                        }
        }
        return error_set(ret_error, ERROR_UNKNOWN_METHOD,
                "Method '%.40s' is not known; there are auto, dimm (on x86), lmb (on pseries), virtio-mem "
                "and "
                "balloon",
                method);
}

int mechanism_check_method(
        const struct partition *p, const struct mechanism *m, const char *method, struct error *ret_error)
{
        const char *own = partition_is_pseries(p) ? m->pseries_method : m->method;

        if (!method || !p->has_snapshot || !m->pseries_method || strcmp(method, own) == 0)
                return 0;
        return error_set(ret_error, ERROR_UNKNOWN_METHOD,
                "Partition '%s' is %s guest (%s) and has no method '%s'; its memory moves by method %s, "
                "which "
                "auto chooses",
                p->definition.name, partition_is_pseries(p) ? "a pseries" : "no pseries", p->snapshot.arch,
                method, own);
}

int mechanism_check_job(const struct job *j, struct error *ret_error)
{
        int r = partition_check_usable(j->partition, ret_error);

        return r < 0 ? r : mechanism_check_method(j->partition, j->mechanism, j->request.method, ret_error);
}
