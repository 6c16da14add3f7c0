# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What all scripts stand on: where the tree is, how to speak, how to get packages, how to build.
# Sourced after `set -euo pipefail`.

# shellcheck disable=SC2034  # the variables are for those who source this
repo_root=$(cd -- "${BASH_SOURCE[0]%/*}/.." && pwd -P)
cache_dir=${XDG_CACHE_HOME:-$HOME/.cache}/opendlpar

# Debian's names of what each kind of work needs.
packages_build=(build-essential cmake ninja-build pkg-config libsystemd-dev libudev-dev libjson-c-dev
    libcmocka-dev libinih-dev libsmartcols-dev libsqlite3-dev libvirt-dev libxml2-dev)
packages_sanitize=(clang libclang-rt-14-dev llvm)
packages_lab=(qemu-system-x86 busybox-static cpio dbus-daemon)
packages_lab_libvirt=(libvirt-daemon-system libvirt-clients util-linux)
packages_lab_ppc64le=(qemu-system-ppc gcc-powerpc64le-linux-gnu binutils)
packages_test=(dbus-daemon)
packages_style=(clang-format clang-tidy shellcheck)

# What each target of scripts/fuzz is there for: the parsers of what others may write.
declare -A fuzz_files=(
    [proto]="proto/decode.c proto/encode.c proto/message.c common/lines.c common/json.c"
    [qmp]="hvd/qmp/message.c common/lines.c common/json.c"
    [snapshot]="hvd/platform/snapshot.c common/json.c"
    [config]="hvd/config.c hvd/config-values.c hvd/policy/setting.c"
    [guest-files]="guestd/memory.c guestd/zones.c guestd/pools.c guestd/settings.c guestd/uevent.c guestd/sysfs.c"
    [size]="common/size.c"
    [domain-xml]="hvd/platform/libvirt-xml.c hvd/platform/libvirt-edit.c"
)

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    say "$*"
    exit 1
}

# For a wrong command line.
die_usage() {
    say "$*"
    exit 2
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "root or sudo is needed to run: $*"
    fi
}

package_is_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# need_packages PACKAGE...: installs what is missing, and says so.
need_packages() {
    local package missing=()

    for package in "$@"; do
        package_is_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]} > 0)) || return 0

    command -v apt-get >/dev/null || die "these Debian packages are needed: ${missing[*]}"
    if ((EUID != 0)) && ! command -v sudo >/dev/null; then
        die "these packages are missing, and neither root nor sudo is here to install them: ${missing[*]}"
    fi
    say "installing with apt: ${missing[*]}"
    mkdir -p "$cache_dir"
    if ! apt_install "${missing[@]}" >"$cache_dir/apt.log" 2>&1; then
        tail -n 20 "$cache_dir/apt.log" >&2
        die "apt-get could not install: ${missing[*]}"
    fi
}

# An archive may be in the middle of an update, and another apt may hold the lock: patience, a few times.
apt_install() {
    local delay

    for delay in 0 3 10 30; do
        sleep "$delay"
        as_root apt-get update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 \
                install -y --no-install-recommends "$@" && return
    done
    return 1
}

# build_project PRESET: sets build_dir, which is finished when this returns.
# OPENDLPAR_BUILD names a finished build folder to use instead.
build_project() {
    local preset=$1

    if [[ -n ${OPENDLPAR_BUILD:-} ]]; then
        build_dir=$(realpath -m -- "$OPENDLPAR_BUILD")
        [[ -d $build_dir ]] || die "OPENDLPAR_BUILD: there is no folder $build_dir"
        return
    fi
    need_packages "${packages_build[@]}"
    [[ $preset != sanitize ]] || need_packages "${packages_sanitize[@]}"
    build_dir=$repo_root/build/$preset
    build_preset "$preset"
}

build_preset() {
    local preset=$1 log=$repo_root/build/$1.log

    mkdir -p "$repo_root/build/$preset"
    if ! build_locked "$preset" 8>"$repo_root/build/$preset.lock" >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        die "the build failed (all of it: $log)"
    fi
}

build_locked() {
    flock 8
    (
        exec 8>&-
        cd "$repo_root" || exit
        [[ -e build/$1/build.ninja ]] || cmake --preset "$1" || exit
        cmake --build --preset "$1"
    )
}

# Sets tools_dir, after build_dir. A build without the tests has no lab tools: they are made in the cache then.
lab_find_tools() {
    local sources=$repo_root/tests/lab/tools stamp

    tools_dir=$build_dir/tests/lab/tools
    [[ ! -x $tools_dir/lab-qmp || ! -x $tools_dir/lab-exec || ! -x $tools_dir/lab-agent || ! -x $tools_dir/lab-load ]] ||
        return 0

    stamp=$(cat "$sources"/*.[ch] | sha256sum)
    tools_dir=$cache_dir/lab-tools-${stamp:0:16}
    [[ ! -e $tools_dir ]] || return 0
    need_packages gcc libc6-dev pkg-config libjson-c-dev
    mkdir -p "$cache_dir"
    local new
    new=$(mktemp -d "$tools_dir.XXXXXX")
    (
        cd "$sources" || exit
        cc -std=gnu17 -O2 -D_GNU_SOURCE -static -o "$new/lab-agent" lab-agent.c || exit
        cc -std=gnu17 -O2 -D_GNU_SOURCE -static -o "$new/lab-load" lab-load.c load-*.c || exit
        cc -std=gnu17 -O2 -D_GNU_SOURCE -o "$new/lab-exec" lab-exec.c client.c || exit
        # shellcheck disable=SC2046  # flags are words
        cc -std=gnu17 -O2 -D_GNU_SOURCE -o "$new/lab-qmp" lab-qmp.c client.c $(pkg-config --cflags --libs json-c)
    ) || die "the lab's tools do not build"
    mv -T "$new" "$tools_dir" 2>/dev/null || rm -rf -- "$new" # another lab was faster
}

# watchdog_start FOLDER: takes down the lab of LAB_DIR and others in the folder, and removes that, when this script has ended,
# also by kill -9. Sets watchdog_pid, the process group to end when the script has done that itself. It is no child of the
# script's: ctest, when a test's time is up, kills all that descends from it.
watchdog_start() {
    # shellcheck disable=SC2016  # it is for the inner shell
    watchdog_pid=$(
        setsid bash -c '
            tail --pid="$1" -s 0.5 -f /dev/null
            "$2" down
            for mark in "$3"/*/lab; do
                [[ ! -e $mark ]] || LAB_DIR=${mark%/lab} "$2" down
            done
            rm -rf -- "$3"' watchdog $$ "$repo_root/scripts/lab" "$1" </dev/null >/dev/null 2>&1 &
        echo $!
    )
}
