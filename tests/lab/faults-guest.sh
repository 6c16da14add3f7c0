#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The guest's end fails: it reboots, guestd dies or is away, a device leaves by itself.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

slow_removal() { # sets job_id; returns while blocks are going offline
    local plugged
    plugged=$(host_plugged r1)
    ((plugged >= 2 * GiB)) || expect 0 cli add-memory r1 $(((2 * GiB - plugged) / MiB))M
    fill r1 1200
    start_job remove-memory r1 2G
    await_state "$job_id" OFFLINING 10
    assert_equal "state of a removal that takes long" OFFLINING "$job_state"
    sleep 0.6
}

slow_addition() { # sets job_id and job_state
    start_job add-memory r1 8G
    await_state "$job_id" "PLUGGING|ONLINING" 10
    note "the addition is met in state $job_state"
}

# After a reset, all that is plugged must come online by itself.
check_restored() { # OLD-BOOT-ID
    await 90 "the guest's reboot" rebooted r1 "$1"
    await 20 "guestd's first words after the reboot" agent_is r1 ready
    accounts_settle r1 10
    local account
    account=$(guest_account r1)
    assert_equal "plugged blocks in Movable after the reboot" $(($(host_plugged r1) / $(jq .block_bytes <<<"$account"))) \
        "$(jq .movable <<<"$account")"
}

tell_job() {
    note "$(jq -r '"\(.state), \(.done_bytes / 1048576) MiB: \([.reasons[].code] | unique | join(", "))"' <<<"$1")"
}

# What guestd sets for the time of an operation is as the guest had it, whatever became of guestd.
own_settings() {
    [[ $(guest r1 'cat /sys/devices/system/memory/auto_online_blocks /sys/kernel/rcu_expedited' | xargs) == "offline 0" ]]
}

# shrink: to the beginning of the next scenario.
shrink() {
    local plugged
    unfill r1
    plugged=$(host_plugged r1)
    ((plugged == 0)) || expect 0 cli remove-memory r1 $((plugged / MiB))M
    check_accounts r1 0
    await 5 "the guest's own settings" own_settings
}

test_begin
step "a guest of 3 GiB"
boot r1 --memory 3G --max-memory 16G --slots 32

step "it reboots with 2 GiB plugged"
expect 0 cli add-memory r1 2G
id=$(boot_id r1)
reset_guest r1
check_restored "$id"
assert_equal "plugged" $((2 * GiB)) "$(host_plugged r1)"

step "it reboots in the middle of a removal"
slow_removal
id=$(boot_id r1)
reset_guest r1
await_job "$job_id" 30
tell_job "$job_json"
assert_match "state" '^(FAILED|PARTIAL)$' "$job_state"
check_restored "$id"

step "it reboots in the middle of an addition"
shrink
id=$(boot_id r1)
slow_addition
reset_guest r1
await_job "$job_id" 60
tell_job "$job_json"
assert_match "state" '^(FAILED|PARTIAL|DONE)$' "$job_state"
check_restored "$id"
shrink

step "guestd is killed in the middle of a removal"
slow_removal
guest r1 'kill -9 "$(cat /run/guestd.pid)"'
await_job "$job_id" 60
tell_job "$job_json"
await 20 "guestd again" agent_is r1 ready
await 15 "the guest's own settings" own_settings
accounts_settle r1 10
shrink

step "guestd is killed in the middle of an addition"
slow_addition
guest r1 'kill -9 "$(cat /run/guestd.pid)"'
await_job "$job_id" 60
tell_job "$job_json"
await 20 "guestd again" agent_is r1 ready
await 15 "the guest's own settings" own_settings
accounts_settle r1 10
shrink

step "guestd is frozen: a job ends by its deadline, and in order"
guest r1 'kill -STOP "$(cat /run/guestd.pid)"'
begin=$SECONDS
expect 1 cli -o json add-memory r1 1G --wait 3s
tell_job "$out"
assert_at_most "seconds with a wait of 3 s" "$(patience 12)" $((SECONDS - begin))
guest r1 'kill -CONT "$(cat /run/guestd.pid)"'
await 30 "guestd again" agent_is r1 ready
accounts_settle r1 15
shrink

step "without guestd nothing is changed"
guest r1 'touch /run/guestd.stop; kill "$(cat /run/guestd.pid)"'
await 10 "hvd's notice that guestd is gone" not agent_is r1 ready
before=$(snapshot r1)
expect 1 cli -o json add-memory r1 1G --wait 5s
assert_match "the reason" 'agent-(absent|silent)' "$out"
expect 1 cli add-memory r1 1G --wait 5s
note "$out$err"
assert_match "the sentence" 'guestd' "$out$err"
expect 1 cli remove-memory r1 1G --wait 5s
assert_same "without guestd something changed" "$before" "$(snapshot r1)"
guest r1 'rm /run/guestd.stop'
await 10 "guestd again" agent_is r1 ready
expect 0 cli add-memory r1 1G
check_accounts r1 "$GiB"

step "a device leaves behind hvd's back"
device=$(host_devices r1 | jq -r '.[0].id')
size=$(host_devices r1 | jq '.[0].size')
qmp r1 device_del "{\"id\":\"$device\"}" >/dev/null
await 10 "hvd's notice" hvd_plugged_is r1 $((GiB - size))
accounts_settle r1 5 $((GiB - size))

step "a device comes behind hvd's back"
qmp r1 object-add '{"qom-type":"memory-backend-ram","id":"foreign","size":268435456}' >/dev/null
qmp r1 device_add '{"driver":"pc-dimm","id":"foreigner","memdev":"foreign"}' >/dev/null
await 10 "hvd's notice" hvd_plugged_is r1 $((GiB - size + 256 * MiB))
expect 0 cli show r1
assert_match "the sheet" foreigner "$out"
test_end
