/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The one decoder of UTF-8: json-c's own check lets overlong forms and surrogates through, libc's needs a
 * locale. */

#include "common/text.h"

#include <string.h>

size_t utf8_sequence(const char *s, size_t available)
{
        const unsigned char *p = (const unsigned char *)s;
        size_t length;

        if (available == 0)
                return 0;
        if (p[0] < 0x80)
                return 1;
        if (p[0] >= 0xC2 && p[0] <= 0xDF)
                length = 2;
        else if ((p[0] & 0xF0) == 0xE0)
                length = 3;
        else if (p[0] >= 0xF0 && p[0] <= 0xF4)
                length = 4;
        else
                return 0;
        if (available < length)
                return 0;
        for (size_t i = 1; i < length; i++)
                if ((p[i] & 0xC0) != 0x80)
                        return 0;

        bool overlong = (p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xF0 && p[1] < 0x90);
        bool surrogate = p[0] == 0xED && p[1] > 0x9F;
        bool beyond = p[0] == 0xF4 && p[1] > 0x8F;
        return overlong || surrogate || beyond ? 0 : length;
}

static bool is_control(const char *s, size_t length)
{
        const unsigned char *p = (const unsigned char *)s;

        return length == 1 ? p[0] < 0x20 || p[0] == 0x7F : length == 2 && p[0] == 0xC2 && p[1] < 0xA0;
}

bool text_is_printable(const char *s)
{
        for (size_t left = strlen(s), n; left > 0; s += n, left -= n) {
                n = utf8_sequence(s, left);
                if (n == 0 || is_control(s, n))
                        return false;
        }
        return true;
}

void text_clean(char *dest, size_t size, const char *s)
{
        size_t left = strlen(s), used = 0, n;

        for (; left > 0; s += n, left -= n) {
                n = utf8_sequence(s, left);
                bool keep = n > 0 && !is_control(s, n);
                size_t written = keep ? n : 1;
                char replacement = n > 0 ? ' ' : '?';

                if (n == 0)
                        n = 1;
                if (used + written >= size)
                        break;
                memmove(dest + used, keep ? s : &replacement, written);
                used += written;
        }
        dest[used] = '\0';
}
