# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The private bus and hvd, and the command line tools that go with a lab.

bus_address() {
    echo "unix:path=$lab_dir/bus"
}

# Sets build_dir to the build that this lab runs, or would run, without building anything.
lab_find_build() {
    if [[ -n ${OPENDLPAR_BUILD:-} ]]; then
        build_dir=$(realpath -m -- "$OPENDLPAR_BUILD")
    else
        build_dir=$(cat "$lab_dir/build" 2>/dev/null) || build_dir=$repo_root/build/dev
    fi
}

hvd_answers() {
    local code=0

    timeout 5 "$build_dir/hmc-cli/hmc-cli" --bus "$(bus_address)" list >/dev/null 2>&1 || code=$?
    ((code != 3 && code != 124))
}

bus_start() {
    ! pid_of "$lab_dir/bus.pid" >/dev/null || return 0

    rm -f -- "$lab_dir/bus"
    cat >"$lab_dir/bus.conf" <<XML
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>$(bus_address)</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
XML
    spawn "$lab_dir/bus.pid" "$lab_dir/bus.log" \
        dbus-daemon --nofork --nopidfile --nosyslog --config-file="$lab_dir/bus.conf"
    local tries
    for tries in {1..250}; do
        [[ ! -S $lab_dir/bus ]] || return 0
        ((tries < 10)) || pid_is_ours "$spawned_pid" || break
        sleep 0.02
    done
    tail -n 20 "$lab_dir/bus.log" >&2
    die "the bus did not start"
}

hvd_start() {
    ! pid_of "$lab_dir/hvd.pid" >/dev/null || return 0

    [[ -x $build_dir/hvd/hvd ]] || die "there is no hvd in the build folder $build_dir"
    mkdir -p "$lab_dir/state"
    # A lab's guests have of the host only what they touch: the pool is not what they could have.
    [[ -e $lab_dir/hvd.conf ]] || printf '[hvd]\npool_total = 4T\n' >"$lab_dir/hvd.conf"
    # The system's domains are none of the lab's.
    mkdir -p "$lab_dir/hvd.conf.d"
    [[ -e $lab_dir/hvd.conf.d/libvirt.conf ]] ||
        printf '[libvirt]\nenabled = no\n' >"$lab_dir/hvd.conf.d/libvirt.conf"
    echo "$build_dir" >"$lab_dir/build"
    libvirt_enter
    spawn "$lab_dir/hvd.pid" "$lab_dir/hvd.log" \
        "${libvirt_inside[@]}" "$build_dir/hvd/hvd" --bus "$(bus_address)" --config "$lab_dir/hvd.conf" --state-dir "$lab_dir/state" \
        --hooks-program "$build_dir/hooks/opendlpar-hooks"
    local tries
    for tries in {1..200}; do
        ! hvd_answers || return 0
        ((tries < 10)) || pid_is_ours "$spawned_pid" || break
        sleep 0.05
    done
    tail -n 20 "$lab_dir/hvd.log" >&2
    kill_pids "$spawned_pid"
    die "hvd did not start"
}

lab_up() {
    (($# == 0)) || die_usage "up takes no arguments"

    need_packages "${packages_lab[@]}"
    build_project dev
    lab_lock
    bus_start
    hvd_start
    lab_unlock
}

lab_is_up() {
    pid_of "$lab_dir/bus.pid" >/dev/null
}

lab_hvd() {
    (($# == 1)) || die_usage "usage: lab hvd start|stop|kill|pid"
    local pid

    [[ $1 == start ]] || pid=$(pid_of "$lab_dir/hvd.pid") || die "hvd is not running"
    case $1 in
        start)
            lab_is_up || die "the lab is not up: scripts/lab up"
            lab_find_build
            lab_lock
            hvd_start
            lab_unlock
            ;;
        stop) end_pids "$pid" ;;
        kill) kill_pids "$pid" ;;
        pid) echo "$pid" ;;
        *) die_usage "usage: lab hvd start|stop|kill|pid" ;;
    esac
}

hmc() {
    "$build_dir/hmc-cli/hmc-cli" --bus "$(bus_address)" "$@"
}

lab_cli() {
    lab_find_build
    [[ -x $build_dir/hmc-cli/hmc-cli ]] || die "there is no hmc-cli in the build folder $build_dir"
    exec "$build_dir/hmc-cli/hmc-cli" --bus "$(bus_address)" "$@"
}
