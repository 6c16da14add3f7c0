#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# hmc-cli and hvd before a pseries guest: its method, its LMBs by DRC index, and an unplug that it refuses in silence.
# shellcheck disable=SC2119,SC2120  # functions have defaults
set -euo pipefail
# shellcheck source=tests/integration/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

MiB=1048576
GiB=$((1024 * MiB))

dimm() { # NUMBER MIB-OF-ADDRESS MIB
    printf '{"type":"dimm","data":{"memdev":"/objects/opendlpar-mem-%s","hotplugged":true,"addr":%s,"hotpluggable":true,"size":%s,"slot":%s,"node":0,"id":"opendlpar-dimm-%s"}}' \
        "$1" $(($2 * MiB)) $(($3 * MiB)) "$1" "$1"
}

# What QEMU lists.
devices() { # PLUGGED-MIB DIMM...
    local IFS=,
    printf 'on query-memory-devices reply [%s]\n' "${*:2}"
    printf 'on query-memory-size-summary reply {"base-memory":%s,"plugged-memory":%s}\n' $GiB $(($1 * MiB))
}

# A QEMU of 1 GiB that can have 9, in 32 slots; what it does beyond this comes from standard input.
qemu() { # ARCHITECTURE
    fake fake-qmp qmp < <(
        cat <<S
negotiate
on query-status reply {"status":"running","running":true,"singlestep":false}
on query-migrate reply {}
on qom-get reply {"size":$GiB,"max-size":$((9 * GiB)),"slots":32}
on qom-list reply []
on query-uuid reply {"UUID":"00000000-0000-0000-0000-000000000000"}
on query-target reply {"arch":"$1"}
on human-monitor-command reply "0 nodes\\r\\n"
on query-balloon error DeviceNotActive No balloon device has been activated
on query-chardev reply [{"label":"guestd","filename":"disconnected:unix:$work/channel,server=on","frontend-open":true}]
S
        devices 0
        cat
        echo serve
    )
    qmp=$fake_pid
}

# A guest with the base's blocks and 1 GiB more in zone Movable.
guest() {
    fake fake-guest channel < <(
        cat <<S
accept
hello {"arch":"ppc64le","block_bytes":$((256 * MiB))}
expect welcome
on get-state reply
on get-blocks reply {"ranges":[[0,$GiB,"online","kernel",0],[$GiB,$GiB,"online","movable",0]]}
on prepare reply
on release reply
S
        cat
        echo serve
    )
    guest=$fake_pid
}

ready() {
    cli define p1 --qmp "$work/qmp" --channel "$work/channel" >/dev/null
    await_ready p1
    # Both ends' account as well.
    known() { [[ $(partition p1 .block_bytes) -gt 0 && $(cli -o json show p1 | jq '.blocks | length') -gt 0 ]]; }
    await "its account" known
}

over() {
    cli undefine p1 >/dev/null
    fake_end "$guest" channel
    fake_end "$qmp" qmp
}

# refused CODE SENTENCE ARGUMENT...: by hvd, and no job is made.
refused() {
    local jobs
    jobs=$(cli -o json jobs | jq length)
    expect 1 cli -o json "${@:3}"
    assert_equal "code of '${*:3}'" "$1" "$(jq -r .error.code <<<"$out")"
    assert_match "sentence of '${*:3}'" "$2" "$err"
    assert_equal "jobs behind '${*:3}'" "$jobs" "$(cli -o json jobs | jq length)"
}

bus_start
hvd_start

begin "two LMBs and a device of two more: show and the bus have their indices"
qemu ppc64 < <(devices 1024 "$(dimm 0 1024 256)" "$(dimm 1 1280 256)" "$(dimm 2 1536 512)")
guest </dev/null
ready
expect 0 cli -o json show p1
assert_equal "indices" "[2147483652,2147483652] [2147483653,2147483653] [2147483654,2147483655]" \
    "$(jq -r '[.devices[] | "[\(.drc_first),\(.drc_last)]"] | join(" ")' <<<"$out")"
assert_equal "states" plugged "$(jq -r '[.devices[].state] | unique | join(" ")' <<<"$out")"
assert_equal "of the runs of blocks" "0 2147483652 2147483653 2147483654" "$(jq -r '[.blocks[].drc] | join(" ")' <<<"$out")"
expect 0 cli show p1
assert_match "the sheet" 'opendlpar-dimm-0 .* 0x80000004 ' "$out"
assert_match "the sheet" 'opendlpar-dimm-2 .* 0x80000006-0x80000007 ' "$out"
expect 0 cli -o json memory-map p1
assert_match "why an older guestd has no survey" "no survey of pages" "$(jq -r .note <<<"$out")"
assert_equal "block size and fates" "268435456 base,leaves,may-leave" \
    "$(jq -r '"\(.block_bytes) \([.blocks[].fate] | unique | join(","))"' <<<"$out")"
expect 0 cli memory-map p1
assert_match "the map's LMBs" "0x80000004" "$out"
expect 1 cli -o json memory-map nobody
assert_equal "code" unknown-partition "$(jq -r .error.code <<<"$out")"
expect 2 cli memory-map p1 --remove 1

begin "methods: only its own"
expect 0 cli add-memory p1 256M --method lmb --dry-run
expect 0 cli remove-memory p1 256M --method auto --dry-run
refused unknown-method 'by method lmb' add-memory p1 256M --method dimm
refused unknown-method 'by method lmb' remove-memory p1 256M --method dimm
refused unknown-method 'auto, dimm .* lmb .*, virtio-mem and balloon' remove-memory p1 256M --method drmgr

begin "indices: strict, and refused with what would be right"
for index in 80000005 5 0x 0X80000005 0x80000005g -1 4294967296 0x180000005; do
    expect 2 cli -o json remove-memory p1 256M --drc "$index"
    assert_match "the sentence about $index" '0x8000000' "$err"
done
expect 2 cli remove-memory p1 256M --drc 80000005
assert_match "what it should be" 'write 0x80000005' "$err"
expect 2 cli remove-memory p1 256M --drc 0x80000005 --device opendlpar-dimm-1
expect 2 cli add-memory p1 256M --drc 0x80000005
for index in 0x0 0x5 0x80000008 0xffffffff; do
    refused unknown-device 'plugged are LMBs 0x80000004 to 0x80000007' remove-memory p1 256M --drc "$index"
done
refused not-plugged 'base memory' remove-memory p1 256M --drc 0x80000003
refused no-exact-fit 'lies in opendlpar-dimm-2, which has 512M \(LMBs 0x80000006 to 0x80000007\).*name the device opendlpar-dimm-2 and ask for 512M' \
    remove-memory p1 256M --drc 0x80000007
refused no-exact-fit 'ask for 256M' remove-memory p1 512M --drc 0x80000004
expect 0 cli remove-memory p1 512M --drc 0x80000007 --dry-run
assert_match "the plan" 'opendlpar-dimm-2 .*LMBs 0x80000006 to 0x80000007' "$out"
path=$(call call org.opendlpar.hvd1 /org/opendlpar/hvd1 org.opendlpar.hvd1.Manager GetPartition s p1 | jq -R -r 'split("\"")[1]')
expect 1 call call org.opendlpar.hvd1 "$path" org.opendlpar.hvd1.Partition RemoveMemory 'ta{sv}' $((256 * MiB)) \
    2 drc u 2147483652 device s opendlpar-dimm-0
assert_match "both on the bus" 'exclude each other' "$err"
expect 1 call call org.opendlpar.hvd1 "$path" org.opendlpar.hvd1.Partition AddMemory 'ta{sv}' $((256 * MiB)) 1 drc u 2147483652
over

begin "an LMB by its index: that one and no other"
qemu ppc64 < <(
    devices 512 "$(dimm 0 1024 256)" "$(dimm 1 1280 256)"
    cat <<'S'
expect device_del {"id":"opendlpar-dimm-0"}
reply
S
    devices 256 "$(dimm 1 1280 256)"
    cat <<'S'
event DEVICE_DELETED {"device":"opendlpar-dimm-0","path":"/machine/peripheral/opendlpar-dimm-0"}
expect object-del {"id":"opendlpar-mem-0"}
reply
S
)
guest <<S
expect offline {"targets":[[$GiB,$((256 * MiB))]]}
reply {"ranges":[[$GiB,$((256 * MiB)),"offline","unknown",0]]}
expect await-removed {"targets":[[$GiB,$((256 * MiB))]]}
reply
S
ready
expect 0 cli remove-memory p1 256M --drc 0x80000004
assert_match "the line about it" '^p1: removed 256 MiB' "$out"
over

begin "an unplug that is pending in QEMU is shown and passed over, and a reset ends it"
qemu ppc64 < <(
    devices 256 "$(dimm 0 1024 256)"
    cat <<'S'
on device_add error GenericError no
expect device_del {"id":"opendlpar-dimm-0"}
error GenericError Memory unplug already in progress for device opendlpar-dimm-0
expect object-add
error GenericError this is when the guest is reset
S
    devices 0
    cat <<'S'
event DEVICE_DELETED {"device":"opendlpar-dimm-0","path":"/machine/peripheral/opendlpar-dimm-0"}
expect object-del {"id":"opendlpar-mem-0"}
reply
event RESET {"guest":false,"reason":"host-qmp-system-reset"}
S
)
guest <<S
on offline reply {"ranges":[[$GiB,$((256 * MiB)),"offline","unknown",0]]}
on online reply {"ranges":[[$GiB,$((256 * MiB)),"online","movable",0]]}
expect await-removed @gone
expect cancel
reply
reply @gone {"complete":false}
S
ready
expect 1 cli -o json remove-memory p1 256M
assert_equal "the reasons" unplug-pending "$(jq -r '[.reasons[].code] | join(" ")' <<<"$out")"
device_is() { [[ $(partition p1 '.devices[0].state') == "$1" ]]; }
await "the device's state" device_is unplug-pending
expect 0 cli show p1
assert_match "the sheet" '0x80000004 .*unplug pending' "$out"
assert_match "the sheet" 'Do not migrate' "$out"
refused unplug-pending 'only a reset of the guest' remove-memory p1 256M --drc 0x80000004
refused unplug-pending 'only a reset of the guest' remove-memory p1 256M --device opendlpar-dimm-0
refused not-plugged 'only with a reset of the guest' remove-memory p1 256M
expect 1 cli add-memory p1 256M
await "its end" device_is null
over

begin "an x86 guest has neither LMBs nor their method"
qemu x86_64 < <(devices 1024 "$(dimm 0 1024 1024)")
guest </dev/null
ready
refused unknown-method 'by method dimm' remove-memory p1 1G --method lmb
refused invalid-argument 'no pseries guest' remove-memory p1 1G --drc 0x80000004
assert_equal "an index" 0 "$(partition p1 '.devices[0].drc_first')"
expect 0 cli show p1
[[ $out != *DRC* ]] || fail "a column of indices for x86: $out"
over

hvd_stop
echo "ok"
