#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# libvirt's domains, by libvirt's own test driver inside hvd: real calls of a real library, without a daemon and without
# QEMU, so that no partition of a domain gets memory here. That is tests/lab/libvirt.sh's.
# shellcheck disable=SC2119,SC2120  # functions have defaults
set -euo pipefail
# shellcheck source=tests/integration/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

# domain NAME [HEAD [DEVICES [TAIL]]]: one of 1 GiB that runs, as the test driver's file has it.
domain() {
    cat <<XML
<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>
  <name>$1</name>${2:-}
  <memory unit='GiB'>1</memory><vcpu>1</vcpu><os><type>hvm</type></os>
  <devices>${3:-}</devices>${4:-}
</domain>
XML
}

channel() { # NAME
    echo "<channel type='unix'><source mode='bind' path='$work/$1.channel'/><target type='virtio' name='org.opendlpar.guestd.0'/></channel>"
}

profile() { # ATTRIBUTES
    echo "<metadata><p:profile xmlns:p='http://opendlpar.org/xmlns/domain/1' $1/></metadata>"
}

# configure ENABLED NODE
configure() {
    printf '[libvirt]\nenabled = %s\nuri = test://%s\n[hvd]\nlog_level = debug\npool_total = 4T\n' "$1" "$2" >"$work/etc/hvd.conf"
}

reload() {
    kill -HUP "$hvd_pid"
}

names() {
    cli -o json list | jq -r '[.[].name] | join(" ")'
}

names_are() {
    [[ $(names) == "$1" ]]
}

lacking() { # NAME
    cli -o json enroll | jq -r --arg name "$1" '.[] | select(.domain == $name) | .message'
}

lacks_nothing() { # NAME
    [[ -z $(lacking "$1") ]]
}

mkdir -p "$work/etc"
hotplug="<maxMemory slots='8' unit='GiB'>8</maxMemory>"
still="<test:runstate>5</test:runstate>"
numa="<cpu><numa><cell id='0' cpus='0' memory='1' unit='GiB'/></numa></cpu>"
{
    echo "<node>"
    domain ready "$hotplug$numa$(profile "min='512M' desired='2G' max='4G' weight='7'")" "$(channel ready)"
    domain still "$hotplug$numa" "$(channel still)" "$still"
    domain wrong "$hotplug$numa$(profile "min='much'")" "$(channel wrong)"
    domain plain '' '' "$still"
    domain 'name with spaces' '' "$(channel spaces)"
    echo "</node>"
} >"$work/node.xml"
bus_start
configure yes "$work/node.xml"
hvd_start

begin "domains with the channel are partitions"
await "the partitions" names_are "ready still wrong"
assert_equal "the profile of ready" "536870912 2147483648 4294967296 7 libvirt running" \
    "$(partition ready '"\(.min_bytes) \(.desired_bytes) \(.max_bytes) \(.weight) \(.platform) \(.state)"')"
assert_equal "still" "absent absent" "$(partition still '"\(.state) \(.agent_state)"')"
expect 1 cli add-memory still 1G
assert_match "what is said of still" "does not run" "$err"

begin "of the others it is said what they lack"
assert_match "plain" "lacks the channel.*enroll" "$(lacking plain)"
assert_match "one whose name is none for a partition" "domrename" "$(lacking 'name with spaces')"
assert_match "one whose profile is none" "the profile in its metadata is not used" "$(lacking wrong)"
assert_equal "ready" "" "$(lacking ready)"
expect 0 cli enroll
assert_match "the table" "plain: .*lacks" "$out"

begin "one that is enrolled gets what it lacks"
expect 0 cli enroll plain --max 8G --slots 4
assert_match "what is said" "added the channel.*maxMemory of 8 GiB with 4 slots" "$out"
await "plain" names_are "plain ready still wrong"
assert_equal "plain" "" "$(lacking plain)"
expect 0 cli -o json enroll plain
assert_match "the second time" "nothing|already|lacks" "$(jq -r .message <<<"$out")"
expect 1 cli enroll nobody
assert_match "one that there is not" "nobody" "$err"
expect "1|2" cli enroll plain --slots 1000
expect 1 cli enroll ready --max 1M
expect 1 call call org.opendlpar.hvd1 /org/opendlpar/hvd1 org.opendlpar.hvd1.Manager EnrollDomain 'sa{sv}' plain 1 slots u 100000
assert_match "too many slots" "at most" "$err"
expect 1 call call org.opendlpar.hvd1 /org/opendlpar/hvd1 org.opendlpar.hvd1.Manager EnrollDomain 'sa{sv}' plain 1 bogus u 1
assert_match "an unknown option" "bogus" "$err"

begin "a profile is written into the domain, and read from it"
expect 0 cli profile ready --min 256M --desired 1G --max 6G --weight 200
assert_equal "the profile" "268435456 1073741824 6442450944 200" \
    "$(partition ready '"\(.min_bytes) \(.desired_bytes) \(.max_bytes) \(.weight)"')"
expect 1 cli profile ready --min 8G --desired 1G
assert_match "one that is none" "min" "$err"
expect 0 cli profile wrong --min 512M
await "the profile of wrong" state_is wrong min_bytes 536870912
await "nothing to be said of wrong" lacks_nothing wrong

begin "partitions of domains are libvirt's to undefine"
expect 1 cli undefine ready
assert_match "what is said" "libvirt" "$err"
expect 0 cli define own --qmp "$work/own.qmp" --channel "$work/own.channel"

begin "libvirt is let go of, and taken again"
configure no "$work/node.xml"
reload
await "the partitions of domains to be gone" names_are own
expect 1 cli enroll plain
assert_match "what is said" "enabled = no" "$err"
expect 0 cli -o json enroll
assert_equal "who lacks what" "[]" "$out"
# The driver forgets with the connection what it was told.
configure yes "$work/node.xml"
reload
await "the partitions" names_are "own ready still wrong"
configure yes "$work/none.xml"
reload
await "the partitions of another node" names_are own
await "what is said of it" logged "out of reach"

hvd_stop
echo "ok"
