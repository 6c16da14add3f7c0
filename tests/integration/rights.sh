#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Who may call what: another user at every method that hvd has, with polkit absent, scripted and real. What methods
# there are is asked of hvd, so that a new one is either named here as one that reads, or refused to others.
# shellcheck disable=SC2119  # functions have defaults
set -euo pipefail
# shellcheck source=tests/integration/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

root=/org/opendlpar/hvd1
name=org.opendlpar.hvd1
nobody=65534
authority_pid=''

if ((EUID != 0)); then
    echo "SKIP: only root can be another user"
    exit 77
fi

# Open to all; whatever else hvd has is refused.
readers="$name.Manager.GetPartition $name.Manager.ListPartitions $name.Manager.ListJobs $name.Manager.ListLackingDomains"
readers+=" $name.Manager.ListDecisions $name.Manager.ExplainDecision"
readers+=" $name.Partition.Survey $name.Partition.Explain $name.Partition.GetUsage"

as() { # UID COMMAND...
    local uid=$1
    shift
    setpriv --reuid="$uid" --regid="$uid" --clear-groups "$@"
}

other() { # busctl's arguments, as nobody who may be asked for no password
    as "$nobody" busctl --address="unix:path=$work/bus" --allow-interactive-authorization=no "$@"
}

# denied WHY COMMAND...: busctl says "Access denied" whatever the message is, which is taken from hvd's log; hmc-cli and
# dbus-send print it.
denied() {
    local why=$1 said
    shift
    : >"$work/hvd.log"
    expect 1 "$@"
    assert_match "what '$*' prints" "Access denied| is not allowed: " "$err"
    said=$(grep -E ' by :[0-9.]+ is not allowed: ' "$work/hvd.log" || true)
    assert_match "what is said to '$*'" " is not allowed: .*$why" "$said"
}

# An argument of each D-Bus type that the API takes, for `busctl call`.
arguments() { # SIGNATURE
    case $1 in
        - | '') ;;
        s) echo "s web1" ;;
        u) echo "u 1" ;;
        t) echo "t 1073741824" ;;
        su) echo "su web1 1" ;;
        'a{sv}') echo "a{sv} 0" ;;
        'ta{sv}') echo "ta{sv} 1073741824 0" ;;
        'sa{sv}') echo "sa{sv} web1 0" ;;
        'sta{sv}') echo "sta{sv} web1 1073741824 0" ;;
        'ssta{sv}') echo "ssta{sv} web1 web2 1073741824 0" ;;
        *) fail "no arguments are known here for the signature '$1'" ;;
    esac
}

# members PATH INTERFACE: KIND NAME SIGNATURE FLAGS of its methods and properties.
members() {
    call introspect "$name" "$1" "$2" | awk '$2 == "method" || $2 == "property" { sub(/^\./, "", $1); print $2, $1, $3, $NF }'
}

objects() { # the paths that have an interface of ours, one of each kind, with it
    echo "$root $name.Manager"
    echo "$root/partition/web1 $name.Partition"
    echo "$job $name.Job"
}

state() { # all that could have been changed
    cli -o json list | jq -c '[.[] | [.name, .min_bytes, .desired_bytes, .max_bytes, .weight, .requested_bytes, .policy_mode]]'
    cli -o json jobs | jq -c '[.[] | [.id, .kind]]'
    cli -o json policy | jq -r .policy_mode
}

# denied_everywhere WHY: nobody is refused each member that is not among the readers, and nothing changes.
denied_everywhere() {
    local path interface kind member signature flags before n=0 n_read=0

    before=$(state)
    while read -r path interface; do
        while read -r kind member signature flags; do
            if [[ $kind == property ]]; then
                [[ $flags == *writable* ]] || continue
                denied "$1" other set-property "$name" "$path" "$interface" "$member" "$signature" auto
            elif [[ " $readers " == *" $interface.$member "* ]]; then
                n_read=$((n_read + 1))
                # shellcheck disable=SC2046  # words
                expect "0|1" other call "$name" "$path" "$interface" "$member" $(arguments "$signature")
                [[ ! $err =~ (not allowed|Access denied|not permitted) ]] || fail "$member is for all, but: $err"
                continue
            else
                # shellcheck disable=SC2046  # words
                denied "$1" other call "$name" "$path" "$interface" "$member" $(arguments "$signature")
            fi
            n=$((n + 1))
        done < <(members "$path" "$interface")
    done < <(objects)
    ((n >= 6 && n_read >= 2)) || fail "only $n methods were tried, and $n_read that read"
    assert_equal "what there is after all that" "$before" "$(state)"
    echo "       $n methods refused, $n_read open"
}

authority_start() { # MODE [UID]
    echo "$1" >"$work/mode"
    : >"$work/authority.out"
    as "${2:-0}" setpriv --pdeathsig KILL "$authority" "unix:path=$work/bus" "$work/mode" \
        >>"$work/authority.out" 2>"$work/authority.err" &
    authority_pid=$!
    fake_pids+=("$authority_pid")
    await "the authority" grep -q ready "$work/authority.out"
}

authority_end() {
    kill -TERM "$authority_pid" 2>/dev/null || true
    wait "$authority_pid" 2>/dev/null || true
    fake_forget "$authority_pid"
    await "polkit's name to be free" not_owned org.freedesktop.PolicyKit1
}

not_owned() {
    ! call call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus GetNameOwner s "$1" >/dev/null 2>&1
}

is_partition() {
    [[ -n $(partition "$1" .name) ]]
}

define() { # NAME: as nobody
    other -- call "$name" "$root" "$name.Manager" AddPartition 'sa{sv}' "$1" 2 qmp s "$work/$1.qmp" channel s "$work/$1.channel"
}

# The error's name, which busctl does not print; dbus-send asks for no interaction.
error_name() { # METHOD ARGUMENT...
    as "$nobody" dbus-send --bus="unix:path=$work/bus" --print-reply --dest="$name" "$root" "$@" 2>&1 |
        sed -n 's/^Error \([^:]*\):.*/\1/p'
}

bus_start
# Others have to get at the bus and at the programs.
chmod 755 "$work"
chmod 666 "$work/bus"
authority=$work/fake-authority
cp "$build/tests/fakes/fake-authority" "$authority"
cp "$build/hmc-cli/hmc-cli" "$work/"
hvd_start
# A guest at which a job can be had, without anything being changed.
fake fake-qmp web1.qmp <<S
negotiate
on query-status reply {"status":"running","running":true,"singlestep":false}
on query-migrate reply {}
on query-memory-size-summary reply {"base-memory":1073741824,"plugged-memory":0}
on qom-get reply {"size":1073741824,"max-size":8589934592,"slots":8}
on query-memory-devices reply []
on qom-list reply [{"name":"type","type":"string"},{"name":"pc.ram","type":"child<memory-backend-ram>"}]
on query-uuid reply {"UUID":"00000000-0000-0000-0000-000000000000"}
on query-target reply {"arch":"x86_64"}
on human-monitor-command reply "0 nodes\\r\\n"
on query-balloon error DeviceNotActive No balloon device has been activated
on query-chardev reply [{"label":"guestd","filename":"disconnected:unix:$work/web1.channel,server=on","frontend-open":true}]
serve
S
fake fake-guest web1.channel <<'S'
begin
on get-state reply
on get-blocks reply
on prepare reply
on release reply
serve
S
expect 0 cli define web1 --qmp "$work/web1.qmp" --channel "$work/web1.channel" --min 1G --max 8G
await "guestd" state_is web1 agent_state ready
expect 0 cli add-memory web1 1G --dry-run
job=$(call tree --list "$name" | grep -m 1 "$root/job/")

begin "no polkit: all that changes anything is refused to others, and said why"
denied_everywhere "there is no polkit on this bus"
assert_equal "the error" org.freedesktop.DBus.Error.AccessDenied "$(error_name "$name.Manager.RemovePartition" string:web1)"
expect 0 as "$nobody" "$work/hmc-cli" --bus "unix:path=$work/bus" list
expect 1 as "$nobody" "$work/hmc-cli" --bus "unix:path=$work/bus" -o json remove-memory web1 1G
assert_equal "hmc-cli's code" denied "$(jq -r .error.code <<<"$out")"
assert_match "hmc-cli's sentence" "Changing a partition's memory is not allowed: there is no polkit" "$out"

begin "polkit says no"
authority_start no
denied_everywhere "it takes root, or leave by a rule of polkit \(polkit's action $name\.[a-z-]+\)"
grep -q "^check :[0-9.]* $name.change-memory AddMemory $root/partition/web1 0 hvd-" "$work/authority.out" ||
    fail "polkit was not asked for what was wanted: $(<"$work/authority.out")"
grep -q "^check :[0-9.]* $name.manage-partitions RemovePartition $root 0 hvd-" "$work/authority.out" ||
    fail "polkit was not asked for what was wanted: $(<"$work/authority.out")"
! grep -qE "^check .*( GetPartition | Survey )" "$work/authority.out" || fail "polkit was asked for what is open"
: >"$work/authority.out"
expect 0 cli define web2 --qmp "$work/web2.qmp" --channel "$work/web2.channel"
expect 0 cli undefine web2
assert_equal "what root had polkit asked" "" "$(<"$work/authority.out")"

begin "a password would do; who may be asked is asked"
echo challenge >"$work/mode"
denied "an administrator's password, which nothing here can ask for" define web2
assert_equal "the error" org.freedesktop.DBus.Error.AccessDenied "$(error_name "$name.Manager.RemovePartition" string:web1)"
echo dismissed >"$work/mode"
: >"$work/authority.out"
denied "password was not given" as "$nobody" busctl --address="unix:path=$work/bus" --allow-interactive-authorization=yes \
    call "$name" "$root" "$name.Manager" RemovePartition s web1
assert_match "the flag for a person" "RemovePartition $root 1 hvd-" "$(<"$work/authority.out")"

begin "polkit cannot say"
echo error >"$work/mode"
denied "could not decide about the action $name.manage-partitions: Action is not registered" define web2
echo garbage >"$work/mode"
denied "answer cannot be read" define web2
! is_partition web2 || fail "web2 was defined"

begin "polkit says yes: now, and after half a second in which hvd goes on"
echo yes >"$work/mode"
expect 0 define web2
await "web2" is_partition web2
expect 1 define web2
assert_match "what is said of a second one" "web2" "$err"
expect 1 other call "$name" "$root/partition/web2" "$name.Partition" AddMemory 'ta{sv}' 1073741824 0
[[ ! $err =~ (not allowed|Access denied) ]] || fail "allowed, but: $err"
echo late >"$work/mode"
define web3 >"$work/late.out" 2>&1 &
late=$!
before=$(date +%s%N)
for _ in {1..5}; do
    expect 0 cli list
done
! is_partition web3 || (($(date +%s%N) - before > 400000000)) || fail "web3 is there before polkit's answer"
wait "$late" || fail "a late yes: $(<"$work/late.out")"
is_partition web3 || fail "web3 is not there after polkit's answer"

begin "what was allowed is looked at again when polkit has answered"
other call "$name" "$root" "$name.Manager" RemovePartition s web3 >"$work/late.out" 2>&1 &
late=$!
sleep 0.1
expect 0 cli undefine web3
if wait "$late"; then fail "what was gone was undefined"; fi
assert_match "what is said" "There is no partition 'web3'|no partition" "$(<"$work/late.out")"

begin "who sits at a terminal has time to give a password"
echo slow >"$work/mode"
: >"$work/authority.out"
TERM=dumb expect 0 as "$nobody" script -qefc "'$work/hmc-cli' --bus 'unix:path=$work/bus' add-memory web1 1G --dry-run" /dev/null
assert_match "the flag for a person" "AddMemory $root/partition/web1 1 hvd-" "$(<"$work/authority.out")"

begin "names that are none are refused, whoever asks"
long=$(printf 'x%.0s' {1..300})
echo yes >"$work/mode"
for bad in '../x' 'a/b' '' "$long" '.' '..' '-x' $'a\nb' $'a\x1b[31mb' 'a b' 'ä'; do
    expect 1 define "$bad"
    assert_match "what is said of '$bad'" "is not a partition's name; use up to 63" "$err"
    expect "1|2" cli define "$bad" --qmp "$work/x.qmp" --channel "$work/x.channel"
    [[ ! $err =~ $'\x1b' ]] || fail "hmc-cli prints a control character"
done
assert_equal "partitions" "web1 web2" "$(cli -o json list | jq -r '[.[].name] | join(" ")')"

begin "a caller that leaves takes its question along"
echo never >"$work/mode"
: >"$work/authority.out"
# Not by a function: that would be a shell with busctl as its child.
setpriv --reuid="$nobody" --regid="$nobody" --clear-groups busctl --address="unix:path=$work/bus" \
    call "$name" "$root" "$name.Manager" RemovePartition s web2 >/dev/null 2>&1 &
leaver=$!
await "the question" grep -q '^check' "$work/authority.out"
kill -KILL "$leaver"
wait "$leaver" 2>/dev/null || true
await "its withdrawal" grep -q "^cancel $(awk '/^check/ { print $NF }' "$work/authority.out")$" "$work/authority.out"

begin "so many may wait for polkit, and root is not kept waiting"
waiters=()
: >"$work/authority.out"
for _ in {1..16}; do
    other call "$name" "$root" "$name.Manager" RemovePartition s web2 >>"$work/never.out" 2>&1 &
    waiters+=($!)
done
sixteen() { (($(grep -c '^check' "$work/authority.out") == 16)); }
await "sixteen questions" sixteen
expect 1 other call "$name" "$root" "$name.Manager" RemovePartition s web2
assert_match "what the seventeenth is told" "Too many calls wait" "$err"
expect 0 other call "$name" "$root" "$name.Manager" GetPartition s web2
expect 0 cli define web4 --qmp "$work/web4.qmp" --channel "$work/web4.channel"
expect 0 cli undefine web4

begin "polkit that never answers: refused after 10 s, and the question is withdrawn"
for pid in "${waiters[@]}"; do
    if wait "$pid"; then fail "without an answer it was allowed"; fi
done
assert_equal "refusals" 16 "$(grep -c 'Access denied' "$work/never.out")"
assert_equal "refusals for want of an answer" 16 "$(grep -c 'is not allowed: polkit gave no answer' "$work/hvd.log")"
withdrawn() { (($(grep -c '^cancel' "$work/authority.out") == 16)); }
await "sixteen withdrawals" withdrawn

begin "polkit goes away in the middle"
echo gone >"$work/mode"
denied "polkit " define web5
wait "$authority_pid" 2>/dev/null || true
fake_forget "$authority_pid"
! is_partition web5 || fail "web5 was defined"

begin "who is neither root nor polkitd cannot say yes in polkit's name"
authority_start yes "$nobody"
denied "neither root nor the user polkitd" define web5
! is_partition web5 || fail "web5 was defined"
authority_end

begin "the real polkitd, with our actions and a rule"
polkitd=/usr/lib/polkit-1/polkitd
if [[ -x $polkitd ]] && unshare --mount true 2>/dev/null; then
    mkdir -p "$work/rules"
    cp "${BASH_SOURCE[0]%/*}/../../systemd/org.opendlpar.hvd1.policy" "$work/"
    chmod 644 "$work/org.opendlpar.hvd1.policy"
    printf '%s\n' 'polkit.addRule(function(action, subject) {' \
        "    if (action.id == \"$name.manage-partitions\" && action.lookup(\"method\") == \"AddPartition\"" \
        '            && subject.user == "nobody")' \
        '        return polkit.Result.YES;' '});' >"$work/rules/10-test.rules"
    mkdir -p "$work/actions"
    mv "$work/org.opendlpar.hvd1.policy" "$work/actions/"
    # In folders of its own: the machine's actions and rules are left alone.
    # shellcheck disable=SC2016  # for the inner shell
    DBUS_SYSTEM_BUS_ADDRESS="unix:path=$work/bus" setpriv --pdeathsig KILL unshare --mount bash -c '
        mount --bind "$1/actions" /usr/share/polkit-1/actions
        mount --bind "$1/rules" /usr/share/polkit-1/rules.d
        mount -t tmpfs none /etc/polkit-1
        mkdir -m 755 /etc/polkit-1/rules.d
        exec "$2" --no-debug' - "$work" "$polkitd" >"$work/polkitd.log" 2>&1 &
    polkitd_pid=$!
    fake_pids+=("$polkitd_pid")
    owned() { ! not_owned org.freedesktop.PolicyKit1; }
    await "polkitd" owned
    denied_by_polkitd="(takes root, or leave by a rule|administrator's password)"
    denied "$denied_by_polkitd.*$name.manage-partitions" other call "$name" "$root" "$name.Manager" RemovePartition s web2
    denied "$denied_by_polkitd.*$name.change-memory" other call "$name" "$root/partition/web1" "$name.Partition" AddMemory 'ta{sv}' 1073741824 0
    expect 0 define web6
    is_partition web6 || fail "web6 was not defined"
    for action in change-memory move-memory manage-partitions set-policy survey-pages; do
        call call org.freedesktop.PolicyKit1 /org/freedesktop/PolicyKit1/Authority org.freedesktop.PolicyKit1.Authority \
            EnumerateActions s '' | grep -qF "\"$name.$action\"" || fail "polkitd does not know the action $action"
    done
else
    echo "       (no polkitd, or no mount namespaces: left out)"
fi
hvd_stop
echo "ok"
