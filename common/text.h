/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Text that a peer, an operator or a cut buffer hands us, before it reaches D-Bus (which takes only
 * well-formed UTF-8) or a terminal (which obeys control characters). */

/* The bytes of the well-formed character at s (RFC 3629: no overlong form, no surrogate), 1 to 4, or 0. */
size_t utf8_sequence(const char *s, size_t available);

/* Well-formed UTF-8 without control characters (C0, DEL, C1). */
bool text_is_printable(const char *s);

/* Copies at most size - 1 bytes of s, cut between characters; control characters become spaces, stray bytes
 * '?'. dest may be s. */
void text_clean(char *dest, size_t size, const char *s);
