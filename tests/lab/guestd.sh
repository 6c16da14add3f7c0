#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# guestd itself: small, quiet, and not to be drowned; and hvd before a guest that is hostile.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

guestd_pid() {
    guest c1 'cat /run/guestd.pid'
}

# How often guestd was put on a processor. Its children are not counted.
switches() {
    guest c1 'awk "/ctxt_switches/ { n += \$2 } END { print n }" /proc/$(cat /run/guestd.pid)/status'
}

check_idle() { # WHEN SECONDS
    local before after
    sleep 1
    before=$(switches)
    sleep "$2"
    after=$(switches)
    note "$1: $before -> $after context switches in $2 s"
    assert_equal "wake-ups of guestd in $2 s, $1" 0 $((after - before))
}

# flood SECONDS COMMAND...: its output goes into the channel from the host's side, as far as the guest takes it.
flood() {
    local seconds=$1
    shift
    "$@" 2>/dev/null | timeout "$seconds" socat -u - "UNIX-CONNECT:$LAB_DIR/c1/guestd.sock" || true
}

# hostile SECONDS SHELL-TEXT: runs in the guest with the port as its output, until it ends or time is up.
hostile() {
    guest c1 "cat >/run/hostile.sh <<'TEXT'
exec 3>/dev/\$(grep -l org.opendlpar.guestd.0 /sys/class/virtio-ports/*/name | cut -d / -f 5) || exit
$2
TEXT
        setsid sh /run/hostile.sh </dev/null >/dev/null 2>/run/hostile.err & pid=\$!
        i=0
        while kill -0 \$pid 2>/dev/null && [ \$i -lt $(($1 * 5)) ]; do sleep 0.2; i=\$((i + 1)); done
        kill -9 -\$pid 2>/dev/null
        ! grep . /run/hostile.err" || fail "the hostile program cannot do its work"
}

hvd_cpu() { # clock ticks
    awk '{ print $14 + $15 }' "/proc/$(lab hvd pid)/stat"
}

need_packages socat
test_begin
hvd_pid=$(lab hvd pid)
step "a guest"
boot c1 --memory 1G --max-memory 16G
pid=$(guestd_pid)

step "guestd is small"
expect 0 cli add-memory c1 1G
expect 0 cli remove-memory c1 1G
# With the child that waits for work.
pss=$(guest c1 "for p in $pid \$(cat /proc/$pid/task/$pid/children); do cat /proc/\$p/smaps_rollup; done |
    awk '/^Pss:/ { n += \$2 } END { print n }'")
children=$(guest c1 "wc -w </proc/$pid/task/$pid/children")
locked=$(guest c1 "sed -n 's/^VmLck:[^0-9]*\([0-9]*\).*/\1/p' /proc/$pid/status")
note "PSS $pss KiB with $children child, locked $locked KiB"
assert_equal "children of guestd" 1 "$children"
if ((!sanitized)); then
    assert_at_most "PSS of guestd, KiB" 4096 "$pss"
    assert_at_least "locked memory of guestd, KiB" 1 "$locked"
fi

step "it sleeps while nothing happens, with hvd there and without"
# The policy asks guests for samples, also where it only observes.
expect 0 cli policy off
check_idle "with hvd" 10
lab hvd stop
check_idle "without hvd" 10

step "a flood while hvd is away: 20 MB of noise, a line without end, zeros"
flood 20 head -c 20000000 /dev/urandom
flood 5 sh -c 'tr "\0" x </dev/zero | head -c 5000000'
flood 5 head -c 5000000 /dev/zero
flood 5 sh -c 'yes "{\"type\":\"welcome\"}" | head -n 20000'
assert_equal "pid of guestd after the flood" "$pid" "$(guestd_pid)"
check_idle "after the flood, without hvd" 5
lab hvd start
hvd_pid=$(lab hvd pid)
await 15 "a session after the flood" agent_is c1 ready
expect 0 cli add-memory c1 512M
check_accounts c1 $((512 * MiB))

step "hvd comes and goes five times"
for _ in 1 2 3 4 5; do
    lab hvd kill
    lab hvd start
    await 15 "a session with the new hvd" agent_is c1 ready
done
hvd_pid=$(lab hvd pid)
assert_equal "pid of guestd" "$pid" "$(guestd_pid)"
check_accounts c1 $((512 * MiB))

step "a hostile guest: lines that are none"
before=$(snapshot c1 | jq -c 'del(.hvd)')
guest c1 'touch /run/guestd.stop; kill "$(cat /run/guestd.pid)"; sleep 1'
hostile 5 'yes garbage | head -n 500 >&3'
await 10 "hvd's verdict" agent_is c1 misbehaving
expect 1 cli -o json add-memory c1 512M --wait 2s
assert_match "the reason" 'agent-(misbehaved|absent|silent)' "$out"

step "a hostile guest: noise, zeros, a line of 5 MB, words without a session"
hostile 4 'head -c 2000000 /dev/urandom >&3'
hostile 4 'head -c 2000000 /dev/zero >&3'
hostile 4 'tr "\0" x </dev/zero | head -c 5000000 >&3'
hostile 4 'yes "{\"type\":\"reply\",\"session\":\"00112233445566ff\",\"id\":1,\"op\":\"get-state\"}" | head -n 2000 >&3'
assert_equal "pid of hvd" "$hvd_pid" "$(lab hvd pid)"

step "a hostile guest: greetings without end"
# All the time, as hvd shuns the port for the garbage of before, and QEMU drops what waits in a port that is closed. Ten
# greetings are heard, then it is shunned again: with all of that in the time that is measured.
hello='{"type":"hello","version":1,"version_min":1,"nonce":"00112233445566ff","boot_id":"11111111-1111-1111-1111-111111111111","agent":"evil","arch":"x86_64","block_bytes":134217728}'
ticks=$(hvd_cpu)
hostile 25 "yes '$hello' >&3" &
greeter=$!
await 25 "hvd to hear a greeting" grep -q 'evil speaks' "$LAB_DIR/hvd.log"
assert_equal "pid of hvd" "$hvd_pid" "$(lab hvd pid)"
expect 0 cli list
wait "$greeter"
ticks=$(($(hvd_cpu) - ticks))
note "hvd took $ticks clock ticks"
assert_at_most "clock ticks of hvd in 25 s beside a hostile guest" 250 "$ticks"

step "a hostile guest: a good greeting, then lies, then silence"
hostile 14 "printf '\\377%s\\n' '$hello' >&3; sleep 12; yes '{}' | head -n 20 >&3; sleep 1"
expect 0 cli list
note "hvd calls it $(cli -o json list | jq -r '.[0].agent_state')"
expect 1 cli add-memory c1 512M --wait 2s
note "$out$err"
assert_equal "pid of hvd" "$hvd_pid" "$(lab hvd pid)"
assert_same "QEMU or the guest changed by that" "$before" "$(snapshot c1 | jq -c 'del(.hvd)')"

step "the true guestd comes back, and is believed again"
guest c1 'rm /run/guestd.stop'
await 30 "a session with guestd" agent_is c1 ready
accounts_settle c1 10 $((512 * MiB))
expect 0 cli remove-memory c1 512M
check_accounts c1 0
test_end
