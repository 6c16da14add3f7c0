#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A domain with virtio-mem and a balloon, through what happens to domains: the guest is reset; all its memory is dumped,
# migrated, saved and restored. Nothing changes meanwhile, whoever asks hears why, and hvd goes on with it wherever it runs
# then: on the same host, or on another one, which is a second lab with a libvirtd and an hvd of its own.
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=tests/lab/libvirt-lib.sh
. "${BASH_SOURCE[0]%/*}/libvirt-lib.sh"

# other COMMAND...: the same, on the other host.
other() {
    LAB_DIR=$other_dir "$@"
}

# period_is NAME SECONDS [OPTION]: of the balloon's statistics, by libvirt; 0: there is none.
period_is() {
    local period
    period=$(virsh_ dumpxml "$1" "${@:3}" | sed -n "s/.*<stats period='\([0-9]*\)'.*/\1/p")
    [[ ${period:-0} == "$2" ]]
}

# xml_bytes NAME XPATH [OPTION]: KiB there, as bytes.
xml_bytes() {
    echo $(($(virsh_ dumpxml "$1" --xpath "$2/text()" "${@:3}") * 1024))
}

# all_refused WORD: whoever asks for a change of v1 now hears of it at once, and nothing changes.
all_refused() {
    local verb

    for verb in add-memory remove-memory; do
        expect 1 cli "$verb" v1 256M
        assert_match "why not to $verb" "is being $1" "$err"
    done
    expect 1 cli profile v1 --weight 9
    assert_match "why no profile" "is being $1" "$err"
    assert_equal "plugged by libvirt meanwhile" "$plugged" "$(xml_plugged v1)"
}

# goes_on: v1 is as it was, and can change again.
goes_on() {
    check_domain v1 "$plugged"
    expect 0 cli add-memory v1 256M --method dimm
    check_domain v1 $((plugged + 256 * MiB))
    expect 0 cli remove-memory v1 256M --method dimm
    check_domain v1 "$plugged"
}

((EUID == 0)) || skip "libvirt with folders of the lab's own is root's"
test_begin

step "the statistics of a balloon get a period, in the running domain alone"
boot v1 --platform libvirt --memory 1G --max-memory 16G --virtio-mem 2G --balloon
base_blocks=$(guest_account v1 | jq .online+.offline)
await 5 "a period" period_is v1 5
period_is v1 0 --inactive || fail "the definition was changed"

step "and whoever sets another one keeps it"
virsh_ dommemstat v1 --period 2 --live
expect 0 cli add-memory v1 512M --method dimm
period_is v1 2 || fail "the period is not what was set"

step "--config, by virtio-mem and by the balloon"
expect 0 cli add-memory v1 512M --method virtio-mem --config
requested='//devices/memory[@model="virtio-mem"]/target/requested'
assert_equal "requested, in the definition" $((512 * MiB)) "$(xml_bytes v1 "$requested" --inactive)"
expect 0 cli add-memory v1 1G --method virtio-mem
assert_equal "requested, in the definition" $((512 * MiB)) "$(xml_bytes v1 "$requested" --inactive)"
expect 0 cli remove-memory v1 128M --method balloon --config
# Of the DIMM the definition has nothing.
assert_equal "current memory, in the definition" $((896 * MiB)) "$(xml_bytes v1 /domain/currentMemory --inactive)"
expect 0 cli add-memory v1 128M --method balloon --config
assert_equal "current memory, in the definition" "$GiB" "$(xml_bytes v1 /domain/currentMemory --inactive)"
plugged=$((2 * GiB))
check_domain v1 "$plugged"

step "after a reset all of it is back"
id=$(boot_id v1)
virsh_ reset v1
await "$(patience 40)" "the guest" rebooted v1 "$id"
await "$(patience 20)" "guestd's word" agent_is v1 ready
domain_settles v1 "$(patience 20)" "$plugged"
assert_equal "requested, of virtio-mem by libvirt" $((1536 * MiB)) "$(xml_bytes v1 "$requested")"
assert_equal "current, requested of virtio-mem by hvd" "$((1536 * MiB)) $((1536 * MiB))" \
    "$(show v1 '.devices[] | select(.kind == "virtio-mem")' | jq -r '"\(.size_bytes) \(.requested_bytes)"')"
expect 0 cli remove-memory v1 512M --method virtio-mem
plugged=$((3 * GiB / 2))
check_domain v1 "$plugged"

step "while it is dumped nothing changes, and its abortion, of which no event tells, is seen"
mkfifo "$work_dir/fifo"
exec {fifo}<>"$work_dir/fifo" # nobody reads what goes there: the dump comes no further
virsh_ dump --live v1 "$work_dir/fifo" >/dev/null 2>&1 {fifo}>&- &
dump=$!
await 5 "the dump" state_is v1 saving
all_refused saved
virsh_ domjobabort v1
exec {fifo}>&- # QEMU gives up in mid-write by that alone
! wait "$dump" || fail "the dump was not aborted"
await 5 "its end" state_is v1 running
goes_on

step "while it is migrated, too; the migration is aborted"
other_dir=$work_dir/other
mkdir "$other_dir"
cp "$LAB_DIR/hvd.conf" "$other_dir/"
other lab up
other lab libvirtd start
mkdir "$other_dir/v1"
cp "$LAB_DIR/v1/initrd" "$LAB_DIR/v1/domain.xml" "$other_dir/v1/"
migrate() {
    virsh_ dumpxml --migratable v1 | sed "s|$LAB_DIR/v1/|$other_dir/v1/|" >"$work_dir/v1.xml"
    virsh_ migrate --live v1 "qemu+unix:///system?socket=$other_dir/libvirt/run/libvirt-sock" tcp://127.0.0.1 \
        --xml "$work_dir/v1.xml" "$@"
}
migrate --bandwidth 1 >"$work_dir/migration" 2>&1 &
migration=$!
await 10 "the migration" state_is v1 migrating
all_refused migrated
virsh_ domjobabort v1
! wait "$migration" || fail "the migration was not aborted"
await 5 "its end" state_is v1 running
goes_on

step "saved, it is away; restored, it is as it was"
virsh_ save v1 "$work_dir/v1.save" >/dev/null
await 5 "that it does not run" state_is v1 absent
expect 1 cli add-memory v1 256M
assert_match "why not" 'does not run' "$err"
virsh_ restore "$work_dir/v1.save" >/dev/null
rm "$work_dir/v1.save"
await "$(patience 15)" "guestd's word" agent_is v1 ready
goes_on

step "migrated, it is the other host's"
migrate >"$work_dir/migration" 2>&1 || fail "it is not migrated: $(<"$work_dir/migration")"
ln -s "$other_dir/libvirt/run/qemu/v1.pid" "$other_dir/v1/qemu.pid"
await 5 "that it does not run here" state_is v1 absent
await "$(patience 15)" "guestd's word there" other agent_is v1 ready
other goes_on
expect 0 other cli remove-memory v1 512M --method dimm
expect 0 other cli remove-memory v1 1G --method virtio-mem
other check_domain v1 0
# Libvirt taints a domain that is restored or migrated for its processor, which is the lab's.
check_untainted v1 'host.(cpu|CPU)'
other check_untainted v1 'host.(cpu|CPU)'
other check_guest_health v1
other lab hvd stop
check_no_report "the other host's hvd" "$other_dir/hvd.log"
test_end
