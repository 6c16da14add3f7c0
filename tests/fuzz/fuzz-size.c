/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What an operator types: sizes, times and numbers. Whatever is taken is in range, and what is written back
 * reads back as the same. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hmc-cli/args.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
        if (!condition)
                abort();
}

static void check_size(const char *text)
{
        struct error error = { 0 };
        uint64_t bytes, again;

        if (size_parse(text, &bytes, &error) < 0) {
                require(error.code == ERROR_INVALID_SIZE && error.message[0]);
                return;
        }
        require(bytes > 0 && bytes <= INT64_MAX && bytes % 1024 == 0);
        require(size_parse(SIZE_EXACT(bytes), &again, NULL) == 0 && again == bytes);
        require(SIZE(bytes)[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *text = strndup((const char *)data, size);
        struct error error = { 0 };
        const char *string;
        uint64_t usec;
        uint32_t number;

        require(text);
        check_size(text);
        if (timespan_parse(text, &usec, &error) < 0)
                require(error.code != ERROR_NONE && error.message[0]);
        else
                require(usec > 0 && usec <= 7 * 24 * 3600 * USEC_PER_SEC);
        if (args_parse_u32("--node", text, &number, &error) >= 0)
                require(number == strtoull(text, NULL, 10));
        if (args_parse_hex32("--drc", text, &number, &error) >= 0)
                require(number == strtoull(text, NULL, 16) && text[0] == '0');
        if (args_parse_string("--device", text, &string, &error) >= 0)
                require(string == text && *text);
        return 0;
}
