# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A bus, hvd and partitions that fakes play, for benchmarks of hvd alone. Real guests would be what is measured: a
# thousand do not fit on a machine, and one that floods takes a processor of its own.

# shellcheck disable=SC2154  # the variables of lib.sh

# shellcheck source=tests/fakes/scripts.sh
. "$repo_root/tests/fakes/scripts.sh"

# Sets fleet_tool. The lab is up then, but for hvd: it is started when its partitions are defined. A release build has no fakes: one is made.
fleet_prepare() {
    fleet_tool=$build_dir/tests/fakes/fake-fleet
    fleet_files=$work_dir/files fleet_pids=()
    mkdir -p "$fleet_files"
    [[ -x $fleet_tool ]] || {
        fleet_tool=$work_dir/fake-fleet
        # shellcheck disable=SC2046  # flags are words
        cc -std=gnu17 -O2 -D_GNU_SOURCE -I "$repo_root" -o "$fleet_tool" \
            "$repo_root"/tests/fakes/{dialect,fake,fake-guest,fake-qmp,fake-main,fake-fleet}.c \
            "$build_dir/proto/libproto.a" "$build_dir/common/libcommon.a" $(pkg-config --cflags --libs libsystemd json-c)
    }
    mkdir -m 700 "$LAB_DIR"
    printf '[hvd]\npool_total = 64T\n' >"$LAB_DIR/hvd.conf"
    lab up
    lab hvd stop
    mkdir -p "$LAB_DIR/partitions.d"
}

# fleet_start NAME COUNT [MSEC STEP]: COUNT fakes, by $fleet_files/NAME.qemu and NAME.guest, in the folder NAME.
fleet_start() {
    local folder=$fleet_files/$1 tries pid

    mkdir -p "$folder"
    : >"$folder.out"
    setpriv --pdeathsig KILL "$fleet_tool" "$folder" "$2" "$folder.qemu" "$folder.guest" "${@:3}" >"$folder.out" 2>"$folder.err" &
    pid=$!
    fleet_pids+=("$pid")
    for tries in {1..600}; do
        ! grep -q ready "$folder.out" || return 0
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    die "the fakes '$1' did not start (after $tries tries): $(tail -n 3 "$folder.err")"
}

# fleet_define NAME COUNT PREFIX: the files of partitions PREFIX0 and up.
fleet_define() {
    local i

    for ((i = 0; i < $2; i++)); do
        printf '[partition]\nqmp = %s\nchannel = %s\n' "$fleet_files/$1/$i.qmp" "$fleet_files/$1/$i.channel" \
            >"$LAB_DIR/partitions.d/$3$i.conf"
    done
}

fleet_ready() { # COUNT
    [[ $(cli -o json list | jq '[.[] | select(.agent_state == "ready" and .state == "running" and .max_bytes > 0)] | length') == "$1" ]]
}

fleet_ready_one() { # NAME
    [[ $(cli -o json show "$1" | jq -r '"\(.agent_state) \(.state) \(.max_bytes > 0)"') == "ready running true" ]]
}

# fleet_await SECONDS WHAT COMMAND...
fleet_await() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        fleet_check
        ((SECONDS < end)) || die "waited in vain for: $what"
        sleep 0.2
    done
}

# None of the fakes saw what it did not expect.
fleet_check() {
    local pid

    for pid in "${fleet_pids[@]}"; do
        kill -0 "$pid" 2>/dev/null || die "a fake has ended: $(cat "$fleet_files"/*.err)"
    done
}

fleet_end() {
    local pid code=0

    for pid in "${fleet_pids[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
        wait "$pid" || code=$?
        ((code == 0)) || die "a fake has failed: $(cat "$fleet_files"/*.err)"
    done
    fleet_pids=()
}

# Sets rss_kib and pss_kib of hvd.
fleet_memory() {
    rss_kib=$(awk '/^Rss:/ { print $2 }' "/proc/$hvd_pid/smaps_rollup")
    pss_kib=$(awk '/^Pss:/ { print $2 }' "/proc/$hvd_pid/smaps_rollup")
}

# Sets cpu_msec: what hvd has used of processors.
fleet_cpu() {
    local stat

    stat=$(<"/proc/$hvd_pid/stat")
    # shellcheck disable=SC2086  # words
    set -- ${stat##*) }
    cpu_msec=$(((${12} + ${13}) * 1000 / $(getconf CLK_TCK)))
}

# fleet_table BENCHMARK: its own rows, as the table that bench prints.
fleet_table() {
    local row value bar unit verdict

    {
        printf '\n%-60s %10s %8s\n' "$1" '' bar
        while IFS='|' read -r row value bar unit verdict; do
            printf '  %-58s %10s %8s %-4s %s\n' "$row" "$value" "$bar" "$unit" "$verdict"
        done < <(jq -r --arg name "$1" 'select(.benchmark == $name)
            | ["\(.group): \(.row)", .value, .bar // "", .unit, .verdict // ""] | join("|")' "$own_rows")
    } >"$work_dir/table-$1"
}

# fleet_row BENCHMARK GROUP ROW VALUE UNIT [BAR [WHY-NONE]]: a figure, and at most so much of it.
fleet_row() {
    own_row "$(jq -n --arg benchmark "$1" --arg group "$2" --arg row "$3" --argjson value "$4" --arg unit "$5" \
        --argjson bar "${6:-null}" --arg none "${7:-}" '
        {benchmark: $benchmark, group: $group, row: $row, kind: "ours", value: $value, bar: $bar, unit: $unit,
         verdict: (if $bar == null then null elif $none != "" then $none elif $value <= $bar then "ok" else "missed" end)}')"
}
