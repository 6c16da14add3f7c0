/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "hvd/record.h"

#include <inttypes.h>

#include "common/json.h"
#include "common/log.h"
#include "common/size.h"
#include "hvd/job.h"
#include "hvd/store/store.h"

static const char *reasons_to_json(const struct job *j, struct json_object **ret)
{
        struct json_object *array = json_object_new_array();

        *ret = array;
        for (size_t i = 0; array && i < j->n_reasons; i++) {
                struct json_object *o = json_object_new_object();
                const struct job_reason *r = &j->reasons[i];

                if (!o || json_add_string(o, "device", r->device) < 0 ||
                        json_add_string(o, "block", r->block) < 0 ||
                        json_add_string(o, "code", error_code_name(r->error.code)) < 0 ||
                        json_add_string(o, "message", r->error.message) < 0) {
                        json_object_put(o);
                        break;
                }
                json_array_add(array, o);
        }
        return (array ? json_object_to_json_string_ext(array, JSON_C_TO_STRING_PLAIN) : NULL) ?: "[]";
}

void record_job(struct store *store, const struct job *j)
{
        /* Nobody asked for it, and the guest can have as many of them as it likes. */
        if (j->request.kind == JOB_RESTORE_MEMORY)
                return;

        _cleanup_json_ struct json_object *reasons = NULL;
        struct error error;
        struct store_job s = {
                .id = j->id,
                .partition = j->partition_name,
                .kind = job_kind_to_string(j->request.kind),
                .state = job_state_to_string(j->state),
                .requested_bytes = j->request.bytes,
                .done_bytes = j->done_bytes,
                .created_usec = j->created_realtime_usec,
                .ended_usec =
                        j->ended_usec ? j->created_realtime_usec + (j->ended_usec - j->created_usec) : 0,
                .deadline_usec = j->created_realtime_usec + j->request.wait_usec,
                .reasons = reasons_to_json(j, &reasons),
        };

        if (store_job_put(store, &s, &error) < 0)
                log_warning("Job %" PRIu32 " could not be stored: %s", j->id, error.message);
}

void record_interruption(struct store *store, uint64_t now_usec)
{
        unsigned n_interrupted = 0;
        struct error error;

        if (store_jobs_interrupt(store, job_state_to_string(JOB_FAILED), now_usec, &n_interrupted, &error) <
                0)
                log_error("%s. What became of jobs before this start is not known", error.message);
        if (n_interrupted)
                log_notice("%u jobs were interrupted by the last end of hvd; what they had moved stays",
                        n_interrupted);
}

void record_kept(struct store *store, struct partition *p, uint64_t bytes)
{
        struct error error;

        if (p->kept_bytes == bytes)
                return;
        p->kept_bytes = bytes;
        if (store_kept_put(store, p->definition.name, bytes, &error) < 0)
                log_warning("What partition '%s' was asked to have could not be stored: %s",
                        p->definition.name, error.message);
}

void record_kept_after(struct store *store, struct partition *p, const struct job *j)
{
        if (!p || p->active != j || j->request.dry_run || j->request.kind == JOB_RESTORE_MEMORY ||
                !p->has_snapshot)
                return;
        uint64_t current = partition_current_bytes(p), dimms = partition_dimm_bytes(p);

        record_kept(store, p, current - MIN(current, dimms));
}
