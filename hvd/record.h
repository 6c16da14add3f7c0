/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

#include "hvd/store/store.h"

struct job;
struct partition;
struct reservation;

#define RECORD_HOST_BOOT_LENGTH 32U
#define RECORD_BOOT_MAX         (RECORD_HOST_BOOT_LENGTH + 65U)

/* What the store is told of jobs and of what they were for. It failing is logged, and stops nothing. */

/* With the way that it took so far. */
void record_job(struct store *store, struct job *j);
/* The boots of the host and of the guest, as the guest's last hello has it. */
void record_boot(const struct partition *p, char ret[static RECORD_BOOT_MAX]);
/* What is new of its way. */
void record_transitions(struct store *store, struct job *j);
/* What the partition has beside DIMMs when a job of it ends is what it was asked to have: by that it is
 * known, while a guest that was reset has its balloon and virtio-mem anew, what is still to come. DIMMs stay
 * with QEMU, and one that came or left without hvd changes what is wanted with it. 0: nothing was asked. */
void record_kept(struct store *store, struct partition *p, uint64_t bytes);
/* What the balloon is to take again after a reset: so that an hvd that is started meanwhile knows it. */
void record_owed(struct store *store, struct partition *p, uint64_t bytes);
/* As record_kept(), by what the partition has now. */
void record_kept_now(struct store *store, struct partition *p);
/* Likewise; p may be NULL, or not be worked on by the job. */
void record_kept_after(struct store *store, struct partition *p, const struct job *j);
/* A reservation that is held until then (CLOCK_MONOTONIC); 0: it has ended. */
void record_reservation(struct store *store, struct reservation *r, uint64_t ends_usec);
/* At start, by id: what of these has time left, in this boot of the host. Returns the greatest number that
 * was ever stored: who remembers it must not release another one's. */
uint32_t record_reservations_read(struct store *store, store_reservation_t callback, void *userdata);
