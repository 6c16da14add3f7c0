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

# That QEMU runs as root is the lab's doing, and so is its processor, for which libvirt taints a domain that is restored or
# migrated.
check_untainted() {
    local found
    found=$(cat "$LAB_DIR"/libvirt/libvirtd.log "$LAB_DIR/libvirt/log/qemu/$1.log" | grep 'is tainted' |
        grep -vE 'high-privileges|host-cpu' || true)
    assert_equal "what tainted $1" "" "$found"
}
