#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Memory is moved from one guest to another, and at the end it is with one of them or in the pool, whatever happened on
# the way: the receiving guest is killed, or guestd is. MOVE_ROUNDS plain moves (2), and MOVE_KILLS with the receiver
# killed (1) and as many with guestd killed; 20 and 3 are what a release is held to.
# shellcheck disable=SC2016  # it is for the guests' shells
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

rounds=${MOVE_ROUNDS:-2} kills=${MOVE_KILLS:-1}
total=$((8 * GiB))

current() {
    show "$1" .current_bytes
}

# has NAME: by QEMU; nothing if it is gone.
has() {
    state_is "$1" running || {
        echo 0
        return
    }
    qmp "$1" query-memory-size-summary | jq '."base-memory" + ."plugged-memory"'
}

# check_sum NAME NAME: QEMU and hvd agree on both, and with the pool they make up the total.
check_sum() {
    local name sum=0 pool

    for name in "$@"; do
        assert_equal "what $name has, by QEMU and by hvd" "$(has "$name")" "$(current "$name")"
        sum=$((sum + $(current "$name")))
    done
    pool=$(cli -o json pool)
    assert_equal "partitions and pool" "$total" $((sum + $(jq .pool_free <<<"$pool")))
    assert_equal "what partitions have, by the pool" "$sum $sum" "$(jq -r '"\(.pool_current) \(.pool_requested)"' <<<"$pool")"
}

sum_settles() { # NAME NAME
    local end=$((SECONDS + $(patience 20)))

    until (check_sum "$@") 2>/dev/null; do
        ((SECONDS < end)) || {
            check_sum "$@"
            return
        }
        sleep 0.3
    done
}

receiver() {
    boot "$1" --memory 512M --max-memory 8G --slots 8
}

test_begin
sed -i "s/pool_total = .*/pool_total = $((total / GiB))G/" "$LAB_DIR/hvd.conf"
lab hvd kill
lab up
step "two guests, of which one has 2 GiB more"
boot a --memory 1G --max-memory 8G --slots 8
receiver b0
expect 0 cli add-memory a 2G
check_sum a b0

step "a move, there and back"
from=a to=b0
for ((i = 1; i <= rounds; i++)); do
    expect 0 cli move-memory "$from" "$to" 1G
    note "$(head -n 1 <<<"$out")"
    check_sum a b0
    assert_match "where it is" "1 GiB is with $to, 0 B is back with $from and 0 B is free" "$out"
    read -r from to <<<"$to $from"
done
((rounds % 2 == 0)) || expect 0 cli move-memory b0 a 1G
check_accounts a $((2 * GiB))
check_accounts b0 0

step "refused before anything moves"
expect 1 cli move-memory b0 a 1G
assert_match "what is said" 'NotPlugged|more than|plugged' "$err$out"
expect 2 cli move-memory a a 1G
expect 1 cli -o json move-memory a b0 8G
check_sum a b0

# begin_move VICTIM STATES: a move from a to the receiver that stops in one of the states, as guestd of the victim stands
# still; or, with RANDOM for STATES, that is met at any moment.
begin_move() {
    met=$2
    if [[ $2 == RANDOM ]]; then
        start_job move-memory a "$receiver" 1G
        sleep "0.$(printf '%02d' $((RANDOM % 12)))"
        return
    fi
    guest "$1" 'kill -STOP "$(cat /run/guestd.pid)"'
    start_job move-memory a "$receiver" 1G
    await_state "$job_id" "$2" 20
    [[ "|$2|" == *"|$job_state|"* ]] || fail "the move is $job_state, not on its way"
}

receiver=b0
for ((i = 1; i <= kills; i++)); do
    step "guestd is killed in the middle of a move"
    case $((i % 3)) in
        1) victim=$receiver; begin_move "$receiver" PLUGGING ;;
        2) victim=a; begin_move a OFFLINING ;;
        0) victim=$receiver; begin_move "$receiver" RANDOM ;;
    esac
    guest "$victim" 'kill -9 "$(cat /run/guestd.pid)"'
    await_job "$job_id" 90
    note "$victim, in $met: ends $(jq -r '"\(.state): \(.notes[-1])"' <<<"$job_json")"
    await 20 "guestd" agent_is a ready
    await 20 "guestd" agent_is "$receiver" ready
    sum_settles a "$receiver"
    accounts_settle a 20
    accounts_settle "$receiver" 20
    plugged=$(host_plugged "$receiver")
    ((plugged == 0)) || expect 0 cli move-memory "$receiver" a $((plugged / MiB))M --wait 1m
    check_accounts a $((2 * GiB))

    step "the receiver is killed in the middle of a move"
    if ((i % 2)); then
        begin_move "$receiver" PLUGGING
    else
        begin_move "$receiver" RANDOM
    fi
    lab kill "$receiver"
    await_job "$job_id" 90
    note "in $met: ends $(jq -r '"\(.state): \(.notes[-1])"' <<<"$job_json")"
    await 10 "the end of $receiver" state_is "$receiver" absent
    sum_settles a "$receiver"
    # All that was on its way is back; what had arrived is the pool's.
    if [[ $met != RANDOM ]]; then
        assert_equal "what became of it" "FAILED 0" "$(jq -r '"\(.state) \(.done_bytes)"' <<<"$job_json")"
        assert_match "where it is" "0 B is with $receiver, 1 GiB is back with a" "$(jq -r '.notes[-1]' <<<"$job_json")"
    elif [[ $(jq -r .state <<<"$job_json") == DONE ]]; then
        expect 0 cli add-memory a 1G
    fi
    accounts_settle a 20 $((2 * GiB))
    ((i < kills)) || break
    receiver=b$i
    receiver "$receiver"
done
test_end
