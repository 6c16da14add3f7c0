/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "hvd/record.h"

#include <inttypes.h>
#include <stdio.h>
#include <systemd/sd-id128.h>

#include "common/json.h"
#include "common/log.h"
#include "common/size.h"
#include "hvd/job.h"
#include "hvd/pool.h"

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

_Static_assert(JOB_TRANSITIONS_MAX <= STORE_TRANSITIONS_MAX, "a job's way does not fit into the store");

/* Of the host. */
static void read_boot_id(char ret[static RECORD_HOST_BOOT_LENGTH + 1])
{
        sd_id128_t id;

        if (sd_id128_get_boot(&id) < 0)
                id = SD_ID128_NULL;
        snprintf(ret, RECORD_HOST_BOOT_LENGTH + 1, SD_ID128_FORMAT_STR, SD_ID128_FORMAT_VAL(id));
}

void record_boot(const struct partition *p, char ret[static RECORD_BOOT_MAX])
{
        const struct message_hello *hello = agent_hello(p->agent);

        read_boot_id(ret);
        snprintf(ret + RECORD_HOST_BOOT_LENGTH, RECORD_BOOT_MAX - RECORD_HOST_BOOT_LENGTH, "/%s",
                hello ? hello->boot_id : "");
}

/* It changes nothing; or nobody asked for it, and the guest can have as many of them as it likes. */
static bool is_unrecorded(const struct job *j)
{
        return j->request.dry_run || j->request.kind == JOB_RESTORE_MEMORY;
}

void record_transitions(struct store *store, struct job *j)
{
        struct error error;

        /* Once for each state: a store that somebody has locked takes its time to say so. */
        if (is_unrecorded(j) || !j->has_transitions_due)
                return;
        j->has_transitions_due = false;
        for (; j->n_transitions_stored < j->n_transitions; j->n_transitions_stored++) {
                const struct job_transition *from = &j->transitions[j->n_transitions_stored];
                struct store_transition t = {
                        .n = (unsigned)j->n_transitions_stored,
                        .time_usec = from->time_usec,
                        .state = job_state_to_string(from->state),
                };

                /* Tried again with the next; that nothing can be stored is said with the job itself. */
                if (store_transition_put(store, j->id, &t, &error) < 0) {
                        log_debug("The way of job %" PRIu32 " could not be stored: %s", j->id, error.message);
                        return;
                }
        }
}

void record_job(struct store *store, struct job *j)
{
        if (is_unrecorded(j))
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
                .ended_usec = j->ended_usec ? job_realtime_usec(j, j->ended_usec) : 0,
                .deadline_usec = j->created_realtime_usec + j->request.wait_usec,
                .reasons = reasons_to_json(j, &reasons),
                .peer = j->peer_name,
                .target_bytes = j->request.target_bytes,
                .before_bytes = j->before_bytes,
                .peer_before_bytes = j->peer_before_bytes,
                .boot = j->boot,
                .peer_boot = j->peer_boot,
        };

        if (store_job_put(store, &s, &error) < 0)
                log_warning("Job %" PRIu32 " could not be stored: %s", j->id, error.message);
        record_transitions(store, j);
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

void record_owed(struct store *store, struct partition *p, uint64_t bytes)
{
        struct error error;

        if (p->balloon_owed_bytes == bytes)
                return;
        p->balloon_owed_bytes = bytes;
        if (store_owed_put(store, p->definition.name, bytes, &error) < 0)
                log_warning("What partition '%s' is owed could not be stored: %s", p->definition.name,
                        error.message);
}

void record_kept_after(struct store *store, struct partition *p, const struct job *j)
{
        if (p && p->active == j && !j->request.dry_run && j->request.kind != JOB_RESTORE_MEMORY)
                record_kept_now(store, p);
}

void record_kept_now(struct store *store, struct partition *p)
{
        if (!p->has_snapshot)
                return;
        uint64_t current = partition_current_bytes(p), dimms = partition_dimm_bytes(p);

        record_kept(store, p, current - MIN(current, dimms));
}

/* --- reservations --- */

void record_reservation(struct store *store, struct reservation *r, uint64_t ends_usec)
{
        /* A start that is under way does not outlive the host, and so nor does what was reserved for it. */
        char boot[RECORD_HOST_BOOT_LENGTH + 1];
        struct store_reservation stored = {
                .id = r->id, .owner = r->owner, .bytes = r->bytes, .boot = boot, .ends_usec = ends_usec
        };
        struct error error;

        if (ends_usec == 0 && !r->is_stored)
                return;
        read_boot_id(boot);
        if ((ends_usec ? store_reservation_put(store, &stored, &error)
                       : store_reservation_delete(store, r->id, &error)) < 0)
                log_warning("The reservation for '%s' could not be stored: %s", r->owner, error.message);
        else
                r->is_stored = ends_usec > 0;
}

uint32_t record_reservations_read(struct store *store, store_reservation_t callback, void *userdata)
{
        char boot[RECORD_HOST_BOOT_LENGTH + 1];
        struct error error;
        uint32_t last_id = 0;

        read_boot_id(boot);
        if (store_reservation_last_id(store, &last_id, &error) < 0 ||
                store_reservation_foreach(store, boot, now_monotonic_usec(), callback, userdata, &error) < 0)
                log_error("%s. What was reserved before this start is not", error.message);
        return last_id;
}
