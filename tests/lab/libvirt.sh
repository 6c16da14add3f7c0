#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A domain of a real libvirtd: memory comes and leaves and the XML agrees, nothing of ours taints it; what virsh does is
# seen; libvirtd is killed in the middle of an addition and of a removal; a domain is enrolled; the hook lets a guest
# start without hvd.
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=tests/lab/libvirt-lib.sh
. "${BASH_SOURCE[0]%/*}/libvirt-lib.sh"

# current_is NAME BYTES: by libvirt, without what the balloon has taken.
current_is() {
    [[ $(virsh_ dumpxml "$1" --xpath '/domain/currentMemory/text()') == $(($2 / 1024)) ]]
}

# both VERB PLUGGED: 2 GiB in v1 and v2 at the same time, and what they have then.
both() {
    local first_id

    start_job "$1" v1 2G --method dimm
    first_id=$job_id
    start_job "$1" v2 2G --method dimm
    await_job "$job_id" "$(patience 20)"
    assert_equal "the job of v2" "DONE $((2 * GiB))" "$job_state $(jq .done_bytes <<<"$job_json")"
    await_job "$first_id" "$(patience 20)"
    assert_equal "the job of v1" "DONE $((2 * GiB))" "$job_state $(jq .done_bytes <<<"$job_json")"
    check_domain v1 "$2"
    check_domain v2 "$2"
}

has_statistics() {
    [[ $(show "$1" '.balloon[0] | .stats_updated_sec > 0 and .stats_available_bytes > 0') == true ]]
}

# desired_is NAME SIZE: by libvirt.
desired_is() {
    virsh_ metadata "$1" --uri http://opendlpar.org/xmlns/domain/1 2>/dev/null | grep -q "desired=[\"']$2[\"']"
}

reservations_are() { # N
    [[ $(cli -o json pool | jq '.reservations | length') == "$1" ]]
}

# lab_hook ARG...: libvirt's hook, as libvirtd calls it.
lab_hook() {
    "$LAB_DIR/libvirt/etc/hooks/qemu.d/opendlpar" "$@"
}

weight_is() { # NAME N
    [[ $(show "$1" .weight) == "$2" ]]
}

# take_lost NAME: what libvirtd lost by its end (see below) has left, by the domain's next start.
take_lost() {
    [[ $(jq -r '.reasons[].code' <<<"$job_json") == *accounts-differ* ]] || return 0
    note "libvirtd has lost a DIMM, which the job said: the domain is started anew"
    virsh_ destroy "$1"
    virsh_ start "$1"
    await "$(patience 40)" "guestd's word" agent_is "$1" ready
}

# restart_libvirtd: as a crash and the service manager would.
restart_libvirtd() {
    lab libvirtd kill
    sleep 0.5
    lab libvirtd start
}

((EUID == 0)) || skip "libvirt with folders of the lab's own is root's"
test_begin

step "a domain is found by its channel"
boot v1 --platform libvirt --memory 1G --max-memory 16G
base_blocks=$(guest_account v1 | jq .online+.offline)
assert_equal "platform and state" "libvirt running ready" "$(show v1 | jq -r '"\(.platform) \(.state) \(.agent_state)"')"
assert_equal "max" $((16 * GiB)) "$(show v1 .max_bytes)"
check_domain v1 0

step "2 GiB come and leave, and the XML agrees"
expect 0 cli add-memory v1 2G
assert_match "the line about it" '^v1: added 2 GiB in [0-9.]+ s, all in zone Movable; now 3 GiB of 16 GiB$' "$out"
note "$out"
check_domain v1 $((2 * GiB))
assert_match "the aliases" 'ua-opendlpar-dimm-0' "$(virsh_ dumpxml v1)"
expect 0 cli remove-memory v1 2G
note "$out"
check_domain v1 0
check_untainted v1

step "a second domain, with virtio-mem and a balloon"
boot v2 --platform libvirt --memory 1G --max-memory 16G --virtio-mem 2G --balloon
expect 0 cli add-memory v2 1G --method virtio-mem
note "$out"
check_domain v2 "$GiB"
assert_equal "online in the device" "$GiB" "$(show v2 '.devices[] | select(.kind == "virtio-mem") | .movable_bytes')"
expect 0 cli remove-memory v2 1G --method virtio-mem
check_domain v2 0
expect 0 cli remove-memory v2 256M --method balloon
assert_equal "taken, current" "$((256 * MiB)) $((768 * MiB))" "$(show v2 | jq -r '"\(.balloon[0].taken_bytes) \(.current_bytes)"')"
await 3 "it in the XML" current_is v2 $((768 * MiB))
await 15 "the balloon's statistics" has_statistics v2
expect 0 cli add-memory v2 256M --method balloon
await 3 "it in the XML" current_is v2 "$GiB"

step "2 GiB come and leave in both at once"
both add-memory $((2 * GiB))
both remove-memory 0
check_untainted v2

step "a PPC64 domain"
boot p1 --platform libvirt --arch ppc64le --memory 1G --max-memory 8G
assert_equal "its architecture, its platform" "ppc64 libvirt" "$(show p1 | jq -r '"\(.architecture) \(.platform)"')"
expect 0 cli add-memory p1 512M
note "$out"
base_blocks=4 check_domain p1 $((512 * MiB))
assert_equal "LMBs by hvd" "$(printf '0x%x\n' $((0x80000004)) $((0x80000005)))" "$(hvd_drcs p1)"
expect 0 cli remove-memory p1 512M
base_blocks=4 check_domain p1 0
check_untainted p1
lab stop p1

step "what virsh attaches and detaches is seen"
cat >"$work_dir/dimm.xml" <<'XML'
<memory model='dimm'><target><size unit='MiB'>512</size><node>0</node></target><alias name='ua-theirs'/></memory>
XML
virsh_ attach-device v1 "$work_dir/dimm.xml"
await 2 "the DIMM of virsh" hvd_plugged_is v1 $((512 * MiB))
# shellcheck disable=SC2016  # it is for the guest's shell
guest v1 'for m in /sys/devices/system/memory/memory*; do
    read -r s <$m/state; [ $s = online ] || echo online_movable >$m/state; done'
expect 0 cli remove-memory v1 512M --device ua-theirs
check_domain v1 0
expect 0 cli add-memory v1 512M
# shellcheck disable=SC2016  # it is for the guest's shell
guest v1 'for m in /sys/devices/system/memory/memory*; do
    read -r z rest <$m/valid_zones; [ "$z" != Movable ] || echo offline >$m/state; done'
virsh_ detach-device-alias v1 ua-opendlpar-dimm-0 --live
await 2 "that it has left" hvd_plugged_is v1 0
domain_settles v1 5 0

step "--config changes the definition, too"
expect 0 cli add-memory v1 512M --config
assert_equal "in the definition" $((512 * MiB)) "$(xml_plugged v1 --inactive)"
expect 0 cli remove-memory v1 512M --config
assert_equal "in the definition" 0 "$(xml_plugged v1 --inactive)"
check_domain v1 0

step "libvirtd is killed in the middle of an addition"
start_job add-memory v1 3G
await_state "$job_id" 'PLUGGING|ONLINING' 20
restart_libvirtd
await_job "$job_id" 60
note "$job_state: $(jq -c '[.done_bytes, [.reasons[].message]]' <<<"$job_json")"
assert_match "its end" '^(DONE|PARTIAL|FAILED)$' "$job_state"
await 15 "what was done is plugged" xml_plugged_is v1 "$(jq .done_bytes <<<"$job_json")"
take_lost v1
domain_settles v1 15 "$(xml_plugged v1)"

step "and of a removal"
if xml_plugged_is v1 0; then
    expect 0 cli add-memory v1 2G
fi
before=$(xml_plugged v1)
start_job remove-memory v1 "$((before / GiB))G"
await_state "$job_id" 'OFFLINING|UNPLUGGING' 20
restart_libvirtd
await_job "$job_id" 60
note "$job_state: $(jq -c '[.done_bytes, [.reasons[].message]]' <<<"$job_json")"
assert_match "its end" '^(DONE|PARTIAL|FAILED)$' "$job_state"
domain_settles v1 15 $((before - $(jq .done_bytes <<<"$job_json")))
check_untainted v1

step "a domain without the channel says what it lacks, and is enrolled"
cat >"$work_dir/plain.xml" <<'XML'
<domain type='qemu'><name>plain</name><memory unit='MiB'>512</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>
XML
virsh_ define "$work_dir/plain.xml"
await 3 "what it lacks" eval 'cli enroll | grep -q "^plain: .*org.opendlpar.guestd.0"'
expect 0 cli enroll plain --max 2G
assert_match "what was added" 'channel.*maxMemory of 2 GiB with 16 slots.*NUMA cell' "$out"
await 3 "the partition" state_is plain absent
expect 0 cli enroll plain
assert_match "the second time" 'nothing is missing' "$out"
expect 1 cli enroll nobody
assert_match "an unknown one" "no domain 'nobody'" "$err"
expect 1 cli enroll plain --max 512M
assert_match "a max that leaves no room" 'has to be above' "$err"
expect 2 cli enroll plain --slots none
sed 's/<name>plain</<name>plain one</' "$work_dir/plain.xml" >"$work_dir/one.xml"
virsh_ define "$work_dir/one.xml"
expect 1 cli enroll 'plain one'
assert_match "a name that is none for a partition" 'virsh domrename' "$err"
virsh_ undefine 'plain one'
sed -i 's/plain one/passing/' "$work_dir/one.xml"
virsh_ create "$work_dir/one.xml"
expect 1 cli enroll passing
assert_match "a domain without a definition" 'no persistent definition' "$err"
virsh_ destroy passing
expect 1 cli undefine plain
assert_match "how it goes" 'channel' "$err"

step "its profile is in its metadata"
virsh_ metadata plain --uri http://opendlpar.org/xmlns/domain/1 --key opendlpar --set "<profile min='256M' weight='7'/>"
await 3 "the weight" weight_is plain 7
assert_equal "min" $((256 * MiB)) "$(show plain .min_bytes)"
virsh_ domrename plain other
await 3 "the new name" state_is other absent
virsh_ undefine other
await 3 "its end" eval '! cli show other >/dev/null 2>&1'

step "the domain is destroyed in the middle of a job"
start_job add-memory v1 4G
virsh_ destroy v1
await_job "$job_id" 20
assert_match "its end" '^(DONE|PARTIAL|FAILED)$' "$job_state"
await 3 "that it does not run" state_is v1 absent
expect 1 cli add-memory v1 1G
assert_match "why not" 'does not run' "$err"

step "without hvd it starts all the same, and hvd finds it when it comes"
lab hvd stop
virsh_ start v1
lab hvd start
await "$(patience 40)" "guestd's word" agent_is v1 ready
expect 0 cli add-memory v1 1G
domain_settles v1 5 "$GiB"

step "with the pool full the hook has hvd make room"
expect 0 cli profile v1 --desired 1G
desired_is v1 1G || fail "the profile is answered and not in the metadata"
expect 0 cli profile v2 --desired 1G
expect 0 cli add-memory v1 1G
mkdir -p "$LAB_DIR/hvd.conf.d"
printf '[hvd]\npool_total = 4608M\n' >"$LAB_DIR/hvd.conf.d/pool.conf"
kill -HUP "$(lab hvd pid)"
lab guest c --platform libvirt --no-define --memory 1G --max-memory 1G
domain_settles v1 10 "$GiB"
domain_settles v2 10 0
assert_equal "reserved for c" "c $GiB" "$(cli -o json pool | jq -r '.reservations[] | "\(.owner) \(.bytes)"')"

step "when all others are busy and it matters, the start is refused in time"
fill_to v1 200
printf '[hook]\nwait = 3s\nrefuse = yes\n' >"$LAB_DIR/libvirt/hook.conf"
sed -e 's/<name>plain</<name>d</' -e 's/512</1024</' "$work_dir/plain.xml" >"$work_dir/d.xml"
virsh_ define "$work_dir/d.xml"
begin=$SECONDS
expect 1 virsh_ start d
assert_at_most "seconds until virsh says so" "$(patience 5)" $((SECONDS - begin))
assert_match "why" 'no room for the 1 GiB of d' "$err"
note "$(grep -o 'no room.*' <<<"$err")"
virsh_ undefine d

step "so is that of a domain whose name is none for a partition"
domain_settles v1 10 "$GiB"
sed 's/<name>d</<name>d (2)</' "$work_dir/d.xml" >"$work_dir/odd.xml"
virsh_ define "$work_dir/odd.xml"
expect 1 virsh_ start 'd (2)'
assert_match "why" 'no room for the 1 GiB of d \(2\)' "$err"
virsh_ undefine 'd (2)'
domain_settles v1 10 "$GiB"
unfill v1

step "an hvd that does not answer holds no start up beyond the limit"
virsh_ define "$work_dir/d.xml"
kill -STOP "$(lab hvd pid)"
begin=$SECONDS
run virsh_ start d
kill -CONT "$(lab hvd pid)"
assert_equal "exit of virsh start" 0 "$code"
assert_at_most "seconds until it runs" "$(patience 10)" $((SECONDS - begin))
assert_equal "reservations, as nobody waits for another one" 1 "$(cli -o json pool | jq '.reservations | length')"
virsh_ destroy d

step "a start that was cut off leaves no reservation behind the next one's"
printf '[hvd]\npool_total = 16G\n' >"$LAB_DIR/hvd.conf.d/pool.conf"
kill -HUP "$(lab hvd pid)"
virsh_ dumpxml d >"$work_dir/d.xml"
for _ in 1 2; do # libvirtd was killed after the first
    lab_hook d prepare begin - <"$work_dir/d.xml"
done
await 3 "two reservations, c's and d's" reservations_are 2
lab_hook d release end - <"$work_dir/d.xml"
await 3 "c's alone" reservations_are 1
virsh_ undefine d

step "what was reserved goes with the domain"
lab stop c
await 3 "the reservation's end" reservations_are 0

step "libvirtd is away for longer than a restart takes: domains run on, and what they have is not free"
free_is() {
    [[ $(peek -o json pool | jq .free_bytes) == "$1" ]]
}
free=$(cli -o json pool | jq .free_bytes)
lab libvirtd kill
await 30 "the word that v1 is out of reach" state_is v1 absent
assert_equal "what is free then" "$free" "$(cli -o json pool | jq .free_bytes)"
lab libvirtd start
await 10 "v1" state_is v1 running
await 10 "v2" state_is v2 running
await 10 "the same to be free" free_is "$free"

step "without hvd nothing is refused"
lab hvd stop
lab guest d --platform libvirt --no-define --memory 1G --max-memory 1G
lab stop d
lab hvd start
check_untainted v1

step "nothing is left behind in a QEMU, after all of that"
for name in v1 v2; do
    check_backends "$name"
done
test_end
