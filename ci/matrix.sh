#!/usr/bin/env bash
# The whole suite on each interpreter that is present; arguments narrow it down: 3.12 3.13
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# shellcheck disable=SC2086
[ $# -gt 0 ] || set -- $supported
mapfile -t interpreters < <(present "$@")
failed=()
for interpreter in "${interpreters[@]}"; do
    WARMSET_CI_WORK=$shared PYTHON=$interpreter bash "$root/ci/test.sh" || failed+=("$interpreter")
done
say "${#interpreters[@]} interpreters; failed: ${failed[*]:-none}"
[ ${#interpreters[@]} -gt 0 ] && [ ${#failed[@]} -eq 0 ]
