/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The planner's words for a pseries guest: LMBs and their DRC indices. QEMU (7.2) numbers them by their
 * address in units of 256 MiB from 0x80000000 on, base memory included, though what was there at boot has no
 * connector that it could leave by. */

#include <inttypes.h>
#include <stdio.h>

#include "common/size.h"
#include "hvd/plan.h"

const char *plan_drc_text(uint64_t address, uint64_t size_bytes, char buffer[static PLAN_DRC_TEXT_MAX])
{
        uint32_t first = plan_drc_index(address), last = plan_drc_index(address + size_bytes - 1);

        if (first == last)
                snprintf(buffer, PLAN_DRC_TEXT_MAX, "LMB 0x%08" PRIx32, first);
        else
                snprintf(buffer, PLAN_DRC_TEXT_MAX, "LMBs 0x%08" PRIx32 " to 0x%08" PRIx32, first, last);
        return buffer;
}

/* The run of neighbouring DIMMs that begins lowest at or behind `from`; false: there is none. */
static bool next_run(const struct plan_snapshot *s, uint64_t from, uint64_t *ret_start, uint64_t *ret_end)
{
        uint64_t start = UINT64_MAX, end = 0;

        for (size_t i = 0; i < s->n_devices; i++)
                if (s->devices[i].is_dimm && s->devices[i].address >= from)
                        start = MIN(start, s->devices[i].address);
        if (start == UINT64_MAX)
                return false;
        for (size_t i = 0; i < s->n_devices; i++) {
                const struct plan_device *d = &s->devices[i];

                if (!d->is_dimm || d->size_bytes == 0 || d->address != MAX(start, end))
                        continue;
                end = d->address + d->size_bytes;
                i = SIZE_MAX; /* its neighbour may come earlier in the list */
        }
        *ret_start = start;
        *ret_end = MAX(end, start + 1);
        return true;
}

static int unknown_drc(const struct plan_snapshot *s, uint32_t drc, struct error *ret_error)
{
        char known[256] = "";
        size_t used = 0, n = 0;
        uint64_t start, end = 0;

        for (; next_run(s, end, &start, &end); n++)
                if (n < 4)
                        used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
                                n > 0 ? ", " : "", PLAN_DRC_TEXT(start, end - start));
        if (n == 0)
                return error_set(ret_error, ERROR_UNKNOWN_DEVICE,
                        "There is no LMB 0x%08" PRIx32 " that could leave: no DIMM is plugged", drc);
        return error_set(ret_error, ERROR_UNKNOWN_DEVICE, "There is no LMB 0x%08" PRIx32 "; plugged are %s%s",
                drc, known, n > 4 ? " and others" : "");
}

static int wrong_size(const struct plan_device *d, uint32_t drc, uint64_t size_bytes, struct error *ret_error)
{
        if (d->size_bytes > PLAN_LMB_BYTES)
                return error_set(ret_error, ERROR_NO_EXACT_FIT,
                        "LMB 0x%08" PRIx32
                        " lies in %.64s, which has %s (%s) and leaves whole or not at all, "
                        "not by %s; to remove all of it, name the device %.64s and ask for %s",
                        drc, d->id, SIZE_EXACT(d->size_bytes), PLAN_DRC_TEXT(d->address, d->size_bytes),
                        SIZE_EXACT(size_bytes), d->id, SIZE_EXACT(d->size_bytes));
        return error_set(ret_error, ERROR_NO_EXACT_FIT,
                "LMB 0x%08" PRIx32 " (%.64s) has %s and leaves whole or not at all, not by %s; ask for %s",
                drc, d->id, SIZE_EXACT(d->size_bytes), SIZE_EXACT(size_bytes), SIZE_EXACT(d->size_bytes));
}

int plan_find_drc(const struct plan_snapshot *s, uint32_t drc, uint64_t size_bytes, size_t *ret,
        struct error *ret_error)
{
        uint64_t address = (drc - plan_drc_index(0)) * PLAN_LMB_BYTES;

        if (!s->is_pseries)
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "This is no pseries guest, and its memory has no DRC indices such as 0x%08" PRIx32
                        "; name the device instead",
                        drc);
        if (drc < plan_drc_index(0))
                return unknown_drc(s, drc, ret_error);
        if (address < s->base_bytes)
                return error_set(ret_error, ERROR_NOT_PLUGGED,
                        "LMB 0x%08" PRIx32 " is base memory: the %s at boot cannot leave", drc,
                        SIZE_EXACT(s->base_bytes));

        for (size_t i = 0; i < s->n_devices; i++) {
                const struct plan_device *d = &s->devices[i];

                if (!d->is_dimm || address < d->address || address - d->address >= d->size_bytes)
                        continue;
                if (d->size_bytes != size_bytes)
                        return wrong_size(d, drc, size_bytes, ret_error);
                *ret = i;
                return 0;
        }
        return unknown_drc(s, drc, ret_error);
}
