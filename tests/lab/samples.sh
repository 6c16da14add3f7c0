#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A guest's samples, by a real kernel's figures and its own trigger: the test speaks to guestd as hvd would.
# shellcheck disable=SC2016  # some of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

# host_begin: the host's end of the channel, and a session.
host_begin() {
    local hello

    pending=''
    coproc host { exec socat - "UNIX-CONNECT:$LAB_DIR/s1/guestd.sock"; }
    receive_type hello 20
    hello=$message
    assert_match "capabilities of guestd" '"samples"' "$hello"
    session=0011223344556677 last_id=0
    printf '\xff{"type":"welcome","session":"%s","version":1,"nonce":"%s"}\n' \
        "$session" "$(jq -r .nonce <<<"$hello")" >&"${host[1]}"
}

host_end() {
    local pid=${host_PID:?}

    kill "$pid"
    wait "$pid" 2>/dev/null || true
}

# receive_type TYPE SECONDS: sets message, and received_usec.
receive_type() {
    local end=$((SECONDS + $2)) line

    while ((SECONDS < end)); do
        # What a time limit cuts off is the beginning of the next line.
        if ! IFS= read -r -t 1 line <&"${host[0]}"; then
            pending+=$line
            continue
        fi
        received_usec=${EPOCHREALTIME//[.,]/}
        line=$pending$line pending=
        message=${line#$'\xff'}
        [[ $message != *"\"type\":\"$1\""* ]] || return 0
    done
    fail "no $1 came within $2 s"
}

# ask INTERVAL MAX STALL WINDOW HEADROOM: the op `sample`; sets message to the reply.
ask() {
    printf '{"type":"request","session":"%s","id":%d,"op":"sample","interval_msec":%d,"interval_max_msec":%d,"stall_msec":%d,"window_msec":%d,"headroom_bytes":%d}\n' \
        "$session" $((++last_id)) "$@" >&"${host[1]}"
    receive_type reply 10
}

# await_causes SECONDS CAUSE...: samples until there was one for each; sets cause_usec and cause_sample of each.
await_causes() {
    local end=$((SECONDS + $1)) cause left=$(($# - 1))

    shift
    unset cause_usec cause_sample
    declare -gA cause_usec cause_sample
    while ((left > 0)); do
        ((SECONDS < end)) || fail "of samples for $* came only: ${!cause_usec[*]}"
        receive_type event $((end - SECONDS + 1))
        cause=$(sample .cause)
        [[ -z ${cause_usec[$cause]:-} && " $* " == *" $cause "* ]] || continue
        cause_usec[$cause]=$received_usec cause_sample[$cause]=$message
        left=$((left - 1))
    done
}

sample() { # JQ-FILTER
    jq -r ".sample | $1" <<<"$message"
}

switches() {
    guest s1 'awk "/ctxt_switches/ { n += \$2 } END { print n }" /proc/$(cat /run/guestd.pid)/status'
}

need_packages socat
test_begin
step "a guest with swap, and nobody else on its channel"
boot s1 --memory 512M --max-memory 4G --swap 1G
expect 0 cli add-memory s1 256M
lab hvd stop
host_begin

step "what it says is what its kernel says"
ask 0 0 0 1000 0
for field in total:MemTotal free:MemFree available:MemAvailable; do
    value=$(guest s1 "sed -n 's/^${field#*:}: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")
    # Between the two some pages come and go.
    assert_at_most "KiB between ${field#*:} and ${field%:*}_bytes" 8192 \
        $((value - $(sample ".${field%:*}_bytes") / 1024 > 0 ? value - $(sample ".${field%:*}_bytes") / 1024 : $(sample ".${field%:*}_bytes") / 1024 - value))
done
assert_equal "memory in zone Movable" $((256 * MiB)) "$(sample .movable_bytes)"
assert_at_least "of it free" $((200 * MiB)) "$(sample .movable_free_bytes)"
assert_equal "cause" asked "$(sample .cause)"
assert_equal "watched, though nothing was asked for" false "$(sample .pressure.watched)"

step "nothing asked, nothing done"
before=$(switches)
sleep 3
assert_equal "wake-ups of guestd in 3 s" 0 $(($(switches) - before))

step "samples that back off"
ask 500 4000 50 500 0
assert_equal "watched" true "$(sample .pressure.watched)"
asked_usec=$received_usec
for _ in 1 2 3; do
    await_causes 30 periodic
done
# 0.5, 1 and 2 s: a clock of this end cannot see less.
assert_at_least "ms until the third sample" 3400 $(((received_usec - asked_usec) / 1000))

step "memory becomes short: a push for the headroom, and one for the stalls"
ask 1000 4000 25 500 $((128 * MiB))
# Swap makes it stall without an end: more than there is, written to again and again. The guest's own clock says since
# when tasks have stalled.
guest s1 'cat >/run/press.sh <<"TEXT"
mkdir -p /run/press && mount -t tmpfs -o size=900M none /run/press
n=0
while :; do
    dd if=/dev/zero of=/run/press/$((n % 56)) bs=1M count=16 2>/dev/null
    n=$((n + 1))
    sleep 0.1
done
TEXT
    cat >/run/look.sh <<"TEXT"
while ! awk "/^some/ { sub(\"total=\", \"\", \$5); exit !(\$5 - '"$(sample .pressure.some_total_usec)"' > 25000) }" /proc/pressure/memory; do
    sleep 0.02
done
cut -d " " -f 1 /proc/uptime >/run/stalled
TEXT
    setsid sh /run/look.sh </dev/null >/dev/null 2>&1 &
    setsid sh /run/press.sh </dev/null >/dev/null 2>&1 & echo $! >/run/press.pid'
await_causes 120 headroom pressure
pressure_usec=${cause_usec[pressure]} headroom_usec=${cause_usec[headroom]}
# Both clocks are of one machine's time: the guest's is read now, and its reading then taken from it.
late=$(guest s1 'i=0; until [ -s /run/stalled ] || [ $i -ge 100 ]; do sleep 0.1; i=$((i + 1)); done
    awk -v then="$(cat /run/stalled)" "{ print int((\$1 - then) * 1000) }" /proc/uptime')
now_usec=${EPOCHREALTIME//[.,]/}
stalled_usec=$((now_usec - late * 1000))
# The first stalls may be of page cache alone; this goes on until it swaps.
guest s1 'i=0; until grep -q "^pswpout [1-9]" /proc/vmstat || [ $i -ge 300 ]; do sleep 0.1; i=$((i + 1)); done'
ask 1000 4000 25 500 $((128 * MiB))
assert_at_least "bytes swapped out" 1 "$(sample .swap_out_bytes)"
guest s1 'kill -9 -$(cat /run/press.pid); umount -l /run/press'
message=${cause_sample[headroom]}
note "headroom: $(($(sample .available_bytes) / MiB)) MiB available"
assert_at_most "bytes available when the headroom is half gone" $((64 * MiB)) "$(sample .available_bytes)"
message=${cause_sample[pressure]}
note "the push for stalls came $(((pressure_usec - stalled_usec) / 1000)) ms after 25 ms of them could be seen, $(((pressure_usec - headroom_usec) / 1000)) ms behind the other"
assert_at_most "ms from the stalls to their push" 2000 $(((pressure_usec - stalled_usec) / 1000))
assert_at_least "stalled usec by the sample" 25000 "$(sample .pressure.some_total_usec)"

step "the session's end is the samples' end"
host_end
lab hvd start
await 30 "guestd to speak to hvd again" agent_is s1 ready
sleep 2
before=$(switches)
sleep 3
note "wake-ups with hvd in 3 s: $(($(switches) - before))"
test_end
