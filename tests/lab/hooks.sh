#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Hooks in a real guest and on the host: one that vetoes, hangs, crashes, is not executable, can be written to by others,
# prints 1 MB; each is handled and told of. And the one that ships.
# shellcheck disable=SC2016  # much of the text is for the guest's shell
set -euo pipefail
# shellcheck source=tests/lab/lib.sh
. "${BASH_SOURCE[0]%/*}/lib.sh"

folder=/etc/opendlpar/hooks.d

# put PATH MODE: standard input becomes a file in the guest, whole.
put() {
    guest h1 "echo $(base64 -w 0) | base64 -d >/run/new && chmod $2 /run/new && mv /run/new $1"
}

# hook NAME MODE TEXT: a shell script in the guest. It may write to /run/trace.
hook() {
    put "$folder/$1" "$2" <<<"#!/bin/sh
$3"
}

no_hooks() {
    guest h1 "rm -rf $folder/* /run/trace"
}

trace() {
    guest h1 'cat /run/trace 2>/dev/null || true' | paste -sd ' '
}

# Processes of the hook that hangs.
sleepers() {
    guest h1 'exec 2>/dev/null; for p in /proc/[0-9]*; do [ "$(tr "\0" " " <$p/cmdline)" != "sleep 4321 " ] || echo ${p#/proc/}; done'
}

two_sleep() {
    (($(sleepers | wc -l) == 2))
}

has_reason() { # CODE REGEX, in $out
    jq -e --arg code "$1" --arg text "$2" 'any(.reasons[]; .code == $code and (.message | test($text)))' <<<"$out" >/dev/null ||
        fail "no reason $1 '$2' in: $(jq -c .reasons <<<"$out")"
}

assert_done() { # BYTES, in $out
    assert_equal "state" DONE "$(jq -r .state <<<"$out")"
    assert_equal "bytes done" "$1" "$(jq .done_bytes <<<"$out")"
}

refused() { # BYTES ARGUMENT...: nothing changes
    local before
    before=$(host_devices h1 | jq -c '[.[].id]')
    expect 1 cli -o json "$@"
    note "$(jq -c '[.reasons[].message]' <<<"$out")"
    assert_equal "bytes done" 0 "$(jq .done_bytes <<<"$out")"
    assert_same "QEMU's devices" "$before" "$(host_devices h1 | jq -c '[.[].id]')"
}

test_begin
mkdir "$work_dir/host-hooks"
cat >"$work_dir/host-hooks/10-note" <<TEXT
#!/bin/sh
echo "\$OPENDLPAR_PHASE \$OPENDLPAR_OPERATION \$OPENDLPAR_PARTITION \$OPENDLPAR_BYTES \$OPENDLPAR_OUTCOME \$OPENDLPAR_DONE_BYTES" >>$work_dir/notes
TEXT
chmod 755 "$work_dir/host-hooks/10-note"
printf 'hooks = %s\nhook_limit = 2s\n' "$work_dir/host-hooks" >>"$LAB_DIR/hvd.conf"
lab hvd stop
lab hvd start

step "a guest without a folder of hooks"
boot h1 --memory 1G --max-memory 8G --slots 16
guest h1 "! test -e /etc/opendlpar"
expect 0 cli -o json add-memory h1 512M
assert_done $((512 * MiB))
expect 0 cli -o json remove-memory h1 512M
assert_equal "requests about hooks" 0 "$(lab log h1 | grep -c 'opendlpar-hooks' || true)"
pss() {
    guest h1 'cat /proc/$(cat /run/guestd.pid)/smaps_rollup' | awk '/^Pss:/ { print $2 }'
}
note "PSS of guestd without hooks: $(pss) KiB"

step "the folder and a hook appear: it is called, in every phase, with all that it is told"
guest h1 "mkdir -p $folder"
hook 50-env 755 'echo "$OPENDLPAR_PHASE-$OPENDLPAR_OPERATION-$OPENDLPAR_BYTES-$OPENDLPAR_DONE_BYTES-$OPENDLPAR_OUTCOME" >>/run/trace
env | grep ^OPENDLPAR >/run/env'
expect 0 cli -o json add-memory h1 512M
assert_done $((512 * MiB))
n=$((512 * MiB))
assert_equal "calls" "check-add-$n-- pre-add-$n-- post-add-$n-$n-done" "$(trace)"
note "$(guest h1 'cat /run/env' | paste -sd ' ')"
guest h1 'grep -q "^OPENDLPAR_MEMORY_BYTES=[1-9]" /run/env && grep -q "^OPENDLPAR_AVAILABLE_BYTES=[1-9]" /run/env && grep -q "^OPENDLPAR_JOB=[1-9]" /run/env'
guest h1 'rm /run/trace'
expect 0 cli -o json remove-memory h1 512M
assert_done $((512 * MiB))
assert_equal "calls" "check-remove-$n-- pre-remove-$n-- post-remove-$n-$n-done" "$(trace)"
guest h1 'rm /run/trace'
expect 0 cli -o json add-memory h1 512M --dry-run
assert_equal "calls of a dry run" "check-add-$n--" "$(trace)"
note "PSS of guestd with a hook: $(pss) KiB"
((sanitized)) || assert_at_most "PSS of guestd with a hook, KiB" 4096 "$(pss)"
check_accounts h1 0

step "guestd sleeps beside its hooks"
# The policy asks guests for samples, also where it only observes.
expect 0 cli policy off
switches() {
    guest h1 'awk "/ctxt_switches/ { n += \$2 } END { print n }" /proc/$(cat /run/guestd.pid)/status'
}
sleep 1
before=$(switches)
sleep 8
assert_equal "wake-ups of guestd in 8 s" 0 $(($(switches) - before))
assert_equal "processes of opendlpar-hooks" "" "$(guest h1 'pidof opendlpar-hooks || true')"

step "one that vetoes"
expect 0 cli add-memory h1 1G
no_hooks
hook 10-yes 755 'exit 0'
hook 50-db 755 'echo $OPENDLPAR_PHASE >>/run/trace; [ $OPENDLPAR_OPERATION = add ] || { echo "A backup is running until 10:00"; exit 1; }'
refused remove-memory h1 512M
has_reason hook-refused '^Hook 50-db, check: A backup is running until 10:00$'
assert_equal "calls" "check" "$(trace)"
expect 1 cli remove-memory h1 512M
note "$out$err"
grep -q 'A backup is running until 10:00' <<<"$out$err" || fail "the operator does not see the sentence"
expect 1 cli -o json remove-memory h1 512M --dry-run
has_reason hook-refused 'A backup'

step "pre fails: it and those before it undo, and nothing has moved"
no_hooks
hook 10-a 755 'echo a-$OPENDLPAR_PHASE >>/run/trace'
hook 20-b 755 'echo b-$OPENDLPAR_PHASE >>/run/trace; [ $OPENDLPAR_PHASE != pre ] || exit 7'
hook 30-c 755 'echo c-$OPENDLPAR_PHASE >>/run/trace'
refused remove-memory h1 512M
has_reason hook-refused '^Hook 20-b, pre: it exited with 7'
assert_equal "calls" "a-check b-check c-check a-pre b-pre b-undo a-undo" "$(trace)"

step "one that hangs: killed by its limit, with its children; guestd answers meanwhile"
no_hooks
hook 50-hang 755 'trap "" TERM; sleep 4321 & sleep 4321'
start_job remove-memory h1 512M
await 8 "two processes that hang" two_sleep
expect 0 cli memory-map h1
assert_match "the job meanwhile" 'SURVEYING' "$(job "$job_id" .state)"
await 20 "the job's end" job_ended "$job_id"
out=$(job "$job_id")
has_reason hook-failed '^Hook 50-hang, check: it did not end within 10.0 s and was killed$'
assert_equal "what is left of it" "" "$(sleepers)"

step "one that hangs is cancelled within 2 s, and ends by the job's limit"
start_job remove-memory h1 512M
await 8 "two processes that hang" two_sleep
begin=$(date +%s%N)
expect 0 cli cancel "$job_id"
await 5 "the job's end" job_ended "$job_id"
took=$((($(date +%s%N) - begin) / 1000000))
note "cancelled in $took ms"
((sanitized)) || assert_at_most "milliseconds of a cancel" 2000 "$took"
assert_equal "what is left of it" "" "$(sleepers)"
begin=$(date +%s%N)
refused remove-memory h1 512M --wait 1s
took=$((($(date +%s%N) - begin) / 1000000))
note "ended in $took ms"
((sanitized)) || assert_at_most "milliseconds with --wait 1s" 3000 "$took"
has_reason deadline '1.0 s'

step "one that crashes"
no_hooks
hook 50-crash 755 'kill -SEGV $$'
refused remove-memory h1 512M
has_reason hook-failed '^Hook 50-crash, check: it crashed: signal 11 \(SIGSEGV\)$'

step "one that is not executable, can be written to by others, or is another's: not run, told of, and in nobody's way"
no_hooks
hook 10-plain 644 'echo ran >>/run/trace; exit 1'
hook 20-others 757 'echo ran >>/run/trace; exit 1'
hook 30-group 775 'echo ran >>/run/trace; exit 1'
hook 40-foreign 755 'echo ran >>/run/trace; exit 1'
guest h1 "chown 1234 $folder/40-foreign; mkdir -m 777 /run/open; cp $folder/40-foreign /run/open/hook; ln -s /run/open/hook $folder/50-link; ln -s /nowhere $folder/60-gone"
hook 90-good 755 'echo good-$OPENDLPAR_PHASE >>/run/trace'
expect 0 cli -o json remove-memory h1 512M
note "$(jq -c '[.reasons[].message]' <<<"$out")"
assert_done $((512 * MiB))
has_reason hook-skipped '^Hook 10-plain: not run: it is not executable \(mode 0644\)$'
has_reason hook-skipped '^Hook 20-others: not run: .*can be written to by others \(mode 0757\)'
has_reason hook-skipped '^Hook 30-group: not run: .*can be written to by others \(mode 0775\)'
has_reason hook-skipped '^Hook 40-foreign: not run: .*belongs to user 1234'
has_reason hook-skipped '^Hook 50-link: not run: /run/open can be written to by others'
has_reason hook-skipped '^Hook 60-gone: not run: it is not there'
assert_equal "reasons" 6 "$(jq '.reasons | length' <<<"$out")"
assert_equal "calls" "good-check good-pre good-post" "$(trace)"
guest h1 "rm /run/trace; chmod 777 $folder"
expect 0 cli -o json add-memory h1 512M
assert_done $((512 * MiB))
has_reason hook-skipped '^Hooks: not run: /etc/opendlpar/hooks.d can be written to by others'
assert_equal "calls" "" "$(trace)"
guest h1 "chmod 755 $folder"
expect 0 cli remove-memory h1 512M
note "$out"
grep -q '10-plain' <<<"$out$err" || fail "the operator does not see the notes"
expect 0 cli add-memory h1 512M

step "one that prints 1 MB, without a line's end"
no_hooks
hook 50-loud 755 'head -c 1000000 /dev/zero | tr "\0" x; [ $OPENDLPAR_PHASE != pre ]'
refused remove-memory h1 512M
has_reason hook-refused '^Hook 50-loud, pre: x{192}$'
hook 50-loud 755 'yes | head -c 1000000'
expect 0 cli -o json remove-memory h1 512M
assert_done $((512 * MiB))
assert_equal "reasons" 0 "$(jq '.reasons | length' <<<"$out")"
expect 0 cli add-memory h1 512M

step "one that fails afterwards does not change what was done"
no_hooks
hook 50-bad 755 '[ $OPENDLPAR_PHASE != post ] || { echo "no disk left"; exit 1; }'
expect 0 cli -o json remove-memory h1 512M
assert_done $((512 * MiB))
has_reason hook-failed '^Hook 50-bad, post: no disk left$'
expect 0 cli add-memory h1 512M

step "hvd is killed between pre and post: guestd sees to undo itself"
no_hooks
hook 50-keep 755 'echo $OPENDLPAR_PHASE-$OPENDLPAR_OUTCOME-$OPENDLPAR_REASON >>/run/trace; [ $OPENDLPAR_PHASE != pre ] || sleep 3'
start_job remove-memory h1 512M
await 10 "phase pre" guest h1 'grep -qs pre /run/trace'
lab hvd kill
await 20 "phase undo" guest h1 'grep -qs undo /run/trace'
assert_equal "calls" "check--operator pre--operator undo-none-the host went away" "$(trace)"
lab hvd start
await 15 "a session" agent_is h1 ready
check_accounts h1

step "hvd is killed and comes back at once: the new one has it settled, once"
guest h1 'rm /run/trace'
hook 50-keep 755 'echo $OPENDLPAR_PHASE >>/run/trace; [ $OPENDLPAR_PHASE != pre ] || sleep 3'
start_job remove-memory h1 512M
await 10 "phase pre" guest h1 'grep -qs pre /run/trace'
lab hvd kill
lab hvd start
await 20 "phase undo" guest h1 'grep -qs undo /run/trace'
await 15 "a session" agent_is h1 ready

step "hvd is killed between plug and online: what it began is completed, and the hooks hear of an addition"
guest h1 'rm /run/trace'
start_job add-memory h1 512M
await 10 "phase pre" guest h1 'grep -qs pre /run/trace'
lab hvd kill
# As if it had come so far: plugged, and in a guest that brings nothing online by itself.
guest h1 'echo offline >/sys/devices/system/memory/auto_online_blocks'
plugged=$(host_plugged h1)
qmp h1 object-add "{\"qom-type\":\"memory-backend-ram\",\"id\":\"opendlpar-mem-9\",\"size\":$((512 * MiB))}" >/dev/null
qmp h1 device_add '{"driver":"pc-dimm","id":"opendlpar-dimm-9","memdev":"opendlpar-mem-9"}' >/dev/null
# Else nothing has come by its account, and the hooks rightly hear of that.
await 20 "the guest to see its blocks" guest h1 '[ $(grep -l offline /sys/devices/system/memory/memory*/state | wc -l) = 4 ]'
lab hvd start
await 20 "phase post" guest h1 'grep -qs post /run/trace'
await 15 "a session" agent_is h1 ready
check_accounts h1 $((plugged + 512 * MiB))
# By now the guest's own grace of 10 s is over for the step before, too.
sleep 3
assert_equal "calls" "check pre post" "$(trace)"

step "guestd is restarted in pre: it goes at once, pre is called again, and the removal goes on"
guest h1 'rm /run/trace'
start_job remove-memory h1 512M
await 10 "phase pre" guest h1 'grep -qs pre /run/trace'
guest h1 'kill $(cat /run/guestd.pid)'
begin=$(date +%s%N)
await 30 "the job's end" job_ended "$job_id"
took=$((($(date +%s%N) - begin) / 1000000))
note "ended $took ms after guestd was asked to end"
assert_at_most "milliseconds until the end" "$(patience 9000)" "$took"
assert_equal "calls" "check pre pre post" "$(trace)"
assert_equal "the job" DONE "$(job "$job_id" .state)"
check_accounts h1

step "the hook that ships: a program gives its memory back, and hears when it may have it again"
no_hooks
put $folder/50-signal 755 <"$tests_root/hooks/examples/opendlpar-signal"
put /etc/opendlpar/signal.conf 644 <<'TEXT'
# who           leaves  comes
/run/hog.pid    USR1    USR2
nobody-at-all   TERM    -
TEXT
put /run/hog.sh 755 <<'TEXT'
echo $$ >/run/hog.pid
trap 'rm -f /tmp/cache; echo shrunk >>/run/trace' USR1
trap 'echo grows >>/run/trace' USR2
dd if=/dev/zero of=/tmp/cache bs=1M count=1000 2>/dev/null
echo filled >>/run/trace
while :; do sleep 0.1; done
TEXT
guest h1 'setsid sh /run/hog.sh </dev/null >/dev/null 2>&1 & sleep 0.5'
await 60 "the cache" guest h1 'grep -qs filled /run/trace'
expect 0 cli -o json remove-memory h1 1G
assert_done $GiB
assert_equal "what the program heard" "filled shrunk" "$(trace)"
expect 0 cli add-memory h1 512M
await 5 "the program's growth" guest h1 'grep -qs grows /run/trace'
guest h1 'printf "/run/hog.pid NOSUCH USR2" >/etc/opendlpar/signal.conf' # and no end of its line
refused remove-memory h1 512M
has_reason hook-refused 'signal.conf:1: not WHO SIGNAL SIGNAL'
guest h1 'kill -9 $(cat /run/hog.pid); rm /etc/opendlpar/signal.conf'

step "the folder goes: nobody is asked any more"
guest h1 "rm -r $folder"
expect 0 cli -o json remove-memory h1 512M
assert_done $((512 * MiB))
check_accounts h1 0

step "the host's own hooks heard it all"
note "$(tail -n 4 "$work_dir/notes")"
assert_equal "the first job's" "begin add h1 $((512 * MiB))  
end add h1 $((512 * MiB)) done $((512 * MiB))" "$(head -n 2 "$work_dir/notes")"
grep -q "^end remove h1 $((512 * MiB)) failed 0$" "$work_dir/notes" || fail "no failure among the notes"
grep -q "^end remove h1 $((512 * MiB)) cancelled 0$" "$work_dir/notes" || fail "no cancellation among the notes"
cat >"$work_dir/host-hooks/20-hang" <<'TEXT'
#!/bin/sh
sleep 5432
TEXT
chmod 757 "$work_dir/host-hooks/20-hang"
expect 0 cli add-memory h1 512M
await 5 "the refusal in the log" grep -q '20-hang, begin: not run' "$LAB_DIR/hvd.log"
chmod 755 "$work_dir/host-hooks/20-hang"
begin=$(date +%s%N)
expect 0 cli remove-memory h1 512M
note "with a hook that hangs on the host: $((($(date +%s%N) - begin) / 1000000)) ms"
await 10 "the limit in the log" grep -q '20-hang, begin: it did not end within 2.0 s' "$LAB_DIR/hvd.log"
await 10 "the end of it" bash -c '! pgrep -x -f "sleep 5432" >/dev/null'
test_end
