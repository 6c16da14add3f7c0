#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The host's end fails: hvd is killed in the middle of jobs, QEMU is killed or paused.
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

# hvd_falls kill|stop: and comes again; the accounts must be in order by themselves.
hvd_falls() {
    lab hvd "$1"
    lab hvd start
    await 15 "guestd's words to the new hvd" agent_is h1 ready
    accounts_settle h1 15
    note "plugged afterwards: $(($(host_plugged h1) / MiB)) MiB"
}

empty_guest() {
    local plugged
    unfill h1
    plugged=$(host_plugged h1)
    ((plugged == 0)) || expect 0 cli remove-memory h1 $((plugged / MiB))M
    check_accounts h1 0
}

full_guest() {
    local plugged
    unfill h1
    plugged=$(host_plugged h1)
    ((plugged >= 2 * GiB)) || expect 0 cli add-memory h1 $(((2 * GiB - plugged) / MiB))M
    fill h1 1200
}

test_begin
step "a guest of 3 GiB"
boot h1 --memory 3G --max-memory 16G --slots 32

for delay in 0.0 0.1 0.25 0.6; do
    step "hvd is killed $delay s into an addition"
    start_job add-memory h1 6G
    sleep "$delay"
    note "it was $(job "$job_id" .state)"
    hvd_falls kill
    empty_guest
done

full_guest
for delay in 0.1 0.8 1.5; do
    step "hvd is killed $delay s into the way offline"
    full_guest
    start_job remove-memory h1 2G
    await_state "$job_id" OFFLINING 10
    assert_equal "state of a removal that takes long" OFFLINING "$job_state"
    sleep "$delay"
    hvd_falls kill
done

step "hvd is stopped in order in the middle of a removal"
full_guest
start_job remove-memory h1 2G
await_state "$job_id" OFFLINING 10
sleep 0.5
hvd_falls stop

step "hvd ends while hmc-cli waits: it says so"
full_guest
cli remove-memory h1 2G >"$work_dir/waiting" 2>&1 &
waiting=$!
sleep 1
lab hvd kill
code=0
wait "$waiting" || code=$?
assert_equal "exit code of hmc-cli" 3 "$code"
note "$(cat "$work_dir/waiting")"
lab hvd start
await 15 "guestd's words to the new hvd" agent_is h1 ready
accounts_settle h1 15
expect 0 cli -o json jobs
note "jobs after the restart: $(jq -c '[.[] | [.id, .state]]' <<<"$out")"

step "hvd comes back while the guest is filled, and the accounts are as they were"
before=$(snapshot h1)
hvd_falls kill
assert_same "a restart changed something" "$before" "$(snapshot h1)"

step "QEMU is paused"
unfill h1
qmp h1 stop >/dev/null
await 5 "hvd's notice" state_is h1 paused
plugged=$(host_plugged h1)
expect 1 cli -o json add-memory h1 1G --wait 5s
assert_match "the reason" 'not-running' "$out"
expect 1 cli remove-memory h1 1G --wait 5s
note "$out$err"
assert_equal "plugged" "$plugged" "$(host_plugged h1)"
qmp h1 cont >/dev/null
await 5 "hvd's notice" state_is h1 running
await 20 "guestd" agent_is h1 ready
accounts_settle h1 5

step "QEMU is paused in the middle of a removal"
full_guest
start_job remove-memory h1 2G
await_state "$job_id" OFFLINING 10
qmp h1 stop >/dev/null
sleep 1
qmp h1 cont >/dev/null
await_job "$job_id" 60
note "$job_state"
accounts_settle h1 10

step "QEMU is killed in the middle of a removal"
full_guest
start_job remove-memory h1 2G
await_state "$job_id" OFFLINING 10
lab kill h1
await_job "$job_id" 15
assert_match "state" '^(FAILED|PARTIAL)$' "$job_state"
note "$(jq -c '[.reasons[] | [.code, .message]] | unique' <<<"$job_json")"
await 10 "hvd's notice" state_is h1 absent
expect 1 cli -o json add-memory h1 1G
assert_match "the reason" 'hypervisor-absent|not-running' "$out"
expect 0 cli show h1

step "it boots again, and all is well"
lab guest h1 --memory 3G --max-memory 16G --slots 32
check_accounts h1 0

step "QEMU is killed in the middle of an addition"
start_job add-memory h1 8G
await_state "$job_id" "PLUGGING|ONLINING" 10
lab kill h1
await_job "$job_id" 15
note "$job_state: $(jq -c '[.reasons[] | [.code, .message]] | unique' <<<"$job_json")"
lab guest h1 --memory 1G --max-memory 4G
check_accounts h1 0
expect 0 cli add-memory h1 1G
check_accounts h1 "$GiB"
test_end
