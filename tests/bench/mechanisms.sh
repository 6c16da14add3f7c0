# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# 4 GiB by each mechanism, free and touched: a whole hmc-cli command beside bare QMP on the same guest. All figures are
# of one GiB. Bars: issue 5.
#
# bare    QMP alone, with hvd and guestd standing still, in a guest whose kernel brings blocks online by itself: the wish,
#         and a look every 5 ms (the balloon: 20 ms) until the guest has followed, as QEMU tells of the end up to a
#         second late. For a DIMM device_add to ACPI_DEVICE_OST, device_del to DEVICE_DELETED, one DIMM of the full size
# auto    the method that hvd chooses, in the guest that has them all; its bar is twice the best of those that could do it,
#         bare: memory can leave only by what it came by, so that its removal is held against the mechanisms that have it
#
# Two guests, as the balloon takes of base memory and DIMMs alone: g1 has 2 GiB, of which 4 GiB may be Movable, and
# virtio-mem; g2 has 6 GiB and a balloon. "Touched": the 4 GiB were written to before and are free again.
#
# 4 GiB come in a tenth of a second, and a machine that is shared has two speeds, half as fast again, that change within
# seconds: a median of few is chance. So the processors are kept busy until the clock begins, and there are many rounds;
# what takes long and scatters little, or has a bar far off or none (the balloon, DIMMs, auto), is measured in every
# tenth. What went before tells as well: free memory leaves in 1.68 s where touched memory has just left, and in 2.0 s
# where free memory has. So bare goes through all states, and then ours.

# shellcheck disable=SC2154  # the variables of lib.sh, and those that its functions set

bench=mechanisms
rounds_of_mechanisms=70
every=10
size=$((4 * GiB))
row_bare="bare QMP"
row_ours="hmc-cli"
row_auto="hmc-cli, method auto"
# What is measured: some of free and touched, and of virtio-mem, dimm, balloon and auto.
read -ra states <<<"${BENCH_STATES:-free touched}"
read -ra kinds <<<"${BENCH_MECHANISMS:-virtio-mem dimm auto balloon}"

measured() {
    [[ " ${kinds[*]} " == *" $1 "* ]]
}

note() { # METHOD DIRECTION STATE ROW USEC
    [[ -n $first ]] || sample "$bench" "$1, $2, $3, for one GiB" "$4" $(($5 * GiB / size))
}

# touch_memory NAME: writes to what will leave, but for a little, and gives it back to the guest. Both have 6 GiB then.
touch_memory() {
    guest "$1" "lab-load start anon $((size * 100 / (6 * GiB) - 4)) >/dev/null && lab-load stop"
    # The balloon's statistics know of it some seconds later.
    [[ $1 == g1 ]] || sleep 7
}

each_state() { # FUNCTION [ARGUMENT...]
    local state

    for state in "${states[@]}"; do
        "$@" "$state"
    done
}

# command DIRECTION METHOD: a whole command of ours. Sets usec.
command_of_ours() {
    run_step "$build_dir/hmc-cli/hmc-cli" --bus "unix:path=$LAB_DIR/bus" "$1-memory" "$guest_name" 4G --method "$2"
    measure_awake "$step"
    check_run "${answers[0]}"
}

# --- g1: what is plugged ---

bare_move() { # METHOD BYTES: sets usec to the time that it takes to have so much
    case $1 in
        virtio-mem) measure_awake "resize"$'\t'"vm0"$'\t'"$2" ;;
        dimm) if (($2 > 0)); then measure_awake "plug"$'\t'"$2"$'\t1'; else measure_awake "unplug"$'\t1'; fi ;;
    esac
    usec=$((answers[0]))
}

bare_plug() { # METHOD STATE
    freeze
    set_auto_online online_movable
    expect_bare 0 guest
    bare_move "$1" "$size"
    note "$1" grow "$2" "$row_bare" "$usec"
    expect_bare "$size"
    [[ $2 == free ]] || touch_memory g1
    bare_move "$1" 0
    note "$1" shrink "$2" "$row_bare" "$usec"
    expect_bare 0 guest
    set_auto_online offline
    thaw
}

our_plug() { # METHOD STATE
    local row=$row_ours

    [[ $1 != auto ]] || row=$row_auto
    expect_state 0 guest
    command_of_ours add "$1"
    note "$1" grow "$2" "$row" "$usec"
    expect_state "$size"
    [[ $1 != auto ]] || auto_has=$(cli -o json show g1 |
        jq -r '[.devices[] | select(.size_bytes > 0) | .kind] | unique | join(" ")')
    [[ $2 == free ]] || touch_memory g1
    command_of_ours remove "$1"
    note "$1" shrink "$2" "$row" "$usec"
    expect_state 0 guest
}

round_plug() { # ROUND
    local method methods=(virtio-mem)

    (($1 % every != 1)) || methods+=(dimm auto)
    for method in "${methods[@]}"; do
        measured "$method" || continue
        if [[ $method == auto ]]; then
            each_state our_plug auto
        else
            each_state bare_plug "$method"
            each_state our_plug "$method"
        fi
    done
}

# --- g2: the balloon ---

bare_balloon() { # STATE
    local base=$((6 * GiB))

    freeze
    [[ $1 == free ]] || touch_memory g2
    measure_awake "balloon"$'\t'$((base - size))
    note balloon shrink "$1" "$row_bare" $((answers[0]))
    measure_awake "balloon"$'\t'"$base"
    note balloon grow "$1" "$row_bare" $((answers[0]))
    thaw
}

our_balloon() { # STATE
    [[ $1 == free ]] || touch_memory g2
    expect_state 0
    command_of_ours remove balloon
    note balloon shrink "$1" "$row_ours" "$usec"
    command_of_ours add balloon
    note balloon grow "$1" "$row_ours" "$usec"
}

round_balloon() { # ROUND
    (($1 % every == 1)) || return 0
    each_state bare_balloon
    each_state our_balloon
}

# --- the whole ---

declare_rows() {
    local method state direction group

    for method in virtio-mem dimm balloon; do
        for state in "${states[@]}"; do
            for direction in grow shrink; do
                group="$method, $direction, $state, for one GiB"
                row "$bench" "$group" "$row_bare" floor
                # A DIMM's own bars are those of add-remove.
                row "$bench" "$group" "$row_ours" ours "$([[ $method == dimm ]] || echo 1.1)"
                [[ $method != virtio-mem ]] || row "$bench" "auto, $direction, $state, for one GiB" "$row_auto" ours 2
            done
        done
    done
}

# auto is held against the best of the others: their samples stand in its groups as well.
add_floors_of_auto() {
    local state direction best could

    for state in "${states[@]}"; do
        for direction in grow shrink; do
            grep -q "^$bench	auto, $direction, $state," "$samples" || continue
            could="virtio-mem dimm balloon"
            [[ $direction == grow ]] || could=$auto_has
            best=$(awk -F '\t' -v end=", $direction, $state, for one GiB" -v row="$row_bare" -v could=" $could " '
                $3 == row && index($2, end) && index(could, " " substr($2, 1, index($2, ",") - 1) " ") { sum[$2] += $4; n[$2]++ }
                END { for (g in sum) if (!best || sum[g] / n[g] < best) { best = sum[g] / n[g]; name = g } print name }' "$samples")
            row "$bench" "auto, $direction, $state, for one GiB" "bare QMP, ${best%%,*}" floor
            awk -F '\t' -v OFS='\t' -v group="$best" -v row="$row_bare" -v to="auto, $direction, $state, for one GiB" \
                '$2 == group && $3 == row { $2 = to; $3 = "bare QMP, " substr(group, 1, index(group, ",") - 1); print }' \
                "$samples" >"$samples.auto"
            cat "$samples.auto" >>"$samples"
        done
    done
}

run_rounds() { # FUNCTION WARM-UP
    local i

    # The first time, host and guest touch memory and code that they have at hand ever after. Beside half a minute that is
    # nothing.
    first=guest
    ! $2 || "$1" 1
    first=''
    for ((i = 1; i <= bench_rounds; i++)); do
        say "$bench: round $i of $bench_rounds on $guest_name"
        "$1" "$i"
    done
}

bench_run() {
    local bench_rounds=${bench_rounds:-$rounds_of_mechanisms}

    [[ $bench_arch == x86_64 ]] || die "$bench: virtio-mem is x86_64's alone"
    declare_rows
    if measured virtio-mem || measured dimm || measured auto; then
        say "$bench: booting a guest with virtio-mem"
        boot g1 --memory 2G --max-memory 16G --slots 16 --virtio-mem 4G --program "$tools_dir/lab-load"
        run_rounds round_plug true
        halt
    fi
    if measured balloon; then
        say "$bench: booting a guest with a balloon"
        boot g2 --memory 6G --max-memory 8G --slots 4 --balloon --program "$tools_dir/lab-load"
        run_rounds round_balloon false
        halt
    fi
    add_floors_of_auto
}
