#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What nobody should ask for: each wish is refused with words that help, and changes nothing at either end.
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

# refused CODES WORDS COMMAND...: exit code and a regular expression for what is said, as text and as JSON.
refused() {
    local codes=$1 words=$2
    shift 2
    step "$*"
    expect "$codes" cli "$@"
    note "$out$err"
    assert_match "what is said" "$words" "$out$err"
    expect "$codes" cli -o json "$@"
    jq -e . <<<"$out" >/dev/null || fail "not JSON: $out"
    assert_same "refused, and yet something changed" "$state" "$(snapshot b1)"
}

# offered TEXT: the sizes that a message asks for, in MiB.
offered() {
    grep -oE '[0-9]+(\.[0-9]+)? ?[MG](iB)?\b' <<<"${1##*ask for}" | awk '
        { unit = /G/ ? 1024 : 1; sub(/ ?[MG].*/, ""); print $0 * unit }' | sort -nu
}

test_begin
step "a guest with 1 GiB plugged"
boot b1 --memory 1G --max-memory 8G --slots 8
expect 0 cli add-memory b1 1G
state=$(snapshot b1)

# Sizes that are none: nothing is sent.
for verb in add-memory remove-memory; do
    refused 2 'unit|512M' "$verb" b1 512
    refused 2 'zero|[0-9]+M' "$verb" b1 0M
    refused 2 '.' "$verb" b1 -1G
    refused 2 '.' "$verb" b1 -- -1G
    refused 2 '.' "$verb" b1 1.5G
    refused 2 '.' "$verb" b1 ''
    refused 2 '.' "$verb" b1 99999999T
    refused 2 '.' "$verb" b1 99999999999999999999999M
    refused 2 '.' "$verb" b1 1Q
    refused 2 '.' "$verb" b1 '1G;reboot'
done
refused 2 '.' add-memory b1
refused 2 '.' add-memory b1 1G 2G
refused 2 'auto, movable' add-memory b1 1G --zone normal
refused 2 '.' add-memory b1 1G --wait never
refused 2 '.' add-memory b1 1G --wait 0
refused 2 '.' add-memory b1 1G --wait 1s --no-wait
refused 2 '.' add-memory b1 1G --bogus
refused 2 '.' add-memory b1 1G --node -1
refused 2 '.' frobnicate b1

# What only hvd can judge.
refused 1 '128' add-memory b1 100M
refused 1 '128' add-memory b1 1M
refused 1 '[Bb]eyond|max|GiB' add-memory b1 8G
refused 1 '.' add-memory b1 1000T
refused "1|2" 'auto|dimm' add-memory b1 1G --method magic
refused 1 'no virtio-mem device' add-memory b1 1G --method virtio-mem
refused 1 'has no balloon' remove-memory b1 1G --method balloon
refused 1 'node|Node' add-memory b1 1G --node 7
refused 1 'nowhere' add-memory nowhere 1G
refused 1 'nowhere' remove-memory nowhere 1G
refused 1 'nowhere' show nowhere
refused 1 'nowhere' undefine nowhere
refused 1 '.' add-memory '../b1' 1G
refused 1 'b1' define b1 --qmp /tmp/other.sock --channel /tmp/another.sock
refused "1|2" '.' define 'a b' --qmp /tmp/a.sock --channel /tmp/b.sock
refused "1|2" '.' define b2 --qmp /tmp/a.sock --channel /tmp/a.sock
refused 1 '1 GiB|plugged' remove-memory b1 2G
refused 1 '.' remove-memory b1 100M
refused 1 '1 GiB|1G' remove-memory b1 512M --device "$(host_devices b1 | jq -r '.[0].id')"
refused 1 "$(host_devices b1 | jq -r '.[0].id')" remove-memory b1 1G --device nothing
refused 1 'Movable|movable|kernel' add-memory b1 6G --zone movable

step "the sizes that a refusal for alignment names are those around"
expect 1 cli add-memory b1 200M
note "$err"
assert_equal "sizes offered for 200M" "128 256" "$(offered "$err" | xargs)"

step "a refusal by the slot rule names a size that works then"
# 8 slots for 7 GiB: small devices would leave no slots for the rest.
slot_rule_seen=
for ((i = 0; i < 8; i++)); do
    state=$(snapshot b1)
    run cli -o json add-memory b1 128M
    if ((code == 1)); then
        message=$(jq -r '.error.message // .reasons[0].message' <<<"$out")
        note "$message"
        assert_match "the code" 'slot-rule' "$out"
        assert_same "refused, and yet something changed" "$state" "$(snapshot b1)"
        slot_rule_seen=yes
        break
    fi
done
[[ -n $slot_rule_seen ]] || fail "eight small devices were taken: $(host_devices b1)"
worked=
for size in $(offered "$message"); do
    expect 0 cli -o json add-memory b1 "${size}M" --dry-run
    worked=$size
done
[[ -n $worked ]] || fail "no size is offered in: $message"
rest=$(show b1 '.max_bytes - .current_bytes')
expect 0 cli add-memory b1 "${worked}M"
check_accounts b1
((worked * MiB == rest)) || expect 0 cli add-memory b1 $(((rest - worked * MiB) / MiB))M
assert_equal "current" $((8 * GiB)) "$(show b1 .current_bytes)"
state=$(snapshot b1)
refused 1 'max|8 GiB' add-memory b1 128M
lab stop b1

step "a guest without memory hotplug"
boot b1 --memory 1G --slots 0
state=$(snapshot b1)
refused 1 'maxmem|hotplug|max-memory' add-memory b1 1G
refused 1 'base|plugged' remove-memory b1 512M
lab stop b1

step "a guest with nothing plugged: its base memory stays"
boot b1 --memory 1G --max-memory 4G
state=$(snapshot b1)
refused 1 'base|plugged' remove-memory b1 512M
refused 1 'base|plugged' remove-memory b1 1G
refused 1 '.' remove-memory b1 1G --device pc.ram
test_end
