/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "hvd/job.h"

/* One wish on its way: what a virtio-mem device shall have plugged, or what the balloon shall leave the guest
 * (actual_bytes, in the reckoning of struct platform_balloon). The guest's driver follows by and by; the way
 * is watched, and at its end, wherever that is, the wish is what has been reached: nothing moves later
 * unasked.
 */
struct resize;

enum resize_end {
        RESIZE_REACHED,
        RESIZE_STALLED,     /* the guest's driver does not get further */
        RESIZE_STOPPED,     /* by resize_stop() */
        RESIZE_NO_HEADROOM, /* too little was available in the guest on the way */
        RESIZE_FAILED,      /* as the error says; where it stands is not known for sure */
};

struct resize_wish {
        const char *device; /* the virtio-mem device's id (copied); NULL: the balloon */
        uint64_t from_bytes, to_bytes;
        /* The way ends when less than this is available in the guest; 0: it is not looked at. */
        uint64_t keep_available_bytes;
};

/* size_bytes is where it stands. The error is set with RESIZE_FAILED. Exactly once, unless freed before;
 * never from inside start. */
typedef void (*resize_done_t)(
        enum resize_end end, uint64_t size_bytes, const struct error *error, void *userdata);

/* Counts as the job's progress on the way. */
int resize_start(struct job *j, const struct resize_wish *wish, resize_done_t done, void *userdata,
        struct resize **ret, struct error *ret_error);
/* Ends soon, where it stands. */
void resize_stop(struct resize *r);
/* QEMU told of a change: look now. */
void resize_look(struct resize *r);
/* NULL is fine; returns NULL. The wish stays as it is. */
struct resize *resize_free(struct resize *r);
