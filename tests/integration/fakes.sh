#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# hvd before a QEMU and a guest that fail in ways that real ones do not on demand. The fakes fail on what they did
# not expect, so that a script is also a record of what hvd may say.
# shellcheck disable=SC2119,SC2120  # functions have defaults
set -euo pipefail
# shellcheck source=tests/integration/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

GiB=1073741824

# The standing orders of a QEMU of 1 GiB that can have 8, in 8 slots.
qemu_orders() {
    cat <<S
negotiate
on query-status reply {"status":"running","running":true,"singlestep":false}
on query-migrate reply {}
on query-memory-size-summary reply {"base-memory":$GiB,"plugged-memory":0}
on qom-get reply {"size":$GiB,"max-size":8589934592,"slots":8}
on query-memory-devices reply []
on qom-list reply [{"name":"type","type":"string"},{"name":"pc.ram","type":"child<memory-backend-ram>"}]
on query-uuid reply {"UUID":"00000000-0000-0000-0000-000000000000"}
on query-target reply {"arch":"x86_64"}
on query-balloon error DeviceNotActive No balloon device has been activated
on query-chardev reply [{"label":"guestd","filename":"disconnected:unix:$work/channel,server=on","frontend-open":true}]
S
}

guest_orders() {
    cat <<'S'
begin
on get-state reply
on get-blocks reply
on prepare reply
on release reply
S
}

define() {
    cli define p1 --qmp "$work/qmp" --channel "$work/channel" >/dev/null
}

undefine() {
    cli undefine p1 >/dev/null
}

ready() {
    await "QEMU" state_is p1 state running
    await "guestd" state_is p1 agent_state ready
}

bus_start
hvd_start

begin "a QEMU and a guest are met"
qemu_orders >"$work/s"; echo serve >>"$work/s"; fake fake-qmp qmp <"$work/s"; qmp=$fake_pid
guest_orders >"$work/s"; echo serve >>"$work/s"; fake fake-guest channel <"$work/s"; guest=$fake_pid
define
ready
assert_equal "what is known of it" "$GiB 0 8589934592 8 134217728" \
    "$(partition p1 '"\(.base_bytes) \(.plugged_bytes) \(.max_bytes) \(.slots_total) \(.block_bytes)"')"

begin "QEMU refuses a device: its backend is deleted"
undefine
fake_end "$guest" channel
fake_end "$qmp" qmp
{
    qemu_orders
    cat <<'S'
expect object-add {"qom-type":"memory-backend-ram","size":1073741824}
reply
expect device_add {"driver":"pc-dimm"}
error GenericError no slots, says this QEMU
expect object-del
reply
serve
S
} >"$work/s"; fake fake-qmp qmp <"$work/s"; qmp=$fake_pid
guest_orders >"$work/s"; echo serve >>"$work/s"; fake fake-guest channel <"$work/s"; guest=$fake_pid
define
ready
expect 1 cli -o json add-memory p1 1G --wait 10s
assert_match "the reason" 'says this QEMU' "$out"
assert_match "its code" 'hypervisor-refused' "$out"
undefine
fake_end "$guest" channel
fake_end "$qmp" qmp

begin "QEMU refuses a backend: that is the reason, and there is nothing to delete"
{
    qemu_orders
    cat <<'S'
on object-add error GenericError cannot set up guest memory
on device_add error GenericError no such memdev
serve
S
} >"$work/s"; fake fake-qmp qmp <"$work/s"; qmp=$fake_pid
guest_orders >"$work/s"; echo serve >>"$work/s"; fake fake-guest channel <"$work/s"; guest=$fake_pid
define
ready
expect 1 cli -o json add-memory p1 1G --wait 10s
assert_match "the reason" 'cannot set up guest memory' "$out"
undefine
fake_end "$guest" channel
fake_end "$qmp" qmp

begin "QEMU goes away in the middle of a reply"
{
    qemu_orders
    cat <<'S'
expect object-add
half reply
close
S
} >"$work/s"; fake fake-qmp qmp <"$work/s"; qmp=$fake_pid
guest_orders >"$work/s"; echo serve >>"$work/s"; fake fake-guest channel <"$work/s"; guest=$fake_pid
define
ready
expect 1 cli -o json add-memory p1 1G --wait 10s
assert_match "the reason" 'hypervisor-(absent|silent|misbehaved)' "$out"
fake_done "$qmp" qmp
await "the state without QEMU" state_is p1 state absent
begin "and comes back"
qemu_orders >"$work/s"; echo serve >>"$work/s"; fake fake-qmp qmp <"$work/s"; qmp=$fake_pid
await "the state with QEMU" state_is p1 state running
undefine
fake_end "$guest" channel
fake_end "$qmp" qmp

begin "QEMU says nothing, nonsense, or too much"
for words in 'wait 100' 'raw HTTP/1.1 400 Bad Request\r\n\r\n' 'raw {"QMP":1}\n' 'raw {"QMP":{}}{"QMP":{}}\n' 'repeat 5000 raw xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'; do
    printf 'accept\n%s\nwait 300\n' "$words" >"$work/s"; fake fake-qmp qmp <"$work/s"; qmp=$fake_pid
    define
    await "the end of the script '$words'" fake_has_ended "$qmp"
    fake_forget "$qmp"
    assert_match "state" absent "$(partition p1 .state)"
    undefine
done
kill -0 "$hvd_pid" || fail "hvd has ended"

begin "a guest that says nothing"
qemu_orders >"$work/s"; echo serve >>"$work/s"; fake fake-qmp qmp <"$work/s"; qmp=$fake_pid
printf 'accept\nserve\n' >"$work/s"; fake fake-guest channel <"$work/s"; guest=$fake_pid
define
await "QEMU" state_is p1 state running
await "the guest's channel" state_is p1 agent_state waiting
expect 1 cli -o json add-memory p1 1G --wait 2s
assert_match "the reason" 'agent-(absent|silent)' "$out"
undefine
fake_end "$guest" channel

begin "a guest that speaks none of our versions: it is told"
printf 'accept\nhello {"version":9,"version_min":8}\nexpect refuse {"code":"agent-too-old"}\nserve\n' >"$work/s"
fake fake-guest channel <"$work/s"; guest=$fake_pid
define
await "the verdict" state_is p1 agent_state too-old
expect 1 cli -o json add-memory p1 1G --wait 2s
assert_match "the reason" 'agent-too-old' "$out"
undefine
fake_end "$guest" channel

begin "a guest that sends garbage, lines without end, and frames out of order"
for words in 'repeat 200 raw nonsense\n' 'repeat 3000 raw xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'; do
    printf 'accept\n%s\nserve\n' "$words" >"$work/s"; fake fake-guest channel <"$work/s"; guest=$fake_pid
    define
    sleep 0.5
    assert_match "the verdict on '$words'" 'misbehaving|waiting|absent' "$(partition p1 .agent_state)"
    expect 1 cli -o json add-memory p1 1G --wait 1s
    assert_match "the reason" 'agent-(misbehaved|silent|absent)' "$out"
    undefine
    kill -KILL "$guest"; wait "$guest" 2>/dev/null || true; fake_forget "$guest"
done
{
    guest_orders
    cat <<'S'
send {"type":"reply","id":4000000,"op":"get-state"}
send {"type":"progress","id":4000001,"done_bytes":1,"total_bytes":2}
send {"type":"failure","id":4000002,"code":"internal","message":"from the past"}
send {"type":"reply","id":3,"op":"offline","complete":true,"session":"ffffffffffffffff"}
event blocks-changed
serve
S
} >"$work/s"; fake fake-guest channel <"$work/s"; guest=$fake_pid
define
ready
sleep 0.3
state_is p1 agent_state ready || fail "late words ended the session"
undefine
fake_end "$guest" channel
fake_end "$qmp" qmp

begin "a guest that never brings its blocks online: the device is withdrawn"
# hvd names what it makes; the first is always the same.
id=opendlpar-dimm-0
device='[{"type":"dimm","data":{"memdev":"/objects/opendlpar-mem-0","hotplugged":true,"addr":4294967296,"hotpluggable":true,"size":1073741824,"slot":0,"node":0,"id":"opendlpar-dimm-0"}}]'
{
    qemu_orders
    cat <<S
expect object-add {"qom-type":"memory-backend-ram","size":$GiB,"id":"opendlpar-mem-0"}
reply
on query-memory-devices reply $device
on query-memory-size-summary reply {"base-memory":$GiB,"plugged-memory":$GiB}
expect device_add {"driver":"pc-dimm","id":"$id","memdev":"opendlpar-mem-0"}
reply
expect device_del {"id":"$id"}
reply
on query-memory-devices reply []
on query-memory-size-summary reply {"base-memory":$GiB,"plugged-memory":0}
event DEVICE_DELETED {"device":"$id","path":"/machine/peripheral/$id"}
expect object-del {"id":"opendlpar-mem-0"}
reply
serve
S
} >"$work/s"; fake fake-qmp qmp <"$work/s"; qmp=$fake_pid
{
    guest_orders
    cat <<'S'
expect online
reply {"complete":false,"ranges":[[4294967296,1073741824,"offline","unknown",0]],"failures":[{"start":4294967296,"length":1073741824,"code":"block-failed","message":"it stayed offline"}]}
on offline reply {"ranges":[[4294967296,1073741824,"offline","unknown",0]]}
on await-removed reply
on online reply
serve
S
} >"$work/s"; fake fake-guest channel <"$work/s"; guest=$fake_pid
define
ready
expect 1 cli -o json add-memory p1 1G --wait 10s
assert_match "the reason" 'stayed offline|block-failed' "$out"
undefine
fake_end "$guest" channel
fake_end "$qmp" qmp

hvd_stop
echo "ok"
