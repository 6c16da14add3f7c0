# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# 200 removals while what the guest does changes, some of them cancelled in the middle. Bars: issue 4. It is
# tests/lab/churn.sh, which `scripts/check` runs with a few.

# shellcheck disable=SC2154  # the variables of lib.sh, and those that its functions set

removals_min=200 # for a verdict

# churn_row WORDS KEY BAR
churn_row() {
    own_row "$(jq -cn --arg row "$1" --arg key "$2" --argjson bar "$3" --argjson min "$removals_min" --argjson result "$result" '
        {benchmark: "churn", group: "\($result.removals) removals", row: $row, kind: "ours", value: $result[$key], bar: $bar,
         verdict: (if $result[$key] > $bar then "missed" elif $result.removals < $min then "too few removals" else "ok" end),
         result: $result}')"
}

bench_run() {
    local result log=$work_dir/churn.log code=0

    [[ $bench_arch == x86_64 ]] || die "this benchmark is for x86_64 guests"
    say "churn: ${bench_rounds:-$removals_min} removals, of which each takes some seconds"
    # In a lab of its own.
    env -u LAB_DIR COUNT="${bench_rounds:-$removals_min}" SEED="${BENCH_SEED:-1}" CHURN_RESULT="$work_dir/churn" \
        LAB_LOAD="$tools_dir/lab-load" bash "$repo_root/tests/lab/churn.sh" >"$log" 2>&1 || code=$?
    grep BAD "$log" >&2 || true
    # Beside what is counted it also fails for what should never be.
    if ! result=$(cat "$work_dir/churn" 2>/dev/null) ||
        { ((code != 0)) && jq -e '.hung + .offline + .unequal + .oom + .died == 0' <<<"$result" >/dev/null; }; then
        tail -n 100 "$log" >&2
        die "the removals did not come to a good end"
    fi
    churn_row "jobs that hang" hung 0
    churn_row "blocks left offline" offline 0
    churn_row "accounts that differ" unequal 0
    churn_row "processes killed for want of memory" oom 0
    churn_row "loads that died" died 0
    churn_row "ms that a job took beyond its limit, or a cancel, at most" overshoot_msec 2000
    {
        jq -r '"\nchurn: \(.removals) removals, seed \(.seed): \(.DONE) done, \(.PARTIAL) in part, \(.FAILED) failed or refused, \(.CANCELLED) cancelled; \(.removed_mib) MiB in all"' <<<"$result"
        jq -r 'select(.benchmark == "churn") | [.row, .value, .bar, .verdict] | join("|")' "$own_rows" |
            while IFS='|' read -r row value bar verdict; do
                printf '  %-58s %6s %6s  %s\n' "$row" "$value" "$bar" "$verdict"
            done
    } >"$work_dir/table-churn"
}
