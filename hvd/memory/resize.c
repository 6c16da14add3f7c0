/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* QEMU takes the wish at once, and the guest's driver follows. QEMU tells of the way at most once a second,
 * and of its end up to a second late, so it is looked at as well: when three quarters of what is left should
 * be done at the pace so far, which takes few looks (each costs QEMU's main loop half a millisecond, and us
 * as much, beside a guest that has the other processor) and sees the end within some milliseconds. What the
 * guest has available is asked for beside it, more rarely: a guest that is at work answers late, and the end
 * does not wait for that.
 *
 *     ASKING --QEMU took it--> LOOKING <--> WAITING
 *
 * When it ends short of its target the wish becomes what was reached (settling), in the same three states,
 * until both are equal: the guest may be moving at that moment. */

#include "hvd/memory/resize.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/manager.h"

#define LOOK_MIN_USEC   (2 * USEC_PER_MSEC)
#define LOOK_FIRST_USEC (4 * USEC_PER_MSEC)
#define LOOK_MAX_USEC   (200 * USEC_PER_MSEC)
/* Nor sooner than such a part of the time so far: a way that slows down at its end is not looked at all the
 * time. */
#define LOOK_MIN_PARTS 256U
/* No guest takes or gives more: what is left of a large step takes some time, at whatever pace. */
#define BYTES_PER_USEC_MAX (256 * 1024U)
/* A look at the guest's own account costs the guest time, and says little in the first moment: so much later
 * than the beginning, and than the one before. */
#define GUEST_AFTER_USEC (100 * USEC_PER_MSEC)
/* Without any movement for so long the driver is taken to be stuck. It tries again by itself only after 50 s
 * and more (Linux 6.1, virtio_mem), but at once when the wish changes. */
#define STALL_USEC  (3 * USEC_PER_SEC)
#define NUDGES_MAX  1U
#define SETTLES_MAX 8U

enum resize_state { ASKING, LOOKING, WAITING };

struct resize {
        struct job *job;
        char device[PLATFORM_ID_MAX]; /* empty: the balloon */
        uint64_t from_bytes, to_bytes, keep_available_bytes;
        resize_done_t done;
        void *userdata;

        enum resize_state state;
        uint64_t wish_bytes, size_bytes;
        uint64_t began_usec, moved_usec, guest_after_usec;
        uint64_t progress_bytes; /* the job's, when this began */
        unsigned n_nudges, n_settles, n_resets;
        bool nudging, stopped, settling, looked_at_guest;
        enum resize_end end; /* when settling */
        struct platform_op *op;
        struct partition_refresh *refresh, *guest_look;
        sd_event_source *timer;
};

static void ask(struct resize *r, uint64_t wish_bytes);

struct resize *resize_free(struct resize *r)
{
        if (!r)
                return NULL;
        platform_op_free(r->op);
        partition_refresh_free(r->refresh);
        partition_refresh_free(r->guest_look);
        sd_event_source_disable_unref(r->timer);
        free(r);
        return NULL;
}

static void complete(struct resize *r, enum resize_end end, const struct error *error)
{
        resize_done_t done = r->done;
        void *userdata = r->userdata;
        uint64_t size_bytes = r->size_bytes;
        struct error copy;

        if (error)
                copy = *error;
        resize_free(r);
        done(end, size_bytes, error ? &copy : NULL, userdata);
}

static const char *name(const struct resize *r)
{
        return r->device[0] ? r->device : "the balloon";
}

/* --- looking --- */

static bool take_size(struct resize *r)
{
        const struct platform_snapshot *s = &r->job->partition->snapshot;
        const struct platform_device *d = r->device[0] ? platform_snapshot_find(s, r->device) : NULL;
        uint64_t size_bytes = d ? d->size_bytes : s->balloon.actual_bytes;

        if (r->device[0] ? !d : !s->balloon.present)
                return false;
        if (size_bytes != r->size_bytes)
                r->moved_usec = now_monotonic_usec();
        r->size_bytes = size_bytes;

        uint64_t moved = r->to_bytes > r->from_bytes ? size_bytes - MIN(r->from_bytes, size_bytes)
                                                     : r->from_bytes - MIN(r->from_bytes, size_bytes);
        job_set_progress(r->job, r->progress_bytes + moved);
        return true;
}

/* When three quarters of the rest should be done. It moves in blocks, each of which may take a while: what
 * has passed since the last one counts for the next. */
static uint64_t next_look_usec(const struct resize *r)
{
        uint64_t now = now_monotonic_usec(), elapsed = now - r->began_usec, still = now - r->moved_usec;
        uint64_t moved =
                r->size_bytes > r->from_bytes ? r->size_bytes - r->from_bytes : r->from_bytes - r->size_bytes;
        uint64_t left =
                r->size_bytes > r->wish_bytes ? r->size_bytes - r->wish_bytes : r->wish_bytes - r->size_bytes;
        uint64_t next;

        if (moved == 0)
                next = MAX(elapsed / 4, LOOK_FIRST_USEC);
        else {
                double rest = (double)left / (double)moved * (double)elapsed - (double)still;

                if (rest <= 0) /* it is overdue, and may be stuck */
                        next = still / 8;
                else /* At first the driver has hardly begun: not later than as long again. */
                        next = (uint64_t)MIN(rest / 4 * 3, (double)elapsed);
        }
        next = MAX(next, LOOK_MIN_USEC);
        next = MAX(next, left / BYTES_PER_USEC_MAX);
        next = MAX(next, elapsed / LOOK_MIN_PARTS);
        return MIN(next, LOOK_MAX_USEC);
}

static void look_later(struct resize *r)
{
        r->state = WAITING;
        sd_event_source_set_time(r->timer, now_monotonic_usec() + next_look_usec(r));
        sd_event_source_set_enabled(r->timer, SD_EVENT_ONESHOT);
}

static void settle(struct resize *r, enum resize_end end)
{
        r->settling = true;
        r->nudging = false;
        r->end = end;
        ask(r, r->size_bytes);
}

/* The guest may have moved on while QEMU took the wish. */
static void go_on_settling(struct resize *r)
{
        if (r->size_bytes == r->wish_bytes)
                complete(r, r->size_bytes == r->to_bytes ? RESIZE_REACHED : r->end, NULL);
        else if (++r->n_settles < SETTLES_MAX)
                ask(r, r->size_bytes);
        else
                complete(r, r->end, NULL);
}

static bool is_guest_short(const struct resize *r)
{
        return r->keep_available_bytes > 0 && r->looked_at_guest &&
               r->job->partition->memory.available_bytes < r->keep_available_bytes;
}

/* Its blocks are gone with the boot that had them, and the device is on its way back to what was wished: that
 * is made what it had, and brought online when the guest speaks (restore.c). */
static void give_up_after_reset(struct resize *r)
{
        struct partition *p = r->job->partition;
        struct error error;

        if (r->device[0])
                platform_resize(p->platform, r->device, r->size_bytes, NULL, NULL, NULL);
        else if (p->balloon_owed_bytes == 0) /* else it waits until the guest can give it */
                platform_set_balloon(p->platform, r->size_bytes, NULL, NULL, NULL);
        error_set(&error, ERROR_GUEST_RESET, "The guest was reset on the way; %s comes back with %s", name(r),
                SIZE(r->size_bytes));
        complete(r, RESIZE_FAILED, &error);
}

static void on_looked(struct partition *p, const struct error *error, void *userdata)
{
        struct resize *r = userdata;
        struct error gone;

        r->refresh = NULL;
        if (r->n_resets != p->n_resets) {
                give_up_after_reset(r);
                return;
        }
        if (error) {
                complete(r, RESIZE_FAILED, error);
                return;
        }
        if (!take_size(r)) {
                error_set(&gone, ERROR_ACCOUNTS_DIFFER, "QEMU does not list %s any more", name(r));
                complete(r, RESIZE_FAILED, &gone);
                return;
        }

        if (r->settling)
                go_on_settling(r);
        else if (r->size_bytes == r->to_bytes)
                complete(r, RESIZE_REACHED, NULL);
        else if (r->stopped)
                settle(r, RESIZE_STOPPED);
        else if (is_guest_short(r))
                settle(r, RESIZE_NO_HEADROOM);
        else if (now_monotonic_usec() < r->moved_usec + STALL_USEC)
                look_later(r);
        else if (r->device[0] && r->n_nudges < NUDGES_MAX) {
                r->n_nudges++;
                r->nudging = true;
                r->moved_usec = now_monotonic_usec();
                ask(r, r->size_bytes);
        } else
                settle(r, RESIZE_STALLED);
}

/* One that does not answer has no last word that is one of now. */
static void on_guest_looked(struct partition *p, const struct error *error, void *userdata)
{
        struct resize *r = userdata;

        r->guest_look = NULL;
        r->looked_at_guest = !error;
        if (is_guest_short(r))
                resize_look(r);
}

static void look_at_guest(struct resize *r)
{
        struct partition *p = r->job->partition;
        uint64_t now = now_monotonic_usec();

        if (r->keep_available_bytes == 0 || r->settling || r->guest_look || now < r->guest_after_usec)
                return;
        r->guest_after_usec = now + GUEST_AFTER_USEC;
        if (partition_refresh(p, REFRESH_MEMORY, on_guest_looked, r, &r->guest_look, NULL) < 0)
                r->looked_at_guest = false;
}

static void look(struct resize *r)
{
        struct error error;

        r->state = LOOKING;
        look_at_guest(r);
        if (partition_refresh(r->job->partition, REFRESH_DEVICES, on_looked, r, &r->refresh, &error) < 0)
                complete(r, RESIZE_FAILED, &error);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct resize *r = userdata;

        if (r->state == WAITING)
                look(r);
        return 0;
}

void resize_look(struct resize *r)
{
        if (r->state == WAITING)
                sd_event_source_set_time(r->timer, 0); /* not from inside this call */
}

void resize_stop(struct resize *r)
{
        r->stopped = true;
        resize_look(r);
}

/* --- asking --- */

static void on_asked(const struct error *error, void *userdata)
{
        struct resize *r = userdata;

        r->op = NULL;
        if (error)
                complete(r, RESIZE_FAILED, error);
        else if (r->nudging) {
                r->nudging = false;
                ask(r, r->to_bytes);
        } else
                look(r);
}

static int tell(struct resize *r)
{
        struct platform *p = r->job->partition->platform;

        r->state = ASKING;
        return r->device[0] ? platform_resize(p, r->device, r->wish_bytes, on_asked, r, &r->op)
                            : platform_set_balloon(p, r->wish_bytes, on_asked, r, &r->op);
}

static void ask(struct resize *r, uint64_t wish_bytes)
{
        struct error error;

        r->wish_bytes = wish_bytes;
        int k = tell(r);
        if (k < 0) {
                error_set_errno(
                        &error, ERROR_HYPERVISOR_ABSENT, k, "QEMU cannot be told to resize %s", name(r));
                complete(r, RESIZE_FAILED, &error);
        }
}

int resize_start(struct job *j, const struct resize_wish *wish, resize_done_t done, void *userdata,
        struct resize **ret, struct error *ret_error)
{
        uint64_t now = now_monotonic_usec();
        struct resize *r = calloc(1, sizeof(*r));

        if (!r)
                return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        *r = (struct resize) {
                .job = j,
                .from_bytes = wish->from_bytes,
                .to_bytes = wish->to_bytes,
                .keep_available_bytes = wish->keep_available_bytes,
                .done = done,
                .userdata = userdata,
                .wish_bytes = wish->to_bytes,
                .size_bytes = wish->from_bytes,
                .began_usec = now,
                .moved_usec = now,
                .guest_after_usec = now + GUEST_AFTER_USEC,
                .progress_bytes = j->progress_bytes,
                .n_resets = j->partition->n_resets,
        };
        snprintf(r->device, sizeof(r->device), "%s", wish->device ?: "");
        int k = sd_event_add_time(manager_event(j->manager), &r->timer, CLOCK_MONOTONIC, 0, 1, on_timer, r);
        if (k >= 0)
                k = sd_event_source_set_enabled(r->timer, SD_EVENT_OFF);
        if (k >= 0)
                k = tell(r);
        if (k < 0) {
                error_set_errno(
                        ret_error, ERROR_HYPERVISOR_ABSENT, k, "QEMU cannot be told to resize %s", name(r));
                resize_free(r);
                return k;
        }
        log_debug(
                "Job %" PRIu32 ": %s from %s to %s", j->id, name(r), SIZE(r->from_bytes), SIZE(r->to_bytes));
        *ret = r;
        return 0;
}
