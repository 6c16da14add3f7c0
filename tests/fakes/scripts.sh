# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Scripts of a QEMU of 1 GiB that can have 8 in 8 slots, and of its guest, to be sourced: a beginning, and rounds in which
# 1 GiB is added and taken away again. In both "%N" is the number that fake-fleet gives.
# shellcheck disable=SC2119,SC2120  # functions have defaults

fake_gib=1073741824
fake_base='[0,1073741824,"online","kernel",0]'

fake_device() {
    echo '{"type":"dimm","data":{"memdev":"/objects/opendlpar-mem-0","hotplugged":true,"addr":4294967296,"hotpluggable":true,"size":1073741824,"slot":0,"node":0,"id":"opendlpar-dimm-0"}}'
}

# fake_repeat COUNT <TEXT
fake_repeat() {
    local i text

    text=$(cat)
    for ((i = 0; i < $1; i++)); do
        echo "$text"
    done
}

fake_qemu_begin() {
    cat <<S
accept
greet
on qmp_capabilities reply {}
on query-status reply {"status":"running","running":true,"singlestep":false}
on query-migrate reply {}
on query-memory-size-summary reply {"base-memory":$fake_gib,"plugged-memory":0}
on qom-get reply {"size":$fake_gib,"max-size":8589934592,"slots":8}
on query-memory-devices reply []
on qom-list reply [{"name":"pc.ram","type":"child<memory-backend-ram>"}]
on query-uuid reply {"UUID":"00000000-0000-0000-0000-000000000000"}
on query-target reply {"arch":"x86_64"}
on human-monitor-command reply "0 nodes\\r\\n"
on query-balloon error DeviceNotActive No balloon device has been activated
on query-chardev reply []
S
}

fake_qemu_rounds() { # COUNT
    fake_repeat "$1" <<S
expect object-add {"qom-type":"memory-backend-ram","size":$fake_gib,"id":"opendlpar-mem-0"}
on qom-list reply [{"name":"pc.ram","type":"child<memory-backend-ram>"},{"name":"opendlpar-mem-0","type":"child<memory-backend-ram>"}]
reply
expect device_add {"driver":"pc-dimm","id":"opendlpar-dimm-0","memdev":"opendlpar-mem-0"}
on query-memory-devices reply [$(fake_device)]
on query-memory-size-summary reply {"base-memory":$fake_gib,"plugged-memory":$fake_gib}
reply
expect device_del {"id":"opendlpar-dimm-0"}
on query-memory-devices reply []
on query-memory-size-summary reply {"base-memory":$fake_gib,"plugged-memory":0}
reply
event DEVICE_DELETED {"device":"opendlpar-dimm-0","path":"/machine/peripheral/opendlpar-dimm-0"}
expect object-del {"id":"opendlpar-mem-0"}
on qom-list reply [{"name":"pc.ram","type":"child<memory-backend-ram>"}]
reply
S
}

# Where many begin at once on a busy machine hvd may have lost patience with the first connection.
fake_qemu_serve() {
    echo serve
    fake_repeat 20 <<<$'accept\ngreet\nserve'
}

fake_guest_serve() {
    echo serve
    fake_repeat 20 <<<$'accept\nhello {"capabilities":["samples"]}\nserve'
}

# With "on welcome nothing" for fake_guest_serve; what others say before they are welcomed is garbage.
fake_guest_begin() { # [STEP]
    cat <<S
accept
hello {"capabilities":["samples"]}
${1:-expect welcome}
on get-state reply
on get-blocks reply
on prepare reply
on release reply
on sample reply
S
}

fake_guest_rounds() { # COUNT
    fake_repeat "$1" <<S
expect online
on get-blocks reply {"ranges":[$fake_base,[4294967296,$fake_gib,"online","movable",0]]}
reply {"ranges":[[4294967296,$fake_gib,"online","movable",0]]}
expect offline
on get-blocks reply {"ranges":[$fake_base,[4294967296,$fake_gib,"offline","unknown",0]]}
reply {"ranges":[[4294967296,$fake_gib,"offline","unknown",0]]}
expect await-removed
on get-blocks reply {"ranges":[$fake_base]}
reply
S
}

# What a guest says that means harm, after fake_guest_begin: COUNT times 2,000 messages of each sort.
fake_guest_flood() { # KIND COUNT
    local memory='{"total_bytes":1073741824,"free_bytes":805306368,"available_bytes":838860800,"swap_total_bytes":0,"swap_free_bytes":0,"kernel_bytes":1073741824,"movable_bytes":0,"online_blocks":8,"offline_blocks":0}'

    case $1 in
        # All of it well-formed: news of nothing, answers to what was asked before, and progress of nothing.
        valid)
            fake_repeat "$2" <<S
repeat 2000 event blocks-changed
repeat 2000 send {"type":"progress","id":1,"done_bytes":1,"total_bytes":2}
repeat 2000 send {"type":"reply","id":1,"op":"get-state","memory":$memory}
repeat 2000 send {"type":"failure","id":1,"code":"internal","message":"it is all the same"}
S
            ;;
        # Of the session of another, and a line that comes byte by byte.
        stale)
            fake_repeat "$2" <<'S'
repeat 2000 send {"type":"event","session":"ffffffffffffffff","event":"blocks-changed"}
slowly send {"type":"event","session":"ffffffffffffffff","event":"blocks-changed"}
S
            ;;
    esac
}

# Begins anew each time that hvd has had enough of it, also while it was stopped.
fake_guest_garbage() { # COUNT
    local deep huge

    printf -v deep '[%.0s' {1..500}
    printf -v huge '"%1000s",' x
    {
        fake_guest_begin "on welcome nothing"
        cat <<S
wait 100
try repeat 20 raw $deep\\n
try repeat 40 raw {"type":"reply","id":1,"op":"get-blocks","ranges":[
try repeat 300 raw $huge
try repeat 200 raw nonsense\\n
expect-close
S
    } | fake_repeat "$1"
}

# A QEMU whose guest has it tell of ejections: COUNT times 2,000.
fake_qemu_flood() { # COUNT
    fake_repeat "$1" <<'S'
repeat 2000 event ACPI_DEVICE_OST {"info":{"device":"d1","source":3,"status":130,"slot":"0","slot-type":"DIMM"}}
S
}
