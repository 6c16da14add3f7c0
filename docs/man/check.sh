#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The manual pages render without a warning, and opendlpar.7 explains every error code of common/error.c and no other.
# check.sh PAGE... Needs groff or mandoc; without them it skips (77).
set -euo pipefail

here=$(cd -- "${BASH_SOURCE[0]%/*}" && pwd -P)
failures=0

if command -v groff >/dev/null; then
    render() { groff -mandoc -Tutf8 -ww -z "$1" 2>&1; }
elif command -v mandoc >/dev/null; then
    render() { mandoc -T lint -W warning "$1" 2>&1 || true; }
else
    echo "SKIP: neither groff nor mandoc is installed"
    exit 77
fi

for page in "$@"; do
    said=$(render "$page") || said+=" (exit $?)"
    if [[ -z $said ]]; then
        echo "ok: ${page##*/}"
    else
        printf 'FAILED: %s\n%s\n' "${page##*/}" "$said"
        failures=$((failures + 1))
    fi
done

in_code=$(sed -n 's/^ *\[ERROR_[A-Z_]*\] = { "\([a-z-]*\)".*/\1/p' "$here/../../common/error.c" | grep -vx none | sort)
in_page=$(sed -n '/^\.Sh DIAGNOSTICS/,/^\.Sh EXAMPLES/s/^\.It Cm //p' "$here/opendlpar.7" | sort)
if [[ -n $in_code && $in_code == "$in_page" ]]; then
    echo "ok: error codes ($(wc -l <<<"$in_code"))"
else
    echo "FAILED: error codes of common/error.c (<) and opendlpar.7 (>)"
    diff <(echo "$in_code") <(echo "$in_page") || true
    failures=$((failures + 1))
fi
((failures == 0))
