#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The balloon of a pseries guest, whose pages are larger than the balloon's.
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

actual() {
    qmp g1 query-balloon | jq .actual
}

test_begin
step "a pseries guest of 1 GiB with a balloon"
boot g1 --arch ppc64le --memory 1G --max-memory 4G --slots 8 --balloon
expect 1 cli add-memory g1 256M --method virtio-mem
assert_match "no virtio-mem" 'has no virtio-mem device' "$err"

step "it takes 192 MiB, and gives 64 of them back"
expect 0 cli remove-memory g1 192M --method balloon --wait 2m
assert_equal "what is left by QEMU" $((832 * MiB)) "$(actual)"
assert_equal "what is left by hvd" $((832 * MiB)) "$(show g1 .current_bytes)"
expect 0 cli add-memory g1 64M --method balloon --wait 2m
assert_equal "what is left by QEMU" $((896 * MiB)) "$(actual)"

step "an LMB comes: what was taken stays the same"
expect 0 cli add-memory g1 256M
assert_equal "what is left by QEMU" $((1152 * MiB)) "$(actual)"
assert_equal "taken by hvd" $((128 * MiB)) "$(show g1 .balloon_bytes)"
expect 0 cli remove-memory g1 256M
assert_equal "what is left by QEMU" $((896 * MiB)) "$(actual)"
test_end
