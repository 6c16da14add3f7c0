#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The policy live: three guests under one pool, of which two idle with memory to spare and one takes more than it has,
# without swap; the memory's way back; and a guest that lies in one way and another.
#
# ROUNDS (1) times each: a burst that the pool has the memory for, and one whose memory must come from the others. What
# each took is printed, with PSI's word for it: in STALL_ROUNDS (1) rounds memory runs short without a headroom that is
# used up first, so that it is the kernel's trigger alone that tells. How late memory may be is asserted where LIMIT_MS
# says it (the bar is 1000, beside the donor's removal), as that is a matter of the machine too.
# QUIET_MINUTES: how long nothing may happen while nothing does, rather than a few seconds.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

rounds=${ROUNDS:-1} stall_rounds=${STALL_ROUNDS:-1} limit_ms=${LIMIT_MS:-}
headroom=$((256 * MiB)) quiet=10
runs=() # "KIND MS"

# The base of each, what two have beside it, and what is free.
pool=$((3 * 512 + 2 * 512 + 384))

current() {
    show "$1" | jq .current_bytes
}

# The most changes that a partition has had since job $1.
most_changes() {
    cli -o json jobs | jq "[.[] | select(.id > $1)] | group_by(.partition) | map(length) | max // 0"
}

# watch_memory NAME: writes down "UPTIME TOTAL AVAILABLE STALLED" some twenty times a second, until /run/watch.stop.
watch_memory() {
    guest "$1" 'cat >/run/watch.sh <<"TEXT"
while [ ! -e /run/watch.stop ]; do
    read -r now _ </proc/uptime
    { read -r _ total _; read -r _; read -r _ available _; } </proc/meminfo
    read -r _ _ _ _ stalled </proc/pressure/memory
    echo "$now $total $available ${stalled#total=}"
    sleep 0.05
done >/run/watch.log
TEXT
        rm -f /run/watch.stop
        setsid sh /run/watch.sh </dev/null >/dev/null 2>&1 &'
}

# burst_begin NAME
burst_begin() {
    guest "$1" 'mkdir -p /run/burst && mount -t tmpfs -o size=8G none /run/burst'
}

# burst NAME MIB: so many MiB more are taken, as fast as the guest can, and stay until burst_end. What is left when 80 MiB are
# available is left for 15 s: there must be more by then.
burst() {
    guest "$1" "i=\$(ls /run/burst | wc -l)
        end=\$((i + $2 / 16))
        while [ \$i -lt \$end ]; do
            tries=0
            while [ \$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo) -lt 81920 ]; do
                tries=\$((tries + 1))
                [ \$tries -le 300 ] || exit 2
                sleep 0.05
            done
            dd if=/dev/zero of=/run/burst/\$i bs=1M count=16 2>/dev/null || exit 1
            i=\$((i + 1))
        done"
}

burst_end() {
    guest "$1" 'umount /run/burst'
}

# times NAME: of each growth that the guest saw, "WAIT-FOR-HEADROOM WAIT-FOR-STALLS MIB" in ms and MiB: since less than half
# of the headroom was available, and since 25 ms of stalls fell into half a second; "-" if that had not happened before.
times() {
    guest "$1" 'touch /run/watch.stop; cat /run/watch.log' | awk -v low=$((headroom / 2 / 1024)) '
        function since(then) { return then == "" ? "-" : int(($1 - then) * 1000 + 0.5) }
        NR == 1 { total = $2; stalled = $4; mark = $1 }
        $2 > total { print since(short), since(stall), int(($2 - total) / 1024); short = stall = "" }
        { total = $2 }
        short == "" && $3 < low { short = $1 }
        short != "" && $3 >= low { short = "" }
        stall == "" && $4 - stalled > 25000 { stall = $1 }
        $1 - mark > 0.5 { stalled = $4; mark = $1 }'
}

# took KIND MS [REMOVAL-MS]: a run of the bar's.
took() {
    runs+=("$1 $2")
    [[ -z $limit_ms ]] || assert_at_most "ms to more memory, $1, beside ${3:-0} ms of a removal" $((limit_ms + ${3:-0})) "$2"
}

# growths NAME KIND JOB: each since the watch began, and when the first and the latest came; JOB: the last one before it.
growths() {
    local to_headroom to_stalls size late worst=0 first='' removal_ms=0

    while read -r to_headroom to_stalls size; do
        note "$size MiB more, ${to_headroom} ms after half of the headroom was gone, ${to_stalls} ms after tasks stalled"
        late=$((to_headroom > to_stalls ? to_headroom : to_stalls))
        first=${first:-$late}
        worst=$((late > worst ? late : worst))
    done < <(times "$1" | sed 's/-/0/g')
    [[ $first ]] || fail "$1 got no memory"
    # What the pool has comes at once; what comes behind that may be the others'.
    if [[ $2 == pool ]]; then
        took pool "$first"
        return
    fi
    removal_ms=$(removals_ms "$3")
    ((removal_ms > 0)) || fail "nothing was taken from the others"
    note "the longest removal took $removal_ms ms"
    took others "$worst" "$removal_ms"
}

removals_ms() { # of the removals since job $1, the longest
    cli -o json jobs | jq "[.[] | select(.id > $1 and .kind == \"remove-memory\") | .elapsed_usec // 0] | max | . // 0 | . / 1000 | floor // 0"
}

check_memory_sufficed() { # NAME
    local log
    log=$(guest "$1" dmesg)
    ! grep -qi 'out of memory' <<<"$log" || fail "$1 ran out of memory"
}

last_job() {
    cli -o json jobs | jq '[.[].id] | max // 0'
}

# configure KEY...: [policy]'s, beside those of all.
configure() {
    printf '%s\n' '[hvd]' 'log_level = debug' "pool_total = ${pool}M" 'pool_reserve = 0' '[policy]' 'mode = off' 'period = 1s' \
        'sample = 500ms' "quiet = ${quiet}s" 'step = 2s' 'refusal = 5s' 'cushion = 0' 'host_pressure = 1000' "$@" >"$LAB_DIR/hvd.conf"
}

reconfigure() {
    configure "$@"
    kill -HUP "$(lab hvd pid)"
}

# run_guestd NAME OPTION...: guestd anew. The first one had a keeper, which takes its pid away when it lets it go.
run_guestd() {
    guest "$1" "pid=\$(cat /run/guestd.pid)
        touch /run/guestd.stop
        kill \$pid
        tries=0
        while kill -0 \$pid 2>/dev/null || { [ ! -e /run/guestd.ours ] && [ -e /run/guestd.pid ]; }; do
            tries=\$((tries + 1))
            [ \$tries -lt 300 ] || exit 1
            sleep 0.1
        done
        touch /run/guestd.ours
        setsid guestd ${*:2} </dev/null >>/run/guestd.log 2>&1 &
        echo \$! >/run/guestd.pid"
    await 60 "guestd in $1" agent_is "$1" ready
}

# thrash NAME: what its programs read again and again had room, and has none any more, at once: the page cache goes, and
# tasks stall, while MemAvailable, which counts all of that cache, stays above half of the headroom.
thrash() {
    guest "$1" 'read_all() { dd if=/dev/vda of=/dev/null bs=1M count=240 2>/dev/null; }
        read_all; read_all
        cat >/run/thrash.sh <<"TEXT"
while [ ! -e /run/thrash.stop ]; do dd if=/dev/vda of=/dev/null bs=1M count=240 2>/dev/null; done
TEXT
        rm -f /run/thrash.stop
        setsid sh /run/thrash.sh </dev/null >/dev/null 2>&1 &
        mkdir -p /run/burst && mount -t tmpfs -o size=8G none /run/burst
        available=$(sed -n "s/^MemAvailable: *\([0-9]*\) kB/\1/p" /proc/meminfo)
        dd if=/dev/zero of=/run/burst/0 bs=1M count=$((available / 1024 - 190)) 2>/dev/null'
}

# stalls_ms NAME TOTAL-KIB: from the first firing of guestd's trigger to the first memory above that; empty: not yet.
stalls_ms() {
    guest "$1" 'grep "trigger at" /run/guestd.log | tail -n +'"$((${3:-0} + 1))"' | head -n 1; cat /run/watch.log' |
        awk -v total="$2" '/trigger at/ { stamp = $(NF - 1); next } stamp && $1 > stamp && $2 > total { print int(($1 - stamp) * 1000 + 0.5); exit }'
}

has_grown_by_stalls() {
    late=$(stalls_ms "$@") && [[ $late ]]
}

has_at_most() { # NAME BYTES
    (($(current "$1") <= $2))
}

has_at_least() {
    (($(current "$1") >= $2))
}

idle() {
    [[ $(cli -o json jobs | jq '[.[] | select(.state | IN("DONE", "PARTIAL", "FAILED", "CANCELLED") | not)] | length') == 0 ]]
}

test_begin
lab hvd stop
configure
lab hvd start

step "three guests under a pool of $pool MiB, two with memory to spare"
for name in p1 p2; do
    boot "$name" --memory 512M --max-memory 4G --slots 32
done
# A disk to read from, and no swap.
boot p3 --memory 512M --max-memory 4G --slots 32 --swap 512M
guest p3 'swapoff /dev/vda'
for name in p1 p2; do
    expect 0 cli add-memory "$name" 512M
    expect 0 cli profile "$name" --min 512M --desired 1G --max 2G
done
expect 0 cli profile p3 --min 512M --desired 512M --max 2G
expect 0 cli policy auto

# flow_back: what a burst brought leaves again, and the others have theirs.
flow_back() {
    burst_end p3
    await $((quiet * 6 + 60)) "p3 to give back what it had for the burst" has_at_most p3 $((640 * MiB))
    await $((quiet * 6 + 60)) "p1 to have what it desires" has_at_least p1 $((1024 * MiB))
    await $((quiet * 6 + 60)) "p2 to have what it desires" has_at_least p2 $((1024 * MiB))
    await 30 "the jobs to end" idle
}

for ((round = 1; round <= stall_rounds; round++)); do
    step "stalls, round $round: the kernel's trigger alone tells"
    reconfigure 'horizon = 0'
    run_guestd p3 --log-level debug
    before=$(last_job) total=$(guest p3 'sed -n "s/^MemTotal: *\([0-9]*\) kB/\1/p" /proc/meminfo')
    fired=$(guest p3 'grep -c "trigger at" /run/guestd.log || true')
    watch_memory p3
    thrash p3
    await 60 "memory for the stalls" has_grown_by_stalls p3 "$total" "$fired"
    guest p3 'touch /run/watch.stop /run/thrash.stop'
    await 30 "the jobs to end" idle
    cause=$(cli -o json explain p3 --last 20 | jq -r '[.[] | select(.decision.action == "grow")] | last | .decision.cause')
    assert_equal "the cause of p3's growth" pressure "$cause"
    removal_ms=$(removals_ms "$before")
    note "more memory $late ms after the trigger fired, beside $removal_ms ms of a removal"
    took stalls "$late" "$removal_ms"
    check_memory_sufficed p3
    reconfigure
    flow_back
done

for ((round = 1; round <= rounds; round++)); do
    step "round $round: a burst beyond what p3 has, which the pool has"
    before=$(last_job)
    burst_begin p3
    watch_memory p3
    run burst p3 320
    ((code == 0)) || fail "the burst ended with $code: $err"
    growths p3 pool "$before"
    await 30 "the jobs to end" idle

    step "round $round: and beyond what the pool has"
    before=$(last_job)
    watch_memory p3
    run burst p3 704
    ((code == 0)) || fail "the burst ended with $code: $err"
    growths p3 others "$before"
    note "p1 $(($(current p1) / MiB)) MiB, p2 $(($(current p2) / MiB)) MiB, p3 $(($(current p3) / MiB)) MiB"
    assert_at_least "memory of p3 at the burst's end" $((1280 * MiB)) "$(current p3)"
    check_memory_sufficed p3
    assert_match "why, by explain" 'p3|pool|memory' "$(cli explain p3)"

    step "round $round: it is over, and the memory flows back"
    flow_back
done

step "nothing happens while nothing does"
quiet_seconds=$((${QUIET_MINUTES:-0} > 0 ? QUIET_MINUTES * 60 : 2 * quiet))
sleep $((quiet + 2))
before=$(last_job)
sleep "$quiet_seconds"
most=$(most_changes "$before")
note "in $quiet_seconds quiet seconds at most $most changes of a partition"
assert_at_most "changes of a partition in $quiet_seconds quiet seconds" 1 "$most"

# others_are_served MIB: p3 gets what it needs beside the liar, so many MiB more than the last time, and p1 keeps its own. The
# liar has no more than what it had when it was honest, or its weight's part and a block.
others_are_served() {
    sleep 2
    run burst p3 "$1"
    ((code == 0)) || fail "p3 did not get what it needed beside a liar: $code"
    note "p1 $(($(current p1) / MiB)) MiB, p2 $(($(current p2) / MiB)) MiB, p3 $(($(current p3) / MiB)) MiB; a third of the pool: $((pool / 3))"
    assert_at_least "what p1 keeps" $((512 * MiB)) "$(current p1)"
    assert_at_most "what the liar has" $((had > share ? had : share)) "$(current p2)"
    check_memory_sufficed p3
}

step "a guest that lies: p2 has nothing available and stalls all the time, by its own word"
guest p2 'mkdir -p /run/lie/sys/kernel/random /run/lie/pressure
    cp /proc/sys/kernel/random/boot_id /run/lie/sys/kernel/random/
    cat /proc/zoneinfo >/run/lie/zoneinfo; cat /proc/vmstat >/run/lie/vmstat
    echo distress >/run/lie.kind
    cat >/run/lie.sh <<"TEXT"
n=0
while :; do
    case $(cat /run/lie.kind) in
        distress) n=$((n + 100000)); available=$((n / 100000 % 7)) ;;
        *) n=$((n + RANDOM * 3)); available=$((RANDOM * 32)) ;;
    esac
    sed "s/^MemAvailable:.*/MemAvailable:      $available kB/" /proc/meminfo >/run/lie/meminfo.new
    cat /run/lie/meminfo.new >/run/lie/meminfo
    printf "some avg10=99.00 avg60=99.00 avg300=99.00 total=%d\nfull avg10=99.00 avg60=99.00 avg300=99.00 total=%d\n" $n $n >/run/lie/pressure/memory
    sleep 0.1
done
TEXT
    setsid sh /run/lie.sh </dev/null >/dev/null 2>&1 &
    sleep 0.5'
had=$(current p2) share=$((pool * MiB / 3 + 128 * MiB))
run_guestd p2 --proc-root /run/lie
burst_begin p3
others_are_served 256

step "what it never touched it does not claim: the host sees that"
expect 0 cli -o json explain p2
touched=$(jq '.input.partitions[0].resident_bytes // 0' <<<"$out")
note "p2 has touched $((touched / MiB)) MiB, with its QEMU, and says that it uses all of $(($(current p2) / MiB)) MiB"
assert_at_least "what the host sees that p2 has touched" $((64 * MiB)) "$touched"
assert_at_most "what p2 uses, as the policy sees it" "$touched" "$(jq .decision.used_bytes <<<"$out")"
others_are_served 384
# It wanted its weight's part and more by its own word. What it has it keeps while it lets go of nothing.
expect 0 cli -o json explain p2
assert_at_most "what p2 wants, as the policy sees it" $((touched + headroom + 128 * MiB)) "$(jq .decision.want_bytes <<<"$out")"
assert_at_most "what p2 has after all its claims" $((1024 * MiB)) "$(current p2)"

step "it says anything"
guest p2 'echo random >/run/lie.kind'
others_are_served 64

step "it says nothing"
guest p2 'kill -STOP $(cat /run/guestd.pid)'
others_are_served 64
guest p2 'kill -CONT $(cat /run/guestd.pid)'

step "it floods its channel, and answers what is asked of it with more of that"
guest p2 'kill $(cat /run/guestd.pid)
    cat >/run/flood.sh <<"TEXT"
exec 3<>/dev/vport$(cd /sys/class/virtio-ports && grep -l org.opendlpar.guestd.0 vport*/name | sed "s/vport//; s:/name::")
sample="\"sample\":{\"cause\":\"pressure\",\"total_bytes\":1073741824,\"available_bytes\":0,\"free_bytes\":0,\"movable_bytes\":0,\"movable_free_bytes\":0,\"movable_cache_bytes\":0,\"margin_bytes\":1,\"refault_file_bytes\":0,\"refault_anon_bytes\":0,\"swap_in_bytes\":0,\"swap_out_bytes\":0}"
printf "\377{\"type\":\"hello\",\"version\":1,\"version_min\":1,\"nonce\":\"0123456789abcdef\",\"boot_id\":\"%s\",\"agent\":\"flood\",\"arch\":\"x86_64\",\"block_bytes\":134217728,\"capabilities\":[\"samples\"]}\n" $(cat /proc/sys/kernel/random/boot_id) >&3
while read -r line <&3; do
    case $line in
        *welcome*)
            session=$(echo "$line" | sed "s/.*\"session\":\"\([0-9a-f]*\)\".*/\1/")
            i=0
            while [ $i -lt 200 ]; do
                echo "{\"type\":\"event\",\"session\":\"$session\",\"event\":\"sample\",$sample}"
                i=$((i + 1))
            done >/run/flood.txt
            (while :; do cat /run/flood.txt; done >&3) &
            ;;
        *\"op\":\"sample\"*)
            echo "{\"type\":\"reply\",\"session\":\"$session\",\"id\":$(echo "$line" | sed "s/.*\"id\":\([0-9]*\).*/\1/"),\"op\":\"sample\",$sample}" >&3
            ;;
    esac
done
TEXT
    setsid sh /run/flood.sh </dev/null >/dev/null 2>&1 & echo $! >/run/flood.pid'
others_are_served 64
guest p2 'kill -- -$(cat /run/flood.pid)'
burst_end p3

step "each decision can be explained, and comes out as it did from what is stored of it"
expect 0 cli -o json explain --last 100
n=$(jq length <<<"$out")
assert_equal "decisions without a word, a rule or a figure" 0 \
    "$(jq '[.[] | select(.text == "" or .decision.cause == null or .decision.bound == null or .decision.want_bytes == null)] | length' <<<"$out")"
expect 0 cli -o json explain --id "$(jq '.[0].id' <<<"$out")"
assert_match "the figures it rests on" '"available_bytes"' "$out"
expect 0 "$build_dir/hvd/hvd-sim" -o json --replay "$LAB_DIR/state/hvd.sqlite"
note "the last $n: $out"
assert_at_least "decisions to be explained" 10 "$n"
assert_at_least "decisions that came out the same" "$n" "$(jq .same <<<"$out")"

expect 0 cli policy off
await 60 "the jobs to end" idle
step "from the need to more memory: KIND MS of each run"
for run in "${runs[@]}"; do note "$run"; done
test_end
