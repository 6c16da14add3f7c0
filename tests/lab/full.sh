#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A guest without room: what cannot leave stays, in good order and with a reason, and leaves later.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

# Each device that is still there must be named in the job's reasons.
check_reason_per_device() { # NAME JSON
    local id
    for id in $(host_devices "$1" | jq -r '.[].id'); do
        jq -e --arg id "$id" 'any(.reasons[]; .device == $id and .code != "" and .message != "")' <<<"$2" >/dev/null ||
            fail "no reason for $id, which stayed: $(jq -c .reasons <<<"$2")"
    done
}

# remove_from_full NAME CODES SIZE WAIT: with all that must be true whatever happens. Sets job_json.
remove_from_full() {
    local begin=$EPOCHREALTIME elapsed
    expect "$2" cli -o json remove-memory "$1" "$3" --wait "$4s"
    elapsed=$(((${EPOCHREALTIME/./} - ${begin/./}) / 1000))
    job_json=$out
    note "$(jq -r '"\(.state), \(.done_bytes / 1048576) MiB; \([.reasons[].code] | group_by(.) | map("\(.[0]) \(length)") | join(", "))"' <<<"$out") after $elapsed ms"
    assert_at_most "milliseconds until the end, with a wait of $4 s" $(($4 * 1000 + $(patience 6000))) "$elapsed"
    check_reason_per_device "$1" "$job_json"
    check_accounts "$1"
    assert_equal "the guest's answer" alive "$(guest "$1" 'echo alive')"
}

test_begin
step "a guest of 1 GiB with 2 GiB more, in small devices"
boot f1 --memory 1G --max-memory 16G --slots 32
start=$(guest_account f1)
expect 0 cli add-memory f1 2G
assert_equal "devices" 4 "$(host_devices f1 | jq length)"

step "filled, but for 150 MiB: nothing can leave"
fill_to f1 150
before=$(snapshot f1)
remove_from_full f1 "1|64" 2G 20
if ((code == 1)); then
    assert_same "nothing left, and yet something changed" "$before" "$(snapshot f1)"
fi
check_guest_health f1

step "room for one device: a part leaves"
unfill f1
plugged=$(host_plugged f1)
((plugged == 2 * GiB)) || expect 0 cli add-memory f1 $(((2 * GiB - plugged) / MiB))M
fill_to f1 900
remove_from_full f1 "64|1" 2G 20
check_guest_health f1
assert_at_least "bytes that left with room for a device" $((512 * MiB)) "$(jq .done_bytes <<<"$job_json")"

step "a deadline that is too near for anything"
expect "1|64" cli -o json remove-memory f1 512M --wait 300ms
check_accounts f1

step "once the memory is free, all of it leaves"
unfill f1
plugged=$(host_plugged f1)
expect 0 cli remove-memory f1 $((plugged / MiB))M --wait 60s
check_accounts f1 0
assert_equal "MemTotal as at first" "$(jq .total_kib <<<"$start")" "$(guest_account f1 | jq .total_kib)"

step "pages that cannot move keep their device, and no other"
expect 0 cli add-memory f1 1G
devices=$(host_devices f1 | jq length)
assert_at_least "devices" 2 "$devices"
# A program that holds eight pages in a pipe.
guest f1 "echo $(base64 -w 0 "$build_dir/tests/lab/tools/lab-pin") | base64 -d >/run/pin && chmod +x /run/pin
    (/run/pin </dev/null >/dev/null 2>&1 &) && sleep 0.5 && pidof pin" >/dev/null
remove_from_full f1 64 1G 15
assert_equal "devices that stayed" 1 "$(host_devices f1 | jq length)"
note "$(jq -r '[.reasons[] | "\(.block) \(.code): \(.message)"] | join("; ")' <<<"$job_json")"
jq -e 'any(.reasons[]; (.code == "block-busy" or .code == "deadline") and (.block | startswith("0x")))' <<<"$job_json" >/dev/null ||
    fail "no block is named: $(jq -c .reasons <<<"$job_json")"

step "and let it go when they are free"
guest f1 'kill $(pidof pin)'
expect 0 cli remove-memory f1 $(($(host_plugged f1) / MiB))M
check_accounts f1 0
test_end
