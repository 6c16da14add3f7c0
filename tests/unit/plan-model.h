/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/plan.h"

/* A guest, and its devices as plan_* change them. */
struct model {
        struct plan_snapshot s;
        struct plan_device devices[PLAN_DEVICES_MAX];
        uint64_t next_address;
        unsigned next_id;
};

static inline void model_init(struct model *m, uint64_t granule, uint64_t base, uint64_t max, unsigned slots)
{
        *m = (struct model){
                .s =
                        {
                                .granule_bytes = granule,
                                .base_bytes = base,
                                .max_bytes = max,
                                .slots = slots,
                                .kernel_bytes = base,
                                .devices = m->devices,
                        },
                .next_address = 4 * GIB,
        };
}

static inline struct plan_device *model_plug(struct model *m, uint64_t size_bytes, enum zone zone)
{
        struct plan_device *d = &m->devices[m->s.n_devices++];

        *d = (struct plan_device) {
                .address = m->next_address,
                .size_bytes = size_bytes,
                .is_dimm = true,
                .removable = true,
                .movable_bytes = zone == ZONE_MOVABLE ? size_bytes : 0,
                .kernel_bytes = zone == ZONE_KERNEL ? size_bytes : 0,
        };
        snprintf(d->id, sizeof(d->id), "dimm%u", m->next_id++);
        m->next_address += size_bytes;
        m->s.kernel_bytes += d->kernel_bytes;
        m->s.movable_bytes += d->movable_bytes;
        return d;
}

static inline uint64_t model_rest(const struct model *m)
{
        uint64_t used = m->s.base_bytes;

        for (size_t i = 0; i < m->s.n_devices; i++)
                used += m->devices[i].size_bytes;
        return m->s.max_bytes - used;
}

static inline bool accepts(const struct model *m, uint64_t size_bytes, enum zone_policy policy)
{
        struct plan_add add;

        return plan_addition(&m->s, size_bytes, policy, &add, NULL) == 0;
}

/* The sizes behind "ask for" in a message; how many there are. */
static inline size_t offered(const char *message, uint64_t ret[static 2])
{
        const char *p = strstr(message, "ask for ");
        char text[32];
        size_t n = 0;

        for (p = p ? p + strlen("ask for ") : NULL; p && n < 2; n++) {
                size_t length = strcspn(p, " ");

                assert_true(length < sizeof(text));
                memcpy(text, p, length);
                text[length] = '\0';
                assert_int_equal(size_parse(text, &ret[n], NULL), 0);
                p = strncmp(p + length, " or ", 4) == 0 ? p + length + 4 : NULL;
        }
        return n;
}
