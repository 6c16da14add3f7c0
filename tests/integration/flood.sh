#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Guests and QEMUs that say more than anybody wants to hear: another partition is served meanwhile, hvd's memory stays
# within bounds, and so does what it does for them. How long others wait is scripts/bench flood's business.
# shellcheck disable=SC2119,SC2120  # functions have defaults
set -euo pipefail
# shellcheck source=tests/integration/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=tests/fakes/scripts.sh
. "${BASH_SOURCE[0]%/*}/../fakes/scripts.sh"

# KiB. A sanitizer keeps what was freed: here not for long.
export ASAN_OPTIONS=$ASAN_OPTIONS:quarantine_size_mb=2
growth_max=$((4096 * (${OPENDLPAR_SANITIZED:-0} ? 4 : 1)))

fleet() { # NAME <QEMU's script, a line "---", the guest's
    mkdir -p "$work/$1"
    csplit -s -f "$work/$1/script-" - '/^---$/'
    sed -i 1d "$work/$1/script-01"
    setpriv --pdeathsig KILL "$build/tests/fakes/fake-fleet" "$work/$1" 1 "$work/$1/script-00" "$work/$1/script-01" \
        >"$work/$1.out" 2>"$work/$1.err" &
    fake_pid=$!
    fake_pids+=("$fake_pid")
    await "fake-fleet" grep -q ready "$work/$1.out"
    cli define "$1" --qmp "$work/$1/0.qmp" --channel "$work/$1/0.channel" >/dev/null
}

rss_kib() {
    awk '/^Rss:/ { print $2 }' "/proc/$hvd_pid/smaps_rollup"
}

# What it has read in all; the bus is a part of it.
read_bytes() {
    awk '/^rchar:/ { print $2 }' "/proc/$hvd_pid/io"
}

has_read() { # BYTES
    (($(read_bytes) > $1))
}

# serve COUNT: the other partition is asked, and gets memory and gives it back.
serve() {
    local i

    for ((i = 0; i < $1; i++)); do
        cli show calm >/dev/null
        expect 0 cli add-memory calm 1G --wait 10s
        expect 0 cli remove-memory calm 1G --wait 10s
    done
}

bus_start
printf '[libvirt]\nenabled = no\n[hvd]\nlog_level = warning\npool_total = 4T\n' >"$work/hvd.conf"
mkdir -p "$work/etc"
mv "$work/hvd.conf" "$work/etc/hvd.conf"
hvd_start

begin "a partition at peace"
fleet calm < <(fake_qemu_begin && fake_qemu_rounds 30 && echo serve && echo --- && fake_guest_begin && fake_guest_rounds 30 && echo serve)
calm=$fake_pid
await "its guest" state_is calm agent_state ready
await "its QEMU" state_is calm state running
serve 5
before=$(rss_kib)

for kind in valid stale garbage ost; do
    begin "and one that floods: $kind"
    fleet "$kind" < <(
        fake_qemu_begin
        [[ $kind != ost ]] || fake_qemu_flood 500
        echo serve
        echo ---
        case $kind in
            valid | stale) fake_guest_begin && fake_guest_flood "$kind" 500 ;;
            garbage) fake_guest_garbage 5 ;;
            ost) fake_guest_begin ;;
        esac
        echo serve
    )
    await "its QEMU" state_is "$kind" state running
    serve 5
    grown=$(($(rss_kib) - before))
    ((grown < growth_max)) || fail "hvd's memory has grown by $grown KiB"
    kill -KILL "$fake_pid" || fail "the flood has ended: $(tail -n 2 "$work/$kind.err")"
    wait "$fake_pid" 2>/dev/null || true
    fake_forget "$fake_pid"
    cli undefine "$kind" >/dev/null
done

begin "a guest that floods is read no faster than it may speak"
fleet valid < <(fake_qemu_begin && echo serve && echo --- && fake_guest_begin && fake_guest_flood valid 500 && echo serve)
await "its QEMU" state_is valid state running
# First what it may say at once.
from=$(read_bytes)
await "its fill" has_read $((from + 1024 * 1024))
from=$(read_bytes) begin=${EPOCHREALTIME/./}
sleep 2
rate=$((($(read_bytes) - from) * 1000000 / (${EPOCHREALTIME/./} - begin)))
((rate > 64 * 1024 && rate < 192 * 1024)) || fail "hvd reads $rate bytes a second, not the 131072 of AGENT_BYTES_PER_SEC"

fake_end "$calm" calm
hvd_stop
echo "ok"
