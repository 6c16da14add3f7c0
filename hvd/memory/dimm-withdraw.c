/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Taking out again what an addition has plugged and the guest has not brought online.
 *
 * The guest takes every block of a device offline, and then QEMU is told to unplug it. On x86 a block that is
 * not there is as good as offline. On pseries nothing tells that the guest has finished taking a device in: a
 * device_del before makes it give up the addition in the middle, and one of LMBs that it has given up is
 * never answered and stays pending until the guest is reset (QEMU 7.2, Linux 6.1). So a device is withdrawn
 * there only when the guest has shown every block of it and has taken each offline. Those that have not come
 * yet (COMING) are waited for, all at once; a device of which some do not come is LEFT. */

#include "common/size.h"
#include "hvd/memory/dimm-add.h"

/* Of all devices together. */
#define WITHDRAW_USEC (30 * USEC_PER_SEC)
/* For what a pseries guest has not taken in yet, of all devices together: it takes 4 GiB in within 0.3 s. */
#define COME_USEC (5 * USEC_PER_SEC)

void dimm_add_leave(struct dimm_add *w, struct piece *piece, const struct error *why)
{
        struct error error;

        piece->state = PIECE_LEFT;
        if (!w->job->partition->platform_up)
                error_set(&error, ERROR_HYPERVISOR_ABSENT,
                        "%s of %s was plugged when QEMU went away (%.300s); if it answers again, the device "
                        "is "
                        "brought online",
                        piece->id, SIZE(piece->size_bytes), why->message);
        else
                error_set(&error, why->code,
                        "%s of %s stays plugged without being in use (%.300s); it is brought online when "
                        "guestd "
                        "speaks again",
                        piece->id, SIZE(piece->size_bytes), why->message);
        dimm_add_fail(w, piece->id, &error);
}

static void on_withdrawn(const struct error *error, void *userdata)
{
        struct piece *piece = userdata;
        struct dimm_add *w = piece->job->work;

        piece->op = NULL;
        if (error && error->code != ERROR_ACCOUNTS_DIFFER)
                dimm_add_leave(w, piece, error);
        else {
                piece->state = PIECE_WITHDRAWN;
                if (error) /* it left without its backend, which the restore job deletes */
                        dimm_add_fail(w, piece->id, error);
        }
        dimm_add_withdraw(w);
}

static struct piece *last_in(struct dimm_add *w, enum piece_state state)
{
        for (size_t i = w->n_pieces; i-- > 0;)
                if (w->pieces[i].state == state)
                        return &w->pieces[i];
        return NULL;
}

bool dimm_add_is_coming(const struct dimm_add *w, const struct range_account *a)
{
        return a->absent_bytes > 0 && partition_is_pseries(w->job->partition);
}

static void leave_coming(struct dimm_add *w, struct piece *piece, const struct range_account *a)
{
        struct error error;

        piece->state = PIECE_LEFT;
        error_set(&error, ERROR_BLOCK_MISSING,
                "%s stays plugged: the guest has taken in %s of its %s, and to unplug it now would be to be "
                "left without an answer; the guest may take in the rest yet, and does so when it is reset",
                piece->id, SIZE(piece->size_bytes - a->absent_bytes), SIZE(piece->size_bytes));
        dimm_add_fail(w, piece->id, &error);
}

static void on_come(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct dimm_add *w = userdata;
        struct piece *piece;

        w->call = NULL;
        /* One that is silent, or gone, is not asked for the others either. */
        w->guest_lost = error && error->code != ERROR_BUSY && error->code != ERROR_INVALID_ARGUMENT;
        while ((piece = last_in(w, PIECE_COMING))) {
                if (error) {
                        dimm_add_leave(w, piece, error);
                        continue;
                }
                struct range_account a =
                        ranges_account(reply->ranges, reply->n_ranges, piece->address, piece->size_bytes);
                if (dimm_add_is_coming(w, &a))
                        leave_coming(w, piece, &a);
                else
                        piece->state = PIECE_DOUBTFUL;
        }
        dimm_add_withdraw(w);
}

/* Those of one batch, and so of one zone. */
static void await_coming(struct dimm_add *w)
{
        struct mem_range targets[PLAN_DEVICES_MAX];
        struct message_request request = {
                .op = OP_ONLINE, .targets = targets, .zone = last_in(w, PIECE_COMING)->zone
        };
        struct error error;

        for (size_t i = 0; i < w->n_pieces; i++)
                if (w->pieces[i].state == PIECE_COMING)
                        targets[request.n_targets++] =
                                (struct mem_range) { w->pieces[i].address, w->pieces[i].size_bytes };
        ranges_sort(targets, request.n_targets);
        if (guest_call_start(w->job, &request, now_monotonic_usec() + COME_USEC, on_come, NULL, w, &w->call,
                    &error) < 0)
                on_come(NULL, &error, w);
}

static void on_taken_offline(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct dimm_add *w = userdata;
        struct partition *p = w->job->partition;
        struct piece *piece = last_in(w, PIECE_DOUBTFUL);

        w->call = NULL;
        if (error) {
                /* One that is silent, or gone, is not asked for each of the others in turn. */
                w->guest_lost = error->code != ERROR_BUSY && error->code != ERROR_INVALID_ARGUMENT;
                dimm_add_leave(w, piece, error);
                dimm_add_withdraw(w);
                return;
        }

        struct range_account a =
                ranges_account(reply->ranges, reply->n_ranges, piece->address, piece->size_bytes);
        if (dimm_add_is_coming(w, &a))
                leave_coming(w, piece, &a); /* it has been there: the guest has given it up */
        else if (ranges_is_settled(reply) && a.absent_bytes + a.offline_bytes == piece->size_bytes) {
                int r = platform_detach(
                        p->platform, piece->id, piece->backend, MOP_UP_USEC, on_withdrawn, piece, &piece->op);
                if (r >= 0)
                        return;
                struct error absent;
                error_set_errno(&absent, ERROR_HYPERVISOR_ABSENT, r, "QEMU cannot be told to unplug it");
                dimm_add_leave(w, piece, &absent);
        } else if (range_account_online(&a) == piece->size_bytes && reply->n_failures > 0) {
                /* It is whole and in use, and will not leave: then it has been added. */
                ranges_add_reasons(w->job, reply);
                piece->state = PIECE_ONLINE;
                piece->movable_bytes = a.movable_bytes;
                piece->kernel_bytes = a.kernel_bytes + a.stuck_bytes;
        } else {
                struct error mixed;
                error_set(&mixed, ERROR_BLOCK_FAILED, "%s of it is online and will not go offline again",
                        SIZE(range_account_online(&a)));
                dimm_add_leave(w, piece, &mixed);
        }
        dimm_add_withdraw(w);
}

void dimm_add_withdraw(struct dimm_add *w)
{
        struct piece *piece = last_in(w, PIECE_DOUBTFUL);
        struct error error;

        if (last_in(w, PIECE_COMING)) {
                job_set_state(w->job, JOB_WITHDRAWING);
                await_coming(w);
                return;
        }
        if (!piece) {
                dimm_add_verify(w);
                return;
        }
        job_set_state(w->job, JOB_WITHDRAWING);
        if (!w->withdraw_until_usec)
                w->withdraw_until_usec = now_monotonic_usec() + WITHDRAW_USEC;
        if (w->guest_lost || now_monotonic_usec() > w->withdraw_until_usec) {
                error_set(&error, ERROR_DEADLINE, "there was no time to take it out again");
                dimm_add_leave(w, piece, &error);
                dimm_add_withdraw(w);
                return;
        }

        struct mem_range target = { piece->address, piece->size_bytes };
        struct message_request request = {
                .op = OP_OFFLINE,
                .targets = &target,
                .n_targets = 1,
                .attempt_msec = MOP_UP_USEC / USEC_PER_MSEC,
        };
        if (guest_call_start(w->job, &request, now_monotonic_usec() + MOP_UP_USEC, on_taken_offline, NULL, w,
                    &w->call, &error) < 0) {
                dimm_add_leave(w, piece, &error);
                dimm_add_withdraw(w);
        }
}
