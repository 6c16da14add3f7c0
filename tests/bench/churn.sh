# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# 200 removals while what the guest does changes, some of them cancelled in the middle. Bars: issue 4. It is
# tests/lab/churn.sh, which `scripts/check` runs with a few.

# shellcheck disable=SC2154  # the variables of lib.sh, and those that its functions set

removals_min=200 # for a verdict

# row WORDS KEY: a count that must be 0
churn_row() {
    own_row "$(jq -cn --arg row "$1" --arg key "$2" --argjson min "$removals_min" --argjson result "$result" '
        {benchmark: "churn", group: "\($result.removals) removals", row: $row, kind: "ours", value: $result[$key], bar: 0,
         verdict: (if $result[$key] > 0 then "missed" elif $result.removals < $min then "too few removals" else "ok" end),
         result: $result}')"
}

bench_run() {
    local result log=$work_dir/churn.log

    [[ $bench_arch == x86_64 ]] || die "this benchmark is for x86_64 guests"
    say "churn: ${bench_rounds:-$removals_min} removals, of which each takes some seconds"
    # In a lab of its own.
    env -u LAB_DIR COUNT="${bench_rounds:-$removals_min}" SEED="${BENCH_SEED:-1}" CHURN_RESULT="$work_dir/churn" \
        LAB_LOAD="$tools_dir/lab-load" bash "$repo_root/tests/lab/churn.sh" >"$log" 2>&1 || true
    grep BAD "$log" >&2 || true
    result=$(cat "$work_dir/churn" 2>/dev/null) || {
        tail -n 60 "$log" >&2
        die "the removals did not come to an end"
    }
    churn_row "jobs that hang" hung
    churn_row "blocks left offline" offline
    churn_row "accounts that differ" unequal
    churn_row "processes killed for want of memory" oom
    churn_row "loads that died" died
    {
        jq -r '"\nchurn: \(.removals) removals, seed \(.seed): \(.DONE) done, \(.PARTIAL) in part, \(.FAILED) failed or refused, \(.CANCELLED) cancelled; \(.removed_mib) MiB in all; \(.overshoot_msec) ms beyond a limit at most"' <<<"$result"
        jq -r 'select(.benchmark == "churn") | [.row, .value, .verdict] | join("|")' "$own_rows" |
            while IFS='|' read -r row value verdict; do
                printf '  %-58s %6s  %s\n' "$row" "$value" "$verdict"
            done
    } >"$work_dir/table-churn"
}
