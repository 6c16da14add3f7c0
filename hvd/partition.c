/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One guest: its two ends (platform and agent) and what they last said. Nothing here is remembered across a
 * restart or guessed: the account is asked for again whenever an end comes up, the guest resets, blocks or
 * devices change, or a job has ended. */

#include "hvd/partition.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/domains.h"
#include "hvd/manager.h"
#include "hvd/memory/hooks.h"
#include "hvd/memory/mechanism.h"
#include "hvd/memory/restore.h"
#include "hvd/pool.h"
#include "hvd/record.h"

/* Changes that a guest can cause at will are looked at so often at most. */
#define SETTLE_USEC (250 * USEC_PER_MSEC)
/* Who waits for a job has mostly read of its end by then, and is not kept from a processor. */
#define AFTER_JOB_USEC (5 * USEC_PER_MSEC)
/* An end that did not answer, when something is perhaps to be restored, is asked again after. */
#define RETRY_USEC (10 * USEC_PER_SEC)
/* QEMU tells of a migration's beginning and end only those who change its capabilities, and libvirt lets go
 * of the domain some time after the event: one that is seen is looked at again after. */
#define TRANSFER_USEC (2 * USEC_PER_SEC)

/* --- settling --- */

static void settle_after(struct partition *p, uint64_t usec)
{
        uint64_t at = now_monotonic_usec() + usec, armed;
        int enabled;

        if (sd_event_source_get_enabled(p->settle_timer, &enabled) >= 0 && enabled != SD_EVENT_OFF &&
                sd_event_source_get_time(p->settle_timer, &armed) >= 0 && armed <= at)
                return;
        sd_event_source_set_time(p->settle_timer, at);
        sd_event_source_set_enabled(p->settle_timer, SD_EVENT_ONESHOT);
}

static void on_settled(struct partition *p, const struct error *error, void *userdata)
{
        bool again = p->settle_again, restore = p->settle_restore;

        p->settling = NULL;
        p->settle_failed = error != NULL;
        if (error)
                log_debug("Partition '%s' could not be asked: %s", p->definition.name, error->message);
        p->settle_again = false;
        p->settle_restore = error && restore; /* still owed: a guest that is paused answers nothing */
        if (again)
                partition_settle(p, restore);
        else if (restore && !error)
                manager_partition_ready(p->manager, p);
        else if (restore)
                settle_after(p, RETRY_USEC);
        if (!again && !error)
                manager_partition_settled(p->manager, p);
        uint64_t hooks_usec = again || error ? 0 : hooks_on_settled(p);
        if (hooks_usec > 0)
                settle_after(p, hooks_usec);
        if (p->has_snapshot && run_state_is_transfer(p->snapshot.state))
                settle_after(p, TRANSFER_USEC);
}

bool partition_is_settled(const struct partition *p)
{
        int enabled = SD_EVENT_OFF;

        if (p->settle_timer)
                sd_event_source_get_enabled(p->settle_timer, &enabled);
        return p->platform_up && p->has_snapshot && p->has_memory && p->has_blocks && !p->settling &&
               !p->settle_failed && enabled == SD_EVENT_OFF;
}

void partition_settle(struct partition *p, bool restore)
{
        unsigned what = 0;

        p->settle_restore |= restore;
        if (p->settling) {
                p->settle_again = true;
                return;
        }
        if (p->platform_up)
                what |= REFRESH_HYPERVISOR;
        if (agent_state(p->agent) == AGENT_READY)
                what |= REFRESH_MEMORY | REFRESH_BLOCKS;
        if (what && partition_refresh(p, what, on_settled, NULL, &p->settling, NULL) < 0) {
                p->settle_failed = true;
                settle_after(p, RETRY_USEC);
        } else if (what) /* what it was armed for is looked at now */
                sd_event_source_set_enabled(p->settle_timer, SD_EVENT_OFF);
        manager_partition_changed(p->manager, p);
}

static int on_settle_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct partition *p = userdata;

        /* A job looks for itself, and its end settles. */
        if (p->active)
                return 0;
        partition_settle(p, false);
        return 0;
}

void partition_settle_after_job(struct partition *p)
{
        settle_after(p, AFTER_JOB_USEC);
}

void partition_settle_soon(struct partition *p, bool restore)
{
        p->settle_restore |= restore;
        settle_after(p, SETTLE_USEC);
}

/* --- the platform's and the agent's news --- */

static void tell_gone(struct partition *p, const struct error *error)
{
        struct agent_waiter *w = steal_pointer(p->waiter);

        if (w)
                w->on_gone(w, error);
}

static void on_platform_up(struct platform *platform, void *userdata)
{
        struct partition *p = userdata;

        log_info("Partition '%s': QEMU answers", p->definition.name);
        p->platform_up = true;
        p->grown_sec = time(NULL); /* it may have, while nobody looked */
        partition_settle(p, true);
}

static void on_platform_down(struct platform *platform, const struct error *error, void *userdata)
{
        struct partition *p = userdata;
        bool may_run = error->code == ERROR_HYPERVISOR_SILENT || error->code == ERROR_HYPERVISOR_MISBEHAVED;

        log_info("Partition '%s': %s", p->definition.name, error->message);
        p->unheard_bytes = may_run ? pool_held_bytes(p) : 0;
        p->platform_up = false;
        p->platform_error = *error;
        p->has_snapshot = false;
        platform_snapshot_done(&p->snapshot);
        /* Another QEMU's balloon is empty; one that only does not answer is the same one. */
        if (!may_run)
                record_owed(manager_store(p->manager), p, 0);
        p->balloon_unheard = false;

        tell_gone(p, error);
        manager_partition_changed(p->manager, p);
}

static void on_platform_reset(struct platform *platform, void *userdata)
{
        struct partition *p = userdata;
        struct error error;

        log_info("Partition '%s': the guest was reset", p->definition.name);
        p->n_resets++;
        restore_on_reset(p);
        agent_set_port_open(p->agent, false);
        error_set(&error, ERROR_GUEST_RESET, "The guest was reset while it worked on the request");
        tell_gone(p, &error);
        partition_settle(p, false);
}

static void on_platform_port(struct platform *platform, bool open, void *userdata)
{
        struct partition *p = userdata;

        agent_set_port_open(p->agent, open);
}

static void on_platform_device_deleted(struct platform *platform, const char *id, void *userdata)
{
        struct partition *p = userdata;

        p->n_departures++;
        log_info("Partition '%s': %s left by itself", p->definition.name, id);
        /* A restore may wait for blocks that have left with it: it begins anew. */
        if (p->active && p->active->request.kind == JOB_RESTORE_MEMORY) {
                p->settle_restore = true;
                job_stop(p->active, JOB_STOP_CANCEL);
        }
        partition_settle(p, false);
}

/* A job that moves it looks for itself. QEMU tells of a way's end up to a second late: what is known by then
 * is no news, unless it is being asked for anew, or could not be. */
static void tell_change(struct partition *p, bool is_news)
{
        struct job *j = job_at_work(p);

        if (j && j->mechanism->on_change)
                j->mechanism->on_change(j);
        if (is_news || p->settling || p->settle_failed)
                partition_settle_soon(p, false);
}

static void on_platform_device_size(
        struct platform *platform, const char *id, uint64_t size_bytes, void *userdata)
{
        struct partition *p = userdata;
        uint64_t current = partition_current_bytes(p);
        bool is_news = true;

        for (size_t i = 0; p->has_snapshot && i < p->snapshot.n_devices; i++) {
                struct platform_device *d = &p->snapshot.devices[i];

                if (strcmp(d->id, id) != 0 || d->is_dimm)
                        continue;
                is_news = d->size_bytes != size_bytes;
                p->snapshot.plugged_bytes -= MIN(d->size_bytes, p->snapshot.plugged_bytes);
                p->snapshot.plugged_bytes += size_bytes;
                d->size_bytes = size_bytes;
        }
        partition_note_growth(p, current);
        tell_change(p, is_news);
}

static void on_platform_balloon(struct platform *platform, uint64_t actual_bytes, void *userdata)
{
        struct partition *p = userdata;
        uint64_t current = partition_current_bytes(p);
        bool is_news =
                !p->has_snapshot || p->balloon_unheard || p->snapshot.balloon.actual_bytes != actual_bytes;

        p->balloon_unheard = false;
        if (p->has_snapshot && p->snapshot.balloon.present)
                partition_take_balloon(p, actual_bytes);
        partition_note_growth(p, current);
        tell_change(p, is_news);
}

static void on_platform_changed(struct platform *platform, void *userdata)
{
        partition_settle_soon(userdata, false);
}

static void forget_guest(struct partition *p)
{
        p->has_memory = p->has_blocks = false;
        free(p->blocks);
        p->blocks = NULL;
        p->n_blocks = 0;
}

static void on_agent_state(struct agent *a, enum agent_state state, void *userdata)
{
        struct partition *p = userdata;

        if (state != AGENT_READY) {
                log_info("Partition '%s': agent %s", p->definition.name, agent_state_to_string(state));
                forget_guest(p);
                sampling_on_session(p);
                manager_partition_changed(p->manager, p);
                return;
        }

        const struct message_hello *hello = agent_hello(a);
        log_info("Partition '%s': %s speaks (%s, blocks of %s, boot %.8s)", p->definition.name, hello->agent,
                hello->arch, SIZE(hello->block_bytes), hello->boot_id);

        p->session_resets = p->n_resets;
        struct agent_waiter *w = steal_pointer(p->waiter);
        if (w)
                w->on_ready(w);
        hooks_on_session(p);
        partition_settle(p, true);
        sampling_on_session(p);
}

static void on_agent_event(struct agent *a, enum event_type event, void *userdata)
{
        partition_settle_soon(userdata, false);
}

static void on_agent_sample(struct agent *a, const struct guest_sample *sample, void *userdata)
{
        sampling_take(userdata, sample);
}

/* --- life --- */

void partition_set_channel(struct partition *p, const char *socket)
{
        if (agent_set_socket(p->agent, socket) < 0)
                log_warning("Partition '%s': the guest channel's path is too long for a socket: %s",
                        p->definition.name, socket);
        else
                snprintf(p->definition.channel_path, sizeof(p->definition.channel_path), "%s", socket ?: "");
}

struct partition *partition_free(struct partition *p)
{
        if (!p)
                return NULL;
        partition_refresh_free(p->settling);
        sd_event_source_disable_unref(p->settle_timer);
        platform_free(p->platform);
        agent_free(p->agent);
        platform_snapshot_done(&p->snapshot);
        free(p->blocks);
        free(p);
        return NULL;
}

int partition_new(struct manager *m, sd_event *event, const struct partition_definition *d,
        struct partition **ret, struct error *ret_error)
{
        static const struct platform_handlers platform_handlers = {
                .on_up = on_platform_up,
                .on_down = on_platform_down,
                .on_reset = on_platform_reset,
                .on_port = on_platform_port,
                .on_device_deleted = on_platform_device_deleted,
                .on_device_size = on_platform_device_size,
                .on_balloon = on_platform_balloon,
                .on_changed = on_platform_changed,
        };
        static const struct agent_handlers agent_handlers = {
                .on_state = on_agent_state,
                .on_event = on_agent_event,
                .on_sample = on_agent_sample,
        };
        struct partition *p = calloc(1, sizeof(*p));
        if (!p)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");

        p->manager = m;
        p->definition = *d;
        TAILQ_INIT(&p->jobs);
        if (d->domain[0])
                error_set(&p->platform_error, ERROR_HYPERVISOR_ABSENT,
                        "The domain does not run; 'virsh start %s' starts it", d->name);
        else
                error_set(&p->platform_error, ERROR_HYPERVISOR_ABSENT, "QEMU's socket %s was not reached yet",
                        d->qmp_path);

        int r = d->domain[0] ? platform_libvirt_new(domains_connection(manager_domains(m)), d->domain,
                                       &platform_handlers, p, &p->platform)
                             : platform_qmp_new(event, d->qmp_path, d->channel_path, &platform_handlers, p,
                                       &p->platform);
        if (r >= 0)
                r = sd_event_add_time(event, &p->settle_timer, CLOCK_MONOTONIC, 0, 0, on_settle_timer, p);
        if (r >= 0)
                r = sd_event_source_set_enabled(p->settle_timer, SD_EVENT_OFF);
        if (r >= 0)
                r = agent_new(event, d->domain[0] ? NULL : d->channel_path, &agent_handlers, p, &p->agent);
        if (r < 0) {
                partition_free(p);
                return error_set_errno(
                        ret_error, ERROR_INVALID_ARGUMENT, r, "Partition '%s' cannot be defined", d->name);
        }
        *ret = p;
        return 0;
}
