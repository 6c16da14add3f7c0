/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The writing half of a stream, as common/lines.h is the reading half. */

#include "common/queue.h"

#include <string.h>
#include <sys/socket.h>

#include "common/cleanup.h"

int write_queue_push(struct write_queue *q, const void *data, size_t length, size_t max)
{
        size_t waiting = write_queue_waiting(q);

        if (length > max || waiting > max - length)
                return -EBUSY;
        if (q->sent > 0) {
                memmove(q->buffer, q->buffer + q->sent, waiting);
                q->sent = 0;
                q->fill = waiting;
        }
        if (waiting + length > q->allocated) {
                size_t want = MAX(2 * (waiting + length), (size_t)1024);
                char *p = realloc(q->buffer, want);
                if (!p)
                        return -ENOMEM;
                q->buffer = p;
                q->allocated = want;
        }
        memcpy(q->buffer + q->fill, data, length);
        q->fill += length;
        return 0;
}

int write_queue_flush(struct write_queue *q, int fd, size_t chunk)
{
        while (write_queue_waiting(q) > 0) {
                size_t length = write_queue_waiting(q);
                if (chunk > 0)
                        length = MIN(length, chunk);

                ssize_t n = send(fd, q->buffer + q->sent, length, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n < 0 && errno == ENOTSOCK)
                        n = write(fd, q->buffer + q->sent, length);
                if (n > 0)
                        q->sent += (size_t)n;
                else if (n ==
                         0) /* virtio_console's answer on a broken virtqueue: it would stay so for ever */
                        return -EIO;
                else if (errno == EAGAIN)
                        return 0;
                else if (errno != EINTR)
                        return -errno;
        }
        return 0;
}

void write_queue_clear(struct write_queue *q)
{
        free(q->buffer);
        *q = (struct write_queue) { 0 };
}
