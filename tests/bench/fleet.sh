# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# One hvd with 1,000 partitions, whose guests each send a sample every 5 s. QEMUs and guests are fakes. Bars: issue 8.
#
# processor  hvd's share of one, over a minute in which nothing else is asked of it: at most 5 %
# memory     hvd's resident set after that: at most 96 MiB
# list       `hmc-cli list`, from the command's beginning to its end, the median: at most 100 ms
# jobs       1 GiB added to each of 100 partitions at once, and taken away again: all of them done

# shellcheck disable=SC2154  # the variables of lib.sh, and those that its functions set

# shellcheck source=tests/bench/lib-fleet.sh
. "$repo_root/tests/bench/lib-fleet.sh"

fleet_count=${BENCH_PARTITIONS:-1000}
fleet_seconds=${BENCH_SECONDS:-60}
fleet_jobs=100
fleet_sample='send {"type":"event","event":"sample","sample":{"cause":"periodic","total_bytes":1073741824,"available_bytes":838860800,"free_bytes":805306368,"movable_bytes":0,"movable_free_bytes":0,"movable_cache_bytes":0,"margin_bytes":33554432,"refault_file_bytes":0,"refault_anon_bytes":0,"swap_in_bytes":0,"swap_out_bytes":0,"pressure":{"some_avg10_centi":0,"full_avg10_centi":0,"some_total_usec":0,"full_total_usec":0,"watched":true}}}'

# note ROW VALUE UNIT [BAR]
note() {
    local none=''

    ((fleet_count >= 1000 && fleet_seconds >= 60)) || none="too few"
    fleet_row fleet "1,000 partitions" "$1" "$2" "$3" "${4:-}" "$none"
}

# Milliseconds since $1, a $EPOCHREALTIME.
since() {
    echo $(((${EPOCHREALTIME/./} - ${1/./}) / 1000))
}

# jobs VERB: on the first partitions at once. Sets jobs_bad, those that did not end as done.
jobs() {
    local i pids=() code
    jobs_bad=0

    for ((i = 0; i < fleet_jobs; i++)); do
        cli -o json "$1" "f$i" 1G >"$fleet_files/job-$i.json" 2>&1 &
        pids+=($!)
    done
    for ((i = 0; i < fleet_jobs; i++)); do
        code=0
        wait "${pids[i]}" || code=$?
        if ((code != 0)) || ! jq -e '(.state | ascii_downcase) == "done" and .done_bytes == 1073741824' "$fleet_files/job-$i.json" >/dev/null; then
            ((jobs_bad++)) || say "fleet: $1 on f$i: exit $code: $(cat "$fleet_files/job-$i.json")"
        fi
    done
}

bench_run() {
    local before i begin usec

    fleet_prepare
    { fake_qemu_begin && fake_qemu_rounds 1 && echo serve; } >"$fleet_files/jobs.qemu"
    { fake_guest_begin && fake_guest_rounds 1 && echo serve; } >"$fleet_files/jobs.guest"
    { fake_qemu_begin && fake_qemu_serve; } >"$fleet_files/others.qemu"
    { fake_guest_begin "on welcome nothing" && fake_guest_serve; } >"$fleet_files/others.guest"
    say "fleet: $fleet_count partitions"
    fleet_start others $((fleet_count - fleet_jobs)) 5000 "$fleet_sample"
    fleet_define others $((fleet_count - fleet_jobs)) g
    begin=$EPOCHREALTIME
    lab hvd start
    hvd_pid=$(lab hvd pid)
    fleet_await 120 "the partitions without jobs" fleet_ready $((fleet_count - fleet_jobs))
    note "from hvd's start until 900 are known" "$(since "$begin")" ms
    # Those with jobs have scripts that begin once only: hvd must have time for them.
    fleet_start jobs "$fleet_jobs" 5000 "$fleet_sample"
    fleet_define jobs "$fleet_jobs" f
    kill -HUP "$hvd_pid"
    fleet_await 60 "$fleet_count partitions" fleet_ready "$fleet_count"
    sleep 5

    say "fleet: at rest for $fleet_seconds s"
    fleet_cpu
    before=$cpu_msec begin=$EPOCHREALTIME
    sleep "$fleet_seconds"
    fleet_cpu
    fleet_memory
    fleet_check
    usec=$((${EPOCHREALTIME/./} - ${begin/./}))
    note "processor, of one" "$(jq -n "($cpu_msec - $before) * 100000 / $usec * 100 | round / 100")" % 5
    note "memory, resident" "$(jq -n "$rss_kib / 102.4 | round / 10")" MiB 96
    note "memory, proportional" "$(jq -n "$pss_kib / 102.4 | round / 10")" MiB

    for i in {1..21}; do
        begin=$EPOCHREALTIME
        cli list >/dev/null
        echo $((${EPOCHREALTIME/./} - ${begin/./}))
    done | sort -n | sed -n 11p >"$fleet_files/list"
    note "list, the median of 21" "$(jq -n "$(<"$fleet_files/list") / 100 | round / 10")" ms 100

    for i in add-memory remove-memory; do
        begin=$EPOCHREALTIME
        jobs $i
        note "$fleet_jobs times $i at once, not done" "$jobs_bad" jobs 0
        note "$fleet_jobs times $i at once" "$(since "$begin")" ms
    done
    fleet_memory
    note "memory behind that, resident" "$(jq -n "$rss_kib / 102.4 | round / 10")" MiB 96
    fleet_end
    fleet_table fleet
}
