#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A guest of two NUMA nodes: memory goes to the node that is asked for, or evenly; a node is emptied wholly or in part;
# and QEMU, the guest's kernel and hvd agree on each node. NODES_ARCH=ppc64le takes a pseries guest.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

# host_node NAME NODE: bytes in QEMU's devices there.
host_node() {
    qmp "$1" query-memory-devices | jq "[.[].data | select(.node == $2) | .size] | add // 0"
}

# guest_node NAME NODE: bytes in the kernel's memory blocks there.
guest_node() {
    guest "$1" 'cd /sys/devices/system/memory; n=0
        for b in memory[0-9]*; do [ ! -e $b/node'"$2"' ] || n=$((n + 1)); done
        echo $((n * 0x$(cat block_size_bytes)))'
}

# check_nodes NAME PLUGGED-0 PLUGGED-1: in MiB, at all three places.
check_nodes() {
    local node
    check_accounts "$1" $((($2 + $3) * MiB))
    for node in 0 1; do
        local expected=$((${*:node+2:1} * MiB))
        assert_equal "node $node by QEMU" "$expected" "$(host_node "$1" $node)"
        assert_equal "node $node by hvd" "$expected" "$(show "$1" ".nodes[$node].plugged_bytes")"
        assert_equal "node $node by the guest" "$expected" $(($(guest_node "$1" $node) - base))
    done
}

test_begin
arch=${NODES_ARCH:-x86_64}
base=$((512 * MiB))
step "a guest of two nodes, 512 MiB each"
boot n1 --arch "$arch" --memory 1G --max-memory 9G --slots 32 --nodes 2
assert_equal "nodes" "[[0,$base],[1,$base]]" "$(show n1 '[.nodes[] | [.node, .base_bytes]]')"
check_nodes n1 0 0

step "1 GiB into node 1, verified at both ends"
expect 0 cli add-memory n1 1G --node 1 --dry-run
assert_match "the plan" "into node 1" "$out"
expect 0 cli add-memory n1 1G --node 1
check_nodes n1 0 1024
expect 0 cli show n1
assert_match "the nodes in show" "node 1 +512 MiB at boot, 1 GiB plugged" "$out"
expect 0 cli memory-map n1
assert_match "the node in the map" "opendlpar-dimm-0 +node 1" "$out"

step "unasked, memory goes where there is less, and then evenly"
expect 0 cli add-memory n1 1G
check_nodes n1 1024 1024
expect 0 cli add-memory n1 512M
check_nodes n1 1280 1280

step "a removal without a node takes from both"
expect 0 cli remove-memory n1 1G
check_nodes n1 768 768
expect 0 cli add-memory n1 512M --node 0
check_nodes n1 1280 768
expect 0 cli remove-memory n1 512M
check_nodes n1 768 768

step "a node that there is not: refused by name, and nothing changes"
before=$(snapshot n1)
for words in "add-memory n1 1G" "remove-memory n1 256M" "remove-memory n1" "add-memory n1 1G --dry-run"; do
    # shellcheck disable=SC2086  # words
    expect 1 cli -o json $words --node 7
    assert_equal "the error's code" unknown-node "$(jq -r .error.code <<<"$out")"
    assert_match "the error" "no NUMA node 7: it has nodes 0 and 1" "$(jq -r .error.message <<<"$out")"
done
expect 2 cli remove-memory n1
assert_match "no size and no node" "SIZE is missing" "$err"
expect 2 cli add-memory n1 --node 1
assert_same "after refusals" "$before" "$(snapshot n1)"

step "a part of a node, and no more than it has"
expect 0 cli remove-memory n1 256M --node 1
check_nodes n1 768 512
expect 1 cli remove-memory n1 1G --node 1
assert_match "more than there is" "more than the 512M plugged in DIMMs in node 1" "$err"
check_nodes n1 768 512

step "a whole node"
expect 0 cli -o json remove-memory n1 --node 0 --dry-run
assert_equal "devices that are to leave" 3 "$(jq '[.plan[] | select(startswith("take"))] | length' <<<"$out")"
check_nodes n1 768 512
expect 0 cli -o json remove-memory n1 --node 0
assert_equal "what was asked and done" "$((768 * MiB)) $((768 * MiB)) DONE" "$(jq -r '"\(.requested_bytes) \(.done_bytes) \(.state)"' <<<"$out")"
check_nodes n1 0 512
expect 1 cli remove-memory n1 --node 0
assert_match "nothing but base memory" "Node 0 .* has no memory in DIMMs" "$err"
expect 0 cli remove-memory n1 --node 1 --within 60s
assert_match "in words" "n1: removed 512 MiB in" "$out"
check_nodes n1 0 0

step "what cannot leave keeps only its own device, and the other node is not asked"
if [[ $arch == x86_64 ]]; then
    guest n1 "echo $(base64 -w 0 "$build_dir/tests/lab/tools/lab-pin") | base64 -d >/run/pin && chmod +x /run/pin"
else
    bring_pin n1
fi
expect 0 cli add-memory n1 512M --node 1
# Its pages come from that node alone, and there from zone Movable first.
guest n1 'mkdir -p /run/cgroup && mount -t cgroup2 none /run/cgroup && cd /run/cgroup &&
    echo +cpuset >cgroup.subtree_control && mkdir pinned && echo 1 >pinned/cpuset.mems && echo $$ >pinned/cgroup.procs &&
    (/run/pin </dev/null >/dev/null 2>&1 &) && sleep 0.5 && pidof pin' >/dev/null
expect 0 cli add-memory n1 256M --node 0
expect "1|64" cli -o json remove-memory n1 --node 1 --wait 30s
note "$(jq -c '[.state, .done_bytes, [.reasons[].message]]' <<<"$out")"
jq -e 'any(.reasons[]; .code == "block-busy" and .device != "")' <<<"$out" >/dev/null || fail "no reason names the device"
assert_equal "node 0 was left alone" $((256 * MiB)) "$(host_node n1 0)"
assert_equal "node 1, by what was said" $((512 * MiB - $(jq .done_bytes <<<"$out"))) "$(host_node n1 1)"
check_nodes n1 256 $(($(host_node n1 1) / MiB))
guest n1 'kill $(pidof pin); sleep 0.3'
(($(host_node n1 1) == 0)) || expect 0 cli remove-memory n1 --node 1
expect 0 cli remove-memory n1 --node 0
check_nodes n1 0 0
test_end
