#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The units in a guest with systemd, udev and a system bus of Debian's, in memory as the lab's other guests are:
# guestd.service comes and goes with its port and comes back when it is killed, locked and confined as its unit says,
# and still does its work; hvd.service starts on its name being called, under its watchdog.
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

# busybox serves for the rest.
guest_packages=(systemd udev kmod dbus base-passwd libjson-c5 libudev1 libsystemd0 libinih1 libsqlite3-0
    libsmartcols1 libvirt0 libxml2)

# Sets root_image: the distribution's part, kept in the cache by the text of this function.
make_root_image() {
    local key
    key=$(declare -f make_root_image unpack_packages; echo "${guest_packages[*]}")
    key=$(sha256sum <<<"$key")
    root_image=$cache_dir/systemd-guest-${key:0:16}.cpio
    [[ ! -e $root_image ]] || return 0

    note "making $root_image"
    local root=$work_dir/root share
    mkdir -p "$cache_dir" "$root"/{dev,etc,proc,root,run,sys,tmp,var/lib} "$root"/usr/{bin,sbin,lib,lib64}
    for share in bin sbin lib lib64; do
        ln -s "usr/$share" "$root/$share"
    done
    unpack_packages "$root"
    rm -rf "$root"/usr/share/{doc,info,lintian,locale,man,perl*,bug,zsh,bash-completion,i18n} \
        "$root"/usr/lib/*/{perl,perl5,gconv} "$root"/usr/bin/perl* "$root"/usr/lib/*/libperl* "$root"/usr/lib/udev/hwdb.d \
        "$root"/usr/lib/systemd/system-generators/*
    cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
    cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
    # Two users for the bus, as the packages' scripts would make them.
    echo 'messagebus:x:100:100::/nonexistent:/usr/sbin/nologin' >>"$root/etc/passwd"
    echo 'messagebus:x:100:' >>"$root/etc/group"
    : >"$root/etc/machine-id"
    : >"$root/etc/fstab"
    (cd "$root" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$root_image.$$"
    mv "$root_image.$$" "$root_image"
    find "$cache_dir" -maxdepth 1 -name 'systemd-guest-*' ! -path "$root_image" -delete
    rm -rf -- "$root"
}

# unpack_packages ROOT: with all that they depend on, as if nothing were installed; no script of theirs is run, so
# nobody needs to be root.
unpack_packages() {
    local apt=$work_dir/apt delay package
    local options=(-o "Dir::State::status=$apt/status" -o "Dir::Cache::archives=$apt/archives" -o Debug::NoLocking=1)

    mkdir -p "$apt/archives/partial"
    : >"$apt/status"
    ((EUID != 0)) || options+=(-o APT::Sandbox::User=root)
    for delay in 0 3 10 30; do
        if ((delay > 0)); then
            sleep "$delay"
            as_root apt-get update >/dev/null 2>&1 || true
        fi
        ! apt-get "${options[@]}" --no-install-recommends -y --download-only install "${guest_packages[@]}" \
            >"$apt/log" 2>&1 || break
    done
    for package in "$apt"/archives/*.deb; do
        [[ -e $package ]] || {
            tail -n 20 "$apt/log" >&2
            fail "the guest's packages could not be fetched"
        }
        dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink --no-same-owner -C "$1"
    done
}

# Sets initrd: the distribution, and over it what is ours, as `cmake --install` puts it.
make_initrd() {
    local root=$work_dir/ours name
    initrd=$work_dir/initrd

    mkdir -p "$root"/{etc/dbus-1/system.d,lab/bin,usr/lib/systemd/system/multi-user.target.wants}
    DESTDIR=$root cmake --install "$build_dir" --strip >"$work_dir/install.log" 2>&1 ||
        fail "installing: $(tail "$work_dir/install.log")"
    # The bus reads policies in /usr and /etc alone, and this installation may be that of another prefix.
    cp "$repo_root/systemd/org.opendlpar.hvd1.conf" "$root/etc/dbus-1/system.d/"
    # The image's /lib is a link.
    if [[ -d $root/lib ]]; then
        cp -r "$root/lib/." "$root/usr/lib/"
        rm -rf "${root:?}/lib"
    fi

    cp -r "$kernel_dir/modules" "$root/lab/modules"
    cp "$build_dir/tests/lab/tools/lab-agent" /bin/busybox "$root/lab/bin/"
    for name in $(/bin/busybox --list); do
        [[ $name == busybox ]] || ln -s busybox "$root/lab/bin/$name"
    done
    cat >"$root/usr/lib/systemd/system/lab-agent.service" <<'TEXT'
[Service]
ExecStart=/lab/bin/lab-agent
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/lab/bin
Restart=always
TEXT
    ln -s ../lab-agent.service "$root/usr/lib/systemd/system/multi-user.target.wants/"
    cat >"$root/init" <<'TEXT'
#!/lab/bin/sh
for module in /lab/modules/*.ko; do
    /lab/bin/insmod "$module"
done
[ -e /usr/bin/sh ] || /lab/bin/ln -s /lab/bin/sh /usr/bin/sh
exec /usr/lib/systemd/systemd
TEXT
    chmod 755 "$root/init"
    (cd "$root" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$work_dir/ours.cpio"
    cat "$root_image" "$work_dir/ours.cpio" >"$initrd"
    rm -rf "$root" "$work_dir/ours.cpio"
}

in_guest() {
    guest sd1 "$1"
}

unit_property() { # UNIT PROPERTY
    in_guest "systemctl show $1 --value -p $2"
}

unit_is() { # UNIT STATE
    [[ $(unit_property "$1" ActiveState) == "$2" ]]
}

# The path of guestd's port in QEMU, whether the lab gave it an id or not.
port_path() {
    local folder path
    for folder in /machine/peripheral /machine/peripheral-anon; do
        for path in $(qmp sd1 qom-list "{\"path\":\"$folder\"}" |
            jq -r --arg folder "$folder" '.[] | select(.type == "child<virtserialport>") | $folder + "/" + .name'); do
            if [[ $(qmp sd1 qom-get "{\"path\":\"$path\",\"property\":\"name\"}") == '"org.opendlpar.guestd.0"' ]]; then
                echo "$path"
                return
            fi
        done
    done
    fail "QEMU has no port org.opendlpar.guestd.0"
}

check_confinement() {
    local pid status
    pid=$(unit_property guestd MainPID)
    status=$(in_guest "cat /proc/$pid/status")

    assert_at_least "KiB of guestd that are locked" 1000 "$(awk '$1 == "VmLck:" { print $2 }' <<<"$status")"
    # CAP_SYS_RESOURCE, CAP_NET_ADMIN and CAP_IPC_LOCK
    assert_equal "capabilities of guestd" 0000000001005000 "$(awk '$1 == "CapEff:" { print $2 }' <<<"$status")"
    assert_equal "what guestd can write to in /sys" "devices/system/memory/auto_online_blocks kernel/rcu_expedited devices/system/node/node0/compact fs/cgroup/memory.reclaim" \
        "$(in_guest "nsenter -m -t $pid sh -c 'cd /sys; for f in devices/system/memory/auto_online_blocks kernel/rcu_expedited devices/system/node/node0/compact fs/cgroup/memory.reclaim fs/cgroup/cgroup.procs kernel/profiling module/printk/parameters/time; do (: >>\$f) 2>/dev/null && echo \$f; done; true'" | xargs)"
    assert_equal "oom_score_adj of guestd" -1000 "$(in_guest "cat /proc/$pid/oom_score_adj")"
    assert_equal "swap for guestd" 0 "$(in_guest 'cat /sys/fs/cgroup/system.slice/guestd.service/memory.swap.max')"
}

move_memory() {
    local before
    before=$(host_plugged sd1)
    expect 0 cli add-memory sd1 512M
    check_accounts sd1 $((before + 512 * MiB))
    expect 0 cli remove-memory sd1 512M
    check_accounts sd1 "$before"
}

test_begin
((!sanitized)) || skip "the guest's distribution has none of the sanitizers' libraries"
need_packages dpkg
# shellcheck source=scripts/lab.d/image.sh
. "$tests_root/scripts/lab.d/image.sh"
image_find_kernel x86_64
make_root_image
make_initrd

step "guestd.service starts with its port"
boot sd1 --memory 1G --max-memory 4G -- -initrd "$initrd" \
    -append "console=ttyS0 loglevel=4 panic=0 systemd.unit=multi-user.target systemd.hostname=sd1"
assert_equal "guestd.service" active "$(unit_property guestd ActiveState)"
check_confinement

step "confined, it moves memory"
move_memory

step "a hook is not confined as guestd is: it tells another user's program by a signal"
to_guest() { # PATH: standard input, as a program
    in_guest "mkdir -p ${1%/*} && echo $(base64 -w 0) | base64 -d >$1 && chmod 755 $1"
}
hooks=/etc/opendlpar/hooks.d
to_guest $hooks/50-signal <"$tests_root/hooks/examples/opendlpar-signal"
to_guest /etc/opendlpar/signal.conf <<<'/run/app/pid USR1 USR2'
to_guest $hooks/10-see <<'TEXT'
#!/bin/sh
exec >/etc/opendlpar/seen
cat /proc/self/oom_score_adj
grep CapEff /proc/self/status
env
TEXT
to_guest /run/app/app <<'TEXT'
#!/bin/sh
trap 'echo leaves >>/run/app/heard' USR1
trap 'echo comes >>/run/app/heard' USR2
echo $$ >/run/app/pid
while :; do sleep 0.1; done
TEXT
# What the hook calls is not in this distribution, which is small.
# shellcheck disable=SC2016  # for the shell in the guest
in_guest 'mkdir -p /usr/local/bin && for f in cat env grep sleep; do ln -s /lab/bin/busybox /usr/local/bin/$f; done
    chown nobody /run/app && systemd-run --quiet --uid=nobody --unit=app -E PATH="$PATH" /run/app/app'
await 10 "the program" in_guest 'test -s /run/app/pid'
expect 0 cli add-memory sd1 512M --wait 40s
expect 0 cli remove-memory sd1 512M --wait 40s
await 10 "its signals" in_guest 'grep -qs comes /run/app/heard && grep -q leaves /run/app/heard'
note "$(in_guest 'cat /etc/opendlpar/seen' | paste -sd ' ')"
in_guest 'grep -q "CapEff:.*1ffffffffff" /etc/opendlpar/seen && ! grep -q LISTEN_ /etc/opendlpar/seen'
assert_equal "oom_score_adj of a hook" 0 "$(in_guest 'head -n 1 /etc/opendlpar/seen')"
over() { ! unit_is opendlpar-hooks.service active; }
await 10 "the service that ran it to end" over
in_guest 'printf "#!/bin/sh\necho not now; exit 1\n" >/etc/opendlpar/hooks.d/20-no; chmod 755 /etc/opendlpar/hooks.d/20-no'
expect 1 cli add-memory sd1 512M --wait 40s
grep -q 'Hook 20-no, check: not now' <<<"$out$err" || fail "no word of the hook: $out$err"
in_guest 'rm -r /etc/opendlpar/hooks.d'

step "it comes back after kill -9"
# shellcheck disable=SC2016  # for the shell in the guest
in_guest 'kill -9 "$(systemctl show --value -p MainPID guestd)"'
restarted() { [[ $(unit_property guestd NRestarts) == 1 ]] && unit_is guestd active; }
await 10 "guestd.service to be restarted" restarted
await 20 "guestd to be ready again" agent_is sd1 ready

step "it goes with its port, and does not restart without it"
port=$(port_path)
qmp sd1 device_del "{\"id\":\"$port\"}" >/dev/null
await 10 "guestd.service to stop" unit_is guestd inactive
assert_equal "how guestd ended" success "$(unit_property guestd Result)"

step "it starts when the port is plugged again"
qmp sd1 device_add \
    '{"driver":"virtserialport","bus":"vserial0.0","chardev":"guestd","name":"org.opendlpar.guestd.0","id":"again"}' >/dev/null
await 10 "guestd.service to start" unit_is guestd active
await 20 "guestd to be ready again" agent_is sd1 ready
move_memory

step "hvd.service starts when it is called, and tells systemd that it lives"
assert_equal "hvd.service" inactive "$(unit_property hvd ActiveState)"
in_guest 'hmc-cli list' >/dev/null
assert_equal "hvd.service" active "$(unit_property hvd ActiveState)"
assert_equal "restarts of hvd" 0 "$(unit_property hvd NRestarts)"
in_guest 'systemctl reload hvd && hmc-cli list' >/dev/null
assert_equal "restarts of hvd" 0 "$(unit_property hvd NRestarts)"

step "everyone may read, root may change"
as_nobody() { in_guest "systemd-run --quiet --pipe --wait --uid=nobody -E PATH=\"\$PATH\" $*"; }
expect 0 as_nobody hmc-cli pool
expect 1 as_nobody hmc-cli define g1 --qmp /run/g1.qmp --channel /run/g1.guestd
assert_equal "partitions" '[]' "$(in_guest 'hmc-cli -o json list' | jq -c .)"
expect 0 in_guest 'hmc-cli define g1 --qmp /run/g1.qmp --channel /run/g1.guestd'
expect 0 in_guest 'systemctl restart hvd && hmc-cli show g1'

step "confined, hvd reaches sockets of others, in /home and /tmp too"
for path in /home/vm/g2.qmp /tmp/vm/g2.guestd; do
    in_guest "mkdir -m 700 ${path%/*} && chown nobody ${path%/*} && systemd-run --quiet --unit=fake-${path##*.} \
        --socket-property=ListenStream=$path --socket-property=SocketUser=nobody --socket-property=SocketMode=0600 \
        --socket-property=Accept=yes -p StandardInput=socket cat"
done
expect 0 in_guest 'hmc-cli define g2 --qmp /home/vm/g2.qmp --channel /tmp/vm/g2.guestd'
accepted() { (($(unit_property "$1" NAccepted) > 0)); }
await 10 "hvd to connect to /home/vm/g2.qmp" accepted fake-qmp.socket
await 10 "hvd to connect to /tmp/vm/g2.guestd" accepted fake-guestd.socket
expect 0 in_guest 'hmc-cli undefine g2'

step "nothing that systemd, udev or the bus complains about"
in_guest 'journalctl --no-pager -o cat -u guestd -u hvd >/run/guestd.log; dmesg' >/dev/null
complaints=$(in_guest 'journalctl --no-pager -o cat -p warning -u guestd -u hvd -u dbus -u systemd-udevd -t systemd' |
    grep -E 'opendlpar|guestd|hvd' | grep -vE 'status=9/KILL|Failed with result .signal' || true)
assert_equal "complaints" "" "$complaints"
test_end
