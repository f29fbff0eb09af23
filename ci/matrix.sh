#!/usr/bin/env bash
# The suite's quick form on each interpreter that is present; arguments narrow it down: 3.12 3.13
# Clusters are started on one of them; test.sh does on another.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

ran=0
[ $# -gt 0 ] || set -- 3.10 3.11 3.12 3.13 3.14
for version in "$@"; do
    for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/$version.*/bin/python; do
        "$candidate" -c 'import venv' 2>/dev/null || continue
        say "$("$candidate" -VV)"
        environment "$work/$version" "$candidate"
        cp -r "$root" "$work/source-$version"
        rm -rf "$work/source-$version/build"
        install "$work/$version" "$work/source-$version[test]"
        rm -rf "$work/source-$version"
        suite "$work/suite-$version"
        chosen="not cluster"
        [ "$version" != 3.13 ] || chosen=""
        (cd "$work/suite-$version" &&
            WARMSET_REQUIRE_COMPILED=1 "$work/$version/bin/python" -c 'import warmset' &&
            "$work/$version/bin/python" -m pytest -q --examples 20 -m "$chosen")
        ran=$((ran + 1))
        break
    done
done
say "$ran interpreters"
[ "$ran" -gt 0 ]
