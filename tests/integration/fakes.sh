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

# --- the two ends; what they do beyond this comes from standard input ---

# A QEMU of 1 GiB that can have 8, in 8 slots.
qemu() {
    fake fake-qmp qmp < <(
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
on human-monitor-command reply "0 nodes\\r\\n"
on query-balloon error DeviceNotActive No balloon device has been activated
on query-chardev reply [{"label":"guestd","filename":"disconnected:unix:$work/channel,server=on","frontend-open":true}]
S
        cat
        echo serve
    )
    qmp=$fake_pid
}

plain_qemu() {
    qemu </dev/null
}

# A guest that begins as one should.
guest() {
    fake fake-guest channel < <(
        cat <<'S'
begin
on get-state reply
on get-blocks reply
on prepare reply
on release reply
S
        cat
        echo serve
    )
    guest=$fake_pid
}

plain_guest() {
    guest </dev/null
}

# A guest of another kind.
odd_guest() {
    fake fake-guest channel
    guest=$fake_pid
}

define() {
    cli define p1 --qmp "$work/qmp" --channel "$work/channel" >/dev/null
}

ready() {
    define
    await_ready p1
}

# over: hvd lets go, and neither fake saw anything that it did not expect.
over() {
    cli undefine p1 >/dev/null
    fake_end "$guest" channel
    fake_end "$qmp" qmp
}

add() { # CODE-OF-THE-REASON TEXT
    expect 1 cli -o json add-memory p1 1G --wait 5s
    assert_match "the code" "\"code\":\"$1\"" "$out"
    assert_match "the reason" "$2" "$out"
    assert_equal "bytes that were added" 0 "$(jq '.done_bytes // 0' <<<"$out")"
}

bus_start
hvd_start

begin "a QEMU and a guest are met"
plain_qemu
plain_guest
ready
assert_equal "what is known of it" "$GiB 0 8589934592 8 134217728" \
    "$(partition p1 '"\(.base_bytes) \(.plugged_bytes) \(.max_bytes) \(.slots_total) \(.block_bytes)"')"
over

# --- QEMU ---

begin "QEMU refuses a device: its backend is deleted"
qemu <<'S'
expect object-add {"qom-type":"memory-backend-ram","size":1073741824,"id":"opendlpar-mem-0"}
reply
expect device_add {"driver":"pc-dimm","memdev":"opendlpar-mem-0"}
error GenericError no slots, says this QEMU
expect object-del {"id":"opendlpar-mem-0"}
reply
S
plain_guest
ready
add hypervisor-refused 'says this QEMU'
over

begin "QEMU refuses a backend: that is the reason, and there is nothing to delete"
qemu <<'S'
on object-add error GenericError cannot set up guest memory
on device_add error GenericError no such memdev
S
plain_guest
ready
add hypervisor-refused 'cannot set up guest memory'
over

begin "QEMU does not even delete the backend"
qemu <<'S'
on object-add reply
on device_add error GenericError no slots, says this QEMU
on object-del error GenericError object is in use
S
plain_guest
ready
add hypervisor-refused 'says this QEMU.*in use'
over

begin "QEMU goes away in the middle of a reply, and comes back"
qemu <<'S'
on device_add nothing
expect object-add
half reply
close
S
plain_guest
ready
add 'hypervisor-(absent|silent|misbehaved)' .
await "the state without QEMU" state_is p1 state absent
kill "$qmp" 2>/dev/null || true # it listens no more, or waits for another connection
wait "$qmp" || true
fake_forget "$qmp"
plain_qemu
await "the state with QEMU" state_is p1 state running
over

begin "QEMU says nothing, nonsense, or too much"
for words in 'wait 100' 'raw HTTP/1.1 400 Bad Request\r\n\r\n' 'raw {"QMP":1}\n' 'raw {"QMP":{}}{"QMP":{}}\n' \
    'repeat 100000 raw xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'; do
    printf 'accept\n%s\nwait 300\n' "$words" >"$work/words"
    fake fake-qmp qmp <"$work/words"
    define
    await "the end of the script '$words'" fake_has_ended "$fake_pid"
    fake_forget "$fake_pid"
    assert_match "the state" absent "$(partition p1 .state)"
    cli undefine p1 >/dev/null
done
hvd_answers

# --- the guest ---

begin "a guest that says nothing"
plain_qemu
odd_guest <<'S'
accept
serve
S
define
await "QEMU" state_is p1 state running
await "the guest's channel" state_is p1 agent_state waiting
add 'agent-(absent|silent)' guestd
over

begin "a guest that speaks none of our versions: it is told"
plain_qemu
odd_guest <<'S'
accept
hello {"version":9,"version_min":8}
expect refuse {"code":"agent-too-old"}
serve
S
define
await "the verdict" state_is p1 agent_state too-old
await "QEMU" state_is p1 state running
add agent-too-old .
over

begin "a guest that sends garbage"
plain_qemu
odd_guest <<'S'
accept
repeat 200 raw nonsense\n
expect-close
S
define
await "QEMU" state_is p1 state running
await "the verdict" state_is p1 agent_state misbehaving
add agent-misbehaved .
over

begin "a guest that sends a line without end"
plain_qemu
odd_guest <<'S'
accept
repeat 200000 raw xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
expect-close
S
define
await "QEMU" state_is p1 state running
await "a word about it" logged "line beyond the limit"
add 'agent-(absent|silent|misbehaved)' .
# It may have much to say yet, and sees the end of the connection behind that.
cli undefine p1 >/dev/null
fake_done "$guest" channel
fake_end "$qmp" qmp

begin "a guest that answers what was not asked, late, and for another session"
plain_qemu
guest <<'S'
send {"type":"reply","id":4000000,"op":"get-state"}
send {"type":"progress","id":4000001,"done_bytes":1,"total_bytes":2}
send {"type":"failure","id":4000002,"code":"internal","message":"from the past"}
send {"type":"reply","id":3,"op":"offline","complete":true,"session":"ffffffffffffffff"}
send {"type":"welcome","nonce":"0011223344556677","version":1}
event blocks-changed
S
ready
sleep 0.5
state_is p1 agent_state ready || fail "odd words ended the session"
over

begin "a guest that begins anew in the middle of a job"
qemu <<'S'
on object-add reply
on device_add reply
on object-del reply
S
guest <<'S'
on prepare nothing
on cancel reply
expect prepare
hello {"nonce":"ffeeddccbbaa9988"}
expect welcome
S
ready
expect "1" cli -o json add-memory p1 1G --wait 4s
assert_match "the reason" '"code":"(agent-restarted|agent-silent|deadline)"' "$out"
over

begin "a guest that refuses to prepare: nothing is plugged, and no backend stays"
qemu <<'S'
expect object-add {"id":"opendlpar-mem-0"}
reply
expect object-del {"id":"opendlpar-mem-0"}
reply
S
guest <<'S'
on prepare failure block-failed no auto_online_blocks in this kernel
S
ready
add block-failed 'this kernel'
over

begin "a guest that never brings its blocks online: the device is withdrawn"
device='{"type":"dimm","data":{"memdev":"/objects/opendlpar-mem-0","hotplugged":true,"addr":4294967296,"hotpluggable":true,"size":1073741824,"slot":0,"node":0,"id":"opendlpar-dimm-0"}}'
qemu <<S
expect object-add {"qom-type":"memory-backend-ram","size":$GiB,"id":"opendlpar-mem-0"}
reply
on query-memory-devices reply [$device]
on query-memory-size-summary reply {"base-memory":$GiB,"plugged-memory":$GiB}
on qom-list reply [{"name":"pc.ram","type":"child<memory-backend-ram>"},{"name":"opendlpar-mem-0","type":"child<memory-backend-ram>"}]
expect device_add {"driver":"pc-dimm","id":"opendlpar-dimm-0","memdev":"opendlpar-mem-0"}
reply
expect device_del {"id":"opendlpar-dimm-0"}
reply
on query-memory-devices reply []
on query-memory-size-summary reply {"base-memory":$GiB,"plugged-memory":0}
event DEVICE_DELETED {"device":"opendlpar-dimm-0","path":"/machine/peripheral/opendlpar-dimm-0"}
expect object-del {"id":"opendlpar-mem-0"}
on qom-list reply [{"name":"pc.ram","type":"child<memory-backend-ram>"}]
reply
S
guest <<'S'
on online reply {"complete":false,"ranges":[[4294967296,1073741824,"offline","unknown",0]],"failures":[{"start":4294967296,"length":1073741824,"code":"block-failed","message":"it stayed offline"}]}
on offline reply {"ranges":[[4294967296,1073741824,"offline","unknown",0]]}
on await-removed reply
S
ready
add block-failed 'stayed offline'
assert_equal "plugged" 0 "$(partition p1 .plugged_bytes)"
over

hvd_stop
echo "ok"
