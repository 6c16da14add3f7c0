#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# hvd and guestd are ended as by kill -9 at points of an addition and of a removal, before a real QEMU and a real kernel;
# each is started again, and both ends are whole. A sample by chance, of one of the two (CRASH_SEED repeats it),
# every point with OPENDLPAR_ALL=1. tests/integration/crash.c has every point of hvd before a machine that is played.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

limit=120 # seconds, for ends to be whole
tried=0 fell=0 points=0

hvd_arm() { # AT
    lab hvd stop
    rm -f "$work_dir/points"
    OPENDLPAR_FAULT_AT=$1 OPENDLPAR_FAULT_FROM='job SURVEYING' OPENDLPAR_FAULT_LOG=$work_dir/points lab hvd start
}

hvd_count() {
    wc -l <"$work_dir/points"
}

hvd_where() {
    tail -n 1 "$work_dir/points"
}

hvd_fell() {
    ! lab hvd pid >/dev/null 2>&1
}

hvd_rise() { # AT
    hvd_fell || lab hvd stop
    lab hvd start
}

# How often c1's guestd has greeted. hvd may not have seen yet that one is gone, whose session is the last it knows.
greetings() {
    grep -c "'c1': .* speaks (" "$LAB_DIR/hvd.log" || true
}

has_greeted_since() { # GREETINGS
    (($(greetings) > $1))
}

guestd_arm() { # AT
    local before
    before=$(greetings)
    guest c1 "rm -f /run/points
        echo 'export OPENDLPAR_FAULT_AT=$1 OPENDLPAR_FAULT_FROM=\"request $guest_op\" OPENDLPAR_FAULT_LOG=/run/points' >/run/guestd.env
        kill \$(cat /run/guestd.pid)
        while [ -e /run/guestd.env ]; do sleep 0.1; done"
    await $limit "the guestd that falls" has_greeted_since "$before"
}

guestd_count() {
    guest c1 'wc -l </run/points'
}

guestd_where() {
    guest c1 'tail -n 1 /run/points'
}

guestd_fell() { # AT
    [[ $(guest c1 'tail -n 1 /run/points | cut -d " " -f 1') == "$1" ]]
}

# Its keeper starts it again at once.
guestd_rise() { # AT
    guestd_fell "$1" || guest c1 'old=$(cat /run/guestd.pid)
        kill "$old"
        while [ "$(cat /run/guestd.pid 2>/dev/null)" = "$old" ]; do sleep 0.1; done'
    await $limit "the guestd after it" has_greeted_since "$greeted"
}

# Each begins with what it needs: an addition with nothing plugged, a removal with 1 GiB.
make_ready() { # VERB
    local plugged
    plugged=$(host_plugged c1)
    if [[ $1 == add-memory ]] && ((plugged > 0)); then
        expect 0 cli remove-memory c1 $((plugged / MiB))M
    elif [[ $1 == remove-memory ]] && ((plugged < GiB)); then
        expect 0 cli add-memory c1 $(((GiB - plugged) / MiB))M
    fi
    check_accounts c1
}

fell_or_ended() { # WHO AT
    "$1_fell" "$2" || job_ended "$job_id" 2>/dev/null
}

# An hvd may fall before it has answered.
begin_job() { # WHO VERB
    local answer code=0
    job_id=''
    answer=$(cli -o json "$2" c1 1G --no-wait) || code=$?
    if ((code == 0)); then
        job_id=$(jq .id <<<"$answer")
    else
        [[ $1 == hvd && $code == 3 ]] || fail "'$2' was not taken: $answer"
    fi
}

# crash WHO VERB AT: 0 runs through.
crash() {
    local before greeted
    make_ready "$2"
    "$1_arm" "$3"
    await $limit "guestd" agent_is c1 ready
    await $limit "the accounts" hvd_plugged_is c1 "$(host_plugged c1)"
    before=$(host_plugged c1) greeted=$(greetings)
    begin_job "$1" "$2"
    await $limit "the end at a point, or of the job" fell_or_ended "$1" "$3"
    if (($3 > 0)); then
        if "$1_fell" "$3"; then
            note "$1 fell at $("$1_where")"
            fell=$((fell + 1))
        else
            note "$1 did not come to $3"
        fi
        # One that did not meet its point would meet it later.
        "$1_rise" "$3"
    fi
    await $limit "guestd" agent_is c1 ready
    accounts_settle c1 $limit
    [[ -n $job_id ]] || job_id=$(peek -o json jobs | jq 'map(select(.kind != "restore-memory").id) | max // empty')
    await $limit "the job's end" job_ended "$job_id"
    [[ $1 != hvd ]] || check_done "$before" "$(host_plugged c1)"
}

# An hvd that was started again says of the job before it what really moved.
check_done() { # BEFORE AFTER
    local moved=$(($2 > $1 ? $2 - $1 : $1 - $2)) said
    said=$(job "$job_id" .done_bytes)
    [[ $said == "$moved" ]] || fail "$moved bytes moved, and the job says $said: $(job "$job_id")"
}

crash_some() { # WHO VERB
    local n at order
    step "$1, $2: how many points there are"
    crash "$1" "$2" 0
    n=$("$1_count")
    ((n > 4)) || fail "only $n points: was this built with OPENDLPAR_FAULTS?"
    points=$((points + n))
    order=$(seq 1 "$n" | shuf --random-source=<(yes "$seed"))
    ((${OPENDLPAR_ALL:-0})) || order=$(head -n 1 <<<"$order")
    for at in $order; do
        step "$1, $2: at $at of $n"
        crash "$1" "$2" "$at"
        tried=$((tried + 1))
    done
}

seed=${CRASH_SEED:-$RANDOM}
test_begin
step "a guest of 2 GiB; CRASH_SEED=$seed"
boot c1 --memory 2G --max-memory 8G --slots 16
programs=(guestd hvd)
((${OPENDLPAR_ALL:-0})) || programs=("${programs[seed % 2]}")
for who in "${programs[@]}"; do
    guest_op=prepare
    crash_some "$who" add-memory
    guest_op=offline
    crash_some "$who" remove-memory
done
((fell > 0)) || fail "nothing fell at any point"
note "$points points, $tried of them tried, $fell came to, whole again after each"
test_end
