/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "policy-replay.h"

#include "common/json.h"
#include "hvd/policy-internal.h"
#include "hvd/policy/json.h"

/* What was decided, from its stored input alone. */
static int on_decision(const struct store_decision *d, void *userdata)
{
        struct seen_decisions *seen = userdata;
        _cleanup_json_ struct json_object *o = NULL, *again = NULL;
        _cleanup_free_ char *input = NULL;
        struct policy_decision decisions[8];
        struct policy_history history[8];
        struct policy_record record;
        struct error error = { 0 };
        size_t i = 0;

        assert_int_equal(store_round_get(seen->store, d->round, &input, &error), 0);
        assert_int_equal(json_parse(input, strlen(input), &o), 0);
        if (policy_input_from_json(o, &record, &error) < 0)
                fail_msg("%s", error.message);
        assert_in_range(record.input.n_partitions, 1, ARRAY_SIZE(decisions));
        policy_decide(&record.input, decisions, history);
        while (strcmp(record.partitions[i].name, d->partition) != 0)
                i++;
        assert_int_equal(policy_decision_to_json(d->partition, &decisions[i], &again), 0);
        assert_string_equal(json_object_to_json_string_ext(again, JSON_C_TO_STRING_PLAIN), d->decision);
        seen->n_grow += decisions[i].action == POLICY_GROW;
        policy_record_done(&record);
        if (seen->n++ == 0) {
                seen->id = d->id;
                snprintf(seen->outcome, sizeof(seen->outcome), "%s", d->outcome);
                snprintf(seen->decision, sizeof(seen->decision), "%s", d->decision);
        }
        return 0;
}

struct seen_decisions replay_decisions(struct fixture *fx)
{
        struct seen_decisions seen = { .store = manager_store(fx->manager) };
        struct error error = { 0 };

        assert_int_equal(store_decision_foreach(seen.store, "", 100, on_decision, &seen, &error), 0);
        return seen;
}
