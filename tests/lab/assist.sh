#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Removals that need the guest's help: page cache that is reclaimed rather than moved, huge pages that are given up and
# come back, gigantic ones that are named, and an end within 2 s when nobody wants to wait any longer.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

huge=/sys/devices/system/node/node0/hugepages/hugepages-2048kB
gigantic=/sys/devices/system/node/node0/hugepages/hugepages-1048576kB

# boot_with_disk NAME OPTION...: /mnt/file is a file of 4800 MiB of holes, which are read without a disk.
boot_with_disk() {
    local disk=$work_dir/$1.disk

    truncate -s 6G "$disk"
    mke2fs -q -t ext4 -F "$disk"
    boot "$@" -- -drive "file=$disk,format=raw,if=none,id=files,cache=unsafe" -device virtio-blk-pci,drive=files,serial=files
    guest "$1" 'for d in /sys/block/vd*; do [ "$(cat $d/serial)" = files ] && disk=/dev/${d##*/}; done
        mkdir -p /mnt && mount -t ext4 $disk /mnt && truncate -s 4800M /mnt/file'
}

fill_cache() { # NAME
    guest "$1" 'cat /mnt/file >/dev/null'
}

of_meminfo() { # NAME FIELD: MiB
    echo $(($(guest "$1" "sed -n 's/^$2: *\\([0-9]*\\).*/\\1/p' /proc/meminfo") / 1024))
}

of_vmstat() { # NAME FIELD
    guest "$1" "sed -n 's/^$2 //p' /proc/vmstat"
}

pool() { # NAME FILE
    guest "$1" "cat $huge/$2"
}

notes() {
    jq -r '.notes[]' <<<"$out"
}

test_begin
step "a guest of 1 GiB with 3 GiB in DIMMs, all of it full of page cache"
boot_with_disk a1 --memory 1G --max-memory 16G --slots 32
expect 0 cli add-memory a1 3G
fill_cache a1
assert_at_most "MiB free" 600 "$(of_meminfo a1 MemFree)"

step "2 GiB leave, and page cache was reclaimed for it"
expect 0 cli -o json remove-memory a1 2G --wait 60s
note "$(jq -r .elapsed_usec <<<"$out") us; $(notes)"
assert_match "the notes" "MiB of page cache were reclaimed" "$(notes)"
assert_equal "reasons of a job that did all" 0 "$(jq '.reasons | length' <<<"$out")"
check_accounts a1
assert_equal "mounts of cgroup2 that are left" 0 "$(guest a1 'grep -c cgroup2 /proc/mounts')"

step "an idle guest is not helped"
expect 0 cli add-memory a1 1G
guest a1 'echo 3 >/proc/sys/vm/drop_caches'
expect 0 cli -o json remove-memory a1 1G
assert_equal "notes" "" "$(notes)"

step "cancelled in the middle of a busy guest: an end within 2 s, and nothing lost"
expect 0 cli add-memory a1 2G
fill_cache a1
# Anonymous memory that is written all the time.
guest a1 '(dd if=/dev/zero of=/dev/null bs=700M >/dev/null 2>&1 &)'
sleep 1
start_job remove-memory a1 2G
await_state "$job_id" OFFLINING 20
sleep 0.5
begin=${EPOCHREALTIME/./}
expect 0 cli cancel "$job_id"
await_job "$job_id" 20
elapsed=$(((${EPOCHREALTIME/./} - begin) / 1000))
note "$job_state after $elapsed ms; $(jq -r '.notes | join("; ")' <<<"$job_json")"
assert_at_most "milliseconds from the cancel to the end" "$(patience 6000)" "$elapsed"
accounts_settle a1 5
left=$(jq .done_bytes <<<"$job_json")
[[ $job_state == DONE ]] || jq -e '.notes | any(test("opendlpar-dimm-"))' <<<"$job_json" >/dev/null ||
    fail "no note says what became of the devices: $job_json"

step "a wait that is over: the same"
plugged=$(host_plugged a1)
begin=${EPOCHREALTIME/./}
expect "0|1|64" cli -o json remove-memory a1 $((plugged / MiB))M --wait 1500ms
elapsed=$(((${EPOCHREALTIME/./} - begin) / 1000))
note "exit $code after $elapsed ms; $(notes | tail -n 3)"
assert_at_most "milliseconds until the end, with a wait of 1.5 s" $((1500 + $(patience 2000))) "$elapsed"
accounts_settle a1 5
guest a1 'kill $(pidof dd); echo 3 >/proc/sys/vm/drop_caches'
check_guest_health a1
note "$((left / MiB)) MiB had left before the cancel"

step "huge pages that nobody uses: given up for headroom, and as many come back as fit"
plugged=$(host_plugged a1)
expect 0 cli remove-memory a1 $((plugged / MiB))M
expect 0 cli add-memory a1 2G --zone movable
want=$((($(of_meminfo a1 MemAvailable) - 300) / 2))
guest a1 "echo $want >$huge/nr_hugepages"
before=$(pool a1 nr_hugepages)
note "a pool of $before pages of 2 MiB, $(of_meminfo a1 MemAvailable) MiB available"
expect 0 cli -o json remove-memory a1 1G --wait 60s
note "$(notes)"
assert_match "the notes" "free huge pages of 2 MiB of node 0 were given up" "$(notes)"
check_accounts a1
await 20 "the pool to be given up or restored" eval '! guest a1 "grep -q hugepages /run/guestd.settings" 2>/dev/null'
after=$(pool a1 nr_hugepages)
note "the pool has $after pages now, $(of_meminfo a1 MemAvailable) MiB available"
assert_at_least "pages of the pool after 1 GiB left" $((before - 600)) "$after"
assert_at_most "pages of the pool after 1 GiB left" $((before - 300)) "$after"

step "huge pages in use stay in use, and what has no room is said"
guest a1 'mkdir -p /huge && mount -t hugetlbfs none /huge && fallocate -l '$((after * 2 - 40))'M /huge/file'
expect "1|64" cli -o json remove-memory a1 1G --wait 20s
note "$(jq -r '[.reasons[] | "\(.device) \(.code)"] | join(", ")' <<<"$out")"
jq -e '.reasons | any(.code == "no-headroom")' <<<"$out" >/dev/null || fail "no headroom is not the reason: $out"
assert_equal "huge pages in use" $((after - 20)) $(($(pool a1 nr_hugepages) - $(pool a1 free_hugepages)))
check_accounts a1
guest a1 "rm /huge/file && echo 100 >$huge/nr_hugepages && fallocate -l 160M /huge/file"
expect 0 cli -o json remove-memory a1 512M --wait 30s
assert_equal "huge pages of the file" 160 "$(guest a1 'du -m /huge/file | cut -f 1')"
guest a1 "rm /huge/file; umount /huge; echo 0 >$huge/nr_hugepages"
check_accounts a1

step "a pool that its administrator sets behind a removal stays so"
expect 0 cli add-memory a1 1G --zone movable
guest a1 "echo $((($(of_meminfo a1 MemAvailable) - 300) / 2)) >$huge/nr_hugepages"
before=$(pool a1 nr_hugepages)
expect 0 cli remove-memory a1 512M --wait 30s
lost=$(pool a1 nr_hugepages)
guest a1 "echo 10 >$huge/nr_hugepages"
assert_at_most "pages of the pool right after" $((before - 1)) "$lost"
await 20 "the pool to be given up" eval '! guest a1 "grep -q hugepages /run/guestd.settings" 2>/dev/null'
assert_equal "pages of the pool" 10 "$(pool a1 nr_hugepages)"

step "guestd is killed while the pool is smaller: the next one restores it"
expect 0 cli add-memory a1 512M
want=$((($(of_meminfo a1 MemAvailable) - 300) / 2))
guest a1 "echo $want >$huge/nr_hugepages"
before=$(pool a1 nr_hugepages)
expect 0 cli remove-memory a1 512M --wait 30s
guest a1 'kill -9 $(cat /run/guestd.pid)'
lost=$(pool a1 nr_hugepages)
assert_at_most "pages of the pool right after" $((before - 1)) "$lost"
# hvd may not have noticed yet that it is gone.
await 20 "an addition by the next one" eval 'cli add-memory a1 512M >/dev/null 2>&1'
await 30 "the pool to be as before" eval '(($(pool a1 nr_hugepages) == before)) || ! guest a1 "grep -q hugepages /run/guestd.settings" 2>/dev/null'
note "$before pages, $lost after the removal, $(pool a1 nr_hugepages) now"
guest a1 "echo 0 >$huge/nr_hugepages"

step "a gigantic page is named"
expect 0 cli remove-memory a1 $(($(host_plugged a1) / MiB))M
expect 0 cli add-memory a1 2G --zone kernel
guest a1 "echo 1 >$gigantic/nr_hugepages"
if [[ $(guest a1 "cat $gigantic/nr_hugepages") == 1 ]]; then
    guest a1 'mkdir -p /gigantic && mount -t hugetlbfs -o pagesize=1G none /gigantic && fallocate -l 1G /gigantic/file'
    expect "1|64" cli -o json remove-memory a1 2G --wait 30s
    note "$(jq -r '[.reasons[] | "\(.device) \(.block) \(.code): \(.message)"] | join("; ")' <<<"$out")"
    jq -e '.reasons | any(.code == "block-unremovable" and (.message | test("gigantic page \\(1 GiB")))' <<<"$out" >/dev/null ||
        fail "no reason names the gigantic page: $(jq -c .reasons <<<"$out")"
    check_accounts a1
    guest a1 "umount /gigantic; echo 0 >$gigantic/nr_hugepages"
else
    note "the kernel cannot make one here"
fi
lab stop a1

step "with swap: page cache goes, and no program's memory"
boot_with_disk a2 --memory 1G --max-memory 16G --slots 32 --swap 1G
expect 0 cli add-memory a2 2G
# A file in memory can go to swap, and is older than the page cache.
fill a2 400
guest a2 'dd if=/mnt/file of=/dev/null bs=1M count=2500 2>/dev/null'
assert_at_most "MiB free" 900 "$(of_meminfo a2 MemFree)"
before=$(of_vmstat a2 pswpout)
expect 0 cli -o json remove-memory a2 1G --wait 60s
note "$(notes); swapped out: $(($(of_vmstat a2 pswpout) - before)) pages"
assert_match "the notes" "of page cache were reclaimed" "$(notes)"
assert_at_most "pages swapped out by the removal" 256 $(($(of_vmstat a2 pswpout) - before))
assert_equal "swappiness" 60 "$(guest a2 'cat /proc/sys/vm/swappiness')"
check_accounts a2
test_end
