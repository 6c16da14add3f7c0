#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The real guestd and the real hvd, over a terminal in the place of the port: guestd sees a sysfs and a proc of files, in
# which nothing happens by itself, and a fake plays QEMU. Memory that comes and goes is the lab's.
# shellcheck disable=SC2119,SC2120  # functions have defaults
set -euo pipefail
# shellcheck source=tests/integration/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=tests/fakes/scripts.sh
. "${BASH_SOURCE[0]%/*}/../fakes/scripts.sh"

command -v socat >/dev/null || {
    echo "SKIP: socat is not installed"
    exit 77
}

guestd() {
    "$build/guestd/guestd" "$@"
}

# put PATH TEXT: a file below $work, with its folders.
put() {
    mkdir -p "$work/${1%/*}"
    printf '%s\n' "$2" >"$work/$1"
}

# A guest of 1 GiB in blocks of 128 MiB, all of it from boot.
make_tree() {
    local i memory=sys/devices/system/memory

    put $memory/block_size_bytes 8000000
    put $memory/auto_online_blocks offline
    for ((i = 0; i < 8; i++)); do
        put $memory/memory$i/state online
        put $memory/memory$i/valid_zones Normal
        put $memory/memory$i/node0/none ''
    done
    put sys/devices/system/node/possible 0
    put sys/kernel/rcu_expedited 0
    put proc/meminfo "MemTotal: 1048576 kB
MemFree: 786432 kB
MemAvailable: 819200 kB
SwapTotal: 0 kB
SwapFree: 0 kB"
    put proc/zoneinfo "Node 0, zone   Normal
  pages free     196608
        present  262144"
    put proc/vmstat "workingset_refault_anon 0
workingset_refault_file 0
pswpin 0
pswpout 0"
    # No trigger can be set in it: what guestd writes to it stays there.
    put proc/pressure/memory "some avg10=1.25 avg60=0.00 avg300=0.00 total=12
full avg10=0.00 avg60=0.00 avg300=0.00 total=0"
    put proc/sys/kernel/random/boot_id 11111111-2222-3333-4444-555555555555
}

# port_start: a terminal at $work/port whose other end is QEMU's socket of the channel; sets port_pid.
port_start() {
    rm -f -- "$work/channel" "$work/port"
    setpriv --pdeathsig KILL socat "pty,link=$work/port,rawer" "unix-listen:$work/channel" 2>"$work/socat.log" &
    port_pid=$!
    fake_pids+=("$port_pid")
    await "the port" test -e "$work/port"
}

# guestd_start OPTION...: sets guestd_pid.
guestd_start() {
    setpriv --pdeathsig KILL "$build/guestd/guestd" --port "$work/port" --sys-root "$work/sys" --proc-root "$work/proc" \
        --state-file "$work/settings" --hooks "$work/hooks.d" --log-level debug "$@" >"$work/guestd.log" 2>&1 &
    guestd_pid=$!
    fake_pids+=("$guestd_pid")
}

guestd_stop() {
    local code=0

    kill -TERM "$guestd_pid"
    wait "$guestd_pid" || code=$?
    fake_forget "$guestd_pid"
    assert_equal "exit of guestd ($(tail -n 2 "$work/guestd.log"))" 0 "$code"
    ! grep -qE 'Sanitizer|runtime error:|Assertion' "$work/guestd.log" || fail "guestd reports: $(grep -m 3 -E 'Sanitizer|runtime|Assertion' "$work/guestd.log")"
}

guestd_said() { # REGEX
    grep -qE -- "$1" "$work/guestd.log"
}

begin "command lines of guestd"
expect 0 guestd --help
assert_match "the help" "--margin" "$out"
expect 0 guestd --version
for bad in --bogus word "--margin much" "--hooks-limit 0" "--hooks-limit 5x" "--log-level loud"; do
    # shellcheck disable=SC2086  # words
    expect 2 guestd $bad
    [[ -n $err ]] || fail "guestd $bad says nothing"
done
expect 1 guestd --sys-root "$work/none"
assert_match "what is said" "$work/none" "$err"
mkdir -p "$work/empty"
expect 1 guestd --sys-root "$work/empty" --proc-root "$work/empty"
assert_match "what is said of no memory blocks" "memory blocks" "$err"

begin "without a port guestd waits"
make_tree
guestd_start
await "its word of it" guestd_said "Waiting for port"
guestd_stop

begin "guestd and hvd meet"
bus_start
hvd_start
fake fake-qmp qmp < <(fake_qemu_begin && echo serve)
qmp=$fake_pid
port_start
expect 0 cli define web1 --qmp "$work/qmp" --channel "$work/channel"
guestd_start --margin 16M
await "its guest" state_is web1 agent_state ready
await "its account" state_is web1 total_bytes 1073741824
assert_equal "what the guest says" "134217728 838860800" "$(partition web1 '"\(.block_bytes) \(.available_bytes)"')"
expect 0 cli -o json show web1
assert_equal "its blocks" '[[0,1073741824,"online","kernel"]]' "$(jq -c '[.blocks[] | [.start, .length, .state, .zone]]' <<<"$out")"

begin "its samples come with what it has now"
expect 0 cli policy observe
sed -i 's/^MemAvailable:.*/MemAvailable: 409600 kB/' "$work/proc/meminfo"
await "a sample" state_is web1 available_bytes 419430400

begin "guestd ends, and begins anew"
guestd_stop
put proc/sys/kernel/random/boot_id 99999999-2222-3333-4444-555555555555
guestd_start
await "its next session" logged "guestd .* speaks .*boot 99999999"
await "its guest" state_is web1 agent_state ready

begin "hvd ends, and the port goes"
hvd_stop
kill -TERM "$port_pid" 2>/dev/null || true
wait "$port_pid" 2>/dev/null || true
fake_forget "$port_pid"
guestd_stop
fake_end "$qmp" qmp
echo "ok"
