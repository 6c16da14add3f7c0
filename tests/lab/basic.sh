#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Memory comes, is used, and leaves again; what hmc-cli prints; partial wishes, dry runs, jobs.
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

# complaints JSON JQ: what is wrong; the filter uses want(NAME; TYPE).
complaints() {
    jq -r 'def want(k; t): k as $k | if has($k) | not then "no \($k)" elif .[$k] | type != t then "\($k) is no \(t)" else empty end;
        ['"$2"'] | join(", ")' <<<"$1"
}

check_job_json() { # JSON
    assert_equal "what is wrong with the job's JSON $1" "" "$(complaints "$1" '
        want("id", "requested_bytes", "done_bytes"; "number"), want("partition", "kind", "state"; "string"),
        want("reasons"; "array"), (.reasons[]? | want("device", "block", "code", "message"; "string"))')"
}

check_partition_json() { # JSON
    assert_equal "what is wrong with the partition's JSON $1" "" "$(complaints "$1" '
        want("name", "uuid", "architecture", "platform", "state", "agent_state", "policy_mode"; "string"),
        want("base_bytes", "plugged_bytes", "balloon_bytes", "current_bytes", "requested_bytes", "pending_bytes",
             "min_bytes", "desired_bytes", "max_bytes", "weight", "total_bytes", "available_bytes", "pressure",
             "block_bytes", "slots_total", "slots_used"; "number"),
        want("devices"; "array"), (.devices[]? | want("id", "kind"; "string"),
             want("address", "size_bytes", "slot", "node", "movable_bytes", "kernel_bytes", "offline_bytes",
                  "stuck_bytes"; "number"))')"
}

test_begin
step "a guest of 1 GiB that can have 16"
boot g1 --memory 1G --max-memory 16G
start=$(guest_account g1)
start_backends=$(host_backends g1)
check_accounts g1 0

step "a dry run changes nothing"
before=$(snapshot g1)
expect 0 cli add-memory g1 2G --dry-run
assert_match "the plan" '1 GiB|2 GiB' "$out"
expect 0 cli -o json add-memory g1 2G --dry-run
check_job_json "$out"
assert_equal "state and size done of a dry run" "DONE 0" "$(jq -r '"\(.state) \(.done_bytes)"' <<<"$out")"
assert_same "a dry run changed something" "$before" "$(snapshot g1)"

step "2 GiB come"
expect 0 lab cli add-memory g1 2G
assert_match "the line about it" '^g1: added 2 GiB in [0-9.]+ s, all in zone Movable; now 3 GiB of 16 GiB$' "$out"
assert_equal "words on stderr" "" "$err"
check_accounts g1 $((2 * GiB))
now=$(guest_account g1)
assert_at_least "growth of MemTotal, KiB (1.95 GiB)" 2044723 $(($(jq .total_kib <<<"$now") - $(jq .total_kib <<<"$start")))
assert_equal "blocks in Movable" 16 "$(jq .movable <<<"$now")"
assert_equal "blocks elsewhere" "$(jq .kernel+.stuck <<<"$start")" "$(jq .kernel+.stuck <<<"$now")"

step "the guest uses it: a file of 1500 MiB in memory"
fill g1 1500
unfill g1

step "show, list, pool and jobs agree with both ends"
sheet=$(show g1)
check_partition_json "$sheet"
assert_equal "MemTotal by hvd" $(($(jq .total_kib <<<"$now") * 1024)) "$(jq .total_bytes <<<"$sheet")"
assert_equal "the block size" "$(jq .block_bytes <<<"$now")" "$(jq .block_bytes <<<"$sheet")"
assert_equal "current" $((3 * GiB)) "$(jq .current_bytes <<<"$sheet")"
assert_equal "max" $((16 * GiB)) "$(jq .max_bytes <<<"$sheet")"
assert_equal "states" "running ready x86_64 qmp" "$(jq -r '"\(.state) \(.agent_state) \(.architecture) \(.platform)"' <<<"$sheet")"
assert_equal "the devices by hvd" "$(host_devices g1 | jq -c 'map({id, size, addr, slot})')" \
    "$(jq -c '[.devices[] | {id, size: .size_bytes, addr: .address, slot}] | sort_by(.id)' <<<"$sheet")"
assert_equal "bytes in Movable of all devices" $((2 * GiB)) "$(jq '[.devices[].movable_bytes] | add' <<<"$sheet")"
check_partition_json "$(cli -o json list | jq '.[0]')"
expect 0 cli list
assert_match "the table" 'g1 .*running.*ready.*3 GiB.*16 GiB.*2 GiB' "$out"
expect 0 cli show g1
assert_match "the sheet" 'plugged +2 GiB' "$out"
expect 0 cli -o json pool
assert_equal "types in pool" "number number number" "$(jq -r '[.pool_total, .pool_reserved, .pool_free | type] | join(" ")' <<<"$out")"
assert_at_most "the free part of the pool" "$(jq '.pool_total - 3 * 1073741824' <<<"$out")" "$(jq .pool_free <<<"$out")"
expect 0 cli pool
expect 0 cli -o json jobs
check_job_json "$(jq -c '.[-1]' <<<"$out")"
expect 0 cli jobs
assert_match "the table of jobs" 'add-memory +DONE +2 GiB / 2 GiB' "$out"

step "more than one device, less than two: a part leaves"
assert_equal "the sizes of the devices" "[1073741824,1073741824]" "$(host_devices g1 | jq -c 'map(.size)')"
before=$(snapshot g1)
expect 1 cli remove-memory g1 1536M --all-or-nothing
assert_same "all or nothing was something" "$before" "$(snapshot g1)"
expect 64 cli -o json remove-memory g1 1536M
check_job_json "$out"
assert_equal "what left" "PARTIAL $GiB" "$(jq -r '"\(.state) \(.done_bytes)"' <<<"$out")"
assert_at_least "reasons for the rest" 1 "$(jq '.reasons | length' <<<"$out")"
check_accounts g1 "$GiB"

step "a device by name, among others"
expect 0 cli add-memory g1 1G
device=$(host_devices g1 | jq -r '.[0].id')
expect 0 cli remove-memory g1 1G --device "$device"
assert_match "the line about it" '^g1: removed 1 GiB in [0-9.]+ s; now 2 GiB of 16 GiB$' "$out"
assert_equal "the named device among the rest" "" "$(host_devices g1 | jq -r ".[] | select(.id == \"$device\") | .id")"
check_accounts g1 "$GiB"

step "not waiting for a job"
start_job remove-memory g1 1G
await_job "$job_id" 30
check_job_json "$job_json"
assert_equal "how it ended" "DONE $GiB" "$(jq -r '"\(.state) \(.done_bytes)"' <<<"$job_json")"
check_accounts g1 0
assert_equal "MemTotal as at first" "$(jq .total_kib <<<"$start")" "$(guest_account g1 | jq .total_kib)"
assert_equal "backends as at first" "$start_backends" "$(host_backends g1)"

step "events that somebody asks the kernel for again, as udevadm trigger does, change nothing"
expect 0 cli add-memory g1 1G
n_jobs=$(cli -o json jobs | jq length)
# shellcheck disable=SC2016  # it is for the guest's shell
guest g1 'for f in /sys/devices/system/memory/memory*/uevent; do echo add >"$f"; done'
sleep 1
assert_equal "online in Movable, as guestd says" "$GiB" "$(show g1 '[.devices[].movable_bytes] | add')"
assert_equal "jobs" "$n_jobs" "$(cli -o json jobs | jq length)"
expect 0 cli remove-memory g1 1G
check_accounts g1 0

step "2 GiB come and leave at once"
expect 0 cli add-memory g1 2G
expect 0 cli remove-memory g1 2G
assert_match "the line about it" '^g1: removed 2 GiB in [0-9.]+ s; now 1 GiB of 16 GiB$' "$out"
check_accounts g1 0
assert_equal "backends as at first" "$start_backends" "$(host_backends g1)"
assert_equal "the guest's blocks as at first" "$(jq .blocks <<<"$start")" "$(guest_account g1 | jq .blocks)"

step "memory for the kernel"
expect 0 cli -o json add-memory g1 512M --zone kernel
assert_equal "its zone" "$((512 * MiB)) 0" "$(jq -r '"\(.kernel_bytes) \(.movable_bytes)"' <<<"$out")"
check_accounts g1 $((512 * MiB))
assert_equal "blocks in Movable" 0 "$(guest_account g1 | jq .movable)"

step "as much as there is, within the zone rule"
expect 0 cli -o json add-memory g1 $((15 * 1024 - 512))M
check_accounts g1 $((15 * GiB))
note "$(jq -r '"\(.kernel_bytes / 1048576) MiB for the kernel, \(.movable_bytes / 1048576) MiB Movable"' <<<"$out")"
account=$(guest_account g1)
assert_at_most "Movable beside the kernel's blocks" $((301 * $(jq .kernel+.stuck <<<"$account") / 100)) "$(jq .movable <<<"$account")"
test_end
