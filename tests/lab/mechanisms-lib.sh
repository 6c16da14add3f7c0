# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What a guest has by each mechanism, by QEMU and in itself. For tests that have sourced lib.sh.

# shellcheck disable=SC2154  # the variables of lib.sh

# The guest's usable memory, KiB: with deflate-on-oom Linux counts the balloon's pages in MemTotal.
usable() {
    guest "$1" "cat /proc/meminfo /proc/vmstat" |
        awk '/^MemTotal/ { t = $2 } /^balloon_inflate/ { i = $2 } /^balloon_deflate/ { d = $2 } END { print t - (i - d) * 4 }'
}

virtio_mem() { # NAME: "size requested"
    qmp "$1" query-memory-devices | jq -r '.[] | select(.type == "virtio-mem").data | "\(.size) \(."requested-size")"'
}

# QEMU's wish is what there is: nothing moves later unasked.
check_at_rest() { # NAME
    local size requested

    read -r size requested < <(virtio_mem "$1")
    assert_equal "what virtio-mem of $1 is asked for" "$size" "$requested"
}

# Each figure of show is QEMU's own.
check_show() { # NAME
    local sheet balloon dimms

    sheet=$(show "$1")
    balloon=$(qmp "$1" query-balloon | jq .actual)
    dimms=$(qmp "$1" query-memory-devices | jq '[.[] | select(.type == "dimm").data.size] | add // 0')
    assert_equal "virtio-mem of $1 by show" "$(virtio_mem "$1")" \
        "$(jq -r '.devices[] | select(.kind == "virtio-mem") | "\(.size_bytes) \(.requested_bytes)"' <<<"$sheet")"
    assert_equal "DIMMs of $1 by show" "$dimms" "$(jq '[.devices[] | select(.kind == "dimm").size_bytes] | add // 0' <<<"$sheet")"
    assert_equal "the balloon of $1 by show" "$balloon $(($(host_base "$1") + dimms - balloon)) true true" \
        "$(jq -r '.balloon[0] | "\(.actual_bytes) \(.taken_bytes) \(.deflate_on_oom) \(.free_page_reporting)"' <<<"$sheet")"
    assert_equal "current of $1" $(($(host_base "$1") + $(host_plugged "$1") - ($(host_base "$1") + dimms - balloon))) \
        "$(jq .current_bytes <<<"$sheet")"
}

assert_near() { # WHAT EXPECTED-KIB SEEN-KIB
    assert_at_most "$1, less than expected, KiB" $((8 * 1024)) $(($2 - $3))
    assert_at_most "$1, more than expected, KiB" $((8 * 1024)) $(($3 - $2))
}
