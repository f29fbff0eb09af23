#!/usr/bin/env bash
# Both cores without the interpreter's lock: the suite but for what has dependencies that are not to
# be had there, faults, schedules, by 8 threads a soak and accounts, and what threads get done.
# ci/freethreaded.sh [INTERPRETER [SECONDS OF SOAK AND OF ACCOUNTS]]
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
install "$work/venv" "$work/source[otel,prometheus]" pytest psutil opentelemetry-sdk
install "$work/venv" --only-binary :all: hypothesis
rm -rf "$work/source"
suite "$work/suite"
cd "$work/suite"

say "the import leaves the lock off"
"$work/venv/bin/python" -W error -c '
import sys, warmset
assert warmset.implementation == "compiled" and not sys._is_gil_enabled()'

say "the suite, on both cores"
"$work/venv/bin/python" -m pytest -q --examples 30 tests \
    --ignore tests/cli --ignore tests/engines --ignore tests/share --ignore tests/test_docs.py \
    --ignore tests/memory/test_policy_benchmark.py

for pure in 0 1; do
    for mode in faults schedules "soak --seconds $seconds"; do
        say "$mode, WARMSET_PURE=$pure"
        # shellcheck disable=SC2086
        WARMSET_PURE=$pure "$work/venv/bin/python" tests/support/stress.py $mode
    done
    say "accounts, WARMSET_PURE=$pure"
    WARMSET_PURE=$pure "$work/venv/bin/python" tests/support/accounts.py --seconds "$seconds"
done

say "throughput of 1 to 4 threads"
"$work/venv/bin/python" -m benchmarks --only threads --no-write
