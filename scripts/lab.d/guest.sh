# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Guests: their options, QEMU's command line, their beginning and their end.

# check_name NAME: it becomes a folder of the lab and a host name.
check_name() {
    [[ $1 =~ ^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$ ]] ||
        die_usage "not a name for a guest (a letter or digit, then up to 31 of letters, digits, - and _): '$1'"
    case $1 in
        bus | build | lab | libvirt | lock | state) die_usage "the lab itself uses this name: $1" ;;
    esac
    local longest=$lab_dir/$1/lab-qmp.sock
    ((${#longest} < 108)) || die_usage "this path is too long for a socket, choose a shorter name or LAB_DIR: $longest"
}

# parse_size VARIABLE OPTION TEXT: sets the variable to bytes.
parse_size() {
    local -A exponent=([K]=10 [M]=20 [G]=30 [T]=40)

    [[ $3 =~ ^([0-9]{1,6})([KMGT])(iB)?$ ]] ||
        die_usage "$2: a size is a number with K, M, G or T, such as 512M or 2G, not '$3'"
    printf -v "$1" %s $((10#${BASH_REMATCH[1]} << ${exponent[${BASH_REMATCH[2]}]}))
}

# parse_number VARIABLE OPTION TEXT LOW HIGH
parse_number() {
    if ! [[ $3 =~ ^[0-9]{1,6}$ ]] || ((10#$3 < $4 || 10#$3 > $5)); then
        die_usage "$2: a number from $4 to $5, not '$3'"
    fi
    printf -v "$1" %s $((10#$3))
}

# Sets the guest_* variables from the command line.
guest_parse() {
    guest_name='' guest_arch=x86_64 guest_memory=$((1 << 30)) guest_max_memory=$((16 << 30)) guest_slots=16
    guest_virtio_mem=0 guest_balloon=false guest_swap=0 guest_cpus=1 guest_nodes=1
    guest_define=true guest_guestd=true guest_programs=() guest_qemu_args=() guest_platform=qmp
    local max_memory_given=false

    while (($# > 0)); do
        case $1 in
            --memory | --max-memory | --slots | --virtio-mem | --swap | --cpus | --nodes | --arch | --platform | --program)
                (($# > 1)) || die_usage "$1 needs a value"
                ;;&
            --memory) parse_size guest_memory "$1" "$2" ;;&
            --max-memory) parse_size guest_max_memory "$1" "$2" && max_memory_given=true ;;&
            --slots) parse_number guest_slots "$1" "$2" 0 256 ;;&
            --virtio-mem) parse_size guest_virtio_mem "$1" "$2" ;;&
            --swap) parse_size guest_swap "$1" "$2" ;;&
            --cpus) parse_number guest_cpus "$1" "$2" 1 64 ;;&
            --nodes) parse_number guest_nodes "$1" "$2" 1 8 ;;&
            --arch) guest_arch=$2 ;;&
            --platform) guest_platform=$2 ;;&
            --program)
                [[ -x $2 ]] || die_usage "--program: not a program: '$2'"
                guest_programs+=("$2")
                ;;&
            --memory | --max-memory | --slots | --virtio-mem | --swap | --cpus | --nodes | --arch | --platform | --program)
                shift
                ;;
            --balloon) guest_balloon=true ;;
            --no-define) guest_define=false ;;
            --no-guestd) guest_guestd=false ;;
            --)
                shift
                guest_qemu_args=("$@")
                break
                ;;
            -*) die_usage "unknown option: $1" ;;
            *)
                [[ -z $guest_name ]] || die_usage "one name only, not also '$1'"
                check_name "$1"
                guest_name=$1
                ;;
        esac
        shift
    done
    [[ -n $guest_name ]] || die_usage "the guest needs a name: lab guest NAME [OPTION...]"
    guest_check "$max_memory_given"
}

guest_check() {
    local max_memory_given=$1

    check_arch "$guest_arch"
    case $guest_platform in
        qmp | libvirt) ;;
        *) die_usage "--platform: qmp or libvirt, not '$guest_platform'" ;;
    esac
    # hvd finds a domain by its channel: one that is to be left alone has none.
    guest_channel=$guest_define
    ((guest_memory >= 128 << 20)) || die_usage "--memory: a guest does not boot with less than 128M"
    $max_memory_given || ((guest_max_memory >= guest_memory)) || guest_max_memory=$guest_memory
    ((guest_max_memory >= guest_memory)) || die_usage "--max-memory is less than --memory"
    ((guest_virtio_mem % (2 << 20) == 0)) || die_usage "--virtio-mem: a multiple of 2M"
    ((guest_memory + guest_virtio_mem <= guest_max_memory)) ||
        die_usage "--max-memory must have room for --memory and --virtio-mem together"
    ((guest_swap == 0 || guest_swap >= 1 << 20)) || die_usage "--swap: at least 1M"
    ((guest_max_memory > guest_memory)) || guest_slots=0
    # A memory block lies in one node.
    ((guest_nodes == 1 || guest_memory % (guest_nodes * (128 << 20)) == 0)) ||
        die_usage "--memory: with --nodes $guest_nodes a multiple of $((guest_nodes * 128))M, as each node has as much"
    [[ $guest_arch != ppc64le ]] || guest_check_pseries
    $guest_guestd || ! $guest_define || say "without guestd the guest is defined, but not waited for"
}

# What QEMU would refuse, or Linux could not use: an LMB has 256 MiB, and TCG has 32 slots.
guest_check_pseries() {
    local lmb=$((256 << 20))

    ((guest_memory % lmb == 0)) || die_usage "--memory: on ppc64le a multiple of 256M"
    ((guest_max_memory % lmb == 0)) || die_usage "--max-memory: on ppc64le a multiple of 256M"
    ((guest_memory % (guest_nodes * lmb) == 0)) ||
        die_usage "--memory: on ppc64le with --nodes $guest_nodes a multiple of $((guest_nodes * 256))M"
    ((guest_slots <= 32)) || die_usage "--slots: on ppc64le at most 32"
    ((guest_virtio_mem == 0)) || die_usage "--virtio-mem: there is none on ppc64le"
}

# Sets guest_accel. LAB_ACCEL=kvm counts only if a kernel comes up with it: a /dev/kvm may exist and hang.
guest_choose_accel() {
    guest_accel=${LAB_ACCEL:-tcg}
    case $guest_accel in
        tcg) ;;
        kvm)
            if [[ $guest_arch != "$(uname -m)" ]]; then
                guest_accel=tcg
            elif ! guest_probe_kvm; then
                say "a kernel does not boot with KVM here; using TCG"
                guest_accel=tcg
            fi
            ;;
        *) die_usage "LAB_ACCEL: tcg or kvm, not '$guest_accel'" ;;
    esac
}

# Boots the kernel with nothing to run: it shall come as far as missing its root. Called under the lock.
guest_probe_kvm() {
    local log=$lab_dir/kvm-probe.log answer=$lab_dir/kvm-probe tries

    if [[ ! -e $answer ]]; then
        rm -f -- "$log"
        echo no >"$answer.new"
        spawn "$lab_dir/kvm-probe.pid" "$lab_dir/kvm-probe.err" \
            qemu-system-x86_64 -nodefaults -no-user-config -display none -machine q35,accel=kvm -m 256M \
            -kernel "$kernel_dir/vmlinuz" -append "console=ttyS0 panic=0" -serial "file:$log"
        for tries in {1..100}; do
            if grep -q "Kernel panic" "$log" 2>/dev/null; then
                echo yes >"$answer.new"
                break
            fi
            ((tries < 10)) || pid_is_ours "$spawned_pid" || break
            sleep 0.1
        done
        kill_pids "$spawned_pid"
        mv "$answer.new" "$answer"
    fi
    [[ $(<"$answer") == yes ]]
}

# NUMA nodes, each with as much of the memory at boot. The processors are QEMU's to spread.
guest_add_nodes() {
    local i

    ((guest_nodes > 1)) || return 0
    for ((i = 0; i < guest_nodes; i++)); do
        qemu_command+=(
            -object "memory-backend-ram,id=lab-node$i,size=$((guest_memory / guest_nodes >> 10))K"
            -numa "node,nodeid=$i,memdev=lab-node$i"
        )
    done
}

# Sets guest_append: the kernel's command line.
guest_make_append() {
    local console=ttyS0

    [[ $guest_arch != ppc64le ]] || console=hvc0
    # panic=0: a dead guest stays, so that its last words can be read.
    guest_append="console=$console loglevel=4 panic=0 lab.hostname=$guest_name"
    $guest_guestd || guest_append+=" lab.no_guestd"
    ((guest_swap == 0)) || guest_append+=" lab.swap"
}

# Sets qemu_command. Everything of the architecture is in here.
# shellcheck disable=SC2054  # the commas are QEMU's
guest_qemu_command() {
    local dir=$lab_dir/$guest_name memory machine

    case $guest_arch in
        x86_64)
            machine=(qemu-system-x86_64 -machine "q35,accel=$guest_accel" -cpu host)
            # With erms and fsrm Linux copies and clears memory by bytes, which TCG takes one at a time.
            [[ $guest_accel == kvm ]] || machine+=(-cpu max,-erms,-fsrm)
            ;;
        ppc64le)
            # Without the mitigations of speculation, which TCG has not, and says so.
            machine=(qemu-system-ppc64 -machine
                "pseries,accel=$guest_accel,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off")
            ;;
    esac
    memory=size=$((guest_memory >> 10))K
    ((guest_max_memory == guest_memory || guest_slots + guest_virtio_mem == 0)) ||
        memory+=,slots=$guest_slots,maxmem=$((guest_max_memory >> 10))K

    guest_make_append

    qemu_command=(
        "${machine[@]}" -nodefaults -no-user-config -display none
        -name "$guest_name"
        -smp "$guest_cpus" -m "$memory"
        -kernel "$kernel_dir/vmlinuz" -initrd "$dir/initrd" -append "$guest_append"
        -chardev "file,id=console,path=$dir/console.log" -serial chardev:console
        -chardev "socket,id=qmp,path=$dir/qmp.sock,server=on,wait=off" -mon chardev=qmp,mode=control
        -chardev "socket,id=labqmp,path=$dir/lab-qmp.sock,server=on,wait=off" -mon chardev=labqmp,mode=control
        -device virtio-serial-pci,id=vserial0
        -chardev "socket,id=guestd,path=$dir/guestd.sock,server=on,wait=off"
        -device virtserialport,bus=vserial0.0,id=guestd0,chardev=guestd,name=org.opendlpar.guestd.0
        -chardev "socket,id=lab,path=$dir/lab.sock,server=on,wait=off"
        -device virtserialport,bus=vserial0.0,chardev=lab,name=org.opendlpar.lab.0
    )
    guest_add_nodes
    ((guest_virtio_mem == 0)) || qemu_command+=(
        -object "memory-backend-ram,id=mem-vm0,size=$((guest_virtio_mem >> 10))K"
        -device virtio-mem-pci,id=vm0,memdev=mem-vm0,requested-size=0
    )
    ! $guest_balloon || qemu_command+=(
        -device virtio-balloon-pci,id=balloon0,deflate-on-oom=on,free-page-reporting=on
    )
    ((guest_swap == 0)) || qemu_command+=(
        -drive "file=$dir/swap.img,format=raw,if=none,id=swap,cache=unsafe" -device virtio-blk-pci,drive=swap
    )
    qemu_command+=("${guest_qemu_args[@]}")
}

# Starts QEMU, under the lock.
guest_start() {
    local dir=$lab_dir/$guest_name tries

    ! pid_of "$dir/qemu.pid" >/dev/null || die "there is a guest $guest_name already: $dir"
    guest_choose_accel
    rm -rf -- "$dir"
    mkdir "$dir"
    image_build "$dir/initrd" "$guest_arch"
    ((guest_swap == 0)) || truncate -s "$guest_swap" "$dir/swap.img"
    if [[ $guest_platform == libvirt ]]; then
        libvirt_guest_start
        return
    fi
    guest_qemu_command
    printf '%q ' "${qemu_command[@]}" >"$dir/command"
    spawn "$dir/qemu.pid" "$dir/qemu.log" "${qemu_command[@]}"
    guest_pid=$spawned_pid
    for tries in {1..500}; do
        # In the order of QEMU's making; it listens from the first moment.
        [[ ! -S $dir/lab.sock ]] || return 0
        ((tries < 25)) || pid_is_ours "$guest_pid" || break
        sleep 0.02
    done
    cat "$dir/qemu.log" >&2
    return 1
}

guest_is_ready() {
    hmc -o json show "$guest_name" 2>/dev/null | grep -qE '"agent_state"[[:space:]]*:[[:space:]]*"ready"'
}

# Waits without the lock.
guest_await() {
    local timeout=${LAB_BOOT_TIMEOUT:-120} end
    [[ $timeout =~ ^[0-9]{1,5}$ ]] || die_usage "LAB_BOOT_TIMEOUT: a number of seconds, not '$timeout'"
    end=$((SECONDS + timeout))

    # This sleeps until the guest is up; hmc-cli is asked again and again, which costs a booting guest its processor.
    "$tools_dir/lab-exec" "$lab_dir/$guest_name/lab.sock" "$lab_dir/$guest_name/exec.lock" "$timeout" true || {
        pid_is_ours "$guest_pid" || { say "QEMU has ended" && return 1; }
        say "the guest does not answer"
        return 1
    }
    ! $guest_define || ! $guest_guestd || until guest_is_ready; do
        pid_is_ours "$guest_pid" || { say "QEMU has ended" && return 1; }
        ((SECONDS < end)) || { say "guestd did not report within $timeout s" && return 1; }
        sleep 0.05
    done
}

# The exit trap of `lab guest`: leaves nothing of a guest that did not come up.
guest_abandon() {
    local dir=$lab_dir/$guest_name

    if [[ -s $dir/console.log ]]; then
        say "the end of the guest's console:"
        tail -n 30 "$dir/console.log" >&2
    elif [[ -s $dir/qemu.log ]]; then
        cat "$dir/qemu.log" >&2
    fi
    ! $guest_defined || hmc undefine "$guest_name" >/dev/null 2>&1 || true
    libvirt_guest_forget "$guest_name"
    [[ -z $guest_pid ]] || kill_pids "$guest_pid"
    rm -rf -- "$dir"
}

check_arch() {
    case $1 in
        x86_64 | ppc64le) ;;
        *) die_usage "--arch: x86_64 or ppc64le, not '$1'" ;;
    esac
}

# guest_prepare ARCH: what guests of it are made of, after lab_find_build(). Sets kernel_dir and guest_build_dir, and
# sysroot_dir for another architecture than this host's.
guest_prepare() {
    guest_build_dir=$build_dir
    [[ $1 == x86_64 ]] || foreign_build "$1"
    image_find_kernel "$1"
}

# What takes time or the network at the first guest of an architecture.
lab_prepare() {
    local arch=x86_64

    if (($# > 0)); then
        [[ $# -eq 2 && $1 == --arch ]] || die_usage "usage: lab prepare [--arch x86_64|ppc64le]"
        arch=$2
        check_arch "$arch"
    fi
    need_packages "${packages_lab[@]}"
    if [[ $arch == x86_64 ]]; then
        build_project dev
    fi
    lab_find_build
    guest_prepare "$arch"
}

lab_guest() {
    guest_parse "$@"
    guest_defined=false
    guest_pid=

    if $guest_define && ! lab_is_up; then
        lab_up
    elif ! $guest_define && ! lab_is_up && [[ -z ${OPENDLPAR_BUILD:-} ]]; then
        need_packages "${packages_lab[@]}"
        build_project dev
    fi
    lab_find_build
    lab_find_tools
    guest_prepare "$guest_arch"
    if $guest_define; then
        pid_of "$lab_dir/hvd.pid" >/dev/null || die "the lab's hvd is not running: scripts/lab hvd start"
        [[ -x $guest_build_dir/guestd/guestd ]] || die "there is no guestd in the build folder $guest_build_dir"
    fi

    [[ $guest_platform != libvirt ]] || need_packages "${packages_lab_libvirt[@]}"
    lab_lock
    ! pid_of "$lab_dir/$guest_name/qemu.pid" >/dev/null || die "there is a guest $guest_name already"
    if [[ $guest_platform == libvirt ]]; then
        libvirt_start
        libvirt_tell_hvd
    fi
    trap guest_abandon EXIT
    trap 'exit 1' INT TERM HUP
    guest_start
    lab_unlock
    if $guest_define; then
        guest_define_in_hvd
    fi
    guest_await
    trap - EXIT INT TERM HUP
}

# A guest that was killed and is started again is still defined, with the same sockets.
guest_define_in_hvd() {
    [[ $guest_platform == qmp ]] || return 0 # hvd finds it
    ! hmc show "$guest_name" >/dev/null 2>&1 || return 0
    hmc define "$guest_name" --qmp "$lab_dir/$guest_name/qmp.sock" \
        --channel "$lab_dir/$guest_name/guestd.sock" >/dev/null
    guest_defined=true
}

# guest_need NAME: it must be running. Sets guest_pid.
guest_need() {
    (($# > 0)) || die_usage "the name of a guest is needed"
    check_name "$1"
    guest_pid=$(pid_of "$lab_dir/$1/qemu.pid") || die "there is no guest $1 running in $lab_dir"
}

lab_exec() {
    (($# > 0)) || die_usage "usage: lab exec NAME -- COMMAND..."
    local name=$1 timeout=${LAB_EXEC_TIMEOUT:-120}
    check_name "$name"
    shift
    [[ ${1:-} != -- ]] || shift
    (($# > 0)) || die_usage "usage: lab exec NAME -- COMMAND..."

    pid_of "$lab_dir/$name/qemu.pid" >/dev/null || {
        say "there is no guest $name running in $lab_dir"
        exit 125
    }
    lab_find_build
    lab_find_tools
    exec "$tools_dir/lab-exec" "$lab_dir/$name/lab.sock" "$lab_dir/$name/exec.lock" "$timeout" "$@"
}

lab_qmp() {
    (($# == 2)) || die_usage "usage: lab qmp NAME JSON"
    guest_need "$1"
    [[ ! -e $lab_dir/$1/domain.xml ]] || die "$1 is a domain, and libvirt alone has its monitor: scripts/lab virsh ..."
    lab_find_build
    lab_find_tools
    exec "$tools_dir/lab-qmp" "$lab_dir/$1/lab-qmp.sock" "$lab_dir/$1/qmp.lock" "${LAB_EXEC_TIMEOUT:-120}" "$2"
}

lab_list() {
    local file name

    for file in "$lab_dir"/*/qemu.pid; do
        ! pid_of "$file" >/dev/null || {
            name=${file%/qemu.pid}
            echo "${name##*/}"
        }
    done
}

lab_log() {
    (($# == 1)) || die_usage "usage: lab log NAME"
    check_name "$1"
    cat -- "$lab_dir/$1/console.log"
}

lab_stop() {
    (($# == 1)) || die_usage "usage: lab stop NAME"
    guest_need "$1"
    lab_find_build
    lab_find_tools
    lab_lock
    libvirt_guest_forget "$1"
    if [[ ! -e $lab_dir/$1/domain.xml ]] && pid_of "$lab_dir/hvd.pid" >/dev/null && hmc show "$1" >/dev/null 2>&1; then
        hmc undefine "$1" >/dev/null || say "hvd does not let go of $1; ending it all the same"
    fi
    [[ -e $lab_dir/$1/domain.xml ]] ||
        "$tools_dir/lab-qmp" "$lab_dir/$1/lab-qmp.sock" "$lab_dir/$1/qmp.lock" 3 '{"execute":"quit"}' >/dev/null 2>&1 ||
        true
    await_end 3 "$guest_pid" || end_pids "$guest_pid"
    rm -rf -- "${lab_dir:?}/$1"
    lab_unlock
}

lab_kill() {
    (($# == 1)) || die_usage "usage: lab kill NAME"
    guest_need "$1"
    kill_pids "$guest_pid"
}
