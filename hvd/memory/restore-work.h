/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/memory/guest.h"
#include "hvd/memory/resize.h"

/* What restore.c and restore-wish.c share: a restore job's work. */

struct restore {
        struct job *job;
        struct mem_range *ranges; /* of DIMMs, offline */
        size_t n_ranges, next, until;
        enum zone zone;
        struct partition_refresh *refresh;
        struct guest_call *call;

        /* of virtio-mem, and of the balloon */
        bool is_prepared;
        uint64_t usable_bytes, first_usable_bytes; /* plugged by virtio-mem and online; when it began */
        uint64_t moved_usec, until_usec;
        struct resize *resize;
        sd_event_source *again;
};

/* The DIMMs are as they should be: what the guest's drivers do by themselves is seen through, virtio-mem
 * first, and then the balloon. Ends the job. */
void restore_wishes(struct restore *w);
void restore_wishes_free(struct restore *w);
/* The job is to stop. False: it is not in this part of it. */
bool restore_wishes_stop(struct restore *w);
