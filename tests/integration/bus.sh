#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# hvd and hmc-cli without any guest: coming and going, the bus, definitions, configuration, callers.
# shellcheck disable=SC2119,SC2120  # functions have defaults
set -euo pipefail
# shellcheck source=tests/integration/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

root=/org/opendlpar/hvd1
name=org.opendlpar.hvd1

# What docs/dbus.md promises, as busctl introspect prints it: name, type, signature, result.
check_interface() { # PATH INTERFACE <lines
    local seen line
    seen=$(call introspect "$name" "$1" "$2" | awk '{ print $1, $2, $3, $2 == "method" ? $4 : "" }' | sed 's/ *$//')
    while read -r line; do
        grep -qxF -- "$line" <<<"$seen" || fail "$2 lacks '$line'; it has: $seen"
    done
}

# busctl prints the message of an error alone; this prints its name too.
expect_error() { # NAME METHOD ARGUMENT...
    local wanted=$1
    shift
    expect 1 dbus-send --bus="unix:path=$work/bus" --print-reply --dest="$name" "$root" "$@"
    assert_match "the error of $*" "$wanted" "$err"
}

bus_start
begin "without hvd, hmc-cli says so"
expect 3 cli list
assert_match "what is said" 'not reachable' "$err"
expect 3 cli -o json list
assert_equal "the code" hvd-unreachable "$(jq -r .error.code <<<"$out")"
expect 3 "$build/hmc-cli/hmc-cli" --bus "unix:path=$work/nobus" list
expect 2 cli
expect 0 cli --help
expect 0 cli --version

begin "command lines of hvd"
expect 0 "$build/hvd/hvd" --help
expect 0 "$build/hvd/hvd" --version
expect 2 "$build/hvd/hvd" --bogus
expect 2 "$build/hvd/hvd" word
expect 2 "$build/hvd/hvd" --log-level loud
expect 1 "$build/hvd/hvd" --bus "unix:path=$work/nobus" --state-dir "$work/state0"

begin "hvd starts"
hvd_start
expect 0 cli list
expect 0 cli -o json list
assert_equal "partitions" "[]" "$out"
expect 0 cli -o json jobs
assert_equal "jobs" "[]" "$out"
expect 0 cli -o json pool
assert_equal "the pool is of numbers" true "$(jq '.pool_total > 0 and .pool_free <= .pool_total' <<<"$out")"

begin "a second hvd on the bus does not start"
expect 1 "$build/hvd/hvd" --bus "unix:path=$work/bus" --state-dir "$work/state2"
assert_match "what it says" "$name" "$out$err"

begin "the bus is as documented"
expect 0 cli define web1 --qmp "$work/web1.qmp" --channel "$work/web1.channel" --min 1G --desired 2G --max 8G --weight 10
check_interface "$root" "$name.Manager" <<'E1'
.AddPartition method sa{sv} o
.RemovePartition method s -
.GetPartition method s o
.ListPartitions method - asa(sssssstttttxtttuttdtuua(ssttuuttttsuutt)a(ttbbtttt)a(utt)s)
.ListJobs method - asa(usssststtdttttttta(ssss)a(st)sasas)
.MoveMemory method ssta{sv} o
.Reserve method sta{sv} u
.ReleaseReservation method u -
.ListDecisions method su a(ttssss)
.ExplainDecision method t s
.JobNew signal uo
.JobRemoved signal uos
.PolicyDecided signal sssttsss
.Version property s
.PolicyMode property s
.PoolTotal property t
.PoolReserved property t
.PoolCurrent property t
.PoolRequested property t
.PoolReservations property t
.PoolFree property t
.Reservations property a(ustb)
E1
path=$(call call "$name" "$root" "$name.Manager" GetPartition s web1 | cut -d '"' -f 2)
assert_equal "the path of web1" "$root/partition/web1" "$path"
check_interface "$path" "$name.Partition" <<'E1'
.AddMemory method ta{sv} o
.RemoveMemory method ta{sv} o
.SetMemory method ta{sv} o
.SetProfile method a{sv} -
.Survey method - a(ttssusu)
.GetUsage method u a(st)
.Explain method - s
.MemoryMap method t ttsa(ttssusussttttttttt)
.Name property s
.Uuid property s
.Architecture property s
.Platform property s
.State property s
.AgentState property s
.BaseBytes property t
.PluggedBytes property t
.BalloonBytes property t
.CurrentBytes property t
.RequestedBytes property t
.PendingBytes property x
.MinBytes property t
.DesiredBytes property t
.MaxBytes property t
.Weight property u
.TotalBytes property t
.AvailableBytes property t
.Pressure property d
.BlockBytes property t
.SlotsTotal property u
.SlotsUsed property u
.Devices property a(ssttuuttttsuutt)
.Balloon property a(ttbbtttt)
.Nodes property a(utt)
.PolicyMode property s
E1
assert_match "the ObjectManager" 'GetManagedObjects' "$(call introspect "$name" "$root")"
assert_match "managed objects" "$path" "$(call call "$name" "$root" org.freedesktop.DBus.ObjectManager GetManagedObjects)"

begin "what is defined is shown, and kept"
expect 0 cli -o json show web1
shown=$out
expect 0 cli -o json list
assert_equal "web1 in the list, with the properties of GetAll" "$(jq -S 'del(.blocks, .survey_error, .usage)' <<<"$shown")" \
    "$(jq -S '.[] | select(.name == "web1")' <<<"$out")"
out=$shown
assert_equal "web1" "web1 absent absent 1073741824 2147483648 10" \
    "$(jq -r '"\(.name) \(.state) \(.agent_state) \(.min_bytes) \(.desired_bytes) \(.weight)"' <<<"$out")"
expect 0 cli show web1
expect 0 cli define Odd.name-2_x --qmp "$work/odd.qmp" --channel "$work/odd.channel"
hvd_stop
hvd_start
expect 0 cli -o json list
assert_equal "partitions after a restart" "Odd.name-2_x web1" "$(jq -r '[.[].name] | join(" ")' <<<"$out")"
assert_equal "the profile after a restart" "1073741824 2147483648 10" \
    "$(jq -r '.[1] | "\(.min_bytes) \(.desired_bytes) \(.weight)"' <<<"$out")"
hvd_stop KILL
hvd_start
assert_equal "partitions after a kill" 2 "$(cli -o json list | jq length)"

begin "definitions that are refused"
expect 1 cli -o json define web1 --qmp "$work/x" --channel "$work/y"
assert_equal "code" partition-exists "$(jq -r .error.code <<<"$out")"
expect "1|2" cli define web2 --qmp "$work/web1.qmp" --channel "$work/y"
expect "1|2" cli define web2 --qmp "$work/x"
expect "1|2" cli define web2 --qmp "$work/x" --channel "$work/x"
expect 1 call call "$name" "$root" "$name.Manager" AddPartition 'sa{sv}' web2 2 qmp s x channel s "$work/y"
expect "1|2" cli define web2 --qmp "$work/x" --channel "$work/y" --min 4G --max 2G
expect "1|2" cli define '' --qmp "$work/x" --channel "$work/y"
expect "1|2" cli define .web2 --qmp "$work/x" --channel "$work/y"
expect "1|2" cli define "$(printf 'x%.0s' {1..64})" --qmp "$work/x" --channel "$work/y"
expect "1|2" cli define web2 --qmp "/$(printf 'x%.0s' {1..120})" --channel "$work/y"
expect 1 cli -o json undefine web2
assert_equal "code" unknown-partition "$(jq -r .error.code <<<"$out")"
assert_equal "partitions after all that" 2 "$(cli -o json list | jq length)"
expect_error "$name.Error.UnknownPartition" "$name.Manager.GetPartition" string:nobody
expect_error "$name.Error.UnknownPartition" "$name.Manager.RemovePartition" string:nobody
assert_equal "partitions after all that" 2 "$(cli -o json list | jq length)"

begin "unknown options on the bus are refused, not passed over"
expect 1 call call "$name" "$root" "$name.Manager" AddPartition 'sa{sv}' web3 3 qmp s "$work/x" channel s "$work/y" bogus s z
expect 1 call call "$name" "$root" "$name.Manager" AddPartition 'sa{sv}' web3 2 qmp t 5 channel s "$work/y"
expect 1 call call "$name" "$path" "$name.Partition" AddMemory 'ta{sv}' 1073741824 1 bogus b true
expect 1 call call "$name" "$path" "$name.Partition" AddMemory 'ta{sv}' 0 0
expect 1 call call "$name" "$path" "$name.Partition" AddMemory 'ta{sv}' 1073741824 1 zone s normal
assert_equal "partitions after all that" 2 "$(cli -o json list | jq length)"

begin "a profile is changed, kept, and checked"
expect 0 cli -o json profile web1 --min 512M --max none --weight 20
assert_equal "web1's profile" '{"partition":"web1","min_bytes":536870912,"desired_bytes":2147483648,"max_bytes":0,"weight":20,"policy_mode":"observe"}' \
    "$(jq -c . <<<"$out")"
expect 1 cli -o json profile web1 --max 256M
assert_match "the limit is named" 'make (min|desired) at most 256M' "$(jq -r .error.message <<<"$out")"
expect 1 cli -o json profile web1 --min 4G
assert_match "the limit is named" 'make min at most 2G' "$(jq -r .error.message <<<"$out")"
expect 1 cli -o json profile web1 --desired 256M
assert_match "the limit is named" 'make min at most 256M' "$(jq -r .error.message <<<"$out")"
for weight in 0 256; do
    expect 1 cli -o json profile web1 --weight "$weight"
    assert_match "the range is named" '1 to 255' "$(jq -r .error.message <<<"$out")"
done
expect 2 cli profile web1 --weight -1
expect 2 cli profile web1 --min 5
expect 1 cli -o json profile nobody --min 1G
assert_equal "code" unknown-partition "$(jq -r .error.code <<<"$out")"
expect 1 call call "$name" "$path" "$name.Partition" SetProfile 'a{sv}' 1 bogus t 5
hvd_stop
hvd_start
expect 0 cli profile web1
assert_match "what is shown" 'min +512 MiB.*desired +2 GiB.*max +not known.*weight +20' "${out//$'\n'/ }"

begin "the policy's modes are set, kept, and checked"
policy_modes() { # "HOST OF-WEB1"
    cli -o json policy | jq -r '.policy_mode + " " + (.partitions[] | select(.name == "web1").policy_mode)'
}
assert_equal "the modes by default" "observe observe" "$(policy_modes)"
expect 0 cli policy auto
assert_match "what is shown" 'policy: auto - .*web1 +auto' "${out//$'\n'/ }"
expect 0 cli -o json profile web1 --policy observe
assert_equal "the mode of web1" observe "$(jq -r .policy_mode <<<"$out")"
expect 2 cli policy loud
assert_match "what there is" 'off, observe and auto' "$err"
expect 2 cli policy host
expect 2 cli profile web1 --policy loud
expect 1 cli -o json profile nobody --policy auto
assert_equal "code" unknown-partition "$(jq -r .error.code <<<"$out")"
for object in "$root $name.Manager" "$path $name.Partition"; do
    # shellcheck disable=SC2086  # words
    expect 1 call set-property "$name" $object PolicyMode s loud
    assert_match "what there is" 'off, observe' "$err"
done
assert_equal "the modes after all that" "auto observe" "$(policy_modes)"
hvd_stop
hvd_start
assert_equal "the modes after a restart" "auto observe" "$(policy_modes)"
expect 0 cli profile web1 --policy host
assert_equal "the host's mode" "auto auto" "$(policy_modes)"
expect 0 cli explain web1
assert_match "why there is no decision" "Its QEMU does not run" "$out"
expect 0 cli profile web1 --policy auto
expect 0 cli policy off
assert_equal "off is for all" "off off" "$(policy_modes)"
expect 0 cli -o json explain web1
assert_equal "what is explained" "web1 off null" "$(jq -r '"\(.partition) \(.mode) \(.decision)"' <<<"$out")"
expect 1 cli -o json explain nobody
assert_equal "code" unknown-partition "$(jq -r .error.code <<<"$out")"
"$build/hmc-cli/hmc-cli" --bus "unix:path=$work/bus" -o json watch >"$work/watched" &
watcher=$!
watched() { # JQ-FILTER: of some line
    jq -es "any(.[]; $1)" "$work/watched" >/dev/null
}
await "the partition as it is" watched '.event == "partition" and .name == "web1" and .policy_mode == "off"'
expect 0 cli profile web1 --policy host
expect 0 cli policy observe
await "its new mode" watched '.event == "partition" and .name == "web1" and .policy_mode == "observe"'
cli define web9 --qmp "$work/web9.qmp" --channel "$work/web9.channel" >/dev/null
expect 0 cli profile web9 --policy off
await "one that was defined meanwhile" watched '.event == "partition" and .name == "web9" and .policy_mode == "off"'
! watched '.event == "partition" and .name == null' || fail "watch tells of a partition without a name"
cli undefine web9 >/dev/null
kill -TERM "$watcher"
wait "$watcher" || fail "watch ended with $?"
"$build/hmc-cli/hmc-cli" --bus "unix:path=$work/bus" watch >"$work/watched" &
watcher=$!
await "a line" grep -q 'web1: absent, policy observe' "$work/watched"
hvd_stop
code=0
wait "$watcher" || code=$?
assert_equal "how watch ends without hvd" 3 "$code"
expect 3 cli watch
hvd_start

begin "reservations belong to the connection that made them"
manager=("$name" "$root" "$name.Manager")
free() {
    cli -o json pool | jq .pool_free
}
free_is() {
    [[ $(free) == "$1" ]]
}
all=$(free)
expect 0 call call "${manager[@]}" Reserve 'sta{sv}' web7 1073741824 0
await "the end of the reservation with its connection" free_is "$all"
expect 0 call call "${manager[@]}" Reserve 'sta{sv}' web7 1073741824 2 keep b true timeout-usec t 600000000
id=${out#u }
assert_equal "what is free" $((all - 1073741824)) "$(free)"
expect 0 cli -o json pool
assert_equal "the reservation" "[{\"id\":$id,\"owner\":\"web7\",\"bytes\":1073741824,\"held\":true}]" \
    "$(jq -c .reservations <<<"$out")"
expect 0 cli pool
assert_match "the reservation" "$id +web7 +1 GiB +held" "$out"
expect 0 call call "${manager[@]}" ReleaseReservation u "$id"
assert_equal "what is free" "$all" "$(free)"
expect 1 call call "${manager[@]}" ReleaseReservation u "$id"
expect 0 call call "${manager[@]}" Reserve 'sta{sv}' web7 1073741824 2 keep b true timeout-usec t 100000
await "the end of its time" free_is "$all"
for bad in "web7 $((all + 1)) 0" "web7 0 0" "web.7/x 1 0" "web7 1 1 bogus b true" "web7 1 1 timeout-usec t 5" \
    "web7 1 2 keep b true timeout-usec t 0" "web7 1 1 wait-usec t 99999999999999"; do
    # shellcheck disable=SC2086  # words
    expect 1 call call "${manager[@]}" Reserve 'sta{sv}' $bad
done
expect 1 call call "${manager[@]}" Reserve 'sta{sv}' web7 $((all + 1)) 0
assert_match "the figures" 'is missing in the pool of' "$err"
assert_equal "what is free" "$all" "$(free)"

begin "no QEMU: refused, and nothing queued"
expect 1 cli -o json set-memory web1 1G
assert_match "code" 'hypervisor-absent|not-running' "$out"
expect 1 cli -o json move-memory web1 Odd.name-2_x 1G
assert_match "code" 'hypervisor-absent|not-running' "$out"
expect 1 cli -o json move-memory web1 nobody 1G
assert_equal "code" unknown-partition "$(jq -r .error.code <<<"$out")"
expect 1 cli -o json move-memory nobody web1 1G
assert_equal "code" unknown-partition "$(jq -r .error.code <<<"$out")"
expect 2 cli move-memory web1 web1 1G
expect 1 call call "${manager[@]}" MoveMemory 'ssta{sv}' web1 web1 1073741824 0
expect 1 call call "${manager[@]}" MoveMemory 'ssta{sv}' web1 Odd.name-2_x 1073741824 1 return s home
expect 1 cli -o json add-memory web1 1G
assert_match "code" 'hypervisor-absent|not-running' "$out"
expect 1 cli add-memory web1 1G
assert_match "the sentence" "web1.qmp|QEMU" "$out$err"
expect 1 cli -o json remove-memory web1 1G

begin "undefining"
expect 0 cli undefine Odd.name-2_x
expect 1 cli show Odd.name-2_x
hvd_stop
hvd_start
assert_equal "partitions" 1 "$(cli -o json list | jq length)"

begin "others may read, and change nothing"
if ((EUID == 0)) && command -v setpriv >/dev/null; then
    chmod 755 "$work"
    chmod 666 "$work/bus"
    other() {
        setpriv --reuid=65534 --regid=65534 --clear-groups "$work/hmc-cli" --bus "unix:path=$work/bus" "$@"
    }
    cp "$build/hmc-cli/hmc-cli" "$work/"
    expect 0 other list
    expect 0 other show web1
    expect 0 other policy
    expect 0 other explain web1
    for command in "undefine web1" "define web9 --qmp /tmp/q --channel /tmp/c" "add-memory web1 1G" "remove-memory web1 1G" \
        "set-memory web1 1G" "move-memory web1 web1x 1G" "profile web1 --min 1G" "profile web1 --policy auto" "policy auto"; do
        # shellcheck disable=SC2086  # words
        expect 1 other -o json $command
        assert_equal "code of '$command'" denied "$(jq -r .error.code <<<"$out")"
    done
    assert_equal "partitions" 1 "$(cli -o json list | jq length)"
else
    echo "       (not root: left out)"
fi

begin "a configuration is read again on SIGHUP, and a bad one is refused whole"
mkdir -p "$work/etc/partitions.d" "$work/etc/hvd.conf.d"
printf '[partition]\nqmp = %s\nchannel = %s\nmax = 4G\n' "$work/f.qmp" "$work/f.channel" >"$work/etc/partitions.d/file1.conf"
kill -HUP "$hvd_pid"
await "the partition of a file" state_is file1 name file1
printf '[partition]\nqmp = %s\nchannel = %s\n' "$work/g.qmp" "$work/g.channel" >"$work/etc/partitions.d/file2.conf"
bad() { # FILE LINE TEXT: written, refused with file and line, taken away
    printf '%b' "$3" >"$work/etc/$1"
    : >"$work/hvd.log"
    kill -HUP "$hvd_pid"
    await "a complaint about $1:$2" logged "$1:$2: "
    assert_equal "partitions while $1 is bad" "file1 web1" "$(cli -o json list | jq -r '[.[].name] | join(" ")')"
    expect 1 "$build/hvd/hvd" --bus "unix:path=$work/bus" --config "$work/etc/hvd.conf" --state-dir "$work/state3"
    assert_match "what a start with it says" "$1:$2: " "$out$err"
    rm "$work/etc/$1"
}
bad hvd.conf.d/10-a.conf 2 '[hvd]\nbogus = 1\n'
bad hvd.conf.d/10-a.conf 3 '[hvd]\n\nlog_level = loud\n'
bad hvd.conf.d/10-a.conf 1 '[other]\n'
bad hvd.conf.d/10-a.conf 3 '[policy]\nmode = auto\nquiet = 1ms\n'
bad hvd.conf.d/10-a.conf 2 '[policy]\nmode = sometimes\n'
bad hvd.conf.d/10-a.conf 2 '[policy]\nbogus = 1\n'
bad hvd.conf.d/10-a.conf 2 '[hvd]\npool_reserve = 5\n'
bad partitions.d/bad.conf 2 '[partition]\nqmp = relative\nchannel = /tmp/c\n'
bad partitions.d/bad.conf 1 '[partition]\nqmp = /tmp/q\n'
bad partitions.d/bad.conf 4 '[partition]\nqmp = /tmp/q\nchannel = /tmp/c\nqmp = /tmp/r\n'
kill -HUP "$hvd_pid"
await "the second file's partition" state_is file2 name file2
rm "$work/etc/partitions.d/file1.conf"
kill -HUP "$hvd_pid"
gone() { [[ -z $(partition file1 .name) ]]; }
await "the end of the first file's partition" gone
assert_equal "partitions" "file2 web1" "$(cli -o json list | jq -r '[.[].name] | join(" ")')"
expect 1 cli undefine file2
assert_match "what is said of a partition of a file" 'file2' "$err"

begin "a configuration that is missing or no file"
expect 1 "$build/hvd/hvd" --bus "unix:path=$work/bus" --config "$work/etc/none.conf" --state-dir "$work/state3"
assert_match "what it says" "none.conf" "$out$err"
expect 1 "$build/hvd/hvd" --bus "unix:path=$work/bus" --config "$work/etc" --state-dir "$work/state3"

begin "signals end it in order"
hvd_stop INT
hvd_start
hvd_stop TERM
expect 3 cli list
echo "ok"
