# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Debian for guests of another architecture than this machine's. Its packages come through an apt state of their own,
# in the cache: the system's own architectures, lists and packages stay as they are. Where from is what the system's
# sources say.
#
# One sysroot serves the cross compiler and the guest's image: the libraries that guestd is built with are those that it
# runs with.

declare -A foreign_debian_arch=([ppc64le]=ppc64el)
# What guestd is built from and runs on, and what a guest has besides. With all that they depend on.
declare -A foreign_packages=([ppc64le]="libc6-dev libjson-c-dev libudev-dev busybox-static powerpc-utils")

# foreign_build ARCH: sets guest_build_dir, with guestd and lab-agent, and sysroot_dir.
foreign_build() {
    local arch=$1

    foreign_find_sysroot "$arch"
    need_packages "${packages_build[@]}"
    build_preset "$arch"
    guest_build_dir=$repo_root/build/$arch
}

# foreign_find_sysroot ARCH: sets sysroot_dir.
foreign_find_sysroot() {
    local arch=$1 key

    need_packages "${packages_lab_ppc64le[@]}"
    sysroot_dir=$cache_dir/sysroot-$arch
    key=$(declare -f foreign_make_sysroot foreign_unpack; echo "${foreign_packages[$arch]}")
    key=$(sha256sum <<<"$key")
    key=${key:0:16}
    [[ $(cat "$sysroot_dir/.key" 2>/dev/null) != "$key" ]] || return 0
    mkdir -p "$cache_dir"
    foreign_make_sysroot "$arch" "$key" 8>"$cache_dir/$arch.lock"
}

foreign_make_sysroot() {
    local arch=$1 key=$2 work packages
    flock 8
    [[ $(cat "$sysroot_dir/.key" 2>/dev/null) != "$key" ]] || return 0

    work=$cache_dir/sysroot-$arch.new
    rm -rf -- "$work"
    mkdir -p "$work"/{debs,root}
    read -ra packages <<<"${foreign_packages[$arch]}"
    say "fetching Debian's packages for ${foreign_debian_arch[$arch]} with apt: ${packages[*]}"
    foreign_apt "$arch" "$work/debs" apt-get -c "$cache_dir/apt-$arch/apt.conf" -o "Dir::Cache::archives=$work/debs" \
        -o APT::Install-Recommends=false -y --download-only install "${packages[@]}"
    foreign_unpack "$work/debs" "$work/root"
    echo "$key" >"$work/root/.key"
    rm -rf -- "$sysroot_dir"
    mv -T "$work/root" "$sysroot_dir"
    rm -rf -- "$work"
}

# foreign_unpack DEBS ROOT: no script of theirs is run. Absolute links would lead to the host's files.
foreign_unpack() {
    local package folder link target

    mkdir -p "$2"/usr/{bin,sbin,lib,lib64}
    for folder in bin sbin lib lib64; do
        ln -s "usr/$folder" "$2/$folder"
    done
    for package in "$1"/*.deb; do
        dpkg-deb --fsys-tarfile "$package" |
            tar -x --keep-directory-symlink --no-same-owner -C "$2" --exclude='./usr/share/[!p]*' --exclude='./usr/share/p[!k]*'
    done
    find "$2" -type l -lname '/*' -printf '%p %l\n' | while read -r link target; do
        ln -snrf "$2$target" "$link"
    done
}

# foreign_fetch_dependency ARCH FOLDER PACKAGE PATTERN: what a package depends on by this name, alone.
foreign_fetch_dependency() {
    say "fetching what $3 is for ${foreign_debian_arch[$1]} with apt"
    foreign_apt "$1" "$2" foreign_apt_download_dependency "$1" "$3" "$4"
}

foreign_apt_download_dependency() {
    local conf=$cache_dir/apt-$1/apt.conf package

    package=$(apt-cache -c "$conf" depends "$2" | sed -n "s/^ *Depends: \($3\)\$/\1/p" | head -n 1)
    [[ -n $package ]] || {
        echo "E: there is no $2"
        return 1
    }
    apt-get -c "$conf" download "$package"
}

# foreign_apt ARCH FOLDER COMMAND...: a command that fetches, run in that folder, with patience: an archive may be in the middle of an
# update, when an index does not fit its release file, or is older than the pool. An index that cannot be had is told, and
# is no reason to give up as long as the packages can be had.
foreign_apt() {
    local arch=$1 folder=$2 apt=$cache_dir/apt-$1 delay failure=''
    shift 2

    foreign_apt_configure "$arch"
    mkdir -p "$folder/partial"
    for delay in 0 5 20 60; do
        if ((delay > 0)); then
            say "apt: $failure; trying again in $delay s"
            sleep "$delay"
        fi
        apt-get -c "$apt/apt.conf" update >"$apt/update.log" 2>&1 || true
        if (cd "$folder" && "$@") >"$apt/log" 2>&1; then
            ! failure=$(grep -m 1 '^[EW]: Failed to fetch' "$apt/update.log") || say "done without an index: ${failure#?: }"
            return
        fi
        failure=$(grep -h '^[EW]: Failed to fetch\|^E:' "$apt/update.log" "$apt/log" | head -n 1)
    done
    grep -h '^[EW]: Failed to fetch\|^E:' "$apt/update.log" "$apt/log" >&2
    die "Debian's packages for ${foreign_debian_arch[$arch]} could not be fetched (all of it: $apt/log, $apt/update.log)"
}

foreign_apt_configure() {
    local apt=$cache_dir/apt-$1 arch=${foreign_debian_arch[$1]}

    mkdir -p "$apt"/{lists/partial,cache/archives/partial}
    : >"$apt/status"
    # What others hang on apt's work is about the system's packages.
    cat >"$apt/apt.conf" <<TEXT
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
TEXT
}
