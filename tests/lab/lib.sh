# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the tests with real guests stand on. Sourced after `set -euo pipefail`; a test then calls test_begin,
# does its steps, and ends with test_end.
#
# A test has a lab of its own. It is taken down when the test ends, however that is: by a trap, or, when the test was
# killed, by a watchdog that outlives it.

# shellcheck disable=SC2034  # some variables are for those who source this

tests_root=$(cd -- "${BASH_SOURCE[0]%/*}/../.." && pwd -P)
# shellcheck source=scripts/lib.sh
. "$tests_root/scripts/lib.sh"

GiB=$((1 << 30))
MiB=$((1 << 20))

# --- beginning and end ---

# test_begin: a folder, the tools, a lab with hvd running.
test_begin() {
    need_packages jq systemd
    build_project dev
    sanitized=${OPENDLPAR_SANITIZED:-0}
    lab_find_tools

    work_dir=$(mktemp -d /tmp/odl-XXXXXX)
    export LAB_DIR=$work_dir/lab OPENDLPAR_BUILD=$build_dir
    # What a sanitizer finds goes to standard error with the rest; a leak is told when hvd ends.
    export ASAN_OPTIONS=abort_on_error=0:detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
    watchdog_start "$work_dir"
    trap on_exit EXIT
    trap 'exit 143' TERM HUP PIPE
    trap 'exit 130' INT
    mkdir "$LAB_DIR"
    printf '[hvd]\nlog_level = debug\npool_total = 4T\n' >"$LAB_DIR/hvd.conf"
    lab up
    step_name='' guests=()
}

on_exit() {
    local code=$?

    trap - EXIT
    trap '' TERM HUP INT PIPE
    ((code == 0 || code == 77)) || tell_circumstances
    lab down || code=1
    other_labs_down || code=1
    kill -- -"$watchdog_pid" 2>/dev/null || true
    rm -rf -- "$work_dir"
    exit "$code"
}

# What a test has besides its own lab.
other_labs_down() {
    local mark code=0

    for mark in "$work_dir"/*/lab; do
        [[ ! -e $mark ]] || LAB_DIR=${mark%/lab} lab down || code=1
    done
    return "$code"
}

# What somebody needs who was not there.
tell_circumstances() {
    local name

    {
        echo "--- the test failed${step_name:+ in: $step_name}"
        echo "--- hvd.log, the end"
        tail -n "${TEST_LOG_LINES:-60}" "$LAB_DIR/hvd.log" || true
        for name in $(lab list || true); do
            echo "--- show $name"
            timeout 20 "$build_dir/hmc-cli/hmc-cli" --bus "$(bus)" show "$name" || true
            echo "--- the console of $name, the end"
            lab log "$name" | tail -n "${TEST_LOG_LINES:-40}" || true
        done
        echo "--- jobs"
        timeout 20 "$build_dir/hmc-cli/hmc-cli" --bus "$(bus)" jobs || true
    } >&2
}

# test_end: what must be true after every test.
test_end() {
    local name

    step "nothing went wrong unseen"
    lab hvd pid >/dev/null || fail "hvd is not running at the end"
    for name in $(lab list); do
        check_guest_health "$name"
    done
    lab hvd stop
    check_no_report hvd "$LAB_DIR/hvd.log"
    step_name=
    echo "ok: all of $(basename "$0" .sh) in $SECONDS s"
}

# check_no_report NAME FILE: no sanitizer, assertion or internal error in a log.
check_no_report() {
    local found

    found=$(grep -nE 'AddressSanitizer|LeakSanitizer|runtime error:|Assertion .* failed|is not one that a job takes' \
        "$2" || true)
    [[ -z $found ]] || {
        grep -A 40 -E 'AddressSanitizer|LeakSanitizer|runtime error:|Assertion' "$2" | head -n 80 >&2
        fail "$1 reports: $(head -n 3 <<<"$found")"
    }
}

check_guest_health() {
    local name=$1 log

    log=$(guest "$name" 'dmesg; echo; cat /run/guestd.log')
    ! grep -qE 'Out of memory|oom-kill|invoked oom-killer|Kernel panic|BUG:|blocked for more than' <<<"$log" ||
        fail "the kernel of $name says: $(grep -m 3 -E 'Out of memory|oom|panic|BUG:|blocked for' <<<"$log")"
    printf '%s\n' "$log" >"$work_dir/$name.log"
    check_no_report "guestd in $name" "$work_dir/$name.log"
}

# --- saying ---

step() {
    step_name=$*
    printf '%4d s  %s\n' "$SECONDS" "$*"
}

note() {
    printf '        %s\n' "$*"
}

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# For ctest: SKIP_RETURN_CODE.
skip() {
    echo "skipped: $*"
    exit 77
}

# --- assertions: what was expected, what was seen ---

assert_equal() { # WHAT EXPECTED SEEN
    [[ $2 == "$3" ]] || fail "$1: expected '$2', saw '$3'"
}

assert_at_least() { # WHAT EXPECTED SEEN
    (($3 >= $2)) || fail "$1: expected at least $2, saw $3"
}

assert_at_most() { # WHAT EXPECTED SEEN
    (($3 <= $2)) || fail "$1: expected at most $2, saw $3"
}

assert_match() { # WHAT REGEX SEEN
    [[ $3 =~ $2 ]] || fail "$1: expected something like '$2', saw '$3'"
}

# assert_same WHAT BEFORE AFTER: two snapshots.
assert_same() {
    [[ $2 == "$3" ]] || {
        diff <(jq -S . <<<"$2") <(jq -S . <<<"$3") >&2 || true
        fail "$1 (the lines above differ)"
    }
}

# run COMMAND...: sets code, out and err.
run() {
    code=0
    "$@" >"$work_dir/out" 2>"$work_dir/err" || code=$?
    out=$(<"$work_dir/out") err=$(<"$work_dir/err")
}

# expect CODES COMMAND...: CODES such as 0 or "1|64".
expect() {
    local codes=$1
    shift
    run "$@"
    [[ "|$codes|" == *"|$code|"* ]] ||
        fail "'$*': expected exit $codes, saw $code; stdout: '$out'; stderr: '$err'"
}

not() {
    ! "$@"
}

# await SECONDS WHAT COMMAND...: until the command is true.
await() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < end)) || fail "waited in vain for: $what"
        sleep 0.2
    done
}

# --- the two ends, and hvd between them ---

lab() {
    "$tests_root/scripts/lab" "$@"
}

bus() {
    echo "unix:path=$LAB_DIR/bus"
}

cli() {
    "$build_dir/hmc-cli/hmc-cli" --bus "unix:path=$LAB_DIR/bus" "$@"
}

# The same for what is asked again and again. To look for leaks at its end takes as long as all the rest of it, and is
# done wherever a test calls cli.
peek() {
    ASAN_OPTIONS=detect_leaks=0 cli "$@"
}

# boot NAME OPTION...: a guest; what it was at first can be asked for by base_bytes.
boot() {
    lab guest "$@"
    guests+=("$1")
}

# As `lab exec` and `lab qmp` do it. A test does so a thousand times: a script that makes sure of everything before each
# would take more of the processor than what is tested.
guest() { # NAME SHELL-TEXT
    "$tools_dir/lab-exec" "$LAB_DIR/$1/lab.sock" "$LAB_DIR/$1/exec.lock" "${LAB_EXEC_TIMEOUT:-120}" sh -c "$2"
}

qmp_get() { # NAME COMMAND JQ-FILTER [ARGUMENTS]
    "$tools_dir/lab-qmp" "$LAB_DIR/$1/lab-qmp.sock" "$LAB_DIR/$1/qmp.lock" "${LAB_EXEC_TIMEOUT:-120}" \
        "{\"execute\":\"$2\"${4:+,\"arguments\":$4}}" | jq -c ".return | $3"
}

qmp() { # NAME COMMAND [ARGUMENTS]
    qmp_get "$1" "$2" . "${3:-}"
}

host_plugged() {
    qmp_get "$1" query-memory-size-summary '."plugged-memory"'
}

host_base() {
    qmp_get "$1" query-memory-size-summary '."base-memory"'
}

host_devices() {
    qmp_get "$1" query-memory-devices '[.[].data | {id, size, addr, memdev, slot, node}] | sort_by(.id)'
}

host_backends() { # NAME [JQ-FILTER]
    qmp_get "$1" qom-list "[.[] | select(.type | startswith(\"child<memory-backend\")) | .name] | sort | ${2:-.}" '{"path":"/objects"}'
}

# guest_drcs NAME: the LMBs that powerpc-utils see in a pseries guest, by their DRC indices, a line each.
guest_drcs() {
    guest "$1" 'lsslot -c mem' | sed -n 's/.*DRC Index: *\([0-9a-f]*\) .*/0x\1/p' | sort
}

# host_drcs NAME: the LMBs of QEMU's devices.
host_drcs() {
    local address size offset
    host_devices "$1" | jq -r '.[] | "\(.addr) \(.size)"' | while read -r address size; do
        for ((offset = 0; offset < size; offset += 256 * MiB)); do
            printf '0x%x\n' $((0x80000000 | (address + offset) >> 28))
        done
    done | sort
}

# guest_account NAME: {"block_bytes","total_kib","online","offline","movable","kernel","stuck","blocks"}; blocks is a
# line of all of them, to be compared.
guest_account() {
    local seen block
    seen=$(guest "$1" 'cd /sys/devices/system/memory && cat block_size_bytes && grep MemTotal: /proc/meminfo &&
        grep -H . memory[0-9]*/state && grep -H . memory[0-9]*/valid_zones')
    block=$((16#${seen%%$'\n'*}))
    # Lines such as memory7/state:online and memory7/valid_zones:Movable.
    awk -F '[/:]' '
        NR == 1 { next }
        /^MemTotal/ { split($2, words, " "); print "{\"total_kib\":" words[1]; next }
        $2 == "state" { state[substr($1, 7) + 0] = $3; next }
        { zone[substr($1, 7) + 0] = $3 }
        END {
            print ",\"states\":{\"x\":0"
            for (n in state)
                printf ",\"%d\":\"%s\"", n, state[n] == "online" ? zone[n] : state[n]
            print "}}"
        }' <<<"$seen" | jq -c --argjson block "$block" '
            (.states | del(.x) | to_entries | map(.key |= tonumber) | sort_by(.key)) as $s |
            def count(f): $s | map(select(.value | f)) | length;
            {block_bytes: $block, total_kib,
             online: count(. != "offline" and (startswith("going") | not)),
             offline: count(. == "offline" or startswith("going")),
             movable: count(. == "Movable"), stuck: count(. == "none"),
             kernel: count(. == "Normal" or . == "DMA32" or . == "DMA"),
             blocks: ($s | map("\(.key):\(.value)") | join(" "))}'
}

show() { # NAME [JQ-FILTER]
    peek -o json show "$1" | jq -c "${2:-.}"
}

# snapshot NAME: both ends and what hvd makes of them, without what changes by itself.
snapshot() {
    jq -n -c --argjson devices "$(host_devices "$1")" --argjson backends "$(host_backends "$1")" \
        --argjson plugged "$(host_plugged "$1")" --argjson guest "$(guest_account "$1")" \
        --argjson hvd "$(show "$1" '{base_bytes, plugged_bytes, balloon_bytes, current_bytes, requested_bytes,
            pending_bytes, slots_used, state, agent_state}')" '$ARGS.named'
}

# check_accounts NAME [PLUGGED]: QEMU, hvd and the guest agree, nothing is offline, nothing is left over.
check_accounts() {
    local name=$1 sums account hvd plugged base blocks offline by_hvd current requested pending
    sums=$(qmp_get "$name" query-memory-size-summary '[."plugged-memory", ."base-memory"]')
    account=$(guest_account "$name")
    hvd=$(show "$name" '[.plugged_bytes, .current_bytes, .requested_bytes, .pending_bytes]')
    sums=$(jq -r '.[0] + [.[1] | (.online + .offline) * .block_bytes, .offline] + .[2] | join(" ")' \
        <<<"[$sums, $account, $hvd]")
    read -r plugged base blocks offline by_hvd current requested pending <<<"$sums"

    [[ -z ${2:-} ]] || assert_equal "plugged memory of $name by QEMU" "$2" "$plugged"
    assert_equal "plugged memory of $name by hvd" "$plugged" "$by_hvd"
    assert_equal "blocks of $name beyond its base, in bytes" "$plugged" $((blocks - base))
    assert_equal "offline blocks of $name" 0 "$offline"
    assert_equal "pending bytes of $name" 0 "$pending"
    assert_equal "requested bytes of $name" "$current" "$requested"
    assert_equal "backends of $name" "$(qmp_get "$name" query-memory-devices '[.[].data.memdev | ltrimstr("/objects/")] | sort')" \
        "$(host_backends "$name" 'map(select(. != "pc.ram" and . != "ppc_spapr.ram" and (startswith("lab-node") | not)))')"
}

# settles SECONDS CHECK...: a check that fails the test, with patience.
settles() {
    local end=$((SECONDS + $1))
    shift

    until ("$@") 2>/dev/null; do
        ((SECONDS < end)) || {
            "$@"
            return
        }
        sleep 0.3
    done
}

accounts_settle() { # NAME SECONDS [PLUGGED]: check_accounts(), with patience
    settles "$2" check_accounts "$1" "${3:-}"
}

agent_is() { # NAME STATE
    [[ $(peek -o json list | jq -r --arg name "$1" '.[] | select(.name == $name) | .agent_state') == "$2" ]]
}

state_is() { # NAME STATE
    [[ $(peek -o json list | jq -r --arg name "$1" '.[] | select(.name == $name) | .state') == "$2" ]]
}

hvd_plugged_is() { # NAME BYTES
    [[ $(peek -o json list | jq --arg name "$1" '.[] | select(.name == $name) | .plugged_bytes') == "$2" ]]
}

# --- LMBs of a pseries guest ---

lmb=$((256 * MiB))

hvd_drcs() {
    show "$1" '.devices[] | range(.drc_first; .drc_last + 1)' | while read -r n; do printf '0x%x\n' "$n"; done | sort
}

# check_lmbs NAME [PLUGGED]: check_accounts(), and powerpc-utils in the guest, QEMU and hvd name the same LMBs.
check_lmbs() {
    local drcs
    check_accounts "$@"
    drcs=$(host_drcs "$1")
    assert_equal "LMBs of $1 by lsslot" "$drcs" "$(guest_drcs "$1")"
    assert_equal "LMBs of $1 by hvd" "$drcs" "$(hvd_drcs "$1")"
    assert_equal "number of LMBs of $1" $(($(host_plugged "$1") / lmb)) "$(grep -c . <<<"$drcs" || true)"
}

lmbs_settle() { # NAME SECONDS [PLUGGED]: check_lmbs(), with patience
    accounts_settle "$@"
    check_lmbs "$1" "${3:-}"
}

# Brings the program that pins pages into a pseries guest; a reset takes it away.
bring_pin() {
    guest "$1" "echo $(base64 -w 0 "$repo_root/build/ppc64le/tests/lab/tools/lab-pin") | base64 -d >/run/pin && chmod +x /run/pin"
}

# pin_in NAME BLOCK: eight pages of that LMB, which must be in zone Movable, cannot move any more. For the moment it is
# the only one of its zone.
pin_in() {
    guest "$1" "cd /sys/devices/system/memory
        others=
        for b in \$(grep -l Movable memory[0-9]*/valid_zones); do
            b=\${b%/*}
            [ \$b = memory$2 ] || { [ \$(cat \$b/state) = online ] && echo offline >\$b/state && others=\"\$others \$b\"; }
        done
        (/run/pin </dev/null >/dev/null 2>&1 &)
        sleep 0.5
        for b in \$others; do echo online_movable >\$b/state; done
        pidof pin" >/dev/null
    check_accounts "$1"
}

unpin() {
    # shellcheck disable=SC2016  # it is for the guest's shell
    guest "$1" 'kill $(pidof pin)'
}

# --- jobs ---

# start_job COMMAND...: begins an add-memory or remove-memory. Sets job_id.
start_job() {
    local answer
    answer=$(cli -o json "$@" --no-wait) || fail "'$*' was not taken: $answer"
    job_id=$(jq .id <<<"$answer")
}

job() { # ID [JQ-FILTER]
    peek -o json jobs | jq -r ".[] | select(.id == $1) | ${2:-.}"
}

# Of a state that may be short only what is quick can tell.
get_job_state() { # ID
    local answer
    answer=$(busctl --address="$(bus)" get-property org.opendlpar.hvd1 "/org/opendlpar/hvd1/job/$1" \
        org.opendlpar.hvd1.Job State) || return
    answer=${answer#s \"}
    echo "${answer%\"}"
}

# True as soon as the job is in one of the states, or has ended.
job_reached() { # ID STATE|STATE...
    [[ "|$2|DONE|PARTIAL|FAILED|CANCELLED|" == *"|$(get_job_state "$1" 2>/dev/null)|"* ]]
}

job_ended() {
    job_reached "$1" DONE
}

# await_state ID STATES SECONDS: quick. Sets job_state to what was met: one of them, or an end.
await_state() {
    local end=$((SECONDS + $3))

    while :; do
        job_state=$(get_job_state "$1")
        [[ "|$2|DONE|PARTIAL|FAILED|CANCELLED|" != *"|$job_state|"* ]] || return 0
        ((SECONDS < end)) || fail "job $1 is $job_state after $3 s, not $2"
    done
}

# await_job ID SECONDS: sets job_json and job_state.
await_job() {
    await "$2" "the end of job $1" job_ended "$1"
    job_json=$(job "$1")
    job_state=$(jq -r .state <<<"$job_json")
}

# --- what guests are made to do ---

# fill NAME MIB [FILE]: takes memory by a file in a tmpfs; there is no swap.
fill() {
    local seen
    guest "$1" "dd if=/dev/zero of=/tmp/${3:-fill} bs=1M count=$2 2>/dev/null"
    seen=$(guest "$1" "du -m /tmp/${3:-fill} | cut -f 1")
    assert_at_least "MiB in /tmp/${3:-fill} of $1" "$2" "$seen"
}

# fill_to NAME AVAILABLE-MIB: so much is left.
fill_to() {
    local available
    available=$(guest "$1" "sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo")
    ((available / 1024 <= $2)) || fill "$1" $((available / 1024 - $2)) "${3:-fill}"
}

unfill() {
    guest "$1" "rm -f /tmp/${2:-fill}"
}

boot_id() {
    guest "$1" 'cat /proc/sys/kernel/random/boot_id'
}

# rebooted NAME OLD-BOOT-ID: it is back, and another one.
rebooted() {
    local id
    id=$(LAB_EXEC_TIMEOUT=3 boot_id "$1" 2>/dev/null) && [[ -n $id && $id != "$2" ]]
}

reset_guest() {
    qmp "$1" system_reset >/dev/null
}

# patience SECONDS: sanitized programs take longer.
patience() {
    echo $(($1 * (sanitized ? 2 : 1)))
}
