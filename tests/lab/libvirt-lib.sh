# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# For the tests with domains of libvirt's, sourced after lib.sh. base_blocks: how many the guest has of its memory at boot.

virsh_() {
    lab virsh --quiet "$@"
}

# xml_plugged NAME [OPTION]: bytes of its memory devices by libvirt.
xml_plugged() {
    local sizes
    sizes=$(virsh_ dumpxml "$@" --xpath '//devices/memory[@model="dimm"]/target/size/text() |
        //devices/memory/target/current/text()' 2>/dev/null || true)
    awk '{ sum += $1 } END { printf "%.0f\n", sum * 1024 }' <<<"$sizes"
}

xml_plugged_is() { # NAME BYTES
    [[ $(xml_plugged "$1") == "$2" ]]
}

# check_domain NAME PLUGGED: libvirt, hvd and the guest agree, and nothing is offline.
check_domain() {
    local account
    account=$(guest_account "$1")
    assert_equal "plugged memory of $1 by libvirt" "$2" "$(xml_plugged "$1")"
    assert_equal "plugged, pending bytes of $1 by hvd" "$2 0" "$(show "$1" | jq -r '"\(.plugged_bytes) \(.pending_bytes)"')"
    assert_equal "blocks of $1 beyond its base" "$2" \
        $((($(jq .online+.offline <<<"$account") - base_blocks) * $(jq .block_bytes <<<"$account")))
    assert_equal "offline blocks of $1" 0 "$(jq .offline <<<"$account")"
}

domain_settles() { # NAME SECONDS PLUGGED
    settles "$2" check_domain "$1" "$3"
}

# check_untainted NAME [ALLOWED]: by the logs and virsh. That QEMU runs as root is the lab's doing.
check_untainted() {
    local found
    found=$(cat "$LAB_DIR"/libvirt/libvirtd.log "$LAB_DIR/libvirt/log/qemu/$1.log" | grep 'is tainted' |
        grep -vE "high-privileges${2:+|$2}" || true)
    assert_equal "what tainted $1" "" "$found"
    found=$(virsh_ dominfo "$1" | grep 'tainted:' | grep -vE "elevated privileges${2:+|$2}" || true)
    assert_equal "what tainted $1, by virsh dominfo" "" "$found"
}

# check_backends NAME: QEMU has a backend for the memory at boot and one for each device. It is asked by its monitor, and
# that taints the domain.
check_backends() {
    local backends dimms
    backends=$(virsh_ qemu-monitor-command "$1" '{"execute":"qom-list","arguments":{"path":"/objects"}}' |
        jq '[.return[] | select(.type | startswith("child<memory-backend"))] | length')
    dimms=$(virsh_ dumpxml "$1" | grep -c "<memory model=" || true)
    assert_equal "backends in the QEMU of $1" $((1 + dimms)) "$backends"
}
