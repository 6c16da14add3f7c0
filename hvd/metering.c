/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Counts whenever a partition changes, so that what it had only for seconds counts as well, and writes once a
 * minute, all partitions in one transaction. How long is told by CLOCK_MONOTONIC, so that a clock that is set
 * makes nobody pay; only which day it is, is told by the clock of the day. */

#include "hvd/metering.h"

#include <stdlib.h>
#include <systemd/sd-event.h>
#include <time.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/manager.h"

#define KEEP_USEC     (60 * USEC_PER_SEC)
#define ACCURACY_USEC (10 * USEC_PER_SEC)
#define DAY_SEC       86400

struct metering {
        struct manager *manager;
        sd_event_source *timer;
        uint32_t day; /* when it last forgot what is too old */
};

static uint32_t today(void)
{
        return (uint32_t)(time(NULL) / DAY_SEC);
}

void metering_note(struct partition *p)
{
        struct partition_meter *meter = &p->meter;
        uint64_t now = now_monotonic_usec();

        if (meter->since_usec)
                meter->mib_usec += meter->bytes / MIB * (now - meter->since_usec);
        meter->since_usec = now;
        meter->bytes = p->platform_up && p->has_snapshot ? partition_current_bytes(p) : 0;
}

void metering_keep(struct partition *p)
{
        struct partition_meter *meter = &p->meter;
        struct error error;

        metering_note(p);
        meter->kept_usec = 0;
        uint64_t mib_seconds = meter->mib_usec / USEC_PER_SEC;
        if (mib_seconds == 0)
                return;
        /* What cannot be kept now is counted on. */
        if (store_usage_add(manager_store(p->manager), p->definition.name, today(), mib_seconds, &error) < 0)
                log_debug("What partition '%s' used: %s", p->definition.name, error.message);
        else {
                meter->kept_usec = mib_seconds * USEC_PER_SEC;
                meter->mib_usec -= meter->kept_usec;
        }
}

static void keep_all(struct metering *metering)
{
        struct store *store = manager_store(metering->manager);
        struct partition *p = NULL;
        struct error error;

        if (store_begin(store, &error) < 0) {
                log_debug("%s", error.message);
                return;
        }
        while ((p = manager_next_partition(metering->manager, p)))
                metering_keep(p);
        if (metering->day != today()) {
                metering->day = today();
                if (metering->day > STORE_USAGE_DAYS &&
                        store_usage_trim(store, metering->day - STORE_USAGE_DAYS, &error) < 0)
                        log_debug("%s", error.message);
        }
        if (store_commit(store, &error) >= 0)
                return;
        log_warning("What partitions used in the last minute could not be stored: %s", error.message);
        while ((p = manager_next_partition(metering->manager, p)))
                p->meter.mib_usec += p->meter.kept_usec;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        keep_all(userdata);
        sd_event_source_set_time_relative(s, KEEP_USEC);
        return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

int metering_foreach(
        struct partition *p, uint32_t days, store_usage_t callback, void *userdata, struct error *ret_error)
{
        uint32_t day = today();

        metering_keep(p);
        return store_usage_foreach(manager_store(p->manager), p->definition.name,
                days > day ? 0 : day - days + 1, callback, userdata, ret_error);
}

struct metering *metering_free(struct metering *metering)
{
        if (!metering)
                return NULL;
        keep_all(metering);
        sd_event_source_disable_unref(metering->timer);
        free(metering);
        return NULL;
}

int metering_new(struct manager *m, struct metering **ret)
{
        struct metering *metering = calloc(1, sizeof(*metering));
        if (!metering)
                return -ENOMEM;

        metering->manager = m;
        int r = sd_event_add_time_relative(manager_event(m), &metering->timer, CLOCK_MONOTONIC, KEEP_USEC,
                ACCURACY_USEC, on_timer, metering);
        if (r < 0) {
                free(metering);
                return r;
        }
        *ret = metering;
        return 0;
}
