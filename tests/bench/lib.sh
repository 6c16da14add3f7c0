# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the benchmarks stand on, sourced by scripts/bench after lib.sh. A benchmark, tests/bench/NAME.sh, defines
# bench_run, which boots guests in the lab, measures, and notes each sample by sample(). Its bars stand beside its rows.
#
# A figure that was not measured on what it claims to be measured on is worse than none: before every timed step the
# accounts of QEMU, hvd and the guest must be as expected, and anything unexpected ends the run.

# shellcheck disable=SC2034,SC2154  # some variables are for those who source this, or come from scripts/lib.sh

MiB=$((1 << 20)) GiB=$((1 << 30))
rounds_min=5   # for a verdict
rounds_usual=7 # of a benchmark that is about times

# --- beginning and end ---

bench_begin() {
    local folder=$build_dir/tests/bench

    work_dir=$(mktemp -d /tmp/odl-bench-XXXXXX)
    export LAB_DIR=$work_dir/lab OPENDLPAR_BUILD=$build_dir
    samples=$work_dir/samples rows=$work_dir/rows own_rows=$work_dir/own-rows facts=$work_dir/facts
    touch "$samples" "$rows" "$own_rows"
    watchdog_start "$work_dir"
    trap bench_end EXIT
    trap 'exit 143' TERM HUP
    trap 'exit 130' INT

    lab_find_tools
    floor_tool=$folder/bench-floor
    if [[ ! -x $floor_tool ]]; then
        floor_tool=$work_dir/bench-floor
        # shellcheck disable=SC2046  # flags are words
        cc -std=gnu17 -O2 -D_GNU_SOURCE -o "$floor_tool" "$repo_root/tests/bench/floor.c" \
            "$repo_root/tests/lab/tools/client.c" $(pkg-config --cflags --libs json-c)
    fi
    note_machine
}

bench_end() {
    local code=$?

    trap - EXIT
    trap '' TERM HUP INT
    thaw_host
    lab down || code=1
    kill -- -"$watchdog_pid" 2>/dev/null || true
    rm -rf -- "$work_dir"
    exit "$code"
}

lab() {
    "$repo_root/scripts/lab" "$@"
}

cli() {
    "$build_dir/hmc-cli/hmc-cli" --bus "unix:path=$LAB_DIR/bus" "$@"
}

# guest NAME SHELL-TEXT
guest() {
    lab exec "$1" -- sh -c "$2"
}

# boot NAME OPTION...: a guest, its account, and a stopwatch on its monitor. Sets block_bytes.
boot() {
    guest_name=$1
    lab guest "$1" --arch "$bench_arch" --cpus "$bench_cpus" "${@:2}"
    # shellcheck disable=SC2016  # it is for the guest's shell
    read -r block_bytes guest_blocks < <(guest "$1" 'cd /sys/devices/system/memory && echo $(cat block_size_bytes) $(ls -d memory[0-9]* | wc -l)')
    block_bytes=$((16#$block_bytes))
    jq --arg kernel "$(guest "$1" 'uname -r')" --arg command "$(<"$LAB_DIR/$1/command")" \
        --arg arch "$bench_arch" --argjson cpus "$bench_cpus" '.guest_kernel = $kernel | .guest_arch = $arch | .guest_cpus = $cpus | .accel = ($command | capture("accel=(?<a>[a-z]+)").a)' "$facts" >"$facts.new"
    mv "$facts.new" "$facts"

    coproc STOPWATCH { exec "$floor_tool" "$LAB_DIR/$1/lab-qmp.sock"; }
    watch_in=${STOPWATCH[1]} watch_out=${STOPWATCH[0]} watch_pid=$STOPWATCH_PID
}

# The end of the guest that was booted last, in whatever state it is.
halt() {
    thaw_host
    exec {watch_in}>&-
    wait "$watch_pid" 2>/dev/null || true
    lab stop "$guest_name"
}

# --- the stopwatch ---

# measure STEP...: steps of bench-floor, sent at once, in words parted by tabs. Sets answers, one for each.
measure() {
    local step answer
    answers=()

    printf '%s\n' "$@" >&"$watch_in"
    for step in "$@"; do
        IFS= read -r -t 180 answer <&"$watch_out" || die "the stopwatch has ended at: ${step//$'\t'/ }"
        [[ $answer == ok* ]] || die "${step//$'\t'/ }: $answer"
        answers+=("${answer#ok}")
    done
}

# measure_awake STEP...: the same, on processors that were busy before: from idle they take up to a second to come to their
# speed.
measure_awake() {
    # 124 from each timeout is what is wanted.
    seq "$(nproc)" | xargs -P 0 -n 1 timeout 0.5 bash -c 'while :; do :; done' || true
    measure "$@"
}

# run_step COMMAND...: sets step, the words to run a command with the stopwatch.
run_step() {
    local IFS=$'\t'
    step="run"$'\t'"$work_dir/out"$'\t'"$*"
}

# lab_exec_command SECONDS: sets lab_exec, the words of a command in the guest, for run_step and watch_step.
lab_exec_command() {
    lab_exec=("$tools_dir/lab-exec" "$LAB_DIR/$guest_name/lab.sock" "$LAB_DIR/$guest_name/exec.lock" "$1")
}

# watch_step SIZE: sets step, which makes the guest tell of the last of its blocks, where QEMU does not know of it; the
# kernel takes them in order. Nothing else may be plugged, and base memory ends where devices begin.
watch_step() {
    local IFS=$'\t' lab_exec

    lab_exec_command 60
    step="watch"$'\t'"${lab_exec[*]}"$'\t'"lab-await-online"$'\t'"memory$((guest_blocks + $1 / block_bytes - 1))"
}

# check_run ANSWER: the command must have ended well. Sets usec.
check_run() {
    local code
    read -r usec code <<<"$1"
    ((code == 0)) || die "${step//$'\t'/ }: exit $code: $(<"$work_dir/out")"
}

# --- the accounts ---

# What a command leaves behind in the guest, the pages that its fork made others copy, lies in the memory that was
# plugged last and makes a removal several times as slow (2 GiB: 0.06 s to 0.3 s). So between an addition and a removal
# nothing is run in the guest, but in the first round, which does not count.

# guest_check BYTES: online in Movable, no more and no less, and nothing offline.
guest_check() {
    local seen

    # shellcheck disable=SC2016  # it is for the guest's shell
    seen=$(guest "$guest_name" 'cd /sys/devices/system/memory && for b in memory[0-9]*; do
        read -r s <$b/state; read -r z x <$b/valid_zones; [ $s = online ] && echo $z || echo $s; done' |
        awk '{ n++ } /^Movable/ { m++ } /^(offline|going)/ { o++ } END { print n + 0, m + 0, o + 0 }')
    [[ $seen == "$((guest_blocks + $1 / block_bytes)) $(($1 / block_bytes)) 0" ]] ||
        die "the guest's blocks (all, in Movable, offline) are $seen, with $(($1 / MiB)) MiB plugged"
}

# expect_bare BYTES [guest]: what is plugged by QEMU's account, and the guest's. Then a moment of rest.
expect_bare() {
    local plugged

    measure plugged
    read -r plugged n_devices <<<"${answers[0]}"
    ((plugged == $1)) || die "QEMU has $((plugged / MiB)) MiB plugged, not $(($1 / MiB))"
    [[ ${2:-} != guest ]] || guest_check "$1"
    sleep 0.3
}

# expect_state BYTES [guest]: the same, and hvd knows, by guestd's word for the zone, and is done. Sets n_devices.
expect_state() {
    local hvd tries

    for tries in {1..100}; do
        hvd=$(cli -o json show "$guest_name" |
            jq -r '"\(.plugged_bytes) \(.pending_bytes) \(.agent_state) \([.devices[].movable_bytes] | add // 0)"')
        [[ $hvd != "$1 0 ready $1" ]] || break
        sleep 0.05
    done
    [[ $hvd == "$1 0 ready $1" ]] || die "hvd (plugged, pending, agent, movable) has $hvd, not $1 0 ready $1 (${tries} tries)"
    expect_bare "$@"
}

set_auto_online() {
    guest "$guest_name" "echo $1 >/sys/devices/system/memory/auto_online_blocks"
}

# Floors and peers are measured without us: hvd and guestd stand still meanwhile, or they would look at every change.
freeze() {
    # shellcheck disable=SC2016
    guest "$guest_name" 'kill -STOP "$(cat /run/guestd.pid)"'
    frozen_hvd=$(lab hvd pid)
    kill -STOP "$frozen_hvd"
}

thaw_host() {
    [[ -z ${frozen_hvd:-} ]] || kill -CONT "$frozen_hvd" 2>/dev/null || true
    frozen_hvd=''
}

# They then look at what they missed. Who comes with a command finds them at rest.
thaw() {
    thaw_host
    # shellcheck disable=SC2016
    guest "$guest_name" 'kill -CONT "$(cat /run/guestd.pid)"'
    sleep 1
}

# --- results ---

# row BENCHMARK GROUP ROW KIND [BAR]: a line of the table, in the order of these calls. GROUP is what shares a floor. KIND
# is floor, running (a second floor, told beside the verdict), ours, peer or info; ours may have a bar, the greatest ratio of its
# median to that of the floor.
row() {
    printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "${5:-}" >>"$rows"
}

# sample BENCHMARK GROUP ROW USEC
sample() {
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$samples"
}

# own_row JSON: a row whose figures are not times: at least benchmark, group, row, kind and verdict (null, "ok", "missed"
# or why there is none). Its benchmark prints its own table, into $work_dir/table-BENCHMARK.
own_row() {
    jq -c . <<<"$1" >>"$own_rows"
}

note_machine() {
    jq -n --arg date "$(date -u +%Y-%m-%dT%H:%M:%SZ)" --arg kernel "$(uname -r)" --arg arch "$(uname -m)" \
        --argjson cores "$(nproc)" --arg load "$(cut -d ' ' -f 1 /proc/loadavg)" \
        --arg cpu "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)" \
        --arg qemu "$(qemu-system-x86_64 --version | sed -n '1s/QEMU emulator version //p')" \
        --arg tree "$(git -C "$repo_root" describe --always --dirty 2>/dev/null || true)" \
        '{date: $date, tree: $tree, cores: $cores, cpu: $cpu, arch: $arch, kernel: $kernel, qemu: $qemu,
          load_at_start: ($load | tonumber)}' >"$facts"
}

# bench_report NAME...: result.json, and the tables. Returns 1 when a bar is missed.
bench_report() {
    # shellcheck disable=SC2016  # jq's variables
    jq -n --rawfile samples "$samples" --rawfile rows "$rows" --slurpfile facts "$facts" --slurpfile own "$own_rows" \
        --argjson load "$(cut -d ' ' -f 1 /proc/loadavg)" --argjson rounds "${bench_rounds:-$rounds_usual}" \
        --argjson rounds_min "$rounds_min" '
        def lines: split("\n") | map(select(. != "") | split("\t"));
        def median: sort | (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2;
        ($samples | lines) as $s
        | [$rows | lines[] | . as $row
            | ($s | map(select(.[0:3] == $row[0:3])[3] | tonumber)) as $usec
            | select($usec | length > 0)
            | {benchmark: $row[0], group: $row[1], row: $row[2], kind: $row[3],
               bar: ($row[4] | if . == "" then null else tonumber end),
               median_usec: ($usec | median), min_usec: ($usec | min), max_usec: ($usec | max), samples_usec: $usec}] as $all
        | def ratio(kind): . as $row
            | [$all[] | select(.benchmark == $row.benchmark and .group == $row.group and .kind == kind)][0]
            | if . then $row.median_usec / .median_usec else null end;
        {machine: ($facts[0] + {load_at_end: $load}), rounds: $rounds,
         rows: (($all | map(. + {ratio: ratio("floor"), ratio_running: ratio("running")}
            | . + {verdict: (if .bar == null then null
                             elif (.samples_usec | length) < $rounds_min then "too few rounds"
                             elif .ratio <= .bar then "ok" else "missed" end)})) + $own)}' >"$work_dir/result.json"
    print_tables "$@"
    ! jq -e 'any(.rows[]; .verdict == "missed")' "$work_dir/result.json" >/dev/null
}

print_tables() {
    local name benchmark group row median min max ratio running bar verdict last
    local format='%-48s %8s %8s %8s %7s %9s %6s  %s\n'

    jq -r '.machine | "\(.date)  \(.tree)  \(.cores) cores, \(.cpu)  QEMU \(.qemu)" + if .accel then "  \(.accel)  guest \(.guest_arch), processors \(.guest_cpus), Linux \(.guest_kernel)" else "" end' \
        "$work_dir/result.json"
    jq -r '.machine | [.load_at_start, .load_at_end] as $load | select(($load | max) > .cores + 1)
        | "The machine is busy with other things as well (load \($load | join(", "))): expect noise."' "$work_dir/result.json"
    for name in "$@"; do
        ! cat "$work_dir/table-$name" 2>/dev/null || continue
        last=
        # Not a tab, of which `read` would take several for one.
        while IFS='|' read -r benchmark group row median min max ratio running bar verdict; do
            [[ $benchmark == "$name" ]] || continue
            if [[ $group != "$last" ]]; then
                # shellcheck disable=SC2059
                printf "\n$format" "$benchmark: $group" 'median' 'min' 'max ms' 'ratio' '(running)' 'bar' ''
                last=$group
            fi
            # shellcheck disable=SC2059
            printf "$format" "  $row" "$median" "$min" "$max" "$ratio" "$running" "$bar" "$verdict"
        done < <(jq -r '
            def fixed(n): . * pow(10; n) | round | tostring
                | if length <= n then "0" * (n + 1 - length) + . else . end | .[:-n] + "." + .[-n:];
            def ms: . / 1000 | fixed(1);
            def ratio: if . then fixed(2) else "" end;
            .rows[] | select(.median_usec) | [.benchmark, .group, .row, (.median_usec | ms), (.min_usec | ms), (.max_usec | ms),
                (.ratio | ratio), (.ratio_running | if . then "(\(ratio))" else "" end), (.bar | ratio), .verdict // ""]
                | join("|")' "$work_dir/result.json")
    done | sed 's/ *$//'
}
