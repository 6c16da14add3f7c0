#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The loads of the benchmarks are what they say: each stands, is counted as what it is, and leaves nothing behind.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

# Into $out.
census() {
    expect 0 guest l1 "lab-load alive && lab-load census ${ranges[*]}"
}

# MiB of a kind of page in all devices of the last census.
counted() {
    jq "[.devices[].$1] | add * 4096 / 1048576 | floor" <<<"$out"
}

available() {
    guest l1 'sed -n "s/^MemAvailable: *\([0-9]*\).*/\1/p" /proc/meminfo'
}

# load KIND ARGUMENT...: starts it and takes the census.
load() {
    step "$*"
    expect 0 guest l1 "lab-load start $*"
    said=$out
    note "${said//$'\n'/ }"
    expect 1 guest l1 'lab-load start mlock 1'
    assert_match "the second load's error" 'stands already' "$err"
    census
}

unload() {
    guest l1 'lab-load stop'
    run guest l1 'lab-load alive'
    assert_equal "exit of 'alive' without a load" 1 "$code"
    assert_at_least "KiB available after the load" $((before - 65536)) "$(available)"
}

test_begin
step "a guest of 1 GiB with 2 GiB in zone Movable"
truncate -s 64M "$work_dir/disk"
mkdir "$work_dir/files"
truncate -s 4G "$work_dir/files/file"
need_packages e2fsprogs
mke2fs -q -t ext4 -d "$work_dir/files" "$work_dir/disk"
boot l1 --memory 1G --max-memory 9G --slots 16 --program "$build_dir/tests/lab/tools/lab-load" -- \
    -drive "file=$work_dir/disk,format=raw,if=none,id=files,readonly=on" -device virtio-blk-pci,drive=files
expect 0 cli add-memory l1 2G --zone movable
mapfile -t ranges < <(show l1 '.devices[] | "\(.address):\(.size_bytes)"' | tr -d '"')
assert_equal "devices" 4 "${#ranges[@]}"
before=$(available)

step "an idle guest, and what is wrong"
expect 0 guest l1 "lab-load census ${ranges[*]}"
assert_equal "obstacles in an idle guest's Movable memory" 0 "$(jq '[.devices[].obstacles] | add' <<<"$out")"
assert_equal "pages" $((2 * GiB / 4096)) "$(jq '[.devices[] | .free + .movable] | add' <<<"$out")"
expect 2 guest l1 'lab-load start anon'
expect 2 guest l1 'lab-load start nonsense 1'
expect 1 guest l1 'lab-load start cache /dev/nothing 0'
expect 1 guest l1 'lab-load census 0x40000000000:0x8000000'
expect 0 guest l1 'lab-load stop'

load cache /dev/vda 1024
assert_at_least "MiB of page cache" 1000 "${said%% *}"
# The rest of it is in the kernel's zones.
assert_at_least "MiB movable" 600 "$(counted movable)"
assert_at_least "MiB available all the same" $((before / 1024 - 64)) "$(jq '.available_bytes / 1048576 | floor' <<<"$out")"
unload

load anon 50
assert_at_least "MiB movable" 1300 "$(counted movable)"
assert_at_most "MiB available" $((before / 1024 - 1300)) "$(jq '.available_bytes / 1048576 | floor' <<<"$out")"
unload

load tmpfs 700
assert_at_least "MiB movable" 690 "$(counted movable)"
unload

load mlock 700
assert_at_least "MiB locked" 700 "$(guest l1 'sed -n "s/^Mlocked: *\([0-9]*\).*/\1/p" /proc/meminfo' | awk '{ print int($1 / 1024) }')"
unload

load hugetlb 600 200
assert_equal "MiB in huge pages" 600 "$(counted huge)"
assert_equal "MiB of the pool that nobody uses" 400 "$(jq '.spare_huge_bytes / 1048576' <<<"$out")"
unload

load pins 5 7 "${ranges[@]}"
assert_equal "devices with pinned pages, and how many" '[7,7]' "$(jq -c '[.devices[].pinned | select(. > 0)]' <<<"$out")"
assert_equal "devices that the load names" "$(xargs <<<"$said")" \
    "$(jq -r '.devices[] | select(.obstacles > 0) | .start' <<<"$out" | while read -r n; do printf '0x%x\n' "$n"; done | xargs)"
# In earnest: the kernel lets go of just the others.
pinned=$out
for range in "${ranges[@]}"; do
    can=$(jq --argjson start "${range%:*}" '.devices[] | select(.start == $start) | .obstacles == 0' <<<"$pinned")
    first=$((${range%:*} / (128 * MiB)))
    run guest l1 "cd /sys/devices/system/memory && for b in \$(seq $first $((first + 3))); do
        timeout 3 sh -c \"echo offline >memory\$b/state\" && echo online_movable >memory\$b/state || exit 1; done"
    assert_equal "whether all blocks at ${range%:*} go offline" "$can" "$( ((code == 0)) && echo true || echo false)"
done
unload

step "kernel memory in zone Normal"
expect 0 cli remove-memory l1 2G
expect 0 cli add-memory l1 2G --zone kernel
before=$(available)
load kernel 5 48 "${ranges[@]}"
# The rest of it fits into what was free elsewhere.
assert_at_least "MiB of kernel memory" 16 $(($(counted slab) + $(counted page_table) + $(counted kernel)))
assert_at_least "devices without" 1 "$(jq '[.devices[] | select(.obstacles == 0)] | length' <<<"$out")"
unload
test_end
