#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# hvd's store on a full disk, and one that is damaged: both are reported, and memory is served all the same. The bus goes
# and comes again: hvd ends, so that it is started anew, and has everything.
# shellcheck disable=SC2119,SC2120  # functions have defaults
set -euo pipefail
# shellcheck source=tests/integration/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

GiB=1073741824

# A QEMU that refuses every device, and its guest: an addition shows that jobs are taken, run and end.
ends() {
    fake fake-qmp qmp <<S
negotiate
on query-status reply {"status":"running","running":true,"singlestep":false}
on query-migrate reply {}
on query-memory-size-summary reply {"base-memory":$GiB,"plugged-memory":0}
on qom-get reply {"size":$GiB,"max-size":8589934592,"slots":8}
on query-memory-devices reply []
on qom-list reply [{"name":"pc.ram","type":"child<memory-backend-ram>"}]
on query-uuid reply {"UUID":"00000000-0000-0000-0000-000000000000"}
on query-target reply {"arch":"x86_64"}
on human-monitor-command reply "0 nodes\\r\\n"
on query-balloon error DeviceNotActive No balloon device has been activated
on query-chardev reply [{"label":"guestd","filename":"disconnected:unix:$work/channel,server=on","frontend-open":true}]
on object-add error GenericError this QEMU refuses
on device_add error GenericError this QEMU refuses
serve
accept
S
    fake fake-guest channel <<'S'
begin
on get-state reply
on get-blocks reply
on prepare reply
on release reply
serve
accept
S
}

tries() {
    expect 1 cli -o json add-memory p1 1G --wait 10s
    assert_match "the reason" 'this QEMU refuses' "$out"
    assert_equal "state of the job" FAILED "$(jq -r .state <<<"$out")"
}

fill_disk() {
    dd if=/dev/zero of="$work/state/rubbish" bs=4k 2>/dev/null || true
    ! dd if=/dev/zero of="$work/state/more" bs=4k count=1 2>/dev/null || fail "the disk is not full"
}

bus_start
mkdir -p "$work/state"
mounted=false
if mount -t tmpfs -o size=2M,mode=700 tmpfs "$work/state" 2>/dev/null; then
    mounted=true
    leave() {
        local code=$?
        set +eE
        umount -l "$work/state"
        return "$code" # for on_exit
    }
    trap 'leave; on_exit' EXIT
fi

begin "a store as it should be"
hvd_start
ends
cli define p1 --qmp "$work/qmp" --channel "$work/channel" >/dev/null
await_ready p1
tries
first=$(jq .id <<<"$out")
assert_match "the way of the job" '^QUEUED SURVEYING .*FAILED$' "$(cli -o json jobs |
    jq -r --argjson id "$first" '.[] | select(.id == $id) | .transitions | map(.state) | join(" ")')"

if $mounted; then
    begin "the disk is full: jobs are taken and end as before, and hvd says what is not kept"
    fill_disk
    tries
    second=$(jq .id <<<"$out")
    ((second > first)) || fail "job $second after job $first"
    await "a word about it" logged 'full.*go on without being stored'
    expect 1 cli define p2 --qmp "$work/qmp2" --channel "$work/channel2"
    assert_match "why nothing is defined now" 'full' "$err"

    begin "hvd is started again on a full disk"
    hvd_stop KILL
    for pid in "${fake_pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    ends
    hvd_start
    await_ready p1
    tries
    rm -f "$work/state/rubbish" "$work/state/more"
    tries
    third=$(jq .id <<<"$out")
    ((third > second)) || fail "job $third after job $second"
else
    echo "       (no tmpfs can be mounted here: a full disk is left out)"
fi

used() {
    cli -o json show p1 | jq '[.usage[].mib_seconds] | add'
}

reservations() {
    cli -o json pool | jq -c '[.reservations[] | [.owner, .bytes, .held]]'
}

reserve() { # OWNER
    call call org.opendlpar.hvd1 /org/opendlpar/hvd1 org.opendlpar.hvd1.Manager Reserve 'sta{sv}' "$1" "$GiB" \
        2 keep b true timeout-usec t 600000000 >/dev/null
}

begin "a restart: what is reserved beyond a connection is so still, or its owner's; and what was used is known"
reserve p1
reserve p2
assert_equal "reservations" "[[\"p1\",$GiB,true],[\"p2\",$GiB,true]]" "$(reservations)"
before=$(used)
((before > 0)) || fail "p1 has used nothing: $before"
hvd_stop KILL
for pid in "${fake_pids[@]}"; do kill "$pid" 2>/dev/null || true; done
ends
hvd_start
await_ready p1
assert_equal "reservations" "[[\"p2\",$GiB,true]]" "$(reservations)"
after=$(used)
((after > before)) || fail "p1 has used $before MiB s, and after a restart $after"
hvd_stop

record() { # FOLDER
    "$build/hvd/hvd" --record 1h --state-dir "$1"
}

begin "what it recorded is read, whether it is at work or not, and where there is nothing nothing is made"
hvd_start
expect 1 record "$work/state"
assert_match "what it has read" 'no samples' "$err"
hvd_stop
expect 1 record "$work/state"
assert_match "what it has read" 'no samples' "$err"
expect 1 record "$work/nowhere"
assert_match "what it says" "$work/nowhere/hvd.sqlite" "$err"
[[ ! -e $work/nowhere ]] || fail "to record made a store"

begin "the store is damaged: it is kept aside, and hvd begins anew"
head -c 12000 /dev/zero | tr '\0' x | dd of="$work/state/hvd.sqlite" bs=4096 seek=1 conv=notrunc 2>/dev/null
sum=$(md5sum <"$work/state/hvd.sqlite")
expect 1 record "$work/state"
assert_equal "the damaged store, which is to be recorded" "$sum" "$(md5sum <"$work/state/hvd.sqlite")"
hvd_start
await "a word about it" logged 'moved to .*hvd.sqlite.damaged'
assert_equal "the damaged store" "$sum" "$(md5sum <"$work/state/hvd.sqlite.damaged")"
for pid in "${fake_pids[@]}"; do kill "$pid" 2>/dev/null || true; done
ends
cli undefine p1 >/dev/null 2>&1 || true
cli define p1 --qmp "$work/qmp" --channel "$work/channel" >/dev/null
await_ready p1
tries
hvd_stop

begin "another program's database is left alone"
sqlite=$work/other/hvd.sqlite
mkdir "$work/other"
printf 'this is a text' >"$work/other/note"
cp "$work/state/hvd.sqlite" "$sqlite"
# application_id is at byte 68 of the header.
printf 'CATS' | dd of="$sqlite" bs=1 seek=68 conv=notrunc 2>/dev/null
sum=$(md5sum <"$sqlite")
expect 1 "$build/hvd/hvd" --bus "unix:path=$work/bus" --config "$work/etc/hvd.conf" --state-dir "$work/other"
assert_match "what it says" 'another program' "$err"
assert_equal "the database" "$sum" "$(md5sum <"$sqlite")"

begin "the bus goes and comes again"
hvd_start
kill -KILL "$bus_pid"
wait "$bus_pid" 2>/dev/null || true
hvd_is_gone() { ! kill -0 "$hvd_pid" 2>/dev/null; }
await "hvd's end without a bus" hvd_is_gone
code=0
wait "$hvd_pid" || code=$?
((code != 0)) || fail "hvd ends with 0 when the bus is gone: nobody would start it again"
rm -f "$work/bus"
bus_start
hvd_start
await "the partition" state_is p1 name p1
hvd_stop
echo "ok"
