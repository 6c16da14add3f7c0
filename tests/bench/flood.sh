# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What others notice of a guest that floods its channel, or makes its QEMU flood its monitor. Bars: issue 8.
#
# show, add  `hmc-cli show` and `add-memory 1G` on another partition, from the command's beginning to its end: the median and
#            the 99th percentile at most 1.2 times what they are while the other holds still (it is stopped for every other
#            block of commands, so that the machine is the same)
# memory     what hvd's resident set grows by over the whole of each flood: at most 4 MiB
# read       what hvd reads in all while it is flooded, beside what it reads in the calm: that there is a flood
#
# valid      a guest that sends messages as they should be, without end: events, answers to what nobody asks any more
# garbage    one that sends what is none, deep and long, and begins anew whenever it is thrown out
# ost        a QEMU that sends ACPI_DEVICE_OST without end

# shellcheck disable=SC2154  # the variables of lib.sh, and those that its functions set

# shellcheck source=tests/bench/lib-fleet.sh
. "$repo_root/tests/bench/lib-fleet.sh"

flood_kinds=(valid garbage ost)
flood_shows=25 flood_adds=20 # in a block

timed() { # FILE COMMAND...
    local begin=$EPOCHREALTIME file=$1

    shift
    "$@" >"$fleet_files/answer" 2>&1 || die "$*: $(<"$fleet_files/answer")"
    echo $((${EPOCHREALTIME/./} - ${begin/./})) >>"$file"
}

block() { # KIND calm|flood
    local i

    for ((i = 0; i < flood_shows; i++)); do
        timed "$fleet_files/show-$1-$2" cli show other0
    done
    for ((i = 0; i < flood_adds; i++)); do
        timed "$fleet_files/add-$1-$2" cli add-memory other0 1G
        cli remove-memory other0 1G >"$fleet_files/answer" 2>&1 || die "remove-memory: $(<"$fleet_files/answer")"
    done
}

# percentile FILE N
percentile() {
    sort -n "$1" | awk -v n="$2" '{ v[NR] = $1 } END { i = int((NR - 1) * n / 100 + 0.5) + 1; print v[i] }'
}

report() { # KIND GROWN-KIB
    local what part calm flood none=''

    ((flood_blocks >= 24)) || none="too few rounds"
    for what in show add; do
        for part in 50 99; do
            calm=$(percentile "$fleet_files/$what-$1-calm" $part) flood=$(percentile "$fleet_files/$what-$1-flood" $part)
            fleet_row flood "$1" "$what, percentile $part: $((calm / 1000)).$((calm / 100 % 10)) ms, with the flood" \
                "$(jq -n "$flood / 100 | round / 10")" ms
            fleet_row flood "$1" "$what, percentile $part: times that without" \
                "$(jq -n "$flood / $calm * 100 | round / 100")" x 1.2 "$none"
        done
    done
    fleet_row flood "$1" "growth of hvd's memory" "$(jq -n "$2 / 102.4 | round / 10")" MiB 4 "$none"
}

flood_over() { # KIND
    die "the flood '$1' is over before its time: $(cat "$fleet_files/$1.err")"
}

# Sets read_kib: what hvd has read in all.
flood_read() {
    read_kib=$(($(awk '/^rchar:/ { print $2 }' "/proc/$hvd_pid/io") / 1024))
}

# timed_block KIND calm|flood: a block; sets rate, what hvd reads in a second, in KiB.
timed_block() {
    local from begin=$EPOCHREALTIME

    flood_read
    from=$read_kib
    block "$@"
    flood_read
    rate=$(((read_kib - from) * 1000000 / (${EPOCHREALTIME/./} - ${begin/./})))
}

flood() { # KIND PID
    local i before grown calm_rate=0 flood_rate=0

    # Once around, so that what comes once is not counted.
    block "$1" once
    fleet_memory
    before=$rss_kib grown=0
    for ((i = 0; i < flood_blocks; i++)); do
        timed_block "$1" calm
        calm_rate=$((calm_rate + rate / flood_blocks))
        kill -CONT "$2" 2>/dev/null || flood_over "$1"
        sleep 0.5
        timed_block "$1" flood
        flood_rate=$((flood_rate + rate / flood_blocks))
        fleet_memory
        grown=$((rss_kib - before > grown ? rss_kib - before : grown))
        kill -STOP "$2" 2>/dev/null || flood_over "$1"
        sleep 0.5
    done
    ((flood_rate > calm_rate + 8)) || flood_over "$1"
    fleet_row flood "$1" "read in the calm" "$calm_rate" KiB/s
    fleet_row flood "$1" "read with the flood" "$flood_rate" KiB/s
    report "$1" "$grown"
}

bench_run() {
    local kind i

    flood_blocks=${bench_rounds:-36}
    fleet_prepare
    { fake_qemu_begin && fake_qemu_rounds $((flood_adds * (2 * flood_blocks + 1) * ${#flood_kinds[@]})) && echo serve; } >"$fleet_files/other.qemu"
    { fake_guest_begin && fake_guest_rounds $((flood_adds * (2 * flood_blocks + 1) * ${#flood_kinds[@]})) && echo serve; } >"$fleet_files/other.guest"
    for kind in "${flood_kinds[@]}"; do
        { fake_qemu_begin && echo serve; } >"$fleet_files/$kind.qemu"
        { fake_guest_begin && echo serve; } >"$fleet_files/$kind.guest"
    done
    { fake_guest_begin && fake_guest_flood valid 4000 && echo serve; } >"$fleet_files/valid.guest"
    { fake_guest_garbage 500 && echo serve; } >"$fleet_files/garbage.guest"
    { fake_qemu_begin && echo "wait 1000" && fake_qemu_flood 20000 && echo serve; } >"$fleet_files/ost.qemu"

    for kind in other "${flood_kinds[@]}"; do
        fleet_start "$kind" 1
        fleet_define "$kind" 1 "$kind"
    done
    lab hvd start
    hvd_pid=$(lab hvd pid)
    fleet_await 30 "the other partition" fleet_ready_one other0
    sleep 2
    kill -STOP "${fleet_pids[@]:1}"
    for i in "${!flood_kinds[@]}"; do
        say "flood: ${flood_kinds[i]}"
        flood "${flood_kinds[i]}" "${fleet_pids[i + 1]}"
    done
    # Those that flood are not done, and are not meant to be.
    kill -KILL "${fleet_pids[@]:1}"
    wait "${fleet_pids[@]:1}" 2>/dev/null || true
    fleet_pids=("${fleet_pids[0]}")
    fleet_end
    fleet_table flood
}
