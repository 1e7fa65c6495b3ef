# SPDX-License-Identifier: Apache-2.0
# Sourced by tests of bad input: each must end in one error line that names cause and remedy, and a bad status.
# Output is libtest's, so that the harness reads it like any other test program's.
failures=

# refuses NAME PATTERN COMMAND...: the command fails with one "Error: " line that matches.
refuses() {
    name=$1 want=$2
    shift 2
    out=$("$@" 2>&1)
    rc=$?
    lines=$(printf '%s\n' "$out" | grep -c '^Error: ')
    if [ "$rc" -ne 0 ] && [ "$rc" -lt 128 ] && [ "$lines" = 1 ] && printf '%s\n' "$out" | grep -q "^Error: .*$want"; then
        echo "test $name ... ok"
    else
        echo "test $name ... FAILED"
        failures="$failures
---- $name stdout ----
status $rc, $lines error lines; wanted status 1 to 127 and one line with: $want
$out
"
    fi
}

# holds NAME COMMAND...: the command succeeds.
holds() {
    name=$1
    shift
    if out=$("$@" 2>&1); then
        echo "test $name ... ok"
    else
        echo "test $name ... FAILED"
        failures="$failures
---- $name stdout ----
$out
"
    fi
}

# The exit status of the test program; prints why tests failed.
finish() {
    [ -n "$failures" ] || exit 0
    echo "failures:"
    printf '%s\n' "$failures"
    exit 1
}
