#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A PPC64 guest with devices of one LMB and of more: wishes by DRC index that must be refused, then random additions and
# removals, some by index. QEMU, hvd, the guest's kernel and powerpc-utils agree after each. SEED=N repeats a run.
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

operations=16
plugged_max=$((3 * 1024)) # MiB, within 3:1 of 1 GiB, so that all of it is Movable and can leave

# refused CODE JSON-CODE WORDS COMMAND...: as text and as JSON, and nothing changes at either end.
refused() {
    local exit_code=$1 error_code=$2 words=$3
    shift 3
    step "$*"
    expect "$exit_code" cli "$@"
    note "$err"
    assert_match "what is said" "$words" "$err"
    assert_equal "words on stdout" "" "$out"
    expect "$exit_code" cli -o json "$@"
    assert_equal "the code" "$error_code" "$(jq -r .error.code <<<"$out")"
    assert_same "refused, and yet something changed" "$state" "$(snapshot p1)"
    assert_equal "LMBs by lsslot after it" "$drcs" "$(guest_drcs p1)"
}

seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
RANDOM=$seed
test_begin
step "a guest with a slot for two LMBs; SEED=$seed"
boot p1 --arch ppc64le --memory 1G --max-memory 9G --slots 16
expect 0 cli add-memory p1 256M
expect 0 cli add-memory p1 512M
assert_equal "the devices" "[268435456,536870912]" "$(host_devices p1 | jq -c 'map(.size)')"
check_lmbs p1 $((3 * lmb))
state=$(snapshot p1) drcs=$(guest_drcs p1)
assert_equal "the LMBs" "0x80000004 0x80000005 0x80000006" "$(paste -sd ' ' <<<"$drcs")"

# No index at all: nothing is sent to hvd.
refused 2 invalid-argument "has no 0x.*write 0x80000004" remove-memory p1 256M --drc 80000004
for word in 5 0x '' 0x8000000g 0x180000004 -1 '0x80000004 '; do
    refused 2 invalid-argument "is not an index; write 0x and .* hexadecimal" remove-memory p1 256M --drc "$word"
done
# One that hvd must judge.
refused 1 unknown-device 'no LMB 0x80000007; plugged are .*0x80000006' remove-memory p1 256M --drc 0x80000007
refused 1 unknown-device '0x00000004' remove-memory p1 256M --drc 0x4
refused 1 not-plugged 'base memory' remove-memory p1 256M --drc 0x80000003
refused 1 no-exact-fit 'LMB 0x80000006 lies in opendlpar-dimm-1, which has 512M \(LMBs 0x80000005 to 0x80000006\)' \
    remove-memory p1 256M --drc 0x80000006
refused 1 no-exact-fit 'opendlpar-dimm-0.* 256M' remove-memory p1 512M --drc 0x80000004
refused 1 no-exact-fit '256M' remove-memory p1 128M --drc 0x80000004
refused "1|2" invalid-argument 'device' remove-memory p1 256M --drc 0x80000004 --device opendlpar-dimm-0
refused 1 unknown-method 'lmb' remove-memory p1 256M --method dimm

for ((i = 1; i <= operations; i++)); do
    plugged=$(($(host_plugged p1) / MiB))
    size=$(((RANDOM % 6 + 1) * 256))
    option=()
    if ((plugged == 0 || (RANDOM % 2 && plugged + size <= plugged_max))); then
        verb=add-memory
    else
        verb=remove-memory
        ((size <= plugged)) || size=$plugged
        if ((RANDOM % 3 == 0)); then # any LMB, with the size of its device
            devices=$(show p1 .devices)
            drc=$(host_drcs p1 | shuf -n 1 --random-source=<(yes "$RANDOM"))
            size=$(jq --argjson n $((drc)) '.[] | select(.drc_first <= $n and $n <= .drc_last) | .size_bytes / 1048576' <<<"$devices")
            option=(--drc "$drc")
        fi
    fi
    before=$(snapshot p1)
    run cli -o json "$verb" p1 "${size}M" "${option[@]}"
    step "$i: $verb ${size}M ${option[*]} of $plugged MiB: $(jq -r '"\(.state // .error.code) \(.done_bytes // 0 | . / 1048576)"' <<<"$out")"
    case $code in
        0 | 64)
            done_mib=$(jq '.done_bytes / 1048576' <<<"$out")
            [[ $verb == add-memory ]] || done_mib=-$done_mib
            check_lmbs p1 $(((plugged + done_mib) * MiB))
            ((code == 0)) || [[ $verb == remove-memory ]] || fail "an addition was done in part: $out"
            ((${#option[@]} == 0)) || ! grep -qxF "$drc" <<<"$(host_drcs p1)" || fail "LMB $drc is still there"
            ;;
        1)
            # Devices leave whole or not at all, and a slot must be left for what is to come.
            assert_match "why it was refused" 'slot-rule|no-exact-fit' "$out"
            ((${#option[@]} == 0)) || fail "a device by its LMB $drc, with its size: $out"
            assert_same "refused, and yet something changed" "$before" "$(snapshot p1)"
            check_lmbs p1
            ;;
        *) fail "exit $code: $out $err" ;;
    esac
done

step "and all of it leaves"
plugged=$(($(host_plugged p1) / MiB))
((plugged == 0)) || expect 0 cli remove-memory p1 "${plugged}M"
check_lmbs p1 0
test_end
