#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# virtio-mem and the balloon: memory comes and leaves by each, partly where the guest has no more to give, nothing
# leaves later unasked, `show` is what QEMU says, and after a reboot all is as before.
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=tests/lab/mechanisms-lib.sh
. "${BASH_SOURCE[0]%/*}/mechanisms-lib.sh"

test_begin
step "a guest of 1 GiB with 4 GiB of virtio-mem, 8 slots and a balloon"
boot g1 --memory 1G --max-memory 16G --slots 8 --virtio-mem 4G --balloon
check_show g1
start=$(usable g1)

step "virtio-mem comes, in zone Movable"
expect 0 lab cli add-memory g1 2G --method virtio-mem
assert_match "the line about it" '^g1: added 2 GiB in [0-9.]+ s, all in zone Movable; now 3 GiB of 16 GiB$' "$out"
check_accounts g1 $((2 * GiB))
check_show g1
assert_near "usable memory" $((start + 2 * 1048576)) "$(usable g1)"

step "in units of 2 MiB, which need no whole blocks"
expect 0 cli remove-memory g1 702M --method virtio-mem
check_at_rest g1
check_show g1
assert_near "usable memory" $((start + 1346 * 1024)) "$(usable g1)"
expect 0 cli add-memory g1 702M --method virtio-mem
check_accounts g1 $((2 * GiB))

step "what cannot be is refused with what could"
expect 1 cli add-memory g1 3M --method virtio-mem
assert_match "an odd size" '2M and 4M' "$err"
expect 1 cli add-memory g1 3G --method virtio-mem
assert_match "beyond the device" '2 GiB of 4 GiB plugged; at most 2G' "$err"
expect 1 cli remove-memory g1 3G --method virtio-mem
assert_match "more than there is" '3G is more than the 2G' "$err"
expect 1 cli add-memory g1 1M --method balloon
assert_match "an empty balloon" 'holds 0 B?; at most 0' "$err"
expect 1 cli add-memory g1 1M --method ballon
assert_match "a method that there is not" 'virtio-mem and balloon' "$err"

step "the balloon takes 256 MiB and gives them back"
expect 0 cli remove-memory g1 256M --method balloon --wait 2m
check_show g1
assert_near "usable memory" $((start + 2 * 1048576 - 256 * 1024)) "$(usable g1)"
step "a DIMM comes and leaves: what the balloon has taken stays the same"
expect 0 cli add-memory g1 256M --method dimm
assert_equal "taken by the balloon" $((256 * MiB)) "$(show g1 .balloon_bytes)"
check_show g1
expect 0 cli remove-memory g1 256M --method dimm
assert_equal "taken by the balloon" $((256 * MiB)) "$(show g1 .balloon_bytes)"
expect 0 cli add-memory g1 256M --method balloon
check_show g1
assert_near "usable memory" $((start + 2 * 1048576)) "$(usable g1)"

step "a full guest gives what it can, and lives"
fill_to g1 700
expect 64 cli -o json remove-memory g1 2G --method virtio-mem --wait 1m
assert_equal "why no more" no-headroom "$(jq -r '.reasons[0].code' <<<"$out")"
note "$(jq -r '"\(.done_bytes / 1048576) MiB left: \(.reasons[0].message)"' <<<"$out")"
assert_at_least "MiB that left" 256 $(($(jq .done_bytes <<<"$out") / MiB))
check_at_rest g1
check_show g1
available=$(guest g1 "sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo")
assert_at_least "MiB available" 40 $((available / 1024))
# What the guest has beyond its margin by now is some MiB, or nothing.
expect "1|64" cli -o json remove-memory g1 400M --method balloon --wait 1m
assert_equal "why no more" no-headroom "$(jq -r '.reasons[-1].code' <<<"$out")"
given=$(($(jq .done_bytes <<<"$out") / MiB))
assert_at_least "MiB of 32 that the balloon did not get" 0 $((32 - given))
unfill g1
((given == 0)) || expect 0 cli add-memory g1 "${given}M" --method balloon
expect 0 cli add-memory g1 $(((2 * GiB - $(host_plugged g1)) / MiB))M --method virtio-mem
check_accounts g1 $((2 * GiB))

step "cancelled on the way: what left stays away, and nothing leaves later"
start_job remove-memory g1 2G --method virtio-mem
# It may be through already: what counts is that the accounts agree, and stay so.
expect "0|1" cli cancel "$job_id"
await_job "$job_id" 20
note "$job_state with $(jq '.done_bytes / 1048576' <<<"$job_json") MiB"
assert_equal "what left, and what QEMU has" $((2 * GiB - $(jq .done_bytes <<<"$job_json"))) "$(host_plugged g1)"
check_at_rest g1
check_show g1

step "5 GiB of everything"
expect 0 cli add-memory g1 $((2560 - $(host_plugged g1) / MiB))M --method virtio-mem
expect 0 cli add-memory g1 2G --method dimm
expect 0 cli remove-memory g1 512M --method balloon --wait 2m
assert_equal "current" $((5 * GiB)) "$(show g1 .current_bytes)"
check_show g1
before=$(usable g1)

step "the guest reboots: within 10 s of guestd's word all is as before, with no command"
id=$(boot_id g1)
reset_guest g1
await 60 "the guest's reboot" rebooted g1 "$id"
await 30 "guestd" agent_is g1 ready
began=$SECONDS
as_before() {
    local now
    now=$(usable g1)
    ((now - before <= 8192 && before - now <= 8192)) && [[ $(show g1 .current_bytes) == $((5 * GiB)) ]]
}
await "$(patience 10)" "the same usable memory" as_before
note "after $((SECONDS - began)) s"
check_show g1
check_at_rest g1
accounts_settle g1 10 $((4608 * MiB))
assert_equal "the restore" "DONE" "$(cli -o json jobs | jq -r '[.[] | select(.kind == "restore-memory")][-1].state')"

step "and all leaves again"
expect 0 cli add-memory g1 512M --method balloon
# But for some MiB that the kernel may hold in its own zone.
expect "0|64" cli -o json remove-memory g1 2560M --method virtio-mem --wait 1m
assert_at_least "MiB that left" 2400 $(($(jq .done_bytes <<<"$out") / MiB))
check_at_rest g1
check_show g1
test_end
