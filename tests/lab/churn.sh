#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Removals while what the guest does changes. After each: it has ended in time, no block is offline, QEMU, hvd and the
# guest agree, and the guest's kernel has killed nobody.
#
# COUNT=N removals (10), SEED=N repeats a run as far as time allows. CHURN_RESULT=FILE takes the counts as JSON; see
# scripts/bench churn.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

plugged_max=$((4 * GiB))
# What a job may take beyond its limit: a put-back of 5 s, and an unplug that is waited for (hvd(8)).
grace=10

load_now=none
declare -A n=([DONE]=0 [PARTIAL]=0 [FAILED]=0 [CANCELLED]=0 [hung]=0 [offline]=0 [unequal]=0 [late]=0 [oom]=0 [died]=0)
removed_mib=0 overshoot_msec=0

load_stop() {
    guest c1 'lab-load stop'
    load_now=none
}

# Another load, or none. There is room for it, or it is not begun.
load_change() {
    local words=()

    load_stop
    case $((RANDOM % 8)) in
        0) words=(cache /dev/vda $((RANDOM % 2048 + 256))) ;;
        1) words=(anon $((RANDOM % 60 + 10))) ;;
        2) words=(tmpfs $((RANDOM % 768 + 256))) ;;
        3) words=(mlock $((RANDOM % 1536 + 256))) ;;
        4) words=(hugetlb 1536 $((RANDOM % 1536))) ;;
        5) words=(pins "$RANDOM" $((RANDOM % 64 + 1))) ;;
        6) words=(kernel "$RANDOM" $((RANDOM % 128 + 16))) ;;
        7) return ;;
    esac
    run guest c1 "lab-load start ${words[*]}"
    if ((code == 0)); then
        load_now=${words[*]}
    else
        note "did not fit: ${words[*]}: $err"
        load_stop
    fi
}

# What was plugged at first is plugged again, now and then before all of it is gone.
plug() {
    local plugged
    plugged=$(host_plugged c1)
    ((plugged < plugged_max)) || return 0
    ((plugged < 2 * GiB || RANDOM % 2)) || return 0
    run cli -o json add-memory c1 $(((plugged_max - plugged) / MiB))M --zone movable --wait 60s
    ((code == 0)) || note "an addition ended with $code: $(jq -c .reasons <<<"$out")"
}

bad() { # KIND WORDS
    n[$1]=$((n[$1] + 1))
    note "BAD: $2"
}

# remove: sets job_json. Now and then the job is cancelled in the middle.
remove() {
    local size=$(((RANDOM % 7 + 1) * 512)) wait=$((RANDOM % 6 + 1)) begin elapsed limit plugged cancelled=''

    plugged=$(host_plugged c1)
    ((plugged > 0)) || return 0
    ((size * MiB <= plugged)) || size=$((plugged / MiB))
    begin=${EPOCHREALTIME/./}
    limit=$((wait * 1000))
    if ((RANDOM % 5 == 0)); then
        cancelled=", cancelled"
        start_job remove-memory c1 "${size}M"
        sleep "0.$((RANDOM % 10))"
        limit=$(((${EPOCHREALTIME/./} - begin) / 1000))
        run cli cancel "$job_id" # it may have ended
        until job_ended "$job_id" || (((${EPOCHREALTIME/./} - begin) / 1000 > limit + 1000 * $(patience "$grace"))); do
            sleep 0.1
        done
        job_json=$(job "$job_id")
    else
        run timeout $((wait + $(patience "$grace"))) "$build_dir/hmc-cli/hmc-cli" --bus "$(bus)" -o json remove-memory c1 "${size}M" \
            --wait "${wait}s"
        job_json=$out
    fi
    elapsed=$(((${EPOCHREALTIME/./} - begin) / 1000))
    ((elapsed - limit <= overshoot_msec)) || overshoot_msec=$((elapsed - limit))
    job_state=$(jq -r '.state // .error.code // "none"' <<<"$job_json" 2>/dev/null) || job_state=none
    removed_mib=$((removed_mib + $(jq '(.done_bytes // 0) / 1048576' <<<"$job_json" 2>/dev/null || echo 0)))
    note "$(printf '%-9s %4s of %4s MiB in %5s ms, limit %s s%s; %s' "$job_state" \
        "$(jq '(.done_bytes // 0) / 1048576' <<<"$job_json" 2>/dev/null)" "$size" "$elapsed" "$wait" "$cancelled" "$load_now")"
    case $job_state in
        DONE | PARTIAL | FAILED | CANCELLED) n[$job_state]=$((n[$job_state] + 1)) ;;
        no-exact-fit | not-plugged) n[FAILED]=$((n[FAILED] + 1)) ;; # refused
        *) bad hung "the job has not ended: $job_state $job_json" ;;
    esac
}

# check: what must be so after each removal.
check() {
    local oom

    if ! (check_accounts c1) 2>"$work_dir/unequal"; then
        n[late]=$((n[late] + 1))
        note "not settled at once: $(<"$work_dir/unequal")"
        if ! (accounts_settle c1 "$(patience 10)") 2>"$work_dir/unequal"; then
            if grep -q 'offline blocks' "$work_dir/unequal"; then
                bad offline "$(<"$work_dir/unequal")"
            else
                bad unequal "$(<"$work_dir/unequal")"
            fi
        fi
    fi
    oom=$(guest c1 'dmesg | grep -c "Killed process"') || true
    if ((oom > n[oom])); then
        bad oom "the guest's kernel has killed $((oom - n[oom]))"
        n[oom]=$oom
    fi
    if [[ $load_now != none ]] && ! guest c1 'lab-load alive'; then
        bad died "the load does not stand any more: $load_now"
        load_stop
    fi
}

write_result() {
    local key

    for key in "${!n[@]}"; do
        printf '%s %s\n' "$key" "${n[$key]}"
    done | jq -R 'split(" ") | {(.[0]): (.[1] | tonumber)}' | jq -s -c --argjson count "$count" --argjson seed "$seed" \
        --argjson mib "$removed_mib" --argjson overshoot "$overshoot_msec" \
        'add + {removals: $count, seed: $seed, removed_mib: $mib, overshoot_msec: $overshoot}'
}

count=${COUNT:-10}
seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
RANDOM=$seed
test_begin
tools=$build_dir/tests/lab/tools/lab-load
[[ -x $tools ]] || tools=${LAB_LOAD:?a build without tests}
need_packages e2fsprogs
mkdir "$work_dir/files"
truncate -s 12G "$work_dir/files/file"
truncate -s 64M "$work_dir/disk"
mke2fs -q -t ext4 -d "$work_dir/files" "$work_dir/disk"

step "a guest of 2 GiB with 4 GiB more; COUNT=$count SEED=$seed"
boot c1 --memory 2G --max-memory 10G --slots 16 --program "$tools" -- \
    -drive "file=$work_dir/disk,format=raw,if=none,id=files,readonly=on" -device virtio-blk-pci,drive=files
# A device in a kernel zone as well, which may not leave any more.
expect 0 cli add-memory c1 512M --zone kernel
expect 0 cli add-memory c1 3584M --zone movable
check_accounts c1 "$plugged_max"

for ((i = 1; i <= count; i++)); do
    step "$i"
    ((RANDOM % 3 == 0)) || load_change
    plug
    remove
    check
done
load_stop
accounts_settle c1 "$(patience 10)"

step "the counts"
result=$(write_result)
note "$result"
[[ -z ${CHURN_RESULT:-} ]] || echo "$result" >"$CHURN_RESULT"
for key in hung offline unequal oom died; do
    assert_equal "count of '$key'" 0 "${n[$key]}"
done
test_end
