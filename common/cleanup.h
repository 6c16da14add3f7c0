/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

/* Scoped ownership: _cleanup_(func) runs func(&variable) when the variable leaves its scope; steal_*() hands
 * the value on and leaves nothing behind to clean up. */
#define _cleanup_(f)   __attribute__((cleanup(f)))
#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _unused_       __attribute__((unused))
#define _warn_unused_  __attribute__((warn_unused_result))
#define ARRAY_SIZE(a)  (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)                                                                                            \
        ({                                                                                                   \
                __typeof__(a) _a = (a);                                                                      \
                __typeof__(b) _b = (b);                                                                      \
                _a < _b ? _a : _b;                                                                           \
        })
#define MAX(a, b)                                                                                            \
        ({                                                                                                   \
                __typeof__(a) _a = (a);                                                                      \
                __typeof__(b) _b = (b);                                                                      \
                _a > _b ? _a : _b;                                                                           \
        })

#define steal_pointer(p)                                                                                     \
        ({                                                                                                   \
                __typeof__(p) *_slot = &(p);                                                                 \
                __typeof__(p) _v = *_slot;                                                                   \
                *_slot = NULL;                                                                               \
                _v;                                                                                          \
        })

static inline void freep(void *p)
{
        free(*(void **)p);
}

static inline int steal_fd(int *fd)
{
        int v = *fd;
        *fd = -1;
        return v;
}

/* Closes and returns -1, so that `fd = close_fd(fd)` leaves a field reset. Keeps errno. */
static inline int close_fd(int fd)
{
        int saved = errno;
        if (fd >= 0)
                close(fd);
        errno = saved;
        return -1;
}

static inline void closep(int *fd)
{
        close_fd(*fd);
}

#define _cleanup_free_  _cleanup_(freep)
#define _cleanup_close_ _cleanup_(closep)
