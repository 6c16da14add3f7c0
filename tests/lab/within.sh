#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# remove-memory --within: blocks are taken as they become cheap. A load that lets go after a while is waited for; one that
# never does keeps its memory, and all that was held is put back.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

elapsed_ms() {
    jq '.elapsed_usec / 1000 | floor' <<<"$1"
}

offline_blocks() {
    guest_account "$1" | jq .offline
}

# Waits for something that matches in what a job waits for. Sets waiting.
await_waiting() { # ID REGEX SECONDS
    local end=$((SECONDS + $3))

    until waiting=$(job "$1" .waiting) && [[ $waiting =~ $2 ]]; do
        ((SECONDS < end)) || fail "job $1 waits for '$waiting' after $3 s, not for '$2'"
        sleep 0.1
    done
}

test_begin
step "a guest of 1 GiB with 2 GiB in zone Movable"
boot w1 --memory 1G --max-memory 16G --slots 32
expect 0 cli add-memory w1 2G --zone movable

step "an idle guest: as soon as it is looked at"
expect 0 cli -o json remove-memory w1 512M --within 30s
note "$(elapsed_ms "$out") ms"
assert_at_most "ms" "$(patience 15000)" "$(elapsed_ms "$out")"
check_accounts w1 $((1536 * MiB))
expect 0 cli add-memory w1 512M --zone movable

step "a load that fills most of it, and lets go after 8 s: it is waited for, also by another guestd, and then all leaves"
fill_to w1 700
start_job remove-memory w1 1536M --within 90s
await_waiting "$job_id" "to be moved, and now it may have|too little|MiB are available" 20
note "waits: $waiting"
assert_equal "the state while it waits" OFFLINING "$(job "$job_id" .state)"
begin=$SECONDS
sleep 2
guest w1 'kill -9 $(pidof guestd)' # a new one takes over
sleep 4
unfill w1
await_job "$job_id" 60
note "$job_state $((SECONDS - begin)) s after it began to wait; $(elapsed_ms "$job_json") ms in all"
assert_equal "the job's end" DONE "$job_state"
assert_equal "reasons" "[]" "$(jq -c .reasons <<<"$job_json")"
assert_equal "what it waits for at the end" "" "$(jq -r .waiting <<<"$job_json")"
assert_at_least "ms, as the load held on for so long" 6000 "$(elapsed_ms "$job_json")"
check_accounts w1 $((512 * MiB))
expect 0 cli add-memory w1 1536M --zone movable

step "a load that never lets go: all is put back, and the reasons say what was in the way"
fill_to w1 400
before=$(guest_account w1 | jq -c 'del(.total_kib)')
expect "1|64" cli -o json remove-memory w1 1536M --within 8s
note "$(jq -r .state <<<"$out") after $(elapsed_ms "$out") ms; $(jq -c '[.reasons[] | "\(.device) \(.block) \(.code) \(.message)"]' <<<"$out")"
assert_at_least "ms" 7900 "$(elapsed_ms "$out")"
assert_at_most "ms" "$(patience 10000)" "$(elapsed_ms "$out")"
jq -e 'any(.reasons[]; .device != "" and (.code == "block-busy" or .code == "no-headroom"))' <<<"$out" >/dev/null ||
    fail "no reason names a device: $(jq -c .reasons <<<"$out")"
jq -e 'any(.reasons[]; .code == "deadline")' <<<"$out" >/dev/null || fail "no reason says that the time was over"
done_bytes=$(jq .done_bytes <<<"$out")
check_accounts w1 $((2048 * MiB - done_bytes))
((done_bytes > 0)) || assert_same "the guest's blocks" "$before" "$(guest_account w1 | jq -c 'del(.total_kib)')"
unfill w1
((done_bytes == 0)) || expect 0 cli add-memory w1 $((done_bytes / MiB))M --zone movable

step "cancelled while it holds blocks: they are back within 2 s"
fill w1 1400
start_job remove-memory w1 1536M --within 120s
sleep 4
await_waiting "$job_id" "offline; " 20
note "waits: $waiting; $(offline_blocks w1) blocks are held"
cancelled=$(date +%s%N)
expect 0 cli cancel "$job_id"
await_job "$job_id" 10
took=$((($(date +%s%N) - cancelled) / 1000000))
note "$job_state after $took ms"
assert_at_most "ms from cancel to the end" "$(patience 2000)" "$took"
assert_match "its end" "CANCELLED|PARTIAL" "$job_state"
check_accounts w1
unfill w1

step "hvd is killed while it holds blocks: guestd puts them back"
plugged=$(host_plugged w1)
fill w1 1400
start_job remove-memory w1 $((plugged / MiB))M --within 120s
await_waiting "$job_id" "offline; " 20
sleep 2
note "$(offline_blocks w1) blocks are held"
lab hvd kill
lab hvd start
accounts_settle w1 40
unfill w1

step "pages that do not move: the next best device is taken instead, and one that is named is not forced"
plugged=$(host_plugged w1)
guest w1 "echo $(base64 -w 0 "$build_dir/tests/lab/tools/lab-pin") | base64 -d >/run/pin && chmod +x /run/pin
    (/run/pin </dev/null >/dev/null 2>&1 &) && sleep 0.5 && pidof pin" >/dev/null
expect 0 cli -o json memory-map w1
pinned=$(jq -r '[.blocks[] | select(.pinned_pages > 0 and .device != "") | .device] | unique[0]' <<<"$out")
size=$(show w1 ".devices[] | select(.id == \"$pinned\") | .size_bytes")
expect 0 cli remove-memory w1 512M --within 30s
check_accounts w1 $((plugged - 512 * MiB))
expect 1 cli -o json remove-memory w1 $((size / MiB))M --device "$pinned" --within 6s
note "$(jq -c '[.reasons[] | "\(.device) \(.block) \(.code) \(.message)"]' <<<"$out")"
assert_equal "the reason's device" "$pinned" "$(jq -r '.reasons[0].device' <<<"$out")"
check_accounts w1 $((plugged - 512 * MiB))

guest w1 'kill $(pidof pin); sleep 0.3'

step "words that exclude each other"
expect 2 cli remove-memory w1 512M --within 10s --wait 10s
expect 2 cli add-memory w1 512M --within 10s
expect 0 cli remove-memory w1 512M --within 10s --dry-run
test_end
