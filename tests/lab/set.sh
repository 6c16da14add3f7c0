#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A guest of 1 GiB with 4 GiB of virtio-mem, 8 slots and a balloon is set to totals, up and down: at each of them its
# usable memory is right within one granule, and what `show` says each mechanism holds is what QEMU says.
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=tests/lab/mechanisms-lib.sh
. "${BASH_SOURCE[0]%/*}/mechanisms-lib.sh"

granule=$((128 * 1024)) # KiB

# check_total MIB: hvd, QEMU and the guest.
check_total() {
    local expected now

    assert_equal "current and requested at $1 MiB" "$(($1 * MiB)) $(($1 * MiB)) 0" \
        "$(show s1 '"\(.current_bytes) \(.requested_bytes) \(.pending_bytes)"' | jq -r .)"
    check_show s1
    check_at_rest s1
    expected=$((start + ($1 - 1024) * 1024)) now=$(usable s1)
    note "usable: $((now / 1024)) MiB, expected $((expected / 1024)) MiB; $(show s1 '"virtio-mem \([.devices[] |
        select(.kind == "virtio-mem").size_bytes] | add / 1048576), DIMMs \([.devices[] | select(.kind == "dimm").size_bytes] |
        add // 0 | . / 1048576), balloon \(.balloon_bytes / 1048576)"' | jq -r .)"
    assert_at_most "usable memory at $1 MiB, less than expected, KiB" "$granule" $((expected - now))
    assert_at_most "usable memory at $1 MiB, more than expected, KiB" "$granule" $((now - expected))
}

# set_to SIZE MIB
set_to() {
    step "to $1"
    expect 0 cli set-memory s1 "$1" --wait 2m
    note "$(head -n 1 <<<"$out")"
    check_total "$2"
}

test_begin
step "a guest with all of them"
boot s1 --memory 1G --max-memory 16G --slots 8 --virtio-mem 4G --balloon
start=$(usable s1)

step "to 1G: it has that"
expect 0 cli -o json set-memory s1 1G
assert_equal "the job" "DONE 0 0 1073741824" \
    "$(jq -r '"\(.state) \(.requested_bytes) \(.done_bytes) \(.target_bytes)"' <<<"$out")"
assert_match "what is said" 'already' "$(jq -r '.notes[0]' <<<"$out")"
check_total 1024
set_to 5G 5120
assert_match "the line about it" '^s1: set to 5 GiB, added 4 GiB in ' "$out"
set_to 1536M 1536
set_to 3G 3072
set_to 1G 1024

step "more than virtio-mem has: DIMMs carry the rest"
expect 0 cli set-memory s1 6G --dry-run
assert_match "the shares" 'iB by virtio-mem .*1 GiB by dimm' "${out//$'\n'/ }"
check_total 1024
set_to 6G 6144
assert_equal "memory in DIMMs" "$GiB" "$(show s1 '[.devices[] | select(.kind == "dimm").size_bytes] | add')"

step "an odd size: the balloon has the smallest unit"
expect 0 cli set-memory s1 6141M --dry-run
assert_match "the shares" '2 MiB by virtio-mem.*1 MiB by balloon' "${out//$'\n'/ }"
expect 0 cli set-memory s1 6141M --wait 1m
check_total 6141

step "hvd is killed: what was asked for is known again"
lab hvd kill
lab up
await 20 "guestd" agent_is s1 ready
# shellcheck disable=SC2016  # it is for eval
await 20 "the same total" eval '[[ $(show s1 .requested_bytes) == $((6141 * MiB)) ]]'
check_total 6141
set_to 2G 2048

step "bad input names the limit"
refused() { # REGEX COMMAND...
    local what=$1
    shift
    expect 1 cli -o json "$@"
    assert_match "what '$*' is told" "$what" "$(jq -r .error.message <<<"$out")"
    note "$(jq -r .error.message <<<"$out")"
}
expect 0 cli profile s1 --min 1G --desired 2G --max 8G --weight 10
refused 'below the 1G' set-memory s1 512M
refused 'above the max .* 8G' set-memory s1 9G
refused 'its profile allows 8 GiB; at most 6G' add-memory s1 7G
refused 'its profile keeps 1 GiB; at most 1G' remove-memory s1 1536M
refused 'make min at most 2G' profile s1 --min 3G
refused '1 to 255' profile s1 --weight 0
expect 1 cli set-memory s1 3G --method magic
expect 2 cli set-memory s1 3
sed -i 's/pool_total = .*/pool_total = 4G/' "$LAB_DIR/hvd.conf"
lab hvd kill
lab up
await 20 "guestd" agent_is s1 ready
refused '3G is more than the 2G that .* pool has free' set-memory s1 5G
refused '3G is more than the 2G that .* pool has free' add-memory s1 3G
expect 0 cli pool
assert_match "the pool" 'total +4 GiB.*current +2 GiB.*free +2 GiB' "${out//$'\n'/ }"
set_to 4G 4096
assert_equal "what is free" 0 "$(cli -o json pool | jq .pool_free)"
test_end
