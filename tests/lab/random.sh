#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# 50 random additions and removals: the accounts agree after each, nobody grows, and max can be reached.
# SEED=N repeats a run.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

operations=50
warm_up=10
plugged_max=$((6 * 1024)) # MiB, within 3:1 of 2 GiB, so that all of it is Movable and can leave

hvd_rss() {
    awk '/^VmRSS/ { print $2 }' "/proc/$(lab hvd pid)/status"
}

guestd_rss() {
    guest n1 'sed -n "s/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p" "/proc/$(cat /run/guestd.pid)/status"'
}

seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
RANDOM=$seed
test_begin
step "a guest of 2 GiB; SEED=$seed"
boot n1 --memory 2G --max-memory 16G --slots 32

refused=0
for ((i = 1; i <= operations; i++)); do
    plugged=$(($(host_plugged n1) / MiB))
    size=$(((RANDOM % 16 + 1) * 128))
    if ((plugged == 0 || (RANDOM % 2 && plugged + size <= plugged_max))); then
        verb=add-memory
    else
        verb=remove-memory
        ((size <= plugged)) || size=$plugged
    fi
    before=$(snapshot n1)
    run cli -o json "$verb" n1 "${size}M"
    step "$i: $verb ${size}M of $plugged MiB: $(jq -r '"\(.state // .error.code) \(.done_bytes // 0 | . / 1048576)"' <<<"$out")"
    case $code in
        0 | 64)
            done_mib=$(jq '.done_bytes / 1048576' <<<"$out")
            [[ $verb == add-memory ]] || done_mib=-$done_mib
            check_accounts n1 $(((plugged + done_mib) * MiB))
            ((code == 0)) || [[ $verb == remove-memory ]] || fail "an addition was done in part: $out"
            ;;
        1)
            # DIMMs leave whole or not at all, and a slot must be left for what is to come.
            assert_match "why it was refused" 'slot-rule|no-exact-fit|unaligned-size' "$out"
            assert_same "refused, and yet something changed" "$before" "$(snapshot n1)"
            check_accounts n1
            refused=$((refused + 1))
            ;;
        *) fail "exit $code: $out $err" ;;
    esac
    if ((i == warm_up)); then
        hvd_warm=$(hvd_rss) guestd_warm=$(guestd_rss)
    fi
done
note "refused: $refused of $operations"
assert_at_most "refused operations" $((operations / 2)) "$refused"

step "nobody grew"
hvd_end=$(hvd_rss) guestd_end=$(guestd_rss)
note "VmRSS of hvd $hvd_warm -> $hvd_end KiB, of guestd $guestd_warm -> $guestd_end KiB"
if ((!sanitized)); then
    assert_at_most "growth of hvd, KiB" 1024 $((hvd_end - hvd_warm))
    assert_at_most "growth of guestd, KiB" 256 $((guestd_end - guestd_warm))
fi

step "all the rest up to max, in one"
rest=$(($(show n1 '.max_bytes - .current_bytes') / MiB))
expect 0 cli -o json add-memory n1 "${rest}M"
note "$(jq -r '"\(.kernel_bytes / 1048576) MiB for the kernel, \(.movable_bytes / 1048576) MiB Movable"' <<<"$out")"
check_accounts n1 $((14 * GiB))
assert_equal "current" $((16 * GiB)) "$(show n1 .current_bytes)"
test_end
