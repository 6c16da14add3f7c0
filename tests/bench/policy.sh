# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The policy over the traces of tests/traces, in hvd-sim, beside the published rules of others; and over five others of each
# kind, which nothing was set by. Bars: issue 7.
#
# short    GiB-seconds of what guests wanted and did not have. At most half of what the best of the peers leaves short; and
#          over all traces at most 115 % of what no policy can save, which is what the clairvoyant optimum leaves short
# moved    GiB. At most 1.5 times what the best of the peers moves, which is the one that leaves least short
# speed    partition-seconds a second
#
# Where a bar is missed the note compares like with like: what of the shortfall could be saved at all, and who moves how much
# for how little shortfall; and a bound from below of what anyone has to move. So a bar that nobody could meet can be told from
# one that we do not meet. --rounds means nothing here: the same trace gives the same figures.

# shellcheck disable=SC2154  # the variables of lib.sh, and those that its functions set

policy_peers='["mom", "proxmox", "squeezed"]'

# policy_floors FILE: its lines of hvd-sim, and for each trace what anyone has to move to meet the first bar; where nobody can
# meet that, to leave half of what the best of the peers does of what could be saved.
policy_floors() {
    local out=$1 trace short

    cat "$out"
    # shellcheck disable=SC2016
    while IFS=$'\t' read -r trace short; do
        "$build_dir/hvd/hvd-sim" -o json --floor "$short" "$repo_root/tests/traces/$trace"
    done < <(jq -rs --argjson peers "$policy_peers" '
        [.[] | select(.policy as $p | $peers | index($p))] | group_by(.trace)[]
        | .[0].unavoidable_gib_seconds as $lost | (map(.shortfall_gib_seconds) | min) as $best
        | [.[0].trace, (if $best / 2 < $lost then ($best + $lost) / 2 else $best / 2 end)] | @tsv' "$out")
}

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
        | ($all[] | select(.trace == $trace and .least_moved_gib)) as $floor
        | [$all[] | select(.trace == $trace and .policy)] as $runs
        | ($runs[] | select(.policy == "opendlpar")) as $ours
        | ($runs[] | select(.policy == "optimum")) as $optimum
        | ([$runs[] | select(.policy as $p | $peers | index($p))] | min_by(.shortfall_gib_seconds)) as $best
        | row($trace; "short, of half of \($best.policy)"; $ours.shortfall_gib_seconds; $best.shortfall_gib_seconds / 2;
              if $optimum.unavoidable_gib_seconds > $best.shortfall_gib_seconds / 2
              then "nobody can: \($optimum.unavoidable_gib_seconds | tenth) are short whatever is moved; of what could be saved"
                  + " \($best.policy) leaves \($best.shortfall_gib_seconds - $best.unavoidable_gib_seconds | tenth) short,"
                  + " we leave \($ours.shortfall_gib_seconds - $ours.unavoidable_gib_seconds | tenth)" else "" end),
          row($trace; "moved, of 1.5 times \($best.policy)"; $ours.moved_gib; $best.moved_gib * 1.5;
              (if $floor.least_moved_gib <= $best.moved_gib * 1.5 then "" else
                   "nobody can: who leaves at most \($floor.shortfall_gib_seconds | tenth) short moves at least"
                   + " \($floor.least_moved_gib | tenth); " end)
              + "\($best.policy) leaves \($best.shortfall_gib_seconds | tenth) short with that, we"
              + " \($ours.shortfall_gib_seconds | tenth); the optimum moves \($optimum.moved_gib | tenth) for"
              + " \($optimum.shortfall_gib_seconds | tenth)")'
}

# The same of the traces of other seeds: the worst of each kind, as a part of the bar.
policy_others() {
    # shellcheck disable=SC2016
    jq -sc --argjson peers "$policy_peers" '
        def hundredth: . * 100 | round / 100;
        [group_by(.seed, .trace)[]
            | (.[] | select(.policy == "opendlpar")) as $ours
            | ([.[] | select(.policy as $p | $peers | index($p))] | min_by(.shortfall_gib_seconds)) as $best
            | {trace: $ours.trace, short: ($ours.shortfall_gib_seconds / $best.shortfall_gib_seconds),
               saved: (($ours.shortfall_gib_seconds - $ours.unavoidable_gib_seconds)
                       / ($best.shortfall_gib_seconds - $best.unavoidable_gib_seconds)),
               ours: $ours.shortfall_gib_seconds, unavoidable: $ours.unavoidable_gib_seconds}] as $all
        | ($all | group_by(.trace)[]
            | (map(.short) | max | hundredth) as $value
            | {benchmark: "policy", group: "five other seeds", row: "short, part of the best, \(.[0].trace)", kind: "ours",
               value: $value, bar: 0.5, verdict: (if $value <= 0.5 then "ok" else "missed" end),
               note: (if $value <= 0.5 then "" else
                          "of what could be saved \(map(.saved | hundredth | tostring) | join(", "))" end)}),
          (($all | map(.ours) | add) / ($all | map(.unavoidable) | add) | hundredth) as $value
        | {benchmark: "policy", group: "five other seeds", row: "short, part of the optimum", kind: "ours", value: $value,
           bar: 1.15, verdict: (if $value <= 1.15 then "ok" else "missed" end)}'
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
    local out=$work_dir/policy.json others=$work_dir/policy-others.json row group last='' value bar verdict note seed

    "$build_dir/hvd/hvd-sim" -o json "$repo_root"/tests/traces/*.trace >"$out"
    for seed in 1 2 3 4 5; do
        mkdir "$work_dir/traces-$seed"
        "$repo_root/tests/traces/generate" "$work_dir/traces-$seed" "$seed"
        "$build_dir/hvd/hvd-sim" -o json "$work_dir/traces-$seed"/*.trace | jq -c --arg seed "$seed" '.seed = $seed' >>"$others"
    done
    while read -r row; do
        own_row "$row"
    done < <(policy_floors "$out" | policy_rows && policy_totals <"$out" && policy_others <"$others")
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
