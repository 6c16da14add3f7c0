#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A PPC64 guest, disturbed: additions that are stopped while the guest takes LMBs in, guestd that is frozen or dies, and
# resets. powerpc-utils in the guest agree with QEMU and hvd after each.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

tell_job() {
    note "$(jq -r '"\(.state), \(.done_bytes / 1048576) MiB: \([.reasons[].code] | unique | join(", "))"' <<<"$1")"
}

# The guest has given up nothing that it was taking in.
check_kernel_log() {
    local words
    words=$(guest p1 'dmesg' | grep -E 'Memory indexed-count-(add|remove) failed|removing any added LMBs' || true)
    assert_equal "what the guest's kernel says of LMBs" "" "$words"
}

# to_base: nothing plugged, for the next scenario.
to_base() {
    local plugged
    plugged=$(($(host_plugged p1) / MiB))
    ((plugged == 0)) || expect 0 cli remove-memory p1 "${plugged}M"
    check_lmbs p1 0
}

await_reboot() { # OLD-BOOT-ID PLUGGED
    await 90 "the guest's reboot" rebooted p1 "$1"
    await 30 "guestd's first words after the reboot" agent_is p1 ready
    lmbs_settle p1 10 "$2"
}

test_begin
step "a guest with a slot for each LMB"
boot p1 --arch ppc64le --memory 1G --max-memory 9G --slots 32
bring_pin p1

step "the guest is busy: it takes 3 GiB in within half a second, not within 0.1"
guest p1 'for i in 1 2 3 4 5 6 7 8; do
    (sh -c "while :; do :; done" </dev/null >/dev/null 2>&1 &)
done'

step "an addition is cancelled: what has not come is waited for, and leaves when it has"
start_job add-memory p1 3G
sleep 0.1
run cli cancel "$job_id" # on a fast machine it may have ended
await_job "$job_id" 40
tell_job "$job_json"
check_lmbs p1 "$(jq .done_bytes <<<"$job_json")"
check_kernel_log
guest p1 'kill $(ps -o pid,args | awk "/while :; do/ && !/awk/ { print \$1 }")' || true
to_base

step "guestd is frozen while the guest takes LMBs in"
guest p1 'kill -STOP "$(cat /run/guestd.pid)"'
expect 1 cli -o json add-memory p1 1G --wait 2s
tell_job "$out"
guest p1 'kill -CONT "$(cat /run/guestd.pid)"'
await 30 "guestd again" agent_is p1 ready
lmbs_settle p1 15
check_kernel_log
to_base

step "guestd is killed in the middle of an addition"
start_job add-memory p1 3G
await_state "$job_id" "PLUGGING|ONLINING" 10
guest p1 'kill -9 "$(cat /run/guestd.pid)"'
await_job "$job_id" 30
tell_job "$job_json"
await 20 "guestd again" agent_is p1 ready
lmbs_settle p1 15
check_kernel_log
to_base

step "guestd is killed in the middle of a removal"
expect 0 cli add-memory p1 1G
pin_in p1 6
start_job remove-memory p1 256M --drc 0x80000006
await_state "$job_id" OFFLINING 10
sleep 0.5
guest p1 'kill -9 "$(cat /run/guestd.pid)"'
await 20 "guestd again" agent_is p1 ready
expect 0 cli cancel "$job_id"
await_job "$job_id" 30
tell_job "$job_json"
assert_equal "what left" 0 "$(jq .done_bytes <<<"$job_json")"
unpin p1
lmbs_settle p1 15 "$GiB"
to_base

step "the guest is reset in the middle of an addition"
id=$(boot_id p1)
start_job add-memory p1 3G
await_state "$job_id" "PLUGGING|ONLINING" 10
reset_guest p1
await_job "$job_id" 40
tell_job "$job_json"
assert_match "state" '^(FAILED|PARTIAL|DONE)$' "$job_state"
# Until guestd has spoken nothing is sent: an unplug would spoil what the guest and QEMU know of each LMB.
plugged=$(host_plugged p1)
for verb in add-memory remove-memory; do
    expect 1 cli -o json "$verb" p1 256M --wait 2s
    assert_match "why it is refused" 'agent-(silent|absent)' "$out"
done
assert_equal "what is plugged" "$plugged" "$(host_plugged p1)"
await_reboot "$id" "$(host_plugged p1)"

step "what it then has it has from the boot on: the LMBs of QEMU, and no other"
note "$(host_drcs p1 | wc -l) LMBs; in Movable: $(guest_account p1 | jq .movable)"
assert_equal "guest's blocks" $((4 + $(host_plugged p1) / lmb)) "$(guest_account p1 | jq .online)"

step "of these those leave that hold nothing of the kernel's"
plugged=$(host_plugged p1)
if ((plugged > 0)); then
    expect "0|1|64" cli -o json remove-memory p1 512M --wait 10s
    tell_job "$out"
    check_lmbs p1 $((plugged - $(jq .done_bytes <<<"$out")))
fi
test_end
