#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A PPC64 guest that will not let go: pages that cannot move in the first LMB of a device and in a later one, in an LMB
# that is asked for by its index, and a refusal in silence, which QEMU keeps until the guest is reset.
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

plugged_is() { # NAME BYTES
    [[ $(host_plugged "$1") == "$2" ]]
}

# refused NAME SIZE BLOCK OPTION...: nothing of it leaves, for the reason that is in this block; within the deadline, and
# with all LMBs online as before.
refused() {
    local name=$1 size=$2 block=$3 before begin=$EPOCHREALTIME
    shift 3
    before=$(snapshot "$name")
    expect 1 cli -o json remove-memory "$name" "$size" --wait 4s "$@"
    note "after $(((${EPOCHREALTIME/./} - ${begin/./}) / 1000)) ms: $(jq -r '[.reasons[] | "\(.block) \(.code): \(.message)"] | join("; ")' <<<"$out")"
    assert_at_most "milliseconds until the end, with a wait of 4 s" $((4000 + $(patience 6000))) $(((${EPOCHREALTIME/./} - ${begin/./}) / 1000))
    assert_equal "blocks that are named" "$(printf '0x%x' $((block * lmb)))" "$(jq -r '[.reasons[].block | select(. != "")] | unique | join(" ")' <<<"$out")"
    assert_same "nothing left, and yet something changed" "$before" "$(snapshot "$name")"
    check_lmbs "$name" "$(host_plugged "$name")"
}

test_begin
step "a guest with large devices: 1 GiB is one of 4 LMBs"
boot p1 --arch ppc64le --memory 1G --max-memory 16G --slots 16
bring_pin p1
expect 0 cli add-memory p1 1G
assert_equal "the devices" "[1073741824]" "$(host_devices p1 | jq -c 'map(.size)')"
check_lmbs p1 "$GiB"

for block in 4 6; do
    step "pages that cannot move in block $block of the device's blocks 4 to 7"
    pin_in p1 "$block"
    refused p1 1G "$block"
    step "once they are free the same device leaves: no unplug was pending"
    unpin p1
    expect 0 cli remove-memory p1 1G --device opendlpar-dimm-0
    check_lmbs p1 0
    expect 0 cli add-memory p1 1G
done

step "a cancelled removal puts back what was offline"
pin_in p1 4
before=$(snapshot p1)
start_job remove-memory p1 1G
await_state "$job_id" OFFLINING 10
sleep 1
expect 0 cli cancel "$job_id"
await_job "$job_id" 15
assert_equal "state" "CANCELLED 0" "$job_state $(jq .done_bytes <<<"$job_json")"
assert_same "nothing left, and yet something changed" "$before" "$(snapshot p1)"
check_lmbs p1 "$GiB"
unpin p1
expect 0 cli remove-memory p1 1G
check_lmbs p1 0
lab stop p1

step "a guest with a slot for each LMB: 1 GiB is 4 devices"
boot p2 --arch ppc64le --memory 1G --max-memory 9G --slots 32
bring_pin p2
expect 0 cli add-memory p2 1G --method lmb
assert_equal "the devices" "[$lmb,$lmb,$lmb,$lmb]" "$(host_devices p2 | jq -c 'map(.size)')"
check_lmbs p2 "$GiB"

step "pages that cannot move in one LMB: by its index it stays, and no other leaves in its place"
pin_in p2 5
refused p2 256M 5 --drc 0x80000005

step "without an index the others leave"
expect 64 cli -o json remove-memory p2 1G --wait 5s
assert_equal "what left" "$((3 * lmb))" "$(jq .done_bytes <<<"$out")"
assert_equal "what stayed" 0x80000005 "$(host_drcs p2)"
check_lmbs p2 "$lmb"

step "once they are free it leaves too"
unpin p2
expect 0 cli remove-memory p2 256M --drc 0x80000005
check_lmbs p2 0

step "while it is being migrated nothing is plugged or unplugged"
expect 0 cli add-memory p2 256M
before=$(snapshot p2)
qmp p2 migrate-set-parameters '{"max-bandwidth":100000}' >/dev/null
qmp p2 migrate '{"uri":"exec:cat >/dev/null"}' >/dev/null
for _ in 1 2; do # by QEMU's own word, then by what is known of it
    expect 1 cli -o json remove-memory p2 256M
    assert_match "the reason" '"code":"not-running"' "$out"
    expect 1 cli -o json add-memory p2 256M
    assert_match "the reason" '"code":"not-running"' "$out"
done
assert_equal "its state" migrating "$(cli -o json list | jq -r '.[] | select(.name == "p2") | .state')"
qmp p2 migrate_cancel >/dev/null
await 20 "the end of the migration" state_is p2 running
assert_same "a refusal changed something" "$before" "$(snapshot p2)"
expect 0 cli remove-memory p2 256M
check_lmbs p2 0

step "an LMB that the guest let go of by itself: QEMU never hears that its unplug is complete"
expect 0 cli add-memory p2 512M
guest p2 'echo "memory remove index 0x80000005" >/sys/kernel/dlpar'
assert_equal "LMBs by lsslot" 0x80000004 "$(guest_drcs p2)"
assert_equal "what is plugged" $((2 * lmb)) "$(host_plugged p2)"
begin=$EPOCHREALTIME
expect 1 cli -o json remove-memory p2 256M --drc 0x80000005 --wait 3s
note "after $(((${EPOCHREALTIME/./} - ${begin/./}) / 1000)) ms: $(jq -r '[.reasons[] | "\(.code): \(.message)"] | join("; ")' <<<"$out")"
assert_equal "the reasons" "unplug-pending accounts-differ deadline" "$(jq -r '[.reasons[].code] | join(" ")' <<<"$out")"
assert_equal "its state" unplug-pending "$(show p2 '.devices[1].state' | jq -r .)"
expect 0 cli show p2
assert_match "the sheet" '0x80000005 .*unplug pending' "$out"
assert_match "what QEMU says" 'already in progress' "$(lab qmp p2 '{"execute":"device_del","arguments":{"id":"opendlpar-dimm-1"}}' || true)"
expect 1 cli -o json remove-memory p2 256M --drc 0x80000005
assert_match "the reason" '"code":"unplug-pending".*reset' "$out"

step "a removal passes it over, and says so"
expect 64 cli -o json remove-memory p2 512M
assert_equal "what left" "$lmb" "$(jq .done_bytes <<<"$out")"
jq -e 'any(.reasons[]; .device == "opendlpar-dimm-1" and .code == "unplug-pending")' <<<"$out" >/dev/null ||
    fail "the device is not among the reasons: $(jq -c .reasons <<<"$out")"
assert_equal "what stayed" 0x80000005 "$(host_drcs p2)"

step "the guest is reset: it leaves"
id=$(boot_id p2)
reset_guest p2
await 90 "the guest's reboot" rebooted p2 "$id"
await 30 "guestd's first words after the reboot" agent_is p2 ready
accounts_settle p2 10 0
check_lmbs p2 0

step "and memory comes and leaves as before"
expect 0 cli add-memory p2 1G
check_lmbs p2 "$GiB"
assert_equal "blocks in Movable" 4 "$(guest_account p2 | jq .movable)"
expect 0 cli remove-memory p2 256M --drc 0x80000006
assert_equal "what stayed" "0x80000004 0x80000005 0x80000007" "$(host_drcs p2 | paste -sd ' ')"
check_lmbs p2 $((3 * lmb))
expect 0 cli remove-memory p2 768M
check_lmbs p2 0
assert_equal "backends" "" "$(host_backends p2 | grep opendlpar || true)"

step "it is reset in the middle of a removal: what has left by then has left"
bring_pin p2
expect 0 cli add-memory p2 1G
pin_in p2 4
start_job remove-memory p2 1G
await 20 "three LMBs to leave" plugged_is p2 "$lmb"
sleep 0.5
id=$(boot_id p2)
reset_guest p2
await_job "$job_id" 40
note "$(jq -r '"\(.state), \(.done_bytes / 1048576) MiB: \([.reasons[].code] | unique | join(", "))"' <<<"$job_json")"
assert_equal "how it ended" "PARTIAL $((3 * lmb))" "$job_state $(jq .done_bytes <<<"$job_json")"
await 90 "the guest's reboot" rebooted p2 "$id"
await 30 "guestd's first words after the reboot" agent_is p2 ready
accounts_settle p2 10 "$lmb"
assert_equal "what stayed" 0x80000004 "$(host_drcs p2)"
check_lmbs p2 "$lmb"
test_end
