/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What hvd decided, decided again by the very same code: what is stored must be all that a decision rests on.
 * The decisions of one round follow one another, so that each input is read and decided on once. */

#include "hvd/sim/replay.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "hvd/policy/json.h"
#include "hvd/store/store.h"

struct replay {
        struct store *store;
        FILE *tells;
        struct replay_result result;
        struct error *error; /* of what ends it */
        uint64_t round;      /* that the next ones are of; 0: none yet */
        struct policy_record record;
        struct policy_decision *decisions; /* one for each partition of the record */
        struct error unreadable;           /* code NONE: it was read */
};

static void end_round(struct replay *r)
{
        policy_record_done(&r->record);
        free(r->decisions);
        r->decisions = NULL;
        r->unreadable = (struct error) { 0 };
        r->round = 0;
}

static int decide(struct replay *r, const char *input)
{
        _cleanup_json_ struct json_object *o = NULL;

        if (json_parse(input, strlen(input), &o) < 0) {
                error_set(&r->unreadable, ERROR_INVALID_ARGUMENT, "The record is no JSON");
                return 0;
        }
        if (policy_input_from_json(o, &r->record, &r->unreadable) < 0)
                return 0;
        r->decisions = calloc(r->record.input.n_partitions + 1, sizeof(*r->decisions));
        if (!r->decisions)
                return error_set(r->error, ERROR_INTERNAL, "Out of memory");
        policy_decide(&r->record.input, r->decisions, r->record.history);
        return 0;
}

static int begin_round(struct replay *r, uint64_t id)
{
        _cleanup_free_ char *input = NULL;

        if (r->round == id)
                return 0;
        end_round(r);
        int k = store_round_get(r->store, id, &input, r->error);
        if (k >= 0)
                k = decide(r, input);
        r->round = k < 0 ? 0 : id;
        return k;
}

static int compare(struct replay *r, const struct store_decision *d)
{
        _cleanup_json_ struct json_object *o = NULL;
        const char *again = NULL;
        size_t i = 0;

        while (i < r->record.input.n_partitions && strcmp(r->record.partitions[i].name, d->partition) != 0)
                i++;
        if (i == r->record.input.n_partitions) {
                fprintf(r->tells, "decision %" PRIu64 " of %s: its input has no such partition\n", d->id,
                        d->partition);
                return 0;
        }
        if (policy_decision_to_json(d->partition, &r->decisions[i], &o) >= 0)
                again = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
        if (!again)
                return error_set(r->error, ERROR_INTERNAL, "Out of memory");
        if (strcmp(again, d->decision) == 0)
                r->result.n_same++;
        else
                fprintf(r->tells, "decision %" PRIu64 " of %s: was %s and is now %s\n", d->id, d->partition,
                        d->decision, again);
        return 0;
}

static int on_decision(const struct store_decision *d, void *userdata)
{
        struct replay *r = userdata;
        int k = begin_round(r, d->round);

        if (k < 0)
                return k;
        r->result.n++;
        if (r->unreadable.code == ERROR_NONE)
                return compare(r, d);
        fprintf(r->tells, "decision %" PRIu64 " of %s: %s\n", d->id, d->partition, r->unreadable.message);
        return 0;
}

int replay_store(
        struct store *s, unsigned max, FILE *tells, struct replay_result *ret, struct error *ret_error)
{
        struct replay r = { .store = s, .tells = tells, .error = ret_error };
        int k = store_decision_foreach(s, "", max, on_decision, &r, ret_error);

        end_round(&r);
        if (k >= 0)
                *ret = r.result;
        return k;
}
