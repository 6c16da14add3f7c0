# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The lab's folder, its lock and its processes.
#
# LAB_DIR/lock is held while processes are started or ended, by file descriptor 9. A process that is being
# started inherits the descriptor and gives it up only when it carries the mark; so whoever gets the lock
# sees every process of the lab, even if the script that started it was killed at the worst moment.
# Waiting for a guest to boot happens without the lock.

# Sets lab_dir. Refuses what would break sockets, QEMU's commas or the bus address.
lab_init() {
    local default
    default=${XDG_RUNTIME_DIR:-/tmp}/opendlpar-lab-$UID

    [[ -z ${OPENDLPAR_LAB_DIR:-} ]] ||
        die_usage "OPENDLPAR_LAB_DIR marks the lab's own processes; set LAB_DIR to choose the folder"
    lab_dir=$(realpath -m -- "${LAB_DIR:-$default}")
    [[ $lab_dir =~ ^[A-Za-z0-9_./+-]+$ && $lab_dir != / ]] ||
        die_usage "LAB_DIR: only letters, digits and _ . / + - are possible: $lab_dir"
    ((${#lab_dir} <= 76)) ||
        die_usage "LAB_DIR is too long for the sockets in it (${#lab_dir} characters, 76 are possible): $lab_dir"
}

lab_dir_make() {
    if [[ ! -e $lab_dir/lab ]]; then
        mkdir -p -- "${lab_dir%/*}"
        mkdir -m 700 -- "$lab_dir" 2>/dev/null || true
        [[ -d $lab_dir && -O $lab_dir && ! -L $lab_dir ]] || die "LAB_DIR is not a folder of yours: $lab_dir"
        # A lab that was interrupted right here has at most the lock in it; a configuration may be laid ready.
        [[ -z $(find "$lab_dir" -mindepth 1 -maxdepth 1 ! -name lock ! -name lab ! -name hvd.conf -print -quit) ]] ||
            die "LAB_DIR has other things in it, choose a folder of its own: $lab_dir"
        : >"$lab_dir/lab"
    fi
    [[ -O $lab_dir ]] || die "LAB_DIR is not yours: $lab_dir"
}

lab_lock() {
    local tries

    for tries in {1..50}; do
        lab_dir_make
        { exec 9>"$lab_dir/lock"; } 2>/dev/null || continue
        flock -w 60 9 || die "another scripts/lab has been busy in $lab_dir for a minute"
        # It may have been a `down` that took the folder away.
        [[ $lab_dir/lock -ef /proc/$$/fd/9 && -e $lab_dir/lab ]] && return
        exec 9>&-
        sleep 0.05
    done
    die "the folder $lab_dir comes and goes (${tries} tries)"
}

lab_unlock() {
    exec 9>&-
}

# spawn PIDFILE LOG COMMAND...: starts a process of the lab, under the lock. Sets spawned_pid.
spawn() {
    local pidfile=$1 log=$2
    shift 2

    # shellcheck disable=SC2016  # it is for the inner shell
    env OPENDLPAR_LAB_DIR="$lab_dir" setsid bash -c '
        pidfile=$1
        shift
        echo $$ >"$pidfile.new" && mv "$pidfile.new" "$pidfile"
        for fd in /proc/$$/fd/*; do
            fd=${fd##*/}
            ((fd <= 2)) || eval "exec $fd>&-"
        done
        exec "$@"' spawn "$pidfile" "$@" </dev/null >>"$log" 2>&1 &
    spawned_pid=$!
    disown
}

# Alive, and of this lab. A zombie is not alive. libvirt's QEMU (libvirt.sh) has a guest's initrd in place of the mark.
pid_is_ours() {
    [[ $1 =~ ^[1-9][0-9]*$ ]] &&
        { grep -qzxF "OPENDLPAR_LAB_DIR=$lab_dir" "/proc/$1/environ" ||
            grep -qzxE "$(initrd_pattern)" "/proc/$1/cmdline"; } 2>/dev/null
}

initrd_pattern() {
    echo "${lab_dir//[.+]/\\&}/[A-Za-z0-9_-]+/initrd"
}

marked_pids() {
    local file

    {
        grep -lzxF "OPENDLPAR_LAB_DIR=$lab_dir" /proc/[0-9]*/environ 2>/dev/null || true
        grep -lzxE "$(initrd_pattern)" /proc/[0-9]*/cmdline 2>/dev/null || true
    } |
        while read -r file; do
            file=${file#/proc/}
            echo "${file%/*}"
        done | sort -u
}

# pid_of PIDFILE: prints the pid if that process is alive and of this lab.
pid_of() {
    local pid

    pid=$(cat "$1" 2>/dev/null) && pid_is_ours "$pid" && echo "$pid"
}

# await_end SECONDS PID...: true when none of them is alive any more.
await_end() {
    local end=$((SECONDS + $1)) pid
    shift

    for pid in "$@"; do
        while pid_is_ours "$pid"; do
            ((SECONDS <= end)) || return 1
            sleep 0.02
        done
    done
}

# end_pids PID...: asks, and insists after five seconds.
end_pids() {
    local pid

    for pid in "$@"; do
        ! pid_is_ours "$pid" || kill -TERM "$pid" 2>/dev/null || true
    done
    await_end 5 "$@" || {
        say "killing what does not end when asked: $*"
        kill_pids "$@"
    }
}

kill_pids() {
    local pid

    for pid in "$@"; do
        ! pid_is_ours "$pid" || kill -KILL "$pid" 2>/dev/null || true
    done
    await_end 10 "$@" || die "a process does not die: $*"
}

lab_down() {
    (($# == 0)) || die_usage "down takes no arguments"
    local pids hvd libvirtd

    if [[ -e $lab_dir ]]; then
        # Not lab_lock(), which insists on a folder in good order and on getting the lock.
        [[ -d $lab_dir && -O $lab_dir ]] || die "LAB_DIR is not a folder of yours: $lab_dir"
        exec 9>"$lab_dir/lock"
        flock -w 60 9 || say "another scripts/lab has been busy for a minute; going on without waiting for it"
    fi
    # hvd first, so that it does not see its guests fall one by one. Then libvirtd, so that it starts none anew.
    if hvd=$(pid_of "$lab_dir/hvd.pid"); then
        end_pids "$hvd"
    fi
    if libvirtd=$(pid_of "$lab_dir/libvirt/libvirtd.pid"); then
        end_pids "$libvirtd"
    fi
    mapfile -t pids < <(marked_pids)
    while ((${#pids[@]} > 0)); do
        end_pids "${pids[@]}"
        mapfile -t pids < <(marked_pids)
    done
    [[ -e $lab_dir ]] || return 0
    if [[ -e $lab_dir/lab ]]; then
        rm -rf -- "$lab_dir"
    else
        # Never became a lab, or was not one: take away no more than what is ours.
        rm -f -- "$lab_dir/lock"
        rmdir -- "$lab_dir" 2>/dev/null || say "left alone, as it is not a lab: $lab_dir"
    fi
}
