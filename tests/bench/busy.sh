# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# How much of 2 GiB comes back within 30 s from a guest that is busy. Bars: issue 4.
#
# A guest of 2 GiB has 4 GiB more in eight DIMMs, in zone Movable (for the load "kernel": in zone Normal). A load is
# brought to stand, what can leave is counted, and then one of three tries:
#
# hmc-cli      remove-memory 2G --wait 30s
# device_del   bare QMP: device after device, the highest slot first, each until QEMU says that it has left or been refused,
#              until 2 GiB have left. Nothing is taken offline first
# chmem        util-linux's chmem -d 2G in the guest, for at most 28 s, and then bare device_del for each device that is
#              wholly offline: what a script does
#
# Each has a guest of its own, since a bare device_del may hang its hotplug for ever. For the others hvd and guestd stand
# still, or they would put blocks back. What counts is what QEMU does not have any more when the 30 s are over.
#
# removable    counted before the attempt, by a program that shares nothing with guestd (tests/lab/tools/load-census.c): every
#              page of every device, by the kernel's own tables, and by the load's word for what it holds. A device
#              can leave if none of its pages is the kernel's or pinned; and as much can leave in all as is available (MemAvailable,
#              and huge pages of the pool that nobody uses). In whole devices, and at most what was asked
# OOM          processes killed for want of memory by the guest's kernel log
# hang         the command did not end in time (40 s), or afterwards a write to a block's state did not return in 10 s

# shellcheck disable=SC2154  # the variables of lib.sh, and those that its functions set

# shellcheck source=tests/bench/lib-loads.sh
. "$repo_root/tests/bench/lib-loads.sh"

bench=busy
limit_sec=30
declare -A load_text=(
    [cache]="page cache full"
    [anon]="70 % anonymous, being written"
    [tmpfs]="2.5 GiB in tmpfs"
    [mlock]="2 GiB locked"
    [hugetlb]="3 GiB of huge pages, half in use"
    [pins]="pinned pipe buffers, half of the DIMMs"
    [kernel]="kernel memory in zone Normal"
)
loads_known=(cache anon tmpfs mlock hugetlb pins kernel)
ways=(hmc-cli device_del chmem)

load_words() { # LOAD SEED: sets words
    case $1 in
        cache) words=(cache /dev/vda 0) ;;
        anon) words=(anon 70) ;;
        tmpfs) words=(tmpfs 2560) ;;
        mlock) words=(mlock 2048) ;;
        hugetlb) words=(hugetlb 3072 1536) ;;
        pins) words=(pins "$2" 16 "${ranges[@]}") ;;
        kernel) words=(kernel "$2" 192 "${ranges[@]}") ;;
    esac
}

# --- the ways; each sets usec, ended and said ---

try_hmc-cli() {
    local code

    run_step "$(type -P timeout)" 40 "$build_dir/hmc-cli/hmc-cli" --bus "unix:path=$LAB_DIR/bus" -o json \
        remove-memory "$guest_name" $((asked_bytes / MiB))M --wait ${limit_sec}s
    measure "$step"
    read -r usec code <<<"${answers[0]}"
    ((code != 124)) || ended=false
    said=$(jq -c '{state, reasons}' "$work_dir/out") || said=null
}

# eject_devices SECONDS ID...: adds to usec; fates has what became of each.
eject_devices() {
    local left_usec=$(($1 * 1000000)) id fate step_usec gone=0
    shift

    for id in "$@"; do
        ((left_usec > 0 && gone < asked_bytes)) || return 0
        # Its backend is called so by hvd, which has plugged it.
        measure "eject"$'\t'"$((left_usec / 1000 + 1))"$'\t'"$id"$'\t'"${id/dimm/mem}"
        read -r step_usec fate <<<"${answers[0]}"
        usec=$((usec + step_usec)) left_usec=$((left_usec - step_usec))
        fates+=("$id $fate")
        [[ $fate != silent ]] || ended=false
        [[ $fate != gone ]] || gone=$((gone + device_bytes))
    done
}

try_device_del() {
    local fates=()

    freeze
    usec=0
    eject_devices "$limit_sec" "${device_ids[@]}"
    said=$(jq -cn '$ARGS.positional' --args -- "${fates[@]}")
}

# offline_devices: those that have no block online, the highest slot first.
offline_devices() {
    local seen i start size

    # shellcheck disable=SC2016  # it is for the guest's shell
    seen=" $(guest "$guest_name" 'cd /sys/devices/system/memory && for b in memory[0-9]*; do
        read -r s <$b/state; [ $s != online ] || echo ${b#memory}; done' | xargs) "
    for i in "${!device_ids[@]}"; do
        IFS=: read -r start size <<<"${ranges[i]}"
        for ((; size > 0; size -= block_bytes, start += block_bytes)); do
            [[ $seen != *" $((start / block_bytes)) "* ]] || continue 2
        done
        echo "${device_ids[i]}"
    done
}

try_chmem() {
    local fates=() lab_exec code gone

    freeze
    lab_exec_command 40
    run_step "${lab_exec[@]}" timeout $((limit_sec - 2)) chmem -d "$((asked_bytes / MiB))M"
    measure "$step"
    read -r usec code <<<"${answers[0]}"
    ((code != 124)) || ended=false
    said=$(<"$work_dir/out")
    mapfile -t gone < <(offline_devices)
    eject_devices 2 "${gone[@]}"
    said=$(jq -cn --arg code "$code" --arg said "$said" '{exit: $code, said: $said, devices: $ARGS.positional}' --args -- "${fates[@]}")
}

# --- a cell of the table ---

# cell LOAD WAY SEED
cell() {
    local zone=movable words ended=true said=null can

    [[ $1 != kernel ]] || zone=kernel
    boot_busy "b-$1" "$zone"
    load_words "$1" "$3"
    load_start "${words[@]}"
    take_census
    can=$(removable "$asked_bytes")
    "try_$2"
    plugged_now
    look_at_guest
    jq -cn --arg load "$1" --arg way "$2" --argjson seed "$3" --argjson usec "$usec" \
        --argjson got $((plugged_bytes - plugged)) --argjson can "$can" --argjson oom "$oom_kills" \
        --argjson offline $((offline_blocks * block_bytes)) --argjson stands "$load_stands" --argjson ended "$ended" \
        --argjson hangs "$hotplug_hangs" --argjson census "$census" --argjson said "$said" '
        {load: $load, way: $way, seed: $seed, got_bytes: $got, removable_bytes: $can, usec: $usec, oom_kills: $oom,
         hung: ($hangs or ($ended | not)), offline_bytes: $offline, load_survived: $stands, said: $said, census: $census}' \
        >>"$work_dir/cells"
    say "$bench: $1, $2: $(((plugged_bytes - plugged) / MiB)) of $((can / MiB)) MiB in $((usec / 1000)) ms, OOM $oom_kills, hang $hotplug_hangs, ended $ended, offline $offline_blocks"
    halt
}

# --- the table ---

# make_row LOAD: medians over the rounds, and what was missed in any of them.
make_row() {
    jq -c --arg load "$1" --arg text "${load_text[$1]}" -s '
        def median: sort | .[(length - 1) / 2 | floor];
        def missed: (map({(.way): .}) | add) as $ways | $ways["hmc-cli"] as $ours
            | ([$ways.device_del.got_bytes, $ways.chmem.got_bytes] | max) as $best
            | if $ours.got_bytes < $best then "less than a peer" else empty end,
              if $ours.got_bytes < 0.95 * $ours.removable_bytes then "less than 95 % of what can leave" else empty end,
              if $ours.oom_kills > 0 then "OOM" else empty end,
              if $ours.hung then "hang" else empty end,
              if $ours.load_survived | not then "the load died" else empty end;
        map(select(.load == $load))
        | (reduce group_by(.way)[] as $c ({}; .[$c[0].way] = {
              got_bytes: ($c | map(.got_bytes) | median), usec: ($c | map(.usec) | median),
              removable_bytes: ($c | map(.removable_bytes) | median), oom_kills: ($c | map(.oom_kills) | add),
              hung: ($c | any(.hung)), offline_bytes: ($c | map(.offline_bytes) | max),
              load_survived: ($c | all(.load_survived)), samples: $c})) as $ways
        | [group_by(.seed)[] | missed] as $all | ($all | unique) as $missed
        | {benchmark: "busy", group: $load, row: $text, kind: "ours", ways: $ways, missed: $missed,
           verdict: (if $missed != [] then "missed" elif ($ways | length) < 3 then "no peers" else "ok" end)}' "$work_dir/cells"
}

print_table() {
    local format='%-40s %10s %22s %22s %22s  %s\n' text can ours bare chmem verdict

    echo
    # shellcheck disable=SC2059
    printf "$format" "busy: MiB of 2048 within $limit_sec s" removable hmc-cli "bare device_del" "chmem -d, device_del" ''
    while IFS='|' read -r text can ours bare chmem verdict; do
        # shellcheck disable=SC2059
        printf "$format" "  $text" "$can" "$ours" "$bare" "$chmem" "$verdict"
    done < <(jq -r '
        def fixed: . * 10 | round | tostring | if length < 2 then "0" + . else . end | .[:-1] + "." + .[-1:];
        def cell: if . then "\(.got_bytes / 1048576 | round) (\(.usec / 1000000 | fixed) s)"
            + (if .oom_kills > 0 then " OOM \(.oom_kills)" else "" end) + (if .hung then " hang" else "" end) else "-" end;
        select(.benchmark == "busy") | [.row, (.ways["hmc-cli"].removable_bytes / 1048576 | round), (.ways["hmc-cli"] | cell),
            (.ways.device_del | cell), (.ways.chmem | cell),
            (if .missed == [] then .verdict else "missed: " + (.missed | join(", ")) end)] | join("|")' "$own_rows")
}

bench_run() {
    local load way round loads seed=${BENCH_SEED:-2} # with seed 1 the pins happen to lie kindly

    read -ra loads <<<"${BENCH_LOADS:-${loads_known[*]}}"
    ! ${BENCH_ALONE:-false} || ways=(hmc-cli)
    for load in "${loads[@]}"; do
        [[ -n ${load_text[$load]:-} ]] || die "BENCH_LOADS: there is no load '$load'; there are ${loads_known[*]}"
    done
    loads_prepare
    for ((round = 0; round < ${bench_rounds:-1}; round++)); do
        for load in "${loads[@]}"; do
            for way in "${ways[@]}"; do
                cell "$load" "$way" $((seed + round))
            done
        done
    done
    for load in "${loads[@]}"; do
        own_row "$(make_row "$load")"
    done
    print_table >"$work_dir/table-busy"
}
