/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* Bytes that wait to be written to a non-blocking descriptor. Bounded by the caller's limit. A zeroed one is
 * empty. */
struct write_queue {
        char *buffer; /* buffer[sent..fill) waits */
        size_t sent, fill, allocated;
};

static inline size_t write_queue_waiting(const struct write_queue *q)
{
        return q->fill - q->sent;
}

/* Appends. -EBUSY when more than max bytes would wait, -ENOMEM; nothing is appended then. */
int write_queue_push(struct write_queue *q, const void *data, size_t length, size_t max);

/* Writes what the descriptor takes, at most chunk bytes (0: any number) in one call. 0: all that it takes now
 * was written; see write_queue_waiting(). -errno: it is broken. Never raises SIGPIPE on a socket. */
int write_queue_flush(struct write_queue *q, int fd, size_t chunk);

/* Drops what waits, and its memory. */
void write_queue_clear(struct write_queue *q);
