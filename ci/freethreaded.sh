#!/usr/bin/env bash
# The core that a free-threaded interpreter gets, without the interpreter's lock: the suite's threaded
# parts, faults, schedules and a soak by 8 threads. ci/freethreaded.sh [INTERPRETER [SOAK SECONDS]]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

candidate=${1:-python3.13t}
seconds=${2:-120}
if ! "$candidate" -c 'import sys; sys.exit(sys._is_gil_enabled())' 2>/dev/null; then
    say "no free-threaded interpreter ($candidate): nothing is run"
    exit 0
fi
say "$("$candidate" -VV)"
environment "$work/venv" "$candidate"
cp -r "$root" "$work/source"
rm -rf "$work/source/build"
install "$work/venv" "$work/source" pytest
install "$work/venv" --only-binary :all: hypothesis
rm -rf "$work/source"
suite "$work/suite"
cd "$work/suite"
"$work/venv/bin/python" -W error -c '
import sys, warmset
assert warmset.implementation == "pure" and not sys._is_gil_enabled()'
"$work/venv/bin/python" -m pytest -q --pure-only --examples 30 \
    tests/test_lookup.py tests/test_leases.py tests/test_builds.py tests/test_reentry.py tests/test_model.py
for mode in faults schedules "soak --seconds $seconds"; do
    say "$mode"
    # shellcheck disable=SC2086
    "$work/venv/bin/python" tests/support/stress.py $mode
done
