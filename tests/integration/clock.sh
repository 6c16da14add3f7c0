#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The clock of the host is set while hvd works: deadlines hold, what is told of a job adds up, and what is stored is found
# again. It is hvd that has that clock: tests/fakes/clock.c.
# shellcheck disable=SC2119  # functions have defaults
set -euo pipefail
# shellcheck source=tests/integration/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=tests/fakes/scripts.sh
. "${BASH_SOURCE[0]%/*}/../fakes/scripts.sh"

day=86400

set_clock() { # SECONDS: as many later or earlier than it is
    printf '%+d\n' "$1" >"$work/clock.new"
    mv "$work/clock.new" "$work/clock"
}

start() {
    LD_PRELOAD=$build/tests/fakes/libclock.so OPENDLPAR_CLOCK=$work/clock hvd_start
}

# set_in_a_job SECONDS: an addition whose guest does not answer, with a deadline of 4 s.
set_in_a_job() {
    local begun=$SECONDS job

    cli -o json add-memory p1 1G --wait 4s >"$work/answer" &
    job=$!
    await "the job" runs
    set_clock "$1"
    wait "$job" && fail "the addition went well, with a guest that does not answer"
    out=$(<"$work/answer")
    ((SECONDS - begun >= 3 && SECONDS - begun <= 4 + patience)) || fail "a deadline of 4 s came after $((SECONDS - begun)) s"
    assert_match "the reason" 'agent-silent|deadline' "$out"
    assert_equal "the time that the job took is the machine's" true \
        "$(jq --argjson more "$patience" '.elapsed_usec / 1000000 | . >= 3 and . <= 4 + $more' <<<"$out")"
}

runs() {
    [[ $(peek -o json jobs | jq '[.[] | select(.state == "PLUGGING")] | length') == 1 ]]
}

set_clock 0
bus_start
start
# The backend is made while the guest prepares.
qemu() {
    fake_qemu_begin
    printf '%s\n' 'on object-add reply' 'on object-del reply' serve
}
fake fake-qmp qmp < <(qemu && qemu)
qmp=$fake_pid
fake fake-guest channel <<'S'
begin
on get-state reply
on get-blocks reply
on prepare nothing
on cancel reply
on release reply
serve
begin
serve
S
guest=$fake_pid
cli define p1 --qmp "$work/qmp" --channel "$work/channel" >/dev/null
await_ready p1

begin "it goes a day forwards in the middle of a job"
set_in_a_job $day
created=$(jq .created_usec <<<"$out")

begin "and three days back, in the middle of another"
set_in_a_job $((-2 * day))
assert_equal "the two are a day apart by the clock that they were made by, which is hvd's" true \
    "$(jq --argjson before "$created" '(.created_usec - $before) / 1000000 / 3600 | . > 23 and . < 25' <<<"$out")"
last=$(jq .id <<<"$out")

begin "hvd begins anew in that past, and goes on where it was"
hvd_stop
start
await_ready p1
set_in_a_job $((-400 * day))
assert_equal "the next job" $((last + 1)) "$(jq .id <<<"$out")"
expect 0 cli show p1

cli undefine p1 >/dev/null
fake_end "$guest" channel
fake_end "$qmp" qmp
hvd_stop
echo "ok"
