#!/usr/bin/env bash
# The tests of the core (ci/core_tests.txt) on each interpreter that is present, but for the one that runs the
# whole suite. Arguments narrow it down: 3.10 3.12
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

core() {
    local environment
    environment=$(mktemp -d "$work/core.XXXXXX")
    say "$("$1" -VV)"
    install_wheel "$environment" "$1" "[test-core]"
    cd "$work/suite"
    "$environment/bin/python" ci/core_tests.py
}

suite "$work/suite"
if [ $# = 0 ]; then
    whole=$(newest_complete)
    # shellcheck disable=SC2086
    mapfile -t interpreters < <(present $supported | grep -vxF "$whole")
else
    mapfile -t interpreters < <(present "$@")
fi
if [ ${#interpreters[@]} -gt 0 ]; then
    wheels "${interpreters[@]}" >/dev/null
    two_at_a_time core "${interpreters[@]}"
fi
say "${#interpreters[@]} interpreters"
