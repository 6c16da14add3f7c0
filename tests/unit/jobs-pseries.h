/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A guest with LMBs, and what it and its QEMU say. */

#include "jobs-fixture.h"

#define LMB_ONLINE(a)  "[" a ",256M,'online','movable',0]"
#define LMB_OFFLINE(a) "[" a ",256M,'offline','unknown',0]"
#define RELEASE(a)     "expect offline {'targets':[[" a ",256M]]}\nreply {'ranges':[" LMB_OFFLINE(a) "]}\n"
#define PUT_BACK(a)                                                                                          \
        "expect online {'targets':[[" a ",256M]],'zone':'movable'}\n"                                        \
        "reply {'ranges':[" LMB_ONLINE(a) "]}\n"
#define REMOVED(a) "expect await-removed {'targets':[[" a ",256M]]}\nreply\n"
#define RESET      "event RESET {'guest':true,'reason':'host-qmp-system-reset'}\n"
/* As QEMU 7.2 says one refusal. */
#define REFUSED(n)                                                                                           \
        "event MEM_UNPLUG_ERROR {'device':'opendlpar-dimm-" #n                                               \
        "','msg':'Memory hotunplug rejected by the guest for device opendlpar-dimm-" #n "'}\n"               \
        "event DEVICE_UNPLUG_GUEST_ERROR {'device':'opendlpar-dimm-" #n "','path':'/x'}\n"                   \
        "event DEVICE_UNPLUG_GUEST_ERROR {'device':'opendlpar-dimm-" #n "','path':'/x'}\n"

/* Two LMBs and a device of two more. */
#define FOUR       "<0 1G 256M>,<1 1280M 256M>,<2 1536M 512M>"
#define TWO        "<0 1G 256M>,<1 1280M 256M>"
#define MIB_256    (256 * MIB)
#define DRC(index) .has_drc = true, .drc = (index)

static inline void start_four(struct fixture *fx)
{
        start_pseries(fx, DEVICES(FOUR, "1G"), BLOCKS(",[1G,1G,'online','movable',0]"));
}

static inline void start_two(struct fixture *fx)
{
        start_pseries(fx, DEVICES(TWO, "512M"), BLOCKS(",[1G,512M,'online','movable',0]"));
}

static inline bool is_pending(const struct fixture *fx, const char *id)
{
        const struct platform_device *d = platform_snapshot_find(&fx->p->snapshot, id);

        return d && d->unplug_pending;
}
