#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The policy live: three guests under one pool, of which two idle with memory to spare and one takes more than it has,
# without swap; the memory's way back; and a guest that lies. ROUNDS bursts (1), each at most LIMIT_MS (3000) late: on a
# machine that does nothing else the bar is LIMIT_MS=1000.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

rounds=${ROUNDS:-1} limit_ms=${LIMIT_MS:-3000}
headroom=$((256 * MiB)) quiet=10

# The base of each, what two have beside it, and what is free.
pool=$((3 * 512 + 2 * 512 + 256))

current() {
    show "$1" | jq .current_bytes
}

n_changes() { # jobs so far
    cli -o json jobs | jq length
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

# burst NAME MIB: so many MiB more are taken, as fast as the guest can, and stay until burst_end. What is left when 80 MiB are
# available is left for 15 s: there must be more by then.
burst() {
    guest "$1" "mkdir -p /run/burst && mount -t tmpfs -o size=8G none /run/burst
        i=0
        while [ \$i -lt $(($2 / 16)) ]; do
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

# Each of the growths, and how late the latest was.
tell_times() { # NAME
    local to_headroom to_stalls size worst=0

    while read -r to_headroom to_stalls size; do
        note "$size MiB more, ${to_headroom} ms after half of the headroom was gone, ${to_stalls} ms after tasks stalled"
        [[ $to_headroom == - ]] || ((worst = to_headroom > worst ? to_headroom : worst))
        [[ $to_stalls == - ]] || ((worst = to_stalls > worst ? to_stalls : worst))
    done < <(times "$1")
    worst_ms=$worst
}

removals_ms() { # of the removals since job $1, the longest
    cli -o json jobs | jq "[.[] | select(.id > $1 and .kind == \"remove-memory\") | .elapsed_usec // 0] | max | . // 0 | . / 1000 | floor // 0"
}

last_job() {
    cli -o json jobs | jq '[.[].id] | max // 0'
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
cat >"$LAB_DIR/hvd.conf" <<TEXT
[hvd]
log_level = debug
pool_total = ${pool}M
pool_reserve = 0
[policy]
mode = off
period = 1s
sample = 500ms
quiet = ${quiet}s
step = 2s
refusal = 5s
cushion = 0
host_pressure = 1000
TEXT
lab hvd start

step "three guests under a pool of $pool MiB, two with memory to spare"
for name in p1 p2 p3; do
    boot "$name" --memory 512M --max-memory 4G --slots 32
done
for name in p1 p2; do
    expect 0 cli add-memory "$name" 512M
    expect 0 cli profile "$name" --min 512M --desired 1G --max 2G
done
expect 0 cli profile p3 --min 512M --desired 512M --max 2G
expect 0 cli policy auto

for ((round = 1; round <= rounds; round++)); do
    step "round $round: a burst beyond what p3 has, and beyond what the pool has"
    before=$(last_job)
    watch_memory p3
    run burst p3 1024
    ((code == 0)) || fail "the burst ended with $code: $err"
    tell_times p3
    note "p1 $(($(current p1) / MiB)) MiB, p2 $(($(current p2) / MiB)) MiB, p3 $(($(current p3) / MiB)) MiB"
    removal_ms=$(removals_ms "$before")
    assert_at_least "memory of p3 at the burst's end" $((1280 * MiB)) "$(current p3)"
    assert_at_most "ms from the need to more memory, beside $removal_ms ms of a removal" $((limit_ms + removal_ms)) "$worst_ms"
    ! guest p3 dmesg | grep -qi 'out of memory' || fail "p3 ran out of memory"
    assert_match "why, by explain" 'p3|pool|memory' "$(cli explain p3)"

    step "round $round: it is over, and the memory flows back"
    burst_end p3
    await $((quiet * 6 + 60)) "p3 to give back what it had for the burst" has_at_most p3 $((768 * MiB))
    await $((quiet * 6 + 60)) "p1 to have what it desires" has_at_least p1 $((1024 * MiB))
    await $((quiet * 6 + 60)) "p2 to have what it desires" has_at_least p2 $((1024 * MiB))
    await 30 "the jobs to end" idle
done

step "nothing happens while nothing does"
sleep $((quiet + 2))
before=$(n_changes)
sleep $((2 * quiet))
assert_at_most "changes in $((2 * quiet)) quiet seconds" 3 $(($(n_changes) - before))

step "a guest that lies: p2 has nothing available and stalls all the time, by its own word"
guest p2 'mkdir -p /run/lie/sys/kernel/random /run/lie/pressure
    cp /proc/sys/kernel/random/boot_id /run/lie/sys/kernel/random/
    cat /proc/zoneinfo >/run/lie/zoneinfo; cat /proc/vmstat >/run/lie/vmstat
    cat >/run/lie.sh <<"TEXT"
n=0
while :; do
    n=$((n + 100000))
    sed "s/^MemAvailable:.*/MemAvailable:      $((n / 100000 % 7)) kB/" /proc/meminfo >/run/lie/meminfo.new
    cat /run/lie/meminfo.new >/run/lie/meminfo
    printf "some avg10=99.00 avg60=99.00 avg300=99.00 total=%d\nfull avg10=99.00 avg60=99.00 avg300=99.00 total=%d\n" $n $n >/run/lie/pressure/memory
    sleep 0.1
done
TEXT
    setsid sh /run/lie.sh </dev/null >/dev/null 2>&1 &
    sleep 0.5
    touch /run/guestd.stop
    kill $(cat /run/guestd.pid)
    setsid guestd --proc-root /run/lie </dev/null >>/run/guestd.log 2>&1 &
    echo $! >/run/guestd.pid'
await 60 "the liar to speak" agent_is p2 ready
sleep 5
run burst p3 256
((code == 0)) || fail "p3 did not get what it needed beside a liar: $code"
note "p1 $(($(current p1) / MiB)) MiB, p2 $(($(current p2) / MiB)) MiB, p3 $(($(current p3) / MiB)) MiB; a third of the pool: $((pool / 3))"
# What the others use, and headroom beside it, are theirs; the liar has what nobody else wants.
assert_at_least "what p1 keeps" $((512 * MiB)) "$(current p1)"
assert_at_least "what p3 keeps" $((512 * MiB)) "$(current p3)"
assert_at_most "what the liar has" $(((pool - 2 * 512) * MiB)) "$(current p2)"
! guest p3 dmesg | grep -qi 'out of memory' || fail "p3 ran out of memory"
burst_end p3
expect 0 cli policy off
await 60 "the jobs to end" idle
test_end
