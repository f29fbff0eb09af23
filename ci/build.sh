#!/usr/bin/env bash
# Builds the sdist, and from it the pure wheel and a compiled wheel for each interpreter that is present;
# checks what they hold. The steps of one `.ci/run` share them. Arguments narrow it down: 3.12 3.13
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# shellcheck disable=SC2086
[ $# -gt 0 ] || set -- $supported
mapfile -t interpreters < <(present "$@")
[ ${#interpreters[@]} -gt 0 ] || { say "none of these interpreters is present: $*"; exit 1; }
say "sdist, pure wheel, ${#interpreters[@]} compiled wheels"
wheels "${interpreters[@]}"
pure_wheel >/dev/null
"$python" "$root/ci/check_artefacts.py" "$shared"/sdist/* "$shared"/pure/*.whl "$shared"/wheel-*/*.whl
