# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# 2 GiB in and out of a domain of libvirt's: hmc-cli beside virsh, in the same domain and in turn. Bar: at most 1.1 times
# virsh, in each direction (issue 6).
#
# floor   virsh attach-device, of one DIMM, in a guest that brings new blocks online by itself as a udev rule would have it
#         (auto_online_blocks, which is faster than any rule), to the guest's word that it has them; virsh
#         detach-device to its end, when the XML must be without the device. hvd and guestd stand still meanwhile
# ours    hmc-cli from fork to exit, which is the word of both ends
#
# Then, with two domains running, 2 GiB in and out of each of them in turn, beside bare QMP on a QEMU of the same shape that
# runs with them (bars: those of a QEMU of one's own, issue 2). The floor there is that of add-remove.sh: one DIMM, a guest
# that brings blocks online by itself, hvd and guestd standing still. After each step hvd and the XML must agree, and in the
# end nothing may have tainted a domain.
#
# Then what each says of removals: 2 GiB on an idle and on a full guest by turns. Counted is how often it says that all is
# gone while libvirt or the guest has it. On the full guest the kernel's own eject never ends (x86): the domain is reset
# after each of virsh's.

# shellcheck disable=SC2154  # the variables of lib.sh, and those that its functions set

bench=libvirt
guest=v1
row_virsh="virsh, one DIMM, onlined by the guest"
row_ours="hmc-cli"
row_hvd="  of it in hvd"
row_bare="floor: bare QMP, one DIMM"
declare -A bar_of_two=([add]=1.15 [remove]=1.5)

virsh_() {
    lab virsh --quiet "$@"
}

usec_now() {
    echo $((${EPOCHREALTIME/[.,]/}))
}

xml_dimms() {
    virsh_ dumpxml "$guest" | grep -c "<memory model='dimm'>" || true
}

# expect_plugged NAME BYTES: hvd has it so, and is done; and the XML.
expect_plugged() {
    local hvd xml tries

    for tries in {1..100}; do
        hvd=$(cli -o json show "$1" | jq -r '"\(.plugged_bytes) \(.pending_bytes) \(.agent_state)"')
        [[ $hvd != "$2 0 ready" ]] || break
        sleep 0.05
    done
    [[ $hvd == "$2 0 ready" ]] || die "hvd (plugged, pending, agent) has $hvd of $1, not $2 0 ready (${tries} tries)"
    xml=$(virsh_ dumpxml "$1" --xpath '//devices/memory/target/size/text()' 2>/dev/null | awk '{ n += $1 } END { printf "%.0f", n * 1024 }')
    [[ $xml == "$2" ]] || die "the XML of $1 has $xml bytes in DIMMs, hvd $2"
    sleep 0.3
}

# The guest tells of its last block by a watcher that sleeps until then: one that looks again and again would take the
# processor from what it waits for.
by_virsh() {
    local begin watcher tries

    set_auto_online online_movable
    freeze
    guest "$guest" "lab-await-online memory$last_block" >"$work_dir/watched" &
    watcher=$!
    for tries in {1..500}; do
        ! grep -q watching "$work_dir/watched" || break
        sleep 0.02
    done
    ((tries < 500)) || die "the guest's watcher does not begin"
    begin=$(usec_now)
    virsh_ attach-device "$guest" "$work_dir/dimm.xml" >/dev/null
    wait "$watcher" || die "the guest's watcher of memory$last_block has failed"
    [[ -n $first ]] || sample "$bench" "add 2 GiB" "$row_virsh" $(($(usec_now) - begin))
    begin=$(usec_now)
    virsh_ detach-device "$guest" "$work_dir/dimm.xml" >/dev/null
    [[ -n $first ]] || sample "$bench" "remove 2 GiB" "$row_virsh" $(($(usec_now) - begin))
    [[ $(xml_dimms) == 0 ]] || die "virsh says detached, and the XML has the DIMM, on an idle guest"
    thaw
    set_auto_online offline
    expect_plugged "$guest" 0
}

by_us() {
    local direction begin

    for direction in add remove; do
        begin=$(usec_now)
        cli "$direction-memory" "$guest" 2G >/dev/null || die "hmc-cli $direction-memory: exit $?"
        [[ -n $first ]] || {
            sample "$bench" "$direction 2 GiB" "$row_ours" $(($(usec_now) - begin))
            sample "$bench" "$direction 2 GiB" "$row_hvd" "$(cli -o json jobs | jq '.[-1].elapsed_usec')"
        }
        expect_plugged "$guest" "$([[ $direction == add ]] && echo $((2 * GiB)) || echo 0)"
        # Where QEMU begins to put devices, and so what 2 GiB there end with.
        [[ -z $first || $direction == remove ]] ||
            last_block=$(($(cli -o json show "$guest" | jq '[.devices[].address] | min') / block_bytes + 2 * GiB / block_bytes - 1))
    done
}

# --- two domains ---

# By the stopwatch of g1, as what follows.
bare_qmp() {
    set_auto_online online_movable
    freeze
    expect_bare 0 guest
    measure "plug"$'\t'"$((2 * GiB))"$'\t1'
    [[ -n $first ]] || sample "$bench" "add 2 GiB, two domains" "$row_bare" $((answers[-1]))
    expect_bare $((2 * GiB)) "$first"
    measure "unplug"$'\t1'
    [[ -n $first ]] || sample "$bench" "remove 2 GiB, two domains" "$row_bare" $((answers[0]))
    expect_bare 0 guest
    thaw
}

ours_in() { # NAME
    local direction

    for direction in add remove; do
        run_step "$build_dir/hmc-cli/hmc-cli" --bus "unix:path=$LAB_DIR/bus" "$direction-memory" "$1" 2G
        measure "$step"
        check_run "${answers[0]}"
        [[ -n $first ]] || {
            sample "$bench" "$direction 2 GiB, two domains" "$row_ours, $1" "$usec"
            sample "$bench" "$direction 2 GiB, two domains" "$row_hvd" "$(cli -o json jobs | jq '.[-1].elapsed_usec')"
        }
        expect_plugged "$1" "$([[ $direction == add ]] && echo $((2 * GiB)) || echo 0)"
    done
}

# That QEMU runs as root is the lab's doing.
expect_untainted() { # NAME
    local found

    found=$(cat "$LAB_DIR"/libvirt/libvirtd.log "$LAB_DIR/libvirt/log/qemu/$1.log" | grep 'is tainted' |
        grep -v 'high-privileges' || true)
    [[ -z $found ]] || die "$1 is tainted: $found"
}

round_of_two() {
    bare_qmp
    ours_in "$guest"
    ours_in v2
}

two_domains() {
    local i direction

    say "$bench: booting a second domain, and a QEMU of the same shape"
    lab guest v2 --platform libvirt --memory 1G --max-memory 16G
    boot g1 --memory 1G --max-memory 16G --slots 16
    for direction in add remove; do
        row "$bench" "$direction 2 GiB, two domains" "$row_bare" floor
        row "$bench" "$direction 2 GiB, two domains" "$row_ours, $guest" ours "${bar_of_two[$direction]}"
        row "$bench" "$direction 2 GiB, two domains" "$row_ours, v2" ours "${bar_of_two[$direction]}"
        row "$bench" "$direction 2 GiB, two domains" "$row_hvd" info
    done
    first=guest
    round_of_two
    first=''
    for ((i = 1; i <= bench_rounds; i++)); do
        say "$bench: two domains, round $i of $bench_rounds"
        round_of_two
    done
    expect_untainted "$guest"
    expect_untainted v2
    halt
    lab stop v2
    guest_name=$guest
}

# --- what is said of removals ---

fill_guest() {
    # shellcheck disable=SC2016  # it is for the guest's shell
    guest "$guest" 'a=$(sed -n "s/^MemAvailable: *\([0-9]*\).*/\1/p" /proc/meminfo)
        dd if=/dev/zero of=/tmp/fill bs=1M count=$((a / 1024 - 300)) 2>/dev/null'
}

await_ready() {
    local tries

    for tries in {1..600}; do
        [[ $(cli -o json show "$guest" 2>/dev/null | jq -r .agent_state) != ready ]] || return 0
        sleep 0.1
    done
    die "guestd does not speak any more (${tries} tries)"
}

# One removal by virsh: 1 if it says detached while it is not.
lie_of_virsh() { # BUSY
    local lie=0

    set_auto_online online_movable
    virsh_ attach-device "$guest" "$work_dir/dimm.xml" >/dev/null
    sleep 1
    ! $1 || fill_guest
    if timeout 60 "$repo_root/scripts/lab" virsh --quiet detach-device "$guest" "$work_dir/dimm.xml" >/dev/null 2>&1 &&
        [[ $(xml_dimms) != 0 ]]; then
        lie=1
    fi
    if $1; then
        virsh_ destroy "$guest"
        virsh_ start "$guest"
        await_ready
    fi
    return $((1 - lie))
}

# One of ours. What it says has left must have left.
lie_of_ours() { # BUSY
    local answer left lie

    cli add-memory "$guest" 2G >/dev/null
    ! $1 || fill_guest
    answer=$(cli -o json remove-memory "$guest" 2G --wait 20s) || true
    left=$(cli -o json show "$guest" | jq .plugged_bytes)
    guest "$guest" 'rm -f /tmp/fill'
    ((left > 0)) || expect_plugged "$guest" 0
    [[ $(jq .done_bytes <<<"$answer") == $((2 * GiB - left)) && $(xml_dimms) == $((left > 0 ? left / GiB : 0)) ]] && lie=false || lie=true
    ((left == 0)) || cli remove-memory "$guest" "$((left / GiB))G" --wait 30s >/dev/null || die "the guest does not give its memory back"
    $lie
}

count_lies() {
    local i busy n_virsh=0 n_ours=0 n=${BENCH_REMOVALS:-20} lie verdict=ok

    for ((i = 0; i < n; i++)); do
        say "$bench: removal $((i + 1)) of $n"
        busy=$( ((i % 2)) && echo true || echo false)
        ! lie_of_ours "$busy" || n_ours=$((n_ours + 1))
        ! lie_of_virsh "$busy" || n_virsh=$((n_virsh + 1))
    done
    ((n_ours == 0)) || verdict=missed
    printf '\n%s: says detached while it is not, of %d removals, half of them on a full guest\n  virsh   %d\n  hmc-cli %d  (bar: 0)  %s\n' \
        "$bench" "$n" "$n_virsh" "$n_ours" "$verdict" >"$work_dir/lies"
    own_row "{\"benchmark\":\"$bench\",\"group\":\"lies\",\"row\":\"hmc-cli\",\"kind\":\"ours\",\"removals\":$n,\"lies\":$n_ours,\"virsh_lies\":$n_virsh,\"verdict\":\"$verdict\"}"
}

bench_run() {
    local i direction bench_rounds=${bench_rounds:-$rounds_usual} bench_cpus=1

    [[ $bench_arch == x86_64 ]] || die "$bench: for x86-64 alone"
    guest_name=$guest
    cat >"$work_dir/dimm.xml" <<'XML'
<memory model='dimm'><target><size unit='GiB'>2</size><node>0</node></target></memory>
XML
    watcher_tool=$build_dir/tests/lab/tools/lab-await-online
    if [[ ! -x $watcher_tool ]]; then
        watcher_tool=$work_dir/lab-await-online
        cc -std=gnu17 -O2 -D_GNU_SOURCE -static -o "$watcher_tool" "$repo_root/tests/lab/tools/lab-await-online.c"
    fi
    say "$bench: booting a domain"
    lab guest "$guest" --platform libvirt --memory 1G --max-memory 16G --program "$watcher_tool"
    block_bytes=$((16#$(guest "$guest" 'cat /sys/devices/system/memory/block_size_bytes')))
    for direction in add remove; do
        row "$bench" "$direction 2 GiB" "$row_virsh" floor
        row "$bench" "$direction 2 GiB" "$row_ours" ours 1.1
        row "$bench" "$direction 2 GiB" "$row_hvd" info
    done
    # The first time, host and guest touch memory and code that they have at hand ever after.
    first=true
    by_us
    by_virsh
    first=''
    for ((i = 1; i <= bench_rounds; i++)); do
        say "$bench: round $i of $bench_rounds"
        by_virsh
        by_us
    done
    two_domains
    ((${BENCH_REMOVALS:-20} == 0)) || {
        count_lies
        cat "$work_dir/lies" >&2
    }
}
