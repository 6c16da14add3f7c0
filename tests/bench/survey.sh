# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What it costs to look before a removal. Bar: issue 4.
#
# floor      the removal of 4 GiB, in hvd, from an idle guest of 2 GiB that has these 4 GiB in eight DIMMs. All that is
#            plugged is asked for, so that there is nothing to choose and no survey
# survey     of the same 4 GiB, as part of a removal of all DIMMs but one, by hvd's log: from its request to guestd's answer
# every page the same set, for memory-map and --dry-run

# shellcheck disable=SC2154  # the variables of lib.sh, and those that its functions set

# shellcheck source=tests/bench/lib-loads.sh
. "$repo_root/tests/bench/lib-loads.sh"

bench=survey
row_floor="removal of 4 GiB"
row_survey="survey of 4 GiB, before a removal"
row_all="survey of every page, for memory-map"

note() { # ROW USEC
    [[ -n $first ]] || sample "$bench" "4 GiB, idle" "$1" "$2"
}

# What hvd's log says of the last survey, which must have been one of all that is plugged.
note_survey() { # ROW
    local line n_blocks msec

    line=$(grep ' blocks surveyed in ' "$LAB_DIR/hvd.log" | tail -n 1)
    read -r n_blocks msec < <(sed -E 's/.*: ([0-9]+) blocks surveyed in ([0-9.]+) ms.*/\1 \2/' <<<"$line")
    ((n_blocks == plugged_bytes / block_bytes)) || die "this is no survey of what is plugged: $line"
    note "$1" "$(jq -n "$msec * 1000 | round")"
}

# remove BYTES: by hmc-cli, wholly. Sets usec to what hvd took.
remove() {
    cli remove-memory "$guest_name" $(($1 / MiB))M >/dev/null || die "$(($1 / MiB)) MiB did not leave an idle guest"
    usec=$(cli -o json jobs | jq '.[-1].elapsed_usec')
}

add() { # BYTES
    cli add-memory "$guest_name" $(($1 / MiB))M --zone movable >/dev/null
    expect_state "$plugged_bytes" "$first"
}

round() {
    expect_state "$plugged_bytes" "$first"
    remove $((plugged_bytes - device_bytes))
    note_survey "$row_survey"
    add $((plugged_bytes - device_bytes))
    remove "$plugged_bytes"
    note "$row_floor" "$usec"
    add "$plugged_bytes"
    cli -o json memory-map "$guest_name" >/dev/null
    note_survey "$row_all"
}

bench_run() {
    local i

    # hvd's log is to have the times.
    mkdir -m 700 "$LAB_DIR"
    printf '[hvd]\nlog_level = debug\npool_total = 4T\n' >"$LAB_DIR/hvd.conf"
    loads_prepare
    say "$bench: booting a guest"
    boot_busy s1 movable
    row "$bench" "4 GiB, idle" "$row_floor" floor
    row "$bench" "4 GiB, idle" "$row_survey" ours 0.10
    row "$bench" "4 GiB, idle" "$row_all" info
    # The first time, host and guest touch memory and code that they have at hand ever after.
    first=guest
    round
    first=''
    for ((i = 1; i <= ${bench_rounds:-$rounds_usual}; i++)); do
        say "$bench: round $i"
        round
    done
}
