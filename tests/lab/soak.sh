#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Random operations on three guests of both architectures: additions, removals, moves, jobs that are cancelled, guests
# that are reset, guestd and hvd killed, in the middle of jobs. After each all ends agree to the byte and no job hangs;
# at the end no kernel has killed for want of memory, and neither hvd nor guestd has grown.
#
# Growth is that of one process: in the last two fifths of the operations neither hvd nor the first guest's guestd is
# killed, nor is that guest reset. Of these the first half is for both to get as large as they are to be: hvd remembers
# 128 jobs that have ended.
#
# SOAK_OPERATIONS=N runs as many (100 in "scripts/check --all"; else it is skipped), SOAK_SEED=N repeats a run, with
# SOAK_OPERATIONS as it was. SOAK_GUESTS are the guests' architectures ("x86_64 x86_64 ppc64le").
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

operations=${SOAK_OPERATIONS:-$((${OPENDLPAR_ALL:-0} ? 100 : 0))}
((operations > 0)) || skip "it takes long: SOAK_OPERATIONS=N, or scripts/check --all"
calm_from=$((operations * 3 / 5 + 1)) warm_at=$((operations > 1 ? operations * 4 / 5 : 1))
limit=120 # seconds for any job, and for the ends to agree: with three guests on two processors
plugged_max=$((5 * GiB))
declare -A counts=()

hvd_figures() { # VmRSS in KiB, and the open files
    local pid
    pid=$(lab hvd pid)
    echo "$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status") $(find "/proc/$pid/fd" -mindepth 1 | wc -l)"
}

guestd_figures() { # NAME: likewise
    guest "$1" 'p=$(cat /run/guestd.pid) && echo $(sed -n "s/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p" /proc/$p/status) $(ls /proc/$p/fd | wc -l)'
}

no_job_runs() {
    [[ $(cli -o json jobs | jq '[.[] | select(.state | IN("DONE", "PARTIAL", "FAILED", "CANCELLED") | not)] | length') == 0 ]]
}

# All three, to the byte.
settle() {
    local name
    await $limit "the end of every job" no_job_runs
    for name in "${guests[@]}"; do
        await $limit "guestd of $name" agent_is "$name" ready
        accounts_settle "$name" $limit
    done
}

# began VERB GUEST SIZE: a job that does not wait; sets job_id, or it is 0 as it was refused.
began() {
    run cli -o json "$1" "$2" "$3" --no-wait
    job_id=0
    case $code in
        0) job_id=$(jq .id <<<"$out") ;;
        1) refused=$((refused + 1)) ;;
        *) fail "exit $code: $out $err" ;;
    esac
}

# After a job that nobody disturbed: what it says is what QEMU has more or less.
judge() { # VERB GUEST PLUGGED-BEFORE
    local done_bytes
    ((code == 0 || code == 1 || code == 64)) || fail "exit $code: $out $err"
    done_bytes=$(jq '.done_bytes // 0' <<<"$out")
    [[ $1 == add-memory ]] || done_bytes=-$done_bytes
    accounts_settle "$2" $limit $(($3 + done_bytes))
    ((code != 1)) || refused=$((refused + 1))
}

# An addition if there is little plugged, a removal if there is much: sets verb.
choose_verb() { # GUEST SIZE
    local plugged
    plugged=$(host_plugged "$1")
    verb=remove-memory
    ((plugged >= $2 && (coin || plugged + $2 > plugged_max))) || verb=add-memory
}

pause() {
    sleep "$((part / 10)).$((part % 10))"
}

reset_and_wait() { # GUEST
    local id
    check_guest_health "$1"
    id=$(boot_id "$1")
    reset_guest "$1"
    await $limit "$1 to be back" rebooted "$1" "$id"
}

# How fast it goes, and how long the rest will take.
progress() { # NUMBER
    local seconds=$((SECONDS - begun)) rest=$((operations - $1))
    note "$1 operations in $seconds s, $((seconds / $1)).$((seconds * 10 / $1 % 10)) s each; the other $rest: about $((rest * seconds / $1 / 60)) min"
    note "hvd: $(hvd_figures)"
}

operation() { # KIND GUEST OTHER SIZE-MIB
    local kind=$1 name=$2 other=$3 size=$4M before
    before=$(host_plugged "$name")
    choose_verb "$name" $((size_mib * MiB))
    case $kind in
        add-memory | remove-memory)
            run cli -o json "$kind" "$name" "$size" --wait ${limit}s
            judge "$kind" "$name" "$before"
            ;;
        move-memory)
            run cli -o json move-memory "$name" "$other" "$size" --wait ${limit}s
            ((code == 0 || code == 1 || code == 64)) || fail "exit $code: $out $err"
            ;;
        cancel)
            began "$verb" "$name" "$size"
            pause
            ((job_id == 0)) || run cli cancel "$job_id"
            ;;
        reboot)
            ((coin)) || began "$verb" "$name" "$size"
            pause
            reset_and_wait "$name"
            ;;
        kill-guestd)
            began "$verb" "$name" "$size"
            pause
            guest "$name" 'kill -9 "$(cat /run/guestd.pid)"' || true
            ;;
        kill-hvd)
            began "$verb" "$name" "$size"
            pause
            lab hvd kill
            lab hvd start
            ;;
    esac
}

kinds=(add-memory add-memory add-memory add-memory remove-memory remove-memory remove-memory remove-memory
    move-memory move-memory cancel cancel cancel reboot kill-guestd kill-guestd kill-hvd kill-hvd)

seed=${SOAK_SEED:-$((RANDOM * 32768 + RANDOM))}
RANDOM=$seed
test_begin
step "three guests; SOAK_SEED=$seed, $operations operations"
number=0
for arch in ${SOAK_GUESTS:-x86_64 x86_64 ppc64le}; do
    boot "s$((++number))" --arch "$arch" --memory 2G --max-memory 10G --slots 32
done

refused=0 begun=$SECONDS
for ((i = 1; i <= operations; i++)); do
    # All that chance has a say in is drawn here, so that a run can be repeated.
    kind=${kinds[RANDOM % ${#kinds[@]}]} first=$((RANDOM % number)) second=$((RANDOM % (number - 1)))
    size_mib=$(((RANDOM % 4 + 1) * 256)) part=$((RANDOM % 15)) coin=$((RANDOM % 2))
    if ((i >= calm_from)); then
        [[ $kind != kill-hvd ]] || kind=cancel
        [[ $kind != reboot && $kind != kill-guestd ]] || first=$((first ? first : 1))
    fi
    name=${guests[first]} other=${guests[(first + 1 + second) % number]}
    step "$i: $kind $name ${size_mib}M ($other)"
    counts[$kind]=$((${counts[$kind]:-0} + 1))
    operation "$kind" "$name" "$other" $size_mib
    settle
    ((i % 10)) || progress $i
    if ((i == warm_at)); then
        read -ra hvd_warm <<<"$(hvd_figures)"
        read -ra guestd_warm <<<"$(guestd_figures "${guests[0]}")"
    fi
done

step "nobody grew"
progress "$operations"
for kind in "${!counts[@]}"; do
    note "$kind: ${counts[$kind]}"
done
note "refused, or failed with nothing done: $refused of $operations"
read -ra hvd_end <<<"$(hvd_figures)"
read -ra guestd_end <<<"$(guestd_figures "${guests[0]}")"
note "hvd: ${hvd_warm[0]} -> ${hvd_end[0]} KiB, ${hvd_warm[1]} -> ${hvd_end[1]} open files"
note "guestd: ${guestd_warm[0]} -> ${guestd_end[0]} KiB, ${guestd_warm[1]} -> ${guestd_end[1]} open files"
assert_at_most "open files of hvd" "${hvd_warm[1]}" "${hvd_end[1]}"
assert_at_most "open files of guestd" $((guestd_warm[1] + 1)) "${guestd_end[1]}"
if ((!sanitized)); then
    assert_at_most "growth of hvd, KiB" 1024 $((hvd_end[0] - hvd_warm[0]))
    assert_at_most "growth of guestd, KiB" 256 $((guestd_end[0] - guestd_warm[0]))
fi
test_end
