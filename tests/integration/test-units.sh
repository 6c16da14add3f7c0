#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What systemd and the bus make of our files: test-units.sh UNITS, the folder of units that name the programs just
# built. Needs the Debian packages systemd and dbus-daemon; without them it skips (77).
set -euo pipefail

(($# == 1)) || {
    echo "usage: ${0##*/} UNITS" >&2
    exit 2
}
units=$(realpath -- "$1")
sources=$(realpath -- "${BASH_SOURCE[0]%/*}/../../systemd")
work=
bus_pid=

for program in systemd-analyze busctl dbus-daemon; do
    command -v "$program" >/dev/null || {
        echo "SKIP: $program is not installed"
        exit 77
    }
done

clean_up() {
    [[ -z $bus_pid ]] || kill "$bus_pid" 2>/dev/null || true
    rm -rf -- "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP
work=$(mktemp -d)

failures=0
# check NAME COMMAND...: one line, and what the command said if it failed.
check() {
    local name=$1
    shift
    if "$@" >"$work/output" 2>&1; then
        echo "ok: $name"
    else
        echo "FAILED: $name"
        sed 's/^/    /' "$work/output"
        failures=$((failures + 1))
    fi
}

# systemd-analyze exits 0 in spite of a key that it ignores, so silence is what counts.
unit_is_clean() {
    local said
    # The manual pages are not installed yet.
    said=$(XDG_RUNTIME_DIR=$work systemd-analyze verify --man=no --recursive-errors=no "$1" 2>&1) || {
        echo "$said"
        return 1
    }
    echo "$said"
    [[ -z $said ]]
}

# In tenths: of what a service of its kind could do, how much is left to it.
exposure_is_low() {
    systemd-analyze security --no-pager --offline=true --threshold=30 "$1"
}

# Well formed, and an action for each that hvd asks about.
actions_are_known() {
    local action
    while read -r action; do
        grep -qF "<action id=\"org.opendlpar.hvd1.$action\">" "$sources/org.opendlpar.hvd1.policy" || {
            echo "no action $action"
            return 1
        }
    done < <(grep -oE 'ACTION "[a-z-]+"' "$sources/../hvd/bus/polkit.c" | cut -d '"' -f 2 | sort -u)
}

on_bus() {
    busctl --address="unix:path=$work/bus" "$@"
}

# The policy stands on a bus that refuses what it does not allow, as the system bus does.
start_bus() {
    mkdir "$work/services"
    cp "$sources/org.opendlpar.hvd1.service" "$work/services/"
    cat >"$work/bus.conf" <<XML
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=$work/bus</listen>
  <auth>EXTERNAL</auth>
  <servicedir>$work/services</servicedir>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_sender="*"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <include>$sources/org.opendlpar.hvd1.conf</include>
</busconfig>
XML
    dbus-daemon --nofork --nopidfile --nosyslog --config-file="$work/bus.conf" >"$work/bus.log" 2>&1 &
    bus_pid=$!
    for _ in {1..250}; do
        [[ ! -S $work/bus ]] || return 0
        kill -0 "$bus_pid" 2>/dev/null || break
        sleep 0.02
    done
    cat "$work/bus.log"
    return 1
}

request_name() {
    on_bus call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus RequestName su "$1" 0
}

is_activatable() {
    on_bus call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ListActivatableNames |
        tee /dev/stderr | grep -qF '"org.opendlpar.hvd1"'
}

# Nobody answers, as Exec= is a stand-in: what matters is that the bus tries rather than denies.
may_call() {
    on_bus --timeout=5 call org.opendlpar.hvd1 /org/opendlpar/hvd1 org.freedesktop.DBus.Peer Ping >"$work/answer" 2>&1 || true
    cat "$work/answer"
    ! grep -qiE 'access denied|rejected' "$work/answer"
}

not() {
    ! "$@"
}

for unit in "$units"/*.service "$units"/*.socket; do
    check "${unit##*/}: systemd-analyze verify" unit_is_clean "$unit"
done
for unit in hvd guestd; do
    check "$unit.service: its exposure is at most 3.0" exposure_is_low "$units/$unit.service"
done
check "org.opendlpar.hvd1.policy: has what hvd asks for" actions_are_known
check "org.opendlpar.hvd1.conf: the bus takes it" start_bus
check "org.opendlpar.hvd1.service: the name can be activated" is_activatable
check "anyone may call org.opendlpar.hvd1" may_call
if ((EUID == 0)); then
    check "root may own the name" request_name org.opendlpar.hvd1
else
    check "a user may not own the name" not request_name org.opendlpar.hvd1
fi
((failures == 0))
