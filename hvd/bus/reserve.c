/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Reserve and ReleaseReservation. A reservation ends with the connection of the one who made it, unless it is
 * to be kept: then it is not known here any more once it was answered. */

#include <string.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/bus/internal.h"
#include "hvd/pool.h"

/* Shorter than the 25 s that clients of D-Bus wait for an answer by default. */
#define WAIT_DEFAULT_USEC (20 * USEC_PER_SEC)
#define KEEP_DEFAULT_USEC (120 * USEC_PER_SEC)
#define LIMIT_MAX_USEC    (24 * 3600 * USEC_PER_SEC)

struct reserve_call {
        TAILQ_ENTRY(reserve_call) entry;
        struct bus *bus;
        uint32_t id;
        sd_bus_message *message; /* NULL: answered */
        sd_bus_track *track;
        bool is_kept;
};

static void reserve_free(struct reserve_call *c)
{
        TAILQ_REMOVE(&c->bus->reserves, c, entry);
        sd_bus_track_unref(c->track);
        sd_bus_message_unref(c->message);
        free(c);
}

void bus_reserves_free(struct bus *b)
{
        while (!TAILQ_EMPTY(&b->reserves))
                reserve_free(TAILQ_FIRST(&b->reserves));
}

static void on_reserved(uint32_t id, const struct error *error, void *userdata)
{
        struct reserve_call *c, *next;
        struct bus *b = userdata;

        for (c = TAILQ_FIRST(&b->reserves); c; c = next) {
                next = TAILQ_NEXT(c, entry);
                if (c->id != id || !c->message)
                        continue;
                int r = error ? sd_bus_reply_method_errorf(
                                        c->message, error_code_dbus_name(error->code), "%s", error->message)
                              : sd_bus_reply_method_return(c->message, "u", id);
                if (r < 0)
                        log_debug("A reservation could not be answered: %s", strerrordesc_np(-r));
                c->message = sd_bus_message_unref(c->message);
                if (error || c->is_kept)
                        reserve_free(c);
        }
}

/* The connection is gone, and with it what was reserved for it, if it still is. */
static int on_caller_gone(sd_bus_track *track, void *userdata)
{
        struct reserve_call *c = userdata;
        struct bus *b = c->bus;
        uint32_t id = c->id;

        reserve_free(c);
        pool_release(b->manager, id, NULL);
        return 0;
}

static int check_limits(
        uint64_t wait_usec, uint64_t keep_usec, bool keep, bool has_keep, struct error *ret_error)
{
        if (wait_usec > LIMIT_MAX_USEC || keep_usec > LIMIT_MAX_USEC)
                return error_set(
                        ret_error, ERROR_INVALID_ARGUMENT, "wait-usec and timeout-usec are at most 24 hours");
        if (has_keep && (!keep || keep_usec == 0))
                return error_set(ret_error, ERROR_INVALID_ARGUMENT,
                        "timeout-usec says how long a reservation with keep is kept at most; it is not 0, "
                        "and "
                        "goes with keep alone");
        return 0;
}

int bus_method_reserve(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct bus *b = userdata;
        uint64_t bytes, wait_usec = WAIT_DEFAULT_USEC, keep_usec = KEEP_DEFAULT_USEC;
        const char *owner;
        int keep = 0;
        struct bus_option options[] = {
                { "wait-usec", 't', &wait_usec },
                { "keep", 'b', &keep },
                { "timeout-usec", 't', &keep_usec },
        };
        struct error error;

        int r = sd_bus_message_read(m, "st", &owner, &bytes);
        if (r < 0)
                return r;
        if (bus_read_options(m, options, ARRAY_SIZE(options), &error) < 0 ||
                check_limits(wait_usec, keep_usec, keep, options[2].seen, &error) < 0)
                return bus_fail(e, &error);

        struct reserve_call *c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        *c = (struct reserve_call) { .bus = b, .message = sd_bus_message_ref(m), .is_kept = keep };
        TAILQ_INSERT_TAIL(&b->reserves, c, entry);
        r = sd_bus_track_new(b->bus, &c->track, on_caller_gone, c);
        if (r >= 0)
                r = sd_bus_track_add_sender(c->track, m);
        if (r < 0) {
                reserve_free(c);
                return r;
        }
        /* It may be answered from inside the call, which knows its id by then. */
        r = pool_reserve(
                b->manager, owner, bytes, wait_usec, keep ? keep_usec : 0, on_reserved, b, &c->id, &error);
        if (r < 0) {
                reserve_free(c);
                return bus_fail(e, &error);
        }
        return 1;
}

int bus_method_release(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct bus *b = userdata;
        struct error error;
        uint32_t id;

        int r = sd_bus_message_read_basic(m, 'u', &id);
        if (r < 0)
                return r;
        if (pool_release(b->manager, id, &error) < 0)
                return bus_fail(e, &error);
        return sd_bus_reply_method_return(m, "");
}
