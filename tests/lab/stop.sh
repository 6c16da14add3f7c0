#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Jobs that end before they are done: cancelled, out of time, interrupted, and those that wait behind them.
# shellcheck disable=SC2016  # some text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

# With 1.5 GiB in the new memory and room elsewhere a removal takes seconds.
make_slow() {
    local plugged
    unfill s1
    plugged=$(host_plugged s1)
    ((plugged == 2 * GiB)) || expect 0 cli add-memory s1 $(((2 * GiB - plugged) / MiB))M
    fill s1 1500
}

# begin_slow_removal: sets job_id; returns while blocks are going offline.
begin_slow_removal() {
    start_job remove-memory s1 2G
    await_state "$job_id" OFFLINING 10
    assert_equal "state of a removal that takes long" OFFLINING "$job_state"
}

check_stopped() { # JOB-JSON CODE: in good order, with the reason
    note "$(jq -r '"\(.state), \(.done_bytes / 1048576) MiB in \(.elapsed_usec / 1000 | floor) ms: \([.reasons[].code] | unique | join(", "))"' <<<"$1")"
    jq -e --arg code "$2" 'any(.reasons[]; .code == $code)' <<<"$1" >/dev/null ||
        fail "no reason $2 in $(jq -c .reasons <<<"$1")"
    assert_equal "bytes done by the job and gone from QEMU" "$(jq .done_bytes <<<"$1")" $((2 * GiB - $(host_plugged s1)))
    check_accounts s1
}

test_begin
step "a guest of 3 GiB, and 2 GiB more in use"
boot s1 --memory 3G --max-memory 16G --slots 32
make_slow

step "cancelled in the middle"
begin_slow_removal
sleep 0.7
expect 0 cli cancel "$job_id"
await_job "$job_id" "$(patience 5)"
assert_match "state" '^(CANCELLED|PARTIAL)$' "$job_state"
check_stopped "$job_json" cancelled

step "a job that has ended, and one that never was, cannot be cancelled"
run cli cancel "$job_id"
note "the ended one: exit $code $err"
expect 1 cli cancel 4242
assert_match "what is said about it" 'no job 4242' "$err"

step "out of time"
make_slow
begin=$EPOCHREALTIME
expect "1|64" cli -o json remove-memory s1 2G --wait 1s
elapsed=$(((${EPOCHREALTIME/./} - ${begin/./}) / 1000))
assert_at_most "milliseconds with a wait of 1 s" $((1000 + $(patience 2000))) "$elapsed"
assert_match "state" '^(FAILED|PARTIAL)$' "$(jq -r .state <<<"$out")"
check_stopped "$out" deadline

step "Ctrl-C in hmc-cli cancels the job and waits for its end"
make_slow
env --default-signal=INT "$build_dir/hmc-cli/hmc-cli" --bus "$(bus)" remove-memory s1 2G \
    >"$work_dir/interrupted" 2>&1 &
cli_pid=$!
newest() { cli -o json jobs | jq '.[-1].id'; }
running() { [[ $(job "$(newest)" .state) == OFFLINING ]]; }
await 10 "a removal under way" running
job_id=$(newest)
kill -INT "$cli_pid"
code=0
wait "$cli_pid" || code=$?
note "exit $code: $(head -n 1 "$work_dir/interrupted")"
assert_match "its exit code" '^(1|64)$' "$code"
assert_equal "the job has ended" 0 "$(job_ended "$job_id"; echo $?)"
check_stopped "$(job "$job_id")" cancelled

step "jobs behind a busy partition: one runs out of time, one is cancelled, one has its turn"
make_slow
begin_slow_removal
removal=$job_id
start_job add-memory s1 1G
waiting=$job_id
start_job add-memory s1 256M
cancelled=$job_id
assert_equal "state of a second job" QUEUED "$(job "$waiting" .state)"
expect 0 cli cancel "$cancelled"
await_job "$cancelled" 3
assert_equal "state of a job that was cancelled in the queue" CANCELLED "$job_state"
begin=$EPOCHREALTIME
expect 1 cli -o json add-memory s1 256M --wait 700ms
elapsed=$(((${EPOCHREALTIME/./} - ${begin/./}) / 1000))
assert_equal "how it ended" "FAILED 0 deadline" "$(jq -r '"\(.state) \(.done_bytes) \(.reasons[0].code)"' <<<"$out")"
assert_match "why" 'queued' "$(jq -r '.reasons[0].message' <<<"$out")"
assert_at_most "milliseconds in the queue with a wait of 700 ms" $((700 + $(patience 700))) "$elapsed"
assert_equal "the first job while this happened" OFFLINING "$(job "$removal" .state)"
await_job "$removal" 60
assert_equal "the first job in the end" "DONE $((2 * GiB))" "$(jq -r '"\(.state) \(.done_bytes)"' <<<"$job_json")"
await_job "$waiting" 30
assert_equal "the second job in the end" "DONE $GiB" "$(jq -r '"\(.state) \(.done_bytes)"' <<<"$job_json")"
check_accounts s1 "$GiB"

step "an addition is cancelled, as early as can be"
unfill s1
start_job add-memory s1 8G
run cli cancel "$job_id"
await_job "$job_id" 30
note "$job_state, $(jq '.done_bytes / 1048576' <<<"$job_json") MiB"
check_accounts s1 $((GiB + $(jq .done_bytes <<<"$job_json")))

step "an addition is cancelled while the guest does not answer"
guest s1 'kill -STOP "$(cat /run/guestd.pid)"'
start_job add-memory s1 1G
sleep 0.5
begin=$SECONDS
expect 0 cli cancel "$job_id"
await_job "$job_id" 10
note "$job_state after $((SECONDS - begin)) s"
assert_equal "state" CANCELLED "$job_state"
guest s1 'kill -CONT "$(cat /run/guestd.pid)"'
await 30 "guestd again" agent_is s1 ready
accounts_settle s1 10 "$(host_plugged s1)"

step "an addition with a deadline in its middle"
expect "0|1|64" cli -o json add-memory s1 3G --wait 200ms
note "$(jq -r '"\(.state), \(.done_bytes / 1048576) MiB"' <<<"$out")"
accounts_settle s1 10
test_end
