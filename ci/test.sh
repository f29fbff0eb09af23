#!/usr/bin/env bash
# Builds the wheel, installs it into an empty environment, and runs the suite on both cores, with the checkout
# out of reach. Arguments go to pytest. PYTHON chooses the interpreter, EXTRAS what is installed.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

interpreter=$(newest_complete)
say "$("$interpreter" -VV)"
install_wheel "$work/test" "$interpreter" "[${EXTRAS:-test}]"
suite "$work/suite"
cd "$work/suite"
WARMSET_REQUIRE_COMPILED=1 "$work/test/bin/python" -c 'import warmset; print(warmset.__file__)'

statuses=()
run() {
    local status=0
    "$work/test/bin/python" -m pytest -q "$@" || status=$?
    statuses+=("$status")
}

say "the suite, two tests at a time"
run -n 2 --dist worksteal -m "not cluster" "$@"
say "the tests that start clusters, one at a time"
run -m cluster "$@"
# Arguments may leave no test to one of the two: then its status is 5.
case ${statuses[*]} in
    "0 0" | "0 5" | "5 0") ;;
    *) say "pytest failed: statuses ${statuses[*]}"; exit 1 ;;
esac
