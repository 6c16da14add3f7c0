# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The policy over the traces of tests/traces, in hvd-sim, beside the published rules of others. Bars: issue 7.
#
# short    GiB-seconds of what guests wanted and did not have. At most half of what the best of the peers leaves short; and
#          over all traces at most 115 % of what no policy can save, which is what the clairvoyant optimum leaves short
# moved    GiB. At most 1.5 times what the best of the peers moves, which is the one that leaves least short
# speed    partition-seconds a second
#
# Where a bar is missed the note says how the optimum fares, so that one that nobody could meet can be told from one that
# we do not meet. --rounds means nothing here: the same trace gives the same figures.

# shellcheck disable=SC2154  # the variables of lib.sh, and those that its functions set

policy_peers='["mom", "proxmox", "squeezed"]'

# Lines of hvd-sim on standard input; rows on standard output.
policy_rows() {
    # shellcheck disable=SC2016  # jq's variables
    jq -sc --argjson peers "$policy_peers" '
        def tenth: . * 10 | round / 10;
        def row($trace; $row; $value; $bar; $note):
            {benchmark: "policy", group: $trace, row: $row, kind: "ours", value: ($value | tenth), bar: ($bar | tenth),
             verdict: (if $value <= $bar then "ok" else "missed" end), note: (if $value <= $bar then "" else $note end)};
        . as $all
        | ([$all[].trace] | unique[]) as $trace
        | [$all[] | select(.trace == $trace)] as $runs
        | ($runs[] | select(.policy == "opendlpar")) as $ours
        | ($runs[] | select(.policy == "optimum")) as $optimum
        | ([$runs[] | select(.policy as $p | $peers | index($p))] | min_by(.shortfall_gib_seconds)) as $best
        | row($trace; "short, of half of \($best.policy)"; $ours.shortfall_gib_seconds; $best.shortfall_gib_seconds / 2;
              if $optimum.unavoidable_gib_seconds > $best.shortfall_gib_seconds / 2
              then "nobody can: \($optimum.unavoidable_gib_seconds | tenth) are short whatever is moved" else "" end),
          row($trace; "moved, of 1.5 times \($best.policy)"; $ours.moved_gib; $best.moved_gib * 1.5;
              "\($best.policy) moves \($best.moved_gib | tenth) and leaves \($best.shortfall_gib_seconds | tenth) short;"
              + " the optimum moves \($optimum.moved_gib | tenth)")'
}

policy_totals() {
    # shellcheck disable=SC2016
    jq -sc '
        def tenth: . * 10 | round / 10;
        [.[] | select(.policy == "opendlpar")] as $ours
        | ([$ours[].shortfall_gib_seconds] | add) as $short
        | ([$ours[].unavoidable_gib_seconds] | add * 1.15) as $bar
        | ([$ours[] | .partition_seconds / ([.seconds, 0.000001] | max)] | min) as $speed
        | {benchmark: "policy", group: "all traces", row: "short, of 115 % of the optimum", kind: "ours", value: ($short | tenth),
           bar: ($bar | tenth), verdict: (if $short <= $bar then "ok" else "missed" end)},
          {benchmark: "policy", group: "all traces", row: "partition-seconds a second, at least", kind: "ours",
           value: ($speed | round), bar: 10000, verdict: (if $speed >= 10000 then "ok" else "missed" end)}'
}

bench_run() {
    local out=$work_dir/policy.json row group last='' value bar verdict note

    "$build_dir/hvd/hvd-sim" -o json "$repo_root"/tests/traces/*.trace >"$out"
    while read -r row; do
        own_row "$row"
    done < <(policy_rows <"$out" && policy_totals <"$out")
    {
        printf '\n'
        "$build_dir/hvd/hvd-sim" "$repo_root"/tests/traces/*.trace
        while IFS='|' read -r group row value bar verdict note; do
            [[ $group == "$last" ]] || printf '\n%-52s %10s %10s\n' "policy: $group" '' bar
            last=$group
            printf '  %-50s %10s %10s  %s%s\n' "$row" "$value" "$bar" "$verdict" "${note:+: $note}"
        done < <(jq -r 'select(.benchmark == "policy") | [.group, .row, .value, .bar, .verdict, .note // ""] | join("|")' "$own_rows")
    } >"$work_dir/table-policy"
}
