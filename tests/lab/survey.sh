#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the guest's pages are: the survey finds what is there, a dry run foretells what leaves and what stays, and the
# removal then goes the cheap way.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

map() { # NAME [ARGUMENT...]: into $out
    expect 0 cli -o json memory-map "$@"
}

# Sum of a figure over the blocks of the last map that a filter lets through.
sum() { # KEY [FILTER]
    jq "[.blocks[] | select(${2:-true}) | .$1] | add // 0" <<<"$out"
}

test_begin
step "a guest of 1 GiB with 2 GiB in zone Movable, idle"
boot s1 --memory 1G --max-memory 16G --slots 32
expect 0 cli add-memory s1 2G --zone movable
map s1
assert_equal "why there is no survey" "" "$(jq -r .note <<<"$out")"
assert_equal "surveyed blocks" 16 "$(jq '[.blocks[] | select(.sampled_pages > 0)] | length' <<<"$out")"
assert_equal "pages looked at" $((2 * GiB / 4096)) "$(sum sampled_pages)"
assert_equal "blocks that are stuck" 0 "$(jq '[.blocks[] | select(.fate == "stuck")] | length' <<<"$out")"
assert_equal "bytes that would leave" $((512 * MiB)) "$(sum length '.fate == "leaves"')"
idle=$(sum cost_bytes)
note "$((idle / MiB)) MiB are to be moved in the idle guest"

step "programs and files fill it: the survey says where"
guest s1 'mkdir -p /run/full && mount -t tmpfs none /run/full && dd if=/dev/zero of=/run/full/file bs=1M count=600 2>/dev/null'
map s1
cost=$(sum cost_bytes)
note "$((cost / MiB)) MiB are to be moved with 600 MiB in use"
# What did not fit there lies in the kernel's zones.
assert_at_least "bytes to be moved" $((idle + 250 * MiB)) "$cost"
assert_at_most "bytes to be moved" $((idle + 700 * MiB)) "$cost"
assert_equal "what is left of movable and cost" "$((cost / 4096))" "$(($(sum movable_pages) + $(sum huge_pages) + $(sum pinned_pages)))"

step "the cheapest device is the one that a dry run takes, and the removal too"
cheapest=$(jq -r '[.blocks[] | select(.device != "")] | group_by(.device) | map({d: .[0].device, c: ([.[].cost_bytes] | add)}) | sort_by(.c)[0].d' <<<"$out")
note "$cheapest is the cheapest"
expect 0 cli -o json remove-memory s1 512M --dry-run
note "$(jq -r '.plan[]' <<<"$out")"
planned=$(jq -r '.plan[0]' <<<"$out" | sed -n 's/^take \([^ ]*\) offline.*/\1/p')
expect 0 cli remove-memory s1 512M
assert_equal "the device that left, and was planned" "" "$(host_devices s1 | jq -r --arg id "$planned" '.[] | select(.id == $id) | .id')"
check_accounts s1
expect 0 cli add-memory s1 512M --zone movable
guest s1 'umount /run/full'

step "pinned pages are found, and who holds them stays"
# A program that holds eight pages in a pipe and nowhere else.
guest s1 "echo $(base64 -w 0 "$build_dir/tests/lab/tools/lab-pin") | base64 -d >/run/pin && chmod +x /run/pin
    (/run/pin </dev/null >/dev/null 2>&1 &) && sleep 0.5 && pidof pin" >/dev/null
map s1
note "pinned: $(jq -c '[.blocks[] | select(.pinned_pages > 0) | {device, start, pinned_pages, why}]' <<<"$out")"
pinned=$(jq -r '[.blocks[] | select(.fate == "stuck" and .pinned_pages > 0) | .device] | unique[]' <<<"$out")
assert_at_least "pinned pages" 8 "$(sum pinned_pages)"
n_pinned=$(wc -l <<<"$pinned")
assert_at_most "devices with pinned pages" 3 "$n_pinned"
first=${pinned%%$'\n'*}
expect 0 cli memory-map s1
note "$out"
grep -q 'S' <<<"$out" || fail "no cell of the map is stuck"
grep -q "$first, block 0x.*pinned" <<<"$out" || fail "the map does not say why"
[[ $out != *$'\e'* ]] || fail "colours without a terminal"

expect 1 cli -o json remove-memory s1 2G --dry-run
note "$(jq -c '.reasons, .plan' <<<"$out")"
assert_equal "the devices that are to stay" "$pinned" "$(jq -r '[.reasons[].device] | unique[]' <<<"$out")"
jq -e '.reasons[0] | .code == "block-busy" and (.block | startswith("0x")) and (.message | test("[0-9]+ pinned"))' <<<"$out" >/dev/null ||
    fail "the reason does not name block, kind and count: $(jq -c .reasons <<<"$out")"
assert_equal "devices that are to leave" $((4 - n_pinned)) "$(jq '[.plan[] | select(startswith("take"))] | length' <<<"$out")"

step "a removal leaves it alone"
expect 0 cli -o json remove-memory s1 $(((4 - n_pinned) * 512))M
# A removal takes less time to look than a dry run. If it overlooks eight pages it finds out, says so, and goes on.
assert_equal "reasons of others" 0 \
    "$(jq --arg pinned "$pinned" '[.reasons[] | select(.device | IN($pinned | split("\n")[]) | not)] | length' <<<"$out")"
assert_equal "what is left" "$pinned" "$(host_devices s1 | jq -r '.[].id')"
check_accounts s1

step "asked for by name it stays, and what is left in it is said"
expect 1 cli -o json remove-memory s1 512M --device "$first" --wait 20s
note "$(jq -c .reasons <<<"$out")"
jq -e --arg id "$first" 'any(.reasons[]; .device == $id and (.message | test("pages left in it: .*[0-9]+ pinned")))' <<<"$out" >/dev/null ||
    fail "the reasons do not say what is left: $(jq -c .reasons <<<"$out")"
check_accounts s1

step "a guest without /proc/kpageflags: all goes on without"
guest s1 'mount --bind /dev/null /proc/kpageflags'
map s1
assert_equal "surveyed pages of a device of /dev/null" 0 "$(sum movable_pages)"
guest s1 'umount /proc/kpageflags; kill $(pidof pin); sleep 0.5'
expect 0 cli remove-memory s1 $((n_pinned * 512))M
check_accounts s1
test_end
