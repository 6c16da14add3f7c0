# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A whole hmc-cli command, from fork to exit, beside what the hypervisor and the guest's kernel take alone. Bars: issues
# 2 (x86-64) and 3 (ppc64le).
#
# floor   bare QMP on the same guest, idle, whose kernel brings blocks online by itself, one DIMM of the full size:
#         device_add to the guest's ACPI_DEVICE_OST; device_del to DEVICE_DELETED with all blocks online in Movable.
#         hvd and guestd stand still, so that it is QEMU and the kernel alone. The next row is the same with both
#         running, as they see every change of a guest
#         A pseries guest tells QEMU nothing when it has taken a DIMM. There the clock of an addition runs to the kernel's
#         own word that the last block is online, from a watcher in the guest that sleeps until then: see
#         tests/lab/tools/lab-await-online.c. Its way to the host, lab-agent and lab-exec, is in the floor: about 1 ms
# peer    what qemu-ga and chmem do: bare QMP and every block one by one by sysfs in the guest (from the host's command
#         to its end), lowest first for an addition, highest first for a removal. A pseries guest brings new blocks
#         online by itself, so there an addition is: the zone by sysfs, bare QMP, and a look by sysfs every 10 ms
#
# All rows are measured in turn, round by round, in one guest: machines are noisy, and so the noise is shared.

# shellcheck disable=SC2154  # the variables of lib.sh, and those that its functions set

bench=add-remove
guest=g1
declare -A size_text=([$((4 * GiB))]="4 GiB" [$((2 * GiB))]="2 GiB" [$((256 * MiB))]="256 MiB")
declare -A size_word=([$((4 * GiB))]=4G [$((2 * GiB))]=2G [$((256 * MiB))]=256M)
# The base is such that all of it may be Movable.
case $bench_arch in
    x86_64)
        base=1G
        sizes=($((2 * GiB)) $((256 * MiB)))
        declare -A bar=(["add $((2 * GiB))"]=1.15 ["add $((256 * MiB))"]=2 ["remove $((2 * GiB))"]=1.5)
        ;;
    ppc64le)
        base=2G
        sizes=($((4 * GiB)) $((256 * MiB)))
        declare -A bar=(["add $((4 * GiB))"]=1.3 ["remove $((4 * GiB))"]=2)
        ;;
esac
declare -A our_devices=()

row_floor="floor: bare QMP, one DIMM"
row_running="the same, with hvd and guestd running"
row_ours="hmc-cli"
row_hvd="  of it in hvd"
row_list="  for comparison: hmc-cli list"
row_devices="bare QMP, as many DIMMs as hvd plugs"
row_peer="bare QMP, and each block by sysfs in the guest"

# shellcheck disable=SC2016  # it is for the guest's shell
sysfs_online='cd /sys/devices/system/memory && for b in $(ls -d memory[0-9]* | sort -k 1.7n); do
    read -r s <$b/state; [ $s = online ] || echo online_movable >$b/state || exit; done'
# shellcheck disable=SC2016
sysfs_offline='cd /sys/devices/system/memory && for b in $(ls -d memory[0-9]* | sort -k 1.7nr); do
    read -r z x <$b/valid_zones; [ $z != Movable ] || echo offline >$b/state || exit; done'

note() { # DIRECTION SIZE ROW USEC
    [[ -n $first ]] || sample "$bench" "$1 ${size_text[$2]}" "$3" "$4"
}

# plug_steps SIZE DEVICES: sets steps, of which the last one's answer is what was measured.
plug_steps() {
    steps=("plug"$'\t'"$(($1 / $2))"$'\t'"$2")
    if [[ $bench_arch == ppc64le ]]; then
        watch_step "$1"
        steps=("$step" "${steps[@]}")
    fi
}

bare() { # SIZE DEVICES ROW EXPECT-FUNCTION
    set_auto_online online_movable
    "$4" 0 guest
    plug_steps "$1" "$2"
    measure "${steps[@]}"
    note add "$1" "$3" $((answers[-1]))
    "$4" "$1" "$first"
    measure "unplug"$'\t'"$2"
    note remove "$1" "$3" $((answers[0]))
    "$4" 0 guest
}

peer() { # SIZE
    local lab_exec wait

    lab_exec_command 60
    set_auto_online offline
    expect_bare 0 guest
    if [[ $bench_arch == ppc64le ]]; then
        wait="until read -r s </sys/devices/system/memory/memory$((guest_blocks + $1 / block_bytes - 1))/state &&
            [ \$s = online ]; do sleep 0.01; done 2>/dev/null"
        run_step "${lab_exec[@]}" sh -c "${wait//$'\n'/ }"
        wait=$step
        run_step "${lab_exec[@]}" sh -c "echo online_movable >/sys/devices/system/memory/auto_online_blocks"
        measure start "$step" "add"$'\t'"$1"$'\t1' "$wait" stop
        check_run "${answers[1]}"
        check_run "${answers[3]}"
    else
        run_step "${lab_exec[@]}" sh -c "${sysfs_online//$'\n'/ }"
        measure start "plug"$'\t'"$1"$'\t1' "$step" stop
        check_run "${answers[2]}"
    fi
    note add "$1" "$row_peer" $((answers[-1]))
    expect_bare "$1" "$first"
    run_step "${lab_exec[@]}" sh -c "${sysfs_offline//$'\n'/ }"
    measure start "$step" "unplug"$'\t1' stop
    check_run "${answers[1]}"
    note remove "$1" "$row_peer" $((answers[3]))
    expect_bare 0 guest
}

ours() { # SIZE
    local hmc=("$build_dir/hmc-cli/hmc-cli" --bus "unix:path=$LAB_DIR/bus") direction

    set_auto_online offline # as Debian has it
    expect_state 0 guest
    for direction in add remove; do
        run_step "${hmc[@]}" "$direction-memory" "$guest" "${size_word[$1]}"
        measure "$step"
        check_run "${answers[0]}"
        note "$direction" "$1" "$row_ours" "$usec"
        note "$direction" "$1" "$row_hvd" "$(cli -o json jobs | jq '.[-1].elapsed_usec')"
        if [[ $direction == add ]]; then
            expect_state "$1" "$first"
            our_devices[$1]=$n_devices
        else
            expect_state 0 guest
        fi
        run_step "${hmc[@]}" list
        measure "$step"
        check_run "${answers[0]}"
        note "$direction" "$1" "$row_list" "$usec"
    done
}

round() {
    local size

    for size in "${sizes[@]}"; do
        freeze
        bare "$size" 1 "$row_floor" expect_bare
        thaw
        ours "$size"
        bare "$size" 1 "$row_running" expect_state
        freeze
        ((our_devices[$size] == 1)) || bare "$size" "${our_devices[$size]}" "$row_devices" expect_bare
        peer "$size"
        thaw
    done
}

bench_run() {
    local i size direction group
    local bench_rounds=${bench_rounds:-$rounds_usual}

    say "$bench: booting a guest"
    boot $guest --memory "$base" --max-memory 16G --slots 16
    for size in "${sizes[@]}"; do
        for direction in add remove; do
            group="$direction ${size_text[$size]}"
            row "$bench" "$group" "$row_floor" floor
            row "$bench" "$group" "$row_running" running
            row "$bench" "$group" "$row_ours" ours "${bar[$direction $size]:-}"
            row "$bench" "$group" "$row_hvd" info
            row "$bench" "$group" "$row_list" info
            row "$bench" "$group" "$row_devices" info
            row "$bench" "$group" "$row_peer" peer
        done
    done
    # The first time, host and guest touch memory and code that they have at hand ever after.
    first=guest
    round
    first=''
    for ((i = 1; i <= bench_rounds; i++)); do
        say "$bench: round $i of $bench_rounds"
        round
    done
}
