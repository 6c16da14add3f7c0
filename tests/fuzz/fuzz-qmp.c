/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Whatever a monitor sends: through the line reader in reads of uneven sizes, then the classifier. */

#include <stdlib.h>
#include <string.h>

#include "common/lines.h"
#include "hvd/qmp/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *line, size_t length)
{
        struct qmp_message m = { 0 };
        struct error error = { 0 };

        if (qmp_message_parse(line, length, &m, &error) < 0) {
                /* Refused: with a reason, and nothing left behind. */
                if (error.code == ERROR_NONE || m.root)
                        abort();
                return;
        }
        if (!m.root || m.type >= QMP_MESSAGE_TYPE_MAX || m.id > QMP_ID_MAX)
                abort();
        if (m.type == QMP_MESSAGE_EVENT && (!m.name || !*m.name))
                abort();
        if (m.type == QMP_MESSAGE_ERROR && (!m.name || !m.description))
                abort();
        if (m.type == QMP_MESSAGE_RETURN && !m.object)
                abort();
        qmp_message_done(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct line_reader reader;
        char *line;
        size_t length;

        /* A small limit, so that the fuzzer reaches it. */
        line_reader_init(&reader, 4096, false);
        for (size_t at = 0, step = 1; at < size; at += step, step = step * 3 % 1021 + 1) {
                size_t n = MIN(step, size - at);
                int r;

                if (line_reader_feed(&reader, data + at, n) < 0)
                        abort();
                while ((r = line_reader_next(&reader, &line, &length)) != 0)
                        if (r > 0) {
                                if (length > 4096 || line[length] != '\0')
                                        abort();
                                check(line, length);
                        }
        }
        line_reader_done(&reader);
        return 0;
}
