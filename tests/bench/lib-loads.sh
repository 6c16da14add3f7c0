# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the benchmarks with a busy guest share: the guest, its loads, and what can be known of both. Sourced by them.

# shellcheck disable=SC2034,SC2154  # the variables of lib.sh, and those for who sources this

asked_bytes=$((2 * GiB)) plugged_bytes=$((4 * GiB)) device_bytes=$((512 * MiB))

# A file that fills the page cache: it has no blocks, so the guest reads zeros, and the host keeps nothing.
loads_prepare() {
    [[ $bench_arch == x86_64 ]] || die "this benchmark is for x86_64 guests: the census of pages knows no other"
    need_packages util-linux e2fsprogs
    load_tool=$tools_dir/lab-load disk=$work_dir/disk
    [[ -e $disk ]] || {
        mkdir "$work_dir/files"
        truncate -s 12G "$work_dir/files/file"
        truncate -s 64M "$disk"
        mke2fs -q -t ext4 -d "$work_dir/files" "$disk"
        rm -r "$work_dir/files"
    }
}

# boot_busy NAME ZONE: a guest of 2 GiB with 4 GiB more in eight DIMMs, in that zone. Sets ranges and device_ids, the highest
# slot first.
boot_busy() {
    boot "$1" --memory 2G --max-memory 10G --slots 16 --program "$load_tool" --program "$(PATH=$PATH:/usr/sbin type -P chmem)" -- \
        -drive "file=$disk,format=raw,if=none,id=files,readonly=on" -device virtio-blk-pci,drive=files
    cli add-memory "$1" $((plugged_bytes / MiB))M --zone "$2" >/dev/null
    list_devices
    ((${#device_ids[@]} == plugged_bytes / device_bytes)) || die "expected DIMMs of $((device_bytes / MiB)) MiB, not ${ranges[*]}"
}

# The plugged devices, the highest slot first.
list_devices() {
    local id start size

    device_ids=() ranges=()
    while read -r id start size; do
        device_ids+=("$id") ranges+=("$start:$size")
    done < <(cli -o json show "$guest_name" | jq -r '.devices | sort_by(-.slot)[] | "\(.id) \(.address) \(.size_bytes)"')
}

# load_start KIND ARGUMENT...: returns when it stands.
load_start() {
    lab exec "$guest_name" -- lab-load start "$@" >/dev/null || die "the load does not stand: $*"
}

load_stop() {
    lab exec "$guest_name" -- lab-load stop
}

# Sets census, the truth about the guest's pages; see tests/lab/tools/load-census.c.
take_census() {
    census=$(lab exec "$guest_name" -- lab-load census "${ranges[@]}") || die "the guest's pages cannot be counted"
}

# removable BYTES: how much of that could leave by the last census: whole devices without an obstacle, as long as there is room
# for what lies in them.
removable() {
    jq --argjson asked "$1" --argjson device "$device_bytes" '
        [$asked, .available_bytes + .spare_huge_bytes, ([.devices[] | select(.obstacles == 0) | .length] | add // 0)]
        | min / $device | floor * $device' <<<"$census"
}

# Sets oom_kills, offline_blocks, load_stands and hotplug_hangs of the guest as it is now. A guest that cannot say hangs.
look_at_guest() {
    local seen

    # The probe takes the lock of all memory hotplug, and changes nothing.
    # shellcheck disable=SC2016  # it is for the guest's shell
    seen=$(LAB_EXEC_TIMEOUT=30 guest "$guest_name" '
        dmesg | grep -c "Killed process"
        cat /sys/devices/system/memory/memory*/state | grep -vc online
        lab-load alive && echo true || echo false
        timeout 10 sh -c "echo online >/sys/devices/system/memory/memory0/state" 2>/dev/null
        [ $? -lt 124 ] && echo false || echo true') || true
    seen=$(xargs <<<"$seen")
    [[ $seen =~ ^[0-9]+\ [0-9]+\ (true|false)\ (true|false)$ ]] || seen="0 0 false true"
    read -r oom_kills offline_blocks load_stands hotplug_hangs <<<"$seen"
}

plugged_now() {
    local ignored
    measure plugged
    read -r plugged ignored <<<"${answers[0]}"
}
