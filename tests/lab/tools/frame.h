/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The lab's own channel, between lab-exec on the host and lab-agent in the guest. It is not the guest
 * protocol of proto/: it runs commands as root and exists for tests alone.
 *
 * A frame is FRAME_START, a stuffed body, FRAME_END; in the body the three special bytes are sent as
 * FRAME_ESCAPE and the byte with its top bit cleared. So FRAME_START is always the beginning of a frame,
 * and either end finds its place again after a peer that died in the middle of one.
 *
 * A body is a type, the caller's id of FRAME_ID_SIZE bytes, and data. Who sees an id that is not its own
 * drops the frame: it belongs to a caller who has left.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
        FRAME_START = 0xff,
        FRAME_ESCAPE = 0xfe,
        FRAME_END = 0xfd,
        FRAME_ID_SIZE = 8,
        FRAME_HEAD_SIZE = 1 + FRAME_ID_SIZE,
        FRAME_DATA_MAX = 64 * 1024,
        FRAME_BODY_MAX = FRAME_HEAD_SIZE + FRAME_DATA_MAX,
        FRAME_WIRE_MAX = 2 + 2 * FRAME_BODY_MAX,
};

enum frame_type {
        FRAME_PING = 'P',   /* host: are you there?  guest: the agent's nonce, then the id that it runs */
        FRAME_RUN = 'R',    /* host: argv, each ended by a NUL */
        FRAME_KILL = 'K',   /* host: end the command */
        FRAME_STDOUT = 'O', /* guest */
        FRAME_STDERR = 'E', /* guest */
        FRAME_EXIT = 'X',   /* guest: one byte, the exit code as a shell would show it */
};

struct frame_parser {
        uint8_t body[FRAME_BODY_MAX];
        size_t n_body;
        bool inside, escaped;
};

/* Takes one byte. Returns true when it completed a frame, which stays in p->body until the next call. */
static inline bool frame_parser_push(struct frame_parser *p, uint8_t byte)
{
        if (byte == FRAME_START) {
                p->inside = true;
                p->escaped = false;
                p->n_body = 0;
                return false;
        }
        if (!p->inside)
                return false;
        if (byte == FRAME_END) {
                p->inside = false;
                return !p->escaped && p->n_body >= FRAME_HEAD_SIZE;
        }
        if (byte == FRAME_ESCAPE) {
                p->escaped = true;
                return false;
        }
        if (p->n_body == sizeof(p->body)) { /* too long to be ours: wait for the next start */
                p->inside = false;
                return false;
        }
        p->body[p->n_body++] = p->escaped ? byte | 0x80 : byte;
        p->escaped = false;
        return false;
}

static inline size_t frame_stuff(uint8_t *wire, size_t n, const uint8_t *data, size_t n_data)
{
        for (size_t i = 0; i < n_data; i++) {
                if (data[i] >= FRAME_END) {
                        wire[n++] = FRAME_ESCAPE;
                        wire[n++] = data[i] & 0x7f;
                } else
                        wire[n++] = data[i];
        }
        return n;
}

/* Encodes into wire, which holds FRAME_WIRE_MAX bytes; n_data is at most FRAME_DATA_MAX. Returns the length.
 */
static inline size_t frame_encode(
        uint8_t *wire, enum frame_type type, const uint8_t id[FRAME_ID_SIZE], const void *data, size_t n_data)
{
        size_t n = 0;

        wire[n++] = FRAME_START;
        n = frame_stuff(wire, n, (const uint8_t[]) { (uint8_t)type }, 1);
        n = frame_stuff(wire, n, id, FRAME_ID_SIZE);
        if (n_data > 0)
                n = frame_stuff(wire, n, data, n_data);
        wire[n++] = FRAME_END;
        return n;
}

static inline bool frame_has_id(const struct frame_parser *p, const uint8_t id[FRAME_ID_SIZE])
{
        return memcmp(p->body + 1, id, FRAME_ID_SIZE) == 0;
}
