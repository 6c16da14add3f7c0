/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "guestd/uevent.h"

#include <string.h>

#include "common/size.h"
#include "guestd/blocks.h"

int uevent_read_block(const char *text, size_t length, uint32_t *ret_number, enum block_state *ret_state)
{
        static const struct {
                const char *action;
                enum block_state state;
        } actions[] = {
                { "add@", BLOCK_OFFLINE }, /* before its "online", if that comes */
                { "online@", BLOCK_ONLINE },
                { "offline@", BLOCK_OFFLINE },
                { "remove@", BLOCK_ABSENT },
        };
        static const char memory[] = "/devices/system/memory/", synthetic[] = "\0SYNTH_UUID=";
        const char *path = strchr(text, '@');

        if (!path || strncmp(path + 1, memory, sizeof(memory) - 1) != 0 ||
                block_number_from_name(path + sizeof(memory), ret_number) < 0)
                return -EINVAL;
        /* Somebody asked the kernel for it, as "udevadm trigger" does for every block, and nothing has
         * changed. Linux marks it since 4.13. */
        if (memmem(text, length, synthetic, sizeof(synthetic) - 1))
                return -EINVAL;
        for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
                if (strncmp(text, actions[i].action, strlen(actions[i].action)) == 0) {
                        *ret_state = actions[i].state;
                        return 0;
                }
        return -EINVAL;
}
