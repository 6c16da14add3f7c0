# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What a guest boots: Debian's kernel, fetched once into the cache, and an initramfs of busybox, guestd with
# its libraries and lab-agent, made afresh for each guest (it takes a tenth of a second).

declare -A image_kernel_package=([x86_64]=linux-image-cloud-amd64 [ppc64le]=linux-image-powerpc64le)
declare -A image_modules=(
    [x86_64]="virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci
        virtio_console virtio_balloon virtio_mem virtio_blk"
    [ppc64le]="virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci
        virtio_console virtio_balloon virtio_blk")

# image_find_kernel ARCH: sets kernel_dir, with vmlinuz and modules/NN-NAME.ko in the order of loading.
image_find_kernel() {
    local arch=$1

    kernel_dir=$cache_dir/kernel-$arch-1
    [[ ! -e $kernel_dir ]] || return 0
    mkdir -p "$cache_dir"
    # apt's state for another architecture has one user at a time.
    if [[ $arch == x86_64 ]]; then
        image_fetch_kernel_locked "$arch" 8>"$cache_dir/kernel.lock"
    else
        image_fetch_kernel_locked "$arch" 8>"$cache_dir/$arch.lock"
    fi
}

image_fetch_kernel_locked() {
    local arch=$1
    flock 8
    [[ ! -e $kernel_dir ]] || return 0

    local work
    work=$(mktemp -d "$cache_dir/kernel-$arch.XXXXXX")
    # No daemon is started under this lock, so a killed script leaves no more than this folder.
    find "$cache_dir" -maxdepth 1 -name "kernel-$arch.??????" ! -path "$work" -exec rm -rf {} +
    image_download_kernel "$work" "$arch" || {
        rm -rf -- "$work"
        die "the guest kernel could not be fetched: ${image_kernel_package[$arch]}"
    }
    dpkg-deb -x "$work"/*.deb "$work/root"
    mkdir -p "$work/result/modules"
    # On PPC64 it is called vmlinux.
    cp "$work"/root/boot/vmlinu[xz]-* "$work/result/vmlinuz"
    image_collect_modules "$work" "$arch"
    mv -T "$work/result" "$kernel_dir"
    rm -rf -- "$work"
}

# The archive may be changing under us: an index older than the pool gives a 404. Hence the rounds.
image_download_kernel() {
    local work=$1 arch=$2 delay package sandbox=()

    if [[ $arch != x86_64 ]]; then
        foreign_fetch_dependency "$arch" "$work" "${image_kernel_package[$arch]}" 'linux-image-[0-9].*'
        return
    fi
    ((EUID != 0)) || sandbox=(-o APT::Sandbox::User=root)
    for delay in 0 2 5 15 40; do
        if ((delay > 0)); then
            sleep "$delay"
            as_root apt-get update >"$work/apt.log" 2>&1 || true
        fi
        package=$(apt-cache depends "${image_kernel_package[$arch]}" 2>/dev/null |
            sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
        [[ -n $package ]] || continue
        say "fetching the guest kernel with apt: $package"
        (cd "$work" && apt-get "${sandbox[@]}" download "$package") >"$work/apt.log" 2>&1 && return
    done
    cat "$work/apt.log" >&2
    return 1
}

image_collect_modules() {
    local work=$1 name
    local -A seen=()
    local count=10

    for name in ${image_modules[$2]}; do
        image_collect_module "$work" "$name"
    done
}

# Copies a module after those that it depends on. Changes seen and count of its caller.
image_collect_module() {
    local work=$1 name=$2 tree=$1/root/lib/modules file dependency target

    [[ -z ${seen[$name]:-} ]] || return 0
    seen[$name]=1
    ! grep -qE "/${name//_/[-_]}\.ko" "$tree"/*/modules.builtin || return 0
    file=$(find "$tree" -regex ".*/${name//_/[-_]}\.ko\(\.xz\|\.zst\|\.gz\)?" -print -quit)
    [[ -n $file ]] || die "the guest kernel has no module $name"

    target=$work/$name.ko
    case $file in
        *.xz) need_packages xz-utils && xz -dc "$file" >"$target" ;;
        *.zst) need_packages zstd && zstd -qdc "$file" >"$target" ;;
        *.gz) gzip -dc "$file" >"$target" ;;
        *) cp "$file" "$target" ;;
    esac
    for dependency in $(LC_ALL=C grep -aom1 'depends=[a-zA-Z0-9_,-]*' "$target" | head -n 1 | sed 's/depends=//; s/,/ /g'); do
        image_collect_module "$work" "${dependency//-/_}"
    done
    mv "$target" "$work/result/modules/$((count++))-$name.ko"
}

# image_build TARGET ARCH: writes the initramfs. Without guestd in the build, a guest without guestd.
image_build() {
    local target=$1 arch=$2 root=$1.root program

    rm -rf -- "$root"
    mkdir -p "$root"/{bin,dev,etc,lab,proc,root,run,sys,tmp,usr,var/lib}
    ln -s bin "$root/sbin"
    ln -s ../bin "$root/usr/bin"
    ln -s ../bin "$root/usr/sbin"

    if [[ $arch == x86_64 ]]; then
        image_add_own "$root"
    else
        image_add_foreign "$root" "$arch"
    fi
    for program in "${guest_programs[@]}"; do
        if [[ $arch == x86_64 ]]; then
            image_add_program "$root" "$program"
        else
            image_add_program_of "$root" "$program"
        fi
    done
    cp -r "$kernel_dir/modules" "$root/lab/modules"

    install -m 755 "$here/lab.d/guest-init" "$root/init"
    install -m 755 "$here/lab.d/guest-guestd" "$root/lab/run-guestd"
    cat >"$root/etc/inittab" <<'TEXT'
::respawn:/bin/lab-agent
::respawn:/lab/run-guestd
TEXT
    echo "root:x:0:0:root:/root:/bin/sh" >"$root/etc/passwd"
    echo "root:x:0:" >"$root/etc/group"

    # Not compressed: the guest would unpack it under TCG, which costs more than QEMU's copying.
    (cd "$root" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$target.new"
    mv "$target.new" "$target"
    rm -rf -- "$root"
}

# What is in a guest of this host's architecture.
image_add_own() {
    local root=$1 program

    cp /bin/busybox "$root/bin/busybox"
    /bin/busybox --install -s "$root/bin"
    cp "$tools_dir/lab-agent" "$root/bin/lab-agent"
    for program in guestd/guestd hooks/opendlpar-hooks; do
        ! [[ -x $build_dir/$program ]] || image_add_program "$root" "$build_dir/$program"
    done
}

# What is in a guest of another architecture. Its busybox links its applets itself, in /init.
image_add_foreign() {
    local root=$1 arch=$2 program

    cp "$sysroot_dir/bin/busybox" "$root/bin/busybox"
    cp "$guest_build_dir"/tests/lab/tools/{lab-agent,lab-await-online,lab-pin} "$root/bin/"
    image_add_program_of "$root" "$guest_build_dir/guestd/guestd"
    image_add_program_of "$root" "$guest_build_dir/hooks/opendlpar-hooks"
    case $arch in
        # The platform's own view of its memory, to compare ours with.
        ppc64le)
            mkdir -p "$root"/var/{lock,log}
            for program in drmgr lsslot; do
                image_add_program_of "$root" "$sysroot_dir/usr/sbin/$program"
            done
            ;;
    esac
}

# A program goes to /bin, its libraries and its loader where they are on this host.
image_add_program() {
    local root=$1 program=$2 libraries library

    cp "$program" "$root/bin/"
    libraries=$(ldd "$program" 2>/dev/null) || return 0 # static
    [[ $libraries != *"not found"* ]] || die "libraries of $program are missing: $libraries"
    grep -o '/[^ ]*' <<<"$libraries" | while read -r library; do
        mkdir -p "$root${library%/*}"
        cp -L "$library" "$root$library"
    done
}

# The same from sysroot_dir, whose programs this host cannot run.
image_add_program_of() {
    local root=$1 program=$2

    cp "$program" "$root/bin/"
    image_add_libraries_of "$root" "$program"
}

# What an ELF file names as its loader and its libraries, and what these name.
image_add_libraries_of() {
    local root=$1 name file

    for name in $(readelf -Wld "$2" | sed -n 's/.*program interpreter: \(.*\)\]$/\1/p; s/.*(NEEDED).*\[\(.*\)\]$/\1/p'); do
        for file in "$sysroot_dir$name" "$sysroot_dir"/{,usr/}lib/*-linux-gnu/"$name"; do
            [[ ! -e $file ]] || break
        done
        [[ -e $file ]] || die "a library of $2 is missing in $sysroot_dir: $name"
        file=${file#"$sysroot_dir"}
        [[ ! -e $root$file ]] || continue
        mkdir -p "$root${file%/*}"
        cp -L "$sysroot_dir$file" "$root$file"
        image_add_libraries_of "$root" "$sysroot_dir$file"
    done
}
