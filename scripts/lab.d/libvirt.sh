# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A libvirtd and a virtlogd of the lab's own, and guests that are domains of theirs.
#
# For root libvirt's folders are fixed, so both daemons run in a mount namespace of their own, where those are
# folders of the lab: labs disturb neither each other nor the system's libvirt. virtlogd is started first and
# keeps the namespace; libvirtd may come and go, as in life. libvirt gives QEMU a clean environment, so that the
# lab's mark is not in it: a domain's QEMU is known by its initrd (state.sh).
#
# They have a host name and a host's UUID of their own, too: libvirt migrates nothing to the same host.

libvirt_uri() {
    echo "qemu+unix:///system?socket=$lab_dir/libvirt/run/libvirt-sock"
}

libvirt_folders() {
    local dir=$lab_dir/libvirt

    mkdir -p "$dir"/{etc/hooks,lib,run,log,cache}
    [[ -e $dir/etc/qemu.conf ]] || cp -a /etc/libvirt/. "$dir/etc/"
    rm -rf -- "$dir/etc/qemu/autostart" "$dir/etc/qemu/networks/autostart"
    rm -f -- "$dir"/etc/qemu/*.xml
    mkdir -p "$dir/etc/hooks/qemu.d"
    rm -f -- "$dir"/etc/hooks/qemu "$dir"/etc/hooks/qemu.d/*
    [[ ! -x $build_dir/hooks/libvirt/opendlpar-libvirt-hook ]] || {
        echo "#!/bin/sh"
        echo "exec $build_dir/hooks/libvirt/opendlpar-libvirt-hook --bus $(bus_address)" \
            "--config $dir/hook.conf --state-dir $dir/hook-state \"\$@\""
    } >"$dir/etc/hooks/qemu.d/opendlpar"
    [[ ! -e $dir/etc/hooks/qemu.d/opendlpar ]] || chmod 755 "$dir/etc/hooks/qemu.d/opendlpar"
    cat >"$dir/etc/libvirtd.conf" <<TEXT
unix_sock_dir = "$dir/run"
auth_unix_rw = "none"
auth_unix_ro = "none"
host_uuid = "$(</proc/sys/kernel/random/uuid)"
TEXT
    # The lab's folder is its owner's alone, and so QEMU is its owner, too.
    cat >"$dir/etc/qemu.conf" <<'TEXT'
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
remember_owner = 0
TEXT
}

# libvirt_daemon_start NAME SOCKET COMMAND...: one of the two daemons, until it listens.
libvirt_daemon_start() {
    local dir=$lab_dir/libvirt name=$1 socket=$lab_dir/libvirt/run/$2 tries
    shift 2

    rm -f -- "$socket"
    spawn "$dir/$name.pid" "$dir/$name.log" "$@"
    for tries in {1..500}; do
        [[ ! -S $socket ]] || return 0
        ((tries < 50)) || pid_is_ours "$spawned_pid" || break
        sleep 0.02
    done
    tail -n 20 "$dir/$name.log" >&2
    die "$name did not start"
}

libvirt_logd_start() {
    local dir=$lab_dir/libvirt

    ! pid_of "$dir/virtlogd.pid" >/dev/null || return 0
    libvirt_folders
    mkdir -p /run/libvirt /var/log/libvirt /var/cache/libvirt
    # shellcheck disable=SC2016  # it is for the inner shell
    libvirt_daemon_start virtlogd virtlogd-sock unshare --mount --uts --propagation private bash -c '
        dir=$1
        hostname "$2" && mount --bind "$dir/etc" /etc/libvirt && mount --bind "$dir/lib" /var/lib/libvirt &&
            mount --bind "$dir/run" /run/libvirt && mount --bind "$dir/log" /var/log/libvirt &&
            mount --bind "$dir/cache" /var/cache/libvirt || exit
        exec virtlogd -t 0 -p "$dir/run/virtlogd.pid"' unshare "$dir" "lab-$$.invalid"
}

# Under the lock.
libvirt_start() {
    local dir=$lab_dir/libvirt

    ! pid_of "$dir/libvirtd.pid" >/dev/null || return 0
    ((EUID == 0)) || die "--platform libvirt: only root can give libvirt folders of the lab's own"
    libvirt_logd_start
    libvirt_enter
    libvirt_daemon_start libvirtd libvirt-sock "${libvirt_inside[@]}" libvirtd -p "$dir/run/libvirtd.pid"
}

# Words to begin a command with that shall see libvirt's folders as libvirt does. Sets libvirt_inside.
libvirt_enter() {
    local pid

    libvirt_inside=()
    ! pid=$(pid_of "$lab_dir/libvirt/virtlogd.pid") || libvirt_inside=(nsenter --mount="/proc/$pid/ns/mnt" --uts="/proc/$pid/ns/uts")
}

# hvd finds the domains by itself, once it knows where they are; and their channels, once it is inside.
libvirt_tell_hvd() {
    local file=$lab_dir/hvd.conf.d/libvirt.conf pid

    mkdir -p "$lab_dir/hvd.conf.d"
    ! grep -qs '^uri' "$file" || return 0
    printf '[libvirt]\nenabled = yes\nuri = %s\n' "$(libvirt_uri)" >"$file.new"
    mv "$file.new" "$file"
    if pid=$(pid_of "$lab_dir/hvd.pid"); then
        end_pids "$pid"
        hvd_start
    fi
}

lab_virsh() {
    exec virsh --connect "$(libvirt_uri)" "$@"
}

lab_libvirtd() {
    (($# == 1)) || die_usage "usage: lab libvirtd start|stop|kill|pid"
    local pid

    [[ $1 == start ]] || pid=$(pid_of "$lab_dir/libvirt/libvirtd.pid") || die "libvirtd is not running"
    case $1 in
        start)
            need_packages "${packages_lab_libvirt[@]}"
            lab_find_build
            lab_lock
            libvirt_start
            libvirt_tell_hvd
            lab_unlock
            ;;
        stop) end_pids "$pid" ;;
        kill) kill_pids "$pid" ;;
        pid) echo "$pid" ;;
        *) die_usage "usage: lab libvirtd start|stop|kill|pid" ;;
    esac
}

# --- domains ---

libvirt_cpu_xml() {
    local i

    if [[ $guest_arch == x86_64 ]]; then
        # As in guest_qemu_command(); a DIMM needs a NUMA cell.
        echo "<cpu mode='maximum'><feature policy='disable' name='erms'/><feature policy='disable' name='fsrm'/>"
    else
        ((guest_nodes > 1)) || return 0
        echo "<cpu>"
    fi
    echo "<numa>"
    for ((i = 0; i < guest_nodes; i++)); do
        printf "<cell id='%d'%s memory='%d' unit='KiB'/>\n" "$i" \
            "$([[ $i -ge $guest_cpus ]] || printf " cpus='%s'" \
                "$( ((i == guest_nodes - 1)) && echo "$i-$((guest_cpus - 1))" || echo "$i")")" \
            $((guest_memory / guest_nodes >> 10))
    done
    echo "</numa></cpu>"
}

libvirt_machine_xml() {
    case $guest_arch in
        x86_64)
            cat <<XML
  <os><type arch='x86_64' machine='q35'>hvm</type>
    <kernel>$kernel_dir/vmlinuz</kernel><initrd>$1/initrd</initrd><cmdline>$guest_append</cmdline></os>
  <features><acpi/><apic/></features>
XML
            ;;
        ppc64le)
            cat <<XML
  <os><type arch='ppc64le' machine='pseries'>hvm</type>
    <kernel>$kernel_dir/vmlinuz</kernel><initrd>$1/initrd</initrd><cmdline>$guest_append</cmdline></os>
  <features><cfpc value='broken'/><sbbc value='broken'/><ibs value='broken'/><ccf-assist state='off'/></features>
XML
            ;;
    esac
}

# libvirt_domain_xml: the domain, by the guest_* variables.
libvirt_domain_xml() {
    local dir=$lab_dir/$guest_name emulator=qemu-system-x86_64 type=qemu

    [[ $guest_accel != kvm ]] || type=kvm
    [[ $guest_arch != ppc64le ]] || emulator=qemu-system-ppc64
    guest_make_append
    echo "<domain type='$type'><name>$guest_name</name>"
    ((guest_max_memory == guest_memory)) ||
        echo "  <maxMemory slots='$guest_slots' unit='KiB'>$((guest_max_memory >> 10))</maxMemory>"
    echo "  <memory unit='KiB'>$((guest_memory >> 10))</memory><vcpu>$guest_cpus</vcpu>"
    libvirt_machine_xml "$dir"
    libvirt_cpu_xml
    cat <<XML
  <on_crash>preserve</on_crash>
  <devices>
    <emulator>$(command -v $emulator)</emulator>
    <controller type='usb' model='none'/>
    <controller type='virtio-serial' index='0'/>
    <serial type='file'><source path='$dir/console.log'/></serial>
    $($guest_channel && echo "<channel type='unix'><target type='virtio' name='org.opendlpar.guestd.0'/></channel>")
    <channel type='unix'><source mode='bind' path='$dir/lab.sock'/>
      <target type='virtio' name='org.opendlpar.lab.0'/></channel>
    $($guest_balloon && echo "<memballoon model='virtio' autodeflate='on' freePageReporting='on'/>" ||
        echo "<memballoon model='none'/>")
XML
    ((guest_virtio_mem == 0)) || cat <<XML
    <memory model='virtio-mem'><target><size unit='KiB'>$((guest_virtio_mem >> 10))</size><node>0</node>
      <block unit='KiB'>2048</block><requested unit='KiB'>0</requested></target><alias name='ua-vm0'/></memory>
XML
    ((guest_swap == 0)) || cat <<XML
    <disk type='file' device='disk'><driver name='qemu' type='raw' cache='unsafe'/>
      <source file='$dir/swap.img'/><target dev='vda' bus='virtio'/></disk>
XML
    echo "  </devices></domain>"
}

libvirt_pid() {
    pid_of "$lab_dir/libvirt/run/qemu/$1.pid"
}

# Starts the domain, under the lock. Sets guest_pid.
libvirt_guest_start() {
    local dir=$lab_dir/$guest_name

    ((${#guest_qemu_args[@]} == 0)) || die_usage "with --platform libvirt there are no arguments for QEMU"
    libvirt_domain_xml >"$dir/domain.xml"
    lab_virsh_quietly define "$dir/domain.xml" && lab_virsh_quietly start "$guest_name" || return 1
    guest_pid=$(libvirt_pid "$guest_name") && ln -sfn "$lab_dir/libvirt/run/qemu/$guest_name.pid" "$dir/qemu.pid"
}

lab_virsh_quietly() {
    virsh --quiet --connect "$(libvirt_uri)" "$@" 8>&- 9>&-
}

# As far as libvirt answers; whoever calls ends the QEMU all the same.
libvirt_guest_forget() {
    [[ -e $lab_dir/$1/domain.xml ]] || return 0
    timeout 10 virsh --quiet --connect "$(libvirt_uri)" destroy "$1" >/dev/null 2>&1 8>&- 9>&- || true
    timeout 10 virsh --quiet --connect "$(libvirt_uri)" undefine "$1" >/dev/null 2>&1 8>&- 9>&- || true
}
