#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# hvd is killed at its crash points, and answers to it go wrong: see crash.c. A sample by chance; all of them with
# OPENDLPAR_ALL=1, as "scripts/check --all" has it. CRASH_SEED repeats a sample.
set -euo pipefail

export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1
options=()
((${OPENDLPAR_ALL:-0} == 0)) || options+=(--all)
[[ -z ${CRASH_SEED:-} ]] || options+=(--seed "$CRASH_SEED")
exec "$BUILD/tests/integration/crash" "${options[@]}" --seconds "${CRASH_SECONDS:-20}" "$BUILD"
