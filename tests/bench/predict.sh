# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What --dry-run says of each device, and what then becomes of it. Bars: issue 4.
#
# A guest has eight DIMMs in zone Movable. For each seed pipes hold pages of half of them, 1 to 32 in each, in places that
# the seed chooses. All DIMMs are asked for, first with --dry-run, then in earnest. A device counts as predicted wrongly
# when it was to leave and did not, or the reverse.
#
# A device that stayed must be named with the block, the kind of page and the count. The load knows which pages it holds,
# so that these are compared as well.

# shellcheck disable=SC2154  # the variables of lib.sh, and those that its functions set

# shellcheck source=tests/bench/lib-loads.sh
. "$repo_root/tests/bench/lib-loads.sh"

bench=predict
seeds_min=10 # for a verdict

# hmc ARGUMENT...: sets answer, a job; its exit code is in what it says.
hmc() {
    answer=$(cli -o json remove-memory "$guest_name" $((plugged_bytes / MiB))M "$@" 2>/dev/null) || true
    [[ $(jq -r '.state // "none"' <<<"$answer") != none ]] || die "remove-memory $*: $answer"
}

# one_seed SEED
one_seed() {
    local before dry wet stayed

    load_start pins "$1" $((1 << ($1 % 6))) "${ranges[@]}"
    take_census
    before=$(cli -o json show "$guest_name" | jq -c '[.devices[] | {id, start: .address}]')
    hmc --dry-run
    dry=$answer
    hmc --wait 120s
    wet=$answer
    stayed=$(cli -o json show "$guest_name" | jq -c '[.devices[].id]')
    jq -cn --argjson seed "$1" --argjson before "$before" --argjson dry "$dry" --argjson wet "$wet" --argjson stayed "$stayed" \
        --argjson census "$census" '
        def named: select((.block | startswith("0x")) and (.message | test("[0-9]+ (pinned|slab|page[- _]table|huge|unmovable)")));
        def number: ltrimstr("0x") | explode | reduce .[] as $c (0; . * 16 + (if $c > 57 then $c - 87 else $c - 48 end));
        $before[] | . as $d | .id as $id
        | ($dry.plan | any(startswith("take \($id) "))) as $predicted
        | ($stayed | index($id) == null) as $left
        | ([$wet.reasons[] | select(.device == $id) | named][0]) as $reason
        | (if $reason then ($reason.block | number) else null end) as $address
        | ([$census.devices[].blocks[] | select(.start == $address)][0].pinned) as $pinned
        | {seed: $seed, device: $id, usec: $wet.elapsed_usec, predicted_leaves: $predicted, left: $left,
           truth_leaves: ([$census.devices[] | select(.start == $d.start)][0].obstacles == 0),
           reasons: [$wet.reasons[] | select(.device == $id)], dry_reasons: [$dry.reasons[] | select(.device == $id)],
           named: ($reason != null), pinned_in_named_block: $pinned,
           count_is_true: ($reason != null and ($reason.message | test("(^|[^0-9])\($pinned) pinned")))}' >>"$work_dir/devices"
    say "$bench: seed $1: $(jq -s --argjson seed "$1" -r 'map(select(.seed == $seed))
        | "\(map(select(.left)) | length) of \(length) left, \(map(select(.predicted_leaves != .left)) | length) predicted wrongly"' "$work_dir/devices")"
    load_stop
    cli add-memory "$guest_name" $(((plugged_bytes - $(jq length <<<"$stayed") * device_bytes) / MiB))M --zone movable >/dev/null
    list_devices
    expect_state "$plugged_bytes" guest
}

# make_rows SEEDS
make_rows() {
    jq -c -s --argjson seeds "$1" --argjson seeds_min "$seeds_min" '
        def verdict(f): if $seeds < $seeds_min then "too few seeds" elif f then "ok" else "missed" end;
        (map(select(.predicted_leaves != .left)) | length) as $wrong
        | map(select(.left | not)) as $stuck
        | ($stuck | map(select(.named)) | length) as $named
        | {benchmark: "predict", group: "\($seeds) seeds", row: "devices predicted wrongly", kind: "ours", value: $wrong, of: length, bar: 0.1,
           verdict: verdict($wrong * 10 <= length), samples: .},
          {benchmark: "predict", group: "\($seeds) seeds", row: "stuck devices named with block, kind and count", kind: "ours",
           value: $named, of: ($stuck | length), bar: 1, verdict: verdict($named == ($stuck | length))},
          {benchmark: "predict", group: "\($seeds) seeds", row: "  of them with the count that the load knows", kind: "info",
           value: ($stuck | map(select(.count_is_true)) | length), of: ($stuck | length), bar: null, verdict: null},
          {benchmark: "predict", group: "\($seeds) seeds", row: "devices that left or stayed against the census", kind: "info",
           value: (map(select(.truth_leaves != .left)) | length), of: length, bar: null, verdict: null},
          {benchmark: "predict", group: "\($seeds) seeds", row: "seconds that a removal took, at most", kind: "info",
           value: (map(.usec) | max / 1000000 | round), of: null, bar: null, verdict: null}' "$work_dir/devices"
}

bench_run() {
    local i seed=${BENCH_SEED:-1} n=${bench_rounds:-$seeds_min} row

    loads_prepare
    say "$bench: booting a guest"
    boot_busy p1 movable
    for ((i = 0; i < n; i++)); do
        one_seed $((seed + i))
    done
    while read -r row; do
        own_row "$row"
    done < <(make_rows "$n")
    {
        printf '\n%-60s %6s %6s %6s\n' "predict: seeds $seed to $((seed + n - 1))" '' of bar
        jq -r 'select(.benchmark == "predict") | [.row, .value, .of // "", .bar // "", .verdict // ""] | join("|")' "$own_rows" |
            while IFS='|' read -r row value of bar verdict; do
                printf '  %-58s %6s %6s %6s  %s\n' "$row" "$value" "$of" "$bar" "$verdict"
            done | sed 's/ *$//'
    } >"$work_dir/table-predict"
}
