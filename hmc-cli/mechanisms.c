/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A partition's memory by what brings and takes it. */

#include "hmc-cli/mechanisms.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "hmc-cli/output.h"

bool mechanisms_is_virtio_mem(struct json_object *device)
{
        return strcmp(field_string(device, "kind"), "virtio-mem") == 0;
}

void mechanisms_print(FILE *f, struct json_object *devices, struct json_object *balloons)
{
        uint64_t dimm = 0, size = 0, requested = 0, unit = 0;
        size_t n_dimms = 0, n_virtio_mem = 0, n = devices ? json_object_array_length(devices) : 0;
        char text[6 * TEXT_FORMAT_MAX];

        for (size_t i = 0; i < n; i++) {
                struct json_object *d = json_object_array_get_idx(devices, i);

                if (!mechanisms_is_virtio_mem(d)) {
                        n_dimms++;
                        dimm += field_u64(d, "size_bytes");
                        continue;
                }
                n_virtio_mem++;
                size += field_u64(d, "size_bytes");
                requested += field_u64(d, "requested_bytes");
                unit = field_u64(d, "unit_bytes");
        }
        snprintf(text, sizeof(text), "%s in %zu", TEXT_SIZE(dimm), n_dimms);
        output_line(f, "DIMMs", text);
        if (n_virtio_mem > 0) {
                snprintf(text, sizeof(text), "%s of %s requested, in %zu, units of %s", TEXT_SIZE(size),
                        TEXT_SIZE(requested), n_virtio_mem, TEXT_SIZE(unit));
                output_line(f, "virtio-mem", text);
        }
        if (!balloons || json_object_array_length(balloons) == 0)
                return;
        struct json_object *b = json_object_array_get_idx(balloons, 0);
        snprintf(text, sizeof(text), "%s taken, %s left of base and DIMMs%s%s",
                TEXT_SIZE(field_u64(b, "taken_bytes")), TEXT_SIZE(field_u64(b, "actual_bytes")),
                field_bool(b, "deflate_on_oom") ? ", deflates before OOM" : "",
                field_bool(b, "free_page_reporting") ? ", reports free pages" : "");
        output_line(f, "balloon", text);

        uint64_t updated = field_u64(b, "stats_updated_sec"), now = (uint64_t)time(NULL);
        if (updated == 0)
                snprintf(text, sizeof(text), "never updated");
        else if (field_u64(b, "stats_available_bytes") == UINT64_MAX)
                snprintf(text, sizeof(text), "say nothing of what is available");
        else
                snprintf(text, sizeof(text), "%s available, %" PRIu64 " s ago",
                        TEXT_SIZE(field_u64(b, "stats_available_bytes")), now > updated ? now - updated : 0);
        output_line(f, "balloon stats", text);
}
