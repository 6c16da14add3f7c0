#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the policy decides, as its operators see it: on the console, on a terminal as it happens, from the store, and
# decided once more. A guest says that it has run short; hvd observes, and moves nothing.
# shellcheck disable=SC2119  # functions have defaults
set -euo pipefail
# shellcheck source=tests/integration/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=tests/fakes/scripts.sh
. "${BASH_SOURCE[0]%/*}/../fakes/scripts.sh"

short='"total_bytes":1073741824,"available_bytes":33554432,"free_bytes":16777216,"movable_bytes":0,"movable_free_bytes":0,"movable_cache_bytes":0,"margin_bytes":1,"refault_file_bytes":0,"refault_anon_bytes":0,"swap_in_bytes":0,"swap_out_bytes":0'

has_decided() { # JQ-FILTER
    cli -o json explain --last 100 | jq -e "any(.[]; $1)" >/dev/null
}

seen_on_screen() { # TEXT
    grep -qF -- "$1" "$work/screen"
}

bus_start
hvd_start
fake fake-qmp qmp < <(fake_qemu_begin && echo serve)
fake fake-guest channel <<S
accept
hello {"capabilities":["samples"]}
expect welcome
on get-state reply
on get-blocks reply
on sample reply
wait 1000
send {"type":"event","event":"sample","sample":{"cause":"pressure",$short}}
serve
accept
S

begin "each decision is kept, with what it rests on"
expect 0 cli -o json explain
assert_equal "decisions before there is a guest" '[]' "$out"
cli define p1 --qmp "$work/qmp" --channel "$work/channel" >/dev/null
await "guestd" state_is p1 agent_state ready
await "a decision for the guest's distress" has_decided '.decision.action == "grow" and .decision.cause == "pressure"'
expect 0 cli -o json explain p1 --last 100
id=$(jq '[.[] | select(.decision.action == "grow")][0].id' <<<"$out")
assert_equal "their order" true "$(jq 'map(.id) | . == sort' <<<"$out")"
assert_equal "decisions that say less than they should" 0 \
    "$(jq '[.[] | select(.partition != "p1" or .text == "" or .time_usec < 1e15 or .decision.bound == null or .decision.want_bytes == null)] | length' <<<"$out")"
expect 0 cli explain --last 1
assert_match "the latest, in a row" 'ID +TIME.*BOUND BY.*p1 ' "$out"
assert_equal "lines" 2 "$(wc -l <<<"$out")"
expect 0 cli explain
assert_match "the row of the growth" "$id +[0-9-]+ [0-9:]+ +p1 +grow +.* pressure +.*only observed" "$out"

begin "one of them is explained, long after"
expect 0 cli explain --id "$id"
assert_match "why" 'p1 grows by .*it stalls for memory' "$out"
assert_match "on what" 'available +32 MiB' "$out"
assert_match "and what bound it" 'bound by +[a-z]' "$out"
expect 0 cli -o json explain p1 --id "$id"
assert_equal "its input" "$id observe 33554432 1" \
    "$(jq -r '"\(.id) \(.mode) \(.input.partitions[0].sample.available_bytes) \(.input.partitions | length)"' <<<"$out")"

begin "what there is none of"
expect 1 cli explain p2 --id "$id"
assert_match "whose it is" "is of partition 'p1'" "$err"
expect 1 cli -o json explain --id 4000000000
assert_equal "code" invalid-argument "$(jq -r .error.code <<<"$out")"
expect 1 cli -o json explain p2 --last 3
assert_equal "code" unknown-partition "$(jq -r .error.code <<<"$out")"
for wrong in '--last 0' '--last 1001' '--last many' '--id 0' '--last 1 --id 1' 'p1 p2'; do
    # shellcheck disable=SC2086  # words
    expect 2 cli explain $wrong
done
expect 1 call call org.opendlpar.hvd1 /org/opendlpar/hvd1 org.opendlpar.hvd1.Manager ListDecisions su '' 1001
assert_match "how many can be" '1 to 1000' "$err"

begin "decided again from the store, it comes out the same"
sim=$build/hvd/hvd-sim
expect 0 "$sim" -o json --replay "$work/state/hvd.sqlite"
n=$(jq .decisions <<<"$out")
((n > 0)) || fail "no decision was decided again"
assert_equal "what came out the same" "$n" "$(jq .same <<<"$out")"
expect 0 "$sim" --last 1 --replay "$work/state/hvd.sqlite"
assert_equal "the last alone" "1 decisions, of which 1 come out as they were" "$out"
expect 1 "$sim" --replay "$work/nothing"
assert_match "why" 'unable to open' "$err"
expect 2 "$sim" --replay "$work/state/hvd.sqlite" some.trace

drawn_anew() {
    (($(grep -cF "Ctrl-C leaves" "$work/screen") >= 2))
}

decided_as_enough() { # AT-LEAST
    (($(cli -o json explain --last 100 | jq '[.[] | select(.decision.bound == "enough")] | length') >= $1))
}

begin "watch, on a terminal: a screen"
mkfifo "$work/keys"
: >"$work/screen"
TERM=xterm setpriv --pdeathsig KILL script -qefc "stty rows 12 cols 250; exec '$build/hmc-cli/hmc-cli' --bus 'unix:path=$work/bus' watch" /dev/null \
    <"$work/keys" >"$work/screen" 2>&1 &
watcher=$!
exec 9>"$work/keys"
await "the table" seen_on_screen 'PRESSURE'
await "the screen, drawn anew" drawn_anew
assert_match "how it is drawn" $'\033\\[H\033\\[J' "$(<"$work/screen")"
assert_match "the row of p1" 'p1 +observe +1 GiB +1 GiB' "$(<"$work/screen")"
expect 0 cli policy off
await "its mode" grep -qE 'p1 +off ' "$work/screen"
expect 0 cli policy observe
await "what is decided, below" grep -qE '^[0-9:.]+ \(observed\) p1 keeps its 1 GiB' "$work/screen"
# In another mode all is decided anew.
n=1
for mode in auto observe auto observe; do
    n=$((n + 1))
    expect 0 cli policy "$mode"
    await "the next decision" decided_as_enough "$n"
done
sleep 1.2
# Each line of 250 columns; a decision takes two of them.
lines=$(awk 'BEGIN { RS = "\033\\[H\033\\[J" } { n = split($0, rows, "\n"); sum = 0; for (i = 1; i < n; i++) sum += int((length(rows[i]) - 1) / 250) + 1; if (sum > most) most = sum } END { print most + 1 }' "$work/screen")
((lines <= 12)) || fail "a screen of 12 lines was sent $lines"
((lines >= 9)) || fail "of a screen of 12 lines only $lines are used"
printf '\003' >&9
code=0
wait "$watcher" || code=$?
assert_equal "how watch ends by Ctrl-C" 0 "$code"
exec 9>&-

begin "and on one that cannot: lines"
TERM=dumb setpriv --pdeathsig KILL script -qefc "exec '$build/hmc-cli/hmc-cli' --bus 'unix:path=$work/bus' watch" /dev/null \
    <"$work/keys" >"$work/screen" 2>&1 &
watcher=$!
exec 9>"$work/keys"
await "a line" seen_on_screen 'p1: running, policy observe: 1 GiB'
[[ $(<"$work/screen") != *$'\033'* ]] || fail "a dumb terminal was sent an escape"
printf '\003' >&9
code=0
wait "$watcher" || code=$?
assert_equal "how watch ends by Ctrl-C" 0 "$code"
hvd_stop
echo "ok"
