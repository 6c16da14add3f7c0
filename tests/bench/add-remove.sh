# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A whole hmc-cli command, from fork to exit, beside what the hypervisor and the guest's kernel take alone. Bars: issue 2.
#
# floor   bare QMP on an idle guest whose kernel brings blocks online by itself, one DIMM of the full size: device_add to
#         the guest's ACPI_DEVICE_OST; device_del to DEVICE_DELETED with all blocks online in Movable
# peer    what qemu-ga and chmem do: bare QMP and every block one by one by sysfs in the guest (from the host's command
#         to its end), lowest first for an addition, highest first for a removal
#
# All rows are measured in turn, round by round, in one guest: machines are noisy, and so the noise is shared.

bench=add-remove
guest=g1
declare -A size_text=([$((2 * GiB))]="2 GiB" [$((256 * MiB))]="256 MiB")
declare -A size_word=([$((2 * GiB))]=2G [$((256 * MiB))]=256M)
declare -A add_bar=([$((2 * GiB))]=1.15 [$((256 * MiB))]=2)
declare -A remove_bar=([$((2 * GiB))]=1.5)
declare -A our_devices=()

# shellcheck disable=SC2016  # it is for the guest's shell
sysfs_online='cd /sys/devices/system/memory && for b in $(ls -d memory[0-9]* | sort -k 1.7n); do
    read -r s <$b/state; [ $s = online ] || echo online_movable >$b/state || exit; done'
# shellcheck disable=SC2016
sysfs_offline='cd /sys/devices/system/memory && for b in $(ls -d memory[0-9]* | sort -k 1.7nr); do
    read -r z x <$b/valid_zones; [ $z != Movable ] || echo offline >$b/state || exit; done'

note() { # DIRECTION SIZE ROW USEC
    [[ -n $first ]] || sample "$bench" "$1 ${size_text[$2]}" "$3" "$4"
}

bare() { # SIZE DEVICES ROW
    set_auto_online online_movable
    expect_bare 0 guest
    measure "plug"$'\t'"$(($1 / $2))"$'\t'"$2"
    note add "$1" "$3" $((answers[0]))
    expect_bare "$1" "$first"
    measure "unplug"$'\t'"$2"
    note remove "$1" "$3" $((answers[0]))
    expect_bare 0 guest
}

peer() { # SIZE ROW
    local lab_exec=("$tools_dir/lab-exec" "$LAB_DIR/$guest/lab.sock" "$LAB_DIR/$guest/exec.lock" 60 sh -c)
    set_auto_online offline
    expect_bare 0 guest
    run_step "${lab_exec[@]}" "${sysfs_online//$'\n'/ }"
    measure start "plug"$'\t'"$1"$'\t1' "$step" stop
    check_run "${answers[2]}"
    note add "$1" "$2" $((answers[3]))
    expect_bare "$1" "$first"
    run_step "${lab_exec[@]}" "${sysfs_offline//$'\n'/ }"
    measure start "$step" "unplug"$'\t1' stop
    check_run "${answers[1]}"
    note remove "$1" "$2" $((answers[3]))
    expect_bare 0 guest
}

ours() { # SIZE
    local hmc=("$build_dir/hmc-cli/hmc-cli" --bus "unix:path=$LAB_DIR/bus") verb direction

    set_auto_online offline # as Debian has it
    expect_state 0 guest
    for verb in add-memory remove-memory; do
        direction=${verb%-memory}
        run_step "${hmc[@]}" "$verb" "$guest" "${size_word[$1]}"
        measure "$step"
        check_run "${answers[0]}"
        note "$direction" "$1" "hmc-cli $verb" "$usec"
        note "$direction" "$1" "  of it in hvd" "$(cli -o json jobs | jq '.[-1].elapsed_usec')"
        if [[ $verb == add-memory ]]; then
            expect_state "$1" "$first"
            our_devices[$1]=$n_devices
        else
            expect_state 0 guest
        fi
    done
    run_step "${hmc[@]}" list
    measure "$step"
    check_run "${answers[0]}"
    note add "$1" "  start-up alone: hmc-cli list" "$usec"
}

rows_of() { # SIZE
    local text=${size_text[$1]} direction

    for direction in add remove; do
        row "$bench" "$direction $text" "floor: bare QMP, one DIMM" floor
        if [[ $direction == add ]]; then
            row "$bench" "$direction $text" "hmc-cli add-memory" ours "${add_bar[$1]:-}"
        else
            row "$bench" "$direction $text" "hmc-cli remove-memory" ours "${remove_bar[$1]:-}"
        fi
        row "$bench" "$direction $text" "  of it in hvd" info
        row "$bench" "$direction $text" "  start-up alone: hmc-cli list" info
        row "$bench" "$direction $text" "bare QMP, as many DIMMs as ours (${our_devices[$1]})" info
        row "$bench" "$direction $text" "bare QMP, each block by sysfs in the guest" peer
    done
}

round() {
    local size

    for size in $((2 * GiB)) $((256 * MiB)); do
        freeze
        bare "$size" 1 "floor: bare QMP, one DIMM"
        thaw
        ours "$size"
        freeze
        ((our_devices[$size] == 1)) || bare "$size" "${our_devices[$size]}" "bare QMP, as many DIMMs as ours (${our_devices[$size]})"
        peer "$size" "bare QMP, each block by sysfs in the guest"
        thaw
    done
}

bench_run() {
    local i

    say "$bench: booting a guest"
    boot $guest --memory 1G --max-memory 16G --slots 16
    # The first time, host and guest touch memory and code that they have at hand ever after.
    first=guest
    round
    first=''
    for ((i = 1; i <= bench_rounds; i++)); do
        say "$bench: round $i of $bench_rounds"
        round
    done
    rows_of $((2 * GiB))
    rows_of $((256 * MiB))
}
