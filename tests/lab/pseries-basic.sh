#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A PPC64 guest: what it is made of, and memory that comes and leaves in LMBs, by QEMU's account, the guest's, hvd's, and
# that of IBM's own tools in the guest (powerpc-utils). An x86-64 guest of the same lab is not disturbed.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

test_begin
step "sizes that a pseries guest cannot have"
expect 2 lab guest p0 --arch ppc64le --memory 1000M
assert_match "the reason" '--memory: .* 256M' "$err"
expect 2 lab guest p0 --arch ppc64le --max-memory 16500M
expect 2 lab guest p0 --arch ppc64le --slots 33
expect 2 lab guest p0 --arch ppc64le --virtio-mem 1G
expect 2 lab guest p0 --arch ppc64

step "a PPC64 guest of 1 GiB that can have 16"
boot p1 --arch ppc64le --memory 1G --max-memory 16G
assert_equal "its architecture" ppc64le "$(guest p1 'uname -m')"
assert_equal "its block size" "$lmb" $((16#$(guest p1 'cat /sys/devices/system/memory/block_size_bytes')))
assert_equal "its block size and architecture by hvd" "$lmb ppc64" "$(show p1 '[.block_bytes, .architecture] | join(" ")' | jq -r .)"
assert_equal "how commands end" 7 "$(lab exec p1 -- sh -c 'exit 7' || echo $?)"
assert_equal "QEMU's state" true "$(qmp p1 query-status | jq .running)"
assert_match "LMB size by lsslot" 'LMB size 0x10000000' "$(guest p1 'lsslot -c mem')"
start=$(guest_account p1)
start_backends=$(host_backends p1)
check_lmbs p1 0

step "an x86-64 guest beside it"
boot g1 --memory 1G --max-memory 4G
assert_equal "its architecture" x86_64 "$(guest g1 'uname -m')"
assert_equal "the guests" "g1 p1" "$(lab list | paste -sd ' ')"

step "1 GiB comes, in 4 LMBs"
expect 0 lab cli add-memory p1 1G
assert_match "the line about it" '^p1: added 1 GiB in [0-9.]+ s, all in zone Movable; now 2 GiB of 16 GiB$' "$out"
assert_equal "words on stderr" "" "$err"
check_lmbs p1 "$GiB"
now=$(guest_account p1)
assert_equal "blocks in Movable" 4 "$(jq .movable <<<"$now")"
assert_equal "blocks elsewhere" "$(jq .kernel+.stuck <<<"$start")" "$(jq .kernel+.stuck <<<"$now")"
assert_at_least "growth of MemTotal, KiB (0.98 GiB)" 1027604 $(($(jq .total_kib <<<"$now") - $(jq .total_kib <<<"$start")))

step "the guest uses it: a file of 1000 MiB in memory"
fill p1 1000
unfill p1

step "1 GiB leaves"
expect 0 lab cli remove-memory p1 1G
assert_match "the line about it" '^p1: removed 1 GiB in [0-9.]+ s; now 1 GiB of 16 GiB$' "$out"
check_lmbs p1 0
assert_equal "backends as at first" "$start_backends" "$(host_backends p1)"
assert_equal "the guest's blocks as at first" "$(jq .blocks <<<"$start")" "$(guest_account p1 | jq .blocks)"
assert_equal "MemTotal as at first" "$(jq .total_kib <<<"$start")" "$(guest_account p1 | jq .total_kib)"

step "bit by bit: three times 256 MiB come, one leaves, then the rest"
for _ in 1 2 3; do
    expect 0 cli add-memory p1 256M
done
check_lmbs p1 $((3 * lmb))
expect 0 cli remove-memory p1 256M
check_lmbs p1 $((2 * lmb))
expect 0 cli remove-memory p1 512M
check_lmbs p1 0

step "less than an LMB is no size for this guest"
before=$(snapshot p1)
expect 1 cli add-memory p1 128M
assert_match "the reason" 'block size, 256M' "$out$err"
assert_same "a refused addition changed something" "$before" "$(snapshot p1)"

step "guestd is small"
pss=$(guest p1 'p=$(cat /run/guestd.pid); for p in $p $(cat /proc/$p/task/$p/children); do cat /proc/$p/smaps_rollup; done |
    awk "/^Pss:/ { n += \$2 } END { print n }"')
note "PSS $pss KiB with its child"
((sanitized)) || assert_at_most "PSS of guestd and its child, KiB" 4096 "$pss"

step "both guests at once"
start_job add-memory p1 2G
expect 0 cli add-memory g1 512M
await_job "$job_id" 30
assert_equal "how p1's addition ended" DONE "$job_state"
check_lmbs p1 $((2 * GiB))
check_accounts g1 $((512 * MiB))

step "one guest ends, the other stays"
lab stop p1
assert_equal "the guests" g1 "$(lab list)"
expect 0 cli remove-memory g1 512M
check_accounts g1 0
test_end
