#!/usr/bin/env bash
# The pure wheel, built from the sdist without a compiler, in an environment that has no compiled core.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

file=$(pure_wheel)
interpreter=$(newest_complete)
environment "$work/pure" "$interpreter"
install "$work/pure" "warmset[test-core] @ file://$file"
suite "$work/suite"
cd "$work/suite"
say "the pure wheel"
"$work/pure/bin/python" -c 'import warmset; assert warmset.implementation == "pure"'
"$work/pure/bin/python" -m pytest -q --pure-only --examples 30 \
    tests/test_lookup.py tests/test_model.py tests/test_import.py tests/test_legacy.py
