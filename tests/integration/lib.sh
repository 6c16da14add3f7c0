# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The real hvd and hmc-cli on a bus of their own, without a guest; fakes play QEMU and guestd. Sourced after
# `set -euo pipefail`; BUILD is the build folder.
#
# Every process is a child of the test's shell, ended by its id when the test ends, and by the kernel if the shell was
# killed.

set -E # the ERR trap holds in functions too
# shellcheck disable=SC2034,SC2119,SC2120  # some variables are for those who source this; functions have defaults

build=${BUILD:-${BASH_SOURCE[0]%/*}/../../build/dev}
build=$(cd -- "$build" && pwd -P)
work=$(mktemp -d /tmp/odi-XXXXXX)
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
unset NOTIFY_SOCKET WATCHDOG_USEC STATE_DIRECTORY
complaint='' bus_pid='' hvd_pid='' fake_pids=() case_name=''
# A sanitized hvd is slower.
patience=$((10 * (${OPENDLPAR_SANITIZED:-0} ? 3 : 1)))

on_exit() {
    local code=$? pid
    trap - EXIT
    trap '' PIPE # whoever read may be gone
    ((code == 0)) || {
        echo "--- hvd's log, the end:"
        tail -n 40 "$work/hvd.log" 2>/dev/null
        echo "--- FAILED${case_name:+ in: $case_name}: ${complaint:-a command failed}"
    } >&2
    for pid in "${fake_pids[@]}" $hvd_pid $bus_pid; do
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf -- "$work"
    exit "$code"
}
trap on_exit EXIT
trap 'complaint=${complaint:-"${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND"}' ERR
trap 'exit 143' TERM HUP PIPE
trap 'exit 130' INT

fail() {
    complaint=$*
    exit 1
}

begin() {
    case_name=$*
    printf '%3d s  %s\n' "$SECONDS" "$*"
}

assert_equal() { # WHAT EXPECTED SEEN
    [[ $2 == "$3" ]] || fail "$1: expected '$2', saw '$3'"
}

assert_match() { # WHAT REGEX SEEN
    [[ $3 =~ $2 ]] || fail "$1: expected something like '$2', saw '$3'"
}

# await WHAT COMMAND...
await() {
    local end=$((SECONDS + patience)) what=$1
    shift
    until "$@"; do
        ((SECONDS < end)) || fail "waited in vain for: $what"
        sleep 0.05
    done
}

# expect CODES COMMAND...: sets code, out and err.
expect() {
    local codes=$1
    shift
    code=0
    "$@" >"$work/out" 2>"$work/err" || code=$?
    out=$(<"$work/out") err=$(<"$work/err")
    [[ "|$codes|" == *"|$code|"* ]] ||
        fail "'$*': expected exit $codes, saw $code; stdout: '$out'; stderr: '$err'"
}

bus_start() {
    cat >"$work/bus.conf" <<XML
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=$work/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
XML
    setpriv --pdeathsig KILL dbus-daemon --nofork --nopidfile --nosyslog --config-file="$work/bus.conf" 2>"$work/bus.log" &
    bus_pid=$!
    await "the bus" test -S "$work/bus"
}

cli() {
    "$build/hmc-cli/hmc-cli" --bus "unix:path=$work/bus" "$@"
}

# The same for what is asked again and again. To look for leaks at its end takes as long as all the rest of it, and is
# done wherever a test calls cli.
peek() {
    ASAN_OPTIONS=detect_leaks=0 cli "$@"
}

call() { # busctl's arguments
    busctl --address="unix:path=$work/bus" "$@"
}

hvd_answers() {
    kill -0 "$hvd_pid" 2>/dev/null || fail "hvd ended: $(tail -n 3 "$work/hvd.log")"
    peek list >/dev/null 2>&1
}

# hvd_start OPTION...
hvd_start() {
    mkdir -p "$work/etc" "$work/state"
    [[ -e $work/etc/hvd.conf ]] || printf '[libvirt]\nenabled = no\n[hvd]\nlog_level = debug\npool_total = 4T\n' >"$work/etc/hvd.conf"
    : >"$work/hvd.log"
    setpriv --pdeathsig KILL "$build/hvd/hvd" --bus "unix:path=$work/bus" --config "$work/etc/hvd.conf" \
        --state-dir "$work/state" "$@" >>"$work/hvd.log" 2>&1 &
    hvd_pid=$!
    await "hvd on the bus" hvd_answers
}

# hvd_stop [SIGNAL]: in order; its exit code must be 0, and nothing may have gone wrong unseen.
hvd_stop() {
    local code=0
    kill -"${1:-TERM}" "$hvd_pid"
    wait "$hvd_pid" 2>/dev/null || code=$?
    hvd_pid=
    [[ ${1:-TERM} == KILL ]] || assert_equal "exit code of hvd" 0 "$code"
    ! grep -qE 'AddressSanitizer|LeakSanitizer|runtime error:|Assertion .* failed|is not one that a job takes' \
        "$work/hvd.log" || fail "hvd reports: $(grep -E -m 3 'Sanitizer|runtime error|Assertion|not one' "$work/hvd.log")"
}

# fake PROGRAM NAME <script: begins fake-qmp or fake-guest on $work/NAME; sets fake_pid.
fake() {
    cat >"$work/$2.script"
    rm -f -- "$work/$2"
    setpriv --pdeathsig KILL "$build/tests/fakes/$1" "$work/$2" "$work/$2.script" >"$work/$2.out" 2>"$work/$2.err" &
    fake_pid=$!
    fake_pids+=("$fake_pid")
    await "$1" grep -q ready "$work/$2.out"
}

fake_has_ended() {
    ! kill -0 "$1" 2>/dev/null
}

# fake_done PID NAME: its script is done, and nothing was unexpected.
fake_done() {
    local code=0
    await "the end of the script of $2" fake_has_ended "$1"
    wait "$1" || code=$?
    fake_forget "$1"
    assert_equal "exit of the fake $2 ($(tail -n 2 "$work/$2.err"))" 0 "$code"
}

# fake_end PID NAME: a script that serves.
fake_end() {
    local code=0
    kill -TERM "$1" 2>/dev/null || true
    wait "$1" || code=$?
    fake_forget "$1"
    assert_equal "exit of the fake $2 ($(tail -n 2 "$work/$2.err"))" 0 "$code"
}

fake_forget() {
    local pid kept=()
    for pid in "${fake_pids[@]}"; do
        [[ $pid == "$1" ]] || kept+=("$pid")
    done
    fake_pids=("${kept[@]}")
}

partition() { # NAME JQ-FILTER
    peek -o json list | jq -r --arg name "$1" ".[] | select(.name == \$name) | $2"
}

state_is() { # NAME FIELD VALUE
    [[ $(partition "$1" ".$2") == "$3" ]]
}

# await_ready NAME: its QEMU and its guestd are met.
await_ready() {
    await "QEMU" state_is "$1" state running
    await "guestd" state_is "$1" agent_state ready
}

logged() { # REGEX
    grep -qE -- "$1" "$work/hvd.log"
}
